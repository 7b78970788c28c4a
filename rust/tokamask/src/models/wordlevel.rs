//! WordLevel: a piece is a token or unknown.

use super::Spellings;
use crate::error::UnknownTokenError;

/// The tables.
pub struct WordLevel {
    ids: Spellings,
    unk: Option<u32>,
}

impl WordLevel {
    pub(super) fn new(ids: Spellings, unk_token: &str) -> Self {
        Self { unk: ids.get(unk_token), ids }
    }

    /// Appends the id of a word; an error if it is unknown and nothing stands for that.
    pub fn encode(&self, word: &str, ids: &mut Vec<u32>) -> Result<(), UnknownTokenError> {
        let id = self.ids.get(word).or(self.unk);
        ids.push(id.ok_or_else(|| UnknownTokenError::Bytes(word.as_bytes().to_vec()))?);
        Ok(())
    }
}
