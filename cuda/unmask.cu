// One step of parallel unmasking for diffusion language models, equal to python/tokamask/reference/unmask.py.
//
// unmask_score: logits [positions, stride] ELEMENT, masked [positions] uint8, bitmask [positions, words] int32 or null give tokens [positions] int32
//   (the best live token; -1: not masked or nothing live) and confidence [positions] float32 (its probability, 0 without a token).
//   grid (positions), block 512.
// unmask_accept: accepted [positions] uint8: where confidence >= threshold, and the best position in any case; at most `count` of them
//   (-1: any number), best first, ties by lowest position. grid (1), block 512.
#include "tokamask/sampling.cuh"

namespace {
using namespace tokamask;
constexpr int kThreads = 512;
}  // namespace

extern "C" __global__ void __launch_bounds__(512, 2)
unmask_score(const ELEMENT* logits, const uint8_t* masked, const int32_t* bitmask, int32_t* tokens, float* confidence, int64_t stride,
             int32_t vocab_size, int32_t words) {
    __shared__ BestShared<kThreads> best_shared;
    __shared__ uint64_t scratch[kThreads / 32];
    const int64_t position = blockIdx.x;
    if (!masked[position]) {
        if (threadIdx.x == 0) {
            tokens[position] = -1;
            confidence[position] = 0.f;
        }
        return;
    }
    const LogitsRow<ELEMENT> row(logits + position * stride, bitmask ? bitmask + position * words : nullptr, vocab_size);
    const Best best = find_best<kThreads>(row, best_shared);
    const Law law{score_of_key(best.key), law_scale(1.0f), 0};
    uint64_t total = 0;
    if (best.live) visit_live<kThreads>(row, [&](int, float x) { total += law.weight(x); });
    block_exclusive_sum<kThreads>(total, &total, scratch);
    if (threadIdx.x == 0) {
        tokens[position] = best.token;
        confidence[position] = best.live ? float(1099511627776.0 / double(total)) : 0.f;
    }
}

extern "C" __global__ void __launch_bounds__(512, 2)
unmask_accept(const int32_t* tokens, const float* confidence, uint8_t* accepted, int32_t positions, int32_t count, float threshold) {
    __shared__ RadixShared<kThreads, int> shared;
    __shared__ uint64_t best_of[kThreads / 32];
    uint64_t best = 0;
    for (int p = threadIdx.x; p < positions; p += kThreads) {
        accepted[p] = 0;
        if (tokens[p] < 0) continue;
        const uint64_t candidate = uint64_t(ordered_key(confidence[p])) << 32 | (0xffffffffu - uint32_t(p));
        best = best > candidate ? best : candidate;
    }
#pragma unroll
    for (int d = 16; d; d >>= 1) {
        const uint64_t other = __shfl_xor_sync(TM_ALL_LANES, best, d);
        best = best > other ? best : other;
    }
    if (lane_index() == 0) best_of[warp_index()] = best;
    __syncthreads();
    for (int w = 0; w < kThreads / 32; ++w) best = best > best_of[w] ? best : best_of[w];
    const int best_position = best ? int(0xffffffffu - uint32_t(best)) : -1;

    // The key of a position in question; 0 for the others, below any probability.
    const auto key_at = [=](int p) { return tokens[p] >= 0 && (p == best_position || confidence[p] >= threshold) ? ordered_key(confidence[p]) : 0u; };
    int mine = 0, eligible;
    for (int p = threadIdx.x; p < positions; p += kThreads) mine += key_at(p) != 0;
    block_exclusive_sum<kThreads>(mine, &eligible, shared.scratch);
    const int wanted = count < 0 ? eligible : min(count, eligible);
    if (wanted == 0) return;
    const auto visit = [&](auto weigh) {
        for (int p = threadIdx.x; p < positions; p += kThreads)
            if (key_at(p)) weigh(key_at(p), 1);
    };
    const RadixThreshold<int> cut = radix_threshold<kThreads, int>(visit, wanted, shared);
    radix_emit<kThreads>(key_at, positions, cut, shared.scratch, [accepted](int, int p) { accepted[p] = 1; });
}
