// synthesis: inverse real FFT -> window -> overlap-add -> envelope -> crop, one dispatch; the adjoint of analysis.
//   y[i] = e[i] * sum_f window[i - f * hop] * scale * Re sum_k weight_k * spec[k, f] * exp(+2 pi i k (i - f * hop) / n_fft)
//   out[row, t] = y[t + offset], and with P_PAD_MODE reflect what lies in the padding is added to the sample it mirrors.
// One slot of threads makes P_BLOCKS blocks of `hop` samples in order of time. It transforms the frames that reach into
// them, the P_HALO earlier ones again, and adds them in a ring of n_fft samples spread over the registers of its threads:
// no atomics, and the same sum in every run. SEGMENTS > 0: hop is that many rows of the last pass, so that what a thread
// computes falls on what it has accumulated, and a finished block leaves straight from registers.
#include "common.h"
#include "synthesis.h"

// Where sample n of a transformed frame lies (real and imaginary part are still swapped), and where sample n of a
// finished block is put: with two frames in z, the block of the first takes the place of the first.
#if PAIR
#define FRAME_SAMPLE(n, part) (2 * (n) + 1 - (part))
#define BLOCK_SAMPLE(n, part) FRAME_SAMPLE(n, part)
#else
#define FRAME_SAMPLE(n, part) ((n) ^ 1)
#define BLOCK_SAMPLE(n, part) (n)
#endif

// Writes a block of `hop` samples that lies in threadgroup memory, barriers in front and behind.
inline void emit_block(device float* row, threadgroup const float* samples, device const float* env, constant long* p,
                       constant float* q, int t, int threads, long block, int part, bool wanted) {
    const long hop = p[P_HOP];
    const long n_fft = p[P_N_FFT];
    const bool folded = p[P_PAD_MODE] != PAD_CONSTANT;
    SLOT_BARRIER();
    for (int phase = folded ? 0 : 1; phase < (folded ? 3 : 2); ++phase) {
        if (wanted) {
            for (long n = t; n < hop; n += threads) {
                const long i = block * hop + n;
                float value = 0.0f;
                if (n < n_fft) { value = q[1] * samples[BLOCK_SAMPLE(n, part)]; }
                if (p[P_ENVELOPE] != 0) { value *= envelope_at(env, p, i); }
                emit(row, p, i, value, phase);
            }
        }
        if (folded) {
#if SIMD_BARRIER
            simdgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup);
#else
            threadgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup);
#endif
        }
    }
    SLOT_BARRIER();
}

[[max_total_threads_per_threadgroup(GROUP)]]
kernel void synthesis(
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
    const Slot slot = find_slot(p, thread_index, group_index);
    const int threads = SLOT_THREADS(p);
    const int t = slot.t;
    threadgroup float2* z = buffer + slot.index * SLOT_STRIDE(p);
    const int n_fft = int(p[P_N_FFT]);
    const long hop = p[P_HOP];
    const long frames = p[P_FRAMES];
    const long blocks = p[P_BLOCKS];
    const long halo = p[P_HALO];
    device const float2* spec_row = spec + long(slot.row) * p[P_STRIDE_0];
    device float* out_row = out + long(slot.row) * p[P_LENGTH];

    const long per_row = p[P_UNITS_PER_ROW];
    const long first_block = p[P_FIRST_BLOCK] + long(slot.unit) * blocks;
    const long end_block = long(slot.unit) == per_row - 1 ? p[P_END_BLOCK] : first_block + blocks;
    // the last item of a row takes the rest; every thread of the group makes the same number of steps
    const long rest = p[P_END_BLOCK] - p[P_FIRST_BLOCK] - (per_row - 1) * blocks;
    const long first_unit = long(group_index) * SLOT_COUNT(p);
    const bool has_last = first_unit % per_row + SLOT_COUNT(p) >= per_row;
    const long steps = halo + (has_last && rest > blocks ? rest : blocks);

#if SEGMENTS
    // ring[b * R + i]: samples 2 n, 2 n + 1 of the open part of the signal, n = t + b * THREADS + i * rows
    const int rows = POINTS / RADIX_LAST;
    const bool envelope = p[P_ENVELOPE] != 0;
    device const float2* weights = (device const float2*)window;
    float2 ring[ELEMENTS];
    UNROLL
    for (int a = 0; a < ELEMENTS; ++a) { ring[a] = make_c(0.0f, 0.0f); }
    for (long step = 0; step < steps; ++step) {
        const long block = first_block - halo + step;
        const bool exists = block >= 0 && block < frames && t < THREADS;
        const bool wanted = slot.active && block >= first_block && block < end_block;
        float2 v[ELEMENTS];
        device const float2* bins = spec_row + block * p[P_STRIDE_1];
        load_mirrored(v, bins, p[P_STRIDE_2], table + p[P_UNTANGLE_AT], q, t, exists);
        fft_registers(v, z, table, t);
        if (exists) {
            UNROLL
            for (int b = 0; b < PER_THREAD(RADIX_LAST); ++b) {
                UNROLL
                for (int i = 0; i < RADIX_LAST; ++i) {
                    const float2 weight = weights[t + b * THREADS + i * rows];
                    const float2 value = v[b * RADIX_LAST + i];
                    ring[b * RADIX_LAST + i].x += weight.x * value.y;
                    ring[b * RADIX_LAST + i].y += weight.y * value.x;
                }
            }
        }
        // a block at an edge goes the general way; slots that share a barrier agree on it
        const long begin = block * hop;
        bool edge = p[P_DIRECT_OUT] == 0 || begin < p[P_INNER_BEGIN] || begin + hop > p[P_INNER_END];
#if SIMD_BARRIER
        edge = simd_max(edge ? 1u : 0u) != 0u;
#endif
        if (edge) {
            UNROLL
            for (int b = 0; b < PER_THREAD(RADIX_LAST); ++b) {
                UNROLL
                for (int i = 0; i < SEGMENTS; ++i) {
                    if (t < THREADS) { z[t + b * THREADS + i * rows] = ring[b * RADIX_LAST + i]; }
                }
            }
            emit_block(out_row, (threadgroup float*)z, env, p, q, t, threads, block, 0, wanted);
        } else if (wanted) {
            device float2* pairs = (device float2*)(out_row + (begin - p[P_OFFSET]));
            device const float2* factors = (device const float2*)(env + n_fft);
            UNROLL
            for (int b = 0; b < PER_THREAD(RADIX_LAST); ++b) {
                UNROLL
                for (int i = 0; i < SEGMENTS; ++i) {
                    const int n = t + b * THREADS + i * rows;
                    float2 value = ring[b * RADIX_LAST + i] * q[1];
                    if (envelope) { value = value * factors[n]; }
                    pairs[n] = value;
                }
            }
        }
        UNROLL
        for (int b = 0; b < PER_THREAD(RADIX_LAST); ++b) {
            UNROLL
            for (int i = 0; i < RADIX_LAST; ++i) {
                if (i + SEGMENTS < RADIX_LAST) {
                    ring[b * RADIX_LAST + i] = ring[b * RADIX_LAST + i + SEGMENTS];
                } else {
                    ring[b * RADIX_LAST + i] = make_c(0.0f, 0.0f);
                }
            }
        }
    }
#else
    float ring[RING];
    UNROLL
    for (int a = 0; a < RING; ++a) { ring[a] = 0.0f; }
    const int hop_in_ring = int(hop % n_fft);
    int position = t;  // of the thread's first ring sample in the frame of this step

    for (long step = 0; step < steps; step += PAIR ? 2 : 1) {
        const long frame = first_block - halo + step;
        const bool exists = frame >= 0 && frame < frames && t < IDLE;
        device const float2* bins = spec_row + frame * p[P_STRIDE_1];
#if MIRRORED
        float2 v[ELEMENTS];
        load_mirrored(v, bins, p[P_STRIDE_2], table + p[P_UNTANGLE_AT], q, t, exists);
        fft_registers(v, z, table, t);
        store_points(v, z, t);
        threadgroup float* samples = (threadgroup float*)z;
#else
        load_spectrum(z, bins, table, p, q, t, threads, exists, frame + 1 >= 0 && frame + 1 < frames);
        threadgroup float* samples = (threadgroup float*)transform(z, table, p, t, threads);
#endif
        UNROLL
        for (int part = 0; part < (PAIR ? 2 : 1); ++part) {
            const long block = frame + part;
            if (block >= 0 && block < frames) {
                UNROLL
                for (int a = 0; a < RING; ++a) {
                    int n = position + a * threads;
                    n = n >= n_fft ? n - n_fft : n;
                    if (t + a * threads < n_fft) { ring[a] += window[n] * samples[FRAME_SAMPLE(n, part)]; }
                }
            }
            SLOT_BARRIER();
            UNROLL
            for (int a = 0; a < RING; ++a) {
                int n = position + a * threads;
                n = n >= n_fft ? n - n_fft : n;
                if (t + a * threads < n_fft && n < hop) {
                    samples[BLOCK_SAMPLE(n, part)] = ring[a];
                    ring[a] = 0.0f;
                }
            }
            emit_block(out_row, samples, env, p, q, t, threads, block, part,
                       slot.active && block >= first_block && block < end_block);
            position -= hop_in_ring;
            position = position < 0 ? position + n_fft : position;
        }
    }
#endif
}
