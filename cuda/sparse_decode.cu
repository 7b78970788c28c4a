// Sparse decode attention: one query token per sequence attends to a list of selected tokens per KV head.
//
// q         [batch, num_kv_heads * GROUP, HEAD_DIM] ELEMENT; query head h reads KV head h / GROUP
// keys, values  paged cache of ELEMENT, strides in elements; rows 16-byte aligned
// page_table [batch, max_pages] int32
// selected  [batch, num_kv_heads or 1, count] int32 token positions; outside [0, seq_len) is a hole, duplicates count twice
// seq_lens  [batch] int32
// out       [batch, splits, num_q_heads, HEAD_DIM] float32, lse [batch, splits, num_q_heads] float32 (natural log);
//           nothing selected: 0 and -inf. merge_states joins the splits.
// grid (splits, num_kv_heads, batch), block 128 * ceil(GROUP / 4).
#include "tokamask/attention.cuh"

namespace {
using namespace tokamask;
using Shape = DecodeShape<ELEMENT, HEAD_DIM, GROUP>;
}  // namespace

extern "C" __global__ void __launch_bounds__(128 * ((GROUP + 3) / 4), 4 / ((GROUP + 3) / 4))
sparse_decode(const ELEMENT* q, const ELEMENT* keys, const ELEMENT* values, const int32_t* page_table, const int32_t* selected,
              const int32_t* seq_lens, float* out, float* lse, int64_t page_stride, int64_t token_stride, int64_t head_stride,
              int64_t selected_batch_stride, int64_t selected_head_stride, int32_t count, int32_t page_size, int32_t max_pages,
              float scale) {
    __shared__ DecodeShared<HEAD_DIM, GROUP> shared;
    const int split = blockIdx.x, splits = gridDim.x, kv_head = blockIdx.y, num_kv_heads = gridDim.y, sequence = blockIdx.z;
    const int share = ceil_div(count, splits), begin = min(split * share, count), end = min(begin + share, count);
    const int32_t* mine = selected + sequence * selected_batch_stride + kv_head * selected_head_stride;
    const int length = seq_lens[sequence];
    const PagedCache<ELEMENT> cache{keys, values, page_table + int64_t(sequence) * max_pages, page_size, page_stride, token_stride, kv_head * head_stride};
    const int64_t num_q_heads = int64_t(num_kv_heads) * GROUP;
    const int64_t first_q = sequence * num_q_heads + int64_t(kv_head) * GROUP;
    const int64_t first_out = (int64_t(sequence) * splits + split) * num_q_heads + int64_t(kv_head) * GROUP;
    decode_split<ELEMENT, HEAD_DIM, GROUP>(
        q + first_q * HEAD_DIM, cache, scale, begin, end,
        [mine, length](int position) {
            const int token = mine[position];
            return token >= 0 && token < length ? token : -1;
        },
        out + first_out * HEAD_DIM, lse + first_out, shared);
}
