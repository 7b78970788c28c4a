// What the two indexer kernels share: which key a position of a row stands for, and where it lies.
#pragma once
#include "element.cuh"

namespace tokamask {

// A row sees the first `length` keys of its pages; with candidates, position p stands for key candidates[p]. Without a page
// table the keys of a row lie one after another.
template <class E> struct IndexedKeys {
    const E* keys;
    const int32_t *page_table, *candidates;  // of this row
    int32_t page_size, count, length;
    int64_t page_stride, token_stride;

    __device__ __forceinline__ int token(int position) const {
        if (position >= count) return -1;
        const int t = candidates ? candidates[position] : position;
        return t >= 0 && t < length ? t : -1;
    }
    __device__ __forceinline__ const E* row(int token) const {
        if (!page_table) return keys + int64_t(token) * token_stride;
        return keys + int64_t(page_table[token / page_size]) * page_stride + int64_t(token % page_size) * token_stride;
    }
};

// The keys of one row of a launch: `stride` steps through the page table, or without one through the keys (0: shared by all rows);
// a row sees the tokens up to its position, `unit` of which make a key (blocks of HISA).
template <class E>
__device__ __forceinline__ IndexedKeys<E> indexed_keys(int64_t row, const E* keys, const int32_t* page_table, const int32_t* positions,
                                                       const int32_t* candidates, int64_t page_stride, int64_t token_stride, int64_t stride,
                                                       int32_t page_size, int32_t count, int32_t unit) {
    const E* first = page_table ? keys : keys + row * stride;
    const int32_t *table = page_table ? page_table + row * stride : nullptr, *chosen = candidates ? candidates + row * count : nullptr;
    return {first, table, chosen, page_size, count, (positions[row] + unit) / unit, page_stride, token_stride};
}

}  // namespace tokamask
