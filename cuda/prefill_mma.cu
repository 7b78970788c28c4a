// Attention of the queries of one prompt over chosen keys, on tensor cores (sm_80 and later, 16-bit elements): the functions of prefill.cu, but
// results go where they belong at once.
//
// q, keys, values, indptr, indices, selected: as there; out [queries, num_q_heads, HEAD_DIM] ELEMENT, lse [queries, num_q_heads] float32
// prefill_mma_blocks: grid (query blocks * ceil(rows / 64), num_q_heads), block 128. prefill_mma_selected: grid (ceil(count / 64), num_q_heads), block 128.
// A warp takes 16 queries of a head and walks their keys; 16 keys that none of them sees cost no read.
#include "tokamask/tensor_attention.cuh"

namespace {
using namespace tokamask;

// Four channels of a row at once: 8 bytes.
__device__ __forceinline__ void store_four(ELEMENT* to, const float* x) {
    uint2 packed;
    packed.x = pack_pair(static_cast<ELEMENT*>(nullptr), x[0], x[1]);
    packed.y = pack_pair(static_cast<ELEMENT*>(nullptr), x[2], x[3]);
    *reinterpret_cast<uint2*>(to) = packed;
}
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 2)
prefill_mma_blocks(const ELEMENT* q, const ELEMENT* keys, const ELEMENT* values, const int32_t* indptr, const int32_t* indices, ELEMENT* out,
                   float* lse, int64_t token_stride, int64_t head_stride, int64_t list_stride, int32_t queries, int32_t tokens, int32_t group,
                   int32_t rows, int32_t columns, int32_t causal, float scale) {
    const int tiles = ceil_div(rows, 64), block = int(blockIdx.x) / tiles, first = block * rows + (int(blockIdx.x) % tiles * 4 + warp_index()) * 16;
    const int limit = min((block + 1) * rows, queries);
    if (first >= limit) return;
    const int64_t head = blockIdx.y, num_q_heads = gridDim.y, kv_head = head / group;
    const int32_t* list = indptr + kv_head * list_stride + block;
    const int32_t* blocks = indices + list[0];
    const int shift = tokens - queries, last = causal ? shift + min(first + 16, limit) - 1 : tokens - 1;
    const FlatRows<ELEMENT> cache{keys, values, token_stride, kv_head * head_stride};
    TensorState<HEAD_DIM> state;
    state.clear();
    attend_tokens<ELEMENT, HEAD_DIM>(
        [=](int r) { return first + r < limit ? q + ((first + r) * num_q_heads + head) * HEAD_DIM : nullptr; }, cache, scale, 0,
        (list[1] - list[0]) * columns, 16,
        [=](int position) {
            const int64_t token = int64_t(blocks[position / columns]) * columns + position % columns;
            return token >= 0 && token < tokens && token <= last ? int(token) : -1;
        },
        [=](int r, int, int token) { return !causal || token <= shift + first + r; }, state);
    finish_sums(state);
    write_rows(
        state,
        [=](int r, int channel, const float* x) {
            if (first + r < limit) store_four(out + ((first + r) * num_q_heads + head) * HEAD_DIM + channel, x);
        },
        [=](int r, float x) {
            if (first + r < limit) lse[(first + r) * num_q_heads + head] = x;
        });
}

extern "C" __global__ void __launch_bounds__(128, 2)
prefill_mma_selected(const ELEMENT* q, const ELEMENT* keys, const ELEMENT* values, const int32_t* selected, ELEMENT* out, float* lse,
                     int64_t token_stride, int64_t head_stride, int32_t tokens, int32_t count, int32_t group, float scale) {
    const int first = (int(blockIdx.x) * 4 + warp_index()) * 16;
    if (first >= count) return;
    const int64_t head = blockIdx.y, num_q_heads = gridDim.y;
    const int32_t* mine = selected + head * count;
    const auto token_at = [=](int position) {
        const int token = mine[position];
        return token >= 0 && token < tokens ? token : -1;
    };
    const auto own = [=](int r) { return first + r < count ? token_at(first + r) : -1; };
    const FlatRows<ELEMENT> cache{keys, values, token_stride, head / group * head_stride};
    TensorState<HEAD_DIM> state;
    state.clear();
    attend_tokens<ELEMENT, HEAD_DIM>(
        [=](int r) {
            const int token = own(r);
            return token >= 0 ? q + (token * num_q_heads + head) * HEAD_DIM : nullptr;
        },
        cache, scale, 0, min(first + 16, count), 16, token_at, [=](int r, int position, int) { return position <= first + r; }, state);
    finish_sums(state);
    write_rows(
        state,
        [=](int r, int channel, const float* x) {
            const int token = own(r);
            if (token >= 0) store_four(out + (token * num_q_heads + head) * HEAD_DIM + channel, x);
        },
        [=](int r, float x) {
            const int token = own(r);
            if (token >= 0) lse[token * num_q_heads + head] = x;
        });
}
