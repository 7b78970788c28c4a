// Scores of every cached token for one query per sequence, and what a softmax over them needs: the first step of selectors that
// rank tokens by attention weight (TokenSelect; FASA with a side cache of the dominant dimensions only).
//
// q       [batch, num_kv_heads * GROUP, HEAD_DIM] ELEMENT
// keys    paged [pages, page_size, num_kv_heads, HEAD_DIM] ELEMENT, strides in elements, rows 16-byte aligned
// page_table [batch, max_pages] int32, seq_lens [batch] int32
// scores  [batch, num_q_heads, max_tokens] float32: scale * q . k; -inf outside [skip_first, seq_len - skip_last)
// maxima, sums [batch, num_q_heads, tiles] float32: of each tile of 128 tokens; an empty tile has -inf and 0
// grid (tiles, num_kv_heads, batch), block 128. A key row is read once for all query heads of its KV head.
#include "tokamask/attention.cuh"

namespace {
using namespace tokamask;
constexpr int kTile = 128, kChunk = Chunk<ELEMENT>::size;
constexpr int kLanes = HEAD_DIM / kChunk < 32 ? HEAD_DIM / kChunk : 32, kLoads = HEAD_DIM / (kChunk * kLanes), kTokens = 32 / kLanes;
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 8)
token_scores(const ELEMENT* q, const ELEMENT* keys, const int32_t* page_table, const int32_t* seq_lens, float* scores,
             float* maxima, float* sums, int64_t page_stride, int64_t token_stride, int64_t head_stride,
             int32_t page_size, int32_t max_pages, int32_t max_tokens, int32_t skip_first, int32_t skip_last, float scale) {
    __shared__ float query[GROUP][HEAD_DIM];
    __shared__ float tile[GROUP][kTile];
    const int kv_head = blockIdx.y, num_kv_heads = gridDim.y;
    const int64_t sequence = blockIdx.z, first_head = (sequence * num_kv_heads + kv_head) * GROUP;
    for (int i = threadIdx.x; i < GROUP * HEAD_DIM; i += 128) query[i / HEAD_DIM][i % HEAD_DIM] = to_float(q[first_head * HEAD_DIM + i]) * scale;
    __syncthreads();

    const int first = int(blockIdx.x) * kTile, begin = skip_first, end = seq_lens[sequence] - skip_last;
    const PagedCache<ELEMENT> cache{keys, nullptr, page_table + sequence * max_pages, page_size, page_stride, token_stride, kv_head * head_stride};
    const int slot = lane_index() / kLanes, column = lane_index() % kLanes * kChunk;
    for (int step = 0; step < kTile / (4 * kTokens); ++step) {
        const int at = (step * 4 + warp_index()) * kTokens + slot, token = first + at;
        const bool inside = token >= begin && token < end;
        float key[kLoads][kChunk];
#pragma unroll
        for (int l = 0; l < kLoads; ++l) {
            uint4 raw = make_uint4(0, 0, 0, 0);
            if (inside) raw = load_chunk(keys + cache.row(token) + column + l * kLanes * kChunk);
            unpack_chunk<ELEMENT>(raw, key[l]);
        }
#pragma unroll
        for (int h = 0; h < GROUP; ++h) {
            float dot = 0.f;
#pragma unroll
            for (int l = 0; l < kLoads; ++l)
#pragma unroll
                for (int j = 0; j < kChunk; ++j) dot = fmaf(query[h][column + l * kLanes * kChunk + j], key[l][j], dot);
            dot = lanes_sum<kLanes>(dot);
            if (column == 0) tile[h][at] = inside ? dot : negative_infinity();
        }
    }
    __syncthreads();

    for (int h = warp_index(); h < GROUP; h += 4) {
        float top = negative_infinity(), sum = 0.f;
        for (int i = lane_index(); i < kTile; i += 32) {
            if (first + i < max_tokens) scores[(first_head + h) * max_tokens + first + i] = tile[h][i];
            top = fmaxf(top, tile[h][i]);
        }
#pragma unroll
        for (int d = 16; d; d >>= 1) top = fmaxf(top, __shfl_xor_sync(TM_ALL_LANES, top, d));
        for (int i = lane_index(); i < kTile; i += 32) sum += expf(tile[h][i] - finite_or_zero(top));
        sum = lanes_sum(sum);
        if (lane_index() == 0) {
            maxima[(first_head + h) * gridDim.x + blockIdx.x] = top;
            sums[(first_head + h) * gridDim.x + blockIdx.x] = sum;
        }
    }
}
