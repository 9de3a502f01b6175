// Complex forward FFTs of one frame by the threads of one slot, Stockham order, data in registers, one exchange buffer
// in threadgroup memory. The plan (mps_spectro/_plan.py) chooses one of three kinds and defines, for each:
//   KIND_RADIX      POINTS, PASSES, RADIX_0 .. RADIX_3, THREADS known at compile time
//   KIND_MIXED      any length with factors 2, 3, 5, 7, 11, 13 and one larger prime, all known at run time only
//   KIND_BLUESTEIN  any length up to (POINTS + 1) / 2, known at run time; POINTS, PASSES, radices, THREADS as KIND_RADIX
// GROUP: threads per group. SLOT_SIZE: float2 of the exchange buffer per slot. SIMD_BARRIER: a slot fits in a simdgroup.
// PING_PONG: a slot has room for two frames, passes go from one to the other (mixed lengths up to 2048).
// SPLIT: the exchange moves real and imaginary parts one after the other, so POINTS floats are enough.
// MIRROR_FIRST, MIRROR_LAST: in the first / last pass a thread takes butterflies j and count - j, so that it holds bins k
// and POINTS - k of a real signal's spectrum together (two butterflies per thread, count = 2 * THREADS). MIRRORED: the
// radix of that pass, 8 or 10, or 0.
#include "butterflies.h"

#if SIMD_BARRIER
#define SLOT_BARRIER() simdgroup_barrier(mem_flags::mem_threadgroup)
#else
#define SLOT_BARRIER() threadgroup_barrier(mem_flags::mem_threadgroup)
#endif

// The butterfly that thread t takes as its b-th.
template <int MIRROR>
inline int butterfly(int b, int t, int threads) {
    if (MIRROR != 0 && b == 1) { return t == 0 ? threads : 2 * threads - t; }
    return t + b * threads;
}

// Butterfly j of a pass of radix R reads elements j + i * count, count = length / R, and applies the twiddles of the
// passes before it, whose radices multiply to `ns`.
template <int R, int PER_THREAD, int MIRROR>
inline void pass_dft(thread float2* v, device const float2* twiddles, int t, int threads, int count, int ns) {
    UNROLL
    for (int b = 0; b < PER_THREAD; ++b) {
        const int j = butterfly<MIRROR>(b, t, threads);
        if (uint(j) < uint(count)) {
            if (ns > 1) {
                device const float2* own = twiddles + uint(j) % uint(ns);
                UNROLL
                for (int i = 1; i < R; ++i) { v[b * R + i] = c_mul(v[b * R + i], own[(i - 1) * ns]); }
            }
            dft<R>(v + b * R);
        }
    }
}

#if MIRRORED
// The same for butterflies t and S - t of a last pass of radix MIRRORED, S = ns. The twiddles of the second are the
// conjugates of the first's times exp(-2 pi i i / MIRRORED), which only turns its result by one row. Thread 0 has
// butterflies 0 and S / 2, and the same holds for the twiddles of S / 2 with themselves.
inline void pass_dft_mirrored(thread float2* v, device const float2* twiddles, int t, int ns) {
    if (t < THREADS) {
        const bool zero = t == 0;
        device const float2* own = twiddles + uint(zero ? ns / 2 : t);
        UNROLL
        for (int i = 1; i < MIRRORED; ++i) {
            const float2 w = own[(i - 1) * ns];
            v[i] = c_mul(v[i], make_c(zero ? 1.0f : w.x, zero ? 0.0f : w.y));
            v[MIRRORED + i] = c_mul(v[MIRRORED + i], make_c(w.x, -w.y));
        }
        dft<MIRRORED>(v);
        dft<MIRRORED>(v + MIRRORED);
        const float2 first = v[MIRRORED];
        UNROLL
        for (int i = 0; i < MIRRORED - 1; ++i) { v[MIRRORED + i] = v[MIRRORED + 1 + i]; }
        v[2 * MIRRORED - 1] = first;
    }
}
#endif

template <int R, int PER_THREAD>
inline void pass_gather(thread float2* v, threadgroup const float2* z, int t, int threads, int count) {
    UNROLL
    for (int b = 0; b < PER_THREAD; ++b) {
        const int j = t + b * threads;
        if (j < count) {
            UNROLL
            for (int i = 0; i < R; ++i) { v[b * R + i] = z[j + i * count]; }
        }
    }
}

#if KIND_MIXED
#define ELEMENTS 1  // data is in threadgroup memory throughout

// Butterfly j of a pass, see pass_dft, from z to registers and from registers to where the next pass reads it.
template <int R>
inline void mixed_load(thread float2* v, threadgroup const float2* z, device const float2* twiddles, int j, int count,
                       int ns, float inverse_ns) {
    UNROLL
    for (int i = 0; i < R; ++i) { v[i] = z[j + i * count]; }
    if (ns > 1) {
        const int k = j - ns * quotient(j, inverse_ns);
        UNROLL
        for (int i = 1; i < R; ++i) { v[i] = c_mul(v[i], twiddles[(i - 1) * ns + k]); }
    }
    dft<R>(v);
}

template <int R>
inline void mixed_store(thread const float2* v, threadgroup float2* z, int j, int ns, float inverse_ns) {
    const int at = j + ns * (R - 1) * quotient(j, inverse_ns);
    UNROLL
    for (int i = 0; i < R; ++i) { z[at + i * ns] = v[i]; }
}

#if PING_PONG
// One pass from z to the other half of the slot.
template <int R, int PER_THREAD>
inline void mixed_pass(threadgroup float2* z, threadgroup float2* other, device const float2* twiddles, int t,
                       int threads, int points, int ns) {
    const int count = points / R;
    const float inverse_ns = 1.0f / float(ns);
    for (int j = t; j < count; j += threads) {
        float2 v[R];
        mixed_load<R>(v, z, twiddles, j, count, ns, inverse_ns);
        mixed_store<R>(v, other, j, ns, inverse_ns);
    }
    SLOT_BARRIER();
}
#else
// One pass in place: what a thread holds waits in registers until all have read.
template <int R, int PER_THREAD>
inline void mixed_pass(threadgroup float2* z, threadgroup float2* other, device const float2* twiddles, int t,
                       int threads, int points, int ns) {
    const int count = points / R;
    const float inverse_ns = 1.0f / float(ns);
    float2 v[R * PER_THREAD];
    UNROLL
    for (int b = 0; b < PER_THREAD; ++b) {
        const int j = t + b * threads;
        if (j < count) { mixed_load<R>(v + b * R, z, twiddles, j, count, ns, inverse_ns); }
    }
    SLOT_BARRIER();
    UNROLL
    for (int b = 0; b < PER_THREAD; ++b) {
        const int j = t + b * threads;
        if (j < count) { mixed_store<R>(v + b * R, z, j, ns, inverse_ns); }
    }
    SLOT_BARRIER();
}
#endif

#if PING_PONG
// A first pass whose radix is any odd prime, from z to `out`: the sums of a DFT of real symmetry, PRIME_TILE pairs of
// results at a time. Row i - 1 of `roots` holds exp(-2 pi i i k / prime) for k = 1, 2, .. PRIME_TILE * tiles. A barrier
// behind it.
#define PRIME_TILE 5
inline void prime_pass(threadgroup const float2* z, threadgroup float2* out, device const float2* roots, int prime,
                       int t, int threads, int points) {
    const int count = points / prime;
    const int half_prime = prime / 2;
    const int tiles = (half_prime + PRIME_TILE - 1) / PRIME_TILE;
    for (int item = t; item < count * tiles; item += threads) {
        const int tile = int(uint(item) / uint(count));
        const int column = item - tile * count;
        float2 total = z[column];
        float2 even[PRIME_TILE];
        float2 odd[PRIME_TILE];
        UNROLL
        for (int u = 0; u < PRIME_TILE; ++u) {
            even[u] = total;
            odd[u] = make_c(0.0f, 0.0f);
        }
        device const float2* row = roots + tile * PRIME_TILE;
        for (int i = 1; i <= half_prime; ++i) {
            const float2 near = z[column + i * count];
            const float2 far = z[column + (prime - i) * count];
            const float2 sum = near + far;
            const float2 difference = near - far;
            total = total + sum;
            UNROLL
            for (int u = 0; u < PRIME_TILE; ++u) {
                const float2 root = row[u];
                even[u] = even[u] + sum * root.x;
                odd[u] = odd[u] + difference * root.y;
            }
            row += tiles * PRIME_TILE;
        }
        threadgroup float2* results = out + column * prime;
        if (tile == 0) { results[0] = total; }
        UNROLL
        for (int u = 0; u < PRIME_TILE; ++u) {
            const int k = 1 + tile * PRIME_TILE + u;
            if (k <= half_prime) {
                results[k] = make_c(even[u].x - odd[u].y, even[u].y + odd[u].x);
                results[prime - k] = make_c(even[u].x + odd[u].y, even[u].y - odd[u].x);
            }
        }
    }
    SLOT_BARRIER();
}
#endif

// Transforms z[0 .. points), natural order in and out, a barrier behind it. Returns where the result lies: z or, with
// PING_PONG, the half of the slot that the last pass wrote.
inline threadgroup float2* transform(threadgroup float2* z, device const float2* table, constant long* p, int t,
                                     int threads) {
    const int points = int(p[P_POINTS]);
    const int passes = int(p[P_PASSES]);
    int ns = 1;
    threadgroup float2* other = z;
#if PING_PONG
    other = z + points;
    const int prime = int(p[P_PRIME]);
    if (prime != 0) {
        prime_pass(z, other, table + p[P_CHIRP_AT], prime, t, threads, points);
        ns = prime;
        threadgroup float2* written = other;
        other = z;
        z = written;
    }
#endif
    for (int s = 0; s < passes; ++s) {
        const int radix = int(p[P_RADICES + s]);
        if (radix == 2) {
            mixed_pass<2, 8>(z, other, table, t, threads, points, ns);
        } else if (radix == 3) {
            mixed_pass<3, 5>(z, other, table, t, threads, points, ns);
        } else if (radix == 4) {
            mixed_pass<4, 4>(z, other, table, t, threads, points, ns);
        } else if (radix == 5) {
            mixed_pass<5, 3>(z, other, table, t, threads, points, ns);
        } else if (radix == 7) {
            mixed_pass<7, 2>(z, other, table, t, threads, points, ns);
        } else if (radix == 8) {
            mixed_pass<8, 2>(z, other, table, t, threads, points, ns);
        } else if (radix == 11) {
            mixed_pass<11, 1>(z, other, table, t, threads, points, ns);
        } else {
            mixed_pass<13, 1>(z, other, table, t, threads, points, ns);
        }
        table += ns > 1 ? (radix - 1) * ns : 0;  // the first pass has no twiddles
        ns *= radix;
        threadgroup float2* written = other;
        other = z;
        z = written;
    }
    return z;
}

#else  // KIND_RADIX, KIND_BLUESTEIN

#define PER_THREAD(radix) ((POINTS / (radix) + THREADS - 1) / THREADS)
#if PASSES == 1
#define RADIX_LAST RADIX_0
#elif PASSES == 2
#define RADIX_LAST RADIX_1
#elif PASSES == 3
#define RADIX_LAST RADIX_2
#else
#define RADIX_LAST RADIX_3
#endif

// Padding that keeps both sides of an exchange off each other's banks: a pass writes runs of ns values a stride of
// ns * R apart, the next one reads runs of 16 and more.
inline int spread_pad(int radix, int ns) { return SWIZZLE && radix % 2 == 0 && (ns == 1 || (radix >= 8 && ns < 16)) ? ns : 0; }
inline int spread_block(int radix, int ns) { return 16 % (radix * ns) == 0 ? 16 : radix * ns; }

// Writes what a pass of radix R left in registers where the next pass, of radix NEXT, reads it, and reads it back.
template <int R, int NEXT, int MIRROR, int NEXT_MIRROR>
inline void exchange(thread float2* v, threadgroup float2* z, int t, int ns) {
    const int count = POINTS / R;
    const int next_count = POINTS / NEXT;
#if SPLIT
    threadgroup float* words = (threadgroup float*)z;
    UNROLL
    for (int part = 0; part < 2; ++part) {
        UNROLL
        for (int b = 0; b < PER_THREAD(R); ++b) {
            const int j = butterfly<MIRROR>(b, t, THREADS);
            const int k = j % ns;
            UNROLL
            for (int i = 0; i < R; ++i) {
                words[(j - k) * R + k + i * ns] = part == 0 ? v[b * R + i].x : v[b * R + i].y;
            }
        }
        SLOT_BARRIER();
        UNROLL
        for (int b = 0; b < PER_THREAD(NEXT); ++b) {
            const int j = butterfly<NEXT_MIRROR>(b, t, THREADS);
            UNROLL
            for (int i = 0; i < NEXT; ++i) {
                if (part == 0) {
                    v[b * NEXT + i].x = words[j + i * next_count];
                } else {
                    v[b * NEXT + i].y = words[j + i * next_count];
                }
            }
        }
        SLOT_BARRIER();
    }
#else
    const uint pad = uint(spread_pad(R, ns));
    const uint block = uint(spread_block(R, ns));
    UNROLL
    for (int b = 0; b < PER_THREAD(R); ++b) {
        const int j = butterfly<MIRROR>(b, t, THREADS);
        if (uint(j) < uint(count)) {
            const uint k = uint(j) % uint(ns);
            const uint at = (uint(j) - k) * uint(R) + k;
            threadgroup float2* to = z + (at + pad * (at / block));
            UNROLL
            for (int i = 0; i < R; ++i) { to[i * ns] = v[b * R + i]; }
        }
    }
    SLOT_BARRIER();
    UNROLL
    for (int b = 0; b < PER_THREAD(NEXT); ++b) {
        const int j = butterfly<NEXT_MIRROR>(b, t, THREADS);
        if (uint(j) < uint(next_count)) {
            const uint first = uint(j);
            if (next_count % int(block) == 0) {
                threadgroup const float2* from = z + (first + pad * (first / block));
                const int step = next_count + int(pad) * (next_count / int(block));
                UNROLL
                for (int i = 0; i < NEXT; ++i) { v[b * NEXT + i] = from[i * step]; }
            } else {
                UNROLL
                for (int i = 0; i < NEXT; ++i) {
                    const uint n = first + uint(i * next_count);
                    v[b * NEXT + i] = z[n + pad * (n / block)];
                }
            }
        }
    }
    SLOT_BARRIER();
#endif
}

#define LAST(n) (PASSES == (n) ? MIRROR_LAST : 0)
#if MIRRORED && MIRROR_LAST
#define DFT_PASS(n, radix, twiddles, ns) \
    if (PASSES == (n)) { \
        pass_dft_mirrored(v, twiddles, t, ns); \
    } else { \
        pass_dft<radix, PER_THREAD(radix), 0>(v, twiddles, t, THREADS, POINTS / (radix), ns); \
    }
#else
#define DFT_PASS(n, radix, twiddles, ns) \
    pass_dft<radix, PER_THREAD(radix), 0>(v, twiddles, t, THREADS, POINTS / (radix), ns);
#endif

// v holds elements j + i * POINTS / RADIX_0 on entry, j + i * POINTS / RADIX_LAST of the transform on return.
inline void fft_registers(thread float2* v, threadgroup float2* z, device const float2* table, int t) {
    pass_dft<RADIX_0, PER_THREAD(RADIX_0), MIRROR_FIRST>(v, table, t, THREADS, POINTS / RADIX_0, 1);
#if PASSES > 1
    exchange<RADIX_0, RADIX_1, MIRROR_FIRST, LAST(2)>(v, z, t, 1);
    const int at_2 = (RADIX_1 - 1) * RADIX_0;
    DFT_PASS(2, RADIX_1, table, RADIX_0)
#endif
#if PASSES > 2
    exchange<RADIX_1, RADIX_2, 0, LAST(3)>(v, z, t, RADIX_0);
    const int at_3 = at_2 + (RADIX_2 - 1) * RADIX_0 * RADIX_1;
    DFT_PASS(3, RADIX_2, table + at_2, RADIX_0 * RADIX_1)
#endif
#if PASSES > 3
    exchange<RADIX_2, RADIX_3, 0, LAST(4)>(v, z, t, RADIX_0 * RADIX_1);
    DFT_PASS(4, RADIX_3, table + at_3, RADIX_0 * RADIX_1 * RADIX_2)
#endif
}

#if MIRRORED

// Bins k and POINTS - k meet in the thread of butterflies j and S - j, S = POINTS / R, R = MIRRORED, in the passes of
// MIRROR_FIRST and MIRROR_LAST: k = j + i S there is row i of the first and POINTS - k row R - 1 - i of the second. Thread 0
// has butterflies 0 and S / 2, whose rows pair within each: rows i and R - i of the first, rows i and R - 1 - i of the
// second, and the bin in the middle alone.

// Bin k of the i-th pair of thread t, i a constant, is pair_base(i, t) + i * PAIR_ROWS.
#define PAIR_ROWS (POINTS / MIRRORED)
inline int pair_base(int i, int t) {
    return i >= MIRRORED / 2 && t == 0 ? PAIR_ROWS / 2 - MIRRORED / 2 * PAIR_ROWS : t;
}

// exp(-2 pi i k / n_fft) for the same k, from that of k = t.
inline float2 pair_factor(int i, int t, float2 own) {
    // thread 0, i >= R / 2: k = S / 2 + (i - R / 2) S, and S / 2 is a 4 R-th of n_fft
#if MIRRORED == 8
    const float2 second = make_c(0.19509032201612827f, 0.98078528040323045f);
    const float2 turn = make_c(ROTATION_RE[i], ROTATION_IM[i]);
#else
    const float2 second = make_c(0.15643446504023087f, 0.98768834059513773f);
    const float2 turn = make_c(ROTATION_20_RE[i], ROTATION_20_IM[i]);
#endif
    const float2 base = i >= MIRRORED / 2 && t == 0 ? second : own;
    return i == 0 ? base : c_mul(base, turn);
}

#endif

#if KIND_RADIX

// From natural order in threadgroup memory to the first pass's registers, a barrier behind it.
inline void load_points(thread float2* v, threadgroup const float2* z, int t) {
    pass_gather<RADIX_0, PER_THREAD(RADIX_0)>(v, z, t, THREADS, POINTS / RADIX_0);
    SLOT_BARRIER();
}

// From the last pass's registers to natural order in threadgroup memory, a barrier behind it.
inline void store_points(thread const float2* v, threadgroup float2* z, int t) {
    const int count = POINTS / RADIX_LAST;
    UNROLL
    for (int b = 0; b < PER_THREAD(RADIX_LAST); ++b) {
        const int j = t + b * THREADS;
        if (j < count) {
            UNROLL
            for (int i = 0; i < RADIX_LAST; ++i) { z[j + i * count] = v[b * RADIX_LAST + i]; }
        }
    }
    SLOT_BARRIER();
}

inline threadgroup float2* transform(threadgroup float2* z, device const float2* table, constant long* p, int t,
                                     int threads) {
    float2 v[ELEMENTS];
    load_points(v, z, t);
    fft_registers(v, z, table, t);
    store_points(v, z, t);
    return z;
}

#else  // KIND_BLUESTEIN: the DFT as a convolution with a chirp (Bluestein 1970), RADIX_0 == RADIX_LAST

inline threadgroup float2* transform(threadgroup float2* z, device const float2* table, constant long* p, int t,
                                     int threads) {
    const int points = int(p[P_POINTS]);
    device const float2* chirp = table + p[P_CHIRP_AT];
    device const float2* spectrum = table + p[P_SPECTRUM_AT];
    const int count = POINTS / RADIX_0;
    float2 v[ELEMENTS];
    UNROLL
    for (int b = 0; b < PER_THREAD(RADIX_0); ++b) {
        UNROLL
        for (int i = 0; i < RADIX_0; ++i) {
            const int n = t + b * THREADS + i * count;
            v[b * RADIX_0 + i] = n < points ? c_mul(z[n], chirp[n]) : make_c(0.0f, 0.0f);
        }
    }
    SLOT_BARRIER();
    fft_registers(v, z, table, t);
    // the inverse transform is the forward one with real and imaginary parts swapped before and after
    UNROLL
    for (int b = 0; b < PER_THREAD(RADIX_0); ++b) {
        UNROLL
        for (int i = 0; i < RADIX_0; ++i) {
            v[b * RADIX_0 + i] = c_swap(c_mul(v[b * RADIX_0 + i], spectrum[t + b * THREADS + i * count]));
        }
    }
    fft_registers(v, z, table, t);
    UNROLL
    for (int b = 0; b < PER_THREAD(RADIX_0); ++b) {
        UNROLL
        for (int i = 0; i < RADIX_0; ++i) {
            const int n = t + b * THREADS + i * count;
            if (n < points) { z[n] = c_mul(c_swap(v[b * RADIX_0 + i]), chirp[n]); }
        }
    }
    SLOT_BARRIER();
    return z;
}

#endif
#endif
