"""madmom's definitions in numpy and float64, band by band and frame by frame; and madmom itself where it is installed.

The definitions are compared with madmom by the tests that call `madmom_or_skip`.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest


def madmom_or_skip(module: str) -> Any:
    """madmom.audio.<module>; skips the calling test where madmom is not installed."""
    pytest.importorskip("madmom", reason="madmom is not installed")
    return importlib.import_module(f"madmom.audio.{module}")


def bins_of(bank_size: int, sample_rate: float, nyquist: bool) -> np.ndarray:
    """Frequencies of the bins in Hz."""
    n_fft = 2 * (bank_size - 1 if nyquist else bank_size)
    return np.fft.rfftfreq(n_fft, 1.0 / sample_rate)[:bank_size]


def centres(bands_per_octave: int, f_min: float, f_max: float, f_ref: float | None) -> np.ndarray:
    if f_ref is None:
        return f_min * 2.0 ** (np.arange(round(bands_per_octave * np.log2(f_max / f_min)) + 2) / bands_per_octave)
    low, high = (np.log2(f / f_ref) * bands_per_octave for f in (f_min, f_max))
    grid = f_ref * 2.0 ** (np.arange(np.floor(low), np.ceil(high)) / bands_per_octave)
    return grid[(grid >= f_min) & (grid <= f_max)]


def log_bank(
    n_freqs: int,
    sample_rate: float,
    bands_per_octave: int,
    f_min: float,
    f_max: float,
    f_ref: float | None = 440.0,
    norm_filters: bool = True,
    unique_bins: bool = True,
    include_nyquist: bool = False,
) -> np.ndarray:
    """(n_freqs, n_bands) in float64."""
    frequencies = bins_of(n_freqs, sample_rate, include_nyquist)
    nearest = []
    for centre in centres(bands_per_octave, f_min, f_max, f_ref):
        distance = np.abs(frequencies - centre)
        nearest.append(int(np.flatnonzero(distance == distance.min())[-1]))
    if unique_bins:
        nearest = sorted(set(nearest))
    bank = np.zeros((n_freqs, len(nearest) - 2))
    for band, (start, centre, stop) in enumerate(zip(nearest, nearest[1:], nearest[2:])):
        if stop - start < 2:
            bank[start, band] = 1.0
            continue
        for k in range(start, stop):
            bank[k, band] = (k - start) / (centre - start) if k < centre else (stop - k) / (stop - centre)
    return bank / bank.sum(0) if norm_filters else bank


def log_spectrogram(
    x: np.ndarray,
    sample_rate: float = 44100,
    frame_size: int = 2048,
    fps: float = 100,
    num_bands: int = 12,
    fmin: float = 30.0,
    fmax: float = 17000.0,
    fref: float = 440.0,
    norm_filters: bool = True,
    unique_filters: bool = True,
    mul: float = 1.0,
    fft_size: int | None = None,
) -> np.ndarray:
    """(n_frames, n_bands) of one signal."""
    if np.issubdtype(x.dtype, np.integer):
        x = x / np.iinfo(x.dtype).max
    hop = sample_rate / fps
    n_fft = fft_size or frame_size
    bank = log_bank(n_fft // 2, sample_rate, num_bands, fmin, fmax, fref, norm_filters, unique_filters)
    around = np.concatenate([np.zeros(frame_size), x, np.zeros(frame_size)])
    rows = []
    for m in range(math.ceil(len(x) / hop)):
        start = frame_size + int(m * hop) - frame_size // 2
        spectrum = np.fft.rfft(around[start : start + frame_size] * np.hanning(frame_size), n_fft)
        rows.append(np.log10(mul * (np.abs(spectrum[: n_fft // 2]) @ bank) + 1.0))
    return np.stack(rows)


def lag_of(frame_size: int, hop_size: float, diff_ratio: float) -> int:
    window = np.hanning(frame_size)
    above = np.flatnonzero(window > diff_ratio * window.max())
    return max(1, round((frame_size / 2 - (above[0] if len(above) else 0)) / hop_size))


def positive_diff(rows: np.ndarray, lag: int) -> np.ndarray:
    """Of a spectrogram (n_frames, ...)."""
    out = np.zeros_like(rows)
    for t in range(lag, len(rows)):
        out[t] = np.maximum(rows[t] - rows[t - lag], 0.0)
    return out
