"""Files that end before their headers say so, in the formats where libsndfile returns what is left without a word."""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO, Literal, NamedTuple

from ._errors import AudioFileError

_LARGEST_OGG_PAGE = 27 + 255 + 255 * 255
_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def check_length(path: str, file: BinaryIO) -> None:
    """Looks at the declared length of WAV, AIFF and CAF, and at the last page of Ogg; other formats pass.

    Raises:
        AudioFileError: the file is shorter than it says.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:] == b"WAVE":
        _check_chunks(path, file, size, _Chunks(12, b"data", "big" if head[:4] == b"RIFX" else "little"))
    elif head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        _check_chunks(path, file, size, _Chunks(12, b"SSND", "big"))
    elif head[:4] == b"caff":
        _check_chunks(path, file, size, _Chunks(8, b"data", "big", width=8, padded=False))
    elif head[:4] == b"OggS":
        _check_last_page(path, file, size)


class _Chunks(NamedTuple):
    """How a format lays out its chunks: a name of 4 bytes, a size, and so many bytes."""

    first: int
    audio: bytes
    order: Literal["big", "little"]
    width: int = 4  # of the size
    padded: bool = True  # to an even number of bytes


def _check_chunks(path: str, file: BinaryIO, size: int, chunks: _Chunks) -> None:
    at, long_size = chunks.first, None
    while True:
        file.seek(at)
        name, field = file.read(4), file.read(chunks.width)
        if len(field) < chunks.width:
            return
        declared = int.from_bytes(field, chunks.order)
        if name == chunks.audio:
            break
        if name == b"ds64":  # RF64: the sizes of the file and of its data in 64 bits
            long_size = int.from_bytes(file.read(16)[8:], "little")
        at = min(at + 4 + chunks.width + declared + (declared % 2 if chunks.padded else 0), size)
    if long_size is not None and declared == 0xFFFFFFFF:
        declared = long_size
    there = size - file.tell()
    if declared == 0:
        follows = file.read(4)  # the name of another chunk, or audio
        if follows and (not follows.isascii() or 0 in follows):
            raise AudioFileError(path, f"unfinished: its header declares no audio, but {there} bytes follow it")
    elif declared > there and not _unknown(declared):
        raise AudioFileError(path, f"truncated: its header declares {declared} bytes of audio, {there} are there")


def _unknown(declared: int) -> bool:
    """What writers put that could not go back to fill in the size: ffmpeg all ones, sox and arecord about 2 GiB."""
    return declared in (2**32 - 1, 2**64 - 1) or 0x7FFF0000 <= declared <= 0x80001000


def _check_last_page(path: str, file: BinaryIO, size: int) -> None:
    file.seek(max(0, size - 2 * _LARGEST_OGG_PAGE))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[26] if len(page) > 26 else 0
    end = 27 + segments + sum(page[27 : 27 + segments])
    if len(page) < 27 + segments or len(page) < end:
        raise AudioFileError(path, "truncated: it ends inside an Ogg page")
    if _ogg_checksum(page[:22] + bytes(4) + page[26:end]) != int.from_bytes(page[22:26], "little"):
        raise AudioFileError(path, "corrupt: the checksum of its last Ogg page is wrong")
    if not page[5] & 4:
        raise AudioFileError(path, "truncated: its last Ogg page does not end the stream")


def _ogg_checksum(page: bytes) -> int:
    """The CRC of Ogg: zlib's polynomial with the most significant bit first, from 0 and not inverted."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
