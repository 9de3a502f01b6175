"""torch.ops.mps_spectro.moments: centroid, bandwidth and rolloff of rows of magnitudes in one pass; torch's functions.

The op is for rows that nobody differentiates or traces. It gives all three: what takes time is to read the rows.
"""

from __future__ import annotations

from typing import Callable, Collection

import torch
from torch import Tensor

from . import _backend, _kernels, _ops, _route
from ._bands_reference import safe_power
from ._cache import BoundedCache
from ._coverage import differentiates, traced, tracing_reason
from ._magnitudes import bin_ramp

NAMES = ("centroid", "bandwidth", "rolloff")
_SIMDGROUPS = 4  # of a group, where one takes a row
_HELD = 65  # bins of a row that a thread holds in registers
_MOST_BINS = 32 * 32 * _HELD  # of a row: 1024 threads

_ops._LIBRARY.define("moments(Tensor rows, float spacing, float p, float roll_percent) -> Tensor")
_moments_op = torch.ops.mps_spectro.moments.default
_launches: BoundedCache[Callable[..., None]] = BoundedCache("launches of moments", 64)


# --- the kernel ------------------------------------------------------------------------------------------------------


def _bind(
    backend: str, device: torch.device, n_rows: int, n_bins: int, spacing: float, p: float, roll_percent: float
) -> Callable[..., None]:
    simdgroups = -(-n_bins // (32 * _HELD))  # of a row
    held = -(-n_bins // (32 * simdgroups))
    per_group = _SIMDGROUPS if simdgroups == 1 else 1
    defines = (("HELD", held), ("SIMDS", simdgroups), ("ROWS", per_group), ("SQUARES", int(p == 2)))
    compiled = _kernels.library(backend, "moments.metal", defines, device.index or 0)
    groups = -(-n_rows // per_group)
    _kernels._check_grid(groups)
    top = n_bins - 1
    floats = (1.0 / max(1, top), spacing * top, spacing, p, 1.0 / p, roll_percent)
    return _kernels._bind(compiled.moments, (n_rows, n_bins), floats, groups, 32 * simdgroups * per_group)


def _by_kernel(backend: str, rows: Tensor, spacing: float, p: float, roll_percent: float) -> Tensor:
    key = (backend, rows.device, *rows.shape, spacing, p, roll_percent)
    out = rows.new_empty((len(NAMES), rows.shape[0]))
    _launches.get(key, lambda: _bind(*key))(rows, out)
    return out


def _covered(rows: Tensor) -> bool:
    """Whether the kernel takes rows of this layout."""
    return rows.dtype == torch.float32 and rows.is_contiguous() and 0 < rows.numel() and rows.shape[-1] <= _MOST_BINS


def _moments(rows: Tensor, spacing: float, p: float, roll_percent: float) -> Tensor:
    """(3, n) in Hz, in the order of NAMES, of rows (n, bins)."""
    backend = _backend.select(rows.device.type)
    if backend != "torch" and _covered(rows):
        out = _route.attempt("moments", backend, lambda: _by_kernel(backend, rows, spacing, p, roll_percent))
        if out is not None:
            return out
    ramp = bin_ramp(2 * (rows.shape[-1] - 1), rows.dtype, rows.device)
    found = moments_by_torch(rows, ramp, spacing, NAMES, p, roll_percent)
    return torch.cat([found[name] for name in NAMES])


def _fake_moments(rows: Tensor, spacing: float, p: float, roll_percent: float) -> Tensor:
    return rows.new_empty((len(NAMES), rows.shape[0]))


_ops._LIBRARY.impl("moments", _moments, "CompositeExplicitAutograd")
torch.library.register_fake("mps_spectro::moments", _fake_moments, lib=_ops._LIBRARY)


# --- torch's functions -----------------------------------------------------------------------------------------------


def moments_by_torch(
    rows: Tensor, ramp: Tensor, spacing: float, wanted: Collection[str], p: float, roll_percent: float
) -> dict[str, Tensor]:
    """`moments` of any floating point dtype, on any device, differentiable."""
    out = {}
    top = spacing * (len(ramp) - 1)
    if "centroid" in wanted or "bandwidth" in wanted:
        total = rows.sum(-1)
        # the centroid of silence is 0
        total = total.masked_fill(total < torch.finfo(rows.dtype).tiny, 1.0)
        # inside of autocast the product would be one of halves
        with torch.autocast(rows.device.type, enabled=False):
            centre = torch.matmul(rows, ramp) / total
        if "centroid" in wanted:
            out["centroid"] = (centre * top).unsqueeze(-2)
        if "bandwidth" in wanted:
            # not as a difference of moments, which would cancel; distances up to 1, whose powers do not overflow
            away = ramp - centre.unsqueeze(-1)
            away = away.square() if p == 2 else safe_power(away.abs(), p)
            spread = (rows * away).sum(-1) / total
            out["bandwidth"] = (safe_power(spread, 1.0 / p) * top).unsqueeze(-2)
    if "rolloff" in wanted:
        below = rows.detach().cumsum(-1)
        total = below[..., -1:]
        index = torch.searchsorted(below, roll_percent * total).clamp(max=len(ramp) - 1)
        # a frame that is not finite has no rolloff, and none may seem to
        out["rolloff"] = (index.to(rows.dtype) * spacing + 0.0 * total).transpose(-1, -2)
    return out


def moments(
    rows: Tensor, ramp: Tensor, spacing: float, wanted: Collection[str], p: float = 2.0, roll_percent: float = 0.85
) -> dict[str, Tensor]:
    """The descriptors that are sums over the bins of a frame.

    Args:
        rows: magnitudes (..., n_frames, n_bins).
        ramp: `bin_ramp` in the dtype and on the device of the rows.
        spacing: Hz between bins.
        wanted: of "centroid", "bandwidth" and "rolloff".

    Returns:
        Of each one wanted (..., 1, n_frames) in Hz.
    """
    if (
        not wanted
        or traced()
        or differentiates(rows)
        or tracing_reason() is not None
        or _backend.select(rows.device.type) in ("torch", *_route._broken)
        or not _covered(rows)
    ):
        return moments_by_torch(rows, ramp, spacing, wanted, p, roll_percent)
    found = _moments_op(rows.view(-1, rows.shape[-1]), float(spacing), float(p), float(roll_percent))
    shape = (*rows.shape[:-2], 1, rows.shape[-2])
    return {name: values.view(shape) for name, values in zip(NAMES, found) if name in wanted}
