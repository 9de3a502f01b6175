"""The op `extremes`: means of the largest and smallest values of bands of bins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import Route

from mps_spectro import diagnostics, spectral_contrast

# first bin, end, number of values
BANDS = [(0, 1, 1), (0, 20, 1), (19, 38, 2), (37, 75, 38), (70, 513, 9)]


def by_sorting(rows: torch.Tensor, bands: list[tuple[int, int, int]]) -> torch.Tensor:
    """By numpy, in float64; NaN is the largest."""
    wide = rows.cpu().double().numpy()
    largest, smallest = [], []
    for first, end, count in bands:
        part = np.sort(wide[:, first:end], axis=1)  # NaN last
        largest.append(part[:, -count:].mean(1))
        smallest.append(part[:, :count].mean(1))
    return torch.from_numpy(np.stack([np.stack(largest), np.stack(smallest)]))


@pytest.mark.parametrize("n_rows", [1, 3, 4, 9])
def test_values(n_rows: int, route: Route) -> None:
    rows = torch.rand(n_rows, 513)
    rows[0] = 0.25  # all equal
    rows[-1, 100:300] = 0.5
    got = torch.ops.mps_spectro.extremes(rows.to(route.device), [n for band in BANDS for n in band])
    torch.testing.assert_close(got.cpu().double(), by_sorting(rows, BANDS), rtol=1e-6, atol=0)


def test_what_is_not_finite(route: Route) -> None:
    rows = torch.rand(6, 513)
    rows[1, 30] = math.nan
    rows[2, 37:75] = math.nan
    rows[3, 30:34] = math.inf
    rows[4, 37:75] = math.inf
    rows[5] = 0.0
    got = torch.ops.mps_spectro.extremes(rows.to(route.device), [n for band in BANDS for n in band])
    torch.testing.assert_close(got.cpu().double(), by_sorting(rows, BANDS), rtol=1e-6, atol=0, equal_nan=True)


def test_contrast_takes_it(route: Route) -> None:
    x = torch.randn(2, 9000)
    spectral_contrast(x.to(route.device))
    diagnostics(reset=True)
    got = spectral_contrast(x.to(route.device))
    counts = diagnostics(reset=True)["kernel_calls"]
    assert counts == ({"bands": 1, "extremes": 1} if route.kernels else {})
    librosa = pytest.importorskip("librosa")
    expected = np.stack([librosa.feature.spectral_contrast(y=row.double().numpy(), pad_mode="constant") for row in x])
    assert np.abs(got.cpu().numpy() - expected).max() < 2e-3
