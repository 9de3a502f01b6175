"""The ops as the dispatcher, autograd, torch.func, autocast and torch.compile see them, and their kernels."""

from __future__ import annotations

import itertools
import warnings
from typing import Any, Callable, Iterator

import pytest
import torch
from conftest import Route
from threads import in_threads
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from mps_spectro import _envelope, _implementation, _kernels, _ops, _reference, _route, diagnostics, use_backend
from mps_spectro._runtime import RuntimeUnavailable

OPS = torch.ops.mps_spectro
Op = Callable[..., Tensor]


class Case:
    """Arguments of one trilinear form, in float64 on the CPU unless said otherwise."""

    def __init__(
        self,
        n_fft: int = 6,
        hop: int = 2,
        pad_mode: str = "reflect",
        length: int = 11,
        offset: int | None = None,
        hermitian: bool = False,
        with_env: bool = False,
        batch: int = 2,
        scale: float = 0.7,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> None:
        offset = n_fft // 2 if offset is None else offset
        self.n_frames = (length + 2 * offset - n_fft) // hop + 1
        self.length = length
        self.shape = (n_fft, hop, offset, pad_mode)
        self.end = (scale, hermitian)
        self.name = f"{self.shape} T={length} hermitian={hermitian} env={with_env}"
        random = torch.Generator().manual_seed(n_fft * 1000 + hop)

        def draw(*size: int) -> Tensor:
            return torch.randn(*size, generator=random, dtype=torch.float64).to(dtype).to(device)

        self.x = draw(batch, length)
        self.window = draw(n_fft)
        self.spec = draw(batch, n_fft // 2 + 1, self.n_frames, 2)
        self.env = None
        if with_env:
            self.env = _envelope.reciprocal_envelope(self.window.abs() + 0.1, n_fft, hop, self.n_frames)

    def analysis(self, x: Tensor, window: Tensor, op: Op = OPS.analysis) -> Tensor:
        return op(x, window, self.env, *self.shape, self.n_frames, *self.end)

    def synthesis(self, spec: Tensor, window: Tensor, op: Op = OPS.synthesis) -> Tensor:
        return op(spec, window, self.env, *self.shape, self.length, *self.end)

    def correlate(self, x: Tensor, spec: Tensor, op: Op = OPS.correlate) -> Tensor:
        return op(x, spec, self.env, *self.shape, *self.end)

    def calls(self) -> list[tuple[str, Callable[..., Tensor], tuple[Tensor, Tensor]]]:
        """Each op by name, as a function of its two factors, and those."""
        return [
            ("analysis", self.analysis, (self.x, self.window)),
            ("synthesis", self.synthesis, (self.spec, self.window)),
            ("correlate", self.correlate, (self.x, self.spec)),
        ]


NAMES = ("analysis", "synthesis", "correlate")
REFERENCE = {name: getattr(_reference, name) for name in NAMES}
SMALL = [
    dict(length=8),
    dict(n_fft=5, hop=3, pad_mode="circular", hermitian=True, length=8, batch=1),
    dict(n_fft=4, hop=1, pad_mode="replicate", length=4, batch=1),
    dict(n_fft=3, hop=5, pad_mode="constant", length=14, hermitian=True, batch=1),  # gaps between frames
    dict(n_fft=4, hop=2, pad_mode="constant", length=12, with_env=True, hermitian=True, batch=1),  # compact table
    dict(n_fft=4, hop=3, pad_mode="constant", offset=0, length=11, with_env=True, batch=1),  # dense table
    dict(n_fft=1, hop=1, pad_mode="reflect", length=3),
    dict(n_fft=2, hop=1, pad_mode="reflect", length=3, hermitian=True, batch=1),
]


def ids(case: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in case.items()) or "default"


def call(case: Case, name: str) -> tuple[Callable[..., Tensor], tuple[Tensor, Tensor]]:
    return next((f, factors) for known, f, factors in case.calls() if known == name)


def reference(case: Case, name: str) -> Callable[..., Tensor]:
    return lambda *factors: getattr(case, name)(*factors, op=REFERENCE[name])


def close(got: Any, expected: Any, where: object, **tolerance: float) -> None:
    torch.testing.assert_close(got, expected, **tolerance, msg=lambda message: f"{where}: {message}")


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad_mode", _reference.PAD_MODES)
@pytest.mark.parametrize("center", [True, False])
def test_analysis_is_torch_stft(pad_mode: str, center: bool) -> None:
    for n_fft, hop, length in itertools.product((1, 2, 3, 7, 16, 321), (1, 5, 16, 400), (400, 701)):
        x = torch.randn(2, length, dtype=torch.float64)
        window = torch.rand(n_fft, dtype=torch.float64)
        kwargs = dict(window=window, center=center, pad_mode=pad_mode, return_complex=True)
        expected = torch.view_as_real(torch.stft(x, n_fft, hop, **kwargs))
        offset = n_fft // 2 if center else 0
        got = OPS.analysis(x, window, None, n_fft, hop, offset, pad_mode, expected.shape[2], 1.0, False)
        close(got, expected, (n_fft, hop, length), rtol=0, atol=1e-12)
        assert got.stride() == expected.stride()


def test_synthesis_is_torch_istft() -> None:
    for n_fft, hop, n_frames in itertools.product((2, 3, 8, 321), (1, 2, 80), (2, 3, 9, 40)):
        if hop > n_fft:
            continue
        spec = torch.randn(2, n_fft // 2 + 1, n_frames, dtype=torch.complex128)
        window = torch.rand(n_fft, dtype=torch.float64) + 0.1
        expected = torch.istft(spec, n_fft, hop, window=window, center=False)
        env = _envelope.reciprocal_envelope(window, n_fft, hop, n_frames)
        length = expected.shape[1]
        got = OPS.synthesis(torch.view_as_real(spec), window, env, n_fft, hop, 0, "constant", length, 1.0 / n_fft, True)
        close(got, expected, (n_fft, hop, n_frames), rtol=0, atol=1e-11)


def test_imaginary_parts_of_dc_and_nyquist_do_not_count(route: Route) -> None:
    for n_fft in (8, 9):
        case = Case(n_fft=n_fft, dtype=torch.float32, device=route.device)
        changed = case.spec.clone()
        changed[:, 0, :, 1] += 3.0
        if n_fft % 2 == 0:
            changed[:, -1, :, 1] -= 5.0
        torch.testing.assert_close(case.synthesis(changed, case.window), case.synthesis(case.spec, case.window))
        torch.testing.assert_close(case.correlate(case.x, changed), case.correlate(case.x, case.spec))


def random_cases(count: int) -> Iterator[Case]:
    random = torch.Generator().manual_seed(7)

    def pick(*choices: Any) -> Any:
        return choices[int(torch.randint(len(choices), (1,), generator=random))]

    for _ in range(count):
        n_fft = pick(1, 2, 3, 4, 5, 8, 12, 17, 30, 64, 70)
        yield Case(
            n_fft=n_fft,
            hop=pick(1, 2, 3, 7, 16, 64, 100),
            pad_mode=pick(*_reference.PAD_MODES),
            length=pick(71, 72, 100, 301),
            offset=pick(0, n_fft // 2),
            hermitian=pick(True, False),
            with_env=pick(True, False),
            batch=pick(1, 3),
        )


def test_three_ops_are_one_trilinear_form() -> None:
    for case in random_cases(300):
        bins = case.analysis(case.x, case.window)
        forms = [
            (bins * case.spec).sum(),
            (case.synthesis(case.spec, case.window) * case.x).sum(),
            (case.correlate(case.x, case.spec) * case.window).sum(),
        ]
        scale = bins.norm() * case.spec.norm() + 1e-30
        assert abs(forms[0] - forms[1]) / scale < 1e-13, case.name
        assert abs(forms[0] - forms[2]) / scale < 1e-13, case.name


# --- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kwargs", SMALL, ids=ids)
def test_gradients(name: str, kwargs: dict[str, Any]) -> None:
    function, factors = call(Case(**kwargs), name)
    inputs = [factor.requires_grad_() for factor in factors]
    assert gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(function, inputs, fast_mode=True, check_fwd_over_rev=True)


class Recorder(TorchDispatchMode):
    """Names of the package's ops that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "mps_spectro":
            self.names.append(func._opname)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("analysis", "synthesis", "correlate"),
        ("synthesis", "analysis", "correlate"),
        ("correlate", "synthesis", "analysis"),
    ],
)
def test_only_gradients_asked_for_are_computed(name: str, first: str, second: str) -> None:
    function, (a, b) = call(Case(), name)
    for needs, expected in (((True, False), [first]), ((False, True), [second]), ((True, True), [first, second])):
        out = function(a.clone().requires_grad_(needs[0]), b.clone().requires_grad_(needs[1]))
        with Recorder() as recorder:
            out.sum().backward()
        assert recorder.names == expected


def test_no_signal_is_kept_unless_the_window_requires_grad() -> None:
    case = Case()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        case.analysis(case.x.clone().requires_grad_(), case.window)
    assert [tuple(t.shape) for t in kept] == [tuple(case.window.shape)]


def test_no_grad_output_has_no_history() -> None:
    case = Case()
    x = case.x.requires_grad_()
    with torch.no_grad():
        out = _ops.call_analysis(x, case.window, None, *case.shape, case.n_frames, *case.end)
    assert out.grad_fn is None and not out.requires_grad
    out = _ops.call_analysis(x, case.window, None, *case.shape, case.n_frames, *case.end)
    assert out.requires_grad


def test_dual_tensors_keep_their_tangents() -> None:
    case = Case()
    for name, function, factors in case.calls():
        tangents = [torch.randn_like(factor) for factor in factors]
        _, expected = torch.autograd.functional.jvp(reference(case, name), factors, tuple(tangents))
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(f, t) for f, t in zip(factors, tangents)]
            tangent = forward_ad.unpack_dual(function(*duals)).tangent
        close(tangent, expected, name)


@pytest.mark.parametrize("name", NAMES)
def test_torch_func(name: str) -> None:
    case = Case()
    function, factors = call(case, name)
    plain = reference(case, name)
    tangents = tuple(torch.randn_like(factor) for factor in factors)

    def loss(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *arguments: f(*arguments).pow(3).sum()

    def same(transform: Callable[[Callable[..., Tensor]], Any]) -> None:
        torch.testing.assert_close(transform(function), transform(plain))

    same(lambda f: torch.func.grad(loss(f), argnums=(0, 1))(*factors))
    same(lambda f: torch.func.jvp(f, factors, tangents))
    same(lambda f: torch.func.vjp(f, *factors)[1](plain(*factors)))
    same(lambda f: torch.func.jacrev(f, argnums=(0, 1))(*factors))
    same(lambda f: torch.func.jacfwd(f, argnums=(0, 1))(*factors))
    same(lambda f: torch.func.hessian(loss(f), argnums=(0, 1))(*factors))
    same(lambda f: torch.func.grad(lambda *a: loss(torch.func.grad(loss(f)))(*a))(*factors))
    same(lambda f: torch.func.jacrev(torch.func.jacrev(loss(f), argnums=1), argnums=0)(*factors))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dims", [(0, None), (None, 0), (1, 0), (-1, -1)])
def test_vmap(name: str, dims: tuple[int | None, int | None]) -> None:
    case = Case()
    function, factors = call(case, name)
    plain = reference(case, name)
    mapped = tuple(
        factor if dim is None else torch.stack([factor, 2 * factor, -factor.flip(0)], dim)
        for factor, dim in zip(factors, dims)
    )
    columns = [[f] * 3 if dim is None else f.unbind(dim) for f, dim in zip(mapped, dims)]
    expected = torch.stack([plain(*pair) for pair in zip(*columns)])
    torch.testing.assert_close(torch.vmap(function, dims)(*mapped), expected)

    tangents = tuple(torch.randn_like(factor) for factor in mapped)
    torch.testing.assert_close(
        torch.func.jvp(torch.vmap(function, dims), mapped, tangents),
        torch.func.jvp(torch.vmap(plain, dims), mapped, tangents),
    )

    def slope(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.vmap(torch.func.grad(lambda *a: f(*a).pow(2).sum(), argnums=(0, 1)), dims)

    torch.testing.assert_close(slope(function)(*mapped), slope(plain)(*mapped))
    forward = torch.vmap(lambda *a: torch.func.jvp(function, a, a)[1], dims)(*mapped)
    torch.testing.assert_close(forward, torch.vmap(lambda *a: torch.func.jvp(plain, a, a)[1], dims)(*mapped))


def test_vmap_over_the_table() -> None:
    case = Case(with_env=True)
    envs = torch.stack([case.env, 3 * case.env])
    got = torch.vmap(lambda env: OPS.synthesis(case.spec, case.window, env, *case.shape, 11, *case.end))(envs)
    torch.testing.assert_close(got[1], 3 * case.synthesis(case.spec, case.window))


# --- registrations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(name: str, requires_grad: bool, route: Route) -> None:
    checks = ["test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"]
    if route.device == "mps":
        checks.remove("test_autograd_registration")  # torch has not written it for MPS
    dtype = torch.float32 if route.kernels else torch.float64
    with_env = dict(n_fft=5, with_env=True, pad_mode="constant")
    for kwargs in (dict(), with_env, dict(n_fft=4, hop=9, pad_mode="circular")):
        case = Case(**kwargs, dtype=dtype, device=route.device)
        _, factors = call(case, name)
        middle = {"analysis": (case.n_frames,), "synthesis": (case.length,), "correlate": ()}[name]
        inputs = [factor.requires_grad_(requires_grad) for factor in factors]
        arguments = (*inputs, case.env, *case.shape, *middle, *case.end)
        torch.library.opcheck(getattr(OPS, name), arguments, test_utils=checks)


@pytest.mark.parametrize("kwargs", [dict(), dict(batch=1), dict(length=6, hop=50), dict(n_fft=1, hop=1)], ids=ids)
def test_fake_and_meta_have_the_strides_of_the_real_thing(kwargs: dict[str, Any], route: Route) -> None:
    case = Case(**kwargs, dtype=torch.float32, device=route.device)
    for name, function, factors in case.calls():
        real = function(*factors)
        with FakeTensorMode() as mode:
            fake = function(*(mode.from_tensor(factor) for factor in factors))
        meta = function(*(factor.to("meta") for factor in factors))
        for other in (fake, meta):
            assert (other.shape, other.stride(), other.dtype) == (real.shape, real.stride(), real.dtype), name
        assert fake.device == real.device


def test_call_helpers_are_seen_by_fake_mode() -> None:
    case = Case()
    with FakeTensorMode() as mode, Recorder() as recorder:
        x, window, spec = map(mode.from_tensor, (case.x, case.window, case.spec))
        _ops.call_analysis(x, window, None, *case.shape, case.n_frames, *case.end)
        out = _ops.call_synthesis(spec, window, None, *case.shape, case.length, *case.end)
    assert recorder.names == ["analysis", "synthesis"]
    assert type(out).__name__ == "FakeTensor" and out.shape == (2, 11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_computes_in_float32(dtype: torch.dtype, route: Route) -> None:
    case = Case(dtype=torch.float32, device=route.device)
    for name, function, factors in case.calls():
        low = [factor.to(dtype) for factor in factors]
        expected = function(*(factor.float() for factor in low))
        with torch.autocast(torch.device(route.device).type, dtype=torch.bfloat16):
            got = function(*low)
            mixed = function(low[0], low[1].float())
        assert got.dtype == torch.float32, name
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(mixed, expected)


def test_autocast_leaves_float64_alone() -> None:
    case = Case()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert case.analysis(case.x, case.window).dtype == torch.float64


def test_half_without_autocast() -> None:
    case = Case(dtype=torch.float16)
    for _, function, factors in case.calls():
        got = function(*factors)
        assert got.dtype == torch.float16
        torch.testing.assert_close(got.float(), function(*(f.float() for f in factors)), rtol=2e-3, atol=2e-3)


# --- compile, inference mode, threads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(dynamic: bool, route: Route) -> None:
    torch._dynamo.reset()
    n_fft, hop = 9, 4

    def roundtrip(x: Tensor, window: Tensor) -> Tensor:
        n_frames = (x.shape[1] + 2 * (n_fft // 2) - n_fft) // hop + 1
        spec = _ops.call_analysis(x, window, None, n_fft, hop, n_fft // 2, "reflect", n_frames, 1.0, False)
        back = _ops.call_synthesis(spec * 2, window, None, n_fft, hop, 4, "constant", x.shape[1], 1.0 / n_fft, True)
        return back.pow(2).sum() + spec.abs().sum()

    compiled = torch.compile(roundtrip, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for batch, length in ((2, 40), (3, 57), (2, 41)):
        case = Case(n_fft=n_fft, hop=hop, length=length, batch=batch, dtype=torch.float32, device=route.device)
        x, window = case.x.requires_grad_(), case.window.requires_grad_()
        if dynamic:
            torch._dynamo.mark_dynamic(x, 0)
            torch._dynamo.mark_dynamic(x, 1)
        loss = compiled(x, window)
        torch.testing.assert_close(loss, roundtrip(x, window))
        got = torch.autograd.grad(loss, (x, window))
        torch.testing.assert_close(got, torch.autograd.grad(roundtrip(x, window), (x, window)))
        with torch.no_grad():
            torch.testing.assert_close(compiled(x, window), roundtrip(x, window))


def test_dynamic_length_does_not_recompile() -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def transform(x: Tensor, window: Tensor) -> Tensor:
        return _ops.call_analysis(x, window, None, 8, 4, 4, "reflect", x.shape[1] // 4 + 1, 1.0, False)

    compiled = torch.compile(transform, backend=counter, fullgraph=True, dynamic=True)
    window = torch.rand(8)
    for length in (40, 57, 64, 101):
        x = torch.randn(2, length)
        torch.testing.assert_close(compiled(x, window), transform(x, window))
    assert counter.frame_count == 1


def test_compile_of_forward_mode() -> None:
    torch._dynamo.reset()
    case = Case()

    def tangent(x: Tensor, v: Tensor) -> Tensor:
        return torch.func.jvp(lambda x: case.analysis(x, case.window), (x,), (v,))[1]

    v = torch.randn_like(case.x)
    compiled = torch.compile(tangent, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(case.x, v), case.analysis(v, case.window))


def test_training_after_inference_mode(route: Route) -> None:
    case = Case(dtype=torch.float32, device=route.device)

    def step(x: Tensor) -> Tensor:
        spec = _ops.call_analysis(x, case.window, None, *case.shape, case.n_frames, *case.end)
        env = _envelope.reciprocal_envelope(case.window, *case.shape[:2], case.n_frames)
        return _ops.call_synthesis(spec, case.window, env, *case.shape, case.length, *case.end)

    with torch.inference_mode():
        first = step(case.x)
        assert first.is_inference()
    x = case.x.clone().requires_grad_()
    second = step(x)
    second.sum().backward()
    torch.testing.assert_close(second.detach(), first.clone())
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_threads_agree(route: Route) -> None:
    case = Case(n_fft=24, hop=6, length=100, dtype=torch.float32, device=route.device)

    def work() -> list[Tensor]:
        x, window = case.x.clone().requires_grad_(), case.window.clone().requires_grad_()
        out = case.analysis(x, window)
        return [out.detach(), *torch.autograd.grad(out.pow(2).sum(), (x, window))]

    expected = work()
    results: list[list[Tensor]] = []

    def run(number: int) -> None:
        with use_backend(route.backend):
            results.append(work())

    in_threads(8, run)
    assert len(results) == 8
    for result in results:
        assert all(torch.equal(a, b) for a, b in zip(result, expected))


# --- kernels against the float64 reference ----------------------------------------------------------------------------

KERNEL_CASES = [
    dict(n_fft=16, hop=4, length=64),
    dict(n_fft=16, hop=4, length=67, pad_mode="circular", hermitian=True),
    dict(n_fft=15, hop=4, length=67, pad_mode="replicate"),
    dict(n_fft=37, hop=11, length=150, pad_mode="reflect", hermitian=True),
    dict(n_fft=12, hop=30, length=150, pad_mode="constant"),
    dict(n_fft=60, hop=15, length=400, pad_mode="constant", with_env=True, hermitian=True),
    dict(n_fft=60, hop=15, length=90, pad_mode="constant", with_env=True, hermitian=True),
    dict(n_fft=64, hop=16, length=300, pad_mode="reflect", offset=0),
    dict(n_fft=2, hop=1, length=9),
    dict(n_fft=1, hop=1, length=9),
]


def relative_error(got: Tensor, expected: Tensor) -> float:
    return ((got.cpu().double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()


@pytest.mark.parametrize("kwargs", KERNEL_CASES, ids=ids)
def test_values_and_gradients_of_every_route(kwargs: dict[str, Any], route: Route) -> None:
    exact = Case(**kwargs)
    case = Case(**kwargs, dtype=torch.float32, device=route.device)
    diagnostics(reset=True)
    for name, function, factors in case.calls():
        leaves = [factor.clone().requires_grad_() for factor in factors]
        # the reference sees the float32 values, so that only arithmetic differs
        exact_leaves = [factor.cpu().double().requires_grad_() for factor in factors]
        exact.env = None if case.env is None else case.env.cpu().double()
        out, expected = function(*leaves), reference(exact, name)(*exact_leaves)
        assert relative_error(out.detach(), expected.detach()) < 1e-6, name
        cotangent = torch.randn_like(expected)
        gradients = torch.autograd.grad(out, leaves, cotangent.to(out), create_graph=True)
        wanted = torch.autograd.grad(expected, exact_leaves, cotangent.float().double(), create_graph=True)
        for got, want in zip(gradients, wanted):
            assert relative_error(got.detach(), want.detach()) < 2e-6, name
        again = torch.autograd.grad(sum(g.pow(2).sum() for g in gradients), leaves)
        wanted = torch.autograd.grad(sum(w.pow(2).sum() for w in wanted), exact_leaves)
        for got, want in zip(again, wanted):
            assert relative_error(got, want) < 1e-5, name
    counts = diagnostics()["backend_calls"]
    assert set(counts) == ({route.backend} if route.kernels else {"torch"})


def test_views_of_any_strides(route: Route) -> None:
    case = Case(n_fft=16, hop=4, length=64, dtype=torch.float32, device=route.device)
    for name, function, (first, second) in case.calls():
        expected = function(first, second)
        for dim in range(first.dim()):
            wide = first.new_full([size * 2 + 1 for size in first.shape], float("nan"))
            view = wide[tuple(slice(1, None, 2) for _ in first.shape)]
            view.copy_(first)
            flipped = first.transpose(0, dim).contiguous().transpose(0, dim)
            for odd in (view, flipped):
                close(function(odd, second), expected, name)
        sparse = second.new_full((*second.shape[:-1], second.shape[-1] * 3), float("nan"))[..., ::3]
        sparse.copy_(second)
        close(function(first, sparse), expected, name)
        negated = torch._neg_view(-first)
        assert negated.is_neg()
        close(function(negated, second), expected, name)


def test_empty_batch(route: Route) -> None:
    case = Case(batch=0, dtype=torch.float32, device=route.device)
    assert case.analysis(case.x, case.window).shape == (0, 4, case.n_frames, 2)
    assert case.synthesis(case.spec, case.window).shape == (0, 11)
    assert case.correlate(case.x, case.spec).abs().sum() == 0


# --- refusals and fallbacks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (dict(window=torch.zeros(5)), ValueError, "n_fft = 6 entries"),
        (dict(window=torch.zeros(6, dtype=torch.float64)), TypeError, "one dtype"),
        (dict(x=torch.zeros(20)), ValueError, r"\(B, T\)"),
        (dict(env=torch.zeros(5)), ValueError, "env must have 14 entries"),
        (dict(env=torch.zeros(14, dtype=torch.float64)), TypeError, "env must be like"),
        (dict(n_fft=0), ValueError, "n_fft and hop_length"),
        (dict(hop=0), ValueError, "n_fft and hop_length"),
        (dict(offset=-1), ValueError, "negative"),
        (dict(n_frames=-1), ValueError, "negative"),
        (dict(pad_mode="mirror"), ValueError, "constant, reflect, replicate, circular"),
        (dict(x=torch.zeros(2, 3)), ValueError, "cannot pad a signal of 3 samples"),
        (dict(x=torch.zeros(2, 2), pad_mode="circular"), ValueError, "cannot pad a signal of 2 samples"),
        (dict(x=torch.zeros(2, 0), pad_mode="replicate"), ValueError, "cannot pad a signal of 0 samples"),
    ],
)
def test_bad_arguments_never_reach_memory(
    change: dict[str, Any], error: type[Exception], text: str, route: Route
) -> None:
    arguments: dict[str, Any] = dict(
        x=torch.zeros(2, 11), window=torch.zeros(6), env=None, n_fft=6, hop=2, offset=3, pad_mode="reflect", n_frames=5
    )
    arguments.update(change)
    values = [v.to(route.device) if isinstance(v, Tensor) and route.device != "mps" else v for v in arguments.values()]
    if route.device == "mps":
        values = [v.float().to("mps") if isinstance(v, Tensor) else v for v in arguments.values()]
        if error is TypeError:
            pytest.skip("no float64 on the device")
    with pytest.raises(error, match=text):
        OPS.analysis(*values, 1.0, False)


def test_synthesis_refuses_a_wrong_number_of_bins() -> None:
    with pytest.raises(ValueError, match=r"spec must be \(B, 4, n_frames, 2\)"):
        OPS.synthesis(torch.zeros(1, 5, 3, 2), torch.zeros(6), None, 6, 2, 3, "reflect", 8, 1.0, False)


@pytest.fixture
def fresh_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_route, "_broken", {})
    monkeypatch.setattr(_route, "_self_tested", set())


def pretend_cpu_is(backend: str, monkeypatch: pytest.MonkeyPatch, **kernels: Callable[..., Tensor]) -> None:
    monkeypatch.setattr(_route._backend, "select", lambda device_type: backend)
    for name, kernel in kernels.items():
        monkeypatch.setitem(_route._KERNELS, name, kernel)


def by_reference(name: str) -> Callable[..., Tensor]:
    return lambda backend, *arguments: REFERENCE[name](*arguments)


def unavailable(*arguments: Any) -> Tensor:
    raise RuntimeUnavailable("no compiler here")


def test_runtime_that_is_missing_warns_once(fresh_route: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cpu_is("cuda", monkeypatch, analysis=unavailable)
    case = Case(dtype=torch.float32)
    diagnostics(reset=True)
    with pytest.warns(RuntimeWarning, match="no compiler here") as caught:
        got = [case.analysis(case.x, case.window) for _ in range(3)]
    assert len(caught) == 1
    torch.testing.assert_close(got[2], reference(case, "analysis")(case.x, case.window))
    assert diagnostics()["torch_route"] == {"cuda unavailable": 3}


def test_runtime_that_is_missing_is_an_error_when_named(fresh_route: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cpu_is("host", monkeypatch, synthesis=unavailable)
    case = Case(dtype=torch.float32)
    with use_backend("host"):
        for _ in range(2):
            with pytest.raises(RuntimeUnavailable, match="no compiler here"):
                case.synthesis(case.spec, case.window)


@pytest.mark.parametrize("wrong", NAMES[:2])
def test_device_that_miscomputes_falls_back(wrong: str, fresh_route: None, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = {name: by_reference(name) for name in NAMES[:2]}
    right = kernels[wrong]
    kernels[wrong] = lambda *arguments: right(*arguments) * 1.001
    pretend_cpu_is("metal", monkeypatch, **kernels)
    case = Case(dtype=torch.float32)
    with pytest.warns(RuntimeWarning, match=f"{wrong} is off by") as caught:
        got = [case.analysis(case.x, case.window) for _ in range(2)]
    assert len(caught) == 1
    torch.testing.assert_close(got[1], reference(case, "analysis")(case.x, case.window), rtol=0, atol=0)


def test_self_test_runs_once(fresh_route: None, monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[str] = []

    def counted(name: str) -> Callable[..., Tensor]:
        return lambda *arguments: launches.append(name) or by_reference(name)(*arguments)

    pretend_cpu_is("metal", monkeypatch, **{name: counted(name) for name in NAMES[:2]})
    case = Case(dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        case.analysis(case.x, case.window)
        case.analysis(case.x, case.window)
    assert launches == ["analysis", "synthesis", "analysis", "analysis"]


def test_backward_takes_the_backend_of_forward(route: Route) -> None:
    case = Case(dtype=torch.float32, device=route.device)
    x = case.x.requires_grad_()
    out = case.analysis(x, case.window)
    diagnostics(reset=True)
    with use_backend("auto" if route.backend == "torch" else "torch"):
        out.sum().backward()
    assert set(diagnostics()["backend_calls"]) == {route.backend}


def test_padding_no_kernel_defines_takes_the_torch_route(route: Route) -> None:
    x = torch.randn(2, 20, device=route.device)
    window = torch.rand(8, device=route.device)
    diagnostics(reset=True)
    got = OPS.analysis(x, window, None, 8, 4, 0, "reflect", 5, 1.0, False)
    expected = _reference.analysis(x.cpu(), window.cpu(), None, 8, 4, 0, "reflect", 5, 1.0, False)
    torch.testing.assert_close(got.cpu(), expected)
    assert "kernel" not in str(diagnostics()["torch_route"]) and not diagnostics()["kernel_calls"]


def test_float64_takes_the_torch_route_on_kernel_backends() -> None:
    case = Case()
    diagnostics(reset=True)
    with use_backend("host"):
        torch.testing.assert_close(
            case.analysis(case.x, case.window),
            _implementation._reference.analysis(case.x, case.window, None, *case.shape, case.n_frames, *case.end),
        )
    assert diagnostics()["torch_route"] == {_kernels.refusal(torch.float64, 6, 2): 1}
