// The fused masked sampler: bitmask, temperature, top-k, top-p, min-p and the draw, in one launch, equal bit for bit to
// python/tokamask/reference/sampling.py, whose steps are numbered here. One block works on one row.
//
// logits   [batch, stride] ELEMENT
// bitmask  [mask_rows, words] int32 or null (all allowed), rows [batch] int32 or null (row b for b; -1: all allowed)
// temperature, top_p, min_p [batch] float32, top_k [batch] int32, seeds, steps [batch] uint64; each may be null: then
//          the value behind it serves all rows. One seed: row b draws from stream b; a seed per row: each from stream 0.
// touched [batch, words] uint32, changed [batch, vocab_size] float32: logits that penalties changed, from penalise.cu; with PENALTIES = 1
//          only, else null
// tokens   [batch] int32 (-1: nothing is live), logprobs [batch] float32
// grid (batch), block 512. Words of the mask that are 0 cost no read of logits.
#include "tokamask/random.cuh"
#include "tokamask/sampling.cuh"

namespace {
using namespace tokamask;
constexpr int kThreads = 512, kWarps = kThreads / 32;
using Row = LogitsRow<ELEMENT, PENALTIES>;

// The prefix of the tokens in descending order that the filters leave: keys above `key`, and the first `ties` equal to it.
struct Cut {
    uint32_t key;
    uint32_t ties;
};

struct Shared {
    union {  // the barriers of the sum in between keep the second from what the first is still read for
        RadixShared<kThreads, int> count;
        RadixShared<kThreads, uint64_t> weigh;
    };
    BestShared<kThreads> best;
    uint64_t weight[kWarps];
    uint32_t ties[kWarps];
};

// What one segment holds beyond its ties: the kept weight above the cut, and how many tokens lie on the cut.
struct Segment {
    uint64_t weight;
    uint32_t ties;
};
__device__ __forceinline__ Segment measure(const Row& row, const Law& law, Cut cut, int begin, int end) {
    Segment sum{0, 0};
    for (int base = begin; base < end; base += Row::tile) {
        float x[Row::chunk];
        const uint32_t live = row.read(base, x);
#pragma unroll
        for (int j = 0; j < Row::chunk; ++j) {
            if (!(live >> j & 1u)) continue;
            const uint32_t key = ordered_key(x[j]);
            if (key > cut.key) sum.weight += law.kept_weight(x[j]);
            sum.ties += key == cut.key;
        }
    }
    return {warp_sum(sum.weight), warp_sum(sum.ties)};
}

// Steps 4 and 5. `live` tokens, the best of them with key `best_key`.
__device__ __forceinline__ Cut filter(const Row& row, const Law& law, int live, uint32_t best_key, int top_k, float top_p, Shared& shared) {
    Cut cut{0, 0xffffffffu};
    if (top_k > 0 && top_k < row.vocab_size && top_k < live) {
        const auto visit = [&](auto weigh) { visit_live<kThreads>(row, [&](int, float x) { weigh(ordered_key(x), 1); }); };
        const RadixThreshold<int> threshold = radix_threshold<kThreads, int>(visit, top_k, shared.count);
        cut = {threshold.key, uint32_t(threshold.needed)};
    }
    if (!(top_p < 1.0f)) return cut;
    uint64_t total = 0;
    visit_live<kThreads>(row, [&](int, float x) { total += ordered_key(x) > cut.key ? law.weight(x) : 0; });
    block_exclusive_sum<kThreads>(total, &total, shared.weight);
    if (cut.key) total += cut.ties * law.weight(score_of_key(cut.key));
    const uint64_t part = uint64_t(__fmul_rn(fmaxf(top_p, 0.0f), 18446744073709551616.0f)), need = __umul64hi(total, part);
    if (need == 0) return {best_key, 1};
    const auto visit = [&](auto weigh) {
        visit_live<kThreads>(row, [&](int, float x) {
            const uint32_t key = ordered_key(x);
            const uint64_t w = key >= cut.key ? law.weight(x) : 0;
            if (w) weigh(key, w);
        });
    };
    const RadixThreshold<uint64_t> threshold = radix_threshold<kThreads, uint64_t>(visit, need, shared.weigh);
    const uint64_t each = law.weight(score_of_key(threshold.key));
    return {threshold.key, uint32_t(ceil_div(threshold.needed, each))};
}
}  // namespace

extern "C" __global__ void __launch_bounds__(512, 2)
sample(const ELEMENT* logits, const int32_t* bitmask, const int32_t* rows, const float* temperatures, float temperature,
       const int32_t* top_ks, int32_t top_k, const float* top_ps, float top_p, const float* min_ps, float min_p, const uint64_t* seeds,
       uint64_t seed, const uint64_t* steps, uint64_t step, const uint32_t* touched, const float* changed, int32_t* tokens, float* logprobs, int64_t stride, int32_t vocab_size,
       int32_t words) {
    __shared__ Shared shared;
    const int64_t b = blockIdx.x;
    const int64_t mask_row = rows ? rows[b] : b;
    const Row row(logits + b * stride, bitmask && mask_row >= 0 ? bitmask + mask_row * words : nullptr, vocab_size,
                  {PENALTIES ? touched + b * words : nullptr, PENALTIES ? changed + b * vocab_size : nullptr});

    const Best best = find_best<kThreads>(row, shared.best);  // steps 1 and 2
    if (temperatures) temperature = temperatures[b];
    if (best.live == 0 || !(temperature > 0.0f)) {
        if (threadIdx.x == 0) {
            tokens[b] = best.token;
            logprobs[b] = best.live ? 0.0f : negative_infinity();
        }
        return;
    }

    Law law{score_of_key(best.key), law_scale(temperature), 0};
    const Cut cut = filter(row, law, int(best.live), best.key, top_ks ? top_ks[b] : top_k, top_ps ? top_ps[b] : top_p, shared);
    if (min_ps) min_p = min_ps[b];
    if (min_p > 0.0f) law.floor = uint64_t(__fmul_rn(fminf(min_p, 1.0f), 1099511627776.0f));  // step 6
    const uint64_t tie_weight = cut.key ? law.kept_weight(score_of_key(cut.key)) : 0;

    // Step 7. Each warp measures one segment; the segment where the running sum passes the target is divided again, until one
    // warp can walk it. The first round also gives the total, hence the target.
    int begin = 0, end = vocab_size;
    uint64_t target = 0, total = 0;
    uint32_t ties_left = cut.ties;
    for (bool whole = true;; whole = false) {
        const int share = ceil_div(ceil_div(end - begin, kWarps), Row::tile) * Row::tile;
        const int mine = min(begin + warp_index() * share, end);
        const Segment segment = measure(row, law, cut, mine, min(mine + share, end));
        __syncthreads();  // the last round's figures have been read
        if (lane_index() == 0) {
            shared.weight[warp_index()] = segment.weight;
            shared.ties[warp_index()] = segment.ties;
        }
        __syncthreads();
        if (whole) {
            uint32_t left = ties_left;
            for (int w = 0; w < kWarps; ++w) {
                const uint32_t ties = min(shared.ties[w], left);
                left -= ties;
                total += shared.weight[w] + ties * tie_weight;
            }
            target = __umul64hi(total, random_bits64(seeds ? seeds[b] : seed, seeds ? 0u : uint32_t(b), steps ? steps[b] : step, 0));
        }
        int chosen = 0;
        for (;; ++chosen) {
            const uint32_t ties = min(shared.ties[chosen], ties_left);
            const uint64_t weight = shared.weight[chosen] + ties * tie_weight;
            if (target < weight || chosen == kWarps - 1) break;
            target -= weight;
            ties_left -= ties;
        }
        begin = min(begin + chosen * share, end);
        end = min(begin + share, end);
        if (end - begin <= Row::tile) break;
    }

    // One tile is left: a prefix sum over its lanes, then over the chunk of the lane that holds the target.
    if (warp_index() != 0) return;
    float x[Row::chunk];
    const uint32_t bits = row.read(begin, x);
    uint32_t my_ties = 0;
#pragma unroll
    for (int j = 0; j < Row::chunk; ++j) my_ties += (bits >> j & 1u) && ordered_key(x[j]) == cut.key;
    uint32_t ties_before = warp_inclusive_sum(my_ties) - my_ties;
    uint64_t w[Row::chunk], sum = 0;
#pragma unroll
    for (int j = 0; j < Row::chunk; ++j) {
        w[j] = 0;
        if (!(bits >> j & 1u)) continue;
        const uint32_t key = ordered_key(x[j]);
        if (key > cut.key) w[j] = law.kept_weight(x[j]);
        if (key == cut.key && ties_before++ < ties_left) w[j] = tie_weight;
        sum += w[j];
    }
    uint64_t before = warp_inclusive_sum(sum) - sum;
    if (target < before || target >= before + sum) return;
#pragma unroll
    for (int j = 0; j < Row::chunk; ++j) {
        if (target >= before && target < before + w[j]) {
            tokens[b] = row.first(begin) + j;
            logprobs[b] = float(log(double(w[j])) - log(double(total)));
        }
        before += w[j];
    }
}
