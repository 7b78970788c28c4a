//! What a grammar was read from: enough to read it again, in memory or from a file.

use serde::{Deserialize, Serialize};

use super::json_schema::{self, Format, Options};
use super::{ebnf, lark, tags, Grammar};
use crate::error::{Error, VocabularyError};
use crate::vocabulary::Vocabulary;

const MAGIC: &[u8; 8] = b"tokagram";
const VERSION: u32 = 1;
/// Magic, version, fingerprint of the vocabulary, checksum of what follows.
const HEADER: usize = 28;

/// A front end and its input.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // each field is an argument of the front end
pub enum Recipe {
    JsonSchema {
        text: String,
        space: u32,
        schema_order: bool,
        assert_format: bool,
        resources: Vec<(String, String)>,
    },
    Regex {
        pattern: String,
    },
    Ebnf {
        text: String,
        root: String,
    },
    Lark {
        text: String,
        start: String,
    },
    StructuralTag {
        text: String,
        space: u32,
    },
    Choice {
        texts: Vec<String>,
    },
}

impl Recipe {
    /// Reads the grammar.
    pub fn read(&self) -> Result<Grammar, Error> {
        match self {
            Self::JsonSchema { text, space, schema_order, assert_format, resources } => {
                let options = Options {
                    space: *space,
                    schema_order: *schema_order,
                    format: if *assert_format { Format::Assert } else { Format::Annotate },
                    resources: resources.clone(),
                };
                json_schema::read(text, &options)
            }
            Self::Regex { pattern } => super::read_regex(pattern),
            Self::Ebnf { text, root } => ebnf::read(text, root),
            Self::Lark { text, start } => lark::read(text, start),
            Self::StructuralTag { text, space } => tags::read(text, *space),
            Self::Choice { texts } => super::choice(texts.clone()),
        }
    }

    /// The file of a grammar that was compiled for a vocabulary: header, then the recipe as JSON.
    pub fn to_file(&self, vocabulary: &Vocabulary) -> Result<Vec<u8>, VocabularyError> {
        let body = serde_json::to_vec(self)
            .map_err(|error| VocabularyError::new(format!("the grammar cannot be written: {error}")))?;
        let mut file = MAGIC.to_vec();
        file.extend(VERSION.to_le_bytes());
        file.extend(vocabulary.fingerprint().to_le_bytes());
        file.extend(checksum(&body).to_le_bytes());
        file.extend(body);
        Ok(file)
    }

    /// Reads a file of [`Self::to_file`]; one that is cut, forged or of another vocabulary is refused.
    pub fn from_file(data: &[u8], vocabulary: &Vocabulary) -> Result<Self, VocabularyError> {
        let error = |reason: &str| VocabularyError::new(format!("compiled grammar: {reason}"));
        let header: &[u8; HEADER] = data.first_chunk().ok_or_else(|| error("cut short"))?;
        if !header.starts_with(MAGIC) {
            return Err(error("not a file of this kind"));
        }
        if header[8..12] != VERSION.to_le_bytes() {
            return Err(error("of another version, compile it again"));
        }
        let body = &data[HEADER..];
        if header[20..] != checksum(body).to_le_bytes() {
            return Err(error("the checksum is wrong"));
        }
        if header[12..20] != vocabulary.fingerprint().to_le_bytes() {
            return Err(error("made for another vocabulary"));
        }
        serde_json::from_slice(body).map_err(|_| error("malformed"))
    }
}

/// FNV-1a: finds damage, not malice; what a recipe says is checked like any other input.
fn checksum(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_refused() {
        let make = |list: &[&str]| {
            let tokens: Vec<_> = list.iter().map(|t| Some(t.as_bytes().to_vec())).collect();
            Vocabulary::new(tokens, [("</s>".into(), 1.into())], [1.into()])
        };
        let (one, other) = (make(&["a", "</s>"]).expect("fits"), make(&["b", "</s>"]).expect("fits"));
        let recipe = Recipe::Regex { pattern: "a+".into() };
        let file = recipe.to_file(&one).expect("written");
        assert_eq!(Recipe::from_file(&file, &one).expect("whole"), recipe);
        assert!(Recipe::from_file(&file, &other).is_err());
        for at in 0..file.len() {
            assert!(Recipe::from_file(&file[..at], &one).is_err());
            let mut forged = file.clone();
            forged[at] ^= 1;
            assert!(Recipe::from_file(&forged, &one).is_err());
        }
    }
}
