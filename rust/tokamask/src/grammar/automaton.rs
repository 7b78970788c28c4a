//! Conjunctions of patterns as one deterministic automaton over characters, built as it is walked.

mod lengths;
mod loops;

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::error::{Error, LimitError};
use crate::grammar::budget;
use crate::grammar::chars::{CharSet, MAX_CHAR};
use crate::grammar::nfa::{Edge, Nfa, NONE};
use crate::grammar::regex::Regex;
pub use lengths::Lengths;

/// The state from which nothing is accepted.
pub const DEAD: u32 = 0;
const UNKNOWN: u32 = u32::MAX;
/// States that an automaton explored ahead may have.
const MAX_EXPLORED: usize = 20_000;

/// Characters that can be read for ever from some state.
#[derive(Clone)]
pub struct Loop {
    /// The characters.
    pub class: Arc<CharSet>,
    /// The state does not change meanwhile.
    pub stays: bool,
}

/// A deterministic automaton over characters. Every state but [`DEAD`] can still accept.
#[derive(Clone)]
pub struct Automaton {
    // Copies share everything until one of them builds a state.
    parts: Arc<Vec<Nfa>>,
    classes: Arc<Vec<CharSet>>,
    /// First characters of the intervals on which all classes are constant, and their symbols.
    starts: Arc<Vec<u32>>,
    symbols: Arc<Vec<u16>>,
    ascii: Arc<[u16; 128]>,
    /// One character of each symbol; the last symbol is that of surrogates, which never match.
    representatives: Arc<Vec<u32>>,
    sets: Arc<Vec<Box<[u32]>>>,
    ids: Arc<FxHashMap<Box<[u32]>, u32>>,
    delta: Arc<Vec<u32>>,
    accepts: Arc<Vec<bool>>,
    start: u32,
    explored: bool,
    /// Not zero for the automata of this crate, which are the same in all grammars.
    pub known: u32,
    seen: Vec<u32>,
    round: u32,
    live_ascii: Vec<Option<u128>>,
    stays: Vec<Option<u128>>,
    sticks: Vec<Option<u128>>,
    forever: Vec<Option<bool>>,
    /// See [`Self::goes_on_for`].
    deaths: Arc<Vec<u32>>,
    loops: FxHashMap<u32, Option<Loop>>,
}

impl Automaton {
    /// The texts that every pattern with `true` matches as a whole and none with `false` does.
    pub fn new(patterns: &[(Regex, bool)]) -> Result<Self, Error> {
        let mut flat = Vec::new();
        for (regex, positive) in patterns {
            flatten(regex, *positive, &mut flat);
        }
        let mut classes = FxHashMap::default();
        let mut parts = Vec::new();
        let mut eager = flat.len() != 1;
        for (regex, positive) in &flat {
            eager |= !positive || regex.has_assertion();
            parts.push(Nfa::new(regex, *positive, &mut classes)?);
        }
        let mut list = vec![CharSet::default(); classes.len()];
        for (set, id) in classes {
            list[id as usize] = set;
        }
        Self::assemble(parts, list, eager)
    }

    fn assemble(parts: Vec<Nfa>, classes: Vec<CharSet>, eager: bool) -> Result<Self, Error> {
        let mut automaton = Self {
            parts: Arc::new(parts),
            classes: Arc::new(classes),
            starts: Arc::default(),
            symbols: Arc::default(),
            ascii: Arc::new([0; 128]),
            representatives: Arc::default(),
            sets: Arc::new(vec![Box::default()]),
            ids: Arc::default(),
            delta: Arc::default(),
            accepts: Arc::new(vec![false]),
            start: DEAD,
            explored: false,
            known: 0,
            seen: Vec::new(),
            round: 0,
            live_ascii: Vec::new(),
            stays: Vec::new(),
            sticks: Vec::new(),
            forever: Vec::new(),
            deaths: Arc::default(),
            loops: FxHashMap::default(),
        };
        automaton.partition();
        automaton.delta = Arc::new(vec![DEAD; automaton.representatives.len()]);
        let roots: Vec<Vec<u32>> = automaton.parts.iter().map(|p| vec![p.start]).collect();
        automaton.start = automaton.intern(roots, true);
        if eager {
            automaton.explore()?;
        }
        Ok(automaton)
    }

    /// Splits the characters into intervals on which every class is constant.
    fn partition(&mut self) {
        // Where a class begins or ends, with the class.
        let none = usize::MAX;
        let mut cuts = vec![(0, none), (0xd800, none), (0xe000, none)];
        for (i, class) in self.classes.iter().enumerate() {
            for &(low, high) in class.ranges() {
                cuts.extend([(low, i), (high + 1, i)]);
            }
        }
        cuts.sort_unstable();
        let mut by_signature: FxHashMap<Vec<u64>, u16> = FxHashMap::default();
        let words = self.classes.len().div_ceil(64);
        let mut signature = vec![0u64; words + 1];
        let (mut starts, mut symbols, mut representatives) = (Vec::new(), Vec::new(), Vec::new());
        let mut at = 0;
        while at < cuts.len() {
            let cut = cuts[at].0;
            while at < cuts.len() && cuts[at].0 == cut {
                let class = cuts[at].1;
                if class != none {
                    signature[class / 64] ^= 1 << (class % 64);
                }
                at += 1;
            }
            if cut > MAX_CHAR {
                break;
            }
            signature[words] = u64::from((0xd800..0xe000).contains(&cut));
            let symbol = if let Some(&symbol) = by_signature.get(&signature) {
                symbol
            } else {
                let symbol = by_signature.len() as u16;
                by_signature.insert(signature.clone(), symbol);
                representatives.push(cut);
                symbol
            };
            starts.push(cut);
            symbols.push(symbol);
        }
        let mut ascii = [0; 128];
        for (i, &start) in starts.iter().enumerate().take_while(|s| *s.1 < 128) {
            let end = starts.get(i + 1).map_or(128, |&s| s.min(128));
            ascii[start as usize..end as usize].fill(symbols[i]);
        }
        self.starts = Arc::new(starts);
        self.symbols = Arc::new(symbols);
        self.representatives = Arc::new(representatives);
        self.ascii = Arc::new(ascii);
    }

    fn search(&self, c: u32) -> u16 {
        self.symbols[self.starts.partition_point(|&s| s <= c) - 1]
    }

    /// The state before the first character.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// True if nothing is accepted.
    pub fn is_empty(&self) -> bool {
        self.start == DEAD
    }

    /// True if the text so far is accepted.
    pub fn accepts(&self, state: u32) -> bool {
        self.accepts[state as usize]
    }

    /// Number of states built so far.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// The state after a character.
    #[inline]
    pub fn step(&mut self, state: u32, c: u32) -> u32 {
        let symbol = if c < 128 { self.ascii[c as usize] } else { self.search(c) };
        self.step_symbol(state, symbol)
    }

    #[inline]
    fn step_symbol(&mut self, state: u32, symbol: u16) -> u32 {
        let at = state as usize * self.representatives.len() + symbol as usize;
        let next = self.delta[at];
        if next == UNKNOWN {
            self.build_step(state, symbol)
        } else {
            next
        }
    }

    /// True if some character in `low..=high` can follow.
    pub fn any_in(&mut self, state: u32, low: u32, high: u32) -> bool {
        let from = self.starts.partition_point(|&s| s <= low) - 1;
        let to = self.starts.partition_point(|&s| s <= high);
        (from..to).any(|i| {
            let symbol = self.symbols[i];
            self.step_symbol(state, symbol) != DEAD
        })
    }

    /// True if some character in `low..=high` leads to a state that fits.
    pub fn any_fit(&mut self, state: u32, low: u32, high: u32, fits: impl Fn(u32) -> bool) -> bool {
        let from = self.starts.partition_point(|&s| s <= low) - 1;
        let to = self.starts.partition_point(|&s| s <= high);
        (from..to).any(|i| {
            let next = self.step_symbol(state, self.symbols[i]);
            next != DEAD && fits(next)
        })
    }

    #[cold]
    fn build_step(&mut self, state: u32, symbol: u16) -> u32 {
        let c = self.representatives[symbol as usize];
        let mut next: Vec<Vec<u32>> = vec![Vec::new(); self.parts.len()];
        let mut part = 0;
        if !(0xd800..0xe000).contains(&c) {
            for &q in &*self.sets[state as usize] {
                if q == NONE {
                    part += 1;
                } else if let Edge::Class(class, target) = self.parts[part].edges[q as usize] {
                    if self.classes[class as usize].has(c) {
                        next[part].push(target);
                    }
                }
            }
        }
        let surrogate = (0xd800..0xe000).contains(&c);
        let to = if surrogate { DEAD } else { self.intern(next, false) };
        let place = state as usize * self.representatives.len() + symbol as usize;
        Arc::make_mut(&mut self.delta)[place] = to;
        to
    }

    fn intern(&mut self, roots: Vec<Vec<u32>>, at_start: bool) -> u32 {
        let mut key = Vec::new();
        let mut accepts = true;
        for (i, todo) in roots.into_iter().enumerate() {
            let before = key.len();
            self.round += 1;
            let accepted = self.closure(i, todo, at_start, &mut key);
            let part = &self.parts[i];
            if part.positive && key.len() == before && !accepted {
                return DEAD;
            }
            accepts &= accepted == part.positive;
            key[before..].sort_unstable();
            key.push(NONE);
        }
        // The empty text has a state of its own: acceptance may have needed the anchors there.
        key.push(u32::from(accepts) | u32::from(at_start) << 1);
        let key: Box<[u32]> = key.into();
        if let Some(&id) = self.ids.get(&key) {
            return id;
        }
        let id = self.sets.len() as u32;
        Arc::make_mut(&mut self.sets).push(key[..key.len() - 1].into());
        Arc::make_mut(&mut self.ids).insert(key, id);
        Arc::make_mut(&mut self.accepts).push(accepts);
        let width = self.delta.len() + self.representatives.len();
        Arc::make_mut(&mut self.delta).resize(width, UNKNOWN);
        id
    }

    /// Follows what consumes nothing; returns whether the end of the text may be here.
    fn closure(&mut self, part: usize, todo: Vec<u32>, at_start: bool, key: &mut Vec<u32>) -> bool {
        let nfa = &self.parts[part];
        if self.seen.len() < nfa.edges.len() {
            self.seen.resize(nfa.edges.len(), 0);
        }
        let round = self.round;
        let mut accepted = false;
        let mut todo: Vec<(u32, bool)> = todo.into_iter().map(|q| (q, false)).collect();
        let mut after_end: Vec<u32> = Vec::new();
        while let Some((q, ended)) = todo.pop() {
            if q == NONE || !nfa.live[q as usize] {
                continue;
            }
            if ended {
                if after_end.contains(&q) {
                    continue;
                }
                after_end.push(q);
            } else {
                if self.seen[q as usize] == round {
                    continue;
                }
                self.seen[q as usize] = round;
            }
            match nfa.edges[q as usize] {
                Edge::Split(a, b) => todo.extend([(a, ended), (b, ended)]),
                Edge::Start(next) if at_start => todo.push((next, ended)),
                Edge::End(next) => todo.push((next, true)),
                Edge::Class(..) if !ended => key.push(q),
                Edge::Start(_) | Edge::Class(..) => {}
                Edge::Accept => accepted = true,
            }
        }
        accepted
    }

    /// Builds every state and redirects those that cannot accept to [`DEAD`].
    pub fn explore(&mut self) -> Result<(), Error> {
        if self.explored {
            return Ok(());
        }
        let mut at = 1;
        while at < self.sets.len() {
            if self.sets.len() > MAX_EXPLORED {
                return Err(
                    LimitError { limit: "pattern states".into(), value: self.sets.len() as u64 }.into()
                );
            }
            for symbol in 0..self.representatives.len() {
                budget::check()?;
                self.step_symbol(at as u32, symbol as u16);
            }
            at += 1;
        }
        let distances = self.distances();
        let dead = |q: u32| distances[q as usize] == NONE;
        for target in Arc::make_mut(&mut self.delta) {
            if dead(*target) {
                *target = DEAD;
            }
        }
        if dead(self.start) {
            self.start = DEAD;
        }
        self.explored = true;
        // Only their number is wanted from now on.
        self.sets = Arc::new(vec![Box::default(); self.sets.len()]);
        self.ids = Arc::default();
        self.parts = Arc::default();
        Ok(())
    }

    /// Characters from each explored state to the nearest accepting one; `u32::MAX` if none.
    fn distances(&self) -> Vec<u32> {
        let width = self.representatives.len();
        let mut before: Vec<Vec<u32>> = vec![Vec::new(); self.sets.len()];
        for (at, &target) in self.delta.iter().enumerate() {
            let source = (at / width) as u32;
            if target != DEAD && target != UNKNOWN && before[target as usize].last() != Some(&source) {
                before[target as usize].push(source);
            }
        }
        let mut distance = vec![NONE; self.sets.len()];
        let mut front: Vec<u32> = (0..self.sets.len() as u32).filter(|&q| self.accepts[q as usize]).collect();
        for &q in &front {
            distance[q as usize] = 0;
        }
        let mut length = 0;
        while !front.is_empty() {
            length += 1;
            let mut next = Vec::new();
            for q in front {
                for &p in &before[q as usize] {
                    if distance[p as usize] == NONE {
                        distance[p as usize] = length;
                        next.push(p);
                    }
                }
            }
            front = next;
        }
        distance
    }

    /// The whole automaton as a pattern.
    pub fn into_table(mut self) -> Result<Regex, Error> {
        self.explore()?;
        let width = self.representatives.len();
        let mut sets = vec![Vec::new(); width];
        for (i, &symbol) in self.symbols.iter().enumerate() {
            let last = self.starts.get(i + 1).map_or(super::chars::MAX_CHAR, |s| s - 1);
            sets[symbol as usize].push((self.starts[i], last));
        }
        let sets: Vec<CharSet> = sets.into_iter().map(CharSet::from_ranges).collect();
        // The start comes first; the rest keeps its place by swapping with state 0, which is dead.
        let place = |q: u32| {
            if q == self.start {
                0
            } else if q == DEAD {
                self.start
            } else {
                q
            }
        };
        let mut table = vec![(false, Vec::new()); self.sets.len()];
        for q in 1..self.sets.len() as u32 {
            let targets = (0..width).map(|symbol| (symbol, self.delta[q as usize * width + symbol]));
            let edges =
                targets.filter(|t| t.1 != DEAD).map(|(symbol, t)| (sets[symbol].clone(), place(t))).collect();
            table[place(q) as usize] = (self.accepts[q as usize], edges);
        }
        if self.start == DEAD {
            table = vec![(false, Vec::new())];
        }
        Ok(Regex::Table(table))
    }

    /// The accepted texts, if they are few and short; for enumerations in disguise.
    pub fn finite_texts(&mut self, most: usize) -> Option<Vec<String>> {
        let mut out = Vec::new();
        let mut steps = 0;
        let mut todo = vec![(self.start, String::new())];
        while let Some((q, text)) = todo.pop() {
            steps += 1;
            if steps > 8 * most || text.len() > most.max(64) {
                return None;
            }
            if q == DEAD {
                continue;
            }
            if self.accepts(q) {
                out.push(text.clone());
            }
            if out.len() > most {
                return None;
            }
            for i in 0..self.starts.len() {
                let symbol = self.symbols[i];
                let next = self.step_symbol(q, symbol);
                if next == DEAD {
                    continue;
                }
                let last = self.starts.get(i + 1).map_or(super::chars::MAX_CHAR, |s| s - 1);
                if (last - self.starts[i]) as usize > most {
                    return None;
                }
                for c in self.starts[i]..=last {
                    todo.push((next, text.chars().chain(char::from_u32(c)).collect()));
                }
            }
        }
        out.sort();
        Some(out)
    }

    /// The number of texts that are accepted; None if there is no bound, or more states than a few.
    pub fn count_texts(&mut self) -> Option<u64> {
        const MOST: usize = 2_000;
        let mut counts: FxHashMap<u32, Option<u64>> = FxHashMap::default();
        let mut todo = vec![(self.start, false)];
        while let Some((q, left)) = todo.pop() {
            if q == DEAD || !left && matches!(counts.get(&q), Some(Some(_))) {
                continue;
            }
            if left {
                let mut sum = u64::from(self.accepts(q));
                for i in 0..self.starts.len() {
                    let next = self.step_symbol(q, self.symbols[i]);
                    if next != DEAD {
                        let last = self.starts.get(i + 1).map_or(MAX_CHAR, |s| s - 1);
                        let below = counts.get(&next).copied().flatten().unwrap_or(0);
                        sum = sum.saturating_add(below.saturating_mul(u64::from(last - self.starts[i] + 1)));
                    }
                }
                counts.insert(q, Some(sum));
                continue;
            }
            if counts.insert(q, None).is_some() || counts.len() > MOST {
                return None; // it leads to itself
            }
            todo.push((q, true));
            for i in 0..self.starts.len() {
                let next = self.step_symbol(q, self.symbols[i]);
                match counts.get(&next) {
                    _ if next == DEAD => {}
                    Some(Some(_)) => {}
                    Some(None) => return None,
                    None => todo.push((next, false)),
                }
            }
        }
        counts.get(&self.start).copied().unwrap_or(Some(0))
    }

    /// True if the whole text is accepted.
    pub fn matches(&mut self, text: &str) -> bool {
        let end = text.chars().fold(self.start, |q, c| self.step(q, c.into()));
        self.accepts(end)
    }

    /// The states that can follow, each with a character that leads to it.
    pub fn successors(&mut self, state: u32) -> Vec<(u32, u32)> {
        let mut out: Vec<(u32, u32)> = Vec::new();
        for symbol in 0..self.representatives.len() {
            let next = self.step_symbol(state, symbol as u16);
            if next != DEAD && !out.iter().any(|known| known.1 == next) {
                out.push((self.representatives[symbol], next));
            }
        }
        out
    }

    /// The ASCII characters that can follow.
    pub fn live_ascii(&mut self, state: u32) -> u128 {
        let place = state as usize;
        if let Some(Some(bits)) = self.live_ascii.get(place) {
            return *bits;
        }
        let mut bits = 0u128;
        for c in 0..128 {
            bits |= u128::from(self.step(state, c) != DEAD) << c;
        }
        self.live_ascii.resize(self.live_ascii.len().max(place + 1), None);
        self.live_ascii[place] = Some(bits);
        bits
    }
}

/// Top-level complements and intersections become signs and parts.
fn flatten(regex: &Regex, positive: bool, out: &mut Vec<(Regex, bool)>) {
    match regex {
        Regex::Not(inner) => flatten(inner, !positive, out),
        Regex::All(parts) if positive => parts.iter().for_each(|part| flatten(part, true, out)),
        _ => out.push((regex.clone(), positive)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::regex::{parse, Dialect};
    use proptest::prelude::*;

    fn searched(pattern: &str) -> Automaton {
        let regex = parse(pattern, Dialect::Ecma).expect("a pattern").searched();
        Automaton::new(&[(regex, true)]).expect("an automaton")
    }

    proptest! {
        #[test]
        fn search_agrees_with_regex_automata(pattern in r"[\^]?([ab.]|\[a-c\]|\(a\|b\$?\)|[ab][*+?]|\(ab\)\{1,2\}){0,5}[$]?", text in "[abcd]{0,6}") {
            let rival = regex_automata::meta::Regex::new(&pattern).expect("a pattern");
            prop_assert_eq!(searched(&pattern).matches(&text), rival.is_match(&text), "{} on {}", pattern, text);
        }

        #[test]
        fn conjunctions_and_complements(text in "[abc]{0,7}") {
            let parts: Vec<Regex> = ["^a", "b.*b", "cc"].iter().map(|p| parse(p, Dialect::Ecma).expect("a pattern").searched()).collect();
            let mut product = Automaton::new(&[(parts[0].clone(), true), (parts[1].clone(), true), (parts[2].clone(), false)]).expect("fits");
            let expected = text.starts_with('a') && text.matches('b').count() > 1 && !text.contains("cc");
            prop_assert_eq!(product.matches(&text), expected);
            let mut extended = Automaton::new(&[(parse("a(~(.*cc.*)&.*b.*)", Dialect::Extended).expect("a pattern"), true)]).expect("fits");
            let tail = text.strip_prefix('a');
            prop_assert_eq!(extended.matches(&text), tail.is_some_and(|t| !t.contains("cc") && t.contains('b')));
        }
    }

    #[test]
    fn contradictions_are_empty() {
        assert!(searched("a^b").is_empty());
        assert!(searched("$a").is_empty());
        let parts = ["^a", "^b"].map(|p| (parse(p, Dialect::Ecma).expect("a pattern").searched(), true));
        assert!(Automaton::new(&parts).expect("fits").is_empty());
    }

    #[test]
    fn lengths_know_periods() {
        let mut a = searched("^(aaa)*$");
        let lengths = a.lengths(4, Some(5)).expect("fits");
        assert!(!lengths.possible(a.start(), 0, 4, Some(5)));
        let lengths = a.lengths(4, Some(6)).expect("fits");
        assert!(lengths.possible(a.start(), 0, 4, Some(6)));
    }

    #[test]
    fn death_is_counted_in_characters() {
        let parts = [("ab", true), ("cde", false)];
        let parts = parts.map(|(p, sign)| (parse(p, Dialect::Ecma).expect("a pattern").searched(), sign));
        let mut a = Automaton::new(&parts).expect("fits");
        a.explore().expect("fits");
        let after = |a: &mut Automaton, text: &str| text.chars().fold(a.start(), |q, c| a.step(q, c.into()));
        for (text, most) in [("", 2), ("c", 1), ("cd", 0), ("abc", 1), ("cda", 2)] {
            let q = after(&mut a, text);
            assert_eq!(a.goes_on_for(q), most, "{text:?}");
        }
    }

    #[test]
    fn finite_languages_are_listed() {
        assert_eq!(
            searched("^(a|b)c?$").finite_texts(10),
            Some(vec!["a".into(), "ac".into(), "b".into(), "bc".into()])
        );
        assert_eq!(searched("^a*$").finite_texts(10), None);
        assert_eq!(searched("^a*$").count_texts(), None);
        assert_eq!(searched("^x(ab)*y?$").count_texts(), None);
        assert_eq!(searched("^([a-z]|[0-9]{0,3}b?)$").count_texts(), Some(26 + 2 * 1111 - 1));
        assert_eq!(searched("^[a-z]{40}$").count_texts(), Some(u64::MAX));
    }
}
