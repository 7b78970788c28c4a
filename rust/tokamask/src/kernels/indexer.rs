//! The lightning indexer and HISA (`python/tokamask/reference/indexer.py`).

use super::array::View;
use super::attention::dots::{dots, key_rows};
use super::attention::mismatch;
use super::attention::tile::TILE;
use super::floats::Float;
use super::selection::{self, top_k_row};
use super::threads;
use crate::error::ShapeError;

/// Keys of one task of [`indexer_scores`].
const SPLIT: usize = 2048;

/// Queries `[queries, heads, d]`, keys `[tokens, d]`, weights `[queries, heads]`, positions `[queries]`.
#[derive(Clone, Copy)]
pub struct Indexer<'a, T> {
    /// Queries.
    pub q: View<'a, T, 3>,
    /// One shared key head.
    pub k: View<'a, T, 2>,
    /// Weights of the heads, any sign.
    pub w: View<'a, f32, 2>,
    /// Query `t` sees keys up to `positions[t]`.
    pub positions: &'a [i32],
}

impl<T: Float> Indexer<'_, T> {
    fn check(&self) -> Result<(), ShapeError> {
        let [queries, heads, dim] = self.q.shape;
        if self.k.shape[1] == dim && self.w.shape == [queries, heads] && self.positions.len() == queries {
            return Ok(());
        }
        let expected = format!("k [tokens, {dim}], w [{queries}, {heads}], positions [{queries}]");
        let got = format!("k {:?}, w {:?}, positions [{}]", self.k.shape, self.w.shape, self.positions.len());
        Err(mismatch("q", expected, got))
    }

    fn seen(&self, t: usize) -> usize {
        usize::try_from(i64::from(self.positions[t]) + 1).unwrap_or(0).min(self.k.shape[0])
    }

    fn query(&self, t: usize, buffers: &mut Buffers) {
        let heads = self.q.shape[1];
        buffers.query.clear();
        for h in 0..heads {
            buffers.query.extend(self.q.row([t, h, 0]).iter().map(|x| x.widen()));
        }
        buffers.tile.resize(heads * TILE, 0.0);
    }
}

#[derive(Default)]
struct Buffers {
    query: Vec<f32>,
    tile: Vec<f32>,
    offsets: Vec<usize>,
    scores: Vec<f32>,
    candidates: Vec<usize>,
    selection: selection::Scratch,
}

/// `sum over heads of w * relu(q . k)` for keys at some offsets, into `out`.
fn index<U: Float>(
    keys: &[U],
    offsets: &[usize],
    w: &[f32],
    query: &[f32],
    tile: &mut [f32],
    out: &mut [f32],
) {
    let dim = query.len() / w.len().max(1);
    for (offsets, out) in offsets.chunks(TILE).zip(out.chunks_mut(TILE)) {
        dots(query, &key_rows(keys, offsets, 0), 1, w.len(), dim, tile);
        let mut sums = [0.0; TILE];
        for (dots, w) in tile.chunks_exact(TILE).zip(w) {
            for (sum, dot) in sums.iter_mut().zip(dots) {
                *sum += w * dot.max(0.0);
            }
        }
        out.copy_from_slice(&sums[..out.len()]);
    }
}

/// Scores of every key for every query into `out` `[queries, tokens]`, -inf after the query's position.
pub fn indexer_scores<T: Float>(indexer: &Indexer<T>, out: &mut [f32]) -> Result<(), ShapeError> {
    indexer.check()?;
    let [queries, heads, dim] = indexer.q.shape;
    let tokens = indexer.k.shape[0];
    if out.len() != queries * tokens {
        return Err(mismatch("out", format!("[{queries}, {tokens}]"), format!("{} elements", out.len())));
    }
    let parts = tokens.div_ceil(SPLIT);
    // One query is cut into parts, many queries are taken row by row.
    let (chunk, parts) = if queries == 1 { (SPLIT, parts) } else { (tokens, 1) };
    let work = queries * tokens * (heads * dim / 4 + 4);
    threads::each_chunk(work, out, chunk.max(1), Buffers::default, |buffers, task, out| {
        let (t, first) = (task / parts.max(1), task % parts.max(1) * SPLIT);
        let seen = indexer.seen(t).saturating_sub(first).min(out.len());
        indexer.query(t, buffers);
        let Buffers { query, tile, offsets, .. } = buffers;
        offsets.clear();
        offsets.extend((first..first + seen).map(|s| s * indexer.k.strides[0]));
        index(indexer.k.data(), offsets, indexer.w.row([t, 0]), query, tile, &mut out[..seen]);
        out[seen..].fill(f32::NEG_INFINITY);
    });
    Ok(())
}

/// The `n_tokens` best keys of the `n_blocks` best blocks, ascending and -1 padded, into `out` `[queries, n_tokens]`.
pub fn hisa_select<T: Float>(
    indexer: &Indexer<T>,
    [n_tokens, n_blocks, block]: [usize; 3],
    out: &mut [i32],
) -> Result<(), ShapeError> {
    indexer.check()?;
    let [queries, heads, dim] = indexer.q.shape;
    let tokens = indexer.k.shape[0];
    if out.len() != queries * n_tokens || n_blocks < 2 || block == 0 {
        let expected = format!("out [{queries}, {n_tokens}], at least 2 blocks, of at least 1 key");
        return Err(mismatch("out", expected, format!("{} elements, {n_blocks} of {block}", out.len())));
    }
    let mut means = Vec::with_capacity(tokens.div_ceil(block) * dim);
    for first in (0..tokens).step_by(block) {
        let n = block.min(tokens - first);
        let mut sums = vec![0.0f64; dim];
        for s in first..first + n {
            for (sum, x) in sums.iter_mut().zip(indexer.k.row([s, 0])) {
                *sum += f64::from(x.widen());
            }
        }
        means.extend(sums.iter().map(|sum| (sum / n as f64) as f32));
    }
    if n_tokens == 0 {
        return Ok(());
    }
    let work = queries * n_blocks * block * (heads * dim / 4 + 4);
    threads::each_chunk(work, out, n_tokens, Buffers::default, |buffers, t, out| {
        out.fill(-1);
        let seen = indexer.seen(t);
        if seen == 0 {
            return;
        }
        indexer.query(t, buffers);
        let w = indexer.w.row([t, 0]);
        let Buffers { query, tile, offsets, scores, candidates, selection } = buffers;
        let last = (seen - 1) / block;
        offsets.clear();
        offsets.extend((0..=last).map(|i| i * dim));
        scores.resize(last + 1, 0.0);
        index(&means, offsets, w, query, tile, scores);
        scores[0] = f32::INFINITY;
        scores[last] = f32::INFINITY;
        let mut kept = vec![-1; n_blocks];
        top_k_row(scores, n_blocks, selection, &mut kept);
        candidates.clear();
        for i in kept.into_iter().filter_map(|i| usize::try_from(i).ok()) {
            candidates.extend(i * block..((i + 1) * block).min(seen));
        }
        offsets.clear();
        offsets.extend(candidates.iter().map(|s| s * indexer.k.strides[0]));
        scores.resize(candidates.len(), 0.0);
        index(indexer.k.data(), offsets, w, query, tile, scores);
        top_k_row(scores, n_tokens, selection, out);
        for slot in out.iter_mut() {
            *slot = usize::try_from(*slot).map_or(-1, |i| candidates[i] as i32);
        }
    });
    Ok(())
}
