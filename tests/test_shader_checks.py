"""The checks that stand in for a Mac find what they are for: planted mistakes, each beside its correct twin.

Then the package's own shaders go through the same checks.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from conftest import IN_CI
from shader_sources import KERNELS, sources

from mps_spectro import _band_kernels, _kernels
from mps_spectro._runtime import RuntimeUnavailable, ShaderCompileError, host
from mps_spectro._runtime.translate import translate

HEAD = """
#define GROUP 64
template <int N> inline void clear(thread float2* v) { for (int j = 0; j < N; ++j) { v[j] = make_c(0.0f, 0.0f); } }
kernel void k(device const float* x [[buffer(0)]], device float* out [[buffer(1)]], constant long* p [[buffer(2)]],
              uint t [[thread_index_in_threadgroup]], uint g [[threadgroup_position_in_grid]],
              uint i [[thread_position_in_grid]]) {
"""


def _missing(why: str) -> None:
    if IN_CI:
        pytest.fail(f"this check must run in CI: {why}", pytrace=False)
    pytest.skip(f"NOT CHECKED: {why}")


@pytest.fixture(scope="module")
def _compiler() -> None:
    try:
        host.compile_source("")
    except RuntimeUnavailable as why:
        _missing(str(why))


@dataclass(frozen=True)
class Planted:
    """The body of a kernel with @ where the twins differ, and the fault that the wrong one must raise."""

    body: str
    wrong: str
    right: str
    kind: str
    where: dict[str, Any] = field(default_factory=dict)
    groups: int = 2


PLANTED = {
    "read past the end": Planted(
        "out[i] = @;", "x[i + 1]", "x[i]", "out of bounds", {"array": "x", "index": 128, "buffer": 0}
    ),
    "read before the begin": Planted(
        "out[i] = @;", "x[long(i) - 1]", "x[i]", "out of bounds", {"array": "x", "index": -1, "thread": 0}
    ),
    "wrapped unsigned index": Planted(
        "out[i] = @;", "x[i - 1u]", "x[i]", "out of bounds", {"array": "x", "index": 2**32 - 1}
    ),
    "write past the end": Planted("@ = x[i];", "out[i + 2]", "out[i]", "out of bounds", {"array": "out", "buffer": 1}),
    "read-modify-write past the end": Planted("out[i] = 0.0f; @ += x[i];", "out[i + 128]", "out[i]", "out of bounds"),
    "read through arithmetic and casts": Planted(
        "device const float2* pairs = (device const float2*)(x + 2); out[i] = pairs[@].x;",
        "i / 2 + 0",
        "i / 2 - (i / 2 == 63 ? 1 : 0)",
        "out of bounds",
        {"array": "x", "index": 64},
    ),
    "integer arguments past the end": Planted(
        "out[i] = float(p[@]);", "2", "1", "out of bounds", {"array": "p", "index": 2}
    ),
    "one threadgroup array runs into the next": Planted(
        "threadgroup float a[GROUP]; threadgroup float b[GROUP]; b[t] = x[i]; a[@] = x[i]; out[i] = 0.0f;",
        "t + 1",
        "t",
        "out of bounds",
        {"array": "a", "index": 64, "buffer": None},
    ),
    "array in registers": Planted(
        "float v[4]; for (int j = 0; j < 4; ++j) { v[j] = x[i]; } out[i] = v[@];",
        "4",
        "3",
        "out of bounds",
        {"array": "v"},
    ),
    "array in registers, in a function": Planted(
        "float2 v[4]; clear<4>(v + @); out[i] = v[3].x;", "1", "0", "out of bounds", {"array": "v", "index": 4}
    ),
    "misaligned pairs": Planted(
        "device const float2* pairs = (device const float2*)(x + @); out[i] = pairs[t / 4].y;", "1", "2", "misaligned"
    ),
    "no barrier": Planted(
        "threadgroup float s[GROUP]; s[t] = x[i]; @ out[i] = s[(t + 1) % GROUP];",
        "",
        "threadgroup_barrier(mem_flags::mem_threadgroup);",
        # which of the two is seen depends on who runs first
        "race|uninitialised",
        {"array": "s"},
    ),
    "no barrier before the slots are used again": Planted(
        """threadgroup float s[GROUP]; s[t] = x[i]; threadgroup_barrier(mem_flags::mem_threadgroup);
        out[i] = s[(t + 1) % GROUP]; @ s[t] = 0.0f;""",
        "",
        "threadgroup_barrier(mem_flags::mem_threadgroup);",
        "race",
        {"array": "s"},
    ),
    "a barrier of the simdgroup for the whole group": Planted(
        """threadgroup float s[GROUP]; s[t] = x[i]; threadgroup_barrier(mem_flags::mem_threadgroup); s[t] += 1.0f;
        @(mem_flags::mem_threadgroup); out[i] = s[(t + 1) % GROUP];""",
        "simdgroup_barrier",
        "threadgroup_barrier",
        "race",
        {"array": "s"},
    ),
    "a barrier of the simdgroup within it": Planted(
        "threadgroup float s[GROUP]; s[t] = x[i]; simdgroup_barrier(mem_flags::@); out[i] = s[t ^ 1u];",
        "mem_none",
        "mem_threadgroup",
        "race|uninitialised",
        {"array": "s"},
    ),
    "a barrier for the wrong memory": Planted(
        "out[i] = x[i]; threadgroup_barrier(@); if (t == 0) { out[i] += out[i + 1]; }",
        "mem_flags::mem_threadgroup",
        "mem_flags::mem_device | mem_flags::mem_threadgroup",
        "race",
        {"array": "out"},
    ),
    "two threads write one element": Planted("out[@] = x[i];", "g * GROUP + t / 2", "i", "race", {"array": "out"}),
    "two threads write the same value to a threadgroup slot": Planted(
        "threadgroup float s[1]; if (t == 0 @) { s[0] = 1.0f; } out[i] = 0.0f;", "|| t == 5", "", "race", {"array": "s"}
    ),
    "two groups write one element": Planted("out[@] = x[i];", "t", "i", "race between groups", {"array": "out"}),
    "a group reads what another writes": Planted(
        "out[i] = 1.0f; threadgroup_barrier(mem_flags::mem_device); if (t == 0) { out[i] += out[@]; }",
        "(i + GROUP) % (2 * GROUP)",
        "i + 1",
        "race between groups",
    ),
    "never written": Planted(
        "threadgroup float s[64]; if (t < @) { s[t] = x[i]; } simdgroup_barrier(mem_flags::mem_none); out[i] = s[t];",
        "GROUP - 1",
        "GROUP",
        "uninitialised",
        {"array": "s", "index": 63, "thread": 63},
    ),
    "half of a pair never written": Planted(
        "threadgroup float2 s[GROUP]; s[t].x = 1.0f; @ out[i] = s[t].x + s[t].y;", "", "s[t].y = 0.0f;", "uninitialised"
    ),
    "threadgroup memory of the group before": Planted(
        "threadgroup float s[GROUP]; if (@) { s[t] = x[i]; } out[i] = s[t];", "g == 0", "true", "uninitialised"
    ),
    "barrier on one side of a branch": Planted(
        "if (@) { threadgroup_barrier(mem_flags::mem_threadgroup); } out[i] = 0.0f;",
        "t < 32",
        "g == 0",
        "divergent barrier",
    ),
    "barriers on both sides of a branch": Planted(
        """if (@) { threadgroup_barrier(mem_flags::mem_threadgroup); }
        else { threadgroup_barrier(mem_flags::mem_threadgroup); } out[i] = 0.0f;""",
        "t < 32",
        "g == 0",
        "divergent barrier",
    ),
    "return before a barrier": Planted(
        "if (@) { return; } threadgroup_barrier(mem_flags::mem_threadgroup); out[i] = 0.0f;",
        "t == 63",
        "g == 0",
        "divergent barrier",
    ),
    "barrier of the simdgroup in a branch": Planted(
        "if (@) { simdgroup_barrier(mem_flags::mem_threadgroup); } out[i] = 0.0f;",
        "t % 2 == 0",
        "t < 32",
        "divergent barrier",
    ),
    "shuffle in a branch": Planted(
        "out[i] = 0.0f; if (@) { out[i] = simd_sum(x[i]); }", "t % 32 == 3", "t / 32 == 1", "divergent barrier"
    ),
    "shuffle from a lane that does not exist": Planted("out[i] = simd_shuffle(x[i], ushort(@));", "32", "31", "lane"),
    "too much threadgroup memory": Planted(
        "threadgroup float a[4096]; threadgroup float b[@]; a[t] = b[t] = x[i]; out[i] = a[t];",
        "4097",
        "4096",
        "threadgroup memory",
    ),
}


def _run(planted: Planted, text: str, seed: int) -> None:
    library = host.compile_source(HEAD + planted.body.replace("@", text) + "\n}\n", checked=True, seed=seed)
    n = 64 * planted.groups
    x, out = torch.randn(n), torch.zeros(n)
    library.k(x, out, (n, 1), threads=n, group_size=64)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_mistakes_are_found(_compiler: None, name: str) -> None:
    planted = PLANTED[name]
    for seed in range(3):
        _run(planted, planted.right, seed)
        with pytest.raises(host.ShaderFault) as found:
            _run(planted, planted.wrong, seed)
        fault = found.value
        assert re.fullmatch(planted.kind, fault.kind)
        assert fault.kernel == "k" and "kernel k: " in str(fault)
        assert 0 <= fault.thread < 64 and fault.group in [(n, 0, 0) for n in range(planted.groups)]
        for name, expected in planted.where.items():
            assert getattr(fault, name) == expected


def test_unchecked_launches_report_barriers_and_threadgroup_memory_too(_compiler: None) -> None:
    for name in ("barrier on one side of a branch", "return before a barrier", "too much threadgroup memory"):
        planted = PLANTED[name]
        n = 64 * planted.groups
        kernel = host.compile_source(HEAD + planted.body.replace("@", planted.wrong) + "\n}\n").k
        with pytest.raises(host.ShaderFault, match="kernel k: "):
            kernel(torch.zeros(n), torch.zeros(n), (n, 1), threads=n, group_size=64)


def test_the_memory_around_a_view_is_out_of_bounds(_compiler: None) -> None:
    source = HEAD + "out[i] = i < GROUP ? x[long(i) + p[0]] : 0.0f; }"
    kernel = host.compile_source(source, checked=True).k
    storage = torch.randn(300)
    for view in (storage[100:164], storage[100:227].as_strided((64,), (2,), 100)):
        kernel(view, torch.zeros(64), (0, 0), threads=64, group_size=64)
        for shift, index in ((-1, -1), (1 + view.stride(0) * 63, None)):
            with pytest.raises(host.ShaderFault) as found:
                kernel(view, torch.zeros(64), (shift, 0), threads=64, group_size=64)
            assert found.value.kind == "out of bounds" and found.value.array == "x"
            assert index is None or found.value.index == index


def test_arguments_that_share_memory_are_one_for_races(_compiler: None) -> None:
    kernel = host.compile_source(HEAD + "out[i] = x[(i + p[0]) % 64]; }", checked=True).k
    memory = torch.randn(64)
    kernel(memory, memory, (0, 0), threads=64, group_size=64)
    with pytest.raises(host.ShaderFault, match="races with thread"):
        kernel(memory, memory, (1, 0), threads=64, group_size=64)
    kernel(memory.clone(), memory, (1, 0), threads=64, group_size=64)


def test_the_seed_decides_the_order(_compiler: None) -> None:
    source = HEAD + "out[i + 100000] = x[i]; }"

    def first(seed: int) -> tuple[int, int]:
        with pytest.raises(host.ShaderFault) as found:
            host.compile_source(source, checked=True, seed=seed).k(
                torch.zeros(640), torch.zeros(640), (1, 1), threads=640, group_size=64
            )
        return found.value.group[0], found.value.thread

    firsts = [first(seed) for seed in range(20)]
    assert firsts == [first(seed) for seed in range(20)]
    assert len({group for group, _ in firsts}) > 4 and len({thread for _, thread in firsts}) > 10


def test_every_group_runs_once_in_whatever_order(_compiler: None) -> None:
    # += would show a group that runs twice
    library = host.compile_source(HEAD + "out[i] += x[i]; }", checked=True)
    for groups in (1, 2, 3, 6, 16, 30, 97, 100):
        for seed in range(5):
            library.seed = seed
            x, out = torch.randn(64 * groups), torch.zeros(64 * groups)
            library.k(x, out, (1, 1), threads=64 * groups, group_size=64)
            assert torch.equal(out, x)


def test_registers_hold_nan_until_they_are_written(_compiler: None) -> None:
    out = torch.zeros(64)
    kernel = host.compile_source(HEAD + "float v[2]; v[0] = 1.0f; out[i] = v[t % 2]; }", checked=True).k
    kernel(out, out, (1, 1), threads=64, group_size=64)
    assert out.isnan().tolist() == [False, True] * 32


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("x[i] = 1.0f;", "out[i] = x[i];"),
        ("device float* y = x; y[i] = 1.0f;", "device const float* y = x; out[i] = y[i];"),
        ("device float* y = (device float*)x; y[i] = 1.0f;", "device float* y = (device float*)out; y[i] = 1.0f;"),
        ("p[0] = 1;", "out[i] = float(p[0]);"),
        ("out[i] = max(1.0f, 2);", "out[i] = max(1.0f, 2.0f);"),
        ("threadgroup float s[4]; out = s;", "threadgroup float s[4]; threadgroup float* r = s; r[0] = out[i];"),
        ("out[i] = (threadgroup float*)x == (threadgroup float*)x ? 1.0f : 0.0f;", "out[i] = x == x ? 1.0f : 0.0f;"),
    ],
)
def test_what_the_checked_types_refuse(_compiler: None, wrong: str, right: str) -> None:
    host.compile_source(f"{HEAD}{right} }}", checked=True)
    with pytest.raises(ShaderCompileError):
        host.compile_source(f"{HEAD}{wrong} }}", checked=True)


# --- address spaces -------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _clang() -> tuple[str, ...] | None:
    """A clang that takes C++ for OpenCL with templates: 19 or later, from the package ziglang or on PATH."""
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "clang")
    for name in ("clang", *(f"clang-{version}" for version in range(30, 18, -1))):
        if shutil.which(name):
            version = subprocess.run([name, "--version"], capture_output=True, text=True).stdout
            found = re.search(r"version (\d+)", version)
            if found and int(found.group(1)) >= 19 and "Apple" not in version:
                return (name,)
    return None


def address_space_errors(source: str) -> str:
    """What clang says about the shader's address spaces, "" when it has nothing to say."""
    clang = _clang()
    if clang is None:
        _missing("address spaces need clang 19 or later, or the Python package ziglang")
        raise AssertionError
    command = [*clang, "-cc1", "-triple", "spir64", "-x", "clcpp", "-cl-std=CLC++2021", "-fsyntax-only", "-"]
    text = translate(source, "opencl").text
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


FUNCTIONS = """
struct Row { device const float* x; long n; };
constant float TABLE[2] = {1.0f, 2.0f};
inline void fill(thread float* v, device const float* x) { v[0] = x[0]; }
inline void stage(threadgroup float2* s, float2 v) { s[0] = v; }
inline void bump(thread float& v) { v += TABLE[1]; }
template <int R> inline float second(thread float2* v) { return v[R].y; }
"""


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("thread float* v = x;", "device const float* v = x;"),
        ("thread float* v = (device float*)x;", "float v[2]; thread float* w = v; w[0] = x[0];"),
        ("device float* y = s;", "threadgroup float* y = s;"),
        ("out = s;", "out = out + 1;"),
        ("out = (device float*)s;", "out = (device float*)out;"),
        ("device const float* y = p;", "constant long* y = p;"),
        ("thread float* v = s;", "float v[4]; v[0] = s[0];"),
        ("float v[4]; fill(v, s);", "float v[4]; fill(v, x);"),
        ("fill(s, x);", "float v[4]; fill(v, out);"),
        ("stage((device float2*)out, make_c(1.0f, 2.0f));", "stage((threadgroup float2*)s, make_c(1.0f, 2.0f));"),
        ("Row row; row.x = s;", "Row row; row.x = x; out[i] = row.x[row.n];"),
        ("float2 v[2]; out[i] = second<1>((threadgroup float2*)s);", "float2 v[2]; out[i] = second<1>(v);"),
        ("bump(out[0]);", "float v = 1.0f; bump(v);"),
        ("x[0] = 1.0f;", "out[0] = x[0];"),
        ("TABLE[0] = 1.0f;", "out[0] = TABLE[0];"),
        ("float2 v = make_c(1.0f, 2.0f); v.z = 1.0f;", "float2 v = make_c(1.0f, 2.0f); v.y = 1.0f;"),
        ("out[i] = max(1.0f, 2);", "out[i] = max(p[0], p[1]) > 0 ? simd_sum(x[0]) : log2(x[i]);"),
    ],
)
def test_mixed_address_spaces_are_found(wrong: str, right: str) -> None:
    def source(text: str) -> str:
        return f"{FUNCTIONS}{HEAD}threadgroup float s[GROUP]; {text} }}\n"

    assert address_space_errors(source(right)) == ""
    assert re.search(r"shader\.metal:\d+:\d+: error: ", address_space_errors(source(wrong)))


# --- the package's own shaders ----------------------------------------------------------------------------------------

SIZES = [
    (16, 4),
    (64, 16),
    (255, 60),
    (256, 64),
    (400, 160),
    (512, 128),
    (1024, 256),
    (1149, 300),
    (1218, 256),
    (2048, 512),
]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n_fft", "hop"), [*SIZES, (131, 32), (262, 65), (1000, 250), (3003, 750), (8186, 2046)])
def test_our_shaders_keep_address_spaces_apart(n_fft: int, hop: int, kernel: str) -> None:
    for text in sources(n_fft, hop)[kernel]:
        assert address_space_errors(text) == ""


def test_every_kernel_has_sources() -> None:
    assert all(set(sources(n_fft, hop)) <= set(KERNELS) for n_fft, hop in SIZES)
    assert all(len(sources(1024, 256)[kernel]) >= 2 for kernel in KERNELS)


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize(("n_fft", "hop"), SIZES)
def test_our_shaders_pass_every_check(n_fft: int, hop: int, pad_mode: str, checked: None) -> None:
    window = torch.hann_window(n_fft)
    x = torch.randn(2, 4 * n_fft + 37)
    frames = x.shape[1] // hop + 1
    spec = _kernels.analysis("host", x, window, None, n_fft, hop, n_fft // 2, pad_mode, frames, 1.0, False)
    expected = torch.stft(x.double(), n_fft, hop, window=window.double(), pad_mode=pad_mode, return_complex=True)
    expected = torch.view_as_real(expected[..., :frames])
    assert (spec - expected[..., : spec.shape[2], :]).abs().max() < 2e-6 * expected.abs().max()
    # the adjoint: <A x, A x> = <x, A^T A x>
    left = (spec.double() ** 2).sum()
    for layout in (spec, spec.contiguous()):
        back = _kernels.synthesis(
            "host", layout, window, None, n_fft, hop, n_fft // 2, pad_mode, x.shape[1], 1.0, False
        )
        right = (x.double() * back.double()).sum()
        assert abs(left - right) < 1e-5 * abs(left)
    centres = torch.arange(1, 8)[:, None] * (n_fft // 16)
    bank = (1 - (torch.arange(n_fft // 2 + 1) - centres).abs() / max(1, n_fft // 16)).clamp(min=0.0)
    shape = (n_fft, hop, n_fft // 2, pad_mode, frames, 1.0)
    bands = _band_kernels.bands("host", x, window, bank, *shape, 2.0, 0.0, False, "linear", 1.0, 0.0)
    exact = bank.double() @ expected.square().sum(-1)
    assert bands is not None and (bands - exact).abs().max() < 2e-6 * exact.abs().max()
