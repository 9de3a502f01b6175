"""Positive differences of spectrograms over time, the basis of spectral flux."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._arguments import HALVES, ArgumentError, _tensor, integer


def _overlap_lag(frame_size: int, hop_size: float, diff_ratio: float) -> int:
    """Frames from the middle of a symmetric Hann window back to where it first exceeds diff_ratio of its largest value.

    Of madmom: the lag at which the windows of two frames overlap by that ratio.
    """

    def hann(i: int) -> float:
        return 0.5 + 0.5 * math.cos(math.pi * (2 * i - frame_size + 1) / max(1, frame_size - 1))

    above = diff_ratio * hann((frame_size - 1) // 2)
    # the window rises up to its middle: solved for the sample, and looked at around there, for the sake of rounding
    near = int((frame_size - 1) * math.acos(max(-1.0, 1.0 - 2.0 * above)) / (2.0 * math.pi))
    around = range(max(0, near - 2), min(frame_size, near + 3))
    first = next((i for i in around if hann(i) > above), 0)
    return max(1, round((frame_size / 2 - first) / hop_size))


def positive_spectral_diff(
    x: Tensor,
    *,
    lag: int | None = None,
    frame_size: int | None = None,
    hop_size: float | None = None,
    diff_ratio: float = 0.5,
    time_axis: int = -1,
) -> Tensor:
    """How much each value of a spectrogram exceeds the one `lag` frames before: max(x[t] - x[t - lag], 0).

    As madmom.audio.spectrogram.SpectrogramDifference with positive_diffs=True.

    Args:
        x: two dimensions or more, floating point; half and bfloat16 give float32.
        lag: frames. Default 1; with `frame_size` and `hop_size` the number of frames after which the symmetric Hann
            windows of two frames overlap by diff_ratio, rounded half to even, at least 1.
        frame_size: samples of a frame.
        hop_size: samples between frames.
        diff_ratio: above 0, at most 1.
        time_axis: dimension of the frames. (madmom's is 0.)

    Returns:
        The shape of x; the first `lag` frames are 0.

    Raises:
        TypeError: no real floating point tensor, a size that is no number.
        ValueError: fewer than two dimensions, a lag beside sizes, values out of range.
    """
    if not _tensor("x", x).is_floating_point():
        raise TypeError(f"x must be real and floating point, got {x.dtype}")
    if x.dim() < 2:
        raise ArgumentError(f"x must have at least two dimensions, got shape {tuple(x.shape)}")
    if not -x.dim() <= integer("time_axis", time_axis) < x.dim():
        raise ArgumentError(f"time_axis must be in {-x.dim()} .. {x.dim() - 1}, got {time_axis}")
    if not 0 < diff_ratio <= 1:
        raise ArgumentError(f"diff_ratio must be above 0 and at most 1, got {diff_ratio}")
    if frame_size is not None and integer("frame_size", frame_size) < 1:
        raise ArgumentError(f"frame_size must be positive, got {frame_size}")
    if hop_size is not None and not 0 < hop_size < math.inf:
        raise ArgumentError(f"hop_size must be positive, got {hop_size}")
    if lag is None:
        known = frame_size is not None and hop_size is not None
        lag = _overlap_lag(frame_size, hop_size, diff_ratio) if known else 1  # type: ignore[arg-type]
    elif frame_size is not None or hop_size is not None:
        raise ArgumentError("lag must not be given together with frame_size or hop_size")
    elif integer("lag", lag) < 1:
        raise ArgumentError(f"lag must be positive, got {lag}")
    x = x.float() if x.dtype in HALVES else x
    n_frames = x.shape[time_axis]
    kept = max(0, n_frames - lag)
    later, earlier = x.narrow(time_axis, n_frames - kept, kept), x.narrow(time_axis, 0, kept)
    start = torch.zeros_like(x.narrow(time_axis, 0, n_frames - kept))
    return torch.cat([start, (later - earlier).clamp(min=0.0)], time_axis)
