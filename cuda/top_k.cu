// Exact top-k of ragged rows: the indices of the k largest scores of each row, ascending, -1 padded.
//
// scores  [rows, stride] ELEMENT   only the first lengths[row] of a row are looked at
// lengths [rows] int32 or null     null: `count` for every row; clamped to [0, count]
// out     [rows, k] int32
// Order: NaN below -inf, -0.0 equal to 0.0, ties to the lowest index. grid (rows), block 512.
#include "tokamask/element.cuh"
#include "tokamask/radix.cuh"

namespace {
using namespace tokamask;
constexpr int kThreads = 512;
}  // namespace

extern "C" __global__ void __launch_bounds__(512)
top_k(const ELEMENT* scores, const int32_t* lengths, int32_t* out, int64_t stride, int32_t count, int32_t k) {
    __shared__ RadixShared<kThreads> shared;
    const int64_t row = blockIdx.x;
    const ELEMENT* mine = scores + row * stride;
    int32_t* to = out + row * k;
    const int length = lengths ? max(0, min(lengths[row], count)) : count, found = min(k, length);
    const auto key_at = [mine](int i) { return ordered_key(to_float(mine[i])); };

    for (int i = found + int(threadIdx.x); i < k; i += kThreads) to[i] = -1;
    if (found == 0) return;
    if (found == length) {  // all are kept
        for (int i = threadIdx.x; i < length; i += kThreads) to[i] = i;
        return;
    }
    const RadixThreshold threshold = radix_threshold<kThreads>(key_at, length, found, shared);
    radix_emit<kThreads>(key_at, length, threshold, shared.scratch, [to](int rank, int i) { to[rank] = i; });
}
