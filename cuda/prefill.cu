// Attention of the queries of one prompt over chosen keys: the plain kernels, a block to a query and head. On tensor cores: prefill_mma.cu.
//
// q       [queries, num_q_heads, HEAD_DIM] ELEMENT, keys, values [tokens, num_kv_heads, HEAD_DIM] ELEMENT, strides in elements, rows 16-byte aligned
// out     [queries, num_q_heads, HEAD_DIM] float32, lse [queries, num_q_heads] float32: one part for merge_states. Nothing seen: 0 and -inf.
// prefill_blocks: indptr [lists, query blocks + 1] int32 (a list per KV head, list_stride apart; 0: one for all), indices int32: query t sees the key
//         blocks indices[indptr[t / rows] .. indptr[t / rows + 1]], `columns` keys each; with `causal` none after tokens - queries + t.
// prefill_selected: selected [num_q_heads, count] int32, ascending, -1 for none: the i-th token selected for a head sees the first i + 1. The rows
//         of other tokens are left alone. queries = count.
// grid (queries, num_q_heads), block 128.
#include "tokamask/attention.cuh"

namespace {
using namespace tokamask;
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 4)
prefill_blocks(const ELEMENT* q, const ELEMENT* keys, const ELEMENT* values, const int32_t* indptr, const int32_t* indices, float* out, float* lse,
               int64_t token_stride, int64_t head_stride, int64_t list_stride, int32_t tokens, int32_t group, int32_t rows, int32_t columns,
               int32_t causal, float scale) {
    __shared__ DecodeShared<HEAD_DIM, 1> shared;
    const int64_t t = blockIdx.x, head = blockIdx.y, queries = gridDim.x, place = t * gridDim.y + head;
    const int64_t kv_head = head / group;
    const int32_t* list = indptr + kv_head * list_stride + t / rows;
    const int32_t* blocks = indices + list[0];
    const int last = causal ? int(tokens - queries + t) : tokens - 1;
    const FlatRows<ELEMENT> cache{keys, values, token_stride, kv_head * head_stride};
    decode_split<ELEMENT, HEAD_DIM, 1>(
        q + place * HEAD_DIM, cache, scale, 0, (list[1] - list[0]) * columns,
        [=](int position) {
            const int64_t token = int64_t(blocks[position / columns]) * columns + position % columns;
            return token >= 0 && token < tokens && token <= last ? int(token) : -1;
        },
        out + place * HEAD_DIM, lse + place, shared);
}

extern "C" __global__ void __launch_bounds__(128, 4)
prefill_selected(const ELEMENT* q, const ELEMENT* keys, const ELEMENT* values, const int32_t* selected, float* out, float* lse, int64_t token_stride,
                 int64_t head_stride, int32_t tokens, int32_t group, float scale) {
    __shared__ DecodeShared<HEAD_DIM, 1> shared;
    const int64_t head = blockIdx.y, count = gridDim.x;
    const int32_t* mine = selected + head * count;
    const int own = mine[blockIdx.x];
    if (own < 0 || own >= tokens) return;
    const int64_t place = own * int64_t(gridDim.y) + head;
    const FlatRows<ELEMENT> cache{keys, values, token_stride, head / group * head_stride};
    decode_split<ELEMENT, HEAD_DIM, 1>(
        q + place * HEAD_DIM, cache, scale, 0, int(blockIdx.x) + 1,
        [=](int position) {
            const int token = mine[position];
            return token >= 0 && token < tokens ? token : -1;
        },
        out + place * HEAD_DIM, lse + place, shared);
}
