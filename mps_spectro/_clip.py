"""torch.ops.mps_spectro.clip_: decibels no lower than `top` below their largest, in one more small pass.

    x[row, i] = max(x[row, i], max(x[row, :]) - top) + shift,  in place

For results that nobody differentiates or traces; everything else does the same with torch's functions.
"""

from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

from . import _backend, _kernels, _ops, _route
from ._cache import BoundedCache

_GROUP = 256
_MOST_PARTS = 256  # of a row, whose largest values are kept
_VALUES = 16  # of a thread

_ops._LIBRARY.define("clip_(Tensor(a!) x, float top, float shift) -> ()")
_clip_op = torch.ops.mps_spectro.clip_.default
_Launches = tuple[Callable[..., None], Callable[..., None], int]
_launches: BoundedCache[_Launches] = BoundedCache("launches of clip", 64)


def _bind(backend: str, device: torch.device, rows: int, length: int, top: float, shift: float) -> _Launches:
    """Launches of both kernels, and the parts of a row that the first one makes."""
    compiled = _kernels.library(backend, "clip.metal", (("GROUP", _GROUP),), device.index or 0)
    share = _GROUP * _VALUES
    pieces = -(-length // share)
    parts = min(_MOST_PARTS, pieces)
    _kernels._check_grid(rows * pieces)
    integers, floats = (length, parts, share, pieces), (top, shift)
    peaks = _kernels._bind(compiled.peaks, integers, floats, rows * parts, _GROUP)
    return peaks, _kernels._bind(compiled.clip, integers, floats, rows * pieces, _GROUP), parts


def _by_kernel(backend: str, x: Tensor, top: float, shift: float) -> Tensor:
    key = (backend, x.device, *x.shape, top, shift)
    peaks, clip, parts = _launches.get(key, lambda: _bind(*key))
    largest = x.new_empty((x.shape[0], parts))
    peaks(x, largest)
    clip(x, largest)
    return x


def _clip(x: Tensor, top: float, shift: float) -> None:
    backend = _backend.select(x.device.type)
    if backend != "torch" and x.dtype == torch.float32 and x.dim() == 2 and x.is_contiguous() and x.numel() > 0:
        if _route.attempt("clip_", backend, lambda: _by_kernel(backend, x, top, shift)) is not None:
            return
    torch.maximum(x, x.amax(-1, keepdim=True) - top, out=x)
    x.add_(shift)


_ops._LIBRARY.impl("clip_", _clip, "CompositeExplicitAutograd")


def clip_in_place(bands: Tensor, top: float, mode: str, shift: float) -> bool:
    """Whether a kernel has clipped `bands` (..., n_bands, n_frames) as filters.clipped does, and added the shift."""
    by_frames = bands.transpose(-1, -2)
    if (
        bands.dtype != torch.float32
        or bands.numel() == 0
        or _backend.select(bands.device.type) in ("torch", *_route._broken)
        or torch._C._are_functorch_transforms_active()
        or not by_frames.is_contiguous()
    ):
        return False
    packed = min(bands.dim(), 3 if mode == "torchaudio_compat" else 2)
    rows = by_frames.reshape(bands.shape[: bands.dim() - packed].numel(), -1)
    _clip_op(rows, top, shift)
    return True
