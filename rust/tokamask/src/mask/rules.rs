//! How threads move through the rules of a context-free grammar.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::grammar::chars::{decode, CharSet, Decoded, Spelling, BOUNDARY};
use crate::grammar::words::OFF;
use crate::grammar::{add_byte, has_byte, Grammar, Node, NodeId, Rule, UNBOUNDED};
use crate::mask::recognizer::{Frame, Recognizer, Thread, BOTTOM, DONE};
use crate::mask::tables::MIN_CLASS;

/// What may come next where a rule stands.
#[derive(Default)]
pub struct Expansion {
    /// Texts and other nodes that may begin, and the stack they return to.
    pub starts: Vec<(NodeId, u32)>,
    /// Threads of other kinds that go on.
    pub others: Vec<Thread>,
    /// The stacks that were looked into.
    listed: Box<[u32]>,
}

impl Recognizer {
    /// What may come next for a thread that stands in a rule: completed rules are left, calls are
    /// entered, each once with all the stacks it may return to.
    pub fn expand(&mut self, grammar: &Grammar, thread: Thread) -> Arc<Expansion> {
        let key = (thread.top.node, thread.top.state, thread.parent);
        if let Some(known) = self.expansions.get(&key) {
            let known = Arc::clone(known);
            self.stacks.note_all(&known.listed);
            return known;
        }
        let from = self.stacks.list();
        let mut expansion = Expansion::default();
        let mut calls: Vec<(u32, NodeId, u32)> = Vec::new();
        let mut seen = FxHashSet::from_iter([thread]);
        let mut todo = vec![thread];
        while let Some(now) = todo.pop() {
            let Node::Rule(rule) = &grammar.nodes[now.top.node as usize] else { continue };
            let place = now.top.state.saturating_sub(1);
            self.enter_edges(grammar, rule, now.top.node, place, now.parent, &mut calls, &mut expansion);
            if rule.states[place as usize].ends {
                let mut below = Vec::new();
                self.pop(now.parent, &mut below);
                for thread in below {
                    if thread.top.node == DONE {
                        continue;
                    }
                    if !matches!(grammar.nodes[thread.top.node as usize], Node::Rule(_)) {
                        if !expansion.others.contains(&thread) {
                            expansion.others.push(thread);
                        }
                    } else if seen.insert(thread) {
                        todo.push(thread);
                    }
                }
            }
        }
        // Callers come before what they call, so each rule is entered once, with everything below it.
        while let Some(at) = (0..calls.len()).min_by_key(|&i| calls[i].0) {
            let (_, node, below) = calls.swap_remove(at);
            if let Node::Rule(rule) = &grammar.nodes[node as usize] {
                self.enter_edges(grammar, rule, node, 0, below, &mut calls, &mut expansion);
            }
        }
        expansion.listed = self.stacks.listed(from, thread.parent);
        let expansion = Arc::new(expansion);
        self.expansions.insert(key, Arc::clone(&expansion));
        expansion
    }

    #[allow(clippy::too_many_arguments)]
    fn enter_edges(
        &mut self,
        grammar: &Grammar,
        rule: &Rule,
        node: NodeId,
        place: u32,
        parent: u32,
        calls: &mut Vec<(u32, NodeId, u32)>,
        expansion: &mut Expansion,
    ) {
        for &(inner, target) in &rule.states[place as usize].edges {
            let after = &rule.states[target as usize];
            // Where nothing more can follow in the rule there is nothing to come back to.
            let below = if after.ends && after.edges.is_empty() {
                parent
            } else {
                self.push(Frame { state: target + 1, ..Frame::start(node) }, parent)
            };
            if let Node::Rule(called) = &grammar.nodes[inner as usize] {
                match calls.iter().position(|call| call.1 == inner) {
                    Some(i) => calls[i].2 = self.stacks.join(calls[i].2, below),
                    None => calls.push((called.order, inner, below)),
                }
            } else {
                match expansion.starts.iter().position(|start| start.0 == inner) {
                    Some(i) => expansion.starts[i].1 = self.stacks.join(expansion.starts[i].1, below),
                    None => expansion.starts.push((inner, below)),
                }
            }
        }
    }

    pub(super) fn step_rule(&mut self, grammar: &Grammar, thread: Thread, byte: u8, out: &mut Vec<Thread>) {
        let expansion = self.expand(grammar, thread);
        for &(node, below) in &expansion.starts {
            if has_byte(&grammar.first[node as usize], byte) {
                self.step(grammar, Thread { top: Frame::start(node), parent: below }, byte, out);
            }
        }
        for &other in &expansion.others {
            self.step(grammar, other, byte, out);
        }
    }

    pub(super) fn accepts_rule(&mut self, grammar: &Grammar, thread: Thread) -> bool {
        // Without [`Self::expand`]: what else may come next need not be found.
        let (mut todo, mut below, mut seen) = (vec![thread], Vec::new(), FxHashSet::default());
        while let Some(now) = todo.pop() {
            let Node::Rule(rule) = &grammar.nodes[now.top.node as usize] else { continue };
            let place = now.top.state.saturating_sub(1) as usize;
            if !rule.states[place].ends || !seen.insert(now.parent) {
                continue;
            }
            self.pop(now.parent, &mut below);
            for thread in below.drain(..) {
                if thread.top.node == DONE {
                    return true;
                }
                if matches!(grammar.nodes[thread.top.node as usize], Node::Rule(_)) {
                    todo.push(thread);
                } else if self.accepts(grammar, thread) {
                    return true;
                }
            }
        }
        false
    }

    /// False if a byte may not follow a text that could end here.
    pub(super) fn may_follow(&mut self, grammar: &Grammar, top: &Frame, byte: u8) -> bool {
        let Some(Some(guard)) = grammar.guards.get(top.node as usize) else { return true };
        let Decoded::Char(c) = decode(BOUNDARY, byte, Spelling::Plain) else { return true };
        if guard.follow.has(c) {
            return false;
        }
        !guard.greedy
            || match &grammar.nodes[top.node as usize] {
                Node::Words(trie, _) => trie.child(top.state.saturating_sub(1), c) == OFF,
                Node::Text(text) => {
                    let automaton = &mut self.automata[text.automaton as usize];
                    automaton.step(top.q, c) == crate::grammar::automaton::DEAD
                }
                Node::Runs(runs, _) => {
                    let mut count = top.count;
                    for run in &runs[(top.state as usize).saturating_sub(1)..] {
                        if count < run.max && run.class.has(c) {
                            return false;
                        }
                        if count < run.min {
                            break;
                        }
                        count = 0;
                    }
                    true
                }
                _ => true,
            }
    }

    /// The special tokens that may come next, each with the stack it returns to.
    pub fn specials(&mut self, grammar: &Grammar, thread: Thread, out: &mut Vec<(NodeId, u32)>) {
        let Thread { top, parent } = thread;
        if top.node == DONE {
            return;
        }
        let start = |node: NodeId, parent: u32| Thread { top: Frame::start(node), parent };
        match &grammar.nodes[top.node as usize] {
            Node::Special(_) => out.push((top.node, parent)),
            Node::Rule(_) => {
                let expansion = self.expand(grammar, thread);
                for &(node, below) in &expansion.starts {
                    if matches!(grammar.nodes[node as usize], Node::Special(_) | Node::Repeat(..)) {
                        self.specials(grammar, start(node, below), out);
                    }
                }
                for &other in &expansion.others {
                    self.specials(grammar, other, out);
                }
            }
            Node::Repeat(node, min, max) => {
                if top.count < *max {
                    let below = self.push(Self::again(&top, *min, *max), parent);
                    self.specials(grammar, start(*node, below), out);
                }
                if top.count >= *min {
                    self.specials_below(grammar, parent, out);
                }
            }
            _ if top.state != 0 && self.ends_here(grammar, &top) => self.specials_below(grammar, parent, out),
            _ => {}
        }
    }

    fn specials_below(&mut self, grammar: &Grammar, parent: u32, out: &mut Vec<(NodeId, u32)>) {
        let mut below = Vec::new();
        self.pop(parent, &mut below);
        for thread in below {
            self.specials(grammar, thread, out);
        }
    }

    /// The texts that may begin here without anything read before, each with its stack. What `thread`
    /// stands in may end; bytes that may not follow it are told by [`Self::may_follow`].
    pub fn beginnings(&mut self, grammar: &Grammar, thread: Thread, out: &mut Vec<(NodeId, u32)>) {
        let Thread { top, parent } = thread;
        if top.node == DONE {
            return;
        }
        match &grammar.nodes[top.node as usize] {
            Node::Rule(_) => out.extend(&self.expand(grammar, thread).starts),
            Node::Text(_) | Node::Runs(..) if top.state == 0 => out.push((top.node, parent)),
            Node::Text(_) | Node::Runs(..) | Node::Words(..) if self.ends_here(grammar, &top) => {
                let mut below = Vec::new();
                self.pop(parent, &mut below);
                below.retain(|t| {
                    t.top.node != DONE && matches!(grammar.nodes[t.top.node as usize], Node::Rule(_))
                });
                for thread in below {
                    out.extend(&self.expand(grammar, thread).starts);
                }
            }
            _ => {}
        }
    }

    /// How a text begins, if it is one character of a class and then stays in another class.
    pub fn opening(&mut self, grammar: &Grammar, node: NodeId) -> Option<Arc<Opening>> {
        if let Some(known) = self.openings.get(&node) {
            return known.clone();
        }
        let found = self.find_opening(grammar, node).map(Arc::new);
        self.openings.insert(node, found.clone());
        found
    }

    fn find_opening(&mut self, grammar: &Grammar, node: NodeId) -> Option<Opening> {
        if !matches!(grammar.nodes[node as usize], Node::Text(_) | Node::Runs(..)) {
            return None;
        }
        let start = Thread { top: Frame::start(node), parent: BOTTOM };
        let mut after: Vec<(Frame, u32)> = Vec::new();
        let mut tops: Vec<Option<Frame>> = Vec::new();
        for byte in 0..128u8 {
            let mut out = Vec::new();
            self.step(grammar, start, byte, &mut out);
            let top = if let [only] = out[..] { Some(only.top) } else { None };
            if let Some(top) = top {
                match after.iter_mut().find(|a| a.0 == top) {
                    Some(known) => known.1 += 1,
                    None => after.push((top, 1)),
                }
            }
            tops.push(top);
        }
        let (top, count) = after.into_iter().max_by_key(|a| a.1)?;
        let next = Thread { top, parent: BOTTOM };
        let staying = self.staying(grammar, next, &Arc::new(CharSet::all()))?;
        if count < MIN_CLASS as u32 || staying.branching || staying.min > 0 || staying.max != UNBOUNDED {
            return None;
        }
        let mut bytes = [0u64; 4];
        let members = (0..128u8).filter(|&b| tops[b as usize] == Some(top));
        members.clone().for_each(|b| add_byte(&mut bytes, b));
        let first = CharSet::from_ranges(members.map(|b| (b.into(), b.into())));
        Some(Opening { first: Arc::new(first), bytes, class: staying.class, top })
    }
}

/// One character of a class, then any number of another.
pub struct Opening {
    /// The class of the first character, in ASCII.
    pub first: Arc<CharSet>,
    /// The same as bytes.
    pub bytes: [u64; 4],
    /// The class of the others.
    pub class: Arc<CharSet>,
    /// Where the text stands after the first character, and stays.
    pub top: Frame,
}
