"""Measures of the samples of every frame: root mean square and zero-crossing rate, as librosa's."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from . import _reference
from ._arguments import ArgumentError, choice, flag, integer
from ._bands_reference import safe_power
from ._frontend import signal
from ._magnitudes import number

_PAD_MODES = ("constant", "edge", "replicate", "reflect")


def _padded(x: Tensor, frame_length: int, hop_length: int, center: bool, pad_mode: str) -> Tensor:
    """The signals (B, T) under whole frames, one at least."""
    for name, value in (("frame_length", frame_length), ("hop_length", hop_length)):
        if integer(name, value) <= 0:
            raise ArgumentError(f"{name} must be positive, got {value}")
    choice("pad_mode", pad_mode, _PAD_MODES)
    x = signal(x)
    length = x.shape[-1]
    x = x.reshape(math.prod(x.shape[:-1]), length)
    pad = frame_length // 2
    if flag("center", center) and pad:
        mode = "replicate" if pad_mode == "edge" or (pad_mode == "reflect" and length <= pad) else pad_mode
        if length == 0 and mode != "constant":
            raise ArgumentError(f"x must have at least one sample with pad_mode={pad_mode!r}, got none")
        x = _reference.padded(x, pad, length + 2 * pad, mode)
    return F.pad(x, (0, max(0, frame_length - x.shape[1])))


def _shaped(per_frame: Tensor, x: Tensor) -> Tensor:
    """(B, n_frames) as (..., 1, n_frames)."""
    return per_frame.view(*x.shape[:-1], 1, per_frame.shape[1])


def rms(
    x: Tensor, *, frame_length: int = 2048, hop_length: int = 512, center: bool = True, pad_mode: str = "constant"
) -> Tensor:
    """Root of the mean square of every frame: librosa.feature.rms.

    Args:
        x: (..., T), floating point; half and bfloat16 are computed in float32. A signal shorter than a frame is
            continued by zeros.
        frame_length: in samples.
        hop_length: samples between frames.
        center: pad the signal by frame_length // 2 at each end.
        pad_mode: how: "constant" (zeros), "edge" (also called "replicate") or "reflect", which is "edge" where the
            signal is too short for it (T <= frame_length // 2).

    Returns:
        (..., 1, n_frames). Its gradient at silence is 0.

    Raises:
        TypeError: an argument of the wrong kind, no real floating point signal.
        ValueError: a value that does not fit.
    """
    squares = _padded(x, frame_length, hop_length, center, pad_mode).square()
    return _shaped(safe_power(squares.unfold(1, frame_length, hop_length).mean(-1), 0.5), x)


def zero_crossing_rate(
    x: Tensor,
    *,
    frame_length: int = 2048,
    hop_length: int = 512,
    center: bool = True,
    pad_mode: str = "edge",
    threshold: float = 1e-10,
) -> Tensor:
    """Changes of sign in every frame, by its length: librosa.feature.zero_crossing_rate.

    Zero counts as positive. The first sample of a frame is no crossing. There is no gradient.

    Args:
        x to pad_mode: as for `rms`; librosa always pads by "edge".
        threshold: samples no larger than this are zero.

    Returns:
        (..., 1, n_frames), between 0 and 1.

    Raises:
        TypeError, ValueError: as `rms`, and a negative threshold.
    """
    if not number("threshold", threshold) >= 0:
        raise ArgumentError(f"threshold must be at least 0, got {threshold}")
    padded = _padded(x, frame_length, hop_length, center, pad_mode).detach()
    negative = padded < -threshold
    crossings = (negative[:, 1:] != negative[:, :-1]).to(padded.dtype)
    # what is not finite has no sign, and must not seem to have one
    crossings = crossings + 0.0 * padded.diff()
    return _shaped(crossings.unfold(1, frame_length - 1, hop_length).sum(-1) / frame_length, x)
