//! Attention of many queries over chosen keys (`python/tokamask/reference/prefill.py`).
//!
//! Both operations come to the same: a block of query rows, an ascending list of keys, and of each row how many of the list it
//! sees. Keys and values are read where they lie; nothing is gathered into an array first.

use super::merge::{finish, state_row};
use super::mismatch;
use super::tile::{absorb_seen, state_len, widened_queries, Rows, Scratch, Sizes, State, TILE};
use crate::error::ShapeError;
use crate::kernels::array::View;
use crate::kernels::floats::Float;
use crate::kernels::threads;

/// Queries of one task.
const QUERIES: usize = 64;

/// Buffers of one thread.
#[derive(Default)]
struct Buffers {
    queries: Vec<f32>,
    /// The list: offsets of keys and of values.
    keys: Vec<usize>,
    values: Vec<usize>,
    /// Of each query row, how many of the list it sees.
    sees: Vec<usize>,
    state: Vec<f32>,
    wide: Vec<f32>,
    tile: Scratch,
}

impl Buffers {
    /// Attention of the query rows over the list, into `state`.
    fn attend<T: Float>(&mut self, keys: &[T], values: &[T], dims: [usize; 2], scale: f32) {
        let (rows, [_, v_dim]) = (self.sees.len(), dims);
        let sizes = Sizes::new([1, rows], dims, scale);
        self.state.resize(state_len(rows, v_dim), 0.0);
        State::over(&mut self.state, rows, v_dim).clear();
        let longest = self.sees.iter().copied().max().unwrap_or(0).min(self.keys.len());
        for start in (0..longest).step_by(TILE) {
            let end = (start + TILE).min(longest);
            let tile = Rows {
                key_data: keys,
                value_data: values,
                keys: &self.keys[start..end],
                values: &self.values[start..end],
                key_shift: 0,
                value_shift: 0,
                key_stride: 0,
                value_stride: 0,
            };
            let seen = self.sees.iter().map(|sees| sees.saturating_sub(start));
            absorb_seen(&self.queries, tile, seen, &mut self.state, sizes, &mut self.tile);
        }
    }

    /// Row `row` of the result; returns the lse.
    fn finish<T: Float>(&mut self, row: usize, v_dim: usize, out: &mut [T]) -> f32 {
        let part = state_row(&self.state, 0, self.sees.len(), v_dim, row);
        finish(std::iter::once(part), None, &mut self.wide, out)
    }
}

/// Sizes of `q` `[queries, num_q_heads, head_dim]`, `k` and `v` `[tokens, num_kv_heads, ..]` that go together.
fn group<T>(q: &View<T, 3>, k: &View<T, 3>, v: &View<T, 3>) -> Result<usize, ShapeError> {
    let ([_, heads, dim], [tokens, kv_heads, key_dim]) = (q.shape, k.shape);
    if kv_heads == 0 || heads % kv_heads != 0 || dim != key_dim {
        let expected = format!("a multiple of {kv_heads} heads of {key_dim}");
        return Err(mismatch("q", expected, format!("{:?}", q.shape)));
    }
    if v.shape[..2] != [tokens, kv_heads] {
        return Err(mismatch("v", format!("[{tokens}, {kv_heads}, v_dim]"), format!("{:?}", v.shape)));
    }
    Ok(heads / kv_heads)
}

/// Which blocks of keys each block of queries sees: those of `indices[indptr[head, i]..indptr[head, i + 1]]` for block `i`.
#[derive(Clone, Copy)]
pub struct BlockRows<'a> {
    /// `[num_kv_heads or 1, query blocks + 1]`
    pub indptr: View<'a, i32, 2>,
    /// Numbers of key blocks.
    pub indices: &'a [i32],
    /// Queries and keys of a block.
    pub size: [usize; 2],
    /// Whether a query sees no key after its own position; the last query stands at the last key.
    pub causal: bool,
}

impl BlockRows<'_> {
    fn check(&self, queries: usize, tokens: usize, kv_heads: usize) -> Result<(), ShapeError> {
        let [rows, columns] = self.size;
        if rows == 0 || columns == 0 {
            return Err(mismatch("block", "sizes above 0".to_owned(), format!("{:?}", self.size)));
        }
        let [heads, width] = self.indptr.shape;
        if (heads != 1 && heads != kv_heads) || width != queries.div_ceil(rows) + 1 {
            let expected = format!("int32 [{kv_heads} or 1, {}]", queries.div_ceil(rows) + 1);
            return Err(mismatch("indptr", expected, format!("{:?}", self.indptr.shape)));
        }
        for head in 0..heads {
            let row = self.indptr.row([head, 0]);
            let ends = row.iter().map(|at| usize::try_from(*at).unwrap_or(usize::MAX));
            if ends.clone().any(|at| at > self.indices.len()) || !ends.is_sorted() {
                let expected = format!("ascending places in indices [{}]", self.indices.len());
                return Err(mismatch("indptr", expected, format!("{row:?}")));
            }
        }
        let blocks = tokens.div_ceil(columns);
        if let Some(block) = self.indices.iter().find(|b| usize::try_from(**b).map_or(true, |b| b >= blocks))
        {
            return Err(mismatch("indices", format!("blocks in [0, {blocks})"), format!("{block}")));
        }
        Ok(())
    }

    /// Key positions of a block of queries, ascending.
    fn positions(&self, head: usize, block: usize, tokens: usize) -> Vec<usize> {
        let row = self.indptr.row([if self.indptr.shape[0] == 1 { 0 } else { head }, 0]);
        let mut blocks = self.indices[row[block] as usize..row[block + 1] as usize].to_vec();
        blocks.sort_unstable();
        let width = self.size[1];
        let of = |b: i32| (b as usize * width)..((b as usize + 1) * width).min(tokens);
        let mut positions: Vec<usize> = blocks.into_iter().flat_map(of).collect();
        positions.sort_unstable(); // a block named twice would begin again
        positions
    }
}

/// `q` `[queries, num_q_heads, head_dim]` over the keys of its blocks, into `out` `[queries, num_q_heads, v_dim]` and `lse`
/// `[queries, num_q_heads]`.
pub fn block_sparse_prefill<T: Float>(
    q: View<T, 3>,
    k: View<T, 3>,
    v: View<T, 3>,
    blocks: &BlockRows,
    scale: f32,
    out: &mut [T],
    lse: &mut [f32],
) -> Result<(), ShapeError> {
    let group = group(&q, &k, &v)?;
    let [queries, num_q_heads, head_dim] = q.shape;
    let ([tokens, kv_heads, _], v_dim) = (k.shape, v.shape[2]);
    blocks.check(queries, tokens, kv_heads)?;
    if out.len() != queries * num_q_heads * v_dim || lse.len() != queries * num_q_heads || v_dim == 0 {
        let expected = format!("[{queries}, {num_q_heads}, v_dim]");
        return Err(mismatch("out", expected, format!("{} elements, {} lse", out.len(), lse.len())));
    }
    if blocks.causal && queries > tokens {
        return Err(mismatch("q", format!("at most {tokens} queries"), format!("{queries}")));
    }
    let rows = blocks.size[0];
    let parts = out.chunks_mut(rows * num_q_heads * v_dim).zip(lse.chunks_mut(rows * num_q_heads));
    let mut parts: Vec<_> = parts.collect();
    let work = blocks.indices.len() * rows * blocks.size[1] * num_q_heads * head_dim / kv_heads.max(1);
    threads::each_chunk(work, &mut parts, 1, Buffers::default, |buffers, block, part| {
        let (out, lse) = &mut part[0];
        let first = block * rows;
        let here = first..(first + rows).min(queries);
        for head in 0..kv_heads {
            let positions = blocks.positions(head, block, tokens);
            let at = |view: &View<T, 3>, s: &usize| s * view.strides[0] + head * view.strides[1];
            buffers.keys.clear();
            buffers.keys.extend(positions.iter().map(|s| at(&k, s)));
            buffers.values.clear();
            buffers.values.extend(positions.iter().map(|s| at(&v, s)));
            buffers.sees.clear();
            for t in here.clone() {
                let until = tokens + t - queries.min(tokens + t); // position of the query
                let sees =
                    if blocks.causal { positions.partition_point(|s| *s <= until) } else { positions.len() };
                buffers.sees.extend(std::iter::repeat_n(sees, group));
            }
            let heads = head * group..(head + 1) * group;
            let pairs = here.clone().flat_map(|t| heads.clone().map(move |h| (t, h)));
            widened_queries(pairs.clone().map(|(t, h)| q.row([t, h, 0])), &mut buffers.queries);
            buffers.attend(k.data(), v.data(), [head_dim, v_dim], scale);
            for (row, (t, h)) in pairs.enumerate() {
                let to = (t - first) * num_q_heads + h;
                lse[to] = buffers.finish(row, v_dim, &mut out[to * v_dim..][..v_dim]);
            }
        }
    });
    Ok(())
}

/// Causal attention among the selected tokens of each query head, as if there were no others: `selected` `[num_q_heads, c]`
/// ascending, negative entries at the end are padding. Into `out` `[tokens, num_q_heads, v_dim]`: 0 for every other token.
pub fn selected_prefill<T: Float>(
    q: View<T, 3>,
    k: View<T, 3>,
    v: View<T, 3>,
    selected: View<i32, 2>,
    scale: f32,
    out: &mut [T],
    lse: &mut [f32],
) -> Result<(), ShapeError> {
    let group = group(&q, &k, &v)?;
    let [tokens, num_q_heads, head_dim] = q.shape;
    let ([keys, ..], v_dim) = (k.shape, v.shape[2]);
    let [lists, count] = selected.shape;
    if keys != tokens || lists != num_q_heads || out.len() != tokens * num_q_heads * v_dim || v_dim == 0 {
        let expected = format!("k and v of {tokens} tokens, selected [{num_q_heads}, any]");
        return Err(mismatch("selected", expected, format!("{keys} tokens, {:?}", selected.shape)));
    }
    let mut chosen = Vec::with_capacity(num_q_heads);
    for h in 0..num_q_heads {
        let row = selected.row([h, 0]);
        let list: Vec<usize> = row.iter().map_while(|t| usize::try_from(*t).ok()).collect();
        let rest = &row[list.len()..];
        if !list.is_sorted_by(|a, b| a < b)
            || list.last().is_some_and(|t| *t >= tokens)
            || rest.iter().any(|t| *t >= 0)
        {
            let expected = format!("ascending positions below {tokens}, then -1, for head {h}");
            return Err(mismatch("selected", expected, format!("{row:?}")));
        }
        chosen.push(list);
    }
    // Tasks: blocks of each head's list. Results are scattered afterwards.
    let blocks = count.div_ceil(QUERIES);
    let mut results = vec![0.0f32; num_q_heads * blocks * QUERIES * (v_dim + 1)];
    let work = num_q_heads * count * count * (head_dim + v_dim);
    threads::each_chunk(
        work,
        &mut results,
        QUERIES * (v_dim + 1),
        Buffers::default,
        |buffers, task, results| {
            let (h, first) = (task / blocks, task % blocks * QUERIES);
            let list = &chosen[h];
            let here = first.min(list.len())..(first + QUERIES).min(list.len());
            let at = |view: &View<T, 3>, s: &usize| s * view.strides[0] + h / group * view.strides[1];
            buffers.keys.clear();
            buffers.keys.extend(list[..here.end].iter().map(|s| at(&k, s)));
            buffers.values.clear();
            buffers.values.extend(list[..here.end].iter().map(|s| at(&v, s)));
            buffers.sees.clear();
            buffers.sees.extend(here.clone().map(|i| i + 1));
            widened_queries(here.clone().map(|i| q.row([list[i], h, 0])), &mut buffers.queries);
            buffers.attend(k.data(), v.data(), [head_dim, v_dim], scale);
            for (row, result) in results.chunks_exact_mut(v_dim + 1).take(here.len()).enumerate() {
                let (out, lse) = result.split_at_mut(v_dim);
                lse[0] = buffers.finish(row, v_dim, out);
            }
        },
    );
    out.fill(T::narrow(0.0));
    lse.fill(f32::NEG_INFINITY);
    for (h, list) in chosen.iter().enumerate() {
        let results = results[h * blocks * QUERIES * (v_dim + 1)..].chunks_exact(v_dim + 1);
        for (t, result) in list.iter().zip(results) {
            let to = t * num_q_heads + h;
            for (o, x) in out[to * v_dim..][..v_dim].iter_mut().zip(result) {
                *o = T::narrow(*x);
            }
            lse[to] = result[v_dim];
        }
    }
    Ok(())
}
