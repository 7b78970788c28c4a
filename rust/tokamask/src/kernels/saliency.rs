//! How much a token matters by itself: entropy of its heads, rank in the attention graph
//! (`python/tokamask/reference/saliency.py`).

use super::array::View;
use super::attention::mismatch;
use super::floats::Float;
use super::lanes::{dispatch, Lanes, WIDTH};
use super::threads;
use crate::error::ShapeError;

/// Von Neumann entropy of each token's matrix `[rows, columns]` of `x` `[n, rows, columns]`, from the smaller of its two Gram
/// matrices: their eigenvalues other than 0 are the same.
pub fn entropy_scores<T: Float>(x: View<T, 3>, out: &mut [f32]) -> Result<(), ShapeError> {
    let [n, rows, columns] = x.shape;
    if out.len() != n {
        return Err(mismatch("out", format!("float32 [{n}]"), format!("{} elements", out.len())));
    }
    let side = rows.min(columns);
    let work = n * side * side * (side + rows.max(columns)) * 8;
    threads::each_chunk(
        work,
        out,
        1,
        || (Vec::new(), Vec::new()),
        |(matrix, gram), i, out| {
            matrix.clear();
            for r in 0..rows {
                matrix.extend(x.row([i, r, 0]).iter().map(|x| f64::from(x.widen())));
            }
            out[0] = entropy(matrix, [rows, columns], gram);
        },
    );
    Ok(())
}

fn entropy(matrix: &[f64], [rows, columns]: [usize; 2], gram: &mut Vec<f64>) -> f32 {
    let side = rows.min(columns);
    let length = rows.max(columns);
    // Element `l` of vector `i`: rows if there are fewer of them, else columns.
    let at =
        |i: usize, l: usize| if rows <= columns { matrix[i * columns + l] } else { matrix[l * columns + i] };
    gram.clear();
    gram.resize(side * side, 0.0);
    for i in 0..side {
        for j in i..side {
            let dot = (0..length).map(|l| at(i, l) * at(j, l)).sum();
            (gram[i * side + j], gram[j * side + i]) = (dot, dot);
        }
    }
    let trace: f64 = (0..side).map(|i| gram[i * side + i]).sum();
    if trace == 0.0 {
        return 0.0;
    }
    eigenvalues(gram, side);
    let part = |i: usize| {
        let share = gram[i * side + i] / trace;
        if share > 0.0 {
            -share * share.ln()
        } else {
            0.0
        }
    };
    (0..side).map(part).sum::<f64>() as f32
}

/// Leaves the eigenvalues of a symmetric matrix on its diagonal: Jacobi rotations, sweep by sweep.
fn eigenvalues(a: &mut [f64], n: usize) {
    const SWEEPS: usize = 30; // six or seven do
    for _ in 0..SWEEPS {
        let off: f64 =
            (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        let diagonal: f64 = (0..n).map(|i| a[i * n + i].powi(2)).sum();
        if off <= 1e-24 * diagonal {
            return;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(a, n, p, q);
            }
        }
    }
}

/// The rotation that makes element `(p, q)` 0.
fn rotate(a: &mut [f64], n: usize, p: usize, q: usize) {
    let apq = a[p * n + q];
    if apq == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for k in 0..n {
        let (x, y) = (a[p * n + k], a[q * n + k]);
        (a[p * n + k], a[q * n + k]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..n {
        let (x, y) = (a[k * n + p], a[k * n + q]);
        (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
    }
}

/// Weighted PageRank over the attention graph `[heads, n, n]` (row attends to column): per head `rounds` times `s <- A^T s`,
/// scaled to a sum of 1; then the root mean square over the heads whose variance lies in `variance`, all if none does.
pub fn pagerank_scores(
    attention: View<f32, 3>,
    rounds: usize,
    variance: [f32; 2],
    out: &mut [f32],
) -> Result<(), ShapeError> {
    let [heads, n, columns] = attention.shape;
    if columns != n || out.len() != n || heads == 0 {
        let expected = format!("float32 [heads, {n}, {n}]");
        return Err(mismatch("attention", expected, format!("{:?}", attention.shape)));
    }
    let mut scores = vec![0.0f32; heads * n];
    if n == 0 {
        return Ok(());
    }
    threads::each_chunk(
        heads * n * n * 4 * rounds,
        &mut scores,
        n,
        || vec![0.0f32; n],
        |next, head, scores| {
            scores.fill(1.0 / n as f32);
            for _ in 0..rounds {
                next.fill(0.0);
                for (j, weight) in scores.iter().enumerate() {
                    add_scaled(next, *weight, attention.row([head, j, 0]));
                }
                let total: f64 = next.iter().map(|x| f64::from(*x)).sum();
                let factor = if total > 0.0 { (1.0 / total) as f32 } else { 0.0 };
                scores.iter_mut().zip(&*next).for_each(|(s, x)| *s = x * factor);
            }
        },
    );
    let spread = |row: &[f32]| {
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
        row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n as f64
    };
    let inside = |row: &&[f32]| {
        let spread = spread(row);
        f64::from(variance[0]) <= spread && spread <= f64::from(variance[1])
    };
    let mut kept: Vec<&[f32]> = scores.chunks_exact(n).filter(inside).collect();
    if kept.is_empty() {
        kept = scores.chunks_exact(n).collect();
    }
    for (i, out) in out.iter_mut().enumerate() {
        let square: f64 = kept.iter().map(|row| f64::from(row[i]).powi(2)).sum();
        *out = (square / kept.len() as f64).sqrt() as f32;
    }
    Ok(())
}

/// `to += factor * from`.
pub(super) fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) {
    dispatch!(add_scaled_kernel(to: &mut [f32], factor: f32, from: &[f32]));
}

#[inline(always)]
unsafe fn add_scaled_kernel<L: Lanes>(to: &mut [f32], factor: f32, from: &[f32]) {
    let n = to.len().min(from.len());
    let whole = n / WIDTH * WIDTH;
    for at in (0..whole).step_by(WIDTH) {
        // SAFETY: at + WIDTH <= n, at most both lengths; the caller has the features.
        unsafe {
            let to = to.as_mut_ptr().add(at);
            L::splat(factor).mul_add(L::load(from.as_ptr().add(at)), L::load(to)).store(to);
        }
    }
    for (to, from) in to[whole..n].iter_mut().zip(&from[whole..n]) {
        *to += factor * from;
    }
}
