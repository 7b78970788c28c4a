// A row of logits seen through a row of a bitmask, one tile at a time: a tile is 16 bytes per lane of a warp, in index order.
#pragma once
#include "element.cuh"

namespace tokamask {

// Bit v % 32 of word v / 32 allows token v; null allows all; bits at and beyond the vocabulary size are never looked at.
__device__ __forceinline__ uint32_t mask_bits(const int32_t* mask, int first, int vocab_size) {
    const int left = vocab_size - first;
    if (left <= 0) return 0u;
    const uint32_t inside = left >= 32 ? 0xffffffffu : (1u << left) - 1u;
    return (mask ? uint32_t(mask[first >> 5]) >> (first & 31) : 0xffffffffu) & inside;
}

// Logits that differ from those in memory (penalties): bit v % 32 of touched[v / 32] says that token v counts as values[v].
struct Changes {
    const uint32_t* touched;
    const float* values;
};

template <class E, bool kChanged = false> struct LogitsRow {
    static constexpr int chunk = Chunk<E>::size;  // tokens of a lane
    static constexpr int tile = 32 * chunk;       // tokens of a warp
    const E* logits;
    const int32_t* mask;
    Changes changes;
    int vocab_size;
    bool aligned;  // whether chunks start at multiples of 16 bytes

    __device__ __forceinline__ LogitsRow(const E* row, const int32_t* mask_row, int size, Changes changed = {nullptr, nullptr})
        : logits(row), mask(mask_row), changes(changed), vocab_size(size), aligned((reinterpret_cast<uint64_t>(row) & 15u) == 0) {}

    // The lane's chunk of the tile that starts at `base`, a multiple of 32: bit j of the result says that token first(base) + j
    // is live, that is allowed and above -inf (NaN is not). Nothing is read where nothing is allowed.
    __device__ __forceinline__ int first(int base) const { return base + lane_index() * chunk; }
    __device__ __forceinline__ uint32_t read(int base, float (&x)[chunk]) const {
        const int at = first(base);
        uint32_t bits = mask_bits(mask, at, vocab_size) & ((1u << chunk) - 1u);
        if (bits == 0) return 0;
        if (aligned && at + chunk <= vocab_size) {
            unpack_chunk<E>(load_chunk(logits + at), x);
        } else {
#pragma unroll
            for (int j = 0; j < chunk; ++j) x[j] = at + j < vocab_size ? to_float(logits[at + j]) : negative_infinity();
        }
        if (kChanged) {
            const uint32_t touched = changes.touched[at >> 5] >> (at & 31) & bits;
            if (touched) {
#pragma unroll
                for (int j = 0; j < chunk; ++j)
                    if (touched >> j & 1u) x[j] = changes.values[at + j];
            }
        }
#pragma unroll
        for (int j = 0; j < chunk; ++j)
            if (!(x[j] > negative_infinity())) bits &= ~(1u << j);
        return bits;
    }
};

}  // namespace tokamask
