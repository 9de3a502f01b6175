"""Filters of constant-Q transforms, in float64 on the CPU: where they lie, how long they are, what spectra they have.

Frequencies, lengths, atoms and sparsification are those of librosa 0.11 (`cqt_frequencies`, `filters.wavelet_lengths`,
`filters.wavelet`, `util.sparsify_rows`).
"""

from __future__ import annotations

import math
from typing import Callable

import torch
from torch import Tensor

from ._arguments import ArgumentError
from ._window_functions import WindowFunction, _of_function, _of_name

# frequency in cycles per sample and length of a filter -> its samples
Atom = Callable[[float, float], Tensor]


def frequencies(n_bins: int, fmin: float, bins_per_octave: int) -> list[float]:
    """Centre frequencies fmin * 2 ** (k / bins_per_octave), in Hz."""
    return [2.0 ** (k / bins_per_octave) * fmin for k in range(n_bins)]


def lengths(freqs: list[float], sr: float, bins_per_octave: int, filter_scale: float) -> list[float]:
    """Length of each filter in samples, not rounded: Q * sr / f."""
    return [quality(bins_per_octave, filter_scale) * sr / f for f in freqs]


def quality(bins_per_octave: int, filter_scale: float) -> float:
    """Q, at which each band ends where the one after the next begins."""
    ratio = 2.0 ** (2.0 / bins_per_octave)
    return filter_scale * (ratio + 1.0) / (ratio - 1.0)


def _window(window: WindowFunction | str, size: int, periodic: bool = True) -> Tensor:
    # not through the cache of windows: a transform needs hundreds of them, once
    try:
        if isinstance(window, str):
            return _of_name(window, size, periodic, torch.float64)
        return _of_function(window, size, periodic, torch.float64).to("cpu", torch.float64)
    except (TypeError, ArgumentError) as error:
        raise type(error)(str(error).replace("window_fn", "window", 1)) from None


def bandwidth(window: WindowFunction | str) -> float:
    """Equivalent noise bandwidth of a window, in bins."""
    # the size to which librosa's table of bandwidths belongs
    values = _window(window, 8193, periodic=False)
    return (values.numel() * values.square().sum() / values.sum().square()).item()


def atom(window: WindowFunction | str) -> Atom:
    """Windowed complex sinusoids as librosa makes them: a periodic window over ceil(l / 2) + floor(l / 2) samples."""

    def make(frequency: float, length: float) -> Tensor:
        t = torch.arange(-math.ceil(length / 2), math.floor(length / 2), dtype=torch.float64, device="cpu")
        return torch.polar(_window(window, t.numel()), 2.0 * math.pi * frequency * t)

    return make


def rounded_atom(frequency: float, length: float) -> Tensor:
    """Windowed complex sinusoids as mlx-spectro makes them: a symmetric Hann window over round(l) samples."""
    size = max(1, round(length))
    t = torch.arange(size, dtype=torch.float64, device="cpu") - math.ceil(size / 2)
    return torch.polar(_window("hann", size, periodic=False), 2.0 * math.pi * frequency * t)


def normalized(x: Tensor, norm: float | None) -> Tensor:
    """x divided by its norm of that order (None for no division), or x itself where that is nothing."""
    if norm is None:
        return x
    size = torch.linalg.vector_norm(x, norm)
    return x / size if size >= torch.finfo(torch.float64).tiny else x


def spectra(
    freqs: list[float],
    lengths: list[float],
    sr: float,
    n_fft: int,
    atom: Atom,
    norm: float | None,
    dtype: torch.dtype = torch.complex128,
) -> Tensor:
    """Spectra (n_filters, n_fft // 2 + 1) of the filters, centred in their common size and scaled by length / n_fft."""
    size = fft_size(lengths)
    rows = torch.zeros(len(freqs), size, dtype=dtype, device="cpu")
    for row, frequency, length in zip(rows, freqs, lengths):
        samples = normalized(atom(frequency / sr, length), norm)
        left = (size - samples.numel()) // 2
        row[left : left + samples.numel()] = samples * (length / n_fft)
    return torch.fft.fft(rows, n_fft, 1)[:, : n_fft // 2 + 1].to(torch.complex128)


def fft_size(lengths: list[float]) -> int:
    """The power of two that holds the longest filter."""
    longest = max(lengths)
    if not longest > 0.5:
        raise ArgumentError(f"filter_scale must give filters of at least one sample, got {longest:.3g} samples")
    return 2 ** math.ceil(math.log2(longest))


def sparse_by_sum(x: Tensor, sparsity: float) -> Tensor:
    """Without the smallest entries of each row that together make up `sparsity` of its sum of magnitudes."""
    magnitudes = x.abs()
    ascending = magnitudes.sort(1).values
    share = ascending.cumsum(1) / magnitudes.sum(1, keepdim=True)
    first = torch.searchsorted(share, torch.full_like(share[:, :1], sparsity)).clamp(max=x.shape[1] - 1)
    return x.masked_fill(magnitudes < ascending.gather(1, first), 0.0)


def sparse_by_count(x: Tensor, sparsity: float) -> Tensor:
    """Without the entries of each row up to the `sparsity` quantile of its magnitudes."""
    magnitudes = x.abs()
    ascending = magnitudes.sort(1).values
    place = sparsity * (x.shape[1] - 1)
    below = math.floor(place)
    above = min(below + 1, x.shape[1] - 1)
    threshold = torch.lerp(ascending[:, below], ascending[:, above], place - below)
    return x.masked_fill(magnitudes <= threshold[:, None], 0.0)
