// Writes -inf over the logits that a bitmask forbids, in place.
//
// logits  [batch, stride] ELEMENT
// bitmask [mask_rows, words] int32: bit v % 32 of word v / 32, 1 = allowed
// rows    [batch] int32 or null (row b for b); -1 leaves a row alone
// grid (batch, ceil(words / 256)), block 256: a warp takes 32 words, one after another; allowed words cost nothing.
#include "tokamask/logits.cuh"

namespace {
using namespace tokamask;
}  // namespace

extern "C" __global__ void __launch_bounds__(256, 4)
apply_bitmask(ELEMENT* logits, const int32_t* bitmask, const int32_t* rows, int64_t stride, int32_t vocab_size, int32_t words) {
    const int64_t b = blockIdx.x, mask_row = rows ? rows[b] : b;
    if (mask_row < 0) return;
    const int first_word = (int(blockIdx.y) * 8 + warp_index()) * 32, mine = first_word + lane_index();
    uint32_t forbidden = mine < words ? ~uint32_t(bitmask[mask_row * words + mine]) : 0u;
    for (int w = 0; w < 32; ++w) {
        const uint32_t word = __shfl_sync(TM_ALL_LANES, forbidden, w);
        const int token = (first_word + w) * 32 + lane_index();
        if ((word >> lane_index() & 1u) && token < vocab_size) store(logits + b * stride + token, negative_infinity());
    }
}
