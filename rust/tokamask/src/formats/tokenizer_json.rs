//! tokenizer.json. What is not read is refused by name, with its JSON path.

use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

use super::tokenizer_json_model::{read_model, Large};
use super::tokenizer_json_steps::{read_post_processor, read_steps};
use super::{Definition, Settings};
use crate::bpe::MAX_SYMBOLS;
use crate::error::{Error, UnsupportedComponentError, VocabularyError};
use crate::models::Kind;
use crate::text::added::AddedToken;
use crate::text::decoder::Decoder;
use crate::text::normalizer::Normalizer;
use crate::text::pretokenizer::Step;

/// Members that are kept as they stand.
const KEPT: [&str; 5] = ["pre_tokenizer", "post_processor", "decoder", "truncation", "padding"];

/// Reads a tokenizer.json; `large` holds the vocabulary and the merges if they are not in the tree.
pub fn read(file: &Value, large: Option<Large>) -> Result<Definition, Error> {
    if !file["model"].is_object() {
        return Err(VocabularyError::new("not a tokenizer.json: it has no model").at_path("/model").into());
    }
    let added: Vec<AddedToken> = match &file["added_tokens"] {
        Value::Null => Vec::new(),
        tokens => Vec::deserialize_at(tokens, "/added_tokens")?,
    };
    let normalizer = match &file["normalizer"] {
        Value::Null => None,
        component => {
            check_names(component, "/normalizer", "normalizers", Normalizer::NAMES)?;
            Some(Normalizer::deserialize_at(component, "/normalizer")?)
        }
    };
    let decoder = match &file["decoder"] {
        Value::Null => None,
        component => {
            check_names(component, "/decoder", "decoders", Decoder::NAMES)?;
            Some(Decoder::deserialize_at(component, "/decoder")?)
        }
    };
    let mut steps = Vec::new();
    if !file["pre_tokenizer"].is_null() {
        read_steps(&file["pre_tokenizer"], "/pre_tokenizer", &mut steps)?;
    }
    let byte_level = matches!(steps.last(), Some(Step::ByteLevel { .. }))
        && steps.iter().filter(|step| matches!(step, Step::ByteLevel { .. })).count() == 1
        && !steps.iter().any(|step| matches!(step, Step::Metaspace { .. }));
    let model = read_model(&file["model"], large, byte_level)?;
    if model.kind == Kind::Bytes {
        open_byte_level(&mut steps);
    }
    let added = assign_ids(added, model.spellings.count(), |text| model.spellings.get(text))?;
    let (prefix, suffix) = read_post_processor(&file["post_processor"], "/post_processor")?;
    let mut members: Map<String, Value> = KEPT
        .iter()
        .map(|&name| (name.to_owned(), file[name].clone()))
        .filter(|(_, v)| !v.is_null())
        .collect();
    if let Some(token) = file["model"]["unk_token"].as_str().filter(|_| model.kind == Kind::Bytes) {
        members.insert("unk_token".to_owned(), token.into());
    }
    let settings = Settings {
        model: model.kind,
        whole_pieces: file["model"]["ignore_merges"].as_bool().unwrap_or(false),
        added,
        normalizer,
        steps,
        prefix,
        suffix,
        eos_ids: Vec::new(),
        decoder,
        members,
    };
    Ok(Definition { tokens: model.tokens, merges: model.merges, settings })
}

/// The last step of a byte-level file says how to cut; the bytes themselves are ours, if all steps only cut.
fn open_byte_level(steps: &mut Vec<Step>) {
    let others = &steps[..steps.len().saturating_sub(1)];
    if !others.iter().all(Step::only_cuts) {
        return;
    }
    if let Some(Step::ByteLevel { prefix_space: false, use_regex }) = steps.last().cloned() {
        steps.pop();
        if use_regex {
            steps.push(Step::isolated(crate::text::pretokenizer::GPT2));
        }
    }
}

/// The ids of added tokens: that of the model's token of the same text, or the next one free. The
/// library that owns the format gives them so, whatever ids the file names.
pub(super) fn assign_ids(
    tokens: Vec<AddedToken>,
    size: usize,
    of_model: impl Fn(&str) -> Option<u32>,
) -> Result<Vec<AddedToken>, VocabularyError> {
    let size = size as u32;
    let mut known: Vec<AddedToken> = Vec::with_capacity(tokens.len());
    let mut places: FxHashMap<String, usize> = FxHashMap::default();
    let mut greatest: Option<u32> = None;
    for mut token in tokens {
        if token.content.is_empty() {
            continue;
        }
        let before = places.get(&token.content).copied();
        let of_model = of_model(&token.content);
        token.id = match before.map(|nth| known[nth].id).or(of_model) {
            Some(id) => id,
            None => greatest.map_or(size, |id| if id >= size || size == 0 { id + 1 } else { size }),
        };
        if token.id as usize >= MAX_SYMBOLS {
            let error = VocabularyError::new(format!("id {} is too large", token.id));
            return Err(error.at_path("/added_tokens").at_token(token.content));
        }
        greatest = greatest.max(Some(token.id));
        if let Some(nth) = before {
            known[nth] = token;
        } else {
            places.insert(token.content.clone(), known.len());
            known.push(token);
        }
    }
    Ok(known)
}

/// Refuses by name what a component asks for and is not read.
fn check_names(component: &Value, path: &str, inner: &str, names: &[&str]) -> Result<(), Error> {
    if !component["type"].as_str().is_some_and(|name| names.contains(&name)) {
        return Err(unsupported(component, path));
    }
    let parts = component[inner].as_array().map_or(&[][..], Vec::as_slice);
    let mut parts = parts.iter().enumerate();
    parts.try_for_each(|(nth, part)| check_names(part, &format!("{path}/{inner}/{nth}"), inner, names))
}

pub(super) trait DeserializeAt: Sized {
    fn deserialize_at(value: &Value, path: &str) -> Result<Self, VocabularyError>;
}

impl<T: serde::de::DeserializeOwned> DeserializeAt for T {
    fn deserialize_at(value: &Value, path: &str) -> Result<Self, VocabularyError> {
        T::deserialize(value).map_err(|error| VocabularyError::new(error.to_string()).at_path(path))
    }
}

/// The refusal of a component, named by its type.
pub(super) fn unsupported(component: &Value, path: &str) -> Error {
    let name = component["type"].as_str().map_or_else(|| component.to_string(), str::to_owned);
    UnsupportedComponentError { component: name, path: Some(path.to_owned()) }.into()
}

/// A flag that is absent, null or a truth value.
pub(super) fn flag(component: &Value, name: &str, path: &str) -> Result<bool, VocabularyError> {
    match &component[name] {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        _ => Err(VocabularyError::new("expected true or false").at_path(format!("{path}/{name}"))),
    }
}
