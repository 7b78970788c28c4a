//! What more text may change, as tiktoken guesses it: the tokens of the last pretoken, and what
//! they may become when one more token begins inside it. The exact form is in `cover`.

use std::collections::BTreeSet;

use super::Tokenizer;
use crate::error::Error;
use crate::ids::TokenId;
use crate::text::added::{Allowed, Part};

/// Ids that stay, and the sequences that the rest may become.
pub type Unstable = (Vec<u32>, BTreeSet<Vec<u32>>);

impl Tokenizer {
    /// The ids of bytes that merging sees as one pretoken.
    pub fn encode_piece(&self, piece: &[u8]) -> Vec<u32> {
        let mut ids = Vec::new();
        if !piece.is_empty() {
            self.encoder.encode_piece(piece, &mut ids);
        }
        ids
    }

    /// The ids of a text and how many of them the last pretoken has; 0 after a special token.
    fn encode_with_tail(&self, text: &str, allowed: &Allowed) -> Result<(Vec<u32>, usize), Error> {
        let ids = self.encode(text, false, allowed)?;
        let mut last = "";
        self.added.parts(text, allowed, |part| {
            last = if let Part::Text(text, _) = part { text } else { "" };
        })?;
        let mut spans = Vec::new();
        self.pretokenizer.split(last, &mut spans)?;
        let tail =
            spans.last().map_or(0, |&(start, end)| self.encode_piece(&last.as_bytes()[start..end]).len());
        // A rule may later join white space that it now cuts ("\n" and " " before another "\n").
        let blank = |&id: &u32| {
            let bytes = self.vocabulary.bytes(TokenId::new(id)).unwrap_or(b"x");
            !self.vocabulary.is_special(TokenId::new(id)) && bytes.iter().all(|byte| b" \n\t".contains(byte))
        };
        let mut tail = tail.min(ids.len());
        if tail > 0 && blank(&ids[ids.len() - tail]) {
            tail += ids[..ids.len() - tail].iter().rev().take_while(|id| blank(id)).count();
        }
        Ok((ids, tail))
    }

    /// The ids of bytes that need not be text: what is not UTF-8 merges with the pretoken before it.
    pub fn encode_bytes(&self, data: &[u8]) -> Result<Vec<u32>, Error> {
        let broken = match std::str::from_utf8(data) {
            Ok(text) => return self.encode(text, false, &Allowed::None),
            Err(error) => error.valid_up_to(),
        };
        self.only_bytes("bytes that are not text")?;
        let text = String::from_utf8_lossy(&data[..broken]);
        let (mut ids, tail) = self.encode_with_tail(&text, &Allowed::None)?;
        let mut rest = self.decode_bytes(&ids[ids.len() - tail..])?;
        rest.extend_from_slice(&data[broken..]);
        ids.truncate(ids.len() - tail);
        ids.extend(self.encode_piece(&rest));
        Ok(ids)
    }

    /// The ids that more text is taken not to change, and what the rest may become.
    pub fn encode_unstable(&self, text: &str, allowed: &Allowed) -> Result<Unstable, Error> {
        let (mut ids, tail) = self.encode_with_tail(text, allowed)?;
        let rest = self.decode_bytes(&ids[ids.len() - tail..])?;
        ids.truncate(ids.len() - tail);
        let mut found = BTreeSet::new();
        let (vocabulary, tokens) = (&self.vocabulary, self.prefixes());
        if rest.is_empty() {
            return Ok((ids, found));
        }
        found.extend(tokens.beginning_with(vocabulary, &rest).iter().map(|&id| vec![id]));
        for cut in 1..rest.len() {
            for &id in tokens.beginning_with(vocabulary, &rest[cut..]) {
                let longer = [&rest[..cut], vocabulary.try_bytes(id.into())?].concat();
                let longer = match std::str::from_utf8(&longer) {
                    Ok(text) => self.encode(text, false, &Allowed::None)?,
                    Err(_) => self.encode_piece(&longer),
                };
                let mut covered = 0;
                let enough = longer.iter().position(|&id| {
                    covered += vocabulary.bytes(TokenId::new(id)).map_or(0, <[u8]>::len);
                    covered >= rest.len()
                });
                found.insert(longer[..enough.map_or(longer.len(), |last| last + 1)].to_vec());
            }
        }
        found.extend(self.cut_before_last_space(&rest));
        Ok((ids, found))
    }

    /// White space at the end may yet become a pretoken of its own.
    fn cut_before_last_space(&self, rest: &[u8]) -> Option<Vec<u32>> {
        let start = (rest.len().saturating_sub(4)..rest.len())
            .find(|&at| std::str::from_utf8(&rest[at..]).is_ok_and(|tail| tail.chars().count() == 1))?;
        let space =
            std::str::from_utf8(&rest[start..]).is_ok_and(|tail| tail.chars().all(char::is_whitespace));
        (space && start > 0)
            .then(|| [self.encode_piece(&rest[..start]), self.encode_piece(&rest[start..])].concat())
    }
}
