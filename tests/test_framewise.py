"""Root mean square and zero-crossing rate against librosa in float64, over every route."""

from __future__ import annotations

import itertools
import math
from typing import Any, Callable

import descriptor_cases as cases
import front_end_cases
import numpy as np
import pytest
import torch
from conftest import Route
from recordings import recording
from torch import Tensor

from mps_spectro import rms, zero_crossing_rate

librosa = pytest.importorskip("librosa")

FRAMES = (
    (2048, 512),
    (1024, 240),
    (1024, 1024),
    (1000, 441),
    (401, 100),
    (400, 160),
    (64, 100),
    (7, 3),
    (2, 1),
    (1, 3),
)
KINDS = ("mixture", "noise", "tone", "clipped", "faint", "loud", "impulse", "silence", "dc")
# librosa measures float64 signals in float32 unless it is told
WIDE = {"dtype": np.float64}


def their_rms(x: Tensor, **options: Any) -> np.ndarray:
    return librosa.feature.rms(y=x.double().numpy(), **options, **WIDE)


def their_rate(x: Tensor, **options: Any) -> np.ndarray:
    return librosa.feature.zero_crossing_rate(x.numpy(), **options)


# --- librosa ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frame_length", "hop_length"), FRAMES)
def test_librosa(frame_length: int, hop_length: int) -> None:
    sizes = {"frame_length": frame_length, "hop_length": hop_length}
    for kind, center in itertools.product(KINDS, (True, False)):
        x = cases.signal(22050, kind)[:6000]
        got = zero_crossing_rate(x, **sizes, center=center)
        assert cases.error(got, their_rate(x, **sizes, center=center)) <= 1e-6, kind
        exact = zero_crossing_rate(x.double(), **sizes, center=center)
        assert exact.dtype == torch.float64
        assert cases.error(exact, their_rate(x.double(), **sizes, center=center)) <= 1e-14, kind
        for mode in ("constant", "edge", "reflect") if center else ("constant",):
            expected = their_rms(x, **sizes, center=center, pad_mode=mode)
            got = rms(x, **sizes, center=center, pad_mode=mode)
            assert got.dtype == torch.float32 and cases.error(got, expected) <= 5e-7, (kind, mode)
            exact = rms(x.double(), **sizes, center=center, pad_mode=mode)
            assert exact.dtype == torch.float64 and cases.error(exact, expected) <= 1e-12, (kind, mode)


def test_defaults_are_those_of_librosa() -> None:
    x = cases.signal(22050)
    assert cases.error(rms(x), their_rms(x)) <= 5e-7
    assert cases.error(zero_crossing_rate(x), their_rate(x)) <= 1e-6


def test_every_route(route: Route) -> None:
    x = torch.stack([cases.signal(22050, kind) for kind in ("mixture", "noise")])
    for sizes in ({}, {"frame_length": 400, "hop_length": 160}, {"frame_length": 33, "hop_length": 50}):
        for ours, theirs in ((rms, their_rms), (zero_crossing_rate, their_rate)):
            got = ours(x.to(route.device), **sizes)
            assert got.device.type == route.device
            assert cases.error(got, theirs(x, **sizes)) <= 1e-6


@pytest.mark.parametrize(
    ("file", "seconds", "start"), [("speech-mono-48k-1s.wav", 1.4, 0.0), ("music-stereo-44k1-195s.ogg", 4.0, 60.0)]
)
def test_recordings(file: str, seconds: float, start: float) -> None:
    x, _ = recording(file, seconds, start)
    assert cases.error(rms(x), their_rms(x)) <= 5e-7
    assert cases.error(zero_crossing_rate(x), their_rate(x)) <= 1e-6


@pytest.mark.parametrize("threshold", [0.0, 1e-10, 0.05])
def test_zero_is_positive_and_the_first_sample_no_crossing(threshold: float) -> None:
    x = torch.tensor([-1.0, 0.0, -0.0, 1e-11, -1e-11, 2e-10, -2e-10, -0.04, 0.04, -0.06, 0.06, -1.0, -1.0, 1.0])
    for frame_length, hop_length in ((14, 1), (4, 2), (3, 1), (5, 5)):
        sizes = {"frame_length": frame_length, "hop_length": hop_length}
        for center in (True, False):
            got = zero_crossing_rate(x, **sizes, center=center, threshold=threshold)
            expected = their_rate(x, **sizes, center=center, threshold=threshold)
            assert cases.error(got, expected) <= 1e-6


def test_alternating_signs() -> None:
    x = torch.tensor([1.0, -1.0]).repeat(4000)
    got = zero_crossing_rate(x)
    assert torch.allclose(got[0, 4:-4], torch.tensor(2047 / 2048))
    assert torch.allclose(rms(x)[0, 4:-4], torch.tensor(1.0))


# --- short signals, shapes, dtypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [rms, zero_crossing_rate])
def test_short_signals(ours: Callable[..., Tensor]) -> None:
    x = torch.tensor([0.5, -0.5, 0.25])
    assert ours(x, frame_length=2048).shape == (1, 1)
    # too short to be reflected
    assert torch.equal(ours(x, pad_mode="reflect"), ours(x, pad_mode="edge"))
    assert torch.equal(ours(x, pad_mode="replicate"), ours(x, pad_mode="edge"))
    # shorter than a frame: zeros behind
    whole = torch.nn.functional.pad(x, (0, 5))
    got = ours(x, frame_length=8, center=False)
    assert got.shape == (1, 1) and torch.equal(got, ours(whole, frame_length=8, center=False))
    assert (ours(x[:0], pad_mode="constant") == 0).all() and (ours(x[:0], center=False) == 0).all()
    for length in (1, 2, 3):
        for theirs, mode in ((their_rms, "edge"), (their_rms, "constant"), (their_rate, "edge")):
            if theirs.__name__.endswith("rms") == (ours is rms):
                options = {"pad_mode": mode} if ours is rms else {}
                assert cases.error(ours(x[:length], **options), theirs(x[:length], **options)) <= 1e-6


@pytest.mark.parametrize("ours", [rms, zero_crossing_rate])
def test_shapes_and_dtypes(ours: Callable[..., Tensor]) -> None:
    x = cases.signal(22050)[:5000]
    single = ours(x)
    assert single.shape == (1, 10)
    for lead in ((1,), (3,), (2, 3), (2, 1, 3)):
        assert torch.equal(ours(x.expand(*lead, -1)), single.expand(*lead, -1, -1))
    assert torch.equal(ours(torch.stack([x, x], -1).flatten()[::2]), single)
    for half in (torch.float16, torch.bfloat16):
        got = ours(x.to(half))
        assert got.dtype == torch.float32 and torch.equal(got, ours(x.to(half).float()))


@pytest.mark.parametrize("ours", [rms, zero_crossing_rate])
def test_silence_and_what_is_not_finite(ours: Callable[..., Tensor]) -> None:
    assert (ours(torch.zeros(2, 5000)) == 0).all()
    for bad in (math.nan, math.inf):
        x = cases.signal(22050).clone()
        x[5000] = bad
        got = ours(x)
        assert not got[0, 8:12].isfinite().any() and got[0, :7].isfinite().all()


# --- gradients, compile, autocast -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_gradcheck(mode: str) -> None:
    x = torch.randn(2, 19, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rms(x, frame_length=7, hop_length=3, pad_mode=mode), (x,))
    assert torch.autograd.gradgradcheck(lambda x: rms(x, frame_length=7, hop_length=3, pad_mode=mode), (x,))


def test_gradients_at_silence(route: Route) -> None:
    x = torch.zeros(2, 6000, device=route.device)
    x[1] = 0.5
    x.requires_grad_()
    assert not zero_crossing_rate(x).requires_grad
    rms(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert (x.grad[0] == 0).all() and (x.grad[1] > 0).all()


@pytest.mark.parametrize("ours", [rms, zero_crossing_rate])
def test_compiles_whole(ours: Callable[..., Tensor]) -> None:
    compiled = torch.compile(lambda x: ours(x, frame_length=400), fullgraph=True, backend="aot_eager")
    for length in (4000, 4321) if ours is rms else (4000,):
        x, y = (cases.signal(22050)[None, :length].clone().requires_grad_() for _ in range(2))
        got, expected = compiled(x), ours(y, frame_length=400)
        assert cases.error(got, expected) < 1e-6
        if expected.requires_grad:
            got.sum().backward()
            expected.sum().backward()
            assert front_end_cases.relative(x.grad, y.grad) < 1e-5


@pytest.mark.parametrize("ours", [rms, zero_crossing_rate])
def test_autocast_does_not_reach_inside(route: Route, ours: Callable[..., Tensor]) -> None:
    x = cases.signal(22050).to(route.device)
    expected = ours(x)
    with torch.autocast(route.device, dtype=torch.bfloat16):
        got = ours(x)
    assert got.dtype == torch.float32 and torch.equal(got, expected)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [rms, zero_crossing_rate])
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": [0.0] * 4000}, TypeError, "x must be a torch.Tensor"),
        ({"x": torch.zeros(4000, dtype=torch.int16)}, TypeError, "x must be real and floating point"),
        ({"x": torch.tensor(1.0)}, ValueError, r"x must have shape \(..., T\)"),
        ({"x": torch.zeros(0, 4000)}, ValueError, "empty batch"),
        ({"x": torch.zeros(0), "pad_mode": "edge"}, ValueError, "x must have at least one sample"),
        ({"frame_length": 0}, ValueError, "frame_length must be positive"),
        ({"frame_length": 10.0}, TypeError, "frame_length must be an int"),
        ({"hop_length": 0}, ValueError, "hop_length must be positive"),
        ({"pad_mode": "wrap"}, ValueError, "pad_mode must be one of"),
        ({"center": 1}, TypeError, "center must be True or False"),
    ],
    ids=front_end_cases.name,
)
def test_bad_arguments(ours: Callable[..., Tensor], change: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"x": torch.zeros(4000), **change}
    with pytest.raises(error, match=words):
        ours(arguments.pop("x"), **arguments)


def test_negative_thresholds() -> None:
    for threshold in (-1.0, math.nan):
        with pytest.raises(ValueError, match="threshold must be at least 0"):
            zero_crossing_rate(torch.zeros(4000), threshold=threshold)
