// Columns of the causal attention matrix of the last queries, summed over the queries: what H2O, SnapKV, EMS and Token Sparse Attention rank by.
// The matrix itself is never stored: the first kernel finds the maximum and the sum of each row, the second adds up the columns.
//
// q      [queries, num_q_heads, HEAD_DIM] ELEMENT, k [tokens, num_kv_heads, HEAD_DIM] ELEMENT, strides in elements, rows 16-byte aligned. Query i sees keys
//        0 .. tokens - queries + i.
// column_sums_statistics: maxima, sums [num_q_heads, queries, tiles] float32, of the 32 keys of a tile; soft_vote_statistics then leaves in column 0 of
//        each row its maximum and the reciprocal of its sum.
// column_sums: out [num_q_heads, tokens] float32.
// grid (ceil(tokens / 32), num_q_heads), block 128: a warp takes every fourth query, a lane one key.
#include "tokamask/block.cuh"
#include "tokamask/element.cuh"

namespace {
using namespace tokamask;
constexpr int kTokens = 32, kChunk = Chunk<ELEMENT>::size;
using Tile = float[kTokens][HEAD_DIM + 1];  // one more: lanes walk down a column

__device__ __forceinline__ void load_tile(Tile& tile, const ELEMENT* k, int64_t token_stride, int first, int tokens) {
    for (int i = threadIdx.x; i < kTokens * HEAD_DIM / kChunk; i += 128) {
        const int t = i / (HEAD_DIM / kChunk), column = i % (HEAD_DIM / kChunk) * kChunk;
        float x[kChunk];
        unpack_chunk<ELEMENT>(first + t < tokens ? load_chunk(k + (first + t) * token_stride + column) : make_uint4(0, 0, 0, 0), x);
#pragma unroll
        for (int j = 0; j < kChunk; ++j) tile[t][column + j] = x[j];
    }
    __syncthreads();
}
__device__ __forceinline__ float dot(const ELEMENT* query, const float* key) {
    float sum = 0.f;
    for (int column = 0; column < HEAD_DIM; column += kChunk) {
        float x[kChunk];
        unpack_chunk<ELEMENT>(load_chunk(query + column), x);
#pragma unroll
        for (int j = 0; j < kChunk; ++j) sum = fmaf(x[j], key[column + j], sum);
    }
    return sum;
}
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 4)
column_sums_statistics(const ELEMENT* q, const ELEMENT* k, float* maxima, float* sums, int64_t token_stride, int64_t head_stride, int32_t queries,
                       int32_t tokens, int32_t group, float scale) {
    __shared__ Tile tile;
    const int64_t head = blockIdx.y, num_q_heads = gridDim.y, tiles = gridDim.x;
    const int first = int(blockIdx.x) * kTokens, token = first + lane_index();
    load_tile(tile, k + head / group * head_stride, token_stride, first, tokens);
    for (int i = warp_index(); i < queries; i += 4) {
        const bool seen = token <= tokens - queries + i;
        const float score = seen ? scale * dot(q + (i * num_q_heads + head) * HEAD_DIM, tile[lane_index()]) : negative_infinity();
        float top = score;
#pragma unroll
        for (int d = 16; d; d >>= 1) top = fmaxf(top, __shfl_xor_sync(TM_ALL_LANES, top, d));
        const float sum = lanes_sum(seen ? expf(score - (top == negative_infinity() ? 0.f : top)) : 0.f);
        if (lane_index() == 0) {
            maxima[(head * queries + i) * tiles + blockIdx.x] = top;
            sums[(head * queries + i) * tiles + blockIdx.x] = sum;
        }
    }
}

extern "C" __global__ void __launch_bounds__(128, 4)
column_sums(const ELEMENT* q, const ELEMENT* k, const float* maxima, const float* sums, float* out, int64_t token_stride, int64_t head_stride,
            int32_t queries, int32_t tokens, int32_t group, float scale) {
    __shared__ Tile tile;
    __shared__ float parts[4][kTokens];
    const int64_t head = blockIdx.y, num_q_heads = gridDim.y, tiles = gridDim.x;
    const int first = int(blockIdx.x) * kTokens, token = first + lane_index();
    load_tile(tile, k + head / group * head_stride, token_stride, first, tokens);
    float sum = 0.f;
    for (int i = warp_index(); i < queries; i += 4) {
        if (token > tokens - queries + i) continue;
        const int64_t row = (head * queries + i) * tiles;
        sum += expf(scale * dot(q + (i * num_q_heads + head) * HEAD_DIM, tile[lane_index()]) - maxima[row]) * sums[row];
    }
    parts[warp_index()][lane_index()] = sum;
    __syncthreads();
    if (warp_index() == 0 && token < tokens)
        out[head * tokens + token] = parts[0][lane_index()] + parts[1][lane_index()] + parts[2][lane_index()] + parts[3][lane_index()];
}
