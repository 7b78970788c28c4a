// What the sampler and the unmasker share: the sweep over the live tokens of a row, the best of them, and their masses.
// The law is python/tokamask/reference/sampling.py.
#pragma once
#include "exp2.cuh"
#include "logits.cuh"
#include "radix.cuh"

namespace tokamask {

struct Law {
    float best, scale;
    uint64_t floor;  // min-p: lighter tokens are out

    __device__ __forceinline__ uint64_t weight(float x) const {
        const float below = x == best ? 0.0f : __fsub_rn(x, best);
        return mass(__fmul_rn(below, scale));
    }
    __device__ __forceinline__ uint64_t kept_weight(float x) const {
        const uint64_t w = weight(x);
        return w >= floor ? w : 0;
    }
};
__device__ __forceinline__ float law_scale(float temperature) {
    return fminf(fmaxf(__fdiv_rn(1.4426950408889634f, temperature), 1.17549435e-38f), 3.402823466e38f);
}

// Calls item(token, logit) for every live token of the tiles that fall to this warp, strided over the block.
template <int kBlock, class Row, class Item> __device__ __forceinline__ void visit_live(const Row& row, Item item) {
    for (int base = warp_index() * Row::tile; base < row.vocab_size; base += kBlock / 32 * Row::tile) {
        float x[Row::chunk];
        const uint32_t live = row.read(base, x);
#pragma unroll
        for (int j = 0; j < Row::chunk; ++j)
            if (live >> j & 1u) item(row.first(base) + j, x[j]);
    }
}

template <class T> __device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(TM_ALL_LANES, x, d);
    return x;
}

template <int kBlock> struct BestShared {
    uint64_t best[kBlock / 32];
    uint32_t live[kBlock / 32];
};
struct Best {
    uint32_t key, live;  // of the best logit; how many tokens are live
    int32_t token;       // -1: none
};
// The greatest live logit, lowest index among equals, compared as one integer.
template <int kBlock, class Row> __device__ __forceinline__ Best find_best(const Row& row, BestShared<kBlock>& shared) {
    uint64_t best = 0;
    uint32_t live = 0;
    visit_live<kBlock>(row, [&](int token, float x) {
        const uint64_t candidate = uint64_t(ordered_key(x)) << 32 | (0xffffffffu - uint32_t(token));
        best = best > candidate ? best : candidate;
        ++live;
    });
#pragma unroll
    for (int d = 16; d; d >>= 1) {
        const uint64_t other = __shfl_xor_sync(TM_ALL_LANES, best, d);
        best = best > other ? best : other;
    }
    live = warp_sum(live);
    if (lane_index() == 0) {
        shared.best[warp_index()] = best;
        shared.live[warp_index()] = live;
    }
    __syncthreads();
    live = 0;
    for (int w = 0; w < kBlock / 32; ++w) {
        best = best > shared.best[w] ? best : shared.best[w];
        live += shared.live[w];
    }
    return {uint32_t(best >> 32), live, live ? int32_t(0xffffffffu - uint32_t(best)) : -1};
}

}  // namespace tokamask
