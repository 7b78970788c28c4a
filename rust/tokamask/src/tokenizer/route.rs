//! The way of a text through a model that is not byte-level, and the way back.

use std::borrow::Cow;

use rustc_hash::FxHashSet;

use crate::bpe::encoder::{Encoder, Sink};
use crate::bpe::spelled::{Prefix, Spaces, Spelled, Spelling, Unknown};
use crate::bpe::Merges;
use crate::error::{Error, LimitError};
use crate::formats::Definition;
use crate::models::{Kind, Model, Spellings};
use crate::text::added::{AddedToken, AddedTokens};
use crate::text::alphabet::ByteOfChar;
use crate::text::decoder::{byte_of, Decoder, Leading};
use crate::text::normalizer::{Normalization, Normalizer, Replaced};
use crate::text::pieces::Pieces;
use crate::text::pretokenizer::{Scheme, Step};

/// What happens to a text after normalization.
pub(super) enum Route {
    /// The steps only cut, and the model merges bytes.
    Bytes,
    /// Spaces are marked, and the model merges characters: the text is cut at barriers.
    Spaces(Box<Spaces>, Box<Spelled>),
    /// Piece by piece.
    Pieces(Box<Pieces>, Box<Body>),
}

/// What makes ids of a piece.
pub(super) enum Body {
    /// Merges over bytes; pieces are spelled in the byte alphabet.
    Bytes(Box<ByteOfChar>),
    /// Merges over characters.
    Spelled(Box<Spelled>),
    /// Anything else.
    Model(Box<Model>),
}

impl Route {
    /// The way, and what becomes of a text before it is taken.
    pub fn new(definition: &Definition, literally: bool) -> Result<(Self, Normalization), Error> {
        let Definition { tokens, merges, settings } = definition;
        let normalization = Normalization::new(&settings.normalizer)?;
        let pieces = || Pieces::new(&settings.steps).map(Box::new);
        if settings.model == Kind::Bytes {
            let route = if settings.steps.iter().all(Step::only_cuts) {
                Self::Bytes
            } else {
                Self::Pieces(pieces()?, Box::new(Body::Bytes(Box::default())))
            };
            return Ok((route, normalization));
        }
        let list = match merges {
            Merges::List(list) => &list[..],
            Merges::Ranks => &[],
        };
        if let (Some(mut spelling), false) = (spelling(definition, list)?, literally) {
            let spaces = Spaces::new(settings.normalizer.as_ref(), &settings.steps);
            // White space is swallowed before it is marked.
            let swallows =
                settings.added.iter().any(|token| token.normalized && (token.lstrip || token.rstrip));
            if let Some(spaces) = spaces.filter(|_| !swallows) {
                let matched = settings.added.iter().filter(|token| is_always_matched(token, &spaces));
                spelling.matched = matched.map(|token| token.id).collect();
                if let Some(spelled) = Spelled::new(&spelling, Some(&spaces))? {
                    let front = Normalization::new(&spaces.front)?;
                    return Ok((Self::Spaces(Box::new(spaces), Box::new(spelled)), front));
                }
            }
            spelling.matched.clear();
            if let Some(spelled) = Spelled::new(&spelling, None)? {
                return Ok((
                    Self::Pieces(pieces()?, Box::new(Body::Spelled(Box::new(spelled)))),
                    normalization,
                ));
            }
        }
        let model = Model::new(&settings.model, tokens, list)?;
        let body = model.map_or_else(|| Body::Bytes(Box::default()), |model| Body::Model(Box::new(model)));
        Ok((Self::Pieces(pieces()?, Box::new(body)), normalization))
    }

    /// A normal text as added tokens are looked for in it: with spaces for marks that the
    /// normalizer set.
    pub fn marked<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        match self {
            Self::Spaces(spaces, _) if spaces.normalizes => match text {
                Cow::Borrowed(text) => spaces.apply(text, true),
                Cow::Owned(text) => Cow::Owned(spaces.apply(&text, true).into_owned()),
            },
            _ => text,
        }
    }

    /// A normal form with spaces for marks, where marks are set by the normalizer.
    pub fn respelled<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        match self {
            Self::Spaces(spaces, _) if spaces.normalizes && text.contains(spaces.mark) => {
                Cow::Owned(text.replace(spaces.mark, " "))
            }
            _ => text,
        }
    }

    /// The encoder of a text that is cut at added tokens as it stands, if it knows all of those that are matched in any
    /// text by theirs. `normal`: the text went through the normalizer.
    pub fn around<'a>(&'a self, added: &AddedTokens, normal: bool) -> Option<(&'a Spaces, &'a Spelled)> {
        let Self::Spaces(spaces, spelled) = self else { return None };
        let whole = if normal { spaces.normalizes } else { keeps_texts(spaces) };
        let known = |(id, text): (u32, &str)| text.contains(spaces.mark) || spelled.finds(id, text);
        (whole && added.stand_alone() && added.plain().all(known)).then_some((spaces, spelled))
    }

    /// Text without added tokens; `first` if the whole text begins with it.
    pub fn encode(
        &self,
        text: &str,
        first: bool,
        whole_pieces: bool,
        encoder: &Encoder,
        sink: &mut impl Sink,
    ) -> Result<(), Error> {
        match self {
            Self::Bytes => Ok(()),
            Self::Spaces(spaces, spelled) => {
                let text = if spaces.normalizes { Cow::Borrowed(text) } else { spaces.apply(text, first) };
                if text.len() > u32::MAX as usize {
                    return Err(
                        LimitError { limit: "bytes of one text".into(), value: text.len() as u64 }.into()
                    );
                }
                spelled.encode(&text, sink);
                Ok(())
            }
            Self::Pieces(pieces, body) => {
                let mut ids = Vec::new();
                pieces.split(text, first, |piece| {
                    ids.clear();
                    match &**body {
                        Body::Bytes(alphabet) => {
                            let bytes = alphabet.bytes(piece).unwrap_or_else(|| piece.as_bytes().to_vec());
                            encoder.encode_piece(&bytes, &mut ids);
                        }
                        Body::Spelled(spelled) => spelled.encode_piece(piece, &mut ids),
                        Body::Model(model) => model.encode(piece, whole_pieces, &mut ids)?,
                    }
                    sink.ids(&ids);
                    Ok(())
                })
            }
        }
    }
}

/// True if no text that reaches the model contains the text of an added token.
fn is_always_matched(token: &AddedToken, spaces: &Spaces) -> bool {
    let alone = !token.special && !token.lstrip && !token.rstrip && !token.single_word;
    let marked = token.content.contains([' ', spaces.mark]);
    alone && if token.normalized { spaces.normalizes } else { !marked && keeps_texts(spaces) }
}

/// True if nothing but the marks of spaces is changed.
fn keeps_texts(spaces: &Spaces) -> bool {
    spaces.front.is_empty() && spaces.prefix == Prefix::Missing(Scheme::Never)
}

/// The vocabulary as the encoder of spellings takes it; `None` if it has affixes.
fn spelling<'a>(definition: &'a Definition, merges: &'a [(u32, u32)]) -> Result<Option<Spelling<'a>>, Error> {
    let Kind::Characters(kind) = &definition.settings.model else { return Ok(None) };
    let empty = |affix: &Option<String>| affix.as_ref().is_none_or(String::is_empty);
    if !empty(&kind.continuing_subword_prefix) || !empty(&kind.end_of_word_suffix) {
        return Ok(None);
    }
    let ids = Spellings::new(&definition.tokens)?;
    let mut bytes = None;
    if kind.byte_fallback {
        let all = ids.bytes();
        if all.contains(&None) && all.iter().any(Option::is_some) {
            return Ok(None); // some characters fall back, others are unknown
        }
        bytes = (!all.contains(&None)).then(|| all.map(Option::unwrap_or_default));
    }
    let unknown = match &kind.unk_token {
        Some(token) => match ids.get(token) {
            Some(id) => Unknown::Token(id, kind.fuse_unk),
            None => return Ok(None),
        },
        None => Unknown::Dropped,
    };
    let whole_pieces = definition.settings.whole_pieces;
    let runs = kind.runs(&definition.tokens);
    let matched = FxHashSet::default();
    Ok(Some(Spelling { tokens: &definition.tokens, merges, bytes, unknown, whole_pieces, runs, matched }))
}

/// How ids become text.
pub(super) enum Way {
    /// Bytes, one after another.
    Bytes,
    /// The same, but the text loses so many spaces at its start; where it is not UTF-8, literally.
    Stripped(usize),
    /// The same by SentencePiece's rules, which have a sign of its own for this id.
    Marked(Leading, Option<u32>),
    /// By the decoder.
    Literal,
}

impl Way {
    pub fn new(definition: &Definition) -> Self {
        let settings = &definition.settings;
        let steps: Vec<&Decoder> = settings.decoder.as_ref().map(Decoder::steps).unwrap_or_default();
        if settings.model == Kind::Bytes && matches!(steps[..], [] | [Decoder::ByteLevel {}]) {
            return Self::Bytes;
        }
        match steps[..] {
            [Decoder::Replace { pattern: Replaced::String(_), content }, Decoder::ByteFallback {}, Decoder::Fuse {}]
                if content == " " =>
            {
                Self::Stripped(0)
            }
            [Decoder::Replace { pattern: Replaced::String(_), content }, Decoder::ByteFallback {}, Decoder::Fuse {}, Decoder::Strip { content: ' ', start, stop: 0 }]
                if content == " " =>
            {
                Self::Stripped(*start)
            }
            [Decoder::SentencePiece { unknown, spaces, .. }] => {
                let is_unknown = |token: &Option<Vec<u8>>| token.as_deref() == Some(unknown.as_bytes());
                Self::Marked(*spaces, definition.tokens.iter().position(is_unknown).map(|id| id as u32))
            }
            _ => Self::Literal,
        }
    }
}

/// What stands for each added token in decoded text: normal forms of those matched in such.
pub(super) fn added_spellings(definition: &Definition) -> Result<Vec<String>, Error> {
    let settings = &definition.settings;
    let known =
        settings.normalizer.iter().filter(|normalizer| !matches!(normalizer, Normalizer::SentencePiece(_)));
    let all = Normalization::new(known)?;
    let spelled = settings.added.iter().map(|token| {
        if token.normalized && settings.model != Kind::Bytes {
            all.apply(&token.content).into_owned()
        } else {
            token.content.clone()
        }
    });
    Ok(spelled.collect())
}

/// From the spelling of a token to its bytes.
pub(super) fn printer(definition: &Definition) -> impl Fn(&[u8]) -> Vec<u8> {
    let settings = &definition.settings;
    let bytes_model = settings.model == Kind::Bytes;
    let steps: Vec<Decoder> =
        settings.decoder.as_ref().map(Decoder::steps).unwrap_or_default().into_iter().cloned().collect();
    let alphabet = ByteOfChar::default();
    move |token: &[u8]| {
        let Ok(text) = std::str::from_utf8(token) else { return token.to_vec() };
        if bytes_model {
            return token.to_vec();
        }
        let mut text = Cow::Borrowed(text);
        for step in &steps {
            match step {
                Decoder::Replace { pattern: Replaced::String(old), content } if text.contains(&**old) => {
                    text = Cow::Owned(text.replace(&**old, content));
                }
                Decoder::SentencePiece { unknown, surface, .. } => {
                    if let Some(byte) = byte_of(&text) {
                        return vec![byte];
                    }
                    if *text == **unknown {
                        return surface.as_bytes().to_vec();
                    }
                    text = Cow::Owned(text.replace('\u{2581}', " "));
                }
                Decoder::Metaspace { replacement, .. } if text.contains(*replacement) => {
                    text = Cow::Owned(text.replace(*replacement, " "));
                }
                Decoder::ByteFallback {} => {
                    if let Some(byte) = byte_of(&text) {
                        return vec![byte];
                    }
                }
                Decoder::ByteLevel {} => {
                    return alphabet.bytes(&text).unwrap_or_else(|| text.as_bytes().to_vec());
                }
                Decoder::WordPiece { prefix, .. } => {
                    if let Some(rest) = text.strip_prefix(&**prefix) {
                        text = Cow::Owned(rest.to_owned());
                    }
                }
                Decoder::Bpe { suffix } if text.ends_with(&**suffix) => {
                    text = Cow::Owned(text.replace(&**suffix, " "));
                }
                _ => {}
            }
        }
        text.into_owned().into_bytes()
    }
}
