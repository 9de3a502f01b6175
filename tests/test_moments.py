"""Centroid, bandwidth and rolloff of rows of magnitudes: the op `moments`, and when its kernel answers."""

from __future__ import annotations

import math
from typing import Any, Callable

import descriptor_cases as cases
import numpy as np
import pytest
import torch
from conftest import Route, require_route
from fences import fenced_kernels
from test_shader_checks import address_space_errors
from torch import Tensor

import mps_spectro
from mps_spectro import _moments, diagnostics, spectral_features, use_backend
from mps_spectro._magnitudes import bin_ramp
from mps_spectro._moments import NAMES, moments, moments_by_torch
from mps_spectro._runtime import host
from mps_spectro._runtime.faults import ShaderFault
from mps_spectro._runtime.source import assemble

# one bin, parts of a simdgroup's 32, one more, several tiles, rows of two and of three simdgroups
BINS = (1, 2, 31, 32, 33, 129, 201, 513, 1025, 2049, 4097, 6000)
ORDERS = (1.0, 2.0, 3.5)
SPACING = 11.25
EPS = 2.0**-23


def exact(rows: Tensor, p: float, roll_percent: float) -> dict[str, np.ndarray]:
    """By their definitions in float64; of silence 0, of what is not finite NaN."""
    a = rows.double().numpy()
    frequencies = SPACING * np.arange(a.shape[-1])
    total = a.sum(-1)
    divisor = np.where(total == 0, 1.0, total)
    with np.errstate(all="ignore"):
        centroid = (a * frequencies).sum(-1) / divisor
        away = np.abs(frequencies - centroid[..., None])
        bandwidth = ((a * away**p).sum(-1) / divisor) ** (1.0 / p)
        rolloff = frequencies[np.argmax(a.cumsum(-1) >= roll_percent * total[..., None], -1)]
    bad = ~np.isfinite(total)
    return {name: np.where(bad, np.nan, values) for name, values in zip(NAMES, (centroid, bandwidth, rolloff))}


def check(got: Tensor, rows: Tensor, p: float, roll_percent: float = 0.85) -> None:
    """Each value within rounding of the exact one; a rolloff any bin whose sum is the threshold to rounding."""
    assert got.shape == (3, len(rows)) and got.is_contiguous()
    expected = exact(rows, p, roll_percent)
    values = got.cpu().double().numpy()
    top = SPACING * (rows.shape[1] - 1)
    for name, value in zip(NAMES[:2], values):
        bad = np.isnan(expected[name])
        assert (np.isnan(value) == bad).all(), name
        # a place on the axis is known to a rounding
        assert np.abs(value - expected[name])[~bad].max(initial=0.0) <= 4 * EPS * top, name
    check_rolloffs(values[2], rows, roll_percent)


def check_rolloffs(got: np.ndarray, rows: Tensor, roll_percent: float) -> None:
    sums = rows.double().numpy().cumsum(-1)
    for value, below, row in zip(got, sums, rows):
        if not np.isfinite(below[-1]):
            assert math.isnan(value)
            continue
        k = round(value / SPACING)
        assert value == np.float32(k) * np.float32(SPACING)
        slack = 4 * EPS * below[-1]
        threshold = roll_percent * below[-1]
        assert below[k] >= threshold - slack
        assert k == 0 or (below[k - 1] <= threshold + slack and row[k] > 0)


def spectra(n_bins: int) -> Tensor:
    """Noise, and between it silence, a constant, one bin each, what is not finite, and spectra that fall and rise."""
    rows = torch.rand(19, n_bins).pow(4)
    rows[1] = 0.0
    rows[2] = 0.25
    rows[4:8] = 0.0
    rows[4, 0] = 3.0
    rows[5, -1] = 1e-6
    rows[6, n_bins // 2] = 7e4
    rows[9, n_bins // 3] = math.nan
    rows[11, -1] = math.inf
    rows[12, 0] = math.inf
    rows[13, n_bins // 2 :] = math.nan
    rows[15] = torch.logspace(0, -6, n_bins)
    rows[16] = torch.logspace(-6, 0, n_bins)
    rows[17, n_bins // 2 + 1 :] = 0.0
    return rows


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("n_bins", BINS)
def test_values(n_bins: int, p: float, route: Route) -> None:
    rows = spectra(n_bins)
    moved = rows.to(route.device)
    diagnostics(reset=True)
    got = torch.ops.mps_spectro.moments(moved, SPACING, p, 0.85)
    assert diagnostics(reset=True)["kernel_calls"] == ({"moments": 1} if route.kernels else {})
    assert got.dtype == torch.float32 and got.device.type == route.device
    check(got, rows, p)
    assert torch.equal(moved.cpu().nan_to_num(nan=-1.0), rows.nan_to_num(nan=-1.0))
    again = torch.ops.mps_spectro.moments(moved, SPACING, p, 0.85)
    assert torch.equal(again.isnan(), got.isnan()) and torch.equal(again.nan_to_num(), got.nan_to_num())
    # silence
    assert (got[:, 1] == 0).all() and (got[:, 7] == 0).all()


@pytest.mark.parametrize("n_bins", BINS)
def test_what_is_not_finite_is_where_torch_has_it(n_bins: int, kernel_route: Route) -> None:
    rows = spectra(n_bins)
    with use_backend("torch"):
        expected = torch.ops.mps_spectro.moments(rows, SPACING, 2.0, 0.85)
    got = torch.ops.mps_spectro.moments(rows.to(kernel_route.device), SPACING, 2.0, 0.85).cpu()
    assert torch.equal(got.isnan(), expected.isnan()) and torch.equal(got.isinf(), expected.isinf())


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_loudness_does_not_matter(scale: float, route: Route) -> None:
    rows = torch.rand(3, 201) * scale
    got = torch.ops.mps_spectro.moments(rows.to(route.device), SPACING, 4.0, 0.5)
    check(got, rows, 4.0, 0.5)


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 5, 8, 131])
def test_rows_of_any_number(n_rows: int, route: Route) -> None:
    for n_bins in (65, 2100):
        rows = torch.rand(n_rows, n_bins)
        check(torch.ops.mps_spectro.moments(rows.to(route.device), SPACING, 2.0, 0.85), rows, 2.0)


@pytest.mark.parametrize("roll_percent", [1e-4, 0.1, 0.5, 0.95, 0.9999])
@pytest.mark.parametrize("n_bins", BINS)
def test_rolloff_at_every_share(n_bins: int, roll_percent: float, route: Route) -> None:
    rows = torch.rand(24, n_bins) * torch.logspace(0, torch.rand(()).item() * 4 - 2, n_bins)
    rows[::3] *= torch.rand(8, n_bins) < 0.1
    got = torch.ops.mps_spectro.moments(rows.to(route.device), SPACING, 2.0, roll_percent)
    check_rolloffs(got[2].cpu().double().numpy(), rows, roll_percent)


@pytest.mark.parametrize("n_bins", BINS)
def test_rolloff_at_all_of_the_sum_is_the_last_bin_that_counts(n_bins: int, route: Route) -> None:
    """The share is 1 in float32: only sums that agree to the bit find the bin, whatever zeros follow it."""
    rows = torch.rand(40, n_bins) + 0.5
    ends = torch.linspace(0, n_bins - 1, 40).long()
    rows[torch.arange(n_bins) > ends[:, None]] = 0.0
    got = torch.ops.mps_spectro.moments(rows.to(route.device), SPACING, 2.0, 1.0 - 1e-12)[2].cpu()
    assert torch.equal(got, ends.float() * SPACING)


def test_one_bin_is_found_wherever_it_is(route: Route) -> None:
    for n_bins in (257, 2085):
        rows = torch.eye(n_bins)[:: 1 if n_bins == 257 else 7] * 0.3
        got = torch.ops.mps_spectro.moments(rows.to(route.device), SPACING, 2.0, 0.85)
        check(got, rows, 2.0)
        assert torch.equal(got[2].cpu(), rows.argmax(1).float() * SPACING)


# --- when the kernel answers ------------------------------------------------------------------------------------------


def counted(function: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
    diagnostics(reset=True)
    out = function()
    return out, diagnostics(reset=True)["kernel_calls"]


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 1, 3, 5)])
def test_shapes(shape: tuple[int, ...], route: Route) -> None:
    rows = torch.rand(*shape, 129)
    ramp = bin_ramp(256).to(route.device)
    for wanted in (NAMES, ("rolloff",), {"bandwidth": 1, "centroid": 2}):
        got = moments(rows.to(route.device), ramp, SPACING, wanted, 3.0, 0.7)
        assert list(got) == [name for name in NAMES if name in wanted]
        expected = exact(rows, 3.0, 0.7)
        for name, values in got.items():
            assert values.shape == (*shape[:-1], 1, shape[-1]) and values.is_contiguous()
            assert np.abs(values.squeeze(-2).cpu().numpy() - expected[name]).max() <= 4 * EPS * 128 * SPACING, name


@pytest.mark.parametrize("name", NAMES)
def test_descriptors_and_their_bundle_take_one_pass(name: str, route: Route) -> None:
    x = cases.signal(22050)[None].to(route.device)
    function = getattr(mps_spectro, f"spectral_{name}")
    one_pass = {"bands": 1, "moments": 1} if route.kernels else {}
    single, calls = counted(lambda: function(x))
    assert calls == one_pass
    names = [f"spectral_{name}" for name in NAMES]
    together, calls = counted(lambda: spectral_features(x, include=names))
    assert calls == one_pass
    assert torch.equal(together[f"spectral_{name}"], single)


def test_what_the_kernel_does_not_take_is_torchs(kernel_route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    device = kernel_route.device
    rows, ramp = torch.rand(2, 6, 33, device=device), bin_ramp(64).to(device)
    expected = moments(rows, ramp, SPACING, NAMES)

    def check_torch(function: Callable[[], dict[str, Tensor]]) -> None:
        got, calls = counted(function)
        assert calls == {}
        for name, values in got.items():
            torch.testing.assert_close(values.detach().to(expected[name]), expected[name], rtol=1e-5, atol=1e-3)

    every_other = torch.stack([rows, rows], -1).flatten(-2)[..., ::2]
    check_torch(lambda: moments(every_other, ramp, SPACING, NAMES))
    if kernel_route.float64:
        check_torch(lambda: moments(rows.double(), ramp.double(), SPACING, NAMES))
    check_torch(lambda: moments(rows.clone().requires_grad_(), ramp, SPACING, NAMES))
    check_torch(lambda: torch.vmap(lambda one: moments(one, ramp, SPACING, NAMES))(rows))
    check_torch(lambda: torch.func.jvp(lambda one: moments(one, ramp, SPACING, NAMES), (rows,), (rows,))[0])
    monkeypatch.setattr(_moments, "_MOST_BINS", 32)
    check_torch(lambda: moments(rows, ramp, SPACING, NAMES))
    flat, calls = counted(lambda: torch.ops.mps_spectro.moments(rows.view(12, 33), SPACING, 2.0, 0.85))
    assert calls == {}
    torch.testing.assert_close(flat, torch.stack([values.flatten() for values in expected.values()]))


def test_nothing_comes_of_nothing(route: Route) -> None:
    ramp = bin_ramp(64).to(route.device)
    got, calls = counted(lambda: moments(torch.empty(2, 0, 33, device=route.device), ramp, SPACING, NAMES))
    assert calls == {} and all(values.shape == (2, 1, 0) for values in got.values())
    assert moments(torch.rand(2, 33, device=route.device), ramp, SPACING, ()) == {}


def test_gradients_are_not_lost(route: Route) -> None:
    rows = torch.rand(4, 65, device=route.device).requires_grad_()
    ramp = bin_ramp(128).to(route.device)
    got = moments(rows, ramp, SPACING, NAMES)
    assert [values.requires_grad for values in got.values()] == [True, True, False]
    with torch.no_grad():
        plain, calls = counted(lambda: moments(rows, ramp, SPACING, NAMES))
    assert calls == ({"moments": 1} if route.kernels else {})
    for name in NAMES:
        torch.testing.assert_close(plain[name], got[name].detach(), rtol=1e-5, atol=1e-3)


def test_the_op_is_known_to_the_tracers() -> None:
    arguments = (torch.rand(6, 33), SPACING, 2.0, 0.85)
    torch.library.opcheck(
        torch.ops.mps_spectro.moments.default, arguments, test_utils=("test_schema", "test_faketensor")
    )


def test_float64_stays_float64() -> None:
    rows = torch.rand(5, 65, dtype=torch.float64)
    got = torch.ops.mps_spectro.moments(rows, SPACING, 2.0, 0.85)
    assert got.dtype == torch.float64
    for value, expected in zip(got, exact(rows, 2.0, 0.85).values()):
        assert np.abs(value.numpy() - expected).max() <= 1e-9


def test_moments_by_torch_share_their_sums() -> None:
    rows, ramp = torch.rand(3, 4, 9), torch.linspace(0, 1, 9)
    together = moments_by_torch(rows, ramp, 100.0, NAMES, 2.0, 0.85)
    for name, value in together.items():
        assert torch.equal(moments_by_torch(rows, ramp, 100.0, (name,), 2.0, 0.85)[name], value)


# --- its own memory only ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bins", BINS)
def test_kernel_stays_between_guard_bands(n_bins: int, kernel_route: Route) -> None:
    rows = torch.rand(7, n_bins)
    with fenced_kernels() as counts:
        got = torch.ops.mps_spectro.moments(rows.to(kernel_route.device), SPACING, 2.0, 0.85)
    assert counts["launches"] == 1
    check(got, rows, 2.0)


@pytest.mark.parametrize("p", [2.0, 3.5])
@pytest.mark.parametrize("n_bins", BINS)
def test_checked_kernel_stays_in_bounds(n_bins: int, p: float, checked: None) -> None:
    rows = spectra(n_bins)[:14]
    check(torch.ops.mps_spectro.moments(rows, SPACING, p, 0.85), rows, p)


def defines(held: int, simdgroups: int, rows: int, squares: int = 1) -> tuple[tuple[str, int], ...]:
    return (("HELD", held), ("SIMDS", simdgroups), ("ROWS", rows), ("SQUARES", squares))


@pytest.mark.parametrize(
    ("right", "wrong", "simdgroups"),
    [
        ("EXISTS(i) ? values", "true ? values", 1),
        ("k < length ? values[k]", "true ? values[k]", 1),
        ("min(own_row, p[0] - 1)", "own_row", 1),
        ("&& own_row < p[0]", "", 1),
        ("shared[2 * SIMDS]", "shared[SIMDS]", 2),
        ("shared[SIMDS + segment] = ", "shared[segment] = ", 2),
        ("    threadgroup_barrier(mem_flags::mem_threadgroup);\n    total", "    total", 2),
        ("lane == 0u && segment == 0 &&", "lane == 0u &&", 2),
    ],
)
def test_planted_mistakes_are_found(right: str, wrong: str, simdgroups: int) -> None:
    require_route("host")
    source = assemble("moments.metal", defines(2, simdgroups, 2 if simdgroups == 1 else 1))
    assert source.count(right) == 1
    n_bins = 32 * 2 * simdgroups - 15
    # all of each sum in the last bin, so that the bins are looked through to the end
    rows, out = torch.zeros(3, n_bins), torch.empty(3, 3)
    rows[:, -1] = 1.0
    top = n_bins - 1
    floats = (1.0 / top, SPACING * top, SPACING, 2.0, 0.5, 0.85)
    launch = {"threads": 128 if simdgroups == 1 else 192, "group_size": 64}
    host.compile_source(source, checked=True, seed=3).moments(rows, out, (3, n_bins), floats, **launch)
    check(out, rows, 2.0)
    mistaken = host.compile_source(source.replace(right, wrong), checked=True, seed=3)
    with pytest.raises(ShaderFault):
        mistaken.moments(rows, out, (3, n_bins), floats, **launch)


@pytest.mark.parametrize("squares", [0, 1])
@pytest.mark.parametrize(("held", "simdgroups", "rows"), [(1, 1, 4), (33, 1, 4), (65, 2, 1)])
def test_address_spaces(held: int, simdgroups: int, rows: int, squares: int) -> None:
    assert address_space_errors(assemble("moments.metal", defines(held, simdgroups, rows, squares))) == ""
