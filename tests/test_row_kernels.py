"""The kernels `clip` and `extremes` under the checks that stand in for a Mac: own memory, races, address spaces."""

from __future__ import annotations

import pytest
import torch
from conftest import require_route
from fences import fenced_kernels
from test_clip import LENGTHS
from test_extremes import BANDS, by_sorting
from test_shader_checks import address_space_errors

from mps_spectro import _clip, _extremes, use_backend
from mps_spectro._runtime.source import assemble


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("rows", [1, 3])
def test_clip_stays_in_its_rows(rows: int, length: int, checked: None) -> None:
    around = torch.full((rows * length + 20,), torch.nan)
    x = around[10:-10].view(rows, length).copy_(40.0 * torch.randn(rows, length))
    expected = torch.maximum(x, x.amax(1, keepdim=True) - 30.0) + 2.5
    torch.ops.mps_spectro.clip_(x, 30.0, 2.5)
    assert torch.equal(x, expected)
    assert around.isnan().sum() == 20


@pytest.mark.parametrize("n_rows", [1, 3, 4, 9])
def test_extremes_stay_in_bounds(n_rows: int, checked: None) -> None:
    rows = torch.rand(n_rows, 513)
    got = torch.ops.mps_spectro.extremes(rows, [n for band in BANDS for n in band])
    torch.testing.assert_close(got.double(), by_sorting(rows, BANDS), rtol=1e-6, atol=0)


@pytest.mark.parametrize("n_rows", [1, 3, 4, 9])
def test_extremes_stay_between_guard_bands(n_rows: int) -> None:
    require_route("host")
    rows = torch.rand(n_rows, 513)
    with use_backend("host"), fenced_kernels() as counts:
        got = torch.ops.mps_spectro.extremes(rows, [n for band in BANDS for n in band])
    assert counts["launches"] == 1
    torch.testing.assert_close(got.double(), by_sorting(rows, BANDS), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("shader", "group"), [("clip.metal", _clip._GROUP), ("extremes.metal", _extremes._GROUP)])
def test_address_spaces_are_kept_apart(shader: str, group: int) -> None:
    assert address_space_errors(assemble(shader, (("GROUP", group),))) == ""
