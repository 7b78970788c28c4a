// Sums, maxima and prefix sums over a warp and over a block whose size is a multiple of 32.
#pragma once
#include "base.cuh"

namespace tokamask {

template <int LANES = 32> __device__ __forceinline__ float lanes_sum(float x) {
#pragma unroll
    for (int d = LANES / 2; d; d >>= 1) x += __shfl_xor_sync(TM_ALL_LANES, x, d);
    return x;
}
template <class T> __device__ __forceinline__ T warp_inclusive_sum(T x) {
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
        const T below = __shfl_up_sync(TM_ALL_LANES, x, d);
        if (lane_index() >= d) x += below;
    }
    return x;
}

// Sum of `x` over the threads before this one; `*total` is the sum over the block. `scratch`: THREADS / 32 values.
template <int THREADS, class T> __device__ __forceinline__ T block_exclusive_sum(T x, T* total, T* scratch) {
    const T inclusive = warp_inclusive_sum(x);
    if (lane_index() == 31) scratch[warp_index()] = inclusive;
    __syncthreads();
    T before = 0, sum = 0;
    for (int w = 0; w < THREADS / 32; ++w) {
        if (w < warp_index()) before += scratch[w];
        sum += scratch[w];
    }
    __syncthreads();
    *total = sum;
    return before + inclusive - x;
}

}  // namespace tokamask
