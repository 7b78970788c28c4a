//! Scores by which a finished prompt's cache is compressed: greater is kept (`python/tokamask/reference/press.py`).

use std::ops::Range;

use super::array::View;
use super::attention::mismatch;
use super::columns::attention_column_sums;
use super::floats::Float;
use super::lanes::{dispatch, Lanes, WIDTH};
use super::selection::{self, rank};
use super::threads::{self, STRETCH};
use crate::error::ShapeError;

fn check_scores<T>(k: &View<T, 3>, out: &[f32]) -> Result<(), ShapeError> {
    let [tokens, heads, _] = k.shape;
    if out.len() == tokens * heads {
        return Ok(());
    }
    Err(mismatch("out", format!("float32 [{heads}, {tokens}]"), format!("{} elements", out.len())))
}

/// `x . x` and `x . other` of one row.
pub(super) fn square_and_dot<T: Float>(x: &[T], other: &[f32]) -> (f32, f32) {
    dispatch!(square_and_dot_kernel::<T>(x: &[T], other: &[f32]) -> (f32, f32) where [T: Float])
}

#[inline(always)]
unsafe fn square_and_dot_kernel<L: Lanes, T: Float>(x: &[T], other: &[f32]) -> (f32, f32) {
    let n = x.len().min(other.len());
    let whole = n / WIDTH * WIDTH;
    // SAFETY: at + WIDTH <= n, at most both lengths; the caller has the features.
    let (mut square, mut dot) = unsafe {
        let (mut square, mut dot) = (L::splat(0.0), L::splat(0.0));
        for at in (0..whole).step_by(WIDTH) {
            let a = T::load::<L>(x.as_ptr().add(at));
            square = a.mul_add(a, square);
            dot = a.mul_add(L::load(other.as_ptr().add(at)), dot);
        }
        (square.sum_lanes(), dot.sum_lanes())
    };
    for (a, b) in x[whole..n].iter().zip(&other[whole..n]) {
        let a = a.widen();
        square += a * a;
        dot += a * b;
    }
    (square, dot)
}

/// Minus the length of each key: `k` `[tokens, num_kv_heads, head_dim]` into `out` `[num_kv_heads, tokens]`.
pub fn knorm_scores<T: Float>(k: View<T, 3>, out: &mut [f32]) -> Result<(), ShapeError> {
    check_scores(&k, out)?;
    let [tokens, heads, dim] = k.shape;
    let bytes = out.len() * dim * size_of::<T>();
    threads::each_stretch(bytes, out, [heads, tokens], || (), |(), _, rows, part| lengths(&k, rows, part));
    Ok(())
}

fn lengths<T: Float>(k: &View<T, 3>, tokens: Range<usize>, out: &mut [f32]) {
    dispatch!(lengths_kernel::<T>(k: &View<T, 3>, tokens: Range<usize>, out: &mut [f32]) where [T: Float]);
}

#[inline(always)]
unsafe fn lengths_kernel<L: Lanes, T: Float>(k: &View<T, 3>, tokens: Range<usize>, out: &mut [f32]) {
    for (i, t) in tokens.enumerate() {
        for head in 0..k.shape[1] {
            // SAFETY: the caller has the features.
            out[head * STRETCH + i] = -unsafe { square::<L, T>(k.row([t, head, 0])) }.sqrt();
        }
    }
}

/// `x . x`.
#[inline(always)]
unsafe fn square<L: Lanes, T: Float>(x: &[T]) -> f32 {
    let whole = x.len() / (2 * WIDTH) * (2 * WIDTH);
    // SAFETY: at + 2 * WIDTH <= the length; the caller has the features.
    let sum = unsafe {
        let mut sums = [L::splat(0.0); 2];
        for at in (0..whole).step_by(2 * WIDTH) {
            let (a, b) = (T::load::<L>(x.as_ptr().add(at)), T::load::<L>(x.as_ptr().add(at + WIDTH)));
            sums = [a.mul_add(a, sums[0]), b.mul_add(b, sums[1])];
        }
        sums[0].add(sums[1]).sum_lanes()
    };
    x[whole..].iter().fold(sum, |sum, x| sum + x.widen() * x.widen())
}

/// Minus the cosine between each key and the mean of all keys' directions.
pub fn keydiff_scores<T: Float>(k: View<T, 3>, out: &mut [f32]) -> Result<(), ShapeError> {
    check_scores(&k, out)?;
    let [tokens, heads, dim] = k.shape;
    if out.is_empty() {
        return Ok(());
    }
    let bytes = out.len() * dim * size_of::<T>();
    // Directions, summed by stretches of tokens and then in order, whoever did which.
    let mut sums = vec![0.0; tokens.div_ceil(STRETCH) * heads * dim];
    threads::each_chunk(
        bytes,
        &mut sums,
        (heads * dim).max(1),
        || (),
        |(), part, sums| {
            let first = part * STRETCH;
            add_directions(&k, first..(first + STRETCH).min(tokens), sums);
        },
    );
    let mut mean = vec![0.0f32; heads * dim];
    for sums in sums.chunks_exact((heads * dim).max(1)) {
        mean.iter_mut().zip(sums).for_each(|(mean, sum)| *mean += sum);
    }
    let lengths: Vec<f32> = (0..heads)
        .map(|h| mean[h * dim..][..dim].iter().map(|m| m * m).sum::<f32>().sqrt().max(1e-8))
        .collect();
    threads::each_stretch(
        bytes,
        out,
        [heads, tokens],
        || (),
        |(), _, rows, part| {
            for (i, t) in rows.enumerate() {
                for (head, length) in lengths.iter().enumerate() {
                    let (square, dot) = square_and_dot(k.row([t, head, 0]), &mean[head * dim..][..dim]);
                    part[head * STRETCH + i] = -dot / (square.sqrt().max(1e-8) * length);
                }
            }
        },
    );
    Ok(())
}

fn add_directions<T: Float>(k: &View<T, 3>, tokens: Range<usize>, sums: &mut [f32]) {
    dispatch!(directions_kernel::<T>(k: &View<T, 3>, tokens: Range<usize>, sums: &mut [f32]) where [T: Float]);
}

#[inline(always)]
unsafe fn directions_kernel<L: Lanes, T: Float>(k: &View<T, 3>, tokens: Range<usize>, sums: &mut [f32]) {
    let dim = k.shape[2];
    for t in tokens {
        for head in 0..k.shape[1] {
            let row = k.row([t, head, 0]);
            // SAFETY: the caller has the features.
            let factor = 1.0 / unsafe { square::<L, T>(row) }.sqrt().max(1e-12);
            for (sum, x) in sums[head * dim..][..dim].iter_mut().zip(row) {
                *sum += x.widen() * factor;
            }
        }
    }
}

/// Deviation of each token of a stretch from the next one: spread over the channels, each scaled by the range that the next
/// stretch has in it; then a softmax over the stretch.
fn lag_weights<T: Float>(x: &View<T, 3>, head: usize, first: usize, lag: usize) -> Vec<f64> {
    let dim = x.shape[2];
    let (mut low, mut high) = (vec![f64::INFINITY; dim], vec![f64::NEG_INFINITY; dim]);
    for t in first + lag..first + 2 * lag {
        for (c, x) in x.row([t, head, 0]).iter().enumerate() {
            let x = f64::from(x.widen());
            (low[c], high[c]) = (low[c].min(x), high[c].max(x));
        }
    }
    let spread = |t: usize| {
        let row = x.row([t, head, 0]).iter().enumerate();
        let scaled: Vec<f64> = row
            .map(|(c, x)| {
                let span = high[c] - low[c];
                if span > 0.0 {
                    (f64::from(x.widen()) - low[c]) / span
                } else {
                    0.0
                }
            })
            .collect();
        let mean = scaled.iter().sum::<f64>() / dim as f64;
        let square: f64 = scaled.iter().map(|x| (x - mean) * (x - mean)).sum();
        (square / (dim as f64 - 1.0).max(1.0)).sqrt()
    };
    let spreads: Vec<f64> = (first..first + lag).map(spread).collect();
    let best = spreads.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = spreads.iter().map(|s| (s - best).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / total).collect()
}

/// The rank of each token within its stretch of `lag` tokens, judged against the next stretch; the first `n_init` tokens and those
/// without a next stretch get 1.
pub fn lagkv_scores<T: Float>(
    k: View<T, 3>,
    v: View<T, 3>,
    n_init: usize,
    lag: usize,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    check_scores(&k, out)?;
    let [tokens, heads, _] = k.shape;
    if v.shape[..2] != k.shape[..2] || lag == 0 {
        let expected = format!("[{tokens}, {heads}, v_dim], lag above 0");
        return Err(mismatch("v", expected, format!("{:?}, lag {lag}", v.shape)));
    }
    let work = tokens * (k.shape[2] + v.shape[2]) * 8;
    threads::each_chunk(
        work,
        out,
        tokens.max(1),
        || (),
        |(), head, out| {
            if tokens < n_init + 2 * lag {
                let rest = tokens.saturating_sub(n_init) as f32;
                for (t, out) in out.iter_mut().enumerate() {
                    *out = if t < n_init { 1.0 } else { (t - n_init) as f32 / rest };
                }
                return;
            }
            out.fill(1.0);
            let stretches = (tokens - n_init) / lag - 1;
            for first in (0..stretches).map(|s| n_init + s * lag) {
                let (of_k, of_v) = (lag_weights(&k, head, first, lag), lag_weights(&v, head, first, lag));
                let score = |i: &usize| of_k[*i] + of_v[*i];
                let mut order: Vec<usize> = (0..lag).collect();
                order.sort_by(|a, b| score(a).total_cmp(&score(b))); // stable: ties by lowest token
                for (place, i) in order.into_iter().enumerate() {
                    out[first + i] = place as f32 / lag as f32;
                }
            }
        },
    );
    Ok(())
}

/// Means over `kernel` neighbours, zeros beyond the ends.
fn pooled(row: &[f32], kernel: usize) -> Vec<f32> {
    let reach = kernel / 2;
    let mean = |i: usize| {
        let near = &row[i.saturating_sub(reach)..(i + reach + 1).min(row.len())];
        near.iter().sum::<f32>() / kernel as f32
    };
    (0..row.len()).map(mean).collect()
}

/// Attention of the last queries (`q` `[window, num_q_heads, head_dim]`) to each earlier key, mean over queries, per query head
/// and pooled: `[num_q_heads, tokens - window]`.
fn window_attention<T: Float>(
    q: View<T, 3>,
    k: View<T, 3>,
    scale: f32,
    kernel: usize,
) -> Result<Vec<Vec<f32>>, ShapeError> {
    let ([window, num_q_heads, _], tokens) = (q.shape, k.shape[0]);
    if kernel % 2 == 0 || window == 0 {
        let expected = "an odd kernel and a query or more".to_owned();
        return Err(mismatch("kernel", expected, format!("{kernel}, {window} queries")));
    }
    let mut sums = vec![0.0; num_q_heads * tokens];
    attention_column_sums(q, k, scale, &mut sums)?;
    let before = tokens - window;
    let rows = sums.chunks_exact(tokens).map(|row| {
        let means: Vec<f32> = row[..before].iter().map(|x| x / window as f32).collect();
        pooled(&means, kernel)
    });
    Ok(rows.collect())
}

/// Attention of the last queries to each key, mean over the heads of a group (over all heads where `one_list`); the window itself
/// gets one more than the greatest.
pub fn window_scores<T: Float>(
    q: View<T, 3>,
    k: View<T, 3>,
    scale: f32,
    kernel: usize,
    one_list: bool,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    check_scores(&k, out)?;
    let ([window, num_q_heads, _], [tokens, heads, _]) = (q.shape, k.shape);
    let rows = window_attention(q, k, scale, kernel)?;
    let group = if one_list { num_q_heads } else { num_q_heads / heads };
    let mut best = f32::NEG_INFINITY;
    for (head, out) in out.chunks_exact_mut(tokens).enumerate() {
        let from = if one_list { 0 } else { head * group };
        for (t, out) in out[..tokens - window].iter_mut().enumerate() {
            *out = rows[from..from + group].iter().map(|row| row[t]).sum::<f32>() / group as f32;
            best = best.max(*out);
        }
    }
    let top = if best > f32::NEG_INFINITY { best + 1.0 } else { 1.0 };
    for out in out.chunks_exact_mut(tokens) {
        out[tokens - window..].fill(top);
    }
    Ok(())
}

/// Token Sparse Attention's choice for each query head: the last `window` tokens, and of those before as many as the heads' mean
/// attention needs to cover all but a share of `coverage`, at least `min_tokens`. Rows of equal length, ascending.
pub fn token_sparse_select<T: Float>(
    q: View<T, 3>,
    k: View<T, 3>,
    scale: f32,
    kernel: usize,
    coverage: f32,
    min_tokens: usize,
) -> Result<Vec<Vec<i32>>, ShapeError> {
    let ([window, num_q_heads, _], tokens) = (q.shape, k.shape[0]);
    let all = || vec![(0..tokens as i32).collect(); num_q_heads];
    if tokens <= min_tokens + window || coverage <= 0.0 {
        return Ok(all());
    }
    let mut rows = window_attention(q, k, scale, kernel)?;
    let before = tokens - window;
    for row in &mut rows {
        let total = row.iter().sum::<f32>() + 1e-8;
        for x in row {
            *x /= total;
        }
    }
    let mut mean: Vec<f32> =
        (0..before).map(|t| rows.iter().map(|row| row[t]).sum::<f32>() / num_q_heads as f32).collect();
    let total = mean.iter().sum::<f32>() + 1e-8;
    for x in &mut mean {
        *x /= total;
    }
    mean.sort_unstable_by(f32::total_cmp);
    let mut running = 0.0;
    let below = mean.iter().take_while(|x| {
        running += **x;
        running < coverage
    });
    let dropped = match below.count() {
        0 => return Ok(all()),
        n => (n + 1).min(before),
    };
    let keep = (before - dropped).max(min_tokens).min(before);
    let choose = |row: &Vec<f32>| {
        let mut order: Vec<u64> = row.iter().enumerate().map(|(t, x)| rank(*x, t)).collect();
        order.sort_unstable_by(|a, b| b.cmp(a));
        order.truncate(keep);
        let mut chosen: Vec<i32> = order.into_iter().map(|r| selection::position_of(r) as i32).collect();
        chosen.sort_unstable();
        chosen.extend(before as i32..tokens as i32);
        chosen
    };
    Ok(rows.iter().map(choose).collect())
}
