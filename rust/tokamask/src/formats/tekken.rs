//! tekken.json: rank tokens after a block of special ones.

use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use super::tiktoken::ranked;
use super::tokenizer_json::DeserializeAt;
use super::{Definition, Settings};
use crate::bpe::{Merges, MAX_SYMBOLS};
use crate::error::{Error, VocabularyError};
use crate::text::added::AddedToken;
use crate::text::base64;
use crate::text::pretokenizer::Step;

#[derive(Serialize, Deserialize)]
struct Config {
    pattern: String,
    default_vocab_size: usize,
    default_num_special_tokens: usize,
    #[serde(default)]
    num_vocab_tokens: Option<usize>,
}

#[derive(Deserialize)]
struct Token {
    rank: usize,
    token_bytes: String,
}

#[derive(Deserialize)]
struct Special {
    rank: usize,
    token_str: String,
    #[serde(default = "yes")]
    is_control: bool,
}

fn yes() -> bool {
    true
}

/// The special tokens of files that do not list them.
const FIRST: [&str; 20] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];

/// True for files with a configuration and a list of tokens.
pub fn looks_like(file: &Value) -> bool {
    file["config"]["pattern"].is_string() && file["vocab"].is_array()
}

/// The tekken.json of a tokenizer: special tokens with the first ids, ranks behind them, one split rule.
pub fn write(definition: &Definition) -> Result<Vec<u8>, VocabularyError> {
    let settings = &definition.settings;
    let refuse = |what: &str| Err(VocabularyError::new(format!("tekken.json has no place for {what}")));
    let [Step::Matches { pattern }] = &settings.steps[..] else {
        return refuse("other steps than one split rule");
    };
    if settings.normalizer.is_some() || !settings.prefix.is_empty() || !settings.suffix.is_empty() {
        return refuse("a normalizer or a template");
    }
    let mut names: Vec<(u32, &str)> =
        settings.added.iter().map(|token| (token.id, &*token.content)).collect();
    names.sort_unstable();
    let count = names.len();
    let first = (0..).zip(&names).all(|(rank, &(id, _))| id == rank);
    let special =
        settings.added.iter().all(|token| *token == AddedToken::special(token.content.clone(), token.id));
    if !first || !special || !settings.whole_pieces {
        return refuse("special tokens that do not come first, or that match otherwise than as they stand");
    }
    let tokens = ranked(definition)?;
    if tokens.len() < count || tokens[..count].iter().any(Option::is_some) {
        return refuse("tokens of the ids of special ones");
    }
    let tokens: Option<Vec<&[u8]>> = tokens[count..].iter().map(Option::as_deref).collect();
    let Some(tokens) = tokens else { return refuse("ids without a token") };
    let row = |(rank, token): (usize, &&[u8])| json!({ "rank": rank, "token_bytes": base64::encode(token), "token_str": std::str::from_utf8(token).ok() });
    let name = |&(rank, name): &(u32, &str)| json!({ "rank": rank, "token_str": name, "is_control": true });
    let file = json!({
        "config": {
            "pattern": pattern,
            "num_vocab_tokens": tokens.len(),
            "default_vocab_size": count + tokens.len(),
            "default_num_special_tokens": count,
            "version": "v3",
        },
        "vocab": tokens.iter().enumerate().map(row).collect::<Vec<_>>(),
        "special_tokens": names.iter().map(name).collect::<Vec<_>>(),
    });
    serde_json::to_vec(&file).map_err(|error| VocabularyError::new(error.to_string()))
}

/// Reads a tekken.json.
pub fn read(file: &Value) -> Result<Definition, Error> {
    let config = Config::deserialize_at(&file["config"], "/config")?;
    let vocab = <Vec<Token>>::deserialize_at(&file["vocab"], "/vocab")?;
    let specials = match &file["special_tokens"] {
        Value::Null => None,
        list => Some(<Vec<Special>>::deserialize_at(list, "/special_tokens")?),
    };
    let count = config.default_num_special_tokens;
    let size = config.default_vocab_size;
    if size > MAX_SYMBOLS || count > size {
        let reason = format!("{count} special tokens in a vocabulary of {size}");
        return Err(VocabularyError::new(reason).at_path("/config").into());
    }
    let ordinary = (size - count).min(config.num_vocab_tokens.unwrap_or(usize::MAX));
    if vocab.len() < ordinary {
        let reason = format!("{} tokens where {ordinary} are announced", vocab.len());
        return Err(VocabularyError::new(reason).at_path("/vocab").into());
    }
    let mut tokens = vec![None; count];
    for (nth, token) in vocab.iter().take(ordinary).enumerate() {
        let error = |reason: String| VocabularyError::new(reason).at_path(format!("/vocab/{nth}"));
        if token.rank != nth {
            return Err(error(format!("rank {} where {nth} is due", token.rank)).into());
        }
        let bytes = base64::decode(token.token_bytes.as_bytes());
        tokens.push(Some(bytes.ok_or_else(|| error("token_bytes is not base64".to_owned()))?));
    }
    let mut names: Vec<(usize, String, bool)> = match specials {
        Some(list) => list.into_iter().map(|token| (token.rank, token.token_str, token.is_control)).collect(),
        None => (0..).zip(FIRST).map(|(rank, name)| (rank, name.to_owned(), true)).collect(),
    };
    names.retain(|&(rank, ..)| rank < count || file["special_tokens"].is_array());
    if let Some((rank, name, _)) = names.iter().find(|&&(rank, ..)| rank >= count) {
        let error = VocabularyError::new(format!("rank {rank} of {count} special tokens"));
        return Err(error.at_path("/special_tokens").at_token(name).into());
    }
    let mut named = vec![false; count];
    for &(rank, ref name, _) in &names {
        if std::mem::replace(&mut named[rank], true) {
            let error = VocabularyError::new(format!("rank {rank} is given twice"));
            return Err(error.at_path("/special_tokens").at_token(name).into());
        }
    }
    for (rank, named) in named.into_iter().enumerate() {
        if !named {
            names.push((rank, format!("<SPECIAL_{rank}>"), true));
        }
    }
    names.sort_by_key(|name| name.0);
    let id = |wanted: &str| names.iter().find(|(_, name, _)| name == wanted).map(|name| name.0 as u32);
    let eos_ids = id("</s>").into_iter().collect();
    let special = names.iter().map(|(rank, name, _)| (name.clone(), *rank as u32)).collect();
    let settings = Settings { eos_ids, ..Settings::tiktoken(&config.pattern, special) };
    Ok(Definition { tokens, merges: Merges::Ranks, settings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = (0..=255u8).map(|byte| Some(vec![byte]));
        let tokens = vec![None; 3].into_iter().chain(bytes).chain([Some(b"ab".to_vec())]).collect();
        let names =
            ["<unk>", "<s>", "</s>"].iter().zip(0..).map(|(name, id)| ((*name).to_owned(), id)).collect();
        let settings = Settings { eos_ids: vec![2], ..Settings::tiktoken(r"\s+|\S+", names) };
        let mut definition = Definition { tokens, merges: Merges::Ranks, settings };
        let file: Value = serde_json::from_slice(&write(&definition).expect("fits")).expect("JSON");
        assert!(looks_like(&file));
        assert_eq!(read(&file).expect("sound"), definition);
        definition.settings.added[1].id = 7;
        assert!(write(&definition).is_err());
    }
}
