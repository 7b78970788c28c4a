//! Scores of every cached token, made comparable by a softmax per head and summed: TokenSelect's vote over all heads, FASA's
//! over the heads of a group (`python/tokamask/reference/{token_select,fasa}.py`).

use std::ops::Range;

use super::array::View;
use super::attention::dots::{dots_ahead, key_rows};
use super::attention::tile::{scaled_queries, Rows, TILE};
use super::attention::{key_offset, mismatch, PageTable};
use super::exp2::{exp2, exp2_lanes, FLOOR, LOG2_E};
use super::floats::Float;
use super::lanes::{dispatch, Lanes, WIDTH};
use super::selection;
use super::threads;
use crate::error::ShapeError;

/// Tokens of one task.
const SPLIT: usize = 1024;

/// What each head gives to some tokens of each sequence. A block `[batch, splits]` holds for each head the weights of SPLIT tokens, 0
/// behind the last, relative to the greatest score among them; then that score and the sum of weights of each head.
struct Scores {
    data: Vec<f32>,
    splits: usize,
    heads: usize,
    /// Tokens that take part, by sequence.
    ranges: Vec<Range<usize>>,
}

/// Which channels of the keys count.
enum Channels {
    All,
    /// All channels are in the cache, these of each KV head count: queries are 0 elsewhere.
    Among(Vec<Vec<usize>>),
    /// Nothing else is in the cache.
    Alone(Vec<Vec<usize>>),
}

impl Channels {
    /// Query rows of a sequence as they are multiplied, times `scale * log2(e)`.
    fn queries<T: Float>(&self, q: View<T, 3>, b: usize, scale: f32, out: &mut Vec<f32>) {
        let [_, heads, dim] = q.shape;
        let rows = (0..heads).map(|h| q.row([b, h, 0]));
        let (Self::Among(lists) | Self::Alone(lists)) = self else { return scaled_queries(rows, scale, out) };
        let (factor, group) = (scale * LOG2_E, heads / lists.len().max(1));
        out.clear();
        for (h, row) in rows.enumerate() {
            let list = &lists[h / group];
            if matches!(self, Self::Alone(_)) {
                out.extend(list.iter().map(|c| row[*c].widen() * factor));
                continue;
            }
            let first = out.len();
            out.resize(first + dim, 0.0);
            for c in list {
                out[first + c] += row[*c].widen() * factor; // a channel named twice counts twice
            }
        }
    }
}

/// Weights of the tokens in `ranges` (one per sequence).
fn score_tokens<T: Float>(
    q: View<T, 3>,
    keys: View<T, 4>,
    table: &PageTable,
    ranges: Vec<Range<usize>>,
    channels: &Channels,
    scale: f32,
) -> Scores {
    let [batch, heads, _] = q.shape;
    let [_, page_size, num_kv_heads, dim] = keys.shape;
    let group = heads / num_kv_heads;
    let splits = ranges.iter().map(|r| r.len().div_ceil(SPLIT)).max().unwrap_or(0);
    let mut data = vec![0.0; batch * splits * heads * (SPLIT + 2)];
    let bytes = ranges.iter().map(Range::len).sum::<usize>() * num_kv_heads * dim * size_of::<T>();
    let scratch = || (Vec::new(), Vec::new(), Vec::new());
    threads::each_chunk(bytes, &mut data, (heads * (SPLIT + 2)).max(1), scratch, |buffers, task, block| {
        let (queries, offsets, tile) = buffers;
        let (b, split) = (task / splits, task % splits);
        let Range { start, end } = ranges[b];
        let tokens = (start + split * SPLIT).min(end)..(start + (split + 1) * SPLIT).min(end);
        channels.queries(q, b, scale, queries);
        let pages = table.pages.row([b, 0]);
        offsets.clear();
        offsets.extend(tokens.filter_map(|t| key_offset(&keys, pages[t / page_size], t % page_size)));
        tile.resize(heads * TILE, 0.0);
        let (weights, norms) = block.split_at_mut(heads * SPLIT);
        let rows_at = |part: usize| {
            let here = part * TILE..((part + 1) * TILE).min(offsets.len());
            key_rows(keys.data(), offsets.get(here).unwrap_or_default(), keys.strides[2])
        };
        for part in 0..offsets.len().div_ceil(TILE) {
            let rows = rows_at(part);
            dots_ahead(queries, &rows, &rows_at(part + 1), [num_kv_heads, group, dim], tile);
            if let Channels::Among(lists) = channels {
                without_others(tile, queries, &rows, lists, [group, dim]);
            }
            for (scores, dots) in weights.chunks_exact_mut(SPLIT).zip(tile.chunks_exact(TILE)) {
                scores[part * TILE..][..rows.keys.len()].copy_from_slice(&dots[..rows.keys.len()]);
            }
        }
        let (best, total) = norms.split_at_mut(heads);
        for (h, scores) in weights.chunks_exact_mut(SPLIT).enumerate() {
            scores[offsets.len()..].fill(f32::NEG_INFINITY);
            (best[h], total[h]) = weigh(scores);
        }
    });
    Scores { data, splits, heads, ranges }
}

/// Scores that are not finite again, from the channels of the list alone: 0 times what stands in another need not be 0.
fn without_others<T: Float>(
    tile: &mut [f32],
    queries: &[f32],
    rows: &Rows<T>,
    lists: &[Vec<usize>],
    [group, dim]: [usize; 2],
) {
    for (h, scores) in tile.chunks_exact_mut(TILE).enumerate() {
        for (score, at) in scores.iter_mut().zip(rows.keys).filter(|(score, _)| !score.is_finite()) {
            let mut list = lists[h / group].clone();
            list.sort_unstable();
            list.dedup(); // the query has it as often as it counts
            let key = &rows.key_data[at + h / group * rows.key_stride..][..dim];
            *score = list.iter().map(|c| queries[h * dim + c] * key[*c].widen()).sum();
        }
    }
}

impl Scores {
    fn block(&self, b: usize, split: usize) -> &[f32] {
        let size = self.heads * (SPLIT + 2);
        &self.data[(b * self.splits + split) * size..][..size]
    }

    /// The greatest score of a head in a block, and the sum of weights.
    fn norm(&self, b: usize, split: usize, h: usize) -> (f32, f32) {
        let norms = &self.block(b, split)[self.heads * SPLIT..];
        (norms[h], norms[self.heads + h])
    }

    /// What the weights of each block must be multiplied by to be those of a softmax over the sequence: `[batch, splits, heads]`.
    fn factors(&self) -> Vec<f32> {
        let mut factors = Vec::with_capacity(self.ranges.len() * self.splits * self.heads);
        for b in 0..self.ranges.len() {
            let whole = |h: usize| {
                let parts = || (0..self.splits).map(|split| self.norm(b, split, h));
                let best = parts().map(|(best, _)| best).fold(f32::NEG_INFINITY, f32::max);
                let base = if best == f32::NEG_INFINITY { 0.0 } else { best };
                (base, parts().map(|(best, total)| faded(best - base, total)).sum::<f32>())
            };
            let wholes: Vec<(f32, f32)> = (0..self.heads).map(whole).collect();
            for split in 0..self.splits {
                let factor = |(h, (base, total)): (usize, &(f32, f32))| {
                    faded(self.norm(b, split, h).0 - base, 1.0) / total
                };
                factors.extend(wholes.iter().enumerate().map(factor));
            }
        }
        factors
    }

    /// Sums the softmax of `group` heads at a time into `votes` `[batch, heads / group, width]`, -inf where no token was scored.
    fn votes(&self, group: usize, width: usize, votes: &mut [f32]) {
        let lists = self.heads / group;
        let factors = self.factors();
        threads::each_chunk(
            self.data.len() * 4,
            votes,
            SPLIT,
            || (),
            |(), part, mut votes| {
                let mut at = part * SPLIT;
                while !votes.is_empty() {
                    let (list, first) = (at / width, at % width);
                    let (now, later) = votes.split_at_mut(votes.len().min(width - first));
                    at += now.len();
                    let (b, heads) = (list / lists, list % lists * group);
                    self.add(b, heads..heads + group, first, &factors, now);
                    votes = later;
                }
            },
        );
    }

    /// The votes of some heads for the tokens from `first`.
    fn add(&self, b: usize, heads: Range<usize>, first: usize, factors: &[f32], votes: &mut [f32]) {
        let Range { start, end } = self.ranges[b];
        let (from, to) = (start.max(first), end.min(first + votes.len()));
        votes.fill(f32::NEG_INFINITY);
        if from >= to {
            return;
        }
        votes[from - first..to - first].fill(0.0);
        for split in (from - start) / SPLIT..(to - start).div_ceil(SPLIT) {
            let here = (start + split * SPLIT).max(from)..(start + (split + 1) * SPLIT).min(to);
            let skipped = here.start - start - split * SPLIT;
            for h in heads.clone() {
                let weights = &self.block(b, split)[h * SPLIT + skipped..][..here.len()];
                let factor = factors[(b * self.splits + split) * self.heads + h];
                add_scaled(weights, factor, &mut votes[here.start - first..][..here.len()]);
            }
        }
    }
}

/// `x * 2^z` for z <= 0, 0 below the floor; NaN stays.
fn faded(z: f32, x: f32) -> f32 {
    if z < FLOOR {
        0.0
    } else {
        x * exp2(z)
    }
}

/// Turns scores into `2^(score - greatest)`; returns the greatest and the sum. The length is a multiple of eight.
pub(crate) fn weigh(scores: &mut [f32]) -> (f32, f32) {
    dispatch!(weigh_kernel(scores: &mut [f32]) -> (f32, f32))
}

#[inline(always)]
unsafe fn weigh_kernel<L: Lanes>(scores: &mut [f32]) -> (f32, f32) {
    // SAFETY: chunks are WIDTH long; the caller has the features.
    unsafe {
        let mut top = L::splat(f32::NEG_INFINITY);
        for at in scores.chunks_exact(WIDTH) {
            top = L::load(at.as_ptr()).max_or(top); // passes over NaN
        }
        let best = top.max_lane();
        let base = L::splat(if best == f32::NEG_INFINITY { 0.0 } else { best });
        let mut sum = L::splat(0.0);
        for at in scores.chunks_exact_mut(WIDTH) {
            let z = L::load(at.as_ptr()).sub(base);
            let weight = L::select(L::splat(FLOOR).greater(z), L::splat(0.0), exp2_lanes(z));
            weight.store(at.as_mut_ptr());
            sum = sum.add(weight);
        }
        (best, sum.sum_lanes())
    }
}

/// Adds `factor * weight` to the votes.
pub(crate) fn add_scaled(weights: &[f32], factor: f32, votes: &mut [f32]) {
    dispatch!(add_kernel(weights: &[f32], factor: f32, votes: &mut [f32]));
}

#[inline(always)]
unsafe fn add_kernel<L: Lanes>(weights: &[f32], factor: f32, votes: &mut [f32]) {
    for (vote, weight) in votes.iter_mut().zip(weights) {
        *vote += weight * factor;
    }
}

fn check_heads<T>(q: &View<T, 3>, keys: &View<T, 4>) -> Result<(), ShapeError> {
    let ([_, heads, dim], [_, page_size, kv_heads, key_dim]) = (q.shape, keys.shape);
    if kv_heads > 0 && heads % kv_heads == 0 && dim == key_dim && page_size > 0 {
        return Ok(());
    }
    let expected = format!("a multiple of {kv_heads} heads of {key_dim}");
    Err(mismatch("q", expected, format!("{heads} heads of {dim}")))
}

/// TokenSelect: into `out` `[batch, n_init + k + n_local]` the first `n_init` tokens, the `k` with most votes between, and the
/// last `n_local`; a sequence that is no longer is kept whole. Ascending, padded with -1.
pub fn token_select<T: Float>(
    q: View<T, 3>,
    keys: View<T, 4>,
    table: &PageTable,
    [n_init, k, n_local]: [usize; 3],
    scale: f32,
    out: &mut [i32],
) -> Result<(), ShapeError> {
    check_heads(&q, &keys)?;
    let [batch, heads, _] = q.shape;
    let lengths = table.lengths(batch, keys.shape[1], keys.shape[0])?;
    let width = n_init + k + n_local;
    if out.len() != batch * width {
        return Err(mismatch(
            "out",
            format!("int32 [{batch}, 1, {width}]"),
            format!("{} elements", out.len()),
        ));
    }
    let middle = |length: &usize| if *length <= width { 0..0 } else { n_init..length - n_local };
    let ranges: Vec<_> = lengths.iter().map(middle).collect();
    let longest = ranges.iter().map(|r| r.end).max().unwrap_or(0);
    let mut votes = vec![0.0; batch * longest];
    score_tokens(q, keys, table, ranges.clone(), &Channels::All, scale).votes(heads, longest, &mut votes);
    for (b, range) in ranges.into_iter().enumerate() {
        let out = &mut out[b * width..][..width];
        if range.is_empty() {
            out.iter_mut().enumerate().for_each(|(i, o)| *o = if i < lengths[b] { i as i32 } else { -1 });
            continue;
        }
        let (first, rest) = out.split_at_mut(n_init);
        let (chosen, last) = rest.split_at_mut(k);
        first.iter_mut().zip(0..).for_each(|(o, i)| *o = i);
        last.iter_mut().zip(range.end as i32..).for_each(|(o, i)| *o = i);
        selection::top_k_row(&votes[b * longest..][range], k, &mut selection::Scratch::default(), chosen);
        for o in chosen.iter_mut() {
            *o += n_init as i32;
        }
    }
    Ok(())
}

/// FASA: `dominant` `[num_kv_heads, n]` chunk numbers; into `out` `[batch, num_kv_heads, width]` the summed softmax of each group
/// over the channels of those chunks, -inf past the end of a sequence. Keys of `2 n` channels are those channels alone, the first of each
/// pair before the second.
pub fn fasa_scores<T: Float>(
    q: View<T, 3>,
    keys: View<T, 4>,
    table: &PageTable,
    dominant: View<i32, 2>,
    interleaved: bool,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let [batch, heads, head_dim] = q.shape;
    let [pages, page_size, kv_heads, key_dim] = keys.shape;
    let [lists, chunks] = dominant.shape;
    let is_side = key_dim == 2 * chunks && key_dim != head_dim;
    if !is_side {
        check_heads(&q, &keys)?;
    } else if kv_heads == 0 || heads % kv_heads != 0 || page_size == 0 {
        return Err(mismatch("q", format!("a multiple of {kv_heads} heads"), format!("{heads} heads")));
    }
    let lengths = table.lengths(batch, page_size, pages)?;
    let width = table.pages.shape[1] * page_size;
    let half = head_dim / 2;
    if lists != kv_heads || out.len() != batch * kv_heads * width {
        let expected = format!("{kv_heads} rows, out [{batch}, {kv_heads}, {width}]");
        return Err(mismatch("dominant", expected, format!("{lists} rows, {} elements", out.len())));
    }
    let mut channels = Vec::with_capacity(kv_heads);
    for head in 0..kv_heads {
        let row = dominant.row([head, 0]);
        let chunk = |c: &i32| usize::try_from(*c).ok().filter(|c| *c < half);
        let Some(chunks) = row.iter().map(chunk).collect::<Option<Vec<usize>>>() else {
            return Err(mismatch("dominant", format!("chunks in [0, {half})"), format!("{row:?}")));
        };
        let member = |c: &usize, second: usize| if interleaved { 2 * c + second } else { c + second * half };
        channels.push([0, 1].into_iter().flat_map(|s| chunks.iter().map(move |c| member(c, s))).collect());
    }
    let channels = if is_side { Channels::Alone(channels) } else { Channels::Among(channels) };
    let ranges = lengths.iter().map(|length| 0..*length).collect();
    score_tokens(q, keys, table, ranges, &channels, 1.0).votes(heads / kv_heads, width, out);
    Ok(())
}
