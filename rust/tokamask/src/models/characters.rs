//! Byte-pair encoding over characters, read literally: affixes, unknown characters, byte fallback.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::{CharactersKind, Spellings};
use crate::error::VocabularyError;
use crate::text::runs::Runs;

/// The tables.
pub struct Characters {
    ids: Spellings,
    /// Rank and product of each pair.
    merges: FxHashMap<(u32, u32), (u32, u32)>,
    bytes: [Option<u32>; 256],
    unk: Option<u32>,
    kind: CharactersKind,
    runs: Option<Runs>,
}

impl Characters {
    pub(super) fn new(
        kind: &CharactersKind,
        ids: Spellings,
        tokens: &[Option<Vec<u8>>],
        list: &[(u32, u32)],
    ) -> Result<Self, VocabularyError> {
        let mut merges = FxHashMap::default();
        merges.reserve(list.len());
        let spelling = |id: u32| tokens.get(id as usize).and_then(Option::as_deref).unwrap_or_default();
        let prefix = kind.continuing_subword_prefix.as_deref().unwrap_or_default().len();
        for (rank, &(left, right)) in list.iter().enumerate() {
            let mut joined = spelling(left).to_vec();
            joined.extend_from_slice(spelling(right).get(prefix..).unwrap_or_default());
            let product = std::str::from_utf8(&joined).ok().and_then(|joined| ids.get(joined));
            let product = product.ok_or_else(|| {
                let token = String::from_utf8_lossy(&joined);
                VocabularyError::new("a merge makes no token")
                    .at_path(format!("/model/merges/{rank}"))
                    .at_token(token)
            })?;
            merges.insert((left, right), (rank as u32, product));
        }
        let unk = match &kind.unk_token {
            Some(token) => Some(ids.get(token).ok_or_else(|| {
                VocabularyError::new("the unknown token is no token")
                    .at_path("/model/unk_token")
                    .at_token(token)
            })?),
            None => None,
        };
        let runs = kind.runs(tokens);
        Ok(Self { bytes: ids.bytes(), unk, merges, ids, runs, kind: kind.clone() })
    }

    /// Appends the ids of a piece.
    pub fn encode(&self, piece: &str, whole_pieces: bool, ids: &mut Vec<u32>) {
        if whole_pieces {
            if let Some(id) = self.ids.get(piece) {
                return ids.push(id);
            }
        }
        let mut symbols = self.symbols(piece);
        self.merge(&mut symbols);
        let Some(runs) = &self.runs else { return ids.extend(symbols) };
        for group in symbols.chunk_by(|a, b| *a == runs.single() && a == b) {
            if group[0] == runs.single() {
                runs.join(group.len(), ids);
            } else {
                ids.extend(group);
            }
        }
    }

    /// The symbols that merging starts from.
    fn symbols(&self, piece: &str) -> Vec<u32> {
        let mut symbols = Vec::with_capacity(piece.len());
        let mut spelling = String::new();
        // An unknown character waits for the next known one, that a run of them can be one.
        let mut unknown = None;
        for (at, c) in piece.char_indices() {
            let last = at + c.len_utf8() == piece.len();
            spelling.clear();
            if at > 0 {
                spelling.push_str(self.kind.continuing_subword_prefix.as_deref().unwrap_or_default());
            }
            spelling.push(c);
            if last {
                spelling.push_str(self.kind.end_of_word_suffix.as_deref().unwrap_or_default());
            }
            if let Some(id) = self.ids.get(&spelling) {
                symbols.extend(unknown.take());
                symbols.push(id);
                continue;
            }
            if self.kind.byte_fallback && spelling.bytes().all(|byte| self.bytes[usize::from(byte)].is_some())
            {
                symbols.extend(spelling.bytes().filter_map(|byte| self.bytes[usize::from(byte)]));
                continue;
            }
            if !self.kind.fuse_unk {
                symbols.extend(unknown.take());
            }
            unknown = unknown.or(self.unk);
        }
        symbols.extend(unknown);
        symbols
    }

    /// The pair of lowest rank first, the leftmost of equals.
    fn merge(&self, symbols: &mut Vec<u32>) {
        const GONE: u32 = u32::MAX;
        let count = symbols.len();
        let mut next: Vec<usize> = (1..=count).collect();
        let mut previous: Vec<usize> = (0..count).map(|at| at.wrapping_sub(1)).collect();
        let rank = |symbols: &[u32], left: usize, right: usize| {
            self.merges
                .get(&(symbols[left], symbols[right]))
                .map(|&(rank, product)| Reverse((rank, left, product)))
        };
        let mut heap: BinaryHeap<_> = (1..count).filter_map(|at| rank(symbols, at - 1, at)).collect();
        while let Some(Reverse((_, at, product))) = heap.pop() {
            let right = next[at];
            // Stale if either side has changed into what does not make the same.
            if symbols[at] == GONE
                || right >= count
                || self.merges.get(&(symbols[at], symbols[right])).is_none_or(|merge| merge.1 != product)
            {
                continue;
            }
            symbols[at] = product;
            symbols[right] = GONE;
            next[at] = next[right];
            if next[at] < count {
                previous[next[at]] = at;
                heap.extend(rank(symbols, at, next[at]));
            }
            if previous[at] < count {
                heap.extend(rank(symbols, previous[at], at));
            }
        }
        symbols.retain(|&symbol| symbol != GONE);
    }
}
