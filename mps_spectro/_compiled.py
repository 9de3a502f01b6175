"""Methods of modules under torch.compile, made once and kept by the module that they belong to."""

from __future__ import annotations

import threading
from typing import Any, Callable, Hashable

import torch

from ._cache import BoundedCache

_KEPT = "_compiled"
_lock = threading.Lock()


def _compile(method: Callable[..., Any], options: dict[str, Any], backend: str | Callable[..., Any]) -> Any:
    def compiled(*inputs: Any, **more: Any) -> Any:
        return method(*inputs, **options, **more)

    # The compiler counts recompilations by code object and gives up after a few: a ninth module would run uncompiled
    compiled.__code__ = compiled.__code__.replace()
    return torch.compile(compiled, backend=backend)


class CompiledMethods:
    """Mixin of modules, before `nn.Module` among the bases. Copies and pickles of a module begin without any.

    A module keeps the 64 that were used last.
    """

    def _compiled_method(self, name: str, backend: str | Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """The method `name` with these keyword arguments (hashable), compiled: the same function each time."""
        key = (name, backend, tuple(sorted(options.items())))
        return self._compiled_once(key, lambda: _compile(getattr(self, name), options, backend))

    def _compiled_once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        with _lock:
            kept = self.__dict__.get(_KEPT)
            if kept is None:
                kept = self.__dict__[_KEPT] = BoundedCache("compiled methods", 64)
        return kept.get(key, make)

    def get_compiled(self, *, backend: str | Callable[..., Any] = "aot_eager") -> Callable[..., Any]:
        """The module under torch.compile: the same function each time, with the values of the module.

        Args:
            backend: of torch.compile. "aot_eager" needs no compiler on the machine.
        """
        return self._compiled_method("__call__", backend)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != _KEPT}
