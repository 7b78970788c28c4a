// The block stage of HISA.
//
// hisa_pool: keys [tokens, HEAD_DIM] ELEMENT give pooled [blocks, HEAD_DIM] float32, the mean of each block. grid (blocks), block 128.
// hisa_force: scores [rows, blocks] float32: the first block and the one of the row's position become +inf. grid (rows), block 32.
// hisa_expand: selected [rows, chosen] int32 blocks, ascending, -1 padded, give candidates [rows, chosen * block_size] int32: their tokens up to
//   the row's position; -1 else. grid (rows, chosen), block 128.
#include "tokamask/element.cuh"

namespace {
using namespace tokamask;
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 8)
hisa_pool(const ELEMENT* keys, float* pooled, int64_t token_stride, int32_t tokens, int32_t block_size) {
    const int begin = int(blockIdx.x) * block_size, end = min(begin + block_size, tokens), column = threadIdx.x;
    if (column >= HEAD_DIM) return;
    float sum = 0.f;
    for (int t = begin; t < end; ++t) sum += to_float(keys[t * token_stride + column]);
    pooled[int64_t(blockIdx.x) * HEAD_DIM + column] = sum / float(end - begin);
}

extern "C" __global__ void __launch_bounds__(32, 16)
hisa_force(float* scores, const int32_t* positions, int32_t blocks, int32_t block_size) {
    const int64_t row = blockIdx.x;
    if (threadIdx.x != 0 || positions[row] < 0) return;
    scores[row * blocks] = -negative_infinity();
    scores[row * blocks + min(positions[row] / block_size, blocks - 1)] = -negative_infinity();
}

extern "C" __global__ void __launch_bounds__(128, 8)
hisa_expand(const int32_t* selected, const int32_t* positions, int32_t* candidates, int32_t chosen, int32_t block_size, int32_t tokens) {
    const int64_t row = blockIdx.x;
    const int block = selected[row * chosen + blockIdx.y], last = min(positions[row], tokens - 1);
    for (int i = threadIdx.x; i < block_size; i += 128) {
        const int token = block * block_size + i;
        candidates[(row * chosen + blockIdx.y) * block_size + i] = block >= 0 && token <= last ? token : -1;
    }
}
