//! Where in the text each id comes from.

use std::borrow::Cow;

use super::route::Route;
use super::Tokenizer;
use crate::bpe::spelled::{Spaces, Spelled, Unknown};
use crate::error::{Error, LimitError, UnsupportedComponentError};
use crate::ids::TokenId;
use crate::text::added::{Allowed, Part};
use crate::text::rule::classes::width;

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

/// Where the bytes of a text with spaces for marks come from.
enum Places {
    /// The text as it is.
    Same,
    /// The position in the text for each position in what it became.
    Each(Vec<u32>),
}

impl Places {
    /// Of a text and what [`Spaces::apply`] made of it.
    fn new(text: &str, marked: &str, mark: char) -> Self {
        let shorter = mark.len_utf8() - 1;
        let marks = if text == marked { 0 } else { text.matches(mark).count() };
        let before = marked.len() + marks * shorter - text.len();
        if marks == 0 && before == 0 {
            return Self::Same;
        }
        let mut places = vec![0; before];
        for (at, c) in text.char_indices() {
            let bytes = if c == mark { 1 } else { c.len_utf8() };
            places.extend((at..at + bytes).map(|at| at as u32));
        }
        places.push(text.len() as u32);
        Self::Each(places)
    }

    fn of(&self, at: usize) -> usize {
        match self {
            Self::Same => at,
            Self::Each(places) => places[at] as usize,
        }
    }
}

impl Tokenizer {
    /// The ids of a text and where they come from.
    ///
    /// Fails beyond 4 GiB, where a normalizer changes the text, or a pre-tokenizer does more than to mark spaces: positions in what
    /// comes out are not positions in the text.
    pub fn encode_spans(
        &self,
        text: &str,
        add_special_tokens: bool,
        allowed: &Allowed,
    ) -> Result<Spans, Error> {
        if text.len() > u32::MAX as usize {
            return Err(LimitError { limit: "bytes of one text".into(), value: text.len() as u64 }.into());
        }
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
        if matches!(self.route, Route::Pieces(..)) || self.normalization.apply(text) != text {
            let component = "positions in a text that a normalizer changes".to_owned();
            return Err(UnsupportedComponentError { component, path: None }.into());
        }
        let marked = self.route.marked(Cow::Borrowed(text));
        let places = match &self.route {
            Route::Spaces(spaces, _) => Places::new(text, &marked, spaces.mark),
            _ => Places::Same,
        };
        let mut failed = Ok(());
        self.added_normalized.parts(&marked, allowed, |part| match part {
            Part::Token(id, (start, end)) => spans.push(id, at + places.of(start), at + places.of(end), -1),
            Part::Text(part, within) if failed.is_ok() => {
                let place = |there: usize| at + places.of(within + there);
                match &self.route {
                    Route::Spaces(spaces, spelled) => {
                        let first = at == 0 && within == 0;
                        self.marked_spans(part, first, (spaces, spelled), place, word, spans);
                    }
                    _ => failed = self.piece_spans(part, place, word, spans),
                }
            }
            Part::Text(..) => {}
        })?;
        failed
    }

    fn piece_spans(
        &self,
        text: &str,
        place: impl Fn(usize) -> usize,
        word: &mut i32,
        spans: &mut Spans,
    ) -> Result<(), Error> {
        let (mut pieces, mut ids) = (Vec::new(), Vec::new());
        self.pretokenizer.split(text, &mut pieces)?;
        for (start, end) in pieces {
            ids.clear();
            self.encoder.encode_piece(&text.as_bytes()[start..end], &mut ids);
            let mut from = start;
            for &id in &ids {
                let token = self.vocabulary.bytes(TokenId::new(id)).unwrap_or_default();
                // Bytes that the vocabulary lacks were left out.
                while from < end && !text.as_bytes()[from..end].starts_with(token) {
                    from += 1;
                }
                // A forged file may say other ids than those of this text.
                let to = end.min(from + token.len());
                spans.push(id, place(from), place(to), *word);
                from = to;
            }
            *word += 1;
        }
        Ok(())
    }

    /// The same where spaces are marked: a mark that stands before the text comes from nowhere in it.
    fn marked_spans(
        &self,
        text: &str,
        first: bool,
        (spaces, spelled): (&Spaces, &Spelled),
        place: impl Fn(usize) -> usize,
        word: &mut i32,
        spans: &mut Spans,
    ) {
        let marked = if spaces.normalizes { Cow::Borrowed(text) } else { spaces.apply(text, first) };
        let places = Places::new(text, &marked, spaces.mark);
        let mut ids = Vec::new();
        spelled.encode(&marked, &mut ids);
        let data = marked.as_bytes();
        let char = |at: usize| &data[at..data.len().min(at + width(data[at]))];
        let mut from = 0;
        for &id in &ids {
            let start = from;
            match spelled.unknown() {
                Unknown::Token(unknown, fused) if unknown == id && from < data.len() => {
                    from += char(from).len();
                    while fused && from < data.len() && !spelled.knows(char(from)) {
                        from += char(from).len();
                    }
                }
                _ if spelled.is_byte(id) => from += 1,
                _ => {
                    let token = self.definition.tokens.get(id as usize).and_then(Option::as_deref);
                    let token = String::from_utf8_lossy(token.unwrap_or_default());
                    from +=
                        token.chars().map(|c| if c == spaces.mark { 1 } else { c.len_utf8() }).sum::<usize>();
                }
            }
            from = from.min(data.len());
            // Every mark begins a piece.
            *word += i32::from(spaces.split && start > 0 && data.get(start) == Some(&b' '));
            spans.push(id, place(places.of(start)), place(places.of(from)), *word);
        }
        *word += 1;
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
