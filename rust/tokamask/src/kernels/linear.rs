//! A few rows times a large matrix, as decoding and the verification of drafts need: bound by reading the matrix, which
//! is read once for all rows.

use super::attention::mismatch;
use super::lanes::{dispatch, Lanes, WIDTH};
use super::threads;
use crate::error::ShapeError;

/// Rows of the matrix and rows of `x` that are multiplied together: eight sums, as many as one transposition adds up.
const OUTS: usize = 2;
const ROWS: usize = 4;
/// Rows of the matrix that one task takes.
const TASK: usize = 64;
/// The matrix is asked for so many elements ahead, into the second-level cache. Without it a core had 10 GB/s of the memory
/// instead of 16, and several rows, computed between the loads, did not overlap with them: 4 rows took 1.5 times as long as 1.
const AHEAD: usize = 16 << 10;
/// Elements of a cache line.
const LINE: usize = 16;

/// `out[r, o] = sum over i of x[r, i] * matrix[o, i]`, with x `[rows, inner]`, matrix `[outs, inner]`, out `[rows, outs]`.
/// A row of the result does not depend on the other rows, bit for bit.
pub fn linear(
    x: &[f32],
    matrix: &[f32],
    [rows, inner, outs]: [usize; 3],
    out: &mut [f32],
) -> Result<(), ShapeError> {
    if x.len() != rows * inner || matrix.len() != outs * inner || out.len() != rows * outs {
        let expected = format!("x [{rows}, {inner}], matrix [{outs}, {inner}], out [{rows}, {outs}]");
        let got = format!("{}, {} and {} elements", x.len(), matrix.len(), out.len());
        return Err(mismatch("x", expected, got));
    }
    if rows == 0 || outs == 0 || inner == 0 {
        out.fill(0.0);
        return Ok(());
    }
    let task = |(): &mut (), nth: usize, block: &mut [f32]| {
        multiply(x, &matrix[nth * TASK * inner..][..block.len() / rows * inner], inner, block);
    };
    if rows == 1 {
        threads::each_chunk(4 * matrix.len(), out, TASK, || (), task);
        return Ok(());
    }
    // Blocks of tasks, [rows, outs of the task] each, are put side by side afterwards.
    let mut blocks = vec![0.0; out.len()];
    threads::each_chunk(4 * matrix.len(), &mut blocks, rows * TASK, || (), task);
    for (r, out) in out.chunks_exact_mut(outs).enumerate() {
        for (block, out) in blocks.chunks(rows * TASK).zip(out.chunks_mut(TASK)) {
            out.copy_from_slice(&block[r * out.len()..][..out.len()]);
        }
    }
    Ok(())
}

/// All rows of `x` by some rows of the matrix into `block` [rows, outs].
fn multiply(x: &[f32], matrix: &[f32], inner: usize, block: &mut [f32]) {
    dispatch!(multiply_lanes(x: &[f32], matrix: &[f32], inner: usize, block: &mut [f32]));
}

#[inline(always)]
unsafe fn multiply_lanes<L: Lanes>(x: &[f32], matrix: &[f32], inner: usize, block: &mut [f32]) {
    let (rows, outs) = (x.len() / inner, matrix.len() / inner);
    for (o, matrix) in matrix.chunks(OUTS * inner).enumerate() {
        // An odd last row stands in for its missing neighbour.
        let pair = [&matrix[..inner], &matrix[matrix.len() - inner..]];
        for (r, x) in x.chunks(ROWS * inner).enumerate() {
            // One row of the pair is asked for beside each of the first two groups of rows, or both beside the only one.
            let asked = match r {
                0 if rows <= ROWS => OUTS,
                0 | 1 => 1,
                _ => 0,
            };
            let ahead = matrix.as_ptr().wrapping_add(AHEAD + r * inner);
            // SAFETY: the caller has the processor features; each tile has as many rows as its name says.
            let sums = unsafe {
                match x.len() / inner {
                    1 => tile::<L, 1>(x, pair, ahead, asked),
                    2 => tile::<L, 2>(x, pair, ahead, asked),
                    3 => tile::<L, 3>(x, pair, ahead, asked),
                    _ => tile::<L, ROWS>(x, pair, ahead, asked),
                }
            };
            for row in 0..x.len() / inner {
                for pair in 0..OUTS.min(outs - o * OUTS) {
                    block[(r * ROWS + row) * outs + o * OUTS + pair] = sums[pair * ROWS + row];
                }
            }
        }
    }
}

/// The dot products of `R` rows with two rows of the matrix; of `pair[j]` they begin at `j * ROWS`.
#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize>(
    x: &[f32],
    pair: [&[f32]; OUTS],
    ahead: *const f32,
    asked: usize,
) -> [f32; WIDTH] {
    let inner = pair[0].len();
    let (lines, whole) = (inner / LINE * LINE, inner / WIDTH * WIDTH);
    let x = &x[..R * inner];
    let mut sums = [0.0; WIDTH];
    // SAFETY: the caller has the processor features; loads end before `whole`, in slices of `inner` elements.
    unsafe {
        let mut totals = [L::splat(0.0); WIDTH];
        let mut i = 0;
        while i < lines {
            for line in 0..asked {
                L::prefetch(ahead.wrapping_add(asked * i + line * LINE).cast());
            }
            add::<L, R>(&mut totals, x, pair, i);
            add::<L, R>(&mut totals, x, pair, i + WIDTH);
            i += LINE;
        }
        if i < whole {
            add::<L, R>(&mut totals, x, pair, i);
        }
        L::sum_each(totals).store(sums.as_mut_ptr());
    }
    for (j, weights) in pair.iter().enumerate() {
        for r in 0..R {
            let rest = x[r * inner + whole..(r + 1) * inner].iter().zip(&weights[whole..]);
            sums[j * ROWS + r] += rest.map(|(a, b)| a * b).sum::<f32>();
        }
    }
    sums
}

/// Eight products of each row with each of the pair, from element `i` on.
#[inline(always)]
unsafe fn add<L: Lanes, const R: usize>(totals: &mut [L; WIDTH], x: &[f32], pair: [&[f32]; OUTS], i: usize) {
    let inner = pair[0].len();
    // SAFETY: the caller has the processor features, and eight elements from `i` on in every row.
    unsafe {
        let (first, second) = (L::load(pair[0].as_ptr().add(i)), L::load(pair[1].as_ptr().add(i)));
        // Plain loops: closures would become calls between processor features.
        for r in 0..R {
            let row = L::load(x.as_ptr().add(r * inner + i));
            totals[r] = row.mul_add(first, totals[r]);
            totals[ROWS + r] = row.mul_add(second, totals[ROWS + r]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lanes::portable::both;
    use super::*;

    fn product(x: &[f32], matrix: &[f32], shape: [usize; 3]) -> Vec<f32> {
        let mut out = vec![f32::NAN; shape[0] * shape[2]];
        linear(x, matrix, shape, &mut out).expect("fits");
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn equals_the_definition_and_each_row_alone(rows in 0_usize..11, inner in 0_usize..70, outs in 0_usize..150, seed: u32) {
            let mut bits = seed;
            let mut number = || {
                bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (bits >> 8) as f32 / (1 << 24) as f32 - 0.5
            };
            let x: Vec<f32> = (0..rows * inner).map(|_| number()).collect();
            let matrix: Vec<f32> = (0..outs * inner).map(|_| number()).collect();
            for out in both(|| product(&x, &matrix, [rows, inner, outs])) {
                for r in 0..rows {
                    for o in 0..outs {
                        let terms = (0..inner).map(|i| f64::from(x[r * inner + i]) * f64::from(matrix[o * inner + i]));
                        prop_assert!((f64::from(out[r * outs + o]) - terms.sum::<f64>()).abs() < 1e-5);
                    }
                }
            }
            let whole = product(&x, &matrix, [rows, inner, outs]);
            for r in 0..rows {
                let alone = product(&x[r * inner..(r + 1) * inner], &matrix, [1, inner, outs]);
                prop_assert_eq!(&alone[..], &whole[r * outs..(r + 1) * outs]);
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        let (rows, inner, outs) = (5, 96, 4001); // large enough for several threads
        let x: Vec<f32> = (0..rows * inner).map(|i| (i % 17) as f32 - 8.0).collect();
        let matrix: Vec<f32> = (0..outs * inner).map(|i| (i % 23) as f32 - 11.0).collect();
        let out = product(&x, &matrix, [rows, inner, outs]);
        let mut block = vec![0.0; rows * outs];
        multiply(&x, &matrix, inner, &mut block);
        assert_eq!(out, block);
        assert!(linear(&x, &matrix, [rows, inner, outs + 1], &mut block).is_err());
    }
}
