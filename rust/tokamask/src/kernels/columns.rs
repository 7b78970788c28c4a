//! Columns of the causal attention matrix, summed (`python/tokamask/reference/columns.py`).

use super::array::View;
use super::attention::dots::{dots, key_rows};
use super::attention::mismatch;
use super::attention::tile::{scaled_queries, TILE};
use super::floats::Float;
use super::threads;
use super::votes::{add_scaled, weigh};
use crate::error::ShapeError;

/// Scores held at once, about: 4 MiB.
const HELD: usize = 1 << 20;

/// How much attention each key receives from the last queries: `q` `[queries, num_q_heads, head_dim]`, `k`
/// `[tokens, num_kv_heads, head_dim]` into `out` `[num_q_heads, tokens]`. Holds a few rows of the matrix, never all.
pub fn attention_column_sums<T: Float>(
    q: View<T, 3>,
    k: View<T, 3>,
    scale: f32,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let [queries, num_q_heads, dim] = q.shape;
    let [tokens, heads, key_dim] = k.shape;
    let fits = heads > 0 && num_q_heads % heads == 0 && dim == key_dim && queries <= tokens;
    if !fits || out.len() != num_q_heads * tokens {
        let expected = format!("at most {tokens} queries, a multiple of {heads} heads of {key_dim}");
        return Err(mismatch("q", expected, format!("{:?}", q.shape)));
    }
    out.fill(0.0);
    if tokens == 0 {
        return Ok(());
    }
    let group = num_q_heads / heads;
    let padded = tokens.next_multiple_of(TILE);
    let block = (HELD / (group * padded)).clamp(1, 16);
    let work = queries * num_q_heads * tokens * dim;
    let offsets: Vec<usize> = (0..tokens).map(|s| s * k.strides[0]).collect();
    let scratch = || (Vec::new(), Vec::new(), Vec::new());
    threads::each_chunk(work, out, group * tokens, scratch, |(query, tile, scores), head, out| {
        for first in (0..queries).step_by(block) {
            let n = block.min(queries - first);
            let rows =
                (first..first + n).flat_map(|i| (head * group..(head + 1) * group).map(move |h| (i, h)));
            scaled_queries(rows.map(|(i, h)| q.row([i, h, 0])), scale, query);
            tile.resize(n * group * TILE, 0.0);
            scores.resize(n * group * padded, 0.0);
            let reach = tokens - queries + first + n; // keys that the last query of the block sees
            for (part, offsets) in offsets[..reach].chunks(TILE).enumerate() {
                let mut keys = key_rows(k.data(), offsets, 0);
                keys.key_shift = head * k.strides[1];
                dots(query, &keys, 1, n * group, dim, tile);
                for (row, dots) in scores.chunks_exact_mut(padded).zip(tile.chunks_exact(TILE)) {
                    row[part * TILE..][..TILE].copy_from_slice(dots);
                }
            }
            for (r, row) in scores.chunks_exact_mut(padded).enumerate() {
                let seen = tokens - queries + first + r / group + 1;
                let row = &mut row[..seen.next_multiple_of(TILE)];
                row[seen..].fill(f32::NEG_INFINITY);
                let (_, total) = weigh(row);
                add_scaled(row, 1.0 / total, &mut out[r % group * tokens..][..seen]);
            }
        }
    });
    Ok(())
}
