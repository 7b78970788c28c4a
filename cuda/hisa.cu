// The two ends of HISA's block stage: mean keys of blocks, and the tokens of the chosen blocks.
//
// hisa_pool: keys paged [pages, page_size, HEAD_DIM] ELEMENT, page_table [sequences, max_pages], lengths [sequences] int32 give
//   pooled [sequences, blocks, HEAD_DIM] ELEMENT: the mean over the block's visible keys; blocks beyond the length are zero.
//   grid (blocks, sequences), block 128.
// hisa_expand: selected [rows, chosen] int32 blocks, ascending, -1 padded, give candidates [rows, (chosen + 2) * block_size] int32: the tokens
//   of the first block, of the chosen ones and of the newest, each once, ascending, -1 in the place of a block that was chosen
//   anyway or is absent and of tokens beyond the length. grid (rows, chosen + 2), block 128.
#include "tokamask/element.cuh"

namespace {
using namespace tokamask;
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 8)
hisa_pool(const ELEMENT* keys, const int32_t* page_table, const int32_t* lengths, ELEMENT* pooled, int64_t page_stride, int64_t token_stride,
          int64_t table_stride, int32_t page_size, int32_t block_size) {
    const int64_t sequence = blockIdx.y;
    const int begin = int(blockIdx.x) * block_size, end = min(begin + block_size, lengths[sequence]), column = threadIdx.x;
    if (column >= HEAD_DIM) return;
    float sum = 0.f;
    for (int t = begin; t < end; ++t)
        sum += to_float(keys[int64_t(page_table[sequence * table_stride + t / page_size]) * page_stride + int64_t(t % page_size) * token_stride + column]);
    store(pooled + (sequence * gridDim.x + blockIdx.x) * HEAD_DIM + column, end > begin ? sum / float(end - begin) : 0.f);
}

extern "C" __global__ void __launch_bounds__(128, 8)
hisa_expand(const int32_t* selected, const int32_t* lengths, int32_t* candidates, int32_t chosen, int32_t block_size) {
    const int64_t row = blockIdx.x;
    const int place = blockIdx.y, length = lengths[row], newest = length > 0 ? (length - 1) / block_size : -1;
    const int32_t* blocks = selected + row * chosen;
    int block = -1;
    if (place == 0) {
        block = newest >= 0 ? 0 : -1;
    } else if (place <= chosen) {
        block = blocks[place - 1];
        if (block == 0 || block >= newest) block = -1;  // it stands at an end
    } else if (newest > 0) {
        block = newest;
    }
    for (int i = threadIdx.x; i < block_size; i += 128) {
        const int token = block * block_size + i;
        candidates[(row * (chosen + 2) + place) * block_size + i] = block >= 0 && token < length ? token : -1;
    }
}
