// Decode attention of the nodes of a draft tree: each sees the whole cached prefix and its own ancestors.
//
// q         [batch, nodes, num_kv_heads * GROUP, HEAD_DIM] ELEMENT
// keys, values, page_table, seq_lens: the prefix, as in decode.cu
// tree_mask [batch or 1, nodes, words] uint64: bit j % 64 of word j / 64 of row i: node i sees node j (ancestors and itself). A row
//           of zeros is a padding node, which sees nothing: 0 and -inf
// tree_keys, tree_values [batch, nodes, num_kv_heads, HEAD_DIM] ELEMENT
// out       [batch * nodes, splits, num_q_heads, HEAD_DIM] float32, lse [batch * nodes, splits, num_q_heads] float32: the last split
//           is the tree, the others share the prefix. merge_states joins them.
// grid (batch * nodes, num_kv_heads, splits), block 128 * ceil(GROUP / 4). The nodes of a tree read the same prefix rows, which
// they find in L2 when they run at the same time.
#include "tokamask/attention.cuh"

namespace {
using namespace tokamask;
}  // namespace

extern "C" __global__ void __launch_bounds__(128 * ((GROUP + 3) / 4), 4 / ((GROUP + 3) / 4))
tree_decode(const ELEMENT* q, const ELEMENT* keys, const ELEMENT* values, const int32_t* page_table, const int32_t* seq_lens,
            const uint64_t* tree_mask, const ELEMENT* tree_keys, const ELEMENT* tree_values, float* out, float* lse,
            int64_t page_stride, int64_t token_stride, int64_t head_stride, int64_t mask_batch_stride, int32_t page_size,
            int32_t max_pages, int32_t nodes, float scale) {
    __shared__ DecodeShared<HEAD_DIM, GROUP> shared;
    const int64_t row = blockIdx.x, sequence = row / nodes;
    const int node = int(row % nodes), kv_head = blockIdx.y, num_kv_heads = gridDim.y, split = blockIdx.z, splits = gridDim.z;
    const int64_t num_q_heads = int64_t(num_kv_heads) * GROUP, head = int64_t(kv_head) * GROUP;
    const int64_t first_out = (row * splits + split) * num_q_heads + head;
    const ELEMENT* my_q = q + (row * num_q_heads + head) * HEAD_DIM;
    float *out_to = out + first_out * HEAD_DIM, *lse_to = lse + first_out;

    const int words = ceil_div(nodes, 64);
    const uint64_t* mask = tree_mask + sequence * mask_batch_stride + int64_t(node) * words;
    bool padding = true;
    for (int w = 0; w < words; ++w) padding = padding && mask[w] == 0;

    if (split == splits - 1) {
        const int64_t stride = int64_t(num_kv_heads) * HEAD_DIM, offset = sequence * nodes * stride + int64_t(kv_head) * HEAD_DIM;
        const FlatRows<ELEMENT> rows{tree_keys, tree_values, stride, offset};
        const auto visible = [mask](int j) { return mask[j >> 6] >> (j & 63) & 1u ? j : -1; };
        decode_split<ELEMENT, HEAD_DIM, GROUP>(my_q, rows, scale, 0, nodes, visible, out_to, lse_to, shared);
    } else {
        const int length = padding ? 0 : seq_lens[sequence], share = ceil_div(length, splits - 1);
        const int begin = min(split * share, length), end = min(begin + share, length);
        const PagedCache<ELEMENT> cache{keys, values, page_table + sequence * max_pages, page_size, page_stride, token_stride, kv_head * head_stride};
        decode_split<ELEMENT, HEAD_DIM, GROUP>(my_q, cache, scale, begin, end, [](int token) { return token; }, out_to, lse_to, shared);
    }
}
