//! tokenizer.json: byte-level BPE. What is not read is refused by name, with its JSON path.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::{Definition, Settings};
use crate::bpe::{Merges, MAX_SYMBOLS};
use crate::error::{Error, UnsupportedComponentError, VocabularyError};
use crate::text::added::AddedToken;
use crate::text::alphabet::ByteOfChar;
use crate::text::normalizer::Normalizer;
use crate::text::pretokenizer::{Behavior, Step, GPT2};

/// Reads a tokenizer.json.
pub fn read(data: &[u8]) -> Result<Definition, Error> {
    let file: Value = serde_json::from_slice(data).map_err(|error| {
        VocabularyError::new(format!("not a tokenizer.json: {error}")).at_line(error.line())
    })?;
    let added: Vec<AddedToken> = match &file["added_tokens"] {
        Value::Null => Vec::new(),
        tokens => Vec::deserialize_at(tokens, "/added_tokens")?,
    };
    let normalizer = match &file["normalizer"] {
        Value::Null => None,
        component => {
            check_normalizer(component, "/normalizer")?;
            Some(Normalizer::deserialize_at(component, "/normalizer")?)
        }
    };
    let mut steps = Vec::new();
    let mut byte_level = false;
    if !file["pre_tokenizer"].is_null() {
        read_steps(&file["pre_tokenizer"], "/pre_tokenizer", &mut steps, &mut byte_level)?;
    }
    if !byte_level {
        return Err(unsupported(&file["pre_tokenizer"], "/pre_tokenizer"));
    }
    let (tokens, merges) = read_model(&file["model"])?;
    let (prefix, suffix) = read_post_processor(&file["post_processor"])?;
    let settings = Settings {
        whole_pieces: file["model"]["ignore_merges"].as_bool().unwrap_or(false),
        added,
        normalizer,
        steps,
        prefix,
        suffix,
        eos_ids: Vec::new(),
    };
    Ok(Definition { tokens, merges, settings })
}

/// Refuses by name what a normalizer asks for and is not read.
fn check_normalizer(component: &Value, path: &str) -> Result<(), Error> {
    let name = component["type"].as_str().unwrap_or_default();
    if !Normalizer::NAMES.contains(&name) || component["pattern"].get("Regex").is_some() {
        return Err(unsupported(component, path));
    }
    let inner = component["normalizers"].as_array().map_or(&[][..], Vec::as_slice);
    let mut inner = inner.iter().enumerate();
    inner.try_for_each(|(nth, inner)| check_normalizer(inner, &format!("{path}/normalizers/{nth}")))
}

trait DeserializeAt: Sized {
    fn deserialize_at(value: &Value, path: &str) -> Result<Self, VocabularyError>;
}

impl<T: serde::de::DeserializeOwned> DeserializeAt for T {
    fn deserialize_at(value: &Value, path: &str) -> Result<Self, VocabularyError> {
        T::deserialize(value).map_err(|error| VocabularyError::new(error.to_string()).at_path(path))
    }
}

/// The refusal of a component, named by its type.
fn unsupported(component: &Value, path: &str) -> Error {
    let name = component["type"].as_str().map_or_else(|| component.to_string(), str::to_owned);
    UnsupportedComponentError { component: name, path: Some(path.to_owned()) }.into()
}

fn flag(component: &Value, name: &str) -> bool {
    component[name].as_bool().unwrap_or(false)
}

fn read_steps(
    component: &Value,
    path: &str,
    steps: &mut Vec<Step>,
    byte_level: &mut bool,
) -> Result<(), Error> {
    match component["type"].as_str() {
        Some("Sequence") => {
            let inner = component["pretokenizers"].as_array().map_or(&[][..], Vec::as_slice);
            for (nth, component) in inner.iter().enumerate() {
                read_steps(component, &format!("{path}/pretokenizers/{nth}"), steps, byte_level)?;
            }
        }
        // After the byte alphabet is applied, a split rule would see its letters, not the text.
        _ if *byte_level => return Err(unsupported(component, path)),
        Some("Split") => steps.push(read_split(component, path)?),
        Some("Whitespace") => steps.push(split(r"\w+|[^\w\s]+", Behavior::Removed, true)),
        Some("WhitespaceSplit") => steps.push(split(r"\s", Behavior::Removed, false)),
        Some("Punctuation") => {
            let behavior = match &component["behavior"] {
                Value::Null => Behavior::Isolated,
                behavior => Behavior::deserialize_at(behavior, &format!("{path}/behavior"))?,
            };
            steps.push(split(r"[!-/:-@\[-`{-~\p{P}]", behavior, false));
        }
        Some("CharDelimiterSplit") => {
            let delimiter = String::deserialize_at(&component["delimiter"], &format!("{path}/delimiter"))?;
            steps.push(split(&regex_syntax::escape(&delimiter), Behavior::Removed, false));
        }
        Some("Digits") => steps.push(Step::Digits { individual: flag(component, "individual_digits") }),
        Some("ByteLevel") if !flag(component, "add_prefix_space") => {
            if component["use_regex"].as_bool().unwrap_or(true) {
                steps.push(Step::Split {
                    pattern: GPT2.to_owned(),
                    behavior: Behavior::Isolated,
                    invert: false,
                });
            }
            *byte_level = true;
        }
        _ => return Err(unsupported(component, path)),
    }
    Ok(())
}

fn split(pattern: &str, behavior: Behavior, invert: bool) -> Step {
    Step::Split { pattern: pattern.to_owned(), behavior, invert }
}

fn read_split(component: &Value, path: &str) -> Result<Step, Error> {
    let pattern = match (&component["pattern"]["Regex"], &component["pattern"]["String"]) {
        (Value::String(pattern), _) => {
            // The library that owns the format runs Oniguruma, whose word characters and line
            // anchors differ from our engines': \w takes superscripts and fractions there.
            let differs = |escape: &&str| pattern.contains(escape);
            if let Some(escape) = [r"\w", r"\W", r"\b", r"\B", r"\h", r"\H"].into_iter().find(differs) {
                let component = format!("{escape} in split rule {pattern:?}");
                return Err(UnsupportedComponentError { component, path: Some(path.to_owned()) }.into());
            }
            pattern.clone()
        }
        (_, Value::String(text)) => regex_syntax::escape(text),
        _ => return Err(unsupported(component, path)),
    };
    let behavior = Behavior::deserialize_at(&component["behavior"], &format!("{path}/behavior"))?;
    Ok(Step::Split { pattern, behavior, invert: flag(component, "invert") })
}

/// Token bytes by id, and the merges by id.
#[allow(clippy::type_complexity)]
fn read_model(model: &Value) -> Result<(Vec<Option<Vec<u8>>>, Merges), Error> {
    if !matches!(model["type"].as_str(), Some("BPE") | None) {
        return Err(unsupported(model, "/model"));
    }
    for name in ["continuing_subword_prefix", "end_of_word_suffix", "unk_token"] {
        if model[name].as_str().is_some_and(|text| !text.is_empty()) {
            return Err(unsupported(&Value::from(name), &format!("/model/{name}")));
        }
    }
    if flag(model, "byte_fallback") || model["dropout"].as_f64().is_some_and(|p| p > 0.0) {
        return Err(unsupported(&Value::from("byte_fallback or dropout"), "/model"));
    }
    let vocab = model["vocab"]
        .as_object()
        .ok_or_else(|| VocabularyError::new("the vocabulary is missing").at_path("/model/vocab"))?;
    let alphabet = ByteOfChar::default();
    let mut ids: FxHashMap<&str, u32> = FxHashMap::default();
    let mut tokens: Vec<Option<Vec<u8>>> = Vec::new();
    for (token, id) in vocab {
        let id = id.as_u64().filter(|&id| id < MAX_SYMBOLS as u64);
        let id = id.ok_or_else(|| {
            VocabularyError::new("an id is not a small number").at_path("/model/vocab").at_token(token)
        })?;
        let at = id as usize;
        if tokens.len() <= at {
            tokens.resize(at + 1, None);
        }
        // A token with other letters than the alphabet's can never be met in a byte-level text.
        if tokens[at].replace(alphabet.bytes(token).unwrap_or_else(|| token.clone().into_bytes())).is_some() {
            return Err(VocabularyError::new(format!("id {id} is given twice"))
                .at_path("/model/vocab")
                .at_token(token)
                .into());
        }
        ids.insert(token, at as u32);
    }
    let list = model["merges"].as_array().map_or(&[][..], Vec::as_slice);
    let merges = list.iter().enumerate().map(|(nth, merge)| {
        let halves = match merge {
            Value::String(pair) => pair.split_once(' '),
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
            (Some(&left), Some(&right)) => Ok((left, right)),
            _ => Err(error("a merge names no token")),
        }
    });
    let merges = merges.collect::<Result<_, _>>()?;
    Ok((tokens, Merges::List(merges)))
}

/// Ids before and after a single text.
fn read_post_processor(component: &Value) -> Result<(Vec<u32>, Vec<u32>), Error> {
    let path = "/post_processor";
    match component["type"].as_str() {
        None if component.is_null() => Ok((Vec::new(), Vec::new())),
        Some("ByteLevel") => Ok((Vec::new(), Vec::new())),
        Some("RobertaProcessing" | "BertProcessing") => {
            let id = |name: &str| {
                let path = format!("{path}/{name}");
                <(String, u32)>::deserialize_at(&component[name], &path).map(|(_, id)| id)
            };
            Ok((vec![id("cls")?], vec![id("sep")?]))
        }
        Some("Sequence") => {
            let mut around = (Vec::new(), Vec::new());
            for part in component["processors"].as_array().map_or(&[][..], Vec::as_slice) {
                let (prefix, suffix) = read_post_processor(part)?;
                around.0.splice(0..0, prefix);
                around.1.extend(suffix);
            }
            Ok(around)
        }
        Some("TemplateProcessing") => {
            let mut around = (Vec::new(), Vec::new());
            let mut before = true;
            for piece in component["single"].as_array().map_or(&[][..], Vec::as_slice) {
                if let Some(name) = piece["SpecialToken"]["id"].as_str() {
                    let ids = &component["special_tokens"][name]["ids"];
                    let ids = Vec::<u32>::deserialize_at(ids, &format!("{path}/special_tokens/{name}"))?;
                    if before { &mut around.0 } else { &mut around.1 }.extend(ids);
                } else {
                    before = false;
                }
            }
            Ok(around)
        }
        _ => Err(unsupported(component, path)),
    }
}
