"""Reading and writing sound files: parts, rates, chunks, batches, tensors, and what happens to wrong arguments."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
import torch
from conftest import Route

from mps_spectro import audio

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = ROOT.parent / "shared" / "audio"
RECIPES = {"default": "HQ", "fastest": "QQ", "low": "LQ", "medium": "MQ", "high": "HQ", "best": "VHQ"}
RATES = [(44100, 16000), (48000, 16000), (16000, 48000), (44100, 48000), (48000, 44100), (22050, 8000), (8000, 11025)]


def sound(frames: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Tones, a chirp and noise, float32 below full scale, every channel different."""
    t = np.arange(frames)[:, None]
    tones = 0.3 * np.sin(t * np.linspace(0.05, 0.11, channels)) + 0.2 * np.sin(1e-6 * t * t)
    return (tones + 0.1 * np.random.default_rng(seed).standard_normal((frames, channels))).astype(np.float32)


@pytest.fixture
def wav(tmp_path: Path) -> Callable[..., Path]:
    """Writes a float WAV file with soundfile: wav(samples, rate)."""

    def write(samples: np.ndarray, rate: int, name: str = "sound.wav") -> Path:
        soundfile.write(tmp_path / name, samples, rate, subtype="FLOAT")
        return tmp_path / name

    return write


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=300
    )


# the optional libraries


def test_import_takes_no_optional_library() -> None:
    done = run(
        "import sys\n"
        "import torch\n"
        "before = set(sys.modules)\n"
        "import mps_spectro.audio\n"
        "heavy = {'numpy', 'soundfile', 'soxr'} & (set(sys.modules) - before)\n"
        "assert not heavy, heavy\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", ["soundfile", "soxr"])
def test_missing_library_is_named_with_the_extra(
    wav: Callable[..., Path], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = wav(sound(1000), 8000)
    monkeypatch.setitem(sys.modules, missing, None)
    calls = [
        lambda: audio.load(path, sr=4000),
        lambda: list(audio.stream(path, 100, sr=4000)),
        lambda: audio.batch_load([path], sr=4000),
    ]
    if missing == "soundfile":
        calls += [lambda: audio.info(path), lambda: audio.save(path, torch.zeros(10), 8000)]
    else:
        assert audio.load(path)[0].shape == (1000, 2)
    for call in calls:
        with pytest.raises(ImportError, match=rf"needs {missing} .*pip install 'mps-spectro\[audio\]'"):
            call()
    assert audio.backends()[missing] is None


def test_backends() -> None:
    found = audio.backends()
    assert list(found) == ["soundfile", "libsndfile", "soxr", "ffmpeg", "ffprobe"]
    assert found["soundfile"] == soundfile.__version__
    assert found["libsndfile"] == soundfile.__libsndfile_version__
    assert found["soxr"] == soxr.__version__


# load


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_shape_layout_and_values(wav: Callable[..., Path], channels: int) -> None:
    x = sound(3001, channels)
    path = wav(x, 22050)
    last, rate = audio.load(path)
    first, _ = audio.load(str(path), layout="channels_first")
    assert rate == 22050 and isinstance(rate, int)
    assert last.shape == (3001, channels) and first.shape == (channels, 3001)
    assert last.dtype == torch.float32 and last.is_contiguous() and first.is_contiguous()
    assert np.array_equal(last.numpy(), x) and torch.equal(first, last.T)


def test_mono_is_the_mean(wav: Callable[..., Path]) -> None:
    x = sound(1000, 3)
    got, _ = audio.load(wav(x, 8000), mono=True)
    assert got.shape == (1000, 1)
    assert np.abs(got.numpy()[:, 0] - x.astype(np.float64).mean(axis=1)).max() < 1e-7
    assert audio.load(wav(x, 8000), mono=True, layout="channels_first")[0].shape == (1, 1000)
    assert np.array_equal(audio.load(wav(x[:, :1], 8000), mono=True)[0].numpy(), x[:, :1])


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "float64"])
def test_dtype(tmp_path: Path, name: str) -> None:
    x = sound(2000, 2).astype(np.float64)
    soundfile.write(tmp_path / "x.wav", x, 8000, subtype="DOUBLE")
    dtype = getattr(torch, name)
    for given in (name, dtype):
        got, _ = audio.load(tmp_path / "x.wav", dtype=given)
        assert got.dtype == dtype
        assert torch.equal(got, torch.from_numpy(x).to(dtype))
    exact = torch.from_numpy(soxr.resample(x, 8000, 12000))
    got, _ = audio.load(tmp_path / "x.wav", sr=12000, dtype=name)
    assert got.dtype == dtype and got.shape == exact.shape
    assert (got.double() - exact).abs().max() <= {"float64": 0, "float32": 1e-6}.get(name, torch.finfo(dtype).eps)


def test_device(route: Route, wav: Callable[..., Path], tmp_path: Path) -> None:
    x = sound(3000, 2)
    path = wav(x, 8000)
    expected = torch.from_numpy(x)
    whole, _ = audio.load(path, device=route.device)
    half, _ = audio.load(path, device=route.device, dtype="float16", layout="channels_first")
    assert whole.device.type == half.device.type == torch.device(route.device).type
    assert torch.equal(whole.cpu(), expected) and torch.equal(half.cpu(), expected.half().T)
    chunks = [chunk for chunk, _ in audio.stream(path, 999, device=torch.device(route.device))]
    assert all(chunk.device.type == whole.device.type for chunk in chunks)
    assert torch.equal(torch.cat(chunks).cpu(), expected)
    [(one, _)] = audio.batch_load([path], device=route.device)
    assert one.device.type == whole.device.type
    audio.save(tmp_path / "back.wav", whole[::2].T, 8000, layout="channels_first")
    assert np.array_equal(soundfile.read(tmp_path / "back.wav", dtype="float32")[0], x[::2])


# parts

PARTS = [(0.0, 0.1), (0.05, 0.2), (0.3333, 0.4444), (0.99, 5.0), (1.0, 1.0), (0.5, 0.0), (0.123, None), (0.0, None)]


@pytest.mark.parametrize("offset, duration", PARTS)
@pytest.mark.parametrize("suffix, subtype", [("wav", "PCM_16"), ("flac", "PCM_24"), ("aiff", "FLOAT"), ("caf", None)])
def test_part_without_loss(tmp_path: Path, suffix: str, subtype: str, offset: float, duration: float | None) -> None:
    rate = 11025
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, sound(rate + 7), rate, subtype=subtype)
    whole = soundfile.read(path, dtype="float32")[0]
    start = round(offset * rate)
    stop = len(whole) if duration is None else min(len(whole), start + round(duration * rate))
    got, _ = audio.load(path, offset=offset, duration=duration)
    assert np.array_equal(got.numpy(), whole[start:stop])


def test_part_rounds_to_the_nearest_sample(wav: Callable[..., Path]) -> None:
    path = wav(sound(44100), 44100)
    whole, _ = audio.load(path)
    for start in range(0, 44100, 1231):  # a third of these times are a little below the sample in floating point
        got, _ = audio.load(path, offset=start / 44100, duration=7 / 44100)
        assert torch.equal(got, whole[start : start + 7]), start


def test_a_part_is_sought(wav: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = wav(sound(480000), 48000)
    read = soundfile.SoundFile.read
    counts: list[int] = []

    def counting(self: Any, *arguments: Any, **options: Any) -> Any:
        samples = read(self, *arguments, **options)
        counts.append(len(samples))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    audio.load(path, offset=7.0, duration=0.5)
    assert sum(counts) == 24000
    counts.clear()
    audio.load(path, sr=16000, offset=7.0, duration=0.5)
    assert 24000 < sum(counts) < 27000
    counts.clear()
    chunks = audio.stream(path, 1000)
    next(chunks)
    assert sum(counts) == 1000


def test_no_more_memory_than_samples(wav: Callable[..., Path]) -> None:
    path = wav(sound(50000), 48000)
    tensors = [audio.load(path, sr=16000, offset=0.3, duration=0.1)[0]]
    tensors += [chunk for chunk, _ in audio.stream(path, 100, sr=16000)]
    tensors += [chunk for chunk, _ in audio.stream(path, 100)]
    assert all(x.untyped_storage().nbytes() == x.numel() * 4 for x in tensors)


# resampling


@pytest.mark.parametrize("quality", RECIPES)
@pytest.mark.parametrize("rate, sr", RATES)
def test_resampling_is_soxr(wav: Callable[..., Path], rate: int, sr: int, quality: str) -> None:
    x = sound(rate // 2 + 3)
    got, new = audio.load(wav(x, rate), sr=sr, resample_quality=quality)
    assert new == sr
    assert np.array_equal(got.numpy(), soxr.resample(x, rate, sr, RECIPES[quality]))


@pytest.mark.parametrize("quality, least", [("fastest", 25), ("low", 65), ("medium", 95), ("high", 105), ("best", 120)])
@pytest.mark.parametrize("rate, sr", [(44100, 16000), (16000, 44100), (48000, 32000)])
def test_resampling_against_the_tone(tmp_path: Path, rate: int, sr: int, quality: str, least: float) -> None:
    def tone(at: int) -> np.ndarray:
        return 0.5 * np.sin(2 * np.pi * 1234.5 * np.arange(at)[:, None] / at)

    soundfile.write(tmp_path / "x.wav", tone(rate), rate, subtype="DOUBLE")
    got = audio.load(tmp_path / "x.wav", sr=sr, dtype="float64", resample_quality=quality)[0].numpy()
    expected = tone(sr)
    assert got.shape == expected.shape
    inner = slice(sr // 10, -sr // 10)
    snr = 10 * np.log10((expected[inner] ** 2).sum() / ((got - expected)[inner] ** 2).sum())
    assert snr >= least


def test_resampling_against_scipy(wav: Callable[..., Path]) -> None:
    x = scipy.signal.sosfilt(scipy.signal.butter(8, 5000, fs=44100, output="sos"), sound(44100, 1), axis=0)
    got = audio.load(wav(x, 44100), sr=22050, resample_quality="best")[0].numpy()
    expected = scipy.signal.resample_poly(x, 1, 2, axis=0, window=("kaiser", 14.0))
    assert np.abs(got - expected)[200:-200].max() < 2e-4


@pytest.mark.parametrize("rate, sr", [*RATES, (44100, 44099), (7919, 7907)])
def test_length_is_soxrs(rate: int, sr: int) -> None:
    from mps_spectro.audio._resample import length

    for frames in [0, 1, 2, 3, 10, 147, 160, 441, 999, 1000, 1001, 44100, 44101]:
        assert length(frames, rate, sr) == len(soxr.resample(np.zeros((frames, 1), np.float32), rate, sr)), frames


@pytest.mark.parametrize("quality", RECIPES)
@pytest.mark.parametrize("rate, sr", [*RATES, (44100, 44099)])
def test_part_is_that_of_the_whole(wav: Callable[..., Path], rate: int, sr: int, quality: str) -> None:
    path = wav(sound(2 * rate + 5), rate)
    whole, _ = audio.load(path, sr=sr, resample_quality=quality)
    close = 3e-5 if quality == "fastest" or sr == 44099 else 1e-6
    parts = [(0.0, 0.05), (0.01, 0.02), (0.3217, 0.25), (1.1, 0.1), (1.9, 0.1), (1.95, 1.0), (1.5, None), (2.0, 1.0)]
    for offset, duration in parts:
        start = round(offset * sr)
        stop = len(whole) if duration is None else start + round(duration * sr)
        got, _ = audio.load(path, sr=sr, offset=offset, duration=duration, resample_quality=quality)
        expected = whole[start:stop]
        assert got.shape == expected.shape, (offset, duration)
        assert np.allclose(got.numpy(), expected.numpy(), rtol=0, atol=close), (offset, duration)


def test_same_rate_is_not_resampled(wav: Callable[..., Path]) -> None:
    x = sound(1000)
    assert np.array_equal(audio.load(wav(x, 16000), sr=16000)[0].numpy(), x)


# streams


@pytest.mark.parametrize("sr", [None, 16000, 48000, 44099])
@pytest.mark.parametrize("size", [1, 100, 4096, 65536, 100000, 10**7])
def test_stream_is_load(wav: Callable[..., Path], sr: int | None, size: int) -> None:
    frames = 500 if size == 1 else 150000
    path = wav(sound(frames), 44100)
    options: dict[str, Any] = {"sr": sr, "layout": "channels_first", "resample_quality": "best"}
    whole, rate = audio.load(path, **options)
    chunks = list(audio.stream(path, size, **options))
    assert {new for _, new in chunks} == {rate}
    assert all(chunk.shape == (2, size) for chunk, _ in chunks[:-1])
    assert 1 <= chunks[-1][0].shape[1] <= size
    assert torch.equal(torch.cat([chunk for chunk, _ in chunks], dim=1), whole)


def test_stream_by_duration_mono_half(wav: Callable[..., Path]) -> None:
    path = wav(sound(44100), 44100)
    chunks = list(audio.stream(path, chunk_duration=0.3, sr=16000, mono=True, dtype="float16"))
    assert [tuple(chunk.shape) for chunk, _ in chunks] == [(4800, 1), (4800, 1), (4800, 1), (1600, 1)]
    assert torch.equal(
        torch.cat([chunk for chunk, _ in chunks]), audio.load(path, sr=16000, mono=True, dtype="float16")[0]
    )


def test_stream_of_nothing(wav: Callable[..., Path]) -> None:
    path = wav(np.zeros((0, 2), np.float32), 44100)
    assert audio.load(path)[0].shape == (0, 2)
    assert audio.load(path, sr=16000)[0].shape == (0, 2)
    assert list(audio.stream(path, 10)) == [] and list(audio.stream(path, 10, sr=16000)) == []
    assert audio.info(path).duration == 0.0


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="lists open files as Linux does")
def test_files_are_closed(wav: Callable[..., Path]) -> None:
    path = wav(sound(10000), 44100)

    def opened() -> int:
        return sum(os.path.realpath(f"/proc/self/fd/{fd}") == str(path) for fd in os.listdir("/proc/self/fd"))

    audio.load(path)
    audio.info(path)
    list(audio.stream(path, 1000))
    assert opened() == 0
    chunks = audio.stream(path, 1000)
    next(chunks)
    assert opened() == 1
    chunks.close()  # type: ignore[attr-defined]
    assert opened() == 0
    with pytest.raises(ValueError, match="offset"):
        audio.load(path, offset=9.0)
    with pytest.raises(ValueError, match="chunk_duration"):
        audio.stream(path, chunk_duration=1e-9)
    assert opened() == 0


# batches


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_batch_keeps_the_order(wav: Callable[..., Path], workers: int) -> None:
    sounds = [sound(1000 * (12 - i), 1 + i % 3, seed=i) for i in range(12)]
    paths = [wav(x, 8000 + 1000 * i, f"{i}.wav") for i, x in enumerate(sounds)]
    for (got, rate), x, i in zip(audio.batch_load(iter(paths), num_workers=workers), sounds, range(12), strict=True):
        assert rate == 8000 + 1000 * i and np.array_equal(got.numpy(), x)
    options: dict[str, Any] = {"sr": 16000, "mono": True, "dtype": "float16"}
    both = audio.batch_load(paths, num_workers=workers, **options)
    assert all(torch.equal(got, audio.load(path, **options)[0]) for (got, _), path in zip(both, paths, strict=True))
    assert audio.batch_load([]) == []


def test_batch_raises_the_first_error(wav: Callable[..., Path], tmp_path: Path) -> None:
    good = wav(sound(200000), 8000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF nonsense")
    with pytest.raises(audio.AudioFileError, match="bad.wav"):
        audio.batch_load([good, tmp_path / "bad.wav", tmp_path / "none.wav", good])
    with pytest.raises(FileNotFoundError, match="none.wav"):
        audio.batch_load([good, tmp_path / "none.wav", tmp_path / "bad.wav"], num_workers=3)
    for one in (str(good), good):
        with pytest.raises(TypeError, match="paths"):
            audio.batch_load(one)  # type: ignore[arg-type]


# save


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.from_numpy(x),
        lambda x: torch.from_numpy(x).double(),
        lambda x: torch.from_numpy(x).clone().requires_grad_(),
        lambda x: torch.from_numpy(np.repeat(x, 2, axis=0))[::2],
        lambda x: x,
        lambda x: x.astype(np.float64),
        lambda x: np.asfortranarray(x),
        lambda x: x[::-1].copy()[::-1],
        lambda x: x.tolist(),
        lambda x: torch._neg_view(torch.from_numpy(-x)),
    ],
)
def test_save_takes(tmp_path: Path, make: Callable[[np.ndarray], Any]) -> None:
    x = sound(70000, 2)
    audio.save(tmp_path / "x.wav", make(x), 16000)
    got, rate = soundfile.read(tmp_path / "x.wav", dtype="float32")
    assert rate == 16000 and np.array_equal(got, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_save_takes_halves(tmp_path: Path, dtype: torch.dtype) -> None:
    x = torch.from_numpy(sound(1000)).to(dtype)
    audio.save(tmp_path / "x.wav", x, 16000)
    assert np.array_equal(soundfile.read(tmp_path / "x.wav", dtype="float32")[0], x.float().numpy())


def test_save_layouts(tmp_path: Path) -> None:
    x = torch.from_numpy(sound(1000, 3))
    for name, given, layout in (("a", x, "channels_last"), ("b", x.T, "channels_first")):
        audio.save(tmp_path / f"{name}.wav", given, 8000, layout)
        assert np.array_equal(soundfile.read(tmp_path / f"{name}.wav", dtype="float32")[0], x.numpy())
    for layout in ("channels_last", "channels_first"):
        audio.save(str(tmp_path / "c.wav"), x[:, 0], 8000, layout=layout)
        assert audio.load(tmp_path / "c.wav")[0].shape == (1000, 1)


def test_clip(tmp_path: Path) -> None:
    x = torch.tensor([2.0, -3.0, 0.5, 1.0, -1.0])
    path = tmp_path / "x.wav"
    audio.save(path, x, 8000)
    assert audio.load(path)[0][:, 0].tolist() == [1.0, -1.0, 0.5, 1.0, -1.0]
    audio.save(path, x, 8000, clip=False)
    assert audio.load(path)[0][:, 0].tolist() == x.tolist()
    audio.save(path, x, 8000, encoding="pcm16")
    assert audio.load(path)[0][:, 0].tolist() == [1 - 2**-15, -1.0, 0.5, 1 - 2**-15, -1.0]
    for encoding in ("pcm16", "pcm24"):
        with pytest.raises(ValueError, match="peak of 3.0"):
            audio.save(path, x, 8000, encoding=encoding, clip=False)
        audio.save(path, x[2:], 8000, encoding=encoding, clip=False)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff", ".aif", ".caf"])
@pytest.mark.parametrize("encoding, bits", [("pcm16", 16), ("pcm24", 24)])
def test_integers_are_the_nearest(tmp_path: Path, suffix: str, encoding: str, bits: int) -> None:
    path = tmp_path / f"x{suffix}"
    full = 2.0 ** (bits - 1)
    x = np.clip(1.2 * sound(30000).astype(np.float64), -1, 1)
    audio.save(path, x, 8000, encoding=encoding)
    assert soundfile.info(path).subtype == f"PCM_{bits}"
    stored = soundfile.read(path, dtype="float64")[0]
    assert np.array_equal(stored * full, np.clip(np.round(x * full), -full, full - 1))
    assert abs((stored - x).mean()) < 0.02 / full, "rounded to one side"
    audio.save(tmp_path / f"y{suffix}", audio.load(path)[0], 8000, encoding=encoding)
    assert np.array_equal(soundfile.read(tmp_path / f"y{suffix}", dtype="float64")[0], stored)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("encoding", ["float32", "pcm16"])
def test_audio_must_be_finite(tmp_path: Path, bad: float, clip: bool, encoding: str) -> None:
    x = torch.zeros(200000)
    x[150000] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        audio.save(tmp_path / "x.wav", x, 8000, encoding=encoding, clip=clip)
    assert os.listdir(tmp_path) == []


def test_audio_beyond_float32(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="range of float32"):
        audio.save(tmp_path / "x.wav", torch.tensor([1e300], dtype=torch.float64), 8000, clip=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(4, dtype=torch.int16),
        torch.zeros(4, dtype=torch.complex64),
        torch.zeros(4, dtype=torch.bool),
        np.zeros(4, np.int32),
        [0, 1],
        ["a"],
        None,
    ],
)
def test_audio_must_be_floating_point(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(TypeError, match="audio must be floating point"):
        audio.save(tmp_path / "x.wav", bad, 8000)


# a failed save


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(b"precious")
    for bad in (torch.full((10,), float("nan")), torch.zeros(1, 1, 1), torch.zeros(10, 2000)):
        with pytest.raises(ValueError):
            audio.save(path, bad, 8000)
    assert path.read_bytes() == b"precious" and os.listdir(tmp_path) == ["x.wav"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits and permissions")
def test_full_disk(tmp_path: Path) -> None:
    names = [f"x{suffix}" for suffix in (".wav", ".flac", ".mp3", ".caf", ".aiff")]
    for name in names:
        (tmp_path / name).write_bytes(b"precious")
    done = run(
        "import os, resource, sys, torch\n"
        "from mps_spectro import audio\n"
        "x = torch.randn(200000).clamp(-1, 1) * 0.5\n"
        "for limit in (30000, 1000):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, 30000))\n"
        "    for path in sys.argv[1:]:\n"
        "        try:\n"
        "            audio.save(path, x, 44100)\n"
        "        except audio.AudioFileError as why:\n"
        "            assert str(why).startswith(path + ': '), why\n"
        "        else:\n"
        "            raise AssertionError('no error: ' + path)\n",
        *(str(tmp_path / name) for name in names),
    )
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    assert all((tmp_path / name).read_bytes() == b"precious" for name in names)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits and permissions")
def test_permissions_and_links(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        audio.save(tmp_path / "new.wav", torch.zeros(10), 8000)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new.wav").stat().st_mode) == 0o640
    (tmp_path / "new.wav").chmod(0o604)
    (tmp_path / "link.wav").symlink_to(tmp_path / "new.wav")
    audio.save(tmp_path / "link.wav", torch.ones(20), 8000)
    assert (tmp_path / "link.wav").is_symlink()
    assert stat.S_IMODE((tmp_path / "new.wav").stat().st_mode) == 0o604
    assert audio.info(tmp_path / "new.wav").frames == 20


def test_where_nothing_can_be_saved(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        audio.save(tmp_path / "nowhere" / "x.wav", torch.zeros(10), 8000)
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(IsADirectoryError, match="folder.wav"):
        audio.save(tmp_path / "folder.wav", torch.zeros(10), 8000)
    assert os.listdir(tmp_path) == ["folder.wav"]


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    audio.save("x.wav", torch.zeros(10), 8000)
    assert audio.load(b"x.wav")[0].shape == (10, 1)


# wrong arguments

WRONG_OF_ALL = [
    ({"sr": 0}, ValueError, "sr must be positive"),
    ({"sr": -8000}, ValueError, "sr must be positive"),
    ({"sr": 8000.0}, TypeError, "sr must be an int"),
    ({"sr": True}, TypeError, "sr must be an int"),
    ({"mono": 1}, TypeError, "mono must be True or False"),
    ({"layout": "planar"}, ValueError, "layout must be one of channels_last, channels_first"),
    ({"dtype": "int16"}, ValueError, "dtype must be one of float32, float16"),
    ({"dtype": torch.int32}, ValueError, "dtype must be one of"),
    ({"dtype": np.float32}, ValueError, "dtype must be one of"),
    ({"resample_quality": "HQ"}, ValueError, "resample_quality must be one of default, fastest"),
]


@pytest.mark.parametrize("arguments, error, message", WRONG_OF_ALL)
def test_wrong_arguments(wav: Callable[..., Path], arguments: Any, error: type[Exception], message: str) -> None:
    path = wav(sound(100), 8000)
    for call in (
        lambda: audio.load(path, **arguments),
        lambda: audio.batch_load([path], **arguments),
        lambda: audio.stream(path, 10, **arguments),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"offset": -0.1}, ValueError, "offset must be finite and not negative"),
        ({"offset": float("nan")}, ValueError, "offset must be"),
        ({"offset": "1"}, TypeError, "offset must be a number"),
        ({"duration": -1}, ValueError, "duration must be finite and not negative"),
        ({"duration": float("inf")}, ValueError, "duration must be"),
        ({"duration": True}, TypeError, "duration must be a number"),
        ({"offset": 1.001}, ValueError, "offset must not be past the end: .*sound.wav has 1.0 seconds, got 1.001"),
        ({"offset": 1.001, "sr": 4000}, ValueError, "offset must not be past the end"),
        ({"offset": 1e308}, ValueError, "offset must not be past the end"),
    ],
)
def test_wrong_parts(wav: Callable[..., Path], arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        audio.load(wav(sound(8000), 8000), **arguments)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({}, ValueError, "either chunk_frames or chunk_duration"),
        ({"chunk_frames": 10, "chunk_duration": 1.0}, ValueError, "either chunk_frames or chunk_duration"),
        ({"chunk_frames": 0}, ValueError, "chunk_frames must be positive"),
        ({"chunk_frames": 1.5}, TypeError, "chunk_frames must be an int"),
        ({"chunk_duration": 0}, ValueError, "chunk_duration must be at least one frame"),
        ({"chunk_duration": -1.0}, ValueError, "chunk_duration must be finite and not negative"),
        ({"chunk_duration": 1e-5}, ValueError, "chunk_duration must be at least one frame at 8000 Hz"),
    ],
)
def test_wrong_chunks(wav: Callable[..., Path], arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        audio.stream(wav(sound(100), 8000), **arguments)


@pytest.mark.parametrize("workers, error", [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_wrong_workers(workers: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="num_workers"):
        audio.batch_load([], num_workers=workers)


@pytest.mark.parametrize(
    "name, arguments, error, message",
    [
        ("x.wav", {"sr": 0}, ValueError, "sr must be positive"),
        ("x.wav", {"sr": 8000.0}, TypeError, "sr must be an int"),
        ("x.wav", {"sr": 2**31}, ValueError, "sr must be 1 .. 2147483647 for .wav files"),
        ("x.wav", {"layout": "auto"}, ValueError, "layout must be one of"),
        ("x.wav", {"clip": None}, TypeError, "clip must be True or False"),
        ("x.wav", {"encoding": "pcm8"}, ValueError, "encoding must be one of float32, pcm16, pcm24 for .wav files"),
        ("x.wav", {"encoding": "alac"}, ValueError, "encoding must be one of"),
        ("x.caf", {"encoding": "alac"}, ValueError, "encoding must be one of"),
        ("x.mp3", {"encoding": "pcm16"}, ValueError, "encoding must be one of float32 for .mp3 files"),
        ("x.m4a", {"encoding": "pcm16"}, ValueError, "encoding must be one of float32, alac for .m4a files"),
        ("x.ogg", {}, ValueError, "path must end in one of .wav, .flac, .aiff, .aif, .caf, .mp3, .m4a"),
        ("x", {}, ValueError, "path must end in one of"),
        ("x.wav", {"bitrate": "192k"}, ValueError, 'bitrate must be "auto" for .wav files'),
        ("x.flac", {"bitrate": "192k"}, ValueError, 'bitrate must be "auto" for .flac files'),
        ("x.m4a", {"bitrate": "192k", "encoding": "alac"}, ValueError, 'bitrate must be "auto" for .m4a files'),
        ("x.mp3", {"bitrate": "193k"}, ValueError, "bitrate must be .* 32k, 40k.*320k for .mp3 files at 44100 Hz"),
        ("x.mp3", {"bitrate": "192"}, ValueError, "bitrate must be"),
        ("x.mp3", {"bitrate": 192000}, TypeError, "bitrate must be"),
        ("x.mp3", {"bitrate": "320k", "sr": 22050}, ValueError, "bitrate must be .* 160k for .mp3 files at 22050 Hz"),
        ("x.m4a", {"bitrate": "600k"}, ValueError, "bitrate must be .*8k .. 529k for .m4a files"),
        ("x.mp3", {"sr": 96000}, ValueError, "sr must be one of 8000, 11025.*48000 for .mp3 files"),
        ("x.m4a", {"sr": 44101}, ValueError, "sr must be one of 7350"),
        ("x.flac", {"sr": 655351}, ValueError, "sr must be 1 .. 655350 for .flac files"),
        ("x.mp3", {"audio": torch.zeros(10, 3)}, ValueError, "1 .. 2 channels for .mp3 files, got 3"),
        ("x.m4a", {"audio": torch.zeros(10, 3)}, ValueError, "1 .. 2 channels for .m4a files, got 3"),
        ("x.flac", {"audio": torch.zeros(10, 9)}, ValueError, "1 .. 8 channels for .flac files, got 9"),
        ("x.wav", {"audio": torch.zeros(2, 44100)}, ValueError, "got 44100 of 2 frames; is layout right"),
        ("x.wav", {"audio": torch.zeros(10, 0)}, ValueError, "1 .. 1024 channels"),
        ("x.flac", {"audio": torch.zeros(0)}, ValueError, "at least one frame for .flac files"),
        ("x.mp3", {"audio": torch.zeros(0, 2)}, ValueError, "at least one frame for .mp3 files"),
        ("x.wav", {"audio": torch.zeros(1, 2, 3)}, ValueError, "1 or 2 dimensions, got shape"),
        ("x.wav", {"audio": torch.tensor(1.0)}, ValueError, "1 or 2 dimensions, got shape"),
        ("x.wav", {"audio": torch.zeros(1, 1).expand(2**30, 1)}, ValueError, "must be below 42949.* bytes for .wav"),
        ("x.aiff", {"audio": torch.zeros(1, 1).expand(2**29, 1)}, ValueError, "must be below .* bytes for .aiff"),
    ],
)
def test_wrong_save(tmp_path: Path, name: str, arguments: Any, error: type[Exception], message: str) -> None:
    given = {"audio": torch.zeros(10, 2), "sr": 44100, **arguments}
    with pytest.raises(error, match=message):
        audio.save(tmp_path / name, **given)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", [None, 3, ["x.wav"]])
def test_path_must_be_a_path(path: Any) -> None:
    for call in (
        lambda: audio.load(path),
        lambda: audio.info(path),
        lambda: audio.stream(path, 10),
        lambda: audio.batch_load([path]),
        lambda: audio.save(path, torch.zeros(10), 8000),
    ):
        with pytest.raises(TypeError, match="path must be a str or a path"):
            call()


def test_the_error_is_a_runtime_error_that_pickles() -> None:
    error = audio.AudioFileError("a/b.wav", "is empty")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, RuntimeError) and type(again) is audio.AudioFileError
    assert str(again) == "a/b.wav: is empty" and again.path == "a/b.wav"


# recordings


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="no recordings here")
def test_recordings(tmp_path: Path) -> None:
    music, speech = RECORDINGS / "music-stereo-44k1-195s.ogg", RECORDINGS / "speech-mono-48k-1s.wav"
    about = audio.info(music)
    assert (about.sample_rate, about.channels, about.subtype, about.container) == (44100, 2, "vorbis", "ogg")
    assert about.frames == soundfile.info(music).frames and abs(about.duration - 195.5) < 0.1
    whole = soundfile.read(music, dtype="float32")[0]
    for offset in (0.0, 1.0, 60.123, 150.0, 190.0):
        part, _ = audio.load(music, offset=offset, duration=2.0)
        start = round(offset * 44100)
        assert np.array_equal(part.numpy(), whole[start : start + 88200])
    at = 0
    for chunk, _ in audio.stream(music, chunk_duration=10.0):
        assert np.array_equal(chunk.numpy(), whole[at : at + 441000])
        at += len(chunk)
    assert at == len(whole)
    [(a, _), (b, _)] = audio.batch_load([music, speech], sr=16000, mono=True)
    assert np.array_equal(a.numpy()[:, 0], soxr.resample(whole.mean(axis=1), 44100, 16000))
    assert abs(len(b) / 16000 - audio.info(speech).duration) < 1e-4
    words, rate = audio.load(speech)
    audio.save(tmp_path / "speech.wav", words, rate, encoding="pcm16")
    assert torch.equal(audio.load(tmp_path / "speech.wav")[0], words)
