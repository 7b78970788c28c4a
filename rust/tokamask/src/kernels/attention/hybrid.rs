//! Softmax over a few tokens joined with linear attention over the rest (`python/tokamask/reference/hybrid.py`).

use super::mismatch;
use super::tile::{absorb, power, state_len, widened_queries, Rows, Scratch, Sizes, State, TILE};
use crate::error::ShapeError;
use crate::kernels::array::View;
use crate::kernels::floats::Float;
use crate::kernels::saliency::add_scaled;
use crate::kernels::threads;

/// Which tokens stay for the softmax when they leave the window, and the features of the others.
#[derive(Clone, Copy)]
pub struct Routed<'a> {
    /// `[batch, heads, tokens]`
    pub salient: View<'a, bool, 3>,
    /// `[batch, heads, tokens, features]`, not negative.
    pub phi_q: View<'a, f32, 4>,
    /// The same for keys.
    pub phi_k: View<'a, f32, 4>,
    /// The last tokens, the query's own included, that the softmax always takes.
    pub window: usize,
}

/// Buffers of one thread.
#[derive(Default)]
struct Buffers {
    query: Vec<f32>,
    salient: Vec<usize>,
    tokens: Vec<usize>,
    keys: Vec<usize>,
    values: Vec<usize>,
    state: Vec<f32>,
    /// Sum of `phi_k v^T`, and behind it the sum of `phi_k`.
    linear: Vec<f32>,
    wide: Vec<f32>,
    tile: Scratch,
}

/// `q`, `k` `[batch, heads, tokens, head_dim]`, `v` `[batch, heads, tokens, v_dim]` into `out` `[batch, heads, tokens, v_dim]`.
pub fn hybrid_attention<T: Float>(
    q: View<T, 4>,
    k: View<T, 4>,
    v: View<T, 4>,
    routed: &Routed,
    scale: f32,
    out: &mut [T],
) -> Result<(), ShapeError> {
    let [batch, heads, tokens, head_dim] = q.shape;
    let (v_dim, features) = (v.shape[3], routed.phi_q.shape[3]);
    let fits = k.shape == q.shape
        && v.shape[..3] == q.shape[..3]
        && routed.salient.shape == q.shape[..3]
        && routed.phi_q.shape[..3] == q.shape[..3]
        && routed.phi_k.shape == routed.phi_q.shape
        && routed.window > 0
        && out.len() == batch * heads * tokens * v_dim;
    if !fits {
        let expected =
            format!("k like q {:?}, v, salient, phi_q and phi_k beside it, window above 0", q.shape);
        let got = format!("{:?}, {:?}, {:?}", k.shape, v.shape, routed.phi_q.shape);
        return Err(mismatch("k", expected, got));
    }
    if out.is_empty() {
        return Ok(());
    }
    let work = out.len() * (routed.window + features);
    threads::each_chunk(work, out, tokens * v_dim, Buffers::default, |buffers, task, out| {
        let (b, h) = (task / heads, task % heads);
        let Buffers { query, salient, tokens: list, keys, values, state, linear, wide, tile } = buffers;
        let sizes = Sizes::new([1, 1], [head_dim, v_dim], scale);
        salient.clear();
        linear.clear();
        linear.resize(features * (v_dim + 1), 0.0);
        state.resize(state_len(1, v_dim), 0.0);
        for t in 0..tokens {
            if let Some(left) = t.checked_sub(routed.window) {
                if routed.salient.row([b, h, 0])[left] {
                    salient.push(left);
                } else {
                    wide.clear();
                    wide.extend(v.row([b, h, left, 0]).iter().map(|x| x.widen()));
                    let (sums, norm) = linear.split_at_mut(features * v_dim);
                    for (f, phi) in routed.phi_k.row([b, h, left, 0]).iter().enumerate() {
                        norm[f] += phi;
                        add_scaled(&mut sums[f * v_dim..][..v_dim], *phi, wide);
                    }
                }
            }
            list.clear();
            list.extend_from_slice(salient);
            list.extend((t + 1).saturating_sub(routed.window)..=t);
            let at = |view: &View<T, 4>, s: &usize| {
                b * view.strides[0] + h * view.strides[1] + s * view.strides[2]
            };
            keys.clear();
            keys.extend(list.iter().map(|s| at(&k, s)));
            values.clear();
            values.extend(list.iter().map(|s| at(&v, s)));
            widened_queries(std::iter::once(q.row([b, h, t, 0])), query);
            State::over(state, 1, v_dim).clear();
            for (keys, values) in keys.chunks(TILE).zip(values.chunks(TILE)) {
                let (key_data, value_data) = (k.data(), v.data());
                let rows = Rows {
                    key_data,
                    value_data,
                    keys,
                    values,
                    key_shift: 0,
                    value_shift: 0,
                    key_stride: 0,
                    value_stride: 0,
                };
                absorb(query, rows, rows, state, sizes, tile);
            }
            // Both parts relative to 2^base, so that neither overflows.
            let soft = State::over(state, 1, v_dim);
            let base = soft.best[0].max(0.0);
            let (weight, unit) = (power(soft.best[0] - base), power(-base));
            wide.clear();
            wide.extend(soft.sums.iter().map(|x| x * weight));
            let mut total = soft.total[0] * weight;
            for (f, phi) in routed.phi_q.row([b, h, t, 0]).iter().enumerate() {
                add_scaled(wide, phi * unit, &linear[f * v_dim..][..v_dim]);
                total += phi * unit * linear[features * v_dim + f];
            }
            for (o, x) in out[t * v_dim..][..v_dim].iter_mut().zip(&*wide) {
                *o = T::narrow(x / total);
            }
        }
    });
    Ok(())
}
