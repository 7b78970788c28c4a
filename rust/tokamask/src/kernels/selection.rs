//! Exact top-k (`python/tokamask/reference/selection.py`).
//!
//! For small k one pass suffices: the k-th greatest of the block maxima is at or below the k-th greatest score, because k
//! blocks hold a score at least that great. So only blocks whose maximum reaches it are read again, and a little more than k
//! candidates remain to be selected from exactly.

use super::array::{each_float, Floats, View};
use super::blocks::{maxima, widened, Blocks, BLOCK};
use super::floats::{order_key, Float};
use super::lanes::{dispatch, Lanes, WIDTH};
use super::threads;
use crate::error::ShapeError;

/// The order of selection as one integer: greater is earlier. Score descending, then position ascending.
#[inline]
pub fn rank(score: f32, position: usize) -> u64 {
    u64::from(order_key(score)) << 32 | u64::from(!(position as u32))
}

/// The position in a rank.
#[inline]
pub fn position_of(rank: u64) -> usize {
    !(rank as u32) as usize
}

/// Buffers reused from row to row.
#[derive(Default)]
pub struct Scratch {
    widened: Vec<f32>,
    pub(crate) maxima: Vec<f32>,
    sorted_maxima: Vec<f32>,
    pub(crate) ranks: Vec<u64>,
    selected: Vec<u64>,
    counts: Vec<u32>,
}

/// Up to so many scores a selection from all takes less time than a look at what they are like.
const FEW: usize = 4096;

/// Ranks of the `k` greatest scores, by position ascending, into `scratch.ranks`; `scratch.maxima` are the block maxima.
pub fn largest(blocks: &Blocks, k: usize, scratch: &mut Scratch) {
    let Scratch { maxima, sorted_maxima, ranks, selected, counts, .. } = scratch;
    let mut threshold = f32::NEG_INFINITY;
    if k > 0 && k <= maxima.len() / 2 {
        sorted_maxima.clone_from(maxima);
        threshold = *sorted_maxima.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
    }
    ranks.clear();
    if threshold > f32::NEG_INFINITY {
        collect_at_least(blocks, maxima, threshold, ranks);
    } else if k > 0 && k <= maxima.len() / 2 {
        // Most blocks hold -inf alone, as masked logits do.
        collect_at_least(blocks, maxima, f32::MIN, ranks);
        fill_up(blocks, k, ranks);
    } else if k > 0 && k < blocks.len && blocks.len <= FEW {
        ranks.extend(blocks.iter().enumerate().map(|(i, x)| rank(x, i)));
    } else if k > 0 && k < blocks.len {
        let guess = guessed_threshold(blocks, k, sorted_maxima);
        if guess > f32::NEG_INFINITY {
            collect_at_least(blocks, maxima, guess, ranks);
        }
        if ranks.len() < k {
            ranks.clear();
            collect_from_bucket(blocks, k, counts, ranks);
        }
    } else if k > 0 {
        ranks.extend(blocks.iter().enumerate().map(|(i, x)| rank(x, i)));
    }
    if k < ranks.len() {
        selected.clone_from(ranks);
        let last = match k.checked_sub(1) {
            Some(i) => *selected.select_nth_unstable_by(i, |a, b| b.cmp(a)).1,
            None => u64::MAX,
        };
        ranks.retain(|r| *r >= last);
        ranks.truncate(k);
    }
}

/// Adds scores of -inf, then NaN, each by position, until there are `k`.
fn fill_up(blocks: &Blocks, k: usize, ranks: &mut Vec<u64>) {
    let found = ranks.len();
    for key in [order_key(f32::NEG_INFINITY), order_key(f32::NAN)] {
        let left = k.saturating_sub(ranks.len());
        let same = blocks.iter().enumerate().filter(|(_, x)| order_key(*x) == key);
        ranks.extend(same.take(left).map(|(i, x)| rank(x, i)));
    }
    if ranks.len() > found {
        ranks.sort_unstable_by_key(|r| position_of(*r));
    }
}

/// A score that probably a few more than `k` others reach, guessed from every so-manieth one; -inf if that tells nothing.
fn guessed_threshold(blocks: &Blocks, k: usize, sample: &mut Vec<f32>) -> f32 {
    const SAMPLE: usize = 2048;
    let step = blocks.len / SAMPLE;
    if step < 4 {
        return f32::NEG_INFINITY;
    }
    sample.clear();
    sample.extend(blocks.iter().step_by(step).map(|x| if x.is_nan() { f32::NEG_INFINITY } else { x }));
    // The number of sampled scores above the k-th is about `expected`, give or take its square root.
    let expected = k / step;
    let place = expected + 4 * expected.isqrt() + 8;
    if place >= sample.len() / 2 {
        return f32::NEG_INFINITY;
    }
    *sample.select_nth_unstable_by(place, |a, b| b.total_cmp(a)).1
}

/// Ranks of every score in the bucket of the k-th greatest or above, whatever the scores: a count of the upper bits of the keys
/// tells which bucket that is.
fn collect_from_bucket(blocks: &Blocks, k: usize, counts: &mut Vec<u32>, ranks: &mut Vec<u64>) {
    const SHIFT: u32 = 20;
    counts.clear();
    counts.resize(1 << (32 - SHIFT), 0);
    blocks.iter().for_each(|x| counts[(order_key(x) >> SHIFT) as usize] += 1);
    let mut above = 0;
    let bucket = counts.iter().rposition(|n| {
        above += *n as usize;
        above >= k
    });
    let least = (bucket.unwrap_or(0) as u64) << (32 + SHIFT);
    ranks.extend(blocks.iter().enumerate().map(|(i, x)| rank(x, i)).filter(|r| *r >= least));
}

fn collect_at_least(blocks: &Blocks, maxima: &[f32], threshold: f32, ranks: &mut Vec<u64>) {
    dispatch!(collect_kernel(blocks: &Blocks, maxima: &[f32], threshold: f32, ranks: &mut Vec<u64>));
}

#[inline(always)]
unsafe fn collect_kernel<L: Lanes>(blocks: &Blocks, maxima: &[f32], threshold: f32, ranks: &mut Vec<u64>) {
    for (i, best) in maxima.iter().enumerate() {
        if *best < threshold {
            continue;
        }
        let block = blocks.block(i);
        for lane in (0..BLOCK).step_by(WIDTH) {
            // SAFETY: lane + WIDTH <= BLOCK; the caller has the features.
            let mut bits = unsafe {
                L::load(block.as_ptr().add(lane)).greater_or_equal(L::splat(threshold)).sign_bits()
            };
            while bits != 0 {
                let j = lane + bits.trailing_zeros() as usize;
                ranks.push(rank(block[j], i * BLOCK + j));
                bits &= bits - 1;
            }
        }
    }
}

/// Indices of the `k` greatest scores of each row, ascending, padded with -1 (`out`: `[rows, k]`).
///
/// NaN ranks below -inf, -0.0 equals 0.0, ties at the cut are kept by lowest index; only `scores[row, ..lengths[row]]`
/// counts. Cost: one read of the scores while `k` is below a 64th of their number, then a selection in memory.
pub fn top_k(
    scores: Floats,
    shape: [usize; 2],
    row_stride: usize,
    k: usize,
    lengths: Option<&[i32]>,
    out: &mut [i32],
) -> Result<(), ShapeError> {
    let [rows, n] = shape;
    if out.len() != rows * k || lengths.is_some_and(|l| l.len() != rows) || n > i32::MAX as usize {
        return Err(ShapeError {
            name: "out".to_owned(),
            expected: format!("int32 [{rows}, {k}]"),
            got: format!("{} elements", out.len()),
        });
    }
    each_float!(scores, data => {
        let view = View::new("scores", data, shape, [row_stride, 1])?;
        if k > 0 {
            threads::each_chunk(rows * n * 4, out, k, Scratch::default, |scratch, row, out| {
                let length = lengths.map_or(n, |l| l[row].clamp(0, n as i32) as usize);
                top_k_row(&view.row([row, 0])[..length], k, scratch, out);
            });
        }
        Ok(())
    })
}

/// One row of [`top_k`].
pub(crate) fn top_k_row<T: Float>(scores: &[T], k: usize, scratch: &mut Scratch, out: &mut [i32]) {
    let mut buffer = std::mem::take(&mut scratch.widened);
    let blocks = Blocks::new(widened(scores, &mut buffer));
    maxima(&blocks, &mut scratch.maxima);
    largest(&blocks, k, scratch);
    let found = scratch.ranks.len();
    for (slot, rank) in out.iter_mut().zip(&scratch.ranks) {
        *slot = position_of(*rank) as i32;
    }
    out[found.min(k)..].fill(-1);
    scratch.widened = buffer;
}
