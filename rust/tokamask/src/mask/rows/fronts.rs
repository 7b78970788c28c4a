//! Rows of grammars with rules, found without stacks.
//!
//! Where a text or a rule goes on does not depend on what is below it. So two things follow from a place in the
//! grammar and a *front*, a set of places in the trie of tokens, which are the same on every stack: the tokens
//! that end before that place is left, and the front at which it is left. Both are found once. The row of a state
//! is put together by going down its stack, one look-up for each frame, until the front is empty.
//!
//! This is exact: what may follow at a place of the trie does not depend on how it was reached, so a set of places
//! allows what its members allow.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Ground, MaskRow};
use crate::grammar::chars::{CharSet, Spelling, BOUNDARY, MAX_CHAR, PRINTABLE, SPECIAL};
use crate::grammar::{add_byte, has_byte, Grammar, Node, NodeId};
use crate::mask::recognizer::{Frame, Recognizer, Thread, BOTTOM, DONE};
use crate::vocabulary::trie::TokenTrie;

/// The empty front.
const NOWHERE: u32 = 0;
/// The front at which all tokens begin.
const ROOT: u32 = 1;
/// More ids than this are kept as a row.
const MOST_IDS: usize = 1_000;
/// Subtrees with more nodes are served from what the vocabulary knows of a class.
const LARGE: u32 = 300;

/// A set of places where a text may begin: the nodes to which its first byte leads, by that byte.
struct Front {
    nodes: Arc<[u32]>,
    /// The bytes, and where their nodes end.
    groups: Arc<[(u8, u32)]>,
    bytes: [u64; 4],
}

/// Tokens that end inside a text.
struct Piece {
    base: Option<Arc<[u32]>>,
    ids: Box<[u32]>,
}

/// What follows from a place in the grammar and a front.
#[derive(Clone)]
struct Spelled {
    /// The tokens that end before the place is left, as numbers of pieces.
    pieces: Arc<[u32]>,
    /// The front at which it is left.
    next: u32,
}

/// What is known of the fronts of one grammar.
#[derive(Default)]
pub struct Fronts {
    serve: Option<bool>,
    /// For each node, the bytes that may follow it; None: not known yet.
    follow: Option<Box<[[u64; 4]]>>,
    /// By number.
    sets: Vec<Front>,
    numbers: FxHashMap<Arc<[u32]>, u32>,
    pieces: Vec<Piece>,
    /// By a state of a text.
    texts: FxHashMap<(Frame, u32), Spelled>,
    /// By a state of a rule, or a number of repetitions.
    places: FxHashMap<(NodeId, u32, u32), Spelled>,
    /// By their pieces, and whether the thread may end.
    rows: FxHashMap<(Box<[u32]>, bool), Arc<MaskRow>>,
    bytes: usize,
}

impl Fronts {
    /// True if all that a grammar consists of is rules and texts.
    pub fn serve(&mut self, grammar: &Grammar) -> bool {
        let plain = |node: &Node| match node {
            Node::Object(_) | Node::Array(_) | Node::AnyOf(_) | Node::Sequence(_) => false,
            Node::Words(_, spelling) | Node::Runs(_, spelling) => *spelling == Spelling::Plain,
            Node::Text(text) => text.spelling == Spelling::Plain && text.lengths.is_none(),
            Node::Rule(_) | Node::Repeat(..) | Node::Special(_) => true,
        };
        *self.serve.get_or_insert_with(|| grammar.merges && grammar.nodes.iter().all(plain))
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The row of a thread of a grammar that [`Self::serve`] names.
    pub fn row(&mut self, ground: Ground<'_>, recognizer: &mut Recognizer, thread: Thread) -> Arc<MaskRow> {
        self.prepare(ground);
        let ends = recognizer.accepts(ground.grammar, thread);
        let mut pieces = Vec::new();
        let (mut todo, mut seen) = (Vec::new(), FxHashSet::default());
        if thread.top.node != DONE {
            let first = self.after(ground, recognizer, thread.top, ROOT);
            pieces.extend_from_slice(&first.pieces);
            todo.push((thread.parent, first.next));
        }
        while let Some((stack, front)) = todo.pop() {
            if front == NOWHERE || !seen.insert((stack, front)) {
                continue;
            }
            recognizer.stacks.note(stack);
            let mut i = 0;
            while let Some(member) = recognizer.stacks.member(stack, i) {
                i += 1;
                if member != BOTTOM {
                    let (frame, below) = recognizer.stacks.frame(member);
                    let found = self.after(ground, recognizer, frame, front);
                    pieces.extend_from_slice(&found.pieces);
                    todo.push((below, found.next));
                }
            }
        }
        pieces.sort_unstable();
        pieces.dedup();
        self.compose(ground, pieces, ends)
    }

    /// The row of some pieces.
    fn compose(&mut self, ground: Ground<'_>, pieces: Vec<u32>, ends: bool) -> Arc<MaskRow> {
        let key = (pieces.into_boxed_slice(), ends);
        if let Some(known) = self.rows.get(&key) {
            return Arc::clone(known);
        }
        let mut row = MaskRow { ends, ..MaskRow::default() };
        for &number in &*key.0 {
            let piece = &self.pieces[number as usize];
            row.bases.extend(piece.base.clone());
            row.ids.extend_from_slice(&piece.ids);
        }
        if row.bases.len() > 1 || row.ids.len() > MOST_IDS {
            let mut words = vec![0; ground.lexicon.words];
            row.write(&mut words, true);
            row = MaskRow { bases: vec![words.into()], ends, ..MaskRow::default() };
            self.bytes += ground.lexicon.words * 4;
        }
        row.ids.sort_unstable();
        row.ids.dedup();
        row.ids.shrink_to_fit();
        self.bytes += (row.ids.len() + key.0.len()) * 4 + 160;
        let row = Arc::new(row);
        self.rows.insert(key, Arc::clone(&row));
        row
    }

    /// What follows from a frame and a front.
    fn after(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        frame: Frame,
        front: u32,
    ) -> Spelled {
        let grammar = ground.grammar;
        let place = match &grammar.nodes[frame.node as usize] {
            Node::Rule(_) => frame.state.saturating_sub(1),
            Node::Repeat(..) => frame.count,
            _ => return self.text(ground, recognizer, frame, front),
        };
        let key = (frame.node, place, front);
        if let Some(known) = self.places.get(&key) {
            return known.clone();
        }
        let (mut pieces, mut left, mut inside) = (Vec::new(), Vec::new(), Vec::<(Frame, Vec<u32>)>::new());
        match &grammar.nodes[frame.node as usize] {
            Node::Rule(rule) => {
                let state = &rule.states[place as usize];
                if state.ends {
                    left.push(front);
                }
                for &(node, target) in &state.edges {
                    let first = self.begin(ground, recognizer, node, front, &mut pieces);
                    let next = Frame { state: target + 1, ..Frame::start(frame.node) };
                    match inside.iter_mut().find(|known| known.0 == next) {
                        _ if first == NOWHERE => {}
                        Some(known) => known.1.push(first),
                        None => inside.push((next, vec![first])),
                    }
                }
            }
            Node::Repeat(node, min, max) => {
                if place >= *min || grammar.nullable[*node as usize] {
                    left.push(front);
                }
                if place < *max {
                    let first = self.begin(ground, recognizer, *node, front, &mut pieces);
                    inside.push((Recognizer::again(&frame, *min, *max), vec![first]));
                }
            }
            _ => {}
        }
        for (next, fronts) in inside {
            let front = self.union(ground, fronts);
            if front != NOWHERE {
                let found = self.after(ground, recognizer, next, front);
                pieces.extend_from_slice(&found.pieces);
                left.push(found.next);
            }
        }
        pieces.sort_unstable();
        pieces.dedup();
        let spelled = Spelled { pieces: pieces.into(), next: self.union(ground, left) };
        self.bytes += spelled.pieces.len() * 4 + 80;
        self.places.insert(key, spelled.clone());
        spelled
    }

    /// As [`Self::after`] where a node begins; returns the front where it ends.
    fn begin(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        node: NodeId,
        front: u32,
        pieces: &mut Vec<u32>,
    ) -> u32 {
        let (first, bytes) = (&ground.grammar.first[node as usize], &self.sets[front as usize].bytes);
        if (0..4).all(|k| first[k] & bytes[k] == 0) {
            return NOWHERE;
        }
        let found = self.after(ground, recognizer, Frame::start(node), front);
        pieces.extend_from_slice(&found.pieces);
        found.next
    }

    /// What follows from a state of a text.
    fn text(&mut self, ground: Ground<'_>, recognizer: &mut Recognizer, frame: Frame, front: u32) -> Spelled {
        let thread = Thread { top: frame, parent: BOTTOM };
        let key = (recognizer.row_key(ground.grammar, thread), front);
        if let Some(known) = self.texts.get(&key) {
            return known.clone();
        }
        let follow = self.follow.as_ref().map_or([0; 4], |follow| follow[frame.node as usize]);
        let mut walk = Walk { ids: Vec::new(), bases: Vec::new(), ends: Vec::new(), follow };
        if front == ROOT && frame.state != 0 {
            walk.below(ground, recognizer, 0, frame);
        } else {
            let Front { nodes, groups, .. } = &self.sets[front as usize];
            let next = recognizer.next_bytes(ground.grammar, thread);
            let (mut from, mut out) = (0, Vec::new());
            for &(byte, to) in &**groups {
                if has_byte(&next, byte) {
                    walk.step(ground, recognizer, (byte, &nodes[from..to as usize]), frame, &mut out);
                }
                from = to as usize;
            }
        }
        self.found(ground, key, walk)
    }

    /// Keeps what a walk has found.
    fn found(&mut self, ground: Ground<'_>, key: (Frame, u32), walk: Walk) -> Spelled {
        let Walk { ids, bases, ends, .. } = walk;
        let next = self.number(&ground.lexicon.trie, ends);
        let none = ids.is_empty() && bases.is_empty();
        let pieces = if none { [].into() } else { [self.piece(ground, bases, ids)].into() };
        let spelled = Spelled { pieces, next };
        self.bytes += 120;
        self.texts.insert(key, spelled.clone());
        spelled
    }

    fn piece(&mut self, ground: Ground<'_>, mut bases: Vec<Arc<[u32]>>, ids: Vec<u32>) -> u32 {
        let piece = if bases.len() > 1 || ids.len() > MOST_IDS {
            let mut words = vec![0; ground.lexicon.words];
            MaskRow { bases, ids, ..MaskRow::default() }.write(&mut words, true);
            self.bytes += words.len() * 4;
            Piece { base: Some(words.into()), ids: Box::default() }
        } else {
            self.bytes += ids.len() * 4;
            Piece { base: bases.pop(), ids: ids.into() }
        };
        self.pieces.push(piece);
        self.pieces.len() as u32 - 1
    }

    /// The number of a front.
    fn number(&mut self, trie: &TokenTrie, mut nodes: Vec<u32>) -> u32 {
        if nodes.is_empty() {
            return NOWHERE;
        }
        nodes.sort_unstable_by_key(|&node| (trie.byte(node), node));
        nodes.dedup();
        if let Some(&known) = self.numbers.get(&nodes[..]) {
            return known;
        }
        let nodes: Arc<[u32]> = nodes.into();
        let (mut bytes, mut groups) = ([0; 4], Vec::new());
        let mut to = 0;
        for group in nodes.chunk_by(|&a, &b| trie.byte(a) == trie.byte(b)) {
            to += group.len() as u32;
            groups.push((trie.byte(group[0]), to));
            add_byte(&mut bytes, trie.byte(group[0]));
        }
        self.bytes += nodes.len() * 4 + 120;
        let number = self.sets.len() as u32;
        self.sets.push(Front { nodes: Arc::clone(&nodes), groups: groups.into(), bytes });
        self.numbers.insert(nodes, number);
        number
    }

    /// One front of several.
    fn union(&mut self, ground: Ground<'_>, mut fronts: Vec<u32>) -> u32 {
        fronts.sort_unstable();
        fronts.dedup();
        fronts.retain(|&front| front != NOWHERE);
        match fronts[..] {
            [] => NOWHERE,
            [only] => only,
            _ => {
                let all = fronts.iter().flat_map(|&front| &*self.sets[front as usize].nodes);
                let nodes = all.copied().collect();
                self.number(&ground.lexicon.trie, nodes)
            }
        }
    }

    fn prepare(&mut self, ground: Ground<'_>) {
        if self.follow.is_none() {
            let trie = &ground.lexicon.trie;
            self.follow = Some(follow(ground.grammar));
            self.sets.push(Front { nodes: [].into(), groups: [].into(), bytes: [0; 4] });
            self.number(trie, trie.children(0).iter().map(|child| child.1).collect());
        }
    }
}

/// What is found on the way through one text.
struct Walk {
    ids: Vec<u32>,
    bases: Vec<Arc<[u32]>>,
    ends: Vec<u32>,
    /// Bytes that may follow the text.
    follow: [u64; 4],
}

impl Walk {
    /// Walks below a node of the trie.
    fn below(&mut self, ground: Ground<'_>, recognizer: &mut Recognizer, node: u32, frame: Frame) {
        let (trie, grammar) = (&ground.lexicon.trie, ground.grammar);
        let children = trie.children(node);
        if children.is_empty() {
            return;
        }
        let frame = Recognizer::settled(grammar, frame);
        let characters = ground.lexicon.below[node as usize];
        if characters & (SPECIAL | characters_of(&self.follow)) == 0
            && recognizer.keeps(grammar, &frame, characters, ground.lexicon.deepest[node as usize])
        {
            // Everything stays inside, and nothing that may follow begins there.
            self.ids.extend(trie.items_below(node).iter().map(|item| item.id));
            return;
        }
        let ends = frame.partial == BOUNDARY && frame.state != 0 && recognizer.ends_here(grammar, &frame);
        if trie.end(node) - node > LARGE {
            if let Some(class) = recognizer.stays_in(grammar, &frame) {
                if !ends || !may_begin(&class, &self.follow) {
                    return self.inside(ground, recognizer, node, frame, ends, &class);
                }
            }
        }
        let next = if children.len() > 2 {
            recognizer.next_bytes(grammar, Thread { top: frame, parent: BOTTOM })
        } else {
            [u64::MAX; 4]
        };
        let mut out = Vec::new();
        for &(byte, child) in children {
            if ends && has_byte(&self.follow, byte) && recognizer.may_follow(grammar, &frame, byte) {
                self.ends.push(child);
            }
            if has_byte(&next, byte) {
                self.step(ground, recognizer, (byte, &[child]), frame, &mut out);
            }
        }
    }

    /// Goes over one byte, to the nodes it leads to.
    fn step(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        (byte, nodes): (u8, &[u32]),
        frame: Frame,
        out: &mut Vec<Thread>,
    ) {
        out.clear();
        recognizer.step(ground.grammar, Thread { top: frame, parent: BOTTOM }, byte, out);
        if out.is_empty() {
            return;
        }
        for &node in nodes {
            self.ids.extend(ground.lexicon.trie.items(node).iter().map(|item| item.id));
            for next in &*out {
                self.below(ground, recognizer, node, next.top);
            }
        }
    }

    /// As [`Self::below`] for a text that stays where it is under the characters of a class.
    fn inside(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        node: u32,
        frame: Frame,
        ends: bool,
        class: &Arc<CharSet>,
    ) {
        let inside = ground.lexicon.inside(node, class);
        self.bases.extend(inside.base.clone());
        self.ids.extend_from_slice(&inside.ids);
        let mut out = Vec::new();
        for (byte, nodes) in &inside.leaving {
            if ends && has_byte(&self.follow, *byte) && recognizer.may_follow(ground.grammar, &frame, *byte) {
                self.ends.extend_from_slice(nodes);
            }
            self.step(ground, recognizer, (*byte, nodes), frame, &mut out);
        }
    }
}

/// True if a character of a class begins with one of some bytes.
fn may_begin(class: &CharSet, bytes: &[u64; 4]) -> bool {
    let ascii = u128::from(bytes[0]) | u128::from(bytes[1]) << 64;
    class.ascii() & ascii != 0 || bytes[2] | bytes[3] != 0 && class.any_in(128, MAX_CHAR)
}

/// The characters that bytes may begin, as in [`Lexicon::below`](crate::mask::tables::Lexicon::below).
fn characters_of(bytes: &[u64; 4]) -> u128 {
    let beyond = if bytes[2] | bytes[3] == 0 { 0 } else { 0xffff_ffff & !SPECIAL };
    (u128::from(bytes[0]) | u128::from(bytes[1]) << 64) & PRINTABLE | beyond
}

/// The bytes that may follow each node, wherever it stands.
fn follow(grammar: &Grammar) -> Box<[[u64; 4]]> {
    let mut follow = vec![[0u64; 4]; grammar.nodes.len()];
    let add = |set: &mut [u64; 4], more: &[u64; 4]| {
        let before = *set;
        set.iter_mut().zip(more).for_each(|(s, m)| *s |= m);
        before != *set
    };
    let mut changed = true;
    while changed {
        changed = false;
        for (at, node) in grammar.nodes.iter().enumerate() {
            let after = follow[at];
            match node {
                Node::Rule(rule) => {
                    let begin = |state: &crate::grammar::RuleState| {
                        let mut set = if state.ends { after } else { [0; 4] };
                        state.edges.iter().for_each(|edge| {
                            add(&mut set, &grammar.first[edge.0 as usize]);
                        });
                        set
                    };
                    let begins: Vec<[u64; 4]> = rule.states.iter().map(begin).collect();
                    for &(inner, target) in rule.states.iter().flat_map(|state| &state.edges) {
                        changed |= add(&mut follow[inner as usize], &begins[target as usize]);
                    }
                }
                Node::Repeat(inner, ..) => {
                    changed |= add(&mut follow[*inner as usize], &grammar.first[*inner as usize]);
                    changed |= add(&mut follow[*inner as usize], &after);
                }
                _ => {}
            }
        }
    }
    follow.into()
}
