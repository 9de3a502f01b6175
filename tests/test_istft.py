"""mps_spectro.istft against torch.istft in float64: values, options, gradients, compilation, threads."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Callable

import pytest
import torch
from parity import (
    FORWARD,
    GRADIENT,
    LAYOUTS,
    Case,
    cases,
    error,
    laid_out,
    torch_istft,
    wide,
)
from threads import in_threads
from torch import Tensor

import mps_spectro
from mps_spectro._cache import clear_caches

LENGTHS = (None, 1.0, 0.5, 1.3)  # of the samples that the frames cover


def inverse_cases(count: int, seed: int) -> list[tuple[Case, float | None]]:
    """Cases that istft takes: every sample asked for under some window, several frames where they are centred."""
    found = []
    for i, case in enumerate(cases(count, seed)):
        hop, part = min(case.hop_length, case.win_length), LENGTHS[i % len(LENGTHS)]
        if case.win_length < case.n_fft:  # no window reaches the outermost samples
            case, part = replace(case, center=True), (None, 0.5)[i % 2]
        length = case.length + (2 * hop + case.n_fft if case.center else 0)
        found.append((replace(case, hop_length=hop, length=length), part))
    return found


def options_of(case: Case, spectrum: Tensor, part: float | None) -> dict[str, Any]:
    if part is None:
        # torch takes n_fft // 2 from the end of an n_fft of 1 as if it were all of it
        return {**case.istft, "length": spectrum.shape[-1] if case.n_fft == 1 else None}
    covered = case.n_fft + case.hop_length * (spectrum.shape[-1] - 1) - (case.n_fft // 2 if case.center else 0)
    return {**case.istft, "length": max(1, int(covered * part))}


def quiet(function: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(padded with zeros in the tail|the rest is zeros)")
        return function(*args, **options)


def check(route: Any, case: Case, part: float | None) -> None:
    spectrum, window = case.spectrum(), case.window()
    options = options_of(case, spectrum, part)
    expected = quiet(torch_istft, wide(spectrum), window=wide(window), **options)
    got = quiet(mps_spectro.istft, spectrum.to(route.device), window=window.to(route.device), **options)
    assert got.dtype == torch.float32 and got.device.type == route.device
    assert got.is_contiguous()
    found = error(got, expected)
    if found > FORWARD:  # overlapping frames may cancel: then torch's own float32 is the measure
        own = error(quiet(torch_istft, spectrum, window=window, **options), expected)
        assert found <= 1.5 * own, (str(case), part)


@pytest.mark.parametrize("case, part", inverse_cases(57, seed=4), ids=str)
def test_values(route: Any, case: Case, part: float | None) -> None:
    check(route, case, part)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_values_long(route: Any, seed: int) -> None:
    for case, part in inverse_cases(114, seed=300 + seed):
        check(route, case, part)


@pytest.mark.parametrize("length", [65535, 65536, 65537, 95520, 131073])
@pytest.mark.parametrize("n_fft, hop", [(400, 160), (1024, 512)])
def test_long_signals(route: Any, n_fft: int, hop: int, length: int) -> None:
    spectrum = torch.randn(n_fft // 2 + 1, 1 + length // hop, dtype=torch.complex64)
    window = torch.hann_window(n_fft)
    expected = torch_istft(wide(spectrum), n_fft, hop, window=wide(window), length=length)
    got = mps_spectro.istft(spectrum.to(route.device), n_fft, hop, window=window.to(route.device), length=length)
    assert error(got, expected) <= FORWARD


def test_many_short_signals(route: Any) -> None:
    check(route, Case(8, 4, 8, True, "reflect", False, True, 12, 70000), None)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("frame_major", [True, False])
@pytest.mark.parametrize("n_fft", [16, 25])
def test_layouts_between_nans(route: Any, layout: str, frame_major: bool, n_fft: int) -> None:
    bins, frames = n_fft // 2 + 1, 9
    spectrum = torch.randn(3, frames, bins, dtype=torch.complex64)
    if not frame_major:
        spectrum = spectrum.transpose(1, 2).contiguous()
    if layout == "expanded":
        spectrum[:] = spectrum[0].clone()
    there = laid_out(spectrum, layout, route.device)
    if frame_major:
        spectrum, there = spectrum.transpose(1, 2), there.transpose(1, 2)
    window = torch.hann_window(n_fft)
    got = mps_spectro.istft(there, n_fft, window=window.to(route.device))
    assert error(got, torch_istft(wide(spectrum), n_fft, window=wide(window))) <= FORWARD


def test_conjugate_and_negative_views(route: Any) -> None:
    spectrum, window = torch.randn(2, 9, 12, dtype=torch.complex64), torch.hann_window(16)
    there = spectrum.to(route.device)
    got = mps_spectro.istft(there.conj(), 16, window=window.to(route.device))
    assert error(got, torch_istft(wide(spectrum).conj(), 16, window=wide(window))) <= FORWARD
    negative = there._neg_view()
    assert negative.is_neg()
    got = mps_spectro.istft(negative, 16, window=window.to(route.device))
    assert error(got, torch_istft(-wide(spectrum), 16, window=wide(window))) <= FORWARD


def test_leading_dimensions_are_kept(route: Any) -> None:
    spectrum = torch.randn(2, 3, 4, 9, 12, dtype=torch.complex64)
    window = torch.hann_window(16)
    got = mps_spectro.istft(spectrum.to(route.device), 16, window=window.to(route.device))
    expected = torch_istft(wide(spectrum).reshape(24, 9, 12), 16, window=wide(window))
    assert error(got, expected.reshape(2, 3, 4, 44)) <= FORWARD
    assert mps_spectro.istft(spectrum[0, 0, 0].to(route.device), 16).shape == (44,)


def test_imaginary_parts_at_dc_and_nyquist_do_not_count(route: Any) -> None:
    for n_fft in (16, 21, 34):
        spectrum = torch.randn(2, n_fft // 2 + 1, 8, dtype=torch.complex64).to(route.device)
        changed = spectrum.clone()
        changed[:, 0] += 5j
        if n_fft % 2 == 0:
            changed[:, -1] += 7j
        assert torch.equal(mps_spectro.istft(spectrum, n_fft), mps_spectro.istft(changed, n_fft))


@pytest.mark.parametrize("n_fft", [7, 16, 21])
def test_two_sided_spectra(route: Any, n_fft: int) -> None:
    spectrum, window = torch.randn(2, n_fft, 9, dtype=torch.complex64), torch.rand(n_fft) + 0.1
    for return_complex in (False, True):
        got = mps_spectro.istft(
            spectrum.to(route.device), n_fft, window=window.to(route.device), return_complex=return_complex
        )
        expected = torch_istft(wide(spectrum), n_fft, window=wide(window), return_complex=return_complex)
        assert got.is_complex() == return_complex and error(got, expected) <= FORWARD


def test_complex_window(route: Any) -> None:
    spectrum = torch.randn(2, 16, 9, dtype=torch.complex64)
    window = torch.rand(16) * torch.exp(0.1j * torch.arange(16)) + 0.1
    got = mps_spectro.istft(spectrum.to(route.device), 16, window=window.to(route.device), return_complex=True)
    assert error(got, torch_istft(wide(spectrum), 16, window=wide(window), return_complex=True)) <= 10 * FORWARD


def test_n_fft_from_the_number_of_bins(route: Any) -> None:
    one_sided = torch.randn(2, 9, 8, dtype=torch.complex64)
    got = mps_spectro.istft(one_sided.to(route.device))
    assert error(got, torch_istft(wide(one_sided), 16, window=torch.hann_window(16).double())) <= FORWARD
    two_sided = torch.randn(2, 15, 8, dtype=torch.complex64)
    got = mps_spectro.istft(two_sided.to(route.device), onesided=False)
    expected = torch_istft(wide(two_sided), 15, window=torch.hann_window(15).double(), onesided=False)
    assert error(got, expected) <= FORWARD


def test_default_window_is_periodic_hann(route: Any) -> None:
    spectrum = torch.randn(2, 33, 20, dtype=torch.complex64)
    got = mps_spectro.istft(spectrum.to(route.device), 64, 12, win_length=48)
    window = torch.hann_window(48).double()
    assert error(got, torch_istft(wide(spectrum), 64, 12, win_length=48, window=window)) <= FORWARD


@pytest.mark.parametrize("n_fft, hop", [(16, 4), (127, 30), (400, 100), (512, 128)])
def test_round_trip(route: Any, n_fft: int, hop: int) -> None:
    x = torch.randn(2, 6 * n_fft + 5)
    spectrum = mps_spectro.stft(x.to(route.device), n_fft, hop)
    assert error(mps_spectro.istft(spectrum, n_fft, hop, length=x.shape[1]), wide(x)) <= 2 * FORWARD


# --- where no window reaches -----------------------------------------------------------------------------------------


def test_samples_without_a_window_are_zero(route: Any) -> None:
    spectrum = torch.randn(2, 9, 12, dtype=torch.complex64)
    window = torch.hann_window(16)
    got = mps_spectro.istft(spectrum.to(route.device), 16, window=window.to(route.device), center=False)
    frames = torch.fft.irfft(wide(spectrum), 16, dim=1) * wide(window)[:, None]
    total = torch.zeros(2, 60, dtype=torch.float64)
    envelope = torch.zeros(60, dtype=torch.float64)
    for frame in range(12):
        total[:, 4 * frame : 4 * frame + 16] += frames[:, :, frame]
        envelope[4 * frame : 4 * frame + 16] += wide(window) ** 2
    expected = torch.where(envelope < 1e-11, 0.0, total / envelope)
    assert envelope[0] == 0 and (got[:, 0] == 0).all()
    assert error(got, expected) <= FORWARD


@pytest.mark.parametrize(
    "options, raises",
    [
        ({}, False),
        ({"torch_like": True}, True),
        ({"torch_like": True, "safety": "off"}, False),
        ({"torch_like": True, "safety": "always"}, True),
        ({"safety": "always"}, True),
        ({"safety": "off"}, False),
    ],
)
def test_who_raises_when_no_window_reaches(route: Any, options: dict[str, Any], raises: bool) -> None:
    spectrum = torch.randn(2, 9, 12, dtype=torch.complex64, device=route.device)
    if raises:
        for error_type in (RuntimeError, ValueError):
            with pytest.raises(error_type, match="window overlap add min"):
                mps_spectro.istft(spectrum, 16, center=False, **options)
    else:
        assert torch.isfinite(mps_spectro.istft(spectrum, 16, center=False, **options)).all()


def test_holes_inside_the_window(route: Any) -> None:
    window = torch.ones(16)
    window[4:12] = 0
    spectrum = torch.randn(9, 7, dtype=torch.complex64).to(route.device)
    got = mps_spectro.istft(spectrum, 16, 16, window=window.to(route.device), length=80)
    covered = window.repeat(7)[8:88].bool()
    assert (got.cpu()[~covered] == 0).all() and (got.cpu()[covered] != 0).all()
    with pytest.raises(RuntimeError, match="window overlap add min"):
        mps_spectro.istft(spectrum, 16, 16, window=window.to(route.device), length=80, torch_like=True)


def test_gradients_are_finite_where_the_envelope_vanishes(route: Any) -> None:
    spectrum = torch.randn(2, 9, 12, dtype=torch.complex64).to(route.device).requires_grad_()
    window = torch.hann_window(16).to(route.device).requires_grad_()
    mps_spectro.istft(spectrum, 16, window=window, center=False).square().sum().backward()
    assert torch.isfinite(torch.view_as_real(spectrum.grad)).all() and torch.isfinite(window.grad).all()


# --- options kept for compatibility ----------------------------------------------------------------------------------


def test_layout_strategy_and_fused_change_nothing(route: Any) -> None:
    spectrum = torch.randn(2, 33, 20, dtype=torch.complex64, device=route.device)
    expected = mps_spectro.istft(spectrum, 64)
    for options in (
        {"kernel_layout": "native"},
        {"kernel_layout": "transposed"},
        {"long_mode_strategy": "torch_fallback"},
        {"allow_fused": False},
    ):
        assert torch.equal(mps_spectro.istft(spectrum, 64, **options), expected), options


@pytest.mark.parametrize(
    "kernel_dtype, dtype, bound",
    [("float32", torch.float32, FORWARD), ("mixed", torch.float32, 5e-4), ("float16", torch.float16, 5e-4)],
)
@pytest.mark.parametrize("grad", [False, True])
def test_kernel_dtype(route: Any, kernel_dtype: str, dtype: torch.dtype, bound: float, grad: bool) -> None:
    spectrum = torch.randn(2, 33, 20, dtype=torch.complex64)
    leaf = spectrum.to(route.device).requires_grad_(grad)
    got = mps_spectro.istft(leaf, 64, kernel_dtype=kernel_dtype)
    assert got.dtype == dtype  # with and without a gradient
    assert error(got, torch_istft(wide(spectrum), 64, window=torch.hann_window(64).double())) <= bound
    if grad:
        got.float().square().sum().backward()
        assert leaf.grad.dtype == torch.complex64 and torch.isfinite(torch.view_as_real(leaf.grad)).all()


def test_complex32_is_computed_as_complex64(route: Any) -> None:
    spectrum = torch.randn(2, 33, 20, dtype=torch.complex64).to(torch.complex32)
    got = mps_spectro.istft(spectrum.to(route.device), 64)
    expected = torch_istft(spectrum.to(torch.complex128), 64, window=torch.hann_window(64).double())
    assert got.dtype == torch.float32 and error(got, expected) <= FORWARD


def test_complex128_stays_double(route: Any) -> None:
    if not route.float64:
        pytest.skip("no float64 on this device")
    spectrum = torch.randn(2, 33, 20, dtype=torch.complex128)
    window = torch.hann_window(64, dtype=torch.float64)
    expected = torch_istft(spectrum, 64, window=window)
    got = mps_spectro.istft(spectrum.to(route.device), 64, window=window.to(route.device))
    assert got.dtype == torch.float64 and error(got, expected) < 1e-14
    got = mps_spectro.istft(spectrum.to(torch.complex64).to(route.device), 64, window=window.to(route.device))
    assert got.dtype == torch.float64


def test_a_length_beyond_the_frames_warns(route: Any) -> None:
    spectrum = torch.randn(2, 9, 12, dtype=torch.complex64, device=route.device)
    with pytest.warns(UserWarning, match="length=100 is longer than the 52 samples"):
        got = mps_spectro.istft(spectrum, 16, length=100)
    assert got.shape == (2, 100) and (got[:, 52:] == 0).all() and got.stride() == (100, 1)


# --- derivatives -----------------------------------------------------------------------------------------------------


def gradients(route: Any, case: Case, part: float | None, with_window: bool) -> None:
    spectrum, window = case.spectrum(), case.window()
    options = options_of(case, spectrum, part)
    leaf = spectrum.to(route.device).requires_grad_()
    device_window = window.to(route.device).requires_grad_(with_window)
    signal = quiet(mps_spectro.istft, leaf, window=device_window, **options)
    weight = torch.randn(signal.shape)
    leaves = (leaf, device_window) if with_window else (leaf,)
    got = torch.autograd.grad((signal * weight.to(route.device)).square().sum(), leaves)
    doubles = wide(spectrum).requires_grad_(), wide(window).requires_grad_()
    signal = quiet(torch_istft, doubles[0], window=doubles[1], **options)
    expected = torch.autograd.grad((signal * wide(weight)).square().sum(), doubles)
    for name, ours, theirs in zip(("spectrum", "window"), got, expected):
        assert error(ours, theirs) <= GRADIENT, (name, str(case), part)


@pytest.mark.parametrize("case, part", inverse_cases(38, seed=5), ids=str)
@pytest.mark.parametrize("with_window", [False, True])
def test_gradients(route: Any, case: Case, part: float | None, with_window: bool) -> None:
    gradients(route, case, part, with_window)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_gradients_long(route: Any, seed: int) -> None:
    for case, part in inverse_cases(114, seed=400 + seed):
        gradients(route, case, part, with_window=seed % 2 == 0)


@pytest.mark.parametrize("with_window", [False, True])
def test_double_backward(route: Any, with_window: bool) -> None:
    def second(istft: Callable[..., Tensor], spectrum: Tensor, window: Tensor) -> list[Tensor]:
        spectrum = spectrum.detach().requires_grad_()
        window = window.detach().requires_grad_(with_window)
        leaves = (spectrum, window) if with_window else (spectrum,)
        cost = istft(spectrum, 12, 3, window=window, length=40).pow(4).sum()
        first = torch.autograd.grad(cost, leaves, create_graph=True)
        return list(torch.autograd.grad(sum(g.abs().square().sum() for g in first), leaves))

    spectrum, window = torch.randn(2, 7, 14, dtype=torch.complex64), torch.rand(12) + 0.5
    got = second(mps_spectro.istft, spectrum.to(route.device), window.to(route.device))
    for ours, theirs in zip(got, second(torch_istft, wide(spectrum), wide(window))):
        assert error(ours, theirs) <= 10 * GRADIENT


def test_forward_mode(route: Any) -> None:
    spectrum, direction = torch.randn(2, 2, 9, 12, dtype=torch.complex64)
    window, change = torch.rand(16) + 0.1, torch.rand(16)
    _, got = torch.func.jvp(
        lambda s, w: mps_spectro.istft(s, 16, window=w),
        (spectrum.to(route.device), window.to(route.device)),
        (direction.to(route.device), change.to(route.device)),
    )
    # torch.istft itself has no forward mode that reads the window on every device: difference quotient in float64
    step = 1e-6
    ends = [
        torch_istft(wide(spectrum) + s * wide(direction), 16, window=wide(window) + s * wide(change))
        for s in (step, -step)
    ]
    assert error(got, (ends[0] - ends[1]) / (2 * step)) <= 1e-5


def test_vmap(route: Any) -> None:
    spectrum, window = torch.randn(4, 9, 12, dtype=torch.complex64), torch.hann_window(16)
    device_window = window.to(route.device)
    got = torch.func.vmap(lambda s: mps_spectro.istft(s, 16, window=device_window))(spectrum.to(route.device))
    assert error(got, torch_istft(wide(spectrum), 16, window=wide(window))) <= FORWARD


def test_no_graph_without_a_gradient(route: Any) -> None:
    spectrum = torch.randn(2, 9, 12, dtype=torch.complex64, device=route.device)
    assert mps_spectro.istft(spectrum, 16).grad_fn is None


# --- compilation, threads, verdicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("n_fft", [16, 21])
def test_compiles_forward_and_backward(route: Any, n_fft: int, dynamic: bool) -> None:
    torch._dynamo.reset()
    window = torch.hann_window(n_fft).to(route.device)

    def ours(spectrum: Tensor) -> Tensor:
        return mps_spectro.istft(spectrum, n_fft, window=window)

    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for frames in (20, 23, 31):
        spectrum = torch.randn(2, n_fft // 2 + 1, frames, dtype=torch.complex64)
        leaf = spectrum.to(route.device).requires_grad_()
        signal = compiled(leaf)
        assert error(signal, wide(ours(leaf.detach()))) <= FORWARD
        signal.square().sum().backward()
        double = wide(spectrum).requires_grad_()
        torch_istft(double, n_fft, window=wide(window)).square().sum().backward()
        assert error(leaf.grad, double.grad) <= GRADIENT


def test_compiles_with_a_trained_window(route: Any) -> None:
    torch._dynamo.reset()
    spectrum, window = torch.randn(2, 9, 20, dtype=torch.complex64), torch.rand(16) + 0.1
    leaf = window.to(route.device).requires_grad_()
    compiled = torch.compile(
        lambda s, w: mps_spectro.istft(s, 16, window=w, length=90), backend="aot_eager", fullgraph=True
    )
    quiet(compiled, spectrum.to(route.device), leaf).square().sum().backward()
    double = wide(window).requires_grad_()
    quiet(torch_istft, wide(spectrum), 16, window=double, length=90).square().sum().backward()
    assert error(leaf.grad, double.grad) <= GRADIENT


def test_sixteen_threads_from_a_cold_start(route: Any) -> None:
    clear_caches()
    spectra = {n: torch.randn(2, n // 2 + 1, 9, dtype=torch.complex64) for n in (64, 100, 127)}
    expected = {n: torch_istft(wide(s), n, window=torch.hann_window(n).double()) for n, s in spectra.items()}
    there = {n: s.to(route.device) for n, s in spectra.items()}

    def work(number: int) -> None:
        n_fft = (64, 100, 127)[number % 3]
        with mps_spectro.use_backend(route.backend):
            for _ in range(2):
                got = mps_spectro.istft(there[n_fft], n_fft, torch_like=True)
                assert error(got, expected[n_fft]) <= FORWARD

    in_threads(16, work)


def test_window_changed_in_place_gets_a_new_envelope_and_verdict(route: Any) -> None:
    spectrum = torch.randn(2, 9, 12, dtype=torch.complex64)
    window = (torch.rand(16) + 0.1).to(route.device)
    there = spectrum.to(route.device)
    mps_spectro.istft(there, 16, window=window, torch_like=True)
    window.mul_(torch.linspace(1.0, 3.0, 16, device=route.device))
    expected = torch_istft(wide(spectrum), 16, window=wide(window))
    assert error(mps_spectro.istft(there, 16, window=window, torch_like=True), expected) <= FORWARD
    window.zero_()
    with pytest.raises(RuntimeError, match="window overlap add min"):
        mps_spectro.istft(there, 16, window=window, torch_like=True)


def test_kernels_answer_where_they_should(route: Any) -> None:
    mps_spectro.diagnostics(reset=True)
    mps_spectro.istft(torch.randn(2, 33, 12, dtype=torch.complex64, device=route.device), 64)
    report = mps_spectro.diagnostics()
    if route.kernels:
        assert report["kernel_calls"] == {"synthesis": 1} and report["backend_calls"] == {route.backend: 1}
    else:
        assert report["kernel_calls"] == {} and report["backend_calls"] == {"torch": 1}
