// Decode attention of draft trees on tensor cores (sm_80 and later, 16-bit elements): the function of tree_decode.cu, same arguments. Nodes times
// query heads are the rows of the products, 16 to a warp, 64 to a block, whose warps read the same prefix at the same time: it
// comes from device memory once for 64 rows.
// grid (batch * ceil(nodes * GROUP / 64), num_kv_heads, splits), block 128.
#include "tokamask/tensor_attention.cuh"

namespace {
using namespace tokamask;
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 2)
tree_decode_mma(const ELEMENT* q, const ELEMENT* keys, const ELEMENT* values, const int32_t* page_table, const int32_t* seq_lens,
                const uint64_t* tree_mask, const ELEMENT* tree_keys, const ELEMENT* tree_values, float* out, float* lse,
                int64_t page_stride, int64_t token_stride, int64_t head_stride, int64_t mask_batch_stride, int32_t page_size,
                int32_t max_pages, int32_t nodes, float scale) {
    const int tiles = ceil_div(nodes * GROUP, 64), first_row = int(blockIdx.x) % tiles * 64 + warp_index() * 16, rows = nodes * GROUP;
    const int64_t sequence = blockIdx.x / tiles;
    const int kv_head = blockIdx.y, num_kv_heads = gridDim.y, split = blockIdx.z, splits = gridDim.z;
    if (first_row >= rows) return;
    const int64_t num_q_heads = int64_t(num_kv_heads) * GROUP, head = int64_t(kv_head) * GROUP;
    const ELEMENT* my_q = q + (sequence * nodes * num_q_heads + head) * HEAD_DIM;
    const auto query = [=](int r) {
        const int row = first_row + r;
        return row < rows ? my_q + (row / GROUP * num_q_heads + row % GROUP) * HEAD_DIM : nullptr;
    };
    const int words = ceil_div(nodes, 64);
    const uint64_t* masks = tree_mask + sequence * mask_batch_stride;
    // The nodes of this lane's two rows, and whether they see anything.
    const int my_node[2] = {min(first_row + (lane_index() >> 2), rows - 1) / GROUP, min(first_row + (lane_index() >> 2) + 8, rows - 1) / GROUP};
    bool padding[2] = {true, true};
#pragma unroll
    for (int half = 0; half < 2; ++half)
        for (int w = 0; w < words; ++w) padding[half] = padding[half] && masks[int64_t(my_node[half]) * words + w] == 0;

    TensorState<HEAD_DIM> state;
    state.clear();
    if (split == splits - 1) {
        const int64_t stride = int64_t(num_kv_heads) * HEAD_DIM, offset = sequence * nodes * stride + int64_t(kv_head) * HEAD_DIM;
        const FlatRows<ELEMENT> own{tree_keys, tree_values, stride, offset};
        attend_tokens<ELEMENT, HEAD_DIM>(
            query, own, scale, 0, nodes, 16, [](int node) { return node; },
            [=](int r, int, int node) { return (masks[int64_t(my_node[r >> 3]) * words + (node >> 6)] >> (node & 63) & 1u) != 0; }, state);
    } else {
        const int length = seq_lens[sequence], share = ceil_div(length, splits - 1);
        const int begin = min(split * share, length), end = min(begin + share, length);
        const PagedCache<ELEMENT> cache{keys, values, page_table + sequence * max_pages, page_size, page_stride, token_stride, kv_head * head_stride};
        attend_tokens<ELEMENT, HEAD_DIM>(
            query, cache, scale, begin, end, 16, [](int position) { return position; }, [=](int r, int, int) { return !padding[r >> 3]; }, state);
    }
    finish_sums(state);
    const auto place = [=](int r) {
        const int row = first_row + r;
        return ((sequence * nodes + row / GROUP) * splits + split) * num_q_heads + head + row % GROUP;
    };
    write_rows(
        state,
        [=](int r, int channel, const float* x) {
            if (first_row + r < rows) *reinterpret_cast<float4*>(out + place(r) * HEAD_DIM + channel) = make_float4(x[0], x[1], x[2], x[3]);
        },
        [=](int r, float x) {
            if (first_row + r < rows) lse[place(r)] = x;
        });
}
