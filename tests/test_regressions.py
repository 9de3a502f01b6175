"""Faults that transforms like these have had, each with the test that would have caught it."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from parity import FORWARD, GRADIENT, error, torch_istft, torch_stft, wide
from torch import Tensor

import mps_spectro
from mps_spectro.patch import patch_torch

_WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
import torch, mps_spectro
from mps_spectro.patch import patch_torch
x = torch.ones(300)
with patch_torch():
    spectrum = mps_spectro.stft(x, 64)
    assert torch.allclose(mps_spectro.istft(spectrum, length=300, torch_like=True), x, atol=1e-5)
    torch.stft(x, 64, window=torch.hann_window(64), return_complex=True)
"""


def test_runs_without_numpy() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", _WITHOUT_NUMPY], check=True)


_FORKED = """
import torch, mps_spectro
from mps_spectro.patch import patch_torch

class Clips(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        spectrum = mps_spectro.stft(torch.full((300,), float(i)), 64)
        window = torch.hann_window(64)
        patched = torch.stft(torch.full((300,), float(i)), 64, window=window, return_complex=True)
        assert torch.allclose(spectrum, patched, atol=1e-5)
        return spectrum.abs()

if __name__ == "__main__":
    patch_torch()
    expected = torch.stack([Clips()[i] for i in range(4)])  # before the fork: caches and locks exist
    loader = torch.utils.data.DataLoader(Clips(), batch_size=2, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), expected)
"""


def test_data_loader_workers_after_a_fork() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", _FORKED], check=True, timeout=120)


# --- configurations that others test ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batch, n_fft, hop, frames, center, normalized, onesided",
    [
        (1, 512, 256, 64, True, False, True),
        (1, 512, 256, 64, True, False, False),
        (4, 1024, 256, 48, False, True, True),
        (4, 1024, 256, 48, False, True, False),
    ],
)
def test_published_stft_grid(
    route: Any, batch: int, n_fft: int, hop: int, frames: int, center: bool, normalized: bool, onesided: bool
) -> None:
    length = hop * (frames - 1) + (0 if center else n_fft)
    x, window = torch.randn(batch, length), torch.hann_window(n_fft)
    options = {"n_fft": n_fft, "hop_length": hop, "center": center, "normalized": normalized, "onesided": onesided}
    got = mps_spectro.stft(x.to(route.device), window=window.to(route.device), **options)
    assert got.shape[-1] == frames
    assert error(got, torch_stft(wide(x), window=wide(window), return_complex=True, **options)) <= FORWARD


@pytest.mark.parametrize(
    "batch, n_fft, hop, length, center",
    [
        (1, 256, 64, 8000, True),
        (1, 512, 128, 16000, True),
        (1, 1024, 256, 40000, True),
        (2, 2048, 512, 40000, True),
        (4, 1024, 256, 40000, False),
        (1, 512, 256, 600, True),
        (1, 1024, 256, 4096, True),
    ],
)
def test_published_stft_lengths(route: Any, batch: int, n_fft: int, hop: int, length: int, center: bool) -> None:
    x, window = torch.randn(batch, length), torch.hann_window(n_fft)
    got = mps_spectro.stft(x.to(route.device), n_fft, hop, window=window.to(route.device), center=center)
    expected = torch_stft(wide(x), n_fft, hop, window=wide(window), center=center, return_complex=True)
    if length == 4096:
        assert got.shape == (1, 513, 17)
    assert error(got, expected) <= FORWARD


@pytest.mark.parametrize("kernel_layout", ["auto", "native", "transposed"])
@pytest.mark.parametrize(
    "kernel_dtype, most, mean", [("float32", 1e-5, 1e-7), ("mixed", 3e-3, 3e-7), ("float16", 9e-3, 1.5e-6)]
)
def test_published_istft_grid(route: Any, kernel_dtype: str, most: float, mean: float, kernel_layout: str) -> None:
    x = torch.randn(1, 256 * 63)
    hann, ones = torch.hann_window(512), torch.ones(512)
    full = 512 + 256 * 63
    for window, options in (
        (hann, {}),
        (hann, {"length": 256 * 63 + 256}),
        (ones, {"center": False}),
        (ones, {"center": False, "length": full - 256}),
    ):
        spectrum = torch_stft(x, 512, 256, window=window, return_complex=True)
        expected = torch_istft(wide(spectrum), 512, 256, window=wide(window), **options)
        got = mps_spectro.istft(
            spectrum.to(route.device),
            n_fft=512,
            hop_length=256,
            window=window.to(route.device),
            kernel_dtype=kernel_dtype,
            kernel_layout=kernel_layout,
            **options,
        )
        difference = (got.cpu().double() - expected).abs()
        # one more hop divides by the last, vanishing values of the window: there torch's own float32 is the measure
        own = (torch_istft(spectrum, 512, 256, window=window, **options).double() - expected).abs()
        assert difference.max() <= max(most, 3 * own.max())
        assert difference.square().mean() <= max(mean, 4 * own.square().mean())


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", range(1, 131, 26))
def test_every_n_fft_up_to_130(route: Any, start: int) -> None:
    """Odd lengths have come back reversed, small ones wrong."""
    for n_fft in range(start, start + 26):
        hop = max(1, n_fft // 3)
        x, window = torch.randn(2, 4 * n_fft + 1), torch.rand(n_fft) + 0.2
        expected = torch_stft(wide(x), n_fft, hop, window=wide(window), return_complex=True)
        spectrum = mps_spectro.stft(x.to(route.device), n_fft, hop, window=window.to(route.device))
        assert error(spectrum, expected) <= FORWARD, n_fft
        length = hop * (expected.shape[-1] - 1)
        back = mps_spectro.istft(spectrum, n_fft, hop, window=window.to(route.device), length=length)
        assert error(back, wide(x[:, :length])) <= 3 * FORWARD, n_fft


@pytest.mark.parametrize("n_fft", [200, 320, 501, 640, 960, 1023, 1025, 1149, 1280, 1367, 1920, 2048, 4096, 6144, 8192])
def test_sizes_in_use(route: Any, n_fft: int) -> None:
    hop = n_fft // 4
    x, window = torch.randn(1, 2 * n_fft), torch.hann_window(n_fft)
    expected = torch_stft(wide(x), n_fft, hop, window=wide(window), return_complex=True)
    spectrum = mps_spectro.stft(x.to(route.device), n_fft, hop, window=window.to(route.device))
    assert error(spectrum, expected) <= FORWARD
    back = mps_spectro.istft(spectrum, n_fft, hop, window=window.to(route.device), length=2 * n_fft)
    assert error(back, wide(x)) <= 2 * FORWARD


@pytest.mark.parametrize("rest", ["0", "1", "hop - 1"])
@pytest.mark.parametrize("n_fft, hop", [(16, 4), (400, 160), (512, 128)])
def test_last_frames(route: Any, n_fft: int, hop: int, rest: str) -> None:
    length = 9 * hop + {"0": 0, "1": 1, "hop - 1": hop - 1}[rest]
    x, window = torch.randn(2, length), torch.hann_window(n_fft)
    got = mps_spectro.stft(x.to(route.device), n_fft, hop, window=window.to(route.device))
    expected = torch_stft(wide(x), n_fft, hop, window=wide(window), return_complex=True)
    for frames in (slice(0, 3), slice(-3, None)):
        assert error(got[..., frames], expected[..., frames]) <= FORWARD


def test_short_signals_after_long_ones(route: Any) -> None:
    for length in (5000, 40, 2000, 33, 32, 5000):
        x = torch.randn(length)
        got = mps_spectro.stft(x.to(route.device), 62)
        assert (
            error(got, torch_stft(wide(x), 62, window=torch.hann_window(62).double(), return_complex=True)) <= FORWARD
        )
        back = mps_spectro.istft(got, 62, length=length // 15 * 15)
        assert error(back, wide(x[: back.shape[0]])) <= 2 * FORWARD


def test_caches_stay_bounded_over_lengths_and_key_shifts(route: Any) -> None:
    for step in range(30):
        n_fft = round(256 * 2 ** (step % 15 / 12))
        x = torch.randn(2 * n_fft + 37 * step, device=route.device)
        mps_spectro.istft(mps_spectro.stft(x, n_fft, 40, window=torch.hann_window(n_fft).to(route.device)), n_fft, 40)
    for name, cache in mps_spectro.diagnostics()["caches"].items():
        assert cache["size"] <= cache["limit"], name


@pytest.mark.slow
def test_caches_stay_bounded_for_long(route: Any) -> None:
    for step in range(500):
        n_fft = round(1024 * 2 ** ((step % 49 - 24) / 12))
        x = torch.randn(n_fft + 11 * step, device=route.device)
        mps_spectro.istft(mps_spectro.stft(x, n_fft, 160), n_fft, 160)
    for name, cache in mps_spectro.diagnostics()["caches"].items():
        assert cache["size"] <= cache["limit"], name


# --- identities that need no reference -------------------------------------------------------------------------------


@pytest.mark.parametrize("pad_mode", ["reflect", "constant", "replicate", "circular"])
@pytest.mark.parametrize("n_fft, hop, win_length", [(16, 4, 16), (25, 7, 19), (64, 16, 40), (127, 50, 127)])
def test_backward_is_the_adjoint(route: Any, n_fft: int, hop: int, win_length: int, pad_mode: str) -> None:
    """<A x, y> = <x, A* y> for the transform and its inverse."""
    x = torch.randn(2, 4 * n_fft + 3).to(route.device).requires_grad_()
    window = torch.rand(win_length).add(0.1).to(route.device)
    options = {"n_fft": n_fft, "hop_length": hop, "win_length": win_length, "window": window}
    spectrum = mps_spectro.stft(x, pad_mode=pad_mode, **options)
    y = torch.randn(spectrum.shape, dtype=torch.complex64).to(route.device)
    (adjoint,) = torch.autograd.grad(spectrum, x, y)
    left = (wide(spectrum).conj() * wide(y)).sum().real
    right = (wide(x) * wide(adjoint)).sum()
    assert abs(left - right) <= 1e-6 * wide(spectrum).abs().norm() * wide(y).abs().norm()
    leaf = y.clone().requires_grad_()
    signal = mps_spectro.istft(leaf, length=2 * n_fft, **options)
    z = torch.randn(signal.shape).to(route.device)
    (adjoint,) = torch.autograd.grad(signal, leaf, z)
    left, right = (wide(signal) * wide(z)).sum(), (wide(leaf).conj() * wide(adjoint)).sum().real
    assert abs(left - right) <= 1e-6 * wide(signal).norm() * wide(z).norm()


def test_impulse_at_every_position(route: Any) -> None:
    """One row per position: each sample lands in the right frames with the right phase."""
    length, n_fft = 40, 16
    window = torch.rand(n_fft) + 0.2
    x = torch.eye(length)
    got = mps_spectro.stft(x.to(route.device), n_fft, 3, window=window.to(route.device))
    assert error(got, torch_stft(wide(x), n_fft, 3, window=wide(window), return_complex=True)) <= FORWARD


def test_parseval(route: Any) -> None:
    """Frames side by side hold the energy of the signal."""
    x = torch.randn(12 * 64)
    spectrum = mps_spectro.stft(
        x.to(route.device),
        64,
        64,
        window=torch.ones(64).to(route.device),
        center=False,
        onesided=False,
        normalized=True,
    )
    assert math.isclose(wide(spectrum).abs().square().sum(), wide(x).square().sum(), rel_tol=1e-6)


# --- values out of the ordinary --------------------------------------------------------------------------------------


def test_silence_has_finite_gradients(route: Any) -> None:
    x = torch.zeros(2, 200, device=route.device, requires_grad=True)
    magnitude = mps_spectro.stft(x, 32).abs()
    (magnitude.sum() + (magnitude + 1e-5).log().sum()).backward()
    assert torch.isfinite(x.grad).all()


def test_nan_and_infinity_stay_in_their_frames(route: Any) -> None:
    x = torch.randn(2, 400)
    x[0, 200] = float("nan")
    x[1, 30] = float("inf")
    expected = torch_stft(wide(x), 16, 4, window=torch.ones(16).double(), return_complex=True)
    got = mps_spectro.stft(x.to(route.device), 16, 4, window=torch.ones(16).to(route.device)).cpu()
    sound = torch.isfinite(torch.view_as_real(expected)).all(-1).all(1)
    assert torch.equal(torch.isfinite(torch.view_as_real(got)).all(-1).all(1), sound)
    assert error(got.mT[sound], expected.mT[sound]) <= FORWARD


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_range_of_float32(route: Any, scale: float) -> None:
    x, window = torch.randn(2, 300) * scale, torch.hann_window(64)
    spectrum = mps_spectro.stft(x.to(route.device), 64, window=window.to(route.device))
    assert error(spectrum, torch_stft(wide(x), 64, window=wide(window), return_complex=True)) <= FORWARD
    assert error(mps_spectro.istft(spectrum, 64, window=window.to(route.device), length=300), wide(x)) <= 2 * FORWARD


def test_quiet_next_to_loud(route: Any) -> None:
    """A tone 100 dB below its neighbour in time keeps its own accuracy."""
    t = torch.arange(8000)
    x = torch.sin(0.1 * t) * torch.where(t < 4000, 1.0, 1e-5)
    window = torch.hann_window(400)
    got = mps_spectro.stft(x.to(route.device), 400, 160, window=window.to(route.device))
    expected = torch_stft(wide(x), 400, 160, window=wide(window), return_complex=True)
    assert error(got[:, 30:], expected[:, 30:]) <= FORWARD


def test_no_warnings(route: Any) -> None:
    x = torch.randn(2, 300, device=route.device, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spectrum = mps_spectro.stft(x, 64)
        mps_spectro.istft(spectrum, 64, length=300).sum().backward()
        with patch_torch():
            window = torch.hann_window(64).to(route.device)
            spectrum = torch.stft(x, 64, window=window, return_complex=True)
            torch.istft(spectrum, 64, window=window, length=300).sum().backward()


def test_training_follows_float64(route: Any) -> None:
    """Adam on a spectral loss: wrong gradients have diverged from the CPU within a few steps."""
    target = torch.randn(1, 600)
    start = torch.randn(1, 600)

    def train(values: Tensor, goal: Tensor, stft: Any, **options: Any) -> Tensor:
        leaf = values.clone().requires_grad_()
        optimiser = torch.optim.Adam([leaf], lr=0.05)
        for _ in range(25):
            optimiser.zero_grad()
            loss = sum(
                (stft(leaf, n, **options).abs() - stft(goal, n, **options).abs()).square().mean() for n in (32, 50)
            )
            loss.backward()
            optimiser.step()
        return leaf.detach()

    def reference(x: Tensor, n_fft: int) -> Tensor:
        return torch_stft(x, n_fft, window=torch.hann_window(n_fft).double(), return_complex=True)

    got = train(start.to(route.device), target.to(route.device), mps_spectro.stft)
    assert error(got, train(wide(start), wide(target), reference)) <= 1e-4


def test_window_gradient_where_the_window_ends_in_zero(route: Any) -> None:
    spectrum, window = torch.randn(9, 12, dtype=torch.complex64), torch.hann_window(16)
    leaf, double = window.clone().to(route.device).requires_grad_(), wide(window).requires_grad_()
    mps_spectro.istft(spectrum.to(route.device), 16, window=leaf).square().sum().backward()
    torch_istft(wide(spectrum), 16, window=double).square().sum().backward()
    assert error(leaf.grad, double.grad) <= GRADIENT


def test_repeated_calls_see_the_negative_bit_of_a_window(route: Any) -> None:
    x, window = torch.randn(2, 100, device=route.device), torch.hann_window(16, device=route.device)
    for call in (mps_spectro.stft, torch.stft):
        with mps_spectro.patch_torch():
            plain = [call(x, 16, window=window, return_complex=True) for _ in range(3)][-1]
            negative = [call(x, 16, window=window._neg_view(), return_complex=True) for _ in range(2)][-1]
        torch.testing.assert_close(negative, -plain, rtol=0, atol=1e-6)


def test_repeated_istft_sees_a_window_changed_in_place(route: Any) -> None:
    window = torch.hann_window(16, device=route.device)
    x = torch.randn(2, 160, device=route.device)
    spectrum = mps_spectro.stft(x, 16, window=window)
    for _ in range(3):
        back = mps_spectro.istft(spectrum, 16, window=window)
    torch.testing.assert_close(back.cpu(), x.cpu(), rtol=0, atol=1e-5)
    window.add_(1.0)
    expected = torch.istft(spectrum.cpu().to(torch.complex128), 16, window=window.cpu().double())
    for _ in range(2):
        changed = mps_spectro.istft(spectrum, 16, window=window)
    torch.testing.assert_close(changed.cpu().double(), expected, rtol=0, atol=1e-5)


def test_repeated_calls_do_not_mix_16_with_16_point_0(route: Any) -> None:
    x = torch.randn(100, device=route.device)
    for _ in range(2):
        mps_spectro.stft(x, 16)
    with pytest.raises(TypeError):
        mps_spectro.stft(x, 16.0)  # type: ignore[arg-type]


def test_repeated_calls_follow_grad_mode(route: Any) -> None:
    x, window = torch.randn(2, 100, device=route.device), torch.hann_window(16, device=route.device)
    for _ in range(2):
        mps_spectro.stft(x, 16, window=window)
    trained = x.clone().requires_grad_()
    assert mps_spectro.stft(trained, 16, window=window).grad_fn is not None
    with torch.no_grad():
        assert mps_spectro.stft(trained, 16, window=window).grad_fn is None


def test_results_under_autograd_may_be_changed_in_place(route: Any) -> None:
    x = torch.randn(2, 200, device=route.device, requires_grad=True)
    window = torch.hann_window(16, device=route.device)
    with patch_torch():
        spectrum = torch.stft(x, 16, window=window, return_complex=True)
        spectrum *= 2.0
        back = torch.istft(spectrum, 16, window=window)
        back += 1.0
        back.square().sum().backward()
    wide_x = x.detach().cpu().double().requires_grad_()
    exact = torch_stft(wide_x, 16, window=window.cpu().double(), return_complex=True) * 2.0
    (torch_istft(exact, 16, window=window.cpu().double()) + 1.0).square().sum().backward()
    assert error(x.grad, wide_x.grad) <= GRADIENT
