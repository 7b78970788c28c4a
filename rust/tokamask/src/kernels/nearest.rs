//! Of each row the most similar of some others, among unit rows: all cosines, or those that a [screen](super::screen) lets through.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::attention::dots::{dots, key_rows};
use super::attention::tile::TILE;
use super::floats::{key_value, order_key};
use super::screen::{Bounds, Codes, Keys, BLOCK, GROUP};
use super::threads;

/// Rows taken by one thread at a time: what reads keys from memory once serves them all.
const CHUNK: usize = 8 * BLOCK;
/// Products below which codes are not worth making.
const FEW: usize = 1 << 21;

/// Of each row the first of the keys with the greatest cosine, and that cosine; a row is not compared with itself. -inf and place 0 where
/// there is nothing to compare with.
pub fn most_similar(unit: &[f32], dim: usize, rows: &[usize], keys: &[usize]) -> Vec<(f32, usize)> {
    if rows.len() * keys.len() * dim > FEW {
        if let Some(codes) = Codes::of(unit, dim) {
            return screened(unit, dim, rows, &codes, &codes.keys(keys));
        }
    }
    among_all(unit, dim, rows, keys)
}

fn among_all(unit: &[f32], dim: usize, rows: &[usize], keys: &[usize]) -> Vec<(f32, usize)> {
    let mut best = vec![(f32::NEG_INFINITY, 0); rows.len()];
    let work = rows.len() * keys.len() * dim;
    threads::each_chunk(work, &mut best, TILE, Vec::new, |tile, part, best| {
        let rows = &rows[part * TILE..][..best.len()];
        let block: Vec<f32> = rows.iter().flat_map(|row| &unit[row * dim..][..dim]).copied().collect();
        tile.resize(rows.len() * TILE, 0.0);
        for (part, keys) in keys.chunks(TILE).enumerate() {
            let offsets: Vec<usize> = keys.iter().map(|key| key * dim).collect();
            dots(&block, &key_rows(unit, &offsets, 0), 1, rows.len(), dim, tile);
            for ((row, best), cosines) in rows.iter().zip(&mut *best).zip(tile.chunks_exact(TILE)) {
                for (i, (key, cosine)) in keys.iter().zip(cosines).enumerate() {
                    if *cosine > best.0 && key != row {
                        *best = (*cosine, part * TILE + i);
                    }
                }
            }
        }
    });
    best
}

fn screened(unit: &[f32], dim: usize, rows: &[usize], codes: &Codes, keys: &Keys) -> Vec<(f32, usize)> {
    let mut best = vec![(f32::NEG_INFINITY, 0); rows.len()];
    let groups = keys.rows.len().div_ceil(GROUP);
    threads::each_chunk(
        rows.len() * keys.rows.len() * dim,
        &mut best,
        CHUNK,
        Vec::new,
        |tile, part, best| {
            let rows = &rows[part * CHUNK..][..best.len()];
            let mut bounds = [Bounds::NONE; BLOCK];
            let mut rivals = vec![Rivals::default(); rows.len()];
            for group in 0..groups {
                for (rows, rivals) in rows.chunks(BLOCK).zip(rivals.chunks_mut(BLOCK)) {
                    codes.bounds(rows, keys, group, &mut bounds);
                    for (rivals, bounds) in rivals.iter_mut().zip(&bounds) {
                        rivals.add(bounds, group * GROUP);
                    }
                }
            }
            for ((row, best), rivals) in rows.iter().zip(best).zip(rivals) {
                *best = rivals.settle(&unit[row * dim..][..dim], unit, keys.rows, tile);
            }
        },
    );
    best
}

/// Keys that may be the most similar to a row.
#[derive(Clone)]
struct Rivals {
    /// The greatest cosine is at least this.
    least: f32,
    /// Upper bounds and places, ascending by place.
    all: Vec<(f32, usize)>,
}

impl Default for Rivals {
    fn default() -> Self {
        Self { least: f32::NEG_INFINITY, all: Vec::new() }
    }
}

impl Rivals {
    fn add(&mut self, bounds: &Bounds, first: usize) {
        if bounds.greatest_lower > self.least {
            self.least = bounds.greatest_lower;
        }
        if bounds.greatest_upper < self.least {
            return;
        }
        if self.all.len() > 8 * GROUP {
            self.all.retain(|(upper, _)| *upper >= self.least);
        }
        let may = bounds
            .upper
            .iter()
            .enumerate()
            .filter(|(_, upper)| **upper >= self.least && **upper > f32::NEG_INFINITY);
        self.all.extend(may.map(|(i, upper)| (*upper, first + i)));
    }

    /// The greatest cosine and its first place.
    fn settle(mut self, row: &[f32], unit: &[f32], keys: &[usize], tile: &mut Vec<f32>) -> (f32, usize) {
        let dim = row.len();
        tile.resize(TILE, 0.0);
        let mut best = (f32::NEG_INFINITY, 0);
        let (mut offsets, mut places) = ([0; TILE], [0; TILE]);
        self.all.retain(|(upper, _)| *upper >= self.least);
        // The likeliest first: its cosine rules most of the others out.
        if let Some(top) = self.all.iter().max_by(|a, b| a.0.total_cmp(&b.0)) {
            dots(row, &key_rows(unit, &[keys[top.1] * dim], 0), 1, 1, dim, tile);
            self.least = self.least.max(tile[0]);
        }
        let mut left = self.all.iter();
        loop {
            let mut n = 0;
            for (_, place) in left.by_ref().filter(|(upper, _)| *upper >= self.least).take(TILE) {
                (offsets[n], places[n]) = (keys[*place] * dim, *place);
                n += 1;
            }
            if n == 0 {
                return best;
            }
            dots(row, &key_rows(unit, &offsets[..n], 0), 1, 1, dim, tile);
            for (cosine, place) in tile[..n].iter().zip(places) {
                if *cosine > best.0 {
                    best = (*cosine, place);
                }
            }
            self.least = self.least.max(best.0);
        }
    }
}

/// The row farthest from its nearest neighbour, lowest among equals.
///
/// All pairs would be the dearest part of a selection. A row is out of the race once a neighbour is nearer than the nearest
/// neighbour of some other row is to that, and most rows learn it early; what is left is exact.
pub fn loneliest(unit: &[f32], n: usize, dim: usize, screen: Option<(&Codes, &Keys)>) -> usize {
    let rows = screen.map_or_else(|| (0..n).collect(), |(codes, keys)| candidates(codes, keys));
    let nearest = nearest(unit, dim, &rows, n);
    let mut lonely = 0;
    for (i, cosine) in nearest.iter().enumerate() {
        if *cosine < nearest[lonely] {
            lonely = i;
        }
    }
    rows[lonely]
}

/// Rows, ascending, that may be the loneliest.
fn candidates(codes: &Codes, keys: &Keys) -> Vec<usize> {
    let n = keys.rows.len();
    let groups = n.div_ceil(GROUP);
    // The least upper bound of a row's greatest cosine so far, as bits that order as the float does.
    let least = AtomicU32::new(order_key(f32::INFINITY));
    // Lower bounds of each row's greatest cosine; a row that is out stops early.
    let mut lower = vec![f32::NEG_INFINITY; n];
    threads::each_chunk(
        n * n * codes.dim(),
        &mut lower,
        CHUNK,
        || (),
        |(), part, lower| {
            let rows = &keys.rows[part * CHUNK..][..lower.len()];
            let mut bounds = [Bounds::NONE; BLOCK];
            let mut upper = vec![f32::NEG_INFINITY; rows.len()];
            // From the rows' own place on: neighbours in a picture are alike.
            for step in 0..groups {
                let group = (part * CHUNK / GROUP + step) % groups;
                let bar = key_value(least.load(Relaxed));
                let blocks = rows.chunks(BLOCK).zip(lower.chunks_mut(BLOCK)).zip(upper.chunks_mut(BLOCK));
                for ((rows, lower), upper) in blocks {
                    if lower.iter().all(|lower| *lower > bar) {
                        continue;
                    }
                    codes.bounds(rows, keys, group, &mut bounds);
                    for ((lower, upper), bounds) in lower.iter_mut().zip(upper).zip(&bounds) {
                        *lower = lower.max(bounds.greatest_lower);
                        *upper = upper.max(bounds.greatest_upper);
                    }
                }
            }
            for (lower, upper) in lower.iter().zip(upper) {
                // Rows that stopped early have seen too little for an upper bound, and are out anyway.
                if *lower <= key_value(least.load(Relaxed)) {
                    least.fetch_min(order_key(upper), Relaxed);
                }
            }
        },
    );
    let bar = key_value(least.into_inner());
    keys.rows.iter().zip(lower).filter(|(_, lower)| *lower <= bar).map(|(row, _)| *row).collect()
}

/// The greatest cosine of each of some rows with another; +inf for rows that are seen not to have the least of them.
fn nearest(unit: &[f32], dim: usize, rows: &[usize], n: usize) -> Vec<f32> {
    const ROWS: usize = 4;
    let offsets: Vec<usize> = (0..n).map(|i| i * dim).collect();
    let least = AtomicU32::new(order_key(f32::INFINITY));
    let mut nearest = vec![f32::INFINITY; rows.len()];
    threads::each_chunk(rows.len() * n * dim, &mut nearest, ROWS, Vec::new, |tile, part, nearest| {
        let rows = &rows[part * ROWS..][..nearest.len()];
        let block: Vec<f32> = rows.iter().flat_map(|row| &unit[row * dim..][..dim]).copied().collect();
        let tiles = n.div_ceil(TILE);
        let mut best = [f32::NEG_INFINITY; ROWS];
        tile.resize(rows.len() * TILE, 0.0);
        for step in 0..tiles {
            let from = (rows[0] / TILE + step) % tiles * TILE;
            let keys = &offsets[from..(from + TILE).min(n)];
            dots(&block, &key_rows(unit, keys, 0), 1, rows.len(), dim, tile);
            for ((row, best), dots) in rows.iter().zip(&mut best).zip(tile.chunks_exact(TILE)) {
                for (j, cosine) in dots[..keys.len()].iter().enumerate() {
                    if from + j != *row {
                        *best = best.max(*cosine);
                    }
                }
            }
            let bar = key_value(least.load(Relaxed));
            if best[..rows.len()].iter().all(|cosine| *cosine > bar) {
                return; // the rows keep +inf
            }
        }
        nearest.copy_from_slice(&best[..rows.len()]);
        for cosine in &best[..rows.len()] {
            least.fetch_min(order_key(*cosine), Relaxed);
        }
    });
    nearest
}

#[cfg(test)]
pub(super) mod alike {
    /// Unit rows of which many are alike or equal, and some zero: ties and near ties are the rule.
    pub fn rows(n: usize, dim: usize, kinds: usize, noise: f32, seed: u64) -> Vec<f32> {
        let mut state = seed | 1;
        let mut draw = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let bases: Vec<Vec<f32>> = (0..kinds).map(|_| (0..dim).map(|_| draw()).collect()).collect();
        let mut unit = Vec::new();
        for i in 0..n {
            let base = &bases[i * 7 % kinds];
            let row: Vec<f32> =
                base.iter().map(|x| if i % 13 == 5 { 0.0 } else { x + noise * draw() }).collect();
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            unit.extend(row.iter().map(|x| if length == 0.0 { 0.0 } else { x / length }));
        }
        unit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::alike::rows;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// The screen lets every greatest cosine through: results are those of all pairs, bit for bit.
        #[test]
        fn screened_is_all_pairs(
            n in 2usize..200, dim in 1usize..90, kinds in 1usize..40,
            noise in prop_oneof![Just(0.0f32), Just(1e-4), Just(1e-2), Just(1.0)], seed: u64, apart: bool,
        ) {
            let unit = rows(n, dim, kinds, noise, seed);
            let (from, to): (Vec<usize>, Vec<usize>) =
                if apart { (0..n).partition(|i| i % 2 == 0) } else { ((0..n).collect(), (0..n).collect()) };
            for codes in Codes::forms(&unit, dim) {
                let got = screened(&unit, dim, &from, &codes, &codes.keys(&to));
                let all = among_all(&unit, dim, &from, &to);
                prop_assert_eq!(got, all);
                let everyone: Vec<usize> = (0..n).collect();
                let may = candidates(&codes, &codes.keys(&everyone));
                let best = among_all(&unit, dim, &everyone, &everyone);
                let least = best.iter().map(|b| b.0).fold(f32::INFINITY, f32::min);
                for (i, (cosine, _)) in best.iter().enumerate() {
                    prop_assert!(*cosine > least || may.contains(&i), "{i} of {may:?}");
                }
            }
        }

        /// A bound holds for the cosine in double precision, and is not idle.
        #[test]
        fn bounds_hold(dim in 1usize..300, noise in prop_oneof![Just(0.0f32), Just(1.0)], seed: u64) {
            let unit = rows(70, dim, 9, noise, seed);
            for codes in Codes::forms(&unit, dim) {
                let all: Vec<usize> = (0..70).collect();
                let keys = codes.keys(&all);
                let mut bounds = [Bounds::NONE; BLOCK];
                for (group, first) in [(0, 0), (1, GROUP)] {
                    codes.bounds(&[3, 68], &keys, group, &mut bounds);
                    for (row, bounds) in [3usize, 68].into_iter().zip(&bounds) {
                        for (i, upper) in bounds.upper.iter().enumerate() {
                            let key = first + i;
                            if key >= 70 || key == row {
                                prop_assert!(upper.is_infinite() && *upper < 0.0);
                                continue;
                            }
                            let dot = |a: usize, b: usize| -> f64 {
                                (0..dim).map(|d| f64::from(unit[a * dim + d]) * f64::from(unit[b * dim + d])).sum()
                            };
                            prop_assert!(dot(row, key) <= f64::from(*upper) + 1e-9);
                            prop_assert!(f64::from(*upper) - dot(row, key) < 0.1, "{upper} {}", dot(row, key));
                        }
                    }
                }
            }
        }
    }
}
