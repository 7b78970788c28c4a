//! The windows of a chunk, 64 bytes at a time: the steps of [`vectors`](super::vectors) that touch every byte. A table
//! of all ASCII characters is two registers here, and a comparison is a word of bits at once.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_cmpeq_epi8_mask,
    _mm512_cmplt_epi8_mask, _mm512_cvtepu8_epi32, _mm512_loadu_si512, _mm512_maskz_compress_epi8,
    _mm512_maskz_permutex2var_epi8, _mm512_maskz_shuffle_epi8, _mm512_movepi8_mask, _mm512_set1_epi32,
    _mm512_set1_epi8, _mm512_shuffle_epi8, _mm512_storeu_si512, _mm512_test_epi8_mask, _mm512_xor_si512,
    _mm_loadu_si128,
};

use super::groups::Plane;
use super::scan::Marks;
use super::vectors::{Bits, Bytes, BEFORE};
use super::windows::Windows;

/// Bytes of a vector.
pub const WIDTH: usize = 64;

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(bytes: &[u8], at: usize) -> __m512i {
    debug_assert!(at + WIDTH <= bytes.len());
    // SAFETY: the callers see to it that 64 bytes are there; the load asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().add(at).cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(bytes: &mut [u8], at: usize, v: __m512i) {
    let place = &mut bytes[at..at + WIDTH];
    // SAFETY: 64 bytes are there, and the store asks for no alignment.
    unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), v) };
}

/// Sixteen bytes four times.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn four_times(bytes: &[u8; 16]) -> __m512i {
    // SAFETY: 16 bytes are there, and the load asks for no alignment.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// The raw group of every ASCII byte; which bytes are not. True if some are.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub unsafe fn classify(windows: &Windows, text: &[u8], raw: &mut Bytes, wide: &mut Bits) -> bool {
    // SAFETY: the features are there; the table has 128 bytes.
    let (low, high) = unsafe { (load(&windows.ascii, 0), load(&windows.ascii, WIDTH)) };
    let mut any = 0;
    for (word, at) in (0..text.len()).step_by(WIDTH).enumerate() {
        // SAFETY: `at + 64 <= text.len()`, a multiple of 64.
        let bytes = unsafe { load(text, at) };
        let beyond = _mm512_movepi8_mask(bytes);
        let group = _mm512_maskz_permutex2var_epi8(!beyond, low, bytes, high);
        // SAFETY: the features are there.
        unsafe { store(raw.0, BEFORE + at, group) };
        wide[word] = beyond;
        any |= beyond;
    }
    any != 0
}

/// Groups from raw groups and their left neighbours; bits of counted characters, white space and line ends.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn refine(
    windows: &Windows,
    length: usize,
    raw: &Bytes,
    groups: &mut Bytes,
    [counted, white, lines]: [&mut Bits; 3],
) {
    // SAFETY: the features are there.
    let table = |bytes: &[u8; 16]| unsafe { four_times(bytes) };
    let (plain, bit) = (table(&windows.plain), table(&windows.refined));
    let (after, marked) = (windows.after.each_ref().map(table), windows.marked.each_ref().map(table));
    let flags = table(&windows.lines);
    let counts = _mm512_set1_epi8(windows.counted.map_or(-1, |(group, _)| group as i8));
    for (word, at) in (0..length).step_by(WIDTH).enumerate() {
        // SAFETY: the bytes have room on both sides.
        let (here, left) = unsafe { (load(raw.0, BEFORE + at), load(raw.0, BEFORE + at - 1)) };
        let bit = _mm512_shuffle_epi8(bit, here);
        let mut group = _mm512_shuffle_epi8(plain, here);
        for (after, marked) in after.iter().zip(&marked) {
            let hit = _mm512_cmpeq_epi8_mask(_mm512_and_si512(_mm512_shuffle_epi8(*after, left), bit), bit);
            group = _mm512_xor_si512(group, _mm512_maskz_shuffle_epi8(hit, *marked, here));
        }
        let flags = _mm512_shuffle_epi8(flags, here);
        // SAFETY: the features are there.
        unsafe { store(groups.0, BEFORE + at, group) };
        counted[word] = _mm512_cmpeq_epi8_mask(here, counts);
        white[word] = _mm512_movepi8_mask(flags);
        lines[word] = _mm512_test_epi8_mask(flags, _mm512_set1_epi8(0x40));
    }
}

/// Tests all boxes at every position.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn look_up(windows: &Windows, text: &[u8], groups: &Bytes, reach: usize, marks: &mut Marks) {
    let planes = |planes: &[Plane]| -> Vec<[__m512i; 3]> {
        // SAFETY: the features are there.
        let load = |p: &Plane| unsafe { [four_times(&p.left), four_times(&p.at), four_times(&p.right)] };
        planes.iter().map(load).collect()
    };
    let (ends, open) = (planes(&windows.ends), planes(&windows.open));
    let spoiler = _mm512_set1_epi8(windows.spoiler as i8);
    let mut spoilt = 0u64; // places after a spoiler, from the word before
    for (word, at) in (0..text.len()).step_by(WIDTH).enumerate() {
        // SAFETY: the groups have room on both sides; `at + 64 <= text.len()`, a multiple of 64.
        let (left, here, right, bytes) = unsafe {
            (
                load(groups.0, BEFORE + at - 1),
                load(groups.0, BEFORE + at),
                load(groups.0, BEFORE + at + 1),
                load(text, at),
            )
        };
        let test = |planes: &[[__m512i; 3]]| {
            let hit = |plane: &[__m512i; 3]| {
                let sides = _mm512_and_si512(
                    _mm512_shuffle_epi8(plane[0], left),
                    _mm512_shuffle_epi8(plane[1], here),
                );
                _mm512_test_epi8_mask(sides, _mm512_shuffle_epi8(plane[2], right))
            };
            planes.iter().fold(0, |any, plane| any | hit(plane))
        };
        // Nothing starts inside a character.
        let inner = _mm512_cmplt_epi8_mask(bytes, _mm512_set1_epi8(-64));
        let spoilers = _mm512_cmpeq_epi8_mask(here, spoiler);
        let mut after = 0;
        if spoilers != 0 {
            for shift in 1..=reach {
                spoilt |= spoilers << shift;
                after |= spoilers >> (64 - shift);
            }
        }
        marks.ends[word] |= test(&ends) & !inner;
        marks.open[word] |= (test(&open) | spoilt) & !inner;
        spoilt = after;
    }
}

/// Appends the ends in the words from `first` on, up to a word in which something is open; the number of that word.
/// `base`: where the chunk begins.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt")]
pub unsafe fn ends_of(marks: &Marks, first: usize, last: usize, base: usize, starts: &mut Vec<u32>) -> usize {
    let all: [u8; WIDTH] = std::array::from_fn(|at| at as u8);
    // SAFETY: the features are there, and 64 bytes.
    let all = unsafe { load(&all, 0) };
    for word in first..last {
        if marks.open[word] != 0 {
            return word;
        }
        let ends = marks.ends[word];
        let count = ends.count_ones() as usize;
        let from = _mm512_set1_epi32((base + word * WIDTH) as i32);
        let mut packed = [0; WIDTH];
        // SAFETY: the features are there.
        unsafe { store(&mut packed, 0, _mm512_maskz_compress_epi8(ends, all)) };
        starts.reserve(WIDTH);
        let known = starts.len();
        for (nth, sixteen) in packed.chunks_exact(16).enumerate().take(count.div_ceil(16)) {
            // SAFETY: 16 bytes are there, and room for 64 more starts, of which 16 are written.
            unsafe {
                let places = _mm512_cvtepu8_epi32(_mm_loadu_si128(sixteen.as_ptr().cast()));
                let room = starts.as_mut_ptr().add(known + 16 * nth);
                _mm512_storeu_si512(room.cast(), _mm512_add_epi32(places, from));
            }
        }
        // SAFETY: so many were written.
        unsafe { starts.set_len(known + count) };
    }
    last
}
