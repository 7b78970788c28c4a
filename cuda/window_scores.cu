// Scores of SnapKV and TOVA from column sums: each key's attention, mean over the queries of the window, over `kernel` neighbours (zeros beyond the
// ends) and over the heads of a list; the window itself gets one more than the greatest. python/tokamask/reference/press.py is the definition.
//
// window_scores: sums [num_q_heads, tokens] float32 (column_sums.cu); out [num_kv_heads, tokens] float32, but for the window; greatest [num_kv_heads]
//   float32, at least 0. Row r takes `heads` query heads from head r * first_step on. grid (num_kv_heads), block 512.
// window_scores_fill: the window of each row. grid (num_kv_heads), block 128.
#include "tokamask/base.cuh"

namespace {
using namespace tokamask;
constexpr int kThreads = 512;
}  // namespace

extern "C" __global__ void __launch_bounds__(512, 2)
window_scores(const float* sums, float* out, float* greatest, int32_t tokens, int32_t window, int32_t heads, int32_t first_step, int32_t kernel) {
    __shared__ float tops[kThreads / 32];
    const int before = tokens - window, half = kernel / 2;
    const float* from = sums + int64_t(blockIdx.x) * first_step * tokens;
    float* to = out + int64_t(blockIdx.x) * tokens;
    float top = 0.f;
    for (int t = threadIdx.x; t < before; t += kThreads) {
        float sum = 0.f;
        for (int h = 0; h < heads; ++h)
            for (int i = max(t - half, 0); i <= min(t + half, before - 1); ++i) sum += from[int64_t(h) * tokens + i];
        sum /= float(window) * float(kernel) * float(heads);
        to[t] = sum;
        top = fmaxf(top, sum);
    }
#pragma unroll
    for (int d = 16; d; d >>= 1) top = fmaxf(top, __shfl_xor_sync(TM_ALL_LANES, top, d));
    if (lane_index() == 0) tops[warp_index()] = top;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 0; w < kThreads / 32; ++w) top = fmaxf(top, tops[w]);
    greatest[blockIdx.x] = top;
}

extern "C" __global__ void __launch_bounds__(128, 8)
window_scores_fill(float* out, const float* greatest, int32_t tokens, int32_t window) {
    float top = 0.f;
    for (int row = 0; row < int(gridDim.x); ++row) top = fmaxf(top, greatest[row]);
    for (int t = tokens - window + int(threadIdx.x); t < tokens; t += 128) out[int64_t(blockIdx.x) * tokens + t] = top + 1.f;
}
