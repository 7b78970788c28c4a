// The query of FASA's first stage: the dominant frequency chunks of RoPE, two channels each.
//
// fasa_query_mask: q [rows, head_dim] ELEMENT with all other channels set to 0: for scores against the whole cache.
// fasa_query_gather: the channels alone, [rows, 2 * n_chunks], first and second of each pair apart: for a side cache of the same order.
// dominant [num_kv_heads, n_chunks] int32; row r belongs to KV head r / group % num_kv_heads. Chunk i is channels (i, i + head_dim / 2), or
// (2 i, 2 i + 1) if interleaved. grid (rows), block 128.
#include "tokamask/element.cuh"

namespace {
using namespace tokamask;
__device__ __forceinline__ int channel(int chunk, int second, int head_dim, int interleaved) {
    return interleaved ? 2 * chunk + second : chunk + second * (head_dim / 2);
}
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 8)
fasa_query_mask(const ELEMENT* q, const int32_t* dominant, ELEMENT* out, int32_t head_dim, int32_t n_chunks, int32_t group,
                int32_t num_kv_heads, int32_t interleaved) {
    const int64_t row = blockIdx.x;
    const int32_t* chunks = dominant + row / group % num_kv_heads * n_chunks;
    for (int d = threadIdx.x; d < head_dim; d += 128) store(out + row * head_dim + d, 0.f);
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * n_chunks; i += 128) {
        const int64_t at = row * head_dim + channel(chunks[i % n_chunks], i / n_chunks, head_dim, interleaved);
        out[at] = q[at];
    }
}

extern "C" __global__ void __launch_bounds__(128, 8)
fasa_query_gather(const ELEMENT* q, const int32_t* dominant, ELEMENT* out, int32_t head_dim, int32_t n_chunks, int32_t group,
                  int32_t num_kv_heads, int32_t interleaved) {
    const int64_t row = blockIdx.x;
    const int32_t* chunks = dominant + row / group % num_kv_heads * n_chunks;
    for (int i = threadIdx.x; i < 2 * n_chunks; i += 128)
        out[row * 2 * n_chunks + i] = q[row * head_dim + channel(chunks[i % n_chunks], i / n_chunks, head_dim, interleaved)];
}
