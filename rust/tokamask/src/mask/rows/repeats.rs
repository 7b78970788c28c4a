//! Names that may not occur twice.

use std::sync::Arc;

use super::{allows, closing, Ground, MaskRow, Rows};
use crate::grammar::chars::BOUNDARY;
use crate::grammar::words::{WordTrie, OFF};
use crate::grammar::Node;
use crate::mask::recognizer::{Recognizer, Thread, BOTTOM, COMPARED, KEY};

impl Rows {
    /// Takes out the tokens by which a name would occur twice. Rows are computed without regard to
    /// the names that are not declared, so that they are shared; few tokens can hold a whole name.
    pub(super) fn without_repeats(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        thread: Thread,
        row: Arc<MaskRow>,
    ) -> Arc<MaskRow> {
        let top = thread.top;
        let mut gone: Vec<u32> = Vec::new();
        let mut suspect = |rows: &mut Self, recognizer: &mut Recognizer, names: u32| {
            if names != 0 {
                for &id in &rows.names_of(ground, recognizer, names).1 {
                    if row.has(id) && !allows(ground, recognizer, thread, id, 0) {
                        gone.push(id);
                    }
                }
            }
        };
        suspect(self, recognizer, top.names);
        // A token that closes an object may go on in the one around it.
        let (mut todo, mut seen) = (vec![thread.parent], Vec::new());
        while let Some(stack) = todo.pop() {
            let mut i = 0;
            while let Some(member) = recognizer.stacks.member(stack, i).filter(|&m| m != BOTTOM) {
                let (frame, below) = recognizer.stacks.frame(member);
                suspect(self, recognizer, frame.names);
                if !ground.grammar.merges || !seen.contains(&below) {
                    seen.push(below);
                    todo.push(below);
                }
                i += 1;
            }
        }
        for &id in &ground.lexicon.twice {
            if row.has(id) && !allows(ground, recognizer, thread, id, 0) {
                gone.push(id);
            }
        }
        // The names or strings that the one being written must differ from.
        let others = match ground.grammar.nodes.get(top.node as usize) {
            Some(Node::Object(_)) if top.phase() == KEY && top.kind_of_name() > 0 => Some(top.names),
            Some(Node::Runs(..)) if top.kind == COMPARED && top.state != 0 => {
                let below = recognizer.stacks.member(thread.parent, 0).filter(|&m| m != BOTTOM);
                Some(below.map_or(0, |member| recognizer.stacks.frame(member).0.names))
            }
            _ => None,
        };
        match others {
            Some(others) if top.partial == BOUNDARY => {
                let text = recognizer.text(top.text);
                if others != 0 {
                    let names = self.names_of(ground, recognizer, others);
                    let mut at = 0;
                    for c in text.chars() {
                        at = if at == OFF { OFF } else { names.0.child(at, c.into()) };
                    }
                    if at != OFF {
                        gone.extend(closing(&ground.lexicon.trie, 0, &names.0, at));
                    }
                }
                // A token may end this text and hold it once more.
                for (ending, name, id) in &ground.lexicon.reopening {
                    let same = name.len() == text.len() + ending.len()
                        && name.ends_with(&**ending)
                        && name.starts_with(text.as_str());
                    if same && !allows(ground, recognizer, thread, *id, 0) {
                        gone.push(*id);
                    }
                }
            }
            Some(_) => {
                // In the middle of a character: few tokens fit, each is tried.
                let tried: Vec<u32> = row.ids.clone();
                gone.extend(tried.into_iter().filter(|&id| !allows(ground, recognizer, thread, id, 0)));
            }
            None => {}
        }
        if ground.grammar.merges {
            // On one of several stacks the same name may be new.
            gone.retain(|&id| !allows(ground, recognizer, thread, id, 0));
        }
        if gone.is_empty() {
            return row;
        }
        gone.sort_unstable();
        let mut row = (*row).clone();
        row.ids.retain(|id| gone.binary_search(id).is_err());
        Arc::new(row)
    }

    fn names_of(
        &mut self,
        ground: Ground<'_>,
        recognizer: &Recognizer,
        names: u32,
    ) -> Arc<(WordTrie, Vec<u32>)> {
        if self.names.len() > 256 {
            self.names.clear();
        }
        let make = || {
            let words: Vec<String> =
                recognizer.set(names).iter().map(|&text| recognizer.text(text as u32)).collect();
            let holding = words.iter().filter_map(|word| ground.lexicon.named.get(word.as_str()));
            let holding = holding.flatten().copied().collect();
            Arc::new((WordTrie::new(words), holding))
        };
        Arc::clone(self.names.entry(names).or_insert_with(make))
    }
}
