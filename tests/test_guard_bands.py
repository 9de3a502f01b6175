"""Kernels touch their own memory only, whatever the layout of what they are given.

Twice: on every route with guard bands around each buffer, and on the host with every access checked.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Iterator

import pytest
import torch
from conftest import REAL_MPS, Route, require_route
from fences import PATTERN, fenced_kernels, forget_launches
from parity import LAYOUTS, laid_out
from parity_cases import FORWARD, GRADIENT, KINDS, hop_of, largest_error, torch_istft, torch_stft
from torch import Tensor

import mps_spectro
from mps_spectro import _kernels, _reference
from mps_spectro._backend import use_backend
from mps_spectro._envelope import reciprocal_envelope
from mps_spectro._plan import make_plan, segments

PAD_MODES = ("constant", "reflect", "replicate", "circular")
# n_fft and hop; an odd hop does not let synthesis keep its ring in registers
SHAPES = {
    **{kind: (n_fft, hop_of(n_fft)) for kind, n_fft in KINDS.items() if kind != "torch"},
    "mirrored by tens, hop 160": (400, 160),
    "mirrored by tens, other hop": (400, 90),
    "mirrored 128": (128, 32),
    "mirrored 128, odd hop": (128, 37),
    "mirrored 1024, other hop": (1024, 300),
    "mirrored 8192, other hop": (8192, 1999),
    "hop beyond n_fft": (64, 71),
    "hop beyond n_fft, pair": (45, 50),
}
LARGE = tuple(name for name, (n_fft, _) in SHAPES.items() if n_fft > 2048)


@dataclass(frozen=True)
class Launch:
    """Arguments of both ops for one shape: an analysis of x, and a synthesis of spec."""

    n_fft: int
    hop: int
    pad_mode: str
    compact: bool  # a table of the envelope in three parts, not one entry per sample
    envelope: bool
    hermitian: bool

    @property
    def length(self) -> int:
        # frames at both edges and between them, the last one not at the end
        least = 2 * self.n_fft if not self.compact else 5 * self.n_fft
        return least + 3 * self.hop + self.hop // 2

    @property
    def frames(self) -> int:
        return 1 + (self.length + 2 * (self.n_fft // 2) - self.n_fft) // self.hop

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        x = torch.randn(2, self.length)
        spec = torch.randn(2, self.n_fft // 2 + 1, self.frames, 2)
        window = torch.rand(self.n_fft) + 0.5
        env = reciprocal_envelope(window, self.n_fft, self.hop, self.frames) if self.envelope else None
        return x, spec, window, env

    @property
    def shape(self) -> tuple[int, int, int, str]:
        return self.n_fft, self.hop, self.n_fft // 2, self.pad_mode

    def run(self, ops: Any, x: Tensor, spec: Tensor, window: Tensor, env: Tensor | None) -> tuple[Tensor, Tensor]:
        out = ops.analysis(x, window, env, *self.shape, self.frames, 0.7, self.hermitian)
        back = ops.synthesis(spec, window, env, *self.shape, self.length, 0.7, self.hermitian)
        return out, back

    def expected(self, x: Tensor, spec: Tensor, window: Tensor, env: Tensor | None) -> tuple[Tensor, Tensor]:
        wide = None if env is None else env.double()
        return self.run(_reference, x.double(), spec.double(), window.double(), wide)


def launches(name: str) -> list[Launch]:
    n_fft, hop = SHAPES[name]
    return [
        Launch(n_fft, hop, mode, compact=i % 2 == 0, envelope=i != 1, hermitian=i < 2)
        for i, mode in enumerate(PAD_MODES)
    ]


def check(launch: Launch, got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for result, exact in zip(got, expected):
        error = largest_error(result, exact)
        assert error < 1e-6, (launch, error)


def spectra(spec: Tensor, number: int) -> Tensor:
    """The same spectrum with its frames, its bins or its rows adjacent, or as the half of something larger."""
    if number == 0:
        return spec.transpose(1, 2).contiguous().transpose(1, 2)
    if number == 1:
        return spec.contiguous()
    if number == 2:
        return spec.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)
    doubled = torch.full((*spec.shape[:2], 2 * spec.shape[2], 2), float("nan"), device=spec.device)
    doubled[:, :, 1::2] = spec
    return doubled[:, :, 1::2]


@pytest.fixture(params=["together", "alone"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Whether synthesis has the slots of a group on one item together where it can, or each on its own."""
    if request.param == "alone":
        monkeypatch.setattr(_kernels, "abreast", lambda plan, frames_contiguous: None)
    forget_launches()
    yield request.param
    forget_launches()


@pytest.mark.parametrize("name", SHAPES)
def test_kernels_stay_between_guard_bands(name: str, way: str, kernel_route: Route) -> None:
    n_fft, hop = SHAPES[name]
    if way == "alone" and not segments(make_plan(n_fft, "synthesis"), hop):
        return  # it has no other way
    device = kernel_route.device
    for number, launch in enumerate(launches(name)):
        x, spec, window, env = launch.inputs()
        expected = launch.expected(x, spec, window, env)
        moved = [tensor if tensor is None else tensor.to(device) for tensor in (x, spec, window, env)]
        moved[1] = spectra(moved[1], number)
        with fenced_kernels() as counts:
            check(launch, launch.run(torch.ops.mps_spectro, *moved), expected)
        assert counts["launches"] >= 2
    if device == "mps" and not REAL_MPS:
        assert importlib.import_module("simulated_mps").broken_guards() == 0


@pytest.mark.parametrize("n_fft", [16, 321, 400, 1024])
def test_calls_that_repeat_stay_between_guard_bands(n_fft: int, kernel_route: Route) -> None:
    device = kernel_route.device
    x, window = torch.randn(2, 6 * n_fft), torch.rand(n_fft) + 0.5
    exact = torch_stft(x.double(), n_fft, window=window.double(), return_complex=True)
    exact_back = torch_istft(exact, n_fft, window=window.double())
    x, window, spectrum = x.to(device), window.to(device), exact.to(torch.complex64).to(device)
    with fenced_kernels() as counts:
        for _ in range(3):
            assert largest_error(mps_spectro.stft(x, n_fft, window=window), exact) <= FORWARD
            assert largest_error(mps_spectro.istft(spectrum, n_fft, window=window), exact_back) <= FORWARD
    assert counts["launches"] >= 6


@pytest.mark.parametrize(
    ("wrong", "message"), [("before", "written around"), ("behind", "written around"), ("gap", "never written")]
)
def test_guard_bands_find_planted_mistakes(wrong: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_route("host")
    bind = _kernels._bind

    def planted(*arguments: Any) -> Any:
        run = bind(*arguments)

        def run_and_damage(*tensors: Tensor) -> None:
            run(*tensors)
            out = tensors[-1]
            if wrong == "before":
                out.as_strided((1,), (1,), out.storage_offset() - 1).fill_(1.0)
            elif wrong == "behind":
                out.as_strided((1,), (1,), out.storage_offset() + len(out)).fill_(1.0)
            else:
                out.view(torch.int32)[len(out) // 2] = PATTERN

        return run_and_damage

    monkeypatch.setattr(_kernels, "_bind", planted)
    with use_backend("host"), fenced_kernels(), pytest.raises(AssertionError, match=message):
        mps_spectro.stft(torch.randn(100), 16)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["one pass", "mirrored by tens, hop 160", "mirrored", "mixed, prime 29", "chirp pair"])
def test_inputs_of_every_layout_between_nans(name: str, layout: str, route: Route) -> None:
    """Signals, spectra, windows and gradients as views with NaN before, between and behind."""
    n_fft, hop = SHAPES[name]
    device = route.device
    arguments = {"n_fft": n_fft, "hop_length": hop}
    x, window = torch.randn(3, 4 * n_fft + 7), torch.rand(n_fft) + 0.5
    if layout == "expanded":
        x = x[:1].expand(3, -1)
    held = laid_out(window[None], "every second", device)[0]
    leaf = laid_out(x, layout, device).detach().requires_grad_()
    out = mps_spectro.stft(leaf, window=held, **arguments)
    wide = x.double().requires_grad_()
    exact = torch_stft(wide, window=window.double(), return_complex=True, **arguments)
    assert largest_error(out, exact) <= FORWARD

    weights = torch.randn(exact.shape, dtype=torch.complex64)
    if layout == "expanded":
        weights = weights[:1].expand(3, -1, -1)
    (gradient,) = torch.autograd.grad(out, leaf, laid_out(weights, layout, device))
    (exact_gradient,) = torch.autograd.grad(exact, wide, weights.to(torch.complex128))
    assert largest_error(gradient, exact_gradient) <= GRADIENT

    spectrum = exact.detach().to(torch.complex64)
    leaf = laid_out(spectrum, layout, device).detach().requires_grad_()
    back = mps_spectro.istft(leaf, window=held, **arguments)
    wide = spectrum.to(torch.complex128).requires_grad_()
    exact = torch_istft(wide, window=window.double(), **arguments)
    assert largest_error(back, exact) <= FORWARD

    weights = torch.randn(exact.shape)
    if layout == "expanded":
        weights = weights[:1].expand(3, -1)
    (gradient,) = torch.autograd.grad(back, leaf, laid_out(weights, layout, device))
    (exact_gradient,) = torch.autograd.grad(exact, wide, weights.double())
    assert largest_error(gradient, exact_gradient) <= GRADIENT


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in SHAPES]
)
def test_checked_kernels_stay_in_bounds(name: str, way: str, checked: None) -> None:
    n_fft, hop = SHAPES[name]
    if way == "alone" and not segments(make_plan(n_fft, "synthesis"), hop):
        return
    for number, launch in enumerate(launches(name)):
        x, spec, window, env = launch.inputs()
        expected = launch.expected(x, spec, window, env)
        layout = ("contiguous", "every second", "transposed", "offset")[number]
        got = launch.run(torch.ops.mps_spectro, laid_out(x, layout, "cpu"), spectra(spec, number), window, env)
        check(launch, got, expected)


def test_shapes_cover_every_kind_of_plan() -> None:
    def kinds(n_fft: int) -> tuple[Any, ...]:
        plan = make_plan(n_fft)
        defines = dict(plan.defines)
        flags = (plan.pair, plan.mirrored, plan.prime > 0)
        return (plan.kind, *flags, *(defines[name] for name in ("SPLIT", "PING_PONG", "SIMD_BARRIER", "SWIZZLE")))

    every = {kinds(n_fft) for n_fft in (*range(1, 8193, 2), *range(2, 8193, 2)) if _kernels.supported(n_fft)}
    shapes = {kinds(n_fft) for n_fft, _ in SHAPES.values()}
    assert every - shapes == set()
    assert {kinds(n_fft) for n_fft in KINDS.values() if _kernels.supported(n_fft)} >= every
    in_registers = {segments(make_plan(n_fft, "synthesis"), hop) > 0 for n_fft, hop in SHAPES.values()}
    assert in_registers == {False, True}
