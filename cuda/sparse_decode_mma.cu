// Sparse decode attention on tensor cores (sm_80 and later, 16-bit elements): the function of sparse_decode.cu, same arguments, for eight and
// more query heads to a KV head. grid (splits, num_kv_heads, batch), block 128.
#include "tokamask/tensor_attention.cuh"

namespace {
using namespace tokamask;
}  // namespace

// Three blocks to a multiprocessor, but two where that spills (sm_100 and sm_120).
extern "C" __global__ void __launch_bounds__(128, GROUP == 8 && HEAD_DIM == 128 ? 2 : 3)
sparse_decode_mma(const ELEMENT* q, const ELEMENT* keys, const ELEMENT* values, const int32_t* page_table, const int32_t* selected,
                  const int32_t* seq_lens, float* out, float* lse, int64_t page_stride, int64_t token_stride, int64_t head_stride,
                  int64_t selected_batch_stride, int64_t selected_head_stride, int32_t count, int32_t page_size, int32_t max_pages,
                  float scale) {
    __shared__ TensorShared<HEAD_DIM> shared;
    const int split = blockIdx.x, splits = gridDim.x, kv_head = blockIdx.y, num_kv_heads = gridDim.y, sequence = blockIdx.z;
    const int share = ceil_div(count, splits), begin = min(split * share, count), end = min(begin + share, count);
    const int32_t* mine = selected + sequence * selected_batch_stride + kv_head * selected_head_stride;
    const int length = seq_lens[sequence];
    const PagedCache<ELEMENT> cache{keys, values, page_table + int64_t(sequence) * max_pages, page_size, page_stride, token_stride, kv_head * head_stride};
    const int64_t num_q_heads = int64_t(num_kv_heads) * GROUP;
    const ELEMENT* first_q = q + (sequence * num_q_heads + int64_t(kv_head) * GROUP) * HEAD_DIM;
    const int64_t first_out = (int64_t(sequence) * splits + split) * num_q_heads + int64_t(kv_head) * GROUP;
    TensorState<HEAD_DIM> state;
    state.clear();
    attend_tokens<ELEMENT, HEAD_DIM>(
        [first_q](int row) { return row < GROUP ? first_q + row * HEAD_DIM : nullptr; }, cache, scale, begin + 16 * warp_index(), end, 64,
        [mine, length](int position) {
            const int token = mine[position];
            return token >= 0 && token < length ? token : -1;
        },
        [](int, int, int) { return true; }, state);
    finish_sums(state);
    merge_warps(state, shared);
    if (warp_index() == 0) write_partial<GROUP, HEAD_DIM>(state, out + first_out * HEAD_DIM, lse + first_out);
}
