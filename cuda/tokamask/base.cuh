// What every kernel stands on: integer names, the few intrinsics that differ between NVRTC and the CPU emulator of the
// tests, and nothing from the host. A kernel includes only files of this folder.
#pragma once
#if defined(__CUDACC_RTC__)
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
#include <cstdint>
#endif

#define TM_ALL_LANES 0xffffffffu

// Dynamic shared memory under a name of the kernel's choice; 16-byte aligned.
#if defined(TM_EMULATED)
#define TM_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(emu::dynamic_shared())
#else
#define TM_DYNAMIC_SHARED(T, name)                                  \
    extern __shared__ __align__(16) unsigned char tm_dynamic_shared[]; \
    T* name = reinterpret_cast<T*>(tm_dynamic_shared)
#endif

namespace tokamask {

__device__ __forceinline__ float negative_infinity() { return __int_as_float(int(0xff800000u)); }
__device__ __forceinline__ int lane_index() { return int(threadIdx.x & 31u); }
__device__ __forceinline__ int warp_index() { return int(threadIdx.x >> 5); }
__device__ __forceinline__ bool is_nan(float x) { return (__float_as_uint(x) & 0x7fffffffu) > 0x7f800000u; }
template <class T> __device__ __forceinline__ T ceil_div(T a, T b) { return (a + b - 1) / b; }

// 2^x by the special-function unit: 2 ulp, subnormal results flushed to zero, 2^-inf = 0.
__device__ __forceinline__ float fast_exp2(float x) {
#if defined(TM_EMULATED)
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

}  // namespace tokamask
