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
    threads::each_chunk(work, out, 1, Spectrum::default, |spectrum, i, out| {
        let Spectrum { gram, row, .. } = spectrum;
        gram.clear();
        gram.resize(side * side, 0.0);
        if rows <= columns {
            row.clear();
            for r in 0..rows {
                row.extend(x.row([i, r, 0]).iter().map(|x| f64::from(x.widen())));
            }
            fill_gram(row, columns, gram, side);
        } else {
            for r in 0..rows {
                row.clear();
                row.extend(x.row([i, r, 0]).iter().map(|x| f64::from(x.widen())));
                add_outer(row, gram);
            }
        }
        out[0] = spectrum.entropy(side);
    });
    Ok(())
}

/// Products of all pairs of rows of `length`.
fn fill_gram(rows: &[f64], length: usize, gram: &mut [f64], side: usize) {
    if length == 0 {
        return;
    }
    for (i, a) in rows.chunks_exact(length).enumerate() {
        for (j, b) in rows.chunks_exact(length).enumerate().skip(i) {
            let (a, b) = (a.as_chunks::<WIDTH>(), b.as_chunks::<WIDTH>());
            let mut sums = [0.0; WIDTH];
            for (a, b) in a.0.iter().zip(b.0) {
                for lane in 0..WIDTH {
                    sums[lane] += a[lane] * b[lane];
                }
            }
            let rest: f64 = a.1.iter().zip(b.1).map(|(a, b)| a * b).sum();
            let dot = sums.iter().sum::<f64>() + rest;
            (gram[i * side + j], gram[j * side + i]) = (dot, dot);
        }
    }
}

fn add_outer(row: &[f64], gram: &mut [f64]) {
    if row.is_empty() {
        return;
    }
    for (a, sums) in row.iter().zip(gram.chunks_exact_mut(row.len())) {
        for (b, sum) in row.iter().zip(sums) {
            *sum += a * b;
        }
    }
}

/// A Gram matrix on the way to its eigenvalues.
#[derive(Default)]
struct Spectrum {
    row: Vec<f64>,
    gram: Vec<f64>,
    /// Of the tridiagonal form; in the end the eigenvalues.
    diagonal: Vec<f64>,
    beside: Vec<f64>,
    reflector: Vec<f64>,
    image: Vec<f64>,
}

impl Spectrum {
    /// Of the eigenvalues, scaled to a sum of 1.
    fn entropy(&mut self, side: usize) -> f32 {
        let trace: f64 = (0..side).map(|i| self.gram[i * side + i]).sum();
        if trace == 0.0 {
            return 0.0;
        }
        self.gram.iter_mut().for_each(|x| *x /= trace);
        self.tridiagonal(side);
        self.diagonalise();
        let part = |share: &f64| if *share > 0.0 { -share * share.ln() } else { 0.0 };
        self.diagonal.iter().map(part).sum::<f64>() as f32
    }

    /// Householder's reflections, one per column. (Jacobi's rotations of the whole matrix took ten times as long.)
    fn tridiagonal(&mut self, n: usize) {
        let Self { gram: a, diagonal, beside, reflector, image, .. } = self;
        diagonal.clear();
        beside.clear();
        for k in 0..n {
            diagonal.push(a[k * n + k]);
            if k + 1 == n {
                break;
            }
            reflector.clear();
            reflector.extend_from_slice(&a[k * n + k + 1..(k + 1) * n]); // row k is column k
            let square: f64 = reflector.iter().map(|x| x * x).sum();
            let first = reflector[0];
            if square - first * first <= f64::MIN_POSITIVE {
                beside.push(first);
                continue;
            }
            let length = -square.sqrt().copysign(first);
            beside.push(length);
            reflector[0] -= length;
            let factor = 1.0 / (square - first * length); // 2 / |reflector|^2
                                                          // image = factor * A v, then shifted along v so that A - v w^T - w v^T is the reflected matrix.
            image.clear();
            image.resize(n - k - 1, 0.0);
            for (i, x) in reflector.iter().enumerate() {
                let row = &a[(k + 1 + i) * n + k + 1..(k + 2 + i) * n];
                image.iter_mut().zip(row).for_each(|(image, a)| *image += factor * x * a);
            }
            let along: f64 = reflector.iter().zip(&*image).map(|(v, p)| v * p).sum::<f64>() * factor / 2.0;
            image.iter_mut().zip(&*reflector).for_each(|(p, v)| *p -= along * v);
            for (i, (v, w)) in reflector.iter().zip(&*image).enumerate() {
                let row = &mut a[(k + 1 + i) * n + k + 1..(k + 2 + i) * n];
                for ((a, x), y) in row.iter_mut().zip(&*image).zip(&*reflector) {
                    *a -= v * x + w * y;
                }
            }
        }
        beside.push(0.0);
    }

    /// The QL method with implicit shifts, eigenvalue by eigenvalue.
    fn diagonalise(&mut self) {
        const ROUNDS: usize = 60; // two do
        let (d, e) = (&mut self.diagonal, &mut self.beside);
        let n = d.len();
        for l in 0..n {
            for _ in 0..ROUNDS {
                let small = |i: usize| e[i].abs() <= f64::EPSILON * (d[i].abs() + d[i + 1].abs()) + 1e-20;
                let m = (l..n - 1).find(|i| small(*i)).unwrap_or(n - 1);
                if m == l {
                    break;
                }
                let g = (d[l + 1] - d[l]) / (2.0 * e[l]);
                let mut g = d[m] - d[l] + e[l] / (g + g.hypot(1.0).copysign(g));
                let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
                let mut split = false;
                for i in (l..m).rev() {
                    let (f, b) = (s * e[i], c * e[i]);
                    let r = (f * f + g * g).sqrt(); // elements are at most 1
                    e[i + 1] = r;
                    if r == 0.0 {
                        d[i + 1] -= p;
                        split = true;
                        break;
                    }
                    (s, c) = (f / r, g / r);
                    g = d[i + 1] - p;
                    let r = (d[i] - g) * s + 2.0 * c * b;
                    p = s * r;
                    d[i + 1] = g + p;
                    g = c * r - b;
                }
                if !split {
                    d[l] -= p;
                    e[l] = g;
                }
                e[m] = 0.0;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Known eigenvalues, turned by reflections on both sides: any order, equal ones and zeros among them, wide and tall.
    #[test]
    fn entropy_is_that_of_the_singular_values() {
        for lengths in
            [&[3.0, 1.0, 2.0, 1.0, 0.0, 0.5][..], &[1.0], &[0.0, 2.0], &[1e-3, 1e3, 1.0], &[1.0; 40]]
        {
            let n = lengths.len();
            let reflect = |i: usize, j: usize, seed: f64| {
                let v = |i: usize| (i as f64 + seed).sin() + 0.1;
                let square: f64 = (0..n).map(|i| v(i) * v(i)).sum();
                f64::from(u8::from(i == j)) - 2.0 * v(i) * v(j) / square
            };
            let element = |i: usize, j: usize| -> f32 {
                let sum = |k: usize| reflect(i, k, 0.3) * lengths[k] * reflect(k, j, 1.7);
                if j < n {
                    (0..n).map(sum).sum::<f64>() as f32
                } else {
                    0.0
                }
            };
            let total: f64 = lengths.iter().map(|x| x * x).sum();
            let shares = lengths.iter().map(|x| x * x / total).filter(|share| *share > 0.0);
            let wanted = shares.map(|share| -share * share.ln()).sum::<f64>() as f32;
            let (wide, tall) = ([1, n, n + 3], [1, n + 3, n]);
            let x: Vec<f32> = (0..n * (n + 3)).map(|at| element(at / (n + 3), at % (n + 3))).collect();
            let y: Vec<f32> = (0..n * (n + 3)).map(|at| element(at % n, at / n)).collect();
            for (x, shape) in [(&x, wide), (&y, tall)] {
                let mut out = [0.0];
                entropy_scores(View::dense("x", x, shape).expect("fits"), &mut out).expect("fits");
                assert!((out[0] - wanted).abs() < 1e-5, "{lengths:?} {shape:?}: {} {wanted}", out[0]);
            }
        }
        let mut out = [1.0; 2];
        entropy_scores(View::dense("x", &[0.0f32; 12], [2, 2, 3]).expect("fits"), &mut out).expect("fits");
        assert!(out.iter().all(|x: &f32| x.abs() < 1e-9));
    }
}
