// bands: the transform of analysis, but the spectrum never leaves threadgroup memory: it becomes |X|^power, that becomes
// bands, and those are scaled and written.
//   S[k] = |X[k]|^power, with an epsilon under the root or behind it;  M[m] = sum_k basis[m, k] S[k]
//   out[row, f, m] = M, or factor * log of it
// `ranges` has first bin, number of bins and place in `weights` of each band: banks are sparse. The weights of LANES bands
// lie side by side, because neighbouring threads read them together. Without a bank bins are bands.

#include "common.h"
#include "analysis.h"

#define LANES 32
#define SCALE_LINEAR 0
#define SCALE_CLAMP 1  // factor * log(max(M, floor))
#define SCALE_ADD 2    // factor * log(M + floor)
#define SCALE_LOG1P 3  // factor * log(1 + floor * M)

// POWER: 1, 2, or 0 for the one in q[2]. q[3] is an epsilon under the root, q[6] one behind it.
inline float bin_power(float re, float im, constant float* q) {
    const float square = re * re + im * im + q[3];
#if POWER == 2
    return square + q[6];
#elif POWER == 1
    return sqrt(square) + q[6];
#else
    return (square <= 0.0f ? 0.0f : pow(square, 0.5f * q[2])) + q[6];
#endif
}

inline float band_scale(float value, constant long* p, constant float* q) {
    const long scale = p[P_SCALE];
    if (scale == SCALE_LINEAR) { return value; }
    if (scale == SCALE_CLAMP) { return q[4] * log(value < q[5] ? q[5] : value); }  // NaN stays
    if (scale == SCALE_ADD) { return q[4] * log(value + q[5]); }
    // log(1 + x) to full precision for small x (Kahan)
    const float x = q[5] * value;
    const float one_more = 1.0f + x;
    return q[4] * (one_more == 1.0f ? x : log(one_more) * (x / (one_more - 1.0f)));
}

#if MIRRORED
// Powers of all bins of a frame, from registers; pairs as in pair_bin. A barrier behind it.
inline void store_power(threadgroup float* power, thread const float2* v, device const float2* untangle,
                        constant float* q, int t) {
    const bool zero = t == 0;
    const float2 own_factor = untangle[t];
    UNROLL
    for (int i = 0; i < 8; ++i) {
        const int k = pair_bin(i, t);
        const Bins pair = untangle_pair(mirrored_near(v, i, zero), mirrored_far(v, i, zero), pair_factor(i, t, own_factor));
        power[k] = bin_power(q[1] * pair.near.x, q[1] * pair.near.y, q);
        power[POINTS - k] = bin_power(q[1] * pair.far.x, q[1] * pair.far.y, q);
    }
    if (zero) { power[POINTS / 2] = bin_power(2.0f * q[1] * v[4].x, 2.0f * q[1] * v[4].y, q); }
    SLOT_BARRIER();
}
#else
#define HELD 9  // bin pairs of a thread at most, in every plan

// The same from z, which they overwrite; PAIR: the powers of the second frame behind those of the first.
inline void store_power(threadgroup float2* z, device const float2* untangle, constant long* p, constant float* q, int t,
                        int threads) {
    const int points = int(p[P_POINTS]);
    threadgroup float* power = (threadgroup float*)z;
    float near[HELD];
    float far[HELD];
    UNROLL
    for (int i = 0; i < HELD; ++i) {
        const int k = t + i * threads;
        if (k <= points / 2) {
            const float2 a = z[k];
            const float2 b = z[k == 0 ? 0 : points - k];
#if PAIR
            near[i] = bin_power(q[1] * (a.x + b.x), q[1] * (a.y - b.y), q);
            far[i] = bin_power(q[1] * (a.y + b.y), q[1] * (b.x - a.x), q);
#else
            const Bins pair = untangle_pair(a, b, untangle[k]);
            near[i] = bin_power(q[1] * pair.near.x, q[1] * pair.near.y, q);
            far[i] = bin_power(q[1] * pair.far.x, q[1] * pair.far.y, q);
#endif
        }
    }
    SLOT_BARRIER();
    UNROLL
    for (int i = 0; i < HELD; ++i) {
        const int k = t + i * threads;
        if (k <= points / 2) {
            power[k] = near[i];
            power[PAIR ? points / 2 + 1 + k : points - k] = far[i];
        }
    }
    SLOT_BARRIER();
}
#endif

// One frame's bands.
inline void write_bands(device float* row, threadgroup const float* power, device const int* ranges,
                        device const float* weights, constant long* p, constant float* q, int t, int threads) {
    const int bands = int(p[P_BANDS]);
    if (p[P_PROJECTED] == 0) {
        for (int m = t; m < bands; m += threads) { row[m] = band_scale(power[m], p, q); }
    } else {
        for (int m = t; m < bands; m += threads) {
            threadgroup const float* first = power + ranges[3 * m];
            const int count = ranges[3 * m + 1];
            device const float* weight = weights + ranges[3 * m + 2];
            float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            int i = 0;
            for (; i + 4 <= count; i += 4) {
                UNROLL
                for (int u = 0; u < 4; ++u) { sums[u] += weight[LANES * (i + u)] * first[i + u]; }
            }
            for (; i < count; ++i) { sums[0] += weight[LANES * i] * first[i]; }
            row[m] = band_scale((sums[0] + sums[1]) + (sums[2] + sums[3]), p, q);
        }
    }
}

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
    threadgroup float* power = (threadgroup float*)z;
#if MIRRORED
    store_power(power, v, table + p[P_UNTANGLE_AT], q, slot.t);
#else
    store_power(z, table + p[P_UNTANGLE_AT], p, q, slot.t, threads);
#endif
    if (slot.active) {
        const long frame = first_frame(slot);
        device float* bands_out = out + (long(slot.row) * p[P_FRAMES] + frame) * p[P_BANDS];
        write_bands(bands_out, power, ranges, weights, p, q, slot.t, threads);
#if PAIR
        if (frame + 1 < p[P_FRAMES]) {
            write_bands(bands_out + p[P_BANDS], power + int(p[P_POINTS]) / 2 + 1, ranges, weights, p, q, slot.t, threads);
        }
#endif
    }
}
