"""Under patch_torch() everything is torch's: results, strides, errors, overrides, scripting, export, compilation."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any, Callable

import numpy as np
import pytest
import torch
from parity import FORWARD, GRADIENT, Case, cases, error, strides, torch_istft, torch_stft, wide
from test_istft import inverse_cases, options_of, quiet
from threads import in_threads
from torch import Tensor

import mps_spectro
from mps_spectro.patch import patch_torch

ORIGINALS = (torch.stft, torch.istft, torch.functional.stft, torch.functional.istft)


@pytest.fixture(autouse=True)
def torch_restored() -> Any:
    yield
    assert (torch.stft, torch.istft, torch.functional.stft, torch.functional.istft) == ORIGINALS


@pytest.fixture
def patched(route: Any) -> Any:
    with patch_torch():
        mps_spectro.diagnostics(reset=True)
        yield route


def routes() -> dict[str, int]:
    return mps_spectro.diagnostics()["torch_route"]


# --- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("return_complex", [True, False])
@pytest.mark.parametrize("case", cases(38, seed=6), ids=str)
def test_stft(patched: Any, case: Case, return_complex: bool) -> None:
    x, window = case.signal(), case.window()
    options = {**case.stft, "return_complex": return_complex}
    got = torch.stft(x.to(patched.device), window=window.to(patched.device), **options)
    native = torch_stft(x, window=window, **options)
    assert (got.dtype, got.shape, strides(got)) == (native.dtype, native.shape, strides(native))
    assert error(got, torch_stft(wide(x), window=wide(window), **options)) <= FORWARD
    if patched.kernels:
        assert routes() == {}


@pytest.mark.parametrize("case, part", inverse_cases(38, seed=7), ids=str)
def test_istft(patched: Any, case: Case, part: float | None) -> None:
    spectrum, window = case.spectrum(), case.window()
    options = options_of(case, spectrum, part)
    got = quiet(torch.istft, spectrum.to(patched.device), window=window.to(patched.device), **options)
    native = quiet(torch_istft, spectrum, window=window, **options)
    expected = quiet(torch_istft, wide(spectrum), window=wide(window), **options)
    assert (got.dtype, got.shape, strides(got)) == (native.dtype, native.shape, strides(native))
    assert error(got, expected) <= max(FORWARD, 1.5 * error(native, expected))
    if patched.kernels:
        assert routes() == {}


def test_every_name_is_patched(patched: Any) -> None:
    x, window = torch.randn(2, 200, device=patched.device), torch.hann_window(16).to(patched.device)
    spectrum = torch.stft(x, 16, window=window, return_complex=True)
    for got in (
        torch.functional.stft(x, 16, window=window, return_complex=True),
        x.stft(16, window=window, return_complex=True),
        torch.stft(x, 16, 4, 16, window, True, "reflect", False, True, True),
        torch.stft(input=x, n_fft=16, window=window, return_complex=True),
    ):
        assert torch.equal(got, spectrum)
    signal = torch.istft(spectrum, 16, window=window)
    for got in (
        torch.functional.istft(spectrum, 16, window=window),
        spectrum.istft(16, window=window),
        torch.istft(spectrum, 16, 4, 16, window, True, False, True, None, False),
    ):
        assert torch.equal(got, signal)
    if patched.kernels:
        calls = mps_spectro.diagnostics()
        assert calls["kernel_calls"] == {"analysis": 5, "synthesis": 4} and calls["torch_route"] == {}


def test_missing_window_is_rectangular(patched: Any) -> None:
    x = torch.randn(2, 200)
    options = {"n_fft": 16, "hop_length": 4, "win_length": 11}
    got = torch.stft(x.to(patched.device), return_complex=True, **options)
    assert error(got, torch_stft(wide(x), return_complex=True, **options)) <= FORWARD
    got = torch.istft(got, length=150, **options)
    assert error(got, wide(x[:, :150])) <= 2 * FORWARD


def test_numpy_integers(patched: Any) -> None:
    x, window = torch.randn(200), torch.hann_window(16)
    got = torch.stft(
        x.to(patched.device), np.int64(16), np.int32(4), window=window.to(patched.device), return_complex=True
    )
    assert error(got, torch_stft(wide(x), 16, 4, window=wide(window), return_complex=True)) <= FORWARD


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_window_promotes(patched: Any, dtype: torch.dtype) -> None:
    x, window = torch.randn(2, 200), torch.hann_window(16).to(dtype)
    got = torch.stft(x.to(patched.device), 16, window=window.to(patched.device), return_complex=True)
    assert got.dtype == torch.complex64
    assert error(got, torch_stft(wide(x), 16, window=wide(window), return_complex=True)) <= FORWARD


def test_what_kernels_do_not_cover_goes_to_torch(patched: Any) -> None:
    if not patched.kernels:
        pytest.skip("everything goes to torch on this route")
    x, window = torch.randn(2, 200, device=patched.device), torch.hann_window(16).to(patched.device)
    spectrum = torch_stft(x.cpu(), 16, window=window.cpu(), return_complex=True).to(patched.device)
    calls: list[tuple[str, Callable[[], Tensor]]] = [
        ("torch.complex64 signal", lambda: torch.stft(x.to(torch.complex64), 16, window=window)),
        ("window in another dtype", lambda: torch.stft(x, 16, window=window.to(torch.complex64), return_complex=True)),
        ("window in another dtype", lambda: torch.istft(spectrum, 16, window=window.half())),
        (
            "complex signal",
            lambda: torch.istft(
                torch.cat([spectrum, spectrum[:, 1:8]], 1), 16, window=window, onesided=False, return_complex=True
            ),
        ),
    ]
    if patched.float64:
        calls.append(
            ("torch.float64 signal", lambda: torch.stft(x.double(), 16, window=window.double(), return_complex=True))
        )
    for reason, call in calls:
        mps_spectro.diagnostics(reset=True)
        call()
        assert routes() == {reason: 1}


@pytest.mark.parametrize("onesided", [True, False])
def test_gradients(patched: Any, onesided: bool) -> None:
    x, window = torch.randn(1, 100), torch.rand(16) + 0.2
    leaves = [t.to(patched.device).requires_grad_() for t in (x, window)]
    doubles = [wide(t).requires_grad_() for t in (x, window)]
    found = []
    for stft, istft, (signal, w) in ((torch.stft, torch.istft, leaves), (torch_stft, torch_istft, doubles)):
        spectrum = stft(signal, 16, window=w, onesided=onesided, return_complex=True)
        back = istft(spectrum * (1 + spectrum.abs()), 16, window=w, length=90, onesided=onesided)
        found.append(torch.autograd.grad(back.pow(3).sum(), (signal, w)))
    for got, expected in zip(*found):
        assert error(got, expected) <= 2 * GRADIENT


def test_window_without_overlap_is_torchs_error(patched: Any) -> None:
    spectrum = torch.randn(2, 9, 12, dtype=torch.complex64, device=patched.device)
    window = torch.hann_window(16).to(patched.device)
    with pytest.raises(RuntimeError, match="window overlap add min"):
        torch.istft(spectrum, 16, window=window, center=False)


def test_forward_mode(patched: Any) -> None:
    x, direction = torch.randn(2, 200), torch.randn(2, 200)
    window = torch.hann_window(16)
    device_window = window.to(patched.device)
    _, tangent = torch.func.jvp(
        lambda t: torch.view_as_real(torch.stft(t, 16, window=device_window, return_complex=True)),
        (x.to(patched.device),),
        (direction.to(patched.device),),
    )
    expected = torch.view_as_real(torch_stft(wide(direction), 16, window=wide(window), return_complex=True))
    assert error(tangent, expected) <= FORWARD


def test_vmap(patched: Any) -> None:
    x, window = torch.randn(4, 90), torch.hann_window(16)
    device_window = window.to(patched.device)

    def round_trip(signal: Tensor) -> Tensor:
        spectrum = torch.stft(signal, 16, window=device_window, return_complex=True)
        return torch.istft(spectrum, 16, window=device_window, length=90)

    assert error(torch.func.vmap(round_trip)(x.to(patched.device)), wide(x)) <= 2 * FORWARD


# --- overrides -------------------------------------------------------------------------------------------------------


class Recorder(Tensor):
    seen: list[str] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_subclasses_see_the_call_once(patched: Any) -> None:
    x = torch.randn(2, 200, device=patched.device).as_subclass(Recorder)
    window = torch.hann_window(16).to(patched.device)
    Recorder.seen.clear()
    spectrum = torch.stft(x, 16, window=window, return_complex=True)
    assert type(spectrum) is Recorder and Recorder.seen == ["stft"]
    Recorder.seen.clear()
    signal = torch.istft(spectrum, 16, window=window)
    assert type(signal) is Recorder and Recorder.seen == ["istft"]


def test_subclass_that_asks_for_torch_stft(patched: Any) -> None:
    class Answering(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return {torch.stft: "stft", torch.istft: "istft"}.get(func) or super().__torch_function__(
                func, types, args, kwargs or {}
            )

    x = torch.randn(200, device=patched.device).as_subclass(Answering)
    assert torch.stft(x, 16, return_complex=True) == "stft" and torch.istft(x, 16) == "istft"


def test_function_modes_see_the_call(patched: Any) -> None:
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(getattr(func, "__name__", ""))
            return func(*args, **(kwargs or {}))

    x, window = torch.randn(200, device=patched.device), torch.hann_window(16).to(patched.device)
    with Mode():
        spectrum = torch.stft(x, 16, window=window, return_complex=True)
        torch.istft(spectrum, 16, window=window)
    assert seen.count("stft") == 1 and seen.count("istft") == 1


def test_default_device_does_not_slow_the_calls(patched: Any) -> None:
    x, window = torch.randn(200, device=patched.device), torch.hann_window(16).to(patched.device)
    with torch.device(patched.device):
        spectrum = torch.stft(x, 16, window=window, return_complex=True)
        torch.istft(spectrum, 16, window=window)
    if patched.kernels:
        assert routes() == {}


def test_dispatch_modes_see_the_ops(patched: Any) -> None:
    seen = []

    class Mode(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    x, window = torch.randn(200, device=patched.device), torch.hann_window(16).to(patched.device)
    with Mode():
        spectrum = torch.stft(x, 16, window=window, return_complex=True)
        signal = torch.istft(spectrum, 16, window=window)
    assert error(signal, wide(x)) <= 2 * FORWARD
    if patched.kernels:
        assert any("mps_spectro.analysis" in name for name in seen)
        assert any("mps_spectro.synthesis" in name for name in seen)


# --- putting in and taking out ---------------------------------------------------------------------------------------


def test_undo_in_any_order_and_repeatedly() -> None:
    first, second, third = patch_torch(), patch_torch(), patch_torch()
    assert torch.stft is not ORIGINALS[0]
    for handle in (second, first, second):
        handle.undo()
        assert torch.stft is not ORIGINALS[0] and torch.functional.istft is not ORIGINALS[3]
    third.undo()
    assert (torch.stft, torch.istft, torch.functional.stft, torch.functional.istft) == ORIGINALS
    third.undo()
    assert torch.stft is ORIGINALS[0]


def test_context_manager_nests() -> None:
    with patch_torch() as outer:
        with patch_torch():
            assert torch.stft is not ORIGINALS[0]
        assert torch.stft is not ORIGINALS[0]
        outer.undo()
        assert torch.stft is ORIGINALS[0]
    assert torch.stft is ORIGINALS[0]


def test_patch_survives_its_handle() -> None:
    import gc

    handle = patch_torch()
    keep = [handle]
    del handle
    gc.collect()
    assert torch.stft is not ORIGINALS[0]
    keep[0].undo()


def test_undone_in_a_with_block_that_fails() -> None:
    with pytest.raises(KeyError), patch_torch():
        raise KeyError
    assert torch.stft is ORIGINALS[0]


def test_somebody_elses_patch_on_top_of_ours() -> None:
    x = torch.randn(200)
    calls = []
    handle = patch_torch()
    ours = torch.stft

    def theirs(*args: Any, **options: Any) -> Tensor:
        calls.append(1)
        return ours(*args, **options)

    torch.stft = theirs
    try:
        handle.undo()
        assert torch.stft is theirs and torch.istft is ORIGINALS[1]
        torch.stft(x, 16, return_complex=True)  # passes through to torch
        again = patch_torch()
        assert torch.stft is theirs
        torch.stft(x, 16, return_complex=True)  # and does not run in circles
        assert len(calls) == 2
        again.undo()
    finally:
        torch.stft = ours  # they take theirs out
    patch_torch().undo()
    assert torch.stft is ORIGINALS[0]


def test_somebody_elses_patch_below_ours() -> None:
    x, calls = torch.randn(200, dtype=torch.float64), []

    def theirs(*args: Any, **options: Any) -> Tensor:
        calls.append(1)
        return torch_stft(*args, **options)

    torch.stft = theirs
    try:
        with patch_torch():
            torch.stft(x, 16, return_complex=True)
            assert calls == [1]
        assert torch.stft is theirs
    finally:
        torch.stft = ORIGINALS[0]


def test_threads_patch_and_undo() -> None:
    def work(number: int) -> None:
        for _ in range(50):
            with patch_torch():
                assert torch.stft is not ORIGINALS[0]

    in_threads(16, work)
    assert torch.stft is ORIGINALS[0]


def test_disabled_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPS_SPECTRO_DISABLE", "1")
    with patch_torch():
        assert torch.stft is ORIGINALS[0]
    monkeypatch.delenv("MPS_SPECTRO_DISABLE")
    with patch_torch():
        assert torch.stft is not ORIGINALS[0]
        monkeypatch.setenv("MPS_SPECTRO_DISABLE", "1")
        mps_spectro.diagnostics(reset=True)
        torch.stft(torch.randn(200), 16, window=torch.hann_window(16), return_complex=True)
        assert routes() == {"MPS_SPECTRO_DISABLE": 1}


def test_a_backend_of_another_device_leaves_the_call_to_torch() -> None:
    with patch_torch(), mps_spectro.use_backend("metal"):
        x = torch.randn(200)
        got = torch.stft(x, 16, window=torch.hann_window(16), return_complex=True)
        assert torch.equal(got, torch_stft(x, 16, window=torch.hann_window(16), return_complex=True))


def test_cpu_tensors_go_straight_to_torch() -> None:
    x, window = torch.randn(2, 200), torch.hann_window(16)
    with patch_torch():
        mps_spectro.diagnostics(reset=True)
        spectrum = torch.stft(x, 16, window=window, return_complex=True)
        signal = torch.istft(spectrum, 16, window=window)
        assert routes() == {"cpu tensor": 2}
    assert torch.equal(spectrum, torch_stft(x, 16, window=window, return_complex=True))
    assert torch.equal(signal, torch_istft(spectrum, 16, window=window))


# --- warnings --------------------------------------------------------------------------------------------------------

_WARNINGS = """
import sys, warnings
import torch
patched = sys.argv[1] == "patched"
seen = []
warnings.simplefilter("always")
warnings.showwarning = lambda message, category, *rest: seen.append((category.__name__, str(message)))
if patched:
    import mps_spectro
    from mps_spectro.patch import patch_torch
    patch_torch()
    mps_spectro._backend._chosen.set("host")
x, window = torch.randn(2, 200), torch.hann_window(16)
for _ in range(2):
    z = torch.stft(x, 16, return_complex=True)
    torch.stft(x, 16, window=window, return_complex=False)
    torch.istft(z, 16)
    torch.istft(z, 16, window=window, length=900)
for line in seen:
    print(line)
"""


def test_warnings_are_torchs_once_each() -> None:
    from conftest import require_route

    require_route("host")
    printed = [
        subprocess.run([sys.executable, "-c", _WARNINGS, mode], capture_output=True, text=True, check=True).stdout
        for mode in ("native", "patched")
    ]
    assert len(printed[0].splitlines()) == 4
    assert printed[0] == printed[1]


def test_warnings_as_errors(patched: Any) -> None:
    from mps_spectro import patch

    patch._warned.clear()
    x, window = torch.randn(2, 200, device=patched.device), torch.hann_window(16).to(patched.device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spectrum = torch.stft(x, 16, window=window, return_complex=True)
        torch.istft(spectrum, 16, window=window, length=200)
        torch.set_warn_always(True)
        try:
            with pytest.raises(UserWarning, match="window was not provided"):
                torch.stft(x, 16, return_complex=True)
            with pytest.raises(UserWarning, match="padded with zeros"):
                torch.istft(spectrum, 16, window=window, length=900)
        finally:
            torch.set_warn_always(False)


# --- scripting, tracing, export, compilation -------------------------------------------------------------------------


def scripted(x: Tensor, window: Tensor) -> Tensor:
    spectrum = torch.stft(x, 16, 4, 16, window, True, "reflect", False, True, True)
    spectrum = spectrum + torch.functional.stft(x, 16, window=window, return_complex=True)
    return torch.istft(spectrum, 16, window=window) + torch.functional.istft(spectrum, 16, window=window)


@pytest.mark.filterwarnings("ignore:.*torch.jit.:DeprecationWarning")
def test_torchscript_keeps_centring() -> None:
    x, window = torch.randn(2, 200), torch.hann_window(16)
    with patch_torch():
        got = torch.jit.script(scripted)(x, window)
    assert error(got, 4 * wide(x)) <= 2 * FORWARD


_SCRIPT_AFTER_PATCH = """
import linecache
import torch
from mps_spectro.patch import patch_torch
patch_torch()
source = '''
def mel(x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    spectrum = torch.stft(x, 16, hop_length=4, window=window, return_complex=True)
    return torch.istft(spectrum, 16, hop_length=4, window=window)
'''
linecache.cache["scripted.py"] = (len(source), None, source.splitlines(True), "scripted.py")
space = {"torch": torch, "__name__": "scripted"}
exec(compile(source, "scripted.py", "exec"), space)
x, window = torch.randn(2, 200), torch.hann_window(16)
assert torch.allclose(torch.jit.script(space["mel"])(x, window), x, atol=1e-5)
"""


def test_torchscript_in_a_process_that_patched_first() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", _SCRIPT_AFTER_PATCH], check=True)


@pytest.mark.filterwarnings("ignore")
def test_jit_trace_records_torchs_functions() -> None:
    from conftest import require_route

    require_route("host")
    x, window = torch.randn(2, 200), torch.hann_window(16)
    with patch_torch(), mps_spectro.use_backend("host"):
        traced = torch.jit.trace(
            lambda t: torch.istft(torch.stft(t, 16, window=window, return_complex=True), 16, window=window), (x,)
        )
    assert "mps_spectro::" not in str(traced.graph) and "aten::stft" in str(traced.graph)
    assert error(traced(x), wide(x)) <= 2 * FORWARD


class RoundTrip(torch.nn.Module):
    def __init__(self, n_fft: int = 16) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, self.n_fft, window=self.window, return_complex=True)
        return torch.istft(spectrum * 2, self.n_fft, window=self.window, length=x.shape[-1])


@pytest.mark.parametrize("strict", [True, False])
def test_export_holds_torchs_functions(strict: bool) -> None:
    from conftest import require_route

    require_route("host")
    x = torch.randn(2, 200)
    torch._dynamo.reset()
    with patch_torch(), mps_spectro.use_backend("host"):
        program = torch.export.export(RoundTrip(), (x,), strict=strict)
    assert "mps_spectro" not in str(program.graph)
    assert error(program.module()(x), 2 * wide(x)) <= 4 * FORWARD


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("n_fft", [16, 21])
def test_compile(patched: Any, n_fft: int, dynamic: bool) -> None:
    torch._dynamo.reset()
    module = RoundTrip(n_fft).to(patched.device)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for length in (200, 230, 301):
        x = torch.randn(2, length)
        leaf = x.to(patched.device).requires_grad_()
        got = compiled(leaf)
        assert error(got, 2 * wide(x)) <= 4 * FORWARD
        (grad,) = torch.autograd.grad(got.square().sum(), leaf)
        assert error(grad, 8 * wide(x)) <= 4 * GRADIENT


_COMPILE_ORDERS = """
import sys
import torch
from mps_spectro.patch import patch_torch

def round_trip(x):
    z = torch.stft(x, 16, window=window, return_complex=True)
    return torch.istft(z, 16, window=window, length=200)

def compiled(x):
    torch._dynamo.reset()
    return torch.compile(round_trip, backend="aot_eager", fullgraph=True)(x)

def same(y):
    assert torch.allclose(y, x, atol=1e-5)

x, window = torch.randn(2, 200), torch.hann_window(16)
if sys.argv[1] == "compile first":
    same(compiled(x))
    step = torch.compile(round_trip, backend="aot_eager", fullgraph=True)
    same(step(x))
    handle = patch_torch()
    same(step(x))
else:
    handle = patch_torch()
same(compiled(x))
handle.undo()
same(compiled(x))
with patch_torch():
    same(compiled(x))
"""


@pytest.mark.parametrize("order", ["compile first", "patch first"])
def test_compile_before_and_after_patching(order: str) -> None:
    subprocess.run([sys.executable, "-c", _COMPILE_ORDERS, order], check=True)


def test_signature_is_torchs(patched: Any) -> None:
    import inspect

    for ours, method in ((torch.stft, Tensor.stft), (torch.istft, Tensor.istft)):
        theirs = list(inspect.signature(method).parameters.values())[1:]
        mine = list(inspect.signature(ours).parameters.values())[1:]
        assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in theirs]
