"""The op `clip_`: decibels no lower than so much below their largest, in place."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import Route

from mps_spectro import MelSpectrogramTransform, diagnostics, melscale_fbanks

LENGTHS = (1, 31, 256, 4096, 4097, 70_001)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("rows", [1, 3])
def test_values(rows: int, length: int, route: Route) -> None:
    x = 40.0 * torch.randn(rows, length)
    expected = torch.maximum(x, x.amax(1, keepdim=True) - 30.0) + 2.5
    moved = x.to(route.device)
    torch.ops.mps_spectro.clip_(moved, 30.0, 2.5)
    assert torch.equal(moved.cpu(), expected)


@pytest.mark.parametrize("where", [0, 17, 5000])
def test_nan_and_infinity_go_where_torch_has_them(where: int, route: Route) -> None:
    for value in (math.nan, math.inf, -math.inf):
        x = torch.randn(2, 5001)
        x[1, where] = value
        expected = torch.maximum(x, x.amax(1, keepdim=True) - 1.0) + 0.5
        moved = x.to(route.device)
        torch.ops.mps_spectro.clip_(moved, 1.0, 0.5)
        torch.testing.assert_close(moved.cpu(), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", [(3000,), (2, 3000), (2, 3, 3000)])
@pytest.mark.parametrize("mode", ["per_example", "torchaudio_compat"])
def test_front_ends_clip_by_it(mode: str, shape: tuple[int, ...], route: Route) -> None:
    x = torch.randn(shape) * torch.logspace(-4, 0, math.prod(shape[:-1])).reshape(*shape[:-1], 1)
    module = MelSpectrogramTransform(sample_rate=16000, n_fft=256, hop_length=64, n_mels=20, top_db=25.0, mode=mode)
    window = torch.hann_window(256, dtype=torch.float64)
    spectrum = torch.stft(
        x.double().reshape(-1, 3000), 256, 64, window=window, pad_mode="constant", return_complex=True
    )
    bank = melscale_fbanks(129, 0.0, 8000.0, 20, 16000).double()
    power = (bank @ spectrum.abs().square()).clamp(min=1e-10).reshape(*shape[:-1], 20, -1)
    decibels = 10.0 * power.log10()
    groups = tuple(range(-min(decibels.dim(), 3 if mode == "torchaudio_compat" else 2), 0))
    expected = torch.maximum(decibels, decibels.amax(groups, keepdim=True) - 25.0)
    diagnostics(reset=True)
    got = module.to(route.device)(x.to(route.device))
    counts = diagnostics(reset=True)["kernel_calls"]
    assert counts == ({"bands": 1, "clip_": 1} if route.kernels else {})
    assert (got.cpu() - expected).abs().max() < 1e-3
