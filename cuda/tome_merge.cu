// ToMe: bipartite matching of rows and merging of the best pairs. Sources are rows protect, protect + 2, ..., targets the rows between.
//
// tome_merge_match: metric [n, dim] ELEMENT, inverse [n] float32 (greedy_select_norms) give, for each source, best [sources] int32 (the target of
//   greatest cosine, lowest index among equals) and similarity [sources] float32. grid (ceil(sources / 4)), block 128.
// tome_merge_rows: selected [r] int32 (positions among the sources, ascending, from top_k) gives into [n] int32 (a merged source's target, else
//   the row itself) and rows [n] int32 (the new row of each). grid (1), block 512.
// tome_merge: x [n, dim] ELEMENT, size [n] float32 or null (ones) give merged [n - r, dim] float32, the mean weighted by size over what went
//   into a row, in ascending order of rows, and sizes [n - r] float32. grid (n), block 128.
#include "tokamask/block.cuh"
#include "tokamask/element.cuh"

namespace {
using namespace tokamask;
constexpr int kThreads = 512;
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 8)
tome_merge_match(const ELEMENT* metric, const float* inverse, int32_t* best, float* similarity, int32_t n, int32_t dim, int32_t protect,
                 int32_t sources) {
    const int source = int(blockIdx.x) * 4 + warp_index(), row = protect + 2 * source;
    if (source >= sources) return;
    float greatest = negative_infinity();
    int where = protect + 1;
    for (int target = protect + 1; target < n; target += 2) {
        float dot = 0.f;
        for (int d = lane_index(); d < dim; d += 32) dot = fmaf(to_float(metric[int64_t(row) * dim + d]), to_float(metric[int64_t(target) * dim + d]), dot);
        const float cosine = lanes_sum(dot) * inverse[row] * inverse[target];
        if (cosine > greatest) {
            greatest = cosine;
            where = target;
        }
    }
    if (lane_index() == 0) {
        best[source] = where;
        similarity[source] = greatest;
    }
}

extern "C" __global__ void __launch_bounds__(512, 2)
tome_merge_rows(const int32_t* selected, const int32_t* best, int32_t* into, int32_t* rows, int32_t n, int32_t r, int32_t protect) {
    __shared__ int scratch[kThreads / 32];
    for (int i = threadIdx.x; i < n; i += kThreads) into[i] = i;
    __syncthreads();
    for (int j = threadIdx.x; j < r; j += kThreads) into[protect + 2 * selected[j]] = best[selected[j]];
    __syncthreads();
    int stayed = 0;
    for (int start = 0; start < n; start += kThreads) {
        const int i = start + int(threadIdx.x), stays = i < n && into[i] == i;
        int total;
        const int before = block_exclusive_sum<kThreads>(stays, &total, scratch);
        if (stays) rows[i] = stayed + before;
        stayed += total;
    }
    __syncthreads();
    for (int j = threadIdx.x; j < r; j += kThreads) rows[protect + 2 * selected[j]] = rows[best[selected[j]]];
}

extern "C" __global__ void __launch_bounds__(128, 8)
tome_merge(const ELEMENT* x, const float* size, const int32_t* into, const int32_t* rows, const int32_t* selected, float* merged,
           float* sizes, int32_t dim, int32_t r, int32_t protect) {
    const int row = blockIdx.x;
    if (into[row] != row) return;
    for (int d = threadIdx.x; d < dim; d += 128) {
        float own = size ? size[row] : 1.f, total = own, sum = own * to_float(x[int64_t(row) * dim + d]);
        for (int j = 0; j < r; ++j) {
            const int source = protect + 2 * selected[j];
            if (into[source] != row) continue;
            own = size ? size[source] : 1.f;
            total += own;
            sum = fmaf(own, to_float(x[int64_t(source) * dim + d]), sum);
        }
        merged[int64_t(rows[row]) * dim + d] = sum / total;
        if (d == 0) sizes[rows[row]] = total;
    }
}
