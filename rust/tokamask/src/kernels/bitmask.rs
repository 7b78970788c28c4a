//! Packed masks over a vocabulary: int32 words, bit `v % 32` of word `v / 32`, 1 = allowed.

use super::array::FloatsMut;
use super::floats::Float;
#[cfg(target_arch = "x86_64")]
use super::lanes::has_avx2;
use super::lanes::{dispatch, Lanes, WIDTH};
use super::threads;
use crate::error::ShapeError;

/// Tokens in a word.
pub const WORD: usize = 32;

/// Mask rows and which of them each row of logits takes.
#[derive(Clone, Copy)]
pub struct MaskRows<'a> {
    words: &'a [i32],
    width: usize,
    rows: Option<&'a [i32]>,
}

impl<'a> MaskRows<'a> {
    /// `words`: `[mask_rows, ceil(vocab_size / 32)]`; `rows[b]` is the mask row of logits row `b`, -1 for none;
    /// without `rows`, row `b` for row `b`.
    pub fn new(
        words: &'a [i32],
        rows: Option<&'a [i32]>,
        batch: usize,
        vocab_size: usize,
    ) -> Result<Self, ShapeError> {
        let width = vocab_size.div_ceil(WORD);
        let count = words.len().checked_div(width).unwrap_or(batch); // rows of no words: as many as one likes
        let fits = match rows {
            None => count == batch,
            Some(rows) => rows.len() == batch && rows.iter().all(|r| *r < count as i32),
        };
        if fits && words.len() == count * width {
            return Ok(Self { words, width, rows });
        }
        Err(ShapeError {
            name: "bitmask".to_owned(),
            expected: format!("a row of {width} words for each of {batch} rows of logits"),
            got: format!("{count} rows, chosen by {rows:?}"),
        })
    }

    /// The words for one row of logits, if it is masked.
    pub fn row(&self, b: usize) -> Option<&'a [i32]> {
        let row = self.rows.map_or(b as i32, |rows| rows[b]);
        let start = usize::try_from(row).ok()? * self.width;
        self.words.get(start..start + self.width)
    }
}

/// Word `i` with the bits at and beyond the vocabulary size cleared.
#[inline]
pub fn word(mask: &[i32], i: usize, vocab_size: usize) -> u32 {
    let beyond = ((i + 1) * WORD).saturating_sub(vocab_size);
    mask[i] as u32 & u32::MAX.checked_shr(beyond as u32).unwrap_or(0)
}

/// The token at a position among the allowed ones.
pub fn nth_allowed(mask: &[i32], vocab_size: usize, position: usize) -> Option<usize> {
    let mut left = position;
    for i in 0..mask.len() {
        let mut word = word(mask, i, vocab_size);
        let allowed = word.count_ones() as usize;
        if left < allowed {
            for _ in 0..left {
                word &= word - 1;
            }
            return Some(i * WORD + word.trailing_zeros() as usize);
        }
        left -= allowed;
    }
    None
}

/// The logits of the allowed tokens, in order, into `out`. Words of zeros cost one test each.
pub fn compact<T: Float>(logits: &[T], mask: &[i32], out: &mut Vec<f32>) {
    let allowed: usize = (0..mask.len()).map(|i| word(mask, i, logits.len()).count_ones() as usize).sum();
    out.clear();
    out.resize(allowed + WIDTH, 0.0); // room for the last packed store
    fill_compact(logits, mask, out);
    out.truncate(allowed);
}

fn fill_compact<T: Float>(logits: &[T], mask: &[i32], out: &mut [f32]) {
    dispatch!(compact_kernel::<T>(logits: &[T], mask: &[i32], out: &mut [f32]) where [T: Float]);
}

#[inline(always)]
unsafe fn compact_kernel<L: Lanes, T: Float>(logits: &[T], mask: &[i32], out: &mut [f32]) {
    let mut n = 0;
    for i in 0..mask.len() {
        let mut bits = word(mask, i, logits.len());
        let first = i * WORD;
        if bits == 0 {
            continue;
        }
        if first + WORD > logits.len() || bits.count_ones() <= 4 {
            while bits != 0 {
                out[n] = logits[first + bits.trailing_zeros() as usize].widen();
                n += 1;
                bits &= bits - 1;
            }
            continue;
        }
        for lane in (0..WORD).step_by(WIDTH) {
            let byte = bits >> lane & 0xFF;
            // SAFETY: the word lies inside the row; `out` has WIDTH elements beyond the number of allowed tokens, and n
            // counts allowed tokens; the caller has the features.
            unsafe {
                T::load::<L>(logits.as_ptr().add(first + lane)).pack(byte).store(out.as_mut_ptr().add(n));
            }
            n += byte.count_ones() as usize;
        }
    }
}

/// Writes -inf over the logits that the mask forbids, in place (`logits`: `[batch, vocab_size]` with a row stride).
///
/// Words of ones are not touched, words of zeros are not read: vocab_size / 8 bytes of mask and the written lines move.
pub fn apply(
    logits: FloatsMut,
    shape: [usize; 2],
    row_stride: usize,
    masks: &MaskRows,
) -> Result<(), ShapeError> {
    match logits {
        FloatsMut::F32(data) => apply_rows(data, shape, row_stride, masks),
        FloatsMut::F16(data) => apply_rows(data, shape, row_stride, masks),
        FloatsMut::Bf16(data) => apply_rows(data, shape, row_stride, masks),
    }
}

fn apply_rows<T: Float>(
    logits: &mut [T],
    [batch, vocab_size]: [usize; 2],
    row_stride: usize,
    masks: &MaskRows,
) -> Result<(), ShapeError> {
    if batch == 0 || vocab_size == 0 {
        return Ok(());
    }
    if row_stride < vocab_size || (batch - 1) * row_stride + vocab_size > logits.len() {
        return Err(ShapeError {
            name: "logits".to_owned(),
            expected: format!("[{batch}, {vocab_size}] with rows that do not overlap"),
            got: format!("{} elements with a row stride of {row_stride}", logits.len()),
        });
    }
    let bytes = batch * vocab_size * size_of::<T>();
    let reached = (batch - 1) * row_stride + vocab_size;
    threads::each_chunk(
        bytes,
        &mut logits[..reached],
        row_stride,
        || (),
        |(), b, row| {
            if let Some(mask) = masks.row(b) {
                apply_row(&mut row[..vocab_size], mask);
            }
        },
    );
    Ok(())
}

fn apply_row<T: Float>(logits: &mut [T], mask: &[i32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        let (whole, rest) = logits.split_at_mut(logits.len() / WORD * WORD);
        let (masks, last) = mask.split_at((whole.len() / WORD).min(mask.len()));
        // SAFETY: the processor has the features, and there are 32 logits to each of these words.
        unsafe { apply_wide(whole, masks) }
        apply_lanes(rest, last);
        return;
    }
    apply_lanes(logits, mask);
}

/// First the words that forbid anything, sixteen to a comparison, then these alone: which word of a mask is full is as hard to foresee
/// as the mask, and a wrong guess costs as much as the writing.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn apply_wide<T: Float>(logits: &mut [T], mask: &[i32]) {
    use std::arch::x86_64::{
        _mm512_add_epi32 as add, _mm512_cmpneq_epi32_mask as unequal, _mm512_mask_loadu_epi32 as load,
        _mm512_maskz_compress_epi32 as compress, _mm512_set1_epi32 as splat, _mm512_setr_epi32 as places,
        _mm512_storeu_epi32 as store,
    };
    const LANES: usize = 16;
    /// Words looked at before any is applied: the list stays in the first-level cache.
    const WORDS: usize = 512;
    let mut list = [0u32; WORDS + LANES];
    let lanes = places(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (words, logits) in mask.chunks(WORDS).zip(logits.chunks_mut(WORDS * WORD)) {
        let mut n = 0;
        for (group, sixteen) in words.chunks(LANES).enumerate() {
            let here = u16::MAX >> (LANES - sixteen.len());
            // SAFETY: only the words of the chunk are loaded, and n grows by at most 16 to a group.
            unsafe {
                let bits = load(splat(-1), here, sixteen.as_ptr());
                let some = unequal(bits, splat(-1));
                let at = compress(some, add(lanes, splat((group * LANES) as i32)));
                store(list.as_mut_ptr().add(n).cast(), at);
                n += some.count_ones() as usize;
            }
        }
        for at in &list[..n] {
            let at = *at as usize;
            // SAFETY: each word of the chunk has 32 logits there.
            unsafe { T::mask_wide(logits.as_mut_ptr().add(at * WORD), *words.get_unchecked(at) as u32) }
        }
    }
}

fn apply_lanes<T: Float>(logits: &mut [T], mask: &[i32]) {
    dispatch!(apply_kernel::<T>(logits: &mut [T], mask: &[i32]) where [T: Float]);
}

#[inline(always)]
unsafe fn apply_kernel<L: Lanes, T: Float>(logits: &mut [T], mask: &[i32]) {
    let minus_inf = T::narrow(f32::NEG_INFINITY);
    for (tokens, word) in logits.chunks_mut(WORD).zip(mask) {
        let bits = *word as u32;
        if bits == u32::MAX {
            continue;
        }
        if let Ok(tokens) = <&mut [T; WORD]>::try_from(&mut *tokens) {
            if bits == 0 {
                *tokens = [minus_inf; WORD];
            } else if bits.count_zeros() <= 4 {
                let mut forbidden = !bits;
                while forbidden != 0 {
                    tokens[forbidden.trailing_zeros() as usize] = minus_inf;
                    forbidden &= forbidden - 1;
                }
            } else {
                // SAFETY: the caller has the features.
                unsafe { T::mask_block::<L>(tokens, bits) }
            }
        } else {
            for (i, token) in tokens.iter_mut().enumerate() {
                if bits >> i & 1 == 0 {
                    *token = minus_inf;
                }
            }
        }
    }
}
