//! The inner step of attention: a few query rows against a few dozen rows of one KV head.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::wide;
use crate::kernels::exp2::{exp2, exp2_lanes, LOG2_E};
use crate::kernels::floats::{Bf16, Float};
use crate::kernels::lanes::{dispatch, Lanes, WIDTH};

/// Tokens taken at once: enough to spread the cost of the greatest score, few enough that weights stay in the first-level cache.
pub const TILE: usize = 32;
/// Query rows whose running sums fit in registers together.
pub(super) const BLOCK: usize = 4;

/// Sizes of one step.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// KV heads taken side by side.
    pub heads: usize,
    /// Query rows of each KV head.
    pub rows: usize,
    /// Elements of a key row.
    pub head_dim: usize,
    /// Elements of a value row.
    pub v_dim: usize,
    /// Multiplies every dot product: `scale * log2(e)`, so that weights are powers of two.
    pub factor: f32,
}

impl Sizes {
    /// Sizes of a step whose dot products count `scale` times.
    pub fn new([heads, rows]: [usize; 2], [head_dim, v_dim]: [usize; 2], scale: f32) -> Self {
        Self { heads, rows, head_dim, v_dim, factor: scale * LOG2_E }
    }
}

/// Tokens of one step: `keys[i]` and `values[i]` are offsets of token `i` into the data, first head.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    pub key_data: &'a [T],
    pub value_data: &'a [T],
    pub keys: &'a [usize],
    pub values: &'a [usize],
    /// Added to an offset for the first head taken.
    pub key_shift: usize,
    pub value_shift: usize,
    /// From head to head.
    pub key_stride: usize,
    pub value_stride: usize,
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

    /// Copies another state into the rows from `first`.
    pub fn put(&mut self, first: usize, other: &State, v_dim: usize) {
        let n = other.best.len();
        self.sums[first * v_dim..][..n * v_dim].copy_from_slice(other.sums);
        self.best[first..][..n].copy_from_slice(other.best);
        self.total[first..][..n].copy_from_slice(other.total);
    }

    /// The state of having seen nothing.
    pub fn clear(&mut self) {
        self.sums.fill(0.0);
        self.best.fill(f32::NEG_INFINITY);
        self.total.fill(0.0);
    }
}

/// Query rows as f32, times `scale * log2(e)`, for [`super::dots`].
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

/// Query rows as f32, for [`absorb`].
pub fn widened_queries<'a, T: Float + 'a>(rows: impl Iterator<Item = &'a [T]>, out: &mut Vec<f32>) {
    out.clear();
    for row in rows {
        out.extend(row.iter().map(|x| x.widen()));
    }
}

/// Buffers of a step.
#[derive(Default)]
pub struct Scratch {
    weights: Vec<f32>,
    fade: Vec<f32>,
    packed: Vec<f32>,
    /// Queries as bfloat16.
    brief: Vec<Bf16>,
    /// Tokens that each query row sees; all if it is empty.
    seen: Vec<usize>,
}

/// Feeds up to [`TILE`] tokens to the states of all heads (`states`: `[heads, state_len]`). `queries` are values of `T`, `next` are the
/// tokens of the coming step.
pub fn absorb<T: Float>(
    queries: &[f32],
    rows: Rows<T>,
    next: Rows<T>,
    states: &mut [f32],
    sizes: Sizes,
    scratch: &mut Scratch,
) {
    scratch.seen.clear();
    absorb_rows(queries, rows, next, states, sizes, scratch);
}

/// The same, where query row `r` sees only the first `seen[r]` of the tokens.
pub fn absorb_seen<T: Float>(
    queries: &[f32],
    rows: Rows<T>,
    seen: impl Iterator<Item = usize>,
    states: &mut [f32],
    sizes: Sizes,
    scratch: &mut Scratch,
) {
    scratch.seen.clear();
    scratch.seen.extend(seen);
    absorb_rows(queries, rows, rows, states, sizes, scratch);
}

fn absorb_rows<T: Float>(
    queries: &[f32],
    rows: Rows<T>,
    next: Rows<T>,
    states: &mut [f32],
    sizes: Sizes,
    scratch: &mut Scratch,
) {
    let last = sizes.heads.saturating_sub(1);
    let fits = |data: &[T], offsets: &[usize], reach: usize| {
        offsets.iter().all(|at| at.checked_add(reach).is_some_and(|end| end <= data.len()))
    };
    let whole = queries.len() == sizes.heads * sizes.rows * sizes.head_dim
        && states.len() == sizes.heads * state_len(sizes.rows, sizes.v_dim)
        && rows.keys.len() == rows.values.len()
        && rows.keys.len() <= TILE
        && fits(rows.key_data, rows.keys, rows.key_shift + last * rows.key_stride + sizes.head_dim)
        && fits(rows.value_data, rows.values, rows.value_shift + last * rows.value_stride + sizes.v_dim);
    if whole {
        scratch.weights.resize(sizes.heads * sizes.rows * TILE, 0.0);
        scratch.fade.resize(sizes.heads * sizes.rows, 0.0);
        step(queries, rows, next, states, sizes, scratch);
    } else {
        debug_assert!(false, "sizes are checked where the arrays come in");
    }
}

fn step<T: Float>(
    queries: &[f32],
    rows: Rows<T>,
    next: Rows<T>,
    states: &mut [f32],
    sizes: Sizes,
    scratch: &mut Scratch,
) {
    #[cfg(target_arch = "x86_64")]
    if wide::takes(sizes) {
        // SAFETY: the processor has the features; `absorb_rows` has checked the rest.
        return unsafe { wide::step(queries, rows, next, states, sizes, scratch) };
    }
    dispatch!(narrow_step::<T>(
        queries: &[f32], rows: Rows<T>, next: Rows<T>, states: &mut [f32], sizes: Sizes, scratch: &mut Scratch
    ) where [T: Float]);
}

#[inline(always)]
unsafe fn narrow_step<L: Lanes, T: Float>(
    queries: &[f32],
    rows: Rows<T>,
    next: Rows<T>,
    states: &mut [f32],
    sizes: Sizes,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller's promise is the same.
    unsafe { step_kernel::<Narrow<L>, T>(queries, rows, next, states, sizes, scratch) }
}

/// Dot products and sums by one kind of processor: eight lanes ([`Narrow`]) or sixteen ([`wide`]).
pub(super) trait Inner {
    /// For what is done once per score.
    type L: Lanes;
    /// Tokens scored together.
    const TOGETHER: usize;
    /// Whether keys of bfloat16 are multiplied as they are, by the `brief` queries.
    const PAIRS: bool;
    /// Dot products of `N` query rows with the keys of some tokens, into `out[row * TILE + token]`, up to the next multiple of `TOGETHER`.
    unsafe fn score<T: Float, const N: usize, const AHEAD: bool>(
        q: Queries,
        rows: &Rows<T>,
        head: usize,
        tokens: Range<usize>,
        ahead: &Ahead<T>,
        head_dim: usize,
        out: *mut f32,
    );
    /// Adds `weight * value` of some tokens to the sums of `N` query rows; the first token of a step fades them before.
    #[allow(clippy::too_many_arguments)]
    unsafe fn accumulate<T: Float, const N: usize, const AHEAD: bool>(
        weights: *const f32,
        fade: *const f32,
        rows: &Rows<T>,
        head: usize,
        tokens: Range<usize>,
        ahead: &Ahead<T>,
        v_dim: usize,
        sums: *mut f32,
    );
}

/// The first of some query rows, in both forms.
#[derive(Clone, Copy)]
pub(super) struct Queries {
    pub whole: *const f32,
    pub brief: *const Bf16,
}

/// # Safety
/// The checks of [`absorb`], and the processor features of `I`.
#[inline(always)]
pub(super) unsafe fn step_kernel<I: Inner, T: Float>(
    queries: &[f32],
    rows: Rows<T>,
    next: Rows<T>,
    states: &mut [f32],
    sizes: Sizes,
    scratch: &mut Scratch,
) {
    let Scratch { weights, fade, packed, brief, seen } = scratch;
    brief.clear();
    // SAFETY: the caller's promise; the packed rows are laid out just here.
    unsafe {
        if sizes.heads == 1 && sizes.rows > BLOCK {
            // Rows are read once per block of queries: widen them once, side by side.
            let n = rows.keys.len();
            packed.resize(TILE * (sizes.head_dim + sizes.v_dim), 0.0);
            let (keys, values) = packed.split_at_mut(TILE * sizes.head_dim);
            pack::<I::L, T>(rows.key_data, rows.keys, rows.key_shift, sizes.head_dim, keys);
            pack::<I::L, T>(rows.value_data, rows.values, rows.value_shift, sizes.v_dim, values);
            let key_offsets: [usize; TILE] = std::array::from_fn(|i| i * sizes.head_dim);
            let value_offsets: [usize; TILE] = std::array::from_fn(|i| i * sizes.v_dim);
            let rows = Rows {
                key_data: keys,
                value_data: values,
                keys: &key_offsets[..n],
                values: &value_offsets[..n],
                key_shift: 0,
                value_shift: 0,
                key_stride: 0,
                value_stride: 0,
            };
            phases::<I, f32, false>(
                queries,
                brief,
                &rows,
                &Ahead::none(),
                states,
                sizes,
                seen,
                weights,
                fade,
            );
        } else {
            if I::PAIRS && T::PAIRS {
                brief.extend(queries.iter().map(|x| Bf16((x.to_bits() >> 16) as u16)));
            }
            let ahead = Ahead::of(&rows, &next, sizes);
            phases::<I, T, true>(queries, brief, &rows, &ahead, states, sizes, seen, weights, fade);
        }
    }
}

#[inline(always)]
unsafe fn pack<L: Lanes, T: Float>(data: &[T], offsets: &[usize], shift: usize, dim: usize, out: &mut [f32]) {
    let whole = dim / WIDTH * WIDTH;
    for (offset, out) in offsets.iter().zip(out.chunks_exact_mut(dim.max(1))) {
        let row = &data[offset + shift..][..dim];
        for at in (0..whole).step_by(WIDTH) {
            // SAFETY: at + WIDTH <= dim, the length of both; the caller has the features.
            unsafe { T::load::<L>(row.as_ptr().add(at)).store(out.as_mut_ptr().add(at)) }
        }
        for at in whole..dim {
            out[at] = row[at].widen();
        }
    }
}

/// Scores, weights, sums. With several heads, tokens are the outer loop, so that memory is read in order.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn phases<I: Inner, T: Float, const AHEAD: bool>(
    queries: &[f32],
    brief: &[Bf16],
    rows: &Rows<T>,
    ahead: &Ahead<T>,
    states: &mut [f32],
    sizes: Sizes,
    seen: &[usize],
    weights: &mut [f32],
    fade: &mut [f32],
) {
    let n = rows.keys.len();
    let state = state_len(sizes.rows, sizes.v_dim);
    // SAFETY: the caller's promise; blocks of query rows stay below `sizes.rows`, groups of tokens below n.
    unsafe {
        let group = if sizes.heads == 1 { TILE } else { I::TOGETHER };
        for start in (0..n).step_by(group) {
            let tokens = start..(start + group).min(n);
            for head in 0..sizes.heads {
                for first in (0..sizes.rows).step_by(BLOCK) {
                    let row = head * sizes.rows + first;
                    let at = row * sizes.head_dim;
                    let q =
                        Queries { whole: queries.as_ptr().add(at), brief: brief.as_ptr().wrapping_add(at) };
                    let w = weights.as_mut_ptr().add(row * TILE);
                    let (tokens, dim) = (tokens.clone(), sizes.head_dim);
                    match sizes.rows - first {
                        1 => I::score::<T, 1, AHEAD>(q, rows, head, tokens, ahead, dim, w),
                        2 => I::score::<T, 2, AHEAD>(q, rows, head, tokens, ahead, dim, w),
                        3 => I::score::<T, 3, AHEAD>(q, rows, head, tokens, ahead, dim, w),
                        _ => I::score::<T, 4, AHEAD>(q, rows, head, tokens, ahead, dim, w),
                    }
                }
            }
        }
        for head in 0..sizes.heads {
            let state = State::over(&mut states[head * state..][..state], sizes.rows, sizes.v_dim);
            for row in 0..sizes.rows {
                let at = head * sizes.rows + row;
                let weights = &mut weights[at * TILE..][..TILE];
                let n = seen.get(at).map_or(n, |seen| n.min(*seen));
                fade[at] =
                    weigh::<I::L>(weights, n, sizes.factor, &mut state.best[row], &mut state.total[row]);
            }
        }
        let group = if sizes.heads == 1 { TILE } else { 8 };
        for start in (0..n).step_by(group) {
            let tokens = start..(start + group).min(n);
            for head in 0..sizes.heads {
                for first in (0..sizes.rows).step_by(BLOCK) {
                    let sums = states.as_mut_ptr().add(head * state + first * sizes.v_dim);
                    let row = head * sizes.rows + first;
                    let w = weights.as_ptr().add(row * TILE);
                    let f = fade.as_ptr().add(row);
                    let (tokens, dim) = (tokens.clone(), sizes.v_dim);
                    match sizes.rows - first {
                        1 => I::accumulate::<T, 1, AHEAD>(w, f, rows, head, tokens, ahead, dim, sums),
                        2 => I::accumulate::<T, 2, AHEAD>(w, f, rows, head, tokens, ahead, dim, sums),
                        3 => I::accumulate::<T, 3, AHEAD>(w, f, rows, head, tokens, ahead, dim, sums),
                        _ => I::accumulate::<T, 4, AHEAD>(w, f, rows, head, tokens, ahead, dim, sums),
                    }
                }
            }
        }
    }
}

pub(super) const LINE: usize = 64;

/// What to ask the memory for while token `i` is scored and while its value is summed, line by line because a burst of
/// prefetches stalls. Hardware foresees lines within 4 KiB only: about one token of all heads.
///
/// With one head, rows lie anywhere: its value while a key is scored, the next step's keys while values are summed. With
/// several, the row of the same kind a few tokens later.
pub(super) struct Ahead<T> {
    pub scored: [*const T; TILE],
    pub summed: [*const T; TILE],
    pub scored_stride: usize,
    pub summed_stride: usize,
}

impl<T> Ahead<T> {
    /// Tokens by which keys and values are asked for early.
    const KEYS: usize = 12;
    const VALUES: usize = 16;

    pub fn none() -> Self {
        Self {
            scored: [std::ptr::null(); TILE],
            summed: [std::ptr::null(); TILE],
            scored_stride: 0,
            summed_stride: 0,
        }
    }

    pub fn of(rows: &Rows<T>, next: &Rows<T>, sizes: Sizes) -> Self {
        let key = |rows: &Rows<T>, i: usize| {
            rows.keys.get(i).map(|at| rows.key_data.as_ptr().wrapping_add(at + rows.key_shift))
        };
        let value = |rows: &Rows<T>, i: usize| {
            rows.values.get(i).map(|at| rows.value_data.as_ptr().wrapping_add(at + rows.value_shift))
        };
        let n = rows.keys.len();
        let mut ahead = Self::none();
        for i in 0..n {
            let (scored, summed) = if sizes.heads == 1 {
                (value(rows, i), key(next, i))
            } else {
                let (k, v) = (i + Self::KEYS, i + Self::VALUES);
                (
                    if k < n { key(rows, k) } else { key(next, k - n) },
                    if v < n { value(rows, v) } else { value(next, v - n) },
                )
            };
            ahead.scored[i] = scored.unwrap_or(std::ptr::null());
            ahead.summed[i] = summed.unwrap_or(std::ptr::null());
        }
        (ahead.scored_stride, ahead.summed_stride) = (rows.key_stride, rows.value_stride);
        ahead
    }
}

/// Eight lanes.
pub(super) struct Narrow<L>(std::marker::PhantomData<L>);

impl<L: Lanes> Inner for Narrow<L> {
    type L = L;
    const TOGETHER: usize = 2;
    const PAIRS: bool = false;

    #[inline(always)]
    unsafe fn score<T: Float, const N: usize, const AHEAD: bool>(
        q: Queries,
        rows: &Rows<T>,
        head: usize,
        tokens: Range<usize>,
        ahead: &Ahead<T>,
        head_dim: usize,
        out: *mut f32,
    ) {
        let whole = head_dim / WIDTH * WIDTH;
        let shift = rows.key_shift + head * rows.key_stride;
        // Two keys at a time: eight running sums, two keys and one query fill eleven of sixteen registers.
        for i in tokens.clone().step_by(2) {
            let j = (i + 1).min(tokens.end - 1);
            // SAFETY: rows lie in the data and queries have N rows of head_dim, by the caller's promise.
            unsafe {
                let a = rows.key_data.as_ptr().add(rows.keys[i] + shift);
                let b = rows.key_data.as_ptr().add(rows.keys[j] + shift);
                let shift = head * ahead.scored_stride;
                let (c, d) = (ahead.scored[i].wrapping_add(shift), ahead.scored[j].wrapping_add(shift));
                let mut sums = [[L::splat(0.0); 2]; N];
                for at in (0..whole).step_by(WIDTH) {
                    if AHEAD && at % (LINE / size_of::<T>()) == 0 {
                        L::prefetch(c.wrapping_add(at).cast());
                        L::prefetch(d.wrapping_add(at).cast());
                    }
                    let (ka, kb) = (T::load::<L>(a.add(at)), T::load::<L>(b.add(at)));
                    for (row, sum) in sums.iter_mut().enumerate() {
                        let x = L::load(q.whole.add(row * head_dim + at));
                        sum[0] = x.mul_add(ka, sum[0]);
                        sum[1] = x.mul_add(kb, sum[1]);
                    }
                }
                let mut all = [L::splat(0.0); WIDTH];
                for (row, sum) in sums.iter().enumerate() {
                    (all[2 * row], all[2 * row + 1]) = (sum[0], sum[1]);
                }
                let mut dots = [0.0; WIDTH];
                L::sum_each(all).store(dots.as_mut_ptr());
                for row in 0..N {
                    let (mut s, mut t) = (dots[2 * row], dots[2 * row + 1]);
                    for at in whole..head_dim {
                        let x = *q.whole.add(row * head_dim + at);
                        s += x * (*a.add(at)).widen();
                        t += x * (*b.add(at)).widen();
                    }
                    *out.add(row * TILE + i) = s;
                    *out.add(row * TILE + j) = if j > i { t } else { s };
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn accumulate<T: Float, const N: usize, const AHEAD: bool>(
        weights: *const f32,
        fade: *const f32,
        rows: &Rows<T>,
        head: usize,
        tokens: Range<usize>,
        ahead: &Ahead<T>,
        v_dim: usize,
        sums: *mut f32,
    ) {
        let data = rows.value_data.as_ptr().wrapping_add(rows.value_shift + head * rows.value_stride);
        let first = tokens.start == 0;
        let mut at = 0;
        // SAFETY: rows lie in the data and sums have N rows of v_dim, by the caller's promise.
        unsafe {
            // Sixteen columns of four rows stay in eight registers while all values pass by.
            while at + 2 * WIDTH <= v_dim {
                let mut sum = [[L::splat(0.0); 2]; N];
                for (row, sum) in sum.iter_mut().enumerate() {
                    let from = sums.add(row * v_dim + at);
                    *sum = [L::load(from), L::load(from.add(WIDTH))];
                    if first {
                        let f = L::splat(*fade.add(row));
                        *sum = [sum[0].mul(f), sum[1].mul(f)];
                    }
                }
                for i in tokens.clone() {
                    if AHEAD && at % (LINE / size_of::<T>()) == 0 {
                        L::prefetch(ahead.summed[i].wrapping_add(head * ahead.summed_stride + at).cast());
                    }
                    let value = data.add(rows.values[i] + at);
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
                    let mut sum = if first { *to * *fade.add(row) } else { *to };
                    for i in tokens.clone() {
                        sum += *weights.add(row * TILE + i) * (*data.add(rows.values[i] + at)).widen();
                    }
                    *to = sum;
                }
            }
        }
    }
}

/// Turns dot products of one query row into weights relative to the new greatest; returns what older sums fade by.
#[inline(always)]
unsafe fn weigh<L: Lanes>(
    weights: &mut [f32],
    n: usize,
    factor: f32,
    best: &mut f32,
    total: &mut f32,
) -> f32 {
    // SAFETY: weights has TILE elements, a multiple of WIDTH; the caller has the features.
    unsafe {
        let at = weights.as_mut_ptr();
        for i in (0..TILE).step_by(WIDTH) {
            L::load(at.add(i)).mul(L::splat(factor)).store(at.add(i));
        }
        weights[n..].fill(f32::NEG_INFINITY);
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
