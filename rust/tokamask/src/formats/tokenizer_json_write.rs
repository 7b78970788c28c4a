//! Writing tokenizer.json, so that whoever reads that file reads ours.

use serde_json::{json, Map, Value};

use super::Definition;
use crate::bpe::{Bpe, Merges};
use crate::error::VocabularyError;
use crate::text::alphabet::spell;
use crate::text::pretokenizer::Step;

/// The file of a byte-level BPE tokenizer. End-of-sequence ids have no place in it.
pub fn write(definition: &Definition) -> Result<Vec<u8>, VocabularyError> {
    let Definition { tokens, merges, settings } = definition;
    let spelled: Vec<Option<String>> = tokens.iter().map(|token| token.as_deref().map(spell)).collect();
    let mut vocab = Map::new();
    for (id, token) in spelled.iter().enumerate() {
        if let Some(token) = token {
            vocab.entry(token.clone()).or_insert_with(|| id.into());
        }
    }
    // A reader gives added tokens the ids of the model's tokens of the same text, or new ones.
    for token in &settings.added {
        vocab.entry(token.content.clone()).or_insert_with(|| token.id.into());
    }
    let name = |id: u32| spelled.get(id as usize).and_then(Option::as_deref).unwrap_or_default();
    let merges: Vec<Value> =
        pairs(tokens, merges)?.into_iter().map(|(left, right)| json!([name(left), name(right)])).collect();
    let mut steps: Vec<Value> = settings.steps.iter().map(component).collect();
    steps.push(byte_level());
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": settings.added,
        "normalizer": settings.normalizer,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": steps },
        "post_processor": template(definition),
        "decoder": byte_level(),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": settings.whole_pieces,
            "vocab": vocab,
            "merges": merges,
        },
    });
    serde_json::to_vec(&file).map_err(|error| VocabularyError::new(error.to_string()))
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

fn component(step: &Step) -> Value {
    let split = |pattern: &str, behavior: Value, invert: bool| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": behavior, "invert": invert });
    match step {
        Step::Split { pattern, behavior, invert } => split(pattern, json!(behavior), *invert),
        Step::Matches { pattern } => split(pattern, "Removed".into(), true),
        Step::Digits { individual } => json!({ "type": "Digits", "individual_digits": individual }),
    }
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
