// What the shaders that end in powers of bins share: bins of a frame held in registers, their powers, sums over a bank, and
// the scale of bands.
//   S[k] = |X[k]|^power, with an epsilon under the root or behind it;  M[m] = sum_k basis[m, k] S[k]
// `ranges` has first bin, number of bins and place in `weights` of each band: banks are sparse. Pairs of weights of LANES
// bands lie side by side, because neighbouring threads read them together.
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

// SCALE: how bands become the result.
inline float band_scale(float value, constant float* q) {
#if SCALE == SCALE_LINEAR
    return value;
#elif SCALE == SCALE_CLAMP
    return q[4] * log(value < q[5] ? q[5] : value);  // NaN stays
#elif SCALE == SCALE_ADD
    return q[4] * log(value + q[5]);
#else
    // log(1 + x) to full precision for small x (Kahan)
    const float x = q[5] * value;
    const float one_more = 1.0f + x;
    return q[4] * (one_more == 1.0f ? x : log(one_more) * (x / (one_more - 1.0f)));
#endif
}

#if MIRRORED
#define HELD (MIRRORED + 1)  // pairs of bins of a thread at most, in every plan
#else
#define HELD 9
#endif

// First bin of the thread's i-th pair, i a constant, or -1. MIRRORED: the last is the bin in the middle, twice.
inline int held_bin(int i, int points, int t, int threads) {
#if MIRRORED
    if (t >= THREADS) { return -1; }
    return i < MIRRORED ? pair_base(i, t) + i * PAIR_ROWS : t == 0 ? POINTS / 2 : -1;
#else
    const int k = t + i * threads;
    return k <= points / 2 ? k : -1;
#endif
}

// The i-th pair times two: bins k and points - k, or bin k of both frames.
inline Bins held_pair(int i, int k, thread const float2* v, threadgroup const float2* z, device const float2* untangle,
                      int points, int t) {
#if MIRRORED
    if (i == MIRRORED) {
        Bins middle;
        middle.near = make_c(2.0f * v[MIRRORED / 2].x, -2.0f * v[MIRRORED / 2].y);
        middle.far = middle.near;
        return middle;
    }
    const bool zero = t == 0;
    return untangle_pair(mirrored_near(v, i, zero), mirrored_far(v, i, zero), pair_factor(i, t, untangle[t]));
#else
    const float2 a = z[k];
    const float2 b = z[k == 0 ? 0 : points - k];
#if PAIR
    Bins both;
    both.near = make_c(a.x + b.x, a.y - b.y);
    both.far = make_c(a.y + b.y, b.x - a.x);
    return both;
#else
    return untangle_pair(a, b, untangle[k]);
#endif
#endif
}

// The powers of the thread's pairs to where the sums read them. PAIR: those of the second frame behind those of the first.
inline void store_powers(threadgroup float* power, thread const float* near, thread const float* far, int points, int t,
                         int threads) {
#if MIRRORED
    if (t < THREADS) {
        UNROLL
        for (int i = 0; i < MIRRORED; ++i) {
            threadgroup float* from_first = power + pair_base(i, t);
            threadgroup float* from_last = power + (POINTS - pair_base(i, t));
            from_first[i * PAIR_ROWS] = near[i];
            from_last[-i * PAIR_ROWS] = far[i];
        }
        if (t == 0) { power[POINTS / 2] = near[MIRRORED]; }
    }
#else
    UNROLL
    for (int i = 0; i < HELD; ++i) {
        const int k = held_bin(i, points, t, threads);
        if (k >= 0) {
            power[k] = near[i];
            power[PAIR ? points / 2 + 1 + k : points - k] = far[i];
        }
    }
#endif
}

// Where the powers of the f-th frame of a group begin, from those of the first.
inline int power_place(int f, constant long* p) {
#if PAIR
    return (f / 2) * 2 * SLOT_STRIDE(p) + (f % 2) * (int(p[P_POINTS]) / 2 + 1);
#else
    return f * 2 * SLOT_STRIDE(p);
#endif
}

// The threads of a group sum its bands together, each one band of TOGETHER frames, which share the weights; TOGETHER
// divides the frames of a group. A thread's share: a band of the frames from `frame` on.
struct Share {
    int band;
    int frame;
};

inline int share_count(int bands, int frames) { return (bands + LANES - 1) / LANES * LANES * (frames / TOGETHER); }

inline Share find_share(int number, int bands) {
    const int lanes = (bands + LANES - 1) / LANES * LANES;
    Share share;
    share.band = number;
    share.frame = 0;
    while (share.band >= lanes) {  // seldom more than once, and cheaper than a division
        share.band -= lanes;
        share.frame += TOGETHER;
    }
    return share;
}

// Whether the f-th frame of a group exists, and which of all frames of all rows it is.
inline bool frame_exists(int f, uint first_unit, constant long* p) {
    const uint unit = first_unit + uint(f / (PAIR ? 2 : 1));
#if PAIR
    const uint frame = 2u * (unit % uint(p[P_UNITS_PER_ROW])) + uint(f % 2);
    return unit < uint(p[P_UNITS]) && frame < uint(p[P_FRAMES]);
#else
    return unit < uint(p[P_UNITS]);
#endif
}
inline ulong frame_row(int f, uint first_unit, constant long* p) {
#if PAIR
    const uint unit = first_unit + uint(f / 2);
    const uint row = unit / uint(p[P_UNITS_PER_ROW]);
    return ulong(row) * ulong(p[P_FRAMES]) + ulong(2u * (unit - row * uint(p[P_UNITS_PER_ROW])) + uint(f % 2));
#else
    return ulong(first_unit + uint(f));
#endif
}

// The bands of a share.
inline void sum_bands(thread float* sums, Share share, threadgroup const float* power, device const int* ranges,
                      device const float* weights, constant long* p) {
    const int band = min(share.band, int(p[P_BANDS]) - 1);
    threadgroup const float* bins = power + power_place(share.frame, p);
    if (p[P_PROJECTED] == 0) {
        UNROLL
        for (int u = 0; u < TOGETHER; ++u) { sums[u] = bins[power_place(u, p) + band]; }
        return;
    }
    device const int* range = ranges + 3 * band;
    const int count = range[1];
    bins += range[0];
    weights += range[2];
    float others[TOGETHER];
    UNROLL
    for (int u = 0; u < TOGETHER; ++u) {
        sums[u] = 0.0f;
        others[u] = 0.0f;
    }
    NO_UNROLL
    for (int i = 4; i <= count; i += 4) {
        const float2 near = *(device const float2*)weights;
        const float2 far = *(device const float2*)(weights + 2 * LANES);
        UNROLL
        for (int u = 0; u < TOGETHER; ++u) {
            threadgroup const float* own = bins + power_place(u, p);
            sums[u] += near.x * own[0];
            others[u] += near.y * own[1];
            sums[u] += far.x * own[2];
            others[u] += far.y * own[3];
        }
        weights += 4 * LANES;
        bins += 4;
    }
    NO_UNROLL
    for (int i = 0; i < count % 4; ++i) {
        const float weight = weights[2 * LANES * (i / 2) + i % 2];
        UNROLL
        for (int u = 0; u < TOGETHER; ++u) { sums[u] += weight * bins[power_place(u, p) + i]; }
    }
    UNROLL
    for (int u = 0; u < TOGETHER; ++u) { sums[u] += others[u]; }
}
