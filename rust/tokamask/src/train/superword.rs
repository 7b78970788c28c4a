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

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::counts::View;
use super::learn::{Goal, Learner, Outcome, Veto};
use super::table::Table;
use crate::bpe::{Bpe, Merges};
use crate::error::Error;

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
    inherited: &Inherited,
    counts: View<'_>,
    goal: Goal<'_>,
    growing: bool,
    mut keep_going: impl FnMut(usize) -> bool,
) -> Result<Extended, Error> {
    let corpus = Corpus::new(inherited, counts)?;
    let pairs = corpus.pairs();
    let wanted = goal.vocab_size.saturating_sub(inherited.tokens.len());
    let floor = goal.min_frequency.max(1);
    let mut bound = first_bound(&pairs, wanted).max(floor);
    loop {
        let veto = goal.veto.filter(|_| growing);
        let pieces = corpus.pieces(|left, right| {
            let pair = u64::from(left) << 32 | u64::from(right);
            pairs.get(&pair).is_some_and(|&count| count >= bound) && !corpus.vetoed(veto, left, right)
        })?;
        let tokens = inherited.tokens.iter().map(|token| {
            let token = token.clone().unwrap_or_default();
            let length = token.len() as u32;
            (token, length)
        });
        let words = (0..pieces.len()).map(|nth| {
            (bytemuck::cast_slice::<u8, [u8; 4]>(pieces.get(nth)), pieces.count(nth))
        });
        let mut learner = Learner::new(tokens.collect(), words, |&symbol| u32::from_ne_bytes(symbol))?;
        let outcome = learner.learn(Goal { min_frequency: bound, ..goal }, &mut keep_going);
        let (tokens, merges) = learner.into_parts();
        let mut tokens: Vec<Vec<u8>> = tokens.into_iter().map(<[u8]>::into_vec).collect();
        let tokens = tokens.split_off(inherited.tokens.len());
        // A merge that spells an old token would void the argument for the cuts.
        let sound = tokens.len() == merges.len() || bound == floor;
        if sound && (outcome != Outcome::Exhausted || bound == floor) || outcome == Outcome::Stopped {
            return Ok(Extended { tokens, merges, outcome });
        }
        bound = if sound { (bound / 4).max(floor) } else { floor };
    }
}

/// Ids of tokens that the runs use or that a used token is merged from; the others are dropped by
/// the method's authors when they replay merges.
pub fn used(inherited: &Inherited, counts: View<'_>) -> Result<Vec<bool>, Error> {
    let corpus = Corpus::new(inherited, counts)?;
    let mut used = vec![false; inherited.tokens.len()];
    corpus.visit(0..corpus.len(), |tokens, _| {
        tokens.iter().for_each(|&token| used[token as usize] = true);
    });
    let ids: FxHashMap<&[u8], u32> =
        (0..).zip(&inherited.tokens).filter_map(|(id, token)| Some((token.as_deref()?, id))).collect();
    if let Merges::List(merges) = &inherited.merges {
        for &(left, right) in merges.iter().rev() {
            let [Some(l), Some(r)] = [left, right].map(|id| inherited.tokens[id as usize].as_deref()) else {
                continue;
            };
            if ids.get(&[l, r].concat()[..]).is_some_and(|&id| used[id as usize]) {
                used[left as usize] = true;
                used[right as usize] = true;
            }
        }
    }
    Ok(used)
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

/// Runs as sequences of inherited tokens.
struct Corpus<'a> {
    counts: View<'a>,
    bpe: Bpe,
    tokens: &'a [Option<Vec<u8>>],
    /// Bit per pair of bytes: stands side by side in an inherited token.
    inside: Vec<u64>,
    /// Tokens of each pretoken, one after another.
    encoded: Vec<u32>,
    bounds: Vec<u32>,
    /// Occurrences of each pretoken outside of runs.
    alone: Vec<u64>,
}

impl<'a> Corpus<'a> {
    fn new(inherited: &'a Inherited, counts: View<'a>) -> Result<Self, Error> {
        let slices: Vec<Option<&[u8]>> = inherited.tokens.iter().map(Option::as_deref).collect();
        let bpe = Bpe::new(&slices, &inherited.merges, false)?;
        let mut inside = vec![0u64; 1 << 10];
        for two in slices.iter().flatten().flat_map(|token| token.windows(2)) {
            let pair = usize::from(two[0]) << 8 | usize::from(two[1]);
            inside[pair >> 6] |= 1 << (pair & 63);
        }
        let mut alone: Vec<u64> = counts.words().map(|(_, count)| count).collect();
        for run in 0..counts.runs() {
            for &word in counts.run(run) {
                let left = &mut alone[word as usize];
                *left = left.saturating_sub(counts.run_count(run));
            }
        }
        let (mut encoded, mut bounds) = (Vec::new(), vec![0]);
        for (word, _) in counts.words() {
            bpe.encode_piece(word, &mut encoded);
            bounds.push(encoded.len() as u32);
        }
        Ok(Self { counts, bpe, tokens: &inherited.tokens, inside, encoded, bounds, alone })
    }

    /// Sequences: runs first, then pretokens that stood alone.
    fn len(&self) -> usize {
        self.counts.runs() + self.counts.len()
    }

    /// Calls `found` with the tokens and the count of each sequence.
    fn visit(&self, range: std::ops::Range<usize>, mut found: impl FnMut(&[u32], u64)) {
        let (mut tokens, mut glued) = (Vec::new(), Vec::new());
        for nth in range {
            if nth < self.counts.runs() {
                tokens.clear();
                self.encode(self.counts.run(nth), &mut tokens, &mut glued);
                found(&tokens, self.counts.run_count(nth));
            } else {
                let word = nth - self.counts.runs();
                if self.alone[word] > 0 {
                    found(self.word(word as u32), self.alone[word]);
                }
            }
        }
    }

    fn word(&self, word: u32) -> &[u32] {
        &self.encoded[self.bounds[word as usize] as usize..self.bounds[word as usize + 1] as usize]
    }

    /// The inherited encoding of a run: pretokens apart where no token can cross, else together.
    fn encode(&self, run: &[u32], tokens: &mut Vec<u32>, glued: &mut Vec<u8>) {
        let mut rest = run;
        while let Some((&first, _)) = rest.split_first() {
            let together = 1 + rest.windows(2).take_while(|two| self.touch(two[0], two[1])).count();
            if together == 1 {
                tokens.extend_from_slice(self.word(first));
            } else {
                glued.clear();
                for &word in &rest[..together] {
                    glued.extend_from_slice(self.counts.word(word as usize));
                }
                self.bpe.encode_piece(glued, tokens);
            }
            rest = &rest[together..];
        }
    }

    /// True if an inherited token may reach over the edge of two pretokens.
    fn touch(&self, left: u32, right: u32) -> bool {
        let left = self.counts.word(left as usize).last();
        let right = self.counts.word(right as usize).first();
        let (Some(&left), Some(&right)) = (left, right) else { return true };
        let pair = usize::from(left) << 8 | usize::from(right);
        self.inside[pair >> 6] >> (pair & 63) & 1 == 1
    }

    fn vetoed(&self, veto: Option<Veto<'_>>, left: u32, right: u32) -> bool {
        let bytes = |id: u32| self.tokens[id as usize].as_deref().unwrap_or_default();
        veto.is_some_and(|veto| veto(&[bytes(left), bytes(right)].concat()))
    }

    /// The sequences in one part per thread.
    fn parts(&self) -> Vec<std::ops::Range<usize>> {
        let parts = rayon::current_num_threads();
        (0..parts).map(|nth| self.len() * nth / parts..self.len() * (nth + 1) / parts).collect()
    }

    /// How often each pair of tokens is adjacent.
    fn pairs(&self) -> FxHashMap<u64, u64> {
        let count = |range| {
            let mut pairs: FxHashMap<u64, u64> = FxHashMap::default();
            self.visit(range, |tokens, count| {
                for two in tokens.windows(2) {
                    *pairs.entry(u64::from(two[0]) << 32 | u64::from(two[1])).or_default() += count;
                }
            });
            pairs
        };
        let add = |a: FxHashMap<u64, u64>, b: FxHashMap<u64, u64>| {
            let (mut big, small) = if a.len() < b.len() { (b, a) } else { (a, b) };
            small.into_iter().for_each(|(pair, count)| *big.entry(pair).or_default() += count);
            big
        };
        self.parts().into_par_iter().map(count).reduce(FxHashMap::default, add)
    }

    /// The stretches of two tokens and more in which all pairs are `kept`, counted.
    fn pieces(&self, kept: impl Fn(u32, u32) -> bool + Sync) -> Result<Table, Error> {
        let cut = |range| {
            let mut pieces = Table::default();
            let mut full = Ok(0);
            self.visit(range, |tokens, count| {
                for piece in tokens.chunk_by(|&left, &right| kept(left, right)).filter(|p| p.len() > 1) {
                    if full.is_ok() {
                        full = pieces.add(bytemuck::cast_slice(piece), count);
                    }
                }
            });
            full.map(|_| pieces)
        };
        let mut tables = self.parts().into_par_iter().map(cut).collect::<Result<Vec<_>, _>>()?.into_iter();
        let mut all = tables.next().unwrap_or_default();
        for table in tables {
            for nth in 0..table.len() {
                all.add(table.get(nth), table.count(nth))?;
            }
        }
        Ok(all)
    }
}
