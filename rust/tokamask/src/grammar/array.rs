//! JSON arrays whose items are counted by what they match.

use std::sync::{Mutex, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Array, Choice, NodeId, Unique, UNBOUNDED};

/// Largest count that is kept; larger bounds count as this.
pub const MOST: u32 = 0xffff;
/// Counts that are looked at before a state is taken to be completable.
const MAX_STATES: usize = 20_000;

/// Answers of [`Array::can_end`].
#[derive(Debug, Default)]
pub struct Known(Mutex<FxHashMap<(u32, u64), bool>>);

/// A count among several packed into one word.
pub fn counted(counts: u64, counter: usize) -> u32 {
    (counts >> (16 * counter)) as u32 & MOST
}

impl Array {
    /// The counts after one more item; None if one would be too large.
    pub fn count(&self, counts: u64, choice: &Choice) -> Option<u64> {
        let mut after = counts;
        for (i, counter) in self.counters.iter().enumerate().filter(|(i, _)| choice.counts >> i & 1 == 1) {
            let now = counted(counts, i);
            if now >= counter.max {
                return None;
            }
            let most = if counter.max == UNBOUNDED { counter.min } else { counter.max };
            let next = (now + 1).min(most).min(MOST);
            after = after & !(u64::from(MOST) << (16 * i)) | u64::from(next) << (16 * i);
        }
        Some(after)
    }

    /// The counts allow the array to end.
    pub fn counts_suffice(&self, counts: u64) -> bool {
        self.counters.iter().enumerate().all(|(i, c)| counted(counts, i) >= c.min.min(MOST))
    }

    /// Some further items complete the array: all that is counted can still be reached.
    pub fn can_end(&self, count: u32, counts: u64) -> bool {
        if self.counters.is_empty() || self.unique == Unique::Values {
            return true;
        }
        let lock = || self.known.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&known) = lock().get(&(count, counts)) {
            return known;
        }
        let found = self.search_end(count, counts, &|_| true);
        let mut known = lock();
        if known.len() > MAX_STATES {
            known.clear();
        }
        known.insert((count, counts), found);
        found
    }

    /// As [`Self::can_end`], with only the choices that `ok` allows. Where too much would have to be looked
    /// at the answer is yes.
    pub(super) fn search_end(&self, count: u32, counts: u64, ok: &dyn Fn(NodeId) -> bool) -> bool {
        let mut front = FxHashSet::from_iter([counts]);
        let (mut at, mut looked) = (count, 0);
        let (prefix, filler) =
            (self.prefix.len() as u32, self.rest.iter().any(|c| c.counts == 0 && ok(c.node)));
        let mut known = FxHashSet::default();
        loop {
            // What need not be counted fills any number of places.
            let filled = at >= self.min || at >= prefix && filler && self.min <= self.max;
            if filled && front.iter().any(|&counts| self.counts_suffice(counts)) {
                return true;
            }
            if at >= self.max {
                return false;
            }
            let mut next = FxHashSet::default();
            for &counts in &front {
                let choices = self.choices(at).iter().filter(|c| ok(c.node));
                next.extend(choices.filter_map(|choice| self.count(counts, choice)));
            }
            at += 1;
            if at > prefix && at > self.min {
                // Counts seen before, with more room, lead nowhere new.
                next.retain(|&counts| known.insert(counts));
            }
            if next.is_empty() {
                return false;
            }
            looked += next.len();
            if looked > MAX_STATES {
                return true;
            }
            front = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::Counter;
    use proptest::prelude::*;

    /// By trying every array.
    fn plainly(array: &Array, count: u32, counts: u64) -> bool {
        count >= array.min && array.counts_suffice(counts)
            || count < array.max
                && array
                    .choices(count)
                    .iter()
                    .any(|c| array.count(counts, c).is_some_and(|counts| plainly(array, count + 1, counts)))
    }

    proptest! {
        #[test]
        fn an_end_is_found_if_there_is_one(
            prefix in proptest::collection::vec(proptest::collection::vec(0u32..4, 0..3), 0..3),
            rest in proptest::collection::vec(0u32..4, 0..4),
            (min, more) in (0u32..4, 0u32..4),
            bounds in proptest::collection::vec((0u32..3, 0u32..3), 2),
        ) {
            let choices = |list: Vec<u32>| list.into_iter().map(|counts| Choice { node: 0, counts }).collect();
            let array = Array {
                prefix: prefix.into_iter().map(choices).collect(),
                rest: choices(rest),
                min,
                max: min + more,
                counters: bounds.into_iter().map(|(min, more)| Counter { min, max: min + more }).collect(),
                unique: Unique::No,
                known: Known::default(),
            };
            prop_assert_eq!(array.can_end(0, 0), plainly(&array, 0, 0));
        }
    }
}
