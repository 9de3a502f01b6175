"""The translator: what it makes of the subset, and that it refuses the rest by line."""

from __future__ import annotations

import pytest

from mps_spectro._runtime import ShaderCompileError
from mps_spectro._runtime.translate import TARGETS, Builtin, Parameter, translate

SHADER = """\
#if defined(__METAL_VERSION__)
#include <metal_stdlib>
using namespace metal;
#endif
#pragma METAL fp math_mode(safe)
constant float TABLE[2][2] = {{1.0f, 2.0f}, {3.0f, 4.0f}};
// device float* in a comment
struct Row { device const float* x; long n; };
template <int R>
inline void load(thread float2* v, device const float2* t, threadgroup float2* s, long j) {
    v[0] = t[j] * TABLE[0][1];
    s[j] = v[0];
}
[[max_total_threads_per_threadgroup(GROUP * 2)]]
kernel void first(
    device const float* x [[buffer(0)]],
    device float2* out [[buffer(1)]],
    constant long* p [[buffer(2)]],
    constant float* q [[buffer(3)]],
    uint t [[thread_index_in_threadgroup]],
    uint3 group [[threadgroup_position_in_grid]])
{
    threadgroup float2 exchange[8 * GROUP];
    float2 v[4];
    load<4>(v, (device const float2*)x, exchange + 1, p[0]);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    out[t] = v[0] * q[0];
}
kernel void second(constant float& scale [[buffer(1)]], device float* y [[buffer(0)]],
                   uint i [[thread_position_in_grid]]) {
    y[i] *= scale;
}
"""


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_and_their_parameters(target: str) -> None:
    first, second = translate(SHADER, target).kernels
    assert first.parameters == (
        Parameter("x", "tensor", "float", False),
        Parameter("out", "tensor", "float2", True),
        Parameter("p", "ints", "long", False),
        Parameter("q", "floats", "float", False),
    )
    assert first.builtins == (
        Builtin("t", "thread_index_in_threadgroup", "uint"),
        Builtin("group", "threadgroup_position_in_grid", "uint3"),
    )
    assert first.max_total_threads == "GROUP * 2"
    # by buffer index, not by position
    assert [(p.name, p.kind) for p in second.parameters] == [("y", "tensor"), ("scale", "float")]
    assert second.max_total_threads is None


@pytest.mark.parametrize("target", TARGETS)
def test_lines_keep_their_numbers(target: str) -> None:
    text = translate("#define GROUP 32\n" + SHADER, target).text
    lines = text[text.index('#line 1 "shader.metal"\n') :].split("\n")[1:]
    for number, line in enumerate(SHADER.split("\n"), start=1):
        for mark in ("load<4>(v", "out[t] = v[0] * q[0];", "*= scale;"):
            if mark in line:
                assert mark in lines[number]


def test_what_the_targets_make_of_address_spaces() -> None:
    def line(target: str, word: str) -> str:
        text = translate(SHADER, target).text
        return next(line for line in text[text.index('"shader.metal"') :].split("\n") if word in line)

    assert "void load(float2* v, const float2* t, float2* s, mps_long j)" in line("host", "void load")
    assert "void load(float2* v, const float2* t, float2* s, mps_long j)" in line("cuda", "void load")
    checked = line("checked", "void load")
    assert "(mps_pointer<float2, mps_in_thread> v, mps_pointer<const float2, mps_in_device> t," in checked
    assert 'mps_local<float2, (4)> v{"v"};' in line("checked", "float2, (4)")
    assert "(__private float2* v, __global const float2* t, __local float2* s, long j)" in line("opencl", "void load")
    for target in ("host", "cuda", "checked"):
        assert "MPS_THREADGROUP_ARRAY(float2, exchange, (8 * GROUP));" in line(target, "exchange,")
        assert line(target, "TABLE[2]").startswith("MPS_CONSTANT float TABLE[2][2] =")


def test_cuda_takes_the_small_arrays_by_value() -> None:
    text = translate(SHADER, "cuda").text
    assert (
        "MPS_KERNEL(GROUP * 2) first(const float* __restrict__ x, float2* out, MPS_INTS mps_p, MPS_FLOATS mps_q)"
        in text
    )
    assert "const mps_long* p = mps_p.value;" in text and "const float* q = mps_q.value;" in text
    assert "const uint t = mps_thread_index_in_threadgroup();" in text
    assert "const uint3 group = mps_threadgroup_position_in_grid();" in text
    assert "const uint i = mps_thread_position_in_grid().x;" in text


def test_only_tests_of_the_metal_version_are_decided_here() -> None:
    source = """\
#ifndef __METAL_VERSION__
int kept_a;
#else
int dropped_a;
#if WIDE
int dropped_b;
#endif
#endif
#if WIDE
int undecided;
#else
int undecided_too;
#endif
"""
    text = translate(source, "host").text.split('"shader.metal"')[1]
    assert "kept_a" in text and "dropped" not in text
    assert "#if WIDE" in text and "undecided;" in text and "undecided_too;" in text


REFUSED = {
    "double": ("double x = 1.0;", "no double"),
    "unsigned": ("inline int f(unsigned x) { return 1; }", "ulong"),
    "long long": ("inline int f(long long x) { return 1; }", "long"),
    "auto": ("inline int f(int x) { auto y = x; return y; }", "auto"),
    "atomic": ("inline void f(device atomic_uint* x) {}", "atomics"),
    "texture": ("kernel void k(texture2d<float> t [[texture(0)]]) {}", "textures"),
    "lambda": ("inline int f(int x) { return [&](int y) { return y; }(x); }", "lambdas"),
    "address of an element": ("inline void g(thread float* x) {} inline void f(thread float* x) { g(&x[1]); }", "x"),
    "pointer without an address space": ("inline float f(float* x) { return x[0]; }", "address space"),
    "const pointer without an address space": ("inline float f(const float2* x) { return x[0].x; }", "address space"),
    "local pointer without an address space": (
        "inline float f(device float* x) { float* y = x; return y[0]; }",
        "address",
    ),
    "cast without an address space": ("inline float f(device float2* x) { return *((float*)x); }", "address space"),
    "pointer to own struct": ("struct S { int a; }; inline int f(S* s) { return (*s).a; }", "address space"),
    "pointer to a template parameter": ("template <typename T> inline T f(T* x) { return x[0]; }", "address space"),
    "reference without an address space": ("inline void f(float& x) { x = 1.0f; }", "address space"),
    "reference into device memory": ("inline void f(device float& x) { x = 1.0f; }", "pass a pointer"),
    "pointer to pointer": ("inline void f(device float** x) {}", "pointers to pointers"),
    "array in a function": ("inline void f() { threadgroup float s[4]; }", "scope of a kernel"),
    "array in an inner scope": (
        "kernel void k(uint i [[thread_position_in_grid]]) { if (i == 0) { threadgroup float s[4]; } }",
        "scope",
    ),
    "two-dimensional threadgroup array": ("kernel void k() { threadgroup float s[4][4]; }", "one dimension"),
    "threadgroup scalar": ("kernel void k() { threadgroup float s; }", "one dimension"),
    "constant in a function": ("inline float f() { constant float x = 1.0f; return x; }", "program scope"),
    "thread as a qualifier of a variable": ("inline void f() { thread float x = 1.0f; }", "qualifies a pointer"),
    "unknown attribute": ("kernel void k(uint i [[amplification_id]]) {}", "outside the subset"),
    "vector index": ("kernel void k(uint3 i [[thread_index_in_threadgroup]]) {}", "is a uint"),
    "other constant buffer": ("kernel void k(constant float2* x [[buffer(0)]]) {}", "long or float"),
    "parameter without a binding": ("kernel void k(device float* x) {}", "outside the subset"),
    "parameter behind a condition": (
        "kernel void k(\n#if A\nuint i [[thread_position_in_grid]]\n#endif\n) {}",
        "subset",
    ),
    "threadgroup parameter": ("kernel void k(threadgroup float* s [[threadgroup(0)]]) {}", "outside the subset"),
    "gap between buffers": ("kernel void k(device float* x [[buffer(1)]]) {}", "without gaps"),
    "buffer bound twice": ("kernel void k(device float* x [[buffer(0)]], device float* y [[buffer(0)]]) {}", "twice"),
    "kernel defined twice": ("kernel void k() {} kernel void k() {}", "defined twice"),
    "other kernel attribute": ('[[host_name("a")]] kernel void k() {}', "[["),
    "templated kernel": ("template [[kernel]] void k();", "[["),
    "own include": ('#include "fft.h"', "include"),
    "using namespace": ("using namespace metal;", "__METAL_VERSION__"),
    "unbalanced braces": ("kernel void k() {", "never closed"),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_outside_the_subset_is_refused_by_line(name: str, target: str) -> None:
    source, words = REFUSED[name]
    with pytest.raises(ShaderCompileError) as refused:
        translate("#define N 4\n\n// a comment\n" + source, target)
    message = str(refused.value)
    assert words in message
    line = int(message.split(":")[1])
    assert 4 <= line <= 4 + source.count("\n")


@pytest.mark.parametrize("target", TARGETS)
def test_products_are_not_taken_for_pointers(target: str) -> None:
    source = "#define AREA(a, b) ((a) * (b))\ninline float f(float a, int b, int c) { return a * float(b & c); }"
    assert "a * float(b & c)" in translate(source, target).text


def test_unknown_target() -> None:
    with pytest.raises(ValueError, match="target must be one of host, checked, cuda, opencl"):
        translate("", "vulkan")
