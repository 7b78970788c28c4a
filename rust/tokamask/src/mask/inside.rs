//! Tokens that stay in a class of plain characters, below one node of the trie of tokens.

use std::sync::Arc;

use crate::grammar::chars::{decode, possible, CharSet, Decoded, Partial, Spelling, BOUNDARY};
use crate::mask::ageing::Weigh;
use crate::mask::tables::{Lexicon, MIN_BASE};

/// Tokens below one node of the trie that stay in one class, and where others leave it.
pub struct Inside {
    /// The tokens that stay, if they are many.
    pub base: Option<Arc<[u32]>>,
    /// The tokens that stay, if they are few.
    pub ids: Vec<u32>,
    /// Nodes to which bytes lead with which other characters begin, by that byte. Characters of the class may
    /// begin so as well: what is below these nodes is not among the tokens that stay.
    pub leaving: Vec<(u8, Box<[u32]>)>,
}

impl Inside {
    /// Walks below a node, where a character begins.
    pub fn new(lexicon: &Lexicon, node: u32, class: &CharSet) -> Self {
        let mut found = Self { base: None, ids: Vec::new(), leaving: Vec::new() };
        let (class, mut leaving) = ((class, &class.complement(), class.plain()), Vec::new());
        found.walk(lexicon, node, BOUNDARY, class, &mut leaving);
        let byte = |node: &u32| lexicon.trie.byte(*node);
        leaving.sort_unstable_by_key(|node| (byte(node), *node));
        found.leaving.extend(leaving.chunk_by(|a, b| byte(a) == byte(b)).map(|c| (byte(&c[0]), c.into())));
        if found.ids.len() > MIN_BASE {
            let mut base = vec![0u32; lexicon.words];
            found.ids.drain(..).for_each(|id| base[id as usize / 32] |= 1 << (id % 32));
            found.ids.shrink_to_fit();
            found.base = Some(base.into());
        }
        found
    }

    fn walk(
        &mut self,
        lexicon: &Lexicon,
        node: u32,
        partial: Partial,
        class: (&CharSet, &CharSet, u128),
        leaving: &mut Vec<u32>,
    ) {
        let trie = &lexicon.trie;
        let below = lexicon.below[node as usize];
        if partial == BOUNDARY && below & !class.2 == 0 {
            self.ids.extend(trie.items_below(node)[trie.items(node).len()..].iter().map(|item| item.id));
            return;
        }
        for &(byte, child) in trie.children(node) {
            let next = match decode(partial, byte, Spelling::Plain) {
                Decoded::Char(c) if class.0.has(c) => BOUNDARY,
                Decoded::More(p) if !possible(p, |low, high| class.1.any_in(low, high)) => p,
                Decoded::Char(_) | Decoded::More(_) => {
                    leaving.push(child);
                    continue;
                }
                _ => continue,
            };
            self.ids.extend(trie.items(child).iter().map(|item| item.id));
            self.walk(lexicon, child, next, class, leaving);
        }
    }
}

impl Weigh for Inside {
    fn weight(&self) -> usize {
        let leaving: usize = self.leaving.iter().map(|group| group.1.len() * 4 + 24).sum();
        self.base.as_ref().map_or(0, |base| base.len() * 4) + self.ids.len() * 4 + leaving + 80
    }
}
