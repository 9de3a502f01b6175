"""Sound files of every format: what is read, written and told of them, and what is said of damaged ones."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from test_audio import sound

from mps_spectro import audio

RATE = 48000
# as soundfile calls them: format, subtype; as we do: container, subtype
FORMATS = [
    ("WAV", "PCM_U8", "wav", "pcmu8"),
    ("WAV", "PCM_16", "wav", "pcm16"),
    ("WAV", "PCM_24", "wav", "pcm24"),
    ("WAV", "PCM_32", "wav", "pcm32"),
    ("WAV", "FLOAT", "wav", "float32"),
    ("WAV", "DOUBLE", "wav", "float64"),
    ("WAV", "ULAW", "wav", "ulaw"),
    ("WAV", "MS_ADPCM", "wav", "ms_adpcm"),
    ("WAVEX", "PCM_24", "wavex", "pcm24"),
    ("RF64", "PCM_16", "rf64", "pcm16"),
    ("FLAC", "PCM_16", "flac", "pcm16"),
    ("FLAC", "PCM_24", "flac", "pcm24"),
    ("AIFF", "PCM_16", "aiff", "pcm16"),
    ("AIFF", "FLOAT", "aiff", "float32"),
    ("CAF", "PCM_16", "caf", "pcm16"),
    ("CAF", "FLOAT", "caf", "float32"),
    ("CAF", "ALAC_16", "caf", "alac"),
    ("OGG", "VORBIS", "ogg", "vorbis"),
    ("OGG", "OPUS", "ogg", "opus"),
    ("MP3", "MPEG_LAYER_III", "mp3", "mp3"),
]
NAMES = [f"{form}-{subtype}" for form, subtype, _, _ in FORMATS]
FFMPEG = pytest.mark.skipif(not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="no ffmpeg and ffprobe")


def tones(frames: int, channels: int = 2) -> np.ndarray:
    """Nothing that AAC would code as noise."""
    t = np.arange(frames)[:, None] / 44100
    return (0.4 * np.sin(2 * np.pi * t * (440 + 300 * np.arange(channels)))).astype(np.float32)


def written(path: Path, form: str, subtype: str, samples: np.ndarray, rate: int = RATE) -> Path:
    """A file of soundfile's; the test is skipped where this libsndfile lacks the format."""
    if not soundfile.check_format(form, subtype):
        pytest.skip(f"libsndfile {soundfile.__libsndfile_version__} does not write {form} {subtype}")
    soundfile.write(path, samples, rate, format=form, subtype=subtype)
    return path


def refuses(path: Path, *, by_headers: bool = True) -> None:
    """Every way of reading the whole file raises an error that begins with its path."""
    calls = [
        lambda: audio.load(path),
        lambda: audio.load(path, sr=16000),
        lambda: audio.batch_load([path]),
        lambda: list(audio.stream(path, 1000)),
        lambda: list(audio.stream(path, 1000, sr=16000)),
    ]
    for call in [*calls, lambda: audio.info(path)] if by_headers else calls:
        with pytest.raises(audio.AudioFileError) as caught:
            call()
        assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) > len(str(path)) + 5


# reading


@pytest.mark.parametrize("form, subtype, container, name", FORMATS, ids=NAMES)
def test_read(tmp_path: Path, form: str, subtype: str, container: str, name: str) -> None:
    x = sound(100001)
    path = written(tmp_path / "x.dat", form, subtype, x)
    expected = soundfile.read(path, dtype="float32")[0]
    got, rate = audio.load(path)
    assert rate == RATE and np.array_equal(got.numpy(), expected)
    about = audio.info(path)
    assert about == audio.AudioInfo(len(expected), RATE, 2, len(expected) / RATE, name, container)
    for size in (777, 20000):
        chunks = [chunk for chunk, _ in audio.stream(path, size)]
        assert {len(chunk) for chunk in chunks[:-1]} == {size}
        assert np.array_equal(torch.cat(chunks).numpy(), expected)
    whole, _ = audio.load(path, sr=32000, mono=True)
    assert torch.equal(torch.cat([c for c, _ in audio.stream(path, 5000, sr=32000, mono=True)]), whole)
    for start in (1, 4097, 50001, 99000, 100001):
        part, _ = audio.load(path, offset=start / RATE, duration=0.05)
        assert part.shape == expected[start : start + 2400].shape
        assert np.allclose(part.numpy(), expected[start : start + 2400], rtol=0, atol=2e-7 if name == "mp3" else 0)
        part, _ = audio.load(path, sr=32000, mono=True, offset=start / RATE, duration=0.05)
        begin = round(start / RATE * 32000)
        assert np.allclose(part.numpy(), whole[begin : begin + 1600].numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "form, subtype", [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16"), ("CAF", "PCM_16")]
)
def test_known_samples(tmp_path: Path, form: str, subtype: str) -> None:
    values = np.array([0, 1, -1, 32767, -32768, 12345], np.int16)
    path = written(tmp_path / "x", form, subtype, values)
    assert audio.load(path)[0][:, 0].tolist() == [value / 32768 for value in values.tolist()]


@pytest.mark.parametrize("form, subtype", [("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("MP3", "MPEG_LAYER_III")])
def test_info_decodes_nothing(tmp_path: Path, form: str, subtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "x", form, subtype, sound(1000))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("info decoded")

    monkeypatch.setattr(soundfile.SoundFile, "read", refuse)
    monkeypatch.setattr(soundfile.SoundFile, "buffer_read", refuse)
    assert audio.info(path).frames == 1000


# writing

TOLERANCE = {"FLOAT": 0.0, "PCM_16": 2**-16, "PCM_24": 2**-24, "MPEG_LAYER_III": 0.05}
WRITTEN = [
    (".wav", "float32", "WAV", "FLOAT"),
    (".wav", "pcm16", "WAV", "PCM_16"),
    (".wav", "pcm24", "WAV", "PCM_24"),
    (".flac", "float32", "FLAC", "PCM_24"),
    (".flac", "pcm16", "FLAC", "PCM_16"),
    (".flac", "pcm24", "FLAC", "PCM_24"),
    (".aiff", "float32", "AIFF", "FLOAT"),
    (".aif", "pcm16", "AIFF", "PCM_16"),
    (".aiff", "pcm24", "AIFF", "PCM_24"),
    (".caf", "float32", "CAF", "FLOAT"),
    (".caf", "pcm16", "CAF", "PCM_16"),
    (".CAF", "pcm24", "CAF", "PCM_24"),
    (".mp3", "float32", "MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize("suffix, encoding, form, subtype", WRITTEN)
@pytest.mark.parametrize("channels", [1, 2])
def test_write(tmp_path: Path, suffix: str, encoding: str, form: str, subtype: str, channels: int) -> None:
    x = tones(100001, channels) if form == "MP3" else sound(100001, channels)
    path = tmp_path / f"x{suffix}"
    audio.save(path, torch.from_numpy(x), 44100, encoding=encoding)
    about = soundfile.info(path)
    assert (about.format, about.subtype, about.samplerate, about.channels, about.frames) == (
        form,
        subtype,
        44100,
        channels,
        100001,
    )
    got, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == 44100 and got.shape == x.shape
    inner = slice(2048, -2048) if form == "MP3" else slice(None)
    assert np.abs(got - x)[inner].max() <= TOLERANCE[subtype]
    assert np.array_equal(audio.load(path)[0].numpy(), got)


@pytest.mark.parametrize("sr", [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000])
def test_mp3_bitrates(tmp_path: Path, sr: int) -> None:
    kbps = (32, 128, 192, 320) if sr >= 32000 else (8, 64, 160) if sr >= 16000 else (8, 32, 64)
    x = sound(4 * sr)
    for k in kbps:
        audio.save(tmp_path / "x.mp3", x, sr, bitrate=f"{k}k")
        frames = audio.info(tmp_path / "x.mp3").frames
        if (144000 if sr >= 32000 else 72000) * k // sr >= 192:  # bytes of a frame: room to state the length
            assert frames == len(x)
        else:
            assert len(x) <= frames < len(x) + 4 * 1152
        assert abs((tmp_path / "x.mp3").stat().st_size * 8 / 4 / 1000 - k) <= 0.05 * k + 2.5
    tone = (0.5 * np.sin(np.arange(2 * sr) * 2 * np.pi * 440 / sr)).astype(np.float32)
    audio.save(tmp_path / "x.mp3", tone, sr, bitrate=f"{kbps[-1]}k")
    got = audio.load(tmp_path / "x.mp3")[0][:, 0].numpy()
    assert np.abs(got - tone)[sr // 4 : -sr // 4].max() < 0.03  # LAME lowers the level by 0 to 5 %


def test_extension_does_not_decide_on_reading(tmp_path: Path) -> None:
    x = sound(1000)
    for name in ("x.mp3", "x.ogg", "x.m4a", "x"):
        path = written(tmp_path / name, "FLAC", "PCM_24", x)
        assert np.array_equal(audio.load(path)[0].numpy(), soundfile.read(path, dtype="float32")[0])


# damage


@pytest.mark.parametrize("form, subtype, container, name", FORMATS, ids=NAMES)
@pytest.mark.parametrize("share", [0.002, 0.3, 0.9, 0.999])
def test_truncated(tmp_path: Path, form: str, subtype: str, container: str, name: str, share: float) -> None:
    x = sound(60000)
    data = written(tmp_path / "whole", form, subtype, x).read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * share)])
    refuses(path, by_headers=container not in ("flac", "mp3"))


@pytest.mark.parametrize("form, subtype", [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")])
@pytest.mark.parametrize("at", [0.3, 0.6, 0.999])
def test_corrupt(tmp_path: Path, form: str, subtype: str, at: float) -> None:
    """In the formats with checksums."""
    data = bytearray(written(tmp_path / "whole", form, subtype, sound(200000)).read_bytes())
    middle = int(len(data) * at) - 40
    data[middle : middle + 32] = bytes(byte ^ 0x5A for byte in data[middle : middle + 32])
    (tmp_path / "x").write_bytes(data)
    refuses(tmp_path / "x", by_headers=False)


@pytest.mark.parametrize("form, subtype, container, name", FORMATS, ids=NAMES)
def test_corrupt_header(tmp_path: Path, form: str, subtype: str, container: str, name: str) -> None:
    data = written(tmp_path / "whole", form, subtype, sound(5000)).read_bytes()
    path = tmp_path / "x"
    path.write_bytes(b"\x00" * 4 + data[4:])
    refuses(path)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"RIFF", b"RIFF\x24\0\0\0WAVE", b"OggS", b"fLaC", b"caff\0\1\0\0", b"ID3\4\0", b"hello\n" * 99]
)
def test_no_audio(tmp_path: Path, data: bytes) -> None:
    for name in ("x.wav", "x.raw", "x"):
        (tmp_path / name).write_bytes(data)
        refuses(tmp_path / name)


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, error in (("none.wav", FileNotFoundError), ("folder", IsADirectoryError)):
        for call in (
            audio.load,
            audio.info,
            lambda path: audio.stream(path, 10),
            lambda path: audio.batch_load([path]),
        ):
            with pytest.raises(error, match=name):
                call(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
def test_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    refuses(tmp_path / "pipe.wav")
    with pytest.raises(audio.AudioFileError, match="regular file"):
        audio.save(tmp_path / "pipe.wav", torch.zeros(10), 8000)


# lengths that are not what the headers say


def data_chunk(path: Path) -> tuple[bytearray, int]:
    data = bytearray(path.read_bytes())
    return data, data.index(b"data") + 4


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000])
def test_wav_written_to_a_pipe(tmp_path: Path, size: int) -> None:
    path = written(tmp_path / "x.wav", "WAV", "PCM_16", sound(5000))
    expected = soundfile.read(path, dtype="float32")[0]
    data, at = data_chunk(path)
    data[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    assert audio.info(path).frames == 5000
    assert np.array_equal(audio.load(path)[0].numpy(), expected)


@pytest.mark.parametrize("silent", [True, False])
def test_wav_whose_recorder_died(tmp_path: Path, silent: bool) -> None:
    path = written(tmp_path / "x.wav", "WAV", "PCM_16", np.zeros(5000) if silent else sound(5000) - 0.9)
    data, at = data_chunk(path)
    data[at : at + 4] = bytes(4)
    path.write_bytes(data)
    refuses(path)


def test_wav_with_more_after_the_samples(tmp_path: Path) -> None:
    more = b"LIST" + struct.pack("<I", 4) + b"INFO"
    for frames in (5000, 0):
        path = written(tmp_path / "x.wav", "WAV", "PCM_16", sound(5000)[:frames])
        path.write_bytes(path.read_bytes() + more)
        assert audio.load(path)[0].shape == (frames, 2)


def test_flac_written_to_a_pipe(tmp_path: Path) -> None:
    path = written(tmp_path / "x.flac", "FLAC", "PCM_16", sound(50000))
    expected = soundfile.read(path, dtype="float32")[0]
    data = bytearray(path.read_bytes())
    assert int.from_bytes(data[21:26], "big") & 0xFFFFFFFFF == 50000
    data[21], data[22:26] = data[21] & 0xF0, bytes(4)  # STREAMINFO: 0 samples, unknown
    path.write_bytes(data)
    assert audio.info(path).frames == 50000
    assert np.array_equal(audio.load(path)[0].numpy(), expected)
    assert np.array_equal(audio.load(path, offset=0.5, duration=0.1)[0].numpy(), expected[24000:28800])
    assert sum(len(chunk) for chunk, _ in audio.stream(path, 999)) == 50000
    path.write_bytes(data[: len(data) // 2])
    refuses(path)


KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)


def without_first_frame(data: bytes) -> bytes:
    """An MP3 file at 48 kHz without the frame that states its length."""
    return data[3 * KBPS[data[2] >> 4] :]


@pytest.mark.parametrize("bitrate", ["auto", "128k", "64k"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("tags", [False, True])
def test_mp3_without_a_length(tmp_path: Path, bitrate: str, channels: int, tags: bool) -> None:
    x = sound(200000, channels) * np.linspace(0, 1, 200000, dtype=np.float32)[:, None]  # grows: so does its bitrate
    audio.save(tmp_path / "whole.mp3", x, RATE, bitrate=bitrate)
    expected, _ = audio.load(tmp_path / "whole.mp3")
    data = without_first_frame((tmp_path / "whole.mp3").read_bytes())
    path = tmp_path / "bare.mp3"
    before = b"ID3\4\0\0" + bytes((0, 0, 1, 0)) + bytes(128)
    path.write_bytes(before + data + b"TAG".ljust(128, b"\0") if tags else data)
    frames = audio.info(path).frames
    assert frames % 1152 == 0 and 200000 < frames < 200000 + 4 * 1152
    got, _ = audio.load(path)
    assert got.shape == (frames, channels)
    # what a decoder removes where the header says so: 576 samples of the encoder, 529 of the decoder
    assert (got[1105 : 1105 + 200000] - expected).abs().max() < 1e-6
    assert torch.equal(torch.cat([chunk for chunk, _ in audio.stream(path, 3333)]), got)
    for start in (10, 30000, 150001, frames - 100):
        part, _ = audio.load(path, offset=start / RATE, duration=0.02)
        assert torch.allclose(part, got[start : start + 960], rtol=0, atol=2e-7)
    path.write_bytes(data[:-10])
    refuses(path)


def test_mp3_with_a_header_of_no_length(tmp_path: Path) -> None:
    audio.save(tmp_path / "x.mp3", sound(100000), RATE, bitrate="64k")
    data = bytearray((tmp_path / "x.mp3").read_bytes())
    at = max(data.find(b"Xing"), data.find(b"Info"))
    (tmp_path / "bare.mp3").write_bytes(without_first_frame(bytes(data)))
    data[at + 4 : at + 8] = bytes(4)
    (tmp_path / "x.mp3").write_bytes(data)
    assert audio.info(tmp_path / "x.mp3").frames == audio.info(tmp_path / "bare.mp3").frames
    assert torch.equal(audio.load(tmp_path / "x.mp3")[0], audio.load(tmp_path / "bare.mp3")[0])


@pytest.mark.parametrize("sr, bitrate", [(48000, "32k"), (22050, "16k"), (11025, "32k"), (8000, "8k"), (44100, "320k")])
def test_mp3_parts_and_chunks(tmp_path: Path, sr: int, bitrate: str) -> None:
    """Low bitrates borrow most from frames before: a decoder that has only sought there garbles the first ones."""
    path = tmp_path / "x.mp3"
    audio.save(path, sound(10 * sr), sr, bitrate=bitrate)
    whole, _ = audio.load(path)
    for chunk in (500, 4096):
        assert torch.equal(torch.cat([part for part, _ in audio.stream(path, chunk)]), whole)
    for start in np.random.default_rng(1).integers(0, 9 * sr, 25).tolist():
        part, _ = audio.load(path, offset=start / sr, duration=0.1)
        expected = whole[start : start + len(part)]
        assert len(part) == round(0.1 * sr) and torch.allclose(part, expected, rtol=0, atol=2e-7), start


# ffmpeg: what we ask of it, with programs in its place

FAKE = """#!{python}
import array, json, os, re, sys
here = os.path.dirname(os.path.abspath(__file__))
plan = json.load(open(os.path.join(here, "plan.json")))
name, arguments = os.path.basename(__file__), sys.argv[1:]
with open(os.path.join(here, "calls"), "a") as calls:
    calls.write(json.dumps([name, arguments]) + "\\n")
if arguments == ["-version"]:
    print(f"{{name}} version 99.1 of a test")
elif name == "ffprobe":
    packets = "packet=duration" in arguments[arguments.index("-show_entries") + 1]
    print(json.dumps({{"streams": plan["streams"], **({{"packets": plan["packets"]}} if packets else {{}})}}))
elif "pipe:0" in arguments:
    data = sys.stdin.buffer.read()
    open(arguments[-1].removeprefix("file:"), "wb").write(b"\\0\\0\\0\\x20ftypM4A " + data)
else:
    first, last = map(int, re.findall(r"=(\\d+)", arguments[arguments.index("-af") + 1]))
    width = 4 * plan["channels"]
    data = open(os.path.join(here, "samples"), "rb").read()[first * width : last * width]
    sys.stdout.buffer.write(array.array("d", array.array("f", data)).tobytes() if "f64le" in arguments else data)
sys.stdout.flush()
sys.stderr.write("a line\\n" + plan["stderr"])
sys.exit(plan["status"])
"""


class Fake:
    """Programs that answer as ffmpeg and ffprobe would for a file of these samples, and note how they were called."""

    def __init__(self, folder: Path, samples: np.ndarray, **stream: Any) -> None:
        self.folder = folder
        folder.mkdir()
        channels = samples.shape[1]
        known = {"codec_name": "aac", "sample_rate": "8000", "channels": channels, "time_base": "1/8000"}
        self.plan: dict[str, Any] = {
            "streams": [{**known, "duration_ts": len(samples), "start_time": "0.000000", **stream}],
            "packets": [],
            "channels": channels,
            "stderr": "",
            "status": 0,
        }
        samples.astype("<f4").tofile(folder / "samples")
        self.set()
        for name in ("ffmpeg", "ffprobe"):
            (folder / name).write_text(FAKE.format(python=sys.executable))
            (folder / name).chmod(0o755)

    def set(self, **plan: Any) -> None:
        self.plan.update(plan)
        (self.folder / "plan.json").write_text(json.dumps(self.plan))

    @property
    def last(self) -> list[str]:
        return json.loads((self.folder / "calls").read_text().splitlines()[-1])[1]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    if sys.platform == "win32":
        pytest.skip("scripts as programs")
    programs = Fake(tmp_path / "bin", sound(40000))
    monkeypatch.setenv("PATH", str(programs.folder))
    return programs


@pytest.fixture
def m4a(tmp_path: Path) -> Path:
    path = tmp_path / "-a:b,c.m4a"  # neither an option nor a protocol
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    return path


def test_fake_ffmpeg_reads(fake: Fake, m4a: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = sound(40000)
    assert audio.info(m4a) == audio.AudioInfo(40000, 8000, 2, 5.0, "aac", "m4a")
    monkeypatch.chdir(m4a.parent)
    got, rate = audio.load(m4a.name)
    assert rate == 8000 and np.array_equal(got.numpy(), x)
    assert fake.last[fake.last.index("-i") + 1] == f"file:{m4a}"
    assert fake.last[fake.last.index("-protocol_whitelist") + 1] == "file"
    assert "-xerror" in fake.last and "-ss" not in fake.last
    got, _ = audio.load(m4a, dtype="float64", offset=1.0, duration=0.5)
    assert np.array_equal(got.numpy(), x[8000:12000].astype(np.float64)) and "-ss" not in fake.last
    got, _ = audio.load(m4a, offset=3.5, duration=0.5)
    assert np.array_equal(got.numpy(), x[28000:32000])
    assert fake.last[fake.last.index("-ss") + 1] == "2.500000" and "-copyts" in fake.last
    assert fake.last[fake.last.index("-af") + 1] == "atrim=start_pts=28000:end_pts=32000"
    assert np.array_equal(torch.cat([chunk for chunk, _ in audio.stream(m4a, 777)]).numpy(), x)
    chunks = audio.stream(m4a, 777)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert audio.backends()["ffmpeg"] == audio.backends()["ffprobe"] == "99.1"


def test_fake_ffmpeg_fails(fake: Fake, m4a: Path) -> None:
    fake.set(status=1, stderr="moov atom not found\n")
    refuses(m4a)
    with pytest.raises(audio.AudioFileError, match="moov atom not found"):
        audio.info(m4a)
    with pytest.raises(audio.AudioFileError, match="moov atom not found"):
        audio.save(m4a, torch.zeros(10), 44100)
    fake.set(status=0, streams=[])
    refuses(m4a)


def test_fake_ffmpeg_gives_less(fake: Fake, m4a: Path) -> None:
    known = fake.plan["streams"][0]
    fake.set(streams=[{**known, "duration_ts": 50000}])
    refuses(m4a, by_headers=False)
    fake.set(streams=[{**known, "duration_ts": 41000}])  # less than the last packets: codecs are that vague
    assert audio.load(m4a)[0].shape == (40000, 2)
    assert sum(len(chunk) for chunk, _ in audio.stream(m4a, 3000)) == 40000
    fake.set(streams=[{"codec_name": "secret"}])
    refuses(m4a)


def test_fake_adts_is_measured_by_its_packets(fake: Fake, tmp_path: Path) -> None:
    path = tmp_path / "x.aac"
    fake.set(streams=[{**fake.plan["streams"][0], "duration_ts": 123}], packets=[{"duration": 1024}] * 39)
    for before in (b"", b"ID3\4\0\0\0\0\0\5hello"):
        path.write_bytes(before + b"\xff\xf1" + bytes(100))
        assert audio.info(path)[:3] == (39 * 1024, 8000, 2)


@pytest.mark.parametrize("encoding, dtype", [("float32", "<f4"), ("alac", "<i4")])
def test_fake_ffmpeg_writes(fake: Fake, tmp_path: Path, encoding: str, dtype: str) -> None:
    x = sound(100000)
    path = tmp_path / "out.m4a"
    audio.save(path, x, 44100, encoding=encoding)
    sent = np.frombuffer(path.read_bytes()[12:], dtype).reshape(-1, 2)
    if encoding == "alac":
        assert np.array_equal(sent, np.round(x.astype(np.float64) * 2**23).astype(np.int64) << 8)
    else:
        assert np.array_equal(sent, x)
    codec = {"float32": "aac", "alac": "alac"}[encoding]
    assert fake.last[fake.last.index("-c:a") + 1] == codec and "-b:a" not in fake.last
    assert fake.last[fake.last.index("-ar") + 1] == "44100" and fake.last[fake.last.index("-ac") + 1] == "2"
    if encoding == "float32":
        audio.save(path, x, 44100, bitrate="96k")
        assert fake.last[fake.last.index("-b:a") + 1] == "96k"
    assert sorted(os.listdir(tmp_path)) == ["bin", "out.m4a"]


def test_without_ffmpeg(m4a: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(m4a.parent))
    refuses(m4a)
    with pytest.raises(audio.AudioFileError, match="needs the programs ffmpeg and ffprobe; no ffmpeg on the PATH"):
        audio.load(m4a)
    with pytest.raises(audio.AudioFileError, match="writing this format needs the programs ffmpeg"):
        audio.save(m4a.parent / "new.m4a", torch.zeros(10), 44100)
    assert os.listdir(m4a.parent) == [m4a.name]
    assert audio.backends()["ffmpeg"] is None and audio.backends()["ffprobe"] is None


# ffmpeg itself


def encoded(path: Path, samples: np.ndarray, rate: int, *options: str) -> Path:
    command = ["ffmpeg", "-v", "error", "-y", "-f", "f32le", "-ar", str(rate), "-ac", str(samples.shape[1])]
    subprocess.run([*command, "-i", "pipe:0", *options, str(path)], input=samples.tobytes(), check=True)
    return path


@FFMPEG
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [1, 1000, 44100 * 6 + 17])
def test_alac(tmp_path: Path, channels: int, frames: int) -> None:
    x = sound(frames, channels)
    path = tmp_path / "x.m4a"
    audio.save(path, x, 44100, encoding="alac")
    assert audio.info(path) == audio.AudioInfo(frames, 44100, channels, frames / 44100, "alac", "m4a")
    got, rate = audio.load(path, dtype="float64")
    expected = np.round(x.astype(np.float64) * 2**23) / 2**23
    assert rate == 44100 and np.array_equal(got.numpy(), expected)
    assert torch.equal(torch.cat([chunk for chunk, _ in audio.stream(path, 5000, dtype="float64")]), got)
    for offset in (0.5, 1.0, 1.00003, 3.3333, 5.9):
        if offset * 44100 < frames:
            part, _ = audio.load(path, offset=offset, duration=0.3, dtype="float64")
            start = round(offset * 44100)
            assert torch.equal(part, got[start : start + 13230])


@FFMPEG
@pytest.mark.parametrize("sr", [8000, 44100, 48000, 96000])
@pytest.mark.parametrize("bitrate", ["auto", "192k"])
def test_aac(tmp_path: Path, sr: int, bitrate: str) -> None:
    if sr == 8000 and bitrate != "auto":
        bitrate = "32k"
    x = tones(5 * sr + 123)
    path = tmp_path / "x.m4a"
    audio.save(path, x, sr, bitrate=bitrate)
    assert audio.info(path) == audio.AudioInfo(len(x), sr, 2, len(x) / sr, "aac", "m4a")
    got, _ = audio.load(path)
    assert got.shape == x.shape
    error, inner = got.numpy() - x, slice(2048, -2048)
    assert (x[inner] ** 2).sum() > 100 * (error[inner] ** 2).sum()  # 20 dB: ffmpeg's encoder is no better on tones
    if bitrate != "auto":
        assert abs(path.stat().st_size * 8 / 5 / 1000 - int(bitrate[:-1])) < 0.25 * int(bitrate[:-1])
    assert torch.equal(
        torch.cat([chunk for chunk, _ in audio.stream(path, 4000, sr=16000)]), audio.load(path, 16000)[0]
    )


@FFMPEG
@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("suffix", ["m4a", "aac"])
def test_part_of_aac(tmp_path: Path, rate: int, suffix: str) -> None:
    """Exact where no band is coded as noise."""
    path = encoded(tmp_path / f"x.{suffix}", sound(rate * 8), rate, "-c:a", "aac", "-aac_pns", "0")
    whole, _ = audio.load(path)
    for start in (1, rate // 2, rate, rate + 1, 3 * rate + 17, 5 * rate, 8 * rate - 100):
        part, _ = audio.load(path, offset=start / rate, duration=0.2)
        expected = whole[start : start + round(0.2 * rate)]
        assert part.shape == expected.shape and torch.allclose(part, expected, rtol=0, atol=1e-5), start
    with_noise = encoded(tmp_path / f"noise.{suffix}", sound(rate * 8), rate, "-c:a", "aac", "-b:a", "48k")
    whole, part = audio.load(with_noise)[0], audio.load(with_noise, offset=4.0, duration=0.5)[0]
    expected = whole[4 * rate : 4 * rate + len(part)]
    assert (part - expected).square().mean() < 0.1 * expected.square().mean()


@FFMPEG
@pytest.mark.parametrize(
    "name, options, codec, container",
    [
        ("x.aac", ("-c:a", "aac", "-f", "adts"), "aac", "aac"),
        ("x.caf", ("-c:a", "adpcm_ima_qt"), "adpcm_ima_qt", "caf"),
        ("x.mp4", ("-c:a", "aac"), "aac", "m4a"),
    ],
)
def test_other_files_of_ffmpeg(tmp_path: Path, name: str, options: Any, codec: str, container: str) -> None:
    x = tones(44100 * 4)
    path = encoded(tmp_path / name, x, 44100, *options)
    about = audio.info(path)
    assert (about.sample_rate, about.channels, about.subtype, about.container) == (44100, 2, codec, container)
    got, _ = audio.load(path)
    assert 0 <= about.frames - len(got) <= 64 and abs(len(got) - len(x)) <= 2048
    delay = 1024 if name == "x.aac" else 0  # ADTS cannot tell of the encoder's
    inner = slice(4096, 44100 * 3)
    assert np.abs(got[delay:].numpy()[inner] - x[inner]).max() < 0.06
    part, _ = audio.load(path, offset=2.0, duration=0.5)
    assert np.abs(part.numpy() - got[88200:110250].numpy()).max() < 0.05


@FFMPEG
@pytest.mark.parametrize("name", ["x.m4a", "alac.m4a", "front.m4a", "x.aac"])
def test_damaged_files_of_ffmpeg(tmp_path: Path, name: str) -> None:
    codec = "alac" if name == "alac.m4a" else "aac"
    front = ("-movflags", "+faststart") if name != "x.aac" else ("-f", "adts")
    whole = encoded(tmp_path / f"whole-{name}", tones(44100 * 4), 44100, "-c:a", codec, *front)
    data = whole.read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) // 2])
    refuses(path, by_headers=False)
    middle = len(data) // 2
    if codec == "aac":  # damage in ALAC is noise: it has no checksum, and nearly every row of bits is a sound
        damaged = bytes(byte ^ 0x5A for byte in data[middle : middle + 200])
        path.write_bytes(data[:middle] + damaged + data[middle + 200 :])
        refuses(path, by_headers=False)
    if name != "x.aac":
        path.write_bytes(data[:40])
        refuses(path)


@FFMPEG
def test_mp3_of_variable_bitrate_against_ffmpeg(tmp_path: Path) -> None:
    x = sound(44100 * 5) * np.linspace(0, 1, 44100 * 5, dtype=np.float32)[:, None]
    path = encoded(tmp_path / "x.mp3", x, 44100, "-q:a", "4", "-write_xing", "0", "-id3v2_version", "3")
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-f", "f32le", "-"], capture_output=True, check=True
    )
    expected = np.frombuffer(raw.stdout, "<f4").reshape(-1, 2)
    got = audio.load(path)[0].numpy()
    assert got.shape == expected.shape and np.abs(got - expected).max() < 1e-5
