//! Threads that stand in a text or between the parts of a value: served from what is known of the
//! vocabulary and of the text alone.

use std::sync::Arc;

use super::{bytes_of, declared_exits, has_place, Ground, MaskRow, Rows, StringKey, SPACES};
use crate::grammar::automaton::Automaton;
use crate::grammar::chars::{CharSet, Spelling, BOUNDARY};
use crate::grammar::{Node, Run, UNBOUNDED};
use crate::mask::lexer::{closers, AutomatonLexer, Reach, RunsLexer, TextRow};
use crate::mask::recognizer::{Frame, Recognizer, Thread, DONE, KEY, OFF_TRIE};

impl Rows {
    /// Serves a thread that stands between the parts of an object or array, where white space may come;
    /// false if it does not.
    pub(super) fn walk_space(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        thread: Thread,
        row: &mut MaskRow,
    ) -> bool {
        let Some(room) = thread.room_for_space(ground.grammar) else { return false };
        let spaces = &ground.lexicon.spaces;
        if room > 0 {
            row.ids.extend(spaces.tokens.iter().filter(|t| t.chars <= room).map(|t| t.id));
        }
        let mut next = recognizer.next_bytes(ground.grammar, thread);
        next.iter_mut().zip(SPACES).for_each(|(n, s)| *n &= !s);
        let (trie, bounds) = (&ground.lexicon.trie, (0, UNBOUNDED));
        for byte in bytes_of(next) {
            let from = self.buffer.len();
            let mut buffer = std::mem::take(&mut self.buffer);
            recognizer.step(ground.grammar, thread, byte, &mut buffer);
            self.buffer = buffer;
            if self.buffer.len() == from {
                continue;
            }
            let threads = self.buffer.split_off(from);
            let ends = spaces.ends[byte as usize].iter().filter(|end| end.1 <= room).map(|end| end.0);
            for node in trie.child(0, byte).into_iter().chain(ends) {
                self.buffer.extend(&threads);
                self.below(ground, recognizer, trie, (true, node), from, bounds, row);
            }
        }
        true
    }

    /// What the row of a thread inside a string depends on, where that is the text and what may follow its quote.
    /// States that differ in the rest of the stack, as in which properties have been written, are then new to the memo
    /// but not here: on real schemas half of the time of first visits above 4 us is spent in such states.
    pub(super) fn string_key(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        thread: Thread,
    ) -> Option<StringKey> {
        let top = thread.top;
        if ground.grammar.merges || top.node == DONE || top.state == 0 || top.partial != BOUNDARY {
            return None;
        }
        let of_automaton = |number: u32| (number as usize * 2 + 1, top.q);
        let (text, state) = match &ground.grammar.nodes[top.node as usize] {
            Node::Runs(runs, Spelling::Json) if runs.len() == 1 => {
                let left = recognizer.row_key(ground.grammar, thread).count;
                (Arc::as_ptr(&runs[0].class) as usize, left)
            }
            Node::Text(text) if text.spelling == Spelling::Json && text.lengths.is_none() => {
                of_automaton(text.automaton)
            }
            Node::Object(object) if top.phase() == KEY && top.kind_of_name() > 0 => {
                if top.position() != OFF_TRIE && !object.keys.words().is_empty() {
                    return None; // a declared name may be spelled here
                }
                let free = &object.modes[top.mode()].free[top.kind_of_name() as usize - 1];
                free.automaton.map_or((Arc::as_ptr(&self.full) as usize, 0), of_automaton)
            }
            _ => return None,
        };
        let mut after = Vec::new();
        recognizer.closed(ground.grammar, thread, &mut after);
        let [closed] = after[..] else { return None };
        let places = self.after(ground, recognizer, closed);
        let next = self.place_ids.len() as u32;
        Some((text, state, *self.place_ids.entry(places).or_insert(next)))
    }

    /// Serves a thread that stands in a string of an automaton or of several counted classes, between two
    /// characters; false if it does not.
    pub(super) fn walk_string(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        node: u32,
        thread: Thread,
        row: &mut MaskRow,
    ) -> bool {
        let top = thread.top;
        if top.node == DONE || top.state == 0 || top.partial != BOUNDARY {
            return false;
        }
        let key = recognizer.row_key(ground.grammar, thread);
        let found = match &ground.grammar.nodes[top.node as usize] {
            Node::Text(text) => {
                let automaton = &mut recognizer.automata[text.automaton as usize];
                let spelling = text.spelling;
                if spelling == Spelling::Plain && automaton.known == 0 {
                    return false;
                }
                if text.lengths.is_none() {
                    self.text(ground, recognizer, node, text.automaton, top.q, spelling)
                } else {
                    let mut lexer = AutomatonLexer { automaton, lengths: text.lengths.as_ref() };
                    let make = || Reach::new(ground.lexicon, &mut lexer, node, (top.q, top.count), spelling);
                    self.counted_text(ground, (node, key), make)
                }
            }
            Node::Object(object) if top.phase() == KEY && top.kind_of_name() > 0 => {
                let free = &object.modes[top.mode()].free[top.kind_of_name() as usize - 1];
                let Some(automaton) = free.automaton else { return false };
                self.text(ground, recognizer, node, automaton, top.q, Spelling::Json)
            }
            Node::Runs(runs, Spelling::Json) if separate(runs) => {
                let make = || {
                    let (mut lexer, state) = (RunsLexer::new(runs), (top.state - 1, top.count));
                    Reach::new(ground.lexicon, &mut lexer, node, state, Spelling::Json)
                };
                self.counted_text(ground, (node, key), make)
            }
            _ => return false,
        };
        row.bases.extend(found.base.clone());
        row.ids.extend(&found.ids);
        if !found.ends.is_empty() {
            let mut below = Vec::new();
            recognizer.pop(thread.parent, &mut below);
            let (trie, bounds) = (&ground.lexicon.trie, (0, UNBOUNDED));
            for below in below {
                let next = recognizer.next_bytes(ground.grammar, below);
                for (node, bytes) in &found.ends {
                    if (0..4).any(|k| bytes[k] & next[k] != 0) {
                        self.children_among(ground, recognizer, trie, *node, below, next, bounds, row);
                    }
                }
            }
        }
        if found.closers.is_empty() {
            return true;
        }
        let hidden = declared_exits(ground, node, thread);
        let mut after = Vec::new();
        recognizer.closed(ground.grammar, thread, &mut after);
        for closed in after {
            let places = self.after(ground, recognizer, closed);
            let fits = found.closers.iter().filter(|c| has_place(&places, c.0)).map(|c| c.1);
            if hidden.is_empty() {
                row.ids.extend(fits);
            } else {
                row.ids.extend(fits.filter(|id| hidden.binary_search(id).is_err()));
            }
        }
        true
    }

    /// What tokens do from one state of a text whose characters are counted, whatever stands around it.
    fn counted_text(
        &mut self,
        ground: Ground<'_>,
        key: (u32, Frame),
        make: impl FnOnce() -> Reach,
    ) -> Arc<TextRow> {
        if let Some(found) = self.counted_texts.get(&key) {
            return found;
        }
        let made = Arc::new(TextRow::new(ground.lexicon, make()));
        self.counted_texts.insert(key, Arc::clone(&made));
        made
    }

    fn text(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        node: u32,
        automaton: u32,
        q: u32,
        spelling: Spelling,
    ) -> Arc<TextRow> {
        let key = (node, automaton, q);
        if let Some(found) = self.texts.get(&key) {
            return found;
        }
        let automaton = &mut recognizer.automata[automaton as usize];
        let found = text_row(ground, &self.full, automaton, node, q, spelling);
        self.texts.insert(key, Arc::clone(&found));
        found
    }

    /// Keeps what was computed elsewhere from a copy of an automaton.
    pub fn publish(&mut self, key: (u32, u32, u32), row: &Arc<TextRow>) {
        if self.texts.get(&key).is_none() {
            self.texts.insert(key, Arc::clone(row));
        }
    }
}

/// What tokens do from one state of an automaton below a trie node.
pub fn text_row(
    ground: Ground<'_>,
    full: &Arc<CharSet>,
    automaton: &mut Automaton,
    node: u32,
    q: u32,
    spelling: Spelling,
) -> Arc<TextRow> {
    let known = automaton.known;
    if spelling == Spelling::Json && automaton.goes_on_for_ever(q) {
        // Everything may follow; only what closes the string depends on the state.
        let id = ground.lexicon.class(full);
        let table = ground.lexicon.table(ground.vocabulary, node, id, full, spelling);
        let mut lexer = AutomatonLexer { automaton, lengths: None };
        let closers = closers(table.closing(ground.vocabulary), &mut lexer, (q, 0));
        let base = table.base(UNBOUNDED, ground.lexicon.words);
        let inside = if base.is_some() { &[] } else { table.inside(UNBOUNDED) };
        let ids = inside.iter().map(|i| i.id).collect();
        return Arc::new(TextRow { base, ids, closers, ends: Vec::new() });
    }
    let mut lexer = AutomatonLexer { automaton, lengths: None };
    let mut make =
        || TextRow::new(ground.lexicon, Reach::new(ground.lexicon, &mut lexer, node, (q, 0), spelling));
    if known == 0 {
        Arc::new(make())
    } else {
        ground.lexicon.text((node, known, q, spelling), make)
    }
}

/// Several classes, each character in one of them at most: then one state is enough.
fn separate(runs: &[Run]) -> bool {
    runs.len() > 1
        && (0..runs.len()).all(|i| {
            (0..i).all(|j| runs[i].class.intersection(&runs[j].class).is_empty() || fixed(&runs[j..i]))
        })
}

/// True if the counts leave no choice where these runs end.
fn fixed(runs: &[Run]) -> bool {
    runs.iter().all(|run| run.min == run.max)
}
