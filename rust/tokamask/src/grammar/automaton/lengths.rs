//! How many characters lead from a state to acceptance.

use super::{Automaton, DEAD, NONE};
use crate::error::{Error, LimitError};

impl Automaton {
    /// Which numbers of further characters lead from each state to acceptance, up to a bound.
    pub fn lengths(&mut self, min: u32, max: Option<u32>) -> Result<Lengths, Error> {
        self.explore()?;
        let shortest = self.distances();
        let longest = self.longest();
        let exact = match max {
            Some(max) if min > 0 => {
                let cells = (u64::from(max) + 1) * self.sets.len() as u64;
                if cells > 20_000_000 {
                    return Err(
                        LimitError { limit: "pattern states times maxLength".into(), value: cells }.into()
                    );
                }
                Some(self.exact_lengths(max as usize))
            }
            _ => None,
        };
        let gaps = exact.as_ref().is_some_and(|exact: &Vec<Vec<u64>>| exact.iter().any(|bits| has_gap(bits)));
        let spans = exact
            .as_ref()
            .filter(|_| !gaps)
            .map_or(Vec::new(), |exact| exact.iter().map(|e| span(e)).collect());
        let finite = shortest.iter().filter(|&&s| s != NONE).chain(longest.iter().flatten());
        let reach = finite.max().copied().unwrap_or(0);
        Ok(Lengths { shortest, longest, exact, gaps, spans, reach })
    }

    fn exact_lengths(&self, max: usize) -> Vec<Vec<u64>> {
        let width = self.representatives.len();
        let mut out = vec![vec![0u64; max / 64 + 1]; self.sets.len()];
        let mut current: Vec<bool> = (*self.accepts).clone();
        for length in 0..=max {
            for (q, &reaches) in current.iter().enumerate() {
                out[q][length / 64] |= u64::from(reaches) << (length % 64);
            }
            let step = |q: usize| {
                self.delta[q * width..(q + 1) * width].iter().any(|&t| t != DEAD && current[t as usize])
            };
            current = (0..self.sets.len()).map(|q| q != DEAD as usize && step(q)).collect();
        }
        out
    }

    /// Most characters from each live state to acceptance; `None` if unbounded.
    fn longest(&self) -> Vec<Option<u32>> {
        let width = self.representatives.len();
        let n = self.sets.len();
        let targets =
            |q: usize| self.delta[q * width..(q + 1) * width].iter().copied().filter(|&t| t != DEAD);
        // Peel states all of whose successors are known; what remains lies on or leads to a cycle.
        let mut known: Vec<Option<u32>> = vec![None; n];
        known[0] = Some(0);
        let mut changed = true;
        while changed {
            changed = false;
            for q in (1..n).rev() {
                if known[q].is_none() {
                    let best = targets(q)
                        .map(|t| known[t as usize].map(|l| l + 1))
                        .try_fold(0, |a, l| l.map(|l| a.max(l)));
                    if best.is_some() {
                        known[q] = best;
                        changed = true;
                    }
                }
            }
        }
        known
    }
}

/// What lengths lead from each state to acceptance.
pub struct Lengths {
    shortest: Vec<u32>,
    longest: Vec<Option<u32>>,
    exact: Option<Vec<Vec<u64>>>,
    gaps: bool,
    /// Without gaps: the least and greatest of the exact lengths.
    spans: Vec<(u32, u32)>,
    /// No state needs more characters, unless it may go on for ever.
    reach: u32,
}

/// Least and greatest member of a set of numbers; of none, an empty interval.
fn span(bits: &[u64]) -> (u32, u32) {
    let low = bits.iter().position(|&w| w != 0).map(|i| i as u32 * 64 + bits[i].trailing_zeros());
    let high = bits.iter().rposition(|&w| w != 0).map(|i| i as u32 * 64 + 63 - bits[i].leading_zeros());
    low.zip(high).unwrap_or((1, 0))
}

/// True if a set of numbers is no interval.
fn has_gap(bits: &[u64]) -> bool {
    let bit = |i: usize| bits[i / 64] >> (i % 64) & 1 == 1;
    let edges = (1..bits.len() * 64).filter(|&i| bit(i) != bit(i - 1)).count() + usize::from(bit(0));
    edges > 2
}

impl Lengths {
    /// True if every state reaches acceptance by an interval of lengths.
    pub fn has_no_gaps(&self) -> bool {
        !self.gaps
    }

    /// False if every text that is accepted from `state` on has a length between the bounds anyway.
    pub fn bind(&self, state: u32, min: u32, max: Option<u32>) -> bool {
        let state = state as usize;
        let fits = max.is_none_or(|max| self.longest[state].is_some_and(|longest| longest <= max));
        self.shortest[state] < min || !fits
    }

    /// A count that stands for all with the same future, as far as texts of `longest` characters can tell.
    pub fn representative(&self, count: u32, min: u32, max: Option<u32>, longest: u32) -> u32 {
        if self.gaps {
            return count;
        }
        let far = self.reach.saturating_add(longest).saturating_add(2);
        let left = |n: u32| n.saturating_sub(count).min(far).min(0xffff);
        left(min) << 16 | max.map_or(0xffff, left)
    }

    /// True if from `state`, after `count` characters, an accepted text of `min..=max` characters can follow.
    pub fn possible(&self, state: u32, count: u32, min: u32, max: Option<u32>) -> bool {
        let state = state as usize;
        let least = min.saturating_sub(count);
        let Some(max) = max else { return self.longest[state].is_none_or(|longest| longest >= least) };
        let Some(most) = max.checked_sub(count) else { return false };
        match &self.exact {
            Some(_) if !self.gaps => {
                let (low, high) = self.spans[state];
                low <= most && high >= least && low <= high
            }
            Some(exact) => (least..=most).any(|l| exact[state][l as usize / 64] >> (l % 64) & 1 == 1),
            None => self.shortest[state] <= most,
        }
    }
}
