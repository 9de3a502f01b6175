// analysis: pad -> frame -> window -> real FFT -> write, one dispatch, nothing in device memory in between.
//   out[row, f, k] = scale * weight_k * sum_n window[n] * (P x * e)[f * hop + n] * exp(-2 pi i k n / n_fft)
#include "common.h"
#include "analysis.h"

#if MIRRORED
inline void write_mirrored(device float2* bins, thread const float2* v, device const float2* untangle,
                           constant float* q, int t) {
    const bool zero = t == 0;
    const float2 own_factor = untangle[t];
    UNROLL
    for (int i = 0; i < MIRRORED; ++i) {
        const int k = pair_base(i, t);
        device float2* near = bins + k;
        device float2* far = bins + (POINTS - k);
        const float weight = i == 0 && zero ? q[0] : q[1];
        const Bins pair = untangle_pair(mirrored_near(v, i, zero), mirrored_far(v, i, zero), pair_factor(i, t, own_factor));
        near[i * PAIR_ROWS] = pair.near * weight;
        far[-i * PAIR_ROWS] = pair.far * weight;
    }
    if (zero) { bins[POINTS / 2] = make_c(2.0f * q[1] * v[MIRRORED / 2].x, -2.0f * q[1] * v[MIRRORED / 2].y); }
}
#endif

[[max_total_threads_per_threadgroup(GROUP)]]
kernel void analysis(
    device const float* x [[buffer(0)]],
    device const float* window [[buffer(1)]],
    device const float* env [[buffer(2)]],
    device const float2* table [[buffer(3)]],
    device float2* out [[buffer(4)]],
    constant long* p [[buffer(5)]],
    constant float* q [[buffer(6)]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint group_index [[threadgroup_position_in_grid]])
{
    threadgroup float2 buffer[EXCHANGE];
    const Slot slot = find_slot(p, thread_index, group_index);
    const int t = slot.t;
    float2 v[ELEMENTS];
    device const float* row = x + long(slot.row) * p[P_STRIDE_0];
    threadgroup float2* z = transform_frame(v, buffer + slot.index * SLOT_STRIDE(p), row, window, env, table, p, slot,
                                            group_index);
    device const float2* untangle = table + p[P_UNTANGLE_AT];

#if KIND_RADIX && !MIRRORED
    // the rows of a group's frames are one run in memory: all threads write it together, whichever frame they transformed
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const int bins = POINTS + 1;
    const uint first = group_index * uint(SLOTS);
    const int live = int(min(uint(SLOTS), uint(p[P_UNITS]) - first)) * bins;
    device float2* run = out + long(first) * bins;
    for (int e = int(thread_index); e < live; e += GROUP) {
        const int owner = int(uint(e) / uint(bins));
        const int k = e - owner * bins;
        threadgroup const float2* other = buffer + owner * SLOT_SIZE;
        const float2 a = other[k == POINTS ? 0 : k];
        const float2 b = other[k == 0 ? 0 : POINTS - k];
        const float weight = k == 0 || k == POINTS ? q[0] : q[1];
        run[e] = untangle_pair(a, b, untangle[k]).near * weight;
    }
#else
    if (slot.active) {
        const int bins = int(p[P_N_FFT]) / 2 + 1;
        const long frame = first_frame(slot);
        device float2* bins_out = out + (long(slot.row) * p[P_FRAMES] + frame) * bins;
#if MIRRORED
        write_mirrored(bins_out, v, untangle, q, t);
#else
        const int threads = SLOT_THREADS(p);
        const int points = int(p[P_POINTS]);
#if PAIR
        const bool both = frame + 1 < p[P_FRAMES];
#endif
        for (int k = t; k <= points / 2; k += threads) {
            const float weight = k == 0 ? q[0] : q[1];
            const float2 a = z[k];
            const float2 b = z[k == 0 ? 0 : points - k];
#if PAIR
            bins_out[k] = make_c(weight * (a.x + b.x), weight * (a.y - b.y));
            if (both) { bins_out[bins + k] = make_c(weight * (a.y + b.y), weight * (b.x - a.x)); }
#else
            const Bins pair = untangle_pair(a, b, untangle[k]);
            bins_out[k] = pair.near * weight;
            bins_out[points - k] = pair.far * weight;
#endif
        }
#endif
    }
#endif
}
