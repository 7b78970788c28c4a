//! The inner step of attention: a few query rows against a few dozen rows of one KV head.

use crate::kernels::exp2::{exp2, exp2_lanes, LOG2_E};
use crate::kernels::floats::Float;
use crate::kernels::lanes::{dispatch, Lanes, WIDTH};

/// Rows of keys and values taken at once: 16 KiB of f32 keys at head_dim 128, half of a first-level cache.
pub const TILE: usize = 32;

/// Sizes of one step.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Query rows.
    pub rows: usize,
    /// Elements of a key row.
    pub head_dim: usize,
    /// Elements of a value row.
    pub v_dim: usize,
}

/// Rows of one KV head: `keys[i]` and `values[i]` are offsets of row `i` into the data.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    pub key_data: &'a [T],
    pub value_data: &'a [T],
    pub keys: &'a [usize],
    pub values: &'a [usize],
    /// Added to every offset: the KV head.
    pub key_shift: usize,
    pub value_shift: usize,
}

/// What a set of query rows has seen so far: weighted sums of values `[rows, v_dim]`, and for each row the greatest
/// exponent (base 2) and the sum of weights relative to it.
pub struct State<'a> {
    pub sums: &'a mut [f32],
    pub best: &'a mut [f32],
    pub total: &'a mut [f32],
}

/// Floats of a state.
pub fn state_len(rows: usize, v_dim: usize) -> usize {
    rows * (v_dim + 2)
}

impl<'a> State<'a> {
    /// A view of `state_len` floats, as they are.
    pub fn over(floats: &'a mut [f32], rows: usize, v_dim: usize) -> Self {
        let (sums, rest) = floats.split_at_mut(rows * v_dim);
        let (best, total) = rest.split_at_mut(rows);
        Self { sums, best, total: &mut total[..rows] }
    }

    /// The state of having seen nothing.
    pub fn clear(&mut self) {
        self.sums.fill(0.0);
        self.best.fill(f32::NEG_INFINITY);
        self.total.fill(0.0);
    }
}

/// Query rows as f32, times `scale * log2(e)`, so that weights are powers of two.
pub fn scaled_queries<'a, T: Float + 'a>(
    rows: impl Iterator<Item = &'a [T]>,
    scale: f32,
    out: &mut Vec<f32>,
) {
    let factor = scale * LOG2_E;
    out.clear();
    for row in rows {
        out.extend(row.iter().map(|x| x.widen() * factor));
    }
}

/// Scores and weights of a step.
#[derive(Default)]
pub struct Scratch {
    weights: Vec<f32>,
    fade: Vec<f32>,
}

/// Feeds up to [`TILE`] rows to the state. `next` are the rows of the coming step, fetched into the cache meanwhile.
pub fn absorb<T: Float>(
    queries: &[f32],
    rows: Rows<T>,
    next: Rows<T>,
    state: &mut State,
    sizes: Sizes,
    scratch: &mut Scratch,
) {
    let in_bounds = |rows: &Rows<T>| {
        let fits = |data: &[T], offsets: &[usize], shift: usize, dim: usize| {
            offsets.iter().all(|at| at + shift + dim <= data.len())
        };
        rows.keys.len() == rows.values.len()
            && fits(rows.key_data, rows.keys, rows.key_shift, sizes.head_dim)
            && fits(rows.value_data, rows.values, rows.value_shift, sizes.v_dim)
    };
    let whole = queries.len() == sizes.rows * sizes.head_dim
        && state.sums.len() == sizes.rows * sizes.v_dim
        && state.best.len() == sizes.rows
        && state.total.len() == sizes.rows
        && rows.keys.len() <= TILE;
    if whole && in_bounds(&rows) {
        scratch.weights.resize(sizes.rows * TILE, 0.0);
        scratch.fade.resize(sizes.rows, 0.0);
        step(queries, rows, next, state, sizes, scratch);
    } else {
        debug_assert!(false, "sizes are checked where the arrays come in");
    }
}

fn step<T: Float>(
    queries: &[f32],
    rows: Rows<T>,
    next: Rows<T>,
    state: &mut State,
    sizes: Sizes,
    scratch: &mut Scratch,
) {
    dispatch!(step_kernel::<T>(
        queries: &[f32], rows: Rows<T>, next: Rows<T>, state: &mut State, sizes: Sizes, scratch: &mut Scratch
    ) where [T: Float]);
}

/// # Safety
/// The checks of [`absorb`], and the processor features of `L`.
#[inline(always)]
unsafe fn step_kernel<L: Lanes, T: Float>(
    queries: &[f32],
    rows: Rows<T>,
    next: Rows<T>,
    state: &mut State,
    sizes: Sizes,
    scratch: &mut Scratch,
) {
    let Scratch { weights, fade } = scratch;
    let mut first = 0;
    // SAFETY: `absorb` has checked that all rows lie in the data; blocks of query rows stay below `sizes.rows`.
    unsafe {
        while first < sizes.rows {
            let left = sizes.rows - first;
            let q = queries.as_ptr().add(first * sizes.head_dim);
            let w = weights.as_mut_ptr().add(first * TILE);
            match left {
                1 => score::<L, T, 1>(q, &rows, sizes.head_dim, w),
                2 => score::<L, T, 2>(q, &rows, sizes.head_dim, w),
                3 => score::<L, T, 3>(q, &rows, sizes.head_dim, w),
                _ => score::<L, T, 4>(q, &rows, sizes.head_dim, w),
            }
            first += 4;
        }
        prefetch::<L, T>(next.key_data, next.keys, next.key_shift, sizes.head_dim);
        for row in 0..sizes.rows {
            fade[row] = weigh::<L>(
                &mut weights[row * TILE..(row + 1) * TILE],
                rows.keys.len(),
                &mut state.best[row],
                &mut state.total[row],
            );
        }
        let mut first = 0;
        while first < sizes.rows {
            let left = sizes.rows - first;
            let sums = state.sums.as_mut_ptr().add(first * sizes.v_dim);
            let w = weights.as_ptr().add(first * TILE);
            let f = fade.as_ptr().add(first);
            match left {
                1 => accumulate::<L, T, 1>(w, f, &rows, sizes.v_dim, sums),
                2 => accumulate::<L, T, 2>(w, f, &rows, sizes.v_dim, sums),
                3 => accumulate::<L, T, 3>(w, f, &rows, sizes.v_dim, sums),
                _ => accumulate::<L, T, 4>(w, f, &rows, sizes.v_dim, sums),
            }
            first += 4;
        }
        prefetch::<L, T>(next.value_data, next.values, next.value_shift, sizes.v_dim);
    }
}

/// Asks for rows ahead of their use: rows of one head lie a stride apart, which the hardware does not foresee.
#[inline(always)]
unsafe fn prefetch<L: Lanes, T>(data: &[T], offsets: &[usize], shift: usize, dim: usize) {
    const LINE: usize = 64;
    for offset in offsets {
        let row = data.as_ptr().wrapping_add(offset + shift).cast::<u8>();
        for byte in (0..dim * size_of::<T>()).step_by(LINE) {
            // SAFETY: a prefetch does not fault; the caller has the features.
            unsafe { L::prefetch(row.wrapping_add(byte)) }
        }
    }
}

/// Dot products of `N` query rows with every key row, into `out[row * TILE + key]`.
#[inline(always)]
unsafe fn score<L: Lanes, T: Float, const N: usize>(
    q: *const f32,
    rows: &Rows<T>,
    head_dim: usize,
    out: *mut f32,
) {
    let whole = head_dim / WIDTH * WIDTH;
    // Two keys at a time: eight running sums, two keys and one query fill eleven of sixteen registers.
    for i in (0..rows.keys.len()).step_by(2) {
        let j = (i + 1).min(rows.keys.len() - 1);
        // SAFETY: rows lie in the data and queries have N rows of head_dim, by the caller's promise.
        unsafe {
            let a = rows.key_data.as_ptr().add(rows.keys[i] + rows.key_shift);
            let b = rows.key_data.as_ptr().add(rows.keys[j] + rows.key_shift);
            let mut sums = [[L::splat(0.0); 2]; N];
            for at in (0..whole).step_by(WIDTH) {
                let (ka, kb) = (T::load::<L>(a.add(at)), T::load::<L>(b.add(at)));
                for (row, sum) in sums.iter_mut().enumerate() {
                    let x = L::load(q.add(row * head_dim + at));
                    sum[0] = x.mul_add(ka, sum[0]);
                    sum[1] = x.mul_add(kb, sum[1]);
                }
            }
            for (row, sum) in sums.iter().enumerate() {
                let (mut s, mut t) = (sum[0].sum_lanes(), sum[1].sum_lanes());
                for at in whole..head_dim {
                    let x = *q.add(row * head_dim + at);
                    s += x * (*a.add(at)).widen();
                    t += x * (*b.add(at)).widen();
                }
                *out.add(row * TILE + i) = s;
                *out.add(row * TILE + j) = if j > i { t } else { s };
            }
        }
    }
}

/// Turns scores of one query row into weights relative to the new greatest; returns what older sums fade by.
#[inline(always)]
unsafe fn weigh<L: Lanes>(weights: &mut [f32], n: usize, best: &mut f32, total: &mut f32) -> f32 {
    weights[n..].fill(f32::NEG_INFINITY);
    // SAFETY: weights has TILE elements, a multiple of WIDTH; the caller has the features.
    unsafe {
        let at = weights.as_mut_ptr();
        let mut top = L::splat(*best);
        for i in (0..TILE).step_by(WIDTH) {
            top = L::load(at.add(i)).max_or(top); // passes over NaN, which must not hide the others
        }
        let new_best = top.max_lane();
        let base = if new_best == f32::NEG_INFINITY { 0.0 } else { new_best };
        let mut sum = L::splat(0.0);
        for i in (0..TILE).step_by(WIDTH) {
            let z = L::load(at.add(i)).sub(L::splat(base));
            // Below 2^-125 a weight is 0, -inf included; NaN compares false and stays.
            let vanishes = L::splat(-125.0).greater(z);
            let w = L::select(vanishes, L::splat(0.0), exp2_lanes(z));
            w.store(at.add(i));
            sum = sum.add(w);
        }
        let fade = power(*best - base);
        *total = *total * fade + sum.sum_lanes();
        *best = new_best;
        fade
    }
}

/// `2^z` for z <= 0; 0 below 2^-125.
pub fn power(z: f32) -> f32 {
    if z < -125.0 {
        0.0
    } else {
        exp2(z)
    }
}

/// `sums[row] = sums[row] * fade[row] + sum over keys of weight * value` for `N` query rows.
#[inline(always)]
unsafe fn accumulate<L: Lanes, T: Float, const N: usize>(
    weights: *const f32,
    fade: *const f32,
    rows: &Rows<T>,
    v_dim: usize,
    sums: *mut f32,
) {
    let data = rows.value_data.as_ptr().wrapping_add(rows.value_shift);
    let mut at = 0;
    // SAFETY: rows lie in the data and sums have N rows of v_dim, by the caller's promise.
    unsafe {
        // Sixteen columns of four rows stay in eight registers while all values pass by.
        while at + 2 * WIDTH <= v_dim {
            let mut sum = [[L::splat(0.0); 2]; N];
            for (row, sum) in sum.iter_mut().enumerate() {
                let f = L::splat(*fade.add(row));
                let from = sums.add(row * v_dim + at);
                *sum = [L::load(from).mul(f), L::load(from.add(WIDTH)).mul(f)];
            }
            for (i, offset) in rows.values.iter().enumerate() {
                let value = data.add(offset + at);
                let (a, b) = (T::load::<L>(value), T::load::<L>(value.add(WIDTH)));
                for (row, sum) in sum.iter_mut().enumerate() {
                    let w = L::splat(*weights.add(row * TILE + i));
                    *sum = [w.mul_add(a, sum[0]), w.mul_add(b, sum[1])];
                }
            }
            for (row, sum) in sum.iter().enumerate() {
                let to = sums.add(row * v_dim + at);
                sum[0].store(to);
                sum[1].store(to.add(WIDTH));
            }
            at += 2 * WIDTH;
        }
        for at in at..v_dim {
            for row in 0..N {
                let to = sums.add(row * v_dim + at);
                let mut sum = *to * *fade.add(row);
                for (i, offset) in rows.values.iter().enumerate() {
                    sum += *weights.add(row * TILE + i) * (*data.add(offset + at)).widen();
                }
                *to = sum;
            }
        }
    }
}
