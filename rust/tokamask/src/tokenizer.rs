//! The tokenizer: text to ids and back.

pub mod appender;
pub mod batch;
pub mod cover;
pub mod offsets;
pub mod prefixes;
pub mod sample;
pub mod segment;
pub mod unstable;

use std::sync::{Arc, OnceLock};

use crate::bpe::encoder::{Count, Encoder, Sink, BATCH};
use crate::bpe::Merges;
use crate::error::{Error, LimitError, UnknownTokenError, VocabularyError};
use crate::formats::{self, Definition, Settings};
use crate::ids::TokenId;
use crate::text::added::{AddedTokens, Allowed, Part};
use crate::text::pretokenizer::PreTokenizer;
use crate::vocabulary::trie::TokenTrie;
use crate::vocabulary::Vocabulary;

/// An immutable tokenizer; cheap to share between threads.
pub struct Tokenizer {
    vocabulary: Arc<Vocabulary>,
    definition: Definition,
    /// Matched in the text as it is.
    added: AddedTokens,
    /// Matched in the normal form of what is left.
    added_normalized: AddedTokens,
    pretokenizer: PreTokenizer,
    encoder: Encoder,
    /// Made when first asked for.
    prefixes: OnceLock<prefixes::Prefixes>,
    trie: OnceLock<TokenTrie>,
}

impl Tokenizer {
    /// Builds the tables of a definition.
    pub fn new(definition: Definition) -> Result<Self, Error> {
        let Definition { tokens, merges, settings } = &definition;
        let mut bytes = tokens.clone();
        for token in &settings.added {
            let at = token.id as usize;
            if at >= crate::bpe::MAX_SYMBOLS {
                return Err(VocabularyError::new(format!("id {at} is too large"))
                    .at_token(&token.content)
                    .into());
            }
            if bytes.len() <= at {
                bytes.resize(at + 1, None);
            }
            bytes[at] = Some(token.content.clone().into_bytes());
        }
        let special = settings.added.iter().filter(|t| t.special);
        let special = special.map(|t| (t.content.clone(), TokenId::new(t.id)));
        let eos_ids = settings.eos_ids.iter().copied().map(TokenId::new);
        let vocabulary = Vocabulary::new(bytes, special, eos_ids)?;
        for &id in settings.prefix.iter().chain(&settings.suffix) {
            if vocabulary.bytes(id.into()).is_none() {
                return Err(
                    VocabularyError::new(format!("id {id} is put round texts but is no token")).into()
                );
            }
        }
        let (normalized, raw) = settings.added.iter().cloned().partition(|token| token.normalized);
        let slices: Vec<Option<&[u8]>> = tokens.iter().map(Option::as_deref).collect();
        let encoder = Encoder::new(&slices, merges, settings.whole_pieces)?;
        Ok(Self {
            vocabulary: Arc::new(vocabulary),
            added: AddedTokens::new(raw, str::to_owned)?,
            added_normalized: AddedTokens::new(normalized, |text| match &settings.normalizer {
                Some(normalizer) => normalizer.apply(text).into_owned(),
                None => text.to_owned(),
            })?,
            pretokenizer: PreTokenizer::new(&settings.steps)?,
            encoder,
            prefixes: OnceLock::new(),
            trie: OnceLock::new(),
            definition,
        })
    }

    /// Reads a tokenizer file, told by its content.
    pub fn from_bytes(data: &[u8]) -> Result<Self, Error> {
        Self::new(formats::read(data)?)
    }

    /// tiktoken's kind: ranks by token bytes, one split rule, special tokens.
    pub fn from_ranks(
        tokens: Vec<Option<Vec<u8>>>,
        pattern: &str,
        special_tokens: Vec<(String, u32)>,
    ) -> Result<Self, Error> {
        let settings = Settings::tiktoken(pattern, special_tokens);
        Self::new(Definition { tokens, merges: Merges::Ranks, settings })
    }

    /// Everything the tokenizer was built from.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Tokens and their bytes.
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// The tokens that merging makes, sorted by bytes.
    pub fn prefixes(&self) -> &prefixes::Prefixes {
        let merged = |id: u32| self.definition.tokens.get(id as usize).is_some_and(Option::is_some);
        self.prefixes.get_or_init(|| prefixes::Prefixes::new(&self.vocabulary, merged))
    }

    /// True if the text of some added token is in `text`.
    pub fn has_added(&self, text: &str) -> bool {
        self.added.any(text) || self.added_normalized.any(text)
    }

    /// Sends the ids of `text` to a sink.
    pub fn encode_into(
        &self,
        text: &str,
        add_special_tokens: bool,
        allowed: &Allowed,
        sink: &mut impl Sink,
    ) -> Result<(), Error> {
        let settings = &self.definition.settings;
        if add_special_tokens {
            sink.ids(&settings.prefix);
        }
        let mut failed = Ok(());
        self.added.parts(text, allowed, |part| match part {
            Part::Token(id, _) => sink.ids(&[id]),
            Part::Text(text, _) if failed.is_ok() => failed = self.encode_normalized(text, allowed, sink),
            Part::Text(..) => {}
        })?;
        failed?;
        if add_special_tokens {
            sink.ids(&settings.suffix);
        }
        Ok(())
    }

    /// Text without the added tokens that are matched as they are.
    fn encode_normalized(&self, text: &str, allowed: &Allowed, sink: &mut impl Sink) -> Result<(), Error> {
        let normal = self.definition.settings.normalizer.as_ref().map(|normalizer| normalizer.apply(text));
        let text = normal.as_deref().unwrap_or(text);
        if self.added_normalized.tokens().is_empty() {
            return self.encode_ordinary(text, sink);
        }
        let mut failed = Ok(());
        self.added_normalized.parts(text, allowed, |part| match part {
            Part::Token(id, _) => sink.ids(&[id]),
            Part::Text(text, _) if failed.is_ok() => failed = self.encode_ordinary(text, sink),
            Part::Text(..) => {}
        })?;
        failed
    }

    /// Text without added tokens.
    fn encode_ordinary(&self, text: &str, sink: &mut impl Sink) -> Result<(), Error> {
        // Positions are 32 bits in the hot path.
        if text.len() > u32::MAX as usize {
            return Err(LimitError { limit: "bytes of one text".into(), value: text.len() as u64 }.into());
        }
        if let Some(rule) = self.pretokenizer.single_rule() {
            let mut splitter = rule.pieces(text.as_bytes());
            self.encoder.encode(text.as_bytes(), |starts| splitter.fill(starts), sink);
            return Ok(());
        }
        let mut spans = Vec::new();
        self.pretokenizer.split(text, &mut spans)?;
        let mut spans = spans.into_iter().peekable();
        self.encoder.encode(
            text.as_bytes(),
            |starts| {
                // A batch is a run of pieces without gaps.
                while let Some((start, end)) = spans.next() {
                    if starts.is_empty() {
                        starts.push(start as u32);
                    }
                    starts.push(end as u32);
                    if starts.len() > BATCH || spans.peek().is_none_or(|next| next.0 != end) {
                        break;
                    }
                }
            },
            sink,
        );
        Ok(())
    }

    /// The ids of `text`.
    pub fn encode(&self, text: &str, add_special_tokens: bool, allowed: &Allowed) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 8);
        self.encode_into(text, add_special_tokens, allowed, &mut ids)?;
        Ok(ids)
    }

    /// The number of ids of `text`.
    pub fn count(&self, text: &str, add_special_tokens: bool, allowed: &Allowed) -> Result<usize, Error> {
        let mut count = Count::default();
        self.encode_into(text, add_special_tokens, allowed, &mut count)?;
        Ok(count.0)
    }

    /// The bytes that ids spell.
    pub fn decode_bytes(&self, ids: &[u32]) -> Result<Vec<u8>, UnknownTokenError> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            bytes.extend_from_slice(self.vocabulary.try_bytes(id.into())?);
        }
        Ok(bytes)
    }

    /// The text that ids spell; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, UnknownTokenError> {
        Ok(into_text(self.decode_bytes(ids)?))
    }
}

/// Text from bytes; what is not UTF-8 becomes U+FFFD.
fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|broken| String::from_utf8_lossy(broken.as_bytes()).into_owned())
}

/// Turns a stream of ids into text, never cutting inside a character.
#[derive(Clone, Debug, Default)]
pub struct StreamDecoder {
    /// Bytes of a character that is not complete.
    pending: Vec<u8>,
}

impl StreamDecoder {
    /// The text that became complete with this token.
    pub fn push(&mut self, vocabulary: &Vocabulary, id: u32) -> Result<String, UnknownTokenError> {
        self.pending.extend_from_slice(vocabulary.try_bytes(id.into())?);
        let mut done = 0;
        let mut text = String::new();
        loop {
            let rest = &self.pending[done..];
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    done = self.pending.len();
                    break;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&rest[..valid]));
                    done += valid;
                    let Some(broken) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    done += broken;
                }
            }
        }
        self.pending.drain(..done);
        Ok(text)
    }

    /// What is left: an unfinished character becomes U+FFFD.
    pub fn flush(&mut self) -> String {
        into_text(std::mem::take(&mut self.pending))
    }
}
