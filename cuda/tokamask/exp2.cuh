// The exp2 that gives the same bits on every device, and the integer mass made from it: python/tokamask/reference/exp2.py
// is the definition. Each step is one correctly rounded operation; the _rn intrinsics keep the compiler from fusing others.
#pragma once
#include "base.cuh"

namespace tokamask {

__device__ __forceinline__ float exact_exp2(float z) {  // -64 <= z <= 64
    const float n = rintf(z), f = __fsub_rn(z, n);
    float p = __uint_as_float(0x391F5950u);
    p = __fmaf_rn(p, f, __uint_as_float(0x3AAF85C3u));
    p = __fmaf_rn(p, f, __uint_as_float(0x3C1D9905u));
    p = __fmaf_rn(p, f, __uint_as_float(0x3D6357BBu));
    p = __fmaf_rn(p, f, __uint_as_float(0x3E75FDEBu));
    p = __fmaf_rn(p, f, __uint_as_float(0x3F317218u));
    p = __fmaf_rn(p, f, 1.0f);
    return __uint_as_float(__float_as_uint(p) + (uint32_t(int(n)) << 23));
}

// 2^z for z <= 0 in units of 2^-40, to nearest, ties to even; 0 below z = -64. The product is exact: a power of two.
__device__ __forceinline__ uint64_t mass(float z) {
    return uint64_t(rintf(__fmul_rn(exact_exp2(fmaxf(z, -64.0f)), 1099511627776.0f)));
}

}  // namespace tokamask
