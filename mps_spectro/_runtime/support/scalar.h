// Metal's types and math in C++, for the host. No headers: hundreds of specialisations are compiled in a test run.
#define MPS_SPECTRO_HOST 1
#define MPS_INLINE inline __attribute__((always_inline))
#define MPS_CONSTANT static const
#define UNROLL
#define NO_UNROLL

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
#if __SIZEOF_LONG__ == 8
typedef long mps_long;
typedef unsigned long ulong;
#else
typedef long long mps_long;
typedef unsigned long long ulong;
#endif
typedef __SIZE_TYPE__ mps_size;
static_assert(sizeof(mps_long) == 8 && sizeof(uint) == 4 && sizeof(float) == 4, "Metal's sizes");

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct uint3 { uint x, y, z; };
MPS_INLINE float2 make_c(float a, float b) { return {a, b}; }

#define MPS_VECTOR_OPERATOR(o) \
    MPS_INLINE float2 operator o(float2 a, float2 b) { return {a.x o b.x, a.y o b.y}; } \
    MPS_INLINE float2 operator o(float2 a, float b) { return {a.x o b, a.y o b}; } \
    MPS_INLINE float2 operator o(float a, float2 b) { return {a o b.x, a o b.y}; } \
    MPS_INLINE float2& operator o##=(float2& a, float2 b) { return a = a o b; } \
    MPS_INLINE float2& operator o##=(float2& a, float b) { return a = a o b; } \
    MPS_INLINE float4 operator o(float4 a, float4 b) { return {a.x o b.x, a.y o b.y, a.z o b.z, a.w o b.w}; } \
    MPS_INLINE float4 operator o(float4 a, float b) { return {a.x o b, a.y o b, a.z o b, a.w o b}; } \
    MPS_INLINE float4 operator o(float a, float4 b) { return {a o b.x, a o b.y, a o b.z, a o b.w}; } \
    MPS_INLINE float4& operator o##=(float4& a, float4 b) { return a = a o b; } \
    MPS_INLINE float4& operator o##=(float4& a, float b) { return a = a o b; }
MPS_VECTOR_OPERATOR(+)
MPS_VECTOR_OPERATOR(-)
MPS_VECTOR_OPERATOR(*)
#undef MPS_VECTOR_OPERATOR
MPS_INLINE float2 operator-(float2 a) { return {-a.x, -a.y}; }
MPS_INLINE float4 operator-(float4 a) { return {-a.x, -a.y, -a.z, -a.w}; }

// Built-in names of C stay out of the shader's way: a kernel's sqrt is the float one
#define MPS_UNARY(name) MPS_INLINE float name(float a) { return __builtin_##name##f(a); }
MPS_UNARY(sqrt) MPS_UNARY(log) MPS_UNARY(log2) MPS_UNARY(log10) MPS_UNARY(exp) MPS_UNARY(exp2) MPS_UNARY(fabs)
MPS_UNARY(floor) MPS_UNARY(ceil) MPS_UNARY(rint) MPS_UNARY(round) MPS_UNARY(trunc)
#undef MPS_UNARY
MPS_INLINE float pow(float a, float b) { return __builtin_powf(a, b); }
MPS_INLINE float fmin(float a, float b) { return __builtin_fminf(a, b); }
MPS_INLINE float fmax(float a, float b) { return __builtin_fmaxf(a, b); }
MPS_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
MPS_INLINE bool isnan(float a) { return __builtin_isnan(a); }
MPS_INLINE bool isinf(float a) { return __builtin_isinf(a); }
MPS_INLINE bool isfinite(float a) { return __builtin_isfinite(a); }

// Not templates: arguments of mixed types are ambiguous, as they are in Metal
#define MPS_ORDERED(type) \
    MPS_INLINE type min(type a, type b) { return b < a ? b : a; } \
    MPS_INLINE type max(type a, type b) { return a < b ? b : a; } \
    MPS_INLINE type clamp(type a, type low, type high) { return min(max(a, low), high); }
MPS_ORDERED(float) MPS_ORDERED(int) MPS_ORDERED(uint) MPS_ORDERED(mps_long) MPS_ORDERED(ulong)
#undef MPS_ORDERED
MPS_INLINE float abs(float a) { return __builtin_fabsf(a); }
MPS_INLINE int abs(int a) { return a < 0 ? -a : a; }
MPS_INLINE mps_long abs(mps_long a) { return a < 0 ? -a : a; }

template <class To, class From>
MPS_INLINE To as_type(From from) {
    static_assert(sizeof(To) == sizeof(From), "as_type keeps the size");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

// IEEE binary16, to nearest even. Not every C++ compiler has a type for it.
struct half {
    ushort bits;
    half() = default;
    half(float value) {
        uint u = as_type<uint>(value), sign = u >> 16 & 0x8000;
        u &= 0x7fffffff;
        if (u > 0x7f800000) bits = sign | 0x7e00;
        else if (u >= 0x477ff000) bits = sign | 0x7c00;
        else if (u >= 0x38800000) bits = sign | (u - 0x38000000 + 0xfff + (u >> 13 & 1)) >> 13;
        else bits = sign | uint(__builtin_rintf(as_type<float>(u) * 16777216.0f));
    }
    operator float() const {
        uint magnitude = bits & 0x7fff, sign = uint(bits & 0x8000) << 16;
        if (magnitude < 0x400) return as_type<float>(sign | as_type<uint>(magnitude * 5.9604644775390625e-8f));
        return as_type<float>(sign | (magnitude >= 0x7c00 ? magnitude << 13 | 0x7f800000 : (magnitude << 13) + 0x38000000));
    }
};

enum class mem_flags : uint { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
MPS_INLINE mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(uint(a) | uint(b)); }
