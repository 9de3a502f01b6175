// Metal's types and functions in C++ for OpenCL: declarations only, nothing runs. clang compares address spaces here.
#define MPS_SPECTRO_OPENCL 1
#define MPS_CONSTANT __constant
#define MPS_THREADGROUP_ARRAY(type, name, size) __local type name[size]
#define UNROLL
#define NO_UNROLL

#pragma OPENCL EXTENSION cl_khr_fp16 : enable

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef float float2 __attribute__((ext_vector_type(2)));
typedef float float4 __attribute__((ext_vector_type(4)));
typedef uint uint3 __attribute__((ext_vector_type(3)));
inline float2 make_c(float a, float b) { return (float2)(a, b); }

#define MPS_UNARY(name) float name(float);
MPS_UNARY(sqrt) MPS_UNARY(log) MPS_UNARY(log2) MPS_UNARY(log10) MPS_UNARY(exp) MPS_UNARY(exp2) MPS_UNARY(fabs)
MPS_UNARY(floor) MPS_UNARY(ceil) MPS_UNARY(rint) MPS_UNARY(round) MPS_UNARY(trunc)
#undef MPS_UNARY
float pow(float, float);
float fmin(float, float);
float fmax(float, float);
float fma(float, float, float);
bool isnan(float);
bool isinf(float);
bool isfinite(float);
#define MPS_ORDERED(type) type min(type, type); type max(type, type); type clamp(type, type, type);
MPS_ORDERED(float) MPS_ORDERED(int) MPS_ORDERED(uint) MPS_ORDERED(long) MPS_ORDERED(ulong)
#undef MPS_ORDERED
float abs(float);
int abs(int);
long abs(long);
template <class To, class From> To as_type(From from);

enum class mem_flags : uint { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
mem_flags operator|(mem_flags, mem_flags);
void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);
template <class T> T simd_shuffle(T value, ushort lane);
template <class T> T simd_shuffle_xor(T value, ushort mask);
template <class T> T simd_sum(T value);
template <class T> T simd_max(T value);
