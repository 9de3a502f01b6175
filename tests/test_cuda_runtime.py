"""The CUDA runtime: what can be checked without a GPU (search, prelude, argument packing, contexts), then on one."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from shader_sources import sources

from mps_spectro._runtime import RuntimeUnavailable, ShaderCompileError, cuda, cuda_driver, nvrtc
from mps_spectro._runtime.translate import translate

SAMPLE = r"""
#define GROUP 128
constant float weights[3] = {1.0f, 2.0f, 4.0f};

template <int R>
inline void rotate(thread float2* v, threadgroup const float2* s, int j) {
    UNROLL
    for (int i = 0; i < R; ++i) { v[i] = make_c(-v[i].y, v[i].x) * 2.0f + s[j]; }
}

[[max_total_threads_per_threadgroup(GROUP)]]
kernel void add(
    device const float* x [[buffer(0)]],
    device const float* y [[buffer(1)]],
    device float* out [[buffer(2)]],
    constant long* p [[buffer(3)]],
    constant float* q [[buffer(4)]],
    uint i [[thread_position_in_grid]])
{
    if (long(i) < p[0]) { out[i] = x[i] + q[0] * y[i] + float(p[1 + int(i % 2u)]) + q[1]; }
}

// Sum, maximum and lane-reversed copy of every group, by threadgroup memory and by shuffles.
[[max_total_threads_per_threadgroup(GROUP)]]
kernel void reduce(
    device const float* x [[buffer(0)]],
    device float* sums [[buffer(1)]],
    device float* maxima [[buffer(2)]],
    device float* reversed [[buffer(3)]],
    uint t [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]],
    uint group [[threadgroup_position_in_grid]],
    uint at [[thread_position_in_grid]])
{
    threadgroup float part[GROUP];
    threadgroup float top[GROUP / 32];
    const float mine = x[at];
    part[t] = mine;
    const float high = simd_max(mine);
    if (lane == 0u) { top[simd] = high; }
    reversed[at] = simd_shuffle(mine, ushort(31u - lane));
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint half_way = GROUP / 2; half_way > 0u; half_way >>= 1) {
        if (t < half_way) { part[t] += part[t + half_way]; }
        threadgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup);
    }
    if (t == 0u) {
        sums[group] = part[0];
        float m = top[0];
        for (int i = 1; i < GROUP / 32; ++i) { m = fmax(m, top[i]); }
        maxima[group] = m;
    }
}

// Every other construct of the subset; out[k] is checked against Python for one simdgroup.
kernel void constructs(
    device const float2* pairs [[buffer(0)]],
    device float* out [[buffer(1)]],
    device half* halves [[buffer(2)]],
    constant long& big [[buffer(3)]],
    constant float& scale [[buffer(4)]],
    constant long* p [[buffer(5)]],
    uint lane [[thread_index_in_simdgroup]],
    uint3 position [[thread_position_in_threadgroup]],
    uint3 size [[threads_per_threadgroup]],
    uint3 groups [[threadgroups_per_grid]])
{
    threadgroup float2 s[32];
    float2 v[2];
    s[lane] = pairs[lane];
    simdgroup_barrier(mem_flags::mem_threadgroup);
    v[0] = pairs[lane];
    v[1] = v[0] - make_c(1.0f, 1.0f);
    rotate<2>(v, s, int((lane + 1u) % 32u));
    v[1] += v[0];
    v[1] *= 0.5f;
    const float xor_sum = simd_shuffle_xor(v[0].x, 1) + simd_sum(1.0f);
    const float2 next = simd_shuffle(v[0], ushort(min(lane + 1u, 31u)));
    const float2 mirrored = simd_shuffle(v[0], ushort(lane ^ 3u));
    device const float4* fours = (device const float4*)pairs;
    float4 f = fours[0] * 2.0f - fours[0];
    f += f;
    halves[lane] = half(v[0].x);
    const ulong wide = ulong(big) >> 32;
    const float y = fabs(v[0].x) + 1.0f;
    float m = sqrt(y) + log(y) + log2(y) + log10(y) + exp(-y) + exp2(-y) + pow(y, 0.3f) + floor(y) + ceil(y) + rint(y);
    m += fmin(y, 2.0f) + fmax(y, 1.0f) + min(y, 3.0f) + max(y, 4.0f) + clamp(y, 0.0f, 1.0f) + abs(y) + fma(y, y, y);
    if (isnan(m) || isinf(m)) { m = 0.0f; }
    const float results[12] = {
        v[1].x, v[1].y, xor_sum, next.x, mirrored.y, f.w, float(halves[lane]),
        float(wide), scale * weights[lane % 3u], as_type<float>(as_type<uint>(scale) + 1u),
        float(simd_max(int(lane)) + int(p[int(lane % 2u)])),
        float(position.x + size.x * groups.x)};
    for (int k = 0; k < 12; ++k) { out[int(lane) * 13 + k] = results[k]; }
    out[int(lane) * 13 + 12] = m;
}

kernel void poke(device float* out [[buffer(0)]], constant long* p [[buffer(1)]], uint i [[thread_position_in_grid]])
{
    out[p[0] + long(i)] = float(p[1]);
}
"""


# --- anywhere: finding NVRTC ------------------------------------------------------------------------------------------


def _make_wheel_layout(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_search_prefers_the_version_torch_was_built_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "nvidia/cu13/lib/"
    _make_wheel_layout(
        tmp_path,
        [
            "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
            "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.9",
            folder + "libnvrtc.so.13",
            folder + "libnvrtc.alt.so.13",
            folder + "libnvrtc-builtins.so.13.0",
            "torch/lib/libnvrtc-0a1b2c.so.13",
        ],
    )
    monkeypatch.setattr(nvrtc.sys, "path", [str(tmp_path)])
    monkeypatch.setattr(nvrtc, "_WINDOWS", False)
    monkeypatch.setattr(nvrtc, "_PATTERN", "libnvrtc*.so*")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    ours = [name.removeprefix(f"{tmp_path}/") for name in nvrtc.candidates() if name.startswith(str(tmp_path))]
    assert ours == [
        folder + "libnvrtc.so.13",
        "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
        "torch/lib/libnvrtc-0a1b2c.so.13",
    ]
    assert nvrtc.candidates()[-3:] == ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]


def test_search_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "torch/lib"
    _make_wheel_layout(folder, ["nvrtc64_120_0.dll", "nvrtc64_130_0.dll", "nvrtc-builtins64_130.dll"])
    monkeypatch.setattr(nvrtc.sys, "path", [str(tmp_path)])
    monkeypatch.setattr(nvrtc, "_WINDOWS", True)
    monkeypatch.setattr(nvrtc, "_PATTERN", "nvrtc64_*.dll")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = nvrtc.candidates()
    assert found[:2] == [str(folder / "nvrtc64_130_0.dll"), str(folder / "nvrtc64_120_0.dll")]
    assert found[-1] == "nvrtc64_120_0.dll"


def test_missing_nvrtc_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    nvrtc._nvrtc.cache_clear()
    monkeypatch.setattr(nvrtc, "candidates", lambda: ["libnvrtc-absent.so.13"])
    with pytest.raises(RuntimeUnavailable, match="libnvrtc-absent"):
        nvrtc.compile_text("", 90)


def test_a_device_newer_than_nvrtc_gets_ptx() -> None:
    assert nvrtc.architecture(90, (75, 80, 90)) == "sm_90"
    assert nvrtc.architecture(103, (75, 80, 90)) == "compute_90"
    with pytest.raises(RuntimeUnavailable, match="6.1"):
        nvrtc.architecture(61, (75, 80, 90))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_the_runtime_is_unavailable() -> None:
    with pytest.raises(RuntimeUnavailable, match="no CUDA device"):
        cuda.compile_source(SAMPLE)


def test_rocm_is_not_taken_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_driver.driver.cache_clear()
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with pytest.raises(RuntimeUnavailable, match="ROCm"):
        cuda.compile_source(SAMPLE)


# --- anywhere with nvcc or NVRTC: the prelude -------------------------------------------------------------------------


def _ptx(text: str, tmp_path: Path) -> str:
    """PTX by NVRTC, or by nvcc where that is what is installed."""
    try:
        return nvrtc.compile_text(text, 90).ptx
    except RuntimeUnavailable:
        if not shutil.which("nvcc"):
            pytest.skip("neither NVRTC nor nvcc")
    source, output = tmp_path / "shader.cu", tmp_path / "shader.ptx"
    source.write_text(text, encoding="utf-8")
    command = ["nvcc", "-std=c++17", "-arch=sm_90", "--ptx", str(source), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ShaderCompileError(done.stderr + done.stdout)
    return output.read_text()


def test_prelude_takes_every_construct(tmp_path: Path) -> None:
    text = translate(SAMPLE, "cuda").text
    sizes = f"static_assert(sizeof(mps_ints) == {8 * cuda._INTS} && sizeof(mps_floats) == {4 * cuda._FLOATS});\n"
    ptx = _ptx(text + sizes, tmp_path)
    for name in ("add", "reduce", "constructs", "poke"):
        assert f".entry {name}(" in ptx
    assert ".f64 " not in ptx  # no literal or function was taken for double
    assert ".local" not in ptx  # arguments and small arrays stay in registers and the constant bank
    assert ".func" not in ptx  # everything is inlined
    assert "ld.global.nc" in ptx  # __restrict__ arrived


@pytest.mark.parametrize(
    ("kernel", "n_fft"),
    [
        *itertools.product(("analysis", "synthesis"), (1024, 1000, 1218, 255)),
        ("abreast", 1024),
        *itertools.product(("bands", "gains"), (400, 1000, 255)),
    ],
)
def test_shaders_compile(kernel: str, n_fft: int, tmp_path: Path) -> None:
    variants = sources(n_fft, n_fft // 4)[kernel]
    ptx = _ptx(translate(variants[n_fft % len(variants)], "cuda").text, tmp_path)
    assert ".entry" in ptx and ".f64 " not in ptx


def test_errors_point_at_the_shader(tmp_path: Path) -> None:
    broken = "kernel void f(device float* x [[buffer(0)]])\n{\n    x[0] = nonsense;\n}\n"
    with pytest.raises(ShaderCompileError, match=r"shader\.metal\(3\).*nonsense"):
        _ptx(translate(broken, "cuda").text, tmp_path)


# --- anywhere: packing, contexts and errors, against a driver written in Python ---------------------------------------


class OnDevice(torch.Tensor):
    """A CPU tensor that says it lies on a CUDA device."""

    index = 0

    def get_device(self) -> int:
        return self.index

    is_cuda = True

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.index)


def _on_device(tensor: torch.Tensor, index: int = 0) -> OnDevice:
    wrapped = torch.Tensor._make_subclass(OnDevice, tensor)
    wrapped.index = index
    return wrapped


class RecordingLibrary:
    """Answers like libcuda and keeps what was launched, argument bytes included."""

    def __init__(self) -> None:
        self.sizes: list[int] = []  # bytes of each argument of the kernel under test
        self.statuses: list[int] = []  # of the next launches, then success
        self.launches: list[dict[str, Any]] = []
        self.stack: list[int] = []
        self.log: list[tuple[str, int]] = []
        for name in (*cuda_driver._SIGNATURES, "cuLaunchKernel"):
            method = getattr(self, "_" + name, lambda *args: 0)
            # a plain function, because the driver sets argtypes on it
            setattr(self, name, lambda *args, method=method: method(*args))

    def _cuDevicePrimaryCtxRetain(self, context: Any, ordinal: Any) -> int:
        context._obj.value = 0xC0 + ordinal.value
        return 0

    def _cuDeviceGet(self, ordinal: Any, index: int) -> int:
        ordinal._obj.value = index
        return 0

    def _cuCtxPushCurrent_v2(self, context: Any) -> int:
        self.stack.append(context.value)
        return 0

    def _cuCtxPopCurrent_v2(self, context: Any) -> int:
        self.stack.pop()
        return 0

    def _cuCtxSetCurrent(self, context: Any) -> int:
        self.log.append(("set current", context.value))
        return 0

    def _cuModuleGetFunction(self, function: Any, module: Any, name: bytes) -> int:
        function._obj.value = 0xF0 + self.stack[-1]
        return 0

    def _cuGetErrorString(self, status: int, text: Any) -> int:
        text._obj.value = b"out of luck"
        return 0

    def _cuLaunchKernel(self, function: Any, *args: Any) -> int:
        grid, group, shared, stream, pointers = args[:3], args[3:6], args[6], args[7], args[8]
        values = [ctypes.string_at(pointers[i], size) for i, size in enumerate(self.sizes)]
        self.launches.append(
            dict(grid=grid, group=group, stream=stream.value, values=values, stack=list(self.stack), shared=shared)
        )
        return self.statuses.pop(0) if self.statuses else 0


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> tuple[cuda.Library, RecordingLibrary]:
    """The sample's kernels over the recording driver; device 0 and stream 7 are current."""
    recorder = RecordingLibrary()
    monkeypatch.setattr(cuda, "_current_device", lambda: 0)
    monkeypatch.setattr(cuda, "_current_stream", lambda device: 7 + device)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(nvrtc, "compile_text", lambda text, capability: nvrtc.Program(b"image", "ptx", ""))
    return cuda.Library(SAMPLE, cuda_driver.Driver(recorder)), recorder


def test_arguments_reach_the_driver(recorded: tuple[cuda.Library, RecordingLibrary]) -> None:
    library, recorder = recorded
    recorder.sizes = [8, 8, 8, 256, 32]
    storage = torch.zeros(100)
    x, y, out = (_on_device(storage[start::2]) for start in (0, 3, 50))
    library.add(x, y, out, (1, -2, 2**40), (0.5, 1.5), threads=256, group_size=128)
    library.add.launch((x, y, out), (5,), (0.25, 2.0), 3, 64)
    first, second = recorder.launches
    base = storage.data_ptr()
    assert [struct.unpack("=Q", value)[0] for value in first["values"][:3]] == [base, base + 12, base + 200]
    assert struct.unpack("=32q", first["values"][3]) == (1, -2, 2**40, *[0] * 29)
    assert struct.unpack("=8f", first["values"][4]) == (0.5, 1.5, *[0.0] * 6)
    assert (first["grid"], first["group"], first["stream"]) == ((2, 1, 1), (128, 1, 1), 7)
    assert struct.unpack("=32q", second["values"][3]) == (5, *[0] * 31)
    assert struct.unpack("=8f", second["values"][4])[:2] == (0.25, 2.0)
    assert (second["grid"], second["group"]) == ((3, 1, 1), (64, 1, 1))


def test_scalars_and_more_dimensions(recorded: tuple[cuda.Library, RecordingLibrary]) -> None:
    library, recorder = recorded
    recorder.sizes = [8, 8, 8, 8, 4, 256]
    tensors = [_on_device(torch.zeros(8)) for _ in range(3)]
    library.constructs(*tensors, 2**33, 1.5, [3, 4], threads=(32, 6), group_size=(32, 2))
    (only,) = recorder.launches
    assert struct.unpack("=q", only["values"][3]) == (2**33,)
    assert struct.unpack("=f", only["values"][4]) == (1.5,)
    assert struct.unpack("=32q", only["values"][5])[:3] == (3, 4, 0)
    assert (only["grid"], only["group"]) == ((1, 3, 1), (32, 2, 1))


def test_another_device_is_entered_and_left(recorded: tuple[cuda.Library, RecordingLibrary]) -> None:
    library, recorder = recorded
    out = _on_device(torch.zeros(8), 1)
    library.poke(out, (0, 1), threads=8, group_size=8)
    assert recorder.launches[0]["stack"] == [0xC1] and recorder.launches[0]["stream"] == 8
    assert recorder.stack == []


def test_a_thread_without_context_gets_one(recorded: tuple[cuda.Library, RecordingLibrary]) -> None:
    library, recorder = recorded
    recorder.statuses = [201]
    library.poke(_on_device(torch.zeros(8)), (0, 1), threads=8, group_size=8)
    assert recorder.log == [("set current", 0xC0)]
    assert len(recorder.launches) == 2 and recorder.stack == []


def test_driver_errors_are_told(recorded: tuple[cuda.Library, RecordingLibrary]) -> None:
    library, recorder = recorded
    recorder.statuses = [719]
    with pytest.raises(RuntimeError, match=r"poke, \(1, 1, 1\) groups.*out of luck \(CUDA error 719\)"):
        library.poke(_on_device(torch.zeros(8)), (0, 1), threads=8, group_size=8)


def test_threads_do_not_share_arguments(recorded: tuple[cuda.Library, RecordingLibrary]) -> None:
    library, recorder = recorded
    addresses = set()
    barrier = threading.Barrier(2)

    def work() -> None:
        library.poke(_on_device(torch.zeros(8)), (0, 1), threads=8, group_size=8)
        addresses.add(ctypes.addressof(library.poke._local.arguments.buffer))
        barrier.wait(10)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(addresses) == 2


def test_nothing_is_launched_for_nothing(recorded: tuple[cuda.Library, RecordingLibrary]) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    library, recorder = recorded
    real = _on_device(torch.zeros(8))
    library.poke(real, (0, 1), threads=0, group_size=8)
    with FakeTensorMode():
        library.poke(torch.empty(8, device="cpu"), (0, 1), threads=8, group_size=8)
    library.poke(torch.empty(8, device="meta"), (0, 1), threads=8, group_size=8)
    assert recorder.launches == []


def test_wrong_arguments(recorded: tuple[cuda.Library, RecordingLibrary]) -> None:
    library, recorder = recorded
    recorder.sizes = [8, 256]
    out = _on_device(torch.zeros(8))
    with pytest.raises(RuntimeError, match="one CUDA device, got cpu"):
        library.poke(torch.zeros(8), (0, 1), threads=8, group_size=8)
    with pytest.raises(RuntimeError, match="one CUDA device, got cuda:0, cuda:1"):
        library.add(out, _on_device(out, 1), out, (1,), (1.0,), threads=8, group_size=8)
    with pytest.raises(TypeError, match=r"takes 2 arguments \(out, p\), got 1"):
        library.poke(out, threads=8, group_size=8)
    with pytest.raises(TypeError, match="takes 1 tensors first"):
        library.poke((0, 1), (0, 1), threads=8, group_size=8)
    with pytest.raises(TypeError, match="not an integer"):
        library.poke(out, (0, 1.5), threads=8, group_size=8)
    with pytest.raises(ValueError, match="p takes at most 32 ints, got 33"):
        library.poke(out, (0,) * 33, threads=8, group_size=8)
    with pytest.raises(ValueError, match="whole groups"):
        library.poke(out, (0, 1), threads=9, group_size=8)
    with pytest.raises(ValueError, match="beyond the limits"):
        library.poke(out, (0, 1), threads=2**32, group_size=1)
    with pytest.raises(ValueError, match="beyond the limits"):
        library.poke(out, (0, 1), threads=2048, group_size=2048)
    with pytest.raises(TypeError, match="call it instead"):
        library.constructs.launch((out, out, out), (1,), (1.0,), 1, 32)
    with pytest.raises(AttributeError, match="no kernel 'absent'; it has add, reduce"):
        library.absent  # noqa: B018
    assert recorder.launches == []


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> cuda.Library:
    return cuda.compile_source(SAMPLE)


def _add(library: cuda.Library, x: torch.Tensor, y: torch.Tensor, constant: int = 3) -> torch.Tensor:
    out = torch.full_like(x, float("nan"))
    n = x.numel()
    library.add(x, y, out, (n, constant, constant), (2.0, 0.25), threads=-(-n // 128) * 128, group_size=128)
    return out


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnDevice:
    """One H200, A100 or laptop GPU is enough; tests that need more skip themselves."""

    def test_vector_add(self, library: cuda.Library) -> None:
        x, y = torch.randn(2, 1000, device="cuda")
        torch.testing.assert_close(_add(library, x, y), x + 2 * y + 3.25)

    def test_launch_equals_call(self, library: cuda.Library) -> None:
        x, y = torch.randn(2, 1024, device="cuda")
        out = torch.empty_like(x)
        library.add.launch((x, y, out), (1024, 3, 3), (2.0, 0.25), 8, 128)
        assert torch.equal(out, _add(library, x, y))

    def test_storage_offsets(self, library: cuda.Library) -> None:
        x = torch.randn(4096, device="cuda")
        torch.testing.assert_close(_add(library, x[5:1005], x[2001:3001]), x[5:1005] + 2 * x[2001:3001] + 3.25)

    def test_reductions_and_shuffles(self, library: cuda.Library) -> None:
        x = torch.randn(8, 128, device="cuda")
        sums, maxima = torch.empty(2, 8, device="cuda")
        reversed_ = torch.empty_like(x)
        library.reduce(x, sums, maxima, reversed_, threads=1024, group_size=128)
        torch.testing.assert_close(sums, x.sum(1))
        assert torch.equal(maxima, x.amax(1))
        assert torch.equal(reversed_, x.view(8, 4, 32).flip(-1).reshape(8, 128))

    def test_constructs(self, library: cuda.Library) -> None:
        pairs = torch.randn(32, 2, device="cuda")
        out = torch.full((32, 13), float("nan"), device="cuda")
        halves = torch.empty(32, dtype=torch.float16, device="cuda")
        library.constructs(pairs, out, halves, 7 << 32, 1.5, (10, 20), threads=32, group_size=32)
        s = pairs.double().cpu()
        following = s.roll(-1, 0)

        def turned(v: torch.Tensor) -> torch.Tensor:
            return torch.stack((-v[:, 1], v[:, 0]), 1) * 2 + following

        v0 = turned(s)
        v1 = (turned(s - 1) + v0) * 0.5
        lane = torch.arange(32)
        y = v0[:, 0].abs() + 1
        m = y.sqrt() + y.log() + y.log2() + y.log10() + (-y).exp() + (-y).exp2() + y**0.3
        m += y.floor() + y.ceil() + y.round() + y.clamp(max=2) + y.clamp(min=1) + y.clamp(max=3) + y.clamp(min=4)
        m += y.clamp(0, 1) + y + y * y + y
        expected = torch.stack(
            (
                v1[:, 0],
                v1[:, 1],
                v0[lane ^ 1, 0] + 32,
                v0[(lane + 1).clamp(max=31), 0],
                v0[lane ^ 3, 1],
                (2 * s[1, 1]).expand(32),
                v0[:, 0].float().half().double(),
                torch.full((32,), 7.0),
                1.5 * torch.tensor([1.0, 2.0, 4.0])[lane % 3].double(),
                torch.nextafter(torch.tensor(1.5), torch.tensor(2.0)).double().expand(32),
                31.0 + torch.tensor([10.0, 20.0])[lane % 2].double(),
                lane + 32.0,
                m,
            ),
            1,
        )
        # a half may round to its neighbour, because its float differs from the double in the last bit
        tolerance = torch.full((13,), 1e-5)
        tolerance[6] = 2e-3
        error = (out.double().cpu() - expected).abs() / expected.abs().clamp(min=1)
        assert (error <= tolerance).all(), error.amax(0)

    def test_index_beyond_32_bits(self, library: cuda.Library) -> None:
        elements = 2**31 + 64
        if torch.cuda.mem_get_info()[0] < 5 * elements:
            pytest.skip("needs 10 GB of free device memory")
        out = torch.zeros(elements, device="cuda")
        library.poke(out, (2**31 + 8, 5), threads=32, group_size=32)
        assert out[2**31 + 8 : 2**31 + 40].eq(5).all() and out.sum().item() == 160
        del out
        torch.cuda.empty_cache()

    def test_new_thread_has_no_context_yet(self, library: cuda.Library) -> None:
        out = torch.zeros(32, device="cuda")
        failures: list[BaseException] = []

        def work() -> None:
            try:
                library.poke(out, (0, 9), threads=32, group_size=32)
            except BaseException as error:
                failures.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
        torch.cuda.synchronize()
        assert not failures and out.eq(9).all()

    def test_threads_at_once(self, library: cuda.Library) -> None:
        results: dict[int, bool] = {}

        def work(number: int) -> None:
            with torch.cuda.stream(torch.cuda.Stream()):
                x = torch.full((1000,), float(number), device="cuda")
                outs = [_add(library, x, x, constant) for constant in range(200)]
                results[number] = all(
                    bool(out.eq(3 * number + constant + 0.25).all()) for constant, out in enumerate(outs)
                )

        workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert results == dict.fromkeys(range(4), True)

    def test_current_stream(self, library: cuda.Library) -> None:
        x = torch.zeros(1000, device="cuda")
        torch.cuda.synchronize()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            torch.cuda._sleep(100_000_000)
            x.fill_(1)
            out = _add(library, x, x)
        # work on any other stream would have read the zeros by now
        side.synchronize()
        assert out.eq(6.25).all()

    def test_graph(self, library: cuda.Library) -> None:
        x = torch.zeros(1000, device="cuda")
        out = torch.empty_like(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            # a shader may be met for the first time here
            fresh = cuda.compile_source("#define FRESH 1\n" + SAMPLE)
            for part in (library, fresh):
                part.add.launch((x, x, out), (1000, 3, 3), (2.0, 0.25), 8, 128)
                x.copy_(out)
        out.zero_()
        x.fill_(1)
        del fresh
        graph.replay()
        torch.cuda.synchronize()
        assert out.eq(3 * 6.25 + 3.25).all()

    def test_other_device(self, library: cuda.Library) -> None:
        if torch.cuda.device_count() < 2:
            pytest.skip("one CUDA device")
        x, y = torch.randn(2, 1000, device="cuda:1")
        torch.testing.assert_close(_add(library, x, y), x + 2 * y + 3.25)
        assert torch.cuda.current_device() == 0
        x, y = x.to("cuda:0"), y.to("cuda:0")
        torch.testing.assert_close(_add(library, x, y), x + 2 * y + 3.25)
        with pytest.raises(RuntimeError, match="one CUDA device"):
            _add(library, x, y.to("cuda:1"))

    def test_cpu_tensor_is_refused(self, library: cuda.Library) -> None:
        with pytest.raises(RuntimeError, match="one CUDA device, got cpu, cuda:0"):
            _add(library, torch.zeros(8, device="cuda:0"), torch.zeros(8))

    def test_fake_tensors_launch_nothing(self, library: cuda.Library) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():
            out = torch.empty(32, device="cuda")
            library.poke(out, (0, 9), threads=32, group_size=32)

    def test_report(self, library: cuda.Library) -> None:
        report = library.info()
        assert list(report) == ["add", "reduce", "constructs", "poke"]
        assert report["reduce"]["shared_bytes"] == 4 * (128 + 4)
        assert report["add"]["max_threads"] == 128
        assert all(entry["local_bytes"] == 0 and 0 < entry["registers"] <= 255 for entry in report.values())
        assert library.add.resident_groups(128) >= 8
        assert library.program().ptx.count(".entry") == 4
        assert library.program().image[:4] in (b"\x7fELF", b"//\n/")
        print(report)

    def test_compile_error(self, library: cuda.Library) -> None:
        with pytest.raises(ShaderCompileError, match=r"shader\.metal\(2\).*nonsense"):
            cuda.compile_source("kernel void f(device float* x [[buffer(0)]])\n{ x[0] = nonsense; }")

    def test_launch_cost(self, library: cuda.Library) -> None:
        """Prints with `pytest -s`; asserts only that the work was done."""
        x, y, out = torch.ones(3, 128, device="cuda")
        ints, floats = (128, *range(31)), (2.0, 0.25)

        def per_call(call: Any, calls: int = 500) -> float:
            best = float("inf")
            for _ in range(5):
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(calls):
                    call()
                best = min(best, time.perf_counter() - start)
            return best / calls * 1e6

        costs = {
            "kernel.launch": per_call(lambda: library.add.launch((x, y, out), ints, floats, 1, 128)),
            "kernel(...)": per_call(lambda: library.add(x, y, out, ints, floats, threads=128, group_size=128)),
            "torch.add(out=)": per_call(lambda: torch.add(x, y, out=out)),
        }
        library.add.launch((x, y, out), ints, floats, 1, 128)
        assert out[::2].eq(3.25).all()
        print("\n" + "\n".join(f"{name:16} {cost:6.2f} us" for name, cost in costs.items()))
