// Page bounds and page scores after Quest: for each page and channel the least and greatest key value, and for a query the
// greatest score that any key between them could have.
//
// quest_bounds: keys paged [pages, page_size, num_kv_heads, HEAD_DIM] ELEMENT give lower, upper [pages, num_kv_heads, HEAD_DIM] ELEMENT for
//   the pages that page_table [batch, max_pages] names, over the rows that seq_lens [batch] says are filled; pages without
//   filled rows are left alone. grid (max_pages, num_kv_heads, batch), block HEAD_DIM / chunk lanes rounded up to 32.
// quest_scores: q [batch, num_kv_heads * GROUP, HEAD_DIM] ELEMENT gives scores [batch, num_kv_heads, max_pages] float32, the maximum over the group
//   of sum_c max(q_c lower_c, q_c upper_c); -inf for pages beyond the sequence. grid (ceil(max_pages / 4), num_kv_heads, batch), block 128.
#include "tokamask/attention.cuh"

namespace {
using namespace tokamask;
constexpr int kChunk = Chunk<ELEMENT>::size;
constexpr int kLanes = HEAD_DIM / kChunk < 32 ? HEAD_DIM / kChunk : 32, kLoads = HEAD_DIM / (kChunk * kLanes), kPages = 32 / kLanes;
}  // namespace

extern "C" __global__ void __launch_bounds__(64, 16)
quest_bounds(const ELEMENT* keys, const int32_t* page_table, const int32_t* seq_lens, ELEMENT* lower, ELEMENT* upper, int64_t page_stride,
             int64_t token_stride, int64_t head_stride, int32_t page_size, int32_t max_pages) {
    const int slot = blockIdx.x, kv_head = blockIdx.y, num_kv_heads = gridDim.y;
    const int64_t sequence = blockIdx.z;
    const int filled = min(page_size, seq_lens[sequence] - slot * page_size), column = int(threadIdx.x) * kChunk;
    if (filled <= 0 || column >= HEAD_DIM) return;
    const int64_t page = page_table[sequence * max_pages + slot];
    const ELEMENT* row = keys + page * page_stride + kv_head * head_stride + column;
    float least[kChunk], greatest[kChunk];
    unpack_chunk<ELEMENT>(load_chunk(row), least);
#pragma unroll
    for (int j = 0; j < kChunk; ++j) greatest[j] = least[j];
    for (int t = 1; t < filled; ++t) {
        float x[kChunk];
        unpack_chunk<ELEMENT>(load_chunk(row + t * token_stride), x);
#pragma unroll
        for (int j = 0; j < kChunk; ++j) {
            least[j] = fminf(least[j], x[j]);
            greatest[j] = fmaxf(greatest[j], x[j]);
        }
    }
    const int64_t to = (page * num_kv_heads + kv_head) * HEAD_DIM + column;
#pragma unroll
    for (int j = 0; j < kChunk; ++j) {
        store(lower + to + j, least[j]);
        store(upper + to + j, greatest[j]);
    }
}

extern "C" __global__ void __launch_bounds__(128, 8)
quest_scores(const ELEMENT* q, const ELEMENT* lower, const ELEMENT* upper, const int32_t* page_table, const int32_t* seq_lens, float* scores,
             int32_t page_size, int32_t max_pages) {
    __shared__ float query[GROUP][HEAD_DIM];
    const int kv_head = blockIdx.y, num_kv_heads = gridDim.y;
    const int64_t sequence = blockIdx.z, head = sequence * num_kv_heads + kv_head;
    for (int i = threadIdx.x; i < GROUP * HEAD_DIM; i += 128) query[i / HEAD_DIM][i % HEAD_DIM] = to_float(q[head * GROUP * HEAD_DIM + i]);
    __syncthreads();
    const int slot = (int(blockIdx.x) * 4 + warp_index()) * kPages + lane_index() / kLanes, column = lane_index() % kLanes * kChunk;
    const bool inside = slot < max_pages && int64_t(slot) * page_size < seq_lens[sequence];
    const int64_t at = inside ? (int64_t(page_table[sequence * max_pages + slot]) * num_kv_heads + kv_head) * HEAD_DIM + column : 0;
    float low[kLoads][kChunk], high[kLoads][kChunk];
#pragma unroll
    for (int l = 0; l < kLoads; ++l) {
        uint4 a = make_uint4(0, 0, 0, 0), b = a;
        if (inside) {
            a = load_chunk(lower + at + l * kLanes * kChunk);
            b = load_chunk(upper + at + l * kLanes * kChunk);
        }
        unpack_chunk<ELEMENT>(a, low[l]);
        unpack_chunk<ELEMENT>(b, high[l]);
    }
    float best = negative_infinity();
#pragma unroll
    for (int h = 0; h < GROUP; ++h) {
        float bound = 0.f;
#pragma unroll
        for (int l = 0; l < kLoads; ++l)
#pragma unroll
            for (int j = 0; j < kChunk; ++j) {
                const float x = query[h][column + l * kLanes * kChunk + j];
                bound = fmaf(x, x < 0.f ? low[l][j] : high[l][j], bound);
            }
        best = fmaxf(best, lanes_sum<kLanes>(bound));
    }
    if (column == 0 && slot < max_pages) scores[head * max_pages + slot] = inside ? best : negative_infinity();
}
