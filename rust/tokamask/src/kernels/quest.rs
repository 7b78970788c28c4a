//! Bounds of the keys of each page (`python/tokamask/reference/quest.py`).

use super::array::View;
use super::attention::{mismatch, PageTable};
use super::floats::Float;
use super::lanes::{dispatch, Lanes, WIDTH};
use super::threads::{self, STRETCH};
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
    // Tokens of each page; where sequences share one, the last says how many.
    let mut tokens = vec![0; pages];
    for (b, length) in table.lengths(table.seq_lens.len(), page_size, pages)?.into_iter().enumerate() {
        for (i, page) in table.pages.row([b, 0])[..length.div_ceil(page_size)].iter().enumerate() {
            tokens[*page as usize] = page_size.min(length - i * page_size); // checked by `lengths`
        }
    }
    if size == 0 {
        return Ok(());
    }
    let mut both: Vec<_> = low.chunks_exact_mut(size).zip(high.chunks_exact_mut(size)).collect();
    let bytes = tokens.iter().sum::<usize>() * size * size_of::<T>();
    threads::each_chunk(
        bytes,
        &mut both,
        4,
        || (),
        |(), part, both| {
            for (i, (low, high)) in both.iter_mut().enumerate() {
                let page = 4 * part + i;
                extremes(&keys, page, tokens[page], low, high);
            }
        },
    );
    Ok(())
}

/// Least and greatest of the first tokens of a page, 0 where there is none.
fn extremes<T: Float>(keys: &View<T, 4>, page: usize, tokens: usize, low: &mut [f32], high: &mut [f32]) {
    dispatch!(extremes_kernel::<T>(
        keys: &View<T, 4>, page: usize, tokens: usize, low: &mut [f32], high: &mut [f32]
    ) where [T: Float]);
}

#[inline(always)]
unsafe fn extremes_kernel<L: Lanes, T: Float>(
    keys: &View<T, 4>,
    page: usize,
    tokens: usize,
    low: &mut [f32],
    high: &mut [f32],
) {
    let [_, _, heads, dim] = keys.shape;
    let whole = dim / WIDTH * WIDTH;
    for slot in 0..tokens.max(1) {
        for head in 0..heads {
            let (low, high) = (&mut low[head * dim..][..dim], &mut high[head * dim..][..dim]);
            if tokens == 0 {
                low.fill(0.0);
                high.fill(0.0);
                continue;
            }
            let row = keys.row([page, slot, head, 0]);
            if slot == 0 {
                low.iter_mut()
                    .zip(high)
                    .zip(row)
                    .for_each(|((low, high), x)| (*low, *high) = (x.widen(), x.widen()));
                continue;
            }
            for at in (0..whole).step_by(WIDTH) {
                // SAFETY: at + WIDTH <= dim, the length of all three; the caller has the features.
                unsafe {
                    let x = T::load::<L>(row.as_ptr().add(at));
                    let (to_low, to_high) = (low.as_mut_ptr().add(at), high.as_mut_ptr().add(at));
                    let (a, b) = (L::load(to_low), L::load(to_high));
                    let (less, more) = (a.greater(x), x.greater(b)); // NaN is neither
                    x.keep(less).or(a.drop(less)).store(to_low);
                    x.keep(more).or(b.drop(more)).store(to_high);
                }
            }
            for at in whole..dim {
                let x = row[at].widen();
                low[at] = if x < low[at] { x } else { low[at] };
                high[at] = if x > high[at] { x } else { high[at] };
            }
        }
    }
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
    let bytes = batch * heads * max_pages * dim * 8;
    // All heads of a page lie together: pages are taken one by one, whatever the order of `out`.
    threads::each_stretch(bytes, out, [heads, max_pages], Vec::new, |query, b, rows, part| {
        query.clear();
        for h in 0..num_q_heads {
            query.extend(q.row([b, h, 0]).iter().map(|x| x.widen()));
        }
        part.fill(f32::NEG_INFINITY);
        let used = lengths[b].div_ceil(page_size);
        let pages = &table.pages.row([b, 0])[rows.start.min(used)..rows.end.min(used)]; // checked by `lengths`
        bounds_of(query, &low, &high, pages, part);
        if used > 0 && rows.contains(&(used - 1)) {
            part.chunks_exact_mut(STRETCH).for_each(|part| part[used - 1 - rows.start] = f32::INFINITY);
        }
    });
    Ok(())
}

/// For some pages and each head, the greatest over the queries of the group of `sum of max(q * low, q * high)`.
fn bounds_of(queries: &[f32], low: &View<f32, 3>, high: &View<f32, 3>, pages: &[i32], out: &mut [f32]) {
    dispatch!(bounds_kernel(
        queries: &[f32], low: &View<f32, 3>, high: &View<f32, 3>, pages: &[i32], out: &mut [f32]
    ));
}

#[inline(always)]
unsafe fn bounds_kernel<L: Lanes>(
    queries: &[f32],
    low: &View<f32, 3>,
    high: &View<f32, 3>,
    pages: &[i32],
    out: &mut [f32],
) {
    const LINE: usize = 16;
    let [_, heads, dim] = low.shape;
    let group = queries.len() / (heads * dim).max(1);
    for (i, page) in pages.iter().enumerate() {
        let next = pages.get(i + 1).copied().unwrap_or(*page) as usize;
        for head in 0..heads {
            let at = [*page as usize, head, 0];
            let (low_row, high_row) = (low.row(at), high.row(at));
            let mut best = f32::NEG_INFINITY;
            // SAFETY: rows are dim long; any address may be asked for; the caller has the features.
            unsafe {
                for rows in [low, high] {
                    let next = rows.row([next, head, 0]).as_ptr();
                    for at in (0..dim).step_by(LINE) {
                        L::prefetch(next.wrapping_add(at).cast());
                    }
                }
                for first in (0..group).step_by(4) {
                    let q = &queries[(head * group + first) * dim..];
                    best = best.max(match group - first {
                        1 => bound::<L, 1>(q, low_row, high_row),
                        2 => bound::<L, 2>(q, low_row, high_row),
                        3 => bound::<L, 3>(q, low_row, high_row),
                        _ => bound::<L, 4>(q, low_row, high_row),
                    });
                }
            }
            out[head * STRETCH + i] = best;
        }
    }
}

/// The same for the first `N` queries.
#[inline(always)]
unsafe fn bound<L: Lanes, const N: usize>(queries: &[f32], low: &[f32], high: &[f32]) -> f32 {
    let dim = low.len();
    let (queries, high) = (&queries[..N * dim], &high[..dim]);
    let whole = dim / WIDTH * WIDTH;
    // SAFETY: at + WIDTH <= dim; the caller has the features.
    let mut sums = unsafe {
        let mut sums = [L::splat(0.0); N];
        for at in (0..whole).step_by(WIDTH) {
            let (a, b) = (L::load(low.as_ptr().add(at)), L::load(high.as_ptr().add(at)));
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = L::load(queries.as_ptr().add(r * dim + at));
                *sum = sum.add(x.mul(a).max_or(x.mul(b)));
            }
        }
        let mut totals = [0.0; N];
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = sum.sum_lanes();
        }
        totals
    };
    for (r, sum) in sums.iter_mut().enumerate() {
        for at in whole..dim {
            let x = queries[r * dim + at];
            *sum += (x * low[at]).max(x * high[at]);
        }
    }
    sums.into_iter().fold(f32::NEG_INFINITY, f32::max)
}
