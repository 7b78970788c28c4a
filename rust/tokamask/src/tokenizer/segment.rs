//! Encoding without merges: which tokens cover a pretoken is chosen by their lengths or their number.

use std::collections::BinaryHeap;

use super::Tokenizer;
use crate::error::Error;
use crate::ids::TokenId;
use crate::text::added::{Allowed, Part};
use crate::vocabulary::trie::{Item, TokenTrie};

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The longest token from the left, again and again.
    GreedyLeft,
    /// The longest token from the right.
    GreedyRight,
    /// As few tokens as there can be; of those, the longest last token, then the longest before it.
    Fewest,
    /// The longest token anywhere, the leftmost of equals; then both sides.
    Longest,
}

impl Tokenizer {
    /// The tokens that merging makes, by their bytes.
    pub(super) fn trie(&self) -> &TokenTrie {
        self.trie.get_or_init(|| {
            let bytes = |id: u32| self.vocabulary.bytes(TokenId::new(id)).unwrap_or_default();
            let words: Vec<(&[u8], Item)> =
                self.prefixes().ids().iter().map(|&id| (bytes(id), Item { id, chars: 0 })).collect();
            TokenTrie::new(&words)
        })
    }

    /// The ids of `text` with every pretoken cut by `method`.
    pub fn encode_by(&self, text: &str, method: Method) -> Result<Vec<u32>, Error> {
        self.encode_pieces(text, |piece, ids| match method {
            Method::GreedyLeft => self.greedy_left(piece, ids),
            Method::GreedyRight => self.greedy_right(piece, ids),
            Method::Fewest => self.fewest(piece, ids),
            Method::Longest => self.longest(piece, ids),
        })
    }

    /// The ids of `text` with every pretoken given to `encode`, and added tokens as they always are.
    pub(super) fn encode_pieces(
        &self,
        text: &str,
        mut encode: impl FnMut(&[u8], &mut Vec<u32>),
    ) -> Result<Vec<u32>, Error> {
        self.only_bytes("other segmentations")?;
        let (mut ids, mut failed) = (Vec::new(), Ok(()));
        let mut spans = Vec::new();
        self.added.parts(text, &Allowed::None, |part| match part {
            Part::Token(id, _) => ids.push(id),
            Part::Text(text, _) if failed.is_ok() => {
                let normal = self.normalization.apply(text);
                let parts = self.added_normalized.parts(&normal, &Allowed::None, |part| match part {
                    Part::Token(id, _) => ids.push(id),
                    Part::Text(text, _) if failed.is_ok() => {
                        failed = self.pretokenizer.split(text, &mut spans);
                        for &(start, end) in &spans {
                            encode(&text.as_bytes()[start..end], &mut ids);
                        }
                    }
                    Part::Text(..) => {}
                });
                if let Err(error) = parts {
                    failed = Err(error.into());
                }
            }
            Part::Text(..) => {}
        })?;
        failed.map(|()| ids)
    }

    /// Calls `found` with the length and id of each token at the front of `text`, shortest first.
    pub(super) fn tokens_at(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        let (trie, mut node) = (self.trie(), 0);
        for (length, &byte) in text.iter().enumerate() {
            let Some(child) = trie.child(node, byte) else { break };
            node = child;
            if let Some(item) = trie.items(node).first() {
                found(length + 1, item.id);
            }
        }
    }

    fn longest_at(&self, text: &[u8]) -> Option<(usize, u32)> {
        let mut last = None;
        self.tokens_at(text, |length, id| last = Some((length, id)));
        last
    }

    fn greedy_left(&self, mut piece: &[u8], ids: &mut Vec<u32>) {
        while !piece.is_empty() {
            // A byte that is no token is left out, as merging does.
            let (length, id) = self.longest_at(piece).unwrap_or((1, u32::MAX));
            ids.extend((id != u32::MAX).then_some(id));
            piece = &piece[length..];
        }
    }

    fn greedy_right(&self, piece: &[u8], ids: &mut Vec<u32>) {
        // The longest token that ends at each position is the one that starts first.
        let mut ending = vec![(u32::MAX, 1); piece.len() + 1];
        for start in (0..piece.len()).rev() {
            self.tokens_at(&piece[start..], |length, id| ending[start + length] = (id, length));
        }
        self.back(piece.len(), &ending, ids);
    }

    fn fewest(&self, piece: &[u8], ids: &mut Vec<u32>) {
        // Cost and last token of the best cover of every prefix; earlier starts make longer last tokens.
        let mut costs = vec![u64::MAX; piece.len() + 1];
        let mut last = vec![(u32::MAX, 1); piece.len() + 1];
        costs[0] = 0;
        let missing = piece.len() as u64 + 1;
        for start in 0..piece.len() {
            let mut single = false;
            let cost = costs[start];
            self.tokens_at(&piece[start..], |length, id| {
                single |= length == 1;
                if cost + 1 < costs[start + length] {
                    costs[start + length] = cost + 1;
                    last[start + length] = (id, length);
                }
            });
            if !single && cost + missing < costs[start + 1] {
                costs[start + 1] = cost + missing; // a byte that is no token is left out, if it must be
                last[start + 1] = (u32::MAX, 1);
            }
        }
        self.back(piece.len(), &last, ids);
    }

    /// Reads a cover from its last token to its first.
    #[allow(clippy::unused_self)]
    fn back(&self, end: usize, last: &[(u32, usize)], ids: &mut Vec<u32>) {
        let (first, mut at) = (ids.len(), end);
        while at > 0 {
            let (id, length) = last[at];
            ids.extend((id != u32::MAX).then_some(id));
            at -= length;
        }
        ids[first..].reverse();
    }

    fn longest(&self, piece: &[u8], ids: &mut Vec<u32>) {
        // Candidates by length, leftmost first; one that no longer fits comes back shortened.
        let mut heap: BinaryHeap<(usize, std::cmp::Reverse<usize>, u32)> = BinaryHeap::new();
        let mut taken = vec![false; piece.len()];
        let mut chosen = vec![u32::MAX; piece.len()];
        for start in 0..piece.len() {
            let best = self.longest_at(&piece[start..]);
            heap.extend(best.map(|(length, id)| (length, std::cmp::Reverse(start), id)));
        }
        while let Some((length, std::cmp::Reverse(start), id)) = heap.pop() {
            if taken[start] {
                continue;
            }
            let free = taken[start..start + length].iter().position(|&taken| taken).unwrap_or(length);
            if free == length {
                taken[start..start + length].fill(true);
                chosen[start] = id;
            } else {
                let best = self.longest_at(&piece[start..start + free]);
                heap.extend(best.map(|(length, id)| (length, std::cmp::Reverse(start), id)));
            }
        }
        ids.extend(chosen.iter().filter(|&&id| id != u32::MAX));
    }
}
