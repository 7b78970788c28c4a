//! Mask rows: which tokens a thread allows, by a walk of the vocabulary's trie, kept by the frames
//! that the walk looked at.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::grammar::Grammar;
use crate::mask::recognizer::{Frame, Recognizer, Thread, BOTTOM};
use crate::vocabulary::trie::{Item, TokenTrie};
use crate::vocabulary::Vocabulary;

/// What the masks of one vocabulary share.
pub struct Lexicon {
    /// Its ordinary tokens.
    pub trie: TokenTrie,
    /// 32-bit words of a mask row.
    pub words: usize,
}

impl Lexicon {
    /// Builds the trie.
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let mut words: Vec<(&[u8], Item)> = vocabulary
            .ordinary_tokens()
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(id, bytes)| (bytes, Item { id: id.get(), chars: 0 }))
            .collect();
        words.sort_unstable_by(|a, b| a.0.cmp(b.0));
        Self { trie: TokenTrie::new(&words), words: vocabulary.len().div_ceil(32) }
    }
}

/// What one thread allows: shared rows and single ids.
#[derive(Default)]
pub struct MaskRow {
    bases: Vec<Arc<[u32]>>,
    ids: Vec<u32>,
    /// The thread may end here.
    ends: bool,
}

impl MaskRow {
    /// Writes the row, or adds it to what is there.
    pub fn write(&self, out: &mut [u32], fresh: bool) {
        let mut bases = self.bases.iter();
        if fresh {
            match bases.next() {
                Some(base) => out.copy_from_slice(base),
                None => out.fill(0),
            }
        }
        for base in bases {
            out.iter_mut().zip(base.iter()).for_each(|(o, b)| *o |= b);
        }
        for &id in &self.ids {
            out[id as usize / 32] |= 1 << (id % 32);
        }
    }

    /// True if the thread may end here.
    pub fn ends(&self) -> bool {
        self.ends
    }

    fn bytes(&self) -> usize {
        self.ids.capacity() * 4 + self.bases.len() * 16 + 96
    }
}

enum Entry {
    Row(Arc<MaskRow>),
    /// The row depends on the next frame down.
    Deeper,
}

/// Where the stack of a key ends.
const END: Frame =
    Frame { node: u32::MAX, state: 0, seen: 0, q: 0, partial: 0, count: 0, text: 0, names: 0, kind: 0 };

/// Rows of one compiled grammar.
#[derive(Default)]
pub struct Rows {
    memo: FxHashMap<(u32, Frame), (u32, Entry)>,
    next: u32,
    buffer: Vec<Thread>,
    bytes: usize,
}

impl Rows {
    /// The row of a thread.
    pub fn row(
        &mut self,
        grammar: &Grammar,
        lexicon: &Lexicon,
        recognizer: &mut Recognizer,
        thread: Thread,
    ) -> Arc<MaskRow> {
        let (mut key, mut stack) = ((0, thread.top), thread.parent);
        while let Some((id, entry)) = self.memo.get(&key) {
            match entry {
                Entry::Row(row) => return Arc::clone(row),
                Entry::Deeper => (key, stack) = Self::down(recognizer, *id, stack),
            }
        }
        recognizer.watch(thread.parent);
        let mut row = MaskRow::default();
        self.walk(grammar, &lexicon.trie, recognizer, 0, thread, &mut row);
        row.ends = recognizer.accepts(grammar, thread);
        row.ids.sort_unstable();
        row.ids.dedup();
        let row = Arc::new(row);
        self.file(recognizer, thread, &row);
        row
    }

    fn down(recognizer: &Recognizer, id: u32, stack: u32) -> ((u32, Frame), u32) {
        if stack == BOTTOM {
            return ((id, END), BOTTOM);
        }
        let (frame, below) = recognizer.frame(stack);
        ((id, frame), below)
    }

    /// Files a row under exactly the frames that were looked at.
    fn file(&mut self, recognizer: &Recognizer, thread: Thread, row: &Arc<MaskRow>) {
        let (mut key, mut stack) = ((0, thread.top), thread.parent);
        for _ in 0..recognizer.touched() {
            self.next += 1;
            let next = self.next;
            let id = self.memo.entry(key).or_insert((next, Entry::Deeper)).0;
            (key, stack) = Self::down(recognizer, id, stack);
        }
        self.next += 1;
        self.bytes += row.bytes();
        self.memo.insert(key, (self.next, Entry::Row(Arc::clone(row))));
    }

    /// Adds the tokens below a trie node that `thread`, standing there, allows.
    fn walk(
        &mut self,
        grammar: &Grammar,
        trie: &TokenTrie,
        recognizer: &mut Recognizer,
        node: u32,
        thread: Thread,
        row: &mut MaskRow,
    ) {
        for &(byte, child) in trie.children(node) {
            let from = self.buffer.len();
            let mut buffer = std::mem::take(&mut self.buffer);
            recognizer.step(grammar, thread, byte, &mut buffer);
            self.buffer = buffer;
            let to = self.buffer.len();
            if to > from {
                row.ids.extend(trie.items(child).iter().map(|item| item.id));
            }
            for i in from..to {
                let next = self.buffer[i];
                if !self.buffer[from..i].contains(&next) {
                    self.walk(grammar, trie, recognizer, child, next, row);
                }
            }
            self.buffer.truncate(from);
        }
    }

    /// Bytes that the rows take.
    pub fn bytes(&self) -> usize {
        self.bytes + self.memo.len() * 2 * std::mem::size_of::<((u32, Frame), (u32, Entry))>()
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
