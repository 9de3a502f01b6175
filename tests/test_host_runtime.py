"""The host runtime on small kernels: arguments, built-ins, barriers, shuffles, compilation and its cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import IN_CI
from threads import in_threads

from mps_spectro._runtime import RuntimeUnavailable, ShaderCompileError, host
from mps_spectro._runtime import _compiler as compiler
from mps_spectro._runtime.translate import translate

ADD = """
kernel void add(device const float* x [[buffer(0)]], device const float* y [[buffer(1)]],
                device float* out [[buffer(2)]], constant long* p [[buffer(3)]],
                uint i [[thread_position_in_grid]]) {
    if (long(i) < p[0]) { out[i] = x[i] + y[i]; }
}
"""


@pytest.fixture(scope="module", autouse=True)
def _needs_a_compiler() -> None:
    try:
        host.compile_source("")
    except RuntimeUnavailable as why:
        if IN_CI:
            pytest.fail(str(why))
        pytest.skip(str(why))


@pytest.fixture(params=[False, True], ids=["plain", "checked"])
def build(request: pytest.FixtureRequest) -> Any:
    return lambda source: host.compile_source(source, checked=request.param, seed=3)


@pytest.mark.parametrize("n", [1, 255, 256, 257, 1000])
def test_vector_add_with_a_padded_last_group(build: Any, n: int) -> None:
    x, y, out = torch.randn(n), torch.randn(n), torch.full((n,), torch.nan)
    build(ADD).add(x, y, out, (n,), threads=-(-n // 256) * 256, group_size=256)
    assert torch.equal(out, x + y)


def test_group_sum_by_threadgroup_memory(build: Any) -> None:
    source = """
    #define GROUP 128
    kernel void sum(device const float* x [[buffer(0)]], device float* out [[buffer(1)]],
                    uint t [[thread_index_in_threadgroup]], uint g [[threadgroup_position_in_grid]]) {
        threadgroup float part[GROUP];
        part[t] = x[g * GROUP + t];
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint stride = GROUP / 2; stride > 0; stride /= 2) {
            if (t < stride) { part[t] += part[t + stride]; }
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        if (t == 0) { out[g] = part[0]; }
    }
    """
    x = torch.randint(-100, 100, (7, 128)).float()
    out = torch.full((7,), torch.nan)
    build(source).sum(x, out, threads=x.numel(), group_size=128)
    assert torch.equal(out, x.sum(1))


SIMD = """
kernel void simd(device const float* x [[buffer(0)]], device float* out [[buffer(1)]], constant long* p [[buffer(2)]],
                 uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]],
                 uint group [[simdgroup_index_in_threadgroup]]) {
    const float v = x[i];
    device float* row = out + long(i) * 6;
    row[0] = simd_shuffle(v, ushort((lane + 5u) % 32u));
    row[1] = simd_shuffle_xor(v, 7);
    row[2] = simd_sum(v);
    row[3] = simd_max(v);
    float2 pair = make_c(v, -v);
    for (int k = 0; k < 3; ++k) { pair = simd_shuffle(pair, ushort(lane ^ 1u)); }
    row[4] = pair.y;
    row[5] = float(group);
}
"""


def test_simdgroup_functions(build: Any) -> None:
    x = torch.randint(-100, 100, (2, 3, 32)).float()
    out = torch.full((2, 3, 32, 6), torch.nan)
    build(SIMD).simd(x, out, (0,), threads=x.numel(), group_size=96)
    lane = torch.arange(32)
    assert torch.equal(out[..., 0], x[..., (lane + 5) % 32])
    assert torch.equal(out[..., 1], x[..., lane ^ 7])
    assert torch.equal(out[..., 2], x.sum(-1, keepdim=True).expand_as(x))
    assert torch.equal(out[..., 3], x.amax(-1, keepdim=True).expand_as(x))
    assert torch.equal(out[..., 4], -x[..., lane ^ 1])
    assert torch.equal(out[..., 5], torch.arange(3.0)[None, :, None].expand_as(x))


def test_arguments_of_every_kind(build: Any) -> None:
    source = """
    kernel void k(device float* out [[buffer(0)]], device long* wide [[buffer(1)]], constant long* p [[buffer(2)]],
                  constant float* q [[buffer(3)]], constant long& n [[buffer(4)]], constant float& f [[buffer(5)]],
                  uint i [[thread_position_in_grid]]) {
        out[i] = q[0] + q[1] + f;
        wide[i] = p[0] * p[1] + n;
    }
    """
    kernel = build(source).k
    for ints, floats in (((3, -(2**40)), (0.5, 0.25)), ([3, -(2**40)], [0.5, 0.25])):
        out, wide = torch.zeros(32), torch.zeros(32, dtype=torch.int64)
        kernel(out, wide, ints, floats, 2**62, 8.0, threads=32, group_size=32)
        assert torch.equal(out, torch.full((32,), 8.75))
        assert torch.equal(wide, torch.full((32,), 2**62 - 3 * 2**40))


def test_single_numbers_bind_as_arrays_of_one(build: Any) -> None:
    x = torch.ones(32)
    out = torch.zeros(32)
    build(ADD).add(x, x, out, 32, threads=32, group_size=32)
    assert torch.equal(out, 2 * x)


def test_tensors_bind_at_their_storage_offset_whatever_their_strides(build: Any) -> None:
    storage = torch.arange(100.0)
    out = torch.full((60,), -1.0)
    build(ADD).add(storage[10:], storage[20:].view(8, 10).t(), out[5:], (32,), threads=32, group_size=32)
    assert torch.equal(out[5:37], storage[10:42] + storage[20:52])
    assert (out[:5] == -1).all() and (out[37:] == -1).all()


def test_index_arithmetic_beyond_32_bits(build: Any) -> None:
    source = """
    kernel void far(device float* out [[buffer(0)]], constant long* p [[buffer(1)]],
                    uint i [[thread_position_in_grid]]) {
        const long index = long(i) * p[0] + p[1];
        out[index - p[1] - long(i) * (p[0] - 1)] = float(index % 1000);
    }
    """
    step, start = 3 * 2**31 + 7, 2**33 + 1
    out = torch.zeros(64)
    build(source).far(out, (step, start), threads=64, group_size=64)
    assert out.tolist() == [float((i * step + start) % 1000) for i in range(64)]


def test_built_ins_in_three_dimensions_with_partial_groups(build: Any) -> None:
    source = """
    kernel void where(device int* out [[buffer(0)]], constant long* p [[buffer(1)]],
                      uint3 at [[thread_position_in_grid]], uint3 local [[thread_position_in_threadgroup]],
                      uint3 group [[threadgroup_position_in_grid]], uint3 groups [[threadgroups_per_grid]],
                      uint3 size [[threads_per_threadgroup]], uint t [[thread_index_in_threadgroup]]) {
        device int* row = out + (long(at.z) * p[1] + long(at.y)) * p[0] * 8 + long(at.x) * 8;
        row[0] = int(local.x + 100u * local.y + 10000u * local.z);
        row[1] = int(group.x + 100u * group.y + 10000u * group.z);
        row[2] = int(groups.x + 100u * groups.y + 10000u * groups.z);
        row[3] = int(size.x + 100u * size.y + 10000u * size.z);
        row[4] = int(t);
        row[5] = int(at.x); row[6] = int(at.y); row[7] = int(at.z);
    }
    """
    width, height, depth = 11, 5, 3
    out = torch.full((depth, height, width, 8), -1, dtype=torch.int32)
    build(source).where(out, (width, height), threads=(width, height, depth), group_size=(4, 2, 2))
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                group = (x // 4, y // 2, z // 2)
                size = [min(g, n - g * k) for g, n, k in zip((4, 2, 2), (width, height, depth), group)]
                local = (x % 4, y % 2, z % 2)
                packed = [a + 100 * b + 10000 * c for a, b, c in (local, group, (3, 3, 2), size)]
                index = local[0] + size[0] * (local[1] + size[1] * local[2])
                assert out[z, y, x].tolist() == [*packed, index, x, y, z]


def test_math_types_and_structs(build: Any) -> None:
    source = """
    struct Pair { float2 value; int count; };
    constant float FACTORS[2] = {2.0f, 4.0f};
    inline Pair twice(Pair pair, constant float* q) { pair.value *= q[0]; pair.count += 1; return pair; }
    inline void bump(thread float& x, thread float* y) { x += 1.0f; y[1] -= 1.0f; }
    kernel void k(device float* out [[buffer(0)]], device half* small [[buffer(1)]], constant float* q [[buffer(2)]]) {
        Pair pair;
        pair.value = -make_c(1.0f, 2.0f) + 0.5f * make_c(1.0f, 1.0f);
        pair.count = 1;
        pair = twice(pair, q);
        float v[2];
        v[0] = 0.0f; v[1] = 0.0f;
        bump(v[0], v);
        out[0] = pair.value.x; out[1] = pair.value.y; out[2] = float(pair.count);
        out[3] = v[0]; out[4] = v[1];
        out[5] = as_type<float>(as_type<uint>(out[3]) | 0x80000000u);
        out[6] = sqrt(16.0f) + log2(8.0f) + exp2(3.0f) + floor(-0.5f) + rint(2.5f) + fma(2.0f, 3.0f, 1.0f);
        out[7] = clamp(5.0f, 0.0f, 1.0f) + float(min(3, 4)) + float(max(7l, -9l)) + abs(-2.0f) + pow(2.0f, 3.0f);
        out[8] = isnan(out[0] / 0.0f - out[0] / 0.0f) && isinf(1.0f / (out[2] - 2.0f)) ? FACTORS[1] : FACTORS[0];
        out[9] = float(small[0]) + float(half(0.1f));
        small[1] = half(65504.0f); small[2] = half(1.0e-7f); small[3] = half(-1.0e9f);
    }
    """
    out = torch.zeros(10)
    small = torch.tensor([1.5, 0, 0, 0], dtype=torch.float16)
    build(source).k(out, small, (3.0,), threads=1, group_size=1)
    tenth = float(torch.tensor(0.1, dtype=torch.float16))
    expected = [-1.5, -4.5, 2.0, 1.0, -1.0, -1.0, 23.0, 21.0, 4.0, 1.5 + tenth]
    torch.testing.assert_close(out, torch.tensor(expected), rtol=1e-6, atol=0)
    assert torch.equal(small, torch.tensor([1.5, 65504.0, 1.0e-7, -torch.inf], dtype=torch.float32).half())


def test_half_rounds_as_torch_does() -> None:
    source = """
    kernel void convert(device const float* x [[buffer(0)]], device half* y [[buffer(1)]],
                        device float* z [[buffer(2)]], uint i [[thread_position_in_grid]]) {
        y[i] = half(x[i]);
        z[i] = float(y[i]);
    }
    """
    bits = torch.arange(-(2**31), 2**31, 32749, dtype=torch.int64)[: 131072 - 64].to(torch.int32)
    x = torch.cat(
        [bits.view(torch.float32), torch.tensor([0.0, -0.0, 65504.0, 65519.9, 65520.0, 5.9e-8, 2.9e-8, 6.1e-5] * 8)]
    )
    x = x[~x.isnan()]
    x = x[: x.numel() // 64 * 64]
    y, z = torch.zeros(x.numel(), dtype=torch.float16), torch.zeros(x.numel())
    host.compile_source(source).convert(x, y, z, threads=x.numel(), group_size=64)
    assert torch.equal(y.view(torch.int16), x.half().view(torch.int16))
    assert torch.equal(z.view(torch.int32), x.half().float().view(torch.int32))


def test_a_thousand_threads_pass_a_thousand_barriers(build: Any) -> None:
    source = """
    kernel void shift(device float* out [[buffer(0)]], uint t [[thread_index_in_threadgroup]]) {
        threadgroup float ring[1024];
        float v = float(t);
        for (int k = 0; k < 1000; ++k) {
            ring[t] = v;
            threadgroup_barrier(mem_flags::mem_threadgroup);
            v = ring[(t + 1u) % 1024u];
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        out[t] = v;
    }
    """
    out = torch.zeros(1024)
    build(source).shift(out, threads=1024, group_size=1024)
    assert torch.equal(out, ((torch.arange(1024) + 1000) % 1024).float())


@pytest.mark.parametrize("checked", [False, True], ids=["plain", "checked"])
def test_portable_context_switch(checked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_FLAGS", [*compiler._FLAGS[:-3], "-DMPS_UCONTEXT", *compiler._FLAGS[-3:]])
    x = torch.randn(64)
    out = torch.zeros(64, 6)
    host.compile_source(SIMD, checked=checked).simd(x, out, (0,), threads=64, group_size=64)
    assert torch.equal(out[:, 1].view(2, 32), x.view(2, 32)[:, torch.arange(32) ^ 7])


def test_launches_from_several_threads_do_not_meet() -> None:
    kernel = host.compile_source(SIMD).simd

    def work(seed: int) -> None:
        x = torch.randn(64 * 32, generator=torch.Generator().manual_seed(seed))
        for _ in range(20):
            out = torch.zeros(x.numel(), 6)
            kernel(x, out, (0,), threads=x.numel(), group_size=64)
            assert torch.equal(out[:, 1].view(-1, 32), x.view(-1, 32)[:, torch.arange(32) ^ 7])

    in_threads(4, work)


def test_tensors_without_memory_launch_nothing(build: Any) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    kernel = build(ADD).add
    meta = torch.zeros(32, device="meta")
    kernel(meta, meta, meta, (32,), threads=32, group_size=32)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.zeros(32))
        kernel(fake, fake, fake, (32,), threads=32, group_size=32)
    real = torch.zeros(32)
    kernel(real + 1, fake, real, (32,), threads=32, group_size=32)
    assert torch.equal(real, torch.zeros(32))


X = torch.zeros(32)


@pytest.mark.parametrize(
    ("args", "sizes", "error", "words"),
    [
        ((X, X, X), {}, TypeError, r"takes 4 arguments \(x, y, out, p\), got 3"),
        ((X, X, X, (1,), 2), {}, TypeError, "takes 4 arguments"),
        ((X, 1.0, X, (1,)), {}, TypeError, r"argument 1 \(y\) of kernel add must be a tensor, got float"),
        ((X, None, X, (1,)), {}, TypeError, "must be a tensor, got NoneType"),
        ((X, X.double(), X, (1,)), {}, TypeError, "which Metal does not have"),
        ((X, X, X, X), {}, TypeError, "must be an int or a list or tuple of ints"),
        ((X, X, X, (1.0,)), {}, TypeError, "must be an int or a list or tuple of ints"),
        ((X, X, X, (True,)), {}, TypeError, "must be an int or a list or tuple of ints"),
        ((X, X, X, ()), {}, ValueError, "is empty"),
        ((X, X, X, (2**63,)), {}, ValueError, "does not fit in 64 bits"),
        ((X, X, X, (1,)), {"threads": 0}, ValueError, "positive integers"),
        ((X, X, X, (1,)), {"threads": 2**32}, ValueError, "positive integers"),
        ((X, X, X, (1,)), {"threads": (32, 1)}, ValueError, "rank 2 and group_size rank 1"),
        ((X, X, X, (1,)), {"threads": (1,) * 4, "group_size": (1,) * 4}, ValueError, "one to three dimensions"),
        ((X, X, X, (1,)), {"group_size": 1025}, ValueError, "at most 1024 threads per group, got 1025"),
    ],
)
def test_impossible_launches(args: Any, sizes: Any, error: type[Exception], words: str) -> None:
    kernel = host.compile_source(ADD).add
    with pytest.raises(error, match=words):
        kernel(*args, **{"threads": 32, "group_size": 32, **sizes})


def test_the_kernels_own_thread_limit() -> None:
    source = (
        "[[max_total_threads_per_threadgroup(A * 2)]] kernel void k(device float* x [[buffer(0)]]) { x[0] = 1.0f; }"
    )
    kernel = host.compile_source("#define A 16\n" + source).k
    assert kernel.max_total_threads_per_threadgroup == 32
    kernel(X.clone(), threads=32, group_size=32)
    with pytest.raises(ValueError, match="at most 32 threads per group, got 33"):
        kernel(X.clone(), threads=33, group_size=33)


def test_a_missing_kernel_is_an_attribute_error() -> None:
    library = host.compile_source("#if 0\nkernel void dropped() {}\n#endif\nkernel void kept() {}")
    assert "kept" in dir(library)
    for name in ("dropped", "absent"):
        with pytest.raises(AttributeError, match=f"no kernel '{name}'"):
            getattr(library, name)


@pytest.mark.parametrize("checked", [False, True], ids=["plain", "checked"])
def test_compile_errors_name_the_shaders_line(checked: bool) -> None:
    with pytest.raises(ShaderCompileError, match=r"shader\.metal:4:"):
        host.compile_source("#define N 4\n// one\ninline float f(float x) {\n    return x + y;\n}\n", checked=checked)


def _count_compilations(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    compiled: list[Path] = []
    compile_ = compiler._compile

    def counted(command: tuple[str, ...], text: str, target: Path) -> None:
        compiled.append(target)
        compile_(command, text, target)

    monkeypatch.setattr(compiler, "_compile", counted)
    return compiled


def test_compiled_shaders_are_kept_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MPS_SPECTRO_CACHE_DIR", str(tmp_path / "kept"))
    compiled = _count_compilations(monkeypatch)
    for _ in range(3):
        host.compile_source("#define WHICH 1\n" + ADD)
    assert len(compiled) == 1
    host.compile_source("#define WHICH 2\n" + ADD)
    host.compile_source("#define WHICH 2\n" + ADD, checked=True)
    assert len(compiled) == 3
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_a_damaged_kept_shader_is_compiled_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = "#define DAMAGED 1\n" + ADD
    monkeypatch.setenv("MPS_SPECTRO_CACHE_DIR", str(tmp_path / "whole"))
    host.compile_source(source)
    (whole,) = (tmp_path / "whole").iterdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / whole.name).write_bytes(b"not an object")
    monkeypatch.setenv("MPS_SPECTRO_CACHE_DIR", str(tmp_path / "damaged"))
    compiled = _count_compilations(monkeypatch)
    x, out = torch.ones(32), torch.zeros(32)
    host.compile_source(source).add(x, x, out, (32,), threads=32, group_size=32)
    assert len(compiled) == 1 and torch.equal(out, 2 * x)
    assert (tmp_path / "damaged" / whole.name).stat().st_size > 1000


def test_the_kept_shaders_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MPS_SPECTRO_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, "_MAX_FILES", 2)
    for which in range(4):
        host.compile_source(f"#define BOUNDED {which}\nkernel void k() {{}}")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("MPS_SPECTRO_CACHE_DIR", str(blocked / "below"))
    x, out = torch.ones(32), torch.zeros(32)
    host.compile_source(ADD).add(x, x, out, (32,), threads=32, group_size=32)
    assert torch.equal(out, 2 * x)


def test_where_compiled_shaders_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MPS_SPECTRO_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiler._cache_directory() == tmp_path / "mps_spectro"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiler._cache_directory() == tmp_path / ".cache" / "mps_spectro"


def test_no_compiler_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeUnavailable, match=r"\$CXX \(no-such-compiler\)"):
        host.compile_source(ADD)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
    compiler._find_compiler.cache_clear()
    try:
        with pytest.raises(RuntimeUnavailable, match="ziglang was not found"):
            host.compile_source(ADD)
    finally:
        compiler._find_compiler.cache_clear()


def test_the_arm_context_switch_assembles(tmp_path: Path) -> None:
    """Only where a compiler for that machine is at hand; it runs on the machines themselves."""
    pytest.importorskip("ziglang")
    text = translate("kernel void k() { threadgroup_barrier(mem_flags::mem_threadgroup); }", "host").text
    for triple in ("aarch64-linux-gnu", "arm64-apple-macos13"):
        options = ["-target", triple, "-std=c++17", "-O1", "-w", "-c", "-x", "c++", "-", "-o", str(tmp_path / "k.o")]
        command = [sys.executable, "-m", "ziglang", "clang", *options]
        done = subprocess.run(command, input=text, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
