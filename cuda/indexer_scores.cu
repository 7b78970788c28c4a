// Indexer scores of sparse attention: I[t, s] = sum_j w[t, j] relu(q[t, j] . k[s]) over HEADS small query heads and one shared key
// head. This is the plain kernel, for float32 and for cards without the tensor-core path of indexer_scores_mma.cu.
//
// q       [rows, HEADS, HEAD_DIM] ELEMENT, weights [rows, HEADS] float32 (any sign; scales belong in here)
// keys    paged [pages, page_size, HEAD_DIM] KEY, strides in elements, rows 16-byte aligned
// page_table [rows or 1, max_pages] int32 or null (keys one after another); row_stride steps through it, or through the keys, from
//         row to row (0: one for all)
// positions [rows] int32: a row sees tokens 0 .. positions[row], `unit` to a key; -1: none
// candidates [rows, count] int32 or null: score these keys instead of 0 .. count - 1; what the row does not see is a hole
// scores  [rows, count] float32; -inf for holes and for what a row does not see
// grid (rows, ceil(count / 32)), block 128: four threads share a token, each a quarter of the heads.
#include "tokamask/block.cuh"
#include "tokamask/indexer.cuh"

namespace {
using namespace tokamask;
constexpr int kTokens = 32, kChunk = Chunk<KEY>::size, kParts = 4;
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 8)
indexer_scores(const ELEMENT* q, const float* weights, const KEY* keys, const int32_t* page_table, const int32_t* positions,
               const int32_t* candidates, float* scores, int64_t page_stride, int64_t token_stride, int64_t row_stride,
               int32_t page_size, int32_t count, int32_t unit) {
    __shared__ float tile[kTokens][HEAD_DIM + 1];  // one more: threads of a warp walk down a column
    __shared__ float query[HEAD_DIM];
    __shared__ float sums[kParts][kTokens];
    const int64_t row = blockIdx.x;
    const IndexedKeys<KEY> index = indexed_keys(row, keys, page_table, positions, candidates, page_stride, token_stride, row_stride, page_size, count, unit);
    const int first = int(blockIdx.y) * kTokens;
    for (int i = threadIdx.x; i < kTokens * HEAD_DIM / kChunk; i += 128) {
        const int t = i / (HEAD_DIM / kChunk), column = i % (HEAD_DIM / kChunk) * kChunk, token = index.token(first + t);
        float x[kChunk];
        unpack_chunk<KEY>(token >= 0 ? load_chunk(index.row(token) + column) : make_uint4(0, 0, 0, 0), x);
#pragma unroll
        for (int j = 0; j < kChunk; ++j) tile[t][column + j] = x[j];
    }
    const int t = threadIdx.x % kTokens, part = threadIdx.x / kTokens;
    float sum = 0.f;
    for (int step = 0; step < HEADS / kParts; ++step) {
        // Four heads at a time, one for each part: their queries pass through shared memory one after another.
        float dot = 0.f;
        for (int p = 0; p < kParts; ++p) {
            __syncthreads();
            for (int j = threadIdx.x; j < HEAD_DIM; j += 128) query[j] = to_float(q[(row * HEADS + step * kParts + p) * HEAD_DIM + j]);
            __syncthreads();
            if (p != part) continue;
            for (int j = 0; j < HEAD_DIM; ++j) dot = fmaf(query[j], tile[t][j], dot);
        }
        sum = fmaf(weights[row * HEADS + step * kParts + part], fmaxf(dot, 0.f) + (is_nan(dot) ? dot : 0.f), sum);
    }
    sums[part][t] = sum;
    __syncthreads();
    const int position = first + int(threadIdx.x);
    if (threadIdx.x < kTokens && position < count) {
        const float all = sums[0][threadIdx.x] + sums[1][threadIdx.x] + sums[2][threadIdx.x] + sums[3][threadIdx.x];
        scores[row * count + position] = index.token(position) >= 0 ? all : negative_infinity();
    }
}
