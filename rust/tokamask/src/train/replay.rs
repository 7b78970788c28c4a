//! The merges of a tokenizer replayed on a corpus: which pairs were how frequent when each was chosen.

use rustc_hash::FxHashMap;

use super::counts::View;
use super::learn::Learner;
use crate::error::Error;
use crate::formats::{tokenizer_json_write::pairs, Definition};

/// Counts of pairs of tokens through the merges, as changes.
#[derive(Default)]
pub struct Replay {
    /// All pairs that are ever adjacent, and those of merges.
    pub pairs: Vec<(u32, u32)>,
    /// Which of the pairs each merge is.
    pub merges: Vec<u32>,
    /// Merges done when a count changed; ascending. 0: the counts at the start.
    pub steps: Vec<u32>,
    /// Whose count changed.
    pub places: Vec<u32>,
    /// To what.
    pub counts: Vec<u64>,
}

/// Replays all merges on words that were counted by the tokenizer's own rule. A pair that was merged
/// counts zero from then on.
pub fn replay(
    definition: &Definition,
    counts: View<'_>,
    keep_going: impl FnMut(usize) -> bool,
) -> Result<Replay, Error> {
    let merges = pairs(&definition.tokens, &definition.merges)?;
    let mut symbols = [u32::MAX; 256];
    let mut tokens = Vec::with_capacity(definition.tokens.len());
    for (id, token) in (0u32..).zip(&definition.tokens) {
        let token = token.clone().unwrap_or_default();
        if let [byte] = token[..] {
            symbols[byte as usize] = id;
        }
        let length = token.len() as u32;
        tokens.push((token, length));
    }
    let known = |word: &[u8]| word.iter().all(|&byte| symbols[byte as usize] != u32::MAX);
    let words: Vec<(&[u8], u64)> = counts.words().filter(|(word, _)| known(word)).collect();
    let mut learner = Learner::new(tokens, words, |&byte| symbols[byte as usize])?;
    let mut replay = Replay::default();
    let mut places: FxHashMap<u64, u32> = FxHashMap::default();
    let mut place = |pairs: &mut Vec<(u32, u32)>, pair: u64| {
        *places.entry(pair).or_insert_with(|| {
            pairs.push(((pair >> 32) as u32, pair as u32));
            pairs.len() as u32 - 1
        })
    };
    let Replay { pairs, merges: merged, steps, places: changed, counts } = &mut replay;
    let note = |step: usize, pair: u64, count: u64| {
        steps.push(step as u32);
        changed.push(place(pairs, pair));
        counts.push(count);
    };
    learner.replay(&merges, note, keep_going);
    for &(left, right) in &merges {
        merged.push(place(pairs, super::learn::pair_of(left, right)));
    }
    Ok(replay)
}
