// Verifies draft trees by chance, so that what is kept has the target's law: python/tokamask/reference/verify.py (point, siblings with and without
// replacement, which for a chain is tokenwise). Sums run over the threads' stretches of the vocabulary in their order: where a
// uniform number falls within rounding of a boundary, the verdict may differ from that of one long sum.
//
// token_ids, parents [batch, nodes] int32: parents come first, -1 is the root; a negative token id is padding
// target, draft [batch, nodes + 1, vocab_size] PROBABILITY, need not be normalised; draft null: rule "point"
// seeds, steps [batch] uint64, rows [batch] uint32; each may be null: then the value behind it serves all (row 0xffffffff: the tree's number)
// scratch [batch, 2, vocab_size] float64: what remains of the target's law, and of the draft's; null for "point"
// path [batch, nodes] int32, -1 padded; accepted, bonus [batch] int32
// grid (batch), block 512.
#include "tokamask/block.cuh"
#include "tokamask/random.cuh"

namespace {
using namespace tokamask;
constexpr int kThreads = 512, kWarps = kThreads / 32;

struct Shared {
    double sums[kWarps];
    int found;
};
// The vocabulary in one stretch per thread, so that running sums are those of the index order.
struct Stretch {
    int begin, end;
};
__device__ __forceinline__ Stretch my_stretch(int vocab_size) {
    const int share = ceil_div(vocab_size, kThreads), begin = min(int(threadIdx.x) * share, vocab_size);
    return {begin, min(begin + share, vocab_size)};
}
template <class At> __device__ __forceinline__ double sum_of(At at, int vocab_size, double* before, Shared& shared) {
    const Stretch mine = my_stretch(vocab_size);
    double sum = 0, total;
    for (int v = mine.begin; v < mine.end; ++v) sum += at(v);
    *before = block_exclusive_sum<kThreads>(sum, &total, shared.sums);
    return total;
}
// The first token at which the running sum exceeds uniform * total; the last one with any mass where rounding leaves none.
template <class At> __device__ __forceinline__ int draw(At at, double uniform, int vocab_size, Shared& shared) {
    double before;
    const double target = uniform * sum_of(at, vocab_size, &before, shared);
    if (threadIdx.x == 0) shared.found = -1;
    __syncthreads();
    const Stretch mine = my_stretch(vocab_size);
    int last = -1, found = -1;
    double running = before;
    for (int v = mine.begin; v < mine.end; ++v) {
        const double p = at(v);
        if (!(p > 0)) continue;
        last = v;
        running += p;
        if (found < 0 && running > target) found = v;
    }
    // Of the threads whose stretch passes the target the first one counts: the greatest of negated tokens.
    if (found >= 0) atomicMax(&shared.found, 0x7fffffff - found);
    __syncthreads();
    const bool passed = shared.found >= 0;
    __syncthreads();
    if (!passed && last >= 0) atomicMax(&shared.found, last);
    __syncthreads();
    return passed ? 0x7fffffff - shared.found : shared.found;  // the next draw begins with a sum's barriers
}
}  // namespace

extern "C" __global__ void __launch_bounds__(512, 1)
verify_sampled(const int32_t* token_ids, const int32_t* parents, const PROBABILITY* target, const PROBABILITY* draft, const uint64_t* seeds,
               uint64_t seed, const uint32_t* rows, uint32_t row, const uint64_t* steps, uint64_t step, double* scratch, int32_t* path,
               int32_t* accepted, int32_t* bonus, int32_t nodes, int32_t vocab_size, int32_t replacement) {
    __shared__ Shared shared;
    const int64_t b = blockIdx.x;
    const int32_t *tokens = token_ids + b * nodes, *above = parents + b * nodes;
    int32_t* to = path + b * nodes;
    double *remaining = scratch + 2 * b * vocab_size, *left = remaining + vocab_size;
    if (seeds) seed = seeds[b];
    if (steps) step = steps[b];
    row = rows ? rows[b] : row == 0xffffffffu ? uint32_t(b) : row;
    uint32_t drawn = 0;
    const auto uniform = [&] { return double(random_bits64(seed, row, step, drawn++) >> 11) * 1.1102230246251565e-16; };
    const auto scaled = [](double x, double total) { return total > 0 ? x / total : x; };

    int node = -1, length = 0, token;
    for (;;) {
        const PROBABILITY* law = target + (b * (nodes + 1) + node + 1) * vocab_size;
        int next = -1;
        if (!draft) {
            token = draw([law](int v) { return double(law[v]); }, uniform(), vocab_size, shared);
            for (int i = node + 1; i < nodes && next < 0; ++i)
                if (above[i] == node && tokens[i] == token) next = i;
        } else {
            // The sums' barriers stand between what is still read of the last node's laws and what is written for this one.
            const PROBABILITY* guess = draft + (b * (nodes + 1) + node + 1) * vocab_size;
            double before;
            const double all = sum_of([law](int v) { return double(law[v]); }, vocab_size, &before, shared);
            const double guessed = sum_of([guess](int v) { return double(guess[v]); }, vocab_size, &before, shared);
            for (int v = threadIdx.x; v < vocab_size; v += kThreads) {
                remaining[v] = scaled(law[v], all);
                left[v] = scaled(guess[v], guessed);
            }
            __syncthreads();
            for (int i = node + 1; i < nodes && next < 0; ++i) {
                if (above[i] != node || tokens[i] < 0) continue;
                const int32_t child = tokens[i];
                if (uniform() * left[child] < remaining[child]) {
                    next = i;
                    continue;
                }
                const auto rest = [=](int v) { return fmax(remaining[v] - left[v], 0.0); };
                const double some = sum_of(rest, vocab_size, &before, shared);
                if (some > 0)
                    for (int v = threadIdx.x; v < vocab_size; v += kThreads) remaining[v] = rest(v) / some;
                __syncthreads();
                if (replacement) continue;
                if (threadIdx.x == 0) left[child] = 0;
                __syncthreads();
                const double others = sum_of([left](int v) { return left[v]; }, vocab_size, &before, shared);
                for (int v = threadIdx.x; v < vocab_size; v += kThreads) left[v] = scaled(left[v], others);
                __syncthreads();
            }
            if (next < 0) token = draw([remaining](int v) { return remaining[v]; }, uniform(), vocab_size, shared);
        }
        if (next < 0) break;
        if (threadIdx.x == 0) to[length] = next;
        node = next;
        ++length;
    }
    for (int i = length + int(threadIdx.x); i < nodes; i += kThreads) to[i] = -1;
    if (threadIdx.x == 0) {
        accepted[b] = length;
        bonus[b] = token;
    }
}
