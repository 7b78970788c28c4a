//! `BoundlessBPE` in two phases: words and superwords are learnt apart, and their counts decide how many
//! of each there are.
//!
//! Counts of merges only fall, in both lists; walking them together and taking the higher one at each
//! step is the order of the one-phase method, and it finds the transition by itself. The runs that
//! superwords are learnt from are sequences of pretokens that are single tokens, so they repeat and are
//! counted like words. Sources: Schmidt et al., "Boundless Byte Pair Encoding" (2025), and its authors'
//! faster variant.

use rustc_hash::FxHashMap;

use super::bpe::{spelled, Learnt, Start};
use super::counts::{words_of, View};
use super::learn::{Bytes, Goal, Learner, Outcome, Veto};
use super::table::Table;
use crate::bpe::{Bpe, Merges};
use crate::error::Error;

/// Learns as many merges as bytes, special tokens and `goal.vocab_size` leave room for.
pub fn train(
    counts: View<'_>,
    special_tokens: &[String],
    initial: &[u8],
    goal: Goal<'_>,
    mut keep_going: impl FnMut(usize) -> bool,
) -> Result<Learnt, Error> {
    let mut wanted = [false; 256];
    for &byte in counts.words().flat_map(|(word, _)| word).chain(initial) {
        wanted[byte as usize] = true;
    }
    let start = Start::new(special_tokens, |byte| wanted[byte as usize]);
    let first = start.tokens.len();
    let symbols = start.symbols.map(|symbol| symbol.unwrap_or(u32::MAX));
    let mut words = Learner::new(start.tokens, counts.words(), |&byte| symbols[byte as usize])?;
    let outcome = words.learn(Goal { veto: None, ..goal }, &mut keep_going);
    let regular = List::of(words);
    let mut chosen = Chosen::new(&regular.tokens[..first]);
    if outcome == Outcome::Stopped {
        return Ok(chosen.learnt(special_tokens, first, outcome));
    }
    let room = goal.vocab_size.saturating_sub(first);
    let runs = runs(&regular, first, counts)?;
    let above = superwords(&regular, &runs, goal.veto, room, goal.min_frequency)?;
    let (mut nth, mut super_nth) = (0, 0);
    while chosen.tokens.len() < goal.vocab_size {
        let (word, superword) = (regular.counts.get(nth), above.counts.get(super_nth));
        // Ties go to words: what a superword is made of comes first.
        if superword.is_some_and(|count| word.is_none_or(|word| count > word)) {
            chosen.take(&above, super_nth);
            super_nth += 1;
        } else if word.is_some() {
            chosen.take(&regular, nth);
            nth += 1;
        } else {
            break;
        }
    }
    // Plain BPE applies merges in the order of their list: words are complete before they join.
    let mut ordered = Chosen::new(&regular.tokens[..first]);
    (0..nth).for_each(|nth| ordered.take(&regular, nth));
    (0..super_nth).for_each(|nth| ordered.take(&above, nth));
    let outcome = if ordered.tokens.len() < goal.vocab_size { Outcome::Exhausted } else { Outcome::Full };
    Ok(ordered.learnt(special_tokens, first, outcome))
}

/// What a learner learnt: merges with their counts.
struct List {
    tokens: Vec<Bytes>,
    merges: Vec<(u32, u32)>,
    counts: Vec<u64>,
}

impl List {
    fn of(mut learner: Learner) -> Self {
        let counts = std::mem::take(&mut learner.merge_counts);
        let (tokens, merges) = learner.into_parts();
        Self { tokens, merges, counts }
    }
}

/// Sequences of two and more pretokens that are single tokens with a letter in them, as token ids.
fn runs(regular: &List, first: usize, counts: View<'_>) -> Result<Table, Error> {
    let special = |id: usize, token: &Bytes| id < first && token.len() != 1;
    let tokens = regular.tokens.iter().enumerate();
    let tokens: Vec<Option<&[u8]>> =
        tokens.map(|(id, token)| (!special(id, token)).then_some(&token[..])).collect();
    let bpe = Bpe::new(&tokens, &Merges::List(regular.merges.clone()))?;
    let mut ids = Vec::new();
    let mut whole = |(word, _): (&[u8], u64)| {
        ids.clear();
        bpe.encode_piece(word, &mut ids);
        let letter = std::str::from_utf8(word).is_ok_and(|text| text.chars().any(char::is_alphabetic));
        (letter && ids.len() == 1).then(|| ids[0])
    };
    let eligible: Vec<Option<u32>> = counts.words().map(&mut whole).collect();
    let mut table = Table::default();
    let mut open: Vec<u32> = Vec::new();
    for run in 0..counts.runs() {
        let ends = std::iter::once(None);
        for token in counts.run(run).iter().map(|&word| eligible[word as usize]).chain(ends) {
            if let Some(token) = token {
                open.push(token);
                continue;
            }
            if open.len() > 1 {
                table.add(bytemuck::cast_slice(&open), counts.run_count(run))?;
            }
            open.clear();
        }
    }
    Ok(table)
}

/// At most `room` merges over the runs.
fn superwords(
    regular: &List,
    runs: &Table,
    veto: Option<Veto<'_>>,
    room: usize,
    min_frequency: u64,
) -> Result<List, Error> {
    let tokens = regular.tokens.iter().map(|token| (token.to_vec(), token.len() as u32)).collect();
    let runs: Vec<(Vec<u32>, u64)> =
        (0..runs.len()).map(|nth| (words_of(runs.get(nth)).collect(), runs.count(nth))).collect();
    let words = runs.iter().map(|(run, count)| (&run[..], *count));
    let mut learner = Learner::new(tokens, words, |&token| token)?;
    let size = regular.tokens.len() + room;
    learner.learn(Goal { min_frequency, veto, ..Goal::size(size) }, |_| true);
    Ok(List::of(learner))
}

/// Tokens and merges taken so far, from either list.
struct Chosen {
    tokens: Vec<Vec<u8>>,
    ids: FxHashMap<Vec<u8>, u32>,
    merges: Vec<(u32, u32)>,
}

impl Chosen {
    fn new(start: &[Bytes]) -> Self {
        let tokens: Vec<Vec<u8>> = start.iter().map(|token| token.to_vec()).collect();
        let ids = (0..).zip(&tokens).filter(|(_, token)| !token.is_empty());
        let ids = ids.map(|(id, token)| (token.clone(), id)).collect();
        Self { tokens, ids, merges: Vec::new() }
    }

    /// A merge, unless its token is there already or one of its halves is not.
    fn take(&mut self, list: &List, nth: usize) {
        let (left, right) = list.merges[nth];
        let halves = [left, right].map(|id| &list.tokens[id as usize][..]);
        let [Some(&left), Some(&right)] = halves.map(|half| self.ids.get(half)) else { return };
        let token = halves.concat();
        if !self.ids.contains_key(&token) {
            self.ids.insert(token.clone(), self.tokens.len() as u32);
            self.tokens.push(token);
            self.merges.push((left, right));
        }
    }

    fn learnt(self, special_tokens: &[String], start: usize, outcome: Outcome) -> Learnt {
        let tokens = self.tokens.into_iter().map(Vec::into_boxed_slice).collect();
        Learnt { tokens: spelled(tokens, special_tokens), merges: self.merges, start, outcome }
    }
}
