"""What modules that compute in float32 do with their windows and banks when they are cast to half."""

from __future__ import annotations

from typing import Callable, TypeVar

from torch import Tensor, nn

from ._arguments import HALVES

M = TypeVar("M", bound="FloatBuffers")


class FloatBuffers(nn.Module):
    """Its buffers move with the module but do not become half or bfloat16."""

    def _apply(self: M, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> M:
        kept = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            if buffer is not None and buffer.dtype in HALVES:
                # half a window's digits would show in the result, which is computed in float32 anyway
                self._buffers[name] = kept[name].to(buffer.device)  # type: ignore[union-attr]
        return self
