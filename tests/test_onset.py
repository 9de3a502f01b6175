"""Onset strength against librosa over every route, on all frames."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import front_end_cases as cases
import librosa_mel_cases as mel_cases
import numpy as np
import pytest
import torch
from conftest import Route
from recordings import recording
from torch import Tensor

from mps_spectro import diagnostics, use_backend
from mps_spectro.onset import onset_strength, onset_strength_multi

# banks of narrow bands warn in every library here
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SMALL: dict[str, Any] = {"sample_rate": 16000, "n_fft": 400, "hop_length": 100, "n_mels": 40}
FLOAT32 = 5e-6  # largest error over the largest value, noise and mixtures
FLOAT64 = 1e-12


def librosas(x: Tensor, multi: bool = False, **options: Any) -> Tensor:
    """librosa in float64."""
    librosa = pytest.importorskip("librosa")
    arguments = mel_cases.librosas(options)
    if isinstance(arguments.get("aggregate"), str):
        arguments["aggregate"] = getattr(np, arguments["aggregate"])
    function = librosa.onset.onset_strength_multi if multi else librosa.onset.onset_strength
    return torch.from_numpy(function(y=x.double().numpy(), **arguments))


# --- against librosa --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", mel_cases.CASES, ids=cases.name)
def test_librosa(case: dict[str, Any]) -> None:
    x = mel_cases.signal(mel_cases.rate(case))
    expected, bands = librosas(x, **case), librosas(x, True, aggregate=False, **case)
    assert expected.amax() > 1.0
    assert cases.relative(onset_strength(x, **case), expected) < FLOAT32
    assert cases.relative(onset_strength(x.double(), **case), expected) < FLOAT64
    assert cases.relative(onset_strength_multi(x, **case), bands) < FLOAT32
    assert cases.relative(onset_strength_multi(x.double(), **case), bands) < FLOAT64


@pytest.mark.parametrize("hop_length", [100, 441, 512, 1000, 3000])
@pytest.mark.parametrize("center", [True, False])
def test_frames_are_librosas_for_every_hop_lag_and_size(hop_length: int, center: bool) -> None:
    x = mel_cases.signal(22050, "late")
    for n_fft, lag, max_size in itertools.product((1024, 2048), (1, 2, 5), (1, 2, 3, 40)):
        options = {"n_fft": n_fft, "hop_length": hop_length, "center": center, "lag": lag, "max_size": max_size}
        got = onset_strength(x.double(), **options)
        assert got.shape == (1 + len(x) // hop_length,)
        if got.amax() == 0.0:
            assert (librosas(x, **options) == 0.0).all()
        else:
            assert cases.relative(got, librosas(x, **options)) < FLOAT64, options


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"hop_length": 441, "lag": 2, "max_size": 3},
        {"hop_length": 441, "center": False, "max_size": 8},
        {"aggregate": "median"},
        {"aggregate": "median", "n_mels": 81},
        {"aggregate": "max", "lag": 3},
    ],
    ids=cases.name,
)
def test_arguments_of_librosa(route: Route, change: dict[str, Any]) -> None:
    x = mel_cases.signal(22050)
    expected = librosas(x, **change)
    assert cases.relative(onset_strength(x.to(route.device), **change), expected) < FLOAT32
    if route.float64:
        assert cases.relative(onset_strength(x.to(route.device).double(), **change), expected) < FLOAT64


@pytest.mark.parametrize(
    "channels",
    [[0, 32, 64, 128], [5, 9, 100], [127, 128], np.arange(0, 129, 16), [slice(None)], [slice(0, 3), slice(2, None, 5)]],
    ids=str,
)
@pytest.mark.parametrize("aggregate", ["mean", "median", "max"])
def test_channels(route: Route, channels: Any, aggregate: str) -> None:
    x = mel_cases.signal(22050)
    expected = librosas(x, True, channels=channels, aggregate=aggregate)
    got = onset_strength_multi(x.to(route.device), channels=channels, aggregate=aggregate)
    assert cases.relative(got, expected) < FLOAT32


def test_a_function_to_aggregate() -> None:
    x = mel_cases.signal(22050)
    expected = librosas(x, True, channels=[0, 30, 60], aggregate="std")
    got = onset_strength_multi(x, channels=[0, 30, 60], aggregate=lambda bands, dim: bands.std(dim, correction=0))
    assert cases.relative(got, expected) < FLOAT32
    with pytest.raises(ValueError, match="aggregate must give a tensor"):
        onset_strength(x, aggregate=lambda bands, dim: bands.median(dim))


@pytest.mark.parametrize("kind", mel_cases.KINDS)
def test_signals(route: Route, kind: str) -> None:
    x = mel_cases.signal(22050, kind)
    for case in ({}, {"n_fft": 1024, "hop_length": 441, "n_mels": 64, "center_pad_mode": "reflect"}):
        expected = librosas(x, **case)
        got = onset_strength(x.to(route.device), **case).cpu().double()
        assert got.isfinite().all() and (got >= 0).all()
        error = (got - expected).abs().amax()
        if kind in ("tone", "dc", "silence"):
            # hardly a rise to be relative to, of bands 80 dB below the loudest, which hold the rounding of float32
            assert error < 1e-3, case
        else:
            assert error <= (3e-5 if kind in ("chirp", "faint") else FLOAT32) * expected.amax(), case


@pytest.mark.parametrize("length", [1, 2, 511, 512, 1023, 1024, 1025, 3000])
def test_short_signals(length: int) -> None:
    x = mel_cases.signal(22050)[2000 : 2000 + length]
    for lag in (1, 2):
        expected = librosas(x, lag=lag)
        assert cases.absolute(onset_strength(x, lag=lag), expected) < 1e-4
    if length < 1025:
        with pytest.raises(ValueError, match="at least 1025 samples"):
            onset_strength(x, center_pad_mode="reflect")


def test_a_lag_beyond_the_last_frame() -> None:
    x = mel_cases.signal(22050)
    for center in (True, False):
        got = onset_strength_multi(x, lag=1000, center=center)
        assert got.shape == onset_strength_multi(x).shape and (got == 0).all()


@pytest.mark.parametrize("length", [1, 1600, 2345])
def test_minimal_padding(length: int) -> None:
    librosa = pytest.importorskip("librosa")
    x = mel_cases.signal(22050)[:length]
    frames = -(-length // 160)
    behind = max(0, (frames - 1) * 160 + 400 - 200 - length)
    padded = torch.nn.functional.pad(x, (200, behind))[: (frames - 1) * 160 + 400]
    mel = librosa.feature.melspectrogram(y=padded.numpy(), center=False, n_fft=400, hop_length=160, n_mels=40)
    expected = librosa.onset.onset_strength(S=librosa.power_to_db(mel), n_fft=400, hop_length=160)
    got = onset_strength(x, n_fft=400, hop_length=160, n_mels=40, center_tail_pad="minimal")
    assert got.shape == (frames,) and cases.absolute(got, torch.from_numpy(expected)) < 1e-4


@pytest.mark.parametrize("name", ["music-stereo-44k1-195s.ogg", "speech-mono-48k-1s.wav"])
def test_recordings(route: Route, name: str) -> None:
    samples, rate = recording(name, 3.0, 65.0 if name.startswith("music") else 0.0)
    for case in ({}, {"n_fft": 1024, "hop_length": 441, "aggregate": "median", "n_mels": 64}):
        got = onset_strength(samples.to(route.device), sample_rate=rate, **case)
        for one, channel in zip(got, samples):
            assert cases.relative(one, librosas(channel, sample_rate=rate, **case)) < 2e-5


def test_every_signal_of_a_batch_is_librosas_of_it_alone(route: Route) -> None:
    x = torch.stack([mel_cases.signal(22050, kind) for kind in ("mixture", "late", "silence", "impulse")])
    x = x * torch.tensor([1.0, 1e-4, 1.0, 1e-3])[:, None]
    got = onset_strength_multi(x.to(route.device))
    for one, row in zip(got, x):
        assert cases.absolute(one, librosas(row, True, aggregate=False)) < 1e-3
    whole = onset_strength_multi(x.to(route.device), mode="torchaudio_compat")
    expected = librosas(x, True, aggregate=False)
    assert cases.absolute(whole, expected) < 1e-3
    assert cases.absolute(got, expected) > 1.0  # the quiet ones are clipped otherwise


# --- spectrograms that the caller has ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"center": False, "lag": 2}, {"max_size": 3, "hop_length": 128}])
def test_a_spectrogram_in_place_of_a_signal(route: Route, options: dict[str, Any]) -> None:
    librosa = pytest.importorskip("librosa")
    db = librosa.power_to_db(librosa.feature.melspectrogram(y=mel_cases.signal(22050).numpy(), center=False))
    s = torch.from_numpy(db).to(route.device)
    expected = torch.from_numpy(librosa.onset.onset_strength(S=db, **options))
    assert cases.relative(onset_strength(S=s, **options), expected) < 1e-6
    twice = onset_strength(S=s.expand(2, 3, -1, -1), **options)
    assert twice.shape == (2, 3, len(expected)) and cases.absolute(twice[1, 2], expected) < 1e-4


def test_nan_is_not_hidden() -> None:
    s = cases.noise(6, 9)
    s[3, 4] = torch.nan
    for aggregate in ("mean", "median", "max"):
        got = onset_strength(S=s, aggregate=aggregate, n_fft=2, hop_length=2)
        assert got.isnan().tolist() == [False] * 4 + [True] * 2 + [False] * 3


# --- shapes and dtypes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (1, 2, 3)])
def test_leading_dimensions_are_kept(route: Route, shape: tuple[int, ...]) -> None:
    x = cases.noise(*shape, 2000).to(route.device)
    bands, strength = onset_strength_multi(x, **SMALL), onset_strength(x, **SMALL)
    assert bands.shape == (*shape, 40, 21) and strength.shape == (*shape, 21)
    assert cases.absolute(bands.mean(-2), strength) < 1e-5
    one = onset_strength(x.reshape(-1, 2000)[-1], **SMALL)
    assert cases.absolute(strength.reshape(-1, 21)[-1], one) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(route: Route, dtype: torch.dtype) -> None:
    x = cases.noise(2, 4000).to(dtype).to(route.device)
    got = onset_strength(x, **SMALL)
    assert got.dtype == torch.float32 and torch.equal(got, onset_strength(x.float(), **SMALL))


def test_bands_and_clipping_are_all(route: Route) -> None:
    x = cases.noise(2, 4000).to(route.device)
    onset_strength(x, **SMALL)
    diagnostics(reset=True)
    onset_strength(x, **SMALL)
    report = diagnostics(reset=True)
    assert report["kernel_calls"] == ({"bands": 1, "clip_": 1} if route.kernels else {})
    assert report["torch_route"] == ({} if route.kernels else {"backend torch": 1})


# --- gradients, compile, vmap, autocast -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"lag": 2, "max_size": 2}, {"aggregate": "median", "power": 1.0}])
def test_gradcheck(options: dict[str, Any]) -> None:
    x = cases.noise(2, 40).double().requires_grad_()
    window = (torch.hann_window(16, dtype=torch.float64) + 0.1).requires_grad_()
    sizes = {"sample_rate": 800, "n_fft": 16, "hop_length": 8, "n_mels": 5}

    def function(x: Tensor, window: Tensor) -> Tensor:
        return onset_strength(x, window_fn=window, **sizes, **options)

    assert torch.autograd.gradcheck(function, (x, window))


def test_gradients_are_those_of_float64(route: Route) -> None:
    if not route.kernels:
        pytest.skip("it is the reference")
    x = cases.noise(2, 4000)
    leaf, exact = x.to(route.device, copy=True).requires_grad_(), x.double().requires_grad_()
    onset_strength(leaf, **SMALL).square().sum().backward()
    with use_backend("torch"):
        onset_strength(exact, **SMALL).square().sum().backward()
    assert cases.relative(leaf.grad, exact.grad) < 2e-5


@pytest.mark.parametrize("kind", ["silence", "dc", "impulse", "late"])
def test_gradients_are_finite(route: Route, kind: str) -> None:
    for power in (1.0, 2.0, 3.0):
        x = mel_cases.signal(22050, kind).to(route.device).clone().requires_grad_()
        onset_strength(x, power=power, n_fft=512, n_mels=40).square().sum().backward()
        assert x.grad.isfinite().all(), power
        assert kind != "silence" or (x.grad == 0).all()


@pytest.mark.parametrize("function", [onset_strength, onset_strength_multi])
def test_compiles_whole(function: Any) -> None:
    def call(x: Tensor) -> Tensor:
        return function(x, **SMALL, lag=2, max_size=3)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for length in (4000, 4321, 5000):
        x, y = (cases.noise(2, length).requires_grad_() for _ in range(2))
        got, expected = compiled(x), call(y)
        assert cases.absolute(got, expected) < 1e-4
        got.square().sum().backward()
        expected.square().sum().backward()
        assert cases.relative(x.grad, y.grad) < 1e-5


def test_vmap() -> None:
    x = cases.noise(3, 2, 4000)
    got = torch.vmap(lambda x: onset_strength(x, **SMALL))(x)
    assert cases.absolute(got, onset_strength(x, **SMALL)) < 1e-4


def test_autocast_does_not_reach_inside(route: Route) -> None:
    x = cases.noise(2, 4000).to(route.device)
    expected = onset_strength(x, **SMALL)
    with torch.autocast(route.device, dtype=torch.bfloat16):
        got = onset_strength(x, **SMALL)
    assert got.dtype == torch.float32 and torch.equal(got, expected)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"lag": 0}, ValueError, "lag must be at least 1, got 0"),
        ({"lag": 1.0}, TypeError, "lag must be an int"),
        ({"max_size": 0}, ValueError, "max_size must be at least 1, got 0"),
        ({"aggregate": "sum"}, ValueError, "aggregate must be a function or one of mean, median, max"),
        ({"channels": [0, 41]}, ValueError, "channels must rise from 0 or more to n_bands=40"),
        ({"channels": [4, 4]}, ValueError, "channels must rise"),
        ({"channels": [-1, 4]}, ValueError, "channels must rise"),
        ({"channels": [3]}, ValueError, "channels must have at least one band each"),
        ({"channels": []}, ValueError, "channels must have at least one band each"),
        ({"channels": [slice(0, 3), slice(50, 60)]}, ValueError, "channels must have at least one band each"),
        ({"channels": [0, slice(3)]}, TypeError, "channels must be an int"),
        ({"channels": 3}, TypeError, "channels must be a sequence"),
        ({"center": 1}, TypeError, "center must be True or False"),
        ({"n_mels": 0}, ValueError, "n_mels must be positive"),
        ({"f_max": 0.0}, ValueError, "f_min and f_max"),
        ({"norm": "area"}, ValueError, "norm must be None or 'slaney'"),
        ({"mel_scale": "bark"}, ValueError, "mel_scale must be one of"),
        ({"hop_length": 0}, ValueError, "hop_length must be positive"),
        ({"power": -1.0}, ValueError, "power must be positive"),
        ({"top_db": -1.0}, ValueError, "top_db must be None or at least 0"),
        ({"mode": "packed"}, ValueError, "mode must be one of"),
        ({"center_pad_mode": "mirror"}, ValueError, "center_pad_mode must be one of"),
        ({"center_tail_pad": "minimal", "center_pad_mode": "reflect"}, ValueError, "must go with"),
        ({"window_fn": torch.ones(399)}, ValueError, "window must have shape"),
        ({"x": None}, ValueError, "exactly one of x and S must be given"),
        ({"S": torch.zeros(40, 9)}, ValueError, "exactly one of x and S must be given"),
        ({"x": torch.zeros(4000, dtype=torch.int16)}, TypeError, "x must be real and floating point"),
        ({"x": torch.zeros(0, 4000)}, ValueError, "empty batch"),
        ({"x": None, "S": torch.zeros(9)}, ValueError, "S must have shape"),
    ],
    ids=cases.name,
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"x": torch.zeros(4000), **SMALL, **change}
    with pytest.raises(error, match=words):
        onset_strength_multi(**arguments)
    if "channels" not in change:
        with pytest.raises(error, match=words):
            onset_strength(**arguments)


def test_silence_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (onset_strength(torch.zeros(3, 1)) == 0).all()
