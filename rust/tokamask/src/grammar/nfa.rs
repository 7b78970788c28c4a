//! The nondeterministic automaton of one pattern.

use rustc_hash::FxHashMap;

use crate::error::{Error, GrammarError, LimitError};
use crate::grammar::automaton::Automaton;
use crate::grammar::chars::CharSet;
use crate::grammar::regex::Regex;

/// No state.
pub const NONE: u32 = u32::MAX;
/// States of one pattern's nondeterministic automaton.
const MAX_NFA: usize = 200_000;

/// What a state leads to.
#[derive(Clone, Copy)]
pub enum Edge {
    Class(u32, u32),
    Split(u32, u32),
    Start(u32),
    End(u32),
    Accept,
}

/// States as edges; state 0 accepts.
#[derive(Clone, Default)]
pub struct Nfa {
    pub edges: Vec<Edge>,
    pub live: Vec<bool>,
    pub start: u32,
    pub positive: bool,
}

impl Nfa {
    /// The automaton of one pattern.
    pub fn new(regex: &Regex, positive: bool, classes: &mut FxHashMap<CharSet, u32>) -> Result<Self, Error> {
        let mut nfa = Self { positive, ..Self::default() };
        nfa.edges.push(Edge::Accept);
        nfa.start = nfa.build(regex, 0, classes)?;
        nfa.live = nfa.co_accessible();
        Ok(nfa)
    }

    /// True if `q` is reached from `from` without reading anything.
    pub fn returns(&self, from: u32, q: u32) -> bool {
        let (mut todo, mut seen) = (vec![from], Vec::new());
        while let Some(s) = todo.pop() {
            if s == q {
                return true;
            }
            if s == NONE || seen.contains(&s) || seen.len() > 64 {
                continue;
            }
            seen.push(s);
            if let Edge::Split(a, b) = self.edges[s as usize] {
                todo.extend([a, b]);
            }
        }
        false
    }

    fn push(&mut self, edge: Edge) -> Result<u32, Error> {
        if self.edges.len() >= MAX_NFA {
            return Err(LimitError { limit: "pattern size".into(), value: self.edges.len() as u64 }.into());
        }
        self.edges.push(edge);
        Ok(self.edges.len() as u32 - 1)
    }

    /// Adds states that match `regex` and then go on at `next`; returns the first.
    fn build(
        &mut self,
        regex: &Regex,
        next: u32,
        classes: &mut FxHashMap<CharSet, u32>,
    ) -> Result<u32, Error> {
        match regex {
            Regex::Class(set) if set.is_empty() => self.push(Edge::Split(NONE, NONE)),
            Regex::Class(set) => {
                let new = classes.len() as u32;
                let class = match classes.get(set) {
                    Some(&class) => class,
                    None => *classes.entry(set.clone()).or_insert(new),
                };
                self.push(Edge::Class(class, next))
            }
            Regex::Concat(parts) => {
                parts.iter().rev().try_fold(next, |next, part| self.build(part, next, classes))
            }
            Regex::Alternation(parts) => {
                let mut start = NONE;
                for part in parts.iter().rev() {
                    let branch = self.build(part, next, classes)?;
                    start = self.push(Edge::Split(branch, start))?;
                }
                if start == NONE {
                    start = self.push(Edge::Split(NONE, NONE))?;
                }
                Ok(start)
            }
            Regex::Repeat(part, min, max) => {
                let mut at = next;
                match max {
                    None => {
                        at = self.push(Edge::Split(NONE, next))?;
                        let body = self.build(part, at, classes)?;
                        self.edges[at as usize] = Edge::Split(body, next);
                    }
                    Some(max) => {
                        for _ in *min..*max {
                            let body = self.build(part, at, classes)?;
                            at = self.push(Edge::Split(body, next))?;
                        }
                    }
                }
                for _ in 0..*min {
                    at = self.build(part, at, classes)?;
                }
                Ok(at)
            }
            Regex::Start => self.push(Edge::Start(next)),
            Regex::End => self.push(Edge::End(next)),
            Regex::Table(states) => {
                let base = self.edges.len() as u32;
                for _ in states {
                    self.push(Edge::Split(NONE, NONE))?;
                }
                for (i, (accepts, edges)) in states.iter().enumerate() {
                    let mut chain = if *accepts { next } else { NONE };
                    for (set, target) in edges {
                        let edge = self.build(&Regex::Class(set.clone()), base + target, classes)?;
                        chain = self.push(Edge::Split(edge, chain))?;
                    }
                    self.edges[base as usize + i] = Edge::Split(chain, NONE);
                }
                Ok(base)
            }
            Regex::Not(_) | Regex::All(_) => self.embed(regex, next, classes),
            Regex::Ahead(..) => Err(GrammarError {
                message: "pattern: a condition on what follows is supported only at the very start".into(),
                source_text: None,
                line: None,
                column: None,
                json_pointer: None,
            }
            .into()),
        }
    }

    /// A complement or an intersection inside a pattern: its own automaton, copied in.
    fn embed(
        &mut self,
        regex: &Regex,
        next: u32,
        classes: &mut FxHashMap<CharSet, u32>,
    ) -> Result<u32, Error> {
        let table = Automaton::new(&[(regex.clone(), true)])?.into_table()?;
        self.build(&table, next, classes)
    }

    fn co_accessible(&self) -> Vec<bool> {
        let mut before: Vec<Vec<u32>> = vec![Vec::new(); self.edges.len()];
        for (i, edge) in self.edges.iter().enumerate() {
            let targets = match *edge {
                Edge::Split(a, b) => [a, b],
                Edge::Class(_, t) | Edge::Start(t) | Edge::End(t) => [t, NONE],
                Edge::Accept => [NONE, NONE],
            };
            for t in targets.into_iter().filter(|&t| t != NONE) {
                before[t as usize].push(i as u32);
            }
        }
        let mut live = vec![false; self.edges.len()];
        let mut todo = vec![0];
        while let Some(q) = todo.pop() {
            if !std::mem::replace(&mut live[q as usize], true) {
                todo.extend(&before[q as usize]);
            }
        }
        live
    }
}
