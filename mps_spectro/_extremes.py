"""Means of the largest and the smallest values of bands of bins: torch.ops.mps_spectro.extremes, and torch's functions.

The op is for rows that nobody differentiates or traces.
"""

from __future__ import annotations

from typing import Callable, Collection

import torch
from torch import Tensor

from . import _backend, _kernels, _ops, _route
from ._cache import BoundedCache
from ._coverage import differentiates, traced, tracing_reason

_GROUP = 128
_MOST_TAKEN = 64  # values of a band, each of which costs a look at all of them

_ops._LIBRARY.define("extremes(Tensor rows, int[] bands) -> Tensor")
_extremes_op = torch.ops.mps_spectro.extremes.default
_launches: BoundedCache[tuple[Callable[..., None], Tensor]] = BoundedCache("launches of extremes", 64)


def _bind(
    backend: str, device: torch.device, n_rows: int, n_bins: int, bands: tuple[int, ...]
) -> tuple[Callable[..., None], Tensor]:
    compiled = _kernels.library(backend, "extremes.metal", (("GROUP", _GROUP),), device.index or 0)
    groups = -(-n_rows // (_GROUP // 32))
    _kernels._check_grid(groups)
    with torch.inference_mode(False):
        table = torch.tensor(bands, dtype=torch.int32).to(device)
    return _kernels._bind(compiled.extremes, (n_rows, n_bins, len(bands) // 3), (0.0,), groups, _GROUP), table


def _by_kernel(backend: str, rows: Tensor, bands: tuple[int, ...]) -> Tensor:
    key = (backend, rows.device, *rows.shape, bands)
    launch, table = _launches.get(key, lambda: _bind(*key))
    out = rows.new_empty((2, len(bands) // 3, rows.shape[0]))
    launch(rows, table, out)
    return out


def _covered(rows: Tensor, bands: Collection[tuple[int, int, int]]) -> bool:
    """Whether the kernel takes rows of this layout and so many of their values."""
    few = all(count <= _MOST_TAKEN for _, _, count in bands)
    return rows.dtype == torch.float32 and rows.is_contiguous() and rows.numel() > 0 and few


def _by_threes(bands: list[int]) -> list[tuple[int, int, int]]:
    return list(zip(bands[::3], bands[1::3], bands[2::3]))


def _extremes(rows: Tensor, bands: list[int]) -> Tensor:
    """(2, n_bands, n) of rows (n, bins): means of the largest and of the smallest."""
    backend = _backend.select(rows.device.type)
    if backend != "torch" and _covered(rows, _by_threes(bands)):
        out = _route.attempt("extremes", backend, lambda: _by_kernel(backend, rows, tuple(bands)))
        if out is not None:
            return out
    return torch.stack(extremes_by_torch(rows, _by_threes(bands)))


def _fake(rows: Tensor, bands: list[int]) -> Tensor:
    return rows.new_empty((2, len(bands) // 3, rows.shape[0]))


_ops._LIBRARY.impl("extremes", _extremes, "CompositeExplicitAutograd")
torch.library.register_fake("mps_spectro::extremes", _fake, lib=_ops._LIBRARY)


def extremes_by_torch(rows: Tensor, bands: Collection[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
    """`extremes` of any floating point dtype, on any device, differentiable."""
    peaks, valleys = [], []
    for start, stop, count in bands:
        part = rows[..., start:stop]
        if count == 1:
            peaks.append(part.amax(-1))
            valleys.append(part.amin(-1))
        else:
            peaks.append(part.topk(count, sorted=False).values.mean(-1))
            valleys.append(part.topk(count, largest=False, sorted=False).values.mean(-1))
    return torch.stack(peaks, -2), torch.stack(valleys, -2)


def extremes(rows: Tensor, bands: Collection[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
    """Means of the largest and of the smallest values of bands of bins.

    Args:
        rows: magnitudes (..., n_frames, n_bins).
        bands: first bin, end and number of values of each band.

    Returns:
        Twice (..., len(bands), n_frames).
    """
    if (
        traced()
        or differentiates(rows)
        or tracing_reason() is not None
        or _backend.select(rows.device.type) in ("torch", *_route._broken)
        or not _covered(rows, bands)
    ):
        return extremes_by_torch(rows, bands)
    found = _extremes_op(rows.view(-1, rows.shape[-1]), [number for band in bands for number in band])
    by_signal = found.view(2, len(bands), *rows.shape[:-1]).movedim(1, -2)
    return by_signal[0], by_signal[1]
