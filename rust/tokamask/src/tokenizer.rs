//! The tokenizer: text to ids and back.

pub mod appender;
pub mod batch;
pub mod cover;
#[cfg(test)]
mod damaged;
pub mod offsets;
mod parallel;
pub mod prefixes;
mod route;
pub mod sample;
pub mod segment;
pub mod unstable;

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;

use crate::bpe::encoder::{Count, Encoder, Sink, BATCH};
use crate::bpe::Merges;
use crate::error::{Error, LimitError, UnknownTokenError, UnsupportedComponentError, VocabularyError};
use crate::formats::compiled::{self, Compiled, Derived};
use crate::formats::map::Map;
use crate::formats::{self, Definition, Settings};
use crate::ids::TokenId;
use crate::models::Kind;
use crate::text::added::{AddedTokens, Allowed, Part};
use crate::text::alphabet::spell;
use crate::text::decoder::Leading;
use crate::text::levels::Levels;
use crate::text::normalizer::{Normalization, Normalizer};
use crate::text::pretokenizer::PreTokenizer;
use crate::vocabulary::trie::TokenTrie;
use crate::vocabulary::Vocabulary;
use route::{Route, Way};

/// Ids that a thread keeps room for: a result that has room to spare is more memory to ask the system for than a copy
/// costs (json of 70 KB a document from Python: a tenth of the time).
const KEPT: usize = 1 << 18;

thread_local! {
    /// Room for the ids of a text whose number is not known yet.
    static SCRATCH: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

/// Ids of a text, in room that is used again by the thread that drops them.
pub struct Ids(Vec<u32>);

impl From<Vec<u32>> for Ids {
    fn from(ids: Vec<u32>) -> Self {
        Self(ids)
    }
}

impl Deref for Ids {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.0
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        if self.0.capacity() <= KEPT {
            // A thread that ends has no room any more.
            let _ = SCRATCH.try_with(|room| room.set(std::mem::take(&mut self.0)));
        }
    }
}

/// An immutable tokenizer; cheap to share between threads.
pub struct Tokenizer {
    vocabulary: Arc<Vocabulary>,
    definition: Source,
    settings: Settings,
    /// Matched in the text as it is.
    added: AddedTokens,
    /// Matched in the normal form of what is left.
    added_normalized: AddedTokens,
    normalization: Normalization,
    route: Route,
    way: Way,
    pretokenizer: PreTokenizer,
    encoder: Encoder,
    /// Added tokens matched in the text as it is, and in the normal form, are units of the one encoder there is.
    around: [bool; 2],
    /// What stands for an added token when it is decoded.
    added_spellings: FxHashMap<u32, String>,
    /// Made when first asked for.
    prefixes: OnceLock<prefixes::Prefixes>,
    trie: OnceLock<TokenTrie>,
}

/// What a tokenizer was built from.
enum Source {
    Read(Definition),
    /// Made from the file when first asked for.
    Compiled(Box<Compiled>, OnceLock<Definition>),
}

impl Deref for Source {
    type Target = Definition;

    fn deref(&self) -> &Definition {
        match self {
            Self::Read(definition) => definition,
            Self::Compiled(compiled, definition) => definition.get_or_init(|| compiled.definition()),
        }
    }
}

/// The tokens of a definition, borrowed.
fn spelled(definition: &Definition) -> Vec<Option<&[u8]>> {
    definition.tokens.iter().map(Option::as_deref).collect()
}

impl Tokenizer {
    /// Builds the tables of a definition.
    pub fn new(definition: Definition) -> Result<Self, Error> {
        let parts = Self::build(&definition, &spelled(&definition), None, false)?;
        Ok(parts(Source::Read(definition)))
    }

    /// The same without fast paths: texts go through the definition of their model. For tests.
    pub fn literal(definition: Definition) -> Result<Self, Error> {
        let parts = Self::build(&definition, &spelled(&definition), None, true)?;
        Ok(parts(Source::Read(definition)))
    }

    /// From a compiled file.
    pub fn from_compiled(mut compiled: Compiled) -> Result<Self, Error> {
        let derived = compiled.derived.take();
        let (Kind::Bytes, Some(derived)) = (&compiled.settings.model, derived) else {
            return Self::new(compiled.definition());
        };
        let small =
            Definition { tokens: Vec::new(), merges: Merges::Ranks, settings: compiled.settings.clone() };
        let parts = Self::build(&small, &compiled.tokens(), Some(&derived), false)?;
        Ok(parts(Source::Compiled(Box::new(compiled), OnceLock::new())))
    }

    /// All but the source. `tokens`: those of the definition, which may lack them if `derived` is given.
    fn build(
        definition: &Definition,
        tokens: &[Option<&[u8]>],
        derived: Option<&Derived>,
        literally: bool,
    ) -> Result<impl FnOnce(Source) -> Self, Error> {
        let Definition { merges, settings, .. } = definition;
        let print = route::printer(definition);
        let spelled = route::added_spellings(definition)?;
        let mut own: FxHashMap<usize, Vec<u8>> = FxHashMap::default();
        let mut size = tokens.len();
        for (token, spelled) in settings.added.iter().zip(&spelled) {
            let at = token.id as usize;
            if at >= crate::bpe::MAX_SYMBOLS {
                return Err(VocabularyError::new(format!("id {at} is too large"))
                    .at_token(&token.content)
                    .into());
            }
            size = size.max(at + 1);
            own.insert(at, print(spelled.as_bytes()));
        }
        let bytes_model = settings.model == Kind::Bytes;
        let printed = (0..size).map(|id| match (own.remove(&id), tokens.get(id).copied().flatten()) {
            (Some(bytes), _) => Some(Cow::Owned(bytes)),
            (None, Some(token)) if bytes_model => Some(Cow::Borrowed(token)),
            (None, token) => token.map(|token| Cow::Owned(print(token))),
        });
        let special = settings.added.iter().filter(|t| t.special);
        let special = special.map(|t| (t.content.clone(), TokenId::new(t.id)));
        let eos_ids = settings.eos_ids.iter().copied().map(TokenId::new);
        let vocabulary = Vocabulary::new(printed, special, eos_ids)?;
        for &id in settings.prefix.iter().chain(&settings.suffix) {
            if vocabulary.bytes(id.into()).is_none() {
                return Err(
                    VocabularyError::new(format!("id {id} is put round texts but is no token")).into()
                );
            }
        }
        let (normalized, raw) = settings.added.iter().cloned().partition(|token| token.normalized);
        let (route, normalization) = Route::new(definition, literally)?;
        let none = Merges::List(Vec::new());
        let encoder = match derived {
            Some(derived) => Encoder::with(tokens, &derived.tables, settings.whole_pieces)?,
            None if bytes_model => Encoder::new(tokens, merges, settings.whole_pieces)?,
            None => Encoder::new(&[], &none, settings.whole_pieces)?,
        };
        let cuts = if matches!(route, Route::Bytes) { &settings.steps[..] } else { &[] };
        let windows = derived.map_or(&[][..], |derived| &derived.windows);
        let pretokenizer = PreTokenizer::with(cuts, windows)?;
        // SentencePiece itself matches its pieces as they are spelled.
        let as_spelled = matches!(settings.normalizer, Some(Normalizer::SentencePiece(_)));
        let form = |text: &str| {
            let normal = if as_spelled {
                route.respelled(Cow::Borrowed(text))
            } else {
                route.marked(normalization.apply(text))
            };
            normal.into_owned()
        };
        let added_normalized = AddedTokens::new(normalized, form)?;
        let added = AddedTokens::new(raw, str::to_owned)?;
        let around = [
            route.around(&added, false).is_some() && added_normalized.tokens().is_empty(),
            route.around(&added_normalized, true).is_some(),
        ];
        let added_spellings = settings.added.iter().map(|token| token.id).zip(spelled).collect();
        let (way, settings) = (Way::new(definition), settings.clone());
        Ok(move |definition| Self {
            vocabulary: Arc::new(vocabulary),
            added,
            added_normalized,
            around,
            way,
            normalization,
            route,
            pretokenizer,
            encoder,
            prefixes: OnceLock::new(),
            added_spellings,
            trie: OnceLock::new(),
            settings,
            definition,
        })
    }

    /// Reads a tokenizer file, told by its content.
    pub fn from_bytes(data: &[u8]) -> Result<Self, Error> {
        if data.starts_with(compiled::MAGIC) {
            return Self::from_map(data.to_vec().into());
        }
        Self::new(formats::read(data)?)
    }

    /// The same from a file; a compiled one is not copied.
    pub fn from_map(file: Map) -> Result<Self, Error> {
        if file.starts_with(compiled::MAGIC) {
            return Self::from_compiled(Compiled::open(file)?);
        }
        Self::from_bytes(&file)
    }

    /// The compiled file of the tokenizer: its definition and the tables that take long to derive.
    pub fn to_compiled(&self) -> Result<Vec<u8>, VocabularyError> {
        let mut derived = Derived::default();
        if self.settings.model == Kind::Bytes {
            derived.windows = self.pretokenizer.windows();
            derived.tables = self.encoder.derived();
        }
        compiled::write(&self.definition, &derived)
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

    /// Refuses by name what is only defined for texts that are cut and merged as bytes.
    fn only_bytes(&self, what: &str) -> Result<(), Error> {
        if matches!(self.route, Route::Bytes) {
            return Ok(());
        }
        let component = format!("{what} of a model that is not byte-level");
        Err(UnsupportedComponentError { component, path: None }.into())
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
        let settings = &self.settings;
        if add_special_tokens {
            sink.ids(&settings.prefix);
        }
        if !(self.around[0] && self.encode_around(text, &self.added, allowed, sink)) {
            let mut failed = Ok(());
            self.added.parts(text, allowed, |part| match part {
                Part::Token(id, _) => sink.ids(&[id]),
                Part::Text(text, at) if failed.is_ok() => {
                    failed = self.encode_normalized(text, at == 0, allowed, sink);
                }
                Part::Text(..) => {}
            })?;
            failed?;
        }
        if add_special_tokens {
            sink.ids(&settings.suffix);
        }
        Ok(())
    }

    /// Text without the added tokens that are matched as they are; `first` if it is where the whole
    /// text begins.
    fn encode_normalized(
        &self,
        text: &str,
        first: bool,
        allowed: &Allowed,
        sink: &mut impl Sink,
    ) -> Result<(), Error> {
        let normal = self.route.marked(self.normalization.apply(text));
        if self.added_normalized.tokens().is_empty() {
            return self.encode_ordinary(&normal, first, sink);
        }
        if self.around[1] && self.encode_around(&normal, &self.added_normalized, allowed, sink) {
            return Ok(());
        }
        let mut failed = Ok(());
        self.added_normalized.parts(&normal, allowed, |part| match part {
            Part::Token(id, _) => sink.ids(&[id]),
            Part::Text(text, at) if failed.is_ok() => {
                failed = self.encode_ordinary(text, first && at == 0, sink);
            }
            Part::Text(..) => {}
        })?;
        failed
    }

    /// Text with added tokens in one go: what lies between two of them is often short (lines, where line ends are added
    /// tokens), and pieces that no cache knows are best merged many at a time. False if that cannot be.
    fn encode_around(
        &self,
        text: &str,
        added: &AddedTokens,
        allowed: &Allowed,
        sink: &mut impl Sink,
    ) -> bool {
        let Route::Spaces(spaces, spelled) = &self.route else { return false };
        let mut mark = [0; 4];
        let mark = &*spaces.mark.encode_utf8(&mut mark);
        let possible = *allowed == Allowed::None && sink.threads() < 2 && u32::try_from(text.len()).is_ok();
        if !possible || memchr::memmem::find(text.as_bytes(), mark.as_bytes()).is_some() {
            return false;
        }
        spelled.encode_around(text, added.plain_spans(text), sink);
        true
    }

    /// Normal text without added tokens.
    fn encode_ordinary(&self, text: &str, first: bool, sink: &mut impl Sink) -> Result<(), Error> {
        if self.encode_parts(text, first, sink)? {
            return Ok(());
        }
        if !matches!(self.route, Route::Bytes) {
            return self.route.encode(text, first, self.settings.whole_pieces, &self.encoder, sink);
        }
        // Positions are 32 bits in the hot path.
        if text.len() > u32::MAX as usize {
            return Err(LimitError { limit: "bytes of one text".into(), value: text.len() as u64 }.into());
        }
        if let Some(rule) = self.pretokenizer.single_rule_for(text) {
            let mut splitter = rule.pieces(text.as_bytes());
            self.encoder.encode(text.as_bytes(), |starts| splitter.fill(starts), sink);
            return Ok(());
        }
        if let Some(mut levels) =
            self.pretokenizer.rules().and_then(|rules| Levels::new(&rules, text.as_bytes()))
        {
            self.encoder.encode(text.as_bytes(), |starts| levels.fill(starts), sink);
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
        Ok(self.encode_kept(text, add_special_tokens, allowed)?.to_vec())
    }

    /// The same in room that the thread uses again.
    pub fn encode_kept(&self, text: &str, add_special_tokens: bool, allowed: &Allowed) -> Result<Ids, Error> {
        let mut ids = Ids(SCRATCH.take());
        ids.0.clear();
        ids.0.reserve(text.len() / 3 + 8);
        self.encode_into(text, add_special_tokens, allowed, &mut ids.0)?;
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
        let leading = match self.way {
            Way::Stripped(count) => count,
            Way::Marked(Leading::First | Leading::EachFirst, _) => 1,
            _ => 0,
        };
        let spaces = bytes.iter().take(leading).take_while(|&&byte| byte == b' ').count();
        bytes.drain(..spaces);
        Ok(bytes)
    }

    /// The text that ids spell; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        match self.way {
            Way::Bytes => return Ok(into_text(self.decode_bytes(ids)?)),
            Way::Stripped(_) => {}
            Way::Marked(..) if !self.is_marked(ids) => {}
            Way::Marked(..) | Way::Literal => return self.decode_literally(ids),
        }
        match String::from_utf8(self.decode_bytes(ids)?) {
            Ok(text) => Ok(text),
            Err(_) => self.decode_literally(ids),
        }
    }

    /// True where bytes without one leading space are not what SentencePiece makes of the ids.
    fn is_marked(&self, ids: &[u32]) -> bool {
        let Way::Marked(spaces, unknown) = self.way else { return false };
        if unknown.is_some_and(|unknown| ids.contains(&unknown)) {
            return true;
        }
        let Some(&first) = ids.first().filter(|_| spaces != Leading::Kept) else { return false };
        let token = self.definition.tokens.get(first as usize).and_then(Option::as_deref);
        match token.and_then(|token| token.strip_prefix("\u{2581}".as_bytes())) {
            Some(rest) => rest.is_empty() && spaces == Leading::EachFirst,
            None => self.vocabulary.bytes(first.into()).is_none_or(|bytes| bytes.starts_with(b" ")),
        }
    }

    /// The text of ids by the file's own decoder, token by token.
    fn decode_literally(&self, ids: &[u32]) -> Result<String, Error> {
        let spellings = ids.iter().map(|&id| self.spelling(id)).collect::<Result<Vec<_>, _>>()?;
        match &self.settings.decoder {
            Some(decoder) => Ok(decoder.decode(spellings)?),
            None => Ok(spellings.join(" ")),
        }
    }

    /// A token as the file spells it.
    pub fn spelling(&self, id: u32) -> Result<String, UnknownTokenError> {
        let Definition { tokens, settings, .. } = &*self.definition;
        if let Some(spelled) = self.added_spellings.get(&id) {
            return Ok(spelled.clone());
        }
        let token = tokens.get(id as usize).and_then(Option::as_deref);
        let token = token.ok_or(UnknownTokenError::Id(id.into()))?;
        Ok(match settings.model {
            Kind::Bytes => spell(token),
            _ => String::from_utf8_lossy(token).into_owned(),
        })
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
