//! GGUF metadata: tokens, merges and ids of special tokens. Tensors are not read.

use rustc_hash::FxHashMap;

use super::{sentencepiece, Definition, Settings};
use crate::bpe::Merges;
use crate::error::{Error, UnsupportedComponentError, VocabularyError};
use crate::text::added::AddedToken;
use crate::text::alphabet::ByteOfChar;
use crate::text::charsmap::SentencePiece;
use crate::text::pretokenizer::{Behavior, Step, GPT2};

/// A metadata value, of the kinds that tokenizers use.
enum Value<'a> {
    Number(i64),
    Bool(bool),
    Text(&'a str),
    Texts(Vec<&'a str>),
    Numbers(Vec<i64>),
    Floats(Vec<f32>),
    Other,
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], VocabularyError> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        let bytes = end.and_then(|end| self.data.get(self.at..end));
        let bytes =
            bytes.ok_or_else(|| VocabularyError::new(format!("GGUF: cut short at byte {}", self.at)))?;
        self.at += bytes.len();
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], VocabularyError> {
        let bytes = self.take(N as u64)?;
        bytes.try_into().map_err(|_| VocabularyError::new("GGUF: cut short"))
    }

    fn u32(&mut self) -> Result<u32, VocabularyError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, VocabularyError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<&'a str, VocabularyError> {
        let length = self.u64()?;
        let start = self.at;
        std::str::from_utf8(self.take(length)?)
            .map_err(|_| VocabularyError::new(format!("GGUF: text at byte {start} is not UTF-8")))
    }

    fn value(&mut self, kind: u32) -> Result<Value<'a>, VocabularyError> {
        Ok(match kind {
            8 => Value::Text(self.text()?),
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                self.values(kind, count)?
            }
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            6 | 12 => {
                self.take(if kind == 6 { 4 } else { 8 })?;
                Value::Other
            }
            _ => Value::Number(self.number(kind)?),
        })
    }

    fn number(&mut self, kind: u32) -> Result<i64, VocabularyError> {
        Ok(match kind {
            0 | 7 => self.array::<1>()?[0].into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            10 | 11 => i64::from_le_bytes(self.array()?),
            _ => return Err(VocabularyError::new(format!("GGUF: value of unknown type {kind}"))),
        })
    }

    fn values(&mut self, kind: u32, count: u64) -> Result<Value<'a>, VocabularyError> {
        // Each element takes a byte at least, so a forged count cannot make a large allocation.
        if count > self.data.len() as u64 {
            return Err(VocabularyError::new(format!("GGUF: cut short at byte {}", self.at)));
        }
        Ok(match kind {
            8 => Value::Texts((0..count).map(|_| self.text()).collect::<Result<_, _>>()?),
            6 => {
                let bytes = self.take(count.saturating_mul(4))?.chunks_exact(4);
                Value::Floats(bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            }
            12 => {
                self.take(count.saturating_mul(8))?;
                Value::Other
            }
            9 => {
                for _ in 0..count {
                    let (kind, count) = (self.u32()?, self.u64()?);
                    if kind == 9 {
                        return Err(VocabularyError::new("GGUF: arrays nested too deep"));
                    }
                    self.values(kind, count)?;
                }
                Value::Other
            }
            _ => Value::Numbers((0..count).map(|_| self.number(kind)).collect::<Result<_, _>>()?),
        })
    }
}

/// Reads the tokenizer of a GGUF file.
pub fn read(data: &[u8]) -> Result<Definition, Error> {
    let mut reader = Reader { data, at: 4 };
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(VocabularyError::new(format!("GGUF: version {version} is not read")).into());
    }
    let (_tensors, count) = (reader.u64()?, reader.u64()?);
    let mut fields: FxHashMap<&str, Value> = FxHashMap::default();
    for _ in 0..count {
        let name = reader.text()?;
        let kind = reader.u32()?;
        let value = reader.value(kind)?;
        if let Some(name) = name.strip_prefix("tokenizer.ggml.") {
            fields.insert(name, value);
        }
    }
    define(&fields)
}

fn define(fields: &FxHashMap<&str, Value>) -> Result<Definition, Error> {
    let text = |name: &str| match fields.get(name) {
        Some(Value::Text(text)) => Ok(*text),
        _ => Err(VocabularyError::new(format!("GGUF: tokenizer.ggml.{name} is missing"))),
    };
    let texts = |name: &str| match fields.get(name) {
        Some(Value::Texts(texts)) => Ok(&texts[..]),
        _ => Err(VocabularyError::new(format!("GGUF: tokenizer.ggml.{name} is missing"))),
    };
    let id = |name: &str| match fields.get(name) {
        Some(&Value::Number(id)) => u32::try_from(id).ok(),
        _ => None,
    };
    let flag = |name: &str| matches!(fields.get(name), Some(Value::Bool(true)));
    let model = text("model")?;
    if model == "llama" {
        return define_llama(fields);
    }
    if model != "gpt2" {
        let component = format!("model {model}");
        return Err(UnsupportedComponentError { component, path: Some("tokenizer.ggml.model".into()) }.into());
    }
    let steps = rule(text("pre").unwrap_or("gpt-2"))?;
    let spelled = texts("tokens")?;
    let kinds: &[i64] = match fields.get("token_type") {
        Some(Value::Numbers(kinds)) if kinds.len() == spelled.len() => kinds,
        None => &[],
        _ => return Err(VocabularyError::new("GGUF: token_type is not one number per token").into()),
    };
    let alphabet = ByteOfChar::default();
    let (mut tokens, mut added) = (Vec::with_capacity(spelled.len()), Vec::new());
    for (at, token) in spelled.iter().enumerate() {
        // 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
        let kind = kinds.get(at).copied().unwrap_or(1);
        let bytes = match kind {
            2..=4 => {
                let content = (*token).to_owned();
                added.push(AddedToken {
                    content,
                    id: at as u32,
                    special: kind != 4,
                    single_word: false,
                    lstrip: false,
                    rstrip: false,
                    normalized: false,
                });
                None
            }
            5 => None,
            _ => alphabet.bytes(token).or_else(|| Some(token.as_bytes().to_vec())),
        };
        tokens.push(bytes);
    }
    let merges = merges(spelled, texts("merges")?)?;
    let mut eos_ids: Vec<u32> = id("eos_token_id").into_iter().collect();
    for name in ["eot_token_id", "eom_token_id"] {
        eos_ids.extend(id(name).filter(|id| !eos_ids.contains(id)));
    }
    let ask = |flag: bool, name| if flag { id(name).into_iter().collect() } else { Vec::new() };
    let settings = Settings {
        whole_pieces: matches!(text("pre"), Ok("llama-bpe" | "llama3" | "llama-v3")),
        added,
        normalizer: None,
        steps,
        prefix: ask(flag("add_bos_token"), "bos_token_id"),
        suffix: ask(flag("add_eos_token"), "eos_token_id"),
        eos_ids,
        ..Settings::default()
    };
    Ok(Definition { tokens, merges, settings })
}

/// A SentencePiece model of merges, spread over fields.
fn define_llama(fields: &FxHashMap<&str, Value>) -> Result<Definition, Error> {
    let missing = |name: &str| VocabularyError::new(format!("GGUF: tokenizer.ggml.{name} is missing or odd"));
    let Some(Value::Texts(texts)) = fields.get("tokens") else { return Err(missing("tokens").into()) };
    let scores = match fields.get("scores") {
        Some(Value::Floats(scores)) if scores.len() == texts.len() => scores,
        _ => return Err(missing("scores").into()),
    };
    let kinds = match fields.get("token_type") {
        Some(Value::Numbers(kinds)) if kinds.len() == texts.len() => kinds,
        _ => return Err(missing("token_type").into()),
    };
    let id = |name: &str| match fields.get(name) {
        Some(&Value::Number(id)) => u32::try_from(id).ok(),
        _ => None,
    };
    let flag = |name: &str, default: bool| match fields.get(name) {
        Some(Value::Bool(flag)) => *flag,
        _ => default,
    };
    let unknown = id("unknown_token_id");
    let pieces = (0..).zip(texts).zip(scores).zip(kinds).map(|(((id, text), &score), &kind)| {
        let kind = match i32::try_from(kind) {
            // Gemma's unknown token is filed under the control tokens.
            Ok(sentencepiece::CONTROL) if unknown == Some(id) => sentencepiece::UNKNOWN,
            Ok(kind) => kind,
            Err(_) => sentencepiece::UNUSED,
        };
        // Pieces of the user's are spelled with spaces here.
        let text = if kind == sentencepiece::USER_DEFINED {
            text.replace(' ', "\u{2581}")
        } else {
            (*text).to_owned()
        };
        sentencepiece::Piece { text, score, kind }
    });
    let add_dummy_prefix = flag("add_space_prefix", true);
    let model = sentencepiece::Model {
        pieces: pieces.collect(),
        unigram: false,
        byte_fallback: kinds.contains(&i64::from(sentencepiece::BYTE)),
        eos: id("eos_token_id"),
        normalizer: SentencePiece { add_dummy_prefix, escape_whitespaces: true, ..SentencePiece::default() },
        surface: super::sentencepiece::SURFACE.to_owned(),
    };
    let mut definition = sentencepiece::define(model)?;
    let ask = |asked: bool, name| if asked { id(name).into_iter().collect() } else { Vec::new() };
    definition.settings.prefix = ask(flag("add_bos_token", true), "bos_token_id");
    definition.settings.suffix = ask(flag("add_eos_token", false), "eos_token_id");
    let eos = &mut definition.settings.eos_ids;
    for name in ["eot_token_id", "eom_token_id"] {
        let more = id(name).filter(|id| !eos.contains(id));
        eos.extend(more);
    }
    Ok(definition)
}

fn merges(tokens: &[&str], merges: &[&str]) -> Result<Merges, VocabularyError> {
    let mut ids: FxHashMap<&str, u32> = FxHashMap::default();
    for (id, token) in tokens.iter().enumerate() {
        ids.entry(token).or_insert(id as u32);
    }
    let pairs = merges.iter().enumerate().map(|(line, merge)| {
        // A half may itself begin with a space only in vocabularies that are not byte level.
        let (left, right) = merge
            .split_once(' ')
            .ok_or_else(|| VocabularyError::new("GGUF: a merge is not two tokens").at_line(line + 1))?;
        match (ids.get(left), ids.get(right)) {
            (Some(&left), Some(&right)) => Ok((left, right)),
            _ => Err(VocabularyError::new("GGUF: a merge names no token").at_line(line + 1).at_token(*merge)),
        }
    });
    Ok(Merges::List(pairs.collect::<Result<_, _>>()?))
}

/// The split rule that a GGUF file only names.
fn rule(name: &str) -> Result<Vec<Step>, UnsupportedComponentError> {
    let split = |pattern: &str| Step::Split {
        pattern: pattern.to_owned(),
        behavior: Behavior::Isolated,
        invert: false,
    };
    let llama3 = |digits: &str| {
        split(&format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ))
    };
    Ok(match name {
        "gpt-2" | "default" | "mpt" | "olmo" | "phi-2" => vec![split(GPT2)],
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => {
            vec![Step::Digits { individual: true }, split(GPT2)]
        }
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "dbrx" | "smaug-bpe" => vec![llama3(r"\p{N}{1,3}")],
        "qwen2" | "deepseek-r1-qwen" | "stablelm2" => vec![llama3(r"\p{N}")],
        "superbpe" => vec![split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))")],
        _ => {
            return Err(UnsupportedComponentError {
                component: format!("split rule {name}"),
                path: Some("tokenizer.ggml.pre".to_owned()),
            })
        }
    })
}
