//! Characters that can be read for ever.

use std::sync::Arc;

use super::{Automaton, Loop, DEAD};
use crate::grammar::chars::{blocks, CharSet, MAX_CHAR, PRINTABLE};
use crate::grammar::nfa::{Edge, NONE};

impl Automaton {
    /// A large class of characters that can be read for ever from a state: either they do not change
    /// the state, or one of the pattern's own states returns to itself on them whatever else happens.
    pub fn run(&mut self, state: u32, least: usize) -> Option<Loop> {
        let place = state as usize;
        if let Some(known) = self.loops.get(&state) {
            return known.clone();
        }
        let stays = self.self_loop(state);
        let mut best = Loop { class: Arc::new(stays), stays: true };
        if let [part] = self.parts.as_slice() {
            if part.positive && !self.explored {
                for &q in &*self.sets[place] {
                    if q == NONE {
                        break;
                    }
                    if let Edge::Class(class, target) = part.edges[q as usize] {
                        let class = &self.classes[class as usize];
                        if class.len() > best.class.len() && part.returns(target, q) {
                            best = Loop { class: Arc::new(class.clone()), stays: false };
                        }
                    }
                }
            }
        }
        let found = (best.class.len() >= least).then_some(best);
        self.loops.insert(state, found.clone());
        found
    }

    /// The plain characters of a JSON string that keep the automaton in a state, as bits: see
    /// [`CharSet::plain`].
    pub fn stays(&mut self, state: u32) -> u128 {
        let place = state as usize;
        if let Some(Some(bits)) = self.stays.get(place) {
            return *bits;
        }
        let mut bits = 0u128;
        for c in (0x20..0x80).filter(|c| PRINTABLE >> c & 1 == 1) {
            bits |= u128::from(self.step(state, c) == state) << c;
        }
        bits |= blocks(0x80, MAX_CHAR);
        for i in 0..self.starts.len() {
            let start = self.starts[i];
            let last = self.starts.get(i + 1).map_or(MAX_CHAR, |s| s - 1);
            let surrogates = (0xd800..0xe000).contains(&start);
            if last >= 0x80 && !surrogates && self.step_symbol(state, self.symbols[i]) != state {
                bits &= !blocks(start.max(0x80), last);
            }
        }
        self.stays.resize(self.stays.len().max(place + 1), None);
        self.stays[place] = Some(bits);
        bits
    }

    /// As [`Self::stays`], for characters on which one of the pattern's own states returns to itself,
    /// whatever the automaton does: any number of them can follow.
    pub fn sticks(&mut self, state: u32) -> u128 {
        let place = state as usize;
        if let Some(Some(bits)) = self.sticks.get(place) {
            return *bits;
        }
        let mut best = 0u128;
        if let [part] = self.parts.as_slice() {
            if part.positive && !self.explored {
                for &q in &*self.sets[place] {
                    if q == NONE {
                        break;
                    }
                    if let Edge::Class(class, target) = part.edges[q as usize] {
                        let bits = self.classes[class as usize].plain();
                        if bits.count_ones() > best.count_ones() && part.returns(target, q) {
                            best = bits;
                        }
                    }
                }
            }
        }
        self.sticks.resize(self.sticks.len().max(place + 1), None);
        self.sticks[place] = Some(best);
        best
    }

    /// A number of characters that can be read whatever they are; 0 if none is known.
    pub fn goes_on_for(&mut self, state: u32) -> u32 {
        if !self.explored {
            return 0;
        }
        if self.deaths.is_empty() {
            self.deaths = Arc::new(self.find_deaths());
        }
        self.deaths[state as usize].saturating_sub(1)
    }

    /// Characters from each state to the nearest death.
    fn find_deaths(&self) -> Vec<u32> {
        let width = self.representatives.len();
        let mut before: Vec<Vec<u32>> = vec![Vec::new(); self.accepts.len()];
        for (at, &target) in self.delta.iter().enumerate() {
            let surrogate = (0xd800..0xe000).contains(&self.representatives[at % width]);
            let source = (at / width) as u32;
            if source != DEAD && !surrogate && before[target as usize].last() != Some(&source) {
                before[target as usize].push(source);
            }
        }
        let mut deaths = vec![NONE; before.len()];
        deaths[DEAD as usize] = 0;
        let (mut front, mut length) = (vec![DEAD], 0);
        while !front.is_empty() {
            length += 1;
            let found: Vec<u32> = front.iter().flat_map(|&q| &before[q as usize]).copied().collect();
            front.clear();
            for q in found {
                if deaths[q as usize] == NONE {
                    deaths[q as usize] = length;
                    front.push(q);
                }
            }
        }
        deaths
    }

    /// True if all characters can be read for ever.
    pub fn goes_on_for_ever(&mut self, state: u32) -> bool {
        let place = state as usize;
        if let Some(Some(known)) = self.forever.get(place) {
            return *known;
        }
        let all = CharSet::all();
        let sticks = match self.parts.as_slice() {
            [part] if part.positive && !self.explored => {
                self.sets[place].iter().take_while(|&&q| q != NONE).any(|&q| match part.edges[q as usize] {
                    Edge::Class(class, target) => {
                        self.classes[class as usize] == all && part.returns(target, q)
                    }
                    _ => false,
                })
            }
            _ => false,
        };
        let known = sticks || self.self_loop(state) == all;
        self.forever.resize(self.forever.len().max(place + 1), None);
        self.forever[place] = Some(known);
        known
    }

    /// The characters that keep the automaton in a state.
    fn self_loop(&mut self, state: u32) -> CharSet {
        let mut ranges = Vec::new();
        for i in 0..self.starts.len() {
            if self.step_symbol(state, self.symbols[i]) == state {
                let last = self.starts.get(i + 1).map_or(MAX_CHAR, |s| s - 1);
                ranges.push((self.starts[i], last));
            }
        }
        CharSet::from_ranges(ranges)
    }
}
