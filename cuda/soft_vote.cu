// The soft vote: each query head's softmax over the tokens, summed over the heads that share one list.
//
// soft_vote_statistics: maxima, sums [heads, tiles] of token_scores become, in column 0 of each row, the head's maximum and the
//   reciprocal of its sum (0 for a head that saw nothing). grid (batch * num_q_heads), block 128.
// soft_vote: scores [batch, num_q_heads, max_tokens] float32 and those statistics give votes [batch, lists, max_tokens] float32, each list
//   over num_q_heads / lists heads, then the maximum over a window of `pool` (odd) tokens round each; -inf where scores are -inf.
//   grid (ceil(max_tokens / 256), lists, batch), block 256.
#include "tokamask/block.cuh"

namespace {
using namespace tokamask;
constexpr int kThreads = 256, kMostPool = 65;
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 8)
soft_vote_statistics(float* maxima, float* sums, int32_t tiles) {
    __shared__ float tops[4], totals[4];
    float *my_max = maxima + int64_t(blockIdx.x) * tiles, *my_sum = sums + int64_t(blockIdx.x) * tiles;
    float top = negative_infinity();
    for (int t = threadIdx.x; t < tiles; t += 128) top = fmaxf(top, my_max[t]);
#pragma unroll
    for (int d = 16; d; d >>= 1) top = fmaxf(top, __shfl_xor_sync(TM_ALL_LANES, top, d));
    if (lane_index() == 0) tops[warp_index()] = top;
    __syncthreads();
    top = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
    const float base = top == negative_infinity() ? 0.f : top;
    float sum = 0.f;
    for (int t = threadIdx.x; t < tiles; t += 128) sum += my_sum[t] * expf(my_max[t] - base);
    sum = lanes_sum(sum);
    if (lane_index() == 0) totals[warp_index()] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = totals[0] + totals[1] + totals[2] + totals[3];
    my_max[0] = base;
    my_sum[0] = sum == 0.f ? 0.f : 1.f / sum;
}

extern "C" __global__ void __launch_bounds__(256, 4)
soft_vote(const float* scores, const float* maxima, const float* sums, float* votes, int32_t num_q_heads, int32_t max_tokens,
          int32_t tiles, int32_t pool) {
    __shared__ float window[kThreads + kMostPool];
    const int64_t sequence = blockIdx.z;
    const int lists = gridDim.y, heads = num_q_heads / lists, half = pool / 2;
    const int64_t first_head = sequence * num_q_heads + int64_t(blockIdx.y) * heads;
    const int first = int(blockIdx.x) * kThreads - half;
    for (int i = threadIdx.x; i < kThreads + 2 * half; i += kThreads) {
        const int token = first + i;
        float vote = negative_infinity();
        if (token >= 0 && token < max_tokens && scores[first_head * max_tokens + token] != negative_infinity()) {
            vote = 0.f;
            for (int h = 0; h < heads; ++h) {
                const int64_t head = first_head + h;
                vote += expf(scores[head * max_tokens + token] - maxima[head * tiles]) * sums[head * tiles];
            }
        }
        window[i] = vote;
    }
    __syncthreads();
    const int token = int(blockIdx.x) * kThreads + int(threadIdx.x);
    if (token >= max_tokens) return;
    float best = window[threadIdx.x + half];
    if (best != negative_infinity())
        for (int i = 0; i < pool; ++i) best = fmaxf(best, window[threadIdx.x + i]);
    votes[(sequence * lists + blockIdx.y) * max_tokens + token] = best;
}
