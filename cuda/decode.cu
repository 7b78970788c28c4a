// Dense decode attention over a paged cache: sparse_decode with every token of the sequence.
//
// q, keys, values, page_table, seq_lens, out, lse: as in sparse_decode.cu. Lengths are read on the device, so one launch
// shape (a CUDA graph) serves all lengths. grid (splits, num_kv_heads, batch), block 128 * ceil(GROUP / 4).
#include "tokamask/attention.cuh"

namespace {
using namespace tokamask;
}  // namespace

extern "C" __global__ void __launch_bounds__(128 * ((GROUP + 3) / 4), 4 / ((GROUP + 3) / 4))
decode(const ELEMENT* q, const ELEMENT* keys, const ELEMENT* values, const int32_t* page_table, const int32_t* seq_lens, float* out,
       float* lse, int64_t page_stride, int64_t token_stride, int64_t head_stride, int32_t page_size, int32_t max_pages, float scale) {
    __shared__ DecodeShared<HEAD_DIM, GROUP> shared;
    const int split = blockIdx.x, splits = gridDim.x, kv_head = blockIdx.y, num_kv_heads = gridDim.y, sequence = blockIdx.z;
    const int length = seq_lens[sequence], share = ceil_div(length, splits);
    const int begin = min(split * share, length), end = min(begin + share, length);
    const PagedCache<ELEMENT> cache{keys, values, page_table + int64_t(sequence) * max_pages, page_size, page_stride, token_stride, kv_head * head_stride};
    const int64_t num_q_heads = int64_t(num_kv_heads) * GROUP;
    const int64_t first_q = sequence * num_q_heads + int64_t(kv_head) * GROUP;
    const int64_t first_out = (int64_t(sequence) * splits + split) * num_q_heads + int64_t(kv_head) * GROUP;
    decode_split<ELEMENT, HEAD_DIM, GROUP>(
        q + first_q * HEAD_DIM, cache, scale, begin, end, [](int position) { return position; }, out + first_out * HEAD_DIM, lse + first_out, shared);
}
