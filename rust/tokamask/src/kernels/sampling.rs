//! Drawing a token under a bitmask (`python/tokamask/reference/sampling.py` states the law step by step).
//!
//! The allowed logits of a row are packed together first, so that the work after the mask is proportional to their number;
//! then everything speaks of positions among them, and ties by lowest position are ties by lowest token. Integer masses
//! make every sum exact: blocks may be skipped, reordered or summed by lanes without changing the token drawn.

use super::array::{each_float, Floats, View};
use super::bitmask::{compact, nth_allowed, MaskRows};
use super::blocks::{maxima, widen_all, widened, Blocks, BLOCK};
use super::exp2::{exp2_lanes, mass, to_mass, FLOOR, LOG2_E, MASS_BITS};
use super::floats::{key_value, Float};
use super::lanes::{dispatch, Lanes, WIDTH};
use super::penalties::{penalise, History, Penalties};
use super::random::{below, bits64};
use super::selection::{self, position_of, rank};
use super::threads;
use crate::error::ShapeError;

/// What one row is drawn under.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    /// Greedy unless above 0.
    pub temperature: f32,
    /// Off unless in `1..vocab_size`.
    pub top_k: i32,
    /// Off unless below 1.
    pub top_p: f32,
    /// Off unless above 0.
    pub min_p: f32,
    /// The random bits are a function of these three.
    pub seed: u64,
    /// See `seed`.
    pub stream: u32,
    /// See `seed`.
    pub step: u64,
    /// On the tokens of the history.
    pub penalties: Penalties,
}

/// A token and the natural logarithm of its probability; -1 and -inf where no token is live.
pub type Draw = (i32, f32);

const NOTHING: Draw = (-1, f32::NEG_INFINITY);

/// Draws one token per row of `logits` (`shape`: `[batch, vocab_size]`).
pub fn sample(
    logits: Floats,
    shape: [usize; 2],
    row_stride: usize,
    masks: Option<&MaskRows>,
    history: Option<&History>,
    laws: &[Law],
) -> Result<Vec<Draw>, ShapeError> {
    let [batch, vocab_size] = shape;
    let lists = history.into_iter().flat_map(|h| [h.prompt, h.output]).flatten();
    if let Some(list) = lists.into_iter().find(|list| list.shape[0] != batch) {
        return Err(ShapeError {
            name: "prompt_ids or output_ids".to_owned(),
            expected: format!("int32 [{batch}, any]"),
            got: format!("{:?}", list.shape),
        });
    }
    if laws.len() != batch || vocab_size > i32::MAX as usize {
        return Err(ShapeError {
            name: "logits".to_owned(),
            expected: format!("[{}, vocab_size]", laws.len()),
            got: format!("{shape:?}"),
        });
    }
    let mut draws = vec![NOTHING; batch];
    each_float!(logits, data => {
        let view = View::new("logits", data, shape, [row_stride, 1])?;
        threads::each_chunk(batch * vocab_size * 4, &mut draws, 1, Scratch::default, |scratch, b, draw| {
            let mask = masks.and_then(|m| m.row(b));
            scratch.seen.clear();
            if let Some(history) = history {
                history.count(b, vocab_size, &mut scratch.seen);
            }
            draw[0] = sample_row(view.row([b, 0]), mask, &laws[b], scratch);
        });
    });
    Ok(draws)
}

/// Buffers reused from row to row.
#[derive(Default)]
struct Scratch {
    row: Vec<f32>,
    seen: Vec<(u32, u32)>,
    selection: selection::Scratch,
    sums: Vec<u64>,
    histogram: Vec<u64>,
    weights: Vec<u64>,
}

fn sample_row<T: Float>(logits: &[T], mask: Option<&[i32]>, law: &Law, scratch: &mut Scratch) -> Draw {
    let mut buffer = std::mem::take(&mut scratch.row);
    let row = if let Some(mask) = mask {
        compact(logits, mask, &mut buffer);
        penalise(&mut buffer, Some(mask), logits.len(), &scratch.seen, &law.penalties);
        &buffer
    } else if scratch.seen.is_empty() {
        widened(logits, &mut buffer)
    } else {
        widen_all(logits, &mut buffer);
        penalise(&mut buffer, None, logits.len(), &scratch.seen, &law.penalties);
        &buffer
    };
    let drawn = draw(row, law, logits.len(), scratch);
    scratch.row = buffer;
    let Some((position, logprob)) = drawn else { return NOTHING };
    let token = match mask {
        Some(mask) => nth_allowed(mask, logits.len(), position),
        None => Some(position),
    };
    token.map_or(NOTHING, |token| (token as i32, logprob))
}

/// The best allowed token and its probability, as `2^40 / total mass` at temperature 1.
pub(crate) fn best_token<T: Float>(
    logits: &[T],
    mask: Option<&[i32]>,
    buffers: &mut Confidence,
) -> Option<(usize, f32)> {
    let Confidence { row: buffer, maxima: peaks, sums } = buffers;
    let row = match mask {
        Some(mask) => {
            compact(logits, mask, buffer);
            buffer
        }
        None => widened(logits, buffer),
    };
    let blocks = Blocks::new(row);
    maxima(&blocks, peaks);
    let best = peaks.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if best == f32::NEG_INFINITY {
        return None;
    }
    let position = greedy(&blocks, peaks, best)?;
    let weigh = Weigh { best, scale: LOG2_E, least: 0 };
    let total = kept_sums(&blocks, peaks, &weigh, Cut::NONE, sums);
    let token = match mask {
        Some(mask) => nth_allowed(mask, logits.len(), position)?,
        None => position,
    };
    Some((token, ((1u64 << MASS_BITS) as f64 / total as f64) as f32))
}

/// Buffers of [`best_token`].
#[derive(Default)]
pub(crate) struct Confidence {
    row: Vec<f32>,
    maxima: Vec<f32>,
    sums: Vec<u64>,
}

/// The position drawn and its logprob, if any position is live.
fn draw(row: &[f32], law: &Law, vocab_size: usize, scratch: &mut Scratch) -> Option<(usize, f32)> {
    let blocks = Blocks::new(row);
    maxima(&blocks, &mut scratch.selection.maxima);
    let best = scratch.selection.maxima.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if best == f32::NEG_INFINITY {
        return None;
    }
    let is_warm = law.temperature > 0.0; // NaN is greedy
    if !is_warm {
        return greedy(&blocks, &scratch.selection.maxima, best).map(|position| (position, 0.0));
    }
    let weigh = Weigh::new(best, law);
    let bits = bits64(law.seed, law.stream, law.step, 0);
    let top_k = usize::try_from(law.top_k).ok().filter(|k| (1..vocab_size).contains(k));
    if top_k.is_some() || row.len() <= 8 * BLOCK {
        selection::largest(&blocks, top_k.unwrap_or(row.len()), &mut scratch.selection);
        return Some(draw_listed(&weigh, law, bits, scratch));
    }
    let maxima = &scratch.selection.maxima;
    let mut cut = Cut::NONE;
    if law.top_p < 1.0 {
        cut.rank = nucleus_cut(
            &blocks,
            maxima,
            &weigh,
            law.top_p,
            &mut scratch.histogram,
            &mut scratch.selection.ranks,
        );
    }
    cut.least = weigh.least;
    let total = kept_sums(&blocks, maxima, &weigh, cut, &mut scratch.sums);
    Some(walk(&blocks, &weigh, cut, &scratch.sums, total, below(total, bits)))
}

#[allow(clippy::float_cmp)] // the maximum is one of them
fn greedy(blocks: &Blocks, maxima: &[f32], best: f32) -> Option<usize> {
    let block = maxima.iter().position(|m| *m == best)?;
    Some(block * BLOCK + blocks.block(block).iter().position(|x| *x == best)?)
}

/// Logits to masses.
#[derive(Clone, Copy)]
struct Weigh {
    best: f32,
    scale: f32,
    /// Masses below this are cut by min-p.
    least: u64,
}

impl Weigh {
    fn new(best: f32, law: &Law) -> Self {
        let scale = (LOG2_E / law.temperature).clamp(f32::MIN_POSITIVE, f32::MAX);
        let least = if law.min_p > 0.0 {
            (f64::from(law.min_p.min(1.0)) * (1u64 << MASS_BITS) as f64) as u64
        } else {
            0
        };
        Self { best, scale, least }
    }

    #[allow(clippy::float_cmp)] // +inf must meet itself
    fn exponent(&self, x: f32) -> f32 {
        (if x == self.best { 0.0 } else { x - self.best }) * self.scale
    }

    fn mass(&self, x: f32) -> u64 {
        mass(self.exponent(x)) // NaN is not above the floor: 0
    }

    /// False for a logit with no mass, hence for a block whose greatest is that: 2^-42 rounds to none.
    fn is_heavy(&self, x: f32) -> bool {
        self.exponent(x) >= -42.0
    }

    /// The exponents of eight logits, not below the floor; NaN goes to the floor.
    #[inline(always)]
    unsafe fn exponents<L: Lanes>(&self, x: L) -> L {
        // SAFETY: the caller has the features.
        unsafe {
            let best = L::splat(self.best);
            let distance = L::select(x.equal(best), L::splat(0.0), x.sub(best));
            distance.mul(L::splat(self.scale)).max_or(L::splat(FLOOR))
        }
    }

    /// The least f32 in [0, 1] that weighs at least `least`.
    fn least_value(&self) -> f32 {
        let mut y = (self.least as f64 / (1u64 << MASS_BITS) as f64) as f32;
        let beside = |y: f32, step: i32| f32::from_bits(y.to_bits().wrapping_add_signed(step)); // y is not negative
        while y > 0.0 && to_mass(beside(y, -1)) >= self.least {
            y = beside(y, -1);
        }
        while to_mass(y) < self.least {
            y = beside(y, 1);
        }
        y
    }
}

/// Which positions are kept: rank at least `rank`, mass at least `least`.
#[derive(Clone, Copy)]
struct Cut {
    rank: u64,
    least: u64,
}

impl Cut {
    const NONE: Self = Self { rank: 0, least: 0 };

    /// The score and position at the cut.
    fn place(&self) -> (f32, usize) {
        match self.rank {
            0 => (f32::NEG_INFINITY, usize::MAX),
            rank => (key_value((rank >> 32) as u32), position_of(rank)),
        }
    }
}

/// The end of every path: ranks of the candidates in `scratch.selection.ranks`, by position.
fn draw_listed(weigh: &Weigh, law: &Law, bits: u64, scratch: &mut Scratch) -> (usize, f32) {
    let Scratch { selection, weights, .. } = scratch;
    let ranks = &mut selection.ranks;
    let value = |rank: &u64| key_value((rank >> 32) as u32);
    if law.top_p < 1.0 {
        let total = ranks.iter().map(|r| weigh.mass(value(r))).sum();
        let cut = heaviest_prefix(ranks, weigh, 0, nucleus_need(total, law.top_p));
        ranks.retain(|r| *r >= cut);
        ranks.sort_unstable_by_key(|r| position_of(*r));
    }
    weights.clear();
    weights.extend(ranks.iter().map(|r| weigh.mass(value(r))).map(|w| if w >= weigh.least { w } else { 0 }));
    let total = weights.iter().sum();
    let mut target = below(total, bits);
    for (rank, weight) in ranks.iter().zip(&*weights) {
        if target < *weight {
            return (position_of(*rank), logprob(*weight, total));
        }
        target -= weight;
    }
    (0, 0.0) // not reached: the target is below the total
}

fn logprob(weight: u64, total: u64) -> f32 {
    ((weight as f64).ln() - (total as f64).ln()) as f32
}

/// `floor(total * p64 / 2^64)` for `top_p` below 1.
fn nucleus_need(total: u64, top_p: f32) -> u64 {
    below(total, (f64::from(top_p.max(0.0)) * 18_446_744_073_709_551_616.0) as u64)
}

/// The last rank of the shortest prefix, by rank, whose mass with `before` reaches `need`. Reorders `ranks`.
///
/// Halves the range by a median until it is short: linear in all, whatever the order and the ties.
fn heaviest_prefix(ranks: &mut [u64], weigh: &Weigh, mut before: u64, need: u64) -> u64 {
    const SHORT: usize = 32;
    let weight = |rank: &u64| weigh.mass(key_value((rank >> 32) as u32));
    let mut range = ranks;
    while range.len() > SHORT {
        let (upper, _, _) = range.select_nth_unstable_by(range.len() / 2, |a, b| b.cmp(a));
        let sum: u64 = upper.iter().map(weight).sum();
        let middle = upper.len();
        if before + sum >= need {
            range = &mut range[..middle];
        } else {
            before += sum;
            range = &mut range[middle..];
        }
    }
    range.sort_unstable_by(|a, b| b.cmp(a));
    let mut last = 0;
    for rank in range.iter() {
        last = *rank;
        before += weight(rank);
        if before >= need {
            break;
        }
    }
    last
}

/// Blocks that a thread sums at a time.
const PART: usize = 256;
/// Buckets per octave of mass, and octaves until a mass is 0.
const FINE: usize = 32;
const BUCKETS: usize = FINE * 42 + 1;

/// Bucket of an exponent, as a float: monotone, because every step is.
#[inline(always)]
unsafe fn bucket<L: Lanes>(exponent: L) -> L {
    // SAFETY: the caller has the features.
    unsafe {
        let far = L::splat(-((BUCKETS - 1) as f32 / FINE as f32));
        exponent.max_or(far).mul(L::splat(-(FINE as f32)))
    }
}

/// Rank of the last token of the top-p set.
fn nucleus_cut(
    blocks: &Blocks,
    maxima: &[f32],
    weigh: &Weigh,
    top_p: f32,
    histogram: &mut Vec<u64>,
    ranks: &mut Vec<u64>,
) -> u64 {
    histogram.clear();
    histogram.resize(BUCKETS, 0);
    fill_histogram(blocks, maxima, weigh, histogram);
    let need = nucleus_need(histogram.iter().sum(), top_p);
    let (mut before, mut crossing) = (0, 0);
    while crossing + 1 < BUCKETS && before + histogram[crossing] < need {
        before += histogram[crossing];
        crossing += 1;
    }
    ranks.clear();
    collect_bucket(blocks, maxima, weigh, crossing as f32, ranks);
    heaviest_prefix(ranks, weigh, before, need)
}

fn fill_histogram(blocks: &Blocks, maxima: &[f32], weigh: &Weigh, histogram: &mut [u64]) {
    dispatch!(histogram_kernel(blocks: &Blocks, maxima: &[f32], weigh: &Weigh, histogram: &mut [u64]));
}

#[inline(always)]
unsafe fn histogram_kernel<L: Lanes>(blocks: &Blocks, maxima: &[f32], weigh: &Weigh, histogram: &mut [u64]) {
    for (i, best) in maxima.iter().enumerate() {
        if !weigh.is_heavy(*best) {
            continue;
        }
        let block = blocks.block(i).as_ptr();
        for lane in (0..BLOCK).step_by(WIDTH) {
            // SAFETY: lane + WIDTH <= BLOCK; the caller has the features.
            let (masses, buckets) = unsafe {
                let z = weigh.exponents(L::load(block.add(lane)));
                (exp2_lanes(z).masses(), bucket(z).to_ints())
            };
            for (mass, bucket) in masses.into_iter().zip(buckets) {
                histogram[bucket as usize] += mass;
            }
        }
    }
}

fn collect_bucket(blocks: &Blocks, maxima: &[f32], weigh: &Weigh, number: f32, ranks: &mut Vec<u64>) {
    dispatch!(bucket_kernel(blocks: &Blocks, maxima: &[f32], weigh: &Weigh, number: f32, ranks: &mut Vec<u64>));
}

#[inline(always)]
unsafe fn bucket_kernel<L: Lanes>(
    blocks: &Blocks,
    maxima: &[f32],
    weigh: &Weigh,
    number: f32,
    ranks: &mut Vec<u64>,
) {
    for (i, best) in maxima.iter().enumerate() {
        // SAFETY: lane + WIDTH <= BLOCK; the caller has the features.
        unsafe {
            let nearest = bucket(weigh.exponents(L::splat(*best)));
            if nearest.greater_or_equal(L::splat(number + 1.0)).sign_bits() != 0 {
                continue;
            }
            let block = blocks.block(i);
            for lane in (0..BLOCK).step_by(WIDTH) {
                let b = bucket(weigh.exponents(L::load(block.as_ptr().add(lane))));
                let inside = b.greater_or_equal(L::splat(number)).keep(L::splat(number + 1.0).greater(b));
                let mut bits = inside.sign_bits();
                while bits != 0 {
                    let j = lane + bits.trailing_zeros() as usize;
                    if block[j] > f32::NEG_INFINITY {
                        ranks.push(rank(block[j], i * BLOCK + j));
                    }
                    bits &= bits - 1;
                }
            }
        }
    }
}

/// The kept mass of every block into `sums`; returns the total.
fn kept_sums(blocks: &Blocks, maxima: &[f32], weigh: &Weigh, cut: Cut, sums: &mut Vec<u64>) -> u64 {
    sums.clear();
    sums.resize(maxima.len(), 0);
    if cut.rank == 0 && weigh.least == 0 {
        // An exponential each: parts of a row keep other threads busy where there are any to spare.
        let first = |part: usize| part * PART;
        threads::each_chunk(
            blocks.len * 4,
            sums,
            PART,
            || (),
            |(), part, sums| {
                fill_all_sums(blocks, first(part), maxima, weigh, sums);
            },
        );
    } else {
        fill_sums(blocks, maxima, weigh, cut, sums);
    }
    sums.iter().sum()
}

fn fill_all_sums(blocks: &Blocks, first: usize, maxima: &[f32], weigh: &Weigh, sums: &mut [u64]) {
    dispatch!(all_sums_kernel(
        blocks: &Blocks, first: usize, maxima: &[f32], weigh: &Weigh, sums: &mut [u64]
    ));
}

/// The same as [`sums_kernel`] where nothing is cut, for the blocks from `first`.
#[inline(always)]
unsafe fn all_sums_kernel<L: Lanes>(
    blocks: &Blocks,
    first: usize,
    maxima: &[f32],
    weigh: &Weigh,
    sums: &mut [u64],
) {
    for (i, sum) in (first..).zip(sums) {
        if !weigh.is_heavy(maxima[i]) {
            continue;
        }
        let block = blocks.block(i).as_ptr();
        // SAFETY: a block is four times WIDTH long; the caller has the features.
        unsafe {
            let mut counts = L::no_counts();
            for lane in (0..BLOCK).step_by(WIDTH) {
                counts = exp2_lanes(weigh.exponents(L::load(block.add(lane)))).count(counts);
            }
            *sum = L::total(counts, BLOCK / WIDTH);
        }
    }
}

fn fill_sums(blocks: &Blocks, maxima: &[f32], weigh: &Weigh, cut: Cut, sums: &mut [u64]) {
    dispatch!(sums_kernel(
        blocks: &Blocks, maxima: &[f32], weigh: &Weigh, cut: Cut, sums: &mut [u64]
    ));
}

#[inline(always)]
unsafe fn sums_kernel<L: Lanes>(blocks: &Blocks, maxima: &[f32], weigh: &Weigh, cut: Cut, sums: &mut [u64]) {
    let (score, position) = cut.place();
    // SAFETY: a block is four times WIDTH long; the caller has the features.
    unsafe {
        let least = L::splat(weigh.least_value());
        let threshold = L::splat(score);
        for (i, sum) in sums.iter_mut().enumerate() {
            if maxima[i] < score || !weigh.is_heavy(maxima[i]) {
                continue;
            }
            let block = blocks.block(i).as_ptr();
            let mut counts = L::no_counts();
            for lane in (0..BLOCK).step_by(WIDTH) {
                let x = L::load(block.add(lane));
                let first = i * BLOCK + lane;
                let kept = if first + WIDTH <= position {
                    x.greater_or_equal(threshold)
                } else if first > position {
                    x.greater(threshold)
                } else {
                    let until = L::from_bits((2u32 << (position - first)) - 1);
                    L::select(until, x.greater_or_equal(threshold), x.greater(threshold))
                };
                let y = exp2_lanes(weigh.exponents(x));
                counts = y.keep(kept).keep(y.greater_or_equal(least)).count(counts);
            }
            *sum = L::total(counts, BLOCK / WIDTH);
        }
    }
}

/// The first kept position at which the running mass exceeds the target.
fn walk(blocks: &Blocks, weigh: &Weigh, cut: Cut, sums: &[u64], total: u64, mut target: u64) -> (usize, f32) {
    let mut block = 0;
    while block + 1 < sums.len() && target >= sums[block] {
        target -= sums[block];
        block += 1;
    }
    for (j, x) in blocks.block(block).iter().enumerate() {
        let position = block * BLOCK + j;
        let weight = weigh.mass(*x);
        if rank(*x, position) < cut.rank || weight < cut.least {
            continue;
        }
        if target < weight {
            return (position, logprob(weight, total));
        }
        target -= weight;
    }
    (0, 0.0) // not reached: the target is below the total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law() -> Law {
        let penalties = Penalties::OFF;
        Law { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 7, stream: 0, step: 0, penalties }
    }

    fn one(logits: &[f32], mask: Option<&[i32]>, law: Law) -> Draw {
        let masks = mask.map(|m| MaskRows::new(m, None, 1, logits.len()).expect("fits"));
        let shape = [1, logits.len()];
        sample(Floats::F32(logits), shape, logits.len(), masks.as_ref(), None, &[law]).expect("fits")[0]
    }

    #[test]
    fn nothing_live_gives_no_token() {
        let minus_inf = [f32::NEG_INFINITY; 40];
        assert_eq!(one(&minus_inf, None, law()), NOTHING);
        assert_eq!(one(&[f32::NAN; 3], None, law()), NOTHING);
        assert_eq!(one(&[1.0; 40], Some(&[0, 0xFF00u32 as i32]), law()), NOTHING); // only tail bits
        assert_eq!(one(&[], None, law()), NOTHING);
    }

    #[test]
    fn all_paths_agree_on_one_law() {
        // The listed path (top-k on, but wider than the live tokens) and the dense path must draw the same token.
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919 % 1000) as f32 / 100.0).sin() * 4.0).collect();
        for step in 0..200 {
            let dense = Law { step, top_p: 0.9, min_p: 0.01, ..law() };
            assert_eq!(one(&logits, None, dense), one(&logits, None, Law { top_k: 999, ..dense }), "{step}");
        }
    }

    #[test]
    fn infinity_wins() {
        let mut logits = vec![5.0; 600];
        logits[41] = f32::INFINITY;
        assert_eq!(one(&logits, None, law()), (41, 0.0));
        assert_eq!(one(&logits, None, Law { temperature: 0.0, ..law() }), (41, 0.0));
    }
}
