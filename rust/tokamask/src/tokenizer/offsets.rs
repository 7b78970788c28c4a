//! Where in the text each id comes from.

use super::Tokenizer;
use crate::error::{Error, UnsupportedComponentError};
use crate::ids::TokenId;
use crate::text::added::{Allowed, Part};

/// Ids and where they come from; one entry an id in each list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// The ids.
    pub ids: Vec<u32>,
    /// Bytes of the text, start and end.
    pub bytes: Vec<[u32; 2]>,
    /// Characters of the text that have a byte of the token, start and end.
    pub chars: Vec<[u32; 2]>,
    /// The pretoken, counted from 0; -1 for added tokens.
    pub words: Vec<i32>,
}

impl Spans {
    fn push(&mut self, id: u32, start: usize, end: usize, word: i32) {
        self.ids.push(id);
        self.bytes.push([start as u32, end as u32]);
        self.words.push(word);
    }

    /// Characters from bytes, in one walk: starts ascend.
    fn count_chars(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let begins = |at: usize| bytes.get(at).is_none_or(|byte| byte & 0xC0 != 0x80);
        let (mut at, mut char) = (0, 0u32);
        for &[start, end] in &self.bytes {
            let (start, end) = (start as usize, end as usize);
            // `char` is the number of characters that begin before `at`.
            char += bytes[at..start].iter().filter(|&&byte| byte & 0xC0 != 0x80).count() as u32;
            at = start;
            let inside = bytes[start..end].iter().filter(|&&byte| byte & 0xC0 != 0x80).count() as u32;
            let first = if begins(start) { char } else { char.saturating_sub(1) };
            self.chars.push([first, if start == end { first } else { char + inside }]);
        }
    }
}

impl Tokenizer {
    /// True if the text is cut and merged as it stands, bytes for bytes.
    pub(super) fn cuts_alone(&self) -> bool {
        self.settings.normalizer.is_none() && self.only_bytes("").is_ok()
    }

    /// The ids of a text and where they come from.
    ///
    /// Fails where a normalizer changes the text: positions in its result are not positions in the text.
    pub fn encode_spans(
        &self,
        text: &str,
        add_special_tokens: bool,
        allowed: &Allowed,
    ) -> Result<Spans, Error> {
        let settings = &self.settings;
        let mut spans = Spans::default();
        if add_special_tokens {
            settings.prefix.iter().for_each(|&id| spans.push(id, 0, 0, -1));
        }
        let (mut word, mut failed) = (0, Ok(()));
        self.added.parts(text, allowed, |part| match part {
            Part::Token(id, (start, end)) => spans.push(id, start, end, -1),
            Part::Text(part, at) if failed.is_ok() => {
                failed = self.normal_spans(part, at, allowed, &mut word, &mut spans);
            }
            Part::Text(..) => {}
        })?;
        failed?;
        if add_special_tokens {
            settings.suffix.iter().for_each(|&id| spans.push(id, text.len(), text.len(), -1));
        }
        spans.count_chars(text);
        Ok(spans)
    }

    fn normal_spans(
        &self,
        text: &str,
        at: usize,
        allowed: &Allowed,
        word: &mut i32,
        spans: &mut Spans,
    ) -> Result<(), Error> {
        if !self.cuts_alone() {
            let component = "positions in a text that a normalizer changes".to_owned();
            return Err(UnsupportedComponentError { component, path: None }.into());
        }
        let mut failed = Ok(());
        self.added_normalized.parts(text, allowed, |part| match part {
            Part::Token(id, (start, end)) => spans.push(id, at + start, at + end, -1),
            Part::Text(part, within) if failed.is_ok() => {
                failed = self.piece_spans(part, at + within, word, spans);
            }
            Part::Text(..) => {}
        })?;
        failed
    }

    fn piece_spans(&self, text: &str, at: usize, word: &mut i32, spans: &mut Spans) -> Result<(), Error> {
        let (mut pieces, mut ids) = (Vec::new(), Vec::new());
        self.pretokenizer.split(text, &mut pieces)?;
        for (start, end) in pieces {
            ids.clear();
            self.encoder.encode_piece(&text.as_bytes()[start..end], &mut ids);
            let mut from = at + start;
            for &id in &ids {
                let token = self.vocabulary.bytes(TokenId::new(id)).unwrap_or_default();
                // Bytes that the vocabulary lacks were left out.
                while from < at + end && !text.as_bytes()[from - at..end].starts_with(token) {
                    from += 1;
                }
                spans.push(id, from, from + token.len(), *word);
                from += token.len();
            }
            *word += 1;
        }
        Ok(())
    }

    /// The longest prefix of `text` that ends where a token of its own ends and has at most `max_tokens` ids as a
    /// text of its own: its length in bytes, and how many ids it has.
    pub fn fit(&self, text: &str, max_tokens: usize) -> Result<(usize, usize), Error> {
        let mut size = max_tokens.saturating_mul(8).saturating_add(64);
        let ends = loop {
            let mut end = size.min(text.len());
            while !text.is_char_boundary(end) {
                end += 1;
            }
            let spans = self.encode_spans(&text[..end], false, &Allowed::None)?;
            let settled = self.settled(&text[..end]);
            // Ends that the rest of the text cannot move.
            let ends: Vec<usize> = spans.bytes.iter().map(|span| span[1] as usize).collect();
            if end == text.len() {
                if ends.len() <= max_tokens {
                    return Ok((text.len(), ends.len()));
                }
                break ends;
            }
            if ends.iter().filter(|&&end| end <= settled).count() > max_tokens {
                break ends;
            }
            size = size.saturating_mul(2);
        };
        for &end in ends[..max_tokens.min(ends.len())].iter().rev() {
            if text.is_char_boundary(end) {
                let count = self.count(&text[..end], false, &Allowed::None)?;
                if count <= max_tokens {
                    return Ok((end, count));
                }
            }
        }
        Ok((0, 0))
    }
}
