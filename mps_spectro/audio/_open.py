"""Finds out what a file is and opens it with the library that reads it."""

from __future__ import annotations

import os
import stat
from typing import Any, BinaryIO, Protocol

from ._errors import AudioFileError
from ._ffmpeg import FfmpegFile
from ._formats import AudioInfo
from ._integrity import check_length
from ._libraries import program
from ._mp3 import after_id3
from ._options import file_path
from ._sndfile import SndFile, UnknownFormat


class Reader(Protocol):
    """A sound file that is read once, from `begin` on."""

    info: AudioInfo

    def begin(self, start: int, stop: int, dtype: str) -> None:
        """Goes to the frame `start`; reading will go no further than `stop`."""

    def read(self, frames: int) -> Any:
        """The next `frames` frames, (frames, channels); fewer at the end of some files."""

    def close(self) -> None: ...


def info(path: str | os.PathLike[str]) -> AudioInfo:
    """Length, rate, channels and format of a sound file, from its headers: nothing is decoded.

    Raises:
        OSError: no such file, a directory, no permission.
        AudioFileError: no sound file, or one that is shorter than it says.
    """
    reader = open_reader(file_path(path))
    reader.close()
    return reader.info


def open_reader(path: str) -> Reader:
    """The reader of the file.

    Raises:
        OSError, AudioFileError: as `info`.
    """
    if stat.S_ISFIFO(os.stat(path).st_mode):
        raise AudioFileError(path, "is a pipe; only files can be read")
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise AudioFileError(path, "is empty")
        container = _for_ffmpeg(file)
        if container is not None:
            return FfmpegFile(path, container)
        check_length(path, file)
        try:
            return SndFile(path, file)
        except UnknownFormat as why:
            file.seek(0)
            if file.read(4) != b"caff":
                raise AudioFileError(path, f"cannot be read as audio: {why}") from None
            if program("ffmpeg") is None:
                raise AudioFileError(
                    path, f"corrupt, truncated, or a codec that only ffmpeg reads, which is not on the PATH: {why}"
                ) from None
            return FfmpegFile(path, "caf")


def _for_ffmpeg(file: BinaryIO) -> str | None:
    """The container of a file that is MPEG-4 audio, None for any other file."""
    head = file.read(12)
    if head[4:8] == b"ftyp":
        return "m4a"
    file.seek(after_id3(head))
    head = file.read(2)
    return "aac" if len(head) == 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 else None
