//! Threads inside a declared name or a listed string: the tries of names and of tokens walked side by side.

use super::{Ground, MaskRow, Rows};
use crate::grammar::chars::{Spelling, BOUNDARY};
use crate::grammar::words::{WordTrie, NO_WORD};
use crate::grammar::{Node, UNBOUNDED};
use crate::mask::recognizer::{at, Frame, Recognizer, Thread, DONE, KEY};

/// Characters with one spelling only.
fn plain(c: u32) -> bool {
    (0x20..0x7f).contains(&c) && ![b'"', b'\\', b'/'].contains(&(c as u8))
}

impl Rows {
    /// Serves a thread that stands in a declared name or in one of several listed strings, between two
    /// characters; false if it does not.
    pub(super) fn walk_words(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        node: u32,
        thread: Thread,
        row: &mut MaskRow,
    ) -> bool {
        let Thread { top, parent } = thread;
        if top.node == DONE || top.partial != BOUNDARY || top.state == 0 {
            return false;
        }
        match &ground.grammar.nodes[top.node as usize] {
            Node::Object(object) if top.phase() == KEY && top.kind_of_name() == 0 => {
                let (mode, frame) = (top.mode(), top);
                let room = recognizer.room(object, &frame, mode);
                let open = |recognizer: &Recognizer, next: u32| {
                    recognizer.declared_below(object, &frame, mode, next, room)
                };
                let there = |place: u32| Thread { top: Frame { state: at(KEY, place), ..top }, parent };
                self.side_by_side(
                    ground,
                    recognizer,
                    node,
                    (&object.keys, top.position()),
                    &open,
                    &there,
                    row,
                );
            }
            Node::Words(words, Spelling::Json) => {
                let there = |place: u32| Thread { top: Frame { state: place + 1, ..top }, parent };
                self.side_by_side(
                    ground,
                    recognizer,
                    node,
                    (words, top.state - 1),
                    &|_, _| true,
                    &there,
                    row,
                );
            }
            _ => return false,
        }
        true
    }

    #[allow(clippy::too_many_arguments)]
    fn side_by_side(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        node: u32,
        (words, place): (&WordTrie, u32),
        open: &dyn Fn(&Recognizer, u32) -> bool,
        there: &dyn Fn(u32) -> Thread,
        row: &mut MaskRow,
    ) {
        let (trie, bounds) = (&ground.lexicon.trie, (0, UNBOUNDED));
        let mut todo = vec![(node, place)];
        while let Some((node, place)) = todo.pop() {
            if trie.children(node).is_empty() {
                continue;
            }
            let edges = words.children(place);
            if !edges.iter().all(|edge| plain(edge.0)) {
                self.children(ground, recognizer, trie, node, there(place), None, bounds, row);
                continue;
            }
            for &(c, next) in edges {
                if let Some(child) = trie.child(node, c as u8).filter(|_| open(recognizer, next)) {
                    row.ids.extend(trie.items(child).iter().map(|item| item.id));
                    todo.push((child, next));
                }
            }
            if words.word(place) != NO_WORD {
                if let Some(child) = trie.child(node, b'"') {
                    self.child(ground, recognizer, trie, (b'"', child), there(place), bounds, row);
                }
            }
        }
    }
}
