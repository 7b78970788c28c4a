// Storage types. A kernel is compiled with -DELEMENT=f32, bf16 or f16 and computes in float; 16-bit types are kept as
// bits, so that no CUDA header is needed.
#pragma once
#include "base.cuh"

namespace tokamask {

struct f32 { float value; };
struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

__device__ __forceinline__ float half_bits_to_float(uint16_t bits) {
#if defined(TM_EMULATED)
    return emu::half_to_float(bits);
#else
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(bits));
    return f;
#endif
}
__device__ __forceinline__ uint16_t float_to_half_bits(float f) {
#if defined(TM_EMULATED)
    return emu::float_to_half(f);
#else
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(f));
    return bits;
#endif
}
// Integer arithmetic rather than cvt.rn.bf16.f32, which sm_75 lacks: to nearest, ties to even, NaN stays NaN.
__device__ __forceinline__ uint16_t float_to_bfloat_bits(float f) {
    const uint32_t u = __float_as_uint(f);
    if (is_nan(f)) return uint16_t(u >> 16 | 0x40u);
    return uint16_t((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

__device__ __forceinline__ float to_float(f32 e) { return e.value; }
__device__ __forceinline__ float to_float(bf16 e) { return __uint_as_float(uint32_t(e.bits) << 16); }
__device__ __forceinline__ float to_float(f16 e) { return half_bits_to_float(e.bits); }
__device__ __forceinline__ void store(f32* at, float f) { at->value = f; }
__device__ __forceinline__ void store(bf16* at, float f) { at->bits = float_to_bfloat_bits(f); }
__device__ __forceinline__ void store(f16* at, float f) { at->bits = float_to_half_bits(f); }

// Elements in one 16-byte load.
template <class E> struct Chunk { static constexpr int size = 16 / int(sizeof(E)); };

__device__ __forceinline__ void unpack(f32*, const uint4& raw, float* out) {
    out[0] = __uint_as_float(raw.x);
    out[1] = __uint_as_float(raw.y);
    out[2] = __uint_as_float(raw.z);
    out[3] = __uint_as_float(raw.w);
}
__device__ __forceinline__ void unpack_pair(bf16*, uint32_t pair, float* out) {
    out[0] = __uint_as_float(pair << 16);
    out[1] = __uint_as_float(pair & 0xffff0000u);
}
__device__ __forceinline__ void unpack_pair(f16*, uint32_t pair, float* out) {
    out[0] = half_bits_to_float(uint16_t(pair));
    out[1] = half_bits_to_float(uint16_t(pair >> 16));
}
template <class E> __device__ __forceinline__ void unpack(E* type, const uint4& raw, float* out) {
    unpack_pair(type, raw.x, out);
    unpack_pair(type, raw.y, out + 2);
    unpack_pair(type, raw.z, out + 4);
    unpack_pair(type, raw.w, out + 6);
}
// The raw 16 bytes, so that several loads can be under way before the first is used. `at` is 16-byte aligned.
template <class E> __device__ __forceinline__ uint4 load_chunk(const E* at) { return __ldg(reinterpret_cast<const uint4*>(at)); }
template <class E> __device__ __forceinline__ void unpack_chunk(const uint4& raw, float* out) { unpack(static_cast<E*>(nullptr), raw, out); }

}  // namespace tokamask
