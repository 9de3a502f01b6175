"""Mel spectrograms in decibels by librosa's conventions: what cepstra and onset strength begin with."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ._arguments import HALVES, ArgumentError, _tensor
from ._frontend import Output, Spectrum, output, run, signal
from ._magnitudes import descriptor_spectrum
from ._window_functions import window_for
from .filters import mel_bank
from .typing import WindowLike


class DbMel(NamedTuple):
    """Checked arguments: how a signal becomes bands in decibels, and of what window and bank."""

    spectrum: Spectrum
    output: Output
    bank: dict[str, Any]
    window_fn: WindowLike


def db_mel_arguments(
    *,
    sample_rate: float,
    n_fft: int,
    hop_length: int,
    win_length: int | None,
    n_mels: int,
    f_min: float,
    f_max: float | None,
    power: float,
    norm: str | None,
    mel_scale: str,
    top_db: float | None,
    mode: str,
    window_fn: WindowLike,
    center: bool,
    center_pad_mode: str,
    center_tail_pad: str,
) -> DbMel:
    """Checks the arguments that do not depend on the signal or its device.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, a value that does not fit.
    """
    s = descriptor_spectrum(n_fft, hop_length, win_length, center, center_pad_mode, center_tail_pad, False, power)
    # 10 log10 whatever the exponent of the magnitudes, as librosa.power_to_db
    out = output("db", 2.0, top_db=top_db, mode=mode)
    bank: dict[str, Any] = {"f_min": f_min, "f_max": f_max, "n_mels": n_mels, "sample_rate": sample_rate, "norm": norm}
    bank.update(n_freqs=s.n_fft // 2 + 1, mel_scale=mel_scale, convention="librosa", n_fft=s.n_fft)
    return DbMel(s, out, bank, window_fn)


def tables(given: DbMel, like: Tensor) -> tuple[Tensor, Tensor]:
    """The window and the bank with the dtype and the device of a tensor. Nobody may write to them."""
    window = window_for(given.window_fn, like, given.spectrum.win_length)
    return window, mel_bank(**given.bank, dtype=like.dtype, device=like.device)


def decibels(x: Tensor | None, spectrogram: Tensor | None, given: DbMel) -> Tensor:
    """Bands in decibels (..., n_mels, n_frames) of a signal (..., T), or those that the caller has.

    Raises:
        TypeError: no dense, real floating point tensor.
        ValueError: both or neither, a shape or a size that does not fit.
    """
    if (x is None) == (spectrogram is None):
        raise ArgumentError(f"exactly one of x and S must be given, got {'neither' if x is None else 'both'}")
    if x is not None:
        x = signal(x)
        return run(x, *tables(given, x), given.spectrum, given.output)
    s = _tensor("S", spectrogram)
    if not s.is_floating_point():
        raise TypeError(f"S must be real and floating point, got {s.dtype}")
    if s.dim() < 2 or s.numel() == 0:
        raise ArgumentError(f"S must have shape (..., bands, frames) and not be empty, got {tuple(s.shape)}")
    return s.float() if s.dtype in HALVES else s
