//! The steps of a [lane](super::lanes) that touch all its keys, by what the processor has. Written out: what the
//! optimiser makes of the portable form depends on how much it inlines, and one key that is stored alone before all are
//! loaded stalls the load.

use super::NONE;

/// What the last turn of a lane leaves to do.
#[derive(Clone, Copy)]
pub struct Changes {
    /// Keys that are new.
    pub keys: [u32; 2],
    /// Where they stand; the second wins.
    pub at: [u32; 2],
    /// The key that goes.
    pub dead: u32,
}

/// The steps.
pub trait Vectors {
    /// Makes the changes; the least key then.
    fn least<const C: usize>(keys: &mut [u32; C], changes: Changes) -> u32;

    /// The slot of a line that begins with this key, or 0.
    fn find(line: &[u64; 8], key: u64) -> u64;
}

/// On any processor.
pub struct Portable;

impl Vectors for Portable {
    #[inline(always)]
    fn least<const C: usize>(keys: &mut [u32; C], changes: Changes) -> u32 {
        let mut least = NONE;
        for (at, key) in keys.iter_mut().enumerate() {
            let at = at as u32;
            *key = if at == changes.at[0] { changes.keys[0] } else { *key };
            *key = if at == changes.at[1] { changes.keys[1] } else { *key };
            *key = if at == changes.dead { NONE } else { *key };
            least = least.min(*key);
        }
        least
    }

    #[inline(always)]
    fn find(line: &[u64; 8], key: u64) -> u64 {
        let mut found = 0;
        for &slot in line {
            found |= if slot >> 22 == key { slot } else { 0 };
        }
        found
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm256_add_epi32, _mm256_and_si256, _mm256_blendv_epi8, _mm256_castsi256_si128, _mm256_cmpeq_epi32,
        _mm256_cmpeq_epi64, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_min_epu32, _mm256_or_si256,
        _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setr_epi32, _mm256_srli_epi64, _mm256_storeu_si256,
        _mm512_add_epi32, _mm512_castsi512_si128, _mm512_cmpeq_epi32_mask, _mm512_cmpeq_epi64_mask,
        _mm512_loadu_si512, _mm512_mask_mov_epi32, _mm512_maskz_compress_epi64, _mm512_min_epu32,
        _mm512_reduce_min_epu32, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setr_epi32, _mm512_srli_epi64,
        _mm512_storeu_si512, _mm_cvtsi128_si32, _mm_cvtsi128_si64, _mm_min_epu32, _mm_or_si128,
        _mm_shuffle_epi32,
    };

    use super::{Changes, Vectors};
    use crate::bpe::NONE;

    /// Eight keys at once; to be used where AVX2 was detected.
    pub struct Avx2;

    /// Sixteen keys at once; to be used where AVX-512 was detected.
    pub struct Avx512;

    impl Vectors for Avx2 {
        #[inline(always)]
        fn least<const C: usize>(keys: &mut [u32; C], changes: Changes) -> u32 {
            // SAFETY: who names this type has detected the features.
            unsafe { least_avx2(keys, changes) }
        }

        #[inline(always)]
        fn find(line: &[u64; 8], key: u64) -> u64 {
            // SAFETY: as above.
            unsafe { find_avx2(line, key) }
        }
    }

    impl Vectors for Avx512 {
        #[inline(always)]
        fn least<const C: usize>(keys: &mut [u32; C], changes: Changes) -> u32 {
            // SAFETY: as above.
            unsafe { least_avx512(keys, changes) }
        }

        #[inline(always)]
        fn find(line: &[u64; 8], key: u64) -> u64 {
            // SAFETY: as above.
            unsafe { find_avx512(line, key) }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn least_avx2<const C: usize>(keys: &mut [u32; C], changes: Changes) -> u32 {
        let at = [_mm256_set1_epi32(changes.at[0] as i32), _mm256_set1_epi32(changes.at[1] as i32)];
        let new = [_mm256_set1_epi32(changes.keys[0] as i32), _mm256_set1_epi32(changes.keys[1] as i32)];
        let (dead, none) = (_mm256_set1_epi32(changes.dead as i32), _mm256_set1_epi32(NONE as i32));
        let mut here = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let mut least = none;
        for block in keys.chunks_exact_mut(8) {
            let place = block.as_mut_ptr();
            // SAFETY: a block has eight keys; neither asks for an alignment.
            let mut keys = unsafe { _mm256_loadu_si256(place.cast()) };
            keys = _mm256_blendv_epi8(keys, new[0], _mm256_cmpeq_epi32(here, at[0]));
            keys = _mm256_blendv_epi8(keys, new[1], _mm256_cmpeq_epi32(here, at[1]));
            keys = _mm256_or_si256(keys, _mm256_and_si256(none, _mm256_cmpeq_epi32(here, dead)));
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(place.cast(), keys) };
            least = _mm256_min_epu32(least, keys);
            here = _mm256_add_epi32(here, _mm256_set1_epi32(8));
        }
        let four = _mm_min_epu32(_mm256_castsi256_si128(least), _mm256_extracti128_si256::<1>(least));
        let two = _mm_min_epu32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_min_epu32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two))) as u32
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn find_avx2(line: &[u64; 8], key: u64) -> u64 {
        let key = _mm256_set1_epi64x(key as i64);
        let (low, high) = (line.as_ptr(), line[4..].as_ptr());
        // SAFETY: a line is eight words; the loads ask for no alignment.
        let (low, high) = unsafe { (_mm256_loadu_si256(low.cast()), _mm256_loadu_si256(high.cast())) };
        let low = _mm256_and_si256(low, _mm256_cmpeq_epi64(_mm256_srli_epi64::<22>(low), key));
        let high = _mm256_and_si256(high, _mm256_cmpeq_epi64(_mm256_srli_epi64::<22>(high), key));
        let four = _mm256_or_si256(low, high);
        let two = _mm_or_si128(_mm256_castsi256_si128(four), _mm256_extracti128_si256::<1>(four));
        _mm_cvtsi128_si64(_mm_or_si128(two, _mm_shuffle_epi32::<0b01_00_11_10>(two))) as u64
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn least_avx512<const C: usize>(keys: &mut [u32; C], changes: Changes) -> u32 {
        let at = [_mm512_set1_epi32(changes.at[0] as i32), _mm512_set1_epi32(changes.at[1] as i32)];
        let new = [_mm512_set1_epi32(changes.keys[0] as i32), _mm512_set1_epi32(changes.keys[1] as i32)];
        let (dead, none) = (_mm512_set1_epi32(changes.dead as i32), _mm512_set1_epi32(NONE as i32));
        let mut here = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let mut least = none;
        for block in keys.chunks_exact_mut(16) {
            let place = block.as_mut_ptr();
            // SAFETY: a block has sixteen keys; neither asks for an alignment.
            let mut keys = unsafe { _mm512_loadu_si512(place.cast()) };
            keys = _mm512_mask_mov_epi32(keys, _mm512_cmpeq_epi32_mask(here, at[0]), new[0]);
            keys = _mm512_mask_mov_epi32(keys, _mm512_cmpeq_epi32_mask(here, at[1]), new[1]);
            keys = _mm512_mask_mov_epi32(keys, _mm512_cmpeq_epi32_mask(here, dead), none);
            // SAFETY: as above.
            unsafe { _mm512_storeu_si512(place.cast(), keys) };
            least = _mm512_min_epu32(least, keys);
            here = _mm512_add_epi32(here, _mm512_set1_epi32(16));
        }
        _mm512_reduce_min_epu32(least)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn find_avx512(line: &[u64; 8], key: u64) -> u64 {
        // SAFETY: a line is eight words; the load asks for no alignment.
        let slots = unsafe { _mm512_loadu_si512(line.as_ptr().cast()) };
        let same = _mm512_cmpeq_epi64_mask(_mm512_srli_epi64::<22>(slots), _mm512_set1_epi64(key as i64));
        // At most one slot has the key.
        _mm_cvtsi128_si64(_mm512_castsi512_si128(_mm512_maskz_compress_epi64(same, slots))) as u64
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same<const C: usize>(keys: [u32; C], changes: Changes) {
        let (mut one, mut two, mut three) = (keys, keys, keys);
        let least = Portable::least(&mut one, changes);
        if std::arch::is_x86_feature_detected!("avx2") {
            assert_eq!((Avx2::least(&mut two, changes), two), (least, one));
        }
        if std::arch::is_x86_feature_detected!("avx512f") {
            assert_eq!((Avx512::least(&mut three, changes), three), (least, one));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn vectors_do_the_same(
            keys in prop::collection::vec(any::<u32>(), 34),
            at in prop::collection::vec(0u32..66, 3),
            symbols in prop::collection::btree_set(0u64..1 << 42, 8),
            asked in 0usize..12,
        ) {
            let changes = Changes { keys: [keys[32], keys[33]], at: [at[0], at[1]], dead: at[2] };
            same::<32>(std::array::from_fn(|nth| keys[nth]), changes);
            same::<16>(std::array::from_fn(|nth| keys[nth]), changes);
            let symbols: Vec<u64> = symbols.into_iter().collect();
            let line: [u64; 8] = std::array::from_fn(|nth| symbols[nth] << 22 | (nth as u64 + 1));
            let key = symbols.get(asked).copied().unwrap_or(1 << 42);
            let found = Portable::find(&line, key);
            prop_assert_eq!(found as u32 & 0x3F_FFFF, if asked < 8 { asked as u32 + 1 } else { 0 });
            if std::arch::is_x86_feature_detected!("avx2") {
                prop_assert_eq!(Avx2::find(&line, key), found);
            }
            if std::arch::is_x86_feature_detected!("avx512f") {
                prop_assert_eq!(Avx512::find(&line, key), found);
            }
        }
    }
}
