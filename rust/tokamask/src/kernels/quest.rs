//! Bounds of the keys of each page (`python/tokamask/reference/quest.py`).

use super::array::View;
use super::attention::{mismatch, PageTable};
use super::floats::Float;
use super::lanes::{dispatch, Lanes, WIDTH};
use super::threads;
use crate::error::ShapeError;

/// Least and greatest key of each page, channel by channel, into `low` and `high` `[pages, num_kv_heads, head_dim]`; 0 for pages
/// that hold no token.
pub fn quest_bounds<T: Float>(
    keys: View<T, 4>,
    table: &PageTable,
    low: &mut [f32],
    high: &mut [f32],
) -> Result<(), ShapeError> {
    let [pages, page_size, heads, dim] = keys.shape;
    let size = heads * dim;
    if low.len() != pages * size || high.len() != pages * size || page_size == 0 {
        return Err(mismatch("out", format!("[{pages}, {heads}, {dim}]"), format!("{} elements", low.len())));
    }
    low.fill(0.0);
    high.fill(0.0);
    let lengths = table.lengths(table.seq_lens.len(), page_size, pages)?;
    for (b, length) in lengths.into_iter().enumerate() {
        for (i, page) in table.pages.row([b, 0])[..length.div_ceil(page_size)].iter().enumerate() {
            let page = *page as usize; // checked by `lengths`
            let (low, high) = (&mut low[page * size..][..size], &mut high[page * size..][..size]);
            for slot in 0..page_size.min(length - i * page_size) {
                for head in 0..heads {
                    let row = keys.row([page, slot, head, 0]);
                    let (low, high) = (&mut low[head * dim..][..dim], &mut high[head * dim..][..dim]);
                    for ((x, low), high) in row.iter().zip(low).zip(high) {
                        let x = x.widen();
                        *low = if slot == 0 || x < *low { x } else { *low };
                        *high = if slot == 0 || x > *high { x } else { *high };
                    }
                }
            }
        }
    }
    Ok(())
}

/// Upper bounds of `q . k` over each page, greatest of the group, into `out` `[batch, num_kv_heads, max_pages]`: +inf for the
/// newest page, -inf past the end.
pub fn quest_scores<T: Float>(
    q: View<T, 3>,
    low: View<f32, 3>,
    high: View<f32, 3>,
    table: &PageTable,
    page_size: usize,
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let [batch, num_q_heads, dim] = q.shape;
    let [pages, heads, bound_dim] = low.shape;
    let max_pages = table.pages.shape[1];
    let fits = high.shape == low.shape && heads > 0 && num_q_heads % heads == 0 && bound_dim == dim;
    if !fits || page_size == 0 || out.len() != batch * heads * max_pages {
        let expected = format!("bounds [pages, {heads}, {dim}] and page_size above 0");
        return Err(mismatch("low", expected, format!("{:?} and {:?}", low.shape, high.shape)));
    }
    let lengths = table.lengths(batch, page_size, pages)?;
    let group = num_q_heads / heads;
    out.fill(f32::NEG_INFINITY);
    if max_pages == 0 {
        return Ok(());
    }
    let bytes = batch * heads * max_pages * dim * 8;
    threads::each_chunk(bytes, out, max_pages, Vec::new, |query, i, out| {
        let (b, head) = (i / heads, i % heads);
        query.clear();
        for h in head * group..(head + 1) * group {
            query.extend(q.row([b, h, 0]).iter().map(|x| x.widen()));
        }
        let used = lengths[b].div_ceil(page_size);
        for (page, out) in table.pages.row([b, 0])[..used].iter().zip(&mut *out) {
            let at = [*page as usize, head, 0]; // checked by `lengths`
            *out = bound(query, low.row(at), high.row(at));
        }
        if used > 0 {
            out[used - 1] = f32::INFINITY;
        }
    });
    Ok(())
}

/// Greatest over the queries of `sum of max(q * low, q * high)`.
fn bound(queries: &[f32], low: &[f32], high: &[f32]) -> f32 {
    dispatch!(bound_kernel(queries: &[f32], low: &[f32], high: &[f32]) -> f32)
}

#[inline(always)]
unsafe fn bound_kernel<L: Lanes>(queries: &[f32], low: &[f32], high: &[f32]) -> f32 {
    let whole = low.len() / WIDTH * WIDTH;
    let mut best = f32::NEG_INFINITY;
    for q in queries.chunks_exact(low.len().max(1)) {
        // SAFETY: at + WIDTH <= the length of all three; the caller has the features.
        let mut sum = unsafe {
            let mut sum = L::splat(0.0);
            for at in (0..whole).step_by(WIDTH) {
                let x = L::load(q.as_ptr().add(at));
                let a = x.mul(L::load(low.as_ptr().add(at)));
                let b = x.mul(L::load(high.as_ptr().add(at)));
                sum = sum.add(a.max_or(b));
            }
            sum.sum_lanes()
        };
        for at in whole..low.len() {
            sum += (q[at] * low[at]).max(q[at] * high[at]);
        }
        best = best.max(sum);
    }
    best
}
