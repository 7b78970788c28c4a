//! Attention of the nodes of a draft tree over the cached prefix and their own ancestors.

use super::decode::{check_outputs, rows_at};
use super::merge::{finish, finish_lse, state_row};
use super::tile::{absorb, state_len, widened_queries, Rows, Scratch, Sizes, State, TILE};
use super::{mismatch, Cache, Options, PageTable};
use crate::error::ShapeError;
use crate::kernels::array::View;
use crate::kernels::floats::Float;
use crate::kernels::threads;

/// Tokens of one split of the prefix: longer than for decode, because a state holds every node.
const SPLIT: usize = 2048;

/// The tree part: keys and values of the nodes `[batch, nodes, num_kv_heads, dim]`, and which nodes each node sees:
/// `mask` `[batch or 1, nodes, ceil(nodes / 64)]`, bit `j % 64` of word `j / 64`.
#[derive(Clone, Copy)]
pub struct Tree<'a, T> {
    /// Keys.
    pub keys: View<'a, T, 4>,
    /// Values.
    pub values: View<'a, T, 4>,
    /// Ancestors and self.
    pub mask: View<'a, u64, 3>,
}

impl<T> Tree<'_, T> {
    fn mask_row(&self, b: usize, node: usize) -> &[u64] {
        self.mask.row([if self.mask.shape[0] == 1 { 0 } else { b }, node, 0])
    }

    fn visible(&self, b: usize, node: usize) -> impl Iterator<Item = usize> + '_ {
        let words = self.mask_row(b, node);
        (0..self.keys.shape[1]).filter(|j| words[j / 64] >> (j % 64) & 1 == 1)
    }

    fn check(&self, batch: usize, nodes: usize, cache: &Cache<T>) -> Result<(), ShapeError> {
        let heads = cache.keys.shape[2];
        let pairs = [
            ("k_tree", &self.keys.shape, cache.keys.shape[3]),
            ("v_tree", &self.values.shape, cache.values.shape[3]),
        ];
        for (name, shape, dim) in pairs {
            if *shape != [batch, nodes, heads, dim] {
                return Err(mismatch(
                    name,
                    format!("[{batch}, {nodes}, {heads}, {dim}]"),
                    format!("{shape:?}"),
                ));
            }
        }
        let [rows, mask_nodes, words] = self.mask.shape;
        if (rows != 1 && rows != batch) || mask_nodes != nodes || words != nodes.div_ceil(64) {
            let expected = format!("uint64 [{batch} or 1, {nodes}, {}]", nodes.div_ceil(64));
            return Err(mismatch("tree_mask", expected, format!("{:?}", self.mask.shape)));
        }
        Ok(())
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Buffers {
    queries: Vec<f32>,
    keys: Vec<usize>,
    values: Vec<usize>,
    own: Vec<f32>,
    tile: Scratch,
}

/// `q` `[batch, nodes, num_q_heads, head_dim]` into `out` `[batch, nodes, num_q_heads, v_dim]` and `lse`
/// `[batch, nodes, num_q_heads]`. Every key and value of the prefix is read once for all nodes and heads of a group.
/// A node that sees no node is padding: 0 and -inf.
pub fn tree_decode<T: Float>(
    q: View<T, 4>,
    cache: &Cache<T>,
    table: &PageTable,
    tree: &Tree<T>,
    scale: f32,
    out: &mut [T],
    lse: &mut [f32],
) -> Result<(), ShapeError> {
    let [batch, nodes, num_q_heads, head_dim] = q.shape;
    let [pages, page_size, num_kv_heads, _] = cache.keys.shape;
    let group = cache.group(num_q_heads, head_dim)?;
    let lengths = table.lengths(batch, page_size, pages)?;
    let v_dim = cache.values.shape[3];
    let options = Options { scale, sinks: None };
    check_outputs(batch * nodes * num_q_heads, v_dim, &options, num_q_heads, out, lse)?;
    tree.check(batch, nodes, cache)?;

    // Parts of a (sequence, KV head): the splits of its prefix, then the tree itself.
    let parts = lengths.iter().max().map_or(0, |longest| longest.div_ceil(SPLIT)) + 1;
    let rows = nodes * group;
    let sizes = Sizes::new([1, rows], [head_dim, v_dim], scale);
    let state = state_len(rows, v_dim);
    let mut states = vec![0.0; batch * num_kv_heads * parts * state];
    let prefix: usize = lengths.iter().sum();
    let bytes = (prefix + nodes) * rows * num_kv_heads * (head_dim + v_dim);
    threads::each_chunk(bytes, &mut states, state.max(1), Buffers::default, |buffers, task, state| {
        let (b, head, part) = (task / parts / num_kv_heads, task / parts % num_kv_heads, task % parts);
        let Buffers { queries, keys, values, own, tile } = buffers;
        let heads = (0..nodes).flat_map(|node| (head * group..(head + 1) * group).map(move |h| (node, h)));
        widened_queries(heads.map(|(node, h)| q.row([b, node, h, 0])), queries);
        State::over(state, rows, v_dim).clear();
        keys.clear();
        values.clear();
        if part + 1 < parts {
            let pages = table.pages.row([b, 0]);
            for token in (part * SPLIT).min(lengths[b])..((part + 1) * SPLIT).min(lengths[b]) {
                if let Some([k, v]) = cache.offsets(pages[token / page_size], token % page_size) {
                    keys.push(k);
                    values.push(v);
                }
            }
            for start in (0..keys.len()).step_by(TILE) {
                let rows = rows_at(cache, keys, values, start, head);
                let next = rows_at(cache, keys, values, (start + TILE).min(keys.len()), head);
                absorb(queries, rows, next, state, sizes, tile);
            }
            return;
        }
        let mut whole = State::over(state, rows, v_dim);
        own.resize(state_len(group, v_dim), 0.0);
        for node in 0..nodes {
            let (k, v) = (&tree.keys.strides, &tree.values.strides);
            keys.clear();
            values.clear();
            keys.extend(tree.visible(b, node).map(|j| b * k[0] + j * k[1] + head * k[2]));
            values.extend(tree.visible(b, node).map(|j| b * v[0] + j * v[1] + head * v[2]));
            State::over(own, group, v_dim).clear();
            let queries = &queries[node * group * head_dim..][..group * head_dim];
            for (keys, values) in keys.chunks(TILE).zip(values.chunks(TILE)) {
                let (key_data, value_data) = (tree.keys.data(), tree.values.data());
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
                absorb(queries, rows, rows, own, Sizes { rows: group, ..sizes }, tile);
            }
            whole.put(node * group, &State::over(own, group, v_dim), v_dim);
        }
    });

    // Which row of which states an output row joins; none for padding.
    let row_of = |i: usize| {
        let (b, node, h) = (i / num_q_heads / nodes, i / num_q_heads % nodes, i % num_q_heads);
        let first = (b * num_kv_heads + h / group) * parts;
        let real = tree.visible(b, node).next().is_some();
        let end = if real { first + parts } else { first };
        let states = &states;
        (first..end).map(move |part| state_row(states, part, rows, v_dim, node * group + h % group))
    };
    for (i, lse) in lse.iter_mut().enumerate() {
        *lse = finish_lse(row_of(i).map(|(_, best, total)| (best, total)));
    }
    if v_dim > 0 {
        threads::each_chunk(out.len() * 16, out, v_dim, Vec::new, |wide, i, out| {
            finish(row_of(i), None, wide, out);
        });
    }
    Ok(())
}
