"""The simulated MPS device is what it claims to be: everything else that runs on it rests on these tests."""

from __future__ import annotations

import copy
import ctypes
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
import simulated_mps
import torch
from threads import in_threads
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mps_spectro._runtime import RuntimeUnavailable, ShaderCompileError, metal

pytestmark = pytest.mark.mps
MPS = torch.device("mps", 0)


@pytest.fixture(scope="module", autouse=True)
def device() -> None:
    why = simulated_mps.why_unavailable()
    if why is not None:
        pytest.skip(why)
    simulated_mps.install()


def same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """`actual` is on the device and equals the CPU result bit for bit, with its strides."""
    assert actual.device == MPS
    assert actual.stride() == expected.stride()
    torch.testing.assert_close(actual.cpu(), expected, rtol=0, atol=0, equal_nan=True)


# ------------------------------------------------------------------------------------------------ device and memory


@pytest.mark.parametrize(
    "make",
    [
        lambda d: torch.zeros(3, device=d),
        lambda d: torch.tensor([1.0, 2.0], device=d),
        lambda d: torch.tensor(3, device=d),
        lambda d: torch.arange(0, 10, 3, device=d),
        lambda d: torch.linspace(0, 1, 5, device=d),
        lambda d: torch.eye(3, device=d),
        lambda d: torch.full((2, 2), 7, device=d),
        lambda d: torch.hann_window(16, device=d),
        lambda d: torch.hann_window(7, periodic=False, device=d),
        lambda d: torch.kaiser_window(9, device=d),
        lambda d: torch.tril_indices(3, 3, device=d),
        lambda d: torch.ones(2, 3, device=d).new_zeros(4),
        lambda d: torch.zeros_like(torch.ones(3, 2).t(), device=d),
        lambda d: torch.as_tensor([True, False]).to(d),
        lambda d: torch.ones(3, dtype=torch.complex64).to(d),
        lambda d: torch.empty(0, device=d),
    ],
)
def test_factories(make: Callable[[Any], torch.Tensor]) -> None:
    same(make("mps"), make("cpu"))


def test_device_identity() -> None:
    assert torch.backends.mps.is_available() and torch.backends.mps.is_built() and torch.mps.is_available()
    assert torch.mps.device_count() == 1
    x = torch.ones(2, device="mps")
    assert x.device == MPS and x.is_mps and not x.is_cpu and str(x.device) == "mps:0"
    assert x.untyped_storage().device == MPS
    assert torch.empty(0, device="mps").untyped_storage().device == MPS
    assert torch.ones(2).to(x).device == MPS and x.to("cpu").device.type == "cpu"
    assert repr(x) == "tensor([1., 1.], device='mps:0')"
    assert torch.accelerator.current_accelerator().type == "mps"
    with pytest.raises(TypeError, match="convert mps:0 device type tensor to numpy"):
        x.numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.complex64])
def test_fresh_memory_is_nan(dtype: torch.dtype) -> None:
    for fresh in (
        torch.empty(100, dtype=dtype, device="mps"),
        torch.empty_strided((3, 5), (1, 3), dtype=dtype, device="mps"),
        torch.empty_like(torch.ones(7, dtype=dtype, device="mps")),
        torch.ones(2, dtype=dtype, device="mps").resize_(50)[2:],
    ):
        assert fresh.isnan().all()


def test_overwritten_guard_is_noticed() -> None:
    x = torch.zeros(5, device="mps")
    before = simulated_mps.broken_guards()
    past_the_end = (ctypes.c_ubyte * 1).from_address(x.data_ptr() + 20)
    kept = past_the_end[0]
    past_the_end[0] = kept ^ 1
    assert simulated_mps.broken_guards() == before + 1
    past_the_end[0] = kept
    assert simulated_mps.broken_guards() == before


def test_memory_is_counted_and_returned() -> None:
    before = torch.mps.current_allocated_memory()
    x = torch.empty(1000, device="mps")
    assert torch.mps.current_allocated_memory() - before == 4000
    y = x + 1  # memory that a CPU kernel allocated
    assert torch.mps.current_allocated_memory() - before == 8000
    assert torch.mps.driver_allocated_memory() >= 8000
    del x, y
    torch.mps.empty_cache()
    assert torch.mps.current_allocated_memory() == before


def test_host_reads_are_counted() -> None:
    x = torch.arange(4.0, device="mps")
    before = simulated_mps.host_reads()
    y = (x * 2).sum()
    assert simulated_mps.host_reads() == before
    y.item()
    assert simulated_mps.host_reads() == before + 1
    x.cpu()
    assert simulated_mps.host_reads() == before + 2
    torch.equal(x, x)
    assert simulated_mps.host_reads() == before + 3
    x.copy_(torch.ones(4))
    assert simulated_mps.host_reads() == before + 3


# --------------------------------------------------------------------------------------------- aliases, views, flags


def test_views_share_memory() -> None:
    x = torch.zeros(4, 6, device="mps")
    base = x.untyped_storage().data_ptr()
    z = torch.zeros(4, dtype=torch.complex64, device="mps")
    views = [x[1:, ::2], x.t(), x.view(24), x.reshape(6, 4), x.unfold(1, 3, 2), x.as_strided((2, 2), (1, 3), 5)]
    views += [
        x.expand(2, 4, 6),
        x.detach(),
        x.split(2)[1],
        x.diagonal(),
        x.view(torch.int32),
        x.unsqueeze(0).squeeze(0),
    ]
    for view in views:
        assert view.untyped_storage().data_ptr() == base and view.device == MPS
    assert torch.view_as_real(z).untyped_storage().data_ptr() == z.untyped_storage().data_ptr()
    x.unfold(1, 3, 2)[0, 0, 1] = 5
    torch.view_as_real(z)[2, 1] = 3
    x[1:, ::2].add_(1)
    assert x[0, 1] == 5 and x[1, 2] == 1 and x[1, 1] == 0 and z[2] == 3j


def test_in_place_and_out_return_their_tensor() -> None:
    x = torch.ones(3, device="mps")
    assert x.add_(1) is x and x.mul_(x) is x and x.clamp_(max=3) is x and x.copy_(torch.ones(3)) is x
    out = torch.empty(3, device="mps")
    assert torch.add(x, 2, out=out) is out
    same(out, torch.full((3,), 3.0))
    resized = torch.empty(0, device="mps")
    assert torch.cat([x, x], out=resized) is resized
    same(resized, torch.ones(6))
    values, indices = torch.empty(0, device="mps"), torch.empty(0, dtype=torch.int64, device="mps")
    torch.sort(torch.tensor([3.0, 1.0, 2.0], device="mps"), out=(values, indices))
    same(values, torch.tensor([1.0, 2.0, 3.0]))
    same(indices, torch.tensor([1, 2, 0]))
    version = x._version
    x.add_(1)
    assert x._version == version + 1
    several = [torch.ones(2, device="mps"), torch.zeros(3, device="mps")]
    torch._foreach_add_(several, 1.0)
    same(several[0], torch.full((2,), 2.0))


def test_out_into_a_view_leaves_the_rest() -> None:
    buffer = torch.zeros(6, device="mps")
    torch.exp(torch.zeros(2, device="mps"), out=buffer[2:4])
    same(buffer, torch.tensor([0.0, 0, 1, 1, 0, 0]))


def test_conjugate_and_negative_bits() -> None:
    host = torch.randn(5, dtype=torch.complex64)
    for f in (
        lambda x: x.conj(),
        lambda x: x.conj().imag,
        lambda x: x.conj() * x,
        lambda x: x.conj().resolve_conj(),
        lambda x: torch.empty_like(x).copy_(x.conj()),
        lambda x: x.conj().imag.resolve_neg() + 1,
        lambda x: x.conj()[1:].clone(),
        lambda x: torch.fft.irfft(x.conj(), 8),
        lambda x: torch.view_as_real(x.conj().resolve_conj()),
    ):
        actual, expected = f(host.to("mps")), f(host)
        assert actual.is_conj() == expected.is_conj() and actual.is_neg() == expected.is_neg()
        same(actual, expected)
    assert torch.equal(host.to("mps").conj().cpu(), host.conj())
    assert torch.equal(torch.zeros(5, dtype=torch.complex64).copy_(host.to("mps").conj()), host.conj())
    with pytest.raises(RuntimeError, match="conjugate"):
        torch.view_as_real(host.to("mps").conj())


def test_number_type_promotion() -> None:
    x = torch.ones(2, device="mps")
    assert (x * 2).dtype == torch.float32 and (x.half() * 2.5).dtype == torch.float16
    assert (x * torch.tensor(2.0, dtype=torch.float64)).dtype == torch.float32  # a 0-dim CPU tensor
    same(torch._efficientzerotensor(2, device="mps") + x, torch.ones(2))


# ------------------------------------------------------------------------------------------------------- the limits


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, dtype=torch.float64, device="mps"),
        lambda: torch.tensor([1.0], dtype=torch.float64, device="mps"),
        lambda: torch.ones(2, device="mps").double(),
        lambda: torch.ones(2, dtype=torch.float64).to("mps"),
        lambda: torch.hann_window(4, dtype=torch.float64, device="mps"),
        lambda: torch.ones(2, device="mps").sum(dtype=torch.float64),
        lambda: nn.Linear(2, 2).double().to("mps"),
    ],
)
def test_no_float64(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match="Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't"):
        make()


def test_no_complex128() -> None:
    with pytest.raises(TypeError, match="doesn't support"):
        torch.zeros(2, dtype=torch.complex128, device="mps")


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, y: x + y,
        lambda x, y: y + x,
        lambda x, y: y.add_(x),
        lambda x, y: torch.cat([x, y]),
        lambda x, y: x @ y,
        lambda x, y: torch.add(x, x, out=y),
        lambda x, y: torch.stft(x, 4, window=y, return_complex=True),
        lambda x, y: x.index_select(0, y.long()),
        lambda x, y: y[x.long()],
    ],
)
def test_devices_do_not_mix(mix: Callable[..., Any]) -> None:
    with pytest.raises(RuntimeError, match="[Ee]xpected all tensors|on.*same device|device"):
        mix(torch.zeros(4, device="mps"), torch.zeros(4))


def test_devices_mix_where_a_mac_lets_them() -> None:
    x = torch.arange(4.0, device="mps")
    same(x + torch.tensor(1.0), torch.arange(4.0) + 1)
    same(x[torch.tensor([2, 0])], torch.tensor([2.0, 0.0]))
    same(x[torch.tensor([True, False, False, True])], torch.tensor([0.0, 3.0]))
    x[1:3] = torch.ones(2)
    same(x, torch.tensor([0.0, 1.0, 1.0, 3.0]))
    host = torch.zeros(4)
    assert host.copy_(x) is host and host.tolist() == [0, 1, 1, 3]


def test_rank_16_is_the_highest() -> None:
    assert torch.ones((1,) * 16, device="mps").add(1).item() == 2
    with pytest.raises(RuntimeError, match="dimensions <= 16"):
        torch.ones((1,) * 17, device="mps")
    with pytest.raises(RuntimeError, match="dimensions <= 16"):
        torch.ones(1, device="mps").view((1,) * 17).add(1)


def test_operator_without_mps_kernel() -> None:
    with torch.library._scoped_library("simulated_mps_test", "DEF") as library:
        library.define("only_cpu(Tensor x) -> Tensor")
        library.impl("only_cpu", lambda x: x + 1, "CPU")
        library.define("both(Tensor x) -> Tensor")
        for key in ("CPU", "MPS"):
            library.impl("both", lambda x: x + 1, key)
        x = torch.ones(2)
        same(torch.ops.simulated_mps_test.both(x.to("mps")), x + 1)
        assert torch.equal(torch.ops.simulated_mps_test.only_cpu(x), x + 1)
        with pytest.raises(NotImplementedError, match="'MPS' backend"):
            torch.ops.simulated_mps_test.only_cpu(x.to("mps"))


# ------------------------------------------------------------------------- what PyTorch builds on top of the kernels


def both_with_gradients(f: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> None:
    """Value and gradients of f on the device equal those of the CPU."""
    found = []
    for place in ("cpu", "mps"):
        leaves = [x.to(place).detach().requires_grad_(x.is_floating_point() or x.is_complex()) for x in inputs]
        result = f(*leaves)
        weight = torch.linspace(-1, 1, result.numel()).reshape(result.shape).to(place)
        (torch.view_as_real(result).sum(-1) * weight if result.is_complex() else result * weight).sum().backward()
        found.append([result.detach(), *[leaf.grad for leaf in leaves if leaf.requires_grad]])
    for actual, expected in zip(found[1], found[0]):
        same(actual, expected)


X = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * x.sin(),
        lambda x: x @ x.t(),
        lambda x: x.softmax(-1),
        lambda x: torch.fft.rfft(x),
        lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2, 15),
        lambda x: torch.view_as_complex(x.view(3, 8, 2)).abs(),
        lambda x: nn.functional.pad(x[None], (5, 5), mode="reflect"),
        lambda x: nn.functional.pad(x[None], (5, 5), mode="replicate"),
        lambda x: nn.functional.pad(x[None], (5, 5), mode="circular"),
        lambda x: nn.functional.pad(x, (5, 5)),
        lambda x: x.as_strided((5, 4), (3, 2), 1),
        lambda x: x.unfold(1, 5, 2),
        lambda x: x[:, torch.tensor([1, 1, 3])],
        lambda x: torch.where(x > 0, x, 0.1 * x),
        lambda x: x.cumsum(1).relu(),
        lambda x: torch.complex(x, -x).angle(),
        lambda x: torch.einsum("ij,kj->ik", x, x),
        lambda x: nn.functional.conv1d(x[None], torch.ones(3, 1, 3).to(x.device), padding=1, groups=3),
        lambda x: nn.functional.layer_norm(x, (16,)),
    ],
)
def test_autograd(f: Callable[[torch.Tensor], torch.Tensor]) -> None:
    both_with_gradients(f, X)


def test_double_backward_and_functional_transforms() -> None:
    from torch.func import grad, jvp, vmap

    x = X.to("mps").requires_grad_()
    (first,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second.cpu(), 6 * X)
    torch.testing.assert_close(vmap(grad(lambda row: row.pow(2).sum()))(x.detach()).cpu(), 2 * X)
    value, tangent = jvp(torch.sin, (x.detach(),), (torch.ones_like(x),))
    assert tangent.device == MPS
    torch.testing.assert_close(tangent.cpu(), X.cos())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(dtype: torch.dtype) -> None:
    x = X.to("mps").requires_grad_()
    with torch.autocast("mps", dtype=dtype):
        product = x @ x.t()
        total = torch.nn.functional.mse_loss(product, torch.zeros_like(product))
    assert product.dtype == dtype and total.dtype == torch.float32
    total.backward()
    assert x.grad is not None and x.grad.dtype == torch.float32 and x.grad.device == MPS
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x.t()).dtype == torch.float32


def test_fake_tensors_and_compile() -> None:
    with FakeTensorMode():
        fake = torch.randn(3, 4, device="mps") @ torch.randn(4, 2, device="mps")
        assert fake.device == MPS and fake.shape == (3, 2)

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(x.sin() * x).abs().sum(-1)

    compiled = torch.compile(f, backend="aot_eager", fullgraph=True)
    both_with_gradients(f, X)
    x, y = X.to("mps").requires_grad_(), X.to("mps").requires_grad_()
    compiled(x).sum().backward()
    f(y).sum().backward()
    assert x.grad is not None and y.grad is not None
    torch.testing.assert_close(x.grad, y.grad)


def test_modules_train() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.LSTM(16, 2))
    model = model.to("mps")
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    x = torch.randn(8, 1, 16, device="mps")
    losses = []
    for _ in range(20):
        loss = (model(x)[0] - 0.5).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert {p.device for p in model.parameters()} == {MPS}


def test_copies_pickle_and_state_dict() -> None:
    model = nn.Linear(3, 2).to("mps")
    twin = copy.deepcopy(model)
    assert twin.weight.device == MPS and twin.weight.data_ptr() != model.weight.data_ptr()
    same(pickle.loads(pickle.dumps(model)).weight.detach(), model.weight.detach().cpu())
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    for place in (None, "cpu", "mps"):
        saved.seek(0)
        loaded = torch.load(saved, map_location=place)
        assert loaded["weight"].device.type == (place or "mps")
        torch.testing.assert_close(loaded["weight"].cpu(), model.weight.detach().cpu())
    host = nn.Linear(3, 2)
    host.load_state_dict(model.state_dict())
    assert host.weight.device.type == "cpu" and torch.equal(host.weight, model.weight.cpu())
    same(model.cpu().to("mps").bias.detach(), host.bias.detach())


def test_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    first = torch.randn(4, device="mps")
    torch.rand(9, device="mps"), torch.randperm(5, device="mps"), nn.functional.dropout(first, 0.5)
    assert torch.equal(torch.randn(4), expected)  # the CPU's generator was not touched
    torch.mps.manual_seed(3)
    assert torch.equal(torch.randn(4, device="mps"), first)
    own = torch.Generator("mps").manual_seed(3)
    assert own.device.type == "mps"
    assert torch.equal(torch.randn(4, device="mps", generator=own), first)
    state = torch.mps.get_rng_state()
    again = torch.randn(4, device="mps")
    torch.mps.set_rng_state(state)
    assert torch.equal(torch.randn(4, device="mps"), again)
    with pytest.raises(RuntimeError, match="Expected a 'mps' device type for generator"):
        torch.randn(4, device="mps", generator=torch.Generator())


def test_events() -> None:
    start, end = torch.mps.Event(enable_timing=True), torch.mps.Event(enable_timing=True)
    start.record()
    torch.ones(10, device="mps").sum()
    end.record()
    end.synchronize()
    torch.mps.synchronize()
    assert end.query() and start.elapsed_time(end) >= 0


def test_threads() -> None:
    expected = [float((torch.arange(50.0) * k).sin().sum()) for k in range(8)]

    def work(k: int) -> None:
        for _ in range(100):
            x = torch.arange(50.0, device="mps").requires_grad_()
            y = (x * k).sin().sum()
            y.backward()
            assert y.item() == expected[k] and x.grad is not None and not x.grad.isnan().any()

    in_threads(8, work)
    assert simulated_mps.broken_guards() == 0


LATE = """
import torch
assert not torch.backends.mps.is_available()
x = torch.randn(3, requires_grad=True)
(x * x).sum().backward()
before = torch.arange(6.0).reshape(2, 3).t().contiguous()
import simulated_mps
simulated_mps.install()
simulated_mps.install()
y = x.detach().to("mps").requires_grad_()
(y * y).sum().backward()
assert y.grad.device.type == "mps" and torch.equal(y.grad.cpu(), x.grad)
assert x.grad.device.type == "cpu" and torch.zeros(2).device.type == "cpu"
assert torch.zeros(2, dtype=torch.float64).dtype == torch.float64
print("fine")
"""


def test_install_after_torch_was_used() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, cwd=Path(__file__).parent, timeout=300
    )
    assert done.stdout == "fine\n", done.stderr


# -------------------------------------------------------------------------------------------- torch.stft on the device


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("options", [{}, {"normalized": True}, {"onesided": False}, {"pad_mode": "constant"}])
@pytest.mark.parametrize("n_fft, hop", [(16, 4), (15, 5), (20, 7)])
def test_torch_stft(n_fft: int, hop: int, center: bool, options: dict[str, Any]) -> None:
    x, window = torch.randn(2, 100), torch.hann_window(n_fft)

    def stft(x: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        return torch.stft(x, n_fft, hop, window=window, center=center, return_complex=True, **options)

    both_with_gradients(stft, x, window)


@pytest.mark.parametrize("length", [None, 90])
@pytest.mark.parametrize("n_fft, hop", [(16, 4), (15, 5)])
def test_torch_istft(n_fft: int, hop: int, length: int | None) -> None:
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(torch.randn(2, 100), n_fft, hop, window=window, return_complex=True)

    def istft(spectrum: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        return torch.istft(spectrum, n_fft, hop, window=window, length=length)

    both_with_gradients(istft, spectrum, window)


@pytest.mark.filterwarnings("ignore:A window was not provided")
@pytest.mark.parametrize(
    "call",
    [
        lambda d: torch.stft(torch.ones(100, device=d), 16),
        lambda d: torch.stft(torch.ones(2, 2, 100, device=d), 16, return_complex=True),
        lambda d: torch.stft(torch.ones(4, device=d), 16, return_complex=True),
        lambda d: torch.stft(torch.ones(100, device=d), 16, pad_mode="nonsense", return_complex=True),
        lambda d: torch.stft(torch.ones(100, device=d), 16, hop_length=0, return_complex=True),
        lambda d: torch.stft(torch.ones(100, device=d), 16, window=torch.ones(9, device=d), return_complex=True),
        lambda d: torch.istft(torch.ones(9, 5, device=d), 16),
        lambda d: torch.istft(torch.ones(8, 5, dtype=torch.complex64, device=d), 16),
        lambda d: torch.istft(torch.ones(9, 5, dtype=torch.complex64, device=d), 16, window=torch.zeros(16, device=d)),
    ],
)
def test_torch_stft_errors(call: Callable[[str], Any]) -> None:
    with pytest.raises(Exception) as expected:
        call("cpu")
    with pytest.raises(expected.type) as actual:
        call("mps")
    assert type(actual.value) is expected.type


# ------------------------------------------------------------------------------------------------------ compile_shader

SHADER = """
#if defined(__METAL_VERSION__)
#include <metal_stdlib>
using namespace metal;
#endif

kernel void scale(device const float* x [[buffer(0)]], device float* y [[buffer(1)]], constant float& by [[buffer(2)]],
                  uint i [[thread_position_in_grid]]) {
    y[i] = by * x[i];
}

kernel void numbers(device float* y [[buffer(0)]], constant long& n [[buffer(1)]], constant long* p [[buffer(2)]],
                    constant float* q [[buffer(3)]], uint i [[thread_position_in_grid]]) {
    if (long(i) < n) { y[i] = float(p[i]) + q[i]; }
}

kernel void casted(device float* y [[buffer(0)]], device const int* p [[buffer(1)]],
                   uint i [[thread_position_in_grid]]) {
    y[i] = float(p[i]);
}

[[max_total_threads_per_threadgroup(64)]]
kernel void groups(device float* y [[buffer(0)]], uint i [[thread_position_in_grid]],
                   uint g [[threadgroup_position_in_grid]]) {
    y[i] = float(g);
}

kernel void greedy(device float* y [[buffer(0)]], uint i [[thread_index_in_threadgroup]]) {
    threadgroup float memory[8193];
    memory[i] = 1.0f;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    y[i] = memory[i];
}
"""


@pytest.fixture(scope="module")
def shader() -> Any:
    return torch.mps.compile_shader(SHADER)


def test_kernel_arguments(shader: Any) -> None:
    x, y = torch.arange(8.0, device="mps"), torch.empty(8, device="mps")
    shader.scale(x, y, 0.5, threads=8, group_size=8)
    same(y, torch.arange(8.0) / 2)
    y = torch.empty(8, device="mps")
    shader.numbers(y, 3, (2**40, 5, -6), [0.25, 1.0, 2], threads=(8,), group_size=(4,))
    torch.testing.assert_close(y[:3].cpu(), torch.tensor([float(2**40), 6.0, -4.0]))
    assert y[3:].isnan().all()
    shader.casted(y, [1, -2, 3, 4], threads=4, group_size=4, arg_casts="int32")
    shader.casted(y[4:], [5.9, 6.0], threads=2, group_size=2, arg_casts={1: "int32"})
    same(y[:6], torch.tensor([1.0, -2, 3, 4, 5, 6]))


def test_kernel_binds_at_the_storage_offset_and_ignores_strides(shader: Any) -> None:
    x, y = torch.arange(10.0, device="mps"), torch.zeros(10, device="mps")
    shader.scale(x[3:6], y[7:], 2.0, threads=3, group_size=3)
    same(y, torch.tensor([0.0] * 7 + [6.0, 8.0, 10.0]))
    y = torch.zeros(3, device="mps")
    shader.scale(x[::3], y, 1.0, threads=3, group_size=3)
    same(y, torch.tensor([0.0, 1.0, 2.0]))


def test_kernel_grid(shader: Any) -> None:
    y = torch.empty(10, device="mps")
    shader.groups(y, threads=7, group_size=4)  # threads, not groups: the last group has three
    assert y[:7].tolist() == [0, 0, 0, 0, 1, 1, 1] and y[7:].isnan().all()
    shader.scale(torch.ones(10, device="mps"), y, 3.0)  # one thread for each element of the first tensor
    same(y, torch.full((10,), 3.0))
    assert shader.scale.max_threads_per_threadgroup == 1024 and shader.scale.thread_execution_width == 32
    assert shader.groups.max_threads_per_threadgroup == 64
    assert sorted(dir(shader)) == ["casted", "greedy", "groups", "numbers", "scale"]


def test_kernel_limits(shader: Any) -> None:
    x, y = torch.ones(4, device="mps"), torch.ones(4, device="mps")
    with pytest.raises(RuntimeError, match="CPU tensor"):
        shader.scale(torch.ones(4), y, 1.0, threads=4, group_size=4)
    with pytest.raises(RuntimeError, match="31"):
        shader.scale(*[x] * 32, threads=4, group_size=4)
    with pytest.raises(RuntimeError, match="1024"):
        shader.scale(torch.ones(2048, device="mps"), torch.ones(2048, device="mps"), 1.0, threads=2048, group_size=2048)
    with pytest.raises(RuntimeError, match="64"):
        shader.groups(torch.ones(65, device="mps"), threads=65, group_size=65)
    with pytest.raises(RuntimeError, match="32768"):
        shader.greedy(y, threads=4, group_size=4)
    with pytest.raises(RuntimeError, match="rank"):
        shader.scale(x, y, 1.0, threads=(2, 2), group_size=4)
    with pytest.raises(RuntimeError, match="Empty"):
        shader.numbers(y, 1, (), (1.0,), threads=1, group_size=1)
    with pytest.raises(RuntimeError, match="argument type"):
        shader.scale(x, y, None, threads=1, group_size=1)
    with pytest.raises(RuntimeError, match="Unsupported cast"):
        shader.casted(y, [1], threads=1, group_size=1, arg_casts="int31")
    with pytest.raises(RuntimeError, match="nothing"):
        shader.nothing  # noqa: B018
    with pytest.raises(SyntaxError):
        torch.mps.compile_shader("kernel void broken(device float* x [[buffer(0)]]) { x[0] = nonsense; }")


def test_kernel_on_fake_tensors_does_nothing(shader: Any) -> None:
    y = torch.zeros(4, device="mps")
    with FakeTensorMode() as mode:
        fake = torch.ones(4, device="mps")
        shader.scale(fake, mode.from_tensor(y), 2.0, threads=4, group_size=4)
    shader.scale(fake, y, 2.0, threads=4, group_size=4)
    same(y, torch.zeros(4))


def test_metal_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    y = torch.empty(4, device="mps")
    metal.compile_source(SHADER).scale(torch.ones(4, device="mps"), y, 2.0, threads=4, group_size=4)
    same(y, torch.full((4,), 2.0))
    with pytest.raises(ShaderCompileError):
        metal.compile_source("kernel void broken(")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RuntimeUnavailable, match="MPS"):
        metal.compile_source(SHADER)
