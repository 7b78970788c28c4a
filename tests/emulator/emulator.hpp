// Compile a .cu file with g++ and run it on the CPU, for tests: no GPU, driver, toolkit or CUDA header is needed.
// A generated C++ file includes this header, then the .cu, then one EMU_EXPORT per kernel. See README.md for what
// is covered and what is not. Here: the CUDA names, and the bodies behind the wrappers of cuda/tokamask/*.cuh.
#pragma once
#include <cmath>

#include "grid.hpp"

#define TM_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

#define threadIdx (emu::thread_index())
#define blockIdx (emu::block_index())
#define blockDim (emu::block_dim())
#define gridDim (emu::grid_dim())
static constexpr int warpSize = 32;

#define __syncthreads() ((void)emu::barrier(__LINE__, 0, "__syncthreads"))
#define __syncthreads_count(p) (emu::barrier(__LINE__, (p) ? 1u : 0u, "__syncthreads_count"))
#define __syncthreads_or(p) (emu::barrier(__LINE__, (p) ? 1u : 0u, "__syncthreads_or") != 0)
#define __syncthreads_and(p) (emu::barrier(__LINE__, (p) ? 0u : 1u, "__syncthreads_and") == 0)
static inline unsigned emu_mask(unsigned mask = 0xffffffffu) { return mask; }
#define __syncwarp(...) emu::sync_warp(emu_mask(__VA_ARGS__), __LINE__)
#define __shfl_sync(m, v, from) emu::shuffle(m, v, unsigned(from) & 31u, __LINE__, "__shfl_sync")
#define __shfl_xor_sync(m, v, x) emu::shuffle(m, v, (emu::lane() ^ unsigned(x)) & 31u, __LINE__, "__shfl_xor_sync")
#define __shfl_up_sync(m, v, d) \
    emu::shuffle(m, v, emu::lane() < unsigned(d) ? emu::lane() : emu::lane() - unsigned(d), __LINE__, "__shfl_up_sync")
#define __shfl_down_sync(m, v, d) \
    emu::shuffle(m, v, emu::lane() + unsigned(d) > 31 ? emu::lane() : emu::lane() + unsigned(d), __LINE__, "__shfl_down_sync")
#define __ballot_sync(m, p) emu::ballot(m, (p) ? 1u : 0u, __LINE__, "__ballot_sync")
#define __any_sync(m, p) (emu::ballot(m, (p) ? 1u : 0u, __LINE__, "__any_sync") != 0)
#define __all_sync(m, p) (emu::ballot(m, (p) ? 0u : 1u, __LINE__, "__all_sync") == 0)

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; ++i) r |= (x >> i & 1u) << (31 - i);
    return r;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {  // nibbles 0 to 7 only, as PTX's prmt without sign copies
    const unsigned long long both = (unsigned long long)y << 32 | x;
    unsigned r = 0;
    for (int i = 0; i < 4; ++i) r |= unsigned(both >> (selector >> 4 * i & 7u) * 8 & 0xffu) << 8 * i;
    return r;
}
static inline float __int_as_float(int x) { float f; memcpy(&f, &x, 4); return f; }
static inline float __uint_as_float(unsigned x) { float f; memcpy(&f, &x, 4); return f; }
static inline unsigned __float_as_uint(float f) { unsigned x; memcpy(&x, &f, 4); return x; }
static inline int __float_as_int(float f) { int x; memcpy(&x, &f, 4); return x; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)((unsigned __int128)a * b >> 64); }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
template <class T> static inline T __ldg(const T* p) { return *p; }
using std::max;
using std::min;

// Over-approximates (a fence orders with every other fence): may hide a race, never invents one.
static inline void __threadfence() { emu::acquire(&emu::S.fence_sync); emu::release(&emu::S.fence_sync); }
static inline void __threadfence_block() { __threadfence(); }

template <class T> static inline T emu_update(T* p, T value, T (*op)(T, T)) {
    using U = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
    static_assert(sizeof(T) == sizeof(U));
    U old = __atomic_load_n(reinterpret_cast<U*>(p), __ATOMIC_RELAXED), wanted;
    T before, after;
    do {
        memcpy(&before, &old, sizeof before);
        after = op(before, value);
        memcpy(&wanted, &after, sizeof after);
    } while (!__atomic_compare_exchange_n(reinterpret_cast<U*>(p), &old, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}
template <class T> static inline T atomicAdd(T* p, std::type_identity_t<T> v) { return emu_update<T>(p, v, [](T a, T b) { return T(a + b); }); }
template <class T> static inline T atomicMax(T* p, std::type_identity_t<T> v) { return emu_update<T>(p, v, [](T a, T b) { return a > b ? a : b; }); }
template <class T> static inline T atomicMin(T* p, std::type_identity_t<T> v) { return emu_update<T>(p, v, [](T a, T b) { return a < b ? a : b; }); }
template <class T> static inline T atomicOr(T* p, std::type_identity_t<T> v) { return emu_update<T>(p, v, [](T a, T b) { return T(a | b); }); }
template <class T> static inline T atomicAnd(T* p, std::type_identity_t<T> v) { return emu_update<T>(p, v, [](T a, T b) { return T(a & b); }); }
template <class T> static inline T atomicExch(T* p, std::type_identity_t<T> v) { return emu_update<T>(p, v, [](T, T b) { return b; }); }

// ------------------------------------------------------------------- bodies of the wrappers in cuda/tokamask/*.cuh
namespace emu {
inline float half_to_float(uint16_t bits) { _Float16 h; memcpy(&h, &bits, 2); return float(h); }
inline uint16_t float_to_half(float f) { const _Float16 h = _Float16(f); uint16_t bits; memcpy(&bits, &h, 2); return bits; }
inline float bfloat_to_float(uint16_t bits) { return __uint_as_float(unsigned(bits) << 16); }

// mma.sync.aligned.m16n8k16.row.col with the fragment layout of the PTX ISA; products are exact, sums are in float.
struct Mma { const uint32_t *a, *b; float* d; bool bf16; };
inline float element(uint32_t pair, int high, bool bf16) {
    const uint16_t bits = uint16_t(high ? pair >> 16 : pair);
    return bf16 ? bfloat_to_float(bits) : half_to_float(bits);
}
inline void mma_16816(float* d, const uint32_t* a, const uint32_t* b, bool bf16, int line) {
    Mma payload{a, b, d, bf16};
    collective(0xffffffffu, payload, [](Mma** lanes, uint32_t) {
        float A[16][16], B[16][8];
        const bool bf = lanes[0]->bf16;
        for (int l = 0; l < 32; ++l) {
            const int row = l >> 2, column = (l & 3) * 2;
            for (int r = 0; r < 4; ++r)
                for (int h = 0; h < 2; ++h) A[row + 8 * (r & 1)][column + h + 8 * (r >> 1)] = element(lanes[l]->a[r], h, bf);
            for (int r = 0; r < 2; ++r)
                for (int h = 0; h < 2; ++h) B[column + h + 8 * r][row] = element(lanes[l]->b[r], h, bf);
        }
        for (int l = 0; l < 32; ++l)
            for (int r = 0; r < 4; ++r) {
                const int i = (l >> 2) + 8 * (r >> 1), j = (l & 3) * 2 + (r & 1);
                float sum = lanes[l]->d[r];
                for (int k = 0; k < 16; ++k) sum += A[i][k] * B[k][j];
                lanes[l]->d[r] = sum;
            }
    }, line, "mma", false);
}

// cp.async: carried out at the wait, not at the issue, so that data used too early is wrong.
inline void async_copy(void* target, const void* source, unsigned bytes, unsigned valid) {
    if ((uintptr_t(target) | uintptr_t(source)) % bytes) die("cp.async of %u bytes: misaligned address", bytes);
    Quiet quiet;
    S.current->open_copies.push_back({target, source, bytes, valid});
}
inline void async_commit() {
    Quiet quiet;
    S.current->copy_groups.push_back(std::move(S.current->open_copies));
    S.current->open_copies.clear();
}
inline void async_wait(size_t keep) {
    for (;;) {
        std::vector<AsyncCopy> now;
        {
            Quiet quiet;
            auto& groups = S.current->copy_groups;
            if (groups.size() <= keep) return;
            now = std::move(groups.front());
            groups.erase(groups.begin());
        }
        for (auto& copy : now) {  // this is the kernel's traffic, seen by the sanitizers
            memcpy(copy.target, copy.source, copy.valid);
            memset(static_cast<char*>(copy.target) + copy.valid, 0, copy.bytes - copy.valid);
        }
    }
}
}  // namespace emu
