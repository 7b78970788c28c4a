//! A row of scores cut into blocks of 32, and the greatest score of each block: one pass that lets later passes skip.

use super::floats::Float;
use super::lanes::{dispatch, Lanes, WIDTH};

/// Scores in a block; also the tokens of one bitmask word.
pub const BLOCK: usize = 32;

/// f32 scores in blocks; the last is padded with -inf.
pub struct Blocks<'a> {
    whole: &'a [f32],
    tail: [f32; BLOCK],
    /// Scores without the padding.
    pub len: usize,
}

impl<'a> Blocks<'a> {
    /// Cuts a row.
    pub fn new(row: &'a [f32]) -> Self {
        let (whole, rest) = row.split_at(row.len() / BLOCK * BLOCK);
        let mut tail = [f32::NEG_INFINITY; BLOCK];
        tail[..rest.len()].copy_from_slice(rest);
        Self { whole, tail, len: row.len() }
    }

    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.len.div_ceil(BLOCK)
    }

    /// Scores of block `i`, below `count`.
    #[inline(always)]
    pub fn block(&self, i: usize) -> &[f32; BLOCK] {
        self.whole.get(i * BLOCK..).and_then(<[f32]>::first_chunk).unwrap_or(&self.tail)
    }

    /// Every score, in order, without the padding.
    pub fn iter(&self) -> impl Iterator<Item = f32> + '_ {
        self.whole.iter().chain(&self.tail[..self.len % BLOCK]).copied()
    }
}

/// The greatest score of each block; NaN counts as -inf.
pub fn maxima(blocks: &Blocks, out: &mut Vec<f32>) {
    out.clear();
    out.resize(blocks.count(), f32::NEG_INFINITY);
    fill_maxima(blocks, out);
}

fn fill_maxima(blocks: &Blocks, out: &mut [f32]) {
    dispatch!(maxima_kernel(blocks: &Blocks, out: &mut [f32]));
}

#[inline(always)]
unsafe fn maxima_kernel<L: Lanes>(blocks: &Blocks, out: &mut [f32]) {
    for (i, best) in out.iter_mut().enumerate() {
        let block = blocks.block(i).as_ptr();
        // SAFETY: a block is four times WIDTH long; the caller has the features.
        unsafe {
            let floor = L::splat(f32::NEG_INFINITY);
            let a = L::load(block).max_or(floor);
            let a = L::load(block.add(WIDTH)).max_or(a);
            let a = L::load(block.add(2 * WIDTH)).max_or(a);
            let a = L::load(block.add(3 * WIDTH)).max_or(a);
            *best = a.max_lane();
        }
    }
}

/// The f32 row of any float type: borrowed if it is one, else widened into `scratch`.
pub fn widened<'a, T: Float>(row: &'a [T], scratch: &'a mut Vec<f32>) -> &'a [f32] {
    if let Some(row) = T::as_f32(row) {
        return row;
    }
    widen_all(row, scratch);
    scratch
}

/// The row as f32 in a buffer of its own.
pub fn widen_all<T: Float>(row: &[T], out: &mut Vec<f32>) {
    out.resize(row.len(), 0.0);
    widen_into(row, out);
}

fn widen_into<T: Float>(row: &[T], out: &mut [f32]) {
    dispatch!(widen_kernel::<T>(row: &[T], out: &mut [f32]) where [T: Float]);
}

#[inline(always)]
unsafe fn widen_kernel<L: Lanes, T: Float>(row: &[T], out: &mut [f32]) {
    let whole = row.len().min(out.len()) / WIDTH * WIDTH;
    for i in (0..whole).step_by(WIDTH) {
        // SAFETY: i + WIDTH <= both lengths; the caller has the features.
        unsafe { T::load::<L>(row.as_ptr().add(i)).store(out.as_mut_ptr().add(i)) }
    }
    for (x, y) in row[whole..].iter().zip(&mut out[whole..]) {
        *y = x.widen();
    }
}
