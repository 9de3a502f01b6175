"""The `mps-spectro` command: demo and doctor."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import require_route

import mps_spectro
from mps_spectro import _demo, _demo_files, _doctor
from mps_spectro._cli import main


def read(path: Path) -> tuple[torch.Tensor, int]:
    with wave.open(str(path), "rb") as file:
        data = bytearray(file.readframes(file.getnframes()))
        samples = torch.frombuffer(data, dtype=torch.int16).float() / 32767
        return samples.reshape(-1, file.getnchannels()).T, file.getframerate()


def numbers(printed: str, pattern: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, printed)]


@pytest.mark.parametrize("name", ["torch", "host", "mps", "cuda"])
def test_demo(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = require_route(name).backend
    pytest.importorskip("matplotlib")
    assert main(["demo", "--seconds", "0.5", "--backend", backend, "--output", str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    assert f"backend     {backend}: " in printed
    assert "(2, 22050) float32 -> (2, 1025, 44) complex64 -> (2, 22050) float32" in printed
    differences = numbers(printed, r"largest difference (\S+) of")
    assert len(differences) == 2 and max(differences) < 1e-6
    assert numbers(printed, r"signal to noise (\S+) dB")[0] > 120
    # torch's own functions, used for comparison, must not count as launches
    assert ("'analysis'" in printed) == (backend != "torch")

    picture, sound = tmp_path / "new" / "synthesised-spectrogram.png", tmp_path / "new" / "synthesised-roundtrip.wav"
    assert str(picture) in printed and str(sound) in printed
    png = picture.read_bytes()
    assert png.startswith(b"\x89PNG") and int.from_bytes(png[16:20], "big") >= 1200
    restored, rate = read(sound)
    original, original_rate, _ = _demo_files.synthesise()
    assert rate == original_rate
    assert (restored - original[:, :22050]).abs().max() < 1e-4


def test_picture_shows_the_tone_where_it_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    magnitude = torch.full((1, 513, 300), 1e-9)
    magnitude[:, 128] = 1.0  # a quarter of the way up
    assert _demo_files.write_picture(tmp_path / "tone.png", magnitude, 44100, 512, "tone") is None
    with image.open(tmp_path / "tone.png") as opened:
        grey = torch.tensor(list(opened.convert("L").tobytes())).reshape(opened.height, opened.width)
    column = grey[:, opened.width // 3].float()  # past the title and the label, which are centred
    dark = (column < 20).nonzero().flatten()
    top, bottom = dark.min().item(), dark.max().item()
    bright = (column[top : bottom + 1] > 200).nonzero().flatten().float().mean().item()
    assert abs(1 - bright / (bottom - top) - 0.25) < 0.02


@pytest.mark.parametrize("wrong", [1.001, float("nan")])
def test_demo_fails_when_numbers_disagree(
    wrong: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_demo, "stft", lambda *args, **kwargs: wrong * mps_spectro.stft(*args, **kwargs))
    assert main(["demo", "--seconds", "0.2", "--backend", "torch", "--output", str(tmp_path)]) == 1
    assert "disagrees with torch" in capsys.readouterr().err


def test_demo_cuts_what_the_host_runtime_cannot_afford(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_route("host")
    monkeypatch.setattr(_demo, "_HOST_BUDGET", 0.1)
    assert main(["demo", "--seconds", "6", "--backend", "host", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    (kept,) = numbers(printed, r"only the first (\S+) s from here on: the host runtime is slow")
    assert 0 < kept < 6
    restored, rate = read(tmp_path / "synthesised-roundtrip.wav")
    assert abs(restored.shape[1] / rate - kept) < 0.06


def write_noise(path: Path, channels: int = 1) -> torch.Tensor:
    noise = torch.rand(channels, 5000) - 0.5
    _demo_files.write_wav(path, noise, 8000)
    return noise


def test_demo_reads_wav_without_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    noise = write_noise(tmp_path / "noise.wav", channels=3)
    read_back, rate, name = _demo_files.load(str(tmp_path / "noise.wav"))
    assert (rate, name) == (8000, "noise.wav")
    assert (read_back - noise).abs().max() < 1e-4
    assert main(["demo", str(tmp_path / "noise.wav"), "--backend", "torch", "--output", str(tmp_path)]) == 0


def test_demo_reads_with_soundfile(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    noise = torch.rand(2, 4000) - 0.5
    soundfile.write(tmp_path / "noise.flac", noise.T.numpy(), 16000)
    read_back, rate, _ = _demo_files.load(str(tmp_path / "noise.flac"))
    assert rate == 16000 and (read_back - noise).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.wav", None, "no such file"),
        ("song.ogg", b"OggS", "pip install 'mps-spectro[audio]'"),
        ("broken.wav", b"nonsense", "cannot read"),
    ],
)
def test_demo_names_what_is_wrong(
    name: str,
    content: bytes | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["demo", str(tmp_path / name), "--output", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_demo_refuses_a_recording_shorter_than_the_padding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seconds", "0.01", "--output", str(tmp_path)]) == 1
    assert "longer than 1024 samples, got 441" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_demo_refuses_a_backend_without_its_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--backend", "cuda", "--output", str(tmp_path)]) == 1
    assert "needs a CUDA device" in capsys.readouterr().err


def test_demo_without_matplotlib_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["demo", "--seconds", "0.2", "--backend", "torch", "--output", str(tmp_path)]) == 0
    assert "pip install 'mps-spectro[plots]'" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["synthesised-roundtrip.wav"]


def test_doctor_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    require_route("host")
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mps_spectro"] == mps_spectro.__version__
    assert found["failed"] == []
    assert re.fullmatch("[0-9a-f]{64}", found["shaders"]["sha256"])
    assert found["backends"]["torch"]["agrees"] is True
    host = found["backends"]["host"]
    assert host["agrees"] is True and host["kernel_calls"] >= 6
    # torch's float32 differs from float64 too: exactly 0 would mean that nothing was compared
    assert all(0 < error < 1e-6 for pair in host["max_relative_error"].values() for error in pair.values())


def test_doctor_text_in_a_fresh_process() -> None:
    command = [sys.executable, "-m", "mps_spectro", "doctor"]
    root = Path(mps_spectro.__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every backend that runs here agrees with torch" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_doctor_fails_when_numbers_disagree(
    error: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = torch.tensor([1.0, 2.0])
    got = wanted + torch.tensor([0.0, 2 * error])
    monkeypatch.setattr(_doctor, "_self_test", lambda *_: {"stft": _doctor._relative(got, wanted), "istft": 0.0})
    assert main(["doctor"]) == 1
    assert "torch" in capsys.readouterr().out.splitlines()[-1]


def test_doctor_fails_when_a_backend_breaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> dict[str, float]:
        raise OSError("the driver fell over")

    monkeypatch.setattr(_doctor, "_self_test", broken)
    assert main(["doctor"]) == 1
    assert "FAILED: OSError: the driver fell over" in capsys.readouterr().out


def test_doctor_notices_that_torch_answered_for_the_shaders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_doctor, "_self_test", lambda *_: {"stft": 1e-7, "istft": 1e-7})
    assert main(["doctor", "--json"]) == 1
    assert "torch answered instead" in json.loads(capsys.readouterr().out)["backends"]["host"]["why"]


def test_doctor_survives_what_it_cannot_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mps_spectro._runtime import source

    def missing() -> Path:
        raise FileNotFoundError("no shaders")

    monkeypatch.setattr(source, "shader_directory", missing)
    monkeypatch.setattr(_doctor, "_self_test", lambda *_: {"stft": 1e-7, "istft": 1e-7})
    main(["doctor", "--json"])
    assert "no shaders" in json.loads(capsys.readouterr().out)["shaders"]


def test_doctor_knows_the_patch(capsys: pytest.CaptureFixture[str]) -> None:
    assert _doctor._patch()["patched"] == []
    with mps_spectro.patch_torch():
        assert _doctor._patch()["patched"] == [
            "torch.stft",
            "torch.istft",
            "torch.functional.stft",
            "torch.functional.istft",
        ]
    assert _doctor._patch()["patched"] == []


def test_doctor_with_everything_switched_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPS_SPECTRO_DISABLE", "1")
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "MPS_SPECTRO_DISABLE" in found["backends"]["host"]["why"]
    assert found["environment"]["MPS_SPECTRO_DISABLE"] == "1"


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
