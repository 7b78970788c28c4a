//! Pieces of a text that a rule covers: by vectors where the processor has them, by the automaton
//! where it has not, and wherever three characters do not decide.

use super::classes;
use super::Rule;

/// Bytes that are looked at together.
const CHUNK: usize = 4096;
/// Below this the automaton alone is faster.
const SMALL: usize = 96;
/// The last positions of a chunk are not decided there: a character may be cut.
const MARGIN: usize = 8;
/// Room before the first group, for the look to the left.
const BEFORE: usize = 32;

/// The pieces of a text, chunk by chunk.
pub struct Pieces<'a> {
    rule: &'a Rule,
    text: &'a [u8],
    at: usize,
    vectors: bool,
}

/// What a chunk's windows decide, one bit per byte.
struct Marks {
    ends: [u64; CHUNK / 64],
    open: [u64; CHUNK / 64],
}

impl<'a> Pieces<'a> {
    /// The pieces of `text`.
    pub fn new(rule: &'a Rule, text: &'a [u8]) -> Self {
        Self { rule, text, at: 0, vectors: text.len() >= SMALL && rule.windows.is_some() && available() }
    }

    /// The same without vectors.
    pub fn portable(rule: &'a Rule, text: &'a [u8]) -> Self {
        Self { rule, text, at: 0, vectors: false }
    }

    /// Appends the starts of the next pieces and the end of the last; nothing at the end.
    pub fn fill(&mut self, starts: &mut Vec<u32>) {
        if self.at >= self.text.len() {
            return;
        }
        starts.push(self.at as u32);
        let (start, left) = (self.at, self.text.len() - self.at);
        let chunk = left.min(CHUNK);
        if self.vectors && chunk >= SMALL {
            self.fill_by_vectors(chunk & !31, starts);
            // Where the chunk decided nothing for long, or nothing at all.
            self.fill_to((start + chunk - SMALL + 1).max(start + 1), starts);
        } else {
            self.fill_to(start + chunk, starts);
        }
        if self.text.len() - self.at < SMALL {
            self.fill_to(self.text.len(), starts);
        }
    }

    /// Pieces by the automaton until one ends at or after `goal`.
    #[inline]
    fn fill_to(&mut self, goal: usize, starts: &mut Vec<u32>) {
        while self.at < goal {
            let end = self.rule.automaton.run(&self.rule.classes, self.text, self.at);
            // The rule covers every text; what it did not would stand alone.
            self.at = end
                .filter(|&end| end > self.at)
                .unwrap_or_else(|| self.at + classes::width(self.text[self.at]));
            starts.push(self.at as u32);
        }
    }

    /// Pieces of the next `chunk` bytes up to the last certain end in it.
    fn fill_by_vectors(&mut self, chunk: usize, starts: &mut Vec<u32>) {
        let mut marks = Marks { ends: [0; CHUNK / 64], open: [0; CHUNK / 64] };
        if !self.mark(chunk, &mut marks) {
            return;
        }
        let base = self.at;
        let mut open = false;
        for (word, (&ends, &opens)) in marks.ends.iter().zip(&marks.open).enumerate().take(chunk.div_ceil(64))
        {
            let from = (base + word * 64) as u32;
            let mut ends = ends & !opens;
            if opens == 0 && !open {
                if ends == 0 {
                    continue;
                }
                self.at = from as usize + 63 - ends.leading_zeros() as usize;
                let mut eight = [0u32; 8];
                while ends != 0 {
                    let count = (ends.count_ones() as usize).min(8);
                    for start in &mut eight {
                        *start = from.wrapping_add(ends.trailing_zeros());
                        ends &= ends.wrapping_sub(1);
                    }
                    starts.extend_from_slice(&eight[..count]);
                }
                continue;
            }
            let mut opens = opens;
            while ends != 0 {
                let bit = ends.trailing_zeros();
                let below = (1u64 << bit) - 1;
                ends &= ends - 1;
                open |= opens & below != 0;
                opens &= !below;
                let position = (from + bit) as usize;
                if open {
                    self.fill_to(position, starts);
                    open = false;
                } else {
                    self.at = position;
                    starts.push(position as u32);
                }
            }
            open |= opens != 0;
        }
    }

    /// Marks the windows of a chunk.
    fn mark(&self, chunk: usize, marks: &mut Marks) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Some(windows) = &self.rule.windows {
            let text = &self.text[self.at..self.at + chunk];
            // SAFETY: `vectors` says that AVX2 was detected.
            unsafe { avx2::mark(self.rule, windows, text, marks) };
            // The first byte starts the chunk's first piece; the last ones are not decided.
            marks.ends[0] &= !1;
            marks.open[0] &= !1;
            for (word, (ends, open)) in marks.ends.iter_mut().zip(&mut marks.open).enumerate() {
                let decided = (chunk - MARGIN).saturating_sub(word * 64);
                if decided < 64 {
                    let mask = (1u64 << decided) - 1;
                    *ends &= mask;
                    *open &= mask;
                }
            }
            return true;
        }
        let _ = (chunk, marks);
        false
    }
}

fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("bmi2");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_adds_epu8, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8,
        _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi8, _mm256_setzero_si256,
        _mm256_shuffle_epi8, _mm256_storeu_si256, _mm256_xor_si256, _mm_loadu_si128,
    };

    use super::super::windows::{Plane, Windows, REACH};
    use super::super::{classes, Rule};
    use super::{Marks, BEFORE, CHUNK};

    /// Bytes by group, with room on both sides.
    struct Groups([u8; BEFORE + CHUNK + 64]);

    /// `vpmovmskb` as opaque assembly: as an intrinsic the mask is a bit vector to the optimiser,
    /// which then takes it apart byte by byte (measured: half the speed).
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn mask(v: __m256i) -> u32 {
        let mask: u32;
        // SAFETY: one instruction on registers, and AVX2 is there.
        unsafe {
            std::arch::asm!("vpmovmskb {0:e}, {1}", out(reg) mask, in(ymm_reg) v, options(pure, nomem, nostack, preserves_flags));
        }
        mask
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(bytes: &[u8], at: usize) -> __m256i {
        debug_assert!(at + 32 <= bytes.len());
        // SAFETY: the callers see to it that 32 bytes are there; the load asks for no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().add(at).cast()) }
    }

    /// Sixteen bytes in both halves.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn twice(bytes: &[u8; 16]) -> __m256i {
        // SAFETY: 16 bytes are there, and the load asks for no alignment.
        _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
    }

    /// Marks the windows of `text`, whose length is a multiple of 32 up to a chunk.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub unsafe fn mark(rule: &Rule, windows: &Windows, text: &[u8], marks: &mut Marks) {
        let mut groups = Groups([0; BEFORE + CHUNK + 64]);
        // SAFETY: this function has the features that the callees ask for.
        unsafe {
            let wide = classify(rule, windows, text, &mut groups);
            // The reach is in characters; where some have several bytes, in four times the bytes.
            look_up(windows, text, &groups, if wide { 4 * REACH } else { REACH }, marks);
        }
    }

    /// The group of every byte; all bytes of a character have its group. True if some are wide.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn classify(rule: &Rule, windows: &Windows, text: &[u8], groups: &mut Groups) -> bool {
        let mut rows = [_mm256_setzero_si256(); 8];
        for (nth, row) in rows.iter_mut().enumerate() {
            let bytes: [u8; 16] = std::array::from_fn(|at| windows.ascii[nth * 16 + at]);
            // SAFETY: AVX2 is there.
            *row = unsafe { twice(&bytes) };
        }
        let mut wide = [0u64; CHUNK / 64];
        for at in (0..text.len()).step_by(32) {
            // SAFETY: AVX2 is there; `at + 32 <= text.len()`, a multiple of 32.
            let bytes = unsafe { load(text, at) };
            let mut group = _mm256_setzero_si256();
            for (nth, row) in rows.iter().enumerate() {
                // A byte of row n becomes 0x70 + column, any other 0x80 or more, which finds 0.
                let other = _mm256_xor_si256(bytes, _mm256_set1_epi8((nth << 4) as i8));
                let index = _mm256_adds_epu8(other, _mm256_set1_epi8(0x70));
                group = _mm256_or_si256(group, _mm256_shuffle_epi8(*row, index));
            }
            let place = &mut groups.0[BEFORE + at..BEFORE + at + 32];
            // SAFETY: 32 bytes are there, and the store asks for no alignment.
            unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), group) };
            // SAFETY: AVX2 is there.
            wide[at / 64] |= u64::from(unsafe { mask(bytes) }) << (at % 64);
        }
        let any = wide.iter().any(|&wide| wide != 0);
        if any {
            patch(rule, windows, text, &wide, groups);
        }
        any
    }

    /// Gives the characters of several bytes their groups.
    #[inline]
    fn patch(rule: &Rule, windows: &Windows, text: &[u8], wide: &[u64; CHUNK / 64], groups: &mut Groups) {
        let mut done = 0u32;
        for (word, &wide) in wide.iter().enumerate() {
            let base = word * 64;
            // Without the bytes of a character that began in the word before.
            let mut wide = wide & (!0u64).checked_shl(done.saturating_sub(base as u32)).unwrap_or(0);
            while wide != 0 {
                let first = wide.trailing_zeros();
                let at = base + first as usize;
                let (code_point, width) = classes::decode(text, at);
                let group = windows.wide[usize::from(rule.classes.of(code_point))];
                if let Some(four) = groups.0[BEFORE + at..].first_chunk_mut::<4>() {
                    let mask = u32::MAX >> (32 - 8 * width as u32);
                    let group = u32::from(group) * 0x0101_0101;
                    *four = (u32::from_le_bytes(*four) & !mask | group & mask).to_le_bytes();
                }
                done = (at + width) as u32;
                wide &= (!0u64).checked_shl(first + width as u32).unwrap_or(0);
            }
        }
    }

    /// Tests all boxes at every position.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn look_up(windows: &Windows, text: &[u8], groups: &Groups, reach: usize, marks: &mut Marks) {
        let planes = |planes: &[Plane]| -> Vec<[__m256i; 3]> {
            // SAFETY: AVX2 is there.
            let load = |p: &Plane| unsafe { [twice(&p.left), twice(&p.at), twice(&p.right)] };
            planes.iter().map(load).collect()
        };
        let (ends, open) = (planes(&windows.ends), planes(&windows.open));
        let spoiler = windows.spoils.trailing_zeros() as u8; // a group of its own, or 16: none
        let mut spoilt = 0u64; // places after a spoiler, from the vectors so far
        for at in (0..text.len()).step_by(32) {
            // SAFETY: AVX2 is there; the groups have room on both sides.
            let (left, here, right, bytes) = unsafe {
                (
                    load(&groups.0, BEFORE + at - 1),
                    load(&groups.0, BEFORE + at),
                    load(&groups.0, BEFORE + at + 1),
                    load(text, at),
                )
            };
            let test = |planes: &[[__m256i; 3]]| {
                let mut any = _mm256_setzero_si256();
                for plane in planes {
                    let hit = _mm256_and_si256(
                        _mm256_and_si256(
                            _mm256_shuffle_epi8(plane[0], left),
                            _mm256_shuffle_epi8(plane[1], here),
                        ),
                        _mm256_shuffle_epi8(plane[2], right),
                    );
                    any = _mm256_or_si256(any, hit);
                }
                // SAFETY: AVX2 is there.
                !unsafe { mask(_mm256_cmpeq_epi8(any, _mm256_setzero_si256())) }
            };
            // Nothing starts inside a character.
            // SAFETY: AVX2 is there.
            let inner = unsafe { mask(_mm256_cmpgt_epi8(_mm256_set1_epi8(-64), bytes)) };
            // SAFETY: AVX2 is there.
            let spoilers = unsafe { mask(_mm256_cmpeq_epi8(here, _mm256_set1_epi8(spoiler as i8))) };
            let spoilers = u64::from(spoilers);
            spoilt |= (1..=reach).fold(0, |places, shift| places | spoilers << shift);
            let shift = at % 64;
            marks.ends[at / 64] |= u64::from(test(&ends) & !inner) << shift;
            marks.open[at / 64] |= u64::from((test(&open) | spoilt as u32) & !inner) << shift;
            spoilt >>= 32;
        }
    }
}
