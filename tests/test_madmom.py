"""The logarithmic spectrogram of madmom: against its definition in numpy, and against madmom where it is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import descriptor_cases
import front_end_cases as cases
import numpy as np
import pytest
import torch
from conftest import Route
from madmom_reference import log_spectrogram, madmom_or_skip
from recordings import recording
from torch import Tensor

from mps_spectro import (
    FilteredSpectrogramTransform,
    diagnostics,
    log_triangular_fbanks,
    madmom_log_spectrogram,
    save_log_spectrogram,
    use_backend,
)

LIMIT = 1e-6  # of log10(S + 1), where madmom itself rounds to float32

CONFIGURATIONS: list[dict[str, Any]] = [
    {},
    {"frame_size": 1024, "num_bands": 6},
    {"frame_size": 4096, "num_bands": 24},
    {"frame_size": 8192, "fmin": 65.0, "fmax": 2100.0, "num_bands": 24},
    {"fps": 50},
    {"fps": 200},
    {"fps": 10, "fmin": 27.5, "fmax": 4186.0},
    {"fps": 31.7},
    {"fps": 130},
    {"sample_rate": 48000},
    {"sample_rate": 48000.0, "frame_size": 2229, "fps": 100.0},
    {"sample_rate": 22050, "frame_size": 1411, "fps": 50, "num_bands": 24},
    {"sample_rate": 22050},
    {"sample_rate": 11025, "frame_size": 512},
    {"sample_rate": 16000, "frame_size": 1000, "fmax": 8000.0},
    {"sample_rate": 32000, "frame_size": 2047},
    {"sample_rate": 8000, "frame_size": 512, "fmax": 4000.0, "num_bands": 3},
    {"fft_size": 4096},
    {"fft_size": 2049},
    {"frame_size": 2047, "fft_size": 2048},
    {"frame_size": 1024, "fft_size": 4096, "sample_rate": 22050},
    {"fref": 442.0},
    {"norm_filters": False},
    {"unique_filters": False},
    {"mul": 5.0},
    {"mul": 1e-3, "norm_filters": False, "unique_filters": False, "num_bands": 3},
]


def short(case: dict[str, Any], kind: str = "mixture") -> Tensor:
    return descriptor_cases.signal(case.get("sample_rate", 44100), kind)


def expected_of(x: Tensor, **case: Any) -> Tensor:
    """Of a signal (..., T) as it is: integers too."""
    rows = [torch.from_numpy(log_spectrogram(row.numpy(), **case)) for row in x.reshape(-1, x.shape[-1])]
    return torch.stack(rows).reshape(*x.shape[:-1], *rows[0].shape)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mixture", "clipped"])
@pytest.mark.parametrize("case", CONFIGURATIONS, ids=cases.name)
def test_definition(case: dict[str, Any], kind: str) -> None:
    x = short(case, kind)
    expected = expected_of(x.double(), **case)
    # float32 has so many digits of the largest magnitude, which a clipped signal has beside small ones
    limit = LIMIT * max(1.0, expected.max().item()) * (5.0 if kind == "clipped" else 1.0)
    assert cases.absolute(madmom_log_spectrogram(x, **case), expected) < limit
    assert cases.absolute(madmom_log_spectrogram(x.double(), **case), expected) < 1e-13


@pytest.mark.parametrize("case", CONFIGURATIONS[::5], ids=cases.name)
def test_routes(route: Route, case: dict[str, Any]) -> None:
    x = 0.3 * cases.noise(2, 7000)
    got = madmom_log_spectrogram(x.to(route.device), **case)
    assert cases.absolute(got, expected_of(x.double(), **case)) < 2.0 * LIMIT
    assert got.is_contiguous()


@pytest.mark.parametrize("case", CONFIGURATIONS, ids=cases.name)
def test_madmom_itself(case: dict[str, Any]) -> None:
    madmom_or_skip("spectrogram")
    for x in (short(case), 0.3 * cases.noise(5000), (20000 * short(case)).to(torch.int16)):
        theirs = madmom_log_spectrogram(x, **case, backend="madmom")
        scale = max(1.0, theirs.max().item())
        assert cases.absolute(madmom_log_spectrogram(x, **case), theirs.double()) < LIMIT * scale
        # the definition of the other tests
        assert cases.absolute(expected_of(x, **case), theirs.double()) < LIMIT * scale


@pytest.mark.parametrize("name", ["music-stereo-44k1-195s.ogg", "speech-mono-48k-1s.wav"])
def test_recordings(name: str) -> None:
    x, sample_rate = recording(name, 2.0, 0.0 if name.startswith("speech") else 60.0)
    got = madmom_log_spectrogram(x, sample_rate=sample_rate)
    assert cases.absolute(got, expected_of(x, sample_rate=sample_rate)) < 2.0 * LIMIT


def test_madmom_itself_on_recordings() -> None:
    madmom_or_skip("spectrogram")
    x, sample_rate = recording("music-stereo-44k1-195s.ogg", 10.0, 60.0)
    theirs = madmom_log_spectrogram(x, sample_rate=sample_rate, backend="madmom")
    assert cases.absolute(madmom_log_spectrogram(x, sample_rate=sample_rate), theirs) < 2.0 * LIMIT


@pytest.mark.parametrize("length", [1, 2, 440, 441, 442, 882, 883, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("sample_rate", [44100, 22050])
def test_frames_are_as_many_as_begin_within_the_signal(length: int, sample_rate: int) -> None:
    x = cases.noise(length)
    got = madmom_log_spectrogram(x, sample_rate=sample_rate)
    assert len(got) == int(np.ceil(length / (sample_rate / 100)))
    assert cases.absolute(got, expected_of(x.double(), sample_rate=sample_rate)) < 2.0 * LIMIT


def test_the_layout_of_all_in_one() -> None:
    stems = 0.2 * cases.noise(2, 4, 9000)
    got = madmom_log_spectrogram(stems)
    assert got.shape == (2, 4, 21, 81) and got.is_contiguous() and (got >= 0).all()
    for row, stem in zip(got.flatten(0, 1), stems.flatten(0, 1)):
        assert cases.absolute(row, madmom_log_spectrogram(stem)) < LIMIT
    bank = log_triangular_fbanks(1024, 44100, 12, f_min=30.0, f_max=17000.0)
    module = FilteredSpectrogramTransform(
        filterbank=bank,
        hop_length=441,
        periodic=False,
        center_pad_mode="constant",
        center_tail_pad="minimal",
        output_scale="log10_plus_one",
    )
    assert torch.equal(module(stems).mT, got)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("sample_rate", [44100, 22050])
def test_integers_are_fractions_of_their_largest_value(route: Route, dtype: torch.dtype, sample_rate: int) -> None:
    largest = torch.iinfo(dtype).max
    x = (cases.noise(2, 3000).clamp(-1, 1).double() * largest * 0.9).clamp(min=torch.iinfo(dtype).min).to(dtype)
    got = madmom_log_spectrogram(x.to(route.device), sample_rate=sample_rate)
    assert got.dtype == torch.float32
    assert cases.absolute(got, expected_of(x, sample_rate=sample_rate)) < 2.0 * LIMIT


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(route: Route, dtype: torch.dtype) -> None:
    x = cases.noise(2, 3000).to(dtype).to(route.device)
    got = madmom_log_spectrogram(x)
    assert got.dtype == torch.float32 and torch.equal(got, madmom_log_spectrogram(x.float()))


@pytest.mark.parametrize("kind", ["silence", "dc", "impulse", "faint", "loud"])
@pytest.mark.parametrize("sample_rate", [44100, 22050])
def test_plain_signals(route: Route, kind: str, sample_rate: int) -> None:
    x = descriptor_cases.signal(sample_rate, kind)
    x = x[len(x) // 2 - 3000 :][:6000]
    got = madmom_log_spectrogram(x.to(route.device), sample_rate=sample_rate)
    assert got.isfinite().all() and (got >= 0).all()
    expected = expected_of(x.double(), sample_rate=sample_rate)
    assert cases.absolute(got, expected) < 2.0 * LIMIT * max(1.0, expected.max().item())
    assert got.any() == (kind != "silence")


# --- backends ---------------------------------------------------------------------------------------------------------


def test_auto_takes_the_kernels_where_there_are_some(route: Route) -> None:
    x = cases.noise(2, 3000).to(route.device)
    for case in ({}, {"sample_rate": 22050}):
        madmom_log_spectrogram(x, **case)
        diagnostics(reset=True)
        madmom_log_spectrogram(x, **case)
        report = diagnostics(reset=True)
        assert report["kernel_calls"] == ({"bands": 1} if route.kernels else {})
        madmom_log_spectrogram(x, **case, backend="torch")
        assert diagnostics(reset=True)["torch_route"] == {"use_mps_kernels=False": 1}


def test_kernel_means_a_kernel(route: Route) -> None:
    x = cases.noise(2, 3000).to(route.device)
    if not route.kernels:
        with pytest.raises(ValueError, match="backend='kernel' must have a float32 signal on mps or cuda"):
            madmom_log_spectrogram(x, backend="kernel")
        return
    assert torch.equal(madmom_log_spectrogram(x, backend="kernel"), madmom_log_spectrogram(x))
    diagnostics(reset=True)
    madmom_log_spectrogram(x, backend="kernel")
    assert diagnostics(reset=True)["kernel_calls"] == {"bands": 1}
    if route.float64:
        with pytest.raises(ValueError, match="float64"):
            madmom_log_spectrogram(x.double(), backend="kernel")


def test_auto_on_the_cpu_is_torch() -> None:
    diagnostics(reset=True)
    with use_backend("auto"):
        madmom_log_spectrogram(cases.noise(2, 3000))
    assert diagnostics(reset=True)["torch_route"] == {"cpu tensor": 1}


def test_madmom_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "madmom"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "madmom", None)
    with pytest.raises(ImportError, match="backend='madmom' needs madmom: pip install git"):
        madmom_log_spectrogram(cases.noise(3000), backend="madmom")


def test_madmom_has_no_gradient() -> None:
    x = cases.noise(2, 3000).requires_grad_()
    with pytest.raises(ValueError, match="x must not require grad with backend='madmom'"):
        madmom_log_spectrogram(x, backend="madmom")


# --- gradients and compile --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [{}, {"fps": 300}, {"fft_size": 48, "mul": 3.0}], ids=cases.name)
def test_gradcheck(case: dict[str, Any]) -> None:
    small = {"sample_rate": 8000, "frame_size": 32, "fps": 400, "fmin": 400.0, "fmax": 3900.0, "num_bands": 3, **case}
    x = cases.noise(50).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: madmom_log_spectrogram(x, **small), (x,))


@pytest.mark.parametrize("sample_rate", [44100, 22050])
def test_gradients_at_silence(route: Route, sample_rate: int) -> None:
    x = torch.zeros(2, 3000, device=route.device).requires_grad_()
    madmom_log_spectrogram(x, sample_rate=sample_rate).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("sample_rate", [44100, 22050])
def test_compiles_whole(sample_rate: int) -> None:
    def function(x: Tensor) -> Tensor:
        return madmom_log_spectrogram(x, sample_rate=sample_rate, frame_size=512, num_bands=1)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for length in (3000, 4001):
        x, y = (cases.noise(2, length).requires_grad_() for _ in range(2))
        got, expected = compiled(x), function(y)
        assert cases.absolute(got, expected) < LIMIT
        got.sum().backward()
        expected.sum().backward()
        assert cases.relative(x.grad, y.grad) < 1e-5


# --- files ------------------------------------------------------------------------------------------------------------


def test_one_file_per_track(tmp_path: Path) -> None:
    got = madmom_log_spectrogram(0.2 * cases.noise(4, 9000))
    save_log_spectrogram(tmp_path / "track.npy", got)
    stored = np.load(tmp_path / "track.npy", allow_pickle=False)
    assert stored.shape == (4, 21, 81) and stored.dtype == np.float32 and stored.flags.c_contiguous
    assert np.array_equal(stored, got.numpy())
    save_log_spectrogram(str(tmp_path / "other"), got.mT.double().requires_grad_())
    stored = np.load(tmp_path / "other.npy")
    assert stored.dtype == np.float64 and np.array_equal(stored, got.mT.double().numpy())
    save_log_spectrogram(tmp_path / "half.npy", got.bfloat16())
    assert np.array_equal(np.load(tmp_path / "half.npy"), got.bfloat16().float().numpy())


def test_other_things_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="spectrogram must be a torch.Tensor"):
        save_log_spectrogram(tmp_path / "x.npy", np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="spectrogram must be real"):
        save_log_spectrogram(tmp_path / "x.npy", torch.zeros(3, dtype=torch.complex64))
    assert not list(tmp_path.iterdir())


def test_all_but_files_works_without_numpy(tmp_path: Path) -> None:
    code = (
        "import sys, warnings\n"
        "sys.modules['numpy'] = None\n"
        "import torch, mps_spectro\n"
        "got = mps_spectro.madmom_log_spectrogram(torch.randn(4, 3000))\n"
        "assert mps_spectro.positive_spectral_diff(got, time_axis=-2).shape == (4, 7, 81)\n"
        "try:\n"
        f"    mps_spectro.save_log_spectrogram({str(tmp_path / 'x.npy')!r}, got)\n"
        "except ImportError as error:\n"
        "    assert 'save_log_spectrogram needs numpy: pip install numpy' in str(error), error\n"
        "else:\n"
        "    raise AssertionError('written')\n"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=300)
    assert done.returncode == 0, done.stderr


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": [0.0] * 100}, TypeError, "x must be a torch.Tensor"),
        ({"x": torch.zeros(100, dtype=torch.bool)}, TypeError, "x must be real and floating point"),
        ({"x": torch.zeros(100, dtype=torch.complex64)}, TypeError, "x must be real and floating point"),
        ({"x": torch.tensor(1.0)}, ValueError, r"x must have shape \(..., T\)"),
        ({"x": torch.zeros(4, 0)}, ValueError, "x must have at least one sample"),
        ({"x": torch.zeros(0, 100)}, ValueError, "empty batch"),
        ({"backend": "mlx"}, ValueError, "backend must be one of auto, kernel, torch, madmom"),
        ({"sample_rate": 0}, ValueError, "sample_rate must be positive"),
        ({"fps": 0}, ValueError, "fps must be positive"),
        ({"fps": float("inf")}, ValueError, "fps must be positive and finite"),
        ({"fps": 50000}, ValueError, "fps must not exceed sample_rate"),
        ({"mul": 0.0}, ValueError, "mul must be positive"),
        ({"frame_size": 1}, ValueError, "frame_size must be at least 2"),
        ({"frame_size": 20.5}, TypeError, "frame_size must be an int"),
        ({"fft_size": 1024}, ValueError, "fft_size must be at least frame_size=2048"),
        ({"num_bands": 0}, ValueError, "num_bands must be positive"),
        ({"num_bands": 1.5}, TypeError, "num_bands must be an int"),
        ({"fmin": 0.0}, ValueError, "fmin must be positive"),
        ({"fmax": 20.0}, ValueError, "fmax must be above"),
        ({"fref": 0.0}, ValueError, "fref must be positive"),
        ({"norm_filters": 1}, TypeError, "norm_filters must be True or False"),
        ({"unique_filters": 1}, TypeError, "unique_filters must be True or False"),
    ],
    ids=cases.name,
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], words: str) -> None:
    given = {"x": torch.zeros(3000), **change}
    with pytest.raises(error, match=words):
        madmom_log_spectrogram(given.pop("x"), **given)
