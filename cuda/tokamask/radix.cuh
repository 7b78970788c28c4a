// Exact selection from a row by radix: the threshold key is found digit by digit (11 + 11 + 10 bits) from a histogram of the
// keys still in question; what lies above it is taken and, of the keys equal to it, those of the lowest index. One block
// works on one row, which is read once per digit and once to write; a row of up to about 10 MB stays in L2 meanwhile.
// Thought through and left: several blocks per row, whose five launches cost as much as they save below a million scores.
#pragma once
#include "block.cuh"

namespace tokamask {

// Order of scores: NaN < -inf < ... < +inf, with -0.0 equal to 0.0.
__device__ __forceinline__ uint32_t ordered_key(float score) {
    if (is_nan(score)) return 0u;
    const uint32_t u = __float_as_uint(score + 0.0f);  // -0.0 + 0.0 is +0.0
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}
__device__ __forceinline__ float score_of_key(uint32_t key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

constexpr int kRadixBins = 2048;
// Weight: int to count keys, uint64_t to weigh them. Integer sums, so the order of the atomics does not matter.
template <int kBlock, class Weight> struct RadixShared {
    Weight histogram[kRadixBins];
    Weight scratch[kBlock / 32];
    Weight needed;
    uint32_t prefix;
};
template <class Weight> struct RadixThreshold {
    uint32_t key;
    Weight needed;  // what the keys equal to `key` still have to give, at least 1
};

// The largest key such that it and all larger ones weigh at least `needed`: 1 <= needed <= the weight of the row. `visit` calls
// its argument with (key, weight) for each item of this thread; each item belongs to one thread.
template <int kBlock, class Weight, class Visit>
__device__ __forceinline__ RadixThreshold<Weight> radix_threshold(Visit visit, Weight needed, RadixShared<kBlock, Weight>& shared) {
    uint32_t prefix = 0, decided = 0;  // bits of the threshold found so far, and which they are
#pragma unroll 1
    for (int digit = 0; digit < 3; ++digit) {
        const int shift = digit == 0 ? 21 : digit == 1 ? 10 : 0, bins = digit == 2 ? 1024 : 2048;
        for (int b = threadIdx.x; b < bins; b += kBlock) shared.histogram[b] = 0;
        __syncthreads();
        visit([&](uint32_t key, Weight weight) {
            if ((key & decided) == prefix) atomicAdd(&shared.histogram[key >> shift & uint32_t(bins - 1)], weight);
        });
        __syncthreads();
        // From the largest digit down, each thread takes a run of bins; exactly one run holds the threshold.
        const int run = bins / kBlock, top = bins - 1 - int(threadIdx.x) * run;
        Weight mine = 0, total;
        for (int j = 0; j < run; ++j) mine += shared.histogram[top - j];
        Weight above = block_exclusive_sum<kBlock>(mine, &total, shared.scratch);
        if (above < needed && above + mine >= needed) {
            int bin = top;
            for (; above + shared.histogram[bin] < needed; --bin) above += shared.histogram[bin];
            shared.prefix = prefix | uint32_t(bin) << shift;
            shared.needed = needed - above;
        }
        __syncthreads();
        prefix = shared.prefix;
        needed = shared.needed;
        decided |= uint32_t(bins - 1) << shift;
    }
    return {prefix, needed};
}

// Calls emit(rank, i) for each selected position, in ascending order of i; rank counts from 0. `key_at(i)` is the key of i.
template <int kBlock, class KeyAt, class Emit>
__device__ __forceinline__ void radix_emit(KeyAt key_at, int count, RadixThreshold<int> threshold, int* scratch, Emit emit) {
    int written = 0, ties_seen = 0;
    for (int start = 0; start < count; start += kBlock) {
        const int i = start + int(threadIdx.x);
        const uint32_t key = i < count ? key_at(i) : 0u;
        const bool above = i < count && key > threshold.key, tie = i < count && key == threshold.key;
        // Both prefix sums in one: ties in the low half, certain positions in the high half (at most kBlock each).
        int total;
        const int packed = block_exclusive_sum<kBlock>(int(above) << 16 | int(tie), &total, scratch);
        const int ties_left = max(threshold.needed - ties_seen, 0), ties_before = packed & 0xffff;
        if (above || (tie && ties_before < ties_left)) emit(written + (packed >> 16) + min(ties_before, ties_left), i);
        written += (total >> 16) + min(total & 0xffff, ties_left);
        ties_seen += total & 0xffff;
    }
}

}  // namespace tokamask
