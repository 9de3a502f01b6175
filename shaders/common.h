// What every shader shares. Other targets than Metal get their definitions from a prelude (see README.md).
#if defined(__METAL_VERSION__)
#include <metal_stdlib>
using namespace metal;
#if __METAL_VERSION__ >= 320
#pragma METAL fp math_mode(safe)  // accuracy must not depend on PYTORCH_MPS_FAST_MATH
#endif
#define UNROLL _Pragma("clang loop unroll(full)")
#define NO_UNROLL _Pragma("clang loop unroll(disable)")
inline float2 make_c(float re, float im) { return float2(re, im); }
#endif

inline float2 c_mul(float2 a, float2 b) { return make_c(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }
inline float2 c_swap(float2 a) { return make_c(a.y, a.x); }
// n / d for 0 <= n < 2^20 and a divisor d whose reciprocal is known: exact, since n + 1/2 is never near a multiple of d
inline int quotient(int n, float reciprocal) { return int((float(n) + 0.5f) * reciprocal); }

// Integer arguments of both kernels, `constant long* p`. _kernels.py packs them in this order.
#define P_UNITS 0          // frames (or frame pairs) to analyse in all rows / items to synthesise in all rows
#define P_UNITS_PER_ROW 1
#define P_FRAMES 2
#define P_HOP 3
#define P_OFFSET 4         // samples of padding in front of the signal
#define P_LENGTH 5         // samples in a row of the signal
#define P_STRIDE_0 6       // analysis: row stride of x; synthesis: row stride of spec (complex)
#define P_STRIDE_1 7       // analysis: sample stride of x; synthesis: frame stride of spec
#define P_STRIDE_2 8       // synthesis: bin stride of spec
#define P_N_FFT 9
#define P_POINTS 10        // length of the complex transform: n_fft / 2, or n_fft where two frames share one
#define P_ENVELOPE 11      // 0 none, 1 dense, 2 head | period | tail
#define P_FULL_LENGTH 12   // (frames - 1) * hop + n_fft
#define P_THREADS 13       // threads per frame   } lengths known at run time only
#define P_SLOTS 14         // frames per group    }
#define P_PASSES 15        // radix passes        }
#define P_RADICES 16       // up to 7 of them     }
#define P_PRIME 23         // radix of a pass before them, or 0
#define P_DIRECT_OUT 13    // SEGMENTS: rows may be written as aligned pairs
#define P_INNER_BEGIN 14   // SEGMENTS: padded positions between these two are no edge: all frames reach them,
#define P_INNER_END 15     //   nothing is cropped, nothing folded
#define P_PAD_MODE 24
#define P_BANDS 25         // BANDS: values in a row of out
#define P_PROJECTED 26     // BANDS: through a bank, else bins are bands
#define P_WIDTH 27         // GAINS: bands that a bin belongs to
#define P_FIRST_BLOCK 25   // synthesis: hop-sized blocks of output before it are cropped away
#define P_BLOCKS 26        // synthesis: blocks per item
#define P_END_BLOCK 27     // synthesis: one past the last block of a row
#define P_HALO 28          // synthesis: earlier frames that reach into a block
#define P_UNTANGLE_AT 29   // where the parts of the table begin
#define P_CHIRP_AT 30      // the chirp, or the rows of roots of P_PRIME
#define P_SPECTRUM_AT 31

#define PAD_CONSTANT 0
#define PAD_REFLECT 1
#define PAD_REPLICATE 2  // 3: circular

// The reciprocal window envelope at padded position i.
inline float envelope_at(device const float* env, constant long* p, long i) {
    const long full = p[P_FULL_LENGTH];
    if (i >= full) { return 0.0f; }
    if (p[P_ENVELOPE] == 1) { return env[i]; }
    const long n_fft = p[P_N_FFT];
    if (i < n_fft) { return env[i]; }
    const long hop = p[P_HOP];
    if (i >= full - n_fft) { return env[n_fft + hop + i - (full - n_fft)]; }
    return env[n_fft + i % hop];
}
