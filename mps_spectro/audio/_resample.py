"""Resampling with soxr: whole signals, parts of them, and blocks as they come."""

from __future__ import annotations

import math
from typing import Any, Iterable, Iterator, NamedTuple

from ._libraries import library

# Samples at the lower of the two rates that a part is read with on either side. Past 128 of them the edges of a part
# are no longer heard in any of soxr's recipes (measured: 3e-7 of full scale, and nothing at all with VHQ).
_MARGIN = 256


class Span(NamedTuple):
    """Which samples to read for a part of the resampled signal, and where the part begins in what they become."""

    first: int
    last: int
    skip: int


def length(frames: int, rate: int, sr: int) -> int:
    """Samples at `sr` that soxr makes of `frames` at `rate`: rounded, halves up."""
    return (2 * frames * sr + rate) // (2 * rate)


def span(start: int, stop: int, frames: int, rate: int, sr: int) -> Span:
    """What to read of a signal of `frames` at `rate` for its samples start..stop at `sr`.

    It begins where a sample of both rates falls, so that the part lies on the same grid as the whole.
    """
    common = math.gcd(rate, sr)
    step, step_out = rate // common, sr // common
    margin = math.ceil(_MARGIN * max(1.0, rate / sr))
    first = max(0, start * rate // sr - margin) // step
    last = min(frames, -(-stop * rate // sr) + margin)
    return Span(first * step, last, start - first * step_out)


def whole(samples: Any, rate: int, sr: int, quality: str) -> Any:
    """(frames, channels) at `rate` as (frames, channels) at `sr`."""
    return library("soxr").resample(samples, rate, sr, quality)


def blocks(source: Iterable[Any], channels: int, rate: int, sr: int, dtype: str, quality: str) -> Iterator[Any]:
    """Blocks at `rate` as blocks at `sr`, of whatever sizes; together they are what `whole` makes of the whole."""
    resampler = library("soxr").ResampleStream(rate, sr, channels, dtype=dtype, quality=quality)
    last = None
    for block in source:
        if last is not None:
            yield resampler.resample_chunk(last)
        last = block
    if last is not None:
        yield resampler.resample_chunk(last, last=True)
