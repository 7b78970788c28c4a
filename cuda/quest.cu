// Page bounds and page scores after Quest: for each page and channel the least and greatest key value, and for a query the
// greatest score that any key between them could have.
//
// quest_bounds: keys paged [pages, page_size, num_kv_heads, HEAD_DIM] ELEMENT give low, high [pages, num_kv_heads, HEAD_DIM] float32 for
//   the pages that page_table [batch, max_pages] names, over the rows that seq_lens [batch] says are filled; pages without
//   filled rows are left alone. grid (max_pages, num_kv_heads, batch), block 64.
// quest_scores: q [batch, num_kv_heads * GROUP, HEAD_DIM] ELEMENT gives scores [batch, num_kv_heads, max_pages] float32, the maximum over the group
//   of sum_c max(q_c low_c, q_c high_c); +inf for the newest page, -inf for pages beyond the sequence. grid (ceil(max_pages / 4), num_kv_heads, batch), block 128.
#include "tokamask/attention.cuh"

namespace {
using namespace tokamask;
constexpr int kChunk = Chunk<ELEMENT>::size;
// Of the float bounds: four channels to a load.
constexpr int kLanes = HEAD_DIM / 4 < 32 ? HEAD_DIM / 4 : 32, kLoads = HEAD_DIM / (4 * kLanes), kPages = 32 / kLanes;
}  // namespace

extern "C" __global__ void __launch_bounds__(64, 16)
quest_bounds(const ELEMENT* keys, const int32_t* page_table, const int32_t* seq_lens, float* low, float* high, int64_t page_stride,
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
        low[to + j] = least[j];
        high[to + j] = greatest[j];
    }
}

extern "C" __global__ void __launch_bounds__(128, 8)
quest_scores(const ELEMENT* q, const float* low, const float* high, const int32_t* page_table, const int32_t* seq_lens, float* scores,
             int32_t page_size, int32_t max_pages) {
    __shared__ float query[GROUP][HEAD_DIM];
    const int kv_head = blockIdx.y, num_kv_heads = gridDim.y;
    const int64_t sequence = blockIdx.z, head = sequence * num_kv_heads + kv_head;
    for (int i = threadIdx.x; i < GROUP * HEAD_DIM; i += 128) query[i / HEAD_DIM][i % HEAD_DIM] = to_float(q[head * GROUP * HEAD_DIM + i]);
    __syncthreads();
    const int slot = (int(blockIdx.x) * 4 + warp_index()) * kPages + lane_index() / kLanes, column = lane_index() % kLanes * 4;
    const int used = ceil_div(seq_lens[sequence], page_size);
    const bool inside = slot < max_pages && slot < used;
    const int64_t at = inside ? (int64_t(page_table[sequence * max_pages + slot]) * num_kv_heads + kv_head) * HEAD_DIM + column : 0;
    float least[kLoads][4], greatest[kLoads][4];
#pragma unroll
    for (int l = 0; l < kLoads; ++l) {
        uint4 a = make_uint4(0, 0, 0, 0), b = a;
        if (inside) {
            a = __ldg(reinterpret_cast<const uint4*>(low + at + l * kLanes * 4));
            b = __ldg(reinterpret_cast<const uint4*>(high + at + l * kLanes * 4));
        }
        unpack_chunk<f32>(a, least[l]);
        unpack_chunk<f32>(b, greatest[l]);
    }
    float best = negative_infinity();
#pragma unroll
    for (int h = 0; h < GROUP; ++h) {
        float bound = 0.f;
#pragma unroll
        for (int l = 0; l < kLoads; ++l)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float x = query[h][column + l * kLanes * 4 + j];
                bound = fmaf(x, x < 0.f ? least[l][j] : greatest[l][j], bound);
            }
        best = fmaxf(best, lanes_sum<kLanes>(bound));
    }
    if (column == 0 && slot < max_pages) scores[head * max_pages + slot] = !inside ? negative_infinity() : slot == used - 1 ? -negative_infinity() : best;
}

// quest_page_tokens: pages [rows, count] int32 (positions in the page table, -1 for none) become tokens [rows, count * page_size] int32, -1 where
//   there is none; seq_lens [rows / heads]. grid (rows, count), block 64.
extern "C" __global__ void __launch_bounds__(64, 16)
quest_page_tokens(const int32_t* pages, const int32_t* seq_lens, int32_t* tokens, int32_t count, int32_t page_size, int32_t heads) {
    const int64_t row = blockIdx.x;
    const int page = pages[row * count + blockIdx.y], length = seq_lens[row / heads];
    for (int i = threadIdx.x; i < page_size; i += 64) {
        const int token = page * page_size + i;
        tokens[(row * count + blockIdx.y) * page_size + i] = page >= 0 && token < length ? token : -1;
    }
}
