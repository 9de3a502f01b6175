"""Spectral descriptors: centroid, bandwidth, rolloff and contrast of the magnitudes of every frame, as librosa's."""

from __future__ import annotations

import math
from typing import Collection, NamedTuple

from torch import Tensor

from ._arguments import ArgumentError, integer
from ._extremes import extremes
from ._magnitudes import bin_ramp, bin_spacing, descriptor_spectrum, fraction, magnitudes, positive
from ._moments import moments
from .filters import amplitude_to_db
from .typing import CenterPadMode, CenterTailPad, WindowLike

_CONTRAST_RANGE = 80.0  # dB that peaks and valleys may lie below the loudest


# --- arguments -------------------------------------------------------------------------------------------------------


class Band(NamedTuple):
    """Bins start .. stop - 1 of a spectrum, of which `extreme` make its peak and as many its valley."""

    start: int
    stop: int
    extreme: int


def _first_bin(spacing: float, frequency: float, beyond: bool) -> int:
    """The first bin at or above a frequency; with `beyond` the first above it."""
    k = max(0, math.floor(frequency / spacing) - 1)
    while k * spacing < frequency or (beyond and k * spacing == frequency):
        k += 1
    return k


def contrast_bands(sample_rate: float, n_fft: int, n_bands: int, fmin: float, quantile: float) -> tuple[Band, ...]:
    """The bins of each octave band, as librosa.feature.spectral_contrast takes them.

    A band reaches from its lower to its upper edge, both included; all but the lowest have one bin more below, the
    highest goes on to the last bin, the others leave out their uppermost after it has been counted for `quantile`.
    A band between two bins, for which librosa has no value, is the bin below it.

    Raises:
        TypeError: n_bands is no integer.
        ValueError: a value out of range, a band above the Nyquist frequency.
    """
    positive("sample_rate", sample_rate)
    positive("fmin", fmin)
    if integer("n_bands", n_bands) < 1:
        raise ArgumentError(f"n_bands must be at least 1, got {n_bands}")
    fraction("quantile", quantile)
    edges = [0.0, *(fmin * 2.0**j for j in range(n_bands + 1))]
    if edges[-2] >= 0.5 * sample_rate:
        raise ArgumentError(
            f"fmin and n_bands must keep every band below half of sample_rate={sample_rate}, got fmin={fmin} and "
            f"n_bands={n_bands}: the highest would begin at {edges[-2]} Hz"
        )
    n_bins = n_fft // 2 + 1
    spacing = bin_spacing(sample_rate, n_fft)
    bands = []
    for k in range(n_bands + 1):
        first = min(_first_bin(spacing, edges[k], beyond=False), n_bins)
        start = max(0, first - 1) if k else 0
        stop = n_bins if k == n_bands else max(start + 1, min(_first_bin(spacing, edges[k + 1], beyond=True), n_bins))
        counted = stop - start
        if k < n_bands and counted > 1:
            stop -= 1
        bands.append(Band(start, stop, min(max(round(quantile * counted), 1), stop - start)))
    return tuple(bands)


# --- descriptors of magnitudes ---------------------------------------------------------------------------------------


def contrast(rows: Tensor, bands: Collection[Band]) -> Tensor:
    """Peaks over valleys in dB, (..., len(bands), n_frames), of magnitudes (..., n_frames, n_bins)."""
    peak, valley = (
        amplitude_to_db(values, top_db=_CONTRAST_RANGE, mode="per_example") for values in extremes(rows, bands)
    )
    return peak - valley


# --- descriptors of signals ------------------------------------------------------------------------------------------


def spectral_centroid(
    x: Tensor,
    *,
    sample_rate: float = 22050,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window_fn: WindowLike = "hann",
    center: bool = True,
    center_pad_mode: CenterPadMode = "constant",
    center_tail_pad: CenterTailPad = "symmetric",
    normalized: bool | str = False,
) -> Tensor:
    """Mean frequency of every frame, weighted by magnitude: librosa.feature.spectral_centroid.

    Args:
        x: (..., T), floating point; half and bfloat16 are computed in float32.
        sample_rate: in Hz.
        n_fft: size of the Fourier transform, in samples.
        hop_length: samples between frames; None for n_fft // 4.
        win_length: samples of the window, centred in n_fft; default n_fft.
        window_fn: function of win_length, periodic=, dtype= and device= (or of win_length alone), a name ("hann",
            "hamming", "rect", or any in torch.signal.windows), or the window itself (win_length,).
        center: pad the signal by n_fft // 2 at each end. Without, one shorter than n_fft is continued by zeros.
        center_pad_mode: how: "constant" (zeros), "reflect", "replicate" or "circular". Where the signal is too short
            to be reflected or wrapped around (T <= n_fft // 2), zeros are taken instead.
        center_tail_pad: "symmetric", or with center_pad_mode="constant" "minimal": ceil(T / hop_length) frames.
        normalized: True or "frame_length" divides magnitudes by sqrt(n_fft), "window" by the root of the window's
            energy.

    Returns:
        (..., 1, n_frames) in Hz; 0 at silence.

    Raises:
        TypeError: an argument of the wrong kind, no real floating point signal.
        ValueError: a value or a size that does not fit (it is a RuntimeError as well).
    """
    positive("sample_rate", sample_rate)
    s = descriptor_spectrum(n_fft, hop_length, win_length, center, center_pad_mode, center_tail_pad, normalized)
    return _one_moment("centroid", magnitudes(x, window_fn, s), sample_rate, n_fft)


def spectral_bandwidth(
    x: Tensor,
    *,
    sample_rate: float = 22050,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window_fn: WindowLike = "hann",
    center: bool = True,
    center_pad_mode: CenterPadMode = "constant",
    center_tail_pad: CenterTailPad = "symmetric",
    normalized: bool | str = False,
    p: float = 2.0,
) -> Tensor:
    """Spread of every frame about its centroid, (sum of A |f - centroid|^p / sum of A)^(1/p), as librosa's.

    Args:
        x to normalized: as for `spectral_centroid`.
        p: the order, above 0; 2 is a standard deviation.

    Returns:
        (..., 1, n_frames) in Hz; 0 at silence.

    Raises:
        TypeError, ValueError: as `spectral_centroid`, and p not above 0.
    """
    positive("sample_rate", sample_rate)
    positive("p", p)
    s = descriptor_spectrum(n_fft, hop_length, win_length, center, center_pad_mode, center_tail_pad, normalized)
    return _one_moment("bandwidth", magnitudes(x, window_fn, s), sample_rate, n_fft, p=p)


def spectral_rolloff(
    x: Tensor,
    *,
    sample_rate: float = 22050,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window_fn: WindowLike = "hann",
    center: bool = True,
    center_pad_mode: CenterPadMode = "constant",
    center_tail_pad: CenterTailPad = "symmetric",
    normalized: bool | str = False,
    roll_percent: float = 0.85,
) -> Tensor:
    """Frequency of the first bin up to which a frame has `roll_percent` of its magnitude, as librosa's.

    It moves in whole bins and has no gradient.

    Args:
        x to normalized: as for `spectral_centroid`.
        roll_percent: between 0 and 1.

    Returns:
        (..., 1, n_frames) in Hz; 0 at silence.

    Raises:
        TypeError, ValueError: as `spectral_centroid`, and roll_percent not between 0 and 1.
    """
    positive("sample_rate", sample_rate)
    fraction("roll_percent", roll_percent)
    s = descriptor_spectrum(n_fft, hop_length, win_length, center, center_pad_mode, center_tail_pad, normalized)
    return _one_moment("rolloff", magnitudes(x, window_fn, s), sample_rate, n_fft, roll_percent=roll_percent)


def spectral_contrast(
    x: Tensor,
    *,
    sample_rate: float = 22050,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window_fn: WindowLike = "hann",
    center: bool = True,
    center_pad_mode: CenterPadMode = "constant",
    center_tail_pad: CenterTailPad = "symmetric",
    normalized: bool | str = False,
    n_bands: int = 6,
    fmin: float = 200.0,
    quantile: float = 0.02,
) -> Tensor:
    """Peaks over valleys of octave bands in dB: librosa.feature.spectral_contrast.

    The peak of a band is the mean of its largest magnitudes, its valley that of its smallest; each in dB (10 log10),
    no lower than 80 dB below the largest of all bands and frames of its signal. Of a batch librosa takes the largest
    over all signals; here none depends on the others.

    Args:
        x to normalized: as for `spectral_centroid`.
        n_bands: octaves from `fmin` on; one band more lies below.
        fmin: upper edge of the lowest band, in Hz.
        quantile: share of a band's bins in its peak and in its valley, rounded, at least one bin.

    Returns:
        (..., n_bands + 1, n_frames) in dB; 0 at silence.

    Raises:
        TypeError, ValueError: as `spectral_centroid`, a value out of range, or a band above half the sample rate.
    """
    s = descriptor_spectrum(n_fft, hop_length, win_length, center, center_pad_mode, center_tail_pad, normalized)
    bands = contrast_bands(sample_rate, n_fft, n_bands, fmin, quantile)
    return contrast(magnitudes(x, window_fn, s), bands)


def _one_moment(name: str, rows: Tensor, sample_rate: float, n_fft: int, **options: float) -> Tensor:
    ramp = bin_ramp(n_fft, rows.dtype, rows.device)
    return moments(rows, ramp, bin_spacing(sample_rate, n_fft), (name,), **options)[name]
