//! Dense and sparse decode: one query per sequence.

use super::merge::{finish, finish_lse, state_row};
use super::tile::{absorb, state_len, widened_queries, Rows, Scratch, Sizes, State, TILE};
use super::{mismatch, Cache, Options, PageTable};
use crate::error::ShapeError;
use crate::kernels::array::View;
use crate::kernels::floats::Float;
use crate::kernels::threads;

/// Tokens of one split. Joining costs a state per split: below 1 % of the keys and values read at head_dim 128.
const SPLIT: usize = 512;

/// Token positions `[batch, num_kv_heads or 1, k]`; those outside `[0, seq_len)` are holes.
pub type Selected<'a> = View<'a, i32, 3>;

/// Buffers of one thread.
#[derive(Default)]
struct Buffers {
    queries: Vec<f32>,
    keys: Vec<usize>,
    values: Vec<usize>,
    tile: Scratch,
}

/// Attention of `q` `[batch, num_q_heads, head_dim]` over all tokens of each sequence, into `out`
/// `[batch, num_q_heads, v_dim]` and `lse` `[batch, num_q_heads]`.
pub fn decode<T: Float>(
    q: View<T, 3>,
    cache: &Cache<T>,
    table: &PageTable,
    options: &Options,
    out: &mut [T],
    lse: &mut [f32],
) -> Result<(), ShapeError> {
    let [batch, num_q_heads, head_dim] = q.shape;
    let [pages, page_size, num_kv_heads, _] = cache.keys.shape;
    let group = cache.group(num_q_heads, head_dim)?;
    let lengths = table.lengths(batch, page_size, pages)?;
    let v_dim = cache.values.shape[3];
    check_outputs(batch * num_q_heads, v_dim, options, num_q_heads, out, lse)?;

    // All heads of a token lie together: one task takes every head of its split, so that memory is read in order.
    let splits = lengths.iter().max().map_or(0, |longest| longest.div_ceil(SPLIT));
    let sizes = Sizes::new([num_kv_heads, group], [head_dim, v_dim], options.scale);
    let state = num_kv_heads * state_len(group, v_dim);
    let mut states = vec![0.0; batch * splits * state];
    let bytes = lengths.iter().sum::<usize>() * num_kv_heads * (head_dim + v_dim) * size_of::<T>();
    threads::each_chunk(bytes, &mut states, state.max(1), Buffers::default, |buffers, task, states| {
        let (b, split) = (task / splits, task % splits);
        let tokens = (split * SPLIT).min(lengths[b])..((split + 1) * SPLIT).min(lengths[b]);
        let pages = table.pages.row([b, 0]);
        let Buffers { queries, keys, values, tile } = buffers;
        widened_queries((0..num_q_heads).map(|h| q.row([b, h, 0])), queries);
        keys.clear();
        values.clear();
        for token in tokens {
            if let Some([k, v]) = cache.offsets(pages[token / page_size], token % page_size) {
                keys.push(k);
                values.push(v);
            }
        }
        for chunk in states.chunks_mut(state_len(group, v_dim)) {
            State::over(chunk, group, v_dim).clear();
        }
        for start in (0..keys.len()).step_by(TILE) {
            let rows = rows_at(cache, keys, values, start, 0);
            let next = rows_at(cache, keys, values, (start + TILE).min(keys.len()), 0);
            absorb(queries, rows, next, states, sizes, tile);
        }
    });
    let parts = |b: usize, h: usize| {
        let states = &states;
        (0..splits).map(move |split| {
            state_row(states, (b * splits + split) * num_kv_heads + h / group, group, v_dim, h % group)
        })
    };
    finish_rows(num_q_heads, v_dim, parts, options, out, lse);
    Ok(())
}

/// Attention over the selected tokens only. A token named twice counts twice.
pub fn sparse_decode<T: Float>(
    q: View<T, 3>,
    cache: &Cache<T>,
    table: &PageTable,
    selected: Selected,
    options: &Options,
    out: &mut [T],
    lse: &mut [f32],
) -> Result<(), ShapeError> {
    let [batch, num_q_heads, head_dim] = q.shape;
    let [pages, page_size, num_kv_heads, _] = cache.keys.shape;
    let group = cache.group(num_q_heads, head_dim)?;
    let lengths = table.lengths(batch, page_size, pages)?;
    let v_dim = cache.values.shape[3];
    check_outputs(batch * num_q_heads, v_dim, options, num_q_heads, out, lse)?;
    let [rows, lists, k] = selected.shape;
    if rows != batch || (lists != 1 && lists != num_kv_heads) {
        let expected = format!("int32 [{batch}, {num_kv_heads} or 1, k]");
        return Err(mismatch("selected", expected, format!("{:?}", selected.shape)));
    }

    let splits = k.div_ceil(SPLIT);
    let sizes = Sizes::new([1, group], [head_dim, v_dim], options.scale);
    let state = state_len(group, v_dim);
    let mut states = vec![0.0; batch * num_kv_heads * splits * state];
    let bytes = batch * num_kv_heads * k * (head_dim + v_dim) * size_of::<T>();
    threads::each_chunk(bytes, &mut states, state.max(1), Buffers::default, |buffers, task, state| {
        let (b, head, split) = (task / splits / num_kv_heads, task / splits % num_kv_heads, task % splits);
        let list = selected.row([b, if lists == 1 { 0 } else { head }, 0]);
        let list = &list[split * SPLIT..((split + 1) * SPLIT).min(k)];
        let pages = table.pages.row([b, 0]);
        let Buffers { queries, keys, values, tile } = buffers;
        let heads = head * group..(head + 1) * group;
        widened_queries(heads.map(|h| q.row([b, h, 0])), queries);
        keys.clear();
        values.clear();
        for token in list.iter().filter_map(|t| usize::try_from(*t).ok()).filter(|t| *t < lengths[b]) {
            if let Some([k, v]) = cache.offsets(pages[token / page_size], token % page_size) {
                keys.push(k);
                values.push(v);
            }
        }
        State::over(state, group, v_dim).clear();
        for start in (0..keys.len()).step_by(TILE) {
            let rows = rows_at(cache, keys, values, start, head);
            let next = rows_at(cache, keys, values, (start + TILE).min(keys.len()), head);
            absorb(queries, rows, next, state, sizes, tile);
        }
    });
    let parts = |b: usize, h: usize| {
        let states = &states;
        let first = (b * num_kv_heads + h / group) * splits;
        (first..first + splits).map(move |part| state_row(states, part, group, v_dim, h % group))
    };
    finish_rows(num_q_heads, v_dim, parts, options, out, lse);
    Ok(())
}

/// Up to `TILE` rows of a head from `start`.
pub(super) fn rows_at<'a, T>(
    cache: &Cache<'a, T>,
    keys: &'a [usize],
    values: &'a [usize],
    start: usize,
    head: usize,
) -> Rows<'a, T> {
    let end = (start + TILE).min(keys.len());
    Rows {
        key_data: cache.keys.data(),
        value_data: cache.values.data(),
        keys: &keys[start..end],
        values: &values[start..end],
        key_shift: head * cache.keys.strides[2],
        value_shift: head * cache.values.strides[2],
        key_stride: cache.keys.strides[2],
        value_stride: cache.values.strides[2],
    }
}

pub(super) fn check_outputs<T>(
    rows: usize,
    v_dim: usize,
    options: &Options,
    num_q_heads: usize,
    out: &[T],
    lse: &[f32],
) -> Result<(), ShapeError> {
    let sinks = options.sinks.map_or(num_q_heads, <[f32]>::len);
    if out.len() == rows * v_dim && lse.len() == rows && sinks == num_q_heads {
        return Ok(());
    }
    let expected = format!("{rows} rows of {v_dim}, {rows} lse and {num_q_heads} sinks");
    Err(mismatch("out", expected, format!("{} elements, {} lse, {sinks} sinks", out.len(), lse.len())))
}

/// Joins the states of every (sequence, query head): `parts(b, h)` yields them.
fn finish_rows<'s, T: Float, I: Iterator<Item = (&'s [f32], f32, f32)> + Clone>(
    num_q_heads: usize,
    v_dim: usize,
    parts: impl Fn(usize, usize) -> I + Sync + Send,
    options: &Options,
    out: &mut [T],
    lse: &mut [f32],
) {
    for (i, lse) in lse.iter_mut().enumerate() {
        *lse = finish_lse(parts(i / num_q_heads, i % num_q_heads).map(|(_, best, total)| (best, total)));
    }
    if v_dim > 0 {
        let bytes = out.len() * 16;
        threads::each_chunk(bytes, out, v_dim, Vec::new, |wide, i, out| {
            let (b, h) = (i / num_q_heads, i % num_q_heads);
            finish(parts(b, h), options.sinks.map(|sinks| sinks[h]), wide, out);
        });
    }
}
