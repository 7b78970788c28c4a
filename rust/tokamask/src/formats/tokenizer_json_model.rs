//! The models of tokenizer.json.

use serde_json::Value;

use super::spellings::SpellingTable;
use super::tokenizer_json::{flag, unsupported, DeserializeAt};
use crate::bpe::{Merges, MAX_SYMBOLS};
use crate::error::{Error, VocabularyError};
use crate::models::{CharactersKind, Kind, UnigramKind};
use crate::text::alphabet::ByteOfChar;

/// What a model comes to.
pub struct Read {
    /// Bytes of byte-level tokens, spellings of others.
    pub tokens: Vec<Option<Vec<u8>>>,
    /// Pairs of ids.
    pub merges: Merges,
    /// The rest of it.
    pub kind: Kind,
    /// Ids of spellings.
    pub spellings: SpellingTable,
}

/// Vocabulary and merges that were read apart from the rest, as [`super::tokenizer_json_stream`] does.
pub type Large = (SpellingTable, Vec<(u32, u32)>);

/// Reads a model; `byte_level` if the pieces it gets are spelled in the byte alphabet.
pub fn read_model(model: &Value, large: Option<Large>, byte_level: bool) -> Result<Read, Error> {
    if let Some((spellings, merges)) = large {
        check_dropout(model)?;
        return read_bpe(model, spellings, |_| Ok(merges), byte_level);
    }
    let name = match &model["type"] {
        Value::String(name) => &**name,
        Value::Null if model["vocab"].is_array() => "Unigram",
        Value::Null if model["merges"].is_array() => "BPE",
        Value::Null if !model["max_input_chars_per_word"].is_null() => "WordPiece",
        Value::Null => "WordLevel",
        _ => return Err(unsupported(model, "/model")),
    };
    match name {
        "BPE" => {
            check_dropout(model)?;
            read_bpe(model, read_vocab(model)?, |spellings| read_merges(model, spellings), byte_level)
        }
        "Unigram" => read_unigram(model),
        "WordPiece" | "WordLevel" => {
            let text = |name: &str| String::deserialize_at(&model[name], &format!("/model/{name}"));
            let unk_token = text("unk_token")?;
            let kind = if name == "WordLevel" {
                Kind::WordLevel { unk_token }
            } else {
                let longest = &model["max_input_chars_per_word"];
                Kind::WordPiece {
                    unk_token,
                    continuing_subword_prefix: text("continuing_subword_prefix")?,
                    max_input_chars_per_word: usize::deserialize_at(
                        longest,
                        "/model/max_input_chars_per_word",
                    )?,
                }
            };
            let spellings = read_vocab(model)?;
            let tokens = by_id(&spellings, |_| None)?;
            Ok(Read { tokens, merges: Merges::List(Vec::new()), kind, spellings })
        }
        _ => Err(unsupported(model, "/model")),
    }
}

/// Spellings and their ids.
fn read_vocab(model: &Value) -> Result<SpellingTable, VocabularyError> {
    let vocab = model["vocab"]
        .as_object()
        .ok_or_else(|| VocabularyError::new("the vocabulary is missing").at_path("/model/vocab"))?;
    let mut spellings = SpellingTable::new(vocab.len(), 8 * vocab.len());
    let mut given = Vec::new();
    for (token, id) in vocab {
        let error = |reason: String| VocabularyError::new(reason).at_path("/model/vocab").at_token(token);
        let id = id.as_u64().filter(|&id| id < MAX_SYMBOLS as u64);
        let id = id.ok_or_else(|| error("an id is not a small number".to_owned()))?;
        let at = id as usize;
        if given.len() <= at {
            given.resize(at + 1, false);
        }
        if std::mem::replace(&mut given[at], true) {
            return Err(error(given_twice(at as u32)));
        }
        spellings.add(token, at as u32);
    }
    Ok(spellings)
}

fn given_twice(id: u32) -> String {
    format!("id {id} is given twice")
}

/// Tokens by id, as [`SpellingTable::by_id`].
fn by_id(
    spellings: &SpellingTable,
    form: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<Vec<Option<Vec<u8>>>, VocabularyError> {
    spellings
        .by_id(form)
        .map_err(|(id, token)| VocabularyError::new(given_twice(id)).at_path("/model/vocab").at_token(token))
}

fn check_dropout(model: &Value) -> Result<(), Error> {
    if model["dropout"].as_f64().is_some_and(|p| p > 0.0) {
        return Err(unsupported(&Value::from("dropout"), "/model/dropout"));
    }
    Ok(())
}

fn read_bpe(
    model: &Value,
    spellings: SpellingTable,
    merges: impl FnOnce(&SpellingTable) -> Result<Vec<(u32, u32)>, VocabularyError>,
    byte_level: bool,
) -> Result<Read, Error> {
    let text = |name: &str| match &model[name] {
        Value::Null => Ok(None),
        text => String::deserialize_at(text, &format!("/model/{name}")).map(Some),
    };
    let kind = CharactersKind {
        unk_token: text("unk_token")?,
        fuse_unk: flag(model, "fuse_unk", "/model")?,
        byte_fallback: flag(model, "byte_fallback", "/model")?,
        continuing_subword_prefix: text("continuing_subword_prefix")?.filter(|affix| !affix.is_empty()),
        end_of_word_suffix: text("end_of_word_suffix")?.filter(|affix| !affix.is_empty()),
        tied: Vec::new(),
    };
    let merges = Merges::List(merges(&spellings)?);
    let alphabet = ByteOfChar::default();
    // Where no byte can be unknown, the model merges bytes.
    let every_byte = || (0..=255).all(|byte| spellings.get(&crate::text::alphabet::spell(&[byte])).is_some());
    let plain = kind.continuing_subword_prefix.is_none() && kind.end_of_word_suffix.is_none();
    if byte_level && plain && (every_byte() || (kind.unk_token.is_none() && !kind.byte_fallback)) {
        // A token with other letters than the alphabet's can never be met in a byte-level text.
        let tokens = by_id(&spellings, |text| alphabet.bytes(text))?;
        return Ok(Read { tokens, merges, kind: Kind::Bytes, spellings });
    }
    let tokens = by_id(&spellings, |_| None)?;
    Ok(Read { tokens, merges, kind: Kind::Characters(kind), spellings })
}

fn read_merges(model: &Value, ids: &SpellingTable) -> Result<Vec<(u32, u32)>, VocabularyError> {
    let Value::Array(list) = &model["merges"] else {
        return Err(VocabularyError::new("the merges are missing").at_path("/model/merges"));
    };
    let merges = list.iter().enumerate().map(|(nth, merge)| {
        let halves = match merge {
            Value::String(pair) => pair.split_once(' ').filter(|(_, right)| !right.contains(' ')),
            Value::Array(pair) => match &pair[..] {
                [Value::String(left), Value::String(right)] => Some((&left[..], &right[..])),
                _ => None,
            },
            _ => None,
        };
        let error = |reason: &str| {
            VocabularyError::new(reason).at_path(format!("/model/merges/{nth}")).at_token(merge.to_string())
        };
        let (left, right) = halves.ok_or_else(|| error("a merge is not two tokens"))?;
        match (ids.get(left), ids.get(right)) {
            (Some(left), Some(right)) => Ok((left, right)),
            _ => Err(error("a merge names no token")),
        }
    });
    merges.collect()
}

fn read_unigram(model: &Value) -> Result<Read, Error> {
    let vocab = <Vec<(String, f64)>>::deserialize_at(&model["vocab"], "/model/vocab")?;
    if vocab.len() > MAX_SYMBOLS {
        let reason = format!("more than {MAX_SYMBOLS} tokens");
        return Err(VocabularyError::new(reason).at_path("/model/vocab").into());
    }
    let unk_id = match &model["unk_id"] {
        Value::Null => None,
        id => Some(u32::deserialize_at(id, "/model/unk_id")?),
    };
    let mut spellings = SpellingTable::new(vocab.len(), 8 * vocab.len());
    for (id, (token, _)) in vocab.iter().enumerate().rev() {
        spellings.add(token, id as u32); // of equal ones the last
    }
    let (tokens, scores) = vocab.into_iter().map(|(token, score)| (Some(token.into_bytes()), score)).unzip();
    let byte_fallback = flag(model, "byte_fallback", "/model")?;
    let kind = Kind::Unigram(UnigramKind { scores, unk_id, byte_fallback, ..UnigramKind::default() });
    Ok(Read { tokens, merges: Merges::List(Vec::new()), kind, spellings })
}
