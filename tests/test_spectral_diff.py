"""Positive spectral differences against madmom's definition in numpy, and against madmom where it is installed."""

from __future__ import annotations

import itertools
from typing import Any

import front_end_cases as cases
import numpy as np
import pytest
import torch
from conftest import Route
from madmom_reference import lag_of, log_spectrogram, madmom_or_skip, positive_diff
from torch import Tensor

from mps_spectro import madmom_log_spectrogram, positive_spectral_diff

SIZES = [1, 2, 3, 5, 64, 100, 441, 1000, 1024, 1025, 2047, 2048, 2049, 4096, 8192]
HOPS = [1, 64, 160, 220.5, 441, 512]
RATIOS = [0.001, 0.1, 0.25, 0.5, 0.75, 0.999, 1.0]


def delayed(x: Tensor, lag: int) -> Tensor:
    """The difference of rows (n_frames, ...) by numpy."""
    return torch.from_numpy(positive_diff(x.double().numpy(), lag))


def found(**options: Any) -> int:
    """The lag that was used, read off a ramp: it rises by `lag` in as many frames."""
    ramp = torch.arange(9000, dtype=torch.float64)[:, None]
    return int(positive_spectral_diff(ramp, time_axis=0, **options)[-1].item())


@pytest.mark.parametrize("lag", [1, 2, 3, 7, 29, 30, 31, 500])
@pytest.mark.parametrize("time_axis", [-1, -2, 0, 1])
def test_definition(lag: int, time_axis: int) -> None:
    x = cases.noise(30, 30)
    rows = x.movedim(time_axis, 0)
    got = positive_spectral_diff(x, lag=lag, time_axis=time_axis)
    assert cases.absolute(got.movedim(time_axis, 0), delayed(rows, lag)) < 1e-6
    assert got.shape == x.shape


@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (2, 3, 40), (2, 1, 3, 17), (0, 7), (7, 0)])
def test_shapes(shape: tuple[int, ...]) -> None:
    x = cases.noise(*shape)
    got = positive_spectral_diff(x, lag=2)
    assert got.shape == x.shape and got.dtype == x.dtype
    assert cases.absolute(got.movedim(-1, 0), delayed(x.movedim(-1, 0), 2)) < 1e-6 if x.numel() else True
    assert not got[..., :2].any()


def test_lags_of_sizes() -> None:
    assert [
        found(frame_size=size, hop_size=hop, diff_ratio=ratio)
        for size, hop, ratio in ((2048, 441, 0.5), (8192, 441, 0.5), (4096, 441, 0.25), (2048, 441, 1.0))
    ] == [1, 5, 3, 2]
    for size, hop, ratio in itertools.product(SIZES, HOPS, RATIOS):
        expected = lag_of(size, hop, ratio)
        assert found(frame_size=size, hop_size=hop, diff_ratio=ratio) == expected, (size, hop, ratio)


def test_one_frame_is_the_default() -> None:
    assert found() == found(frame_size=8192) == found(hop_size=1) == found(diff_ratio=0.1) == 1


def test_madmom_itself() -> None:
    spectrogram = madmom_or_skip("spectrogram")
    for size, hop, ratio in itertools.product(SIZES, HOPS, RATIOS):
        assert lag_of(size, hop, ratio) == spectrogram._diff_frames(ratio, hop, size), (size, hop, ratio)
    x = 0.3 * cases.noise(20000)
    signal = madmom_or_skip("signal").Signal(x.numpy(), sample_rate=44100)
    for size, ratio in itertools.product((1024, 2048, 4096, 8192), (0.25, 0.5, 1.0)):
        log = spectrogram.LogarithmicFilteredSpectrogram(signal, frame_size=size, fps=100)
        theirs = spectrogram.SpectrogramDifference(log, diff_ratio=ratio, positive_diffs=True)
        lag = {"frame_size": size, "hop_size": 441, "diff_ratio": ratio}
        got = positive_spectral_diff(torch.from_numpy(np.asarray(log)), time_axis=0, **lag)
        assert torch.equal(got, torch.from_numpy(np.asarray(theirs)))
        ours = positive_spectral_diff(madmom_log_spectrogram(x, frame_size=size), time_axis=-2, **lag)
        assert cases.absolute(ours, torch.from_numpy(np.asarray(theirs))) < 2e-6


def test_of_a_spectrogram(route: Route) -> None:
    x = 0.3 * cases.noise(2, 9000)
    log = madmom_log_spectrogram(x.to(route.device))
    got = positive_spectral_diff(log, frame_size=2048, hop_size=441, time_axis=-2)
    for row, signal in zip(got, x.double().numpy()):
        assert cases.absolute(row, torch.from_numpy(positive_diff(log_spectrogram(signal), 1))) < 2e-6


def test_dtypes() -> None:
    x = cases.noise(4, 9)
    assert positive_spectral_diff(x.double()).dtype == torch.float64
    for dtype in (torch.float16, torch.bfloat16):
        got = positive_spectral_diff(x.to(dtype))
        assert got.dtype == torch.float32 and torch.equal(got, positive_spectral_diff(x.to(dtype).float()))


def test_silence_and_constants_have_no_flux() -> None:
    for x in (torch.zeros(3, 8), torch.ones(3, 8), -torch.ones(3, 8)):
        assert not positive_spectral_diff(x).any()


def test_what_is_no_number_stays_visible() -> None:
    x = torch.ones(1, 5)
    x[0, 2] = torch.nan
    assert positive_spectral_diff(x).isnan().tolist() == [[False, False, True, True, False]]


def test_gradients() -> None:
    x = cases.noise(2, 3, 7).double().requires_grad_()
    for axis, lag in ((-1, 1), (1, 2), (-1, 9)):
        assert torch.autograd.gradcheck(lambda x: positive_spectral_diff(x, lag=lag, time_axis=axis), (x,))  # noqa: B023
    zero = torch.zeros(2, 7, requires_grad=True)
    positive_spectral_diff(zero).sum().backward()
    assert zero.grad is not None and zero.grad.isfinite().all()


def test_compiles_whole() -> None:
    def function(x: Tensor) -> Tensor:
        return positive_spectral_diff(x, frame_size=8192, hop_size=441.0, time_axis=-2)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for frames in (11, 12, 3):
        x = cases.noise(2, frames, 5)
        assert torch.equal(compiled(x), function(x))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(5)}, ValueError, "x must have at least two dimensions"),
        ({"x": torch.zeros(2, 5, dtype=torch.int64)}, TypeError, "x must be real and floating point"),
        ({"x": torch.zeros(2, 5, dtype=torch.complex64)}, TypeError, "x must be real and floating point"),
        ({"x": [[0.0]]}, TypeError, "x must be a torch.Tensor"),
        ({"lag": 0}, ValueError, "lag must be positive"),
        ({"lag": 1.0}, TypeError, "lag must be an int"),
        ({"lag": 1, "frame_size": 10, "hop_size": 5}, ValueError, "lag must not be given together"),
        ({"lag": 1, "hop_size": 5}, ValueError, "lag must not be given together"),
        ({"time_axis": 2}, ValueError, r"time_axis must be in -2 .. 1, got 2"),
        ({"time_axis": -3}, ValueError, "time_axis must be in"),
        ({"time_axis": None}, TypeError, "time_axis must be an int"),
        ({"frame_size": 0, "hop_size": 5}, ValueError, "frame_size must be positive"),
        ({"frame_size": 0}, ValueError, "frame_size must be positive"),
        ({"frame_size": 10, "hop_size": 0}, ValueError, "hop_size must be positive"),
        ({"frame_size": 10, "hop_size": float("nan")}, ValueError, "hop_size must be positive"),
        ({"diff_ratio": 0.0}, ValueError, "diff_ratio must be above 0"),
        ({"diff_ratio": 1.01}, ValueError, "diff_ratio must be above 0"),
        ({"diff_ratio": float("nan")}, ValueError, "diff_ratio must be above 0"),
    ],
    ids=cases.name,
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        given = {"x": torch.zeros(2, 5), **change}
        positive_spectral_diff(given.pop("x"), **given)
