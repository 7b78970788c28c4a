// Kernels that are wrong on purpose, each in one way: the emulator must refuse them all.
#include "../../cuda/tokamask/tensor.cuh"

extern "C" __global__ void divergent_barrier(int* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        out[threadIdx.x] = 1;
        __syncthreads();
    }
}
extern "C" __global__ void lane_left(int* out) {
    if (threadIdx.x == 5) return;
    out[threadIdx.x] = __shfl_xor_sync(TM_ALL_LANES, int(threadIdx.x), 1);
}
extern "C" __global__ void lane_outside_mask(int* out) { out[threadIdx.x] = __shfl_sync(0x0000ffffu, int(threadIdx.x), 0); }
extern "C" __global__ void thread_left(int* out) {
    if (threadIdx.x == 40) return;
    out[threadIdx.x] = 1;
    __syncthreads();
    if (threadIdx.x == 0) __shfl_sync(TM_ALL_LANES, 1, 0);
}
extern "C" __global__ void out_of_bounds(int* out) { out[threadIdx.x + 1] = 1; }
extern "C" __global__ void shared_out_of_bounds(int* out) {
    __shared__ int values[64];
    values[threadIdx.x] = 1;
    __syncthreads();
    const int* neighbour = values + 1;  // a pointer, so that the array's red zone is asked and not its type
    out[threadIdx.x] = neighbour[threadIdx.x];
}
extern "C" __global__ void dynamic_out_of_bounds(int* out) {  // launched with 64 integers
    TM_DYNAMIC_SHARED(int, values);
    values[threadIdx.x + 1] = 1;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x + 1];
}
extern "C" __global__ void signed_overflow(int* out) {
    int x = 0x7fffffff - 32;
    x += int(threadIdx.x);
    out[threadIdx.x] = x;
}
extern "C" __global__ void misaligned_load(int* out) {
    out[threadIdx.x] = int(reinterpret_cast<const uint4*>(out + 1)->x);
}
extern "C" __global__ void missing_syncwarp(int* out) {  // a vote does not order memory
    __shared__ int values[64];
    values[threadIdx.x] = int(threadIdx.x);
    (void)__ballot_sync(TM_ALL_LANES, 1);
    out[threadIdx.x] = values[threadIdx.x ^ 1];
}
extern "C" __global__ void with_syncwarp(int* out) {
    __shared__ int values[64];
    values[threadIdx.x] = int(threadIdx.x);
    __syncwarp();
    out[threadIdx.x] = values[threadIdx.x ^ 1];
}
extern "C" __global__ void missing_syncthreads(int* out) {
    __shared__ int values[64];
    values[threadIdx.x] = int(threadIdx.x);
    out[threadIdx.x] = values[threadIdx.x ^ 32];
}
extern "C" __global__ void shared_never_written(int* out) {
    __shared__ int values[64];
    if (threadIdx.x != 7) values[threadIdx.x] = int(threadIdx.x);
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}
extern "C" __global__ void copy_used_before_its_wait(int* out) {
    __shared__ __align__(16) int values[64];
    if (threadIdx.x < 16) tokamask::async_copy16(values + threadIdx.x * 4, out + threadIdx.x * 4, true);
    tokamask::async_commit();
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
    tokamask::async_wait<0>();
}
extern "C" __global__ void blocks_in_order(int* out) {  // out[0] counts; right only if block b runs as the b-th
    if (threadIdx.x == 0 && out[0] == int(blockIdx.x)) out[0] += 1;
}
