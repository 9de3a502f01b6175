"""mps_spectro.stft against torch.stft in float64: values, shapes, strides, gradients, compilation, threads."""

from __future__ import annotations

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
    shortest,
    strides,
    torch_stft,
    wide,
)
from threads import in_threads
from torch import Tensor

import mps_spectro
from mps_spectro._cache import clear_caches

SAMPLE = cases(38, seed=1) + [shortest(case) for case in cases(19, seed=2)]


def check(route: Any, case: Case) -> None:
    x, window = case.signal(), case.window()
    got = mps_spectro.stft(x.to(route.device), window=window.to(route.device), **case.stft)
    expected = torch_stft(wide(x), window=wide(window), return_complex=True, **case.stft)
    assert got.dtype == torch.complex64 and got.device.type == route.device
    assert strides(got) == strides(expected)
    assert error(got, expected) <= FORWARD, case


@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_values_and_strides(route: Any, case: Case) -> None:
    check(route, case)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_values_and_strides_long(route: Any, seed: int) -> None:
    for case in cases(114, seed=100 + seed):
        check(route, case)


@pytest.mark.parametrize("length", [65535, 65536, 65537, 95520, 131073])
@pytest.mark.parametrize("n_fft, hop", [(400, 160), (1024, 512)])
def test_long_signals(route: Any, n_fft: int, hop: int, length: int) -> None:
    case = Case(n_fft, hop, n_fft, True, "reflect", False, True, length, None)
    check(route, case)


@pytest.mark.parametrize("length", [65535, 65536, 65537, 95520, 131073])
def test_gradient_of_long_signals(route: Any, length: int) -> None:
    gradients(route, Case(512, 256, 512, True, "reflect", False, True, length, None))


def test_many_short_signals(route: Any) -> None:
    check(route, Case(8, 4, 8, True, "reflect", False, True, 8, 70000))


@pytest.mark.parametrize("batch", [1, 3])
def test_batches(route: Any, batch: int) -> None:
    check(route, Case(1024, 256, 1024, True, "reflect", False, True, 4096, batch))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_fft", [16, 25, 127])
def test_layouts_between_nans(route: Any, layout: str, n_fft: int) -> None:
    x = torch.randn(3, 5 * n_fft + 3)
    if layout == "expanded":
        x[:] = x[0].clone()
    window = torch.hann_window(n_fft)
    got = mps_spectro.stft(laid_out(x, layout, route.device), n_fft, window=window.to(route.device))
    assert error(got, torch_stft(wide(x), n_fft, window=wide(window), return_complex=True)) <= FORWARD


def test_window_layouts(route: Any) -> None:
    x, window = torch.randn(2, 200), torch.hann_window(32)
    expected = torch_stft(wide(x), 32, window=wide(window), return_complex=True)
    for layout in ("offset", "every second", "transposed"):
        strided = laid_out(window.expand(1, -1), layout, route.device)[0]
        assert error(mps_spectro.stft(x.to(route.device), 32, window=strided), expected) <= FORWARD, layout


def test_leading_dimensions_are_kept(route: Any) -> None:
    x = torch.randn(2, 3, 4, 100)
    window = torch.hann_window(16)
    got = mps_spectro.stft(x.to(route.device), 16, window=window.to(route.device))
    expected = torch_stft(wide(x).reshape(24, 100), 16, window=wide(window), return_complex=True)
    assert error(got, expected.reshape(2, 3, 4, 9, 26)) <= FORWARD
    assert mps_spectro.stft(x[0, 0, 0].to(route.device), 16).shape == (9, 26)
    assert mps_spectro.stft(x[:1, 0, 0].to(route.device), 16).shape == (1, 9, 26)


@pytest.mark.parametrize("onesided", [True, False])
@pytest.mark.parametrize("n_fft", [1, 2, 7, 16])
def test_pairs_instead_of_complex(route: Any, n_fft: int, onesided: bool) -> None:
    x, window = torch.randn(2, 60), torch.rand(n_fft)
    options = {"n_fft": n_fft, "hop_length": 3, "onesided": onesided, "return_complex": False}
    got = mps_spectro.stft(x.to(route.device), window=window.to(route.device), **options)
    expected = torch_stft(wide(x), window=wide(window), **options)
    assert got.dtype == torch.float32 and got.stride() == expected.stride()
    assert error(got, expected) <= FORWARD


@pytest.mark.parametrize("win_length", [5, 8, 15, 16])
def test_align_to_window(route: Any, win_length: int) -> None:
    # torch fails where n_fft - win_length is odd and the frames fit without a remainder
    x, window = torch.randn(2, 62), torch.rand(win_length)
    for align in (None, False, True):
        options = {"win_length": win_length, "center": False, "align_to_window": align}
        got = mps_spectro.stft(x.to(route.device), 16, window=window.to(route.device), **options)
        expected = torch_stft(wide(x), 16, window=wide(window), return_complex=True, **options)
        assert error(got, expected) <= FORWARD


def test_default_window_is_periodic_hann(route: Any) -> None:
    x = torch.randn(2, 300)
    got = mps_spectro.stft(x.to(route.device), 64, win_length=48)
    window = torch.hann_window(48)
    assert error(got, torch_stft(wide(x), 64, win_length=48, window=wide(window), return_complex=True)) <= FORWARD


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32(route: Any, dtype: torch.dtype) -> None:
    x, window = torch.randn(2, 300).to(dtype), torch.hann_window(64).to(dtype)
    expected = torch_stft(wide(x), 64, window=wide(window), return_complex=True)
    got = mps_spectro.stft(x.to(route.device), 64, window=window.to(route.device))
    assert got.dtype == torch.complex64 and error(got, expected) <= FORWARD
    leaf = x.to(route.device).requires_grad_()
    mps_spectro.stft(leaf, 64).abs().sum().backward()
    assert leaf.grad is not None and leaf.grad.dtype == dtype


def test_float64_stays_float64(route: Any) -> None:
    if not route.float64:
        pytest.skip("no float64 on this device")
    x, window = torch.randn(2, 300, dtype=torch.float64), torch.hann_window(63, dtype=torch.float64)
    got = mps_spectro.stft(x.to(route.device), 63, window=window.to(route.device))
    assert got.dtype == torch.complex128
    assert error(got, torch_stft(x, 63, window=window, return_complex=True)) < 1e-14
    mixed = mps_spectro.stft(x.float().to(route.device), 63, window=window.to(route.device))
    assert mixed.dtype == torch.complex128


def test_complex_signal_and_window_are_two_sided(route: Any) -> None:
    x, window = torch.randn(2, 120, dtype=torch.complex64), torch.hann_window(16)
    got = mps_spectro.stft(x.to(route.device), 16, window=window.to(route.device))
    expected = torch_stft(wide(x), 16, window=wide(window))
    assert got.shape == (2, 16, 31) and error(got, expected) <= FORWARD
    twisted = window * torch.exp(1j * torch.arange(16))
    got = mps_spectro.stft(x.real.to(route.device), 16, window=twisted.to(route.device))
    assert error(got, torch_stft(wide(x.real), 16, window=wide(twisted))) <= FORWARD


def test_negated_view_of_memory(route: Any) -> None:
    spectrum = torch.randn(2, 120, dtype=torch.complex64)
    x = spectrum.to(route.device).conj().imag
    assert x.is_neg()
    expected = torch_stft(-wide(spectrum.imag), 16, window=torch.hann_window(16).double(), return_complex=True)
    assert error(mps_spectro.stft(x, 16), expected) <= FORWARD


def test_runs_are_bitwise_equal(route: Any) -> None:
    x = torch.randn(3, 5000, device=route.device)
    for n_fft in (127, 400, 512):
        first = mps_spectro.stft(x, n_fft)
        assert torch.equal(first, mps_spectro.stft(x, n_fft))


# --- derivatives -----------------------------------------------------------------------------------------------------


def gradients(route: Any, case: Case) -> None:
    x, window = case.signal(), case.window()
    leaves = [t.to(route.device).requires_grad_() for t in (x, window)]
    spectrum = mps_spectro.stft(leaves[0], window=leaves[1], **case.stft)
    weight = torch.randn(spectrum.shape, dtype=torch.complex64)
    got = torch.autograd.grad((spectrum * weight.to(route.device)).abs().square().sum(), leaves)
    doubles = [wide(t).requires_grad_() for t in (x, window)]
    spectrum = torch_stft(doubles[0], window=doubles[1], return_complex=True, **case.stft)
    expected = torch.autograd.grad((spectrum * wide(weight)).abs().square().sum(), doubles)
    for name, ours, theirs in zip(("input", "window"), got, expected):
        assert error(ours, theirs) <= GRADIENT, (name, str(case))


@pytest.mark.parametrize("case", cases(38, seed=3), ids=str)
def test_gradients(route: Any, case: Case) -> None:
    gradients(route, case)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_gradients_long(route: Any, seed: int) -> None:
    for case in cases(114, seed=200 + seed):
        gradients(route, case)


@pytest.mark.parametrize("length", range(17, 34))
def test_gradient_at_every_sample_of_the_edges(route: Any, length: int) -> None:
    """The reflected sample farthest from the edge has a gradient too, whatever the remainder of T by the hop."""
    x = torch.randn(length)
    weight = torch.randn(17, 1 + length // 8, dtype=torch.complex64)
    leaf = x.to(route.device).requires_grad_()
    spectrum = mps_spectro.stft(leaf, 32, 8, window=torch.ones(32, device=route.device))
    (spectrum * weight.to(route.device)).real.sum().backward()
    double = wide(x).requires_grad_()
    spectrum = torch_stft(double, 32, 8, window=torch.ones(32).double(), return_complex=True)
    (spectrum * wide(weight)).real.sum().backward()
    assert error(leaf.grad, double.grad) <= GRADIENT


@pytest.mark.parametrize("n_fft", [12, 15])
def test_double_backward(route: Any, n_fft: int) -> None:
    def second(stft: Callable[..., Tensor], x: Tensor, window: Tensor, **options: Any) -> list[Tensor]:
        x, window = x.detach().requires_grad_(), window.detach().requires_grad_()
        power = stft(x, n_fft, 4, window=window, **options).abs().square()
        first = torch.autograd.grad(power.square().sum(), (x, window), create_graph=True)
        return list(torch.autograd.grad(sum(g.square().sum() for g in first), (x, window)))

    x, window = torch.randn(2, 60) * 0.1, torch.rand(n_fft) * 0.1
    got = second(mps_spectro.stft, x.to(route.device), window.to(route.device))
    expected = second(torch_stft, wide(x), wide(window), return_complex=True)
    for ours, theirs in zip(got, expected):
        assert error(ours, theirs) <= 10 * GRADIENT


def test_no_graph_without_a_gradient(route: Any) -> None:
    x = torch.randn(2, 300, device=route.device)
    assert mps_spectro.stft(x, 64).grad_fn is None
    leaf = x.clone().requires_grad_()
    with torch.no_grad():
        assert mps_spectro.stft(leaf, 64).grad_fn is None


def test_forward_mode(route: Any) -> None:
    x, direction = torch.randn(2, 90), torch.randn(2, 90)
    window = torch.hann_window(16)

    def ours(t: Tensor) -> Tensor:
        return torch.view_as_real(mps_spectro.stft(t, 16, window=window.to(route.device)))

    value, tangent = torch.func.jvp(ours, (x.to(route.device),), (direction.to(route.device),))
    for got, argument in ((value, x), (tangent, direction)):
        expected = torch.view_as_real(torch_stft(wide(argument), 16, window=wide(window), return_complex=True))
        assert error(got, expected) <= FORWARD


def test_vmap_and_grad_transforms(route: Any) -> None:
    x, window = torch.randn(4, 90), torch.hann_window(16)
    expected = torch_stft(wide(x), 16, window=wide(window), return_complex=True)
    device_window = window.to(route.device)
    got = torch.func.vmap(lambda t: mps_spectro.stft(t, 16, window=device_window))(x.to(route.device))
    assert error(got, expected) <= FORWARD

    def loss(stft: Callable[..., Tensor], t: Tensor, w: Tensor, **options: Any) -> Tensor:
        return stft(t, 16, window=w, **options).abs().square().sum()

    per_sample = torch.func.vmap(torch.func.grad(lambda t: loss(mps_spectro.stft, t, device_window)))
    double = wide(x).requires_grad_()
    loss(torch_stft, double, wide(window), return_complex=True).backward()
    assert error(per_sample(x.to(route.device)), double.grad) <= GRADIENT


# --- compilation, threads, state -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("n_fft", [16, 21])
def test_compiles_forward_and_backward(route: Any, n_fft: int, dynamic: bool) -> None:
    torch._dynamo.reset()
    window = torch.hann_window(n_fft).to(route.device)

    def ours(x: Tensor) -> Tensor:
        return mps_spectro.stft(x, n_fft, window=window)

    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for length in (200, 230, 301):
        x = torch.randn(2, length)
        leaf = x.to(route.device).requires_grad_()
        spectrum = compiled(leaf)
        expected = ours(leaf.detach())
        assert spectrum.stride() == expected.stride()
        assert error(spectrum, wide(expected)) <= FORWARD
        spectrum.abs().square().sum().backward()
        double = wide(x).requires_grad_()
        torch_stft(double, n_fft, window=wide(window), return_complex=True).abs().square().sum().backward()
        assert error(leaf.grad, double.grad) <= GRADIENT


def test_compiles_with_the_default_window(route: Any) -> None:
    torch._dynamo.reset()
    x = torch.randn(2, 200, device=route.device)
    compiled = torch.compile(lambda t: mps_spectro.stft(t, 16, normalized=True), backend="aot_eager", fullgraph=True)
    assert error(compiled(x), wide(mps_spectro.stft(x, 16, normalized=True))) <= FORWARD


def test_sixteen_threads_from_a_cold_start(route: Any) -> None:
    clear_caches()
    x = torch.randn(2, 700)
    expected = {
        n: torch_stft(wide(x), n, window=wide(torch.hann_window(n)), return_complex=True) for n in (64, 100, 127)
    }
    device_x = x.to(route.device)

    def work(number: int) -> None:
        n_fft = (64, 100, 127)[number % 3]
        with mps_spectro.use_backend(route.backend):
            for _ in range(2):
                assert error(mps_spectro.stft(device_x, n_fft), expected[n_fft]) <= FORWARD

    in_threads(16, work)


def test_window_cached_in_inference_mode_serves_training(route: Any) -> None:
    clear_caches()
    x = torch.randn(2, 300, device=route.device)
    with torch.inference_mode():
        mps_spectro.stft(x, 72)
    leaf = x.clone().requires_grad_()
    mps_spectro.stft(leaf, 72).abs().sum().backward()
    assert torch.isfinite(leaf.grad).all()


def test_autocast_computes_in_float32(route: Any) -> None:
    x = torch.randn(2, 300)
    expected = torch_stft(wide(x), 64, window=wide(torch.hann_window(64)), return_complex=True)
    with torch.autocast(route.device, dtype=torch.bfloat16):
        got = mps_spectro.stft(x.to(route.device), 64)
    assert got.dtype == torch.complex64 and error(got, expected) <= FORWARD


def test_many_lengths_compile_nothing_new(route: Any) -> None:
    for length in (200, 300):
        mps_spectro.stft(torch.randn(length, device=route.device), 100)
    before = mps_spectro.diagnostics()
    for length in range(301, 340):
        mps_spectro.stft(torch.randn(length, device=route.device), 100)
    after = mps_spectro.diagnostics()
    assert after["compiles"]["count"] == before["compiles"]["count"]
    for name, cache in after["caches"].items():
        assert cache["size"] <= cache["limit"], name


def test_kernels_answer_where_they_should(route: Any) -> None:
    mps_spectro.diagnostics(reset=True)
    mps_spectro.stft(torch.randn(2, 300, device=route.device), 64)
    report = mps_spectro.diagnostics()
    if route.kernels:
        assert report["kernel_calls"] == {"analysis": 1} and report["backend_calls"] == {route.backend: 1}
    else:
        assert report["kernel_calls"] == {} and report["backend_calls"] == {"torch": 1}
