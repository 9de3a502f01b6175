"""Onset strength: rises of the mel spectrogram in decibels from frame to frame, the numbers of librosa.onset."""

from __future__ import annotations

from typing import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ._arguments import ArgumentError, flag, integer
from ._db_mel import db_mel_arguments, decibels
from .typing import CenterPadMode, CenterTailPad, MelMode, MelNorm, MelScale, WindowLike

Aggregate = Callable[[Tensor, int], Tensor]


def _median(x: Tensor, dim: int) -> Tensor:
    """The middle value, or the mean of both middle ones, as numpy.median."""
    n = x.shape[dim]
    ordered = x.sort(dim).values
    middle = 0.5 * (ordered.select(dim, (n - 1) // 2) + ordered.select(dim, n // 2))
    last = ordered.select(dim, n - 1)
    return torch.where(last.isnan(), last, middle)


_AGGREGATES: dict[str, Aggregate] = {
    "mean": lambda x, dim: x.mean(dim),
    "median": _median,
    "max": lambda x, dim: x.amax(dim),
}


def _aggregate_for(aggregate: str | Aggregate) -> Aggregate:
    if callable(aggregate):
        return aggregate
    if aggregate not in _AGGREGATES:
        raise ArgumentError(f"aggregate must be a function or one of {', '.join(_AGGREGATES)}, got {aggregate!r}")
    return _AGGREGATES[aggregate]


def _slices(channels: Sequence[int] | Sequence[slice], n_bands: int) -> list[slice]:
    """The bands of each channel."""
    try:
        count = len(channels)
    except TypeError:
        raise TypeError(f"channels must be a sequence of ints or slices, got {channels!r}") from None
    slices = [channel for channel in channels if isinstance(channel, slice)]
    if len(slices) != count:
        ends = [integer("channels", end) for end in channels]
        if not all(0 <= low < high <= n_bands for low, high in zip(ends, ends[1:])):
            raise ArgumentError(f"channels must rise from 0 or more to n_bands={n_bands} or less, got {channels}")
        slices = [slice(low, high) for low, high in zip(ends, ends[1:])]
    if not slices or not all(range(n_bands)[channel] for channel in slices):
        raise ArgumentError(f"channels must have at least one band each of n_bands={n_bands}, got {channels}")
    return slices


def _local_maximum(bands: Tensor, size: int) -> Tensor:
    """The largest of `size` neighbouring bands around each band, as scipy.ndimage.maximum_filter1d."""
    below = size // 2
    around = F.pad(bands, (0, 0, below, size - 1 - below), value=-torch.inf)
    return around.unfold(-2, size, 1).amax(-1)


def _strength(
    bands: Tensor,
    lag: int,
    max_size: int,
    shift: int,
    channels: list[slice] | None,
    aggregate: Aggregate,
) -> Tensor:
    """(..., n_channels or n_bands, n_frames) of bands in decibels."""
    n_frames = bands.shape[-1]
    first = min(n_frames, lag + shift)
    left = n_frames - first
    reference = bands if max_size == 1 else _local_maximum(bands, max_size)
    # of what does not change no gradient is known; that of relu is 0 there
    rise = torch.relu(bands[..., lag : lag + left] - reference[..., :left])
    if channels is not None:
        parts = [aggregate(rise[..., channel, :], -2) for channel in channels]
        expected = (*rise.shape[:-2], left)
        if not all(isinstance(part, Tensor) and part.shape == expected for part in parts):
            raise ArgumentError(f"aggregate must give a tensor without the dimension it is given, of shape {expected}")
        rise = torch.stack(parts, -2)
    return F.pad(rise, (first, 0))


def onset_strength_multi(
    x: Tensor | None = None,
    *,
    S: Tensor | None = None,
    sample_rate: float = 22050,
    n_fft: int = 2048,
    hop_length: int = 512,
    win_length: int | None = None,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float | None = None,
    center: bool = True,
    lag: int = 1,
    max_size: int = 1,
    channels: Sequence[int] | Sequence[slice] | None = None,
    aggregate: str | Aggregate = "mean",
    power: float = 2.0,
    norm: MelNorm = "slaney",
    mel_scale: MelScale = "slaney",
    top_db: float | None = 80.0,
    mode: MelMode = "per_example",
    window_fn: WindowLike = "hann",
    center_pad_mode: CenterPadMode = "constant",
    center_tail_pad: CenterTailPad = "symmetric",
) -> Tensor:
    """Onset strength of every mel band, or of groups of them, as librosa.onset.onset_strength_multi.

    With S[m] band by band the mel spectrogram in decibels of frame m, max(S[m] - S[m - lag], 0), delayed by n_fft //
    (2 * hop_length) frames when `center`. The frames for which there is nothing to compare are 0. Frames are centred
    whatever `center` says, as librosa's are; S takes those that are not. Gradients flow to the signal (or S), and are
    finite at silence.

    Args:
        x: (..., T), floating point; half and bfloat16 are computed in float32.
        S: (..., n_bands, n_frames) in decibels in place of x; of the other arguments only n_fft, hop_length, center,
            lag, max_size, channels and aggregate count then.
        sample_rate: in Hz.
        n_fft: size of the Fourier transform, in samples.
        hop_length: samples between frames.
        win_length: samples of the window, centred in n_fft; default n_fft.
        n_mels, f_min, f_max, norm, mel_scale: the bank, as for `melscale_fbanks` with convention="librosa".
        center: shift the result by n_fft // (2 * hop_length) frames.
        lag: how many frames back to compare with.
        max_size: compare with the largest of this many neighbouring bands (a positive number; 1: the band itself).
        channels: None for every band by itself, which is librosa's aggregate=False; or the bands to aggregate: the
            boundaries of neighbouring channels, [0, 32, 64, 128] for three, or slices.
        aggregate: of the bands of a channel: "mean", "median", "max", or a function of a tensor and a dimension.
        power: exponent of the magnitudes; decibels are 10 log10 for any.
        top_db: how far below the largest value of its group a band may lie; None for no limit.
        mode: the groups of `top_db`, as for `amplitude_to_db`. "per_example", the default, is librosa of each signal
            of a batch by itself.
        window_fn: as for `mel_spectrogram`, or a tensor (win_length,).
        center_pad_mode: how the signal is padded by n_fft // 2 at each end: "constant", "reflect", "replicate" or
            "circular".
        center_tail_pad: "symmetric", or with center_pad_mode="constant" "minimal": ceil(T / hop_length) frames.

    Returns:
        (..., n_mels or number of channels, n_frames), n_frames = 1 + T // hop_length for even n_fft; not negative.

    Raises:
        TypeError: an argument of the wrong kind, no real floating point signal.
        ValueError: a value or a size that does not fit, such as a signal too short to be reflected.
    """
    given = db_mel_arguments(
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        n_mels=n_mels,
        f_min=f_min,
        f_max=f_max,
        power=power,
        norm=norm,
        mel_scale=mel_scale,
        top_db=top_db,
        mode=mode,
        window_fn=window_fn,
        center=True,
        center_pad_mode=center_pad_mode,
        center_tail_pad=center_tail_pad,
    )
    for name, value in (("lag", lag), ("max_size", max_size)):
        if integer(name, value) < 1:
            raise ArgumentError(f"{name} must be at least 1, got {value}")
    shift = n_fft // (2 * given.spectrum.hop_length) if flag("center", center) else 0
    combine = _aggregate_for(aggregate)
    bands = decibels(x, S, given)
    groups = None if channels is None else _slices(channels, bands.shape[-2])
    return _strength(bands, lag, max_size, shift, groups, combine)


def onset_strength(
    x: Tensor | None = None,
    *,
    S: Tensor | None = None,
    sample_rate: float = 22050,
    n_fft: int = 2048,
    hop_length: int = 512,
    win_length: int | None = None,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float | None = None,
    center: bool = True,
    lag: int = 1,
    max_size: int = 1,
    aggregate: str | Aggregate = "mean",
    power: float = 2.0,
    norm: MelNorm = "slaney",
    mel_scale: MelScale = "slaney",
    top_db: float | None = 80.0,
    mode: MelMode = "per_example",
    window_fn: WindowLike = "hann",
    center_pad_mode: CenterPadMode = "constant",
    center_tail_pad: CenterTailPad = "symmetric",
) -> Tensor:
    """Onset strength envelope, as librosa.onset.onset_strength: `onset_strength_multi` of all bands as one channel.

    Args:
        all: as for `onset_strength_multi`.

    Returns:
        (..., n_frames), not negative.

    Raises:
        TypeError, ValueError: as `onset_strength_multi`.
    """
    return onset_strength_multi(
        x,
        S=S,
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        n_mels=n_mels,
        f_min=f_min,
        f_max=f_max,
        center=center,
        lag=lag,
        max_size=max_size,
        channels=[slice(None)],
        aggregate=aggregate,
        power=power,
        norm=norm,
        mel_scale=mel_scale,
        top_db=top_db,
        mode=mode,
        window_fn=window_fn,
        center_pad_mode=center_pad_mode,
        center_tail_pad=center_tail_pad,
    ).squeeze(-2)
