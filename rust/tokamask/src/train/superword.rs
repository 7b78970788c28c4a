//! Merges across pretokens: superwords, and more merges for a tokenizer that exists.
//!
//! The inherited merges are replayed, then learning goes on over runs of pretokens. Two facts, both
//! exact, make this as fast as plain BPE and let it work from counts instead of documents:
//!
//! * A merge crosses the edge of two pretokens only if its token holds the two bytes at the edge side
//!   by side. Where no inherited token does, the pretokens are replayed apart, so each distinct one
//!   is replayed once.
//! * A pair that is rarer than the last merge will be can never merge, nor can anything that
//!   reaches over it: counts of pairs only fall. Runs are cut there, and what is left between
//!   the cuts repeats so often that it is counted like words. The bound is a guess; if learning ends at
//!   it before the vocabulary is full, the guess is lowered and learning starts again.

use std::borrow::Cow;

use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};

use super::counts::{words_of, View};
use super::learn::{pair_of, Goal, Learner, Outcome, Veto};
use super::table::Table;
use crate::bpe::{Bpe, Merges};
use crate::error::{Error, LimitError};

/// The tokens and merges that learning starts from.
pub struct Inherited {
    /// Bytes by id; `None` where merging never produces the id (special tokens, holes).
    pub tokens: Vec<Option<Vec<u8>>>,
    /// What merges.
    pub merges: Merges,
}

/// What came of it.
pub struct Extended {
    /// Bytes of the new tokens; their ids follow those inherited.
    pub tokens: Vec<Vec<u8>>,
    /// The new merges, as ids.
    pub merges: Vec<(u32, u32)>,
    /// Why learning ended.
    pub outcome: Outcome,
}

/// Refuses tokens of more than `max_words` words (parts between spaces) and tokens that hold `": "`.
pub fn superword_veto(max_words: usize) -> impl Fn(&[u8]) -> bool + Sync {
    move |token| {
        memchr::memmem::find(token, b": ").is_some()
            || token.split(|&byte| byte == b' ').filter(|part| !part.is_empty()).count() > max_words
    }
}

/// Learns merges over runs (over pretokens, if no runs were counted) until the goal is reached.
///
/// `growing` says that whatever holds a vetoed token is vetoed as well.
pub fn extend(
    corpus: &Corpus<'_>,
    goal: Goal<'_>,
    growing: bool,
    mut keep_going: impl FnMut(usize) -> bool,
) -> Result<Extended, Error> {
    let pairs = corpus.pairs();
    let old = corpus.tokens.len();
    let wanted = goal.vocab_size.saturating_sub(old);
    let floor = goal.min_frequency.max(1);
    let mut bound = first_bound(&pairs, wanted).max(floor);
    loop {
        let veto = goal.veto.filter(|_| growing);
        let kept = pairs.iter().filter(|&(&pair, &count)| count >= bound && !corpus.vetoed(veto, pair));
        let kept: FxHashSet<u64> = kept.map(|(&pair, _)| pair).collect();
        let pieces = corpus.pieces(&kept)?;
        let tokens = corpus.tokens.iter().map(|token| {
            let token = token.clone().unwrap_or_default();
            let length = token.len() as u32;
            (token, length)
        });
        let words = (0..pieces.len())
            .map(|nth| (bytemuck::cast_slice::<u8, [u8; 4]>(pieces.get(nth)), pieces.count(nth)));
        let mut learner = Learner::new(tokens.collect(), words, |&symbol| u32::from_ne_bytes(symbol))?;
        let outcome = learner.learn(Goal { min_frequency: bound, ..goal }, &mut keep_going);
        let (tokens, merges) = learner.into_parts();
        let mut tokens: Vec<Vec<u8>> = tokens.into_iter().map(<[u8]>::into_vec).collect();
        let tokens = tokens.split_off(old);
        // A merge that spells an old token would void the argument for the cuts.
        let sound = tokens.len() == merges.len() || bound == floor;
        if outcome == Outcome::Stopped || sound && (outcome == Outcome::Full || bound == floor) {
            return Ok(Extended { tokens, merges, outcome });
        }
        bound = if sound { (bound / 4).max(floor) } else { floor };
    }
}

/// The count of the pair that is about the last to be merged, halved to be safe.
fn first_bound(pairs: &FxHashMap<u64, u64>, wanted: usize) -> u64 {
    let mut counts: Vec<u64> = pairs.values().copied().collect();
    if counts.len() <= wanted {
        return 1;
    }
    let (_, &mut count, _) = counts.select_nth_unstable_by(wanted, |a, b| b.cmp(a));
    count / 2
}

/// Runs as sequences of units: stretches that the inherited merges are replayed on by themselves.
pub struct Corpus<'a> {
    counts: View<'a>,
    tokens: &'a [Option<Vec<u8>>],
    /// Units by run: a pretoken, or (from the number of pretokens on) some that belong together.
    units: Vec<u32>,
    run_bounds: Vec<usize>,
    /// Tokens by unit.
    encoded: Vec<u32>,
    unit_bounds: Vec<u32>,
    /// Occurrences by unit, and those of them that are no part of a run.
    occurrences: Vec<u64>,
    alone: Vec<u64>,
}

impl<'a> Corpus<'a> {
    /// Replays the inherited merges on every unit.
    pub fn new(inherited: &'a Inherited, counts: View<'a>) -> Result<Self, Error> {
        let tokens = &inherited.tokens;
        let slices: Vec<Option<&[u8]>> = tokens.iter().map(Option::as_deref).collect();
        let bpe = Bpe::new(&slices, &inherited.merges)?;
        let crossing = Crossing::new(tokens, counts);
        let mut alone: Vec<u64> = counts.words().map(|(_, count)| count).collect();
        let mut occurrences = vec![0; counts.len()];
        let mut glued = Table::default();
        let (mut units, mut run_bounds) = (Vec::with_capacity(counts.run_length()), vec![0]);
        for run in 0..counts.runs() {
            let (mut rest, count) = (counts.run(run), counts.run_count(run));
            while let Some(&first) = rest.first() {
                let together = 1 + rest.windows(2).take_while(|two| crossing.may(two[0], two[1])).count();
                let (unit, others) = rest.split_at(together);
                if together == 1 {
                    occurrences[first as usize] += count;
                    units.push(first);
                } else {
                    units.push(counts.len() as u32 + glued.add(bytemuck::cast_slice(unit), count)?);
                }
                for &word in unit {
                    let left = &mut alone[word as usize];
                    *left = left.saturating_sub(count);
                }
                rest = others;
            }
            run_bounds.push(units.len());
        }
        occurrences.iter_mut().zip(&alone).for_each(|(all, alone)| *all += alone);
        occurrences.extend((0..glued.len()).map(|nth| glued.count(nth)));
        let spell = |unit: usize| match unit.checked_sub(counts.len()) {
            None => Cow::Borrowed(counts.word(unit)),
            Some(nth) => words_of(glued.get(nth)).flat_map(|w| counts.word(w as usize)).copied().collect(),
        };
        let (encoded, unit_bounds) = encode_all(&bpe, occurrences.len(), spell);
        Ok(Self { counts, tokens, units, run_bounds, encoded, unit_bounds, occurrences, alone })
    }

    /// The same after ids have moved; tokens that no unit uses may be gone.
    #[must_use]
    pub fn renumbered(self, inherited: &'a Inherited, moved: &[u32]) -> Self {
        let encoded = self.encoded.iter().map(|&token| moved[token as usize]).collect();
        Self { tokens: &inherited.tokens, encoded, ..self }
    }

    /// Ids that occur after the replay, or that an occurring token is merged from.
    pub fn used(&self, merges: &[(u32, u32)]) -> Vec<bool> {
        let mut used = vec![false; self.tokens.len()];
        for unit in (0..self.occurrences.len()).filter(|&unit| self.occurrences[unit] > 0) {
            self.unit(unit as u32).iter().for_each(|&token| used[token as usize] = true);
        }
        let ids = (0..).zip(self.tokens).filter_map(|(id, token)| Some((token.as_deref()?, id)));
        let ids: FxHashMap<&[u8], u32> = ids.collect();
        for &(left, right) in merges.iter().rev() {
            if ids.get(&self.joined(left, right)[..]).is_some_and(|&id| used[id as usize]) {
                used[left as usize] = true;
                used[right as usize] = true;
            }
        }
        used
    }

    fn unit(&self, unit: u32) -> &[u32] {
        let at = unit as usize;
        &self.encoded[self.unit_bounds[at] as usize..self.unit_bounds[at + 1] as usize]
    }

    fn joined(&self, left: u32, right: u32) -> Vec<u8> {
        let bytes = |id: u32| self.tokens[id as usize].as_deref().unwrap_or_default();
        [bytes(left), bytes(right)].concat()
    }

    fn vetoed(&self, veto: Option<Veto<'_>>, pair: u64) -> bool {
        veto.is_some_and(|veto| veto(&self.joined((pair >> 32) as u32, pair as u32)))
    }

    /// Units of a run, its count.
    fn run(&self, run: usize) -> (&[u32], u64) {
        (&self.units[self.run_bounds[run]..self.run_bounds[run + 1]], self.counts.run_count(run))
    }

    /// The runs in one part per thread.
    fn parts(&self) -> Vec<std::ops::Range<usize>> {
        let (parts, runs) = (rayon::current_num_threads(), self.counts.runs());
        (0..parts).map(|nth| runs * nth / parts..runs * (nth + 1) / parts).collect()
    }

    /// How often each pair of tokens is adjacent: inside of units, and at their edges.
    fn pairs(&self) -> FxHashMap<u64, u64> {
        let ends = |unit: u32| {
            let tokens = self.unit(unit);
            (tokens.first().copied().unwrap_or(0), tokens.last().copied().unwrap_or(0))
        };
        let ends: Vec<(u32, u32)> = (0..self.occurrences.len() as u32).map(ends).collect();
        let edges = |range: std::ops::Range<usize>| {
            let mut pairs: FxHashMap<u64, u64> = FxHashMap::default();
            for (units, count) in range.map(|run| self.run(run)) {
                for two in units.windows(2) {
                    *pairs.entry(pair_of(ends[two[0] as usize].1, ends[two[1] as usize].0)).or_default() +=
                        count;
                }
            }
            pairs
        };
        let add = |a: FxHashMap<u64, u64>, b: FxHashMap<u64, u64>| {
            let (mut big, small) = if a.len() < b.len() { (b, a) } else { (a, b) };
            for (pair, count) in small {
                *big.entry(pair).or_default() += count;
            }
            big
        };
        let mut pairs = self.parts().into_par_iter().map(edges).reduce(FxHashMap::default, add);
        for (unit, &count) in (0..).zip(&self.occurrences).filter(|&(_, &count)| count > 0) {
            for two in self.unit(unit).windows(2) {
                *pairs.entry(pair_of(two[0], two[1])).or_default() += count;
            }
        }
        pairs
    }

    /// The stretches of two tokens and more in which all pairs are kept, counted.
    fn pieces(&self, kept: &FxHashSet<u64>) -> Result<Table, Error> {
        let cut = |range: std::ops::Range<usize>| {
            let mut pieces = Pieces { table: Table::default(), kept, open: Vec::new() };
            for (units, count) in range.map(|run| self.run(run)) {
                for &unit in units {
                    pieces.extend(self.unit(unit), count)?;
                }
                pieces.close(count)?;
            }
            Ok(pieces.table)
        };
        let tables = self.parts().into_par_iter().map(cut).collect::<Result<Vec<_>, LimitError>>()?;
        let mut pieces = Pieces { table: Table::default(), kept, open: Vec::new() };
        for (unit, &count) in (0..).zip(&self.alone).filter(|&(_, &count)| count > 0) {
            pieces.extend(self.unit(unit), count)?;
            pieces.close(count)?;
        }
        for table in tables {
            for nth in 0..table.len() {
                pieces.table.add(table.get(nth), table.count(nth))?;
            }
        }
        Ok(pieces.table)
    }
}

/// Cuts sequences of tokens where a pair is not kept.
struct Pieces<'a> {
    table: Table,
    kept: &'a FxHashSet<u64>,
    open: Vec<u32>,
}

impl Pieces<'_> {
    fn extend(&mut self, tokens: &[u32], count: u64) -> Result<(), LimitError> {
        for &token in tokens {
            if let Some(&last) = self.open.last() {
                if !self.kept.contains(&pair_of(last, token)) {
                    self.close(count)?;
                }
            }
            self.open.push(token);
        }
        Ok(())
    }

    fn close(&mut self, count: u64) -> Result<(), LimitError> {
        if self.open.len() > 1 {
            self.table.add(bytemuck::cast_slice(&self.open), count)?;
        }
        self.open.clear();
        Ok(())
    }
}

/// Which edges of pretokens an inherited token may reach over.
struct Crossing {
    /// Bit per pair of bytes: stands side by side in a token.
    inside: Vec<u64>,
    /// First and last byte of each pretoken.
    ends: Vec<(u8, u8)>,
}

impl Crossing {
    fn new(tokens: &[Option<Vec<u8>>], counts: View<'_>) -> Self {
        let mut inside = vec![0u64; 1 << 10];
        for two in tokens.iter().flatten().flat_map(|token| token.windows(2)) {
            let pair = usize::from(two[0]) << 8 | usize::from(two[1]);
            inside[pair >> 6] |= 1 << (pair & 63);
        }
        let ends =
            |(word, _): (&[u8], u64)| (word.first().copied().unwrap_or(0), word.last().copied().unwrap_or(0));
        Self { inside, ends: counts.words().map(ends).collect() }
    }

    fn may(&self, left: u32, right: u32) -> bool {
        let pair = usize::from(self.ends[left as usize].1) << 8 | usize::from(self.ends[right as usize].0);
        self.inside[pair >> 6] >> (pair & 63) & 1 == 1
    }
}

/// Tokens of all units, one after another, and where each unit's start.
fn encode_all<'a>(
    bpe: &Bpe,
    units: usize,
    spell: impl Fn(usize) -> Cow<'a, [u8]> + Sync,
) -> (Vec<u32>, Vec<u32>) {
    const PART: usize = 1 << 14;
    let part = |nth: usize| {
        let (mut tokens, mut lengths) = (Vec::new(), Vec::new());
        for unit in nth * PART..units.min((nth + 1) * PART) {
            let before = tokens.len();
            bpe.encode_piece(&spell(unit), &mut tokens);
            lengths.push((tokens.len() - before) as u32);
        }
        (tokens, lengths)
    };
    let parts: Vec<_> = (0..units.div_ceil(PART)).into_par_iter().map(part).collect();
    let (mut encoded, mut bounds) = (Vec::new(), vec![0]);
    let mut end = 0;
    for (tokens, lengths) in parts {
        encoded.extend(tokens);
        bounds.extend(lengths.into_iter().map(|length| {
            end += length;
            end
        }));
    }
    (encoded, bounds)
}
