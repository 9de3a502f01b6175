// analysis: pad -> frame -> window -> real FFT -> write, one dispatch, nothing in device memory in between.
//   out[row, f, k] = scale * weight_k * sum_n window[n] * (P x * e)[f * hop + n] * exp(-2 pi i k n / n_fft)
// One slot of threads takes one frame; PAIR: two frames, as real and imaginary part of one transform (odd n_fft).
// Even n_fft without PAIR: the even and odd samples are the parts of one transform of half the length.
#include "common.h"
#define MIRROR_FIRST 0
#define MIRROR_LAST MIRRORED
#include "fft.h"
#include "slots.h"

// Sample i of the padded row times the envelope.
inline float padded_sample(device const float* x, device const float* env, constant long* p, long i) {
    const long length = p[P_LENGTH];
    const long mode = p[P_PAD_MODE];
    long source = i - p[P_OFFSET];
    if (source < 0 || source >= length) {
        if (mode == PAD_CONSTANT) { return 0.0f; }
        const bool before = source < 0;
        if (mode == PAD_REFLECT) {
            source = before ? -source : 2 * (length - 1) - source;
        } else if (mode == PAD_REPLICATE) {
            source = before ? 0 : length - 1;
        } else {
            source = before ? source + length : source - length;
        }
    }
    const float value = x[source * p[P_STRIDE_1]];
    return p[P_ENVELOPE] == 0 ? value : value * envelope_at(env, p, i);
}

// Bins k and points - k of the frame from elements k and points - k of the half-length transform.
inline void write_bins(device float2* bins, int k, int points, float2 a, float2 b, float2 untangle, float weight) {
    const float2 even = make_c(a.x + b.x, a.y - b.y);
    const float2 odd = c_mul(untangle, make_c(a.y + b.y, b.x - a.x));
    bins[k] = make_c(weight * (even.x + odd.x), weight * (even.y + odd.y));
    bins[points - k] = make_c(weight * (even.x - odd.x), weight * (odd.y - even.y));
}

#if MIRRORED
// The same for all bins of a frame, from registers; pairs as in pair_bin.
inline void write_mirrored(device float2* bins, thread const float2* v, device const float2* untangle,
                           constant float* q, int t) {
    const bool zero = t == 0;
    const float2 own_factor = untangle[t];
    UNROLL
    for (int i = 0; i < 8; ++i) {
        const float2 own = i < 4 ? v[i] : v[4 + i];
        const float2 far = i == 0 ? v[0] : i < 4 ? v[8 - i] : v[19 - i];
        const float2 a = zero ? own : v[i];
        const float2 b = zero ? far : v[15 - i];
        const float weight = i == 0 && zero ? q[0] : q[1];
        write_bins(bins, pair_bin(i, t), POINTS, a, b, pair_factor(i, t, own_factor), weight);
    }
    if (zero) { bins[POINTS / 2] = make_c(2.0f * q[1] * v[4].x, -2.0f * q[1] * v[4].y); }
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
    const int threads = SLOT_THREADS(p);
    const int t = slot.t;
    threadgroup float2* z = buffer + slot.index * SLOT_STRIDE(p);
    const int points = int(p[P_POINTS]);
    const int n_fft = int(p[P_N_FFT]);
    const long frames = p[P_FRAMES];
    const long hop = p[P_HOP];
    const long frame = long(slot.unit) * (PAIR ? 2 : 1);
    const long start = frame * hop;
    device const float* row = x + long(slot.row) * p[P_STRIDE_0];

#if KIND_RADIX
    float2 v[ELEMENTS];
    // the same for every thread of the group, because there are barriers on one side
    const uint slots = uint(SLOTS);
    const uint per_row = uint(p[P_UNITS_PER_ROW]);
    const uint first = group_index * slots;
    const uint last = min(first + slots, uint(p[P_UNITS])) - 1u;
    const long first_start = long(first % per_row) * hop - p[P_OFFSET];
    const long last_end = long(last % per_row) * hop - p[P_OFFSET] + n_fft;
    if (first / per_row == last / per_row && first_start >= 0 && last_end <= p[P_LENGTH]) {
        const int count = POINTS / RADIX_0;
#if ALIGNED
        device const float2* samples = (device const float2*)(row + (start - p[P_OFFSET]));
        device const float2* weights = (device const float2*)window;
#else
        const long stride = p[P_STRIDE_1];
        device const float* samples = row + (start - p[P_OFFSET]) * stride;
#endif
        UNROLL
        for (int b = 0; b < PER_THREAD(RADIX_0); ++b) {
            const int j = t + b * THREADS;
            if (j < count) {
                UNROLL
                for (int i = 0; i < RADIX_0; ++i) {
                    const int n = j + i * count;
#if ALIGNED
                    v[b * RADIX_0 + i] = make_c(samples[n].x * weights[n].x, samples[n].y * weights[n].y);
#else
                    v[b * RADIX_0 + i] = make_c(samples[2 * n * stride] * window[2 * n],
                                                samples[(2 * n + 1) * stride] * window[2 * n + 1]);
#endif
                }
            }
        }
        if (p[P_ENVELOPE] != 0) {
            // away from both ends the envelope only depends on the place in the hop
            const bool inner = p[P_ENVELOPE] == 2 && start >= n_fft && start + n_fft <= p[P_FULL_LENGTH] - n_fft;
            device const float* period = env + n_fft;
            const float inverse_hop = 1.0f / float(hop);
            UNROLL
            for (int b = 0; b < PER_THREAD(RADIX_0); ++b) {
                UNROLL
                for (int i = 0; i < RADIX_0; ++i) {
                    const int n = 2 * (t + b * THREADS + i * count);
                    if (n < n_fft) {
                        const int at = n - int(hop) * quotient(n, inverse_hop);
                        const int next = at + 1 == int(hop) ? 0 : at + 1;
                        v[b * RADIX_0 + i].x *= inner ? period[at] : envelope_at(env, p, start + n);
                        v[b * RADIX_0 + i].y *= inner ? period[next] : envelope_at(env, p, start + n + 1);
                    }
                }
            }
        }
    } else {
        for (int n = t; n < points; n += threads) {
            z[n] = make_c(window[2 * n] * padded_sample(row, env, p, start + 2 * n),
                          window[2 * n + 1] * padded_sample(row, env, p, start + 2 * n + 1));
        }
        SLOT_BARRIER();
        load_points(v, z, t);
    }
    fft_registers(v, z, table, t);
#if !MIRRORED
    store_points(v, z, t);
    // the rows of a group's frames are one run in memory: all threads write it together, whichever frame they transformed
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const int bins = POINTS + 1;
    const int live = int(last - first + 1u) * bins;
    device const float2* untangle = table + p[P_UNTANGLE_AT];
    device float2* run = out + long(first) * bins;
    for (int e = int(thread_index); e < live; e += GROUP) {
        const int owner = int(uint(e) / uint(bins));
        const int k = e - owner * bins;
        threadgroup const float2* other = buffer + owner * SLOT_SIZE;
        const float2 a = other[k == POINTS ? 0 : k];
        const float2 b = other[k == 0 ? 0 : POINTS - k];
        const float2 odd = c_mul(untangle[k], make_c(a.y + b.y, b.x - a.x));
        const float weight = k == 0 || k == POINTS ? q[0] : q[1];
        run[e] = make_c(weight * (a.x + b.x + odd.x), weight * (a.y - b.y + odd.y));
    }
#endif
#else
    const long behind = start - p[P_OFFSET];
    const bool interior = p[P_ENVELOPE] == 0 && behind >= 0 && behind + (PAIR ? hop : 0) + n_fft <= p[P_LENGTH];
#if ALIGNED
    const int stride = 1;
#else
    const long stride = p[P_STRIDE_1];
#endif
    device const float* samples = row + behind * stride;
    for (int n = t; n < points && interior; n += threads) {
#if PAIR
        const float second = frame + 1 < frames ? samples[(int(hop) + n) * stride] : 0.0f;
        z[n] = make_c(window[n] * samples[n * stride], window[n] * second);
#elif ALIGNED
        const float2 sample = ((device const float2*)samples)[n];
        const float2 weight = ((device const float2*)window)[n];
        z[n] = make_c(weight.x * sample.x, weight.y * sample.y);
#else
        z[n] = make_c(window[2 * n] * samples[2 * n * stride], window[2 * n + 1] * samples[(2 * n + 1) * stride]);
#endif
    }
    for (int n = t; n < points && !interior; n += threads) {
#if PAIR
        const float second = frame + 1 < frames ? padded_sample(row, env, p, start + hop + n) : 0.0f;
        z[n] = make_c(window[n] * padded_sample(row, env, p, start + n), window[n] * second);
#else
        z[n] = make_c(window[2 * n] * padded_sample(row, env, p, start + 2 * n),
                      window[2 * n + 1] * padded_sample(row, env, p, start + 2 * n + 1));
#endif
    }
    SLOT_BARRIER();
    z = transform(z, table, p, t, threads);
#endif

#if !KIND_RADIX || MIRRORED
    if (slot.active) {
        const int bins = n_fft / 2 + 1;
        device float2* bins_out = out + (long(slot.row) * frames + frame) * bins;
#if PAIR
        const bool both = frame + 1 < frames;
        for (int k = t; k < bins; k += threads) {
            const float weight = k == 0 ? q[0] : q[1];
            const float2 a = z[k];
            const float2 b = z[k == 0 ? 0 : points - k];
            bins_out[k] = make_c(weight * (a.x + b.x), weight * (a.y - b.y));
            if (both) { bins_out[bins + k] = make_c(weight * (a.y + b.y), weight * (b.x - a.x)); }
        }
#elif MIRRORED
        write_mirrored(bins_out, v, table + p[P_UNTANGLE_AT], q, t);
#else
        device const float2* untangle = table + p[P_UNTANGLE_AT];
        for (int k = t; k <= points / 2; k += threads) {
            write_bins(bins_out, k, points, z[k], z[k == 0 ? 0 : points - k], untangle[k], k == 0 ? q[0] : q[1]);
        }
#endif
    }
#endif
}
