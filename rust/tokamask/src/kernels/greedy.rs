//! Diverse rows, chosen one by one (`python/tokamask/reference/reduction.py`).
//!
//! A step needs the cosines of the row chosen last with all others. Where only the greatest cosine to a chosen row counts, bounds from 8-bit
//! codes ([`super::screen`]) tell most of what a step asks, and the few rows that may be the best are computed: what is chosen is the same,
//! ties included. Sums of distances need every cosine.

use super::array::View;
use super::attention::dots::{dots, key_rows};
use super::attention::mismatch;
use super::attention::tile::TILE;
use super::floats::Float;
use super::nearest::loneliest;
use super::reduction::normalised;
use super::screen::{Bounds, Codes, Keys, BLOCK, GROUP};
use super::threads;
use crate::error::ShapeError;

/// Products below which codes are not worth making.
const FEW: usize = 1 << 21;
/// Rows whose cosines are computed together: keys are then read once for all of them.
const BATCH: usize = 8;
/// Rows computed ahead of their use at most.
const AHEAD: usize = 256;

/// What a greedy step maximises.
#[derive(Clone, Copy)]
pub enum Gain<'a> {
    /// Distance to the nearest chosen row.
    MaxMin,
    /// Sum of distances to the chosen rows.
    MaxSum,
    /// `lam * importance - (1 - lam) * greatest cosine to a chosen row`.
    Mmr {
        /// One per row.
        importance: &'a [f32],
        /// Weight of importance.
        lam: f32,
    },
}

/// `out.len()` rows of `x` `[n, dim]`, at most n, chosen one by one, ascending. Ties go to the lowest row.
pub fn greedy_select<T: Float>(x: View<T, 2>, gain: Gain, out: &mut [i32]) -> Result<(), ShapeError> {
    let [n, dim] = x.shape;
    let mismatched = matches!(gain, Gain::Mmr { importance, .. } if importance.len() != n);
    if out.len() > n || mismatched {
        return Err(mismatch(
            "importance",
            format!("float32 [{n}] and at most {n} rows"),
            format!("{} rows", out.len()),
        ));
    }
    if out.is_empty() {
        return Ok(());
    }
    let unit = normalised(x);
    let (one, lam) = match gain {
        Gain::Mmr { lam, .. } => (false, lam),
        _ => (true, 0.0),
    };
    let base = match gain {
        Gain::Mmr { importance, lam } => scaled_importance(importance, lam),
        _ => vec![1.0; n],
    };
    // With a lam above 1 a like row is worth more, and NaN orders with nothing: bounds of cosines are none of worth then.
    let bounded = !matches!(gain, Gain::MaxSum) && lam <= 1.0 && base.iter().all(|x| x.is_finite());
    let codes = if bounded && n * dim * (out.len() + n) > FEW { Codes::coded(&unit, dim) } else { None };
    let all: Vec<usize> = (0..n).collect();
    let keys = codes.as_ref().map(|codes| codes.keys(&all));
    let screen = codes.as_ref().zip(keys.as_ref());
    let first = if one { loneliest(&unit, n, dim, screen) } else { greatest(&base) };
    match screen {
        Some((codes, keys)) => screened(&unit, dim, codes, keys, &base, 1.0 - lam, first, out),
        None => by_all(&unit, dim, gain, &base, first, out),
    }
    out.sort_unstable();
    Ok(())
}

/// The first of the greatest, as far as they order.
fn greatest(worth: &[f32]) -> usize {
    let mut best = 0;
    for (i, w) in worth.iter().enumerate() {
        if *w > worth[best] {
            best = i;
        }
    }
    best
}

/// Chooses with every cosine of every chosen row.
fn by_all(unit: &[f32], dim: usize, gain: Gain, base: &[f32], first: usize, out: &mut [i32]) {
    let n = base.len();
    let mut cosines = Cosines::new(unit, n, dim);
    let (mut nearest, mut total) = (vec![f32::NEG_INFINITY; n], vec![0.0; n]);
    let (mut row, mut free) = (vec![0.0; n], vec![true; n]);
    let mut worth = base.to_vec();
    let mut best = first;
    for slot in out.iter_mut() {
        *slot = best as i32;
        free[best] = false;
        cosines.row(best, &worth, &free, &mut row);
        for i in 0..n {
            nearest[i] = nearest[i].max(row[i]);
            total[i] += 1.0 - row[i];
            worth[i] = match gain {
                Gain::MaxMin => 1.0 - nearest[i],
                Gain::MaxSum => total[i],
                Gain::Mmr { lam, .. } => base[i] - (1.0 - lam) * nearest[i],
            };
        }
        let mut next: Option<usize> = None;
        for (i, w) in worth.iter().enumerate() {
            if free[i] && next.is_none_or(|b| *w > worth[b]) {
                next = Some(i);
            }
        }
        best = next.unwrap_or(0); // none is free after the last slot only: out is no longer than n
    }
}

/// Chooses by `base - weight * greatest cosine to a chosen row`, weight at least 0, with the cosines that bounds leave open.
#[allow(clippy::too_many_arguments)]
fn screened(
    unit: &[f32],
    dim: usize,
    codes: &Codes,
    keys: &Keys,
    base: &[f32],
    weight: f32,
    first: usize,
    out: &mut [i32],
) {
    let n = base.len();
    let mut ahead = Ahead { codes, keys, batches: Vec::new(), places: vec![None; n], waiting: 0 };
    let mut nearest = Nearest::new(unit, dim, n);
    let mut free = vec![true; n];
    let mut hopes = vec![0.0; n];
    let mut candidates: Vec<usize> = Vec::new();
    let mut best = first;
    let slots = out.len();
    for (place, slot) in out.iter_mut().enumerate() {
        *slot = best as i32;
        free[best] = false;
        if place + 1 == slots {
            return;
        }
        ahead.row(best, &hopes, &free, |first, upper, lower| nearest.add(best, first, upper, lower));
        // Rounding keeps order, so a bound of a cosine gives a bound of the worth that is computed from the cosine.
        let mut bar = f32::NEG_INFINITY;
        for i in 0..n {
            hopes[i] = if free[i] { base[i] - weight * nearest.least[i] } else { f32::NEG_INFINITY };
            let sure = base[i] - weight * nearest.most[i];
            if free[i] && sure > bar {
                bar = sure;
            }
        }
        candidates.clear();
        candidates.extend((0..n).filter(|i| free[*i] && hopes[*i] >= bar));
        // The first of those with the highest hope is the choice once its hope is its worth.
        loop {
            let mut top: Option<usize> = None;
            for i in &candidates {
                if top.is_none_or(|b| hopes[*i] > hopes[b]) {
                    top = Some(*i);
                }
            }
            best = top.unwrap_or(0); // one is free: out is no longer than n
            if nearest.is_known(best) {
                break;
            }
            nearest.settle(best);
            hopes[best] = base[best] - weight * nearest.least[best];
        }
    }
}

/// Of each row the greatest cosine to a chosen row, between bounds.
struct Nearest<'a> {
    unit: &'a [f32],
    dim: usize,
    least: Vec<f32>,
    most: Vec<f32>,
    /// The greatest of the cosines that were computed.
    known: Vec<f32>,
    /// Chosen rows whose cosine may be the greatest and was not computed, with its upper bound.
    open: Vec<Vec<(f32, u32)>>,
    tile: Vec<f32>,
}

impl<'a> Nearest<'a> {
    fn new(unit: &'a [f32], dim: usize, n: usize) -> Self {
        let none = vec![f32::NEG_INFINITY; n];
        let open = vec![Vec::new(); n];
        Self { unit, dim, least: none.clone(), most: none.clone(), known: none, open, tile: vec![0.0; TILE] }
    }

    /// A chosen row, with bounds of its cosines with the rows from `first`.
    fn add(&mut self, chosen: usize, first: usize, upper: &[f32], lower: &[f32]) {
        for (i, (upper, lower)) in (first..self.least.len()).zip(upper.iter().zip(lower)) {
            if *upper > self.least[i] {
                self.open[i].push((*upper, chosen as u32));
                self.most[i] = self.most[i].max(*upper);
                self.least[i] = self.least[i].max(*lower);
            }
        }
    }

    fn is_known(&self, i: usize) -> bool {
        self.open[i].is_empty()
    }

    /// Computes what is open of row `i`.
    fn settle(&mut self, i: usize) {
        let mut offsets = [0; TILE];
        let row = &self.unit[i * self.dim..][..self.dim];
        let mut best = self.known[i];
        let mut left = self.open[i].iter().filter(|(upper, _)| *upper >= self.least[i]);
        loop {
            let mut n = 0;
            for (_, chosen) in left.by_ref().take(TILE) {
                offsets[n] = *chosen as usize * self.dim;
                n += 1;
            }
            if n == 0 {
                break;
            }
            dots(row, &key_rows(self.unit, &offsets[..n], 0), 1, 1, self.dim, &mut self.tile);
            best = self.tile[..n].iter().fold(best, |best, cosine| best.max(*cosine));
        }
        self.open[i].clear();
        (self.known[i], self.least[i], self.most[i]) = (best, best, best);
    }
}

/// Bounds of the cosines of some rows with all, for several rows at once: those that come next if nothing changes.
struct Ahead<'a> {
    codes: &'a Codes<'a>,
    keys: &'a Keys<'a>,
    /// For each group of keys, the upper and the lower bounds of [`BLOCK`] rows.
    batches: Vec<Vec<f32>>,
    /// Batch and place of each row that has bounds.
    places: Vec<Option<(usize, usize)>>,
    waiting: usize,
}

impl Ahead<'_> {
    /// Hands the bounds of row `i` on, group by group: first key, upper and lower bounds. `hopes` and `free` tell which rows may come next.
    fn row(&mut self, i: usize, hopes: &[f32], free: &[bool], mut take: impl FnMut(usize, &[f32], &[f32])) {
        if self.places[i].is_none() {
            self.compute(i, hopes, free);
        }
        let Some((batch, place)) = self.places[i] else { return };
        for (group, bounds) in self.batches[batch].chunks_exact(BLOCK * 2 * GROUP).enumerate() {
            let (upper, lower) = bounds[place * 2 * GROUP..][..2 * GROUP].split_at(GROUP);
            take(group * GROUP, upper, lower);
        }
        self.waiting -= 1;
    }

    fn compute(&mut self, i: usize, hopes: &[f32], free: &[bool]) {
        let n = free.len();
        let mut rows = vec![i];
        if self.waiting < AHEAD && !self.batches.is_empty() {
            let mut next: Vec<usize> =
                (0..n).filter(|j| *j != i && free[*j] && self.places[*j].is_none()).collect();
            if next.len() >= BLOCK {
                next.select_nth_unstable_by(BLOCK - 2, |a, b| hopes[*b].total_cmp(&hopes[*a]));
            }
            rows.extend(next.into_iter().take(BLOCK - 1));
        }
        let span = BLOCK * 2 * GROUP;
        let mut batch = vec![0.0; n.div_ceil(GROUP) * span];
        let (codes, keys) = (self.codes, self.keys);
        let none = || [Bounds::NONE; BLOCK];
        threads::each_chunk(n * codes.dim() * 2, &mut batch, 2 * span, none, |bounds, part, out| {
            for (group, out) in out.chunks_exact_mut(span).enumerate() {
                codes.bounds(&rows, keys, 2 * part + group, bounds);
                for (out, bounds) in out.chunks_exact_mut(2 * GROUP).zip(&*bounds) {
                    out[..GROUP].copy_from_slice(&bounds.upper);
                    out[GROUP..].copy_from_slice(&bounds.lower);
                }
            }
        });
        for (place, row) in rows.iter().enumerate() {
            self.places[*row] = Some((self.batches.len(), place));
        }
        self.waiting += rows.len();
        self.batches.push(batch);
    }
}

/// Cosines of some rows with all, computed for several rows at once: those that come next if nothing changes, and usually little
/// does.
struct Cosines<'a> {
    unit: &'a [f32],
    n: usize,
    dim: usize,
    offsets: Vec<usize>,
    /// Batches: for each tile of columns the rows side by side.
    batches: Vec<Vec<f32>>,
    /// Batch and place of each row that has been computed.
    places: Vec<Option<(usize, usize)>>,
    waiting: usize,
}

impl<'a> Cosines<'a> {
    fn new(unit: &'a [f32], n: usize, dim: usize) -> Self {
        let offsets = (0..n).map(|i| i * dim).collect();
        Self { unit, n, dim, offsets, batches: Vec::new(), places: vec![None; n], waiting: 0 }
    }

    /// Cosines of row `i` with all into `out`; `worth` and `free` tell which rows may come next.
    fn row(&mut self, i: usize, worth: &[f32], free: &[bool], out: &mut [f32]) {
        if self.places[i].is_none() {
            self.compute(i, worth, free);
        }
        let Some((batch, place)) = self.places[i] else { return };
        let batch = &self.batches[batch];
        let rows = batch.len() / self.n.next_multiple_of(TILE);
        for (out, tile) in out.chunks_mut(TILE).zip(batch.chunks_exact(rows * TILE)) {
            out.copy_from_slice(&tile[place * TILE..][..out.len()]);
        }
        self.waiting -= 1;
    }

    fn compute(&mut self, i: usize, worth: &[f32], free: &[bool]) {
        let mut rows = vec![i];
        if self.waiting < AHEAD && !self.batches.is_empty() {
            let mut next: Vec<usize> =
                (0..self.n).filter(|j| *j != i && free[*j] && self.places[*j].is_none()).collect();
            if next.len() > BATCH {
                next.select_nth_unstable_by(BATCH - 1, |a, b| worth[*b].total_cmp(&worth[*a]));
            }
            rows.extend(next.into_iter().take(BATCH - 1));
        }
        let block: Vec<f32> =
            rows.iter().flat_map(|r| &self.unit[r * self.dim..][..self.dim]).copied().collect();
        let mut batch = vec![0.0; rows.len() * self.n.next_multiple_of(TILE)];
        let work = rows.len() * self.n * self.dim * 4;
        threads::each_chunk(
            work,
            &mut batch,
            4 * rows.len() * TILE,
            || (),
            |(), part, out| {
                let columns = self.offsets[part * 4 * TILE..].chunks(TILE);
                for (out, keys) in out.chunks_exact_mut(rows.len() * TILE).zip(columns) {
                    dots(&block, &key_rows(self.unit, keys, 0), 1, rows.len(), self.dim, out);
                }
            },
        );
        for (place, row) in rows.iter().enumerate() {
            self.places[*row] = Some((self.batches.len(), place));
        }
        self.waiting += rows.len();
        self.batches.push(batch);
    }
}

fn scaled_importance(importance: &[f32], lam: f32) -> Vec<f32> {
    let least = importance.iter().copied().fold(f32::INFINITY, f32::min);
    let most = importance.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let span = if most > least { most - least } else { 1.0 };
    importance.iter().map(|x| lam * (x - least) / span).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::nearest::alike::rows;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Bounds leave nothing out: the rows chosen, in their order, are those of all cosines.
        #[test]
        fn screened_chooses_as_all_cosines(
            n in 2usize..200, dim in 1usize..90, kinds in 1usize..40,
            noise in prop_oneof![Just(0.0f32), Just(1e-4), Just(1e-2), Just(1.0)], seed: u64,
            lam in prop_oneof![Just(None), Just(Some(0.0f32)), Just(Some(1.0)), (0.0f32..1.0).prop_map(Some)], share in 0.1f32..1.0,
        ) {
            let unit = rows(n, dim, kinds, noise, seed);
            let importance: Vec<f32> = (0..n).map(|i| (i * 7 % 5) as f32).collect();
            let (gain, base) = match lam {
                None => (Gain::MaxMin, vec![1.0; n]),
                Some(lam) => (Gain::Mmr { importance: &importance, lam }, scaled_importance(&importance, lam)),
            };
            for codes in Codes::forms(&unit, dim) {
                let everyone: Vec<usize> = (0..n).collect();
                let keys = codes.keys(&everyone);
                let first = greatest(&base);
                let count = ((n as f32 * share) as usize).max(1);
                let (mut got, mut all) = (vec![0; count], vec![0; count]);
                screened(&unit, dim, &codes, &keys, &base, 1.0 - lam.unwrap_or(0.0), first, &mut got);
                by_all(&unit, dim, gain, &base, first, &mut all);
                prop_assert_eq!(got, all);
            }
        }
    }
}
