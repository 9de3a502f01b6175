"""The length of MP3 files that do not state it.

An MP3 file is a row of frames; encoders put a Xing frame with their number in front, but older ones and cut files have
none. libsndfile then guesses from the bitrate of the first frame: files of constant bitrate are promised a little
longer than they are, those of variable bitrate lose their end (or more than half). Here the frames are counted.
"""

from __future__ import annotations

import io
import mmap
import os
from typing import Any, BinaryIO, NamedTuple

from ._errors import AudioFileError

_KBPS_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version, 3 is MPEG-1
SAMPLE_RATES = tuple(sorted(rate for rates in _RATES.values() for rate in rates))


class _Frame(NamedTuple):
    size: int
    kind: tuple[int, int]  # version and rate: alike in all frames of a file
    side: int  # bytes of side information after the header of 4

    @property
    def samples(self) -> int:
        return 1152 if self.kind[0] == 3 else 576


def bitrates(sr: int) -> tuple[int, ...]:
    """The constant bitrates that an MP3 file at this sample rate may have, in kbit/s; none if it cannot be."""
    for version, rates in _RATES.items():
        if sr in rates:
            return _KBPS_1 if version == 3 else _KBPS_2 if version == 2 else _KBPS_2[:8]
    return ()


def after_id3(data: Any) -> int:
    """Where an ID3v2 tag at the start ends; 0 without one."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = data[6:10]
    return 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3]) + (10 if data[5] & 0x10 else 0)


def count_samples(path: str, file: BinaryIO) -> int | None:
    """Samples of the MP3 file, counted by its frames; None where it states them itself.

    Raises:
        AudioFileError: it ends inside a frame.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        first = _next_frame(data, after_id3(data[:10]), None)
        if first is None:
            return None
        at, frame = first
        tag = data[at + 4 + frame.side : at + 16 + frame.side]
        if tag[:4] in (b"Xing", b"Info"):
            if tag[7] & 1 and any(tag[8:]):
                return None
            at += frame.size
        count, at = _count(data, at, frame.kind)
        if at > len(data):
            raise AudioFileError(path, f"truncated: its last frame lacks {at - len(data)} bytes")
        return count * frame.samples


class Lengthened(io.RawIOBase):
    """A file that appears `times` as long, with zeros at its end: libsndfile reads no further than it guesses."""

    def __init__(self, path: str, times: int) -> None:
        self._file = open(path, "rb")
        self._size = os.fstat(self._file.fileno()).st_size * times

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(len(buffer))
        buffer[: len(piece)] = piece
        buffer[len(piece) :] = bytes(len(buffer) - len(piece))
        self._file.seek(len(buffer) - len(piece), os.SEEK_CUR)
        return len(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset, whence = self._size + offset, os.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


def _frame(data: mmap.mmap, at: int) -> _Frame | None:
    """The frame of layer III that begins here, if one does."""
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, step, which = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or step in (0, 15) or which == 3:
        return None
    kbps, rate = (_KBPS_1 if version == 3 else _KBPS_2)[step - 1], _RATES[version][which]
    size = (144000 if version == 3 else 72000) * kbps // rate + (head[2] >> 1 & 1)
    mono = head[3] >> 6 == 3
    return _Frame(size, (version, rate), (17 if mono else 32) if version == 3 else (9 if mono else 17))


def _next_frame(data: mmap.mmap, at: int, kind: tuple[int, int] | None) -> tuple[int, _Frame] | None:
    """The first frame at or after `at` that another one, or the end, follows."""
    while at >= 0:
        frame = _frame(data, at)
        if frame is not None and kind in (None, frame.kind):
            following = _frame(data, at + frame.size)
            if at + frame.size >= len(data) or following is not None and following.kind == frame.kind:
                return at, frame
        at = data.find(b"\xff", at + 1)
    return None


def _count(data: mmap.mmap, at: int, kind: tuple[int, int]) -> tuple[int, int]:
    """The number of frames from `at` on, and where the last of them ends."""
    count = end = 0
    while at < len(data):
        frame = _frame(data, at)
        if frame is None or frame.kind != kind:
            found = _next_frame(data, at, kind)
            if found is None:
                break
            at, frame = found
        count += 1
        at = end = at + frame.size
    return count, end
