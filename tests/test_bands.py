"""The op `bands` over every route: values, derivatives, and what the dispatcher knows about it."""

from __future__ import annotations

import itertools
import threading
from typing import Any, Callable

import front_end_cases as cases
import pytest
import torch
from conftest import Route
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from mps_spectro import _bands, diagnostics, use_backend
from mps_spectro._bands_reference import MODES, reference
from mps_spectro.filters import melscale_fbanks

bands = torch.ops.mps_spectro.bands

# power, eps, eps inside
POWERS = [
    (2.0, 0.0, False),
    (1.0, 0.0, False),
    (1.5, 0.0, False),
    (3.0, 1e-3, False),
    (1.0, 1e-2, True),
    (2.0, 0.1, True),
]
SCALES = {"linear": (1.0, 0.0), "clamp": (10.0 / cases.LN10, 0.1), "add": (1.0, 1e-2), "log1p": (0.7, 50.0)}


def by_torch(x: Tensor, window: Tensor, basis: Tensor | None, *rest: Any) -> Tensor:
    """The definition in torch's own functions, not through the package."""
    n_fft, hop, offset, pad_mode, n_frames, scale, power, eps, inside, mode, factor, floor = rest
    right = max(0, (n_frames - 1) * hop + n_fft - offset - x.shape[1])
    x = torch.nn.functional.pad(x.unsqueeze(1), (offset, right), mode=pad_mode).squeeze(1)
    spec = scale * torch.stft(x, n_fft, hop, window=window, center=False, return_complex=True)[..., :n_frames]
    if inside:
        s = (spec.real**2 + spec.imag**2 + eps) ** (power / 2)
    else:
        s = spec.abs() ** power + eps
    m = s if basis is None else basis @ s
    if mode == "linear":
        return m
    if mode == "clamp":
        return factor * torch.clamp(m, min=floor).log()
    return factor * (torch.log(m + floor) if mode == "add" else torch.log1p(floor * m))


def numbers(
    n_fft: int = 64,
    hop: int = 20,
    pad_mode: str = "reflect",
    length: int = 407,
    power: tuple[float, float, bool] = (2.0, 0.0, False),
    mode: str = "linear",
) -> tuple[Any, ...]:
    n_frames = 1 + (length + 2 * (n_fft // 2) - n_fft) // hop
    return (n_fft, hop, n_fft // 2, pad_mode, n_frames, 0.8, *power, mode, *SCALES[mode])


def factors(n_fft: int = 64, length: int = 407, n_bands: int = 7, batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Signal, window and a bank of triangles, float64."""
    x = cases.noise(batch, length, seed=n_fft).double()
    window = torch.hann_window(n_fft).double() + 0.1
    basis = melscale_fbanks(max(33, n_fft // 2 + 1), 0.0, 8000.0, n_bands, 16000)[:, : n_fft // 2 + 1].double()
    return x, window, basis


def on(route: Route, *tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.float().to(route.device) for tensor in tensors]


def error(got: Tensor, expected: Tensor, mode: str) -> float:
    return (cases.relative if mode == "linear" else cases.absolute)(got, expected)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("power", POWERS, ids=str)
def test_values(route: Route, power: tuple[float, float, bool], mode: str) -> None:
    x, window, basis = factors()
    rest = numbers(power=power, mode=mode)
    for bank in (basis, None):
        expected = by_torch(x, window, bank, *rest)
        got = bands(*on(route, x, window, bank), *rest)
        assert error(got, expected, mode) < (1e-6 if mode == "linear" else 1e-4)


@pytest.mark.parametrize("n_fft", [1, 2, 3, 16, 31, 100, 321, 400, 512, 1218, 2048])
@pytest.mark.parametrize("pad_mode", ["constant", "reflect", "replicate", "circular"])
def test_every_kind_of_size_and_padding(route: Route, n_fft: int, pad_mode: str) -> None:
    length = n_fft + 3 * (n_fft // 3 + 1)
    x, window, _ = factors(n_fft, length, batch=2)
    basis = torch.rand(5, n_fft // 2 + 1, dtype=torch.float64)
    rest = numbers(n_fft, n_fft // 3 + 1, pad_mode, length, (1.0, 0.0, False), "linear")
    got = bands(*on(route, x, window, basis), *rest)
    assert cases.relative(got, by_torch(x, window, basis, *rest)) < 1e-6


def test_memory_is_frames_by_bands(route: Route) -> None:
    for batch, n_bands, length in ((2, 7, 407), (1, 1, 407), (1, 7, 20)):
        x, window, basis = factors(length=length, n_bands=n_bands, batch=batch)
        rest = numbers(length=length, pad_mode="constant")
        got = bands(*on(route, x, window, basis), *rest)
        n_frames = rest[4]
        assert got.shape == (batch, n_bands, n_frames)
        assert got.stride() == (n_frames * n_bands, 1, n_bands)


@pytest.mark.parametrize("layout", ["every second", "transposed", "offset", "expanded"])
def test_any_layout_of_the_signal(route: Route, layout: str) -> None:
    x, window, basis = on(route, *factors())
    views = {
        "every second": lambda: torch.stack([x, torch.full_like(x, torch.nan)], -1).flatten(-2)[:, ::2],
        "transposed": lambda: x.t().contiguous().t(),
        "offset": lambda: torch.cat([torch.full((3, 1), torch.nan, device=route.device), x], 1)[:, 1:],
        "expanded": lambda: x[:1].expand(3, -1),
    }
    view = views[layout]()
    assert torch.equal(bands(view, window, basis, *numbers()), bands(view.contiguous(), window, basis, *numbers()))


def test_dense_banks_and_banks_in_any_layout(route: Route) -> None:
    x, window, _ = factors(256, 2000)
    dense = cases.noise(40, 129, seed=3).double()
    rest = numbers(256, 64, length=2000, mode="log1p", power=(2.0, 0.0, False))
    expected = by_torch(x, window, dense.abs(), *rest)
    got = bands(*on(route, x, window, dense.abs()), *rest)
    assert cases.absolute(got, expected) < 2e-5
    x32, window32, dense32 = on(route, x, window, dense.abs())
    # a library may multiply another layout in another order
    assert cases.absolute(bands(x32, window32, dense32.t().contiguous().t(), *rest), expected) < 2e-5
    rest = numbers(256, 64, length=2000)
    expected = by_torch(x, window, dense, *rest)  # weights of either sign
    assert cases.relative(bands(*on(route, x, window, dense), *rest), expected) < 2e-6


def test_a_bank_that_changes_in_place_is_read_again(route: Route) -> None:
    x, window, basis = factors()
    x32, window32, basis32 = on(route, x, window, basis)
    before = bands(x32, window32, basis32, *numbers())
    basis32.mul_(2.0)
    assert cases.relative(bands(x32, window32, basis32, *numbers()), 2.0 * before) < 1e-7
    basis32.zero_()
    assert not bands(x32, window32, basis32, *numbers()).any()


def test_nothing_to_do(route: Route) -> None:
    x, window, basis = on(route, *factors())
    rest = list(numbers())
    rest[4] = 0
    assert bands(x, window, basis, *rest).shape == (3, 7, 0)
    assert bands(x[:0], window, basis, *numbers()).shape == (0, 7, numbers()[4])


def test_nan_and_infinity_stay_in_their_frames(route: Route) -> None:
    x, window, basis = on(route, *factors(n_bands=4))
    x[1, 200] = float("nan")
    rest = numbers()
    got = bands(x, window, basis, *rest)
    touched = torch.tensor([abs(20 * f - 200) <= 32 for f in range(rest[4])])
    assert got[1, :, :].isnan().any(0).cpu().logical_or(~touched).all()
    assert got[1][:, (~touched).to(route.device)].isfinite().all() and got[0].isfinite().all()


def test_the_kernel_answers(route: Route) -> None:
    x, window, basis = on(route, *factors())
    diagnostics(reset=True)
    bands(x, window, basis, *numbers(mode="clamp"))
    report = diagnostics(reset=True)
    assert report["kernel_calls"] == ({"bands": 1} if route.kernels else {})
    assert report["torch_route"] == ({} if route.kernels else {"backend torch": 1})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_take_torch_and_keep_their_dtype(dtype: torch.dtype) -> None:
    x, window, basis = factors()
    got = bands(x.to(dtype), window.to(dtype), basis.to(dtype), *numbers())
    assert got.dtype == dtype
    expected = by_torch(*(tensor.to(dtype).double() for tensor in (x, window, basis)), *numbers())
    assert cases.relative(got, expected) < 4 * torch.finfo(dtype).eps


# --- derivatives ------------------------------------------------------------------------------------------------------


def gradients(function: Callable[..., Tensor], tensors: list[Tensor | None], rest: tuple[Any, ...]) -> list[Tensor]:
    leaves = [None if tensor is None else tensor.detach().clone().requires_grad_() for tensor in tensors]
    out = function(*leaves, *rest)
    weights = cases.noise(*out.shape, seed=9).to(out)
    return list(torch.autograd.grad((out * weights).sum(), [leaf for leaf in leaves if leaf is not None]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("power", POWERS, ids=str)
def test_gradients_are_torchs(route: Route, power: tuple[float, float, bool], mode: str) -> None:
    x, window, basis = factors()
    rest = numbers(power=power, mode=mode)
    for bank in (basis, None):
        expected = gradients(by_torch, [x, window, bank], rest)
        got = gradients(bands, on(route, x, window, bank), rest)
        for name, one, other in zip(("x", "window", "basis"), got, expected):
            assert cases.relative(one, other) < 2e-5, name


@pytest.mark.parametrize("n_fft", [31, 100, 512, 1218])
@pytest.mark.parametrize("pad_mode", ["constant", "reflect", "replicate", "circular"])
def test_gradients_of_every_kind_of_size_and_padding(route: Route, n_fft: int, pad_mode: str) -> None:
    x, window, basis = factors(n_fft, 3 * n_fft)
    rest = numbers(n_fft, n_fft // 4, pad_mode, 3 * n_fft, mode="add")
    for one, other in zip(
        gradients(bands, on(route, x, window, basis), rest), gradients(by_torch, [x, window, basis], rest)
    ):
        assert cases.relative(one, other) < 2e-6


# every power and every mode once by default, every pair on request
SMALL = [
    pytest.param(power, mode, basis, marks=[] if place % 5 == 0 else pytest.mark.slow)
    for place, (power, mode, basis) in enumerate(itertools.product(POWERS, MODES, (True, False)))
]


@pytest.mark.parametrize(("power", "mode", "with_basis"), SMALL, ids=str)
def test_numeric_derivatives(power: tuple[float, float, bool], mode: str, with_basis: bool) -> None:
    x, window = cases.noise(2, 11).double(), torch.rand(6, dtype=torch.float64) + 0.3
    basis = torch.rand(2, 4, dtype=torch.float64) + 0.1
    rest = numbers(6, 4, "reflect", 11, power, mode)
    leaves = [x, window, basis] if with_basis else [x, window]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    call = lambda *t: bands(*(t if with_basis else (*t, None)), *rest)  # noqa: E731
    assert gradcheck(call, leaves, check_forward_ad=True)
    assert gradgradcheck(call, leaves)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("power", POWERS, ids=str)
def test_silence_has_finite_gradients(route: Route, power: tuple[float, float, bool], mode: str) -> None:
    rest = numbers(power=power, mode=mode)
    x, window, basis = on(route, *factors())
    x[0] = 0.0
    x[1, :200] = 0.0
    for bank in (basis, None):
        for tensor in gradients(bands, [x, window, bank], rest):
            assert tensor.isfinite().all()
        silent = x.detach().clone().requires_grad_()
        bands(silent, window, bank, *rest).sum().backward()
        assert not silent.grad[0].any()


def test_second_derivative_at_silence_is_finite() -> None:
    x, window, basis = factors()
    x = torch.zeros_like(x).requires_grad_()
    for power in POWERS:
        out = bands(x, window, basis, *numbers(power=power, mode="add"))
        (first,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        assert first.isfinite().all() and second.isfinite().all()


def test_gradient_to_one_factor_only(route: Route) -> None:
    x, window, basis = on(route, *factors())
    every = gradients(bands, [x, window, basis], numbers(mode="clamp"))
    for place in range(3):
        leaves = [x, window, basis]
        leaves[place] = leaves[place].clone().requires_grad_()
        out = bands(*leaves, *numbers(mode="clamp"))
        (out * cases.noise(*out.shape, seed=9).to(out)).sum().backward()
        assert cases.relative(leaves[place].grad, every[place]) < 1e-6


def test_backward_in_parts_is_backward_at_once(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = on(route, *factors(batch=5))
    rest = numbers(mode="clamp")
    at_once = gradients(bands, tensors, rest)
    monkeypatch.setattr(_bands, "_CHUNK", 2 * rest[4] * 33)
    monkeypatch.setattr(_bands, "_FUSED_CHUNK", 2 * rest[4] * 33)
    for got, expected in zip(gradients(bands, tensors, rest), at_once):
        assert cases.relative(got, expected) < 1e-6


def test_the_result_may_be_changed_in_place(route: Route) -> None:
    x, window, basis = on(route, *factors())
    rest = numbers(mode="clamp")
    expected = x.clone().requires_grad_()
    bands(expected, window, basis, *rest).sum().backward()
    got = x.clone().requires_grad_()
    bands(got, window, basis, *rest).sub_(3.0).sum().backward()
    assert torch.equal(got.grad, expected.grad)


def test_backward_keeps_the_backend_of_forward(route: Route) -> None:
    x, window, basis = on(route, *factors())
    x.requires_grad_()
    out = bands(x, window, basis, *numbers(mode="clamp")).sum()
    diagnostics(reset=True)
    thread = threading.Thread(target=out.backward)
    thread.start()
    thread.join()
    counts = diagnostics(reset=True)["kernel_calls"]
    assert counts == ({"gains": 1, "synthesis": 1} if route.kernels else {})


# --- transforms -------------------------------------------------------------------------------------------------------


def test_vmap_folds_signals(route: Route) -> None:
    x, window, basis = on(route, *factors())
    many = torch.stack([x, 2 * x, -x], 1)
    got = torch.vmap(lambda x: bands(x, window, basis, *numbers()), in_dims=1)(many)
    expected = torch.stack([bands(one, window, basis, *numbers()) for one in many.unbind(1)])
    assert cases.relative(got, expected) < 1e-6


def test_vmap_over_windows_and_banks() -> None:
    x, window, basis = factors()
    windows, banks = torch.stack([window, window.flip(0), window**2]), torch.stack([basis, 2 * basis, basis.flip(0)])
    got = torch.vmap(lambda w, b: bands(x, w, b, *numbers()))(windows, banks)
    expected = torch.stack([by_torch(x, w, b, *numbers()) for w, b in zip(windows, banks)])
    assert cases.relative(got, expected) < 1e-12


def test_gradients_per_example(route: Route) -> None:
    x, window, basis = on(route, *factors())

    def loss(x: Tensor, basis: Tensor) -> Tensor:
        return bands(x[None], window, basis, *numbers(mode="add")).square().sum()

    got = torch.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(0, None))(x, basis)
    for place, which in enumerate(("x", "basis")):
        one_by_one = torch.stack([torch.func.grad(loss, argnums=place)(one, basis) for one in x])
        assert cases.relative(got[place], one_by_one) < 1e-5, which
    leaf = x[0].cpu().double().requires_grad_()
    by_torch(leaf[None], window.cpu().double(), basis.cpu().double(), *numbers(mode="add")).square().sum().backward()
    assert cases.relative(got[0][0], leaf.grad) < 1e-5


def test_forward_mode_takes_torch(route: Route) -> None:
    x, window, basis = on(route, *factors())
    tangent = torch.ones_like(x)
    diagnostics(reset=True)
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(bands(forward_ad.make_dual(x, tangent), window, basis, *numbers(mode="add")))
    assert diagnostics(reset=True)["torch_route"] == {"forward-mode differentiation": 1}
    step = 1e-6
    wide = [tensor.cpu().double() for tensor in (x, window, basis)]
    ahead = by_torch(wide[0] + step, wide[1], wide[2], *numbers(mode="add"))
    behind = by_torch(wide[0] - step, wide[1], wide[2], *numbers(mode="add"))
    assert cases.relative(out.tangent, (ahead - behind) / (2 * step)) < 1e-4
    _, pushed = torch.func.jvp(lambda x: bands(x, window, basis, *numbers(mode="add")), (x,), (tangent,))
    assert cases.relative(pushed, out.tangent) < 1e-5


def test_autocast_computes_in_float32() -> None:
    x, window, basis = [tensor.float() for tensor in factors()]
    x.requires_grad_()
    plain = bands(x, window, basis, *numbers(mode="clamp"))
    (expected,) = torch.autograd.grad(plain.sum(), x)
    for halved in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = bands(x.bfloat16() if halved else x, window, basis, *numbers(mode="clamp"))
            assert got.dtype == torch.float32
            if not halved:
                assert torch.equal(got, plain)
                assert torch.equal(torch.autograd.grad(got.sum(), x)[0], expected)


@pytest.mark.parametrize("needed", [(True, False, False), (False, False, True), (True, True, True)], ids=str)
def test_what_the_dispatcher_is_told_holds(needed: tuple[bool, ...]) -> None:
    tensors = [tensor.float().requires_grad_(need) for tensor, need in zip(factors(length=200), needed)]
    torch.library.opcheck(bands.default, (*tensors, *numbers(length=200, mode="clamp")))
    tensors = [tensor.detach() for tensor in tensors]
    rest = numbers(length=200, mode="clamp")
    grad = torch.rand(3, 7, rest[4])
    for wrt in ("x", "window", "basis"):
        torch.library.opcheck(torch.ops.mps_spectro.bands_backward.default, (grad, *tensors, *rest, wrt))


def test_compiled_with_gradients(route: Route) -> None:
    if route.name == "mps":
        pytest.skip("the compiler does not know the simulated device")
    tensors = on(route, *factors())
    rest = numbers(mode="clamp")
    compiled = torch.compile(lambda *t: bands(*t, *rest), fullgraph=True, backend="aot_eager")
    assert cases.absolute(compiled(*tensors), bands(*tensors, *rest)) < 1e-5
    for got, expected in zip(gradients(lambda *a: compiled(*a[:3]), tensors, rest), gradients(bands, tensors, rest)):
        assert cases.relative(got, expected) < 1e-6


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "error", "words"),
    [
        (0, torch.zeros(407), ValueError, r"x must be \(B, T\)"),
        (1, torch.ones(63), ValueError, "window must have n_fft = 64 entries"),
        (1, torch.ones(64, dtype=torch.float64), TypeError, "one dtype and device"),
        (2, torch.ones(7, 32), ValueError, r"basis must be \(n_bands, 33\)"),
        (2, torch.ones(33), ValueError, r"basis must be \(n_bands, 33\)"),
        (2, torch.ones(7, 33, dtype=torch.float64), TypeError, "basis must be like the signal"),
        (4, 0, ValueError, "hop_length must be positive"),
        (6, "mirror", ValueError, "pad_mode must be one of"),
        (9, 0.0, ValueError, "power must be positive"),
        (12, "sqrt", ValueError, "mode must be one of linear, clamp, add, log1p"),
    ],
)
def test_bad_arguments(place: int, value: Any, error: type[Exception], words: str) -> None:
    arguments = [*(tensor.float() for tensor in factors()), *numbers()]
    arguments[place] = value
    for backend in ("torch", "auto"):
        with use_backend(backend), pytest.raises(error, match=words):
            bands(*arguments)


def test_the_reference_is_the_definition() -> None:
    for power in POWERS:
        for mode in MODES:
            tensors, rest = factors(), numbers(power=power, mode=mode)
            assert cases.relative(reference(*tensors, *rest), by_torch(*tensors, *rest)) < 1e-12


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("mode", ["clamp", "add", "log1p"])
def test_nan_stays_nan(route: Route, mode: str, power: float) -> None:
    x, window, basis = on(route, *factors())
    x[0, 0] = float("nan")
    assert bands(x, window, basis, *numbers(mode=mode, power=(power, 0.0, False)))[0].isnan().any()
