//! Eight f32 at a time. Kernels are generic over [`Lanes`] and `#[inline(always)]`; [`dispatch!`] instantiates them with
//! [`Avx2`] inside a function compiled for AVX2, FMA and F16C where the processor has them, else with [`Plain`].
//!
//! # Safety
//! Every method is unsafe for two reasons only: [`Avx2`]'s need a processor with those features (checked once, by
//! [`has_avx2`]), and loads and stores need eight valid elements behind the pointer.

use super::floats::{Bf16, Float, F16};

pub const WIDTH: usize = 8;

/// Eight f32, or eight all-ones / all-zeros words where a comparison made them.
pub trait Lanes: Copy {
    /// Eight pairs of running u64 sums of masses.
    type Counts: Copy;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_bf16(from: *const Bf16) -> Self;
    unsafe fn load_f16(from: *const F16) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * b + c` with one rounding.
    unsafe fn fused(self, b: Self, c: Self) -> Self;
    /// `self * b + c` with one rounding or two, whichever is fast.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self` where it is greater, else `other`: a NaN in `self` gives `other`, a NaN in `other` gives NaN.
    unsafe fn max_or(self, other: Self) -> Self;
    /// To the nearest integer, ties to even.
    unsafe fn round(self) -> Self;
    /// `self * 2^n` by the exponent bits, `n` an integer.
    unsafe fn scale_exponent(self, n: Self) -> Self;
    unsafe fn greater(self, other: Self) -> Self;
    unsafe fn greater_or_equal(self, other: Self) -> Self;
    unsafe fn equal(self, other: Self) -> Self;
    /// `self` where the mask is all ones, 0 elsewhere.
    unsafe fn keep(self, mask: Self) -> Self;
    /// Bits of either. `x.keep(mask).or(y.drop(mask))` instead of `select` where the result is stored back: told that lanes are
    /// all ones or zeros, LLVM makes masked stores of a select, which take twenty cycles each on Zen.
    unsafe fn or(self, other: Self) -> Self;
    /// `self` where the mask is zeros, 0 elsewhere.
    unsafe fn drop(self, mask: Self) -> Self;
    /// Bit i = sign bit of lane i.
    unsafe fn sign_bits(self) -> u32;
    /// All ones in lane i where bit i is set.
    unsafe fn from_bits(bits: u32) -> Self;
    /// `self` where the mask is all ones, `other` elsewhere.
    unsafe fn select(mask: Self, yes: Self, no: Self) -> Self;
    /// `rint(self * 2^40)` of each lane; `self` in [0, 1].
    unsafe fn masses(self) -> [u64; WIDTH];
    /// Truncated to integers.
    unsafe fn to_ints(self) -> [i32; WIDTH];
    unsafe fn max_lane(self) -> f32;
    unsafe fn sum_lanes(self) -> f32;
    unsafe fn no_counts() -> Self::Counts;
    /// Adds `rint(self * 2^40)` lane by lane; `self` in [0, 1].
    unsafe fn count(self, counts: Self::Counts) -> Self::Counts;
    /// The sum of all lanes after `n` calls of `count`.
    unsafe fn total(counts: Self::Counts, n: usize) -> u64;
    /// The sum of the lanes of each of eight, in order.
    unsafe fn sum_each(of: [Self; WIDTH]) -> Self;
    /// Asks for a cache line, into the second level: rows of a cache often lie 4 KiB apart, where the first level has
    /// room for eight. Any address is fine.
    unsafe fn prefetch(at: *const u8);
    /// Packs the lanes whose bit is set to the front; the rest is arbitrary.
    unsafe fn pack(self, bits: u32) -> Self;
}

/// Loads eight elements of a type, or sixteen, and widens them.
pub trait Load: Sized {
    /// Whether the type is bfloat16, of which processors multiply pairs.
    const PAIRS: bool = false;
    /// # Safety
    /// Sixteen elements behind `from`, and a processor with AVX-512F.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_wide(from: *const Self) -> std::arch::x86_64::__m512;
    /// # Safety
    /// Eight elements behind `from`, and the processor features of `L`.
    unsafe fn load<L: Lanes>(from: *const Self) -> L;
}

impl Load for f32 {
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_wide(from: *const Self) -> std::arch::x86_64::__m512 {
        // SAFETY: the caller's promise is the same.
        unsafe { std::arch::x86_64::_mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's promise is the same.
        unsafe { L::load(from) }
    }
}
impl Load for Bf16 {
    const PAIRS: bool = true;
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_wide(from: *const Self) -> std::arch::x86_64::__m512 {
        // SAFETY: the caller's promise is the same.
        unsafe {
            use std::arch::x86_64::{_mm256_loadu_si256 as load, _mm512_castsi512_ps as floats};
            use std::arch::x86_64::{_mm512_cvtepu16_epi32 as widen, _mm512_slli_epi32 as shift};
            floats(shift::<16>(widen(load(from.cast()))))
        }
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's promise is the same.
        unsafe { L::load_bf16(from) }
    }
}
impl Load for F16 {
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_wide(from: *const Self) -> std::arch::x86_64::__m512 {
        // SAFETY: the caller's promise is the same.
        unsafe { std::arch::x86_64::_mm512_cvtph_ps(std::arch::x86_64::_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L {
        // SAFETY: the caller's promise is the same.
        unsafe { L::load_f16(from) }
    }
}

const TWO_40: f64 = (1u64 << 40) as f64;
const TWO_52: f64 = (1u64 << 52) as f64;

/// Plain arrays: what runs where AVX2 is absent.
#[derive(Clone, Copy)]
pub struct Plain([f32; WIDTH]);

impl Plain {
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
    fn test(self, other: Self, f: impl Fn(f32, f32) -> bool) -> Self {
        self.zip(other, |a, b| f32::from_bits(if f(a, b) { u32::MAX } else { 0 }))
    }
}

// SAFETY (all unsafe blocks below): the caller promises eight elements behind the pointer.
impl Lanes for Plain {
    type Counts = [u64; WIDTH];
    unsafe fn splat(x: f32) -> Self {
        Self([x; WIDTH])
    }
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { from.cast::<[f32; WIDTH]>().read_unaligned() })
    }
    unsafe fn load_bf16(from: *const Bf16) -> Self {
        // SAFETY: see above.
        Self(unsafe { from.cast::<[Bf16; WIDTH]>().read_unaligned() }.map(Float::widen))
    }
    unsafe fn load_f16(from: *const F16) -> Self {
        // SAFETY: see above.
        Self(unsafe { from.cast::<[F16; WIDTH]>().read_unaligned() }.map(Float::widen))
    }
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { to.cast::<[f32; WIDTH]>().write_unaligned(self.0) }
    }
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    unsafe fn fused(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
    unsafe fn max_or(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    unsafe fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }
    unsafe fn scale_exponent(self, n: Self) -> Self {
        self.zip(n, |p, n| f32::from_bits(p.to_bits().wrapping_add((n as i32 as u32) << 23)))
    }
    unsafe fn greater(self, other: Self) -> Self {
        self.test(other, |a, b| a > b)
    }
    unsafe fn greater_or_equal(self, other: Self) -> Self {
        self.test(other, |a, b| a >= b)
    }
    #[allow(clippy::float_cmp)] // exact by definition
    unsafe fn equal(self, other: Self) -> Self {
        self.test(other, |a, b| a == b)
    }
    unsafe fn keep(self, mask: Self) -> Self {
        self.zip(mask, |a, m| f32::from_bits(a.to_bits() & m.to_bits()))
    }
    unsafe fn or(self, other: Self) -> Self {
        self.zip(other, |a, b| f32::from_bits(a.to_bits() | b.to_bits()))
    }
    unsafe fn drop(self, mask: Self) -> Self {
        self.zip(mask, |a, m| f32::from_bits(a.to_bits() & !m.to_bits()))
    }
    unsafe fn sign_bits(self) -> u32 {
        self.0.iter().enumerate().fold(0, |bits, (i, x)| bits | (x.to_bits() >> 31) << i)
    }
    unsafe fn from_bits(bits: u32) -> Self {
        Self(std::array::from_fn(|i| f32::from_bits(0u32.wrapping_sub(bits >> i & 1))))
    }
    unsafe fn select(mask: Self, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|i| if mask.0[i].to_bits() == 0 { no.0[i] } else { yes.0[i] }))
    }
    unsafe fn masses(self) -> [u64; WIDTH] {
        self.0.map(super::exp2::to_mass)
    }
    unsafe fn to_ints(self) -> [i32; WIDTH] {
        self.0.map(|x| x as i32)
    }
    unsafe fn max_lane(self) -> f32 {
        self.0.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }
    unsafe fn sum_lanes(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    unsafe fn sum_each(of: [Self; WIDTH]) -> Self {
        Self(of.map(|Self([a, b, c, d, e, f, g, h])| ((a + b) + (c + d)) + ((e + f) + (g + h))))
    }
    unsafe fn no_counts() -> Self::Counts {
        [0; WIDTH]
    }
    unsafe fn count(self, counts: Self::Counts) -> Self::Counts {
        std::array::from_fn(|i| counts[i] + super::exp2::to_mass(self.0[i]))
    }
    unsafe fn total(counts: Self::Counts, _n: usize) -> u64 {
        counts.iter().sum()
    }
    unsafe fn prefetch(_at: *const u8) {}
    unsafe fn pack(self, bits: u32) -> Self {
        let mut packed = [0.0; WIDTH];
        let mut n = 0;
        for (i, x) in self.0.into_iter().enumerate() {
            packed[n] = x;
            n += (bits >> i & 1) as usize;
        }
        Self(packed)
    }
}

/// True where [`Avx2`] may be used.
#[cfg(target_arch = "x86_64")]
pub fn has_avx2() -> bool {
    #[cfg(test)]
    if portable::is_wanted() {
        return false;
    }
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
pub use x86::Avx2;

/// Runs kernels with [`Plain`] on a processor that could do better, to compare.
#[cfg(test)]
pub(crate) mod portable {
    use std::cell::Cell;

    thread_local!(static WANTED: Cell<bool> = const { Cell::new(false) });

    pub fn is_wanted() -> bool {
        WANTED.get()
    }

    /// The result of `run` on both kinds of lanes. Work small enough to stay on this thread only.
    pub fn both<R>(run: impl Fn() -> R) -> [R; 2] {
        let fast = run();
        WANTED.set(true);
        let plain = run();
        WANTED.set(false);
        [fast, plain]
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks)] // one reason for all: the promise in the head of this file
mod x86 {
    #[allow(clippy::wildcard_imports)] // fifty intrinsics
    use std::arch::x86_64::*;

    use super::{Bf16, Lanes, F16, TWO_40, TWO_52, WIDTH};

    /// Eight f32 in one register.
    #[derive(Clone, Copy)]
    pub struct Avx2(__m256);

    /// For each of 256 masks the lanes that are set, in order.
    static PACK: [[i32; WIDTH]; 256] = pack_table();

    const fn pack_table() -> [[i32; WIDTH]; 256] {
        let mut table = [[0; WIDTH]; 256];
        let mut bits = 0;
        while bits < 256 {
            let (mut n, mut lane) = (0, 0);
            while lane < WIDTH {
                if bits >> lane & 1 == 1 {
                    table[bits][n] = lane as i32;
                    n += 1;
                }
                lane += 1;
            }
            bits += 1;
        }
        table
    }

    /// For each of 256 masks all ones in the lanes that are set.
    static MASKS: [[u32; WIDTH]; 256] = mask_table();

    const fn mask_table() -> [[u32; WIDTH]; 256] {
        let mut table = [[0; WIDTH]; 256];
        let mut bits = 0;
        while bits < 256 {
            let mut lane = 0;
            while lane < WIDTH {
                table[bits][lane] = if bits >> lane & 1 == 1 { u32::MAX } else { 0 };
                lane += 1;
            }
            bits += 1;
        }
        table
    }

    impl Lanes for Avx2 {
        type Counts = __m256i;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            Self(unsafe { _mm256_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm256_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const Bf16) -> Self {
            unsafe {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                Self(_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16)))
            }
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const F16) -> Self {
            Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            Self(unsafe { _mm256_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            Self(unsafe { _mm256_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn fused(self, b: Self, c: Self) -> Self {
            Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        unsafe fn max_or(self, other: Self) -> Self {
            Self(unsafe { _mm256_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            Self(unsafe { _mm256_round_ps(self.0, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC) })
        }
        #[inline(always)]
        unsafe fn scale_exponent(self, n: Self) -> Self {
            unsafe {
                let shift = _mm256_slli_epi32(_mm256_cvtps_epi32(n.0), 23);
                Self(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(self.0), shift)))
            }
        }
        #[inline(always)]
        unsafe fn greater(self, other: Self) -> Self {
            Self(unsafe { _mm256_cmp_ps(self.0, other.0, _CMP_GT_OQ) })
        }
        #[inline(always)]
        unsafe fn greater_or_equal(self, other: Self) -> Self {
            Self(unsafe { _mm256_cmp_ps(self.0, other.0, _CMP_GE_OQ) })
        }
        #[inline(always)]
        unsafe fn equal(self, other: Self) -> Self {
            Self(unsafe { _mm256_cmp_ps(self.0, other.0, _CMP_EQ_OQ) })
        }
        #[inline(always)]
        unsafe fn keep(self, mask: Self) -> Self {
            Self(unsafe { _mm256_and_ps(self.0, mask.0) })
        }
        #[inline(always)]
        unsafe fn or(self, other: Self) -> Self {
            Self(unsafe { _mm256_or_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn drop(self, mask: Self) -> Self {
            Self(unsafe { _mm256_andnot_ps(mask.0, self.0) })
        }
        #[inline(always)]
        unsafe fn sign_bits(self) -> u32 {
            unsafe { _mm256_movemask_ps(self.0) as u32 }
        }
        #[inline(always)]
        unsafe fn from_bits(bits: u32) -> Self {
            // A table, not a comparison: see `or`.
            Self(unsafe { _mm256_loadu_ps(MASKS[(bits & 0xFF) as usize].as_ptr().cast()) })
        }
        #[inline(always)]
        unsafe fn select(mask: Self, yes: Self, no: Self) -> Self {
            Self(unsafe { _mm256_blendv_ps(no.0, yes.0, mask.0) })
        }
        #[inline(always)]
        unsafe fn masses(self) -> [u64; WIDTH] {
            let mut out = [0u64; WIDTH];
            unsafe {
                let (scale, magic) = (_mm256_set1_pd(TWO_40), _mm256_set1_pd(TWO_52));
                let low = _mm256_cvtps_pd(_mm256_castps256_ps128(self.0));
                let high = _mm256_cvtps_pd(_mm256_extractf128_ps(self.0, 1));
                let low = _mm256_xor_pd(_mm256_fmadd_pd(low, scale, magic), magic);
                let high = _mm256_xor_pd(_mm256_fmadd_pd(high, scale, magic), magic);
                _mm256_storeu_pd(out.as_mut_ptr().cast(), low);
                _mm256_storeu_pd(out.as_mut_ptr().add(4).cast(), high);
            }
            out
        }
        #[inline(always)]
        unsafe fn to_ints(self) -> [i32; WIDTH] {
            let mut ints = [0; WIDTH];
            unsafe { _mm256_storeu_si256(ints.as_mut_ptr().cast(), _mm256_cvttps_epi32(self.0)) }
            ints
        }
        #[inline(always)]
        unsafe fn max_lane(self) -> f32 {
            unsafe {
                let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps(self.0, 1));
                let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)))
            }
        }
        #[inline(always)]
        unsafe fn sum_lanes(self) -> f32 {
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps(self.0, 1));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)))
            }
        }
        #[inline(always)]
        unsafe fn sum_each(of: [Self; WIDTH]) -> Self {
            unsafe {
                let [Self(a), Self(b), Self(c), Self(d), Self(e), Self(f), Self(g), Self(h)] = of;
                let low = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
                let high = _mm256_hadd_ps(_mm256_hadd_ps(e, f), _mm256_hadd_ps(g, h));
                let left = _mm256_permute2f128_ps(low, high, 0x20);
                Self(_mm256_add_ps(left, _mm256_permute2f128_ps(low, high, 0x31)))
            }
        }
        #[inline(always)]
        unsafe fn no_counts() -> Self::Counts {
            unsafe { _mm256_setzero_si256() }
        }
        #[inline(always)]
        unsafe fn count(self, counts: Self::Counts) -> Self::Counts {
            // Adding 2^52 rounds to an integer and leaves it in the low bits; the exponent bits are taken off by `total`.
            unsafe {
                let (scale, magic) = (_mm256_set1_pd(TWO_40), _mm256_set1_pd(TWO_52));
                let low = _mm256_cvtps_pd(_mm256_castps256_ps128(self.0));
                let high = _mm256_cvtps_pd(_mm256_extractf128_ps(self.0, 1));
                let low = _mm256_castpd_si256(_mm256_fmadd_pd(low, scale, magic));
                let high = _mm256_castpd_si256(_mm256_fmadd_pd(high, scale, magic));
                _mm256_add_epi64(counts, _mm256_add_epi64(low, high))
            }
        }
        #[inline(always)]
        unsafe fn total(counts: Self::Counts, n: usize) -> u64 {
            let mut sums = [0u64; 4];
            unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), counts) }
            let raw = sums.iter().fold(0u64, |a, b| a.wrapping_add(*b));
            raw.wrapping_sub(TWO_52.to_bits().wrapping_mul((n * WIDTH) as u64))
        }
        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            unsafe { _mm_prefetch(at.cast(), _MM_HINT_T1) }
        }
        #[inline(always)]
        unsafe fn pack(self, bits: u32) -> Self {
            unsafe {
                let order = _mm256_loadu_si256(PACK[(bits & 0xFF) as usize].as_ptr().cast());
                Self(_mm256_permutevar8x32_ps(self.0, order))
            }
        }
    }
}

/// `dispatch!(kernel(arguments) -> type)` calls `kernel::<Avx2>` or `kernel::<Plain>`; the kernel is an unsafe
/// `#[inline(always)]` function whose first generic parameter is the lanes.
macro_rules! dispatch {
    ($kernel:ident $(::<$($generic:ident),*>)? ($($name:ident : $type:ty),* $(,)?) $(-> $result:ty)?
     $(where [$($bound:tt)*])?) => {{
        #[cfg(target_arch = "x86_64")]
        if $crate::kernels::lanes::has_avx2() {
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn with_avx2$(<$($bound)*>)?($($name: $type),*) $(-> $result)? {
                // SAFETY: compiled for the features that `Avx2` needs.
                unsafe { $kernel::<$crate::kernels::lanes::Avx2 $($(, $generic)*)?>($($name),*) }
            }
            // SAFETY: the processor has the features.
            return unsafe { with_avx2($($name),*) };
        }
        // SAFETY: plain lanes need no processor feature.
        unsafe { $kernel::<$crate::kernels::lanes::Plain $($(, $generic)*)?>($($name),*) }
    }};
}
pub(crate) use dispatch;
