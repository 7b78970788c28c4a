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
        if !row.suspects.is_empty() {
            let suspects = self.suspects(ground, recognizer, thread, &row);
            gone.extend(suspects.filter(|&id| !allows(ground, recognizer, thread, id, 0)));
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
                        let find = || closing(&ground.lexicon.trie, 0, &names.0, at).into();
                        gone.extend(&**self.endings.entry((others, at)).or_insert_with(find));
                    }
                }
                // A token may end this text and hold it once more.
                let again = ground.lexicon.reopening.get(text.as_str()).into_iter().flatten();
                gone.extend(again.filter(|&&id| !allows(ground, recognizer, thread, id, 0)));
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

    /// The tokens of a row that hold a name twice, or one that has occurred where `thread` stands.
    fn suspects<'r>(
        &mut self,
        ground: Ground<'_>,
        recognizer: &Recognizer,
        thread: Thread,
        row: &'r MaskRow,
    ) -> impl Iterator<Item = u32> + use<'r> {
        let mut sets = vec![thread.top.names];
        // A token that closes an object may go on in the one around it.
        let (mut todo, mut seen) = (vec![thread.parent], Vec::new());
        while let Some(stack) = todo.pop() {
            let mut i = 0;
            while let Some(member) = recognizer.stacks.member(stack, i).filter(|&m| m != BOTTOM) {
                let (frame, below) = recognizer.stacks.frame(member);
                if !sets.contains(&frame.names) {
                    sets.push(frame.names);
                }
                if !ground.grammar.merges || !seen.contains(&below) {
                    seen.push(below);
                    todo.push(below);
                }
                i += 1;
            }
        }
        sets.retain(|&names| names != 0);
        let mut holding: Vec<u32> = ground.lexicon.twice.clone();
        for names in sets {
            holding.extend(&self.names_of(ground, recognizer, names).1);
        }
        row.suspects.iter().copied().filter(move |id| holding.contains(id))
    }

    fn names_of(
        &mut self,
        ground: Ground<'_>,
        recognizer: &Recognizer,
        names: u32,
    ) -> Arc<(WordTrie, Vec<u32>)> {
        if self.names.len() > 256 {
            self.names.clear();
            self.endings.clear();
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
