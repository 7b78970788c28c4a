//! Normalizers: what becomes of a text before it is cut. They are data in the file's own words.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use unicode_normalization::{is_nfc, is_nfd, is_nfkc, is_nfkd, UnicodeNormalization};

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
    /// A text that is not empty gets this before it.
    Prepend {
        /// What stands before.
        prepend: String,
    },
    /// Every occurrence of a text becomes another.
    Replace {
        /// The text to replace.
        pattern: Literal,
        /// What stands in its place.
        content: String,
    },
    /// One after another.
    Sequence {
        /// The steps.
        normalizers: Vec<Normalizer>,
    },
}

/// A pattern that stands for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Literal {
    /// The text.
    #[serde(rename = "String")]
    pub text: String,
}

impl Normalizer {
    /// The names of the steps that are read, as files spell them.
    pub const NAMES: &[&str] =
        &["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "Prepend", "Replace", "Sequence"];

    /// The normal form of a text; the text itself where nothing changes.
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let form = |known: bool, all: fn(&str) -> String| {
            if known {
                Cow::Borrowed(text)
            } else {
                Cow::Owned(all(text))
            }
        };
        // ASCII is in every normal form, and the check takes no tables.
        let ascii = text.is_ascii();
        match self {
            Self::Nfc => form(ascii || is_nfc(text), |text| text.nfc().collect()),
            Self::Nfd => form(ascii || is_nfd(text), |text| text.nfd().collect()),
            Self::Nfkc => form(ascii || is_nfkc(text), |text| text.nfkc().collect()),
            Self::Nfkd => form(ascii || is_nfkd(text), |text| text.nfkd().collect()),
            // Not str::to_lowercase, which looks at the neighbours of a sigma.
            Self::Lowercase => Cow::Owned(text.chars().flat_map(char::to_lowercase).collect()),
            Self::Strip { strip_left, strip_right } => {
                let text = if *strip_left { text.trim_start() } else { text };
                Cow::Borrowed(if *strip_right { text.trim_end() } else { text })
            }
            Self::Prepend { .. } if text.is_empty() => Cow::Borrowed(text),
            Self::Prepend { prepend } => Cow::Owned(prepend.clone() + text),
            Self::Replace { pattern, .. } if !text.contains(&pattern.text) => Cow::Borrowed(text),
            Self::Replace { pattern, content } => Cow::Owned(text.replace(&pattern.text, content)),
            Self::Sequence { normalizers } => {
                normalizers.iter().fold(Cow::Borrowed(text), |text, step| match text {
                    Cow::Borrowed(text) => step.apply(text),
                    Cow::Owned(text) => Cow::Owned(step.apply(&text).into_owned()),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_spell_steps_by_type() {
        let json = r#"{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Prepend","prepend":"_"},
            {"type":"Replace","pattern":{"String":" "},"content":"_"}]}"#;
        let steps: Normalizer = serde_json::from_str(json).expect("valid");
        assert_eq!(steps.apply("e\u{301} x"), "_\u{e9}_x");
        assert_eq!(steps.apply(""), "");
        assert!(matches!(Normalizer::Nfc.apply("plain"), Cow::Borrowed(_)));
        assert_eq!(Normalizer::Lowercase.apply("ΑΣ"), "ας".replace('ς', "σ"));
    }
}
