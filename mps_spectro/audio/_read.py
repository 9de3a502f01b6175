"""Sound files to tensors: whole, in part, many at once, in chunks."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterable, Iterator

import torch
from torch import Tensor

from .._arguments import ArgumentError
from . import _resample
from ._errors import AudioFileError
from ._libraries import library
from ._open import Reader, open_reader
from ._options import Output, file_path, output, positive, seconds

_BLOCK = 65536  # frames decoded at a time where the caller's chunks are of another rate


def load(
    path: str | os.PathLike[str],
    sr: int | None = None,
    offset: float = 0.0,
    duration: float | None = None,
    mono: bool = False,
    layout: str = "channels_last",
    dtype: str | torch.dtype = "float32",
    resample_quality: str = "default",
    *,
    device: torch.device | str | None = None,
) -> tuple[Tensor, int]:
    """A sound file, or a part of it, as a tensor.

    A part is sought, not decoded up to. It equals that part of the whole: exactly in formats without loss; to 2e-7 in
    MP3 (of full scale, as all of these); resampled, to 1e-6, and 3e-5 with "fastest" or where the rates have no large
    common divisor. In AAC, bands that are coded as noise get another noise.

    Args:
        path: of the file; its kind is found from what it holds.
        sr: sample rate to resample to, in Hz; None keeps the file's.
        offset: where to begin, in seconds; rounded to a sample of the result.
        duration: how much, in seconds, as far as there is that much; None for the rest.
        mono: the mean of the channels, as one channel.
        layout: "channels_last", (frames, channels), or "channels_first", (channels, frames).
        dtype: "float32", "float16", "bfloat16", "float64", or the torch dtype of that name. Integer samples are scaled
            to [-1, 1).
        resample_quality: soxr's recipe: "fastest" QQ, "low" LQ, "medium" MQ, "high" and "default" HQ, "best" VHQ.
        device: of the tensor.

    Returns:
        The samples, and their rate in Hz.

    Raises:
        OSError: no such file, a directory, no permission.
        AudioFileError: no sound file, a damaged one, or one shorter than it says.
        ValueError: an argument with no such value; an offset past the end.
        ImportError: soundfile or soxr is not installed; see `mps_spectro.audio`.
    """
    wanted = output(sr, mono, layout, dtype, resample_quality, device)
    offset = seconds("offset", offset)
    duration = None if duration is None else seconds("duration", duration)
    samples, rate = _decode(file_path(path), wanted, offset, duration)
    return wanted.tensor(samples), rate


def batch_load(
    paths: Iterable[str | os.PathLike[str]],
    sr: int | None = None,
    mono: bool = False,
    dtype: str | torch.dtype = "float32",
    num_workers: int = 4,
    *,
    layout: str = "channels_last",
    resample_quality: str = "default",
    device: torch.device | str | None = None,
) -> list[tuple[Tensor, int]]:
    """Several sound files, decoded in `num_workers` threads; the other arguments are as for `load`.

    Returns:
        (samples, rate) of each file, in the order of `paths`.

    Raises:
        As `load`; of several errors, that of the first file. Files that were not begun by then are left alone.
    """
    wanted = output(sr, mono, layout, dtype, resample_quality, device)
    num_workers = positive("num_workers", num_workers)
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise TypeError(f"paths must be several paths, got one: {paths!r}")
    names = [file_path(path) for path in paths]
    pool = ThreadPoolExecutor(num_workers, "mps_spectro.audio")
    try:
        # the device is the calling thread's affair
        decoded = list(pool.map(lambda name: _decode(name, wanted, 0.0, None), names))
    finally:
        pool.shutdown(cancel_futures=True)
    return [(wanted.tensor(samples), rate) for samples, rate in decoded]


def stream(
    path: str | os.PathLike[str],
    chunk_frames: int | None = None,
    chunk_duration: float | None = None,
    sr: int | None = None,
    mono: bool = False,
    dtype: str | torch.dtype = "float32",
    *,
    layout: str = "channels_last",
    resample_quality: str = "default",
    device: torch.device | str | None = None,
) -> Iterator[tuple[Tensor, int]]:
    """A sound file chunk by chunk; the chunks together are what `load` gives. Memory does not grow with the file.

    Args:
        chunk_frames: frames of every chunk but the last, at the rate of the result. Either this or `chunk_duration`.
        chunk_duration: the same in seconds, rounded to a frame.
        path, sr, mono, dtype, layout, resample_quality, device: as for `load`.

    Returns:
        An iterator of (chunk, rate); none for a file of no frames. Closing it, or its end, closes the file.

    Raises:
        As `load`; damage, when it is reached.
    """
    wanted = output(sr, mono, layout, dtype, resample_quality, device)
    if (chunk_frames is None) == (chunk_duration is None):
        raise ArgumentError(f"give either chunk_frames or chunk_duration, got {chunk_frames!r} and {chunk_duration!r}")
    if chunk_frames is not None:
        chunk_frames = positive("chunk_frames", chunk_frames)
    else:
        chunk_duration = seconds("chunk_duration", chunk_duration)
    reader = open_reader(file_path(path))
    rate = wanted.sr or reader.info.sample_rate
    if chunk_frames is None:
        assert chunk_duration is not None
        chunk_frames = _samples(chunk_duration, rate)
        if not chunk_frames:
            reader.close()
            raise ArgumentError(f"chunk_duration must be at least one frame at {rate} Hz, got {chunk_duration}")
    return _chunks(reader, wanted, chunk_frames, rate)


def _chunks(reader: Reader, wanted: Output, size: int, rate: int) -> Iterator[tuple[Tensor, int]]:
    try:
        about = reader.info
        if rate == about.sample_rate:
            pieces = _pieces(reader, wanted, size)
        else:
            channels = 1 if wanted.mono else about.channels
            decoded = _pieces(reader, wanted, _BLOCK)
            pieces = _resample.blocks(decoded, channels, about.sample_rate, rate, wanted.decoded, wanted.quality)
        for chunk in _regroup(pieces, size):
            yield wanted.tensor(chunk), rate
    finally:
        reader.close()


def _pieces(reader: Reader, wanted: Output, size: int) -> Iterator[Any]:
    """The whole file in pieces of `size` frames, the last one shorter."""
    left = reader.info.frames
    reader.begin(0, left, wanted.decoded)
    while left:
        piece = reader.read(min(size, left))
        if not len(piece):
            return
        left -= len(piece)
        yield _mix(piece, wanted)


def _regroup(pieces: Iterable[Any], size: int) -> Iterator[Any]:
    """The pieces cut anew, `size` frames each but the last."""
    numpy = library("numpy")
    held, count = [], 0
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        if count >= size:
            joined = held[0] if len(held) == 1 else numpy.concatenate(held)
            cut = count - count % size
            for at in range(0, cut, size):
                yield _alone(joined[at : at + size], joined)
            held, count = [joined[cut:]], count - cut
    if count:
        yield numpy.concatenate(held)


def _decode(path: str, wanted: Output, offset: float, duration: float | None) -> tuple[Any, int]:
    """The part of the file as (frames, channels), resampled and mixed, and its rate."""
    reader = open_reader(path)
    try:
        about = reader.info
        rate = wanted.sr or about.sample_rate
        length = _resample.length(about.frames, about.sample_rate, rate)
        start = _samples(offset, rate)
        if start > length:
            raise ArgumentError(f"offset must not be past the end: {path} has {about.duration} seconds, got {offset}")
        stop = length if duration is None else min(length, start + _samples(duration, rate))
        if rate == about.sample_rate:
            return _part(reader, wanted, start, stop), rate
        needed = _resample.span(start, stop, about.frames, about.sample_rate, rate)
        samples = _part(reader, wanted, needed.first, needed.last)
        resampled = _resample.whole(samples, about.sample_rate, rate, wanted.quality)
        return _alone(resampled[needed.skip : needed.skip + stop - start], resampled), rate
    except MemoryError:
        raise AudioFileError(path, f"too long for the memory: its header says {reader.info.frames} frames") from None
    finally:
        reader.close()


def _alone(part: Any, whole: Any) -> Any:
    """The part of an array without the memory of the rest."""
    return part if len(part) == len(whole) else part.copy()


def _samples(time: float, rate: int) -> int:
    return round(min(time * rate, 2.0**62))


def _part(reader: Reader, wanted: Output, start: int, stop: int) -> Any:
    reader.begin(start, stop, wanted.decoded)
    return _mix(reader.read(stop - start), wanted)


def _mix(samples: Any, wanted: Output) -> Any:
    return samples.mean(axis=1, keepdims=True) if wanted.mono else samples
