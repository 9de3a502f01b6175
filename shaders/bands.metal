// bands: the transform of analysis, but the spectrum never leaves threadgroup memory: it becomes |X|^power, that becomes
// bands, and those are scaled and written.
//   out[row, f, m] = M, or factor * log of it, see powers.h; without a bank bins are bands
#include "common.h"
#include "powers.h"

[[max_total_threads_per_threadgroup(GROUP)]]
kernel void bands(
    device const float* x [[buffer(0)]],
    device const float* window [[buffer(1)]],
    device const float2* table [[buffer(2)]],
    device const int* ranges [[buffer(3)]],
    device const float* weights [[buffer(4)]],
    device float* out [[buffer(5)]],
    constant long* p [[buffer(6)]],
    constant float* q [[buffer(7)]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint group_index [[threadgroup_position_in_grid]])
{
    threadgroup float2 buffer[EXCHANGE];
    const Slot slot = find_slot(p, thread_index, group_index);
    const int threads = SLOT_THREADS(p);
    float2 v[ELEMENTS];
    device const float* row = x + long(slot.row) * p[P_STRIDE_0];
    threadgroup float2* z = transform_frame(v, buffer + slot.index * SLOT_STRIDE(p), row, window, window, table, p, slot,
                                            group_index);
    const int points = int(p[P_POINTS]);
    device const float2* untangle = table + p[P_UNTANGLE_AT];
    float near[HELD];
    float far[HELD];
    UNROLL
    for (int i = 0; i < HELD; ++i) {
        const int k = held_bin(i, points, slot.t, threads);
        if (k >= 0) {
            const Bins pair = held_pair(i, k, v, z, untangle, points, slot.t);
            near[i] = bin_power(q[1] * pair.near.x, q[1] * pair.near.y, q);
            far[i] = bin_power(q[1] * pair.far.x, q[1] * pair.far.y, q);
        }
    }
#if !MIRRORED
    SLOT_BARRIER();
#endif
    threadgroup float* power = (threadgroup float*)z;
    store_powers(power, near, far, points, slot.t, threads);
    threadgroup_barrier(mem_flags::mem_threadgroup);

    // the result lies where the first frame's is, for all slots
    power -= 2 * slot.index * SLOT_STRIDE(p);
    const int count = int(p[P_BANDS]);
    const int frames = SLOT_COUNT(p) * (PAIR ? 2 : 1);
    const uint first_unit = group_index * uint(SLOT_COUNT(p));
    const int shares = share_count(count, frames);
    for (int number = int(thread_index); number < shares; number += GROUP) {
        const Share share = find_share(number, count);
        float sums[TOGETHER];
        sum_bands(sums, share, power, ranges, weights, p);
        UNROLL
        for (int u = 0; u < TOGETHER; ++u) { sums[u] = band_scale(sums[u], q); }
        UNROLL
        for (int u = 0; u < TOGETHER; ++u) {
            const int f = share.frame + u;
            if (share.band < count && frame_exists(f, first_unit, p)) {
                out[frame_row(f, first_unit, p) * ulong(count) + ulong(share.band)] = sums[u];
            }
        }
    }
}
