"""Chroma of every frame: the power of its bins summed over pitch classes, as librosa's."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._arguments import ArgumentError, integer
from ._bands_reference import safe_power
from ._frontend import signal
from ._magnitudes import descriptor_spectrum, number, positive, transformed
from ._shared import shared
from ._window_functions import window_for
from .typing import CenterPadMode, CenterTailPad, WindowLike

# of librosa.filters.chroma: the octave that counts most, and how many octaves beside it count
_CENTRE_OCTAVE = 5.0
_OCTAVES = 2.0
_A_ABOVE_C = 3  # in the classes of a twelve-tone scale, from the C above that A


@shared("chroma banks")
def _bank(
    sample_rate: float, n_fft: int, n_chroma: int, tuning: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The bank, computed in float64."""
    a0 = 440.0 * 2.0 ** (tuning / n_chroma) / 16.0
    hz = torch.arange(1, n_fft, dtype=torch.float64, device="cpu") * (sample_rate / n_fft)
    places = n_chroma * torch.log2(hz / a0)
    # 0 Hz lies one octave and a half below the first bin: opposite to it, and wide
    places = torch.cat([places[:1] - 1.5 * n_chroma, places])
    widths = torch.cat([places.diff().clamp(min=1.0), places.new_ones(1)])
    classes = torch.arange(n_chroma, dtype=torch.float64, device="cpu")
    half = round(n_chroma / 2)
    away = torch.remainder(places - classes[:, None] + half + 10 * n_chroma, n_chroma) - half
    bank = torch.exp(-0.5 * (2.0 * away / widths) ** 2)
    length = bank.square().sum(0).sqrt()
    bank = bank / length.masked_fill(length < torch.finfo(torch.float64).tiny, 1.0)
    bank = bank * torch.exp(-0.5 * ((places / n_chroma - _CENTRE_OCTAVE) / _OCTAVES) ** 2)
    return bank.roll(-_A_ABOVE_C * (n_chroma // 12), 0)[:, : n_fft // 2 + 1].contiguous().to(dtype).to(device)


def check_chroma(sample_rate: float, n_fft: int, n_chroma: int, norm: float | None, tuning: float) -> None:
    """Refuses what no chroma bank and no norm has.

    Raises:
        TypeError: n_chroma is no integer, norm or tuning no number.
        ValueError: a value out of range.
    """
    positive("sample_rate", sample_rate)
    if n_fft < 2:
        raise ArgumentError(f"n_fft must be at least 2 for chroma, got {n_fft}")
    if integer("n_chroma", n_chroma) < 1:
        raise ArgumentError(f"n_chroma must be at least 1, got {n_chroma}")
    if norm is not None and not (number("norm", norm) > 0 or norm == -math.inf):
        raise ArgumentError(f"norm must be None, above 0, inf or -inf, got {norm}")
    if not math.isfinite(number("tuning", tuning)):
        raise ArgumentError(f"tuning must be finite, got {tuning}")


def chroma_bank(
    sample_rate: float,
    n_fft: int,
    n_chroma: int = 12,
    tuning: float = 0.0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Weights (n_chroma, n_fft // 2 + 1) of the bins in every pitch class: librosa.filters.chroma.

    The same tensor again for the same arguments. Nobody may write to it.
    """
    return _bank(sample_rate, n_fft, n_chroma, tuning, dtype, torch.device(device))


def normalized_classes(chroma: Tensor, norm: float | None) -> Tensor:
    """Each frame of chroma (..., n_chroma, n_frames) by its norm, as librosa.util.normalize; silence stays as it is."""
    if norm is None:
        return chroma
    tiny = torch.finfo(chroma.dtype).tiny
    edge = chroma.amin(-2, keepdim=True) if norm == -math.inf else chroma.amax(-2, keepdim=True)
    chroma = chroma / edge.masked_fill(edge < tiny, 1.0)
    if math.isinf(norm):
        return chroma
    # of parts of the largest, whose powers neither overflow nor vanish
    length = safe_power(safe_power(chroma, norm).sum(-2, keepdim=True), 1.0 / norm)
    return chroma / length.masked_fill(length < tiny, 1.0)


def chroma_stft(
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
    n_chroma: int = 12,
    norm: float | None = math.inf,
    tuning: float = 0.0,
) -> Tensor:
    """Chroma of every frame: librosa.feature.chroma_stft, whose `tuning` is estimated unless it is given.

    Args:
        x to normalized: as for `spectral_centroid`.
        n_chroma: pitch classes of an octave; the first is C.
        norm: what each frame is divided by: inf its largest value, -inf its smallest, p > 0 the p-norm, None nothing.
        tuning: deviation from A440, in classes.

    Returns:
        (..., n_chroma, n_frames); 0 at silence.

    Raises:
        TypeError: an argument of the wrong kind, no real floating point signal.
        ValueError: a value or a size that does not fit (it is a RuntimeError as well).
    """
    s = descriptor_spectrum(n_fft, hop_length, win_length, center, center_pad_mode, center_tail_pad, normalized, 2.0)
    check_chroma(sample_rate, n_fft, n_chroma, norm, tuning)
    x = signal(x)
    bank = chroma_bank(sample_rate, n_fft, n_chroma, tuning, x.dtype, x.device)
    rows = transformed(x, window_for(window_fn, x, s.win_length), bank, s)
    return normalized_classes(rows.transpose(-1, -2), norm)
