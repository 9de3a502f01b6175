"""What the descriptors share: their arguments, a signal as frames of magnitudes, and where their bins are."""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import ArgumentError, choice
from ._frontend import Output, Spectrum, run, signal, spectrum, zeros_where_short
from ._reference import PAD_MODES
from ._shared import shared
from ._window_functions import window_for
from .typing import WindowLike


def number(name: str, value: float) -> float:
    """The value, if it is a real number.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    return value


def positive(name: str, value: float) -> None:
    """Refuses what is not a positive, finite number.

    Raises:
        TypeError: no number.
        ValueError: zero, negative, infinite or NaN.
    """
    if not 0 < number(name, value) < math.inf:
        raise ArgumentError(f"{name} must be positive, got {value}")


def fraction(name: str, value: float) -> None:
    """Refuses what does not lie between 0 and 1.

    Raises:
        TypeError: no number.
        ValueError: 0, 1 or beyond.
    """
    if not 0 < number(name, value) < 1:
        raise ArgumentError(f"{name} must lie between 0 and 1, got {value}")


def descriptor_spectrum(
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    center: bool,
    center_pad_mode: str,
    center_tail_pad: str,
    normalized: bool | str,
    power: float = 1.0,
) -> Spectrum:
    """The arguments all descriptors take, checked.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, a value that does not fit.
    """
    choice("center_pad_mode", center_pad_mode, PAD_MODES)
    options: dict[str, Any] = {"center": center, "pad_mode": center_pad_mode, "center_tail_pad": center_tail_pad}
    return spectrum(n_fft, hop_length, win_length, normalized, power=power, **options)


def transformed(x: Tensor, window: Tensor, basis: Tensor | None, s: Spectrum) -> Tensor:
    """Powers of the spectrum, or their sums by a bank, as rows: (..., n_frames, n_bins or n_bands), contiguous."""
    missing = 0 if s.center else s.n_fft - x.shape[-1]
    x = F.pad(x, (0, missing)) if missing > 0 else x
    return run(x, window, basis, zeros_where_short(s, x.shape[-1]), Output()).transpose(-1, -2)


def magnitudes(x: Tensor, window_fn: WindowLike, s: Spectrum) -> Tensor:
    """(..., n_frames, n_bins) of a signal (..., T)."""
    x = signal(x)
    return transformed(x, window_for(window_fn, x, s.win_length), None, s)


def bin_spacing(sample_rate: float, n_fft: int) -> float:
    """Hz between bins, by the arithmetic of numpy.fft.rfftfreq: the edges of bands are compared with its multiples."""
    return 1.0 / (n_fft * (1.0 / sample_rate))


def bin_ramp(n_fft: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """Places of the n_fft // 2 + 1 bins, from 0 to 1; the same tensor again, which nobody may write to."""
    return _ramp(n_fft // 2, dtype, torch.device(device))


@shared("ramps over the bins")
def _ramp(last: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    bins = torch.arange(last + 1, dtype=torch.float64, device="cpu")
    return (bins / max(1, last)).to(dtype).to(device)
