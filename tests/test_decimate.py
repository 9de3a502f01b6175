"""Decimation against soxr, which librosa decimates with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import Route
from torch import Tensor

from mps_spectro._decimate import decimate, halving, kaiser_sinc, soxr_stages

soxr = pytest.importorskip("soxr")


def matrices(count: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [halving(taps).to(dtype) for taps in soxr_stages(count)]


def by_soxr(x: np.ndarray, factor: int) -> np.ndarray:
    """As librosa asks for it: ceil(T / factor) samples, zeros where soxr gives fewer."""
    y = soxr.resample(x, factor, 1, quality="soxr_hq")
    size = -(-len(x) // factor)
    return np.pad(y[:size], (0, max(0, size - len(y))))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7])
def test_every_sample_is_soxrs(count: int) -> None:
    rng = np.random.default_rng(count)
    factor = 2**count
    for length in (20000, 20001, 20002, 20003, 777, 100, factor, factor + 1):
        x = rng.standard_normal(length)
        got = decimate(torch.from_numpy(x)[None], matrices(count))[0].numpy()
        expected = by_soxr(x, factor)
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= 3e-6, length


def test_the_response_is_soxrs_at_every_frequency() -> None:
    (taps,) = soxr_stages(1)
    measured = np.zeros(2000)
    for parity in range(2):
        x = np.zeros(8192)
        x[4096 + parity] = 1.0
        y = soxr.resample(x, 2, 1, quality="soxr_hq")
        places = 2 * np.arange(len(y)) - 4096 - parity + 1000
        inside = (places >= 0) & (places < 2000)
        measured[places[inside]] = y[inside]
    ours = np.zeros(2000)
    ours[1000 - len(taps) // 2 : 1001 + len(taps) // 2] = taps.numpy()
    assert np.abs(np.fft.rfft(ours) - np.fft.rfft(measured)).max() <= 2e-6


def test_kaiser_sinc_is_the_windowed_sinc_of_numpy() -> None:
    n = np.arange(-31, 32)
    expected = np.sinc(0.5 * n) * np.kaiser(63, 8.0)
    assert np.abs(kaiser_sinc(0.5, 31.0, 8.0).numpy() - expected / expected.sum()).max() <= 1e-15


@pytest.mark.parametrize("pad_mode", ["reflect", "replicate"])
def test_padding_by_the_signal(pad_mode: str) -> None:
    taps = kaiser_sinc(0.5, 31.0, 8.0)
    for length in (32, 33, 300, 1001):
        x = np.random.default_rng(length).standard_normal(length)
        padded = np.pad(x, 31, mode={"reflect": "reflect", "replicate": "edge"}[pad_mode])
        expected = np.convolve(padded, taps.numpy(), mode="valid")[::2]
        got = decimate(torch.from_numpy(x)[None], [halving(taps)], pad_mode)[0].numpy()
        assert got.shape == expected.shape == (math.ceil(length / 2),)
        assert np.abs(got - expected).max() <= 1e-14


@pytest.mark.parametrize("count", [1, 3])
def test_gradients(count: int) -> None:
    x = torch.randn(2, 37, dtype=torch.float64, requires_grad=True)
    tables = matrices(count)
    assert torch.autograd.gradcheck(lambda x: decimate(x, tables), x)


def test_routes(route: Route) -> None:
    x = torch.randn(2, 5001)
    tables = [table.to(route.device) for table in matrices(2, torch.float32)]
    got = decimate(x.to(route.device), tables).cpu()
    expected = decimate(x.double(), matrices(2))
    assert (got - expected).abs().max() <= 2e-6
