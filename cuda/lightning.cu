// Linear attention with decay, in chunks (the recurrence of Lightning Attention-2): S_t = exp(-decay) S_(t-1) + k_t v_t, o_t = q_t S_t.
//
// q, k   [batch * heads, tokens, KEY_DIM] ELEMENT, v [batch * heads, tokens, value_dim] ELEMENT
// decay  [heads] float32, 0 or more; state [batch * heads, KEY_DIM, value_dim] float32, in and out
// out    [batch * heads, tokens, value_dim] ELEMENT
// grid (batch * heads, ceil(value_dim / 32)), block 128. The state of 32 value columns stays in shared memory; powers of the decay come
// from exp, never from a division, which would underflow.
#include "tokamask/block.cuh"
#include "tokamask/element.cuh"

namespace {
using namespace tokamask;
constexpr int kChunkTokens = 16, kColumns = 32;
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 2)
lightning(const ELEMENT* q, const ELEMENT* k, const ELEMENT* v, const float* decay, float* state, ELEMENT* out, int32_t tokens,
          int32_t value_dim, int32_t heads) {
    __shared__ float q_tile[kChunkTokens][KEY_DIM + 1], k_tile[kChunkTokens][KEY_DIM + 1], v_tile[kChunkTokens][kColumns];
    __shared__ float carried[KEY_DIM][kColumns];
    __shared__ float scores[kChunkTokens][kChunkTokens];
    const int64_t head = blockIdx.x;
    const float slope = decay[head % heads];
    const int column = threadIdx.x % kColumns, group = threadIdx.x / kColumns, value = int(blockIdx.y) * kColumns + column;
    float* my_state = state + head * KEY_DIM * value_dim;
    for (int d = group; d < KEY_DIM; d += 4) carried[d][column] = value < value_dim ? my_state[int64_t(d) * value_dim + value] : 0.f;
    for (int start = 0; start < tokens; start += kChunkTokens) {
        const int count = min(kChunkTokens, tokens - start);
        const int64_t first = head * tokens + start;
        for (int i = threadIdx.x; i < kChunkTokens * KEY_DIM; i += 128) {
            const int t = i / KEY_DIM, d = i % KEY_DIM;
            q_tile[t][d] = t < count ? to_float(q[(first + t) * KEY_DIM + d]) : 0.f;
            k_tile[t][d] = t < count ? to_float(k[(first + t) * KEY_DIM + d]) : 0.f;
        }
        for (int t = group; t < kChunkTokens; t += 4)
            v_tile[t][column] = t < count && value < value_dim ? to_float(v[(first + t) * value_dim + value]) : 0.f;
        __syncthreads();
        for (int i = threadIdx.x; i < kChunkTokens * kChunkTokens; i += 128) {
            const int t = i / kChunkTokens, s = i % kChunkTokens;
            float dot = 0.f;
            if (s <= t) {
#pragma unroll 8
                for (int d = 0; d < KEY_DIM; ++d) dot = fmaf(q_tile[t][d], k_tile[s][d], dot);
            }
            scores[t][s] = s <= t ? dot * expf(-slope * float(t - s)) : 0.f;
        }
        __syncthreads();
        for (int t = group; t < count; t += 4) {
            float past = 0.f, here = 0.f;
#pragma unroll 8
            for (int d = 0; d < KEY_DIM; ++d) past = fmaf(q_tile[t][d], carried[d][column], past);
            for (int s = 0; s <= t; ++s) here = fmaf(scores[t][s], v_tile[s][column], here);
            if (value < value_dim) store(out + (first + t) * value_dim + value, fmaf(expf(-slope * float(t + 1)), past, here));
        }
        __syncthreads();  // the old state has been read
        float weights[kChunkTokens];
#pragma unroll
        for (int s = 0; s < kChunkTokens; ++s) weights[s] = s < count ? expf(-slope * float(count - 1 - s)) * v_tile[s][column] : 0.f;
        const float kept = expf(-slope * float(count));
#pragma unroll 2
        for (int d = group; d < KEY_DIM; d += 4) {
            float sum = kept * carried[d][column];
#pragma unroll
            for (int s = 0; s < kChunkTokens; ++s) sum = fmaf(k_tile[s][d], weights[s], sum);
            carried[d][column] = sum;
        }
        __syncthreads();  // the tiles may be overwritten
    }
    for (int d = group; d < KEY_DIM; d += 4)
        if (value < value_dim) my_state[int64_t(d) * value_dim + value] = carried[d][column];
}
