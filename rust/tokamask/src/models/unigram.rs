//! Unigram: the segmentation of the highest score, from left to right; the first found wins ties.

use super::{Spellings, UnigramKind};
use crate::error::{UnknownTokenError, VocabularyError};

/// How much worse than the worst token an unknown character is.
const PENALTY: f64 = 10.0;
/// Sums of single precision beyond this start again at zero, as SentencePiece's do.
const FAR: f64 = 100_000.0;
const NONE: u32 = u32::MAX;

/// The tables.
pub struct Unigram {
    ids: Spellings,
    trie: Trie,
    scores: Vec<f64>,
    unk: Option<u32>,
    unk_score: f64,
    bytes: Option<Box<[Option<u32>; 256]>>,
    single: bool,
}

/// The best way to the end of a position.
#[derive(Clone, Copy)]
struct Step {
    score: f64,
    start: u32,
    id: u32,
}

impl Unigram {
    pub(super) fn new(
        kind: &UnigramKind,
        ids: Spellings,
        tokens: &[Option<Vec<u8>>],
    ) -> Result<Self, VocabularyError> {
        if kind.scores.len() != tokens.len() {
            return Err(VocabularyError::new("a Unigram model needs one score for each token"));
        }
        if let Some(id) = kind.scores.iter().position(|score| !score.is_finite()) {
            return Err(VocabularyError::new(format!("the score of id {id} is not a finite number")));
        }
        if kind.unk_id.is_some_and(|id| id as usize >= tokens.len()) {
            return Err(VocabularyError::new("unk_id is outside the vocabulary").at_path("/model/unk_id"));
        }
        let nodes: usize = tokens.iter().flatten().map(Vec::len).sum();
        if nodes >= 1 << 24 {
            return Err(VocabularyError::new("tokens of more than 16 MiB together"));
        }
        let mut trie = Trie::new(nodes);
        let mut reserved = vec![false; tokens.len()];
        for &id in &kind.reserved {
            if let Some(flag) = reserved.get_mut(id as usize) {
                *flag = true;
            }
        }
        let mut least = f64::INFINITY;
        for (id, token) in tokens.iter().enumerate() {
            if reserved[id] {
                continue;
            }
            least = least.min(kind.scores[id]);
            if let Some(token) = token {
                trie.insert(token, id as u32);
            }
        }
        let bytes = kind.byte_fallback.then(|| Box::new(ids.bytes()));
        let least = kind.least.first().copied().unwrap_or(least);
        let unk_score = if kind.single { f64::from(least as f32 - PENALTY as f32) } else { least - PENALTY };
        Ok(Self {
            ids,
            trie,
            scores: kind.scores.clone(),
            unk: kind.unk_id,
            unk_score,
            bytes,
            single: kind.single,
        })
    }

    /// Appends the ids of a piece; an error if a character is unknown and nothing stands for that.
    pub fn encode(&self, piece: &str, ids: &mut Vec<u32>) -> Result<(), UnknownTokenError> {
        let best = self.forward(piece)?;
        let mut parts = Vec::new();
        let mut end = piece.len();
        let mut unknown_end = None; // a run of unknown characters is one
        while end > 0 {
            let step = best[end];
            let start = step.start as usize;
            if Some(step.id) == self.unk {
                unknown_end.get_or_insert(end);
            } else {
                if let Some(unknown) = unknown_end.take() {
                    parts.push((end, unknown, NONE));
                }
                parts.push((start, end, step.id));
            }
            end = start;
        }
        if let Some(unknown) = unknown_end {
            parts.push((0, unknown, NONE));
        }
        for &(start, end, id) in parts.iter().rev() {
            if id != NONE {
                ids.push(id);
                continue;
            }
            let text = &piece[start..end];
            if let Some(id) = self.ids.get(text).filter(|_| !self.single) {
                ids.push(id);
            } else if let Some(bytes) = self.fallback(text) {
                ids.extend(bytes);
            } else {
                ids.extend(self.unk);
            }
        }
        Ok(())
    }

    /// The byte tokens of a text, if there is one for each.
    fn fallback(&self, text: &str) -> Option<Vec<u32>> {
        let bytes = self.bytes.as_ref()?;
        text.bytes().map(|byte| bytes[usize::from(byte)]).collect()
    }

    fn forward(&self, piece: &str) -> Result<Vec<Step>, UnknownTokenError> {
        let text = piece.as_bytes();
        let mut best = vec![Step { score: 0.0, start: NONE, id: 0 }; text.len() + 1];
        let mut frontier = 0;
        for (start, c) in piece.char_indices() {
            if self.single && best[start].score.abs() > FAR {
                let far = best[start].score as f32;
                for step in &mut best[start..=frontier] {
                    if step.start != NONE {
                        step.score = f64::from(step.score as f32 - far);
                    }
                }
            }
            let here = best[start].score;
            let width = c.len_utf8();
            let mut whole_character = false;
            let mut offer = |end: usize, id: u32, score: f64| {
                let sum = if self.single { f64::from(score as f32 + here as f32) } else { score + here };
                frontier = frontier.max(end);
                let step = &mut best[end];
                if step.start == NONE || sum > step.score {
                    *step = Step { score: sum, start: start as u32, id };
                }
            };
            self.trie.prefixes(&text[start..], |length, id| {
                offer(start + length, id, self.scores[id as usize]);
                whole_character |= length == width;
            });
            if !whole_character {
                let unk = self.unk.ok_or_else(|| UnknownTokenError::Bytes(c.to_string().into_bytes()))?;
                offer(start + width, unk, self.unk_score);
            }
        }
        Ok(best)
    }
}

/// Tokens by their bytes, as one table from (node, byte) to node.
struct Trie {
    /// `node << 8 | byte` above, the next node below; 0 is empty.
    slots: Vec<u64>,
    shift: u32,
    /// The token of each node.
    tokens: Vec<u32>,
}

impl Trie {
    /// A trie with room for so many nodes.
    fn new(nodes: usize) -> Self {
        let size = (nodes.max(8) * 2).next_power_of_two();
        Self { slots: vec![0; size], shift: 64 - size.trailing_zeros(), tokens: vec![NONE] }
    }

    /// Where a step stands, or could.
    fn find(&self, node: u32, byte: u8) -> usize {
        let key = u64::from(node) << 8 | u64::from(byte);
        let mut at = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize;
        while self.slots[at] != 0 && self.slots[at] >> 32 != key {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    fn insert(&mut self, token: &[u8], id: u32) {
        let mut node = 0;
        for &byte in token {
            let at = self.find(node, byte);
            if self.slots[at] == 0 {
                self.slots[at] = (u64::from(node) << 8 | u64::from(byte)) << 32 | self.tokens.len() as u64;
                self.tokens.push(NONE);
            }
            node = self.slots[at] as u32;
        }
        if node > 0 {
            self.tokens[node as usize] = id;
        }
    }

    /// Calls `found(length, id)` for each token that `text` begins with, shortest first.
    fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        let mut node = 0;
        for (nth, &byte) in text.iter().enumerate() {
            node = self.slots[self.find(node, byte)] as u32;
            if node == 0 {
                return;
            }
            let id = self.tokens[node as usize];
            if id != NONE {
                found(nth + 1, id);
            }
        }
    }
}
