//! Models that are not byte-level: from a piece of text to ids. Each is the literal definition of
//! its result; where a faster encoder exists it must give the same ids.

pub mod characters;
pub mod unigram;
pub mod wordlevel;
pub mod wordpiece;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::error::{Error, VocabularyError};
use crate::text::runs::Runs;
use characters::Characters;
use unigram::Unigram;
use wordlevel::WordLevel;
use wordpiece::WordPiece;

/// What makes ids of a piece, as data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Kind {
    /// Merges over bytes; tokens are bytes.
    #[default]
    Bytes,
    /// Merges over characters; tokens are spellings.
    Characters(CharactersKind),
    /// The most probable segmentation.
    Unigram(UnigramKind),
    /// Longest match from the left.
    WordPiece {
        /// What stands for a word that has no segmentation.
        unk_token: String,
        /// What continuations begin with.
        continuing_subword_prefix: String,
        /// Longer words are unknown.
        max_input_chars_per_word: usize,
    },
    /// Whole words.
    WordLevel {
        /// What stands for other words.
        unk_token: String,
    },
}

// Scores are finite: the readers refuse others.
impl Eq for Kind {}

/// What merging over characters needs besides tokens and merges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CharactersKind {
    /// What stands for a character that is no token.
    pub unk_token: Option<String>,
    /// Runs of unknown characters are one token.
    pub fuse_unk: bool,
    /// Unknown characters become the tokens `<0x00>` to `<0xFF>` of their bytes.
    pub byte_fallback: bool,
    /// What symbols have before them, the first of a piece excepted.
    pub continuing_subword_prefix: Option<String>,
    /// What the last symbol of a piece has after it.
    pub end_of_word_suffix: Option<String>,
    /// Runs of one character that form after every merge, from the left: see [`crate::text::runs`].
    #[serde(default)]
    pub tied: Vec<u32>,
}

impl CharactersKind {
    /// The runs that form last, if there are any.
    pub fn runs(&self, tokens: &[Option<Vec<u8>>]) -> Option<Runs> {
        let spelling = |id: u32| std::str::from_utf8(tokens.get(id as usize)?.as_deref()?).ok();
        let tied = || self.tied.iter().filter_map(|&id| Some((spelling(id)?.chars().count(), id)));
        let mut bytes = [0; 4];
        let single = spelling(*self.tied.first()?)?.chars().next()?.encode_utf8(&mut bytes);
        let single = tokens.iter().position(|token| token.as_deref() == Some(single.as_bytes()))?;
        Runs::new(tied().chain([(1, single as u32)]))
    }
}

/// What a Unigram model needs besides its tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnigramKind {
    /// Log probability by id, as bits: text would round them.
    #[serde(with = "bits")]
    pub scores: Vec<f64>,
    /// The token of unknown characters.
    pub unk_id: Option<u32>,
    /// Unknown characters become the tokens of their bytes.
    pub byte_fallback: bool,
    /// Sums are taken in single precision, as SentencePiece itself does.
    pub single: bool,
    /// The least score, where not all tokens count; or nothing.
    #[serde(with = "bits")]
    pub least: Vec<f64>,
    /// Ids that no text becomes: control, unknown and byte tokens of SentencePiece.
    pub reserved: Vec<u32>,
}

mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(scores: &[f64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(scores.iter().map(|score| score.to_bits()))
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<f64>, D::Error> {
        Ok(Vec::<u64>::deserialize(from)?.into_iter().map(f64::from_bits).collect())
    }
}

/// A model made ready to run.
pub enum Model {
    /// See [`characters`].
    Characters(Box<Characters>),
    /// See [`unigram`].
    Unigram(Unigram),
    /// See [`wordpiece`].
    WordPiece(WordPiece),
    /// See [`wordlevel`].
    WordLevel(WordLevel),
}

impl Model {
    /// Builds the tables; `None` for byte-level vocabularies, which have an encoder of their own.
    pub fn new(
        kind: &Kind,
        tokens: &[Option<Vec<u8>>],
        merges: &[(u32, u32)],
    ) -> Result<Option<Self>, VocabularyError> {
        let ids = Spellings::new(tokens)?;
        Ok(Some(match kind {
            Kind::Bytes => return Ok(None),
            Kind::Characters(kind) => Self::Characters(Box::new(Characters::new(kind, ids, tokens, merges)?)),
            Kind::Unigram(kind) => Self::Unigram(Unigram::new(kind, ids, tokens)?),
            Kind::WordPiece { unk_token, continuing_subword_prefix, max_input_chars_per_word } => {
                Self::WordPiece(WordPiece::new(
                    ids,
                    unk_token,
                    continuing_subword_prefix,
                    *max_input_chars_per_word,
                ))
            }
            Kind::WordLevel { unk_token } => Self::WordLevel(WordLevel::new(ids, unk_token)),
        }))
    }

    /// Appends the ids of a piece.
    pub fn encode(&self, piece: &str, whole_pieces: bool, ids: &mut Vec<u32>) -> Result<(), Error> {
        match self {
            Self::Characters(model) => {
                model.encode(piece, whole_pieces, ids);
                Ok(())
            }
            Self::Unigram(model) => Ok(model.encode(piece, ids)?),
            Self::WordPiece(model) => Ok(model.encode(piece, ids)?),
            Self::WordLevel(model) => Ok(model.encode(piece, ids)?),
        }
    }
}

/// Ids by spelling.
pub struct Spellings(FxHashMap<Box<str>, u32>);

impl Spellings {
    /// The last id of each spelling.
    pub fn new(tokens: &[Option<Vec<u8>>]) -> Result<Self, VocabularyError> {
        let mut ids = FxHashMap::default();
        ids.reserve(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if let Some(Ok(token)) = token.as_deref().map(std::str::from_utf8) {
                ids.insert(token.into(), id as u32);
            }
        }
        Ok(Self(ids))
    }

    /// The id of a spelling.
    pub fn get(&self, token: &str) -> Option<u32> {
        self.0.get(token).copied()
    }

    /// The ids of `<0x00>` to `<0xFF>`.
    pub fn bytes(&self) -> [Option<u32>; 256] {
        std::array::from_fn(|byte| self.get(&format!("<0x{byte:02X}>")))
    }
}
