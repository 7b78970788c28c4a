// Exact top-k of ragged rows: the indices of the k largest scores of each row, ascending, -1 padded.
//
// scores  [rows, stride] ELEMENT   only the first lengths[row] of a row are looked at
// lengths [rows] int32 or null     null: `count` for every row; clamped to [0, count]
// kept    [rows] int32 or null     how many of a row, at most k; below 0 as 0
// page_table [rows, max_pages] int32, table_stride elements apart (0: one for all), or null: then position i becomes the place in the cache
//         page_table[i / page_size] * page_size + i % page_size
// out     [rows, k] int32
// Order: NaN below -inf, -0.0 equal to 0.0, ties to the lowest index. grid (rows), block 512.
#include "tokamask/element.cuh"
#include "tokamask/radix.cuh"

namespace {
using namespace tokamask;
constexpr int kThreads = 512, kChunk = Chunk<ELEMENT>::size;

// Calls item(key) for the scores that fall to this thread: 16 bytes at a time where the row allows it.
template <class Item> __device__ __forceinline__ void visit_scores(const ELEMENT* row, int length, Item item) {
    const bool aligned = (reinterpret_cast<uint64_t>(row) & 15u) == 0;
    const int whole = aligned ? length / kChunk : 0;
    for (int c = threadIdx.x; c < whole; c += kThreads) {
        float x[kChunk];
        unpack_chunk<ELEMENT>(load_chunk(row + c * kChunk), x);
#pragma unroll
        for (int j = 0; j < kChunk; ++j) item(ordered_key(x[j]));
    }
    for (int i = whole * kChunk + int(threadIdx.x); i < length; i += kThreads) item(ordered_key(to_float(row[i])));
}
}  // namespace

extern "C" __global__ void __launch_bounds__(512, 2)
top_k(const ELEMENT* scores, const int32_t* lengths, const int32_t* kept, const int32_t* page_table, int32_t* out, int64_t stride, int64_t table_stride,
      int32_t page_size, int32_t count, int32_t k) {
    __shared__ RadixShared<kThreads, int> shared;
    const int64_t row = blockIdx.x;
    const ELEMENT* mine = scores + row * stride;
    int32_t* to = out + row * k;
    const int length = lengths ? max(0, min(lengths[row], count)) : count;
    const int found = min(kept ? max(0, min(kept[row], k)) : k, length);

    const int32_t* pages = page_table ? page_table + row * table_stride : nullptr;
    const auto place = [=](int i) { return pages ? pages[i / page_size] * page_size + i % page_size : i; };
    for (int i = found + int(threadIdx.x); i < k; i += kThreads) to[i] = -1;
    if (found == 0) return;
    if (found == length) {  // all are kept
        for (int i = threadIdx.x; i < length; i += kThreads) to[i] = place(i);
        return;
    }
    const auto visit = [mine, length](auto weigh) { visit_scores(mine, length, [&](uint32_t key) { weigh(key, 1); }); };
    const RadixThreshold<int> threshold = radix_threshold<kThreads, int>(visit, found, shared);
    const auto key_at = [mine](int i) { return ordered_key(to_float(mine[i])); };
    radix_emit<kThreads>(key_at, length, threshold, shared.scratch, [=](int rank, int i) { to[rank] = place(i); });
}
