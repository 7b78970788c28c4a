// Appends keys and values to a paged cache and brings what is kept beside the cache up to date in the same pass: the page bounds of Quest, the
// dominant channels of FASA, the keys and page sums of the indexer. python/tokamask/reference/append_kv.py is the definition.
//
// k, v       [tokens, num_kv_heads, head_dim] ELEMENT, rows 16-byte aligned, tokens k_stride and v_stride elements apart
// keys, values  paged cache of ELEMENT, strides in elements
// page_table [batch, max_pages] int32; seq_lens [batch] int32: the lengths afterwards
// indptr     [batch + 1] int32: sequence b gets the tokens indptr[b] .. indptr[b + 1] - 1 at its end; null: one token each
// low, high  [pages, num_kv_heads, head_dim] float32 or null: least and greatest key of a page, NaN passed over; a page's first token starts anew
// dominant   [num_kv_heads, chunks] int32, side [pages, page_size, num_kv_heads, 2 * chunks] ELEMENT or null: see fasa_query.cu
// index_k    [tokens, index_dim] ELEMENT, index_keys [pages, page_size, index_dim] ELEMENT, index_sums [pages, index_dim] float32, or null
// What does not fit into the page table is passed over.
// grid (pages that one sequence can touch, num_kv_heads + 1 if there is an indexer, batch), block 64: a block has one page of one head
// to itself, so nothing is atomic and the sums have one order.
#include "tokamask/element.cuh"

namespace {
using namespace tokamask;
constexpr int kChunk = Chunk<ELEMENT>::size;
}  // namespace

extern "C" __global__ void __launch_bounds__(64, 16)
append_kv(const ELEMENT* k, const ELEMENT* v, ELEMENT* keys, ELEMENT* values, const int32_t* page_table, const int32_t* seq_lens,
          const int32_t* indptr, float* low, float* high, const int32_t* dominant, ELEMENT* side, const ELEMENT* index_k, ELEMENT* index_keys,
          float* index_sums, int64_t page_stride, int64_t token_stride, int64_t head_stride, int64_t k_stride, int64_t v_stride, int32_t page_size,
          int32_t max_pages, int32_t num_kv_heads, int32_t head_dim, int32_t chunks, int32_t interleaved, int32_t index_dim) {
    const int64_t sequence = blockIdx.z;
    const int kv_head = blockIdx.y, length = seq_lens[sequence];
    const int64_t source = indptr ? indptr[sequence] : sequence;
    const int count = indptr ? indptr[sequence + 1] - indptr[sequence] : 1, start = max(length - count, 0);
    const int slot = start / page_size + int(blockIdx.x);
    const int begin = max(start, slot * page_size), end = min(length, (slot + 1) * page_size);  // positions of this block
    if (begin >= end || slot >= max_pages) return;
    const int64_t page = page_table[sequence * max_pages + slot], first = source + begin - (length - count);
    const int row = begin % page_size, tokens = end - begin;

    if (kv_head == num_kv_heads) {
        for (int d = threadIdx.x; d < index_dim; d += 64) {
            float sum = row == 0 ? 0.f : index_sums[page * index_dim + d];
            for (int t = 0; t < tokens; ++t) {
                const ELEMENT x = index_k[(first + t) * index_dim + d];
                index_keys[(page * page_size + row + t) * index_dim + d] = x;
                sum += to_float(x);
            }
            index_sums[page * index_dim + d] = sum;
        }
        return;
    }
    const int64_t target = page * page_stride + row * token_stride + kv_head * head_stride;
    const bool is_key = threadIdx.x < 32;
    const ELEMENT* from = (is_key ? k + first * k_stride : v + first * v_stride) + int64_t(kv_head) * head_dim;
    ELEMENT* to = (is_key ? keys : values) + target;
    const int64_t from_stride = is_key ? k_stride : v_stride;
    for (int column = int(threadIdx.x & 31u) * kChunk; column < head_dim; column += 32 * kChunk) {
        const int64_t bound = (page * num_kv_heads + kv_head) * head_dim + column;
        const bool bounds = is_key && low;
        float least[kChunk], greatest[kChunk];
        if (bounds) {
#pragma unroll
            for (int j = 0; j < kChunk; ++j) {
                least[j] = row == 0 ? -negative_infinity() : low[bound + j];
                greatest[j] = row == 0 ? negative_infinity() : high[bound + j];
            }
        }
        for (int t = 0; t < tokens; ++t) {
            const uint4 raw = load_chunk(from + t * from_stride + column);
            *reinterpret_cast<uint4*>(to + t * token_stride + column) = raw;
            if (!bounds) continue;
            float x[kChunk];
            unpack_chunk<ELEMENT>(raw, x);
#pragma unroll
            for (int j = 0; j < kChunk; ++j) {
                least[j] = fminf(least[j], x[j]);
                greatest[j] = fmaxf(greatest[j], x[j]);
            }
        }
        if (!bounds) continue;
#pragma unroll
        for (int j = 0; j < kChunk; ++j) {
            low[bound + j] = least[j];
            high[bound + j] = greatest[j];
        }
    }
    if (!side) return;
    for (int i = threadIdx.x; i < tokens * 2 * chunks; i += 64) {
        const int t = i / (2 * chunks), c = i % (2 * chunks), chunk = dominant[kv_head * chunks + c % chunks], second = c / chunks;
        const int channel = interleaved ? 2 * chunk + second : chunk + second * (head_dim / 2);
        side[((page * page_size + row + t) * num_kv_heads + kv_head) * 2 * chunks + c] = k[(first + t) * k_stride + int64_t(kv_head) * head_dim + channel];
    }
}
