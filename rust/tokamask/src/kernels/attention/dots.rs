//! Scores without values: a few query rows against a few dozen keys of one KV head or several.

use super::tile::{Ahead, Inner, Narrow, Queries, Rows, Sizes, BLOCK, TILE};
use crate::kernels::floats::Float;
use crate::kernels::lanes::{dispatch, Lanes, WIDTH};

/// Rows without values.
pub fn key_rows<'a, T>(data: &'a [T], keys: &'a [usize], key_stride: usize) -> Rows<'a, T> {
    Rows {
        key_data: data,
        value_data: &[],
        keys,
        values: &[],
        key_shift: 0,
        value_shift: 0,
        key_stride,
        value_stride: 0,
    }
}

/// Dot products only: `out[(head * n_rows + row) * TILE + token]` for up to [`TILE`] tokens; values are not looked at.
pub fn dots<T: Float>(
    queries: &[f32],
    rows: &Rows<T>,
    heads: usize,
    n_rows: usize,
    dim: usize,
    out: &mut [f32],
) {
    if fits(queries, rows, [heads, n_rows, dim], out) {
        dots_step(queries, rows, [heads, n_rows, dim], out);
    }
}

/// The same for keys of several heads that are read for the first time: those that come `next` are asked for meanwhile.
pub fn dots_ahead<T: Float>(
    queries: &[f32],
    rows: &Rows<T>,
    next: &Rows<T>,
    sizes @ [heads, n_rows, dim]: [usize; 3],
    out: &mut [f32],
) {
    if fits(queries, rows, sizes, out) {
        let ahead = Ahead::of(rows, next, Sizes::new([heads, n_rows], [dim, 0], 1.0));
        dots_ahead_step(queries, rows, &ahead, sizes, out);
    }
}

fn fits<T>(queries: &[f32], rows: &Rows<T>, [heads, n_rows, dim]: [usize; 3], out: &[f32]) -> bool {
    let reach = rows.key_shift + heads.saturating_sub(1) * rows.key_stride + dim;
    let whole = queries.len() == heads * n_rows * dim
        && out.len() == heads * n_rows * TILE
        && rows.keys.len() <= TILE
        && rows.keys.iter().all(|at| at.checked_add(reach).is_some_and(|end| end <= rows.key_data.len()));
    debug_assert!(whole, "sizes are checked where the arrays come in");
    whole
}

fn dots_step<T: Float>(queries: &[f32], rows: &Rows<T>, sizes: [usize; 3], out: &mut [f32]) {
    dispatch!(dots_kernel::<T>(queries: &[f32], rows: &Rows<T>, sizes: [usize; 3], out: &mut [f32]) where [T: Float]);
}

fn dots_ahead_step<T: Float>(
    queries: &[f32],
    rows: &Rows<T>,
    ahead: &Ahead<T>,
    sizes: [usize; 3],
    out: &mut [f32],
) {
    dispatch!(dots_ahead_kernel::<T>(
        queries: &[f32], rows: &Rows<T>, ahead: &Ahead<T>, sizes: [usize; 3], out: &mut [f32]
    ) where [T: Float]);
}

#[inline(always)]
unsafe fn dots_kernel<L: Lanes, T: Float>(
    queries: &[f32],
    rows: &Rows<T>,
    sizes: [usize; 3],
    out: &mut [f32],
) {
    // SAFETY: the caller's promise is the same.
    unsafe { score_all::<L, T, false>(queries, rows, &Ahead::none(), sizes, out) }
}

#[inline(always)]
unsafe fn dots_ahead_kernel<L: Lanes, T: Float>(
    queries: &[f32],
    rows: &Rows<T>,
    ahead: &Ahead<T>,
    sizes: [usize; 3],
    out: &mut [f32],
) {
    // SAFETY: the caller's promise is the same.
    unsafe { score_all::<L, T, true>(queries, rows, ahead, sizes, out) }
}

#[inline(always)]
unsafe fn score_all<L: Lanes, T: Float, const AHEAD: bool>(
    queries: &[f32],
    rows: &Rows<T>,
    ahead: &Ahead<T>,
    [heads, n_rows, dim]: [usize; 3],
    out: &mut [f32],
) {
    if heads == 1 && n_rows == 1 && !AHEAD {
        // SAFETY: the caller's promise is the same.
        return unsafe { one_row::<L, T>(queries, rows, dim, out) };
    }
    let group = if heads == 1 { TILE } else { 2 };
    for start in (0..rows.keys.len()).step_by(group) {
        let tokens = start..(start + group).min(rows.keys.len());
        for (head, first) in (0..heads).flat_map(|h| (0..n_rows).step_by(BLOCK).map(move |f| (h, f))) {
            let row = head * n_rows + first;
            // SAFETY: `fits` has seen that rows lie in the data; blocks of rows stay below `n_rows`.
            unsafe {
                let q = Queries { whole: queries.as_ptr().add(row * dim), brief: std::ptr::null() };
                let w = out.as_mut_ptr().add(row * TILE);
                let tokens = tokens.clone();
                match n_rows - first {
                    1 => Narrow::<L>::score::<T, 1, AHEAD>(q, rows, head, tokens, ahead, dim, w),
                    2 => Narrow::<L>::score::<T, 2, AHEAD>(q, rows, head, tokens, ahead, dim, w),
                    3 => Narrow::<L>::score::<T, 3, AHEAD>(q, rows, head, tokens, ahead, dim, w),
                    _ => Narrow::<L>::score::<T, 4, AHEAD>(q, rows, head, tokens, ahead, dim, w),
                }
            }
        }
    }
}

/// One query row: eight keys at a time, because the sums of two would wait for each other. Each sum runs as it does for several rows.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // counted loops: iterators over arrays of vectors are not unrolled
unsafe fn one_row<L: Lanes, T: Float>(query: &[f32], rows: &Rows<T>, dim: usize, out: &mut [f32]) {
    let whole = dim / WIDTH * WIDTH;
    for (offsets, out) in rows.keys.chunks(WIDTH).zip(out.chunks_exact_mut(WIDTH)) {
        // SAFETY: `fits` has seen that rows of dim elements lie in the data, and the query has as many; the caller has the features.
        unsafe {
            let mut keys = [rows.key_data.as_ptr().add(offsets[0] + rows.key_shift); WIDTH];
            for (key, offset) in keys.iter_mut().zip(offsets) {
                *key = rows.key_data.as_ptr().add(offset + rows.key_shift);
            }
            let mut sums = [L::splat(0.0); WIDTH];
            for at in (0..whole).step_by(WIDTH) {
                let x = L::load(query.as_ptr().add(at));
                for i in 0..WIDTH {
                    sums[i] = x.mul_add(T::load::<L>(keys[i].add(at)), sums[i]);
                }
            }
            L::sum_each(sums).store(out.as_mut_ptr());
            for i in 0..WIDTH {
                for at in whole..dim {
                    out[i] += query[at] * (*keys[i].add(at)).widen();
                }
            }
        }
    }
}
