// moments: centroid, bandwidth and rolloff of rows of magnitudes, each of which is read once and held in registers.
//   centroid[row] = top c, c = sum A x / sum A, of the magnitudes A at places x = k / (bins - 1)
//   bandwidth[row] = top (sum A |x - c|^p / sum A)^(1/p)
//   rolloff[row] = spacing k of the first bin k up to which the sum is no less than `share` of the whole
// A row is the work of SIMDS simdgroups, of which each takes a segment of 32 HELD bins; a group works on ROWS rows.
// p: rows, bins; q: 1 / (bins - 1), top, spacing, order, 1 / order, share
#include "common.h"

#define GROUP (32 * SIMDS * ROWS)
#define SEGMENT (32 * HELD)
#define TILES 8  // of a segment, whose sums say where to look for the bin of the rolloff
#define STEPS ((HELD + TILES - 1) / TILES)  // bins of a tile, of each lane
#define TINY 1.17549435e-38f

// Whether bin i of those a lane holds is one of the row. Only the last few can lie behind its end.
#define EXISTS(i) ((i) < HELD - SIMDS || 32 * (i) + int(lane) < left)

// Sums over the lanes of a block up to each one. Unlike those of other networks they never fall from lane to lane while
// values are not negative, nor change where values are 0: comparing them finds one bin and not two.
template <int WIDTH>
inline float sums_up_to(float value, uint lane) {
    UNROLL
    for (uint d = 1u; d < uint(WIDTH); d *= 2u) {
        const float before = simd_shuffle(value, (lane & ~(2u * d - 1u)) + d - 1u);
        value += (lane & d) != 0u ? before : 0.0f;
    }
    return value;
}

// Half of the sums of 2 HALF tiles stay with a lane, the others go to one that keeps those.
template <int HALF>
inline void fold(thread float* sums, uint lane) {
    const bool upper = (lane & uint(HALF)) != 0u;
    UNROLL
    for (int m = 0; m < HALF; ++m) {
        const float kept = upper ? sums[m + HALF] : sums[m];
        const float given = upper ? sums[m] : sums[m + HALF];
        sums[m] = kept + simd_shuffle_xor(given, uint(HALF));
    }
}

inline float powered(float distance, float order) {
#if SQUARES
    return distance * distance;
#else
    return pow(distance, order);
#endif
}

inline float root(float value, float reciprocal_order) {
#if SQUARES
    return sqrt(value);
#else
    return pow(value, reciprocal_order);
#endif
}

// How many of the `length` bins of a segment lie in front of the one at which the sum reaches the threshold; `base`: the
// sum of the segments before, `upto`: of the tiles up to number lane % TILES.
inline int bins_before(
    device const float* values, int length, float base, float upto, float threshold, uint lane)
{
    const float reached = base + upto;
    int tiles = reached < threshold ? 1 : 0;
    UNROLL
    for (uint d = 1u; d < uint(TILES); d *= 2u) { tiles += simd_shuffle_xor(tiles, d); }
    float sum = simd_shuffle(reached, uint(max(tiles - 1, 0)));
    sum = tiles > 0 ? sum : base;
    const int start = min(32 * STEPS * tiles, length);
    // these few are read again, bin by bin
    int passed = 0;
    int last = start;
    NO_UNROLL
    for (int step = 0; step < STEPS && tiles < TILES && sum < threshold; ++step) {
        const int k = start + 32 * step + int(lane);
        const float value = k < length ? values[k] : 0.0f;
        last = value > 0.0f ? k : last;
        const float sums = sum + sums_up_to<32>(value, lane);
        passed += sums < threshold ? 1 : 0;
        sum = simd_shuffle(sums, 31u);
    }
    // added up in another order than the tile's, the sum may miss the threshold by its rounding: then its last bin
    // that counts is the one
    return min(start + simd_sum(passed), simd_max(last));
}

[[max_total_threads_per_threadgroup(GROUP)]]
kernel void moments(
    device const float* rows [[buffer(0)]],
    device float* out [[buffer(1)]],
    constant long* p [[buffer(2)]],
    constant float* q [[buffer(3)]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint group_index [[threadgroup_position_in_grid]])
{
#if SIMDS > 1
    threadgroup float2 shared[2 * SIMDS];
#endif
    const uint lane = thread_index % 32u;
    const int segment = int(thread_index / 32u) % SIMDS;
    const long own_row = long(group_index) * ROWS + long(thread_index / uint(32 * SIMDS));
    const long row = min(own_row, p[0] - 1);
    const int left = int(p[1]) - segment * SEGMENT;
    device const float* values = rows + row * p[1] + segment * SEGMENT;
    float held[HELD];
    UNROLL
    for (int i = 0; i < HELD; ++i) { held[i] = EXISTS(i) ? values[32 * i + int(lane)] : 0.0f; }

    const float first = float(segment * SEGMENT + int(lane));
    const float scale = q[0];
    float sums[TILES];
    float weighted = 0.0f;
    UNROLL
    for (int m = 0; m < TILES; ++m) {
        sums[m] = 0.0f;
        float part = 0.0f;
        UNROLL
        for (int i = m * STEPS; i < (m + 1) * STEPS; ++i) {
            if (i < HELD) {
                sums[m] += held[i];
                part += held[i] * ((first + float(32 * i)) * scale);
            }
        }
        weighted += part;
    }
    fold<4>(sums, lane);
    fold<2>(sums, lane);
    fold<1>(sums, lane);
    float tile = sums[0];
    UNROLL
    for (uint d = uint(TILES); d < 32u; d *= 2u) { tile += simd_shuffle_xor(tile, d); }
    const float upto = sums_up_to<TILES>(tile, lane);
    float total = simd_shuffle(upto, uint(TILES - 1));
    weighted = simd_sum(weighted);
    float base = 0.0f;
#if SIMDS > 1
    if (lane == 0u) { shared[segment] = make_c(total, weighted); }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    total = 0.0f;
    weighted = 0.0f;
    UNROLL
    for (int s = 0; s < SIMDS; ++s) {
        const float2 sum = shared[s];
        base = s == segment ? total : base;
        total += sum.x;
        weighted += sum.y;
    }
#endif

    // the centroid of silence is 0
    const float whole = total < TINY ? 1.0f : total;
    const float centre = weighted / whole;
    float spread = 0.0f;
    UNROLL
    for (int m = 0; m < TILES; ++m) {
        float part = 0.0f;
        UNROLL
        for (int i = m * STEPS; i < (m + 1) * STEPS; ++i) {
            if (i < HELD) {
                // not as a difference of moments, which would cancel; distances up to 1, whose powers do not overflow
                const float distance = fabs((first + float(32 * i)) * scale - centre);
                part += EXISTS(i) ? held[i] * powered(distance, q[3]) : 0.0f;
            }
        }
        spread += part;
    }
    spread = simd_sum(spread);
    int bin = bins_before(values, min(left, SEGMENT), base, upto, q[5] * total, lane);
#if SIMDS > 1
    if (lane == 0u) { shared[SIMDS + segment] = make_c(spread, float(bin)); }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float2 both = make_c(0.0f, 0.0f);
    UNROLL
    for (int s = 0; s < SIMDS; ++s) { both += shared[SIMDS + s]; }
    spread = both.x;
    bin = int(both.y);
#endif
    if (lane == 0u && segment == 0 && own_row < p[0]) {
        out[row] = centre * q[1];
        out[p[0] + row] = root(spread / whole, q[4]) * q[1];
        // a frame that is not finite has no rolloff, and none may seem to
        out[2 * p[0] + row] = float(min(bin, int(p[1]) - 1)) * q[2] + 0.0f * total;
    }
}
