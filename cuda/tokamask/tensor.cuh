// Tensor cores and asynchronous copies (sm_80 and later). The emulator of the tests gives each wrapper a second body.
#pragma once
#include "element.cuh"

namespace tokamask {

// d[16,8] += a[16,16] b[16,8] over a warp, fragments as the PTX ISA lays out m16n8k16 (row.col): with row = lane / 4 and
// pair = lane % 4, a[r] holds rows row + 8 (r & 1), columns 2 pair + 8 (r >> 1) and the next; b[r] holds rows 2 pair + 8 r and
// the next of column row; d[r] is row row + 8 (r >> 1), column 2 pair + (r & 1).
__device__ __forceinline__ void mma(bf16*, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(TM_EMULATED)
    emu::mma_16816(d, a, b, true, __LINE__);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
__device__ __forceinline__ void mma(f16*, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(TM_EMULATED)
    emu::mma_16816(d, a, b, false, __LINE__);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Two floats to nearest as one register: `low` in the lower half.
__device__ __forceinline__ uint32_t pack_pair(bf16*, float low, float high) {
#if defined(TM_EMULATED)
    return uint32_t(float_to_bfloat_bits(high)) << 16 | float_to_bfloat_bits(low);
#else
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}
__device__ __forceinline__ uint32_t pack_pair(f16*, float low, float high) {
#if defined(TM_EMULATED)
    return uint32_t(float_to_half_bits(high)) << 16 | float_to_half_bits(low);
#else
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

// Copies 16 bytes to shared memory past the registers; zeros where !valid. Visible to this thread after async_wait, to
// others after a barrier behind it.
__device__ __forceinline__ void async_copy16(void* target, const void* source, bool valid) {
#if defined(TM_EMULATED)
    emu::async_copy(target, source, 16, valid ? 16 : 0);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(unsigned(__cvta_generic_to_shared(target))), "l"(source),
                 "r"(valid ? 16 : 0)
                 : "memory");
#endif
}
__device__ __forceinline__ void async_commit() {
#if defined(TM_EMULATED)
    emu::async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most `Pending` of this thread's groups are still under way.
template <int Pending> __device__ __forceinline__ void async_wait() {
#if defined(TM_EMULATED)
    emu::async_wait(Pending);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

}  // namespace tokamask
