//! Rows made before they are asked for, on a thread of their own.
//!
//! The masks that take long are first visits of states inside patterns, and of texts whose class is new to
//! the vocabulary. Neither depends on the parser, so they are computed from a copy of the automaton without the
//! grammar's lock, which is taken only to hand over what was found.

use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;

use crate::grammar::chars::{CharSet, Spelling};
use crate::grammar::{Grammar, Node, NodeId, UNBOUNDED};
use crate::mask::matcher::{CompiledGrammar, WeakGrammar};
use crate::mask::rows::{text_row, Ground};
use crate::mask::tables::{Table, MIN_CLASS, MIN_SUBTREE};

/// Time that one grammar may take.
const PATIENCE: Duration = Duration::from_millis(100);
/// States of one automaton.
const MOST_STATES: usize = 64;
/// Grammars that wait.
const MOST_WAITING: usize = 256;

/// Texts of a grammar that rows can be made for ahead of time.
#[derive(Default)]
struct Work {
    /// Automata and how they are spelled.
    automata: Vec<(u32, Spelling)>,
    /// Classes that fill a string.
    classes: Vec<(Arc<CharSet>, Spelling)>,
    /// Names and the like, in grammars with rules.
    openings: Vec<NodeId>,
}

impl Work {
    fn of(grammar: &Grammar) -> Self {
        let mut work = Self::default();
        let (mut automata, mut classes) = (FxHashSet::default(), FxHashSet::default());
        let full = Arc::new(CharSet::all());
        for (i, node) in grammar.nodes.iter().enumerate() {
            if grammar.merges && matches!(node, Node::Text(_) | Node::Runs(..)) {
                work.openings.push(i as NodeId);
            }
            match node {
                Node::Text(text) if text.lengths.is_none() && text.spelling == Spelling::Json => {
                    automata.insert((text.automaton, text.spelling));
                }
                Node::Runs(runs, spelling) if runs.len() == 1 && runs[0].class.len() >= MIN_CLASS => {
                    classes.insert((Arc::clone(&runs[0].class), *spelling));
                }
                Node::Object(object) => {
                    for free in object.modes.iter().flat_map(|mode| &mode.free) {
                        match free.automaton {
                            Some(automaton) => drop(automata.insert((automaton, Spelling::Json))),
                            None => drop(classes.insert((Arc::clone(&full), Spelling::Json))),
                        }
                    }
                }
                _ => {}
            }
        }
        work.automata.extend(automata);
        work.automata.sort_unstable_by_key(|a| a.0);
        work.classes.extend(classes);
        work
    }
}

impl CompiledGrammar {
    /// Makes rows that will probably be asked for, for some time at most; returns their number. Masks are the
    /// same without it.
    pub fn fill_ahead(&self) -> usize {
        let end = Instant::now() + PATIENCE;
        let (ground, full) = (self.ground(), Arc::new(CharSet::all()));
        let work = Work::of(ground.grammar);
        let mut made = 0;
        // Where a string may begin: at its first character and before its quote.
        let trie = &ground.lexicon.trie;
        let quoted = [Some(0), trie.child(0, b' ')].into_iter().flatten();
        let mut places = vec![0];
        places.extend(quoted.filter_map(|node| trie.child(node, b'"')));
        places.retain(|&node| trie.end(node) - node > MIN_SUBTREE);
        for (class, spelling) in &work.classes {
            let id = ground.lexicon.class(class);
            let nodes = if *spelling == Spelling::Json { &places[..] } else { &[0] };
            for &node in nodes.iter().take_while(|_| Instant::now() < end) {
                let table = ground.lexicon.table(ground.vocabulary, node, id, class, *spelling);
                made += usize::from(table.base(UNBOUNDED, ground.lexicon.words).is_some());
            }
        }
        for &node in &work.openings {
            if Instant::now() < end {
                made += usize::from(self.open_ahead(ground, node).is_some());
            }
        }
        for &(automaton, spelling) in &work.automata {
            made += self.read_ahead(ground, &full, (automaton, spelling), &places, end);
        }
        made
    }

    /// The table of a text that begins with one character of a class and stays in another.
    fn open_ahead(&self, ground: Ground<'_>, node: NodeId) -> Option<Arc<Table>> {
        let opening = self.with_recognizer(|recognizer| recognizer.opening(ground.grammar, node))?;
        let table = ground.lexicon.table_after(ground.vocabulary, 0, &opening.first, &opening.class);
        table.base(UNBOUNDED, ground.lexicon.words);
        Some(table)
    }

    /// Rows of an automaton's states, breadth first.
    fn read_ahead(
        &self,
        ground: Ground<'_>,
        full: &Arc<CharSet>,
        (number, spelling): (u32, Spelling),
        places: &[u32],
        end: Instant,
    ) -> usize {
        let mut automaton = self.with_recognizer(|recognizer| recognizer.automata[number as usize].clone());
        let start = automaton.start();
        let (mut seen, mut todo) = (FxHashSet::from_iter([start]), vec![(start, Vec::new())]);
        let (mut at, mut made) = (0, 0);
        while at < todo.len() && at < MOST_STATES && Instant::now() < end {
            let (q, path) = todo[at].clone();
            let mut rows = Vec::new();
            for &node in if q == start { places } else { &[0] } {
                rows.push((node, text_row(ground, full, &mut automaton, node, q, spelling)));
            }
            made += rows.len();
            self.publish(number, &path, &rows);
            for (c, next) in automaton.successors(q) {
                if seen.insert(next) {
                    todo.push((next, path.iter().copied().chain([c]).collect()));
                }
            }
            at += 1;
        }
        made
    }

    /// As [`Self::fill_ahead`] on a thread that all grammars share; false if too many wait for it.
    pub fn fill_later(&self) -> bool {
        static QUEUE: OnceLock<Option<SyncSender<WeakGrammar>>> = OnceLock::new();
        let queue = QUEUE.get_or_init(|| {
            let (sender, waiting) = sync_channel::<WeakGrammar>(MOST_WAITING);
            let work = move || {
                for grammar in waiting {
                    if let Some(grammar) = grammar.upgrade() {
                        grammar.fill_ahead();
                    }
                }
            };
            let thread = std::thread::Builder::new().name("tokamask-ahead".into()).spawn(work);
            thread.is_ok().then_some(sender)
        });
        queue.as_ref().is_some_and(|queue| queue.try_send(self.downgrade()).is_ok())
    }
}
