"""What is known of a sound file without decoding it, and the formats that can be written."""

from __future__ import annotations

import os
import re
from typing import Any, Mapping, NamedTuple

from .._arguments import ArgumentError
from . import _mp3

_AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_BITRATE = re.compile(r"([1-9][0-9]*)k")


class AudioInfo(NamedTuple):
    """A sound file as its headers describe it.

    frames: samples of one channel.
    sample_rate: in Hz.
    duration: in seconds.
    subtype: how samples are stored: "pcm16", "pcm24", "float32", "mp3", "vorbis", "aac", "alac", ...
    container: "wav", "flac", "aiff", "caf", "mp3", "ogg", "m4a", "aac", ...
    """

    frames: int
    sample_rate: int
    channels: int
    duration: float
    subtype: str
    container: str

    @classmethod
    def of(cls, frames: int, sample_rate: int, channels: int, subtype: str, container: str) -> AudioInfo:
        return cls(frames, sample_rate, channels, frames / sample_rate, subtype, container)


class Target(NamedTuple):
    """One format with one encoding, checked to hold the audio: what a writer needs to know."""

    container: str
    subtype: str
    sr: int
    channels: int
    kbps: int | None


class _Format(NamedTuple):
    container: str
    encodings: Mapping[str, str]  # from the public name to libsndfile's subtype or ffmpeg's codec
    max_channels: int
    max_bytes: int | None = None  # what fits in the size fields of the header
    holds_nothing: bool = True  # whether a file of no frames is one


_PCM = {"float32": "FLOAT", "pcm16": "PCM_16", "pcm24": "PCM_24"}
_AIFF = _Format("AIFF", _PCM, 1024, 2**31 - 2**16)
_FORMATS = {
    ".wav": _Format("WAV", _PCM, 1024, 2**32 - 2**16),
    ".flac": _Format("FLAC", {**_PCM, "float32": "PCM_24"}, 8, holds_nothing=False),
    ".aiff": _AIFF,
    ".aif": _AIFF,
    ".caf": _Format("CAF", _PCM, 1024),
    ".mp3": _Format("MP3", {"float32": "MPEG_LAYER_III"}, 2, holds_nothing=False),
    ".m4a": _Format("M4A", {"float32": "aac", "alac": "alac"}, 2, holds_nothing=False),
}
_BYTES = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}


def target(path: str, encoding: Any, bitrate: Any, sr: int, frames: int, channels: int) -> Target:
    """The format of the path's extension, if it can hold this audio.

    Raises:
        ValueError: it cannot; names what it can.
    """
    extension = os.path.splitext(path)[1].lower()
    if extension not in _FORMATS:
        raise ArgumentError(f"path must end in one of {', '.join(_FORMATS)}, got {path!r}")
    f = _FORMATS[extension]
    if encoding not in f.encodings:
        raise ArgumentError(f"encoding must be one of {', '.join(f.encodings)} for {extension} files, got {encoding!r}")
    subtype = f.encodings[encoding]
    rates = _rates(f.container, subtype)
    if sr not in rates:
        allowed = f"1 .. {rates[-1]}" if isinstance(rates, range) else f"one of {', '.join(map(str, rates))}"
        raise ArgumentError(f"sr must be {allowed} for {extension} files, got {sr}")
    if not 1 <= channels <= f.max_channels:
        raise ArgumentError(
            f"audio must have 1 .. {f.max_channels} channels for {extension} files, got {channels} "
            f"of {frames} frames; is layout right?"
        )
    if not frames and not f.holds_nothing:
        raise ArgumentError(f"audio must have at least one frame for {extension} files, got none")
    if f.max_bytes is not None and frames * channels * _BYTES[subtype] > f.max_bytes:
        raise ArgumentError(f"audio must be below {f.max_bytes} bytes for {extension} files; use .caf or .flac")
    return Target(f.container, subtype, sr, channels, _kbps(bitrate, extension, subtype, sr, channels))


def _rates(container: str, subtype: str) -> range | tuple[int, ...]:
    if container == "MP3":
        return _mp3.SAMPLE_RATES
    if subtype == "aac":
        return _AAC_RATES
    return range(1, {"FLAC": 655350, "M4A": 384000}.get(container, 2**31 - 1) + 1)


def _kbps(bitrate: Any, extension: str, subtype: str, sr: int, channels: int) -> int | None:
    """The constant bitrate in kbit/s; None where the encoder chooses."""
    if not isinstance(bitrate, str):
        raise TypeError(f'bitrate must be "auto" or a str like "192k", got {bitrate!r} ({type(bitrate).__name__})')
    if bitrate == "auto":
        return None
    if subtype == "MPEG_LAYER_III":
        allowed: range | tuple[int, ...] = _mp3.bitrates(sr)
    elif subtype == "aac":
        allowed = range(8, 6144 * channels * sr // 1024 // 1000 + 1)  # at most 6144 bits per channel and packet
    else:
        raise ArgumentError(f'bitrate must be "auto" for {extension} files with this encoding, got {bitrate!r}')
    match = _BITRATE.fullmatch(bitrate)
    if match is None or int(match[1]) not in allowed:
        shown = f"8k .. {allowed[-1]}k" if isinstance(allowed, range) else ", ".join(f"{k}k" for k in allowed)
        raise ArgumentError(
            f'bitrate must be "auto" or one of {shown} for {extension} files at {sr} Hz, got {bitrate!r}'
        )
    return int(match[1])
