//! Linear attention with decay (`python/tokamask/reference/lightning.py`).
//!
//! Two forms. The recurrence, blocked for the cache: eight rows and eight columns of the state stay in registers while a block of
//! tokens passes by; it runs for a few tokens, as decoding has. The chunked form of Lightning Attention-2, for prompts: within a chunk
//! scores and values, across chunks the state, all of it products of matrices. Powers of the decay are taken one by one, never divided by
//! one another, so where they vanish they are 0.

use super::array::View;
use super::attention::mismatch;
use super::floats::Float;
use super::lanes::{dispatch, Lanes, WIDTH};
use super::product::{product, Left, Right};
use super::threads;
use crate::error::ShapeError;

/// Tokens of a block of the recurrence.
const BLOCK: usize = 64;
/// Tokens of a chunk: the work within it grows with it, and a state is read and written once per chunk.
const CHUNK: usize = 32;
/// Queries of a chunk that are taken together: earlier ones are spared the scores of later keys.
const STRIP: usize = 16;

#[derive(Default)]
struct Buffers {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    o: Vec<f32>,
    /// Keys of a chunk side by side, `[dk, CHUNK]`.
    turned: Vec<f32>,
    scores: Vec<f32>,
}

/// `q`, `k` `[batch, heads, tokens, dk]`, `v` `[batch, heads, tokens, dv]`, `decay` `[heads]` slopes; `state`
/// `[batch, heads, dk, dv]` is read and replaced, `out` is `[batch, heads, tokens, dv]`.
pub fn lightning<T: Float>(
    q: View<T, 4>,
    k: View<T, 4>,
    v: View<T, 4>,
    decay: &[f32],
    state: &mut [f32],
    out: &mut [T],
) -> Result<(), ShapeError> {
    let [batch, heads, tokens, dk] = q.shape;
    let dv = v.shape[3];
    let fits = k.shape == q.shape && v.shape[..3] == q.shape[..3] && decay.len() == heads;
    if !fits || state.len() != batch * heads * dk * dv || out.len() != batch * heads * tokens * dv {
        let expected = format!("k like q {:?}, v [{batch}, {heads}, {tokens}, dv], decay [{heads}]", q.shape);
        return Err(mismatch(
            "k",
            expected,
            format!("{:?}, v {:?}, decay {}", k.shape, v.shape, decay.len()),
        ));
    }
    if dk * dv == 0 || batch * heads == 0 {
        out.fill(T::narrow(0.0));
        return Ok(());
    }
    // Tokens may be none, and then there is no output to pair with a state.
    let outputs = out.chunks_mut((tokens * dv).max(1)).map(Some).chain(std::iter::repeat_with(|| None));
    let mut tasks: Vec<_> = state.chunks_mut(dk * dv).zip(outputs).collect();
    let work = tokens * batch * heads * dk * dv;
    threads::each_chunk(work, &mut tasks, 1, Buffers::default, |buffers, task, chunk| {
        let (b, h) = (task / heads, task % heads);
        let [(state, Some(out))] = chunk else { return };
        let reach = if tokens < STRIP { 1 } else { CHUNK };
        let powers: Vec<f32> = (0..=reach).map(|n| (f64::from(-decay[h]) * n as f64).exp() as f32).collect();
        let size = if tokens < STRIP { BLOCK } else { CHUNK };
        for first in (0..tokens).step_by(size) {
            let n = size.min(tokens - first);
            let Buffers { q: qs, k: ks, v: vs, o, .. } = &mut *buffers;
            for (wide, view) in [(&mut *qs, &q), (&mut *ks, &k), (&mut *vs, &v)] {
                wide.clear();
                (first..first + n)
                    .for_each(|t| wide.extend(view.row([b, h, t, 0]).iter().map(|x| x.widen())));
            }
            o.clear();
            o.resize(n * dv, 0.0);
            // Within a strip later values count 0 times, which must be 0.
            if tokens < STRIP || !is_finite(vs) {
                block(buffers, state, Sizes { n, dk, dv, fade: powers[1] });
            } else {
                chunk_of(buffers, state, [n, dk, dv], &powers);
            }
            for (to, from) in out[first * dv..].iter_mut().zip(&buffers.o) {
                *to = T::narrow(*from);
            }
        }
    });
    Ok(())
}

fn is_finite(values: &[f32]) -> bool {
    let greatest = values.iter().fold(0, |most, x| (x.to_bits() & 0x7FFF_FFFF).max(most));
    greatest < f32::INFINITY.to_bits()
}

#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    dk: usize,
    dv: usize,
    fade: f32,
}

/// One chunk of `n` tokens: `o = (Q K' . M) V + L Q S`, `S = lam^n S + (R K)' V`, where `M[t, s] = lam^(t - s)` for s <= t, `L` has
/// `lam^(t + 1)` and `R` `lam^(n - 1 - t)` in row t.
fn chunk_of(buffers: &mut Buffers, state: &mut [f32], [n, dk, dv]: [usize; 3], powers: &[f32]) {
    let Buffers { q, k, v, o, turned, scores } = buffers;
    turned.resize(dk * CHUNK, 0.0);
    scores.resize(STRIP * CHUNK, 0.0);
    for (t, key) in k.chunks_exact(dk).enumerate() {
        for (i, x) in key.iter().enumerate() {
            turned[i * CHUNK + t] = *x;
        }
    }
    for first in (0..n).step_by(STRIP) {
        let rows = STRIP.min(n - first);
        let seen = first + rows;
        let queries = Left { data: &q[first * dk..], row: dk, inner: 1 };
        product(queries, Right { data: turned, stride: CHUNK }, [rows, dk, seen], 0.0, (scores, CHUNK));
        for (row, scores) in scores.chunks_exact_mut(CHUNK).take(rows).enumerate() {
            let t = first + row;
            scores[..=t].iter_mut().zip(powers[..=t].iter().rev()).for_each(|(score, power)| *score *= power);
            scores[t + 1..seen].fill(0.0);
        }
        let weights = Left { data: scores, row: CHUNK, inner: 1 };
        product(weights, Right { data: v, stride: dv }, [rows, seen, dv], 0.0, (&mut o[first * dv..], dv));
    }
    for (row, power) in q.chunks_exact_mut(dk).zip(&powers[1..]) {
        for x in row {
            *x *= power;
        }
    }
    product(
        Left { data: q, row: dk, inner: 1 },
        Right { data: state, stride: dv },
        [n, dk, dv],
        1.0,
        (o, dv),
    );
    for (row, power) in k.chunks_exact_mut(dk).zip(powers[..n].iter().rev()) {
        for x in row {
            *x *= power;
        }
    }
    let keys = Left { data: k, row: 1, inner: dk };
    product(keys, Right { data: v, stride: dv }, [dk, n, dv], powers[n], (state, dv));
}

fn block(buffers: &mut Buffers, state: &mut [f32], sizes: Sizes) {
    dispatch!(block_kernel(buffers: &mut Buffers, state: &mut [f32], sizes: Sizes));
}

#[inline(always)]
unsafe fn block_kernel<L: Lanes>(buffers: &mut Buffers, state: &mut [f32], sizes: Sizes) {
    const ROWS: usize = 8;
    let Sizes { n, dk, dv, fade } = sizes;
    let Buffers { q, k, v, o, .. } = buffers;
    let whole = (dk / ROWS * ROWS, dv / WIDTH * WIDTH);
    for row in (0..whole.0).step_by(ROWS) {
        for column in (0..whole.1).step_by(WIDTH) {
            // SAFETY: row + ROWS <= dk, column + WIDTH <= dv, t < n: inside all four buffers and the state, whose sizes
            // were checked or set by the caller; the caller has the features.
            unsafe {
                let fade = L::splat(fade);
                let at = state.as_mut_ptr().add(row * dv + column);
                let mut s = [L::splat(0.0); ROWS];
                for (i, s) in s.iter_mut().enumerate() {
                    *s = L::load(at.add(i * dv));
                }
                for t in 0..n {
                    let value = L::load(v.as_ptr().add(t * dv + column));
                    let (key, query) = (k.as_ptr().add(t * dk + row), q.as_ptr().add(t * dk + row));
                    let to = o.as_mut_ptr().add(t * dv + column);
                    let mut sum = L::load(to);
                    for (i, s) in s.iter_mut().enumerate() {
                        *s = L::splat(*key.add(i)).mul_add(value, s.mul(fade));
                        sum = L::splat(*query.add(i)).mul_add(*s, sum);
                    }
                    sum.store(to);
                }
                for (i, s) in s.iter().enumerate() {
                    s.store(at.add(i * dv));
                }
            }
        }
    }
    // What is left of the state: rows beyond a multiple of ROWS, columns beyond a multiple of WIDTH.
    for row in 0..dk {
        let from = if row < whole.0 { whole.1 } else { 0 };
        for column in from..dv {
            let s = &mut state[row * dv + column];
            for t in 0..n {
                *s = *s * fade + k[t * dk + row] * v[t * dv + column];
                o[t * dv + column] += q[t * dk + row] * *s;
            }
        }
    }
}
