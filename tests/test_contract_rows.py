"""One test per known way in which a replacement of torch.stft / torch.istft has fallen short of torch, D1 to D34."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from parity import FORWARD, GRADIENT, error, torch_istft, torch_stft, wide
from threads import in_threads
from torch import Tensor

import mps_spectro
from mps_spectro._cache import clear_caches
from mps_spectro._plan import make_plan
from mps_spectro.patch import patch_torch

HANN = torch.hann_window(16)


def spectrum_of(frames: int = 12, bins: int = 9, batch: int = 2) -> Tensor:
    return torch.randn(batch, bins, frames, dtype=torch.complex64)


def test_d01_signatures_take_torchs_positional_arguments(route: Any) -> None:
    x, window = torch.randn(2, 100).to(route.device), HANN.to(route.device)
    spectrum = mps_spectro.stft(x, 16, 4, 16, window, True, "reflect", False, True, True, None)
    assert error(spectrum, torch_stft(wide(x), 16, 4, 16, wide(window), return_complex=True)) <= FORWARD
    signal = mps_spectro.istft(spectrum, 16, 4, 16, window, True, False, True, 99, False)
    assert error(signal, wide(x)[:, :99]) <= 2 * FORWARD
    theirs = list(inspect.signature(torch_stft).parameters.values())
    ours = list(inspect.signature(mps_spectro.stft).parameters.values())
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


@pytest.mark.parametrize("pad_mode", ["reflect", "constant", "replicate", "circular"])
def test_d02_every_pad_mode(route: Any, pad_mode: str) -> None:
    x = torch.randn(2, 37)
    got = mps_spectro.stft(x.to(route.device), 16, 3, window=HANN.to(route.device), pad_mode=pad_mode)
    assert error(got, torch_stft(wide(x), 16, 3, window=wide(HANN), pad_mode=pad_mode, return_complex=True)) <= FORWARD


def test_d03_no_window_is_rectangular_under_the_patch(route: Any) -> None:
    x = torch.randn(2, 100)
    with patch_torch():
        got = torch.stft(x.to(route.device), 16, win_length=10, return_complex=True)
        back = torch.istft(got, 16, win_length=10)
    assert error(got, torch_stft(wide(x), 16, win_length=10, return_complex=True)) <= FORWARD
    assert error(back, wide(x)) <= 2 * FORWARD


def test_d04_align_to_window(route: Any) -> None:
    x, window = torch.randn(2, 62), torch.rand(10)
    for align in (False, True):
        options = {"win_length": 10, "center": False, "align_to_window": align}
        expected = torch_stft(wide(x), 16, window=wide(window), return_complex=True, **options)
        got = mps_spectro.stft(x.to(route.device), 16, window=window.to(route.device), **options)
        assert got.shape[-1] == (14 if align else 12) and error(got, expected) <= FORWARD


def test_d05_onesided_none_follows_the_input(route: Any) -> None:
    for length in (100, 70000):  # whatever the size
        x = torch.randn(length, device=route.device)
        assert mps_spectro.stft(x, 16, onesided=None).shape[0] == 9
    assert mps_spectro.stft(x[:100] * (1 + 1j), 16, onesided=None).shape[0] == 16
    one_sided, two_sided = spectrum_of(), spectrum_of(bins=16)
    for spectrum in (one_sided, two_sided):
        got = mps_spectro.istft(spectrum.to(route.device), 16, window=HANN.to(route.device), onesided=None)
        assert error(got, torch_istft(wide(spectrum), 16, window=wide(HANN))) <= FORWARD


def test_d06_complex_input_and_window(route: Any) -> None:
    x = torch.randn(2, 100, dtype=torch.complex64)
    window = HANN * torch.exp(1j * torch.arange(16))
    got = mps_spectro.stft(x.to(route.device), 16, window=window.to(route.device))
    assert got.shape[1] == 16 and error(got, torch_stft(wide(x), 16, window=wide(window))) <= FORWARD
    with pytest.raises(RuntimeError, match="onesided"):
        mps_spectro.stft(x.to(route.device), 16, onesided=True)


def test_d07_istft_return_complex(route: Any) -> None:
    spectrum = spectrum_of(bins=16)
    expected = torch_istft(wide(spectrum), 16, window=wide(HANN), return_complex=True)
    there, window = spectrum.to(route.device), HANN.to(route.device)
    assert error(mps_spectro.istft(there, 16, window=window, return_complex=True), expected) <= FORWARD
    with patch_torch():
        assert error(torch.istft(there, 16, window=window, return_complex=True), expected) <= FORWARD


def test_d08_dtypes_promote(route: Any) -> None:
    x = torch.randn(2, 100).to(route.device)
    assert mps_spectro.stft(x.half(), 16).dtype == torch.complex64
    assert mps_spectro.stft(x, 16, window=HANN.half().to(route.device)).dtype == torch.complex64
    if route.float64:
        assert mps_spectro.stft(x.double(), 16).dtype == torch.complex128
        assert mps_spectro.stft(x, 16, window=HANN.double().to(route.device)).dtype == torch.complex128
        with patch_torch():
            got = torch.stft(x, 16, window=HANN.double().to(route.device), return_complex=True)
        assert got.dtype == torch.complex128


def test_d09_padding_longer_than_the_signal_is_an_error(route: Any) -> None:
    for shape in ((1000,), (64, 1000)):
        x = torch.randn(shape, device=route.device)
        with pytest.raises(RuntimeError, match="at least 1025 samples"):
            mps_spectro.stft(x, 2048, 8)
        with patch_torch(), pytest.raises(RuntimeError, match="[Pp]adding size should be less"):
            torch.stft(x, 2048, 8, return_complex=True)


def test_d10_window_of_n_fft_with_a_smaller_win_length_is_an_error(route: Any) -> None:
    x, window = torch.randn(100, device=route.device), HANN.to(route.device)
    with pytest.raises(RuntimeError, match="window"):
        mps_spectro.stft(x, 16, win_length=12, window=window)
    with patch_torch(), pytest.raises(RuntimeError, match="window"):
        torch.stft(x, 16, win_length=12, window=window, return_complex=True)


def test_d11_window_on_another_device_is_an_error(route: Any) -> None:
    x = torch.randn(2, 100, device=route.device)
    for function, argument in ((mps_spectro.stft, x), (mps_spectro.istft, spectrum_of().to(route.device))):
        with pytest.raises(RuntimeError, match="device"):
            function(argument, 16, window=HANN.to("meta"))
    with patch_torch(), pytest.raises(RuntimeError, match="same device"):
        torch.stft(x, 16, window=HANN.to("meta"), return_complex=True)


@pytest.mark.parametrize("length", [100, 20000])
def test_d12_window_gradient_whatever_the_size(route: Any, length: int) -> None:
    x = torch.randn(length)
    window, double = HANN.clone().to(route.device).requires_grad_(), wide(HANN).requires_grad_()
    weight = torch.randn(9, 1 + length // 4)
    (mps_spectro.stft(x.to(route.device), 16, window=window).abs().square() * weight.to(route.device)).sum().backward()
    (torch_stft(wide(x), 16, window=double, return_complex=True).abs().square() * wide(weight)).sum().backward()
    assert error(window.grad, double.grad) <= GRADIENT
    spectrum = torch.randn(9, 1 + length // 4, dtype=torch.complex64)
    window.grad = double.grad = None
    mps_spectro.istft(spectrum.to(route.device), 16, window=window).square().sum().backward()
    torch_istft(wide(spectrum), 16, window=double).square().sum().backward()
    assert error(window.grad, double.grad) <= GRADIENT


def test_d13_double_backward_forward_mode_and_vmap(route: Any) -> None:
    x, window = torch.randn(3, 60) * 0.1, HANN.to(route.device)

    def cost(signal: Tensor) -> Tensor:
        return mps_spectro.stft(signal, 16, window=window).abs().square().square().sum()

    def reference(signal: Tensor) -> Tensor:
        return torch_stft(signal, 16, window=wide(HANN), return_complex=True).abs().square().square().sum()

    leaf, double = x.to(route.device).requires_grad_(), wide(x).requires_grad_()
    seconds = []
    for function, start in ((cost, leaf), (reference, double)):
        (first,) = torch.autograd.grad(function(start), start, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), start)[0])
    assert error(*seconds) <= 5 * GRADIENT
    _, tangent = torch.func.jvp(cost, (x.to(route.device),), (x.to(route.device),))
    assert error(tangent, 4 * reference(wide(x))) <= 5 * GRADIENT
    batched = torch.func.vmap(lambda t: mps_spectro.stft(t, 16, window=window))(x.to(route.device))
    assert error(batched, torch_stft(wide(x), 16, window=wide(HANN), return_complex=True)) <= FORWARD


@pytest.mark.parametrize("shape", [(100,), (2, 100), (4, 40000)])
def test_d14_strides_are_torchs_at_every_size(route: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    expected = torch_stft(x, 512 if shape[-1] > 512 else 16, return_complex=True, window=None)
    got = mps_spectro.stft(x.to(route.device), 512 if shape[-1] > 512 else 16)
    bins = expected.shape[-2]
    assert got.stride() == expected.stride() and got.stride()[-2:] == (1, bins)


def test_d15_istft_with_a_short_window(route: Any) -> None:
    spectrum, window = spectrum_of(), torch.rand(11) + 0.1
    got = mps_spectro.istft(spectrum.to(route.device), 16, win_length=11, window=window.to(route.device))
    assert error(got, torch_istft(wide(spectrum), 16, win_length=11, window=wide(window))) <= FORWARD


def test_d16_nola_failure(route: Any) -> None:
    spectrum, window = spectrum_of().to(route.device), HANN.to(route.device)
    with patch_torch(), pytest.raises(RuntimeError, match="window overlap add min"):
        torch.istft(spectrum, 16, window=window, center=False)
    with pytest.raises(RuntimeError, match="window overlap add min"):
        mps_spectro.istft(spectrum, 16, window=window, center=False, torch_like=True)
    assert (mps_spectro.istft(spectrum, 16, window=window, center=False)[:, 0] == 0).all()


def test_d17_length_beyond_the_data_warns_and_pads(route: Any) -> None:
    spectrum = spectrum_of()
    with pytest.warns(UserWarning, match="longer than"):
        got = mps_spectro.istft(spectrum.to(route.device), 16, window=HANN.to(route.device), length=90)
    assert got.stride() == (90, 1) and (got[:, 52:] == 0).all()


def test_d18_empty_spans_are_errors(route: Any) -> None:
    spectrum, window = spectrum_of().to(route.device), HANN.to(route.device)
    for argument, length in ((spectrum, 0), (spectrum, -1), (spectrum[..., :1], None)):
        with pytest.raises(RuntimeError, match="length|frame"):
            mps_spectro.istft(argument, 16, window=window, length=length)
        with patch_torch(), pytest.raises((RuntimeError, IndexError)):
            torch.istft(argument, 16, window=window, length=length)


def test_d19_bins_that_do_not_match_n_fft_are_an_error(route: Any) -> None:
    spectrum = spectrum_of(bins=10).to(route.device)
    with pytest.raises(RuntimeError, match="9 bins"):
        mps_spectro.istft(spectrum, 16)
    with patch_torch(), pytest.raises(RuntimeError, match="frequency dimension"):
        torch.istft(spectrum, 16, window=HANN.to(route.device))


def test_d20_hop_beyond_the_window_and_empty_spectra_are_errors(route: Any) -> None:
    spectrum, window = spectrum_of().to(route.device), HANN.to(route.device)
    for argument, hop in ((spectrum, 17), (spectrum[..., :0], 4), (spectrum[:0], 4)):
        with pytest.raises(RuntimeError, match="hop_length|frame|batch"):
            mps_spectro.istft(argument, 16, hop, window=window)
        with patch_torch(), pytest.raises(RuntimeError, match="istft"):
            torch.istft(argument, 16, hop, window=window)


def test_d21_n_fft(route: Any) -> None:
    spectrum = spectrum_of(bins=8)  # of n_fft 14 or 15
    for n_fft in (14, 15):
        window = torch.hann_window(n_fft)
        got = mps_spectro.istft(spectrum.to(route.device), n_fft, window=window.to(route.device))
        assert error(got, torch_istft(wide(spectrum), n_fft, window=wide(window))) <= FORWARD
    there = spectrum.to(route.device)
    assert torch.equal(mps_spectro.istft(there), mps_spectro.istft(there, 14))
    with patch_torch(), pytest.raises(TypeError):
        torch.istft(there)


@pytest.mark.parametrize("options", [{}, {"safety": "off"}])
def test_d22_istft_window_shape_is_checked(route: Any, options: dict[str, Any]) -> None:
    spectrum = spectrum_of().to(route.device)
    mps_spectro.istft(spectrum, 16, window=HANN.to(route.device), **options)
    for shape in ((1,), (15,), (16, 1)):
        with pytest.raises(RuntimeError, match="window must have shape"):
            mps_spectro.istft(spectrum, 16, window=torch.ones(shape, device=route.device), **options)


def test_d23_real_and_half_spectra(route: Any) -> None:
    spectrum = spectrum_of()
    with pytest.raises(TypeError, match="complex"):
        mps_spectro.istft(spectrum.real.to(route.device), 16)
    half = spectrum.to(torch.complex32)
    got = mps_spectro.istft(half.to(route.device), 16, window=HANN.to(route.device))
    assert error(got, torch_istft(half.to(torch.complex128), 16, window=wide(HANN))) <= FORWARD


def test_d24_more_than_two_to_the_31_elements_by_shape() -> None:
    """No data: the shape functions and the sizes handed to a kernel hold in 64 bits. (The data runs on a large GPU.)"""
    x = torch.empty(2, 2**32, device="meta")
    got = torch.ops.mps_spectro.analysis(
        x, torch.empty(1024, device="meta"), None, 1024, 256, 512, "reflect", 1 + 2**32 // 256, 1.0, False
    )
    assert got.shape == (2, 513, 2**24 + 1, 2) and got.stride() == (513 * (2**24 + 1) * 2, 2, 1026, 1)
    back = torch.ops.mps_spectro.synthesis(
        got, torch.empty(1024, device="meta"), None, 1024, 256, 512, "constant", 2**32, 1.0, True
    )
    assert back.shape == (2, 2**32)


def test_d25_nola_verdicts_belong_to_the_content_of_a_window(route: Any) -> None:
    spectrum = spectrum_of().to(route.device)
    buffer = torch.ones(16, device=route.device)
    good, empty = HANN.to(route.device) + 0.1, torch.zeros(16, device=route.device)
    for window, holds in ((good, True), (empty, False), (good, True)):
        buffer.copy_(window)  # the same tensor, the same memory
        if holds:
            mps_spectro.istft(spectrum, 16, window=buffer, torch_like=True)
        else:
            with pytest.raises(RuntimeError, match="window overlap add min"):
                mps_spectro.istft(spectrum, 16, window=buffer, torch_like=True)
    for _ in range(20):  # memory that is freed and taken again
        mps_spectro.istft(spectrum, 16, window=torch.ones(16, device=route.device), torch_like=True)
        with pytest.raises(RuntimeError, match="window overlap add min"):
            mps_spectro.istft(spectrum, 16, window=torch.zeros(16, device=route.device), torch_like=True)


@pytest.mark.parametrize("grad", [False, True])
def test_d26_traceable_with_and_without_gradients(route: Any, grad: bool) -> None:
    torch._dynamo.reset()
    window = HANN.to(route.device)

    def round_trip(x: Tensor) -> Tensor:
        return mps_spectro.istft(mps_spectro.stft(x, 16, window=window), 16, window=window)

    x = torch.randn(2, 100)
    got = torch.compile(round_trip, backend="aot_eager", fullgraph=True)(x.to(route.device).requires_grad_(grad))
    assert error(got, wide(x)) <= 2 * FORWARD
    if grad:
        got.sum().backward()


def test_d27_every_device(route: Any) -> None:
    x = torch.randn(2, 100, device=route.device)
    assert mps_spectro.stft(x, 16).device == x.device
    with mps_spectro.use_backend("auto"):
        assert mps_spectro.stft(torch.randn(100), 16).device.type == "cpu"
        assert mps_spectro.stft(torch.randn(100, device="meta"), 16).shape == (9, 26)


def test_d28_default_window_made_in_inference_mode(route: Any) -> None:
    clear_caches()
    x = torch.randn(2, 100, device=route.device)
    with torch.inference_mode():
        spectrum = mps_spectro.stft(x, 24)
        mps_spectro.istft(spectrum, 24)
    leaf = x.clone().requires_grad_()
    mps_spectro.istft(mps_spectro.stft(leaf, 24), 24).sum().backward()
    assert torch.isfinite(leaf.grad).all()


def test_d29_no_timing_probes(route: Any) -> None:
    spectrum = spectrum_of(frames=200, bins=513).to(route.device)  # 100 000 values of a frame and more
    results = []
    for layout in ("auto", "native", "transposed"):
        mps_spectro.diagnostics(reset=True)
        results.append(mps_spectro.istft(spectrum, 1024, kernel_layout=layout))
        calls = mps_spectro.diagnostics()["backend_calls"]
        assert sum(calls.values()) == 1
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("kernel_dtype", ["float32", "mixed", "float16"])
def test_d30_dtype_does_not_depend_on_requires_grad(route: Any, kernel_dtype: str) -> None:
    spectrum = spectrum_of().to(route.device)
    without = mps_spectro.istft(spectrum, 16, kernel_dtype=kernel_dtype)
    with_grad = mps_spectro.istft(spectrum.clone().requires_grad_(), 16, kernel_dtype=kernel_dtype)
    assert with_grad.requires_grad and with_grad.dtype == without.dtype
    assert torch.equal(with_grad.detach(), without)


@pytest.mark.parametrize("hops", [3, 4, 9])
def test_d31_gradient_of_the_last_reflected_sample(route: Any, hops: int) -> None:
    """T % hop == 0: sample T - 1 - n_fft // 2 is reflected into the very last frame."""
    x, ones = torch.randn(16 * hops), torch.ones(64)
    leaf, double = x.to(route.device).requires_grad_(), wide(x).requires_grad_()
    weight = torch.randn(33, hops + 1)
    (mps_spectro.stft(leaf, 64, 16, window=ones.to(route.device)).real * weight.to(route.device)).sum().backward()
    (torch_stft(double, 64, 16, window=wide(ones), return_complex=True).real * wide(weight)).sum().backward()
    assert error(leaf.grad, double.grad) <= GRADIENT


def test_d32_every_plan_fits_the_device() -> None:
    """No D32 is on record; in its place what all of them rest on: no plan asks for more than Metal gives a group."""
    for n_fft in (1, 2, 3, 16, 127, 321, 400, 1024, 1218, 2048, 4096, 8192):
        plan = make_plan(n_fft)
        assert plan.group <= 1024 and plan.memory <= 32768, plan


_ENVIRONMENT = """
import os
before = dict(os.environ)
import mps_spectro
from mps_spectro.patch import patch_torch
patch_torch().undo()
assert dict(os.environ) == before, set(os.environ) ^ set(before)
"""


def test_d33_importing_sets_no_environment_variable() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTORCH_")}
    subprocess.run([sys.executable, "-c", _ENVIRONMENT], check=True, env=environment)


def test_d34_threads(route: Any) -> None:
    clear_caches()
    x = torch.randn(2, 400)
    sizes = (16, 20, 25, 31)
    expected = {n: torch_stft(wide(x), n, 5, window=torch.hann_window(n).double(), return_complex=True) for n in sizes}

    def work(number: int) -> None:
        n_fft = sizes[number % 4]
        with mps_spectro.use_backend(route.backend):
            spectrum = mps_spectro.stft(x.to(route.device), n_fft, 5)
            assert error(spectrum, expected[n_fft]) <= FORWARD
            signal = mps_spectro.istft(spectrum, n_fft, 5, length=400, torch_like=True)
            assert error(signal, wide(x)) <= 2 * FORWARD

    in_threads(16, work)
