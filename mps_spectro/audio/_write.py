"""Tensors to sound files."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from typing import Any, Iterator

import torch
from torch import Tensor

from .._arguments import ArgumentError, choice, flag
from . import _mp3
from ._errors import AudioFileError
from ._ffmpeg import FfmpegWriter
from ._formats import Target, target
from ._libraries import library
from ._open import info
from ._options import LAYOUTS, file_path, rate

_BLOCK = 65536  # frames converted and written at a time
_BITS = {"PCM_16": 16, "PCM_24": 24, "alac": 24}  # of the encodings that hold integers


def save(
    path: str | os.PathLike[str],
    audio: Any,
    sr: int,
    layout: str = "channels_last",
    encoding: str = "float32",
    bitrate: str = "auto",
    clip: bool = True,
) -> None:
    """Writes a sound file. A file of that name is replaced when the new one is complete, and not at all on an error.

    Args:
        path: of the file; its extension says the format: .wav, .flac, .aiff, .aif, .caf, .mp3 or .m4a.
        audio: (frames, channels) or (channels, frames) by `layout`, or (frames,) for one channel: floating point, full
            scale is [-1, 1]. A tensor on any device, or what numpy.asarray makes an array of.
        sr: sample rate in Hz.
        layout: "channels_last" or "channels_first".
        encoding: how samples are stored:
            "float32": as they are in .wav, .aiff and .caf; in .flac, which has no floats, as 24-bit integers; in .mp3
            and .m4a what their codecs make of them (MP3, AAC).
            "pcm16", "pcm24": integers, to the nearest, in .wav, .flac, .aiff and .caf.
            "alac": 24-bit integers without loss, in .m4a.
        bitrate: for .mp3 and AAC, a constant one like "192k"; "auto" leaves it to the encoder. At constant bitrates
            the MP3 encoder lowers the level by up to 5 %; below some 64k its files have no room to state their length,
            and come back with padding around the audio.
        clip: clamps samples to [-1, 1]. With False, values beyond stay as they are where the encoding has them, and are
            an error in integers, which never wrap around.

    Raises:
        ValueError: a combination that the format has not, or NaN or infinity in the audio.
        TypeError: audio that is not floating point.
        OSError, AudioFileError: the file cannot be written.
        ImportError: soundfile is not installed; see `mps_spectro.audio`.
    """
    shown = file_path(path)
    choice("layout", layout, LAYOUTS)
    flag("clip", clip)
    samples = _array(audio, layout)
    to = target(shown, encoding, bitrate, rate(sr), *samples.shape)
    with _replaced(shown) as temporary:
        with contextlib.closing(_writer(temporary, shown, to)) as writer:
            for at in range(0, len(samples), _BLOCK):
                writer.write(_encoded(samples[at : at + _BLOCK], to, clip))
        if to.container != "M4A":
            _check_written(temporary, shown, to, len(samples))


def _array(audio: Any, layout: str) -> Any:
    """The audio as a numpy array (frames, channels), float32 or float64."""
    numpy = library("numpy")
    if isinstance(audio, Tensor):
        if not audio.is_floating_point():
            raise TypeError(f"audio must be floating point with full scale [-1, 1], got {audio.dtype}")
        audio = audio.detach().cpu().resolve_neg()
        samples = audio.to(torch.promote_types(audio.dtype, torch.float32)).numpy()
    else:
        samples = numpy.asarray(audio)
        if samples.dtype.kind != "f":
            raise TypeError(f"audio must be floating point with full scale [-1, 1], got {samples.dtype}")
    if samples.ndim not in (1, 2):
        raise ArgumentError(f"audio must have 1 or 2 dimensions, got shape {tuple(samples.shape)}")
    if samples.ndim == 1:
        return samples[:, None]
    return samples.T if layout == "channels_first" else samples


def _encoded(samples: Any, to: Target, clip: bool) -> Any:
    """A block as the writer takes it: float32, or integers at the top of int16 or int32."""
    numpy = library("numpy")
    if not numpy.isfinite(samples).all():
        raise ArgumentError("audio must be finite, got NaN or infinity")
    if clip:
        samples = samples.clip(-1.0, 1.0)
    bits = _BITS.get(to.subtype)
    if bits is None:
        with numpy.errstate(over="ignore"):
            block = samples.astype(numpy.float32)
        if not numpy.isfinite(block).all():
            raise ArgumentError("audio must be within the range of float32")
        return numpy.ascontiguousarray(block)
    peak = abs(samples).max()
    if peak > 1.0:
        raise ArgumentError(f"audio must be within [-1, 1] for integers when clip is False, got a peak of {peak}")
    full = 2.0 ** (bits - 1)
    # not left to libsndfile, which rounds downwards here
    integers = (samples.astype(numpy.float64) * full).round().clip(-full, full - 1)
    if bits == 16:
        return numpy.ascontiguousarray(integers.astype(numpy.int16))
    return numpy.ascontiguousarray(integers.astype(numpy.int32) << 8)


class _SndFileWriter:
    def __init__(self, path: str, shown: str, to: Target) -> None:
        self._soundfile = soundfile = library("soundfile")
        self._shown = shown
        if not soundfile.check_format(to.container, to.subtype):
            raise ArgumentError(f"{to.container} files need a later libsndfile than {soundfile.__libsndfile_version__}")
        options = {}
        if to.kbps is not None:
            low, *_, high = _mp3.bitrates(to.sr)
            # libsndfile's scale from the highest bitrate to the lowest; at 1 itself it fails
            options = {
                "compression_level": min((high - to.kbps) / (high - low), 0.999),
                "bitrate_mode": "CONSTANT",
            }
        with self._explained():
            self._file = soundfile.SoundFile(path, "w", to.sr, to.channels, to.subtype, format=to.container, **options)

    def write(self, block: Any) -> None:
        with self._explained():
            self._file.write(block)

    def close(self) -> None:
        with self._explained():
            self._file.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (self._soundfile.LibsndfileError, AssertionError) as why:  # soundfile asserts that all was written
            raise AudioFileError(self._shown, f"libsndfile cannot write it: {why or 'a short write'}") from None


def _writer(path: str, shown: str, to: Target) -> Any:
    if to.container == "M4A":
        return FfmpegWriter(path, shown, to.sr, to.channels, to.subtype, to.kbps)
    return _SndFileWriter(path, shown, to)


def _check_written(path: str, shown: str, to: Target, frames: int) -> None:
    """Against a full disk, of which libsndfile does not always speak."""
    try:
        written = info(path).frames
    except AudioFileError as why:
        raise AudioFileError(shown, f"could not be written in full: {why}") from None
    if written < frames or written > frames and to.container != "MP3":
        raise AudioFileError(shown, f"could not be written in full: {written} frames of {frames}")


@contextlib.contextmanager
def _replaced(path: str) -> Iterator[str]:
    """The name of a new, empty file in the same folder, which takes the place of `path` if all goes well."""
    final = os.path.realpath(path)
    before = os.stat(final) if os.path.exists(final) else None
    if before is not None and stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if before is not None and not stat.S_ISREG(before.st_mode):
        raise AudioFileError(path, "is not a regular file")
    folder = os.path.dirname(final)
    temporary = os.path.join(folder, f".{secrets.token_hex(8)}.part")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such folder", folder) from None
    try:
        yield temporary
        if before is not None:
            shutil.copymode(final, temporary)
        os.replace(temporary, final)
    except BaseException:
        os.unlink(temporary)
        raise
