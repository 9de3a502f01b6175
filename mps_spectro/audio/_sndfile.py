"""Reading through libsndfile."""

from __future__ import annotations

import functools
from typing import Any, BinaryIO

from ._errors import AudioFileError
from ._formats import AudioInfo
from ._libraries import library
from ._mp3 import Lengthened, count_samples

# Frames that are decoded and thrown away in front of a part: after a seek, MP3 lacks the bits that earlier frames had
# left over for the first ones (errors to 0.76 of full scale at 32 kbit/s), Opus the state of its predictors.
_PREROLL = 16384
_UNKNOWN = 2**62  # frames of a FLAC file that was written to a pipe, which could not go back to fill them in
_NAMES = {
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "MPEG_LAYER_III": "mp3",
    "ALAC_16": "alac",
    "ALAC_20": "alac",
    "ALAC_24": "alac",
    "ALAC_32": "alac",
}


class UnknownFormat(Exception):
    """libsndfile does not know this format or codec; the message is its own."""


class SndFile:
    """A sound file that libsndfile reads, from `begin` on and once."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path = path
        self._lengthened: Lengthened | None = None
        self._file = _open(path)
        try:
            frames = self._length(file)
        except BaseException:
            self.close()
            raise
        f = self._file
        subtype = _NAMES.get(f.subtype) or f.subtype.lower().replace("pcm_", "pcm")
        self.info = AudioInfo.of(frames, f.samplerate, f.channels, subtype, f.format.lower())
        self._dtype = "float32"

    def _length(self, file: BinaryIO) -> int:
        """The number of frames; `self._file` will give that many."""
        frames = self._file.frames
        if self._file.format == "MP3":
            if self._file.subtype != "MPEG_LAYER_III":
                raise AudioFileError(self._path, "holds MPEG audio of layer I or II, which does not state its length")
            counted = count_samples(self._path, file)
            if counted is not None and counted > frames:
                self._file.close()
                self._lengthened = Lengthened(self._path, counted // max(frames, 1) + 2)
                self._file = _open(self._path, self._lengthened)
            return frames if counted is None else counted
        if frames >= _UNKNOWN:
            frames = 0
            while got := len(self._call(self._file.read, _PREROLL, always_2d=True)):
                frames += got
            self._file.close()
            self._file = _open(self._path)
        return frames

    def begin(self, start: int, stop: int, dtype: str) -> None:
        """Goes to the frame `start`; `read` then gives float32 or float64.

        To be called once, and before any reading: in libsndfile 1.2.2 a Vorbis file that has been read from seeks to
        wrong places.
        """
        self._dtype = dtype
        first = start if self.info.container not in ("mp3", "ogg") else max(0, start - _PREROLL)
        if first:
            self._call(self._file.seek, first)
        if first < start:
            self.read(start - first)

    def read(self, frames: int) -> Any:
        """The next `frames` frames, (frames, channels)."""
        samples = self._call(self._file.read, frames, dtype=self._dtype, always_2d=True)
        if len(samples) < frames:
            raise AudioFileError(self._path, f"corrupt or truncated: {frames - len(samples)} frames are missing")
        return samples

    def close(self) -> None:
        self._file.close()
        if self._lengthened is not None:
            self._lengthened.close()

    def _call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except library("soundfile").LibsndfileError as why:
            raise AudioFileError(self._path, f"corrupt or truncated {self._file.format}: {_said(why)}") from None


@functools.cache
def _sequential() -> Any:
    """SoundFile without the seek that it does after every read, which garbles MP3 of low bitrates and Opus."""
    return type("Sequential", (library("soundfile").SoundFile,), {"seekable": lambda self: False})


def _open(path: str, file: Any = None) -> Any:
    soundfile = library("soundfile")
    try:
        return _sequential()(path if file is None else file)
    except soundfile.LibsndfileError as why:
        raise UnknownFormat(_said(why)) from None
    except TypeError:  # an extension for which soundfile wants to be told rate and channels
        raise UnknownFormat("headerless samples") from None


def _said(why: Any) -> str:
    return f"libsndfile says {why.error_string!r}" if why.error_string else f"libsndfile error {why.code}"
