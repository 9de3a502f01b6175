// What the two kernels of synthesis share: a frame's spectrum on its way into the transform, and a sample on its way out.
// STAGED: the spectrum is fetched by all threads of the group into threadgroup memory first.
#define MIRROR_FIRST MIRRORED
#define MIRROR_LAST 0
#include "fft.h"
#include "slots.h"

// Elements k and points - k of the half-length transform from bins k and points - k, with real and imaginary part
// swapped: the inverse transform is the forward one of that.
struct Pair {
    float2 near;
    float2 far;
};

inline Pair entangle(float2 a, float2 b, float2 w) {
    const float2 even = make_c(a.x + b.x, a.y - b.y);
    const float2 odd = c_mul(make_c(a.x - b.x, a.y + b.y), make_c(w.x, -w.y));
    Pair pair;
    pair.near = make_c(even.y + odd.x, even.x - odd.y);
    pair.far = make_c(odd.x - even.y, even.x + odd.y);
    return pair;
}

// The first and last bin: their imaginary parts do not count, their weight beside the others' is q[0].
inline float2 real_bin(float2 a, constant float* q) { return make_c(a.x * q[0], 0.0f); }

#if MIRRORED
// One frame's spectrum in the registers of the first pass; pairs as in pair_base.
inline void load_mirrored(thread float2* v,
#if STAGED
                          threadgroup const float2* bins,
#else
                          device const float2* bins,
#endif
                          long bin_stride, device const float2* untangle, constant float* q, int t, bool exists) {
#if BINS_CONTIGUOUS || STAGED
    const int stride = 1;
#else
    const long stride = bin_stride;
#endif
    const bool zero = t == 0;
    const float2 own_factor = untangle[min(t, THREADS - 1)];
    Pair pairs[MIRRORED];
    float2 middle = make_c(0.0f, 0.0f);
    UNROLL
    for (int i = 0; i < MIRRORED; ++i) {
        const int k = pair_base(i, t);
#if STAGED
        threadgroup const float2* near = bins + k;
        threadgroup const float2* far = bins + (POINTS - k);
#else
        device const float2* near = bins + k * stride;
        device const float2* far = bins + (POINTS - k) * stride;
#endif
        float2 a = make_c(0.0f, 0.0f);
        float2 b = make_c(0.0f, 0.0f);
        if (exists) {
            a = near[i * PAIR_ROWS * stride];
            b = far[-i * PAIR_ROWS * stride];
        }
        if (i == 0 && zero) {
            a = real_bin(a, q);
            b = real_bin(b, q);
        }
        pairs[i] = entangle(a, b, pair_factor(i, t, own_factor));
    }
    if (zero && exists) {
        const float2 a = bins[(POINTS / 2) * stride];
        middle = make_c(-2.0f * a.y, 2.0f * a.x);
    }
    UNROLL
    for (int i = 0; i < MIRRORED; ++i) {
        const int half_rows = MIRRORED / 2;
        const float2 own = i < half_rows ? pairs[i].near : i == half_rows ? middle : pairs[MIRRORED - i].far;
        const float2 next = i < half_rows ? pairs[half_rows + i].near : pairs[MIRRORED + half_rows - 1 - i].far;
        v[i] = zero ? own : pairs[i].near;
        v[MIRRORED + i] = zero ? next : pairs[MIRRORED - 1 - i].far;
    }
}
#else
// One frame's spectrum in z; PAIR: two frames, the second as the imaginary part.
inline void load_spectrum(threadgroup float2* z, device const float2* bins, device const float2* table,
                          constant long* p, constant float* q, int t, int threads, bool exists, bool next_exists) {
    const int points = int(p[P_POINTS]);
    const long stride = p[P_STRIDE_2];
#if PAIR
    device const float2* next = bins + p[P_STRIDE_1];
    for (int k = t; k <= points / 2; k += threads) {
        float2 a = make_c(0.0f, 0.0f);
        float2 b = make_c(0.0f, 0.0f);
        if (exists) { a = bins[k * stride]; }
        if (next_exists) { b = next[k * stride]; }
        if (k == 0) {
            z[0] = make_c(q[0] * b.x, q[0] * a.x);
        } else {
            z[k] = make_c(a.y + b.x, a.x - b.y);
            z[points - k] = make_c(b.x - a.y, a.x + b.y);
        }
    }
#else
    device const float2* untangle = table + p[P_UNTANGLE_AT];
    for (int k = t; k <= points / 2; k += threads) {
        float2 a = make_c(0.0f, 0.0f);
        float2 b = make_c(0.0f, 0.0f);
        if (exists) {
            a = bins[k * stride];
            b = bins[(points - k) * stride];
        }
        if (k == 0) {
            a = real_bin(a, q);
            b = real_bin(b, q);
        }
        const Pair pair = entangle(a, b, untangle[k]);
        z[k] = pair.near;
        if (k != 0) { z[points - k] = pair.far; }
    }
#endif
    SLOT_BARRIER();
}
#endif

// Writes one finished sample. With reflected padding three calls, a barrier between them, make the order of the
// additions fixed: 0 the mirror in front, 1 the signal, 2 the mirror behind.
inline void emit(device float* row, constant long* p, long i, float value, int phase) {
    const long offset = p[P_OFFSET];
    const long length = p[P_LENGTH];
    const long target = i - offset;
    if (p[P_PAD_MODE] == PAD_CONSTANT) {
        if (target >= 0 && target < length) { row[target] = value; }
    } else if (phase == 0) {
        if (target < 0 && -target < length) { row[-target] = value; }
    } else if (phase == 1) {
        if (target >= 0 && target < length) { row[target] = target >= 1 && target <= offset ? row[target] + value : value; }
    } else {
        // no further than the padding: what mirrors beyond it belongs to other items
        const long mirrored = 2 * (length - 1) - target;
        if (target >= length && target < length + offset) { row[mirrored] = row[mirrored] + value; }
    }
}
