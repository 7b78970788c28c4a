//! Decoders: from the spellings of tokens to text. They are data in the file's own words.

use serde::{Deserialize, Serialize};

use super::alphabet::ByteOfChar;
use super::normalizer::Replaced;
use super::pattern::Pattern;
use super::pretokenizer::Scheme;
use crate::error::UnsupportedComponentError;

/// What stands for a space in SentencePiece models.
const MARK: char = '\u{2581}';

/// One step from spellings to text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Decoder {
    /// Characters of the byte alphabet become bytes.
    ByteLevel {},
    /// `<0x0A>` becomes a byte.
    ByteFallback {},
    /// All spellings become one.
    Fuse {},
    /// A character is dropped from the ends.
    Strip {
        /// Which.
        content: char,
        /// How often at the start.
        start: usize,
        /// How often at the end.
        stop: usize,
    },
    /// Marks become spaces.
    Metaspace {
        /// The mark.
        replacement: char,
        /// With any but `Never`, the first spelling loses its marks.
        #[serde(default = "always")]
        prepend_scheme: Scheme,
    },
    /// Spellings without the prefix of continuations get a space before them.
    WordPiece {
        /// What continuations begin with.
        prefix: String,
        /// English punctuation loses the space before it.
        #[serde(default = "yes")]
        cleanup: bool,
    },
    /// Repetitions and padding are dropped.
    #[serde(rename = "CTC")]
    Ctc {
        /// What stands for nothing.
        pad_token: String,
        /// What stands for a space.
        word_delimiter_token: String,
        /// English punctuation loses the space before it.
        #[serde(default = "yes")]
        cleanup: bool,
    },
    /// What ends words becomes a space.
    #[serde(rename = "BPEDecoder")]
    Bpe {
        /// What ends words.
        suffix: String,
    },
    /// Every occurrence of a pattern becomes a text.
    Replace {
        /// What to replace.
        pattern: Replaced,
        /// What stands in its place.
        content: String,
    },
    /// One after another.
    Sequence {
        /// The steps.
        decoders: Vec<Decoder>,
    },
    /// All that a SentencePiece model does; it has no name in tokenizer.json.
    SentencePiece {
        /// The unknown piece.
        unknown: String,
        /// What stands for it in a text.
        surface: String,
        /// What becomes of the spaces that the text begins with.
        #[serde(default)]
        spaces: Leading,
    },
}

/// Spaces at the start of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leading {
    /// They stay.
    #[default]
    Kept,
    /// The first goes, if the first piece that has a text begins with it.
    First,
    /// Each piece loses one until there is text.
    EachFirst,
}

fn always() -> Scheme {
    Scheme::Always
}

fn yes() -> bool {
    true
}

impl Decoder {
    /// The names of the decoders that files may hold.
    pub const NAMES: &[&str] = &[
        "ByteLevel",
        "ByteFallback",
        "Fuse",
        "Strip",
        "Metaspace",
        "WordPiece",
        "CTC",
        "BPEDecoder",
        "Replace",
        "Sequence",
    ];

    /// The steps, sequences opened.
    pub fn steps(&self) -> Vec<&Decoder> {
        match self {
            Self::Sequence { decoders } => decoders.iter().flat_map(Self::steps).collect(),
            step => vec![step],
        }
    }

    /// The text of spellings.
    pub fn decode(&self, spellings: Vec<String>) -> Result<String, UnsupportedComponentError> {
        Ok(self.chain(spellings)?.concat())
    }

    fn chain(&self, mut tokens: Vec<String>) -> Result<Vec<String>, UnsupportedComponentError> {
        Ok(match self {
            Self::Sequence { decoders } => {
                return decoders.iter().try_fold(tokens, |tokens, decoder| decoder.chain(tokens))
            }
            Self::ByteLevel {} => {
                let alphabet = ByteOfChar::default();
                let bytes = tokens
                    .iter()
                    .flat_map(|token| alphabet.bytes(token).unwrap_or_else(|| token.as_bytes().to_vec()));
                vec![String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()]
            }
            Self::ByteFallback {} => bytes_of_runs(tokens),
            Self::Fuse {} => vec![tokens.concat()],
            Self::Strip { content, start, stop } => {
                for token in &mut tokens {
                    *token = strip(token, *content, *start, *stop);
                }
                tokens
            }
            Self::Metaspace { replacement, prepend_scheme } => {
                for (nth, token) in tokens.iter_mut().enumerate() {
                    let space = if nth == 0 && *prepend_scheme != Scheme::Never { "" } else { " " };
                    *token = token.replace(*replacement, space);
                }
                tokens
            }
            Self::WordPiece { prefix, cleanup } => {
                for (nth, token) in tokens.iter_mut().enumerate() {
                    if nth > 0 {
                        *token = match token.strip_prefix(&**prefix) {
                            Some(rest) => rest.to_owned(),
                            None => format!(" {token}"),
                        };
                    }
                    if *cleanup {
                        *token = clean(token);
                    }
                }
                tokens
            }
            Self::Ctc { pad_token, word_delimiter_token, cleanup } => {
                tokens.dedup();
                let text = tokens.iter().map(|token| {
                    let text = token.replace(&**pad_token, "");
                    if *cleanup {
                        clean(&text).replace(&**word_delimiter_token, " ")
                    } else {
                        text
                    }
                });
                text.filter(|text| !text.is_empty()).collect()
            }
            Self::Bpe { suffix } => {
                let last = tokens.len().saturating_sub(1);
                for (nth, token) in tokens.iter_mut().enumerate() {
                    *token = token.replace(&**suffix, if nth == last { "" } else { " " });
                }
                tokens
            }
            Self::SentencePiece { unknown, surface, spaces } => {
                vec![sentencepiece(&tokens, unknown, surface, *spaces)]
            }
            Self::Replace { pattern: Replaced::String(old), content } => {
                for token in &mut tokens {
                    *token = token.replace(&**old, content);
                }
                tokens
            }
            Self::Replace { pattern: Replaced::Regex(rule), content } => {
                let pattern = Pattern::new(&super::pattern::onig_rule(rule)?)?;
                for token in &mut tokens {
                    let (mut out, mut last) = (String::new(), 0);
                    // As normalizers: a pattern that gives up leaves the rest.
                    let _gave_up = pattern.find(token, |start, end| {
                        out.push_str(&token[last..start]);
                        out.push_str(content);
                        last = end;
                    });
                    out.push_str(&token[last..]);
                    *token = out;
                }
                tokens
            }
        })
    }
}

/// The byte that `<0x0A>` spells.
pub fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if token.len() == 6 {
        u8::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

/// Runs of byte spellings become text if they are UTF-8, else one U+FFFD for each byte.
fn bytes_of_runs(tokens: Vec<String>) -> Vec<String> {
    let (mut out, mut run) = (Vec::with_capacity(tokens.len()), Vec::new());
    let flush = |run: &mut Vec<u8>, out: &mut Vec<String>| {
        let count = run.len();
        match String::from_utf8(std::mem::take(run)) {
            Ok(text) if count > 0 => out.push(text),
            Ok(_) => {}
            Err(_) => out.extend(std::iter::repeat_n("\u{FFFD}".to_owned(), count)),
        }
    };
    for token in tokens {
        if let Some(byte) = byte_of(&token) {
            run.push(byte);
        } else {
            flush(&mut run, &mut out);
            out.push(token);
        }
    }
    flush(&mut run, &mut out);
    out
}

/// The text of pieces as SentencePiece writes it.
fn sentencepiece(pieces: &[String], unknown: &str, surface: &str, spaces: Leading) -> String {
    let (mut out, mut run) = (String::new(), Vec::new());
    let mut at_start = spaces != Leading::Kept;
    for piece in pieces {
        if let Some(byte) = byte_of(piece) {
            run.push(byte);
            continue;
        }
        push_bytes(&mut run, &mut out);
        at_start &= out.is_empty();
        if piece == unknown {
            out.push_str(surface);
            continue;
        }
        let rest = piece.strip_prefix(MARK).filter(|_| at_start);
        at_start &= rest.is_none() || spaces == Leading::EachFirst;
        out.push_str(&rest.unwrap_or(piece).replace(MARK, " "));
    }
    push_bytes(&mut run, &mut out);
    out
}

/// What is UTF-8 becomes text, each other byte U+FFFD.
fn push_bytes(run: &mut Vec<u8>, out: &mut String) {
    for chunk in run.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    run.clear();
}

fn strip(token: &str, content: char, start: usize, stop: usize) -> String {
    let chars: Vec<char> = token.chars().collect();
    let head = chars.iter().take(start).take_while(|&&c| c == content).count();
    let tail = chars.iter().rev().take(stop).take_while(|&&c| c == content).count();
    chars.get(head..chars.len() - tail).unwrap_or_default().iter().collect()
}

/// English punctuation and contractions without the space before them.
fn clean(text: &str) -> String {
    const PAIRS: [(&str, &str); 11] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    PAIRS.iter().fold(
        text.to_owned(),
        |text, (old, new)| if text.contains(old) { text.replace(old, new) } else { text },
    )
}
