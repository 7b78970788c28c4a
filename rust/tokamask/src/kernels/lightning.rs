//! Linear attention with decay (`python/tokamask/reference/lightning.py`).
//!
//! The recurrence itself, blocked for the cache: eight rows and eight columns of the state stay in registers while a block of
//! tokens passes by. Unlike the chunked form it needs no powers of the decay, so nothing under- or overflows, and one
//! decode step is the same code.

use super::array::View;
use super::attention::mismatch;
use super::floats::Float;
use super::lanes::{dispatch, Lanes, WIDTH};
use super::threads;
use crate::error::ShapeError;

/// Tokens of a block.
const BLOCK: usize = 64;

#[derive(Default)]
struct Buffers {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    o: Vec<f32>,
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
        let fade = (-decay[h]).exp();
        for first in (0..tokens).step_by(BLOCK) {
            let n = BLOCK.min(tokens - first);
            let Buffers { q: qs, k: ks, v: vs, o } = &mut *buffers;
            for (wide, view) in [(&mut *qs, &q), (&mut *ks, &k), (&mut *vs, &v)] {
                wide.clear();
                (first..first + n)
                    .for_each(|t| wide.extend(view.row([b, h, t, 0]).iter().map(|x| x.widen())));
            }
            o.clear();
            o.resize(n * dv, 0.0);
            let sizes = Sizes { n, dk, dv, fade };
            block(buffers, state, sizes);
            for (to, from) in out[first * dv..].iter_mut().zip(&buffers.o) {
                *to = T::narrow(*from);
            }
        }
    });
    Ok(())
}

#[derive(Clone, Copy)]
struct Sizes {
    n: usize,
    dk: usize,
    dv: usize,
    fade: f32,
}

fn block(buffers: &mut Buffers, state: &mut [f32], sizes: Sizes) {
    dispatch!(block_kernel(buffers: &mut Buffers, state: &mut [f32], sizes: Sizes));
}

#[inline(always)]
unsafe fn block_kernel<L: Lanes>(buffers: &mut Buffers, state: &mut [f32], sizes: Sizes) {
    const ROWS: usize = 8;
    let Sizes { n, dk, dv, fade } = sizes;
    let Buffers { q, k, v, o } = buffers;
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
