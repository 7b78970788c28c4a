//! WordPiece: the longest token first, from the left; a word without such a segmentation is unknown.

use super::Spellings;
use crate::error::UnknownTokenError;

/// The tables.
pub struct WordPiece {
    ids: Spellings,
    unk: Option<u32>,
    prefix: String,
    longest: usize,
}

impl WordPiece {
    pub(super) fn new(ids: Spellings, unk_token: &str, prefix: &str, longest: usize) -> Self {
        Self { unk: ids.get(unk_token), ids, prefix: prefix.to_owned(), longest }
    }

    /// Appends the ids of a word; an error if it is unknown and nothing stands for that.
    pub fn encode(&self, word: &str, ids: &mut Vec<u32>) -> Result<(), UnknownTokenError> {
        let before = ids.len();
        if word.chars().count() <= self.longest && self.segment(word, ids) {
            return Ok(());
        }
        ids.truncate(before);
        ids.push(self.unk.ok_or_else(|| UnknownTokenError::Bytes(word.as_bytes().to_vec()))?);
        Ok(())
    }

    fn segment(&self, word: &str, ids: &mut Vec<u32>) -> bool {
        let mut start = 0;
        let mut continued = self.prefix.clone();
        while start < word.len() {
            let mut end = word.len();
            let id = loop {
                let part = &word[start..end];
                let id = if start == 0 {
                    self.ids.get(part)
                } else {
                    continued.truncate(self.prefix.len());
                    continued.push_str(part);
                    self.ids.get(&continued)
                };
                if let Some(id) = id {
                    break id;
                }
                let Some(last) = part.chars().next_back() else { return false };
                end -= last.len_utf8();
                if end == start {
                    return false;
                }
            };
            ids.push(id);
            start = end;
        }
        true
    }
}
