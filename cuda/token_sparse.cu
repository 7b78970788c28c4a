// Token Sparse Attention's choice of tokens, from column sums: how many may go is decided by the mean over all heads and read by top_k on the device.
// python/tokamask/reference/press.py (token_sparse_select) is the definition.
//
// token_sparse_rows: sums [heads, tokens] float32 (column_sums.cu) give rows [heads, tokens] float32: the mean over the window's queries and over `kernel`
//   neighbours (zeros beyond the ends), scaled to a sum of 1; the last `window` tokens get +inf. grid (heads), block 512.
// token_sparse_mean: mean [before] float32, before = tokens - window: of the rows, not scaled. grid (ceil(before / 256)), block 256.
// token_sparse_count: counts [heads] int32, all alike: of the mean, scaled to a sum of 1 and sorted, as many are dropped as stay below `coverage` together, and
//   one more, but no more than leave `least`; and the window. grid (1), block 512. Masses are integers of 2^-40, so that their sums have no order.
#include "tokamask/radix.cuh"

namespace {
using namespace tokamask;
constexpr int kThreads = 512;

// The same bits whatever the schedule: each thread adds up its own, then all add up the warps in their order.
__device__ __forceinline__ float block_total(float mine, float* scratch) {
    mine = lanes_sum<32>(mine);
    if (lane_index() == 0) scratch[warp_index()] = mine;
    __syncthreads();
    float total = 0.f;
    for (int w = 0; w < kThreads / 32; ++w) total += scratch[w];
    return total;
}
}  // namespace

extern "C" __global__ void __launch_bounds__(512, 2)
token_sparse_rows(const float* sums, float* rows, int32_t tokens, int32_t window, int32_t kernel) {
    __shared__ float scratch[kThreads / 32];
    const int before = tokens - window, half = kernel / 2;
    const float* from = sums + int64_t(blockIdx.x) * tokens;
    float* to = rows + int64_t(blockIdx.x) * tokens;
    float mine = 0.f;
    for (int t = threadIdx.x; t < before; t += kThreads) {
        float sum = 0.f;
        for (int i = max(t - half, 0); i <= min(t + half, before - 1); ++i) sum += from[i];
        sum /= float(window) * float(kernel);
        to[t] = sum;
        mine += sum;
    }
    const float total = block_total(mine, scratch) + 1e-8f;
    for (int t = threadIdx.x; t < before; t += kThreads) to[t] /= total;  // each thread its own
    for (int t = before + int(threadIdx.x); t < tokens; t += kThreads) to[t] = -negative_infinity();
}

extern "C" __global__ void __launch_bounds__(256, 4)
token_sparse_mean(const float* rows, float* mean, int32_t tokens, int32_t before, int32_t heads) {
    const int t = int(blockIdx.x) * 256 + int(threadIdx.x);
    if (t >= before) return;
    float sum = 0.f;
    for (int h = 0; h < heads; ++h) sum += rows[int64_t(h) * tokens + t];
    mean[t] = sum / float(heads);
}

extern "C" __global__ void __launch_bounds__(512, 2)
token_sparse_count(const float* mean, int32_t* counts, int32_t before, int32_t window, int32_t heads, int32_t least, float coverage) {
    __shared__ RadixShared<kThreads, uint64_t> shared;
    __shared__ float scratch[kThreads / 32];
    float mine = 0.f;
    for (int t = threadIdx.x; t < before; t += kThreads) mine += mean[t];
    const float total = block_total(mine, scratch) + 1e-8f;
    const auto mass_at = [=](int t) { return uint64_t(mean[t] / total * 1099511627776.f); };
    const auto sum_of = [&](auto at) {
        uint64_t part = 0, all;
        for (int t = threadIdx.x; t < before; t += kThreads) part += at(t);
        block_exclusive_sum<kThreads>(part, &all, shared.scratch);
        return all;
    };
    int keep = before;
    if (coverage > 0.f && before > least) {
        const uint64_t all = sum_of(mass_at), wanted = uint64_t(fminf(coverage, 2.f) * 1099511627776.f);
        int64_t dropped = before;
        if (wanted <= all && wanted > 0) {  // the tokens at the threshold bring the sum of the least to `wanted` or beyond it
            const auto visit = [&](auto weigh) {
                for (int t = threadIdx.x; t < before; t += kThreads) weigh(ordered_key(mean[t]), mass_at(t));
            };
            const uint32_t key = radix_threshold<kThreads, uint64_t>(visit, all - wanted + 1, shared).key;
            const auto below = [=](int t) { return ordered_key(mean[t]) < key; };
            const uint64_t lighter = sum_of([=](int t) { return below(t) ? mass_at(t) : 0; });
            const uint64_t one = uint64_t(score_of_key(key) / total * 1099511627776.f);
            dropped = int64_t(sum_of([=](int t) { return uint64_t(below(t)); }) + (wanted - 1 - lighter) / one);
        } else if (wanted == 0) {
            dropped = 0;
        }
        if (dropped > 0) keep = int(min(max(int64_t(before) - dropped - 1, int64_t(least)), int64_t(before)));
    }
    for (int h = threadIdx.x; h < heads; h += kThreads) counts[h] = keep + window;
}
