"""Compiles shaders for a runtime and keeps the result.

Each runtime module offers `compile_source(source) -> library`; `library.<kernel>(*args, threads=, group_size=)` follows
the calling convention of `torch.mps.compile_shader`.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

from .._cache import BoundedCache
from .._diagnostics import count_compile
from .source import assemble


class RuntimeUnavailable(RuntimeError):
    """The runtime cannot work on this machine (no compiler, no driver, no device)."""


class ShaderCompileError(RuntimeError):
    """A shader was refused by the runtime's compiler; the message is its log."""


_MODULES = {"metal": "metal", "cuda": "cuda", "host": "host"}
_libraries: BoundedCache[Any] = BoundedCache("libraries", 256)


def library(backend: str, shader: str, defines: tuple[tuple[str, int], ...], device: int = 0) -> Any:
    """The compiled library of `shader` (a file name in shaders/) for these defines, compiled at most once.

    Raises:
        RuntimeUnavailable: the runtime cannot work here.
        ShaderCompileError: the shader does not compile.
    """

    def build() -> Any:
        runtime = importlib.import_module("." + _MODULES[backend], __name__)
        start = time.perf_counter()
        built = runtime.compile_source(assemble(shader, defines))
        count_compile(time.perf_counter() - start)
        return built

    return _libraries.get((backend, shader, defines, device), build)
