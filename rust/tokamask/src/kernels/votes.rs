//! Scores of every cached token, made comparable by a softmax per head and summed: TokenSelect's vote over all heads, FASA's
//! over the heads of a group (`python/tokamask/reference/{token_select,fasa}.py`).

use std::ops::Range;

use super::array::View;
use super::attention::tile::{dots, scaled_queries, Rows, TILE};
use super::attention::{key_offset, mismatch, PageTable};
use super::exp2::{exp2_lanes, FLOOR};
use super::floats::Float;
use super::lanes::{dispatch, Lanes, WIDTH};
use super::selection;
use super::threads;
use crate::error::ShapeError;

/// Tokens of one task.
const SPLIT: usize = 1024;

/// Scores (base-2 exponents) of some tokens of each sequence: blocks `[batch, splits, num_q_heads, SPLIT]`.
struct Scores {
    data: Vec<f32>,
    splits: usize,
    heads: usize,
    /// Tokens in a block; the rest of it is -inf.
    ranges: Vec<Range<usize>>,
}

/// Scores of the tokens in `ranges` (one per sequence). With `channels`, only those of each KV head take part.
fn score_tokens<T: Float>(
    q: View<T, 3>,
    keys: View<T, 4>,
    table: &PageTable,
    ranges: Vec<Range<usize>>,
    channels: Option<&[Vec<usize>]>,
    scale: f32,
) -> Scores {
    let [batch, heads, head_dim] = q.shape;
    let [_, page_size, num_kv_heads, _] = keys.shape;
    let group = heads / num_kv_heads;
    let splits = ranges.iter().map(|r| r.len().div_ceil(SPLIT)).max().unwrap_or(0);
    let dim = channels.map_or(head_dim, |c| c.first().map_or(0, Vec::len));
    let mut data = vec![f32::NEG_INFINITY; batch * splits * heads * SPLIT];
    let bytes = ranges.iter().map(Range::len).sum::<usize>() * num_kv_heads * head_dim * size_of::<T>();
    let scratch = || (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    threads::each_chunk(bytes, &mut data, (heads * SPLIT).max(1), scratch, |buffers, task, block| {
        let (queries, offsets, tile, packed) = buffers;
        let (b, split) = (task / splits, task % splits);
        let range = &ranges[b];
        let tokens =
            (range.start + split * SPLIT).min(range.end)..(range.start + (split + 1) * SPLIT).min(range.end);
        match channels {
            None => scaled_queries((0..heads).map(|h| q.row([b, h, 0])), scale, queries),
            Some(channels) => {
                queries.clear();
                let factor = scale * super::exp2::LOG2_E;
                for h in 0..heads {
                    let row = q.row([b, h, 0]);
                    queries.extend(channels[h / group].iter().map(|c| row[*c].widen() * factor));
                }
            }
        }
        tile.resize(heads * TILE, 0.0);
        for start in tokens.clone().step_by(TILE) {
            let pages = table.pages.row([b, 0]);
            let here = start..(start + TILE).min(tokens.end);
            offsets.clear();
            offsets.extend(here.filter_map(|t| key_offset(&keys, pages[t / page_size], t % page_size)));
            match channels {
                None => dots(
                    queries,
                    &key_rows(keys.data(), offsets, keys.strides[2]),
                    num_kv_heads,
                    group,
                    dim,
                    tile,
                ),
                Some(channels) => {
                    // Channels side by side: [token, KV head, channel].
                    packed.clear();
                    for offset in &*offsets {
                        for (head, channels) in channels.iter().enumerate() {
                            let row = &keys.data()[offset + head * keys.strides[2]..][..head_dim];
                            packed.extend(channels.iter().map(|c| row[*c].widen()));
                        }
                    }
                    let rows: Vec<usize> = (0..offsets.len()).map(|i| i * num_kv_heads * dim).collect();
                    dots(queries, &key_rows(packed, &rows, dim), num_kv_heads, group, dim, tile);
                }
            }
            for (h, scores) in tile.chunks(TILE).enumerate() {
                let at = h * SPLIT + start - tokens.start;
                block[at..at + offsets.len()].copy_from_slice(&scores[..offsets.len()]);
            }
        }
    });
    Scores { data, splits, heads, ranges }
}

/// Rows without values.
pub(crate) fn key_rows<'a, T>(data: &'a [T], keys: &'a [usize], key_stride: usize) -> Rows<'a, T> {
    Rows {
        key_data: data,
        value_data: &[],
        keys,
        values: &[],
        key_shift: 0,
        value_shift: 0,
        key_stride,
        value_stride: 0,
    }
}

impl Scores {
    fn block(&self, b: usize, split: usize, h: usize) -> &[f32] {
        &self.data[((b * self.splits + split) * self.heads + h) * SPLIT..][..SPLIT]
    }

    /// Sums the softmax of `group` heads at a time: `[batch, heads / group, width]`, -inf where no token was scored.
    fn votes(&self, group: usize, width: usize) -> Vec<f32> {
        let lists = self.heads / group;
        let batch = self.ranges.len();
        let mut norms = vec![(0.0, 0.0); batch * self.heads];
        let bytes = self.data.len() * 4;
        threads::each_chunk(
            bytes,
            &mut norms,
            1,
            || (),
            |(), i, norm| {
                let (b, h) = (i / self.heads, i % self.heads);
                let blocks = || (0..self.splits).map(|split| self.block(b, split, h));
                let best = blocks().flatten().copied().fold(f32::NEG_INFINITY, f32::max);
                let base = if best == f32::NEG_INFINITY { 0.0 } else { best };
                norm[0] = (base, blocks().map(|block| total_weight(block, base)).sum::<f32>());
            },
        );
        let mut votes = vec![f32::NEG_INFINITY; batch * lists * width];
        if width == 0 {
            return votes;
        }
        threads::each_chunk(
            bytes,
            &mut votes,
            width,
            || (),
            |(), i, votes| {
                let (b, list) = (i / lists, i % lists);
                let range = &self.ranges[b];
                votes[range.clone()].fill(0.0);
                for h in list * group..(list + 1) * group {
                    let (base, total) = norms[b * self.heads + h];
                    for (split, votes) in votes[range.clone()].chunks_mut(SPLIT).enumerate() {
                        add_weights(self.block(b, split, h), base, 1.0 / total, votes);
                    }
                }
            },
        );
        votes
    }
}

/// Sum of `2^(score - base)`; the length is a multiple of eight.
pub(crate) fn total_weight(scores: &[f32], base: f32) -> f32 {
    dispatch!(total_kernel(scores: &[f32], base: f32) -> f32)
}

#[inline(always)]
unsafe fn total_kernel<L: Lanes>(scores: &[f32], base: f32) -> f32 {
    // SAFETY: blocks are a multiple of WIDTH long; the caller has the features.
    unsafe {
        let mut sum = L::splat(0.0);
        for at in scores.chunks_exact(WIDTH) {
            sum = sum.add(weight(L::load(at.as_ptr()), base));
        }
        sum.sum_lanes()
    }
}

/// `2^(score - base)`, 0 below the floor.
#[inline(always)]
unsafe fn weight<L: Lanes>(scores: L, base: f32) -> L {
    // SAFETY: the caller has the features.
    unsafe {
        let z = scores.sub(L::splat(base));
        L::select(L::splat(FLOOR).greater(z), L::splat(0.0), exp2_lanes(z))
    }
}

/// Adds `factor * 2^(score - base)` to the votes; scores are padded to a multiple of eight.
pub(crate) fn add_weights(scores: &[f32], base: f32, factor: f32, votes: &mut [f32]) {
    dispatch!(add_kernel(scores: &[f32], base: f32, factor: f32, votes: &mut [f32]));
}

#[inline(always)]
unsafe fn add_kernel<L: Lanes>(scores: &[f32], base: f32, factor: f32, votes: &mut [f32]) {
    for (scores, votes) in scores.chunks(WIDTH).zip(votes.chunks_mut(WIDTH)) {
        // SAFETY: eight scores and eight votes, by the lengths; the caller has the features.
        unsafe {
            let mut padded = [0.0; WIDTH];
            let w = weight(L::load(scores.as_ptr()), base).mul(L::splat(factor));
            if let Ok(votes) = <&mut [f32; WIDTH]>::try_from(&mut *votes) {
                L::load(votes.as_ptr()).add(w).store(votes.as_mut_ptr());
            } else {
                w.store(padded.as_mut_ptr());
                votes.iter_mut().zip(padded).for_each(|(vote, w)| *vote += w);
            }
        }
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
    let votes = score_tokens(q, keys, table, ranges.clone(), None, scale).votes(heads, longest);
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
/// over the channels of those chunks, -inf past the end of a sequence.
pub fn fasa_scores<T: Float>(
    q: View<T, 3>,
    keys: View<T, 4>,
    table: &PageTable,
    dominant: View<i32, 2>,
    interleaved: bool,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    check_heads(&q, &keys)?;
    let [batch, heads, head_dim] = q.shape;
    let [pages, page_size, kv_heads, _] = keys.shape;
    let lengths = table.lengths(batch, page_size, pages)?;
    let width = table.pages.shape[1] * page_size;
    let half = head_dim / 2;
    let mut channels = Vec::with_capacity(kv_heads);
    for head in 0..dominant.shape[0] {
        let chunks: Option<Vec<usize>> =
            dominant.row([head, 0]).iter().map(|c| usize::try_from(*c).ok().filter(|c| *c < half)).collect();
        let Some(chunks) = chunks else {
            return Err(mismatch(
                "dominant",
                format!("chunks in [0, {half})"),
                format!("{:?}", dominant.row([head, 0])),
            ));
        };
        let pair = |c: usize| if interleaved { [2 * c, 2 * c + 1] } else { [c, c + half] };
        channels.push(chunks.into_iter().flat_map(pair).collect::<Vec<_>>());
    }
    if channels.len() != kv_heads || out.len() != batch * kv_heads * width {
        let expected = format!("{kv_heads} rows, out [{batch}, {kv_heads}, {width}]");
        return Err(mismatch(
            "dominant",
            expected,
            format!("{} rows, {} elements", channels.len(), out.len()),
        ));
    }
    let ranges = lengths.iter().map(|length| 0..*length).collect();
    let votes = score_tokens(q, keys, table, ranges, Some(&channels), 1.0).votes(heads / kv_heads, width);
    out.copy_from_slice(&votes);
    Ok(())
}
