// Greedy choice of diverse rows (DivPrune, ToDRE, IDPruner): python/tokamask/reference/reduction.py is the definition.
//
// x        [batch, n, dim] ELEMENT; cosine of two rows, 0 with a row of zeros
// greedy_select_norms: inverse [batch, n] float32, 1 / length. grid (ceil(n / 4), batch), block 128, a warp to a row.
// greedy_select_nearest: worth [batch, n] float32, 1 - the greatest cosine to another row: what "maxmin" and "maxsum" begin with. Same grid.
// greedy_select_importance: worth = gain [batch, n] float32 = lam * importance, scaled to [0, 1]: what "mmr" begins with. grid (batch), block 512.
// greedy_select: k steps: take the row of greatest worth (lowest index among equals), then update the worth of all others by `mode`:
//   0 maxmin: 1 - greatest cosine to a chosen row; 1 maxsum: sum of 1 - cosine; 2 mmr: gain - (1 - lam) * greatest cosine.
//   nearest, worth, gain [batch, n] float32; chosen [batch, n] uint8 (scratch); out [batch, k] int32, ascending. grid (batch), block 512.
//   x is read once per step, from L2 where it fits.
#include "tokamask/block.cuh"
#include "tokamask/element.cuh"
#include "tokamask/radix.cuh"

namespace {
using namespace tokamask;
constexpr int kThreads = 512, kWarps = kThreads / 32;

__device__ __forceinline__ float warp_dot(const ELEMENT* a, const ELEMENT* b, int dim) {
    float sum = 0.f;
    for (int d = lane_index(); d < dim; d += 32) sum = fmaf(to_float(a[d]), to_float(b[d]), sum);
    return lanes_sum(sum);
}
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 8)
greedy_select_norms(const ELEMENT* x, float* inverse, int32_t n, int32_t dim) {
    const int row = int(blockIdx.x) * 4 + warp_index();
    if (row >= n) return;
    const int64_t at = int64_t(blockIdx.y) * n + row;
    const float square = warp_dot(x + at * dim, x + at * dim, dim);
    if (lane_index() == 0) inverse[at] = square == 0.f ? 0.f : 1.f / __fsqrt_rn(square);
}

extern "C" __global__ void __launch_bounds__(128, 8)
greedy_select_nearest(const ELEMENT* x, const float* inverse, float* worth, int32_t n, int32_t dim) {
    const int row = int(blockIdx.x) * 4 + warp_index();
    if (row >= n) return;
    const int64_t first = int64_t(blockIdx.y) * n;
    float nearest = negative_infinity();
    for (int other = 0; other < n; ++other) {
        const float dot = warp_dot(x + (first + row) * dim, x + (first + other) * dim, dim);
        if (other != row) nearest = fmaxf(nearest, dot * inverse[first + row] * inverse[first + other]);
    }
    if (lane_index() == 0) worth[first + row] = n > 1 ? 1.f - nearest : 0.f;
}

extern "C" __global__ void __launch_bounds__(512, 2)
greedy_select_importance(const float* importance, float* gain, float* worth, int32_t n, float lam) {
    __shared__ float least_of[kWarps], most_of[kWarps];
    const int64_t first = int64_t(blockIdx.x) * n;
    float least = -negative_infinity(), most = negative_infinity();
    for (int i = threadIdx.x; i < n; i += kThreads) {
        least = fminf(least, importance[first + i]);
        most = fmaxf(most, importance[first + i]);
    }
#pragma unroll
    for (int d = 16; d; d >>= 1) {
        least = fminf(least, __shfl_xor_sync(TM_ALL_LANES, least, d));
        most = fmaxf(most, __shfl_xor_sync(TM_ALL_LANES, most, d));
    }
    if (lane_index() == 0) {
        least_of[warp_index()] = least;
        most_of[warp_index()] = most;
    }
    __syncthreads();
    for (int w = 0; w < kWarps; ++w) {
        least = fminf(least, least_of[w]);
        most = fmaxf(most, most_of[w]);
    }
    const float range = most > least ? most - least : 1.f;
    for (int i = threadIdx.x; i < n; i += kThreads) gain[first + i] = worth[first + i] = lam * ((importance[first + i] - least) / range);
}

extern "C" __global__ void __launch_bounds__(512, 1)
greedy_select(const ELEMENT* x, const float* inverse, float* worth, const float* gain, float* nearest, uint8_t* chosen, int32_t* out, int32_t n,
              int32_t dim, int32_t k, int32_t mode, float lam) {
    __shared__ uint64_t best_of[kWarps];
    __shared__ int scratch[kWarps];
    const int64_t first = int64_t(blockIdx.x) * n;
    worth += first;
    nearest += first;
    chosen += first;
    if (gain) gain += first;
    inverse += first;
    x += first * dim;
    // Others read these only behind the first round's barrier.
    for (int i = threadIdx.x; i < n; i += kThreads) {
        chosen[i] = 0;
        nearest[i] = mode == 1 ? 0.f : negative_infinity();
    }
    for (int step = 0; step < k; ++step) {
        uint64_t best = 0;
        for (int i = threadIdx.x; i < n; i += kThreads) {
            if (chosen[i]) continue;
            const uint64_t candidate = uint64_t(ordered_key(worth[i])) << 32 | (0xffffffffu - uint32_t(i));
            best = best > candidate ? best : candidate;
        }
#pragma unroll
        for (int d = 16; d; d >>= 1) {
            const uint64_t other = __shfl_xor_sync(TM_ALL_LANES, best, d);
            best = best > other ? best : other;
        }
        if (lane_index() == 0) best_of[warp_index()] = best;
        __syncthreads();
        for (int w = 0; w < kWarps; ++w) best = best > best_of[w] ? best : best_of[w];
        const int taken = int(0xffffffffu - uint32_t(best));
        for (int i = warp_index(); i < n; i += kWarps) {
            const float cosine = warp_dot(x + int64_t(i) * dim, x + int64_t(taken) * dim, dim) * inverse[i] * inverse[taken];
            if (lane_index() != 0) continue;
            if (mode == 1) {
                worth[i] = nearest[i] += 1.f - cosine;
            } else {
                nearest[i] = fmaxf(nearest[i], cosine);
                worth[i] = mode == 0 ? 1.f - nearest[i] : gain[i] - (1.f - lam) * nearest[i];
            }
        }
        if (threadIdx.x == 0) chosen[taken] = 1;
        __syncthreads();
    }
    int written = 0;
    for (int start = 0; start < n; start += kThreads) {
        const int i = start + int(threadIdx.x), mine = i < n && chosen[i];
        int total;
        const int before = block_exclusive_sum<kThreads>(mine, &total, scratch);
        if (mine) out[int64_t(blockIdx.x) * k + written + before] = i;
        written += total;
    }
}
