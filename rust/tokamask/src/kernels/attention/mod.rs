//! Attention of decode-time queries over a paged KV cache (`python/tokamask/reference/attention.py`).
//!
//! One inner step, [`tile::absorb`], takes a few query rows and up to [`tile::TILE`] rows of keys and values of one KV head:
//! all query heads of a group share every load. What differs between the operations is only which rows are fed to it.
//! Sequences are cut into splits of fixed length, so that results do not depend on the number of threads; splits are
//! joined by [`merge`].

mod decode;
pub(crate) mod dots;
mod hybrid;
mod merge;
mod prefill;
pub(crate) mod tile;
mod tree;
#[cfg(target_arch = "x86_64")]
mod wide;

pub use decode::{decode, sparse_decode, Selected};
pub use hybrid::{hybrid_attention, Routed};
pub use merge::merge_states;
pub use prefill::{block_sparse_prefill, selected_prefill, BlockRows};
pub use tree::{tree_decode, Tree};

use super::array::View;
use super::floats::Float;
use crate::error::ShapeError;

/// Keys and values in pages: `keys` `[pages, page_size, num_kv_heads, head_dim]`, `values` the same with `v_dim`.
#[derive(Clone, Copy)]
pub struct Cache<'a, T> {
    /// Keys.
    pub keys: View<'a, T, 4>,
    /// Values.
    pub values: View<'a, T, 4>,
}

/// Which pages hold each sequence: `pages` `[batch, max_pages]`, and `seq_lens` `[batch]` tokens.
#[derive(Clone, Copy)]
pub struct PageTable<'a> {
    /// Page numbers.
    pub pages: View<'a, i32, 2>,
    /// Tokens of each sequence; below 0 counts as 0.
    pub seq_lens: &'a [i32],
}

/// What does not depend on the arrays.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Multiplies every score.
    pub scale: f32,
    /// One logit per query head that takes weight and gives nothing.
    pub sinks: Option<&'a [f32]>,
}

pub(crate) fn mismatch(name: &str, expected: String, got: String) -> ShapeError {
    ShapeError { name: name.to_owned(), expected, got }
}

impl<T: Float> Cache<'_, T> {
    /// Checks the sizes that keys, values and queries must share; returns the number of query heads per KV head.
    fn group(&self, num_q_heads: usize, head_dim: usize) -> Result<usize, ShapeError> {
        let [pages, page_size, heads, dim] = self.keys.shape;
        if self.values.shape[..3] != [pages, page_size, heads] || page_size == 0 {
            let expected = format!("[{pages}, {page_size}, {heads}, v_dim] with page_size above 0");
            return Err(mismatch("v_cache", expected, format!("{:?}", self.values.shape)));
        }
        if heads == 0 || num_q_heads % heads != 0 || dim != head_dim {
            let expected = format!("a multiple of {heads} heads of {dim}");
            return Err(mismatch("q", expected, format!("{num_q_heads} heads of {head_dim}")));
        }
        Ok(num_q_heads / heads)
    }

    /// Where the rows of a token begin: offsets into keys and values, KV head 0. None for a page that is not there.
    #[inline]
    fn offsets(&self, page: i32, slot: usize) -> Option<[usize; 2]> {
        let page = usize::try_from(page).ok().filter(|page| *page < self.keys.shape[0])?;
        let (k, v) = (&self.keys.strides, &self.values.strides);
        Some([page * k[0] + slot * k[1], page * v[0] + slot * v[1]])
    }
}

/// Offset of the keys of a token, KV head 0. None for a page that is not there.
pub(crate) fn key_offset<T>(keys: &View<T, 4>, page: i32, slot: usize) -> Option<usize> {
    let page = usize::try_from(page).ok().filter(|page| *page < keys.shape[0])?;
    Some(page * keys.strides[0] + slot * keys.strides[1])
}

impl PageTable<'_> {
    /// Tokens of each sequence, after checking that the table reaches them and that their pages exist.
    pub(crate) fn lengths(
        &self,
        batch: usize,
        page_size: usize,
        pages: usize,
    ) -> Result<Vec<usize>, ShapeError> {
        let [rows, width] = self.pages.shape;
        if rows != batch || self.seq_lens.len() != batch {
            let expected = format!("{batch} rows of page_table and {batch} of seq_lens");
            let got = format!("{rows} and {}", self.seq_lens.len());
            return Err(mismatch("page_table", expected, got));
        }
        let mut lengths = Vec::with_capacity(batch);
        for (b, length) in self.seq_lens.iter().enumerate() {
            let length = usize::try_from(*length).unwrap_or(0);
            if length > width * page_size {
                let expected = format!("at most {} (max_pages * page_size)", width * page_size);
                return Err(mismatch("seq_lens", expected, format!("{length} for sequence {b}")));
            }
            let used = &self.pages.row([b, 0])[..length.div_ceil(page_size)];
            if let Some(page) = used.iter().find(|page| usize::try_from(**page).map_or(true, |p| p >= pages))
            {
                let expected = format!("pages in [0, {pages}) for {length} tokens of sequence {b}");
                return Err(mismatch("page_table", expected, format!("page {page}")));
            }
            lengths.push(length);
        }
        Ok(lengths)
    }
}
