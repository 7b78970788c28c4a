//! The byte recognizer: threads of frames over the nodes of a grammar.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::grammar::automaton::{Automaton, DEAD};
use crate::grammar::chars::{decode, possible, Decoded, Partial, Spelling, BOUNDARY};
use crate::grammar::words::{NO_WORD, OFF};
use crate::grammar::{has_byte, Grammar, Node, NodeId, Run, Text, UNBOUNDED};
use crate::mask::rules::{Expansion, Opening};
use crate::mask::stacks::Stacks;

/// Where a thread stands in one node. What the fields mean depends on the node:
///
/// | node | `state` | `q` | `count` | `seen` |
/// |---|---|---|---|---|
/// | any, not begun | 0 | | | |
/// | `Words` | 1 + trie node | | | |
/// | `Text` | 1 | automaton state | characters | |
/// | `Runs` | 1 + run | | characters in the run | |
/// | `Object` | phase, position | automaton state of the name, or the value's node | properties | obligations met |
/// | `Array` | phase, white space | | items | counters, 16 bits each |
/// | `Sequence` | 1 + place | | | |
/// | `Repeat` | 1 | | repetitions | |
/// | `Rule` | 1 + state of the rule | | | |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    pub node: NodeId,
    pub state: u32,
    pub seen: u64,
    pub q: u32,
    /// The character that is being spelled.
    pub partial: Partial,
    pub count: u32,
    /// The text of a free name so far.
    pub text: u32,
    /// The free names that have occurred.
    pub names: u32,
    /// Object: 1 + index of the kind of free name, or 0; mode in the upper half.
    pub kind: u32,
}

/// A frame and the stack below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Thread {
    pub top: Frame,
    pub parent: u32,
}

/// The empty stack.
pub const BOTTOM: u32 = 0;
/// The node of a thread that has matched everything.
pub const DONE: NodeId = u32::MAX - 1;

// Phases of objects and arrays, above the position.
const PHASE: u32 = 28;
pub(super) const POSITION: u32 = (1 << PHASE) - 1;
/// After the opening bracket.
pub const OPEN: u32 = 1;
/// In a name.
pub const KEY: u32 = 2;
/// After a name.
pub const COLON: u32 = 3;
/// After the colon.
pub const VALUE: u32 = 4;
/// After a value or item.
pub const AFTER: u32 = 5;
/// After a comma.
pub const COMMA: u32 = 6;

/// The `kind` of a string that must differ from others in its array.
pub const COMPARED: u32 = 1;

/// Off the trie of declared names, as a position.
pub const OFF_TRIE: u32 = POSITION;

pub(super) fn at(phase: u32, position: u32) -> u32 {
    phase << PHASE | position
}

impl Frame {
    /// A node not begun.
    pub fn start(node: NodeId) -> Self {
        Self { node, ..Self::default() }
    }

    /// The phase of an object or array.
    pub fn phase(&self) -> u32 {
        self.state >> PHASE
    }

    /// In a name: 0 for declared ones, else 1 + the index of the kind of free names.
    pub fn kind_of_name(&self) -> u32 {
        self.kind & 0xffff
    }

    /// In a name: the object's mode.
    pub fn mode(&self) -> usize {
        (self.kind >> 16) as usize
    }

    /// What stands beside the phase: white space so far, or a position in the trie of names.
    pub fn position(&self) -> u32 {
        self.state & POSITION
    }
}

/// Stacks, automata and interned sets of one compiled grammar.
pub struct Recognizer {
    pub stacks: Stacks,
    pub(super) expansions: FxHashMap<(NodeId, u32, u32), Arc<Expansion>>,
    pub(super) openings: FxHashMap<NodeId, Option<Arc<Opening>>>,
    /// [`CharSet::plain`](crate::grammar::chars::CharSet::plain) of runs, by node and run.
    pub(super) plain: FxHashMap<(NodeId, u32), u128>,
    pub(super) sets: Vec<Box<[u64]>>,
    set_ids: FxHashMap<Box<[u64]>, u32>,
    pub(super) texts: FxHashMap<(u32, u32), u32>,
    pub(super) text_links: Vec<(u32, u32)>,
    pub automata: Vec<Automaton>,
    /// Names that are not declared are compared with each other.
    pub exact: bool,
    /// Something was read inside a name since this was last cleared.
    pub named: bool,
    /// Bytes of the longest token.
    pub longest: u32,
}

pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

impl Recognizer {
    /// Takes over the automata of a grammar.
    pub fn new(automata: Vec<Automaton>, longest: u32) -> Self {
        Self {
            stacks: Stacks::default(),
            expansions: FxHashMap::default(),
            openings: FxHashMap::default(),
            plain: FxHashMap::default(),
            sets: vec![Box::default()],
            set_ids: FxHashMap::default(),
            texts: FxHashMap::default(),
            text_links: Vec::new(),
            automata,
            exact: true,
            named: false,
            longest,
        }
    }

    pub(super) fn push(&mut self, frame: Frame, parent: u32) -> u32 {
        self.stacks.push(frame, parent)
    }

    /// Records as well how deep a value looks that was computed for a simple stack before.
    pub fn look(&mut self, mut stack: u32, depth: usize) {
        for _ in 0..depth {
            self.stacks.note(stack);
            if stack == BOTTOM {
                break;
            }
            stack = self.stacks.frame(stack).1;
        }
    }

    /// Appends the threads after the closing quote of the JSON string or free name that the top is in, as
    /// if it could be closed now.
    pub fn closed(&mut self, grammar: &Grammar, thread: Thread, out: &mut Vec<Thread>) {
        match &grammar.nodes[thread.top.node as usize] {
            Node::Object(object) => {
                let (top, mode) = (thread.top, thread.top.mode());
                let value = object.modes[mode].free[top.kind_of_name() as usize - 1].value;
                let top = self.with_name(object, &top, mode, None, value);
                out.push(Thread { top, parent: thread.parent });
            }
            Node::Runs(..) | Node::Text(_) => self.pop(thread.parent, out),
            _ => {}
        }
    }

    /// Appends the threads that go on when the top is complete.
    pub(super) fn pop(&mut self, stack: u32, out: &mut Vec<Thread>) {
        self.stacks.note(stack);
        let mut i = 0;
        while let Some(member) = self.stacks.member(stack, i) {
            out.push(self.stacks.thread(member));
            i += 1;
        }
    }

    /// The text of a string that is compared with others, one character longer; 0 for other strings.
    fn longer(&mut self, top: &Frame, c: u32) -> u32 {
        if top.kind == COMPARED && self.exact {
            self.intern_text(top.text, c)
        } else {
            0
        }
    }

    pub(super) fn intern_text(&mut self, before: u32, c: u32) -> u32 {
        let links = &mut self.text_links;
        *self.texts.entry((before, c)).or_insert_with(|| {
            links.push((before, c));
            links.len() as u32
        })
    }

    /// As [`Self::pop`] after a string that must differ from those before it in the array below.
    fn pop_compared(&mut self, stack: u32, text: u32, out: &mut Vec<Thread>) {
        let from = out.len();
        self.pop(stack, out);
        let mut i = from;
        while i < out.len() {
            let mut texts = self.sets[out[i].top.names as usize].to_vec();
            match texts.binary_search(&u64::from(text)) {
                Ok(_) => {
                    out.swap_remove(i);
                }
                Err(place) => {
                    texts.insert(place, text.into());
                    out[i].top.names = self.intern_set(texts.into());
                    i += 1;
                }
            }
        }
    }

    pub(super) fn intern_set(&mut self, set: Box<[u64]>) -> u32 {
        let sets = &mut self.sets;
        *self.set_ids.entry(set).or_insert_with_key(|set| {
            sets.push(set.clone());
            sets.len() as u32 - 1
        })
    }

    /// Before anything was read.
    pub fn start(grammar: &Grammar) -> Thread {
        Thread { top: Frame::start(grammar.root), parent: BOTTOM }
    }

    /// Appends the threads that are left of `thread` after a byte.
    pub fn step(&mut self, grammar: &Grammar, thread: Thread, byte: u8, out: &mut Vec<Thread>) {
        let Thread { top, parent } = thread;
        if top.node == DONE || top.state == 0 && !can_start(grammar, thread, byte) {
            return;
        }
        match &grammar.nodes[top.node as usize] {
            Node::AnyOf(nodes) => {
                for &node in nodes {
                    if has_byte(&grammar.first[node as usize], byte) || grammar.nullable[node as usize] {
                        let top = Frame { kind: top.kind, ..Frame::start(node) };
                        self.step(grammar, Thread { top, parent }, byte, out);
                    }
                }
            }
            Node::Words(trie, Spelling::Json) => {
                if top.state == 0 {
                    return out.push(Thread { top: Frame { state: 1, ..top }, parent });
                }
                let position = top.state - 1;
                match decode(top.partial, byte, Spelling::Json) {
                    Decoded::Char(c) => {
                        let next = trie.child(position, c);
                        if next != OFF {
                            out.push(Thread {
                                top: Frame { state: next + 1, partial: BOUNDARY, ..top },
                                parent,
                            });
                        }
                    }
                    Decoded::More(partial) => {
                        let live =
                            |low, high| trie.children(position).iter().any(|e| (low..=high).contains(&e.0));
                        if possible(partial, live) {
                            out.push(Thread { top: Frame { partial, ..top }, parent });
                        }
                    }
                    Decoded::Close if trie.word(position) != NO_WORD => self.pop(parent, out),
                    _ => {}
                }
            }
            Node::Words(trie, Spelling::Plain) => {
                let position = top.state.saturating_sub(1);
                match decode(top.partial, byte, Spelling::Plain) {
                    Decoded::Char(c) => {
                        let next = trie.child(position, c);
                        if next != OFF {
                            out.push(Thread {
                                top: Frame { state: next + 1, partial: BOUNDARY, ..top },
                                parent,
                            });
                        }
                    }
                    Decoded::More(partial) => {
                        let live =
                            |low, high| trie.children(position).iter().any(|e| (low..=high).contains(&e.0));
                        if possible(partial, live) {
                            out.push(Thread { top: Frame { state: position + 1, partial, ..top }, parent });
                        }
                    }
                    _ => {}
                }
                let ends = top.partial == BOUNDARY && trie.word(position) != NO_WORD;
                if ends && self.may_follow(grammar, &top, byte) {
                    self.step_below(grammar, parent, byte, out);
                }
            }
            Node::Text(text) => self.step_text(grammar, text, thread, byte, out),
            Node::Runs(runs, spelling) => self.step_runs(grammar, runs, *spelling, thread, byte, out),
            Node::Object(object) => self.step_object(grammar, object, thread, byte, out),
            Node::Array(array) => self.step_array(grammar, array, thread, byte, out),
            Node::Sequence(nodes) => self.step_sequence(grammar, nodes, thread, byte, out),
            Node::Repeat(node, min, max) => {
                if top.count < *max {
                    let below = self.push(Self::again(&top, *min, *max), parent);
                    self.step(grammar, Thread { top: Frame::start(*node), parent: below }, byte, out);
                }
                if top.count >= *min || grammar.nullable[*node as usize] {
                    self.step_below(grammar, parent, byte, out);
                }
            }
            Node::Rule(_) => self.step_rule(grammar, thread, byte, out),
            Node::Special(_) => {}
        }
    }

    /// The frame of a repetition while it matches once more.
    pub(super) fn again(top: &Frame, min: u32, max: u32) -> Frame {
        let most = if max == UNBOUNDED { min } else { max };
        Frame { state: 1, count: (top.count + 1).min(most), ..*top }
    }

    /// The top is complete: the byte belongs to what is below.
    fn step_below(&mut self, grammar: &Grammar, parent: u32, byte: u8, out: &mut Vec<Thread>) {
        self.stacks.note(parent);
        let mut i = 0;
        while let Some(member) = self.stacks.member(parent, i) {
            self.step(grammar, self.stacks.thread(member), byte, out);
            i += 1;
        }
    }

    fn step_sequence(
        &mut self,
        grammar: &Grammar,
        nodes: &[NodeId],
        thread: Thread,
        byte: u8,
        out: &mut Vec<Thread>,
    ) {
        let Thread { top, parent } = thread;
        let mut place = top.state.saturating_sub(1) as usize;
        while let Some(&node) = nodes.get(place) {
            if has_byte(&grammar.first[node as usize], byte) {
                // The last part needs no frame to come back to.
                let below = if place + 1 == nodes.len() {
                    parent
                } else {
                    self.push(Frame { state: place as u32 + 2, ..top }, parent)
                };
                self.step(grammar, Thread { top: Frame::start(node), parent: below }, byte, out);
            }
            if !grammar.nullable[node as usize] {
                return;
            }
            place += 1;
        }
        self.step_below(grammar, parent, byte, out);
    }

    fn step_text(&mut self, grammar: &Grammar, text: &Text, thread: Thread, byte: u8, out: &mut Vec<Thread>) {
        let Thread { mut top, parent } = thread;
        let automaton = &mut self.automata[text.automaton as usize];
        if top.state == 0 {
            top.state = 1;
            top.q = automaton.start();
            if text.spelling == Spelling::Json {
                return out.push(Thread { top, parent });
            }
        }
        let fits = |q: u32, count: u32| {
            text.lengths.as_ref().is_none_or(|(min, max, lengths)| lengths.possible(q, count, *min, *max))
        };
        let ends = |automaton: &Automaton| {
            let count = top.count;
            automaton.accepts(top.q)
                && text
                    .lengths
                    .as_ref()
                    .is_none_or(|(min, max, _)| count >= *min && max.is_none_or(|max| count <= max))
        };
        match decode(top.partial, byte, text.spelling) {
            Decoded::Char(c) => {
                let q = automaton.step(top.q, c);
                let count = match &text.lengths {
                    Some((min, None, _)) => (top.count + 1).min(*min),
                    Some(_) => top.count + 1,
                    None => 0,
                };
                if q != DEAD && fits(q, count) {
                    out.push(Thread { top: Frame { q, count, partial: BOUNDARY, ..top }, parent });
                }
            }
            Decoded::More(partial) => {
                // With bounded lengths the successor must also leave room; that is tested per character.
                let live = possible(partial, |low, high| match &text.lengths {
                    None => automaton.any_in(top.q, low, high),
                    Some(_) => automaton.any_fit(top.q, low, high, |q| fits(q, top.count + 1)),
                });
                if live {
                    out.push(Thread { top: Frame { partial, ..top }, parent });
                }
            }
            Decoded::Close if ends(automaton) => self.pop(parent, out),
            _ => {}
        }
        if text.spelling == Spelling::Plain
            && top.partial == BOUNDARY
            && ends(&self.automata[text.automaton as usize])
            && self.may_follow(grammar, &top, byte)
        {
            self.step_below(grammar, parent, byte, out);
        }
    }

    fn step_runs(
        &mut self,
        grammar: &Grammar,
        runs: &[Run],
        spelling: Spelling,
        thread: Thread,
        byte: u8,
        out: &mut Vec<Thread>,
    ) {
        let Thread { mut top, parent } = thread;
        if top.state == 0 {
            top.state = 1;
            if spelling == Spelling::Json {
                return out.push(Thread { top, parent });
            }
        }
        let decoded = decode(top.partial, byte, spelling);
        let first = top.state as usize - 1;
        let from = out.len();
        match decoded {
            Decoded::Char(_) | Decoded::More(_) => {
                // A character begun in one run is finished in any run it may belong to.
                let mut count = top.count;
                for (i, run) in runs.iter().enumerate().skip(first) {
                    if count < run.max {
                        let next = match decoded {
                            Decoded::Char(c) if run.class.has(c) => {
                                let most = if run.max == UNBOUNDED { run.min } else { UNBOUNDED };
                                Some(Frame {
                                    text: self.longer(&top, c),
                                    state: i as u32 + 1,
                                    count: (count + 1).min(most),
                                    partial: BOUNDARY,
                                    ..top
                                })
                            }
                            Decoded::More(partial)
                                if possible(partial, |low, high| run.class.any_in(low, high)) =>
                            {
                                Some(Frame { partial, ..top })
                            }
                            _ => None,
                        };
                        if let Some(top) = next {
                            let next = Thread { top, parent };
                            if !out[from..].contains(&next) {
                                out.push(next);
                            }
                        }
                    }
                    if count < run.min {
                        break;
                    }
                    count = 0;
                }
            }
            Decoded::Close if may_leave(runs, &top) && top.kind == COMPARED && self.exact => {
                self.pop_compared(parent, top.text, out);
            }
            Decoded::Close if may_leave(runs, &top) => self.pop(parent, out),
            _ => {}
        }
        let ends = spelling == Spelling::Plain && top.partial == BOUNDARY && may_leave(runs, &top);
        if ends && self.may_follow(grammar, &top, byte) {
            self.step_below(grammar, parent, byte, out);
        }
    }

    /// True if the text so far is a complete match.
    pub fn accepts(&mut self, grammar: &Grammar, thread: Thread) -> bool {
        let Thread { top, parent } = thread;
        if top.node == DONE {
            return true;
        }
        if top.state == 0 {
            return grammar.nullable[top.node as usize] && self.accepts_below(grammar, parent);
        }
        if let Node::Rule(_) = grammar.nodes[top.node as usize] {
            return self.accepts_rule(grammar, thread);
        }
        self.ends_here(grammar, &top) && self.accepts_below(grammar, parent)
    }

    /// True if a node that was begun may be complete.
    pub(super) fn ends_here(&self, grammar: &Grammar, top: &Frame) -> bool {
        match &grammar.nodes[top.node as usize] {
            Node::Words(trie, Spelling::Plain) => {
                top.partial == BOUNDARY && trie.word(top.state - 1) != NO_WORD
            }
            Node::Text(text) if text.spelling == Spelling::Plain => {
                top.partial == BOUNDARY && self.automata[text.automaton as usize].accepts(top.q)
            }
            Node::Runs(runs, Spelling::Plain) => top.partial == BOUNDARY && may_leave(runs, top),
            Node::Sequence(nodes) => {
                nodes[top.state as usize - 1..].iter().all(|&n| grammar.nullable[n as usize])
            }
            Node::Repeat(node, min, _) => top.count >= *min || grammar.nullable[*node as usize],
            _ => false,
        }
    }

    fn accepts_below(&mut self, grammar: &Grammar, parent: u32) -> bool {
        self.stacks.note(parent);
        let mut i = 0;
        while let Some(member) = self.stacks.member(parent, i) {
            if self.accepts(grammar, self.stacks.thread(member)) {
                return true;
            }
            i += 1;
        }
        false
    }

    /// An interned set.
    pub fn set(&self, id: u32) -> &[u64] {
        &self.sets[id as usize]
    }

    /// An interned text.
    pub fn text(&self, mut id: u32) -> String {
        let mut chars = Vec::new();
        while id != 0 {
            let (before, c) = self.text_links[id as usize - 1];
            chars.extend(char::from_u32(c));
            id = before;
        }
        chars.iter().rev().collect()
    }

    /// Forgets what can be found again.
    pub fn forget(&mut self) {
        self.expansions.clear();
        self.stacks.forget();
    }

    /// Bytes of memory that grow with use.
    pub fn bytes(&self) -> usize {
        let expansion = |e: &Arc<Expansion>| e.starts.len() * 8 + 160;
        self.stacks.bytes()
            + self.expansions.values().map(expansion).sum::<usize>()
            + self.texts.len() * 24
            + self.sets.len() * 64
    }
}

fn can_start(grammar: &Grammar, thread: Thread, byte: u8) -> bool {
    let node = thread.top.node as usize;
    has_byte(&grammar.first[node], byte) || grammar.nullable[node]
}

/// The runs may end here: the counts are met.
fn may_leave(runs: &[Run], top: &Frame) -> bool {
    let current = top.state as usize - 1;
    runs.get(current).is_none_or(|run| top.count >= run.min)
        && runs.iter().skip(current + 1).all(|run| run.min == 0)
}
