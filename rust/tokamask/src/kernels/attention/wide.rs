//! The inner step with AVX-512: four tokens against four query rows, sixteen elements at a time. Keys of bfloat16 are multiplied as they
//! are where the processor can.
//!
//! Eight lanes reach the same peak on some processors, but spend as much again on loads, widening and sums over lanes: with 2,048 bfloat16
//! rows of 128 spread over a large cache the arithmetic took longer than the memory, and now takes less. What was tried for those rows:
//! asking for whole rows together, for keys and values of one token together 8 or 16 tokens early, or a tile early, and into the first
//! level or past the second, all slower than what [`Ahead`] does.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps as add, _mm512_castpd_ps as singles,
    _mm512_castps_pd as doubles, _mm512_dpbf16_ps as dot_pairs, _mm512_fmadd_ps as fused,
    _mm512_loadu_ps as load, _mm512_loadu_si512 as load_bits, _mm512_mul_ps as mul, _mm512_set1_ps as splat,
    _mm512_setzero_ps as zero, _mm512_shuffle_f32x4 as quarters, _mm512_storeu_ps as store,
    _mm512_unpackhi_pd as high_pairs, _mm512_unpackhi_ps as high, _mm512_unpacklo_pd as low_pairs,
    _mm512_unpacklo_ps as low,
};
use std::ops::Range;

use super::tile::{step_kernel, Ahead, Inner, Queries, Rows, Scratch, Sizes, BLOCK, LINE, TILE};
use crate::kernels::floats::{Bf16, Float};
use crate::kernels::lanes::{has_avx2, Avx2, Lanes};

/// Elements in a register.
const WIDE: usize = 16;

/// Whether steps of these sizes run here on this processor.
pub(super) fn takes(sizes: Sizes) -> bool {
    sizes.head_dim % 32 == 0
        && sizes.v_dim % WIDE == 0
        && has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// # Safety
/// The sizes fit ([`takes`]), and the promise of [`step_kernel`].
pub(super) unsafe fn step<T: Float>(
    queries: &[f32],
    rows: Rows<T>,
    next: Rows<T>,
    states: &mut [f32],
    sizes: Sizes,
    scratch: &mut Scratch,
) {
    // SAFETY: the processor has what each is compiled for; the rest is the caller's promise.
    unsafe {
        if T::PAIRS && is_x86_feature_detected!("avx512bf16") {
            with_pairs(queries, rows, next, states, sizes, scratch);
        } else {
            without_pairs(queries, rows, next, states, sizes, scratch);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn without_pairs<T: Float>(
    queries: &[f32],
    rows: Rows<T>,
    next: Rows<T>,
    states: &mut [f32],
    sizes: Sizes,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller's promise is the same.
    unsafe { step_kernel::<Wide<false>, T>(queries, rows, next, states, sizes, scratch) }
}

#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn with_pairs<T: Float>(
    queries: &[f32],
    rows: Rows<T>,
    next: Rows<T>,
    states: &mut [f32],
    sizes: Sizes,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller's promise is the same.
    unsafe { step_kernel::<Wide<true>, T>(queries, rows, next, states, sizes, scratch) }
}

/// Sixteen lanes.
struct Wide<const PAIRS: bool>;

impl<const PAIRS: bool> Inner for Wide<PAIRS> {
    type L = Avx2;
    const TOGETHER: usize = 4;
    const PAIRS: bool = PAIRS;

    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // counted loops: iterators over arrays of vectors are not unrolled
    unsafe fn score<T: Float, const N: usize, const AHEAD: bool>(
        q: Queries,
        rows: &Rows<T>,
        head: usize,
        tokens: Range<usize>,
        ahead: &Ahead<T>,
        head_dim: usize,
        out: *mut f32,
    ) {
        let data = rows.key_data.as_ptr().wrapping_add(rows.key_shift + head * rows.key_stride);
        let line = LINE / size_of::<T>();
        for i in tokens.clone().step_by(4) {
            let token: [usize; 4] = std::array::from_fn(|c| (i + c).min(tokens.end - 1));
            let asked = token.map(|t| ahead.scored[t].wrapping_add(head * ahead.scored_stride));
            // SAFETY: rows lie in the data, queries have N rows of head_dim, a multiple of 32, and TILE is a multiple of four.
            unsafe {
                let keys = token.map(|t| data.wrapping_add(*rows.keys.get_unchecked(t)));
                let mut sums = [[zero(); 4]; BLOCK];
                for at in (0..head_dim).step_by(line) {
                    if AHEAD {
                        for c in 0..4 {
                            Avx2::prefetch(asked[c].wrapping_add(at).cast());
                        }
                    }
                    if PAIRS && T::PAIRS {
                        let mut key = [load_pairs(keys[0].add(at).cast()); 4];
                        for c in 1..4 {
                            key[c] = load_pairs(keys[c].add(at).cast());
                        }
                        for r in 0..N {
                            let x = load_pairs(q.brief.add(r * head_dim + at));
                            for c in 0..4 {
                                sums[r][c] = dot_pairs(sums[r][c], x, key[c]);
                            }
                        }
                        continue;
                    }
                    for at in (at..at + line).step_by(WIDE) {
                        let mut key = [zero(); 4];
                        for c in 0..4 {
                            key[c] = T::load_wide(keys[c].add(at));
                        }
                        for r in 0..N {
                            let x = load(q.whole.add(r * head_dim + at));
                            for c in 0..4 {
                                sums[r][c] = fused(x, key[c], sums[r][c]);
                            }
                        }
                    }
                }
                let mut dots = [0.0; 4 * BLOCK];
                store(dots.as_mut_ptr(), sum_each(&sums));
                for (r, dots) in dots.chunks_exact(4).take(N).enumerate() {
                    out.add(r * TILE + i).copy_from_nonoverlapping(dots.as_ptr(), 4);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn accumulate<T: Float, const N: usize, const AHEAD: bool>(
        weights: *const f32,
        fade: *const f32,
        rows: &Rows<T>,
        head: usize,
        tokens: Range<usize>,
        ahead: &Ahead<T>,
        v_dim: usize,
        sums: *mut f32,
    ) {
        let data = rows.value_data.as_ptr().wrapping_add(rows.value_shift + head * rows.value_stride);
        let columns = Columns { weights, fade, rows, data, head, ahead, v_dim };
        let mut at = 0;
        // SAFETY: v_dim is a multiple of 16; the rest is the caller's promise.
        unsafe {
            // 64 columns of four rows stay in sixteen registers while all values pass by.
            while at + 4 * WIDE <= v_dim {
                columns.add::<N, 4, AHEAD>(at, tokens.clone(), sums);
                at += 4 * WIDE;
            }
            while at < v_dim {
                columns.add::<N, 1, AHEAD>(at, tokens.clone(), sums);
                at += WIDE;
            }
        }
    }
}

/// The arguments of `accumulate`.
struct Columns<'a, T> {
    weights: *const f32,
    fade: *const f32,
    rows: &'a Rows<'a, T>,
    data: *const T,
    head: usize,
    ahead: &'a Ahead<T>,
    v_dim: usize,
}

impl<T: Float> Columns<'_, T> {
    /// The `16 C` columns from `at`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // see above
    unsafe fn add<const N: usize, const C: usize, const AHEAD: bool>(
        &self,
        at: usize,
        tokens: Range<usize>,
        sums: *mut f32,
    ) {
        let line = LINE / size_of::<T>();
        // SAFETY: rows lie in the data and sums have N rows of v_dim, by the caller's promise.
        unsafe {
            let mut sum = [[zero(); C]; N];
            for r in 0..N {
                let fade = splat(if tokens.start == 0 { *self.fade.add(r) } else { 1.0 });
                for c in 0..C {
                    sum[r][c] = mul(load(sums.add(r * self.v_dim + at + c * WIDE)), fade);
                }
            }
            for i in tokens {
                if AHEAD {
                    let asked =
                        self.ahead.summed.get_unchecked(i).wrapping_add(self.head * self.ahead.summed_stride);
                    for at in (at..at + C * WIDE).step_by(line) {
                        if at % line == 0 {
                            Avx2::prefetch(asked.wrapping_add(at).cast());
                        }
                    }
                }
                let row = self.data.wrapping_add(*self.rows.values.get_unchecked(i) + at);
                let mut value = [zero(); C];
                for c in 0..C {
                    value[c] = T::load_wide(row.add(c * WIDE));
                }
                for r in 0..N {
                    let w = splat(*self.weights.add(r * TILE + i));
                    for c in 0..C {
                        sum[r][c] = fused(w, value[c], sum[r][c]);
                    }
                }
            }
            for r in 0..N {
                for c in 0..C {
                    store(sums.add(r * self.v_dim + at + c * WIDE), sum[r][c]);
                }
            }
        }
    }
}

/// 32 elements of bfloat16.
#[inline(always)]
unsafe fn load_pairs(from: *const Bf16) -> __m512bh {
    // SAFETY: the caller has the elements and the features; the types are of one size, and any bits will do.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(load_bits(from.cast())) }
}

/// The sum of the lanes of each of sixteen, in order.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // see above; closures would not be compiled for the features
unsafe fn sum_each(of: &[[__m512; 4]; 4]) -> __m512 {
    // SAFETY: the caller has the features.
    unsafe {
        let mut four = [zero(); 4];
        for r in 0..4 {
            let [a, b, c, d] = of[r];
            let (ab, cd) = (add(low(a, b), high(a, b)), add(low(c, d), high(c, d)));
            let (ab, cd) = (doubles(ab), doubles(cd));
            // Each quarter: a, b, c, d summed over the quarter.
            four[r] = add(singles(low_pairs(ab, cd)), singles(high_pairs(ab, cd)));
        }
        let [a, b, c, d] = four;
        let ab = add(quarters::<0x88>(a, b), quarters::<0xDD>(a, b));
        let cd = add(quarters::<0x88>(c, d), quarters::<0xDD>(c, d));
        add(quarters::<0x88>(ab, cd), quarters::<0xDD>(ab, cd))
    }
}
