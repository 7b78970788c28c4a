//! Fewer visual tokens: greedy selection and merging by bipartite matching (`python/tokamask/reference/reduction.py`).

use super::array::View;
use super::attention::mismatch;
use super::attention::tile::{dots, TILE};
use super::floats::Float;
use super::selection::rank;
use super::threads;
use super::votes::key_rows;
use crate::error::ShapeError;

/// Rows whose cosines with all others may be kept: 64 MiB. Beyond it they are computed when they are needed.
const KEPT: usize = 4096;

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

/// Rows of length 1; rows of zeros stay.
fn normalised<T: Float>(x: View<T, 2>) -> Vec<f32> {
    let mut unit = Vec::with_capacity(x.shape[0] * x.shape[1]);
    for i in 0..x.shape[0] {
        let row = x.row([i, 0]);
        let square: f64 = row.iter().map(|v| f64::from(v.widen()).powi(2)).sum();
        let factor = if square == 0.0 { 0.0 } else { square.sqrt().recip() };
        unit.extend(row.iter().map(|v| (f64::from(v.widen()) * factor) as f32));
    }
    unit
}

/// Cosines of `block` rows (side by side) with the rows at `offsets`: `out[row * stride + column]`.
fn cosines(
    block: &[f32],
    unit: &[f32],
    offsets: &[usize],
    dim: usize,
    stride: usize,
    tile: &mut Vec<f32>,
    out: &mut [f32],
) {
    let rows = block.len() / dim.max(1);
    tile.resize(rows * TILE, 0.0);
    for (part, offsets) in offsets.chunks(TILE).enumerate() {
        dots(block, &key_rows(unit, offsets, 0), 1, rows, dim, tile);
        for (row, dots) in tile.chunks_exact(TILE).enumerate() {
            out[row * stride + part * TILE..][..offsets.len()].copy_from_slice(&dots[..offsets.len()]);
        }
    }
}

/// All cosines, each pair once: row `i` holds columns from `i / 32 * 32` on.
fn gram(unit: &[f32], n: usize, dim: usize) -> Vec<f32> {
    let mut gram = vec![0.0; n * n];
    let offsets: Vec<usize> = (0..n).map(|i| i * dim).collect();
    threads::each_chunk(n * n * dim, &mut gram, TILE * n, Vec::new, |tile, part, out| {
        let first = part * TILE;
        let block = &unit[first * dim..((first + TILE) * dim).min(unit.len())];
        cosines(block, unit, &offsets[first..], dim, n, tile, &mut out[first..]);
    });
    gram
}

/// Cosines, stored or not.
struct Cosines<'a> {
    unit: &'a [f32],
    n: usize,
    dim: usize,
    gram: Option<Vec<f32>>,
    offsets: Vec<usize>,
    tile: Vec<f32>,
}

impl Cosines<'_> {
    /// Cosines of one row with all.
    fn row(&mut self, i: usize, out: &mut [f32]) {
        let n = self.n;
        let Some(gram) = &self.gram else {
            let row = &self.unit[i * self.dim..][..self.dim];
            return cosines(row, self.unit, &self.offsets, self.dim, n, &mut self.tile, out);
        };
        let from = i / TILE * TILE;
        for (j, out) in out[..from].iter_mut().enumerate() {
            *out = gram[j * n + i];
        }
        out[from..].copy_from_slice(&gram[i * n + from..(i + 1) * n]);
    }

    /// The greatest cosine of each row with another one.
    fn nearest(&mut self) -> Vec<f32> {
        let mut nearest = vec![f32::NEG_INFINITY; self.n];
        let mut row = vec![0.0; self.n];
        for i in 0..self.n {
            let from = i / TILE * TILE;
            let here = if let Some(gram) = &self.gram {
                &gram[i * self.n + from..(i + 1) * self.n]
            } else {
                self.row(i, &mut row);
                &row[from..]
            };
            // Each pair is seen from its lower row.
            let mut best = nearest[i];
            for (j, cosine) in here.iter().enumerate().skip(i - from + 1) {
                best = best.max(*cosine);
                nearest[from + j] = nearest[from + j].max(*cosine);
            }
            nearest[i] = best;
        }
        nearest
    }
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
    let seeded = matches!(gain, Gain::Mmr { .. });
    // Without a seed that needs all pairs, rows on demand are cheaper while few are chosen.
    let store = n <= KEPT && (!seeded || 2 * out.len() >= n);
    let mut cosines = Cosines {
        unit: &unit,
        n,
        dim,
        gram: store.then(|| gram(&unit, n, dim)),
        offsets: (0..n).map(|i| i * dim).collect(),
        tile: Vec::new(),
    };
    let mut worth = match gain {
        Gain::Mmr { importance, lam } => scaled_importance(importance, lam),
        _ if n == 1 => vec![0.0],
        _ => cosines.nearest().iter().map(|c| 1.0 - c).collect(),
    };
    let base = worth.clone();
    let (mut nearest, mut total) = (vec![f32::NEG_INFINITY; n], vec![0.0; n]);
    let (mut row, mut free) = (vec![0.0; n], vec![true; n]);
    for slot in out.iter_mut() {
        let mut best: Option<usize> = None;
        for (i, w) in worth.iter().enumerate() {
            if free[i] && best.is_none_or(|b| *w > worth[b]) {
                best = Some(i);
            }
        }
        let best = best.unwrap_or(0); // one is free: out is no longer than n
        *slot = best as i32;
        free[best] = false;
        cosines.row(best, &mut row);
        for i in 0..n {
            nearest[i] = nearest[i].max(row[i]);
            total[i] += 1.0 - row[i];
            worth[i] = match gain {
                Gain::MaxMin => 1.0 - nearest[i],
                Gain::MaxSum => total[i],
                Gain::Mmr { lam, .. } => base[i] - (1.0 - lam) * nearest[i],
            };
        }
    }
    out.sort_unstable();
    Ok(())
}

fn scaled_importance(importance: &[f32], lam: f32) -> Vec<f32> {
    let least = importance.iter().copied().fold(f32::INFINITY, f32::min);
    let most = importance.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let span = if most > least { most - least } else { 1.0 };
    importance.iter().map(|x| lam * (x - least) / span).collect()
}

/// Which row each row goes into, itself if it stays.
pub type Into = Vec<u32>;

/// The `r` sources most similar to a target go into it (ties by lowest row): each row's destination.
fn match_rows(unit: &[f32], dim: usize, sources: &[usize], targets: &[usize], r: usize) -> Into {
    let n = unit.len() / dim.max(1);
    let mut into: Into = (0..n as u32).collect();
    if targets.is_empty() {
        return into;
    }
    let offsets: Vec<usize> = targets.iter().map(|t| t * dim).collect();
    let mut best = vec![(0.0, 0usize); sources.len()];
    let scratch = || (Vec::new(), Vec::new(), Vec::new());
    let work = sources.len() * targets.len() * dim;
    threads::each_chunk(work, &mut best, TILE, scratch, |(block, tile, row), part, best| {
        block.clear();
        for source in &sources[part * TILE..][..best.len()] {
            block.extend_from_slice(&unit[source * dim..][..dim]);
        }
        row.resize(best.len() * targets.len(), 0.0);
        cosines(block, unit, &offsets, dim, targets.len(), tile, row);
        for (best, row) in best.iter_mut().zip(row.chunks_exact(targets.len())) {
            *best = (row[0], 0);
            for (j, cosine) in row.iter().enumerate() {
                if *cosine > best.0 {
                    *best = (*cosine, j);
                }
            }
        }
    });
    let mut order: Vec<(u64, usize)> = best.iter().enumerate().map(|(i, (c, _))| (rank(*c, i), i)).collect();
    order.sort_unstable_by(|a, b| b.cmp(a));
    for (_, i) in order.into_iter().take(r) {
        into[sources[i]] = targets[best[i].1] as u32;
    }
    into
}

/// ToMe: rows at even distance from `protect` propose to those at odd distance; earlier rows take no part.
pub fn tome_match<T: Float>(metric: View<T, 2>, r: usize, protect: usize) -> Into {
    let [n, dim] = metric.shape;
    let sources: Vec<usize> = (protect..n).step_by(2).collect();
    let targets: Vec<usize> = (protect + 1..n).step_by(2).collect();
    match_rows(&normalised(metric), dim, &sources, &targets, r)
}

/// PiToMe: the `2 r` rows of greatest energy, dealt alternately to sources and targets.
pub fn pitome_match<T: Float>(metric: View<T, 2>, r: usize, margin: f32, protect: usize) -> Into {
    let [n, dim] = metric.shape;
    let unit = normalised(metric);
    let free = n.saturating_sub(protect);
    let r = r.min(free / 2);
    let mut energy = vec![0.0f64; free];
    let offsets: Vec<usize> = (protect..n).map(|i| i * dim).collect();
    let scratch = || (Vec::new(), Vec::new());
    threads::each_chunk(free * free * dim, &mut energy, TILE, scratch, |(tile, row), part, energy| {
        let first = protect + part * TILE;
        let block = &unit[first * dim..(first + energy.len()) * dim];
        row.resize(energy.len() * free, 0.0);
        cosines(block, &unit, &offsets, dim, free, tile, row);
        for (i, (energy, row)) in energy.iter_mut().zip(row.chunks_exact(free)).enumerate() {
            let f = |c: f32| if c >= margin { c } else { (c - margin).exp() - 1.0 };
            let all: f64 = row.iter().map(|c| f64::from(f(*c))).sum();
            *energy = all - f64::from(f(row[part * TILE + i]));
        }
    });
    let mut order: Vec<usize> = (0..free).collect();
    order.sort_by(|a, b| energy[*b].total_cmp(&energy[*a])); // stable: ties by lowest row
    let mut sources: Vec<usize> = order[..2 * r].iter().step_by(2).map(|i| protect + i).collect();
    let mut targets: Vec<usize> = order[..2 * r].iter().skip(1).step_by(2).map(|i| protect + i).collect();
    sources.sort_unstable();
    targets.sort_unstable();
    match_rows(&unit, dim, &sources, &targets, r)
}

/// Rows that stay, their sizes, and the new row of each old one.
pub struct Merged {
    /// `[rows that stay, dim]`
    pub x: Vec<f32>,
    /// Original rows in each.
    pub sizes: Vec<f32>,
    /// `[n]`
    pub rows: Vec<i32>,
}

/// Means weighted by size of what goes together.
pub fn merge<T: Float>(x: View<T, 2>, size: &[f32], into: &Into) -> Result<Merged, ShapeError> {
    let [n, dim] = x.shape;
    if into.len() != n || size.len() != n {
        return Err(mismatch(
            "size",
            format!("float32 [{n}] beside metric [{n}, ..]"),
            format!("{}", size.len()),
        ));
    }
    let mut rows = vec![-1; n];
    let mut stay = 0;
    for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i == into[*i] as usize) {
        *row = stay;
        stay += 1;
    }
    for i in 0..n {
        rows[i] = rows[into[i] as usize];
    }
    let mut sums = vec![0.0f32; stay as usize * dim];
    let mut sizes = vec![0.0f32; stay as usize];
    for i in 0..n {
        let row = rows[i] as usize;
        sizes[row] += size[i];
        for (sum, v) in sums[row * dim..][..dim].iter_mut().zip(x.row([i, 0])) {
            *sum += v.widen() * size[i];
        }
    }
    for (row, size) in sums.chunks_mut(dim.max(1)).zip(&sizes) {
        for v in row {
            *v /= size;
        }
    }
    Ok(Merged { x: sums, sizes, rows })
}
