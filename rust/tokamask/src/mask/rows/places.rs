//! What may follow a closing quote, as places in the trie of what follows quotes in tokens.

use std::sync::Arc;

use super::{Ground, Places, Rows};
use crate::grammar::has_byte;
use crate::mask::recognizer::{Recognizer, Thread};

impl Rows {
    /// What may follow the closing quote after which `thread` stands.
    pub(super) fn after(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        thread: Thread,
    ) -> Places {
        // Where stacks may be groups, what was looked at has no simple depth.
        let simple = !ground.grammar.merges;
        let brief = if simple { recognizer.brief(ground.grammar, thread) } else { None };
        for known in brief.into_iter().chain(simple.then_some(thread)) {
            if let Some((places, depth)) = self.after.find(ground.grammar, recognizer, known) {
                recognizer.look(thread.parent, depth);
                return places;
            }
        }
        let mut bits = vec![0u64; ground.lexicon.after_quote.len().div_ceil(64)];
        bits[0] = 1;
        if !simple {
            self.follow(ground, recognizer, 0, thread, &mut bits);
            return bits.into();
        }
        let outer = recognizer.stacks.watch_apart(thread.parent);
        recognizer.named = false;
        self.follow(ground, recognizer, 0, thread, &mut bits);
        let depth = recognizer.stacks.go_back(outer);
        let places: Places = bits.into();
        let known = brief.filter(|_| !recognizer.named).unwrap_or(thread);
        self.after.file(ground.grammar, recognizer, known, depth, Arc::clone(&places));
        recognizer.look(thread.parent, depth);
        places
    }

    fn follow(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        node: u32,
        thread: Thread,
        bits: &mut [u64],
    ) {
        let children = ground.lexicon.after_quote.children(node);
        if children.is_empty() {
            return;
        }
        let next =
            if children.len() > 2 { recognizer.next_bytes(ground.grammar, thread) } else { [u64::MAX; 4] };
        for &(byte, child) in children {
            if !has_byte(&next, byte) {
                continue;
            }
            let from = self.buffer.len();
            let mut buffer = std::mem::take(&mut self.buffer);
            recognizer.step(ground.grammar, thread, byte, &mut buffer);
            if ground.grammar.merges {
                recognizer.stacks.join_threads(&mut buffer, from);
            }
            self.buffer = buffer;
            for i in from..self.buffer.len() {
                bits[child as usize / 64] |= 1 << (child % 64);
                let next = self.buffer[i];
                self.follow(ground, recognizer, child, next, bits);
            }
            self.buffer.truncate(from);
        }
    }
}
