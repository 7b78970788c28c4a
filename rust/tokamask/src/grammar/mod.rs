//! Grammars: front ends read JSON Schema, regular expressions and context-free notations into one
//! intermediate form, the nodes of [`Grammar`], which `mask` walks byte by byte.

pub mod array;
pub mod automaton;
pub mod budget;
pub mod chars;
pub mod ebnf;
pub mod json;
pub mod json_schema;
pub mod lark;
mod nfa;
mod number;
pub mod recipe;
pub mod regex;
pub mod rules;
pub mod tags;
pub mod words;

use std::sync::Arc;

use crate::error::{Error, LimitError, UnsatisfiableError};
use automaton::{Automaton, Lengths};
use chars::{decode, possible, CharSet, Decoded, Spelling, BOUNDARY};
use words::WordTrie;

/// Index of a node.
pub type NodeId = u32;
/// No node: nothing matches.
pub const NO_NODE: NodeId = u32::MAX;
/// No upper bound.
pub const UNBOUNDED: u32 = u32::MAX;

/// A character class repeated between `min` and `max` times.
#[derive(Clone, Debug)]
pub struct Run {
    /// The characters.
    pub class: Arc<CharSet>,
    /// At least so often.
    pub min: u32,
    /// At most so often, or [`UNBOUNDED`].
    pub max: u32,
}

/// What can be matched at some place.
pub enum Node {
    /// One of several.
    AnyOf(Vec<NodeId>),
    /// One of finitely many texts.
    Words(WordTrie, Spelling),
    /// Texts of an automaton; `lengths` bounds their number of characters.
    Text(Text),
    /// Counted character classes, one after another. Counts are never unrolled.
    Runs(Vec<Run>, Spelling),
    /// A JSON object.
    Object(Box<Object>),
    /// A JSON array.
    Array(Box<Array>),
    /// One after another.
    Sequence(Vec<NodeId>),
    /// One node between `min` and `max` times.
    Repeat(NodeId, u32, u32),
    /// A rule of a context-free grammar.
    Rule(Rule),
    /// One of several tokens, by name or id. They spell no text.
    Special(Vec<SpecialToken>),
}

/// A token that is meant itself, not its text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SpecialToken {
    /// By the name that the vocabulary has for it.
    Name(String),
    /// All ids of a range, the last included.
    Ids(u32, u32),
    /// By name as well, if the vocabulary has such a special token: where it has none, nothing.
    Spelled(String),
    /// Every token that does not end the sequence, but for these.
    AllBut(Vec<SpecialToken>),
}

/// A rule as a deterministic automaton over nodes. The first state never ends: who calls a rule that
/// may be empty steps over it.
pub struct Rule {
    /// The states; matching begins in the first.
    pub states: Vec<RuleState>,
    /// The rule matches the empty text as well.
    pub nullable: bool,
    /// Rules that can begin with another one have a lower number than that.
    pub order: u32,
}

/// A state of a rule.
pub struct RuleState {
    /// The rule may end here.
    pub ends: bool,
    /// What may come next, and the state after it.
    pub edges: Vec<(NodeId, u32)>,
}

/// What may not follow a text: conditions of a lexer. They look at the next character if it is ASCII.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    /// The text goes on as long as it can.
    pub greedy: bool,
    /// Characters that may not follow.
    pub follow: CharSet,
}

impl Node {
    /// The node after others were put before those it names.
    fn moved(self, nodes: NodeId, automata: u32) -> Self {
        let shift = |n: NodeId| if n == NO_NODE { n } else { n + nodes };
        let shift_all = |list: Vec<NodeId>| list.into_iter().map(shift).collect();
        match self {
            Self::AnyOf(list) => Self::AnyOf(shift_all(list)),
            Self::Sequence(list) => Self::Sequence(shift_all(list)),
            Self::Repeat(node, min, max) => Self::Repeat(shift(node), min, max),
            Self::Text(text) => Self::Text(Text { automaton: text.automaton + automata, ..text }),
            Self::Object(mut object) => {
                for mode in &mut object.modes {
                    mode.values.iter_mut().for_each(|n| *n = shift(*n));
                    for free in &mut mode.free {
                        free.value = shift(free.value);
                        free.automaton = free.automaton.map(|a| a + automata);
                    }
                }
                Self::Object(object)
            }
            Self::Array(mut array) => {
                let lists = array.prefix.iter_mut().chain(std::iter::once(&mut array.rest));
                lists.flatten().for_each(|choice| choice.node = shift(choice.node));
                Self::Array(array)
            }
            Self::Rule(mut rule) => {
                rule.states.iter_mut().flat_map(|s| &mut s.edges).for_each(|e| e.0 = shift(e.0));
                Self::Rule(rule)
            }
            other @ (Self::Words(..) | Self::Runs(..) | Self::Special(_)) => other,
        }
    }
}

/// Texts of an automaton.
pub struct Text {
    /// Index into [`Grammar::automata`].
    pub automaton: u32,
    /// How they are spelled; JSON strings stand between quotes.
    pub spelling: Spelling,
    /// Least and greatest number of characters, with what is needed to know which states can meet them.
    pub lengths: Option<(u32, Option<u32>, Lengths)>,
}

/// Property names that are not declared, of one kind.
pub struct FreeKeys {
    /// The names, or any.
    pub automaton: Option<u32>,
    /// What their values match.
    pub value: NodeId,
}

/// One way in which a property may be written: as the witness of no, one or several obligations.
#[derive(Default)]
pub struct KeyMode {
    /// Bit `i`: it is a witness of obligation `i`.
    pub witnesses: u32,
    /// Some name is a witness of just these whatever its value: open even if all of them are met.
    pub always: bool,
    /// Value of each declared name, or [`NO_NODE`].
    pub values: Vec<NodeId>,
    /// Other names.
    pub free: Vec<FreeKeys>,
}

/// A JSON object. Obligations (names that must occur, witnesses) are bits: first the declared names
/// in the order of `keys`, then the witnesses.
pub struct Object {
    /// The declared names.
    pub keys: WordTrie,
    /// Sets of witnesses that one property may be; the empty set first.
    pub modes: Vec<KeyMode>,
    /// Bits that must be set at the end.
    pub required: Vec<u64>,
    /// Number of obligations still open at the start.
    pub required_count: u32,
    /// Fewest and most properties.
    pub min: u32,
    /// See `min`.
    pub max: u32,
    /// Rank of each declared name, if names must come in that order and free ones after them.
    pub order: Option<Vec<u32>>,
    /// Names that are not declared must differ from each other.
    pub unique_free: bool,
}

/// One way to fill a place of an array, and the counters it advances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What the item matches.
    pub node: NodeId,
    /// Bit `i`: counts towards counter `i`.
    pub counts: u32,
}

/// A counter of the items that match something.
pub struct Counter {
    /// At least so many.
    pub min: u32,
    /// At most so many.
    pub max: u32,
}

/// A JSON array.
pub struct Array {
    /// Choices for the first places.
    pub prefix: Vec<Vec<Choice>>,
    /// Choices for the places after them.
    pub rest: Vec<Choice>,
    /// Fewest and most items.
    pub min: u32,
    /// See `min`.
    pub max: u32,
    /// Counters, at most four.
    pub counters: Vec<Counter>,
    /// How items must differ.
    pub unique: Unique,
    /// Which counts can still be completed.
    pub known: array::Known,
}

/// How the items of an array must differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unique {
    /// They need not.
    No,
    /// Each choice is one value, and its `counts` the number of that value, below 64.
    Values,
    /// Items are strings that may always go on; their texts are compared.
    Strings,
}

/// A compiled grammar that knows no vocabulary yet.
pub struct Grammar {
    /// All nodes.
    pub nodes: Vec<Node>,
    /// Automata of the [`Node::Text`]s and of property names; taken over by the recognizer.
    pub automata: Vec<Automaton>,
    /// Where matching begins.
    pub root: NodeId,
    /// Longest run of white space between the parts of a JSON value.
    pub space: u32,
    /// What was read as an annotation though it might have been meant as a condition.
    pub warnings: Vec<String>,
    /// Bytes that can begin each node.
    pub first: Vec<[u64; 4]>,
    /// True for nodes that match the empty text.
    pub nullable: Vec<bool>,
    /// Conditions on what follows a text; empty if there are none.
    pub guards: Vec<Option<Guard>>,
    /// Threads that differ only below the top are joined: the grammar has rules.
    pub merges: bool,
    /// Texts are JSON documents.
    pub is_json: bool,
    /// Names of properties, or strings of an array, have to differ.
    pub objects: bool,
}

/// Adds a byte to a set.
pub fn add_byte(set: &mut [u64; 4], byte: u8) {
    set[byte as usize / 64] |= 1 << (byte % 64);
}

/// Membership in a set of bytes.
#[inline]
pub fn has_byte(set: &[u64; 4], byte: u8) -> bool {
    set[byte as usize / 64] >> (byte % 64) & 1 == 1
}

impl Grammar {
    /// Finishes a grammar: drops what cannot be matched, so that each prefix that is offered can be
    /// completed, and computes first bytes.
    pub fn new(
        nodes: Vec<Node>,
        automata: Vec<Automaton>,
        root: NodeId,
        space: u32,
        warnings: Vec<String>,
    ) -> Result<Self, Error> {
        let n = nodes.len();
        let differ = |node: &Node| match node {
            Node::Object(_) => true,
            Node::Array(array) => array.unique == Unique::Strings,
            _ => false,
        };
        let objects = nodes.iter().any(differ);
        let mut grammar = Self {
            nodes,
            automata,
            root,
            space,
            warnings,
            first: vec![[0; 4]; n],
            nullable: vec![false; n],
            guards: Vec::new(),
            merges: false,
            is_json: false,
            objects,
        };
        let live = grammar.productive()?;
        if !live[root as usize] {
            return Err(UnsatisfiableError { json_pointer: None }.into());
        }
        grammar.trim(&live);
        grammar.flatten();
        grammar.find_nullable();
        grammar.find_first();
        Ok(grammar)
    }

    /// Nodes that some finite text matches: the least fixpoint.
    fn productive(&self) -> Result<Vec<bool>, LimitError> {
        let mut live = vec![false; self.nodes.len()];
        loop {
            let mut changed = false;
            // Parts mostly stand behind what they are part of.
            for (i, node) in self.nodes.iter().enumerate().rev() {
                budget::check()?;
                if !live[i] && self.is_productive(node, &live) {
                    live[i] = true;
                    changed = true;
                }
            }
            if !changed {
                return Ok(live);
            }
        }
    }

    fn is_productive(&self, node: &Node, live: &[bool]) -> bool {
        let ok = |n: NodeId| n != NO_NODE && live[n as usize];
        match node {
            Node::AnyOf(nodes) => nodes.iter().any(|&n| ok(n)),
            Node::Words(trie, _) => !trie.words().is_empty(),
            Node::Text(text) => {
                let automaton = &self.automata[text.automaton as usize];
                let possible = |(min, max, lengths): &(u32, Option<u32>, Lengths)| {
                    lengths.possible(automaton.start(), 0, *min, *max)
                };
                !automaton.is_empty() && text.lengths.as_ref().is_none_or(possible)
            }
            Node::Runs(runs, _) => runs.iter().all(|r| r.min <= r.max && (r.min == 0 || !r.class.is_empty())),
            Node::Object(object) => object.is_productive(&ok, &self.automata),
            Node::Array(array) => array.is_productive(&ok),
            Node::Sequence(nodes) => nodes.iter().all(|&n| ok(n)),
            Node::Repeat(node, min, max) => min <= max && (*min == 0 || ok(*node)),
            // Trimmed when it was made; a state without edges and end matches nothing.
            Node::Rule(rule) => rule.nullable || rule.states.first().is_some_and(|s| !s.edges.is_empty()),
            Node::Special(tokens) => !tokens.is_empty(),
        }
    }

    fn trim(&mut self, live: &[bool]) {
        let ok = |n: NodeId| n != NO_NODE && live[n as usize];
        for node in &mut self.nodes {
            match node {
                Node::AnyOf(nodes) => nodes.retain(|&n| ok(n)),
                Node::Object(object) => {
                    for mode in &mut object.modes {
                        mode.values.iter_mut().filter(|n| !ok(**n)).for_each(|n| *n = NO_NODE);
                        mode.free.retain(|free| ok(free.value));
                    }
                }
                Node::Array(array) => {
                    array.prefix.iter_mut().for_each(|choices| choices.retain(|c| ok(c.node)));
                    array.rest.retain(|c| ok(c.node));
                }
                Node::Repeat(node, _, max) if !ok(*node) => *max = 0,
                _ => {}
            }
        }
    }

    /// Alternatives name values, never other alternatives, and each once.
    fn flatten(&mut self) {
        let mut seen_for = vec![NO_NODE; self.nodes.len()];
        for i in 0..self.nodes.len() {
            let Node::AnyOf(nodes) = &self.nodes[i] else { continue };
            let mut todo: Vec<NodeId> = nodes.iter().rev().copied().collect();
            let mut flat = Vec::new();
            seen_for[i] = i as NodeId;
            while let Some(n) = todo.pop() {
                if std::mem::replace(&mut seen_for[n as usize], i as NodeId) == i as NodeId {
                    continue;
                }
                match &self.nodes[n as usize] {
                    Node::AnyOf(inner) => todo.extend(inner.iter().rev()),
                    _ => flat.push(n),
                }
            }
            self.nodes[i] = Node::AnyOf(flat);
        }
    }

    fn find_nullable(&mut self) {
        loop {
            let mut changed = false;
            for i in (0..self.nodes.len()).rev() {
                let nullable = |n: &NodeId| self.nullable[*n as usize];
                let value = match &self.nodes[i] {
                    Node::AnyOf(nodes) => nodes.iter().any(nullable),
                    Node::Words(trie, spelling) => *spelling == Spelling::Plain && trie.words()[0].is_empty(),
                    Node::Text(text) => {
                        let automaton = &self.automata[text.automaton as usize];
                        text.spelling == Spelling::Plain && automaton.accepts(automaton.start())
                    }
                    Node::Runs(runs, spelling) => {
                        *spelling == Spelling::Plain && runs.iter().all(|r| r.min == 0)
                    }
                    Node::Object(_) | Node::Array(_) | Node::Special(_) => false,
                    Node::Rule(rule) => rule.nullable,
                    Node::Sequence(nodes) => nodes.iter().all(nullable),
                    Node::Repeat(node, min, _) => *min == 0 || nullable(node),
                };
                if value && !self.nullable[i] {
                    self.nullable[i] = true;
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    fn find_first(&mut self) {
        // Lexical nodes first, once; then the fixpoint over the others.
        for i in 0..self.nodes.len() {
            let mut set = [0; 4];
            match &self.nodes[i] {
                Node::Words(_, Spelling::Json) | Node::Runs(_, Spelling::Json) => add_byte(&mut set, b'"'),
                Node::Text(text) if text.spelling == Spelling::Json => add_byte(&mut set, b'"'),
                Node::Object(_) => add_byte(&mut set, b'{'),
                Node::Array(_) => add_byte(&mut set, b'['),
                Node::Words(trie, Spelling::Plain) => {
                    for word in trie.words() {
                        word.bytes().take(1).for_each(|b| add_byte(&mut set, b));
                    }
                }
                Node::Runs(runs, Spelling::Plain) => {
                    for run in runs {
                        if run.max > 0 {
                            set = first_bytes(set, &mut |low, high| run.class.any_in(low, high));
                        }
                        if run.min > 0 {
                            break;
                        }
                    }
                }
                Node::Text(text) => {
                    let automaton = &mut self.automata[text.automaton as usize];
                    let start = automaton.start();
                    set = first_bytes(set, &mut |low, high| automaton.any_in(start, low, high));
                }
                _ => {}
            }
            self.first[i] = set;
        }
        loop {
            let mut changed = false;
            for i in (0..self.nodes.len()).rev() {
                let mut set = self.first[i];
                let mut join = |n: NodeId| (0..4).for_each(|k| set[k] |= self.first[n as usize][k]);
                match &self.nodes[i] {
                    Node::AnyOf(nodes) => nodes.iter().copied().for_each(join),
                    Node::Repeat(node, _, max) if *max > 0 => join(*node),
                    Node::Rule(rule) => {
                        let first = rule.states.first().into_iter().flat_map(|s| &s.edges);
                        first.for_each(|edge| join(edge.0));
                    }
                    Node::Sequence(nodes) => {
                        for &n in nodes {
                            join(n);
                            if !self.nullable[n as usize] {
                                break;
                            }
                        }
                    }
                    _ => {}
                }
                changed |= set != self.first[i];
                self.first[i] = set;
            }
            if !changed {
                return;
            }
        }
    }
}

/// One of the texts given.
pub fn choice(texts: Vec<String>) -> Result<Grammar, Error> {
    let node = Node::Words(WordTrie::new(texts), Spelling::Plain);
    Grammar::new(vec![node], Vec::new(), 0, 0, Vec::new())
}

/// Reads a regular expression that whole texts match. Besides the dialect of JSON Schema, `&` is
/// intersection and `~` complement.
pub fn read_regex(pattern: &str) -> Result<Grammar, Error> {
    let regex = regex::parse(pattern, regex::Dialect::Extended)?;
    let node = match json_schema::counted_runs(&regex) {
        Some(runs) => Node::Runs(runs, Spelling::Plain),
        None => Node::Text(Text { automaton: 0, spelling: Spelling::Plain, lengths: None }),
    };
    let automata = match node {
        Node::Text(_) => vec![Automaton::new(&[(regex, true)])?],
        _ => Vec::new(),
    };
    Grammar::new(vec![node], automata, 0, 0, Vec::new())
}

fn first_bytes(mut set: [u64; 4], any_in: &mut dyn FnMut(u32, u32) -> bool) -> [u64; 4] {
    for byte in 0..=255u8 {
        let live = match decode(BOUNDARY, byte, Spelling::Plain) {
            Decoded::Char(c) => any_in(c, c),
            Decoded::More(partial) => possible(partial, &mut *any_in),
            _ => false,
        };
        if live {
            add_byte(&mut set, byte);
        }
    }
    set
}

impl Object {
    /// Words of 64 bits that the obligations take.
    pub fn bit_words(&self) -> usize {
        self.required.len()
    }

    fn is_productive(&self, ok: &dyn Fn(NodeId) -> bool, automata: &[Automaton]) -> bool {
        let declared = self.keys.words().len();
        let required = |i: usize| self.required[i / 64] >> (i % 64) & 1 == 1;
        let free_key = |free: &FreeKeys| {
            ok(free.value) && free.automaton.is_none_or(|a| !automata[a as usize].is_empty())
        };
        let any_free = self.modes.iter().any(|mode| mode.free.iter().any(free_key));
        let names = (0..declared).filter(|&i| self.modes.iter().any(|mode| ok(mode.values[i]))).count();
        let met = (0..declared).all(|i| !required(i) || self.modes.iter().any(|m| ok(m.values[i])));
        let usable = |mode: &&KeyMode| mode.values.iter().any(|&n| ok(n)) || mode.free.iter().any(free_key);
        let witnessed = self.modes.iter().filter(usable).fold(0, |met, mode| met | mode.witnesses);
        let witnessed = (declared..64 * self.required.len())
            .all(|i| !required(i) || u64::from(witnessed) >> (i - declared) & 1 == 1);
        met && witnessed
            && self.required_count <= self.max
            && self.min <= self.max
            && (any_free || names as u32 >= self.min)
    }
}

impl Array {
    /// The choices for the item at place `index`.
    pub fn choices(&self, index: u32) -> &[Choice] {
        self.prefix.get(index as usize).unwrap_or(&self.rest)
    }

    fn is_productive(&self, ok: &dyn Fn(NodeId) -> bool) -> bool {
        let place = |i: u32| self.choices(i).iter().any(|c| ok(c.node));
        let prefix = self.prefix.len() as u32;
        self.min <= self.max
            && (0..self.min.min(prefix)).all(place)
            && (self.min <= prefix || place(prefix))
            && (self.counters.is_empty() || self.search_end(0, 0, ok))
    }
}
