// Turns positions in a list of candidates into the candidates: out[r, i] = candidates[r, positions[r, i]], -1 where the position is -1
// or its score is -inf (a hole). Where positions ascend and candidates do, so does the result, with -1 last.
//
// positions [rows, k] int32, candidates [rows, count] int32, scores [rows, count] float32, out [rows, k] int32
// grid (rows), block 128.
#include "tokamask/block.cuh"

namespace {
using namespace tokamask;
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 8)
take(const int32_t* positions, const int32_t* candidates, const float* scores, int32_t* out, int32_t k, int32_t count) {
    __shared__ int scratch[4];
    const int64_t row = blockIdx.x;
    int written = 0;
    for (int start = 0; start < k; start += 128) {
        const int i = start + int(threadIdx.x), at = i < k ? positions[row * k + i] : -1;
        const int token = at >= 0 && scores[row * count + at] != negative_infinity() ? candidates[row * count + at] : -1;
        int total;
        const int before = block_exclusive_sum<128>(int(token >= 0), &total, scratch);
        if (token >= 0) out[row * k + written + before] = token;
        written += total;
    }
    for (int i = written + int(threadIdx.x); i < k; i += 128) out[row * k + i] = -1;
}
