// clip: values of a row of memory no lower than `top` below the largest of that row, plus a shift, in place:
//   x[row, i] = max(x[row, i], max(x[row, :]) - top) + shift
// in two kernels: the largest value of each part of a row, and the rest. NaN anywhere in a row is NaN everywhere in it.
// p: length of a row, parts of a row, values in a part of `clip`, parts of `clip` in a row; q: top, shift
#include "common.h"

#define SIMDGROUPS (GROUP / 32)

inline float larger(float a, float b) { return b > a || b != b ? b : a; }

// The largest value of all threads of the group, for all of them.
inline float largest(float value, threadgroup float* shared, uint thread_index) {
    UNROLL
    for (uint distance = 16u; distance > 0u; distance /= 2u) { value = larger(value, simd_shuffle_xor(value, distance)); }
    if (thread_index % 32u == 0u) { shared[thread_index / 32u] = value; }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float all = shared[0];
    UNROLL
    for (int i = 1; i < SIMDGROUPS; ++i) { all = larger(all, shared[i]); }
    return all;
}

[[max_total_threads_per_threadgroup(GROUP)]]
kernel void peaks(
    device const float* x [[buffer(0)]],
    device float* parts [[buffer(1)]],
    constant long* p [[buffer(2)]],
    constant float* q [[buffer(3)]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint group_index [[threadgroup_position_in_grid]])
{
    threadgroup float shared[SIMDGROUPS];
    const long row = long(group_index) / p[1];
    const long part = long(group_index) - row * p[1];
    const long length = p[0];
    device const float* values = x + row * length;
    float value = values[0];
    for (long i = part * GROUP + long(thread_index); i < length; i += p[1] * GROUP) { value = larger(value, values[i]); }
    value = largest(value, shared, thread_index);
    if (thread_index == 0u) { parts[group_index] = value; }
}

[[max_total_threads_per_threadgroup(GROUP)]]
kernel void clip(
    device float* x [[buffer(0)]],
    device const float* parts [[buffer(1)]],
    constant long* p [[buffer(2)]],
    constant float* q [[buffer(3)]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint group_index [[threadgroup_position_in_grid]])
{
    threadgroup float shared[SIMDGROUPS];
    const long row = long(group_index) / p[3];
    const long part = long(group_index) - row * p[3];
    float value = parts[row * p[1]];
    for (long i = long(thread_index); i < p[1]; i += GROUP) { value = larger(value, parts[row * p[1] + i]); }
    const float lowest = largest(value, shared, thread_index) - q[0];
    device float* values = x + row * p[0];
    const long end = min(p[0], (part + 1) * p[2]);
    for (long i = part * p[2] + long(thread_index); i < end; i += GROUP) {
        values[i] = larger(lowest, values[i]) + q[1];
    }
}
