"""Chroma and its bank against librosa in float64, over every route."""

from __future__ import annotations

import itertools
import math
from typing import Any

import descriptor_cases as cases
import front_end_cases
import numpy as np
import pytest
import torch
from conftest import Route
from recordings import recording

from mps_spectro import chroma_stft
from mps_spectro.chroma import chroma_bank, normalized_classes

librosa = pytest.importorskip("librosa")
pytestmark = pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")

CLOSE = 3e-6  # largest error over the largest value
NORMS = (math.inf, -math.inf, 1, 2, 0.5, 3, None)


def theirs(x: torch.Tensor, case: dict[str, Any], **options: Any) -> torch.Tensor:
    arguments = {"tuning": 0.0, **cases.librosas(x, case), **options}
    return torch.from_numpy(librosa.feature.chroma_stft(**arguments))


# --- librosa ----------------------------------------------------------------------------------------------------------


def test_banks() -> None:
    shapes = itertools.product((8000, 22050.5, 48000), (31, 400, 1023, 2048), (1, 5, 12, 13, 24), (0.0, -0.45))
    for rate, n_fft, n_chroma, tuning in shapes:
        expected = librosa.filters.chroma(sr=rate, n_fft=n_fft, n_chroma=n_chroma, tuning=tuning, dtype=np.float64)
        got = chroma_bank(rate, n_fft, n_chroma, tuning, torch.float64)
        assert got.shape == expected.shape
        assert np.abs(got.numpy() - expected).max() <= 1e-12, (rate, n_fft, n_chroma, tuning)


@pytest.mark.parametrize("case", cases.CASES, ids=front_end_cases.name)
def test_librosa(case: dict[str, Any]) -> None:
    for number, kind in enumerate(("mixture", "noise", "tone", "chirp")):
        x = cases.signal(cases.rate(case), kind)
        options = {"norm": NORMS[number], "n_chroma": (12, 24, 12, 36)[number], "tuning": (0.0, 0.2, -0.4, 0.0)[number]}
        got = chroma_stft(x, **case, **options)
        assert got.dtype == torch.float32
        assert front_end_cases.relative(got, theirs(x, case, **options)) <= CLOSE, kind


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["mixture", "noise", "faint", "loud", "clipped", "impulse", "dc"])
def test_norms(kind: str, norm: float | None) -> None:
    x = cases.signal(22050, kind)
    expected = theirs(x, {}, norm=norm)
    assert front_end_cases.relative(chroma_stft(x, norm=norm), expected) <= CLOSE
    exact = chroma_stft(x.double(), norm=norm)
    # the bank of librosa has the digits of float32
    assert exact.dtype == torch.float64 and front_end_cases.relative(exact, expected) <= 2e-7


def test_defaults_are_those_of_librosa() -> None:
    x = cases.signal(22050)
    assert front_end_cases.relative(chroma_stft(x), theirs(x, {})) <= CLOSE


def test_every_route(route: Route) -> None:
    for case in (cases.CASES[0], cases.CASES[5], cases.CASES[8]):
        x = torch.stack([cases.signal(cases.rate(case), kind) for kind in ("mixture", "noise")])
        got = chroma_stft(x.to(route.device), **case)
        assert got.device.type == route.device
        for one, signal in zip(got, x):
            assert front_end_cases.relative(one, theirs(signal, case)) <= CLOSE, case


@pytest.mark.parametrize(
    ("file", "seconds", "start"), [("speech-mono-48k-1s.wav", 1.4, 0.0), ("music-stereo-44k1-195s.ogg", 2.0, 60.0)]
)
def test_recordings(file: str, seconds: float, start: float) -> None:
    x, sample_rate = recording(file, seconds, start)
    case = {"sample_rate": sample_rate, "n_fft": 4096}
    for one, channel in zip(chroma_stft(x, **case), x):
        assert front_end_cases.relative(one, theirs(channel, case)) <= CLOSE


def test_a_tone_is_in_its_class() -> None:
    t = torch.arange(22050) / 22050
    for place, name in enumerate(("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")):
        x = torch.sin(2 * math.pi * librosa.note_to_hz(f"{name}4") * t)
        assert (chroma_stft(x, n_fft=4096)[:, 4:-4].argmax(0) == place).all(), name


# --- silence, shapes, dtypes, short signals ---------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_silence_is_zero(route: Route, norm: float | None) -> None:
    x = torch.zeros(2, 5000, device=route.device).requires_grad_()
    got = chroma_stft(x, norm=norm)
    assert (got == 0).all()
    got.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_shapes_and_dtypes() -> None:
    x = cases.signal(22050)[:5000]
    single = chroma_stft(x)
    assert single.shape == (12, 10)
    for lead in ((1,), (3,), (2, 3), (2, 1, 3)):
        assert front_end_cases.relative(chroma_stft(x.expand(*lead, -1)), single.expand(*lead, -1, -1)) < 1e-6
    for half in (torch.float16, torch.bfloat16):
        assert torch.equal(chroma_stft(x.to(half)), chroma_stft(x.to(half).float()))


def test_short_signals() -> None:
    for length in (1, 31, 256, 257):
        x = cases.signal(22050, "noise")[:length]
        for mode in ("constant", "reflect"):
            case = {"n_fft": 512, "hop_length": 128, "center_pad_mode": mode}
            known = {**case, "center_pad_mode": mode if length > 256 else "constant"}
            assert front_end_cases.relative(chroma_stft(x, **case), theirs(x, known)) <= CLOSE
    x = 1e-3 * cases.signal(22050, "noise")[:100]
    for options in ({"normalized": True}, {"normalized": "window"}):
        got = chroma_stft(x, center_pad_mode="reflect", norm=None, **options)
        assert torch.equal(got, chroma_stft(x, norm=None, **options))
        assert not torch.equal(got, chroma_stft(x, norm=None))
    assert chroma_stft(x, center=False).shape == (12, 1) and chroma_stft(x[:0]).shape == (12, 1)


def test_normalized_divides_the_powers() -> None:
    x = cases.signal(22050, "noise")
    assert front_end_cases.relative(chroma_stft(x, normalized=True, norm=None), chroma_stft(x, norm=None) / 2048) < 1e-5


# --- gradients, compile, autocast -------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_gradcheck(norm: float | None) -> None:
    x = torch.randn(1, 18, dtype=torch.float64).requires_grad_()
    window = (torch.rand(16, dtype=torch.float64) + 0.5).requires_grad_()

    def function(x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        return chroma_stft(x, window_fn=window, n_fft=16, hop_length=5, sample_rate=1600, n_chroma=5, norm=norm)

    assert torch.autograd.gradcheck(function, (x, window))


def test_compiles_whole() -> None:
    compiled = torch.compile(lambda x: chroma_stft(x, n_fft=512, norm=2), fullgraph=True, backend="aot_eager")
    x, y = (cases.signal(22050)[None, :4000].clone().requires_grad_() for _ in range(2))
    got, expected = compiled(x), chroma_stft(y, n_fft=512, norm=2)
    assert front_end_cases.relative(got, expected) < 1e-5
    got.sum().backward()
    expected.sum().backward()
    assert front_end_cases.relative(x.grad, y.grad) < 1e-4


def test_autocast_does_not_reach_inside(route: Route) -> None:
    x = cases.signal(22050).to(route.device)
    expected = chroma_stft(x)
    with torch.autocast(route.device, dtype=torch.bfloat16):
        got = chroma_stft(x)
    assert got.dtype == torch.float32 and torch.equal(got, expected)


def test_banks_are_shared_and_train_after_inference_mode() -> None:
    with torch.inference_mode():
        chroma_stft(cases.signal(22050), n_chroma=17)
    assert chroma_bank(22050, 2048, 17) is chroma_bank(22050, 2048, 17)
    x = cases.signal(22050).clone().requires_grad_()
    chroma_stft(x, n_chroma=17).sum().backward()


def test_norms_neither_overflow_nor_vanish() -> None:
    values = torch.rand(12, 5) + 0.1
    for scale in (1e-35, 1e-20, 1.0, 1e20, 1e37):
        for norm in (0.5, 1, 2, 7):
            got = normalized_classes(values * scale, norm)
            expected = librosa.util.normalize(values.double().numpy(), norm=norm, axis=-2)
            assert cases.error(got, expected) < 1e-5, (scale, norm)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(4000, dtype=torch.int16)}, TypeError, "x must be real and floating point"),
        ({"sample_rate": -1}, ValueError, "sample_rate must be positive"),
        ({"n_fft": 1}, ValueError, "n_fft must be at least 2"),
        ({"n_chroma": 0}, ValueError, "n_chroma must be at least 1"),
        ({"n_chroma": 12.0}, TypeError, "n_chroma must be an int"),
        ({"norm": 0}, ValueError, "norm must be None, above 0"),
        ({"norm": -2.0}, ValueError, "norm must be None, above 0"),
        ({"norm": math.nan}, ValueError, "norm must be None, above 0"),
        ({"tuning": None}, TypeError, "tuning must be a number"),
        ({"tuning": math.inf}, ValueError, "tuning must be finite"),
        ({"center_pad_mode": "edge"}, ValueError, "center_pad_mode must be one of"),
    ],
    ids=front_end_cases.name,
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"x": torch.zeros(4000), **change}
    with pytest.raises(error, match=words):
        chroma_stft(arguments.pop("x"), **arguments)
