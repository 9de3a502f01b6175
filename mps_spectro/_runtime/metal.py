"""Runs shaders on Apple GPUs, through torch's own Metal compiler."""

from __future__ import annotations

from typing import Any

import torch

from . import RuntimeUnavailable, ShaderCompileError


def compile_source(source: str) -> Any:
    """Compiles complete shader text for the MPS device; the result is what `torch.mps.compile_shader` returns.

    Raises:
        RuntimeUnavailable: no MPS device here, or a torch before `torch.mps.compile_shader`.
        ShaderCompileError: the shader does not compile.
    """
    if not torch.backends.mps.is_available():
        raise RuntimeUnavailable("the metal runtime needs an MPS device, and torch finds none on this machine")
    if not hasattr(torch.mps, "compile_shader"):
        raise RuntimeUnavailable(f"torch {torch.__version__} has no torch.mps.compile_shader")
    try:
        return torch.mps.compile_shader(source)
    except SyntaxError as error:
        raise ShaderCompileError(str(error)) from error
