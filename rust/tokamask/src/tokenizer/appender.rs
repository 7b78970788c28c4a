//! A text that grows: its ids are those of the whole text at any time, and only the end is encoded again.

use std::sync::Arc;

use super::Tokenizer;
use crate::error::Error;
use crate::text::added::Allowed;
use crate::text::normalizer::Normalizer;

/// A long text is added by pieces of this many bytes, so that it leaves places to go back to.
const STEP: usize = 1 << 14;

/// A boundary that more text does not move.
#[derive(Clone, Copy, Debug, Default)]
struct Settled {
    /// Bytes before it.
    bytes: usize,
    /// Ids before it.
    ids: usize,
    /// How much text there was when it was found: a shorter text need not have it.
    seen: usize,
}

/// See the module.
pub struct Appender {
    tokenizer: Arc<Tokenizer>,
    text: String,
    ids: Vec<u32>,
    settled: Vec<Settled>,
}

impl Appender {
    /// An empty text.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, text: String::new(), ids: Vec::new(), settled: vec![Settled::default()] }
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its ids.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many ids from the front no further text can change.
    pub fn settled(&self) -> usize {
        self.last().ids
    }

    fn last(&self) -> Settled {
        self.settled.last().copied().unwrap_or_default()
    }

    /// Adds text; the number of ids from the front that stayed as they were.
    pub fn append(&mut self, text: &str) -> Result<usize, Error> {
        let before = self.ids.split_off(self.last().ids);
        let first = self.ids.len();
        let mut rest = text;
        while !rest.is_empty() {
            let mut cut = rest.len().min(STEP);
            while !rest.is_char_boundary(cut) {
                cut += 1;
            }
            self.text.push_str(&rest[..cut]);
            rest = &rest[cut..];
            self.settle()?;
        }
        let tail = self.tokenizer.encode(&self.text[self.last().bytes..], false, &Allowed::None)?;
        self.ids.extend_from_slice(&tail);
        let same = before.iter().zip(&self.ids[first..]).take_while(|(a, b)| a == b).count();
        Ok(first + same)
    }

    /// Moves the ids before the last known boundary into place.
    fn settle(&mut self) -> Result<(), Error> {
        let last = self.last();
        let open = &self.text[last.bytes..];
        let cut = self.tokenizer.settled(open);
        if cut > 0 {
            // The rest is encoded as if it began at the boundary; what comes before sees what follows.
            let mut all = self.tokenizer.encode(open, false, &Allowed::None)?;
            let rest = self.tokenizer.count(&open[cut..], false, &Allowed::None)?;
            all.truncate(all.len() - rest);
            self.ids.extend_from_slice(&all);
            let (bytes, seen) = (last.bytes + cut, self.text.len());
            self.settled.push(Settled { bytes, ids: self.ids.len(), seen });
        }
        Ok(())
    }

    /// Keeps the first `chars` characters of the text.
    pub fn truncate(&mut self, chars: usize) -> Result<(), Error> {
        let Some((end, _)) = self.text.char_indices().nth(chars) else { return Ok(()) };
        self.text.truncate(end);
        while self.settled.len() > 1 && self.last().seen > end {
            self.settled.pop();
        }
        let last = self.last();
        self.ids.truncate(last.ids);
        let tail = self.tokenizer.encode(&self.text[last.bytes..], false, &Allowed::None)?;
        self.ids.extend_from_slice(&tail);
        Ok(())
    }
}

impl Tokenizer {
    /// A position in `text` such that whatever follows the text, the ids before it stay and those after it are the
    /// ids of what comes after it alone. The last that is easily known; 0 if none is. No special token is allowed.
    pub fn settled(&self, text: &str) -> usize {
        let Some(known) = self.settled_if_normal(text) else { return 0 };
        // A mark that follows would join what is before it, but nothing joins a character of ASCII.
        let parted = self.settings.normalizer.is_none() || text[known..].starts_with(|c: char| c.is_ascii());
        if parted {
            known
        } else {
            0
        }
    }

    /// The same for a text in normal form, if what comes after it cannot change that; `None` for other texts.
    fn settled_if_normal(&self, text: &str) -> Option<usize> {
        self.only_bytes("").ok()?;
        let mut steps = self.settings.normalizer.iter().flat_map(Normalizer::steps);
        let forms = steps.all(|step| {
            matches!(step, Normalizer::Nfc | Normalizer::Nfd | Normalizer::Nfkc | Normalizer::Nfkd)
        });
        if !forms || self.normalization.apply(text) != text {
            return None;
        }
        let (start, end) = self.added.settled(text)?;
        let Some((from, to)) = self.added_normalized.settled(&text[start..end]) else { return Some(start) };
        Some(start + from + self.pretokenizer.settled(&text[start + from..start + to]))
    }
}
