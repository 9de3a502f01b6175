"""Mel filterbanks and decibels."""

from __future__ import annotations

import math
import warnings
from typing import Any, get_args

import torch
from torch import Tensor

from ._arguments import HALVES, ArgumentError, choice, integer
from ._shared import recorded, shared
from .typing import MelMode, MelNorm, MelScale

MEL_SCALES = get_args(MelScale)
CONVENTIONS = ("torchaudio", "librosa")
CLIP_MODES = get_args(MelMode)

_HZ_PER_MEL = 200.0 / 3.0  # of Slaney's scale below 1 kHz
_LOG_FROM_MEL = 1000.0 / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def _hz_to_mel(hz: float, mel_scale: str) -> float:
    if mel_scale == "htk":
        return 2595.0 * math.log10(1.0 + hz / 700.0)
    if hz >= 1000.0:
        return _LOG_FROM_MEL + math.log(hz / 1000.0) / _LOG_STEP
    return hz / _HZ_PER_MEL


def _mel_to_hz(mels: Tensor, mel_scale: str) -> Tensor:
    if mel_scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    above = 1000.0 * torch.exp(_LOG_STEP * (mels - _LOG_FROM_MEL))
    return torch.where(mels >= _LOG_FROM_MEL, above, 0.0 + _HZ_PER_MEL * mels)


def _triangles(bins: Tensor, corners: Tensor) -> Tensor:
    """(n_mels, n_freqs): band m rises from corner m to corner m + 1 and falls to corner m + 2."""
    widths = (corners[1:] - corners[:-1])[:, None]
    slopes = corners[:, None] - bins
    return torch.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]).clamp(min=0.0)


@shared("mel banks")
def _bank(
    n_freqs: int,
    f_min: float,
    f_max: float,
    n_mels: int,
    sample_rate: int,
    norm: str | None,
    mel_scale: str,
    convention: str,
    n_fft: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """The bank rounded to float32, by the arithmetic of the library whose convention it is."""
    options: dict[str, Any] = {"dtype": torch.float64 if convention == "librosa" else torch.float32, "device": "cpu"}
    ends = (_hz_to_mel(f_min, mel_scale), _hz_to_mel(f_max, mel_scale))
    corners = _mel_to_hz(torch.linspace(*ends, n_mels + 2, **options), mel_scale)
    if convention == "librosa":
        bins = torch.arange(n_freqs, **options) / (n_fft * (1.0 / sample_rate))
    else:
        bins = torch.linspace(0, sample_rate // 2, n_freqs, **options)
    bank = _triangles(bins, corners).float()
    if norm == "slaney":
        bank = (bank * (2.0 / (corners[2:] - corners[:-2]))[:, None]).float()
    if not recorded() and (empty := int((bank.amax(1) == 0).sum())):
        warnings.warn(
            f"{empty} of n_mels={n_mels} mel bands lie between two of the n_freqs={n_freqs} bins and are zero",
            stacklevel=8,  # of what calls mel_bank
        )
    return bank.to(device, dtype)


def mel_bank(
    n_freqs: int,
    f_min: float,
    f_max: float | None,
    n_mels: int,
    sample_rate: int,
    norm: MelNorm = None,
    mel_scale: MelScale = "htk",
    convention: str = "torchaudio",
    n_fft: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """`melscale_fbanks` without the copy: the same tensor again for the same arguments. Nobody may write to it."""
    n_freqs, n_mels = integer("n_freqs", n_freqs), integer("n_mels", n_mels)
    for name, value in (("n_freqs", n_freqs), ("n_mels", n_mels), ("sample_rate", sample_rate)):
        if not value > 0:
            raise ArgumentError(f"{name} must be positive, got {value}")
    if norm not in (None, "slaney"):
        raise ArgumentError(f"norm must be None or 'slaney', got {norm!r}")
    choice("mel_scale", mel_scale, MEL_SCALES)
    choice("convention", convention, CONVENTIONS)
    if f_max is None:
        f_max = sample_rate / 2 if convention == "librosa" else float(sample_rate // 2)
    if not 0 <= f_min < f_max:
        raise ArgumentError(f"f_min and f_max must be 0 <= f_min < f_max, got {f_min} and {f_max}")
    shape = (n_freqs, f_min, f_max, n_mels, sample_rate, norm, mel_scale, convention, n_fft or 2 * (n_freqs - 1))
    return _bank(*shape, dtype, torch.device(device))


def melscale_fbanks(
    n_freqs: int,
    f_min: float,
    f_max: float | None,
    n_mels: int,
    sample_rate: int,
    norm: MelNorm = None,
    mel_scale: MelScale = "htk",
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    convention: str = "torchaudio",
    n_fft: int | None = None,
) -> Tensor:
    """Triangular mel filters, one band per row.

    Args:
        n_freqs: bins of the spectrum, n_fft // 2 + 1.
        f_min, f_max: ends of the lowest and the highest band in Hz; f_max=None is half the sample rate.
        n_mels: number of bands.
        sample_rate: in Hz.
        norm: None, or "slaney" for bands of equal area instead of equal height.
        mel_scale: "htk" or "slaney".
        convention: "torchaudio" computes in float32 on bins from 0 to sample_rate // 2: its bank, bit for bit.
            "librosa" computes in float64 on bins k * sample_rate / n_fft: its bank, rounded to float32.
        n_fft: what "librosa" needs where it is odd; default 2 * (n_freqs - 1).

    Returns:
        (n_mels, n_freqs), a new tensor each time.

    Raises:
        ValueError: sizes, frequencies or names that do not exist.
    """
    shape = (n_freqs, f_min, f_max, n_mels, sample_rate, norm, mel_scale, convention, n_fft)
    return mel_bank(*shape, dtype, device).clone()


def db_arguments(stype: str, top_db: float | None, amin: float, mode: str, ref_value: float = 1.0) -> float:
    """Checks them and returns the factor of log10.

    Raises:
        ValueError: unknown names, top_db < 0, amin or ref_value not above 0.
    """
    choice("stype", stype, ("power", "magnitude"))
    choice("mode", mode, CLIP_MODES)
    if top_db is not None and not top_db >= 0:
        raise ArgumentError(f"top_db must be None or at least 0, got {top_db}")
    for name, value in (("amin", amin), ("ref_value", ref_value)):
        if not value > 0:
            raise ArgumentError(f"{name} must be positive, got {value}")
    return 10.0 if stype == "power" else 20.0


def clipped(x: Tensor, top: float | None, mode: str, out: Tensor | None = None) -> Tensor:
    """x (or `out`, which may be x) no lower than `top` below the largest value of its group.

    A group is what of an example's last two dimensions there is; with mode "torchaudio_compat" a packed batch: up to
    three dimensions all of x, beyond that the last three.
    """
    if top is None or x.numel() == 0:
        return x
    group = min(x.dim(), 3 if mode == "torchaudio_compat" else 2)
    if not group:
        return x
    return torch.maximum(x, x.amax(tuple(range(-group, 0)), keepdim=True) - top, out=out)


def amplitude_to_db(
    x: Tensor,
    *,
    stype: str = "power",
    top_db: float | None = 80.0,
    amin: float = 1e-10,
    ref_value: float = 1.0,
    mode: MelMode = "torchaudio_compat",
) -> Tensor:
    """Decibels of a spectrogram: c * (log10 max(x, amin) - log10 max(ref_value, amin)).

    Args:
        x: (..., bins, frames), floating point; half and bfloat16 give float32.
        stype: "power" (c = 10) or "magnitude" (c = 20).
        top_db: nothing lies lower than this below the largest value of its group; None clips nothing.
        mode: which values form a group. "torchaudio_compat": with up to three dimensions all of x, beyond that the
            last three dimensions, as torchaudio.transforms.AmplitudeToDB does. "per_example" (also called
            "mlx_native"): the last two dimensions, so that no example depends on the others in its batch.

    Raises:
        TypeError: x is not a floating point tensor.
        ValueError: unknown stype or mode, top_db < 0, amin or ref_value not above 0.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a floating point tensor, got {x.dtype if isinstance(x, Tensor) else type(x)}")
    factor = db_arguments(stype, top_db, amin, mode, ref_value)
    if x.dtype in HALVES:
        x = x.float()
    db = factor * torch.log10(torch.clamp(x, min=amin))
    db = db - factor * math.log10(max(amin, ref_value))
    return clipped(db, top_db, mode)
