//! The automata of rules: states, edges over nodes, and edges over nothing while they are built.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use super::plain_error;
use crate::error::{Error, LimitError};
use crate::grammar::{Node, NodeId, Rule, RuleState};

/// Where a rule begins. Nothing leads back to it.
pub const START: u32 = 0;
/// Where it ends.
pub const END: u32 = 1;
/// States of one rule.
const MAX_STATES: usize = 20_000;

/// One rule, not yet deterministic.
pub struct Network {
    pub edges: Vec<Vec<(NodeId, u32)>>,
    pub skips: Vec<Vec<u32>>,
}

fn too_many(value: usize) -> Error {
    LimitError { limit: "grammar states".into(), value: value as u64 }.into()
}

impl Network {
    pub fn new() -> Self {
        Self { edges: vec![Vec::new(); 2], skips: vec![Vec::new(); 2] }
    }

    pub fn state(&mut self) -> Result<u32, Error> {
        if self.edges.len() >= 10 * MAX_STATES {
            return Err(too_many(self.edges.len()));
        }
        self.edges.push(Vec::new());
        self.skips.push(Vec::new());
        Ok(self.edges.len() as u32 - 1)
    }

    pub fn edge(&mut self, from: u32, node: NodeId, to: u32) {
        self.edges[from as usize].push((node, to));
    }

    pub fn skip(&mut self, from: u32, to: u32) {
        if from != to {
            self.skips[from as usize].push(to);
        }
    }

    /// The states reached without reading, sorted.
    pub fn closure(&self, from: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<u32> = from.into_iter().collect();
        while let Some(state) = todo.pop() {
            if seen.insert(state) {
                todo.extend(&self.skips[state as usize]);
            }
        }
        seen.into_iter().collect()
    }

    /// The deterministic automaton from `start` to `end`. The first state never ends: callers step
    /// over what may be empty themselves.
    pub fn determinise(&self, start: u32, end: u32) -> Result<Rule, Error> {
        let mut sets = vec![self.closure([start])];
        let mut ids = FxHashMap::from_iter([(sets[0].clone(), 0u32)]);
        let mut states: Vec<RuleState> = Vec::new();
        let mut work = 0;
        while states.len() < sets.len() {
            let set = sets[states.len()].clone();
            let mut targets: BTreeMap<NodeId, BTreeSet<u32>> = BTreeMap::new();
            for &state in &set {
                for &(node, to) in &self.edges[state as usize] {
                    targets.entry(node).or_default().insert(to);
                }
            }
            let mut edges = Vec::with_capacity(targets.len());
            for (node, to) in targets {
                let next = self.closure(to);
                work += next.len();
                let id = *ids.entry(next).or_insert_with_key(|next| {
                    sets.push(next.clone());
                    sets.len() as u32 - 1
                });
                edges.push((node, id));
            }
            if sets.len() > MAX_STATES || work > 100 * MAX_STATES {
                return Err(too_many(sets.len()));
            }
            let ends = !states.is_empty() && set.binary_search(&end).is_ok();
            states.push(RuleState { ends, edges });
        }
        Ok(Rule { states, nullable: false, order: 0 })
    }
}

/// Drops what cannot be completed, joins equal states and orders the rules so that those that can
/// begin with another come first.
pub fn trim(nodes: &mut [Node], places: &[NodeId]) -> Result<(), Error> {
    let mut live = vec![true; nodes.len()];
    for &place in places {
        live[place as usize] = false;
    }
    loop {
        let mut changed = false;
        for (i, node) in nodes.iter().enumerate() {
            let now = match node {
                Node::Rule(rule) => !live[i] && reaches_end(rule, &live),
                Node::Repeat(inner, ..) => {
                    changed |= live[i] && !live[*inner as usize];
                    live[i] = live[*inner as usize];
                    false
                }
                _ => false,
            };
            if now {
                live[i] = true;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    for &place in places {
        if let Node::Rule(rule) = &mut nodes[place as usize] {
            *rule = minimal(rule, &live);
        }
    }
    order(nodes, places)
}

fn reaches_end(rule: &Rule, live: &[bool]) -> bool {
    completing(rule, live).first().copied().unwrap_or(false)
}

/// Which states can reach an end over nodes that something matches.
fn completing(rule: &Rule, live: &[bool]) -> Vec<bool> {
    let mut before: Vec<Vec<u32>> = vec![Vec::new(); rule.states.len()];
    let mut todo = Vec::new();
    for (i, state) in rule.states.iter().enumerate() {
        if state.ends {
            todo.push(i as u32);
        }
        for edge in state.edges.iter().filter(|e| live[e.0 as usize]) {
            before[edge.1 as usize].push(i as u32);
        }
    }
    let mut good = vec![false; rule.states.len()];
    while let Some(state) = todo.pop() {
        if !std::mem::replace(&mut good[state as usize], true) {
            todo.extend(&before[state as usize]);
        }
    }
    good
}

fn minimal(rule: &Rule, live: &[bool]) -> Rule {
    let good = completing(rule, live);
    let keep = |edge: &&(NodeId, u32)| live[edge.0 as usize] && good[edge.1 as usize];
    // Moore: states are the same until an edge tells them apart.
    let mut class: Vec<u32> = rule.states.iter().map(|s| u32::from(s.ends)).collect();
    let mut classes = 0;
    loop {
        let mut ids: FxHashMap<(u32, Vec<(NodeId, u32)>), u32> = FxHashMap::default();
        let next: Vec<u32> = rule
            .states
            .iter()
            .enumerate()
            .map(|(i, state)| {
                let edges = state.edges.iter().filter(keep).map(|e| (e.0, class[e.1 as usize])).collect();
                let new = ids.len() as u32;
                *ids.entry((class[i], edges)).or_insert(new)
            })
            .collect();
        let found = ids.len();
        class = next;
        if found == classes {
            break;
        }
        classes = found;
    }
    // Renumber from the start, leaving out what is not reached.
    let mut number: FxHashMap<u32, u32> = FxHashMap::default();
    let mut list: Vec<u32> = Vec::new();
    let mut states: Vec<RuleState> = Vec::new();
    if !rule.states.is_empty() {
        number.insert(class[0], 0);
        list.push(0);
    }
    while states.len() < list.len() {
        let state = &rule.states[list[states.len()] as usize];
        let mut edges = Vec::new();
        for &(node, to) in state.edges.iter().filter(keep) {
            let fresh = number.len() as u32;
            let id = *number.entry(class[to as usize]).or_insert_with(|| {
                list.push(to);
                fresh
            });
            edges.push((node, id));
        }
        states.push(RuleState { ends: state.ends, edges });
    }
    Rule { states, nullable: rule.nullable, order: 0 }
}

/// Numbers the rules. A rule that still begins with itself does so through a counted repetition.
fn order(nodes: &mut [Node], places: &[NodeId]) -> Result<(), Error> {
    let mut entered = vec![false; nodes.len()];
    let mut left = vec![false; nodes.len()];
    let mut rank = places.len() as u32;
    for &place in places {
        let mut todo = vec![(place, false)];
        while let Some((at, leaving)) = todo.pop() {
            let place = at as usize;
            if leaving {
                left[place] = true;
                if let Node::Rule(rule) = &mut nodes[place] {
                    rule.order = rank;
                    rank = rank.saturating_sub(1);
                }
                continue;
            }
            if entered[place] {
                if !left[place] {
                    return Err(plain_error("a rule begins with itself inside a counted repetition"));
                }
                continue;
            }
            entered[place] = true;
            todo.push((at, true));
            match &nodes[place] {
                Node::Rule(Rule { states, .. }) => {
                    let first = states.first().map(|s| s.edges.as_slice()).unwrap_or_default();
                    todo.extend(first.iter().map(|e| (e.0, false)));
                }
                Node::Repeat(inner, ..) => todo.push((*inner, false)),
                _ => {}
            }
        }
    }
    Ok(())
}
