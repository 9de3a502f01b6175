"""SpectralTransform against numpy in float64, torch, and what is expected of a module that compiles."""

from __future__ import annotations

import copy
import gc
import inspect
import io
import pickle
import warnings
from typing import Any, Callable, Iterator

import numpy as np
import pytest
import scipy.signal
import torch
import transform_cases as cases
from conftest import Route
from graphs import counting
from recordings import recording, recordings
from threads import in_threads
from torch import Tensor, nn

import mps_spectro
from mps_spectro import SpectralTransform, diagnostics, get_transform, make_window, resolve_fft_params, use_backend
from mps_spectro._cache import clear_caches

FLOAT32 = 1e-6  # largest error over the largest value
FLOAT64 = 1e-13

torch_stft, torch_istft = torch.stft, torch.istft


def relative(got: Tensor, expected: Tensor, weight: Tensor | float = 1.0, largest: Tensor | None = None) -> float:
    """Largest error over the largest value (or 1e-30); shapes must agree."""
    assert got.shape == expected.shape, (tuple(got.shape), tuple(expected.shape))
    got, expected = got.detach().cpu().to(expected.dtype), expected.detach()
    largest = expected.abs().max() if largest is None else largest
    return (((got - expected).abs() * weight).max() / largest.clamp(min=1e-30)).item()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Without the warning that a length exceeds the frames."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is longer than the.*")
        warnings.filterwarnings("ignore", ".*The length of signal is shorter.*")
        yield


# --- values -----------------------------------------------------------------------------------------------------------


def check_forward(case: tuple[dict[str, Any], tuple[int, ...]], device: str, dtype: torch.dtype, limit: float) -> None:
    arguments, shape = case
    transform = SpectralTransform(**arguments).to(device)
    x = cases.noise(*shape)
    expected = cases.forward(transform, x)
    got = transform.stft(x.to(dtype).to(device))
    assert got.dtype == dtype.to_complex() and relative(got, expected) <= limit
    assert torch.equal(transform(x.to(dtype).to(device)), got)
    frames_first = transform.stft(x.to(dtype).to(device), output_layout="bnf")
    assert torch.equal(frames_first, got.transpose(-1, -2)) and frames_first.is_contiguous()
    assert torch.equal(transform.differentiable_stft(x.to(dtype).to(device)), frames_first)


@pytest.mark.parametrize("case", cases.CASES, ids=cases.name)
def test_stft_is_numpys(case: tuple[dict[str, Any], tuple[int, ...]]) -> None:
    check_forward(case, "cpu", torch.float64, FLOAT64)
    check_forward(case, "cpu", torch.float32, FLOAT32)


@pytest.mark.parametrize("case", cases.ON_EVERY_ROUTE, ids=cases.name)
def test_stft_on_every_route(route: Route, case: tuple[dict[str, Any], tuple[int, ...]]) -> None:
    check_forward(case, route.device, torch.float32, FLOAT32)


def lengths_of(transform: SpectralTransform, samples: int, n_frames: int) -> list[int | None]:
    """Everything, as much as went in, less, and more than the frames cover."""
    full = transform.n_fft + transform.hop_length * (n_frames - 1)
    lengths: list[int | None] = [samples, max(1, samples - 7), full + 5, 1]
    automatic = full - (2 * (transform.n_fft // 2) if transform.center else 0) > 0
    return [None, *lengths] if automatic and not transform._minimal else lengths


def check_inverse(case: tuple[dict[str, Any], tuple[int, ...]], device: str, dtype: torch.dtype, limit: float) -> None:
    arguments, shape = case
    transform = SpectralTransform(**arguments).to(device)
    n_frames = cases.padding(transform, shape[-1])[3]
    pairs = cases.noise(2, *shape[:-1], n_frames, transform.n_fft // 2 + 1)
    z = torch.complex(pairs[0], pairs[1]).transpose(-1, -2)  # no signal has this spectrum
    largest = cases.inverse(transform, z, shape[-1])[0].abs().max()
    for length in lengths_of(transform, shape[-1], n_frames):
        expected, envelope = cases.inverse(transform, z, length)
        # quotients of small numbers have an error as large as the divisor is small
        weight = envelope.sqrt().clamp(max=1.0)
        there = z.to(dtype.to_complex()).to(device)
        got = transform.istft(there, length)
        assert got.dtype == dtype and got.is_contiguous()
        assert relative(got, expected, weight, largest) <= limit, length
        frames_first = there.transpose(-1, -2)
        for other in (frames_first, frames_first.contiguous()):
            assert relative(transform.istft(other, length, input_layout="bnf"), expected, weight, largest) <= limit
        assert torch.equal(transform.differentiable_istft(frames_first, length=length), got)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", cases.CASES, ids=cases.name)
def test_istft_is_numpys_overlap_add(case: tuple[dict[str, Any], tuple[int, ...]]) -> None:
    check_inverse(case, "cpu", torch.float64, FLOAT64)
    check_inverse(case, "cpu", torch.float32, FLOAT32)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", cases.ON_EVERY_ROUTE, ids=cases.name)
def test_istft_on_every_route(route: Route, case: tuple[dict[str, Any], tuple[int, ...]]) -> None:
    check_inverse(case, route.device, torch.float32, FLOAT32)


@pytest.mark.parametrize(
    ("arguments", "batch"),
    [
        ({"n_fft": 512, "hop_length": 128}, 1),
        ({"n_fft": 1024, "hop_length": 256}, 1),
        ({"n_fft": 256, "hop_length": 64}, 4),
        ({"n_fft": 512, "hop_length": 128, "normalized": True}, 2),
        ({"n_fft": 4096, "hop_length": 1024}, 1),
        ({"n_fft": 512, "hop_length": 128, "center_pad_mode": "constant"}, 2),
        ({"n_fft": 512, "hop_length": 128, **cases.MINIMAL}, 2),
        ({"n_fft": 400, "hop_length": 160, "center_pad_mode": "circular", "window_fn": "hamming"}, 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["bfn", "bnf"])
def test_there_and_back(route: Route, arguments: dict[str, Any], batch: int, layout: str) -> None:
    transform = SpectralTransform(**arguments).to(route.device)
    x = cases.noise(batch, 8000).float().to(route.device)
    back = transform.istft(transform.stft(x, output_layout=layout), 8000, input_layout=layout)
    torch.testing.assert_close(back, x, atol=1e-4, rtol=1e-4)


def test_there_and_back_inside_without_centring(route: Route) -> None:
    transform = SpectralTransform(512, 128, center=False).to(route.device)
    x = cases.noise(2, 8000).float().to(route.device)
    back = transform.istft(transform.stft(x), 7936)
    inside = slice(512, 7936 - 512)
    torch.testing.assert_close(back[:, inside], x[:, inside], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tail", ["symmetric", "minimal"])
def test_constant_padding_is_padding_by_hand(route: Route, tail: str) -> None:
    options = {"center_pad_mode": "constant", "center_tail_pad": tail, "periodic": False}
    transform = SpectralTransform(512, 128, **options).to(route.device)
    plain = SpectralTransform(512, 128, periodic=False, center=False).to(route.device)
    x = cases.noise(2, 4000).float().to(route.device)
    behind = 256 if tail == "symmetric" else (32 - 1) * 128 - 256 + 512 - 4000
    expected = plain.stft(nn.functional.pad(x, (256, behind)))
    assert expected.shape[-1] == 32
    torch.testing.assert_close(transform.stft(x), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(("length", "pad"), [(100, 64), (512, 64), (512, 256), (2048, 64), (2048, 256)])
def test_reflection_is_numpys(batch: int, length: int, pad: int) -> None:
    x = cases.noise(batch, length).float()
    by_hand = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (pad, pad)), mode="reflect"))
    got = SpectralTransform(2 * pad, pad, window_fn="rect").stft(x)
    expected = SpectralTransform(2 * pad, pad, window_fn="rect", center=False).stft(by_hand)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


def test_the_functions_give_the_same_bits(route: Route) -> None:
    x = cases.noise(2, 4000).float().to(route.device)
    transform = SpectralTransform(512, 160, 400, center_pad_mode="constant", normalized=True).to(route.device)
    sizes = (512, 160, 400)
    spectrum = mps_spectro.stft(x, *sizes, pad_mode="constant", normalized=True)
    assert torch.equal(transform.stft(x), spectrum)
    assert torch.equal(
        transform.istft(spectrum, 4000), mps_spectro.istft(spectrum, *sizes, None, True, True, None, 4000)
    )


def test_torch_agrees() -> None:
    x = cases.noise(2, 4000)
    window = torch.hamming_window(400, periodic=False).double()
    transform = SpectralTransform(512, 160, 400, "hamming", periodic=False, normalized=True)
    theirs = torch_stft(x, 512, 160, 400, window, normalized=True, return_complex=True)
    assert relative(transform.stft(x), theirs) <= FLOAT64
    back = torch_istft(theirs, 512, 160, 400, window, normalized=True, length=3900)
    assert relative(transform.istft(theirs, 3900), back) <= FLOAT64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recordings(dtype: torch.dtype) -> None:
    for name in recordings():
        x = recording(name, 3.0)[0].double()
        for arguments in ({"n_fft": 2048, "hop_length": 512}, {"n_fft": 1024, "hop_length": 441, **cases.MINIMAL}):
            transform = SpectralTransform(**arguments)
            z = transform.stft(x.to(dtype))
            assert relative(z, cases.forward(transform, x)) <= (FLOAT64 if dtype == torch.float64 else FLOAT32), name
            assert relative(transform.istft(z, x.shape[-1]), x) <= 2 * FLOAT32, name


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("kind", ["silence", "dc", "clipping", "one sample", "no sample"])
def test_no_nan(route: Route, kind: str) -> None:
    signals = {
        "silence": torch.zeros(2, 3000),
        "dc": torch.full((2, 3000), 0.7),
        "clipping": (20.0 * cases.noise(2, 3000).float()).clamp(-1.0, 1.0),
        "one sample": torch.ones(2, 1),
        "no sample": torch.ones(2, 0),
    }
    x = signals[kind].to(route.device)
    length = max(1, x.shape[1])
    for arguments in ({"center_pad_mode": "constant"}, cases.MINIMAL, {"center": False}):
        transform = SpectralTransform(128, 32, **arguments).to(route.device)
        z = transform.stft(x)
        back = transform.istft(z, length)
        assert z.isfinite().all() and back.isfinite().all()
        if kind in ("silence", "no sample"):
            assert (z == 0).all() and (back == 0).all()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("shape", [(3000,), (1, 3000), (2, 3000), (2, 1, 3, 3000)])
@pytest.mark.parametrize("arguments", [{}, cases.MINIMAL, {"center": False}, {"center": False, "n_fft": 4000}], ids=str)
def test_leading_dimensions_are_kept(route: Route, shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    sizes = {"n_fft": 128, "hop_length": 40, **arguments}
    with use_backend("torch") if sizes["n_fft"] > 2048 else use_backend(route.backend):
        transform = SpectralTransform(**sizes).to(route.device)
        x = cases.noise(*shape).float().to(route.device)
        got = transform.stft(x)
        one = transform.stft(x.reshape(-1, 3000)[-1])
        assert got.shape == (*shape[:-1], *one.shape)
        torch.testing.assert_close(got.reshape(-1, *one.shape)[-1], one, atol=1e-5, rtol=1e-5)
        assert transform.istft(got, 3000).shape == shape
        strided = x.unsqueeze(-1).expand(*shape, 2).transpose(-1, -2)[..., 0, :]
        torch.testing.assert_close(transform.stft(strided), got, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arguments", [{}, cases.MINIMAL], ids=str)
def test_dtypes(route: Route, arguments: dict[str, Any]) -> None:
    transform = SpectralTransform(128, 32, **arguments).to(route.device)
    x = cases.noise(2, 1000).float().to(route.device)
    for dtype in (torch.float16, torch.bfloat16):
        rounded = x.to(dtype)
        assert torch.equal(transform.stft(rounded), transform.stft(rounded.float()))
    z = transform.stft(x)
    assert z.dtype == torch.complex64 and transform.istft(z, 1000).dtype == torch.float32
    if route.float64 and not route.kernels:
        wide = transform.stft(x.double())
        assert wide.dtype == torch.complex128 and transform.istft(wide, 1000).dtype == torch.float64
        assert torch.equal(transform.double().stft(x.double()), wide)
        assert transform.stft(x).dtype == torch.complex64


def test_both_sides_of_a_spectrum_are_taken(route: Route) -> None:
    transform = SpectralTransform(128, 32).to(route.device)
    x = cases.noise(2, 1000).float().to(route.device)
    both = mps_spectro.stft(x, 128, 32, onesided=False)
    torch.testing.assert_close(transform.istft(both, 1000), x, atol=1e-5, rtol=1e-5)
    frames_first = transform.istft(both.transpose(1, 2), 1000, input_layout="bnf")
    torch.testing.assert_close(frames_first, x, atol=1e-5, rtol=1e-5)


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"n_fft": 0}, ValueError, "n_fft must be positive, got 0"),
        ({"n_fft": 64.0}, TypeError, "n_fft must be an int"),
        ({"hop_length": 0}, ValueError, "hop_length must be positive, got 0"),
        ({"hop_length": -4}, ValueError, "hop_length must be positive, got -4"),
        ({"hop_length": True}, TypeError, "hop_length must be an int"),
        ({"win_length": 65}, ValueError, "win_length must be in 1 .. n_fft=64, got 65"),
        ({"win_length": 0}, ValueError, "win_length"),
        ({"window_fn": "hanning"}, ValueError, "window_fn must be .*hamming.*got 'hanning'"),
        ({"window_fn": 3}, TypeError, "window_fn must be a function or a name"),
        ({"window_fn": lambda length: torch.ones(length + 1)}, ValueError, "window_fn must give a tensor of shape"),
        ({"window": torch.ones(63)}, ValueError, "window length must be win_length=64"),
        ({"window": torch.ones(2, 32)}, ValueError, "window length must be"),
        ({"window": "hann"}, TypeError, "window must be a torch.Tensor.*window_fn"),
        ({"window": torch.ones(64, dtype=torch.complex64)}, TypeError, "window must be real"),
        ({"window": torch.ones(64).requires_grad_()}, ValueError, "window must not require grad"),
        ({"center": 1}, TypeError, "center must be True or False"),
        ({"periodic": None}, TypeError, "periodic must be True or False"),
        ({"normalized": "window"}, TypeError, "normalized must be True or False"),
        ({"center_pad_mode": "edge"}, ValueError, "center_pad_mode must be one of .*reflect.*got 'edge'"),
        ({"center_tail_pad": "none"}, ValueError, "center_tail_pad must be one of symmetric, minimal"),
        ({"center_tail_pad": "minimal"}, ValueError, "center_pad_mode='constant', got 'reflect'"),
        ({"istft_backend_policy": "mlx"}, ValueError, "istft_backend_policy must be one of auto, .*mlx_fft.*got 'mlx'"),
        ({"istft_backend_policy": "torch_fallback", **cases.MINIMAL}, ValueError, "center_tail_pad='symmetric'"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else str(value),
)
def test_bad_arguments(arguments: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        SpectralTransform(**{"n_fft": 64, "hop_length": 16, **arguments})
    with pytest.raises(kind, match=words):
        get_transform(**{"n_fft": 64, "hop_length": 16, **arguments})


@pytest.mark.parametrize(
    ("x", "options", "kind", "words"),
    [
        (torch.ones(2, 100, dtype=torch.int16), {}, TypeError, "x must be real and floating point, got torch.int16"),
        (torch.ones(2, 100, dtype=torch.complex64), {}, TypeError, "x must be real"),
        ([1.0, 2.0], {}, TypeError, "x must be a torch.Tensor"),
        (torch.tensor(1.0), {}, ValueError, r"shape \(..., T\)"),
        (torch.ones(0, 100), {}, ValueError, "empty batch"),
        (torch.ones(2, 32), {}, ValueError, "at least 33 samples.*reflect.*got 32"),
        (torch.ones(2, 100), {"output_layout": "bft"}, ValueError, "output_layout must be one of bfn, bnf, got 'bft'"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, (str, dict)) else "",
)
def test_bad_signals(x: Any, options: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        SpectralTransform(64, 16).stft(x, **options)


SPECTRUM = torch.ones(2, 33, 20, dtype=torch.complex64)


@pytest.mark.parametrize(
    ("z", "options", "kind", "words"),
    [
        (SPECTRUM.real, {}, TypeError, "z must be complex, got torch.float32"),
        (None, {}, TypeError, "z must be a torch.Tensor"),
        (SPECTRUM[0, 0], {}, ValueError, r"z must have shape \(..., F, N\)"),
        (SPECTRUM.transpose(1, 2), {}, ValueError, r"33 \(or 64\) bins .*'bfn', got shape \(2, 20, 33\).*'bnf'"),
        (SPECTRUM, {"input_layout": "bnf"}, ValueError, r"33 \(or 64\) bins .*'bnf', got shape \(2, 33, 20\).*'bfn'"),
        (SPECTRUM[:, :32], {}, ValueError, "bins in its second to last dimension"),
        (SPECTRUM, {"input_layout": "nbf"}, ValueError, "input_layout must be one of bfn, bnf"),
        (SPECTRUM, {"length": 0}, ValueError, "length must be positive, got 0"),
        (SPECTRUM, {"length": -1}, ValueError, "length must be positive"),
        (SPECTRUM, {"length": 10.0}, TypeError, "length must be an int"),
        (SPECTRUM[..., :1], {}, ValueError, "more than one frame"),
        (SPECTRUM[..., :0], {}, ValueError, "at least one bin and one frame"),
        (SPECTRUM, {"validate": 1}, TypeError, "validate must be True or False"),
        (SPECTRUM, {"torch_like": "yes"}, TypeError, "torch_like must be True or False"),
        (SPECTRUM, {"allow_fused": None}, TypeError, "allow_fused must be True or False"),
        (SPECTRUM, {"safety": "maybe"}, ValueError, "safety must be one of auto, always, off, got 'maybe'"),
        (SPECTRUM, {"safety": "maybe", "backend_policy": "torch_fallback"}, ValueError, "safety must be one of"),
        (SPECTRUM, {"long_mode_strategy": "numpy"}, ValueError, "long_mode_strategy must be one of .*native"),
        (SPECTRUM, {"backend_policy": "mlx"}, ValueError, "backend_policy must be one of .*torch_fallback.*got 'mlx'"),
        (
            SPECTRUM,
            {"backend_policy": "mlx_fft", "long_mode_strategy": "torch_fallback"},
            ValueError,
            "long_mode_strategy must be 'native' with backend_policy='torch', got 'torch_fallback'",
        ),
        (
            SPECTRUM,
            {"backend_policy": "torch_fallback", "long_mode_strategy": "numpy_fallback", "_arguments": cases.MINIMAL},
            ValueError,
            "center_tail_pad='symmetric', got 'minimal'",
        ),
        (
            SPECTRUM,
            {"long_mode_strategy": "torch_fallback", "length": 100, "_arguments": cases.MINIMAL},
            ValueError,
            "center_tail_pad='symmetric', got 'minimal'",
        ),
        (SPECTRUM, {"_arguments": cases.MINIMAL}, ValueError, "length is required"),
        (SPECTRUM, {"_arguments": {"win_length": 15}}, ValueError, "hop_length must not exceed win_length=15"),
        (SPECTRUM, {"backend_policy": "metal"}, RuntimeError, "'metal' runs on mps tensors, got a cpu tensor"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, (str, dict)) else "",
)
def test_bad_spectra(z: Any, options: dict[str, Any], kind: type[Exception], words: str) -> None:
    options = dict(options)
    transform = SpectralTransform(64, 16, **options.pop("_arguments", {}))
    with pytest.raises(kind, match=words):
        transform.istft(z, **options)


def test_a_window_as_long_as_a_frame_is_taken_as_it_is() -> None:
    window = torch.rand(64) + 0.1
    x = cases.noise(2, 1000)
    transform = SpectralTransform(64, 40, 32, window=window)
    assert torch.equal(transform.window, window)
    expected = torch_stft(x, 64, 40, window=window.double(), return_complex=True)
    assert relative(transform.stft(x), expected) <= FLOAT64
    assert relative(transform.istft(transform.stft(x), 900), x[:, :900]) <= FLOAT64
    window.zero_()
    assert relative(transform.stft(x), expected) <= FLOAT64  # a copy


def test_hop_length_none_is_a_quarter() -> None:
    assert SpectralTransform(64, None).hop_length == 16


# --- policies ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("length", [None, 900, 1100])
def test_every_policy_gives_the_same_numbers(route: Route, length: int | None) -> None:
    transform = SpectralTransform(128, 32, window_fn="hamming").to(route.device)
    pairs = cases.noise(2, 2, 32, 65).float().to(route.device)
    z = torch.complex(pairs[0], pairs[1]).transpose(1, 2)
    expected = cases.inverse(transform, z.cpu().to(torch.complex128), length)[0]
    for policy in (None, "auto", "torch", "mlx_fft", "torch_fallback", "host", "metal"):
        if policy in ("host", "metal") and policy != route.backend:
            continue
        diagnostics(reset=True)
        got = transform.istft(z, length, backend_policy=policy)
        report = diagnostics(reset=True)
        assert relative(got, expected) <= FLOAT32, policy
        if policy == "torch_fallback":
            assert report["torch_route"] == {"backend_policy torch_fallback": 1}
        elif policy in ("torch", "mlx_fft"):
            assert report["torch_route"] == {"backend torch": 1}
        else:
            assert report["backend_calls"] == {route.backend: 1}
    for strategy in ("native", "custom", "numpy_fallback", "torch_fallback"):
        for fused in (True, False):
            options = {"long_mode_strategy": strategy, "allow_fused": fused}
            assert relative(transform.istft(z, length, **options), expected) <= FLOAT32


def test_policy_of_the_module(route: Route) -> None:
    transform = SpectralTransform(128, 32, istft_backend_policy="mlx_fft").to(route.device)
    assert transform.istft_backend_policy == "torch"
    z = transform.stft(cases.noise(2, 1000).float().to(route.device))
    diagnostics(reset=True)
    transform.istft(z)
    assert diagnostics(reset=True)["torch_route"] == {"backend torch": 1}
    transform.istft(z, backend_policy="auto")
    assert diagnostics(reset=True)["backend_calls"] == {route.backend: 1}


def test_torch_fallback_keeps_leading_dimensions_and_gradients() -> None:
    transform = SpectralTransform(128, 32)
    z = transform.stft(cases.noise(2, 3, 1000)).requires_grad_()
    got = transform.istft(z, 1000, backend_policy="torch_fallback")
    expected = transform.istft(z, 1000)
    assert relative(got, expected) <= FLOAT64
    weights = cases.noise(2, 3, 1000, seed=1)
    one, other = (torch.autograd.grad((y * weights).sum(), z)[0] for y in (got, expected))
    assert relative(one, other) <= FLOAT64
    assert transform.istft(z[0, 0], backend_policy="torch_fallback").dim() == 1


def test_an_envelope_that_vanishes(route: Route) -> None:
    transform = SpectralTransform(16, 4, center=False).to(route.device)  # a Hann window begins with 0
    z = transform.stft(cases.noise(2, 100).float().to(route.device))
    assert (transform.istft(z)[:, 0] == 0).all()
    for options in ({"torch_like": True}, {"safety": "always"}, {"torch_like": True, "safety": "always"}):
        with pytest.raises(RuntimeError, match="window overlap add min"):
            transform.istft(z, **options)
    assert (transform.istft(z, torch_like=True, safety="off")[:, 0] == 0).all()
    with pytest.raises(RuntimeError, match="window overlap add min"):
        transform.istft(z, backend_policy="torch_fallback")
    centred = SpectralTransform(16, 4).to(route.device)
    for safety in ("auto", "always", "off"):
        centred.istft(z, torch_like=True, safety=safety)


def test_a_length_beyond_the_frames_warns_and_gives_zeros() -> None:
    for arguments in ({}, cases.MINIMAL):
        transform = SpectralTransform(16, 4, **arguments)
        z = transform.stft(cases.noise(2, 100))
        with pytest.warns(UserWarning, match="length=200 is longer"):
            assert (transform.istft(z, 200)[:, 120:] == 0).all()


@pytest.mark.usefixtures("quiet")
def test_validate_finds_a_wrong_result(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    from mps_spectro import _spectral_module

    transform = SpectralTransform(128, 32).to(route.device)
    x = cases.noise(2, 1000).float().to(route.device)
    z = transform.stft(x)
    expected = transform.istft(z, 1000)
    broken = z.clone()
    broken[0, 3, 5] = float("nan")
    for signal in (z, 1e4 * z, 0 * z, broken, z * float("inf")):
        transform.istft(signal, 1000, validate=True)
    # nearly nothing reaches the samples at the ends
    noise = torch.complex(*cases.noise(2, 2, 65, 20).float()).to(route.device)
    SpectralTransform(128, 32, center=False).to(route.device).istft(noise, 800, validate=True)
    assert torch.equal(transform.istft(z, 1000, validate=True), expected)
    right, compiled = _spectral_module.istft, transform.get_compiled_istft(length=1000, validate=True)
    assert torch.equal(compiled(z), expected)

    def wrong(*arguments: Any, **options: Any) -> Tensor:
        out = right(*arguments, **options)
        if options:  # which the call that this is compared with does without
            out = out.clone()
            out[1, 500] += 1e-3
        return out

    monkeypatch.setattr(_spectral_module, "istft", wrong)
    with pytest.raises(RuntimeError, match="istft mismatch"):
        transform.istft(z, 1000, validate=True)
    with pytest.raises(RuntimeError, match="istft mismatch"):
        compiled(z)


# --- gradients --------------------------------------------------------------------------------------------------------

ROWS = [
    {"hop_length": 4},
    {"hop_length": 5, "center_pad_mode": "constant", "normalized": True},
    {"hop_length": 3, **cases.MINIMAL},
    {"hop_length": 7, "win_length": 9, **cases.MINIMAL},
    {"hop_length": 4, "center": False},
    {"hop_length": 4, "center": False, "_samples": 9},
]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("arguments", ROWS, ids=str)
def test_gradcheck(arguments: dict[str, Any]) -> None:
    arguments = dict(arguments)
    samples = arguments.pop("_samples", 17)
    transform = SpectralTransform(12, window_fn="hamming", **arguments)
    x = cases.noise(1, samples).requires_grad_()
    assert torch.autograd.gradcheck(transform.differentiable_stft, (x,))
    z = transform.differentiable_stft(x).detach()
    # imaginary parts of DC and Nyquist do not count, as they do in no irfft
    inner = torch.complex(*cases.noise(2, *z.shape)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: transform.differentiable_istft(z, length=samples + 3), (inner,))
    assert torch.autograd.gradgradcheck(lambda x: transform.stft(x).abs(), (x,))


@pytest.mark.parametrize("arguments", ROWS, ids=str)
def test_gradients_on_every_route(route: Route, arguments: dict[str, Any]) -> None:
    arguments = {key: value for key, value in arguments.items() if key != "_samples"}
    transform = SpectralTransform(16, window_fn="hamming", **arguments).to(route.device)
    twin = SpectralTransform(16, window_fn="hamming", **arguments)
    x = cases.noise(2, 200)
    weights = cases.noise(2, 190, seed=3)

    def gradient(module: SpectralTransform, x: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        y = module.istft(module.stft(leaf) * (1.5 + 0.5j), 190)
        (y.square() * weights.to(x.dtype).to(x.device)).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    with use_backend("torch"):
        expected = gradient(twin, x)
    assert relative(gradient(transform, x.float().to(route.device)), expected) <= 2e-5


def test_gradient_of_a_round_trips_error_is_small(route: Route) -> None:
    transform = SpectralTransform(128, 32).to(route.device)
    x = cases.noise(1, 256).float().to(route.device).requires_grad_()
    y = transform.differentiable_istft(transform.differentiable_stft(x), length=256)
    (y - x.detach()).square().mean().backward()
    assert x.grad.abs().max() < 1e-3


def test_gradients_at_silence(route: Route) -> None:
    for arguments in ({}, cases.MINIMAL, {"center": False}):
        transform = SpectralTransform(128, 32, **arguments).to(route.device)
        x = torch.zeros(2, 1000, device=route.device).requires_grad_()
        transform.istft(transform.stft(x), 900).square().sum().backward()
        assert x.grad.isfinite().all()


# --- compiled ---------------------------------------------------------------------------------------------------------


def test_compiled_equals_eager(route: Route) -> None:
    transform = SpectralTransform(128, 32, **cases.MINIMAL).to(route.device)
    x = cases.noise(2, 3, 1000).float().to(route.device)
    z = transform.stft(x)
    for layout in ("bfn", "bnf"):
        compiled = transform.get_compiled_stft(output_layout=layout)
        assert compiled is transform.get_compiled_stft(output_layout=layout)
        assert torch.equal(compiled(x), transform.stft(x, output_layout=layout))
        assert torch.equal(transform.stft_compiled(x, output_layout=layout), compiled(x))
        there = z if layout == "bfn" else z.transpose(-1, -2)
        inverse = transform.get_compiled_istft(length=990, input_layout=layout)
        assert inverse is transform.get_compiled_istft(length=990, input_layout=layout)
        torch.testing.assert_close(inverse(there), transform.istft(z, 990), atol=1e-6, rtol=1e-6)
        assert torch.equal(transform.istft_compiled(there, length=990, input_layout=layout), inverse(there))
    assert torch.equal(transform.get_compiled()(x), z)


@pytest.mark.parametrize("arguments", [{}, cases.MINIMAL, {"center": False}, {"center": False, "n_fft": 2000}], ids=str)
def test_one_graph_with_its_gradient(arguments: dict[str, Any]) -> None:
    transform = SpectralTransform(**{"n_fft": 128, "hop_length": 32, **arguments})

    def model(x: Tensor) -> Tensor:
        return transform.istft(transform.stft(x, output_layout="bnf") * 0.5, 900, input_layout="bnf").square().sum()

    x = cases.noise(2, 1000).float().requires_grad_()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    got, expected = (torch.autograd.grad(function(x), x)[0] for function in (compiled, model))
    assert relative(got, expected) <= FLOAT32
    module = torch.compile(transform, backend="aot_eager", fullgraph=True)
    assert torch.equal(module(x), transform(x))


def test_compiled_functions_of_different_options_differ() -> None:
    transform = SpectralTransform(128, 32)
    options: list[dict[str, Any]] = [
        {},
        {"length": 100},
        {"length": 101},
        {"input_layout": "bnf"},
        {"validate": True},
        {"torch_like": True},
        {"backend_policy": "torch"},
        {"allow_fused": False},
        {"backend": "eager"},
    ]
    functions = [transform.get_compiled_istft(**option) for option in options]
    assert len(set(map(id, functions))) == len(options)
    assert functions == [transform.get_compiled_istft(**option) for option in options]
    assert transform.get_compiled_stft() is not transform.get_compiled_stft(backend="eager")
    assert transform.get_compiled_stft() is not SpectralTransform(128, 32).get_compiled_stft()


def test_compiled_functions_keep_checks_and_policies(route: Route) -> None:
    transform = SpectralTransform(16, 4, center=False).to(route.device)
    z = transform.stft(cases.noise(2, 100).float().to(route.device))
    eager = transform.istft(z)
    for options in ({"torch_like": True}, {"safety": "always"}):
        with pytest.raises(RuntimeError, match="window overlap add min"):
            transform.istft_compiled(z, **options)
    assert torch.equal(transform.istft_compiled(z, torch_like=True, safety="off"), eager)
    diagnostics(reset=True)
    got = transform.istft_compiled(z, backend_policy="torch", validate=True)
    assert relative(got, eager.cpu()) <= FLOAT32
    assert set(diagnostics(reset=True)["backend_calls"]) == {"torch"}
    for options in (
        {"backend_policy": "torch_fallback"},
        {"long_mode_strategy": "torch_fallback"},
        {"long_mode_strategy": "numpy_fallback"},
        {"length": 0},
        {"input_layout": "nfb"},
        {"safety": "maybe"},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            transform.get_compiled_istft(**options)
    with pytest.raises(ValueError, match="torch_fallback"):
        SpectralTransform(16, 4, istft_backend_policy="torch_fallback").compiled_pair(length=100)
    with pytest.raises(ValueError, match="output_layout"):
        transform.get_compiled_stft(output_layout="nfb")


def test_compiled_functions_raise_what_the_methods_raise() -> None:
    transform = SpectralTransform(128, 32)
    with pytest.raises(ValueError, match="at least 65 samples"):
        transform.stft_compiled(torch.ones(2, 64))
    with pytest.raises(TypeError, match="x must be real"):
        transform.stft_compiled(torch.ones(2, 64, dtype=torch.int32))
    with pytest.raises(ValueError, match="bins in its second to last dimension"):
        transform.istft_compiled(torch.ones(2, 20, 65, dtype=torch.complex64))


def test_more_transforms_than_the_compilers_limit_are_compiled() -> None:
    torch._dynamo.reset()
    graphs, backend = counting()
    x = cases.noise(2, 500).float()
    count = torch._dynamo.config.recompile_limit + 2
    for number in range(count):
        transform = SpectralTransform(64 + 2 * number, 16)
        assert torch.equal(transform.get_compiled_stft(backend=backend)(x), transform.stft(x))
    assert len(graphs) == count


@pytest.mark.parametrize(("arguments", "layout"), [({}, "bnf"), (cases.MINIMAL, "bfn")], ids=str)
def test_pairs(arguments: dict[str, Any], layout: str) -> None:
    transform = SpectralTransform(512, 128, **arguments)
    forward, inverse = transform.compiled_pair(length=12000, layout=layout, warmup_batch=2)
    assert forward is transform.get_compiled_stft(output_layout=layout)
    assert inverse is transform.get_compiled_istft(length=12000, input_layout=layout)
    x = cases.noise(2, 3, 12000).float()
    packed = x.reshape(6, 12000)
    z = forward(packed)
    torch.testing.assert_close(z, transform.stft(packed, output_layout=layout), atol=1e-6, rtol=1e-6)
    back = inverse(z)
    torch.testing.assert_close(back, transform.istft(z, 12000, input_layout=layout), atol=1e-6, rtol=1e-6)
    pair = transform.compiled_pair_nd(length=12000, leading_shape=(2, 3), layout=layout)
    assert pair is transform.compiled_pair_nd(length=12000, leading_shape=[2, 3], layout=layout)
    assert pair is not transform.compiled_pair_nd(length=12000, leading_shape=(3, 2), layout=layout)
    nested = pair[0](x)
    assert nested.shape == (2, 3, *z.shape[1:])
    torch.testing.assert_close(nested.reshape(z.shape), z, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(pair[1](nested), back.reshape(x.shape), atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match=r"x must have leading_shape \(2, 3\), got shape \(6, 12000\)"):
        pair[0](packed)
    with pytest.raises(ValueError, match="z must have leading_shape"):
        pair[1](z)


def test_bad_pairs() -> None:
    transform = SpectralTransform(128, 32)
    for lead in ((), (2, 0), (-1,)):
        with pytest.raises(ValueError, match="leading_shape must be one or more positive ints"):
            transform.compiled_pair_nd(length=1000, leading_shape=lead)
    with pytest.raises(TypeError, match="leading_shape"):
        transform.compiled_pair_nd(length=1000, leading_shape=(2.0,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 65 samples"):
        transform.compiled_pair(length=64)
    with pytest.raises(ValueError, match="layout"):
        transform.compiled_pair(length=1000, layout="nbf")
    with pytest.raises(ValueError, match="positive"):
        transform.compiled_pair(length=1000, warmup_batch=0)


def test_warm_ups_leave_nothing_to_compile(route: Route) -> None:
    transform = SpectralTransform(96, 24, **cases.MINIMAL).to(route.device)
    state = torch.get_rng_state()
    with torch.inference_mode():
        transform.warmup()
        transform.prewarm_kernels(batch=2)
    assert torch.equal(torch.get_rng_state(), state)
    transform.prewarm_compiled(length=2000)
    diagnostics(reset=True)
    x = cases.noise(2, 4096).float().to(route.device).requires_grad_()
    transform.istft(transform.stft(x), 4096).square().sum().backward()
    report = diagnostics(reset=True)
    assert report["compiles"]["count"] == 0
    assert report["kernel_calls"] == ({"analysis": 2, "synthesis": 2} if route.kernels else {})
    assert report["caches"]["compiled methods"]["misses"] == 0
    transform.get_compiled_istft(length=2000, safety="off")
    assert diagnostics(reset=True)["caches"]["compiled methods"]["hits"] >= 1


def test_bad_warm_ups() -> None:
    transform = SpectralTransform(128, 32)
    for warm in (transform.warmup, transform.prewarm_kernels, transform.prewarm_compiled):
        with pytest.raises(ValueError, match="batch and length must be positive"):
            warm(batch=0)
        with pytest.raises(TypeError, match="length must be an int"):
            warm(length=100.0)  # type: ignore[arg-type]


def test_traced_and_exported_graphs_hold_torchs_functions() -> None:
    x = cases.noise(2, 1000).float()
    for arguments in ({}, cases.MINIMAL, {"hop_length": 120, **cases.MINIMAL}, {"center": False, "n_fft": 2000}):
        transform = SpectralTransform(**{"n_fft": 128, "hop_length": 32, **arguments})
        exported = torch.export.export(transform, (x,))
        assert not any("mps_spectro" in str(node.target) for node in exported.graph.nodes)
        assert relative(exported.module()(x), transform(x)) <= FLOAT32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(transform, (x,))
        assert relative(traced(x), transform(x)) <= FLOAT32


def test_vmap_and_jvp() -> None:
    x, v = cases.noise(3, 2, 500), cases.noise(3, 2, 500, seed=1)
    for arguments in ({}, cases.MINIMAL, {"center": False}):
        transform = SpectralTransform(64, 16, **arguments)
        assert relative(torch.vmap(transform)(x), transform(x)) <= FLOAT64
        tangent = torch.func.jvp(transform, (x,), (v,))[1]
        assert relative(tangent, transform(v)) <= FLOAT64  # it is linear


# --- module -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"window": torch.rand(60) + 0.1, "win_length": 60}], ids=["hann", "given"])
def test_copies_pickles_and_state_dicts(arguments: dict[str, Any]) -> None:
    x = cases.noise(2, 1000).float()
    transform = SpectralTransform(64, 16, **arguments)
    transform.get_compiled_stft(backend="eager")
    expected = transform(x)
    stored = io.BytesIO()
    torch.save(transform, stored)
    stored.seek(0)
    for other in (
        copy.deepcopy(transform),
        pickle.loads(pickle.dumps(transform)),
        torch.load(stored, weights_only=False),
    ):
        assert torch.equal(other(x), expected) and repr(other) == repr(transform)
        assert torch.equal(other.get_compiled_stft(backend="eager")(x), expected)
        other.window.zero_()
        assert (other.get_compiled_stft(backend="eager")(x) == 0).all() and torch.equal(transform(x), expected)
    assert transform.state_dict() == {} and [name for name, _ in transform.named_buffers()] == ["window"]
    assert not list(transform.parameters())
    transform.load_state_dict({})


def test_the_window_follows_the_module_or_the_signal(route: Route) -> None:
    transform = SpectralTransform(128, 32)
    x = cases.noise(2, 1000).float().to(route.device)
    stays = transform(x)
    back = transform.istft(stays, 1000)
    assert transform.window.device.type == "cpu"
    transform.to(route.device)
    assert transform.window.device.type == route.device
    assert torch.equal(transform(x), stays) and torch.equal(transform.istft(stays, 1000), back)
    for cast in (torch.float16, torch.bfloat16):
        transform.to(cast)
        assert transform.window.dtype == torch.float32 and torch.equal(transform(x), stays)
    transform.window.mul_(2)
    assert torch.equal(transform(x), 2 * stays)


def test_windows_are_its_own() -> None:
    transform = SpectralTransform(64, 16)
    transform.window.zero_()
    assert torch.equal(SpectralTransform(64, 16).window, torch.hann_window(64))
    assert torch.equal(make_window(n_fft=64), torch.hann_window(64))


def test_modules_made_in_inference_mode_train() -> None:
    clear_caches()
    with torch.inference_mode():
        transforms = [SpectralTransform(64, 16), get_transform(n_fft=64, hop_length=16)]
        for transform in transforms:
            transform(torch.ones(2, 100))
    for transform in transforms:
        x = cases.noise(2, 1000).float().requires_grad_()
        transform.istft(transform(x)).square().sum().backward()
        assert x.grad is not None and x.grad.isfinite().all()


def test_repr_and_attributes() -> None:
    assert repr(SpectralTransform(64, 16)) == "SpectralTransform(n_fft=64, hop_length=16)"
    given = SpectralTransform(64, 16, 50, window=torch.ones(50))
    assert repr(given) == "SpectralTransform(n_fft=64, hop_length=16, win_length=50, window=(50,))"
    transform = SpectralTransform(64, 16, 50, torch.hamming_window, periodic=False, normalized=True, **cases.MINIMAL)
    assert repr(transform) == (
        "SpectralTransform(n_fft=64, hop_length=16, win_length=50, window_fn=hamming_window, periodic=False, "
        "center_pad_mode='constant', center_tail_pad='minimal', normalized=True)"
    )
    assert (
        transform.window.shape == (64,) and transform.win_length == 50 and transform.window_fn is torch.hamming_window
    )
    assert transform.istft_backend_policy == "auto" and transform.center and not transform.periodic


def test_signatures() -> None:
    def names(function: Callable[..., Any]) -> list[str]:
        return list(inspect.signature(function).parameters)

    assert names(SpectralTransform) == [
        *("n_fft", "hop_length", "win_length", "window_fn", "window", "periodic", "center", "center_pad_mode"),
        *("center_tail_pad", "normalized", "istft_backend_policy"),
    ]
    transform = SpectralTransform(64, 16)
    assert names(transform.istft) == [
        *("z", "length", "validate", "torch_like", "allow_fused", "safety", "long_mode_strategy", "backend_policy"),
        "input_layout",
    ]
    assert names(make_window)[:5] == ["window", "window_fn", "win_length", "n_fft", "periodic"]
    assert names(resolve_fft_params) == ["n_fft", "hop_length", "win_length", "pad"]


def test_sixteen_threads() -> None:
    clear_caches()
    transform = SpectralTransform(128, 32, **cases.MINIMAL)
    x = cases.noise(2, 2000).float()
    expected = transform(x)

    def work(number: int) -> None:
        for _ in range(5):
            assert torch.equal(transform(x), expected)
            wide = transform.istft(transform(x.double()), 2000, torch_like=True)
            assert relative(wide, x.double()) <= FLOAT64

    in_threads(16, work)


# --- get_transform ----------------------------------------------------------------------------------------------------


def test_get_transform_gives_the_same_object() -> None:
    clear_caches()
    diagnostics(reset=True)
    arguments: dict[str, Any] = {"n_fft": 64, "hop_length": 16}
    first = get_transform(**arguments)
    assert get_transform(**arguments) is first
    assert get_transform(**arguments, window_fn="hann", periodic=True, center=True, win_length=None) is first
    changes: list[dict[str, Any]] = [
        {"hop_length": 8},
        {"win_length": 64},
        {"window_fn": "hamming"},
        {"window_fn": torch.hamming_window},
        {"periodic": False},
        {"center": False},
        {"normalized": True},
        {"center_pad_mode": "constant"},
        cases.MINIMAL,
        {"istft_backend_policy": "torch"},
    ]
    others = [get_transform(**{**arguments, **change}) for change in changes]
    assert len({id(one) for one in (first, *others)}) == len(changes) + 1
    for other, change in zip(others, changes):
        assert all(getattr(other, name) == value for name, value in change.items())
    report = diagnostics(reset=True)["caches"]["transforms"]
    assert report == {"size": len(changes) + 1, "limit": 64, "hits": 2, "misses": len(changes) + 1}
    assert diagnostics()["caches"]["transforms"] == {"size": len(changes) + 1, "limit": 64, "hits": 0, "misses": 0}


def test_get_transform_with_a_window_makes_a_new_one() -> None:
    window = torch.ones(64)
    arguments: dict[str, Any] = {"n_fft": 64, "hop_length": 16, "window": window}
    assert get_transform(**arguments) is not get_transform(**arguments)
    assert torch.equal(get_transform(**arguments).window, window)


def test_get_transform_keeps_the_last_64() -> None:
    clear_caches()
    first = get_transform(n_fft=32, hop_length=1)
    for hop in range(2, 65):
        get_transform(n_fft=32, hop_length=hop)
    assert get_transform(n_fft=32, hop_length=1) is first
    get_transform(n_fft=32, hop_length=65)
    assert get_transform(n_fft=32, hop_length=1) is first  # 2 went
    assert diagnostics()["caches"]["transforms"]["size"] == 64


def test_get_transform_in_threads_and_tracers() -> None:
    clear_caches()
    got: list[SpectralTransform] = []
    in_threads(16, lambda _: got.append(get_transform(n_fft=48, hop_length=12)))
    assert len(got) == 16 and len(set(map(id, got))) == 1
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        get_transform(n_fft=52, hop_length=13)
    assert type(get_transform(n_fft=52, hop_length=13).window) is Tensor
    x = cases.noise(2, 300).float()
    inside = torch.compile(lambda x: get_transform(n_fft=56, hop_length=14)(x), backend="aot_eager")
    assert torch.equal(inside(x), get_transform(n_fft=56, hop_length=14)(x))


def test_a_transform_is_freed_with_its_functions() -> None:
    gc.collect()
    before = diagnostics()["caches"].get("compiled methods", {"limit": 0})["limit"]
    transform = SpectralTransform(64, 16)
    transform.compiled_pair_nd(length=1000, leading_shape=(2,), backend="eager")
    assert diagnostics()["caches"]["compiled methods"]["limit"] == before + 64
    del transform
    gc.collect()
    assert diagnostics()["caches"].get("compiled methods", {"limit": 0})["limit"] == before


# --- windows and sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window_fn", ["hann", "hamming", "rect", "boxcar", "ones", "blackman", "bartlett", "cosine"])
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize(("win_length", "n_fft"), [(64, 64), (63, 64), (50, 64), (50, 65), (2, 9), (1, 1)])
def test_windows_are_scipys(window_fn: str, periodic: bool, win_length: int, n_fft: int) -> None:
    got = make_window(None, window_fn, win_length, n_fft, periodic)
    assert got.shape == (n_fft,) and got.dtype == torch.float32
    theirs = "boxcar" if window_fn in ("rect", "ones") else window_fn
    expected = scipy.signal.get_window(theirs, win_length, fftbins=periodic) if win_length > 1 else np.ones(1)
    left = (n_fft - win_length) // 2
    expected = torch.from_numpy(np.pad(expected, (left, n_fft - win_length - left)))
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=0)
    wide = make_window(None, window_fn, win_length, n_fft, periodic, dtype=torch.float64)
    torch.testing.assert_close(wide, expected, atol=1e-14, rtol=0)


def test_make_window_of_tensors_and_defaults() -> None:
    window = torch.rand(40, dtype=torch.float64)
    assert torch.equal(make_window(window, win_length=40, n_fft=64)[12:52], window.float())
    assert torch.equal(make_window(window, win_length=30, n_fft=40, dtype=torch.float64), window)
    assert torch.equal(make_window(win_length=40), torch.hann_window(40))
    assert make_window(window, n_fft=40, dtype=torch.float64).data_ptr() != window.data_ptr()
    assert torch.equal(
        make_window(window_fn=lambda length: torch.arange(1.0, length + 1), n_fft=5), torch.arange(1.0, 6)
    )
    for arguments, kind, words in (
        ({}, ValueError, "n_fft or win_length must be given"),
        ({"win_length": 0, "n_fft": 4}, ValueError, "win_length"),
        ({"win_length": 5, "n_fft": 4}, ValueError, "win_length must be in 1 .. n_fft=4"),
        ({"n_fft": 4, "window_fn": "hanning"}, ValueError, "got 'hanning'"),
        ({"n_fft": 4, "window": torch.ones(3)}, ValueError, "window length must be win_length=4 or n_fft=4"),
        ({"n_fft": 4, "periodic": 1}, TypeError, "periodic"),
    ):
        with pytest.raises(kind, match=words):
            make_window(**arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((400, 160, 320, 0), (400, 160, 320)),
        ((400, None, None, 56), (512, 100, 400)),
        ((400, None, 512, 56), (512, 100, 512)),
        ((400,), (400, 100, 400)),
        ((1, 1), (1, 1, 1)),
    ],
)
def test_resolve_fft_params(arguments: tuple[Any, ...], expected: tuple[int, int, int]) -> None:
    assert resolve_fft_params(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ((0, 1), ValueError, "n_fft must be positive"),
        ((64, 16, 64, -1), ValueError, "pad must be at least 0"),
        ((64, 0), ValueError, "hop_length must be positive"),
        ((64, 16, 0), ValueError, "win_length must be in"),
        ((64, 16, 69, 2), ValueError, "win_length must be in 1 .. n_fft=68"),
        ((3,), ValueError, "hop_length must be given"),
        ((64.0,), TypeError, "n_fft must be an int"),
        ((64, 16, 64, 1.0), TypeError, "pad must be an int"),
    ],
    ids=str,
)
def test_resolve_fft_params_refuses(arguments: tuple[Any, ...], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        resolve_fft_params(*arguments)
