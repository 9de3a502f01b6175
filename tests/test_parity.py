"""stft, istft and their gradients against torch in float64, over the grid of parity_cases.

By default every size and every kind of plan; with -m slow every argument for every size, long signals and many rows.
"""

from __future__ import annotations

import pytest
import torch
from conftest import ROUTES, Route
from parity_cases import COMMON, KINDS, LENGTHS, RARE, SMALL, Case, basic, long, many, modes, violations

import mps_spectro
from mps_spectro import diagnostics

SIZES = SMALL + COMMON + RARE
_MARKS = {"mps": [pytest.mark.mps], "cuda": [pytest.mark.cuda]}
# the routes of a case one after the other, so that its float64 results are computed once
each_route = pytest.mark.parametrize(
    "route", [pytest.param(name, id=name, marks=_MARKS.get(name, [])) for name in ROUTES], indirect=True
)


def check(cases: list[Case], route: Route) -> None:
    """Every error within its limits, and by the kernels where they cover the size."""
    before = diagnostics()
    problems = [problem for case in cases for problem in violations(case, route.device)]
    assert not problems, "\n".join(problems)
    after = diagnostics()
    if route.kernels and all(case.by_kernel for case in cases):
        assert after["torch_route"] == before["torch_route"]
        assert after["backend_calls"][route.backend] >= before["backend_calls"].get(route.backend, 0) + 2 * len(cases)


@each_route
@pytest.mark.parametrize("n_fft", SIZES)
def test_every_size(n_fft: int, route: Route) -> None:
    check(basic(n_fft), route)


@each_route
@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_for_every_kind_of_plan(kind: str, route: Route) -> None:
    check(modes(KINDS[kind]), route)


@each_route
@pytest.mark.parametrize("n_fft", [16, 321, 400, 1024])
@pytest.mark.parametrize("number", range(len(LENGTHS)), ids=[f"T{length}" for length in LENGTHS])
def test_lengths_around_16_bits(number: int, n_fft: int, route: Route) -> None:
    check(long(n_fft)[number : number + 1], route)


@each_route
@pytest.mark.parametrize("number", [0, 1], ids=["reflect", "constant"])
def test_more_rows_than_16_bits(number: int, route: Route) -> None:
    check(many(16)[number : number + 1], route)


@each_route
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_every_time(kind: str, route: Route) -> None:
    n_fft = KINDS[kind]
    x = torch.randn(2, 3 * n_fft + 5).to(route.device)
    # under autograd, the first time without it and the short way of calls that repeat
    results = []
    for needs_grad in (True, False, False, False):
        spectrum = mps_spectro.stft(x.requires_grad_(needs_grad), n_fft, max(1, n_fft // 4)).detach()
        signal = mps_spectro.istft(spectrum.requires_grad_(needs_grad), n_fft, max(1, n_fft // 4)).detach()
        results.append((spectrum, signal))
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@pytest.mark.slow
@each_route
@pytest.mark.parametrize("n_fft", [n_fft for n_fft in SIZES if n_fft not in KINDS.values()])
def test_every_argument_for_every_size(n_fft: int, route: Route) -> None:
    check(modes(n_fft), route)


@pytest.mark.slow
@each_route
@pytest.mark.parametrize("n_fft", sorted({1, 2, 7, 64, *KINDS.values(), *COMMON}))
def test_lengths_around_16_bits_for_many_sizes(n_fft: int, route: Route) -> None:
    for case in long(n_fft):
        check([case], route)


@pytest.mark.slow
@each_route
@pytest.mark.parametrize("n_fft", [1, 5, 8, 20, 31, 64])
def test_more_rows_than_16_bits_for_many_sizes(n_fft: int, route: Route) -> None:
    for case in many(n_fft):
        check([case], route)
