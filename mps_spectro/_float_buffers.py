"""Windows and banks as the buffers of modules that compute in float32 or float64, and that may train at any time."""

from __future__ import annotations

from typing import Any, Callable, TypeVar

import torch
from torch import Tensor, nn

from ._arguments import HALVES

M = TypeVar("M", bound="FloatBuffers")


def own(table: Tensor) -> Tensor:
    """A copy that nobody else writes to, in float32 at least, without gradient."""
    return table.detach().to(torch.promote_types(table.dtype, torch.float32), copy=True)


class FloatBuffers(nn.Module):
    """Its buffers move with the module but do not become half or bfloat16, nor inference tensors.

    A tensor that was made in inference mode could never be saved for a backward pass, however much later.
    """

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        super().register_buffer(name, tensor, persistent)
        self._leave_inference_mode()

    def _leave_inference_mode(self) -> None:
        if torch.compiler.is_compiling():  # a graph has no such tensors
            return
        for name, buffer in self._buffers.items():
            if buffer is not None and buffer.is_inference():
                with torch.inference_mode(False):
                    self._buffers[name] = buffer.clone()

    def _apply(self: M, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> M:
        kept = dict(self._buffers)
        with torch.inference_mode(False):
            super()._apply(fn, recurse)
            for name, buffer in self._buffers.items():
                if buffer is not None and buffer.dtype in HALVES:
                    # half a window's digits would show in the result, which is computed in float32 anyway
                    self._buffers[name] = kept[name].to(buffer.device)  # type: ignore[union-attr]
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._leave_inference_mode()
