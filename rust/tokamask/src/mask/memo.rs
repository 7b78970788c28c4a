//! What is computed from a thread, remembered by exactly the frames that were looked at.

use rustc_hash::FxHashMap;

use crate::grammar::Grammar;
use crate::mask::ageing::Weigh;
use crate::mask::recognizer::{Frame, Recognizer, Thread, BOTTOM};
use crate::mask::stacks::ALL;

/// Where the stack of a key ends.
const END: Frame =
    Frame { node: u32::MAX, state: 0, seen: 0, q: 0, partial: 0, count: 0, text: 0, names: 0, kind: 0 };

enum Entry<V> {
    Value(V),
    /// The value depends on the next frame down.
    Deeper,
}

/// A map from threads, in two generations: see [`crate::mask::ageing`].
pub struct Memo<V> {
    young: Paths<V>,
    old: Paths<V>,
}

impl<V> Default for Memo<V> {
    fn default() -> Self {
        Self { young: Paths::default(), old: Paths::default() }
    }
}

impl<V: Clone + Weigh> Memo<V> {
    /// The value of a thread, and the number of frames below the top that it depends on.
    pub fn find(&mut self, grammar: &Grammar, recognizer: &Recognizer, thread: Thread) -> Option<(V, usize)> {
        if let Some(found) = self.young.find(grammar, recognizer, thread) {
            return Some(found);
        }
        if self.old.entries.is_empty() {
            return None;
        }
        let (value, depth) = self.old.find(grammar, recognizer, thread)?;
        self.young.file(grammar, recognizer, thread, depth, value.clone());
        Some((value, depth))
    }

    /// Files a value that depends on so many frames below the top.
    pub fn file(
        &mut self,
        grammar: &Grammar,
        recognizer: &Recognizer,
        thread: Thread,
        depth: usize,
        value: V,
    ) {
        self.young.file(grammar, recognizer, thread, depth, value);
    }

    /// Forgets the older generation; the younger one takes its place.
    pub fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }

    /// Bytes of the younger generation.
    pub fn young_bytes(&self) -> usize {
        self.young.bytes()
    }

    /// Bytes of both.
    pub fn bytes(&self) -> usize {
        self.young.bytes() + self.old.bytes()
    }
}

/// A key is a path of frames from the top down, as deep as the value needs.
struct Paths<V> {
    entries: FxHashMap<(u32, Frame), (u32, Entry<V>)>,
    next: u32,
    bytes: usize,
}

impl<V> Default for Paths<V> {
    fn default() -> Self {
        Self { entries: FxHashMap::default(), next: 0, bytes: 0 }
    }
}

impl<V: Clone + Weigh> Paths<V> {
    fn find(&self, grammar: &Grammar, recognizer: &Recognizer, thread: Thread) -> Option<(V, usize)> {
        let (mut key, mut stack) = ((0, recognizer.row_key(grammar, thread)), thread.parent);
        let mut depth = 0;
        loop {
            match self.entries.get(&key)? {
                (_, Entry::Value(value)) => return Some((value.clone(), depth)),
                (id, Entry::Deeper) => (key, stack) = down(recognizer, *id, stack),
            }
            depth += 1;
        }
    }

    fn file(&mut self, grammar: &Grammar, recognizer: &Recognizer, thread: Thread, depth: usize, value: V) {
        if depth == ALL {
            return;
        }
        let (mut key, mut stack) = ((0, recognizer.row_key(grammar, thread)), thread.parent);
        for _ in 0..depth {
            self.next += 1;
            let next = self.next;
            let id = self.entries.entry(key).or_insert((next, Entry::Deeper)).0;
            (key, stack) = down(recognizer, id, stack);
        }
        self.next += 1;
        self.bytes += value.weight();
        self.entries.insert(key, (self.next, Entry::Value(value)));
    }

    fn bytes(&self) -> usize {
        self.bytes + self.entries.capacity() * (std::mem::size_of::<((u32, Frame), (u32, Entry<V>))>() + 1)
    }
}

fn down(recognizer: &Recognizer, id: u32, stack: u32) -> ((u32, Frame), u32) {
    if stack == BOTTOM {
        return ((id, END), BOTTOM);
    }
    let (mut frame, below) = recognizer.stacks.frame(stack);
    frame.names = 0;
    ((id, frame), below)
}
