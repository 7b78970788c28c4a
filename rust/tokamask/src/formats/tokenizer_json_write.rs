//! Writing tokenizer.json, so that whoever reads that file reads ours.

use serde_json::{json, Map, Value};

use super::tokenizer_json::assign_ids;
use super::Definition;
use crate::bpe::{Bpe, Merges};
use crate::error::VocabularyError;
use crate::models::Kind;
use crate::text::alphabet::spell;
use crate::text::charsmap::SentencePiece;
use crate::text::decoder::{Decoder, Leading};
use crate::text::normalizer::{Normalizer, Replaced};
use crate::text::pattern::for_onig;
use crate::text::pretokenizer::{Scheme, Step};

/// The file of a tokenizer. End-of-sequence ids have no place in it.
pub fn write(definition: &Definition) -> Result<Vec<u8>, VocabularyError> {
    let Definition { tokens, settings, .. } = definition;
    let bytes_model = settings.model == Kind::Bytes;
    let mut spelled: Vec<Option<String>> = tokens
        .iter()
        .map(|token| {
            let token = token.as_deref()?;
            Some(if bytes_model { spell(token) } else { String::from_utf8_lossy(token).into_owned() })
        })
        .collect();
    for token in &settings.added {
        // A byte-level file spells only the tokens that merge in the alphabet.
        if let Some(Some(known)) = spelled.get_mut(token.id as usize) {
            known.clone_from(&token.content);
        }
    }
    let member = |name: &str| settings.members.get(name).cloned();
    let steps = || {
        let mut steps = settings.steps.iter().map(component).collect::<Result<Vec<Value>, _>>()?;
        if bytes_model && !settings.steps.iter().any(|step| matches!(step, Step::ByteLevel { .. })) {
            steps.push(byte_level());
        }
        Ok::<_, VocabularyError>(if steps.is_empty() {
            Value::Null
        } else {
            json!({ "type": "Sequence", "pretokenizers": steps })
        })
    };
    let decoder = || match &settings.decoder {
        Some(Decoder::SentencePiece { spaces, .. }) => json!(marked_spaces(*spaces)),
        Some(decoder) => json!(decoder),
        None if bytes_model => byte_level(),
        None => Value::Null,
    };
    let normalizer = match &settings.normalizer {
        Some(Normalizer::SentencePiece(piece)) => sentencepiece(piece, settings.model == Kind::Bytes)?,
        normalizer => json!(normalizer),
    };
    let file = json!({
        "version": "1.0",
        "truncation": member("truncation"),
        "padding": member("padding"),
        "added_tokens": settings.added,
        "normalizer": normalizer,
        "pre_tokenizer": member("pre_tokenizer").map_or_else(steps, Ok)?,
        "post_processor": member("post_processor").unwrap_or_else(|| template(definition)),
        "decoder": member("decoder").unwrap_or_else(decoder),
        "model": model(definition, &spelled)?,
    });
    serde_json::to_vec(&file).map_err(|error| VocabularyError::new(error.to_string()))
}

fn model(definition: &Definition, spelled: &[Option<String>]) -> Result<Value, VocabularyError> {
    let Definition { tokens, merges, settings } = definition;
    let mut vocab = Map::new();
    for (id, token) in spelled.iter().enumerate() {
        if let Some(token) = token {
            vocab.entry(token.clone()).or_insert_with(|| id.into());
        }
    }
    // A reader gives added tokens the ids of the model's tokens of the same text, or new ones:
    // where these would be others, the model gets the tokens too.
    let known: rustc_hash::FxHashMap<String, u32> =
        (0u32..).zip(spelled).filter_map(|(id, token)| Some((token.clone()?, id))).collect();
    if assign_ids(settings.added.clone(), known.len(), |text| known.get(text).copied())? != settings.added {
        for token in &settings.added {
            vocab.entry(token.content.clone()).or_insert_with(|| token.id.into());
        }
    }
    let bpe = |unk: Value, prefix: Value, suffix: Value, fuse: bool, fallback: bool| {
        let name = |id: u32| spelled.get(id as usize).and_then(Option::as_deref).unwrap_or_default();
        let merges = pairs(tokens, merges)?;
        let merges: Vec<Value> =
            merges.into_iter().map(|(left, right)| json!([name(left), name(right)])).collect();
        Ok(json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": unk,
            "continuing_subword_prefix": prefix,
            "end_of_word_suffix": suffix,
            "fuse_unk": fuse,
            "byte_fallback": fallback,
            "ignore_merges": settings.whole_pieces,
            "vocab": vocab,
            "merges": merges,
        }))
    };
    match &settings.model {
        Kind::Bytes => {
            let unk = settings.members.get("unk_token").cloned().unwrap_or_default();
            bpe(unk, Value::Null, Value::Null, false, false)
        }
        Kind::Characters(kind) if !kind.tied.is_empty() => {
            Err(VocabularyError::new("runs of white space of one score have no exact tokenizer.json"))
        }
        Kind::Characters(kind) => bpe(
            json!(kind.unk_token),
            json!(kind.continuing_subword_prefix),
            json!(kind.end_of_word_suffix),
            kind.fuse_unk,
            kind.byte_fallback,
        ),
        Kind::Unigram(kind) => {
            if kind.single {
                return Err(VocabularyError::new(
                    "a SentencePiece Unigram model has no exact tokenizer.json",
                ));
            }
            let rows: Vec<Value> = spelled
                .iter()
                .zip(&kind.scores)
                .map(|(token, score)| json!([token.as_deref().unwrap_or_default(), score]))
                .collect();
            Ok(
                json!({ "type": "Unigram", "unk_id": kind.unk_id, "vocab": rows, "byte_fallback": kind.byte_fallback }),
            )
        }
        Kind::WordPiece { unk_token, continuing_subword_prefix, max_input_chars_per_word } => Ok(json!({
            "type": "WordPiece",
            "unk_token": unk_token,
            "continuing_subword_prefix": continuing_subword_prefix,
            "max_input_chars_per_word": max_input_chars_per_word,
            "vocab": model_vocab(spelled),
        })),
        Kind::WordLevel { unk_token } => {
            Ok(json!({ "type": "WordLevel", "vocab": model_vocab(spelled), "unk_token": unk_token }))
        }
    }
}

/// Only the model's own tokens, by spelling.
fn model_vocab(spelled: &[Option<String>]) -> Map<String, Value> {
    spelled.iter().enumerate().filter_map(|(id, token)| Some((token.clone()?, id.into()))).collect()
}

/// Marks become spaces, byte pieces bytes; the space that was put before the text goes again. The
/// unknown piece keeps its name: nothing in that file could write SentencePiece's sign for it.
fn marked_spaces(spaces: Leading) -> Decoder {
    let pattern = Replaced::String("\u{2581}".to_owned());
    let mut decoders = vec![
        Decoder::Replace { pattern, content: " ".to_owned() },
        Decoder::ByteFallback {},
        Decoder::Fuse {},
    ];
    if spaces != Leading::Kept {
        decoders.push(Decoder::Strip { content: ' ', start: 1, stop: 0 });
    }
    Decoder::Sequence { decoders }
}

/// The normalizer of a SentencePiece model in the words of tokenizer.json, if it has any.
fn sentencepiece(piece: &SentencePiece, _bytes: bool) -> Result<Value, VocabularyError> {
    if !piece.is_plain() || (piece.add_dummy_prefix && !piece.user_defined.is_empty()) {
        return Err(VocabularyError::new("this SentencePiece normalizer has no exact tokenizer.json"));
    }
    let mark = "\u{2581}".to_owned();
    let mut steps = Vec::new();
    if piece.add_dummy_prefix {
        steps.push(Normalizer::Prepend { prepend: mark.clone() });
    }
    steps.push(Normalizer::Replace { pattern: Replaced::String(" ".to_owned()), content: mark });
    Ok(json!(Normalizer::Sequence { normalizers: steps }))
}

/// The merges as a list: of ranks, the canonical halves of each token.
pub fn pairs(tokens: &[Option<Vec<u8>>], merges: &Merges) -> Result<Vec<(u32, u32)>, VocabularyError> {
    if let Merges::List(list) = merges {
        return Ok(list.clone());
    }
    let slices: Vec<Option<&[u8]>> = tokens.iter().map(Option::as_deref).collect();
    let bpe = Bpe::new(&slices, merges)?;
    let halves = (0..).zip(&bpe.halves).filter(|&(symbol, &(left, _))| left != symbol);
    let id = |symbol: u32| bpe.ids[symbol as usize];
    Ok(halves.map(|(_, &(left, right))| (id(left), id(right))).collect())
}

fn byte_level() -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false })
}

fn component(step: &Step) -> Result<Value, VocabularyError> {
    let split = |pattern: &str, behavior: Value, invert: bool| {
        let Some(pattern) = for_onig(pattern) else {
            let reason = format!("split rule {pattern:?} would mean something else in a tokenizer.json");
            return Err(VocabularyError::new(reason));
        };
        Ok(
            json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": behavior, "invert": invert }),
        )
    };
    Ok(match step {
        Step::Split { pattern, behavior, invert } => split(pattern, json!(behavior), *invert)?,
        Step::Matches { pattern } => split(pattern, "Removed".into(), true)?,
        Step::Digits { individual } => json!({ "type": "Digits", "individual_digits": individual }),
        Step::Metaspace { replacement, scheme, split } => {
            let scheme = match scheme {
                Scheme::First => "first",
                Scheme::Never => "never",
                Scheme::Always => "always",
            };
            json!({ "type": "Metaspace", "replacement": replacement, "prepend_scheme": scheme, "split": split })
        }
        Step::ByteLevel { prefix_space, use_regex } => {
            json!({ "type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": true, "use_regex": use_regex })
        }
        Step::UnicodeScripts => json!({ "type": "UnicodeScripts" }),
        Step::FixedLength { length } => json!({ "type": "FixedLength", "length": length }),
    })
}

/// What puts ids before and after the text, if any are.
fn template(definition: &Definition) -> Value {
    let settings = &definition.settings;
    if settings.prefix.is_empty() && settings.suffix.is_empty() {
        return Value::Null;
    }
    let name = |id: u32| {
        let added = settings.added.iter().find(|token| token.id == id).map(|token| token.content.clone());
        added.or_else(|| definition.tokens.get(id as usize)?.as_deref().map(spell)).unwrap_or_default()
    };
    let special = |&id: &u32| json!({ "SpecialToken": { "id": name(id), "type_id": 0 } });
    let mut single: Vec<Value> = settings.prefix.iter().map(special).collect();
    single.push(json!({ "Sequence": { "id": "A", "type_id": 0 } }));
    single.extend(settings.suffix.iter().map(special));
    let tokens: Map<String, Value> = settings
        .prefix
        .iter()
        .chain(&settings.suffix)
        .map(|&id| (name(id), json!({ "id": name(id), "ids": [id], "tokens": [name(id)] })))
        .collect();
    json!({
        "type": "TemplateProcessing",
        "single": single,
        "pair": [
            { "Sequence": { "id": "A", "type_id": 0 } },
            { "Sequence": { "id": "B", "type_id": 1 } }
        ],
        "special_tokens": tokens,
    })
}
