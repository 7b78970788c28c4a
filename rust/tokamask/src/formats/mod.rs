//! Tokenizer files, told by their content. Each format reads into one [`Definition`].

pub mod compiled;
pub mod default;
pub mod gguf;
pub mod map;
pub mod protobuf;
pub mod sentencepiece;
pub mod spellings;
pub mod tekken;
pub mod tiktoken;
pub mod tokenizer_json;
pub mod tokenizer_json_model;
pub mod tokenizer_json_steps;
pub mod tokenizer_json_stream;
pub mod tokenizer_json_write;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bpe::Merges;
use crate::error::{Error, VocabularyError};
use crate::models::Kind;
use crate::text::added::AddedToken;
use crate::text::decoder::Decoder;
use crate::text::normalizer::Normalizer;
use crate::text::pretokenizer::Step;

/// Everything a tokenizer file says, in one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Bytes of the model's tokens by id, or their spellings if the model is not byte-level; `None`
    /// for ids that only added tokens or nobody has.
    pub tokens: Vec<Option<Vec<u8>>>,
    /// What merges.
    pub merges: Merges,
    /// The rest.
    pub settings: Settings,
}

/// The part of a definition that is small.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// What makes ids of pieces.
    #[serde(default)]
    pub model: Kind,
    /// A piece that is a token becomes it without merging.
    pub whole_pieces: bool,
    /// Added tokens, special ones among them.
    pub added: Vec<AddedToken>,
    /// What becomes of a text before it is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalizer: Option<Normalizer>,
    /// Pre-tokenization, step by step.
    pub steps: Vec<Step>,
    /// Ids put before the text when special tokens are asked for.
    pub prefix: Vec<u32>,
    /// Ids put after it.
    pub suffix: Vec<u32>,
    /// Ids that end a sequence, where the file says so.
    pub eos_ids: Vec<u32>,
    /// From the spellings of tokens to text; `None` for bytes one after another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<Decoder>,
    /// Members of a tokenizer.json as they stand there, for those who write one.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub members: Map<String, Value>,
}

impl Settings {
    /// tiktoken's: a piece that is a token becomes it, only matches are text.
    pub fn tiktoken(pattern: &str, special_tokens: Vec<(String, u32)>) -> Self {
        let added = special_tokens.into_iter().map(|(content, id)| AddedToken::special(content, id));
        Self {
            whole_pieces: true,
            added: added.collect(),
            steps: vec![Step::Matches { pattern: pattern.to_owned() }],
            ..Self::default()
        }
    }
}

/// Reads a file by its content: GGUF, tokenizer.json, tekken.json, a SentencePiece model, or ours.
pub fn read(data: &[u8]) -> Result<Definition, Error> {
    if data.starts_with(compiled::MAGIC) {
        return Ok(compiled::read(data)?);
    }
    if data.starts_with(b"GGUF") {
        return gguf::read(data);
    }
    let first = data.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'{') {
        if let Some(streamed) = tokenizer_json_stream::read(data) {
            let large = (streamed.vocab, streamed.merges);
            return tokenizer_json::read(&streamed.file, Some(large));
        }
        let file: Value = serde_json::from_slice(data).map_err(|error| {
            VocabularyError::new(format!("not a tokenizer.json: {error}")).at_line(error.line())
        })?;
        return if tekken::looks_like(&file) {
            tekken::read(&file)
        } else {
            tokenizer_json::read(&file, None)
        };
    }
    if tiktoken::looks_like(data) {
        return Err(VocabularyError::new(
            "a tiktoken rank file does not hold its split rule: use from_tiktoken with pattern=",
        )
        .into());
    }
    if sentencepiece::looks_like(data) {
        return sentencepiece::read(data);
    }
    Err(VocabularyError::new(
        "not a tokenizer file: expected tokenizer.json, tekken.json, a SentencePiece model or GGUF",
    )
    .into())
}
