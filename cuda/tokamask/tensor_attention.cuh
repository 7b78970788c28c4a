// Attention of 16 rows over any number of tokens by one warp, on tensor cores (sm_80 and later, 16-bit elements). A row is a query
// head, a query head of a draft node, or a query of a prompt.
//
// Neither keys nor values pass through shared memory. The sum over channels may run in any order, so each lane takes 16 bytes of
// a key as they lie and the queries are taken the same way; the columns of the output may stand in any order too, so each lane
// takes 16 bytes of a value and its output columns are those. The weights go from the first product to the second within their
// lane, rounded to the element type; sums of weights are of the unrounded ones.
#pragma once
#include "attention.cuh"
#include "tensor.cuh"

namespace tokamask {

// Of a lane: rows lane / 4 and lane / 4 + 8. values[8 b + t][2 half + c] is channel 64 b + 16 (lane % 4) + 8 c + t of row lane / 4 + 8 half.
template <int kDim> struct TensorState {
    static constexpr int tiles = kDim / 8;
    float max[2], sum[2], values[tiles][4];

    __device__ __forceinline__ void clear() {
        max[0] = max[1] = negative_infinity();
        sum[0] = sum[1] = 0.f;
#pragma unroll
        for (int t = 0; t < tiles; ++t) values[t][0] = values[t][1] = values[t][2] = values[t][3] = 0.f;
    }
    __device__ __forceinline__ void rescale(int half, float factor) {
        sum[half] *= factor;
#pragma unroll
        for (int t = 0; t < tiles; ++t) {
            values[t][2 * half] *= factor;
            values[t][2 * half + 1] *= factor;
        }
    }
};

__device__ __forceinline__ uint32_t chunk_word(const uint4& chunk, int i) { return i == 0 ? chunk.x : i == 1 ? chunk.y : i == 2 ? chunk.z : chunk.w; }

// Positions base, base + 1, .. base + 15, then `step` further, up to `end`. token_at(position) is a token or -1 for a hole, which is not
// read; cache.row(token) its place; visible(row, position, token) whether row 0 .. 15 sees it. query(row) may be null: zeros.
template <class E, int kDim, class Query, class Cache, class TokenAt, class Visible>
__device__ __forceinline__ void attend_tokens(Query query, const Cache& cache, float scale, int base, int end, int step, TokenAt token_at,
                                              Visible visible, TensorState<kDim>& state) {
    constexpr int kSlices = kDim / 32, kBlocks = kDim / 64;  // 16 bytes of four lanes; 16 bytes of eight lanes
    const int row = lane_index() >> 2, pair = lane_index() & 3;
    const float factor = scale * kLog2E;
    const uint4 nothing = make_uint4(0, 0, 0, 0);
    uint4 q[kSlices][2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const E* from = query(row + 8 * half);
#pragma unroll
        for (int s = 0; s < kSlices; ++s) q[s][half] = from ? load_chunk(from + 32 * s + 8 * pair) : nothing;
    }
    for (; base < end; base += step) {
        const int position = base + (lane_index() & 15), token = position < end ? token_at(position) : -1;
        if (!__any_sync(TM_ALL_LANES, token >= 0)) continue;
        const int64_t at = token >= 0 ? cache.row(token) : -1;
        float scores[2][4];
#pragma unroll
        for (int n = 0; n < 2; ++n) {  // eight tokens
            const int64_t from = __shfl_sync(TM_ALL_LANES, at, 8 * n + row);
            scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0.f;
#pragma unroll
            for (int s = 0; s < kSlices; ++s) {
                const uint4 key = from >= 0 ? load_chunk(cache.keys + from + 32 * s + 8 * pair) : nothing;
                mma(static_cast<E*>(nullptr), scores[n], {q[s][0].x, q[s][1].x, q[s][0].y, q[s][1].y}, {key.x, key.y});
                mma(static_cast<E*>(nullptr), scores[n], {q[s][0].z, q[s][1].z, q[s][0].w, q[s][1].w}, {key.z, key.w});
            }
        }
        float top[2] = {state.max[0], state.max[1]};
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                const int slot = 8 * n + 2 * pair + c, there = __shfl_sync(TM_ALL_LANES, token, slot);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const bool seen = there >= 0 && visible(row + 8 * half, base + slot, there);
                    scores[n][2 * half + c] = seen ? scores[n][2 * half + c] * factor : negative_infinity();
                    top[half] = fmaxf(top[half], scores[n][2 * half + c]);
                }
            }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            top[half] = fmaxf(top[half], __shfl_xor_sync(TM_ALL_LANES, top[half], 1));
            top[half] = fmaxf(top[half], __shfl_xor_sync(TM_ALL_LANES, top[half], 2));
            state.rescale(half, fast_exp2(state.max[half] - finite_or_zero(top[half])));
            state.max[half] = top[half];
        }
        uint32_t weights[4];
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float first = fast_exp2(scores[n][2 * half] - finite_or_zero(top[half]));
                const float second = fast_exp2(scores[n][2 * half + 1] - finite_or_zero(top[half]));
                state.sum[half] += first + second;
                weights[2 * n + half] = pack_pair(static_cast<E*>(nullptr), first, second);
            }
        int64_t from[4];  // the tokens whose weights this lane holds
#pragma unroll
        for (int i = 0; i < 4; ++i) from[i] = __shfl_sync(TM_ALL_LANES, at, 8 * (i >> 1) + 2 * pair + (i & 1));
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
            uint4 value[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) value[i] = from[i] >= 0 ? load_chunk(cache.values + from[i] + 64 * b + 8 * row) : nothing;
#pragma unroll
            for (int t = 0; t < 8; ++t) {
                const uint32_t halves = t & 1 ? 0x7632u : 0x5410u;
                mma(static_cast<E*>(nullptr), state.values[8 * b + t], weights,
                    {__byte_perm(chunk_word(value[0], t / 2), chunk_word(value[1], t / 2), halves),
                     __byte_perm(chunk_word(value[2], t / 2), chunk_word(value[3], t / 2), halves)});
            }
        }
    }
}

// Adds up what the four lanes of a row have seen of its weights: once, when all tokens are done.
template <int kDim> __device__ __forceinline__ void finish_sums(TensorState<kDim>& state) {
#pragma unroll
    for (int half = 0; half < 2; ++half) state.sum[half] = lanes_sum<4>(state.sum[half]);
}

// write(row, channel, 4 values) for each of this lane's channels, write_lse(row, lse) once per row. A row that saw nothing: 0 and -inf.
template <int kDim, class Write, class WriteLse>
__device__ __forceinline__ void write_rows(const TensorState<kDim>& state, Write write, WriteLse write_lse) {
    const int first = lane_index() >> 2, pair = lane_index() & 3;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = first + 8 * half;
        const bool empty = state.sum[half] == 0.f;  // false for NaN, which must come through
        const float inverse = empty ? 0.f : 1.f / state.sum[half];
        if (pair == 0) write_lse(row, empty ? negative_infinity() : (state.max[half] + log2f(state.sum[half])) * kLn2);
#pragma unroll
        for (int b = 0; b < kDim / 64; ++b)
#pragma unroll
            for (int c = 0; c < 2; ++c)
#pragma unroll
                for (int t = 0; t < 8; t += 4) {
                    float four[4];
#pragma unroll
                    for (int j = 0; j < 4; ++j) four[j] = state.values[8 * b + t + j][2 * half + c] * inverse;
                    write(row, 64 * b + 16 * pair + 8 * c + t, four);
                }
    }
}

// The same into float32 arrays [rows, kDim] and [rows].
template <int kRows, int kDim> __device__ __forceinline__ void write_partial(const TensorState<kDim>& state, float* out, float* lse) {
    write_rows(
        state,
        [out](int row, int channel, const float* x) {
            if (row < kRows) *reinterpret_cast<float4*>(out + row * kDim + channel) = make_float4(x[0], x[1], x[2], x[3]);
        },
        [lse](int row, float x) {
            if (row < kRows) lse[row] = x;
        });
}

// Four warps that attended with the same rows to different tokens: all states go into the first warp's, half of them at a time.
template <int kDim> struct TensorShared {
    float max[2][16], sum[2][16], values[2][32][kDim / 2 + 1];  // a lane's values in a row of its own, in different banks
};
template <int kDim> __device__ __forceinline__ void merge_warps(TensorState<kDim>& state, TensorShared<kDim>& shared) {
    const int row = lane_index() >> 2;
#pragma unroll
    for (int half_of_warps = 2; half_of_warps; half_of_warps /= 2) {
        const int to = warp_index() - half_of_warps;
        if (to >= 0 && to < half_of_warps) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                if ((lane_index() & 3) == 0) {
                    shared.max[to][row + 8 * half] = state.max[half];
                    shared.sum[to][row + 8 * half] = state.sum[half];
                }
            }
#pragma unroll
            for (int t = 0; t < kDim / 8; ++t)
#pragma unroll
                for (int r = 0; r < 4; ++r) shared.values[to][lane_index()][4 * t + r] = state.values[t][r];
        }
        __syncthreads();
        if (to < 0) {
            const int mine = warp_index();
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float other = shared.max[mine][row + 8 * half], top = fmaxf(state.max[half], other), base = finite_or_zero(top);
                const float theirs = fast_exp2(other - base);
                state.rescale(half, fast_exp2(state.max[half] - base));
                state.max[half] = top;
                state.sum[half] += shared.sum[mine][row + 8 * half] * theirs;
#pragma unroll
                for (int t = 0; t < kDim / 8; ++t)
#pragma unroll
                    for (int c = 0; c < 2; ++c) state.values[t][2 * half + c] += shared.values[mine][lane_index()][4 * t + 2 * half + c] * theirs;
            }
        }
        __syncthreads();
    }
}

}  // namespace tokamask
