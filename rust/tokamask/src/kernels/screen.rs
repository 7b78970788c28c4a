//! Which of many cosines can be the greatest, told from 8-bit codes of the rows: a quarter of the bytes, and four times the products in
//! one instruction where the processor has AVX-512 VNNI. Elsewhere a product of matrices in f32 takes their place: its sums run in another
//! order than those of the cosines, so it gives bounds too, tight ones.
//!
//! A row `u` is `scale * code` but for a rest of known length, so by Cauchy-Schwarz a cosine of two rows differs from its
//! coded estimate by no more than `|rest of a| * |b| + |coded a| * |rest of b|`. Only pairs whose upper bound reaches the greatest lower
//! bound need their cosine computed, and what is computed is the same cosine as without a screen: the screen changes times, never results.

use super::lanes::{dispatch, Lanes, WIDTH};
use super::product::{product, Left, Right};
use super::threads;

/// Keys that are compared with a row at once: four vectors of sixteen.
pub const GROUP: usize = 64;
/// Rows compared with a group at once: 24 running sums in 32 registers.
pub const BLOCK: usize = 6;
/// Elements coded at once.
const STRIDE: usize = 16;
/// Longest row whose sums of products of codes fit an i32.
const LONGEST: usize = i32::MAX as usize / (255 * 127);

/// Unit rows in the form that estimates are made of.
pub struct Codes<'a> {
    form: Form<'a>,
    dim: usize,
    marks: Vec<Mark>,
    /// What rounding in a dot product of floats may add.
    rounding: f32,
}

enum Form<'a> {
    /// Codes, four to a word: `[n, dim rounded up to words]`.
    Brief(Vec<i8>),
    /// The rows themselves.
    Whole(&'a [f32]),
}

/// What a bound needs to know of a coded row.
#[derive(Clone, Copy, Default)]
struct Mark {
    scale: f32,
    /// Length of the row less its coded form, rounded up.
    rest: f32,
    /// Length of the coded form, rounded up.
    length: f32,
    /// Sum of codes times 128.
    offset: i32,
}

/// Rows laid out as keys: groups of [`GROUP`], the same four elements of all of them side by side.
pub struct Keys<'a> {
    pub rows: &'a [usize],
    laid: Laid,
    scales: Vec<f32>,
    rests: Vec<f32>,
}

/// Keys in the form of the rows: `[groups, words, GROUP, 4]`, or `[groups, dim, GROUP]`.
enum Laid {
    Brief(Vec<u8>),
    Whole(Vec<f32>),
}

/// Bounds of one row's cosines with the keys of a group, -inf where there is no key.
pub struct Bounds {
    pub upper: [f32; GROUP],
    pub lower: [f32; GROUP],
    pub greatest_upper: f32,
    pub greatest_lower: f32,
}

impl Bounds {
    /// Of nothing.
    pub const NONE: Self = Self {
        upper: [f32::NEG_INFINITY; GROUP],
        lower: [f32::NEG_INFINITY; GROUP],
        greatest_upper: f32::NEG_INFINITY,
        greatest_lower: f32::NEG_INFINITY,
    };
}

impl<'a> Codes<'a> {
    /// For rows of length 1 or 0; none if this processor gains nothing by them, or if the rows are not finite.
    pub fn of(unit: &'a [f32], dim: usize) -> Option<Self> {
        if has_vnni() && dim <= LONGEST {
            Self::brief(unit, dim)
        } else if is_fast() {
            Self::whole(unit, dim)
        } else {
            None
        }
    }

    /// Codes, or none: for choices of a few rows at a time, which a product of matrices made five times slower.
    pub fn coded(unit: &'a [f32], dim: usize) -> Option<Self> {
        if has_vnni() {
            Self::brief(unit, dim)
        } else {
            None
        }
    }

    /// In both forms, whatever this processor is best at.
    #[cfg(test)]
    pub fn forms(unit: &'a [f32], dim: usize) -> impl Iterator<Item = Self> {
        [Self::brief(unit, dim), Self::whole(unit, dim)].into_iter().flatten()
    }

    fn brief(unit: &[f32], dim: usize) -> Option<Self> {
        if dim == 0 || dim > LONGEST {
            return None;
        }
        let size = dim.next_multiple_of(4);
        let n = unit.len() / dim;
        let mut codes = vec![0; n * size];
        let mut marks = vec![Mark::default(); n];
        // Two arrays are filled side by side: one chunk of both to a row.
        let mut pairs: Vec<(&mut [i8], &mut Mark)> = codes.chunks_exact_mut(size).zip(&mut marks).collect();
        threads::each_chunk(
            n * dim * 8,
            &mut pairs,
            16,
            || (),
            |(), part, pairs| {
                for (i, (codes, mark)) in pairs.iter_mut().enumerate() {
                    **mark = encode(&unit[(part * 16 + i) * dim..][..dim], codes);
                }
            },
        );
        // A running sum of dim / 8 products in each of 8 lanes, then their sum, of values up to 1.
        let rounding = (dim as f32 / 4.0 + 16.0) * f32::EPSILON;
        let is_sound = marks.iter().all(|m| m.rest.is_finite());
        is_sound.then_some(Self { form: Form::Brief(codes), dim, marks, rounding })
    }

    fn whole(unit: &'a [f32], dim: usize) -> Option<Self> {
        let is_sound = dim > 0 && unit.iter().fold(true, |sound, x| sound & x.is_finite());
        let mark = Mark { scale: 1.0, rest: 0.0, length: 1.0, offset: 0 };
        let marks = vec![mark; unit.len() / dim.max(1)];
        // One running sum of dim products, beside what the cosine itself may be off by.
        let rounding = (dim as f32 * 0.625 + 16.0) * f32::EPSILON;
        is_sound.then_some(Self { form: Form::Whole(unit), dim, marks, rounding })
    }

    /// Elements of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Some of the rows as keys.
    pub fn keys<'k>(&self, rows: &'k [usize]) -> Keys<'k> {
        let groups = rows.len().div_ceil(GROUP);
        let laid = match &self.form {
            Form::Brief(elements) => Laid::Brief(self.lay_brief(elements, rows)),
            Form::Whole(unit) => Laid::Whole(self.lay_whole(unit, rows)),
        };
        let mark = |i: usize| rows.get(i).map(|row| self.marks[*row]);
        let all = groups * GROUP;
        Keys {
            rows,
            laid,
            scales: (0..all).map(|i| mark(i).map_or(0.0, |m| m.scale)).collect(),
            rests: (0..all).map(|i| mark(i).map_or(f32::NEG_INFINITY, |m| m.rest)).collect(),
        }
    }

    fn lay_brief(&self, elements: &[i8], rows: &[usize]) -> Vec<u8> {
        let width = self.dim.next_multiple_of(4);
        let size = GROUP * width;
        let mut codes = vec![128; rows.len().div_ceil(GROUP) * size];
        threads::each_chunk(
            codes.len(),
            &mut codes,
            size,
            || (),
            |(), group, out| {
                let rows = &rows[group * GROUP..];
                for (key, row) in rows.iter().take(GROUP).enumerate() {
                    let codes = &elements[row * width..][..width];
                    let words = out.as_chunks_mut::<4>().0.iter_mut().skip(key).step_by(GROUP);
                    for (out, codes) in words.zip(codes.as_chunks::<4>().0) {
                        *out = codes.map(|code| (code as u8) ^ 128); // code + 128
                    }
                }
            },
        );
        codes
    }

    fn lay_whole(&self, unit: &[f32], rows: &[usize]) -> Vec<f32> {
        let size = GROUP * self.dim;
        let mut laid = vec![0.0; rows.len().div_ceil(GROUP) * size];
        threads::each_chunk(
            laid.len() * 4,
            &mut laid,
            size,
            || (),
            |(), group, out| {
                for (key, row) in rows[group * GROUP..].iter().take(GROUP).enumerate() {
                    let row = &unit[row * self.dim..][..self.dim];
                    for (out, x) in out.chunks_exact_mut(GROUP).zip(row) {
                        out[key] = *x;
                    }
                }
            },
        );
        laid
    }

    /// Bounds of the cosines of up to [`BLOCK`] rows with the keys of one group, but for the cosine of a row with itself.
    pub fn bounds(&self, rows: &[usize], keys: &Keys, group: usize, out: &mut [Bounds; BLOCK]) {
        let (Some(scales), Some(rests)) =
            (keys.scales.as_chunks().0.get(group), keys.rests.as_chunks().0.get(group))
        else {
            return;
        };
        let mut estimates = [[0.0; GROUP]; BLOCK];
        match (&self.form, &keys.laid) {
            (Form::Brief(elements), Laid::Brief(codes)) => {
                self.estimate_brief(elements, rows, codes, group, scales, &mut estimates);
            }
            (Form::Whole(unit), Laid::Whole(laid)) => {
                let panel = &laid[group * GROUP * self.dim..][..GROUP * self.dim];
                estimate_whole(unit, self.dim, rows, panel, &mut estimates);
            }
            _ => return, // keys of other rows
        }
        for ((row, estimates), out) in rows.iter().zip(&estimates).zip(out) {
            let own = keys.rows[group * GROUP..].iter().take(GROUP).position(|key| key == row);
            if let Some(own) = own {
                let mut others = *rests;
                others[own] = f32::NEG_INFINITY;
                fill(&self.marks[*row], estimates, &others, self.rounding, out);
            } else {
                fill(&self.marks[*row], estimates, rests, self.rounding, out);
            }
        }
    }

    fn estimate_brief(
        &self,
        elements: &[i8],
        rows: &[usize],
        codes: &[u8],
        group: usize,
        scales: &[f32; GROUP],
        out: &mut [[f32; GROUP]; BLOCK],
    ) {
        let width = self.dim.next_multiple_of(4);
        let words: [&[i8]; BLOCK] = std::array::from_fn(|r| {
            let row = rows[r.min(rows.len() - 1)];
            &elements[row * width..][..width]
        });
        let mut sums = [[0; GROUP]; BLOCK];
        products(&words, &codes[group * GROUP * width..][..GROUP * width], &mut sums);
        for ((row, sums), out) in rows.iter().zip(&sums).zip(out) {
            let mark = self.marks[*row];
            for ((out, sum), scale) in out.iter_mut().zip(sums).zip(scales) {
                *out = (sum - mark.offset) as f32 * (mark.scale * scale);
            }
        }
    }
}

/// Cosines of some rows with a panel of keys.
fn estimate_whole(unit: &[f32], dim: usize, rows: &[usize], panel: &[f32], out: &mut [[f32; GROUP]; BLOCK]) {
    let step = rows.get(1).map_or(0, |next| next.wrapping_sub(rows[0]));
    let even = step < unit.len() && rows.windows(2).all(|w| w[1] == w[0] + step);
    let block: Vec<f32>;
    let (data, row) = if even {
        (&unit[rows[0] * dim..], step * dim)
    } else {
        block = rows.iter().flat_map(|row| &unit[row * dim..][..dim]).copied().collect();
        (&block[..], dim)
    };
    let sizes = [rows.len(), dim, GROUP];
    let right = Right { data: panel, stride: GROUP };
    product(Left { data, row, inner: 1 }, right, sizes, 0.0, (out.as_flattened_mut(), GROUP));
}

fn fill(mark: &Mark, estimates: &[f32; GROUP], rests: &[f32; GROUP], rounding: f32, out: &mut Bounds) {
    dispatch!(fill_kernel(
        mark: &Mark, estimates: &[f32; GROUP], rests: &[f32; GROUP], rounding: f32, out: &mut Bounds
    ));
}

#[inline(always)]
unsafe fn fill_kernel<L: Lanes>(
    mark: &Mark,
    estimates: &[f32; GROUP],
    rests: &[f32; GROUP],
    rounding: f32,
    out: &mut Bounds,
) {
    // Keys have length 1 but for rounding; what rounding does to the bounds themselves is a few parts in 10^7.
    let own = mark.rest * 1.0001 + rounding;
    let (mut most, mut least) = ([f32::NEG_INFINITY; WIDTH], [f32::NEG_INFINITY; WIDTH]);
    for first in (0..GROUP).step_by(WIDTH) {
        for lane in 0..WIDTH {
            let i = first + lane;
            let estimate = estimates[i];
            let slack = own + mark.length * rests[i];
            // Where there is no key, its rest is -inf and so is the upper bound; the lower one would be +inf.
            let upper = estimate + slack;
            let lower = if rests[i] >= 0.0 { estimate - slack } else { f32::NEG_INFINITY };
            (out.upper[i], out.lower[i]) = (upper, lower);
            most[lane] = if upper > most[lane] { upper } else { most[lane] };
            least[lane] = if lower > least[lane] { lower } else { least[lane] };
        }
    }
    out.greatest_upper = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    out.greatest_lower = least.into_iter().fold(f32::NEG_INFINITY, f32::max);
}

fn encode(row: &[f32], codes: &mut [i8]) -> Mark {
    dispatch!(encode_kernel(row: &[f32], codes: &mut [i8]) -> Mark)
}

#[inline(always)]
unsafe fn encode_kernel<L: Lanes>(row: &[f32], codes: &mut [i8]) -> Mark {
    /// Adding it to a small float leaves the nearest whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let (whole, tail) = row.as_chunks::<STRIDE>();
    let mut last = [0.0; STRIDE];
    last[..tail.len()].copy_from_slice(tail);
    let mut most = [0u32; STRIDE];
    for row in whole.iter().chain([&last]) {
        for lane in 0..STRIDE {
            // As bits: the order is that of sizes, and infinities and NaN are the greatest.
            most[lane] = most[lane].max(row[lane].abs().to_bits());
        }
    }
    let most = f32::from_bits(most.into_iter().fold(0, u32::max));
    let scale = most / 127.0;
    let inverse = if scale >= f32::MIN_POSITIVE { scale.recip() } else { 0.0 };
    let (mut rest, mut square, mut sum) = ([0.0f32; STRIDE], [0i32; STRIDE], [0i32; STRIDE]);
    let mut put = |row: &[f32; STRIDE], out: &mut [i8; STRIDE]| {
        for lane in 0..STRIDE {
            let biased = row[lane] * inverse + ROUND;
            let code = biased.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
            let gap = row[lane] - (biased - ROUND) * scale;
            rest[lane] += gap * gap;
            square[lane] += i32::from(code as i8) * i32::from(code as i8);
            sum[lane] += i32::from(code as i8);
            out[lane] = code as i8;
        }
    };
    let (codes, end) = codes.split_at_mut(whole.len() * STRIDE);
    for (row, out) in whole.iter().zip(codes.as_chunks_mut::<STRIDE>().0) {
        put(row, out);
    }
    let mut out = [0; STRIDE];
    put(&last, &mut out);
    end.copy_from_slice(&out[..end.len()]);
    let square: i32 = square.iter().sum();
    let rest: f32 = rest.iter().sum();
    let up = 1.0 + (row.len() as f32 + 16.0) * f32::EPSILON;
    Mark {
        scale,
        rest: if most.is_finite() {
            rest.sqrt() * up + row.len() as f32 * f32::MIN_POSITIVE
        } else {
            f32::INFINITY
        },
        length: (square as f32).sqrt() * scale * up,
        offset: sum.iter().sum::<i32>() * 128,
    }
}

#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    use std::arch::is_x86_feature_detected as has;
    is_fast() && has!("avx512f") && has!("avx512bw") && has!("avx512vnni")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_vnni() -> bool {
    false
}

/// Whether a product of matrices beats sums row by row.
fn is_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::lanes::has_avx2();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Sums of products of codes plus 128 times the row's codes: `out[row][key]`.
fn products(rows: &[&[i8]; BLOCK], keys: &[u8], out: &mut [[i32; GROUP]; BLOCK]) {
    let whole = rows.iter().all(|row| row.len() * GROUP == keys.len() && row.len() % 4 == 0);
    debug_assert!(whole, "rows and keys are cut by the same width");
    #[cfg(target_arch = "x86_64")]
    if whole && has_vnni() {
        // SAFETY: the processor has the features and the lengths agree.
        return unsafe { products_vnni(rows, keys, out) };
    }
    for (row, out) in rows.iter().zip(out) {
        for (word, codes) in row.chunks_exact(4).enumerate() {
            for (key, out) in out.iter_mut().enumerate() {
                let keys = &keys[(word * GROUP + key) * 4..][..4];
                *out += codes.iter().zip(keys).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum::<i32>();
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[allow(clippy::needless_range_loop)]
unsafe fn products_vnni(rows: &[&[i8]; BLOCK], keys: &[u8], out: &mut [[i32; GROUP]; BLOCK]) {
    use std::arch::x86_64::{
        _mm512_dpbusd_epi32 as dot, _mm512_loadu_si512 as load, _mm512_set1_epi32 as splat,
        _mm512_setzero_si512 as zero, _mm512_storeu_si512 as store,
    };
    let mut sums = [[zero(); 4]; BLOCK];
    let at: [*const i8; BLOCK] = std::array::from_fn(|r| rows[r].as_ptr());
    for word in 0..rows[0].len() / 4 {
        // SAFETY: word * 4 + 4 is at most the length of each row, and keys hold GROUP times as many bytes.
        unsafe {
            let keys = keys.as_ptr().add(word * GROUP * 4);
            let four = [
                load(keys.cast()),
                load(keys.add(64).cast()),
                load(keys.add(128).cast()),
                load(keys.add(192).cast()),
            ];
            // Counted loops: iterators over arrays of vectors are not unrolled, and the sums then live in memory.
            for r in 0..BLOCK {
                let codes = splat(at[r].add(word * 4).cast::<i32>().read_unaligned());
                for p in 0..4 {
                    sums[r][p] = dot(sums[r][p], four[p], codes);
                }
            }
        }
    }
    for r in 0..BLOCK {
        for p in 0..4 {
            // SAFETY: each row of out has 64 sums.
            unsafe { store(out[r].as_mut_ptr().add(p * 16).cast(), sums[r][p]) }
        }
    }
}
