//! Compiled maps of character sequences, as SentencePiece models carry them: a double-array trie
//! over the sequences, and the texts they become, each ended by a zero byte.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use super::base64;
use super::normalizer::broken;
use crate::error::VocabularyError;

/// The map; the empty one changes nothing.
pub struct Charsmap {
    units: Vec<u32>,
    texts: String,
}

impl Charsmap {
    /// Reads the base64 spelling of a map.
    pub fn from_base64(text: &str) -> Result<Self, VocabularyError> {
        if text.is_empty() {
            return Ok(Self { units: Vec::new(), texts: String::new() });
        }
        Self::new(&base64::decode(text.as_bytes()).ok_or_else(|| broken("not base64"))?)
    }

    /// Reads a map: bytes of the trie, the trie, the texts.
    pub fn new(data: &[u8]) -> Result<Self, VocabularyError> {
        let (size, rest) = data.split_first_chunk().ok_or_else(|| broken("cut short"))?;
        let size = u32::from_le_bytes(*size) as usize;
        let (trie, texts) = rest.split_at_checked(size).ok_or_else(|| broken("cut short"))?;
        let units = trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
        let texts = std::str::from_utf8(texts).map_err(|_| broken("not UTF-8"))?.to_owned();
        Ok(Self { units: units.collect(), texts })
    }

    /// Calls `found(length, text)` for each sequence that `text` begins with, shortest first, until
    /// it returns false.
    fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, usize) -> bool) {
        let offset = |unit: u32| (unit >> 10) << ((unit & 1 << 9) >> 6);
        let Some(&root) = self.units.first() else { return };
        let mut at = offset(root) as usize;
        for (nth, &byte) in text.iter().enumerate() {
            at ^= usize::from(byte);
            let Some(&unit) = self.units.get(at) else { return };
            if byte == 0 || unit & (1 << 31 | 0xFF) != u32::from(byte) {
                return;
            }
            at ^= offset(unit) as usize;
            if unit >> 8 & 1 == 1 {
                let Some(&leaf) = self.units.get(at) else { return };
                if !found(nth + 1, (leaf & !(1 << 31)) as usize) {
                    return;
                }
            }
        }
    }

    fn text(&self, at: usize) -> &str {
        let rest = self.texts.get(at..).unwrap_or_default();
        rest.split('\0').next().unwrap_or_default()
    }

    /// What the shortest sequence at the start of `part` becomes: the readers of tokenizer.json
    /// ask for no more, and take it for the whole part.
    fn shortest(&self, part: &str) -> Option<&str> {
        let mut first = None;
        self.prefixes(part.as_bytes(), |_, at| {
            first = Some(at);
            false
        });
        first.map(|at| self.text(at))
    }

    /// The normal form as tokenizer.json means it.
    pub fn by_graphemes<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut out = String::with_capacity(text.len());
        for grapheme in text.graphemes(true) {
            if grapheme.len() < 6 {
                if let Some(new) = self.shortest(grapheme) {
                    out.push_str(new);
                    continue;
                }
            }
            let mut bytes = [0; 4];
            for c in grapheme.chars() {
                let part = c.encode_utf8(&mut bytes);
                out.push_str(self.shortest(part).unwrap_or(part));
            }
        }
        if out == text {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(out)
        }
    }

    /// The longest sequence at the start of `text`: its length and what it becomes; one character
    /// as it is if there is none.
    fn longest<'a>(&'a self, text: &'a str) -> (usize, &'a str) {
        let mut last = None;
        let mut known = 0;
        self.prefixes(text.as_bytes(), |length, at| {
            last = Some((length, at));
            known += 1;
            known < 32
        });
        if let Some((length, at)) = last {
            (length, self.text(at))
        } else {
            let length = text.chars().next().map_or(0, char::len_utf8);
            (length, &text[..length])
        }
    }
}

/// What a SentencePiece model does to a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // the flags of the file format
pub struct SentencePiece {
    /// Its map of characters in base64; empty if there is none.
    pub charsmap: String,
    /// A space before the text.
    pub add_dummy_prefix: bool,
    /// Or after it.
    pub space_after: bool,
    /// Runs of spaces become one, those at the ends none.
    pub remove_extra_whitespaces: bool,
    /// Spaces are spelled U+2581.
    pub escape_whitespaces: bool,
    /// Pieces that stay as they are wherever the text has them.
    pub user_defined: Vec<String>,
}

impl SentencePiece {
    /// True if spaces and a prefix are all that changes.
    pub fn is_plain(&self) -> bool {
        self.charsmap.is_empty()
            && !self.space_after
            && !self.remove_extra_whitespaces
            && self.escape_whitespaces
    }

    /// Length and new text of what stands at the start of `text`.
    fn first<'a>(&'a self, map: &'a Charsmap, text: &'a str) -> (usize, &'a str) {
        let user = self.user_defined.iter().filter(|piece| text.starts_with(&***piece));
        match user.map(String::len).max() {
            Some(length) => (length, &text[..length]),
            None => map.longest(text),
        }
    }

    /// The normal form of a text.
    pub fn apply<'a>(&self, map: &Charsmap, text: &'a str) -> Cow<'a, str> {
        let space = if self.escape_whitespaces { "\u{2581}" } else { " " };
        let mut rest = text;
        if self.remove_extra_whitespaces {
            while !rest.is_empty() {
                let (length, new) = self.first(map, rest);
                if new != " " {
                    break;
                }
                rest = &rest[length..];
            }
        }
        if rest.is_empty() {
            return Cow::Borrowed("");
        }
        let mut out = String::with_capacity(text.len() + 16);
        if self.add_dummy_prefix && !self.space_after {
            out.push_str(space);
        }
        let mut after_space = self.remove_extra_whitespaces;
        while !rest.is_empty() {
            let (length, mut new) = self.first(map, rest);
            if after_space {
                new = new.trim_start_matches(' ');
            }
            if !new.is_empty() {
                for part in new.split_inclusive(' ') {
                    match part.strip_suffix(' ') {
                        Some(word) => out.extend([word, space]),
                        None => out.push_str(part),
                    }
                }
                after_space = new.ends_with(' ');
            }
            after_space &= self.remove_extra_whitespaces;
            rest = &rest[length..];
        }
        if self.remove_extra_whitespaces {
            out.truncate(out.trim_end_matches(space).len());
        }
        if self.add_dummy_prefix && self.space_after {
            out.push_str(space);
        }
        Cow::Owned(out)
    }
}
