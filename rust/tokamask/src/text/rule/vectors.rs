//! The windows of a chunk, 32 bytes at a time, or 64 where the processor can.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi8, _mm256_adds_epu8, _mm256_and_si256, _mm256_broadcastsi128_si256,
    _mm256_cmpeq_epi8, _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi8,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_storeu_si256, _mm256_xor_si256, _mm_loadu_si128,
};
use std::mem::MaybeUninit;

use bytemuck::Zeroable;

use super::groups::{Plane, GROUPS};
use super::scan::{Marks, CHUNK, WORDS};
use super::windows::{Windows, REACH};
use super::{classes, vectors512, Rule};

/// Lengths are multiples of this.
pub(super) const STEP: usize = vectors512::WIDTH;
/// Room before the first group, for the look to the left.
pub(super) const BEFORE: usize = 32;

/// Room after the last group, for the look to the right.
const AFTER: usize = 64 + 32;
const ALL: usize = BEFORE + CHUNK + AFTER;

/// A byte for every byte of the chunk, with room on both sides.
pub(super) struct Bytes<'a>(pub &'a mut [u8]);

/// One bit per byte.
pub(super) type Bits = [u64];

/// Room for a chunk, of which no more is cleared than is used: a short text has a short chunk.
pub(super) struct Room<T, const N: usize>([MaybeUninit<T>; N]);

impl<T: Zeroable, const N: usize> Room<T, N> {
    pub const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; N])
    }

    /// The first `count` places, zero.
    #[inline]
    pub fn zeroed(&mut self, count: usize) -> &mut [T] {
        let places = &mut self.0[..count];
        places.fill_with(MaybeUninit::zeroed);
        // SAFETY: all of them were just filled with zeros, for which the type is valid.
        unsafe { std::slice::from_raw_parts_mut(places.as_mut_ptr().cast(), count) }
    }
}

/// `vpmovmskb` as opaque assembly: as an intrinsic the mask is a bit vector to the optimiser,
/// which then takes it apart byte by byte (measured: half the speed).
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn mask(v: __m256i) -> u64 {
    let mask: u32;
    // SAFETY: one instruction on registers, and AVX2 is there.
    unsafe {
        std::arch::asm!("vpmovmskb {0:e}, {1}", out(reg) mask, in(ymm_reg) v, options(pure, nomem, nostack, preserves_flags));
    }
    u64::from(mask)
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(bytes: &[u8], at: usize) -> __m256i {
    debug_assert!(at + 32 <= bytes.len());
    // SAFETY: the callers see to it that 32 bytes are there; the load asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().add(at).cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store(bytes: &mut [u8], at: usize, v: __m256i) {
    let place = &mut bytes[at..at + 32];
    // SAFETY: 32 bytes are there, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), v) };
}

/// Sixteen bytes in both halves.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn twice(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: 16 bytes are there, and the load asks for no alignment.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Marks the windows of the first `length` bytes of `text`, a multiple of [`STEP`] up to a chunk; the text
/// begins where a piece does. `wide_vectors`: the processor has vectors of 64 bytes, with AVX-512 BW and VBMI.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub unsafe fn mark(
    rule: &Rule,
    windows: &Windows,
    text: &[u8],
    length: usize,
    marks: &mut Marks,
    wide_vectors: bool,
) {
    let (mut one, mut other) = (Room::<u8, ALL>::new(), Room::<u8, ALL>::new());
    let (mut raw, mut groups) =
        (Bytes(one.zeroed(BEFORE + length + AFTER)), Bytes(other.zeroed(BEFORE + length + AFTER)));
    let words = length / 64;
    let mut bits = Room::<u64, { 5 * WORDS }>::new();
    let (wide, bits) = bits.zeroed(5 * words).split_at_mut(words);
    let (refined, bits) = bits.split_at_mut(words);
    let (counted, bits) = bits.split_at_mut(words);
    let (white, lines) = bits.split_at_mut(words);
    debug_assert!(length <= text.len().min(CHUNK) && length % STEP == 0);
    marks.decided = length;
    // SAFETY: this function has the features that the callees ask for.
    unsafe {
        let any = if wide_vectors {
            vectors512::classify(windows, &text[..length], &mut raw, wide)
        } else {
            classify(windows, &text[..length], &mut raw, wide)
        };
        if any && !patch(rule, windows, text, wide, &mut raw, refined) {
            marks.decided = 0;
            return;
        }
        let bits = [&mut *counted, &mut *white, &mut *lines];
        if wide_vectors {
            vectors512::refine(windows, length, &raw, &mut groups, bits);
        } else {
            refine(windows, length, &raw, &mut groups, bits);
        }
        begin(rule, windows, text, &raw, &mut groups);
        if any {
            refined[0] &= !1; // the first character
            refine_wide(windows, text, refined, &raw, &mut groups);
        }
        before_lines(windows, length, white, lines, &raw, &mut groups, marks);
        // The reach is in characters; where some have several bytes, in four times the bytes.
        let reach = if any { 4 * REACH } else { REACH };
        if wide_vectors {
            vectors512::look_up(windows, &text[..length], &groups, reach, marks);
        } else {
            look_up(windows, &text[..length], &groups, reach, marks);
        }
    }
    if let Some((_, most)) = windows.counted {
        count(counted, most, marks);
    }
}

/// The raw group of every ASCII byte; which bytes are not. True if some are.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn classify(windows: &Windows, text: &[u8], raw: &mut Bytes, wide: &mut Bits) -> bool {
    let mut rows = [_mm256_setzero_si256(); 8];
    for (nth, row) in rows.iter_mut().enumerate() {
        let bytes: [u8; 16] = std::array::from_fn(|at| windows.ascii[nth * 16 + at]);
        // SAFETY: AVX2 is there.
        *row = unsafe { twice(&bytes) };
    }
    let mut any = 0;
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
        // SAFETY: AVX2 is there.
        let high = unsafe {
            store(raw.0, BEFORE + at, group);
            mask(bytes)
        };
        wide[at / 64] |= high << (at % 64);
        any |= high;
    }
    any != 0
}

/// Fills the first `width` of four bytes.
#[inline]
fn spread(bytes: &mut Bytes, at: usize, width: usize, group: u8) {
    if let Some(four) = bytes.0[BEFORE + at..].first_chunk_mut::<4>() {
        let mask = u32::MAX >> (32 - 8 * width as u32);
        let group = u32::from(group) * 0x0101_0101;
        *four = (u32::from_le_bytes(*four) & !mask | group & mask).to_le_bytes();
    }
}

/// Gives all bytes of the characters of several bytes their raw groups, and marks those that the
/// character before refines. False if the chunk is the automaton's, see
/// [`Features::legal`](super::letters::Features::legal).
#[inline]
fn patch(
    rule: &Rule,
    windows: &Windows,
    text: &[u8],
    wide: &Bits,
    raw: &mut Bytes,
    refined: &mut Bits,
) -> bool {
    let counted = windows.counted.map_or(u8::MAX, |(group, _)| group);
    let (mut done, mut legal) = (0u32, true);
    for (word, &wide) in wide.iter().enumerate() {
        let base = word * 64;
        // Without the bytes of a character that began in the word before.
        let mut wide = wide & (!0u64).checked_shl(done.saturating_sub(base as u32)).unwrap_or(0);
        while wide != 0 {
            let first = wide.trailing_zeros();
            let at = base + first as usize;
            let (code_point, width) = classes::decode(text, at);
            let class = usize::from(rule.classes.of(code_point));
            let group = windows.wide[class];
            spread(raw, at, width, group);
            refined[word] |= u64::from(windows.refined[usize::from(group) % GROUPS] != 0) << first;
            if windows.counted_wide[class] || windows.white_wide[class] {
                let (before, after) = (raw.0[BEFORE + at - 1], raw.0[BEFORE + at + width]);
                legal &= !(windows.counted_wide[class] && after == counted);
                legal &=
                    !(windows.white_wide[class] && windows.lines[usize::from(before) % GROUPS] & 0x80 != 0);
            }
            done = (at + width) as u32;
            wide &= (!0u64).checked_shl(first + width as u32).unwrap_or(0);
        }
    }
    legal
}

/// Groups from raw groups and their left neighbours; bits of counted characters, white space and
/// line ends.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn refine(
    windows: &Windows,
    length: usize,
    raw: &Bytes,
    groups: &mut Bytes,
    [counted, white, lines]: [&mut Bits; 3],
) {
    // SAFETY: AVX2 is there.
    let table = |bytes: &[u8; 16]| unsafe { twice(bytes) };
    let (plain, bit) = (table(&windows.plain), table(&windows.refined));
    let (after, marked) = (windows.after.each_ref().map(table), windows.marked.each_ref().map(table));
    let flags = table(&windows.lines);
    let counts = _mm256_set1_epi8(windows.counted.map_or(-1, |(group, _)| group as i8));
    for at in (0..length).step_by(32) {
        // SAFETY: AVX2 is there; the bytes have room on both sides.
        let (here, left) = unsafe { (load(raw.0, BEFORE + at), load(raw.0, BEFORE + at - 1)) };
        let bit = _mm256_shuffle_epi8(bit, here);
        let mut group = _mm256_shuffle_epi8(plain, here);
        for (after, marked) in after.iter().zip(&marked) {
            let hit = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(*after, left), bit), bit);
            group = _mm256_xor_si256(group, _mm256_and_si256(hit, _mm256_shuffle_epi8(*marked, here)));
        }
        let flags = _mm256_shuffle_epi8(flags, here);
        let (word, shift) = (at / 64, at % 64);
        // SAFETY: AVX2 is there.
        unsafe {
            store(groups.0, BEFORE + at, group);
            counted[word] |= mask(_mm256_cmpeq_epi8(here, counts)) << shift;
            white[word] |= mask(flags) << shift;
            lines[word] |= mask(_mm256_add_epi8(flags, flags)) << shift;
        }
    }
}

/// The same for the characters of several bytes that are refined: the character before is the byte
/// before the first.
#[inline]
fn refine_wide(windows: &Windows, text: &[u8], refined: &Bits, raw: &Bytes, groups: &mut Bytes) {
    for (word, &refined) in refined.iter().enumerate() {
        let mut refined = refined;
        while refined != 0 {
            let at = word * 64 + refined.trailing_zeros() as usize;
            refined &= refined - 1;
            let group = usize::from(raw.0[BEFORE + at]) % GROUPS;
            let before = usize::from(raw.0[BEFORE + at - 1]) % GROUPS;
            let mut new = windows.plain[group];
            let bit = windows.refined[group];
            if bit & windows.inherits & windows.refined[before] != 0 {
                spread(groups, at, classes::width(text[at]), groups.0[BEFORE + at - 1]);
                continue;
            }
            for (after, marked) in windows.after.iter().zip(&windows.marked) {
                if after[before] & bit != 0 {
                    new ^= marked[group];
                }
            }
            spread(groups, at, classes::width(text[at]), new);
        }
    }
}

/// The first character begins a piece, whatever is before it.
#[inline]
fn begin(rule: &Rule, windows: &Windows, text: &[u8], raw: &Bytes, groups: &mut Bytes) {
    let group = usize::from(raw.0[BEFORE]) % GROUPS;
    if windows.refined[group] != 0 {
        let (_, width) = rule.classes.at(text, 0);
        spread(groups, 0, width, windows.plain[group] ^ windows.first[group]);
    }
}

/// Marks the white space whose run ends at a line end. A run that touches the end of the chunk, and
/// what looks at it, is not decided.
#[inline]
fn before_lines(
    windows: &Windows,
    length: usize,
    white: &Bits,
    lines: &Bits,
    raw: &Bytes,
    groups: &mut Bytes,
    marks: &mut Marks,
) {
    let (mut next_line, mut next_marked) = (0u64, 0u64);
    for word in (0..length.div_ceil(64)).rev() {
        let white = white[word];
        // Read from the end: a run begins behind a line end, or goes on from the word behind.
        let first = white & (lines[word] >> 1 | (next_line | next_marked) << 63);
        let mut marked = 0;
        if first != 0 {
            let (run, first) = (white.reverse_bits(), first.reverse_bits());
            marked = (run & !run.wrapping_add(first)).reverse_bits();
            let mut left = marked;
            while left != 0 {
                let at = BEFORE + word * 64 + left.trailing_zeros() as usize;
                groups.0[at] = windows.before_line[usize::from(raw.0[at]) % GROUPS];
                left &= left - 1;
            }
        }
        (next_line, next_marked) = (lines[word] & 1, marked & 1);
    }
    let last = (length - 1) / 64;
    let beyond = if length % 64 == 0 { 0 } else { !0u64 << (length % 64) };
    let mut run = (white[last] | beyond).leading_ones() as usize;
    let mut word = last;
    while word > 0 && run == (last - word + 1) * 64 {
        word -= 1;
        run += white[word].leading_ones() as usize;
    }
    let begin = ((last + 1) * 64).saturating_sub(run).min(length);
    if begin < length {
        marks.decided = begin.saturating_sub(1);
    }
}

/// Ends within runs of the counted class: every so many characters of the run.
#[inline]
fn count(counted: &Bits, most: u32, marks: &mut Marks) {
    let mut place = None; // of the last character of the word before, if it is counted
    for (word, &here) in counted.iter().enumerate() {
        if here == 0 {
            place = None;
            continue;
        }
        let before = here << 1 | u64::from(place.is_some());
        let mut firsts = here & !before;
        if let Some(place) = place {
            let next = (most - 1 - place) % most;
            let reach = (2u64 << next) - 1;
            if here & reach == reach {
                firsts |= 1u64 << next;
            }
        }
        let within = (1..most).fold(here, |all, shift| all & here << shift);
        let (mut all, mut left) = (0, firsts);
        while left != 0 {
            all |= left;
            left = left << most & within;
        }
        marks.ends[word] |= all & before;
        place = (here >> 63 != 0).then(|| {
            let since = all.leading_zeros();
            if since < most {
                since
            } else {
                (place.unwrap_or(0) + 64) % most
            }
        });
    }
}

/// Tests all boxes at every position.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn look_up(windows: &Windows, text: &[u8], groups: &Bytes, reach: usize, marks: &mut Marks) {
    let planes = |planes: &[Plane]| -> Vec<[__m256i; 3]> {
        // SAFETY: AVX2 is there.
        let load = |p: &Plane| unsafe { [twice(&p.left), twice(&p.at), twice(&p.right)] };
        planes.iter().map(load).collect()
    };
    let (ends, open) = (planes(&windows.ends), planes(&windows.open));
    let spoiler = _mm256_set1_epi8(windows.spoiler as i8);
    let mut spoilt = 0u64; // places after a spoiler, from the vectors so far
    for at in (0..text.len()).step_by(32) {
        // SAFETY: AVX2 is there; the groups have room on both sides.
        let (left, here, right, bytes) = unsafe {
            (
                load(groups.0, BEFORE + at - 1),
                load(groups.0, BEFORE + at),
                load(groups.0, BEFORE + at + 1),
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
            0xFFFF_FFFF ^ unsafe { mask(_mm256_cmpeq_epi8(any, _mm256_setzero_si256())) }
        };
        // SAFETY: AVX2 is there. Nothing starts inside a character.
        let (inner, spoilers) = unsafe {
            (mask(_mm256_cmpgt_epi8(_mm256_set1_epi8(-64), bytes)), mask(_mm256_cmpeq_epi8(here, spoiler)))
        };
        if spoilers != 0 {
            spoilt |= (1..=reach).fold(0, |places, shift| places | spoilers << shift);
        }
        let (word, shift) = (at / 64, at % 64);
        marks.ends[word] |= (test(&ends) & !inner) << shift;
        marks.open[word] |= ((test(&open) | spoilt & 0xFFFF_FFFF) & !inner) << shift;
        spoilt >>= 32;
    }
}
