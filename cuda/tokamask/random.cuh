// Philox4x32-10 (J. Salmon and others, SC 2011): the random bits of a draw are a pure function of (seed, stream, step, index).
// The definition is python/tokamask/reference/random.py.
#pragma once
#include "base.cuh"

namespace tokamask {

__device__ __forceinline__ uint64_t random_bits64(uint64_t seed, uint32_t stream, uint64_t step, uint32_t index) {
    uint32_t c0 = index, c1 = stream, c2 = uint32_t(step), c3 = uint32_t(step >> 32);
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint32_t a_high = __umulhi(0xD2511F53u, c0), a_low = 0xD2511F53u * c0;
        const uint32_t b_high = __umulhi(0xCD9E8D57u, c2), b_low = 0xCD9E8D57u * c2;
        c0 = b_high ^ c1 ^ k0;
        c1 = b_low;
        c2 = a_high ^ c3 ^ k1;
        c3 = a_low;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return uint64_t(c1) << 32 | c0;
}

}  // namespace tokamask
