"""Reading and writing through the programs ffmpeg and ffprobe, for MPEG-4 audio."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from fractions import Fraction
from typing import IO, Any

from ._errors import AudioFileError
from ._formats import AudioInfo
from ._libraries import library, program

_PREROLL = 1  # seconds that are decoded and thrown away in front of a part
_LAST_PACKETS = 4096  # frames by which the length that a container states may exceed what its packets hold
_ONLY_FILES = ("-protocol_whitelist", "file")  # a file that names others must not fetch them from the network


class FfmpegFile:
    """A sound file that ffmpeg reads, from `begin` on and once."""

    def __init__(self, path: str, container: str) -> None:
        self._path = path
        self._program = find(path, "ffmpeg", "reading")
        ffprobe = find(path, "ffprobe", "reading")
        stream = _probe(ffprobe, path, "stream=codec_name,sample_rate,channels,time_base,duration_ts,start_time")
        rate, channels = int(stream.get("sample_rate", 0)), int(stream.get("channels", 0))
        codec = stream.get("codec_name", "unknown")
        if rate <= 0 or channels <= 0:
            raise AudioFileError(path, f"holds audio that ffmpeg cannot read: codec {codec}")
        self._delay = round(float(stream.get("start_time", 0.0)) * rate)
        ticks = int(stream.get("duration_ts", 0))
        if not ticks or container == "aac":
            # ADTS does not state its length, and ffprobe guesses: the packets are summed, without decoding them
            stream = _probe(ffprobe, path, "stream=time_base:packet=duration")
            ticks = sum(int(packet.get("duration", 0)) for packet in stream["packets"])
        frames = round(ticks * Fraction(stream["time_base"]) * rate)
        self.info = AudioInfo.of(frames, rate, channels, codec, container)
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._dtype = "float32"
        self._left = 0

    def begin(self, start: int, stop: int, dtype: str) -> None:
        """Starts decoding the frames start..stop as float32 or float64. To be called once."""
        self._dtype, self._left = dtype, stop - start
        if self._left:
            self._errors = tempfile.TemporaryFile()
            command = [self._program, *self._arguments(start, stop)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors
            )

    def _arguments(self, start: int, stop: int) -> list[str]:
        rate, seek, part = self.info.sample_rate, [], f"atrim=start_sample={start}:end_sample={stop}"
        if start > _PREROLL * rate:
            # packets keep their times, by which the filter cuts to the sample
            seek = ["-copyts", "-noaccurate_seek", "-ss", f"{start / rate - _PREROLL:.6f}"]
            part = f"atrim=start_pts={start + self._delay}:end_pts={stop + self._delay}"
        raw = "f64le" if self._dtype == "float64" else "f32le"
        before = ["-v", "error", "-nostdin", "-xerror", *_ONLY_FILES, *seek, "-i", _url(self._path)]
        return [*before, "-map", "0:a:0", "-af", part, "-c:a", f"pcm_{raw}", "-f", raw, "pipe:1"]

    def read(self, frames: int) -> Any:
        """The next frames, (frames, channels); fewer only at the end of the file, by less than its last packets."""
        numpy = library("numpy")
        width = self.info.channels * (8 if self._dtype == "float64" else 4)
        data = bytearray(frames * width)
        got = 0
        if self._process is not None:
            assert self._process.stdout is not None
            got = self._process.stdout.readinto(data) // width  # type: ignore[attr-defined]
        self._left -= got
        if got < frames or not self._left:
            self._finish()
        return numpy.frombuffer(data, self._dtype)[: got * self.info.channels].reshape(-1, self.info.channels)

    def _finish(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdout is not None and self._errors is not None
        process.stdout.close()
        failed = process.wait() != 0
        self._errors.seek(0)
        said = _last_line(self._errors.read())
        self._errors.close()
        if failed:
            raise AudioFileError(self._path, f"corrupt or truncated {self.info.container}: ffmpeg says {said!r}")
        if self._left > _LAST_PACKETS:
            raise AudioFileError(self._path, f"corrupt or truncated: {self._left} frames are missing")

    def close(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            assert process.stdout is not None and self._errors is not None
            process.stdout.close()
            process.wait()
            self._errors.close()


class FfmpegWriter:
    """Writes an M4A file from blocks of float32 samples (aac) or of int32 samples with 24 bits (alac)."""

    def __init__(self, path: str, shown: str, sr: int, channels: int, codec: str, kbps: int | None) -> None:
        self._shown = shown
        raw = "s32le" if codec == "alac" else "f32le"
        command = [find(shown, "ffmpeg", "writing"), "-v", "error", "-y", "-f", raw, "-ar", str(sr)]
        command += ["-ac", str(channels), "-i", "pipe:0", "-c:a", codec]
        if kbps is not None:
            command += ["-b:a", f"{kbps}k"]
        # the length is stated in units of movie_timescale: milliseconds by default, samples here
        command += ["-movie_timescale", str(sr), "-f", "ipod", _url(path)]
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors)

    def write(self, block: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(block.tobytes())
        except BrokenPipeError:  # it has stopped: close() says why
            pass

    def close(self) -> None:
        try:
            self._process.communicate()
        finally:
            self._errors.seek(0)
            said = _last_line(self._errors.read())
            self._errors.close()
        if self._process.returncode:
            raise AudioFileError(self._shown, f"ffmpeg cannot write it: {said}")


def find(path: str, name: str, doing: str) -> str:
    """The path of the program.

    Raises:
        AudioFileError: it is not there; says what for.
    """
    found = program(name)
    if found is None:
        raise AudioFileError(path, f"{doing} this format needs the programs ffmpeg and ffprobe; no {name} on the PATH")
    return found


def _probe(ffprobe: str, path: str, entries: str) -> dict[str, Any]:
    """What ffprobe says of the first audio stream, and its packets if they are among the entries."""
    command = [ffprobe, "-v", "error", *_ONLY_FILES, "-select_streams", "a:0", "-show_entries", entries]
    done = subprocess.run([*command, "-of", "json", _url(path)], stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        raise AudioFileError(path, f"corrupt, truncated or no audio: ffprobe says {_last_line(done.stderr)!r}")
    said = json.loads(done.stdout)
    if not said.get("streams"):
        raise AudioFileError(path, "holds no audio")
    return {**said["streams"][0], "packets": said.get("packets", [])}


def _url(path: str) -> str:
    """The path such that ffmpeg takes no part of it for an option or a protocol."""
    return f"file:{os.path.abspath(path)}"


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
