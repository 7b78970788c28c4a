//! Pre-tokenizers and post-processors of tokenizer.json.

use serde_json::Value;

use super::tokenizer_json::{flag, unsupported, DeserializeAt};
use crate::error::{Error, VocabularyError};
use crate::text::category::PUNCTUATION;
use crate::text::pattern::onig_rule;
use crate::text::pretokenizer::{Behavior, Scheme, Step};

/// Appends the steps of a pre-tokenizer.
pub fn read_steps(component: &Value, path: &str, steps: &mut Vec<Step>) -> Result<(), Error> {
    match component["type"].as_str() {
        Some("Sequence") => {
            let parts = component["pretokenizers"].as_array();
            let parts = parts.ok_or_else(|| {
                VocabularyError::new("a list is missing").at_path(format!("{path}/pretokenizers"))
            })?;
            for (nth, component) in parts.iter().enumerate() {
                read_steps(component, &format!("{path}/pretokenizers/{nth}"), steps)?;
            }
        }
        Some("Split") => steps.push(read_split(component, path)?),
        Some("Whitespace") => steps.push(split(r"\w+|[^\w\s]+", Behavior::Removed, true)),
        Some("WhitespaceSplit") => steps.push(split(r"\s", Behavior::Removed, false)),
        Some("BertPreTokenizer") => {
            steps.push(split(r"\s", Behavior::Removed, false));
            steps.push(split(PUNCTUATION, Behavior::Isolated, false));
        }
        Some("Punctuation") => {
            let behavior = match &component["behavior"] {
                Value::Null => Behavior::Isolated,
                behavior => Behavior::deserialize_at(behavior, &format!("{path}/behavior"))?,
            };
            steps.push(split(PUNCTUATION, behavior, false));
        }
        Some("CharDelimiterSplit") => {
            let delimiter = char::deserialize_at(&component["delimiter"], &format!("{path}/delimiter"))?;
            steps.push(split(&regex_syntax::escape(&delimiter.to_string()), Behavior::Removed, false));
        }
        Some("Digits") => {
            steps.push(Step::Digits { individual: flag(component, "individual_digits", path)? });
        }
        Some("Metaspace") => steps.push(read_metaspace(component, path)?),
        Some("UnicodeScripts") => steps.push(Step::UnicodeScripts),
        Some("FixedLength") => {
            let length = match &component["length"] {
                Value::Null => 5,
                length => usize::deserialize_at(length, &format!("{path}/length"))?,
            };
            if length == 0 {
                return Err(VocabularyError::new("pieces of no length")
                    .at_path(format!("{path}/length"))
                    .into());
            }
            steps.push(Step::FixedLength { length });
        }
        Some("ByteLevel") => steps.push(Step::ByteLevel {
            prefix_space: flag(component, "add_prefix_space", path)?,
            use_regex: component["use_regex"].is_null() || flag(component, "use_regex", path)?,
        }),
        _ => return Err(unsupported(component, path)),
    }
    Ok(())
}

fn split(pattern: &str, behavior: Behavior, invert: bool) -> Step {
    Step::Split { pattern: pattern.to_owned(), behavior, invert }
}

fn read_metaspace(component: &Value, path: &str) -> Result<Step, VocabularyError> {
    let replacement = char::deserialize_at(&component["replacement"], &format!("{path}/replacement"))?;
    let declared = match &component["prepend_scheme"] {
        Value::Null => None,
        scheme => Some(Scheme::deserialize_at(scheme, &format!("{path}/prepend_scheme"))?),
    };
    // Older files have a flag; where both stand, they must agree.
    let scheme = match (&component["add_prefix_space"], declared) {
        (Value::Bool(false), None | Some(Scheme::Never)) => Scheme::Never,
        (Value::Bool(false), Some(_)) => {
            let error = VocabularyError::new("add_prefix_space does not agree with prepend_scheme");
            return Err(error.at_path(format!("{path}/add_prefix_space")));
        }
        (_, declared) => declared.unwrap_or(Scheme::Always),
    };
    let split = component["split"].is_null() || flag(component, "split", path)?;
    Ok(Step::Metaspace { replacement, scheme, split })
}

fn read_split(component: &Value, path: &str) -> Result<Step, Error> {
    let pattern = match (&component["pattern"]["Regex"], &component["pattern"]["String"]) {
        (Value::String(pattern), _) => onig_rule(pattern).map_err(|mut error| {
            error.path = Some(path.to_owned());
            error
        })?,
        (_, Value::String(text)) => regex_syntax::escape(text),
        _ => return Err(unsupported(component, path)),
    };
    let behavior = Behavior::deserialize_at(&component["behavior"], &format!("{path}/behavior"))?;
    Ok(Step::Split { pattern, behavior, invert: flag(component, "invert", path)? })
}

/// Ids before and after a single text.
#[allow(clippy::type_complexity)]
pub fn read_post_processor(component: &Value, path: &str) -> Result<(Vec<u32>, Vec<u32>), Error> {
    let list = |name: &str| {
        let error = || VocabularyError::new("a list is missing").at_path(format!("{path}/{name}"));
        component[name].as_array().ok_or_else(error)
    };
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
            for (nth, part) in list("processors")?.iter().enumerate() {
                let (prefix, suffix) = read_post_processor(part, &format!("{path}/processors/{nth}"))?;
                around.0.splice(0..0, prefix);
                around.1.extend(suffix);
            }
            Ok(around)
        }
        Some("TemplateProcessing") => {
            let mut around = (Vec::new(), Vec::new());
            let mut before = true;
            for (nth, piece) in list("single")?.iter().enumerate() {
                if let Some(name) = piece["SpecialToken"]["id"].as_str() {
                    let ids = &component["special_tokens"][name]["ids"];
                    let ids = Vec::<u32>::deserialize_at(ids, &format!("{path}/special_tokens/{name}"))?;
                    if before { &mut around.0 } else { &mut around.1 }.extend(ids);
                } else if before && piece["Sequence"]["id"] == "A" {
                    before = false;
                } else {
                    return Err(unsupported(piece, &format!("{path}/single/{nth}")));
                }
            }
            Ok(around)
        }
        _ => Err(unsupported(component, path)),
    }
}
