//! Appending to a paged cache and to what is kept beside it (`python/tokamask/reference/append_kv.py`).

use super::array::View;
use super::attention::{mismatch, PageTable};
use super::floats::Float;
use crate::error::ShapeError;

/// Where a new row goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    row: usize,
    page: usize,
    slot: usize,
}

/// Places of the rows `indptr[b] .. indptr[b + 1] - 1`, the last of each sequence, in order; rows without room have none.
pub fn places(
    table: &PageTable,
    indptr: &[i32],
    rows: usize,
    [pages, page_size]: [usize; 2],
) -> Result<Vec<Place>, ShapeError> {
    let [batch, width] = table.pages.shape;
    let ascending = indptr.first().is_none_or(|i| *i >= 0) && indptr.is_sorted();
    let inside = indptr.last().is_none_or(|last| usize::try_from(*last).is_ok_and(|last| last <= rows));
    if indptr.len() != batch + 1 || table.seq_lens.len() != batch || !ascending || !inside || page_size == 0 {
        let expected = format!("{} ascending numbers up to {rows}", batch + 1);
        return Err(mismatch("indptr", expected, format!("{indptr:?}")));
    }
    let mut places = Vec::with_capacity(rows);
    for (b, length) in table.seq_lens.iter().enumerate() {
        let from = indptr[b] as usize; // not negative, as just seen
        let count = indptr[b + 1] as usize - from;
        let first = i64::from(*length) - count as i64;
        for i in 0..count {
            let Ok(position) = usize::try_from(first + i as i64) else { continue };
            let (nth, slot) = (position / page_size, position % page_size);
            if nth >= width {
                break;
            }
            let page = table.pages.row([b, 0])[nth];
            let Some(page) = usize::try_from(page).ok().filter(|page| *page < pages) else {
                let expected = format!("pages in [0, {pages}) for what is appended");
                return Err(mismatch("page_table", expected, format!("page {page} of sequence {b}")));
            };
            places.push(Place { row: from + i, page, slot });
        }
    }
    Ok(places)
}

/// Elements of a cache `[pages, page_size, heads, dim]` of any strides but the last, 1.
pub struct CacheMut<'a, T> {
    data: &'a mut [T],
    shape: [usize; 4],
    strides: [usize; 4],
}

impl<'a, T> CacheMut<'a, T> {
    /// Checks that every element lies in `data`.
    pub fn new(
        name: &str,
        data: &'a mut [T],
        shape: [usize; 4],
        strides: [usize; 4],
    ) -> Result<Self, ShapeError> {
        View::new(name, data, shape, strides)?;
        Ok(Self { data, shape, strides })
    }

    fn row(&mut self, place: &Place, head: usize) -> &mut [T] {
        let [pages, slots, heads] = self.strides.first_chunk().map_or([0; 3], |s| *s);
        &mut self.data[place.page * pages + place.slot * slots + head * heads..][..self.shape[3]]
    }

    fn check(&self, name: &str, heads: usize, dim: usize, places: &[Place]) -> Result<(), ShapeError> {
        let [pages, page_size, ..] = self.shape;
        let fits = self.shape[2..] == [heads, dim];
        if fits && places.iter().all(|place| place.page < pages && place.slot < page_size) {
            return Ok(());
        }
        Err(mismatch(name, format!("[pages, page_size, {heads}, {dim}]"), format!("{:?}", self.shape)))
    }
}

/// Copies rows `[rows, heads, dim]` to their places.
pub fn write_rows<T: Float>(
    rows: View<T, 3>,
    cache: &mut CacheMut<T>,
    places: &[Place],
) -> Result<(), ShapeError> {
    let [_, heads, dim] = rows.shape;
    cache.check("k_cache", heads, dim, places)?;
    for place in places {
        for head in 0..heads {
            cache.row(place, head).copy_from_slice(rows.row([place.row, head, 0]));
        }
    }
    Ok(())
}

/// Copies the channels of the dominant chunks, the first of each pair before the second.
pub fn write_chunks<T: Float>(
    rows: View<T, 3>,
    dominant: View<i32, 2>,
    interleaved: bool,
    cache: &mut CacheMut<T>,
    places: &[Place],
) -> Result<(), ShapeError> {
    let [_, heads, dim] = rows.shape;
    let [lists, chunks] = dominant.shape;
    cache.check("side[1]", heads, 2 * chunks, places)?;
    let half = dim / 2;
    let is_chunk = |c: &i32| usize::try_from(*c).is_ok_and(|c| c < half);
    if lists != heads || !(0..lists).all(|head| dominant.row([head, 0]).iter().all(is_chunk)) {
        let expected = format!("{heads} rows of chunks in [0, {half})");
        return Err(mismatch("side[0]", expected, format!("{lists} rows")));
    }
    for place in places {
        for head in 0..heads {
            let (row, chunks_of) = (rows.row([place.row, head, 0]), dominant.row([head, 0]));
            let (first, second) = cache.row(place, head).split_at_mut(chunks);
            for ((chunk, first), second) in chunks_of.iter().zip(first).zip(second) {
                let c = *chunk as usize; // checked above
                (*first, *second) =
                    if interleaved { (row[2 * c], row[2 * c + 1]) } else { (row[c], row[c + half]) };
            }
        }
    }
    Ok(())
}

/// Widens bounds `[pages, heads * dim]` of the pages touched, begun anew at their first row; NaN is passed over.
pub fn widen_bounds<T: Float>(
    rows: View<T, 3>,
    low: &mut [f32],
    high: &mut [f32],
    places: &[Place],
) -> Result<(), ShapeError> {
    let [_, heads, dim] = rows.shape;
    let size = heads * dim;
    if low.len() != high.len() || places.iter().any(|place| (place.page + 1) * size > low.len()) {
        let expected = format!("float32 [pages, {heads}, {dim}] twice");
        return Err(mismatch("bounds", expected, format!("{} and {} elements", low.len(), high.len())));
    }
    for place in places {
        let (low, high) = (&mut low[place.page * size..][..size], &mut high[place.page * size..][..size]);
        if place.slot == 0 {
            low.fill(f32::INFINITY);
            high.fill(f32::NEG_INFINITY);
        }
        for head in 0..heads {
            let (low, high) = (&mut low[head * dim..][..dim], &mut high[head * dim..][..dim]);
            for ((x, low), high) in rows.row([place.row, head, 0]).iter().zip(low).zip(high) {
                (*low, *high) = (low.min(x.widen()), high.max(x.widen()));
            }
        }
    }
    Ok(())
}

/// Adds rows `[rows, 1, dim]` to the sums `[pages, dim]` of their pages, begun anew at their first row.
pub fn add_sums<T: Float>(rows: View<T, 3>, sums: &mut [f32], places: &[Place]) -> Result<(), ShapeError> {
    let dim = rows.shape[2];
    if places.iter().any(|place| (place.page + 1) * dim > sums.len()) {
        return Err(mismatch(
            "index[2]",
            format!("float32 [pages, {dim}]"),
            format!("{} elements", sums.len()),
        ));
    }
    for place in places {
        let sums = &mut sums[place.page * dim..][..dim];
        if place.slot == 0 {
            sums.fill(0.0);
        }
        sums.iter_mut().zip(rows.row([place.row, 0, 0])).for_each(|(sum, x)| *sum += x.widen());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_last_positions_with_room() {
        let pages = View::dense("pages", &[4, 2, 7, 7], [2, 2]).expect("fits");
        let table = PageTable { pages, seq_lens: &[3, 5] };
        let found = places(&table, &[0, 2, 4], 4, [8, 2]).expect("fits");
        let expected = [(0, 4, 1), (1, 2, 0), (2, 7, 1)]; // position 4 of the second has no page
        assert!(found.iter().map(|p| (p.row, p.page, p.slot)).eq(expected));
        assert!(places(&table, &[0, 2, 5], 4, [8, 2]).is_err());
        assert!(places(&table, &[2, 0, 4], 4, [8, 2]).is_err());
        assert!(places(&table, &[0, 2, 4], 4, [7, 2]).is_err());
    }

    #[test]
    fn a_place_outside_is_refused() {
        let (rows, mut cache) = (View::dense("rows", &[1.0f32; 2], [1, 1, 2]).expect("fits"), [0.0; 4]);
        let mut cache = CacheMut::new("cache", &mut cache, [2, 1, 1, 2], [2, 2, 2, 1]).expect("fits");
        assert!(write_rows(rows, &mut cache, &[Place { row: 0, page: 1, slot: 0 }]).is_ok());
        assert!(write_rows(rows, &mut cache, &[Place { row: 0, page: 2, slot: 0 }]).is_err());
        assert_eq!(cache.data, [0.0, 0.0, 1.0, 1.0]);
    }
}
