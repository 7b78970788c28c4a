// Exact selection of the k largest of a row by radix: the key of rank k is found digit by digit (11 + 11 + 10 bits),
// then everything above it is taken and, of the keys equal to it, those of the lowest index. One block works on one row.
// A row is read once per digit and once to write; a row of up to about 10 MB stays in L2, so device memory sees it once.
// Tried on paper and left: several blocks per row, whose five launches cost as much as they save below a million scores.
#pragma once
#include "block.cuh"

namespace tokamask {

// Order of scores: NaN < -inf < ... < +inf, with -0.0 equal to 0.0.
__device__ __forceinline__ uint32_t ordered_key(float score) {
    if (is_nan(score)) return 0u;
    const uint32_t u = __float_as_uint(score + 0.0f);  // -0.0 + 0.0 is +0.0
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

constexpr int kRadixBins = 2048;
template <int THREADS> struct RadixShared {
    int histogram[kRadixBins];
    int scratch[THREADS / 32];
    uint32_t prefix;
    int needed;
};
struct RadixThreshold {
    uint32_t key;  // keys above it are selected
    int ties;      // and this many of the keys equal to it, lowest index first
};

// The threshold that selects `k` of `count` keys, 1 <= k <= count. `key_at(i)` gives the key of position i.
template <int THREADS, class KeyAt>
__device__ __forceinline__ RadixThreshold radix_threshold(KeyAt key_at, int count, int k, RadixShared<THREADS>& shared) {
    uint32_t prefix = 0, decided = 0;  // bits of the threshold found so far, and which they are
    int needed = k;
#pragma unroll 1
    for (int digit = 0; digit < 3; ++digit) {
        const int shift = digit == 0 ? 21 : digit == 1 ? 10 : 0, bins = digit == 2 ? 1024 : 2048;
        for (int b = threadIdx.x; b < bins; b += THREADS) shared.histogram[b] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < count; i += THREADS) {
            const uint32_t key = key_at(i);
            if ((key & decided) == prefix) atomicAdd(&shared.histogram[key >> shift & uint32_t(bins - 1)], 1);
        }
        __syncthreads();
        // From the largest digit down, each thread takes a run of bins; exactly one run holds the needed rank.
        const int run = bins / THREADS, top = bins - 1 - int(threadIdx.x) * run;
        int mine = 0, total;
        for (int j = 0; j < run; ++j) mine += shared.histogram[top - j];
        int above = block_exclusive_sum<THREADS>(mine, &total, shared.scratch);
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

// Calls emit(rank, i) for each selected position, in ascending order of i; rank counts from 0.
template <int THREADS, class KeyAt, class Emit>
__device__ __forceinline__ void radix_emit(KeyAt key_at, int count, RadixThreshold threshold, int* scratch, Emit emit) {
    int written = 0, ties_seen = 0;
    for (int start = 0; start < count; start += THREADS) {
        const int i = start + int(threadIdx.x);
        const uint32_t key = i < count ? key_at(i) : 0u;
        const bool above = i < count && key > threshold.key, tie = i < count && key == threshold.key;
        // Both prefix sums in one: ties in the low half, certain positions in the high half (at most THREADS each).
        int total;
        const int packed = block_exclusive_sum<THREADS>(int(above) << 16 | int(tie), &total, scratch);
        const int ties_left = threshold.ties - ties_seen, ties_before = packed & 0xffff;
        if (above || (tie && ties_before < ties_left)) emit(written + (packed >> 16) + min(ties_before, max(ties_left, 0)), i);
        written += (total >> 16) + min(total & 0xffff, max(ties_left, 0));
        ties_seen += total & 0xffff;
    }
}

}  // namespace tokamask
