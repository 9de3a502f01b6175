// abreast: synthesis (see istft.metal) by all slots of a group together, ABREAST frames of one item at a time.
// Every slot transforms a frame and leaves it, windowed, in its own part of threadgroup memory; then all threads sum what
// overlaps and write ABREAST finished blocks. What the next frames still add to waits in registers. So an item has few
// steps one after another, and where frames lie side by side (STAGED) a run of them is fetched at once.
// A frame is RADIX_LAST rows of ROW pairs of samples, a hop SEGMENTS of them.
#include "common.h"
#include "synthesis.h"

#define ROW (POINTS / RADIX_LAST)
#define HOP_PAIRS (SEGMENTS * ROW)
#define SPAN (POINTS + (ABREAST - 1) * HOP_PAIRS)  // pairs that the frames of a step reach
#define OPEN ((SPAN + GROUP - 1) / GROUP)  // a thread's share of them
#define DONE (HOP_PAIRS / THREADS)  // its share of those that the step finishes
#define REACH ((RADIX_LAST + SEGMENTS - 1) / SEGMENTS)  // frames that overlap

#if STAGED
// The spectra of a step's frames, a few neighbouring values per bin and memory transaction.
inline void stage_frames(threadgroup float2* buffer, device const float2* row, constant long* p, int thread_index,
                         long first_frame) {
    const int f = thread_index % ABREAST;
    const int k = thread_index / ABREAST;
    const long frame = first_frame + f;
    const bool exists = frame >= 0 && frame < p[P_FRAMES];
    const long stride = p[P_STRIDE_2];
    device const float2* from = row + frame * p[P_STRIDE_1] + k * stride;
    threadgroup float2* to = buffer + f * SLOT_SIZE + k;
    float2 values[ELEMENTS + 1];
    UNROLL
    for (int i = 0; i <= ELEMENTS; ++i) {
        values[i] = make_c(0.0f, 0.0f);
        if (exists && k + i * THREADS <= POINTS) { values[i] = from[i * THREADS * stride]; }
    }
    UNROLL
    for (int i = 0; i <= ELEMENTS; ++i) {
        if (k + i * THREADS <= POINTS) { to[i * THREADS] = values[i]; }
    }
}
#endif

[[max_total_threads_per_threadgroup(GROUP)]]
kernel void abreast(
    device const float2* spec [[buffer(0)]],
    device const float* window [[buffer(1)]],
    device const float* env [[buffer(2)]],
    device const float2* table [[buffer(3)]],
    device float* out [[buffer(4)]],
    constant long* p [[buffer(5)]],
    constant float* q [[buffer(6)]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint group_index [[threadgroup_position_in_grid]])
{
    threadgroup float2 buffer[EXCHANGE];
    const int n = int(thread_index);
    const int slot = n / THREADS;
    const int t = n % THREADS;
    threadgroup float2* z = buffer + slot * SLOT_SIZE;
    const long hop = p[P_HOP];
    const uint per_row = uint(p[P_UNITS_PER_ROW]);
    const uint row = group_index / per_row;
    const uint item = group_index - row * per_row;
    device const float2* spec_row = spec + long(row) * p[P_STRIDE_0];
    device float* out_row = out + long(row) * p[P_LENGTH];
    device const float2* weights = (device const float2*)window;
    const bool envelope = p[P_ENVELOPE] != 0;
    const bool folded = p[P_PAD_MODE] != PAD_CONSTANT;
    const long first_block = p[P_FIRST_BLOCK] + long(item) * p[P_BLOCKS];
    const long end_block = item == per_row - 1u ? p[P_END_BLOCK] : first_block + p[P_BLOCKS];

    float2 sums[OPEN];
    UNROLL
    for (int j = 0; j < OPEN; ++j) { sums[j] = make_c(0.0f, 0.0f); }
    for (long first_frame = first_block - p[P_HALO]; first_frame < end_block; first_frame += ABREAST) {
        const long frame = first_frame + slot;
        const bool exists = frame >= 0 && frame < p[P_FRAMES];
        float2 v[ELEMENTS];
#if STAGED
        stage_frames(buffer, spec_row, p, n, first_frame);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        load_mirrored(v, z, 1, table + p[P_UNTANGLE_AT], q, t, exists);
        SLOT_BARRIER();
#else
        load_mirrored(v, spec_row + frame * p[P_STRIDE_1], p[P_STRIDE_2], table + p[P_UNTANGLE_AT], q, t, exists);
#endif
        fft_registers(v, z, table, t);
        UNROLL
        for (int b = 0; b < PER_THREAD(RADIX_LAST); ++b) {
            UNROLL
            for (int i = 0; i < RADIX_LAST; ++i) {
                const int at = t + b * THREADS + i * ROW;
                const float2 weight = weights[at];
                const float2 value = v[b * RADIX_LAST + i];
                z[at] = make_c(weight.x * value.y, weight.y * value.x);
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);

        UNROLL
        for (int j = 0; j < OPEN; ++j) {
            const int at = n + j * GROUP;
            const int newest = at / HOP_PAIRS;
            const int within = at - newest * HOP_PAIRS;
            UNROLL
            for (int u = REACH - 1; u >= 0; --u) {
                const int f = newest - u;
                const int place = within + u * HOP_PAIRS;
                if (f >= 0 && f < ABREAST && place < POINTS) { sums[j] = sums[j] + buffer[f * SLOT_SIZE + place]; }
            }
        }

        const long begin = first_frame * hop;
        const bool inner = p[P_DIRECT_OUT] != 0 && first_frame >= first_block && first_frame + ABREAST <= end_block &&
                           begin >= p[P_INNER_BEGIN] && begin + ABREAST * hop <= p[P_INNER_END];
        if (inner) {
            device float2* pairs = (device float2*)(out_row + (begin - p[P_OFFSET]));
            device const float2* factors = (device const float2*)(env + p[P_N_FFT]);
            UNROLL
            for (int j = 0; j < DONE; ++j) {
                const int at = n + j * GROUP;
                float2 value = sums[j] * q[1];
                if (envelope) { value = value * factors[at % HOP_PAIRS]; }
                pairs[at] = value;
            }
        } else {
            for (int phase = folded ? 0 : 1; phase < (folded ? 3 : 2); ++phase) {
                UNROLL
                for (int j = 0; j < DONE; ++j) {
                    const int at = n + j * GROUP;
                    const long block = first_frame + at / HOP_PAIRS;
                    const long i = begin + 2 * at;
                    if (block >= first_block && block < end_block) {
                        float2 value = sums[j] * q[1];
                        if (envelope) { value = make_c(value.x * envelope_at(env, p, i), value.y * envelope_at(env, p, i + 1)); }
                        emit(out_row, p, i, value.x, phase);
                        emit(out_row, p, i + 1, value.y, phase);
                    }
                }
                if (folded) { threadgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup); }
            }
        }
        UNROLL
        for (int j = 0; j < OPEN; ++j) {
            if (j + DONE < OPEN) {
                sums[j] = sums[j + DONE];
            } else {
                sums[j] = make_c(0.0f, 0.0f);
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}
