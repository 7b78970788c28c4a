// Indexer scores on tensor cores (sm_80 and later, 16-bit elements): the function of indexer_scores.cu, same arguments.
//
// A warp takes 16 keys as the rows of a matrix product and all heads as its columns; relu, weights and the sum over heads
// follow on the accumulators. 16 * HEADS * HEAD_DIM multiplications per 2 * 16 * HEAD_DIM bytes read.
// grid (rows, ceil(count / 256)), block 128: four tiles of 64 keys.
#include "tokamask/block.cuh"
#include "tokamask/indexer.cuh"
#include "tokamask/tensor.cuh"

namespace {
using namespace tokamask;
constexpr int kTile = 64, kTiles = 4, kChunk = Chunk<ELEMENT>::size, kRow = HEAD_DIM + 8;  // padded: rows fall into different banks
__device__ __forceinline__ uint32_t pair_at(const ELEMENT* at) { return *reinterpret_cast<const uint32_t*>(at); }
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 4)
indexer_scores_mma(const ELEMENT* q, const float* weights, const ELEMENT* keys, const int32_t* page_table, const int32_t* positions,
                   const int32_t* candidates, float* scores, int64_t page_stride, int64_t token_stride, int64_t row_stride,
                   int32_t page_size, int32_t count, int32_t unit) {
    __shared__ __align__(16) ELEMENT query[HEADS][kRow];
    __shared__ __align__(16) ELEMENT tile[kTile][kRow];
    const int64_t row = blockIdx.x;
    const IndexedKeys<ELEMENT> index = indexed_keys(row, keys, page_table, positions, candidates, page_stride, token_stride, row_stride, page_size, count, unit);
    const int fragment_row = lane_index() >> 2, pair = lane_index() & 3;
    for (int i = threadIdx.x; i < HEADS * HEAD_DIM / kChunk; i += 128) {
        const int h = i / (HEAD_DIM / kChunk), column = i % (HEAD_DIM / kChunk) * kChunk;
        async_copy16(&query[h][column], q + (row * HEADS + h) * HEAD_DIM + column, true);
    }
    for (int n = 0; n < kTiles; ++n) {
        const int first = (int(blockIdx.y) * kTiles + n) * kTile;
        if (first >= count) break;
        for (int i = threadIdx.x; i < kTile * HEAD_DIM / kChunk; i += 128) {
            const int t = i / (HEAD_DIM / kChunk), column = i % (HEAD_DIM / kChunk) * kChunk, token = index.token(first + t);
            async_copy16(&tile[t][column], token >= 0 ? index.row(token) + column : keys, token >= 0);
        }
        async_commit();
        async_wait<0>();
        __syncthreads();
        float products[HEADS / 8][4];
#pragma unroll
        for (int c = 0; c < HEADS / 8; ++c) products[c][0] = products[c][1] = products[c][2] = products[c][3] = 0.f;
        const int mine = warp_index() * 16 + fragment_row;
#pragma unroll
        for (int step = 0; step < HEAD_DIM; step += 16) {
            uint32_t a[4];
#pragma unroll
            for (int r = 0; r < 4; ++r) a[r] = pair_at(&tile[mine + 8 * (r & 1)][step + pair * 2 + 8 * (r >> 1)]);
#pragma unroll
            for (int c = 0; c < HEADS / 8; ++c) {
                uint32_t b[2];
#pragma unroll
                for (int r = 0; r < 2; ++r) b[r] = pair_at(&query[c * 8 + fragment_row][step + pair * 2 + 8 * r]);
                mma(static_cast<ELEMENT*>(nullptr), products[c], a, b);
            }
        }
        float sum[2] = {0.f, 0.f};  // of keys mine and mine + 8
#pragma unroll
        for (int c = 0; c < HEADS / 8; ++c)
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const float x = products[c][r];
                sum[r >> 1] = fmaf(weights[row * HEADS + c * 8 + pair * 2 + (r & 1)], fmaxf(x, 0.f) + (is_nan(x) ? x : 0.f), sum[r >> 1]);
            }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float all = lanes_sum<4>(sum[half]);
            const int position = first + mine + 8 * half;
            if (pair == 0 && position < count) scores[row * count + position] = index.token(position) >= 0 ? all : negative_infinity();
        }
        __syncthreads();  // the tile is read; the next may overwrite it
    }
}
