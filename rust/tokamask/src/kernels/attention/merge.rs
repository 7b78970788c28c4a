//! Joining attention over disjoint parts.

use super::tile::{power, state_len};
use crate::error::ShapeError;
use crate::kernels::array::View;
use crate::kernels::exp2::LOG2_E;
use crate::kernels::floats::Float;
use crate::kernels::reduction::add_scaled;
use crate::kernels::threads;

/// One query row out of several states: normalised values into `out`; returns the natural-log lse.
///
/// `states` yields, for each part, the sums of this row, its best exponent and its total.
pub fn finish<'s, T: Float>(
    states: impl Iterator<Item = (&'s [f32], f32, f32)> + Clone,
    sink: Option<f32>,
    wide: &mut Vec<f32>,
    out: &mut [T],
) -> f32 {
    let best = states.clone().map(|(_, best, _)| best).fold(f32::NEG_INFINITY, f32::max);
    let base = if best == f32::NEG_INFINITY { 0.0 } else { best };
    wide.clear();
    wide.resize(out.len(), 0.0);
    let mut total = 0.0;
    for (sums, best, part) in states {
        let weight = power(best - base);
        if weight > 0.0 || part.is_nan() {
            total += weight * part;
            for (w, x) in wide.iter_mut().zip(sums) {
                *w += weight * x;
            }
        }
    }
    if total == 0.0 {
        out.fill(T::narrow(0.0));
        return f32::NEG_INFINITY;
    }
    let lse = best / LOG2_E + total.ln();
    let kept = sink.map_or(1.0, |sink| 1.0 / (1.0 + (sink - lse).exp()));
    let factor = kept / total;
    for (o, w) in out.iter_mut().zip(wide) {
        *o = T::narrow(*w * factor);
    }
    lse
}

/// The lse of one row from the bests and totals of its states.
pub fn finish_lse(states: impl Iterator<Item = (f32, f32)> + Clone) -> f32 {
    let best = states.clone().map(|(best, _)| best).fold(f32::NEG_INFINITY, f32::max);
    let base = if best == f32::NEG_INFINITY { 0.0 } else { best };
    let weigh = |(best, part): (f32, f32)| {
        let weight = power(best - base);
        if weight > 0.0 || part.is_nan() {
            weight * part
        } else {
            0.0
        }
    };
    let total: f32 = states.map(weigh).sum();
    if total == 0.0 {
        f32::NEG_INFINITY
    } else {
        best / LOG2_E + total.ln()
    }
}

/// Row `row` of the state `part`: its sums, best and total.
pub fn state_row(states: &[f32], part: usize, rows: usize, v_dim: usize, row: usize) -> (&[f32], f32, f32) {
    let state = &states[part * state_len(rows, v_dim)..][..state_len(rows, v_dim)];
    let after = rows * v_dim;
    (&state[row * v_dim..][..v_dim], state[after + row], state[after + rows + row])
}

/// `v` `[n, parts, heads, dim]` with natural-log `lse` `[n, parts, heads]` into `out` `[n, heads, dim]` and `lse_out`
/// `[n, heads]`. A part with lse -inf weighs nothing, whatever its values; no part gives 0 and -inf.
pub fn merge_states<T: Float>(
    v: View<T, 4>,
    lse: &[f32],
    out: &mut [T],
    lse_out: &mut [f32],
) -> Result<(), ShapeError> {
    let [n, parts, heads, dim] = v.shape;
    if lse.len() != n * parts * heads || out.len() != n * heads * dim || lse_out.len() != n * heads {
        return Err(super::mismatch(
            "lse",
            format!("[{n}, {parts}, {heads}]"),
            format!("{} elements, out {}, lse_out {}", lse.len(), out.len(), lse_out.len()),
        ));
    }
    // The values of a row and its lse, side by side: their weights are the same.
    let mut outs = out.chunks_exact_mut(dim.max(1));
    let mut rows: Vec<(&mut [T], &mut f32)> =
        lse_out.iter_mut().map(|lse| (outs.next().unwrap_or_default(), lse)).collect();
    let bytes = n * parts * heads * dim * size_of::<T>();
    threads::each_chunk(
        bytes,
        &mut rows,
        16,
        || (vec![0.0; dim], vec![0.0; parts]),
        |(wide, weights), part, rows| {
            for (row, (out, lse_out)) in rows.iter_mut().enumerate() {
                let (i, h) = ((16 * part + row) / heads, (16 * part + row) % heads);
                let of = |part| lse[(i * parts + part) * heads + h];
                let best = (0..parts).map(of).fold(f32::NEG_INFINITY, f32::max);
                let base = if best == f32::NEG_INFINITY { 0.0 } else { best };
                for (part, weight) in weights.iter_mut().enumerate() {
                    *weight = (of(part) - base).exp();
                }
                let total: f32 = weights.iter().sum();
                **lse_out = if total == 0.0 { f32::NEG_INFINITY } else { best + total.ln() };
                wide.fill(0.0);
                for (part, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                    add_scaled(wide, *weight, v.row([i, part, h, 0]));
                }
                let factor = if total == 0.0 { 0.0 } else { 1.0 / total };
                for (o, w) in out.iter_mut().zip(&*wide) {
                    *o = T::narrow(*w * factor);
                }
            }
        },
    );
    Ok(())
}
