// One query token per sequence against a paged KV cache: the body that dense and sparse decode share.
//
// A block serves one (split, KV head, sequence) and all GROUP query heads of that KV head, so that K and V are read from
// device memory once. A token's row is read by as many lanes as it has 16-byte chunks (a warp may hold several tokens at
// once). Four warps share the tokens of a split; when GROUP > 4 further warps take the other heads of the same tokens,
// which keeps the accumulators in registers and finds the rows in L1. Each warp keeps its own online softmax, in powers
// of two; warps are merged in shared memory, splits by merge_states.
#pragma once
#include "block.cuh"
#include "element.cuh"

namespace tokamask {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// Paged cache [pages, page_size, num_kv_heads, head_dim] in any order of the first three axes; strides in elements.
template <class E> struct PagedCache {
    const E *keys, *values;
    const int32_t* page_table;  // of this sequence
    int32_t page_size;
    int64_t page_stride, token_stride, head_offset;

    __device__ __forceinline__ int64_t row(int token) const {
        return int64_t(page_table[token / page_size]) * page_stride + int64_t(token % page_size) * token_stride + head_offset;
    }
};

// Rows that lie one after another: the keys and values of draft nodes, which are not in the cache yet.
template <class E> struct FlatRows {
    const E *keys, *values;
    int64_t token_stride, head_offset;

    __device__ __forceinline__ int64_t row(int token) const { return int64_t(token) * token_stride + head_offset; }
};

template <class E, int kDim, int kGroup> struct DecodeShape {
    static constexpr int chunk = Chunk<E>::size;
    static constexpr int lanes = kDim / chunk < 32 ? kDim / chunk : 32;  // lanes that hold one token's row
    static constexpr int loads = kDim / (chunk * lanes);                     // 16-byte loads per lane and row
    static constexpr int width = chunk * loads;                                  // elements of a row per lane
    static constexpr int tokens = 32 / lanes;                                    // tokens a warp holds at once
    static constexpr int head_warps = (kGroup + 3) / 4;
    static constexpr int heads = (kGroup + head_warps - 1) / head_warps;  // query heads per warp
    static constexpr int token_warps = 4;
    static constexpr int threads = 32 * head_warps * token_warps;
    static constexpr int unroll = 2;  // rows under way per lane: four 16-byte loads
};

// Where warps hand their states over, half of them at a time, so that the largest shape stays within 48 KiB. Declared by the
// kernel, because each inlined copy of a body would otherwise have its own.
template <int kDim, int kGroup> struct DecodeShared {
    float max[2][kGroup], sum[2][kGroup], values[2][kGroup][kDim];
};

// max, sum and weighted values of the tokens seen; empty: max = -inf, sum = 0.
template <int WIDTH> struct SoftmaxState {
    float max, sum, values[WIDTH];

    __device__ __forceinline__ void clear() {
        max = negative_infinity();
        sum = 0.f;
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) values[j] = 0.f;
    }
    __device__ __forceinline__ void rescale(float factor) {
        sum *= factor;
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) values[j] *= factor;
    }
    __device__ __forceinline__ void add(float weight, const float* row) {
        sum += weight;
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) values[j] = fmaf(weight, row[j], values[j]);
    }
};
// Where nothing has been seen the maximum is -inf, and exp2(-inf - -inf) would be NaN.
__device__ __forceinline__ float finite_or_zero(float max) { return max == negative_infinity() ? 0.f : max; }

// Position p of this split's [begin, end) stands for token token_at(p); -1 is a hole.
template <class E, int kDim, int kGroup, class Cache, class TokenAt>
__device__ __forceinline__ void decode_split(const E* q, const Cache& cache, float scale, int begin, int end, TokenAt token_at,
                                             float* partial_out, float* partial_lse, DecodeShared<kDim, kGroup>& shared) {
    using Shape = DecodeShape<E, kDim, kGroup>;
    static_assert(Shape::token_warps == 4, "DecodeShared holds half of the warps");
    constexpr int kHeads = Shape::heads, kWidth = Shape::width, kLoads = Shape::loads, kUnroll = Shape::unroll;

    const int token_warp = warp_index() % Shape::token_warps, first_head = warp_index() / Shape::token_warps * kHeads;
    const int slot = lane_index() / Shape::lanes, column = lane_index() % Shape::lanes * Shape::chunk;
    // Load `l` of a lane covers the elements column + l * lanes * chunk .. + chunk.
    float query[kHeads][kWidth];
    SoftmaxState<kWidth> state[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
        const int head = min(first_head + h, kGroup - 1);  // a warp short of heads repeats the last and drops it below
#pragma unroll
        for (int l = 0; l < kLoads; ++l)
            unpack_chunk<E>(load_chunk(q + int64_t(head) * kDim + column + l * Shape::lanes * Shape::chunk), query[h] + l * Shape::chunk);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) query[h][j] *= scale * kLog2E;
        state[h].clear();
    }

    constexpr int kStep = Shape::token_warps * Shape::tokens * kUnroll;
    for (int base = begin + token_warp * Shape::tokens * kUnroll; base < end; base += kStep) {
        uint4 key_raw[kUnroll][kLoads], value_raw[kUnroll][kLoads];
        bool valid[kUnroll];
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
            const int position = base + u * Shape::tokens + slot;
            const int token = position < end ? token_at(position) : -1;
            valid[u] = token >= 0;
            const int64_t row = valid[u] ? cache.row(token) + column : 0;
#pragma unroll
            for (int l = 0; l < kLoads; ++l) {
                const int64_t at = row + l * Shape::lanes * Shape::chunk;
                key_raw[u][l] = valid[u] ? load_chunk(cache.keys + at) : make_uint4(0, 0, 0, 0);
                value_raw[u][l] = valid[u] ? load_chunk(cache.values + at) : make_uint4(0, 0, 0, 0);
            }
        }
        float score[kHeads][kUnroll];
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
            float key[kWidth];
#pragma unroll
            for (int l = 0; l < kLoads; ++l) unpack_chunk<E>(key_raw[u][l], key + l * Shape::chunk);
#pragma unroll
            for (int h = 0; h < kHeads; ++h) {
                float dot = 0.f;
#pragma unroll
                for (int j = 0; j < kWidth; ++j) dot = fmaf(query[h][j], key[j], dot);
                dot = lanes_sum<Shape::lanes>(dot);
                score[h][u] = valid[u] ? dot : negative_infinity();
            }
        }
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
            float top = state[h].max;
#pragma unroll
            for (int u = 0; u < kUnroll; ++u) top = fmaxf(top, score[h][u]);
            state[h].rescale(fast_exp2(state[h].max - finite_or_zero(top)));
            state[h].max = top;
        }
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
            float value[kWidth];
#pragma unroll
            for (int l = 0; l < kLoads; ++l) unpack_chunk<E>(value_raw[u][l], value + l * Shape::chunk);
#pragma unroll
            for (int h = 0; h < kHeads; ++h) state[h].add(fast_exp2(score[h][u] - finite_or_zero(state[h].max)), value);
        }
    }

    // Merge the tokens a warp held side by side, then the warps, half of them at a time.
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
        for (int d = Shape::lanes; d < 32; d <<= 1) {
            const float other = __shfl_xor_sync(TM_ALL_LANES, state[h].max, d), top = fmaxf(state[h].max, other);
            state[h].rescale(fast_exp2(state[h].max - finite_or_zero(top)));
            state[h].max = top;
            state[h].sum += __shfl_xor_sync(TM_ALL_LANES, state[h].sum, d);
#pragma unroll
            for (int j = 0; j < kWidth; ++j) state[h].values[j] += __shfl_xor_sync(TM_ALL_LANES, state[h].values[j], d);
        }
    }
#pragma unroll
    for (int half = Shape::token_warps / 2; half; half /= 2) {
        const bool gives = token_warp >= half && token_warp < 2 * half, takes = token_warp < half;
        if (gives && slot == 0) {
#pragma unroll
            for (int h = 0; h < kHeads; ++h) {
                const int head = first_head + h;
                if (head >= kGroup) continue;
                if (lane_index() == 0) {
                    shared.max[token_warp - half][head] = state[h].max;
                    shared.sum[token_warp - half][head] = state[h].sum;
                }
#pragma unroll
                for (int j = 0; j < kWidth; ++j)
                    shared.values[token_warp - half][head][column + j / Shape::chunk * Shape::lanes * Shape::chunk + j % Shape::chunk] = state[h].values[j];
            }
        }
        __syncthreads();
        if (takes && slot == 0) {
#pragma unroll
            for (int h = 0; h < kHeads; ++h) {
                const int head = first_head + h;
                if (head >= kGroup) continue;
                const float other = shared.max[token_warp][head], top = fmaxf(state[h].max, other), base = finite_or_zero(top);
                const float mine = fast_exp2(state[h].max - base), theirs = fast_exp2(other - base);
                state[h].max = top;
                state[h].sum = state[h].sum * mine + shared.sum[token_warp][head] * theirs;
#pragma unroll
                for (int j = 0; j < kWidth; ++j) {
                    const int at = column + j / Shape::chunk * Shape::lanes * Shape::chunk + j % Shape::chunk;
                    state[h].values[j] = state[h].values[j] * mine + shared.values[token_warp][head][at] * theirs;
                }
            }
        }
        __syncthreads();
    }
    if (token_warp != 0 || slot != 0) return;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
        const int head = first_head + h;
        if (head >= kGroup) continue;
        const bool empty = state[h].sum == 0.f;  // false for NaN, which must come through
        const float inverse = empty ? 0.f : 1.f / state[h].sum;
        if (lane_index() == 0) partial_lse[head] = empty ? negative_infinity() : (state[h].max + log2f(state[h].sum)) * kLn2;
#pragma unroll
        for (int j = 0; j < kWidth; j += 4) {
            const int at = column + j / Shape::chunk * Shape::lanes * Shape::chunk + j % Shape::chunk;
            const float* v = state[h].values + j;
            *reinterpret_cast<float4*>(partial_out + int64_t(head) * kDim + at) = make_float4(v[0] * inverse, v[1] * inverse, v[2] * inverse, v[3] * inverse);
        }
    }
}

}  // namespace tokamask
