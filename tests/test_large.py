"""Index arithmetic above 2^31 elements.

On the host in little memory: address space is reserved, not committed, and few pages of it are touched. On CUDA with
tensors that are really that large.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any

import pytest
import torch
from conftest import require_route
from parity_cases import FORWARD, GRADIENT, largest_error, torch_stft
from torch import Tensor

import mps_spectro
from mps_spectro import _kernels, _reference
from mps_spectro._backend import use_backend

_NORESERVE = 0x4000  # MAP_NORESERVE, which Python names from 3.13 on
BEYOND = 2**31 + 12  # even, so that what is aligned at the start is aligned here
# n_fft and hop of each way a kernel reads: by pairs, sample by sample, mixed in threadgroup memory, two frames at once
SHAPES = {"radix": (64, 16), "mirrored": (128, 32), "mixed": (30, 8), "mixed pair": (45, 11), "chirp pair": (131, 32)}


def reserved(count: int) -> Tensor:
    """Zeros (count,) float32 that take memory only where they are written or read."""
    if sys.platform != "linux":
        pytest.skip("memory is reserved without being committed on Linux only")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    try:
        memory = mmap.mmap(-1, 4 * count, flags=flags)
    except OSError as why:
        pytest.skip(f"{4 * count / 2**30:.0f} GiB of address space: {why}")
    return torch.frombuffer(memory, dtype=torch.float32)


def spread(values: Tensor, strides: tuple[int, ...]) -> Tensor:
    """`values` at these strides, in elements, in reserved memory."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(values.shape, strides))
    view = reserved(extent).as_strided(values.shape, strides)
    view.copy_(values)
    return view


def check(got: Tensor, exact: Tensor) -> None:
    assert largest_error(got, exact) <= FORWARD


@pytest.mark.parametrize("name", SHAPES)
def test_signals_far_apart(name: str) -> None:
    require_route("host")
    n_fft, hop = SHAPES[name]
    x, window = torch.randn(3, 5 * n_fft), torch.rand(n_fft) + 0.5
    exact = torch_stft(x.double(), n_fft, hop, window=window.double(), return_complex=True)
    few = BEYOND // n_fft * 2
    with use_backend("host"):
        check(mps_spectro.stft(spread(x, (BEYOND, 1)), n_fft, hop, window=window), exact)
        # every sample on a page of its own, a frame wider than 2^31
        check(mps_spectro.stft(spread(x, (1, few)), n_fft, hop, window=window), exact)


def _long_hops() -> list[Any]:
    # the index hop + n is 32 bits wide where two frames share a transform, and a wrapped one ends the process
    return [pytest.param(name, hop) for name in SHAPES for hop in (2**30 + 2, 2**31 - 2)]


@pytest.mark.parametrize(("name", "hop"), _long_hops())
def test_frames_far_apart(name: str, hop: int) -> None:
    """Hops so long that positions in one row pass 2^32."""
    require_route("host")
    n_fft, _ = SHAPES[name]
    frames = 6
    length = (frames - 1) * hop + n_fft
    x = reserved(length)[None]
    frame = torch.randn(frames, n_fft)
    for i in range(frames):
        x[0, i * hop : i * hop + n_fft] = frame[i]
    window = torch.rand(n_fft) + 0.5
    with use_backend("host"):
        got = mps_spectro.stft(x, n_fft, hop, window=window, center=False)
        assert got.shape == (1, n_fft // 2 + 1, frames)
        check(got[0].T, torch.fft.rfft(frame.double() * window.double()))
        # with the last frame over the end, what follows is a reflection
        padded = mps_spectro.stft(x, n_fft, hop, window=window, pad_mode="reflect")
    half = n_fft // 2
    left = torch.cat([x[0, 1 : half + 1].flip(0), x[0, : n_fft - half]])
    start = (frames - 1) * hop - half
    last = torch.cat([x[0, start:], x[0, -n_fft:-1].flip(0)])[:n_fft]
    for got_frame, exact in ((padded[0, :, 0], left), (padded[0, :, frames - 1], last)):
        check(got_frame, torch.fft.rfft(exact.double() * window.double()))


@pytest.mark.parametrize("dimension", [0, 1, 2], ids=["rows", "bins", "frames"])
@pytest.mark.parametrize("name", SHAPES)
def test_spectra_far_apart(name: str, dimension: int) -> None:
    require_route("host")
    n_fft, hop = SHAPES[name]
    spec, window = torch.randn(2, n_fft // 2 + 1, 5, 2), torch.rand(n_fft) + 0.5
    length = 4 * hop + n_fft - 2 * (n_fft // 2)
    shape = (n_fft, hop, n_fft // 2, "constant", length, 0.5, True)
    strides = [10 * (n_fft // 2 + 1), 10, 2, 1]
    # the first and the last of that dimension more than 2^31 pairs apart
    strides[dimension] = 2 * (BEYOND // (spec.shape[dimension] - 1) + 1)
    exact = _reference.synthesis(spec.double(), window.double(), None, *shape)
    with use_backend("host"):
        check(torch.ops.mps_spectro.synthesis(spread(spec, tuple(strides)), window, None, *shape), exact)


def _cuda(gigabytes: int) -> None:
    require_route("cuda")
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    if free < gigabytes << 30:
        pytest.skip(f"needs {gigabytes} GiB of GPU memory, {free >> 30} GiB are free")


def _far_frames(n_frames: int) -> list[int]:
    """A few frames from everywhere, most of them at the far end."""
    return [0, n_frames // 2, *range(n_frames - 6, n_frames)]


def _check_frames(out: Tensor, x: Tensor, window: Tensor, hop: int, rows: list[int]) -> None:
    """Frames of a centred, reflected stft `out` of `x` (on the GPU) against torch in float64 on slices."""
    n_fft, length = len(window), x.shape[1]
    half = n_fft // 2
    for row in rows:
        for frame in _far_frames(out.shape[2]):
            places = torch.arange(frame * hop - half, frame * hop - half + n_fft, device=x.device).abs()
            places = torch.where(places >= length, 2 * (length - 1) - places, places)
            samples = x[row, places].cpu().double()
            check(out[row, :, frame], torch.fft.rfft(samples * window.cpu().double()))


def _spectrum_of(elements: int, n_fft: int, hop: int, device: str) -> None:
    """stft to more than so many floats, istft back, and the gradient."""
    bins, batch = n_fft // 2 + 1, 5
    length = hop * (elements // (2 * bins * batch) + 1)
    window = (torch.rand(n_fft) + 0.5).to(device)
    x = torch.randn(batch, length, device=device, requires_grad=True)
    out = mps_spectro.stft(x, n_fft, hop, window=window)
    spectrum, signal = out.detach(), x.detach()
    assert 2 * out.numel() > elements
    _check_frames(spectrum, signal, window, hop, [0, batch - 2, batch - 1])
    back = mps_spectro.istft(spectrum, n_fft, hop, window=window, length=length)
    for piece, original in zip(back.split(1), signal.split(1)):
        assert (piece - original).abs().max() < 2e-6 * original.abs().max()
    del back
    (gradient,) = torch.autograd.grad(out, x, spectrum)
    # the last samples of the last row, from a slice that begins on a frame
    tail = 40 * hop
    near = signal[-1:, -2 * tail :].cpu().double().requires_grad_()
    exact_out = torch_stft(near, n_fft, hop, window=window.cpu().double(), return_complex=True)
    (exact,) = torch.autograd.grad(exact_out, near, exact_out.detach())
    assert largest_error(gradient[-1:, -tail:], exact[:, -tail:]) <= GRADIENT


def _signal_of(elements: int, n_fft: int, hop: int, batch: int, device: str) -> None:
    """Frames far apart in more than so many samples, and the gradient."""
    window = (torch.rand(n_fft) + 0.5).to(device)
    x = torch.randn(batch, elements // batch + 5 * n_fft, device=device, requires_grad=True)
    out = mps_spectro.stft(x, n_fft, hop, window=window)
    _check_frames(out.detach(), x.detach(), window, hop, [0, batch - 1])
    (gradient,) = torch.autograd.grad(out, x, out.detach())
    # frames do not overlap: the gradient under a frame depends on that one alone
    for frame in (1, out.shape[2] // 2, out.shape[2] - 2):
        start = frame * hop - n_fft // 2
        spectrum = out.detach()[-1, :, frame].cpu().to(torch.complex128)
        spectrum[1 : (n_fft + 1) // 2] *= 0.5
        exact = torch.fft.irfft(spectrum, n_fft) * n_fft * window.cpu().double()
        assert largest_error(gradient[-1, start : start + n_fft], exact) <= GRADIENT
        assert not gradient[-1, start + n_fft : start + hop].any()


@pytest.mark.parametrize("n_fft", [64, 45])
def test_the_checks_below_on_something_small(n_fft: int) -> None:
    require_route("host")
    with use_backend("host"):
        _spectrum_of(2**18, n_fft, n_fft // 4, "cpu")
        _signal_of(2**16, n_fft, 4 * n_fft, 3, "cpu")


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (400, 100), (1218, 304), (321, 80), (1149, 287)])
def test_spectrum_above_2_31_on_cuda(n_fft: int, hop: int) -> None:
    _cuda(60)
    with use_backend("cuda"):
        _spectrum_of(BEYOND, n_fft, hop, "cuda")


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 4096), (400, 1600), (321, 1284)])
def test_signal_above_2_31_on_cuda(n_fft: int, hop: int, batch: int) -> None:
    _cuda(60)
    with use_backend("cuda"):
        _signal_of(BEYOND, n_fft, hop, batch, "cuda")


def test_a_kernel_refuses_more_frames_than_it_can_count() -> None:
    require_route("host")
    shape = ((1, 2**31 + 16), (0, 0), True, None, 16, 1, 0, "constant")
    with pytest.raises(RuntimeError, match="at most 2147483647 frames in one call, got 2147483648"):
        _kernels.bind_analysis("host", torch.device("cpu"), *shape, 2**31, 1.0, False)
