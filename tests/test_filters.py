"""Mel banks against torchaudio and librosa; decibels against torchaudio's and by definition."""

from __future__ import annotations

import math
import warnings
from typing import Any

import front_end_cases as cases
import pytest
import torch
from torchaudio_stub import import_torchaudio

from mps_spectro import amplitude_to_db, melscale_fbanks
from mps_spectro.filters import mel_bank

# banks of narrow bands warn in every library here
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def _bank_equals_torchaudio(case: dict[str, Any]) -> None:
    torchaudio = import_torchaudio()
    shape = (case["n_fft"] // 2 + 1, case["f_min"], 0.47 * case["sample_rate"], case["n_mels"], case["sample_rate"])
    expected = torchaudio.functional.melscale_fbanks(*shape, case["norm"], case["mel_scale"]).T
    got = melscale_fbanks(*shape, case["norm"], case["mel_scale"])
    assert torch.equal(got, expected), case
    assert got.is_contiguous()


def test_bank_is_torchaudios_to_the_bit() -> None:
    for case in cases.sample(60):
        _bank_equals_torchaudio(case)


@pytest.mark.slow
def test_bank_is_torchaudios_to_the_bit_over_the_grid() -> None:
    for case in cases.grid():
        _bank_equals_torchaudio(case)


@pytest.mark.parametrize("rate", [11025, 22051])
def test_odd_rates_and_default_f_max_are_torchaudios(rate: int) -> None:
    torchaudio = import_torchaudio()
    expected = torchaudio.transforms.MelScale(40, rate, n_stft=257).fb.T
    assert torch.equal(melscale_fbanks(257, 0.0, None, 40, rate), expected)


@pytest.mark.parametrize("norm", [None, "slaney"])
@pytest.mark.parametrize("htk", [False, True])
@pytest.mark.parametrize(("rate", "n_fft"), [(16000, 400), (11025, 321), (44100, 2048)])
def test_bank_of_librosa(rate: int, n_fft: int, htk: bool, norm: str | None) -> None:
    librosa = pytest.importorskip("librosa")
    expected = torch.from_numpy(librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=80, htk=htk, norm=norm))
    scale = "htk" if htk else "slaney"
    got = melscale_fbanks(n_fft // 2 + 1, 0.0, None, 80, rate, norm, scale, convention="librosa", n_fft=n_fft)
    assert cases.relative(got, expected) < 1e-7


def test_a_bank_is_a_fresh_tensor() -> None:
    first = melscale_fbanks(201, 0.0, 8000.0, 40, 16000)
    kept = first.clone()
    first.zero_()
    assert torch.equal(melscale_fbanks(201, 0.0, 8000.0, 40, 16000), kept)


def test_a_bank_made_in_inference_mode_can_train_later() -> None:
    with torch.inference_mode():
        mel_bank(65, 0.0, 4000.0, 17, 8000)
    power = torch.rand(65, 3, requires_grad=True)
    (mel_bank(65, 0.0, 4000.0, 17, 8000) @ power).sum().backward()
    assert power.grad is not None and power.grad.abs().sum() > 0


def test_dtype_of_a_bank_rounds_the_float32_one() -> None:
    single = melscale_fbanks(201, 0.0, 8000.0, 40, 16000)
    for dtype in (torch.float64, torch.float16):
        assert torch.equal(melscale_fbanks(201, 0.0, 8000.0, 40, 16000, dtype=dtype), single.to(dtype))


def test_default_dtype_and_device_of_the_program_do_not_count() -> None:
    expected = melscale_fbanks(129, 0.0, 8000.0, 33, 16000)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            got = melscale_fbanks(129, 0.0, 8000.0, 33, 16000, norm=None).clone()
            fresh = melscale_fbanks(129, 0.0, 7999.0, 33, 16000)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(got, expected)
    assert fresh.device.type == "cpu" and fresh.dtype == torch.float32


def test_empty_bands_are_told_once() -> None:
    with pytest.warns(UserWarning, match=r"of n_mels=203 mel bands"):
        melscale_fbanks(101, 0.0, 8000.0, 203, 16000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        melscale_fbanks(1025, 0.0, 8000.0, 80, 16000)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"n_freqs": 0}, ValueError, "n_freqs must be positive"),
        ({"n_mels": 0}, ValueError, "n_mels must be positive"),
        ({"n_mels": 2.5}, TypeError, "n_mels must be an int"),
        ({"sample_rate": 0}, ValueError, "sample_rate must be positive"),
        ({"f_min": -1.0}, ValueError, "f_min"),
        ({"f_min": 9000.0}, ValueError, "f_max"),
        ({"norm": "area"}, ValueError, "norm must be None or 'slaney'"),
        ({"mel_scale": "bark"}, ValueError, "mel_scale must be one of htk, slaney"),
        ({"convention": "kaldi"}, ValueError, "convention must be one of"),
    ],
)
def test_bad_arguments_of_a_bank(change: dict[str, Any], error: type[Exception], words: str) -> None:
    good = {"n_freqs": 201, "f_min": 0.0, "f_max": 8000.0, "n_mels": 40, "sample_rate": 16000}
    with pytest.raises(error, match=words):
        melscale_fbanks(**{**good, **change})


# --- decibels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(17, 29), (3, 17, 29), (2, 3, 17, 29), (2, 2, 3, 5, 7)])
@pytest.mark.parametrize("top_db", [None, 0.0, 20.0, 80.0])
@pytest.mark.parametrize("stype", ["power", "magnitude"])
def test_db_is_torchaudios_to_the_bit(shape: tuple[int, ...], top_db: float | None, stype: str) -> None:
    torchaudio = import_torchaudio()
    x = cases.noise(*shape).abs() ** 5 * torch.logspace(-6, 3, shape[0]).view(-1, *[1] * (len(shape) - 1))
    expected = torchaudio.transforms.AmplitudeToDB(stype, top_db)(x)
    assert torch.equal(amplitude_to_db(x, stype=stype, top_db=top_db), expected)


def test_per_example_clips_each_by_its_own_largest() -> None:
    x = torch.tensor([[[1.0, 0.1]], [[1e-9, 1e-10]]])
    packed = amplitude_to_db(x, top_db=80.0)
    single = amplitude_to_db(x, top_db=80.0, mode="per_example")
    assert packed.flatten().tolist() == pytest.approx([0.0, -10.0, -80.0, -80.0])
    assert single.flatten().tolist() == pytest.approx([0.0, -10.0, -90.0, -100.0])
    assert torch.equal(single, amplitude_to_db(x, top_db=80.0, mode="mlx_native"))
    for one, whole in zip(x, single):
        assert torch.equal(amplitude_to_db(one, mode="per_example"), whole)


def test_ref_value_and_amin() -> None:
    x = torch.tensor([[100.0, 1e-20]])
    got = amplitude_to_db(x, ref_value=10.0, amin=1e-3, top_db=None)
    assert got.flatten().tolist() == pytest.approx([10.0, -40.0])
    assert amplitude_to_db(x, ref_value=1e-9, amin=1e-3, top_db=None)[0, 1].item() == pytest.approx(0.0)


@pytest.mark.parametrize("shape", [(), (5,), (0, 3), (2, 0, 4)])
def test_db_of_unusual_shapes(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape) + 0.5
    for mode in ("per_example", "torchaudio_compat"):
        assert torch.allclose(amplitude_to_db(x, mode=mode), 10.0 * x.log10(), atol=1e-6)


def test_db_of_halves_is_float32() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        got = amplitude_to_db(torch.zeros(2, 2, dtype=dtype))
        assert got.dtype == torch.float32 and got.tolist() == [[-100.0, -100.0], [-100.0, -100.0]]


def test_gradient_of_db_is_torchaudios() -> None:
    torchaudio = import_torchaudio()
    x = (cases.noise(2, 5, 7).abs() ** 4).double()
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = cases.noise(2, 5, 7, seed=1).double()
    (amplitude_to_db(ours, top_db=30.0) * weights).sum().backward()
    (torchaudio.transforms.AmplitudeToDB("power", 30.0)(theirs) * weights).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_db_compiles_whole() -> None:
    x = torch.rand(2, 5, 7)
    compiled = torch.compile(lambda x: amplitude_to_db(x, top_db=10.0), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), amplitude_to_db(x, top_db=10.0))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"stype": "amplitude"}, ValueError, "stype must be one of power, magnitude"),
        ({"mode": "global"}, ValueError, "mode must be one of"),
        ({"top_db": -1.0}, ValueError, "top_db must be None or at least 0"),
        ({"amin": 0.0}, ValueError, "amin must be positive"),
        ({"ref_value": math.nan}, ValueError, "ref_value must be positive"),
        ({"x": torch.ones(2, dtype=torch.int64)}, TypeError, "floating point"),
        ({"x": [1.0]}, TypeError, "floating point"),
    ],
)
def test_bad_arguments_of_db(change: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"x": torch.ones(2, 2), **change}
    with pytest.raises(error, match=words):
        amplitude_to_db(arguments.pop("x"), **arguments)
