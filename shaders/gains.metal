// gains: the spectrum of every frame, each bin times a real gain: what takes the gradient of bands back to the spectrum.
//   out[row, f, k] = gain[k] X[k],  gain[k] = power (|X[k]|^2 + epsilon)^(power / 2 - 1) sum_m basis[m, k] g[m],
//   g[m] = grad[row, f, m] * (derivative of the scale at M[m]), see powers.h
// The bands M are summed again, which is cheaper than to keep them. `first_bands` has the first band of each bin,
// `columns` the weights of P_WIDTH bands from there, two by two: those of all bins, then the next two of all bins.
#include "common.h"
#include "powers.h"

inline float scale_slope(float value, constant float* q) {
#if SCALE == SCALE_LINEAR
    return 1.0f;
#elif SCALE == SCALE_CLAMP
    return value < q[5] ? 0.0f : q[4] / value;
#elif SCALE == SCALE_ADD
    return q[4] / (value + q[5]);
#else
    return q[4] * q[5] / (1.0f + q[5] * value);
#endif
}

// The factor of X[k] that does not depend on the bands.
inline float power_slope(float2 bin, constant float* q) {
#if POWER == 2
    return 2.0f;
#else
    const float square = bin.x * bin.x + bin.y * bin.y + q[3];
#if POWER == 1
    return square == 0.0f ? 0.0f : 1.0f / sqrt(square);
#else
    return square == 0.0f ? 0.0f : q[2] * pow(square, 0.5f * q[2] - 1.0f);
#endif
#endif
}

// Where the f-th frame of a group has its part of the gradient.
inline int gradient_place(int f, int behind, int even_bands, constant long* p) {
#if PAIR
    return (f / 2) * 2 * SLOT_STRIDE(p) + behind + (f % 2) * even_bands;
#else
    return f * 2 * SLOT_STRIDE(p) + behind;
#endif
}

// What bin k takes from the bands. Without a bank the bin is its own band.
inline float bin_gradient(int k, int bins, float2 bin, threadgroup const float* g, device const float* grad,
                          device const int* first_bands, device const float2* columns, constant long* p,
                          constant float* q) {
    if (p[P_PROJECTED] == 0) { return grad[k] * scale_slope(bin_power(bin.x, bin.y, q), q); }
    threadgroup const float* from = g + first_bands[k];
    const int width = int(p[P_WIDTH]);
    float sum = 0.0f;
    NO_UNROLL
    for (int i = 0; i < width; i += 2) {
        const float2 weight = columns[k];
        sum += weight.x * from[i] + weight.y * from[i + 1];
        columns += bins;
    }
    return sum;
}

[[max_total_threads_per_threadgroup(GROUP)]]
kernel void gains(
    device const float* x [[buffer(0)]],
    device const float* window [[buffer(1)]],
    device const float2* table [[buffer(2)]],
    device const int* ranges [[buffer(3)]],
    device const float* weights [[buffer(4)]],
    device const int* first_bands [[buffer(5)]],
    device const float2* columns [[buffer(6)]],
    device const float* grad [[buffer(7)]],
    device float2* out [[buffer(8)]],
    constant long* p [[buffer(9)]],
    constant float* q [[buffer(10)]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint group_index [[threadgroup_position_in_grid]])
{
    threadgroup float2 buffer[EXCHANGE];
    const Slot slot = find_slot(p, thread_index, group_index);
    const int threads = SLOT_THREADS(p);
    const int t = slot.t;
    float2 v[ELEMENTS];
    threadgroup float2* own = buffer + slot.index * SLOT_STRIDE(p);
    threadgroup float2* z = transform_frame(v, own, x + long(slot.row) * p[P_STRIDE_0], window, window, table, p, slot,
                                            group_index);
    const int points = int(p[P_POINTS]);
    const int bins = int(p[P_N_FFT]) / 2 + 1;
    const int bands = int(p[P_BANDS]);
    device const float2* untangle = table + p[P_UNTANGLE_AT];
    Bins held[HELD];
    UNROLL
    for (int i = 0; i < HELD; ++i) {
        const int k = held_bin(i, points, t, threads);
        if (k >= 0) {
            const Bins pair = held_pair(i, k, v, z, untangle, points, t);
            held[i].near = pair.near * q[1];
            held[i].far = pair.far * q[1];
        }
    }
#if !MIRRORED
    SLOT_BARRIER();
#endif
    // powers of a frame first, then its part of the gradient, with a zero behind an odd number of bands
    const int even_bands = bands + bands % 2;
    const int behind = PAIR ? 2 * (points / 2 + 1) : points + 1;
    const int frames = SLOT_COUNT(p) * (PAIR ? 2 : 1);
    threadgroup float* power = (threadgroup float*)buffer;
    if (p[P_PROJECTED] != 0) {
#if SCALE != SCALE_LINEAR
        float near[HELD];
        float far[HELD];
        UNROLL
        for (int i = 0; i < HELD; ++i) {
            if (held_bin(i, points, t, threads) >= 0) {
                near[i] = bin_power(held[i].near.x, held[i].near.y, q);
                far[i] = bin_power(held[i].far.x, held[i].far.y, q);
            }
        }
        store_powers((threadgroup float*)own, near, far, points, t, threads);
#endif
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const uint first_unit = group_index * uint(SLOT_COUNT(p));
        const int shares = share_count(bands, frames);
        for (int number = int(thread_index); number < shares; number += GROUP) {
            const Share share = find_share(number, bands);
#if SCALE != SCALE_LINEAR
            float sums[TOGETHER];
            sum_bands(sums, share, power, ranges, weights, p);
#endif
            UNROLL
            for (int u = 0; u < TOGETHER; ++u) {
                const int f = share.frame + u;
                if (share.band < even_bands) {
                    float value = 0.0f;
                    if (share.band < bands && frame_exists(f, first_unit, p)) {
                        value = grad[frame_row(f, first_unit, p) * ulong(bands) + ulong(share.band)];
#if SCALE != SCALE_LINEAR
                        value *= scale_slope(sums[u], q);
#endif
                    }
                    power[gradient_place(f, behind, even_bands, p) + share.band] = value;
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    const long frame = first_frame(slot);
    const long at = long(slot.row) * p[P_FRAMES] + frame;
    device const float* grad_row = grad + at * bands;
    const int own_frame = slot.index * (PAIR ? 2 : 1);
    threadgroup const float* g = power + gradient_place(own_frame, behind, even_bands, p);
#if PAIR
    const bool both = frame + 1 < p[P_FRAMES];
    threadgroup const float* next_g = power + gradient_place(own_frame + 1, behind, even_bands, p);
    device const float* next_grad_row = grad_row + (both ? bands : 0);
#endif
    if (slot.active) {
        device float2* row = out + at * bins;
        UNROLL
        for (int i = 0; i < HELD; ++i) {
            const int k = held_bin(i, points, t, threads);
            if (k >= 0) {
                const float2 a = held[i].near;
                const float2 b = held[i].far;
                row[k] = a * (power_slope(a, q) * bin_gradient(k, bins, a, g, grad_row, first_bands, columns, p, q));
#if PAIR
                if (both) {
                    row[bins + k] =
                        b * (power_slope(b, q) * bin_gradient(k, bins, b, next_g, next_grad_row, first_bands, columns, p, q));
                }
#else
                const int j = points - k;
                row[j] = b * (power_slope(b, q) * bin_gradient(j, bins, b, g, grad_row, first_bands, columns, p, q));
#endif
            }
        }
    }
}
