"""Banks of triangular filters on a logarithmic frequency scale, as madmom builds them."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import ArgumentError, flag, integer
from ._shared import shared


def _centres(bands_per_octave: int, f_min: float, f_max: float, f_ref: float | None) -> list[float]:
    """Centre frequencies in Hz."""
    if f_ref is None:
        steps = round(bands_per_octave * math.log2(f_max / f_min)) + 1
        return [f_min * 2.0 ** (i / bands_per_octave) for i in range(steps + 1)]
    low = math.floor(math.log2(f_min / f_ref) * bands_per_octave)
    high = math.ceil(math.log2(f_max / f_ref) * bands_per_octave)
    on_grid = (f_ref * 2.0 ** (i / bands_per_octave) for i in range(low, high))
    return [frequency for frequency in on_grid if f_min <= frequency <= f_max]


def _nearest_bin(frequency: float, spacing: float, n_freqs: int) -> int:
    """Of two equally near ones the upper. In madmom's arithmetic: multiples of 440 Hz often lie between two bins."""
    upper = min(max(math.ceil(frequency / spacing), 1), n_freqs - 1)
    return upper - int(frequency - (upper - 1) * spacing < upper * spacing - frequency)


@shared("log-triangular banks")
def _bank(bins: tuple[int, ...], n_freqs: int, norm_filters: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(n_freqs, n_bands): band i rises from bin i, is 1 at bin i + 1 and has fallen to 0 at bin i + 2."""
    wide: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    corners = torch.tensor(bins, **wide)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    k = torch.arange(n_freqs, **wide)[:, None]
    rising = (k - left) / (centre - left).clamp(min=1.0)
    falling = (right - k) / (right - centre).clamp(min=1.0)
    triangles = torch.where(k < centre, rising, falling).clamp(min=0.0)
    bank = torch.where(right - left < 2, (k == left).double(), triangles)
    return (bank / bank.sum(0) if norm_filters else bank).to(device, dtype)


@shared("rows of log-triangular banks")
def _rows(*arguments: Any) -> Tensor:
    return F.pad(_bank(*arguments).t(), (0, 1)).contiguous()


def log_triangular_rows(n_fft: int, *bands: Any, dtype: torch.dtype, device: torch.device, **options: Any) -> Tensor:
    """The bank of `log_triangular_fbanks` for n_fft // 2 bins as kernels take it: (n_bands, n_fft // 2 + 1).

    The same tensor for the same arguments, which nobody may write to.
    """
    return _rows(*_bins(n_fft // 2, *bands, **options), dtype, device)


def _bins(
    n_freqs: int,
    sample_rate: float,
    bands_per_octave: int,
    *,
    f_min: float,
    f_max: float,
    f_ref: float | None,
    norm_filters: bool,
    unique_bins: bool,
    include_nyquist: bool = False,
) -> tuple[tuple[int, ...], int, bool]:
    """Checks the arguments, and returns the bins of the centres and what else `_bank` takes."""
    n_freqs = integer("n_freqs", n_freqs)
    bands_per_octave = integer("bands_per_octave", bands_per_octave)
    for name, value in (("norm_filters", norm_filters), ("unique_bins", unique_bins)):
        flag(name, value)
    if n_freqs < 2:
        raise ArgumentError(f"n_freqs must be at least 2, got {n_freqs}")
    for name, number in (("sample_rate", sample_rate), ("bands_per_octave", bands_per_octave), ("f_min", f_min)):
        if not 0 < number < math.inf:
            raise ArgumentError(f"{name} must be positive and finite, got {number}")
    if not f_min < f_max < math.inf:
        raise ArgumentError(f"f_max must be above f_min={f_min} and finite, got {f_max}")
    if f_ref is not None and not 0 < f_ref < math.inf:
        raise ArgumentError(f"f_ref must be None or positive and finite, got {f_ref}")
    n_fft = 2 * (n_freqs - 1 if flag("include_nyquist", include_nyquist) else n_freqs)
    spacing = 1.0 / (n_fft * (1.0 / sample_rate))
    centres = _centres(bands_per_octave, f_min, f_max, f_ref)
    if len(centres) < 3:
        raise ArgumentError(
            f"f_min to f_max must hold at least 3 centre frequencies, got {len(centres)} "
            f"from {f_min} to {f_max} Hz with bands_per_octave={bands_per_octave}"
        )
    bins = [_nearest_bin(frequency, spacing, n_freqs) for frequency in centres]
    if unique_bins:
        bins = sorted(set(bins))
        if len(bins) < 3:
            raise ArgumentError(
                f"f_min to f_max must cover at least 3 bins, got {len(bins)} "
                f"from {f_min} to {f_max} Hz with bins {spacing} Hz apart"
            )
    elif any(right - left > 1 and centre == right for left, centre, right in zip(bins, bins[1:], bins[2:])):
        raise ArgumentError(
            f"f_max must not exceed the highest bin, {(n_freqs - 1) * spacing} Hz, with unique_bins=False, got {f_max}"
        )
    return tuple(bins), n_freqs, norm_filters


def log_triangular_fbanks(
    n_freqs: int,
    sample_rate: float,
    bands_per_octave: int,
    *,
    f_min: float,
    f_max: float,
    f_ref: float | None = 440.0,
    norm_filters: bool = True,
    unique_bins: bool = True,
    include_nyquist: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Overlapping triangular filters whose centres are the bins nearest to logarithmically spaced frequencies.

    As madmom.audio.filters.LogarithmicFilterbank. Three neighbouring centres make a band: it rises from the first, is
    1 at the second and 0 again at the third. Where they span fewer than two bins, the band is the first bin alone.

    Args:
        n_freqs: bins of the spectrum: n_fft // 2, without the Nyquist frequency, as madmom counts them.
        sample_rate: in Hz.
        bands_per_octave: centre frequencies per octave.
        f_min, f_max: bounds of the centre frequencies, in Hz.
        f_ref: the centre frequencies are f_ref * 2 ** (i / bands_per_octave). With None they are
            f_min * 2 ** (i / bands_per_octave), i = 0 .. round(bands_per_octave * log2(f_max / f_min)) + 1, so that
            the highest band has its peak near f_max.
        norm_filters: bands of area 1 instead of height 1.
        unique_bins: centres that fall on one bin count once.
        include_nyquist: n_freqs is n_fft // 2 + 1. (madmom spaces the bins of this case as if the Nyquist frequency
            were one bin further up; here they are where the transform has them.)
        device, dtype: of the result. It is computed in float64.

    Returns:
        (n_freqs, n_bands), a new tensor each time.

    Raises:
        ValueError: sizes or frequencies that are not positive, fewer than three centres, and with unique_bins=False
            an f_max so far above the highest bin that a band has no upper edge.
    """
    given = _bins(
        n_freqs,
        sample_rate,
        bands_per_octave,
        f_min=f_min,
        f_max=f_max,
        f_ref=f_ref,
        norm_filters=norm_filters,
        unique_bins=unique_bins,
        include_nyquist=include_nyquist,
    )
    return _bank(*given, dtype, torch.device(device)).clone()
