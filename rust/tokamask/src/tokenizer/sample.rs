//! Random segmentations: the text stays, its tokens vary with a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Tokenizer;
use crate::bpe::NONE;
use crate::error::Error;
use crate::ids::TokenId;
use crate::random::{below, bits64};
use crate::text::added::Allowed;

/// How a segmentation is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    /// Tokens of the usual encoding split in two, at random places, `p` attempts a token.
    Stochastok(f64),
    /// Merging in which every step leaves out each candidate with probability `p`.
    Dropout(f64),
    /// Every way to write a pretoken in tokens is as likely as any other.
    Uniform,
}

/// A stream of draws; the n-th is a function of the seed and n.
struct Draws {
    seed: u64,
    step: u64,
}

impl Draws {
    fn bits(&mut self) -> u64 {
        self.step += 1;
        bits64(self.seed, 0, self.step - 1, 0)
    }

    fn below(&mut self, total: usize) -> usize {
        below(total as u64, self.bits()) as usize
    }

    /// Uniform in 0..1, of 53 bits.
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Tokenizer {
    /// A random segmentation of `text`.
    pub fn sample(&self, text: &str, law: Law, seed: u64) -> Result<Vec<u32>, Error> {
        let mut draws = Draws { seed, step: 0 };
        match law {
            Law::Stochastok(p) => {
                let ids = self.encode(text, false, &Allowed::None)?;
                Ok(self.split_tokens(&ids, p, &mut draws))
            }
            Law::Dropout(p) => {
                self.encode_pieces(text, |piece, ids| self.drop_merges(piece, p, &mut draws, ids))
            }
            Law::Uniform => self.encode_pieces(text, |piece, ids| self.any_cover(piece, &mut draws, ids)),
        }
    }

    /// `floor(p * n)` attempts: a place of the list as it then is, uniformly; if its token can be two tokens, one of
    /// the ways to cut it, uniformly.
    fn split_tokens(&self, ids: &[u32], p: f64, draws: &mut Draws) -> Vec<u32> {
        let attempts = (ids.len() as f64 * p) as usize;
        let mut slots: Vec<Vec<u32>> = ids.iter().map(|&id| vec![id]).collect();
        let mut sizes = Sizes::new(ids.len());
        let mut ways = Vec::new();
        for _ in 0..attempts {
            let (slot, at) = sizes.find(draws.below(sizes.total));
            self.ways(slots[slot][at], &mut ways);
            if !ways.is_empty() {
                let way = ways[draws.below(ways.len())];
                slots[slot].splice(at..=at, way);
                sizes.grow(slot);
            }
        }
        slots.concat()
    }

    /// The ways to write a token as two.
    fn ways(&self, id: u32, ways: &mut Vec<[u32; 2]>) {
        ways.clear();
        let merged = |id: u32| self.definition.tokens.get(id as usize).is_some_and(Option::is_some);
        let bytes = self.vocabulary.bytes(TokenId::new(id)).filter(|_| merged(id)).unwrap_or_default();
        if self.vocabulary.is_special(TokenId::new(id)) {
            return;
        }
        for cut in 1..bytes.len() {
            let halves = (self.vocabulary.id(&bytes[..cut]), self.vocabulary.id(&bytes[cut..]));
            if let (Some(left), Some(right)) = halves {
                ways.push([left.get(), right.get()]);
            }
        }
    }

    /// Merging by a heap in which a popped candidate is left out with probability `p` until something merged.
    fn drop_merges(&self, piece: &[u8], p: f64, draws: &mut Draws, ids: &mut Vec<u32>) {
        let bpe = self.encoder.bpe();
        let bytes = piece.iter().map(|&byte| bpe.bytes[usize::from(byte)]);
        let mut symbols: Vec<u32> = bytes.filter(|&symbol| symbol != NONE).collect();
        let count = symbols.len();
        let mut next: Vec<usize> = (1..=count).collect();
        let mut previous: Vec<usize> = (0..count).map(|at| at.wrapping_sub(1)).collect();
        let mut heap = BinaryHeap::new();
        let candidate = |symbols: &[u32], left: usize, right: usize| {
            let symbol = bpe.pairs.get(symbols[left], symbols[right]);
            (symbol != NONE).then_some(Reverse((symbol, left)))
        };
        heap.extend((1..count).filter_map(|right| candidate(&symbols, right - 1, right)));
        let mut left_out = Vec::new();
        while let Some(Reverse((symbol, at))) = heap.pop() {
            let right = next[at];
            if symbols[at] == NONE
                || right == count
                || candidate(&symbols, at, right) != Some(Reverse((symbol, at)))
            {
                continue;
            }
            if draws.unit() < p {
                left_out.push(Reverse((symbol, at)));
                continue;
            }
            heap.extend(left_out.drain(..));
            symbols[at] = symbol;
            symbols[right] = NONE;
            next[at] = next[right];
            if next[at] < count {
                previous[next[at]] = at;
                heap.extend(candidate(&symbols, at, next[at]));
            }
            if previous[at] < count {
                heap.extend(candidate(&symbols, previous[at], at));
            }
        }
        ids.extend(symbols.iter().filter(|&&symbol| symbol != NONE).map(|&symbol| bpe.ids[symbol as usize]));
    }

    /// One of all the ways to write a pretoken in tokens, each as likely.
    fn any_cover(&self, piece: &[u8], draws: &mut Draws, ids: &mut Vec<u32>) {
        // Logarithms of the number of ways to write each prefix; then backwards by their shares.
        let mut ways = vec![f64::NEG_INFINITY; piece.len() + 1];
        let mut ends: Vec<Vec<(usize, u32)>> = vec![Vec::new(); piece.len() + 1];
        ways[0] = 0.0;
        for start in 0..piece.len() {
            let here = ways[start];
            if here == f64::NEG_INFINITY {
                continue;
            }
            let mut any = false;
            self.tokens_at(&piece[start..], |length, id| {
                any = true;
                let sum = &mut ways[start + length];
                *sum = add_logs(*sum, here);
                ends[start + length].push((start, id));
            });
            if !any {
                ways[start + 1] = add_logs(ways[start + 1], here); // a byte that is in no token
                ends[start + 1].push((start, NONE));
            }
        }
        let (first, mut at) = (ids.len(), piece.len());
        while at > 0 {
            let choices = &ends[at];
            let Some(&last) = choices.last() else { break };
            let mut left = draws.unit();
            let chosen = choices.iter().find(|(start, _)| {
                left -= (ways[*start] - ways[at]).exp();
                left < 0.0
            });
            let &(start, id) = chosen.unwrap_or(&last);
            ids.extend((id != NONE).then_some(id));
            at = start;
        }
        ids[first..].reverse();
    }
}

/// `ln(e^a + e^b)`.
fn add_logs(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY {
        high
    } else {
        high + (low - high).exp().ln_1p()
    }
}

/// Sizes of slots as a tree of sums: the slot of a place, and growth, in logarithmic time.
struct Sizes {
    sums: Vec<usize>,
    total: usize,
}

impl Sizes {
    fn new(slots: usize) -> Self {
        let mut sums = vec![0; slots + 1];
        for at in 1..=slots {
            sums[at] += 1;
            let above = at + (at & at.wrapping_neg());
            if above <= slots {
                sums[above] += sums[at];
            }
        }
        Self { sums, total: slots }
    }

    /// The slot that holds `place` and the place in it.
    fn find(&self, mut place: usize) -> (usize, usize) {
        let mut slot = 0;
        let mut step = (self.sums.len() / 2 + 1).next_power_of_two();
        while step > 0 {
            if slot + step < self.sums.len() && self.sums[slot + step] <= place {
                slot += step;
                place -= self.sums[slot];
            }
            step /= 2;
        }
        (slot, place)
    }

    fn grow(&mut self, slot: usize) {
        let mut at = slot + 1;
        while at < self.sums.len() {
            self.sums[at] += 1;
            at += at & at.wrapping_neg();
        }
        self.total += 1;
    }
}
