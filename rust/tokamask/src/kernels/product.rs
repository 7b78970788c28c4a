//! Products of matrices that lie in the caches: six rows by sixteen columns at a time stay in registers.

use super::lanes::{dispatch, Lanes, WIDTH};

/// Rows and vectors of columns of a tile: twelve running sums, two vectors and a number fill fifteen of sixteen registers.
const ROWS: usize = 6;
const VECTORS: usize = 2;

/// The left factor: element (i, k) is `data[i * row + k * inner]`, so a transposed one costs nothing.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub inner: usize,
}

/// The right factor: rows of `stride` elements.
#[derive(Clone, Copy)]
pub struct Right<'a> {
    pub data: &'a [f32],
    pub stride: usize,
}

/// `out = fade * out + left * right` (just the product where `fade` is 0, whatever `out` was) for a left factor `[rows, inner]` and a right one `[inner, columns]`; rows of `out` have `stride` elements.
pub fn product(
    left: Left,
    right: Right,
    [rows, inner, columns]: [usize; 3],
    fade: f32,
    (out, stride): (&mut [f32], usize),
) {
    let reach = |rows: usize, row: usize, columns: usize, column: usize| match rows * columns {
        0 => 0,
        _ => (rows - 1) * row + (columns - 1) * column + 1,
    };
    let fits = reach(rows, left.row, inner, left.inner) <= left.data.len()
        && reach(inner, right.stride, columns, 1) <= right.data.len()
        && reach(rows, stride, columns, 1) <= out.len();
    debug_assert!(fits, "sizes are the caller's own");
    if fits {
        run(left, right, [rows, inner, columns], fade, out, stride);
    }
}

fn run(left: Left, right: Right, sizes: [usize; 3], fade: f32, out: &mut [f32], stride: usize) {
    dispatch!(kernel(left: Left, right: Right, sizes: [usize; 3], fade: f32, out: &mut [f32], stride: usize));
}

#[inline(always)]
unsafe fn kernel<L: Lanes>(
    left: Left,
    right: Right,
    [rows, inner, columns]: [usize; 3],
    fade: f32,
    out: &mut [f32],
    stride: usize,
) {
    let whole = columns / (VECTORS * WIDTH) * (VECTORS * WIDTH);
    for column in (0..whole).step_by(VECTORS * WIDTH) {
        for row in (0..rows).step_by(ROWS) {
            // SAFETY: `product` has seen that all elements of these sizes lie in the slices; the caller has the features.
            unsafe {
                let at = left.data.as_ptr().add(row * left.row);
                let of = right.data.as_ptr().wrapping_add(column);
                let to = out.as_mut_ptr().add(row * stride + column);
                let (steps, inner) = ([left.row, left.inner, right.stride, stride], inner);
                match rows - row {
                    1 => tile::<L, 1>(at, of, steps, inner, fade, to),
                    2 => tile::<L, 2>(at, of, steps, inner, fade, to),
                    3 => tile::<L, 3>(at, of, steps, inner, fade, to),
                    4 => tile::<L, 4>(at, of, steps, inner, fade, to),
                    5 => tile::<L, 5>(at, of, steps, inner, fade, to),
                    _ => tile::<L, ROWS>(at, of, steps, inner, fade, to),
                }
            }
        }
    }
    for row in 0..rows {
        for column in whole..columns {
            let out = &mut out[row * stride + column];
            *out = if fade == 0.0 { 0.0 } else { *out * fade };
            for k in 0..inner {
                *out += left.data[row * left.row + k * left.inner] * right.data[k * right.stride + column];
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // counted loops: iterators over arrays of vectors are not unrolled
unsafe fn tile<L: Lanes, const R: usize>(
    left: *const f32,
    right: *const f32,
    [row, step, stride, out_stride]: [usize; 4],
    inner: usize,
    fade: f32,
    out: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[L::splat(0.0); VECTORS]; R];
        for k in 0..inner {
            let at = right.add(k * stride);
            let (a, b) = (L::load(at), L::load(at.add(WIDTH)));
            for r in 0..R {
                let x = L::splat(*left.add(r * row + k * step));
                sums[r] = [x.mul_add(a, sums[r][0]), x.mul_add(b, sums[r][1])];
            }
        }
        for r in 0..R {
            for v in 0..VECTORS {
                let to = out.add(r * out_stride + v * WIDTH);
                if fade != 0.0 {
                    sums[r][v] = L::load(to).mul_add(L::splat(fade), sums[r][v]);
                }
                sums[r][v].store(to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lanes::portable::both;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn equals_the_definition(rows in 0usize..11, inner in 0usize..20, columns in 0usize..40, turned: bool, seed: u32) {
            let mut bits = seed;
            let mut number = || {
                bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (bits >> 24) as f32 - 128.0
            };
            let (stride, out_stride) = (columns + 3, columns + 1);
            let x: Vec<f32> = (0..rows * inner).map(|_| number()).collect();
            let y: Vec<f32> = (0..inner * stride).map(|_| number()).collect();
            let start: Vec<f32> = (0..rows * out_stride).map(|_| number()).collect();
            let (row, step) = if turned { (1, rows) } else { (inner, 1) };
            for out in both(|| {
                let mut out = start.clone();
                let left = Left { data: &x, row, inner: step };
                product(left, Right { data: &y, stride }, [rows, inner, columns], 0.5, (&mut out, out_stride));
                out
            }) {
                for (i, (out, start)) in out.iter().zip(&start).enumerate() {
                    let (r, c) = (i / out_stride, i % out_stride);
                    let sum: f32 = (0..inner).map(|k| x[r * row + k * step] * y[k * stride + c.min(stride - 1)]).sum();
                    let expected = if c < columns { 0.5 * start + sum } else { *start };
                    prop_assert_eq!(out.to_bits(), expected.to_bits()); // small whole numbers: exact
                }
            }
        }
    }
}
