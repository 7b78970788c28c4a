//! Which states are runs of one class, and which bytes can come next: what rows are served by.

use std::sync::Arc;

use crate::grammar::chars::{CharSet, Spelling, BOUNDARY};
use crate::grammar::words::{WordTrie, NO_WORD};
use crate::grammar::{add_byte, has_byte, Grammar, Node, Object, Run, Text, UNBOUNDED};
use crate::mask::recognizer::{
    Frame, Recognizer, Thread, AFTER, COLON, COMMA, DONE, KEY, OFF_TRIE, OPEN, VALUE,
};
use crate::mask::tables::MIN_CLASS;

/// A state that stays where it is under the characters of a class.
pub struct Staying {
    /// The characters.
    pub class: Arc<CharSet>,
    /// How they are spelled.
    pub spelling: Spelling,
    /// At least so many more before it may be left.
    pub min: u32,
    /// At most so many more.
    pub max: u32,
    /// What may follow depends on the characters read meanwhile.
    pub branching: bool,
    /// Only the closing quote leaves.
    pub closing: bool,
}

/// Further characters that are tried where a length bounds an automaton.
const LONGEST: u32 = 256;

const ALL: [u64; 4] = [u64::MAX; 4];

impl Thread {
    /// Between the parts of an object or array: how much more white space may come.
    pub fn room_for_space(&self, grammar: &Grammar) -> Option<u32> {
        let top = &self.top;
        if top.node == DONE {
            return None;
        }
        let between = match &grammar.nodes[top.node as usize] {
            // What stands around a whole value.
            Node::Sequence(nodes) if top.state == 0 => {
                let &[space, value] = nodes.as_slice() else { return None };
                let value = value as usize;
                let apart = !grammar.nullable[value]
                    && b" \n\r\t".iter().all(|&b| !has_byte(&grammar.first[value], b));
                return match &grammar.nodes[space as usize] {
                    Node::Runs(runs, Spelling::Plain) if apart && is_json_space(runs) => Some(runs[0].max),
                    _ => None,
                };
            }
            _ if top.state == 0 => false,
            Node::Object(_) => top.phase() != KEY,
            Node::Array(_) => true,
            _ => false,
        };
        between.then(|| grammar.space.saturating_sub(top.position()))
    }
}

impl Recognizer {
    /// The run that a thread stands in, if its class is large enough for a table.
    pub fn staying(&mut self, grammar: &Grammar, thread: Thread, full: &Arc<CharSet>) -> Option<Staying> {
        let top = thread.top;
        if top.node == DONE || top.state == 0 || top.partial != BOUNDARY {
            return None;
        }
        match &grammar.nodes[top.node as usize] {
            Node::Runs(runs, spelling) => run_at(runs, *spelling, &top),
            Node::Text(text) => {
                let run = self.automata[text.automaton as usize].run(top.q, MIN_CLASS)?;
                let (mut max, mut branching) = (UNBOUNDED, !run.stays);
                if let Some((least, most, lengths)) = &text.lengths {
                    if !run.stays {
                        return None;
                    }
                    // How many more characters fit; they must fit without a gap.
                    let fits = |n: u32| lengths.possible(top.q, top.count.saturating_add(n), *least, *most);
                    let room = (1..=LONGEST).take_while(|&n| fits(n)).count() as u32;
                    if (room + 1..=LONGEST).any(fits) {
                        return None;
                    }
                    max = room;
                    branching = true;
                }
                Some(Staying {
                    class: run.class,
                    spelling: text.spelling,
                    min: 0,
                    max,
                    branching,
                    closing: false,
                })
            }
            Node::Object(object) if top.phase() == KEY && top.kind_of_name() > 0 => {
                let free = &object.modes[top.mode()].free[top.kind_of_name() as usize - 1];
                let (class, branching) = match free.automaton {
                    Some(a) => {
                        let run = self.automata[a as usize].run(top.q, MIN_CLASS)?;
                        (run.class, !run.stays)
                    }
                    None => (Arc::clone(full), false),
                };
                Some(Staying {
                    class,
                    spelling: Spelling::Json,
                    min: 0,
                    max: UNBOUNDED,
                    branching,
                    closing: free.automaton.is_none(),
                })
            }
            _ => None,
        }
    }

    /// The thread that leaves a run: counts are met, the position among declared names is forgotten.
    pub fn leaving(grammar: &Grammar, thread: Thread) -> Thread {
        let mut top = thread.top;
        match &grammar.nodes[top.node as usize] {
            Node::Runs(runs, _) => {
                if let Some(run) = runs.get(top.state as usize - 1) {
                    top.count = top.count.max(run.min);
                }
            }
            Node::Object(_) => top.state = KEY << 28 | OFF_TRIE,
            _ => {}
        }
        Thread { top, parent: thread.parent }
    }

    /// True if any number up to `most` of these characters can follow in a plain text: see
    /// [`Lexicon::below`](crate::mask::tables::Lexicon::below).
    pub fn keeps(&mut self, grammar: &Grammar, top: &Frame, characters: u128, most: u32) -> bool {
        if top.partial != BOUNDARY || top.state == 0 {
            return false;
        }
        match &grammar.nodes[top.node as usize] {
            Node::Text(text) => {
                let automaton = &mut self.automata[text.automaton as usize];
                characters & !automaton.stays(top.q) == 0 || characters & !automaton.sticks(top.q) == 0
            }
            Node::Runs(runs, _) => runs.get(top.state as usize - 1).is_some_and(|run| {
                let room = run.max == UNBOUNDED || run.max.saturating_sub(top.count) >= most;
                let plain = self.plain.entry((top.node, top.state));
                room && characters & !*plain.or_insert_with(|| run.class.plain()) == 0
            }),
            _ => false,
        }
    }

    /// The frame that stands where a full run ends as one that stands before the next run, which is the same.
    pub fn settled(grammar: &Grammar, mut top: Frame) -> Frame {
        if let Node::Runs(runs, _) = &grammar.nodes[top.node as usize] {
            let full = |top: &Frame| top.count == runs[top.state as usize - 1].max;
            while top.state != 0 && top.partial == BOUNDARY && (top.state as usize) < runs.len() && full(&top)
            {
                top = Frame { state: top.state + 1, count: 0, ..top };
            }
        }
        top
    }

    /// The class of characters under which a plain text stays where it is, if it is large.
    pub fn stays_in(&mut self, grammar: &Grammar, top: &Frame) -> Option<Arc<CharSet>> {
        if top.partial != BOUNDARY || top.state == 0 {
            return None;
        }
        match &grammar.nodes[top.node as usize] {
            Node::Text(text) => {
                let run = self.automata[text.automaton as usize].run(top.q, MIN_CLASS)?;
                run.stays.then_some(run.class)
            }
            Node::Runs(runs, _) => {
                let at = top.state as usize - 1;
                let run = runs.get(at).filter(|run| run.max == UNBOUNDED && top.count >= run.min)?;
                let open =
                    runs[at + 1..].iter().position(|next| next.min > 0).map_or(runs.len(), |n| at + 2 + n);
                let apart = runs[at + 1..open].iter().all(|n| n.class.intersection(&run.class).is_empty());
                (apart && run.class.len() >= MIN_CLASS).then(|| Arc::clone(&run.class))
            }
            _ => None,
        }
    }

    /// What a mask row depends on in the top frame: counts only by what is left, as far as tokens reach.
    pub fn row_key(&self, grammar: &Grammar, thread: Thread) -> Frame {
        let mut top = thread.top;
        top.text = 0;
        top.names = 0;
        if top.node != DONE && top.state != 0 {
            match &grammar.nodes[top.node as usize] {
                Node::Runs(runs, _) => {
                    if let Some(run) = runs.get(top.state as usize - 1) {
                        let far = self.longest.min(0xfff0) + 1;
                        let left = |n: u32| {
                            if n == UNBOUNDED {
                                0xffff
                            } else {
                                n.saturating_sub(top.count).min(far)
                            }
                        };
                        top.count = left(run.min) << 16 | left(run.max);
                    }
                }
                Node::Text(Text { lengths: Some((min, max, lengths)), .. }) => {
                    top.count = lengths.representative(top.count, *min, *max, self.longest);
                }
                _ => {}
            }
        }
        top
    }

    /// A superset of the bytes that can come next.
    pub fn next_bytes(&mut self, grammar: &Grammar, thread: Thread) -> [u64; 4] {
        let top = thread.top;
        if top.node == DONE {
            return [0; 4];
        }
        let mut set = [0; 4];
        if let Node::Rule(_) = grammar.nodes[top.node as usize] {
            let expansion = self.expand(grammar, thread);
            for &(node, _) in &expansion.starts {
                join(&mut set, &grammar.first[node as usize]);
            }
            for &other in &expansion.others {
                let after = self.next_bytes(grammar, other);
                join(&mut set, &after);
            }
            return set;
        }
        if top.state == 0 {
            return if grammar.nullable[top.node as usize] { ALL } else { grammar.first[top.node as usize] };
        }
        match &grammar.nodes[top.node as usize] {
            Node::Words(trie, spelling) => {
                if top.partial != BOUNDARY {
                    return ALL;
                }
                word_bytes(trie, top.state - 1, *spelling, &mut set);
                if trie.word(top.state - 1) != NO_WORD {
                    return self.ending(grammar, thread, *spelling, set);
                }
            }
            Node::Text(text) => {
                if top.partial != BOUNDARY {
                    return ALL;
                }
                let automaton = &mut self.automata[text.automaton as usize];
                let ascii = automaton.live_ascii(top.q);
                spell(ascii, automaton.any_in(top.q, 128, 0x10_ffff), text.spelling, &mut set);
                if automaton.accepts(top.q) {
                    return self.ending(grammar, thread, text.spelling, set);
                }
            }
            Node::Runs(runs, spelling) => {
                if top.partial != BOUNDARY {
                    return ALL;
                }
                for run in &runs[top.state as usize - 1..] {
                    let beyond = run.class.ranges().last().is_some_and(|r| r.1 >= 128);
                    spell(run.class.ascii(), beyond, *spelling, &mut set);
                }
                return self.ending(grammar, thread, *spelling, set);
            }
            Node::Object(object) => return Self::object_bytes(grammar, object, &top),
            Node::Array(array) => {
                b" \n\r\t".iter().for_each(|&b| add_byte(&mut set, b));
                if top.phase() == AFTER {
                    b",]".iter().for_each(|&b| add_byte(&mut set, b));
                } else {
                    if top.phase() == OPEN {
                        add_byte(&mut set, b']');
                    }
                    for choice in array.choices(top.count) {
                        join(&mut set, &grammar.first[choice.node as usize]);
                    }
                }
            }
            _ => return ALL,
        }
        set
    }

    /// Adds what may follow a text that can end here.
    fn ending(
        &mut self,
        grammar: &Grammar,
        thread: Thread,
        spelling: Spelling,
        mut set: [u64; 4],
    ) -> [u64; 4] {
        if spelling == Spelling::Json {
            add_byte(&mut set, b'"');
        } else {
            let mut below = Vec::new();
            self.pop(thread.parent, &mut below);
            for thread in below {
                let after = self.next_bytes(grammar, thread);
                join(&mut set, &after);
            }
        }
        set
    }

    fn object_bytes(grammar: &Grammar, object: &Object, top: &Frame) -> [u64; 4] {
        let mut set = [0; 4];
        let mut add = |bytes: &[u8]| bytes.iter().for_each(|&b| add_byte(&mut set, b));
        match top.phase() {
            KEY if top.kind_of_name() == 0 && top.partial == BOUNDARY => {
                word_bytes(&object.keys, top.position(), Spelling::Json, &mut set);
                add_byte(&mut set, b'"');
            }
            OPEN => add(b" \n\r\t\"}"),
            COLON => add(b" \n\r\t:"),
            AFTER => add(b" \n\r\t,}"),
            COMMA => add(b" \n\r\t\""),
            VALUE => {
                add(b" \n\r\t");
                join(&mut set, &grammar.first[top.q as usize]);
            }
            _ => return ALL,
        }
        set
    }
}

fn join(set: &mut [u64; 4], other: &[u64; 4]) {
    set.iter_mut().zip(other).for_each(|(s, o)| *s |= o);
}

fn is_json_space(runs: &[Run]) -> bool {
    let one = |run: &Run| {
        run.min == 0 && run.max != UNBOUNDED && run.class.ranges() == [(9, 10), (13, 13), (32, 32)]
    };
    matches!(runs, [run] if one(run))
}

/// Bytes that can begin a character of a class.
fn spell(ascii: u128, beyond: bool, spelling: Spelling, set: &mut [u64; 4]) {
    set[0] |= ascii as u64;
    set[1] |= (ascii >> 64) as u64;
    if beyond {
        set[3] = u64::MAX;
    }
    if spelling == Spelling::Json && (beyond || ascii & escapable() != 0) {
        add_byte(set, b'\\');
    }
}

/// ASCII characters that have an escape.
fn escapable() -> u128 {
    0xffff_ffff | 1 << b'"' | 1 << b'\\' | 1 << b'/' | 1 << 127
}

fn word_bytes(trie: &WordTrie, node: u32, spelling: Spelling, set: &mut [u64; 4]) {
    for &(c, _) in trie.children(node) {
        let ascii = if c < 128 { 1u128 << c } else { 0 };
        spell(ascii, c >= 128, spelling, set);
    }
}

fn run_at(runs: &[Run], spelling: Spelling, top: &Frame) -> Option<Staying> {
    let at = top.state as usize - 1;
    let run = runs.get(at)?;
    if run.class.len() < MIN_CLASS {
        return None;
    }
    let mut branching = false;
    for next in &runs[at + 1..] {
        branching |= share_spellings(&run.class, &next.class, spelling);
        if next.min > 0 {
            break;
        }
    }
    let max = if run.max == UNBOUNDED { UNBOUNDED } else { run.max - top.count };
    if branching && max < 16 {
        return None;
    }
    Some(Staying {
        class: Arc::clone(&run.class),
        spelling,
        min: run.min.saturating_sub(top.count),
        max,
        branching,
        closing: spelling == Spelling::Json && at + 1 == runs.len(),
    })
}

/// True if a character of one begins like a character of the other.
fn share_spellings(a: &CharSet, b: &CharSet, spelling: Spelling) -> bool {
    let long = |set: &CharSet| {
        set.any_in(128, 0x10_ffff) || spelling == Spelling::Json && set.ascii() & escapable() != 0
    };
    !a.intersection(b).is_empty() || long(a) && long(b)
}
