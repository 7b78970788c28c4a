//! The tokens sorted by their bytes: those that begin with given bytes are a range.

use std::ops::Range;

use crate::ids::TokenId;
use crate::vocabulary::Vocabulary;

/// Ids of tokens, sorted by their bytes.
pub struct Prefixes {
    ids: Vec<u32>,
}

impl Prefixes {
    /// Sorts the tokens that `keep` names; those without bytes are left out.
    pub fn new(vocabulary: &Vocabulary, keep: impl Fn(u32) -> bool) -> Self {
        let mut ids: Vec<u32> = (0..vocabulary.len() as u32)
            .filter(|&id| {
                keep(id) && vocabulary.bytes(TokenId::new(id)).is_some_and(|bytes| !bytes.is_empty())
            })
            .collect();
        ids.sort_by_cached_key(|&id| vocabulary.bytes(TokenId::new(id)).map(<[u8]>::to_vec));
        Self { ids }
    }

    /// The ids, sorted by bytes.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Places in [`Self::ids`] of the tokens that begin with `prefix`.
    pub fn range(&self, vocabulary: &Vocabulary, prefix: &[u8]) -> Range<usize> {
        let bytes = |&id: &u32| vocabulary.bytes(TokenId::new(id)).unwrap_or_default();
        let start = self.ids.partition_point(|id| bytes(id) < prefix);
        let length = self.ids[start..].partition_point(|id| bytes(id).starts_with(prefix));
        start..start + length
    }

    /// The tokens that begin with `prefix`.
    pub fn beginning_with(&self, vocabulary: &Vocabulary, prefix: &[u8]) -> &[u32] {
        &self.ids[self.range(vocabulary, prefix)]
    }
}
