"""The kernels `bands` and `gains`: they are float64's definition for every kind of plan and bank, and touch their own
memory only. Twice, as the other kernels in test_guard_bands.py: with guard bands around each buffer, and with every
access checked.
"""

from __future__ import annotations

import importlib
import itertools
from dataclasses import dataclass, replace
from typing import Any, Iterable, Iterator

import pytest
import torch
from conftest import REAL_MPS, Route
from fences import fenced_kernels
from parity import laid_out
from parity_cases import KINDS, PAD_MODES, hop_of, largest_error
from test_bands import by_torch
from torch import Tensor

from mps_spectro import _band_kernels, _reference, diagnostics
from mps_spectro._bands_reference import MODES
from mps_spectro._banks import bank_columns, sparse_bank
from mps_spectro._plan import make_plan

# n_fft and hop, each kind of plan once
SHAPES = {
    **{kind: (n_fft, hop_of(n_fft)) for kind, n_fft in KINDS.items() if kind != "torch"},
    "hop beyond n_fft": (64, 71),
    "hop beyond n_fft, pair": (45, 50),
}
# of the signal; rows that begin at odd places are no pairs
LAYOUTS = {True: ("contiguous", "channel", "expanded"), False: ("every second", "transposed", "reversed batch")}
# power, eps, eps under the root: what one compiled kernel takes
POWERS = {
    "squares": ((2.0, 0.0, False), (2.0, 1e-2, True), (2.0, 1e-2, False)),
    "magnitudes": ((1.0, 0.0, False), (1.0, 1e-2, True), (1.0, 1e-2, False)),
    "any power": ((1.5, 0.0, False), (3.0, 1e-2, True), (0.7, 1e-2, True), (2.5, 1e-2, False)),
}


# --- banks ------------------------------------------------------------------------------------------------------------


def bins_of(n_fft: int) -> int:
    return n_fft // 2 + 1


def room(n_fft: int) -> int:
    """Most bands of a frame that lie behind its powers in threadgroup memory, in pairs."""
    plan = make_plan(n_fft, "gains")
    frames = plan.frames_per_unit
    words = 2 * plan.slot_stride - frames * (plan.points // frames + 1)
    return words // frames // 2 * 2


def triangles(n_fft: int, n_bands: int, width: float = 1.0) -> Tensor:
    """Bands side by side, each as wide as `width` times the way to the next, with weights of its own."""
    n_bins = bins_of(n_fft)
    centres = (torch.arange(n_bands) + 0.5)[:, None] * (n_bins / n_bands) - 0.5
    slope = max(1.0, width * n_bins / n_bands)
    return (1.0 - (torch.arange(n_bins) - centres).abs() / slope).clamp(min=0.0) * (0.5 + torch.rand(n_bands, n_bins))


def single_bins(n_fft: int, n_bands: int) -> Tensor:
    basis = torch.zeros(n_bands, bins_of(n_fft))
    basis[torch.arange(n_bands), torch.arange(n_bands) * bins_of(n_fft) // n_bands] = 0.5 + torch.rand(n_bands)
    return basis


def empty_rows(n_fft: int, n_bands: int) -> Tensor:
    basis = triangles(n_fft, n_bands)
    basis[[0, n_bands // 2, -1]] = 0.0
    basis[:, bins_of(n_fft) // 3] = 0.0  # and a bin in no band
    return basis


def either_sign(n_fft: int, n_bands: int) -> Tensor:
    basis = triangles(n_fft, n_bands, 2.0)
    return basis * torch.randn(basis.shape).sign()


def banks(n_fft: int) -> dict[str, Tensor | None]:
    """Banks that both kernels take."""
    # a bin is in few bands, and the bands find a place
    most = min(2 * bins_of(n_fft), room(n_fft))
    if most == 0:
        return {"none": None}
    found = {
        "40 triangles": triangles(n_fft, min(40, most)),
        "128 triangles": triangles(n_fft, min(128, most)),
        "odd number of wide bands": triangles(n_fft, min(33, most - 1), 2.5),
        "one band": triangles(n_fft, 4 + bins_of(n_fft) // 16)[:1],
        "single bins": single_bins(n_fft, min(65, most)),
        "empty rows": empty_rows(n_fft, min(24, most)),
        "either sign": either_sign(n_fft, min(20, most)),
        "last bin": torch.eye(bins_of(n_fft))[-1:],
        "none": None,
    }
    if n_fft <= 1024:
        found["as many as fit"] = single_bins(n_fft, most)
    return found


@pytest.mark.parametrize("n_fft", sorted({n_fft for n_fft, _ in SHAPES.values()}))
def test_both_kernels_take_these_banks(n_fft: int) -> None:
    for name, basis in banks(n_fft).items():
        if basis is not None:
            assert sparse_bank(basis) is not None, name
            assert bank_columns(basis).width <= _band_kernels.DENSEST, name
            assert _band_kernels._fits(n_fft, len(basis)), name
    assert not _band_kernels._fits(n_fft, room(n_fft) + 1)


# --- launches ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """One call of bands: a shape, and what a kernel is compiled for."""

    n_fft: int
    hop: int
    power: str
    mode: str
    aligned: bool

    length: int
    frames: int
    batch: int = 3

    @property
    def variant(self) -> tuple[str, str, bool]:
        return self.power, self.mode, self.aligned

    @property
    def layouts(self) -> tuple[str, ...]:
        return (*LAYOUTS[self.aligned], *(("offset",) if self.aligned == (self.n_fft % 2 == 1) else ()))

    def arguments(self, number: int) -> tuple[Any, ...]:
        """All but the scale of bands; other padding and epsilons for every number."""
        shape = (self.n_fft, self.hop, self.n_fft // 2, PAD_MODES[number % 4], self.frames)
        return (*shape, 0.8 / self.n_fft**0.5, *POWERS[self.power][number % len(POWERS[self.power])])


def launch_of(name: str, power: str, mode: str, aligned: bool) -> Launch:
    n_fft, hop = SHAPES[name]
    hop += hop % 2 if aligned and n_fft % 2 == 0 else 0
    # frames at both edges and between them, the last one not at the end
    length = 2 * n_fft + 3 * hop + hop // 2
    length += length % 2
    return Launch(n_fft, hop, power, mode, aligned, length, 1 + (length + 2 * (n_fft // 2) - n_fft) // hop)


# every shape with one variant of the kernels, every variant with a shape
VARIANTS = [
    (tuple(POWERS)[number % 3], MODES[number % 4], aligned) for aligned in (True, False) for number in range(12)
]
LAUNCHES = {name: launch_of(name, *VARIANTS[number % len(VARIANTS)]) for number, name in enumerate(SHAPES)}
# what runs by default, the others on request: kernels take longer to compile than to run
USUAL = (
    "one sample",
    "one pass",
    "mirrored in a simdgroup",
    "mirrored by tens in a simdgroup",
    "mirrored",
    "mixed in a simdgroup",
    "mixed, prime 29",
    "mixed pair, prime 107",
    "mixed pair in place",
    "chirp in a simdgroup",
    "chirp pair",
    "hop beyond n_fft",
)
CHECKED = (
    "one pass",
    "mirrored in a simdgroup",
    "mirrored by tens in a simdgroup",
    "mixed in a simdgroup",
    "mixed pair, prime 107",
    "chirp pair",
)
CHECKED_BANKS = ("odd number of wide bands", "empty rows", "as many as fit", "none")


def slow_unless(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in SHAPES]


def scale_of(bands: Tensor, mode: str) -> tuple[float, float]:
    """Factor and floor. For a clamp in the widest gap between the middle bands: none of them is off by a rounding."""
    if mode == "linear":
        return 1.0, 0.0
    values = bands.abs().flatten().sort().values
    middle = values[len(values) // 3 : 1 + 2 * len(values) // 3]
    gap = middle.diff().argmax() if len(middle) > 1 else 0
    floor = float(middle[gap : gap + 2].mean()) or 1.0
    return (1.3, 1.0 / floor) if mode == "log1p" else (1.3, floor)


@dataclass(frozen=True)
class Case:
    """A launch with its tensors, and what float64 makes of them."""

    x: Tensor
    layout: str
    window: Tensor
    basis: Tensor | None
    grad: Tensor
    rest: tuple[Any, ...]
    exact: Tensor
    exact_gradient: Tensor

    def run(self, device: str) -> tuple[Tensor, Tensor]:
        """Bands and the gradient of the signal by the ops."""
        x = laid_out(self.x, self.layout, device)
        tensors = [None if tensor is None else tensor.to(device) for tensor in (self.window, self.basis)]
        ops = torch.ops.mps_spectro
        gradient = ops.bands_backward(self.grad.to(device), x, *tensors, *self.rest, "x")
        return ops.bands(x, *tensors, *self.rest), gradient

    def run_directly(self) -> tuple[Tensor, Tensor]:
        """The same by the two kernels on the host and float64's synthesis."""
        x = laid_out(self.x, self.layout, "cpu")
        tensors = (x, self.window, self.basis)
        bands = _band_kernels.bands("host", *tensors, *self.rest)
        spec = _band_kernels.gains("host", *tensors, self.grad, *self.rest)
        assert bands is not None and spec is not None
        inverse = (*self.rest[:4], x.shape[1], self.rest[5], False)
        return bands, _reference.synthesis(spec.double(), self.window.double(), None, *inverse)

    def check(self, bands: Tensor, gradient: Tensor, what: str) -> None:
        error = largest_error(bands, self.exact)
        assert error < 2e-6, (what, error)
        error = largest_error(gradient, self.exact_gradient)
        # the direction of a small magnitude is less accurate
        assert error < (2e-6 if self.rest[6] >= 2.0 else 2e-5), (what, error)


def case(launch: Launch, basis: Tensor | None, number: int) -> Case:
    layout = launch.layouts[number % len(launch.layouts)]
    x = torch.randn(launch.batch, launch.length)
    x = x[:1].expand(x.shape) if layout == "expanded" else x
    window = torch.rand(launch.n_fft) + 0.5
    wide = (x.double().requires_grad_(), window.double(), None if basis is None else basis.double())
    rest = launch.arguments(number)
    with torch.no_grad():
        floor = scale_of(by_torch(*wide, *rest, "linear", 1.0, 0.0), launch.mode)
    rest = (*rest, launch.mode, *floor)
    exact = by_torch(*wide, *rest)
    grad = torch.randn(exact.shape)
    if number % 3 == 0:
        grad = grad[:1, :, :1].expand_as(grad)
    (gradient,) = torch.autograd.grad(exact, wide[0], grad.double())
    return Case(x, layout, window, basis, grad, rest, exact.detach(), gradient)


def cases(launch: Launch) -> Iterator[tuple[str, Case]]:
    for number, (name, basis) in enumerate(banks(launch.n_fft).items()):
        # no logarithm of negative bands
        if name != "either sign" or launch.mode in ("linear", "clamp"):
            yield name, case(launch, basis, number)


# --- own memory only --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slow_unless(USUAL))
def test_kernels_stay_between_guard_bands(name: str, kernel_route: Route) -> None:
    for bank, found in cases(LAUNCHES[name]):
        diagnostics(reset=True)
        with fenced_kernels() as counts:
            got = found.run(kernel_route.device)
        found.check(*got, bank)
        assert diagnostics(reset=True)["kernel_calls"] == {"bands": 1, "gains": 1, "synthesis": 1}
        assert counts["launches"] >= 3
    if kernel_route.device == "mps" and not REAL_MPS:
        assert importlib.import_module("simulated_mps").broken_guards() == 0


@pytest.mark.parametrize("name", slow_unless(CHECKED))
def test_checked_kernels_stay_in_bounds(name: str, checked: None) -> None:
    for bank, found in cases(LAUNCHES[name]):
        if bank in CHECKED_BANKS:
            found.check(*found.run_directly(), bank)


@pytest.mark.parametrize("name", slow_unless(USUAL))
def test_groups_that_are_not_full(name: str, kernel_route: Route) -> None:
    launch = LAUNCHES[name]
    basis = triangles(launch.n_fft, max(1, min(37, room(launch.n_fft))))
    plan = make_plan(launch.n_fft, "gains")
    full = plan.slots * plan.frames_per_unit
    for number, frames in enumerate(sorted({1, 2, 3, full - 1, full, full + 1, 2 * full + 1} - {0})):
        length = launch.n_fft + frames * launch.hop
        found = case(replace(launch, frames=frames, length=length + length % 2, batch=1 + number % 3), basis, number)
        with fenced_kernels():
            found.check(*found.run(kernel_route.device), f"{frames} frames")


@pytest.mark.parametrize("n_fft", [16, 45, 1024])
def test_more_bands_than_there_is_room_for(n_fft: int, kernel_route: Route) -> None:
    hop = max(1, n_fft // 4)
    launch = Launch(n_fft, hop, "squares", "add", False, 6 * n_fft, 1 + 6 * n_fft // hop)
    found = case(launch, triangles(n_fft, room(n_fft) + 1), 1)
    diagnostics(reset=True)
    found.check(*found.run(kernel_route.device), "torch")
    assert diagnostics(reset=True)["kernel_calls"] == {"bands": 2, "analysis": 1, "synthesis": 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_variant(name: str, variant: tuple[str, str, bool], kernel_route: Route) -> None:
    for bank, found in cases(launch_of(name, *variant)):
        with fenced_kernels() as counts:
            found.check(*found.run(kernel_route.device), bank)
        assert counts["launches"] >= 3


def test_shapes_cover_every_variant() -> None:
    assert {launch.variant for launch in LAUNCHES.values()} == set(itertools.product(POWERS, MODES, (False, True)))
