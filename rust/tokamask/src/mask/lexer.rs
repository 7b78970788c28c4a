//! What tokens do to a text that is being spelled: a walk that knows only the state of the text, not the
//! grammar around it. Tokens that stay inside are listed at once where a whole subtree of the
//! vocabulary keeps to characters that change nothing; tokens that close a JSON string are listed with
//! what follows their quote.

use std::sync::Arc;

use crate::grammar::automaton::{Automaton, Lengths, DEAD};
use crate::grammar::chars::{decode, possible, Decoded, Partial, Spelling, BOUNDARY, SPECIAL};
use crate::grammar::{add_byte, Run, UNBOUNDED};
use crate::mask::ageing::Weigh;
use crate::mask::tables::{Lexicon, MIN_BASE};
use crate::vocabulary::trie::TokenTrie;

/// A deterministic reader of characters.
pub trait Lexer {
    /// Where it stands.
    type State: Copy;
    /// The state after a character.
    fn step(&mut self, state: Self::State, c: u32) -> Option<Self::State>;
    /// True if some character in `low..=high` can follow.
    fn any_in(&mut self, state: Self::State, low: u32, high: u32) -> bool;
    /// True if the text may end.
    fn accepts(&mut self, state: Self::State) -> bool;
    /// True if any number up to `most` of the characters can follow: see [`Lexicon::below`].
    fn stays(&mut self, state: Self::State, characters: u128, most: u32) -> bool;
}

/// The states of an automaton, with bounds on the number of characters.
pub struct AutomatonLexer<'a> {
    pub automaton: &'a mut Automaton,
    pub lengths: Option<&'a Bounds>,
}

type Bounds = (u32, Option<u32>, Lengths);

fn fits(lengths: Option<&Bounds>, q: u32, count: u32) -> bool {
    lengths.is_none_or(|(min, max, lengths)| lengths.possible(q, count, *min, *max))
}

impl Lexer for AutomatonLexer<'_> {
    type State = (u32, u32);

    fn step(&mut self, (q, count): (u32, u32), c: u32) -> Option<(u32, u32)> {
        let q = self.automaton.step(q, c);
        let count = count + u32::from(self.lengths.is_some());
        (q != DEAD && fits(self.lengths, q, count)).then_some((q, count))
    }

    fn any_in(&mut self, (q, count): (u32, u32), low: u32, high: u32) -> bool {
        if self.lengths.is_none() {
            return self.automaton.any_in(q, low, high);
        }
        let lengths = self.lengths;
        self.automaton.any_fit(q, low, high, |q| fits(lengths, q, count + 1))
    }

    fn accepts(&mut self, (q, count): (u32, u32)) -> bool {
        self.automaton.accepts(q)
            && self.lengths.is_none_or(|(min, max, _)| count >= *min && max.is_none_or(|max| count <= max))
    }

    fn stays(&mut self, (q, count): (u32, u32), characters: u128, most: u32) -> bool {
        let Some((_, _, lengths)) = self.lengths else {
            return characters & !self.automaton.stays(q) == 0
                || characters & !self.automaton.sticks(q) == 0
                || characters & SPECIAL == 0 && most <= self.automaton.goes_on_for(q);
        };
        // Every length between must be possible as well: that holds where lengths have no gaps.
        characters & !self.automaton.stays(q) == 0
            && lengths.has_no_gaps()
            && fits(self.lengths, q, count)
            && fits(self.lengths, q, count + most)
    }
}

/// Counted classes one after another, where each character belongs to one of them only.
pub struct RunsLexer<'a> {
    runs: &'a [Run],
    /// [`CharSet::plain`](crate::grammar::chars::CharSet::plain) of each class.
    plain: Vec<u128>,
}

impl<'a> RunsLexer<'a> {
    /// A reader of these runs.
    pub fn new(runs: &'a [Run]) -> Self {
        Self { runs, plain: runs.iter().map(|run| run.class.plain()).collect() }
    }

    /// The runs that a next character may belong to, with the count in each.
    fn open(&self, (at, count): (u32, u32)) -> impl Iterator<Item = (u32, u32, &Run)> {
        let mut reached = true;
        self.runs.iter().enumerate().skip(at as usize).filter_map(move |(i, run)| {
            let count = if i as u32 == at { count } else { 0 };
            let open = reached;
            reached &= count >= run.min;
            (open && count < run.max).then_some((i as u32, count, run))
        })
    }
}

impl Lexer for RunsLexer<'_> {
    type State = (u32, u32);

    fn step(&mut self, state: (u32, u32), c: u32) -> Option<(u32, u32)> {
        self.open(state).find(|(_, _, run)| run.class.has(c)).map(|(i, count, _)| (i, count + 1))
    }

    fn any_in(&mut self, state: (u32, u32), low: u32, high: u32) -> bool {
        self.open(state).any(|(_, _, run)| run.class.any_in(low, high))
    }

    fn accepts(&mut self, (at, count): (u32, u32)) -> bool {
        let rest = &self.runs[at as usize..];
        rest.first().is_none_or(|run| count >= run.min) && rest.iter().skip(1).all(|run| run.min == 0)
    }

    fn stays(&mut self, (at, count): (u32, u32), characters: u128, most: u32) -> bool {
        self.runs.get(at as usize).is_some_and(|run| {
            (run.max == UNBOUNDED || run.max.saturating_sub(count) >= most)
                && characters & !self.plain[at as usize] == 0
        })
    }
}

/// Tokens that stay in a text, and how others leave it.
#[derive(Default)]
pub struct Reach {
    /// The tokens that stay.
    pub inside: Vec<u32>,
    /// Tokens that close a JSON string, with the place of what follows in [`Lexicon::after_quote`].
    pub closers: Vec<(u32, u32)>,
    /// Trie nodes at which a plain text may end though tokens go on, and the bytes with which they do.
    pub ends: Vec<(u32, [u64; 4])>,
}

impl Reach {
    /// Walks the tokens below a trie node, where a character begins.
    pub fn new<L: Lexer>(
        lexicon: &Lexicon,
        lexer: &mut L,
        node: u32,
        state: L::State,
        spelling: Spelling,
    ) -> Self {
        let mut reach = Self::default();
        match spelling {
            Spelling::Json => reach.walk(lexicon, lexer, node, state, BOUNDARY),
            Spelling::Plain => reach.walk_plain(lexicon, lexer, node, state, BOUNDARY),
        }
        reach
    }

    fn walk_plain<L: Lexer>(
        &mut self,
        lexicon: &Lexicon,
        lexer: &mut L,
        node: u32,
        state: L::State,
        partial: Partial,
    ) {
        let trie = &lexicon.trie;
        if partial == BOUNDARY && lexer.accepts(state) && !trie.children(node).is_empty() {
            let mut bytes = [0; 4];
            trie.children(node).iter().for_each(|c| add_byte(&mut bytes, c.0));
            self.ends.push((node, bytes));
        }
        for &(byte, child) in trie.children(node) {
            let (next, partial) = match decode(partial, byte, Spelling::Plain) {
                Decoded::Char(c) => match lexer.step(state, c) {
                    Some(next) => (next, BOUNDARY),
                    None => continue,
                },
                Decoded::More(partial) if possible(partial, |low, high| lexer.any_in(state, low, high)) => {
                    (state, partial)
                }
                _ => continue,
            };
            self.inside.extend(trie.items(child).iter().map(|i| i.id));
            self.walk_plain(lexicon, lexer, child, next, partial);
        }
    }

    fn walk<L: Lexer>(
        &mut self,
        lexicon: &Lexicon,
        lexer: &mut L,
        node: u32,
        state: L::State,
        partial: Partial,
    ) {
        let trie = &lexicon.trie;
        for &(byte, child) in trie.children(node) {
            match decode(partial, byte, Spelling::Json) {
                Decoded::Char(c) => {
                    let Some(next) = lexer.step(state, c) else { continue };
                    let below = lexicon.below[child as usize];
                    if below == 0 {
                        self.inside.extend(trie.items(child).iter().map(|i| i.id));
                    } else if lexer.stays(next, below, lexicon.deepest[child as usize]) {
                        self.inside.extend(trie.items_below(child).iter().map(|i| i.id));
                    } else {
                        self.inside.extend(trie.items(child).iter().map(|i| i.id));
                        self.walk(lexicon, lexer, child, next, BOUNDARY);
                    }
                }
                Decoded::More(partial) if possible(partial, |low, high| lexer.any_in(state, low, high)) => {
                    self.inside.extend(trie.items(child).iter().map(|i| i.id));
                    self.walk(lexicon, lexer, child, state, partial);
                }
                Decoded::Close if lexer.accepts(state) => {
                    lexicon.following(child, 0, &mut |place, id| self.closers.push((place, id)));
                }
                _ => {}
            }
        }
    }
}

/// The tokens of [`crate::mask::tables::Table::closing`] that close a string, with their places.
pub fn closers<L: Lexer>(trie: &TokenTrie, lexer: &mut L, state: L::State) -> Vec<(u32, u32)> {
    fn walk<L: Lexer>(
        trie: &TokenTrie,
        lexer: &mut L,
        node: u32,
        state: L::State,
        partial: Partial,
        out: &mut Vec<(u32, u32)>,
    ) {
        for &(byte, child) in trie.children(node) {
            match decode(partial, byte, Spelling::Json) {
                Decoded::Char(c) => {
                    if let Some(next) = lexer.step(state, c) {
                        walk(trie, lexer, child, next, BOUNDARY, out);
                    }
                }
                Decoded::More(partial) => walk(trie, lexer, child, state, partial, out),
                Decoded::Close if lexer.accepts(state) => {
                    out.extend(trie.items_below(child).iter().map(|i| (i.chars, i.id)));
                }
                _ => {}
            }
        }
    }
    let mut out = Vec::new();
    walk(trie, lexer, 0, state, BOUNDARY, &mut out);
    out
}

/// What tokens do from one state of a text, whatever stands around it.
pub struct TextRow {
    /// The tokens that stay, if they are many.
    pub base: Option<Arc<[u32]>>,
    /// The tokens that stay, if they are few.
    pub ids: Vec<u32>,
    /// As in [`Reach`].
    pub closers: Vec<(u32, u32)>,
    /// As in [`Reach`].
    pub ends: Vec<(u32, [u64; 4])>,
}

impl TextRow {
    /// Lists of many ids become rows.
    pub fn new(lexicon: &Lexicon, reach: Reach) -> Self {
        let Reach { inside, closers, ends } = reach;
        if inside.len() <= MIN_BASE {
            return Self { base: None, ids: inside, closers, ends };
        }
        let mut base = vec![0u32; lexicon.words];
        for id in inside {
            base[id as usize / 32] |= 1 << (id % 32);
        }
        Self { base: Some(base.into()), ids: Vec::new(), closers, ends }
    }
}

impl Weigh for TextRow {
    fn weight(&self) -> usize {
        let base = self.base.as_ref().map_or(0, |b| b.len() * 4);
        base + self.ids.len() * 4 + self.closers.len() * 8 + self.ends.len() * 40 + 96
    }
}
