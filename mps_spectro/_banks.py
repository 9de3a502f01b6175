"""A filterbank as the kernel reads it: of each band the bins from its first to its last weight."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._cache import BoundedCache
from ._derived import remember

_banks: BoundedCache[SparseBank] = BoundedCache("sparse banks", 64)


LANES = 32  # bands whose weights lie side by side, because neighbouring threads read them together


class SparseBank(NamedTuple):
    """Runs of weights, one for each band.

    `ranges` (n_bands, 3) int32: first bin, number of bins, place of its first weight in `weights`; its next weights
    follow LANES apart.
    """

    ranges: Tensor
    weights: Tensor


def sparse_bank(basis: Tensor) -> SparseBank:
    """The runs of a bank (n_bands, n_bins); reads it from its device once as long as it does not change."""
    return remember(_banks, basis, _build)


def _build(basis: Tensor) -> SparseBank:
    host = basis.detach().to("cpu", torch.float32)
    n_bands, n_bins = host.shape
    filled = host != 0
    bins = torch.arange(n_bins)
    first = torch.where(filled, bins, n_bins).amin(1).clamp(max=n_bins - 1)
    counts = (torch.where(filled, bins, -1).amax(1) - first + 1).clamp(min=0)
    groups = -(-n_bands // LANES)
    widest = torch.nn.functional.pad(counts, (0, groups * LANES - n_bands)).view(groups, LANES).amax(1)
    # all bands of a group take as many steps, a multiple of four where the bins suffice, so that they keep pace
    widths = (-(-widest // 4) * 4).clamp(max=n_bins)
    starts = (widths.cumsum(0) - widths) * LANES
    lanes = torch.arange(n_bands)
    steps = widths[lanes // LANES]
    begin = torch.minimum(first, n_bins - steps)
    places = starts[lanes // LANES] + lanes % LANES
    weights = torch.zeros(max(1, int(widths.sum()) * LANES))
    step = torch.arange(int(widths.max()) if n_bands else 0)
    inside = step < steps[:, None]
    values = host.gather(1, (begin[:, None] + step).clamp(max=n_bins - 1))
    weights[(places[:, None] + LANES * step)[inside]] = values[inside]
    ranges = torch.stack([begin, steps, places], 1).to(torch.int32)
    return SparseBank(ranges.to(basis.device), weights.to(basis.device))
