//! Compiled grammars and the state of one request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustc_hash::FxHashMap;

use crate::error::{
    Error, LimitError, RejectedTokenError, RollbackError, UnknownTokenError, VocabularyError,
};
use crate::grammar::{Grammar, NodeId};
use crate::ids::TokenId;
use crate::mask::lexer::TextRow;
use crate::mask::recognizer::{Recognizer, Thread};
use crate::mask::refusal::json_pointer;
use crate::mask::rows::{Ground, MaskRow, Rows};
use crate::mask::specials::{specials, Named};
use crate::mask::tables::Lexicon;
use crate::vocabulary::Vocabulary;

/// Bounds on what a grammar and its masks may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that the rows of one compiled grammar may take; beyond that they are computed again.
    pub row_bytes: usize,
    /// Threads that a state may have.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { row_bytes: 64 << 20, threads: 10_000 }
    }
}

/// A grammar made ready for one vocabulary. Immutable to its users and safe to share: what it learns
/// while it is used is the same for everybody.
#[derive(Clone)]
pub struct CompiledGrammar {
    inner: Arc<Compiled>,
}

struct Compiled {
    grammar: Arc<Grammar>,
    vocabulary: Vocabulary,
    lexicon: Arc<Lexicon>,
    limits: Limits,
    /// Ids of the nodes that are tokens themselves.
    specials: FxHashMap<NodeId, Named>,
    shared: Mutex<Shared>,
}

struct Shared {
    recognizer: Recognizer,
    rows: Rows,
    /// Room for the threads before and after a byte.
    room: [Vec<Thread>; 2],
}

impl CompiledGrammar {
    /// Compiles a grammar for a vocabulary, which must know how a sequence ends.
    pub fn new(grammar: Arc<Grammar>, vocabulary: &Vocabulary, limits: Limits) -> Result<Self, Error> {
        if vocabulary.eos_ids().is_empty() {
            return Err(VocabularyError::new("no end-of-sequence id is known: give eos_ids").into());
        }
        let lexicon = vocabulary.derived(|| Lexicon::new(vocabulary));
        let lexicon = lexicon.unwrap_or_else(|| Arc::new(Lexicon::new(vocabulary)));
        let recognizer = Recognizer::new(grammar.automata.clone(), lexicon.longest);
        let shared = Mutex::new(Shared { recognizer, rows: Rows::default(), room: Default::default() });
        let specials = specials(&grammar, vocabulary)?;
        let vocabulary = vocabulary.clone();
        let inner = Compiled { grammar, vocabulary, lexicon, limits, specials, shared };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A matcher at the beginning.
    pub fn matcher(&self) -> Matcher {
        let threads = Box::new([Recognizer::start(&self.inner.grammar)]);
        let start = Arc::new(State { threads, terminated: false, length: 0, token: None, previous: None });
        Matcher { compiled: self.clone(), state: start }
    }

    /// The vocabulary it was compiled for.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.inner.vocabulary
    }

    /// The bounds it was compiled with.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// 32-bit words of a mask row.
    pub fn words(&self) -> usize {
        self.inner.lexicon.words
    }

    /// What was read as an annotation though it might have been meant as a condition.
    pub fn warnings(&self) -> &[String] {
        &self.inner.grammar.warnings
    }

    /// Bytes of the tables that all grammars of the vocabulary share.
    pub fn table_bytes(&self) -> usize {
        self.inner.lexicon.bytes()
    }

    /// Bytes of memory that grow with use.
    pub fn bytes(&self) -> usize {
        let shared = self.lock();
        shared.recognizer.bytes() + shared.rows.bytes()
    }

    /// What is fixed while rows are computed.
    pub(super) fn ground(&self) -> Ground<'_> {
        let inner = &*self.inner;
        Ground {
            grammar: &inner.grammar,
            lexicon: &inner.lexicon,
            vocabulary: &inner.vocabulary,
            tables: true,
        }
    }

    /// A look at the recognizer, under the lock.
    pub(super) fn with_recognizer<T>(&self, look: impl FnOnce(&mut Recognizer) -> T) -> T {
        look(&mut self.lock().recognizer)
    }

    /// Hands over rows, by trie node, of the state of an automaton that some characters lead to.
    pub(super) fn publish(&self, automaton: u32, path: &[u32], rows: &[(u32, Arc<TextRow>)]) {
        let mut shared = self.lock();
        let Shared { recognizer, rows: known, .. } = &mut *shared;
        let there = &mut recognizer.automata[automaton as usize];
        let q = path.iter().fold(there.start(), |q, &c| there.step(q, c));
        for (node, row) in rows {
            known.publish((*node, automaton, q), row);
        }
    }

    /// The grammar for somebody who does not keep it alive.
    pub(super) fn downgrade(&self) -> WeakGrammar {
        WeakGrammar(Arc::downgrade(&self.inner))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // What is behind the lock is valid after every operation, even one that panicked.
        self.inner.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A compiled grammar that goes when nobody else keeps it.
pub(super) struct WeakGrammar(Weak<Compiled>);

impl WeakGrammar {
    /// The grammar, if it is still there.
    pub fn upgrade(&self) -> Option<CompiledGrammar> {
        self.0.upgrade().map(|inner| CompiledGrammar { inner })
    }
}

/// The threads after some tokens, and the state before the last of them.
struct State {
    threads: Box<[Thread]>,
    terminated: bool,
    length: usize,
    /// The last of the tokens.
    token: Option<TokenId>,
    previous: Option<Arc<State>>,
}

impl Drop for State {
    fn drop(&mut self) {
        // A long history is taken apart one by one, not by recursion.
        let mut previous = self.previous.take();
        while let Some(mut state) = previous.and_then(|p| Arc::try_unwrap(p).ok()) {
            previous = state.previous.take();
        }
    }
}

/// The state of one request: what has been accepted, and what may come next.
#[derive(Clone)]
pub struct Matcher {
    compiled: CompiledGrammar,
    state: Arc<State>,
}

impl Matcher {
    /// The grammar and vocabulary it matches.
    pub fn compiled(&self) -> &CompiledGrammar {
        &self.compiled
    }

    /// True if both stand at the very same place of one history.
    pub fn is_at(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// Number of tokens accepted.
    pub fn len(&self) -> usize {
        self.state.length
    }

    /// True if nothing was accepted yet.
    pub fn is_empty(&self) -> bool {
        self.state.length == 0
    }

    /// True after an end-of-sequence token.
    pub fn is_terminated(&self) -> bool {
        self.state.terminated
    }

    /// True if the text so far is a complete match.
    pub fn is_accepting(&self) -> bool {
        let mut shared = self.compiled.lock();
        !self.state.terminated && self.accepting(&mut shared, &self.state.threads)
    }

    fn accepting(&self, shared: &mut Shared, threads: &[Thread]) -> bool {
        threads.iter().any(|&t| shared.recognizer.accepts(&self.compiled.inner.grammar, t))
    }

    /// Writes the mask row of the current state; false if everything is allowed.
    pub fn fill(&self, out: &mut [u32]) -> bool {
        self.fill_state(&self.state, out)
    }

    fn fill_state(&self, state: &State, out: &mut [u32]) -> bool {
        let inner = &*self.compiled.inner;
        let out = &mut out[..inner.lexicon.words];
        if state.terminated {
            out.fill(0);
            return true;
        }
        let rows = self.rows(state);
        let mut ends = false;
        if rows.is_empty() {
            out.fill(0);
        }
        for (i, row) in rows.iter().enumerate() {
            row.write(out, i == 0);
            ends |= row.ends();
        }
        if ends {
            for id in inner.vocabulary.eos_ids() {
                out[id.index() / 32] |= 1 << (id.get() % 32);
            }
        }
        self.fill_specials(state, out);
        let size = inner.vocabulary.len();
        let tail = u32::MAX >> ((32 - size % 32) % 32);
        let last = out.len().saturating_sub(1);
        !out.iter().enumerate().all(|(i, &word)| word == if i == last { tail } else { u32::MAX })
    }

    fn fill_specials(&self, state: &State, out: &mut [u32]) {
        let inner = &*self.compiled.inner;
        if !inner.specials.is_empty() {
            for (node, _) in self.specials(&mut self.compiled.lock(), &state.threads) {
                if let Some(named) = inner.specials.get(&node) {
                    named.write(out);
                }
            }
        }
    }

    fn rows(&self, state: &State) -> Vec<Arc<MaskRow>> {
        let inner = &*self.compiled.inner;
        let mut shared = self.compiled.lock();
        let Shared { recognizer, rows, .. } = &mut *shared;
        if rows.young_bytes() > inner.limits.row_bytes / 2 {
            rows.age();
            recognizer.forget();
        }
        let ground = self.compiled.ground();
        let mut out = Vec::with_capacity(state.threads.len());
        for &thread in &*state.threads {
            rows.collect(ground, recognizer, thread, &mut out);
        }
        out
    }

    /// The state after a token; None if the token is not allowed.
    fn after(&self, state: &Arc<State>, id: TokenId) -> Result<Option<State>, Error> {
        let inner = &*self.compiled.inner;
        if state.terminated {
            return Ok(None);
        }
        let mut shared = self.compiled.lock();
        let next = |threads: &[Thread], terminated| {
            let (threads, length, previous) = (threads.into(), state.length + 1, Some(Arc::clone(state)));
            Some(State { threads, terminated, length, token: Some(id), previous })
        };
        if inner.vocabulary.eos_ids().contains(&id) && self.accepting(&mut shared, &state.threads) {
            return Ok(next(&[], true));
        }
        let mut named = self.after_special(&mut shared, &state.threads, id);
        let bytes = inner.vocabulary.bytes(id).filter(|b| !b.is_empty() && !inner.vocabulary.is_special(id));
        if let Some(bytes) = bytes {
            let [mut threads, mut after] = std::mem::take(&mut shared.room);
            threads.clear();
            threads.extend(&state.threads);
            for &byte in bytes {
                self.step(&mut shared, &threads, byte, &mut after)?;
                std::mem::swap(&mut threads, &mut after);
                if threads.is_empty() {
                    break;
                }
            }
            if !named.is_empty() {
                // An ordinary token that the grammar names by its id may be meant itself, or its text.
                threads.append(&mut named);
                shared.recognizer.stacks.join_threads(&mut threads, 0);
            }
            let found = if threads.is_empty() { None } else { next(&threads, false) };
            shared.room = [threads, after];
            return Ok(found);
        }
        Ok(if named.is_empty() { None } else { next(&named, false) })
    }

    /// The threads after a byte.
    fn step(
        &self,
        shared: &mut Shared,
        threads: &[Thread],
        byte: u8,
        after: &mut Vec<Thread>,
    ) -> Result<(), LimitError> {
        let inner = &*self.compiled.inner;
        after.clear();
        for &thread in threads {
            let from = after.len();
            shared.recognizer.step(&inner.grammar, thread, byte, after);
            // Threads are few; where they are many, duplicates are dropped once in a while below.
            if threads.len() > 1 && after.len() < 64 {
                let mut i = from;
                while i < after.len() {
                    if after[..i].contains(&after[i]) {
                        after.swap_remove(i);
                    } else {
                        i += 1;
                    }
                }
            }
        }
        if inner.grammar.merges {
            shared.recognizer.stacks.join_threads(after, 0);
        } else if after.len() >= 64 {
            let mut seen = rustc_hash::FxHashSet::default();
            after.retain(|t| seen.insert(*t));
        }
        if after.len() > inner.limits.threads {
            return Err(LimitError { limit: "threads".into(), value: after.len() as u64 });
        }
        Ok(())
    }

    /// The threads after a token that is meant itself.
    fn after_special(&self, shared: &mut Shared, threads: &[Thread], id: TokenId) -> Vec<Thread> {
        let inner = &*self.compiled.inner;
        if inner.specials.is_empty() {
            return Vec::new();
        }
        let mut out = Vec::new();
        for (node, below) in self.specials(shared, threads) {
            if inner.specials.get(&node).is_some_and(|named| named.has(id)) {
                shared.recognizer.pop(below, &mut out);
            }
        }
        shared.recognizer.stacks.join_threads(&mut out, 0);
        out
    }

    /// Nodes of special tokens that may come next, and the stacks they return to.
    fn specials(&self, shared: &mut Shared, threads: &[Thread]) -> Vec<(NodeId, u32)> {
        let inner = &*self.compiled.inner;
        let mut out = Vec::new();
        if !inner.specials.is_empty() {
            for &thread in threads {
                shared.recognizer.specials(&inner.grammar, thread, &mut out);
            }
        }
        out
    }

    /// Advances by one token; the state stays as it was if the token is refused.
    pub fn accept(&mut self, id: TokenId) -> Result<(), Error> {
        match self.after(&self.state, id)? {
            Some(state) => {
                self.state = Arc::new(state);
                Ok(())
            }
            None if id.index() >= self.compiled.vocabulary().len() => {
                Err(UnknownTokenError::Id(id.get().into()).into())
            }
            None => Err(self.refusal(id)?.into()),
        }
    }

    /// Why a token is not allowed.
    fn refusal(&self, id: TokenId) -> Result<RejectedTokenError, Error> {
        let inner = &*self.compiled.inner;
        let whole = inner.vocabulary.is_special(id) || self.state.terminated;
        let bytes = if whole { &[] } else { inner.vocabulary.bytes(id).unwrap_or_default() };
        let mut threads = self.state.threads.to_vec();
        let mut fits = 0;
        for &byte in bytes {
            let mut after = Vec::new();
            self.step(&mut self.compiled.lock(), &threads, byte, &mut after)?;
            if after.is_empty() {
                break;
            }
            threads = after;
            fits += 1;
        }
        let terminated = self.state.terminated;
        let place = State { threads: threads.into(), terminated, length: 0, token: None, previous: None };
        let there = Self { compiled: self.compiled.clone(), state: Arc::new(place) };
        let json_pointer = inner.grammar.is_json.then(|| {
            let mut text = self.text();
            text.extend_from_slice(&bytes[..fits]);
            json_pointer(&text)
        });
        let (token_id, position, expected) = (id.get(), self.len(), there.expected());
        Ok(RejectedTokenError { token_id, position, expected, byte: fits, json_pointer })
    }

    /// The bytes of the tokens accepted; special ones have none.
    fn text(&self) -> Vec<u8> {
        let vocabulary = &self.compiled.inner.vocabulary;
        let states = std::iter::successors(Some(&*self.state), |state| state.previous.as_deref());
        let mut tokens: Vec<TokenId> = states.filter_map(|state| state.token).collect();
        tokens.reverse();
        let spelled = tokens.into_iter().filter(|&id| !vocabulary.is_special(id));
        spelled.flat_map(|id| vocabulary.bytes(id).unwrap_or_default().iter().copied()).collect()
    }

    /// Advances as far as the tokens are allowed; returns how many were.
    pub fn accept_prefix(&mut self, ids: &[TokenId]) -> Result<usize, Error> {
        for (i, &id) in ids.iter().enumerate() {
            match self.after(&self.state, id)? {
                Some(state) => self.state = Arc::new(state),
                None => return Ok(i),
            }
        }
        Ok(ids.len())
    }

    /// True if the token may come next.
    pub fn is_allowed(&self, id: TokenId) -> Result<bool, Error> {
        Ok(self.after(&self.state, id)?.is_some())
    }

    /// The place of the first token that may come next.
    pub fn first_allowed(&self, ids: &[TokenId]) -> Result<Option<usize>, Error> {
        for (i, &id) in ids.iter().enumerate() {
            if self.is_allowed(id)? {
                return Ok(Some(i));
            }
        }
        Ok(None)
    }

    /// Takes back the last `n` tokens.
    pub fn rollback(&mut self, n: usize) -> Result<(), RollbackError> {
        if n > self.len() {
            return Err(RollbackError { requested: n, available: self.len() });
        }
        for _ in 0..n {
            if let Some(previous) = &self.state.previous {
                self.state = Arc::clone(previous);
            }
        }
        Ok(())
    }

    /// Back to the beginning.
    pub fn reset(&mut self) {
        *self = self.compiled.matcher();
    }

    /// The bytes that may come next.
    pub fn next_bytes(&self) -> Vec<u8> {
        let mut shared = self.compiled.lock();
        let mut out = Vec::new();
        (0..=255u8)
            .filter(|&byte| {
                out.clear();
                for &thread in &*self.state.threads {
                    shared.recognizer.step(&self.compiled.inner.grammar, thread, byte, &mut out);
                }
                !out.is_empty()
            })
            .collect()
    }

    /// What may come next, for people.
    pub fn expected(&self) -> String {
        if self.is_terminated() {
            return "nothing: the sequence has ended".into();
        }
        let bytes = self.next_bytes();
        let mut parts = Vec::new();
        let mut i = 0;
        while i < bytes.len() {
            let mut j = i;
            while j + 1 < bytes.len() && bytes[j + 1] == bytes[j] + 1 {
                j += 1;
            }
            let show = |b: u8| match b {
                b' ' => "space".to_owned(),
                0x21..=0x7e => (b as char).to_string(),
                b'\n' => "newline".to_owned(),
                b'\t' => "tab".to_owned(),
                b'\r' => "return".to_owned(),
                _ => format!("byte {b:#04x}"),
            };
            parts.push(if j > i + 1 {
                format!("{} to {}", show(bytes[i]), show(bytes[j]))
            } else {
                show(bytes[i])
            });
            i = if j > i + 1 { j + 1 } else { i + 1 };
        }
        if self.is_accepting() {
            parts.push("the end".into());
        }
        parts.join(", ")
    }

    /// Tokens that the grammar leaves no choice about: the forced bytes, cut into their longest tokens.
    pub fn forced_tokens(&self) -> Vec<TokenId> {
        const MOST: usize = 1024;
        let mut bytes = Vec::new();
        let mut threads = self.state.threads.to_vec();
        let trie = &self.compiled.inner.lexicon.trie;
        let mut shared = self.compiled.lock();
        while bytes.len() < MOST && !threads.is_empty() && !self.accepting(&mut shared, &threads) {
            let mut only = None;
            for byte in 0..=255u8 {
                let mut after = Vec::new();
                for &thread in &threads {
                    shared.recognizer.step(&self.compiled.inner.grammar, thread, byte, &mut after);
                }
                if !after.is_empty() {
                    if only.is_some() {
                        only = None;
                        break;
                    }
                    only = Some((byte, after));
                }
            }
            let Some((byte, after)) = only else { break };
            bytes.push(byte);
            threads = after;
        }
        let (mut out, mut from) = (Vec::new(), 0);
        while from < bytes.len() {
            let (mut node, mut best, mut at) = (0, None, from);
            while let Some(child) = bytes.get(at).and_then(|&b| trie.child(node, b)) {
                node = child;
                at += 1;
                if let Some(item) = trie.items(node).first() {
                    best = Some((item.id, at));
                }
            }
            // A longer token may reach beyond what is forced.
            if at == bytes.len() && !trie.children(node).is_empty() {
                break;
            }
            let Some((id, end)) = best else { break };
            out.push(TokenId::new(id));
            from = end;
        }
        out
    }

    /// Fills the rows of a draft tree: row 0 for the current state, row `i + 1` for node `i`; nodes
    /// that the grammar does not allow get empty rows. Returns which nodes it allows.
    pub fn fill_tree(&self, token_ids: &[i32], parents: &[i32], out: &mut [u32]) -> Result<Vec<bool>, Error> {
        let words = self.compiled.words();
        let mut states: Vec<Option<Arc<State>>> = Vec::with_capacity(token_ids.len() + 1);
        states.push(Some(Arc::clone(&self.state)));
        for (&id, &parent) in token_ids.iter().zip(parents) {
            let before =
                usize::try_from(parent + 1).ok().and_then(|p| states.get(p)).and_then(Option::as_ref);
            let after = match before.zip(u32::try_from(id).ok()) {
                Some((state, id)) => self.after(state, id.into())?,
                None => None,
            };
            states.push(after.map(Arc::new));
        }
        for (state, row) in states.iter().zip(out.chunks_mut(words)) {
            match state {
                Some(state) => {
                    self.fill_state(state, row);
                }
                None => row.fill(0),
            }
        }
        Ok(states[1..].iter().map(Option::is_some).collect())
    }

    /// Writes the mask row by a plain walk of the whole trie, without tables or memory: what
    /// [`Self::fill`] must equal.
    pub fn fill_plainly(&self, out: &mut [u32]) {
        let ground = Ground { tables: false, ..self.compiled.ground() };
        let mut shared = self.compiled.lock();
        let (mut rows, out) = (Rows::default(), &mut out[..ground.lexicon.words]);
        out.fill(0);
        let mut ends = false;
        let mut found = Vec::new();
        for &thread in &*self.state.threads {
            rows.collect(ground, &mut shared.recognizer, thread, &mut found);
        }
        for row in found {
            row.write(out, false);
            ends |= row.ends();
        }
        if ends {
            for id in ground.vocabulary.eos_ids() {
                out[id.index() / 32] |= 1 << (id.get() % 32);
            }
        }
        drop(shared);
        self.fill_specials(&self.state, out);
    }

    /// A hash of nothing but the threads: equal for states that allow the same futures in the same way.
    pub fn same_state(&self, other: &Self) -> bool {
        self.state.threads == other.state.threads && self.state.terminated == other.state.terminated
    }
}
