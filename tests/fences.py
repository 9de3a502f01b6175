"""Kernels whose buffers lie between guard bands: for tests that a kernel touches its own memory only.

Each tensor a kernel gets is replaced by a copy in the middle of a larger one that is full of a NaN with a pattern of
its own. What is read from outside shows in the result, what is written there shows in the pattern, and what a kernel
leaves out of its result is still NaN.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any, Iterator

import torch
from torch import Tensor

from mps_spectro import _clip, _extremes, _kernels, _moments, _repeat

PATTERN = 0x7FC0DEAD  # a quiet NaN that no arithmetic makes
MARGIN = 3001


def memory_of(tensor: Tensor) -> Tensor:
    """The numbers from the first to the last element of a tensor, whatever lies between them."""
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return tensor.as_strided((extent,), (1,))


class _Fenced:
    """A copy of a tensor's memory, floats or 32-bit integers, between two bands."""

    def __init__(self, tensor: Tensor, result: bool) -> None:
        self.source = memory_of(tensor)
        size = len(self.source)
        self.bits = torch.full((size + 2 * MARGIN + 2,), PATTERN, dtype=torch.int32, device=tensor.device)
        # kernels read pairs where the addresses allow it: keep what the address is a multiple of
        self.start = MARGIN + (tensor.data_ptr() - self.bits.data_ptr()) // 4 % 2 + MARGIN % 2
        self.stop = self.start + size
        self.inner = self.bits.view(self.source.dtype)[self.start : self.stop]
        assert self.inner.data_ptr() % 8 == tensor.data_ptr() % 8
        if not result:
            self.inner.copy_(self.source)

    def check(self, what: str, result: bool) -> None:
        outside = torch.cat([self.bits[: self.start], self.bits[self.stop :]])
        assert (outside == PATTERN).all(), f"written around {what}"
        inside = self.bits[self.start : self.stop]
        if result:
            assert (inside != PATTERN).all(), f"parts of {what} never written"
            self.source.copy_(self.inner)
        else:
            assert torch.equal(inside, self.source.view(torch.int32)), f"{what} was written"


def forget_launches() -> None:
    """Drops every kernel that is bound to its arguments, so that the next call binds it anew."""
    _kernels._prepared.clear()
    _kernels._launches.clear()
    _clip._launches.clear()
    _extremes._launches.clear()
    _moments._launches.clear()
    _repeat._recipes.clear()


@contextlib.contextmanager
def fenced_kernels() -> Iterator[Counter[str]]:
    """Fences every launch inside; counts["launches"] says how many there were."""
    counts: Counter[str] = Counter()
    bind = _kernels._bind

    def bind_fenced(*arguments: Any) -> Any:
        run = bind(*arguments)

        def run_fenced(*tensors: Tensor) -> None:
            last = len(tensors) - 1
            fences = [_Fenced(tensor, i == last) for i, tensor in enumerate(tensors)]
            run(*(fence.inner for fence in fences))
            for i, fence in enumerate(fences):
                fence.check(f"buffer({i})", i == last)
            counts["launches"] += 1

        return run_fenced

    forget_launches()
    _kernels._bind = bind_fenced
    try:
        yield counts
    finally:
        _kernels._bind = bind
        forget_launches()
