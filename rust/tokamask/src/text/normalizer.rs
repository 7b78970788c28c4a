//! Normalizers: what becomes of a text before it is cut. [`Normalizer`] is data in the file's own
//! words; [`Normalization`] is the same made ready to run.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use unicode_normalization::{is_nfc, is_nfd, is_nfkc, is_nfkd, UnicodeNormalization};

use super::category::{self, Category};
use super::charsmap::{Charsmap, SentencePiece};
use super::pattern::{literal, onig_rule, Pattern};
use crate::error::{Error, UnsupportedComponentError, VocabularyError};

/// One step of normalization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Normalizer {
    /// Canonical composition.
    #[serde(rename = "NFC")]
    Nfc,
    /// Canonical decomposition.
    #[serde(rename = "NFD")]
    Nfd,
    /// Compatibility composition.
    #[serde(rename = "NFKC")]
    Nfkc,
    /// Compatibility decomposition.
    #[serde(rename = "NFKD")]
    Nfkd,
    /// Every character to lower case on its own.
    Lowercase,
    /// White space at the ends is dropped.
    Strip {
        /// At the start.
        strip_left: bool,
        /// At the end.
        strip_right: bool,
    },
    /// Combining marks are dropped.
    StripAccents,
    /// Control characters are dropped, odd spaces become spaces.
    Nmt,
    /// A text that is not empty gets this before it.
    Prepend {
        /// What stands before.
        prepend: String,
    },
    /// Every occurrence of a pattern becomes a text.
    Replace {
        /// What to replace.
        pattern: Replaced,
        /// What stands in its place.
        content: String,
    },
    /// The cleaning of the first BERT.
    BertNormalizer {
        /// Control characters are dropped, white space becomes spaces.
        clean_text: bool,
        /// Spaces round every ideograph.
        handle_chinese_chars: bool,
        /// Marks are dropped; as `lowercase` if the file does not say.
        #[serde(default)]
        strip_accents: Option<bool>,
        /// To lower case.
        lowercase: bool,
    },
    /// Every byte becomes a character of the byte alphabet.
    ByteLevel,
    /// A compiled map of character sequences, read one grapheme at a time.
    Precompiled {
        /// Base64.
        precompiled_charsmap: String,
    },
    /// The whole normalization of a SentencePiece model; it has no name in tokenizer.json.
    SentencePiece(SentencePiece),
    /// One after another.
    Sequence {
        /// The steps.
        normalizers: Vec<Normalizer>,
    },
}

/// What is to be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replaced {
    /// A text.
    String(String),
    /// What an expression matches.
    Regex(String),
}

impl Normalizer {
    /// The names of the steps that files may hold.
    pub const NAMES: &[&str] = &[
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Lowercase",
        "Strip",
        "StripAccents",
        "Nmt",
        "Prepend",
        "Replace",
        "BertNormalizer",
        "ByteLevel",
        "Precompiled",
        "Sequence",
    ];

    /// The steps, sequences opened.
    pub fn steps(&self) -> Vec<&Normalizer> {
        match self {
            Self::Sequence { normalizers } => normalizers.iter().flat_map(Self::steps).collect(),
            step => vec![step],
        }
    }
}

/// A normalizer made ready to run.
#[derive(Default)]
pub struct Normalization {
    steps: Vec<Ready>,
}

enum Ready {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    Lowercase,
    Strip(bool, bool),
    StripAccents,
    Nmt,
    Prepend(String),
    Replace(String, String),
    ReplacePattern(Box<Pattern>, String),
    Bert { clean: bool, ideographs: bool, accents: bool, lowercase: bool },
    ByteLevel,
    Precompiled(Box<Charsmap>),
    SentencePiece(Box<SentencePiece>, Box<Charsmap>),
}

impl Normalization {
    /// Compiles the steps in order.
    pub fn new<'a>(steps: impl IntoIterator<Item = &'a Normalizer>) -> Result<Self, Error> {
        let mut ready = Vec::new();
        for step in steps.into_iter().flat_map(Normalizer::steps) {
            ready.push(match step {
                Normalizer::Nfc => Ready::Nfc,
                Normalizer::Nfd => Ready::Nfd,
                Normalizer::Nfkc => Ready::Nfkc,
                Normalizer::Nfkd => Ready::Nfkd,
                Normalizer::Lowercase => Ready::Lowercase,
                Normalizer::Strip { strip_left, strip_right } => Ready::Strip(*strip_left, *strip_right),
                Normalizer::StripAccents => Ready::StripAccents,
                Normalizer::Nmt => Ready::Nmt,
                Normalizer::Prepend { prepend } => Ready::Prepend(prepend.clone()),
                Normalizer::Replace { pattern: Replaced::String(text), .. } if text.is_empty() => {
                    let component = "Replace of an empty text".to_owned();
                    return Err(UnsupportedComponentError { component, path: None }.into());
                }
                Normalizer::Replace { pattern: Replaced::String(text), content } => {
                    Ready::Replace(text.clone(), content.clone())
                }
                Normalizer::Replace { pattern: Replaced::Regex(rule), content } => {
                    let pattern = Pattern::new(&onig_rule(rule)?)?;
                    Ready::ReplacePattern(Box::new(pattern), content.clone())
                }
                Normalizer::BertNormalizer { clean_text, handle_chinese_chars, strip_accents, lowercase } => {
                    Ready::Bert {
                        clean: *clean_text,
                        ideographs: *handle_chinese_chars,
                        accents: strip_accents.unwrap_or(*lowercase),
                        lowercase: *lowercase,
                    }
                }
                Normalizer::ByteLevel => Ready::ByteLevel,
                Normalizer::Precompiled { precompiled_charsmap } => {
                    Ready::Precompiled(Box::new(Charsmap::from_base64(precompiled_charsmap)?))
                }
                Normalizer::SentencePiece(piece) => Ready::SentencePiece(
                    Box::new(piece.clone()),
                    Box::new(Charsmap::from_base64(&piece.charsmap)?),
                ),
                Normalizer::Sequence { .. } => continue, // opened above
            });
        }
        Ok(Self { steps: ready })
    }

    /// True if every text stays as it is.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The normal form of a text; the text itself where nothing changes.
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.steps.iter().fold(Cow::Borrowed(text), |text, step| match text {
            Cow::Borrowed(text) => step.apply(text),
            Cow::Owned(text) => match step.apply(&text) {
                Cow::Borrowed(same) if same.len() == text.len() => Cow::Owned(text),
                changed => Cow::Owned(changed.into_owned()),
            },
        })
    }
}

impl Ready {
    fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let form = |known: bool, all: fn(&str) -> String| {
            if known {
                Cow::Borrowed(text)
            } else {
                Cow::Owned(known_parts(text, all))
            }
        };
        // ASCII is in every normal form, and the check takes no tables.
        let ascii = text.is_ascii();
        match self {
            Self::Nfc => form(ascii || is_nfc(text), |text| text.nfc().collect()),
            Self::Nfd => form(ascii || is_nfd(text), |text| text.nfd().collect()),
            Self::Nfkc => form(ascii || is_nfkc(text), |text| text.nfkc().collect()),
            Self::Nfkd => form(ascii || is_nfkd(text), |text| text.nfkd().collect()),
            Self::Lowercase => lowercase(text),
            Self::Strip(left, right) => {
                let text = if *left { text.trim_start() } else { text };
                Cow::Borrowed(if *right { text.trim_end() } else { text })
            }
            Self::StripAccents => without(text, category::mark()),
            Self::Nmt => nmt(text),
            Self::Prepend(_) if text.is_empty() => Cow::Borrowed(text),
            Self::Prepend(before) => Cow::Owned(before.clone() + text),
            Self::Replace(old, _) if !literal(text, old) => Cow::Borrowed(text),
            Self::Replace(old, new) => Cow::Owned(text.replace(old, new)),
            Self::ReplacePattern(pattern, new) => replace_pattern(text, pattern, new),
            Self::Bert { clean, ideographs, accents, lowercase } => {
                bert(text, *clean, *ideographs, *accents, *lowercase)
            }
            Self::ByteLevel => Cow::Owned(super::alphabet::spell(text.as_bytes())),
            Self::Precompiled(map) => map.by_graphemes(text),
            Self::SentencePiece(piece, map) => piece.apply(map, text),
        }
    }
}

/// A normal form by the Unicode of the library that owns the file: to it, later characters neither compose nor move.
fn known_parts(text: &str, form: impl Fn(&str) -> String) -> String {
    let later = category::later();
    if !text.chars().any(|c| later.holds(c)) {
        return form(text);
    }
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(|c| later.holds(c)) {
        let last = part.char_indices().next_back().filter(|&(_, c)| later.holds(c));
        let (known, rest) = part.split_at(last.map_or(part.len(), |(at, _)| at));
        out.push_str(&form(known));
        out.push_str(rest);
    }
    out
}

/// Not `str::to_lowercase`, which looks at the neighbours of a sigma.
fn lowercase(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Owned(text.to_ascii_lowercase());
    }
    Cow::Owned(text.chars().flat_map(char::to_lowercase).collect())
}

fn without<'a>(text: &'a str, dropped: &Category) -> Cow<'a, str> {
    if text.is_ascii() || !text.chars().any(|c| dropped.holds(c)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|&c| !dropped.holds(c)).collect())
}

fn nmt(text: &str) -> Cow<'_, str> {
    let kept = |c: &char| !matches!(*c as u32, 0x01..=0x08 | 0x0B | 0x0E..=0x1F | 0x7F | 0x8F | 0x9F);
    let map = |c: char| match c as u32 {
        0x09 | 0x0A | 0x0C | 0x0D | 0x1680 | 0x200B..=0x200F | 0x2028 | 0x2029 | 0x2581 | 0xFEFF | 0xFFFD => {
            ' '
        }
        _ => c,
    };
    Cow::Owned(text.chars().filter(kept).map(map).collect())
}

fn replace_pattern<'a>(text: &'a str, pattern: &Pattern, new: &str) -> Cow<'a, str> {
    let (mut out, mut last) = (String::new(), 0);
    // A pattern that gives up on a text leaves the rest of it as it is.
    let _gave_up = pattern.find(text, |start, end| {
        out.push_str(&text[last..start]);
        out.push_str(new);
        last = end;
    });
    if last == 0 && out.is_empty() {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[last..]);
    Cow::Owned(out)
}

#[allow(clippy::fn_params_excessive_bools)] // the flags of the file format
fn bert(text: &str, clean: bool, ideographs: bool, accents: bool, lower: bool) -> Cow<'_, str> {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if clean {
            if c == '\0'
                || c == '\u{FFFD}'
                || (!matches!(c, '\t' | '\n' | '\r') && category::other().holds(c))
            {
                continue;
            }
            if c.is_whitespace() {
                out.push(' ');
                continue;
            }
        }
        if ideographs && is_ideograph(c) {
            out.extend([' ', c, ' ']);
        } else {
            out.push(c);
        }
    }
    if accents && !out.is_ascii() {
        out = known_parts(&out, |part| part.nfd().filter(|&c| !category::nonspacing().holds(c)).collect());
    }
    if lower {
        out = lowercase(&out).into_owned();
    }
    Cow::Owned(out)
}

/// The blocks of ideographs that BERT knew.
fn is_ideograph(c: char) -> bool {
    matches!(c as u32,
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x2_0000..=0x2_A6DF | 0x2_A700..=0x2_B73F
        | 0x2_B740..=0x2_B81F | 0x2_B920..=0x2_CEAF | 0xF900..=0xFAFF | 0x2_F800..=0x2_FA1F)
}

/// The error of a normalizer that cannot be read.
pub(super) fn broken(reason: &str) -> VocabularyError {
    VocabularyError::new(format!("the map of characters is {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_spell_steps_by_type() {
        let json = r#"{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Prepend","prepend":"_"},
            {"type":"Replace","pattern":{"String":" "},"content":"_"}]}"#;
        let steps: Normalizer = serde_json::from_str(json).expect("valid");
        let ready = Normalization::new([&steps]).expect("valid");
        assert_eq!(ready.apply("e\u{301} x"), "_\u{e9}_x");
        assert_eq!(ready.apply(""), "");
        let one = |step| Normalization::new([&step]).expect("valid");
        assert!(matches!(one(Normalizer::Nfc).apply("plain"), Cow::Borrowed(_)));
        assert_eq!(one(Normalizer::Lowercase).apply("ΑΣ"), "ας".replace('ς', "σ"));
    }
}
