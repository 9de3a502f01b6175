// What translated shader text stands on when NVRTC (or nvcc) compiles it. No system headers: NVRTC knows float2, uint3 and
// the math functions by itself.
#define MPS_SPECTRO_CUDA 1

// `long` is 32 bits wide in CUDA on Windows; in Metal it never is
typedef long long mps_long;
typedef unsigned long long mps_ulong;
#define ulong mps_ulong
typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;

// Metal inlines every function. Here it must be asked for: an array in registers whose address goes to a real call
// would move to local memory.
#define inline __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")

struct mps_ints { mps_long value[32]; };
struct mps_floats { float value[8]; };
// __grid_constant__: indexing with a variable reads the constant bank instead of a copy in local memory
#define MPS_INTS const __grid_constant__ mps_ints
#define MPS_FLOATS const __grid_constant__ mps_floats
#ifndef MPS_LINEAR
#define MPS_LINEAR 0
#endif
#ifndef MPS_RESIDENT
#define MPS_RESIDENT 1
#endif
#define MPS_KERNEL(limit) extern "C" __global__ void __launch_bounds__(limit, MPS_RESIDENT)
#define MPS_THREADGROUP_ARRAY(type, name, size) __shared__ type name[size]
#define MPS_CONSTANT __device__ constexpr

inline uint3 mps_thread_position_in_threadgroup() { return threadIdx; }
inline uint3 mps_threadgroup_position_in_grid() { return blockIdx; }
inline uint3 mps_threads_per_threadgroup() { return make_uint3(blockDim.x, blockDim.y, blockDim.z); }
inline uint3 mps_threadgroups_per_grid() { return make_uint3(gridDim.x, gridDim.y, gridDim.z); }
inline uint3 mps_thread_position_in_grid() {
    return make_uint3(blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y * blockDim.y + threadIdx.y,
                      blockIdx.z * blockDim.z + threadIdx.z);
}
inline uint mps_thread_index_in_threadgroup() {
    return MPS_LINEAR ? threadIdx.x : threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
inline uint mps_thread_index_in_simdgroup() { return mps_thread_index_in_threadgroup() & 31u; }
inline uint mps_simdgroup_index_in_threadgroup() { return mps_thread_index_in_threadgroup() >> 5; }

// Both barriers order threadgroup and device memory among the threads that meet in them, so the flags say nothing new.
struct mem_flags { enum : int { mem_none = 0, mem_device = 1, mem_threadgroup = 2 }; };
inline void threadgroup_barrier(int) { __syncthreads(); }
inline void simdgroup_barrier(int) { __syncwarp(); }

inline float2 make_c(float x, float y) { return make_float2(x, y); }

#define MPS_OPERATOR(op) \
    inline float2 operator op(float2 a, float2 b) { return make_float2(a.x op b.x, a.y op b.y); } \
    inline float2 operator op(float2 a, float b) { return make_float2(a.x op b, a.y op b); } \
    inline float2 operator op(float a, float2 b) { return make_float2(a op b.x, a op b.y); } \
    inline float4 operator op(float4 a, float4 b) { return make_float4(a.x op b.x, a.y op b.y, a.z op b.z, a.w op b.w); } \
    inline float4 operator op(float4 a, float b) { return make_float4(a.x op b, a.y op b, a.z op b, a.w op b); } \
    inline float4 operator op(float a, float4 b) { return make_float4(a op b.x, a op b.y, a op b.z, a op b.w); }
MPS_OPERATOR(+)
MPS_OPERATOR(-)
MPS_OPERATOR(*)
#undef MPS_OPERATOR
#define MPS_ASSIGN(op) \
    template <class T> inline float2& operator op##=(float2& a, T b) { return a = a op b; } \
    template <class T> inline float4& operator op##=(float4& a, T b) { return a = a op b; }
MPS_ASSIGN(+)
MPS_ASSIGN(-)
MPS_ASSIGN(*)
#undef MPS_ASSIGN
inline float2 operator-(float2 a) { return make_float2(-a.x, -a.y); }
inline float4 operator-(float4 a) { return make_float4(-a.x, -a.y, -a.z, -a.w); }

template <class T> inline T clamp(T x, T low, T high) { return min(max(x, low), high); }

template <class To, class From> inline To as_type(From from) {
    static_assert(sizeof(To) == sizeof(From), "as_type keeps the size");
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}

// IEEE binary16 for storage; arithmetic happens in float, which every half converts to and from (round to nearest even).
struct half {
    unsigned short bits;
    half() = default;
    inline half(float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x)); }
    inline operator float() const {
        float x;
        asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
        return x;
    }
};

#define MPS_SHUFFLE(metal, cuda) \
    template <class T> inline T metal(T v, uint by) { return cuda(0xffffffffu, v, by); } \
    inline float2 metal(float2 v, uint by) { return make_float2(metal(v.x, by), metal(v.y, by)); } \
    inline float4 metal(float4 v, uint by) { \
        return make_float4(metal(v.x, by), metal(v.y, by), metal(v.z, by), metal(v.w, by)); \
    }
MPS_SHUFFLE(simd_shuffle, __shfl_sync)
MPS_SHUFFLE(simd_shuffle_xor, __shfl_xor_sync)
#undef MPS_SHUFFLE

// Butterflies: every lane gets the same bits, as in Metal. The simdgroup must be full.
template <class T> inline T simd_sum(T v) {
    UNROLL
    for (uint by = 16; by != 0; by >>= 1) { v = v + simd_shuffle_xor(v, by); }
    return v;
}
template <class T> inline T simd_max(T v) {
    UNROLL
    for (uint by = 16; by != 0; by >>= 1) { v = max(v, simd_shuffle_xor(v, by)); }
    return v;
}
