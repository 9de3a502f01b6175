// extremes: of every row of magnitudes and every band of bins the mean of its largest and of its smallest values:
//   out[0, band, row], out[1, band, row] = mean of the `count` largest, smallest of x[row, first .. end)
// `bands` has first, end and count of each band. One simdgroup takes a row. Values are taken in order, equal ones
// together, and the row is read again for each: there are few. NaN is the largest of all, as torch.topk has it.
// p: rows, bins of a row, bands; q: not used
#include "common.h"

#define INFINITE as_type<float>(0x7f800000u)
#define NOT_A_NUMBER as_type<float>(0x7fc00000u)

// The sum of the `count` largest of sign * x[first .. end), without NaN; NaN where there are fewer.
inline float sum_largest(device const float* x, int first, int end, int count, float sign, int lane) {
    float total = 0.0f;
    float limit = INFINITE;
    bool all = true;  // nothing has been taken yet, not even infinity
    int left = count;
    while (left > 0) {
        float best = -INFINITE;
        for (int k = first + lane; k < end; k += 32) {
            const float value = sign * x[k];
            if ((all || value < limit) && value > best) { best = value; }
        }
        best = simd_max(best);
        int copies = 0;
        for (int k = first + lane; k < end; k += 32) {
            if (sign * x[k] == best) { copies += 1; }
        }
        copies = simd_sum(copies);
        // where nothing is left but NaN, that is taken
        const int taken = copies == 0 ? left : min(copies, left);
        total += copies == 0 ? NOT_A_NUMBER : float(taken) * best;
        left -= taken;
        limit = best;
        all = false;
    }
    return sign * total;
}

[[max_total_threads_per_threadgroup(GROUP)]]
kernel void extremes(
    device const float* x [[buffer(0)]],
    device const int* bands [[buffer(1)]],
    device float* out [[buffer(2)]],
    constant long* p [[buffer(3)]],
    constant float* q [[buffer(4)]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint group_index [[threadgroup_position_in_grid]])
{
    const int lane = int(thread_index % 32u);
    const long rows = p[0];
    const int count = int(p[2]);
    const long wanted = long(group_index) * (GROUP / 32) + long(thread_index / 32u);
    const long row = min(wanted, rows - 1);  // the rest of the last group repeats its last row, unwritten
    device const float* values = x + row * p[1];
    for (int band = 0; band < count; ++band) {
        const int first = bands[3 * band];
        const int end = bands[3 * band + 1];
        const int number = bands[3 * band + 2];
        float worst = 0.0f;
        for (int k = first + lane; k < end; k += 32) {
            if (values[k] != values[k]) { worst = 1.0f; }
        }
        const bool has_nan = simd_max(worst) > 0.0f;
        const float largest = sum_largest(values, first, end, number, 1.0f, lane);
        const float smallest = sum_largest(values, first, end, number, -1.0f, lane);
        if (lane == 0 && wanted == row) {
            out[band * rows + row] = has_nan ? NOT_A_NUMBER : largest / float(number);
            out[(count + band) * rows + row] = smallest / float(number);
        }
    }
}
