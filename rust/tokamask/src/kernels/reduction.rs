//! Fewer visual tokens: merging by bipartite matching (`python/tokamask/reference/reduction.py`).

use super::array::View;
use super::attention::dots::{dots, key_rows};
use super::attention::mismatch;
use super::attention::tile::TILE;
use super::blocks::widen_all;
use super::floats::Float;
use super::lanes::{dispatch, Lanes};
use super::nearest::most_similar;
use super::press::square_and_dot;
use super::selection::rank;
use super::threads;
use crate::error::ShapeError;

/// Merged rows that a thread computes at a time.
const MEANS: usize = 16;
/// Rows of length 1; rows of zeros stay.
pub(super) fn normalised<T: Float>(x: View<T, 2>) -> Vec<f32> {
    let [n, dim] = x.shape;
    let mut unit = vec![0.0; n * dim];
    threads::each_chunk(n * dim * 8, &mut unit, dim.max(1) * TILE, Vec::new, |wide, part, unit| {
        for (i, unit) in unit.chunks_exact_mut(dim).enumerate() {
            widen_all(x.row([part * TILE + i, 0]), wide);
            let square = square_and_dot(wide, wide).0;
            let factor = if square == 0.0 { 0.0 } else { square.sqrt().recip() };
            unit.iter_mut().zip(&*wide).for_each(|(u, x)| *u = x * factor);
        }
    });
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

/// Which row each row goes into, itself if it stays.
pub type Into = Vec<u32>;

/// How many sources go.
#[derive(Clone, Copy, Debug)]
pub enum Many {
    /// This many.
    Count(usize),
    /// All with a greater cosine.
    Above(f32),
}

/// The sources most similar to a target go into it (ties by lowest row): each row's destination.
fn match_rows(unit: &[f32], n: usize, sources: &[usize], targets: &[usize], many: Many) -> Into {
    let dim = unit.len() / n.max(1);
    let mut into: Into = (0..n as u32).collect();
    if targets.is_empty() {
        return into;
    }
    let best = most_similar(unit, dim, sources, targets);
    let mut order: Vec<(u64, usize)> = best.iter().enumerate().map(|(i, (c, _))| (rank(*c, i), i)).collect();
    order.sort_unstable_by(|a, b| b.cmp(a));
    for (place, (_, i)) in order.into_iter().enumerate() {
        let (cosine, target) = best[i];
        if match many {
            Many::Count(r) => place < r,
            Many::Above(threshold) => cosine > threshold,
        } {
            into[sources[i]] = targets[target] as u32;
        }
    }
    into
}

/// ToMe: rows at even distance from `protect` propose to those at odd distance; earlier rows take no part. With a threshold in
/// place of a count it is DyMU's merge.
pub fn tome_match<T: Float>(metric: View<T, 2>, many: Many, protect: usize) -> Into {
    let n = metric.shape[0];
    let sources: Vec<usize> = (protect..n).step_by(2).collect();
    let targets: Vec<usize> = (protect + 1..n).step_by(2).collect();
    match_rows(&normalised(metric), n, &sources, &targets, many)
}

/// The cosine of each of ToMe's edges, one per source.
pub fn tome_edges<T: Float>(metric: View<T, 2>, protect: usize) -> Vec<f32> {
    let [n, dim] = metric.shape;
    let sources: Vec<usize> = (protect..n).step_by(2).collect();
    let targets: Vec<usize> = (protect + 1..n).step_by(2).collect();
    if targets.is_empty() {
        return Vec::new();
    }
    most_similar(&normalised(metric), dim, &sources, &targets).into_iter().map(|(c, _)| c).collect()
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
    match_rows(&unit, n, &sources, &targets, Many::Count(r))
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
    let mut sizes = vec![0.0f32; stay as usize];
    for (row, size) in rows.iter().zip(size) {
        sizes[*row as usize] += size;
    }
    // What goes into each row, in order, so that rows are summed by any thread with the same result.
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.sort_by_key(|i| rows[*i as usize]);
    let mut means = vec![0.0f32; stay as usize * dim];
    threads::each_chunk(
        2 * n * dim * size_of::<T>(),
        &mut means,
        MEANS * dim.max(1),
        || (),
        |(), part, means| {
            let first = (part * MEANS) as i32;
            let mut left = order[order.partition_point(|i| rows[*i as usize] < first)..].iter().peekable();
            for (i, mean) in means.chunks_exact_mut(dim).enumerate() {
                let row = first + i as i32;
                while let Some(from) = left.next_if(|i| rows[**i as usize] == row) {
                    add_scaled(mean, size[*from as usize], x.row([*from as usize, 0]));
                }
                divide(mean, sizes[row as usize]);
            }
        },
    );
    Ok(Merged { x: means, sizes, rows })
}

/// Adds `factor * from`.
pub(super) fn add_scaled<T: Float>(to: &mut [f32], factor: f32, from: &[T]) {
    dispatch!(add_scaled_kernel::<T>(to: &mut [f32], factor: f32, from: &[T]) where [T: Float]);
}

#[inline(always)]
unsafe fn add_scaled_kernel<L: Lanes, T: Float>(to: &mut [f32], factor: f32, from: &[T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from.widen() * factor;
    }
}

fn divide(row: &mut [f32], by: f32) {
    for x in row {
        *x /= by;
    }
}
