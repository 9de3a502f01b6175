"""A filterbank as the kernel reads it: of each band the bins from its first to its last weight."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._cache import BoundedCache
from ._derived import remember

_banks: BoundedCache[SparseBank] = BoundedCache("sparse banks", 64)


class SparseBank(NamedTuple):
    """`ranges` (n_bands, 3) int32: first bin, number of bins, place of its first weight in `weights`."""

    ranges: Tensor
    weights: Tensor


def sparse_bank(basis: Tensor) -> SparseBank:
    """The ranges of a bank (n_bands, n_bins); reads it from its device once as long as it does not change."""
    return remember(_banks, basis, _build)


def _build(basis: Tensor) -> SparseBank:
    host = basis.detach().to("cpu", torch.float32)
    filled = host != 0
    n_bins = host.shape[1]
    places = torch.arange(n_bins)
    first = torch.where(filled, places, n_bins).amin(1).clamp(max=n_bins - 1)
    last = torch.where(filled, places, -1).amax(1)
    counts = (last - first + 1).clamp(min=0)
    inside = (places >= first[:, None]) & (places < (first + counts)[:, None])
    starts = counts.cumsum(0) - counts
    ranges = torch.stack([first, counts, starts], 1).to(torch.int32)
    weights = host[inside]
    if weights.numel() == 0:  # a kernel wants something to point at
        weights = torch.zeros(1)
    return SparseBank(ranges.to(basis.device), weights.to(basis.device))
