//! Tokens that form later than their rank: a half of theirs has a worse one.
//!
//! Llama 3 has a few hundred. ` ради` (106174) is ` рад` (109124) and `и`: no pair makes it when its turn comes,
//! and once ` рад` is there it goes before everything else. So it comes right after ` рад`, and that is its
//! place in the order of symbols; then no symbol is younger than its product, which all the rest builds on.
//!
//! The order is the definition's as long as two places of a text where the late half forms do not vie for what
//! stands between them; vocabularies where they could are refused.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::{Bpe, Merges, NONE};
use crate::error::VocabularyError;

/// Rank, halves and product of a pair, by ids.
type Candidate = (u32, u32, u32, u32);

/// Pairs of ids in the order in which they merge, each after its halves.
pub fn in_order(tokens: &[Option<&[u8]>], merges: &Merges) -> Result<Vec<(u32, u32)>, VocabularyError> {
    let mut ids: FxHashMap<&[u8], u32> = FxHashMap::default();
    for (id, token) in (0u32..).zip(tokens) {
        if let Some(token) = token {
            ids.entry(token).or_insert(id);
        }
    }
    let mut order = Order { bpe: Bpe::of_bytes(tokens), waiting: FxHashMap::default(), pairs: Vec::new() };
    match merges {
        Merges::Ranks => {
            for (id, token) in (0u32..).zip(tokens) {
                let Some(token) = token.filter(|t| t.len() > 1 && ids.get(t) == Some(&id)) else { continue };
                let halves = (1..token.len()).filter_map(|at| {
                    let (left, right) = token.split_at(at);
                    Some((id, *ids.get(left)?, *ids.get(right)?, id))
                });
                order.event(halves)?;
            }
        }
        Merges::List(list) => {
            let mut joined = Vec::new();
            for (rank, &(left, right)) in (0u32..).zip(list) {
                joined.clear();
                for half in [left, right] {
                    joined
                        .extend_from_slice(tokens.get(half as usize).copied().flatten().unwrap_or_default());
                }
                order.event(ids.get(&joined[..]).map(|&id| (rank, left, right, id)).into_iter())?;
            }
        }
    }
    Ok(order.pairs)
}

struct Order {
    bpe: Bpe,
    /// By the half that is not there yet.
    waiting: FxHashMap<u32, Vec<Candidate>>,
    pairs: Vec<(u32, u32)>,
}

impl Order {
    /// Pairs whose turn has come, and what becomes possible through them.
    fn event(&mut self, candidates: impl Iterator<Item = Candidate>) -> Result<(), VocabularyError> {
        let mut ready: BinaryHeap<Reverse<Candidate>> = candidates.map(Reverse).collect();
        let first = self.bpe.ids.len();
        while let Some(Reverse(candidate)) = ready.pop() {
            let (_, left, right, id) = candidate;
            if self.bpe.symbols[id as usize] != NONE {
                continue;
            }
            let symbols = (self.bpe.symbols[left as usize], self.bpe.symbols[right as usize]);
            if let Some((half, _)) =
                [(left, symbols.0), (right, symbols.1)].into_iter().find(|half| half.1 == NONE)
            {
                self.waiting.entry(half).or_default().push(candidate);
            } else if self.bpe.stay_apart(symbols.0, symbols.1) {
                self.bpe.add_pair(symbols.0, symbols.1, id);
                self.pairs.push((left, right));
                ready.extend(self.waiting.remove(&id).unwrap_or_default().into_iter().map(Reverse));
            }
        }
        self.check(first)
    }

    /// A late token that takes what stands after its late half: that must not begin another of those that
    /// form with it. Nor may it take two late halves, the second of which comes too late, where others want the first.
    fn check(&self, first: usize) -> Result<(), VocabularyError> {
        let fresh = first..self.bpe.ids.len();
        let is_late = |half: u32| half as usize >= first;
        for late in fresh.clone() {
            let (left, right) = self.bpe.halves[late];
            let begins = |other: usize| other != late && self.bpe.halves[other].0 == right;
            let vies = if is_late(right) { fresh.len() > 2 } else { fresh.clone().any(begins) };
            if is_late(left) && vies {
                let reason = format!("token {} forms later than its rank, beside itself", self.bpe.ids[late]);
                return Err(VocabularyError::new(reason));
            }
        }
        Ok(())
    }
}
