// The first part of analysis, shared by the kernels that end in different ways: one slot of threads takes one frame
// through padding, window and transform. PAIR: two frames, as real and imaginary part of one transform (odd n_fft). Even
// n_fft without PAIR: the even and odd samples are the parts of one transform of half the length.
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

// Leaves the transform of the slot's frame in v (MIRRORED, the rows of the last pass) or in threadgroup memory, which it
// returns, in natural order and with a barrier behind it.
inline threadgroup float2* transform_frame(thread float2* v, threadgroup float2* z, device const float* row,
                                           device const float* window, device const float* env,
                                           device const float2* table, constant long* p, Slot slot, uint group_index) {
    const int threads = SLOT_THREADS(p);
    const int t = slot.t;
    const int points = int(p[P_POINTS]);
    const int n_fft = int(p[P_N_FFT]);
    const long hop = p[P_HOP];
    const long frames = p[P_FRAMES];
    const long frame = first_frame(slot);
    const long start = frame * hop;

#if KIND_RADIX
#if SIMD_BARRIER || SLOTS == 1
    const long first_start = start;
    const long last_end = start + n_fft;
    bool general = false;
#else
    // the same for every thread of the group, because there are barriers on one side
    const uint per_row = uint(p[P_UNITS_PER_ROW]);
    const uint first = group_index * uint(SLOTS);
    const uint last = min(first + uint(SLOTS), uint(p[P_UNITS])) - 1u;
    const long first_start = long(first % per_row) * hop;
    const long last_end = long(last % per_row) * hop + n_fft;
    bool general = first / per_row != last / per_row;
#endif
    const bool inside = first_start >= p[P_OFFSET] && last_end <= p[P_OFFSET] + p[P_LENGTH];
    // away from both ends the envelope only depends on the place in the hop
    const bool periodic = p[P_ENVELOPE] == 0 || (p[P_ENVELOPE] == 2 && first_start >= n_fft &&
                                                 last_end <= p[P_FULL_LENGTH] - n_fft);
    general = general || !inside || !periodic;
#if SIMD_BARRIER && THREADS < 32
    general = simd_max(general ? 1u : 0u) != 0u;  // slots that share a barrier
#endif
    if (!general) {
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
            device const float* period = env + n_fft;
            const float inverse_hop = 1.0f / float(hop);
            UNROLL
            for (int b = 0; b < PER_THREAD(RADIX_0); ++b) {
                UNROLL
                for (int i = 0; i < RADIX_0; ++i) {
                    const int n = 2 * (t + b * THREADS + i * count);
                    if (n < n_fft) {
                        const int at = n - int(hop) * quotient(n, inverse_hop);
                        v[b * RADIX_0 + i].x *= period[at];
                        v[b * RADIX_0 + i].y *= period[at + 1 == int(hop) ? 0 : at + 1];
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
#endif
    return z;
#else
    const long behind = start - p[P_OFFSET];
    const bool interior = p[P_ENVELOPE] == 0 && behind >= 0 && behind + (PAIR ? hop : 0) + n_fft <= p[P_LENGTH];
#if ALIGNED
    const int stride = 1;
#else
    const long stride = p[P_STRIDE_1];
#endif
    device const float* samples = row + behind * stride;
#if PAIR
    device const float* later = samples + hop * stride;
#endif
    for (int n = t; n < points && interior; n += threads) {
#if PAIR
        const float second = frame + 1 < frames ? later[n * stride] : 0.0f;
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
    return transform(z, table, p, t, threads);
#endif
}

// Bins k and points - k of a frame, times two, from elements k and points - k of the half-length transform.
struct Bins {
    float2 near;
    float2 far;
};

inline Bins untangle_pair(float2 a, float2 b, float2 factor) {
    const float2 even = make_c(a.x + b.x, a.y - b.y);
    const float2 odd = c_mul(factor, make_c(a.y + b.y, b.x - a.x));
    Bins bins;
    bins.near = make_c(even.x + odd.x, even.y + odd.y);
    bins.far = make_c(even.x - odd.x, odd.y - even.y);
    return bins;
}

#if MIRRORED
// The elements that make the i-th pair of bins, from the registers of the last pass, see pair_base.
inline float2 mirrored_near(thread const float2* v, int i, bool zero) {
    const float2 own = i < MIRRORED / 2 ? v[i] : v[MIRRORED / 2 + i];
    return zero ? own : v[i];
}
inline float2 mirrored_far(thread const float2* v, int i, bool zero) {
    const int place = i == 0 ? 0 : i < MIRRORED / 2 ? MIRRORED - i : 2 * MIRRORED + MIRRORED / 2 - 1 - i;
    return zero ? v[place] : v[2 * MIRRORED - 1 - i];
}
#endif
