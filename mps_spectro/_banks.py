"""A filterbank as the kernel reads it: of each band the bins from its first to its last weight."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._cache import BoundedCache
from ._derived import remember

_banks: BoundedCache[SparseBank | None] = BoundedCache("sparse banks", 64)
_columns: BoundedCache[BankColumns] = BoundedCache("columns of banks", 64)

LANES = 32  # bands whose weights lie side by side, because neighbouring threads read them together
DENSEST = 8  # weights per bin that the kernel still sums


class SparseBank(NamedTuple):
    """Runs of weights, one for each band.

    `ranges` (n_bands, 3) int32: first bin, number of bins, place of its first two weights in `weights`; its next two
    follow 2 * LANES further on.
    """

    ranges: Tensor
    weights: Tensor


def sparse_bank(basis: Tensor) -> SparseBank | None:
    """The bank, read from its device once as long as it does not change; None when it is too dense for the kernel."""
    return remember(_banks, basis, _build)


class BankColumns(NamedTuple):
    """Of each bin of a bank the bands from the first to the last that it belongs to.

    `first_bands` (n_bins,) int32; `weights` (width / 2, n_bins, 2): those of `width` bands from the first on, by twos.
    """

    first_bands: Tensor
    weights: Tensor

    @property
    def width(self) -> int:
        return 2 * self.weights.shape[0]


def bank_columns(basis: Tensor) -> BankColumns:
    """The same bank by bins; reads it from its device once as long as it does not change."""
    return remember(_columns, basis, _build_columns)


def _extents(filled: Tensor) -> tuple[Tensor, Tensor]:
    """Place of the first True of each row and the number up to the last."""
    length = filled.shape[1]
    places = torch.arange(length)
    first = torch.where(filled, places, length).amin(1).clamp(max=length - 1)
    return first, (torch.where(filled, places, -1).amax(1) - first + 1).clamp(min=0)


def _build_columns(basis: Tensor) -> BankColumns:
    host = basis.detach().to("cpu", torch.float32).t()
    host = torch.nn.functional.pad(host, (0, host.shape[1] % 2))
    first, counts = _extents(host != 0)
    width = max(2, -(-int(counts.max()) // 2) * 2)
    first = first.clamp(max=host.shape[1] - width)
    weights = host.gather(1, first[:, None] + torch.arange(width))
    by_twos = weights.view(-1, width // 2, 2).transpose(0, 1).contiguous()
    return BankColumns(first.to(basis.device, torch.int32), by_twos.to(basis.device))


def _build(basis: Tensor) -> SparseBank | None:
    host = basis.detach().to("cpu", torch.float32)
    n_bands, n_bins = host.shape
    first, counts = _extents(host != 0)
    groups = -(-n_bands // LANES)
    widest = torch.nn.functional.pad(counts, (0, groups * LANES - n_bands)).view(groups, LANES).amax(1)
    # all bands of a group take as many steps, a multiple of four where the bins suffice, so that they keep pace
    widths = (-(-widest // 4) * 4).clamp(max=n_bins)
    rooms = -(-widths // 2) * 2
    if n_bands == 0 or int(rooms.sum()) * LANES > DENSEST * (n_bins + LANES):
        return None
    starts = (rooms.cumsum(0) - rooms) * LANES
    lanes = torch.arange(n_bands)
    steps = widths[lanes // LANES]
    begin = torch.minimum(first, n_bins - steps)
    places = starts[lanes // LANES] + 2 * (lanes % LANES)
    weights = torch.zeros(max(2, int(rooms.sum()) * LANES))
    step = torch.arange(int(widths.max()))
    inside = step < steps[:, None]
    values = host.gather(1, (begin[:, None] + step).clamp(max=n_bins - 1))
    weights[(places[:, None] + 2 * LANES * (step // 2) + step % 2)[inside]] = values[inside]
    ranges = torch.stack([begin, steps, places], 1).to(torch.int32)
    return SparseBank(ranges.to(basis.device), weights.to(basis.device))
