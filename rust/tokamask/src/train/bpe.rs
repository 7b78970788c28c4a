//! Byte-level BPE from counted pretokens.

use super::counts::View;
use super::learn::{Goal, Learner, Outcome};
use crate::bpe::Merges;
use crate::error::{Error, UnsupportedComponentError};
use crate::formats::{self, Definition, Settings};
use crate::models::Kind;
use crate::text::added::AddedToken;
use crate::text::alphabet::{char_of_byte, ByteOfChar};
use crate::text::pretokenizer::Step;

/// What a tokenizer of these merges consists of.
pub struct Learnt {
    /// Bytes of all tokens by id; special tokens hold their text.
    pub tokens: Vec<Vec<u8>>,
    /// Pairs of ids, in the order learnt.
    pub merges: Vec<(u32, u32)>,
    /// Special tokens and letters of the alphabet: the ids before those of merges.
    pub start: usize,
    /// Why learning ended.
    pub outcome: Outcome,
}

/// The settings that components of a tokenizer.json ask for: `{"pre_tokenizer": .., "normalizer": ..}`.
pub fn components(components: &str) -> Result<Settings, Error> {
    let inner = components.trim_start().strip_prefix('{').unwrap_or_default();
    let file = format!(r#"{{"model": {{"type": "BPE", "vocab": {{}}, "merges": []}}, {inner}"#);
    Ok(formats::read(file.as_bytes())?.settings)
}

/// The same for a byte-level model, which takes the bytes of the text as they are.
pub fn settings(of: &str) -> Result<Settings, Error> {
    let settings = components(of)?;
    if settings.model != Kind::Bytes || !settings.steps.iter().all(Step::only_cuts) {
        let component = "a pre-tokenizer without a byte-level end".to_owned();
        return Err(UnsupportedComponentError { component, path: Some("/pre_tokenizer".to_owned()) }.into());
    }
    Ok(Settings { members: serde_json::Map::new(), ..settings })
}

/// The bytes in the order of their ids: as their characters in the printable alphabet sort.
pub fn alphabet() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.sort_unstable_by_key(|&byte| char_of_byte(byte));
    bytes
}

/// Special tokens first, then the alphabet: ids and, for the learner, spellings and lengths.
pub struct Start {
    /// For the learner: bytes (empty where merging can never spell the token) and length.
    pub tokens: Vec<(Vec<u8>, u32)>,
    /// Id of each byte; `None` outside the alphabet.
    pub symbols: [Option<u32>; 256],
}

impl Start {
    /// `wanted` says which bytes are in the alphabet.
    pub fn new(special_tokens: &[String], wanted: impl Fn(u8) -> bool) -> Self {
        let known = ByteOfChar::default();
        let mut start = Self { tokens: Vec::new(), symbols: [None; 256] };
        for token in special_tokens {
            let bytes = known.bytes(token).unwrap_or_default();
            if let [byte] = bytes[..] {
                start.symbols[byte as usize] = Some(start.tokens.len() as u32);
            }
            let length = bytes.len() as u32;
            start.tokens.push((bytes, length));
        }
        for byte in alphabet() {
            if wanted(byte) && start.symbols[byte as usize].is_none() {
                start.symbols[byte as usize] = Some(start.tokens.len() as u32);
                start.tokens.push((vec![byte], 1));
            }
        }
        start
    }
}

/// Learns merges over pretokens. `initial` are bytes that are in the alphabet whether or not they
/// occur; `keep_going` is told the size of the vocabulary after each merge.
pub fn train(
    counts: View<'_>,
    special_tokens: &[String],
    initial: &[u8],
    goal: Goal<'_>,
    keep_going: impl FnMut(usize) -> bool,
) -> Result<Learnt, Error> {
    let mut occurs = [false; 256];
    for &byte in counts.words().flat_map(|(word, _)| word).chain(initial) {
        occurs[byte as usize] = true;
    }
    let start = Start::new(special_tokens, |byte| occurs[byte as usize]);
    let first = start.tokens.len();
    let symbols = start.symbols.map(|symbol| symbol.unwrap_or(u32::MAX));
    let mut learner = Learner::new(start.tokens, counts.words(), |&byte| symbols[byte as usize])?;
    let outcome = learner.learn(goal, keep_going);
    let (tokens, merges) = learner.into_parts();
    Ok(Learnt { tokens: spelled(tokens, special_tokens), merges, start: first, outcome })
}

/// Tokens as bytes, with the special tokens' own text at the front.
pub fn spelled(tokens: Vec<Box<[u8]>>, special_tokens: &[String]) -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = tokens.into_iter().map(<[u8]>::into_vec).collect();
    for (token, text) in tokens.iter_mut().zip(special_tokens) {
        *token = text.clone().into_bytes();
    }
    tokens
}

impl Learnt {
    /// The definition of a tokenizer with these merges.
    pub fn definition(&self, special_tokens: &[String], mut settings: Settings) -> Definition {
        let known = ByteOfChar::default();
        let merged = |token: &[u8]| {
            token.len() == 1
                || self.merges.iter().any(|&(left, right)| {
                    let (left, right) = (&self.tokens[left as usize], &self.tokens[right as usize]);
                    token.len() == left.len() + right.len() && [&left[..], &right[..]].concat() == token
                })
        };
        // A special token is a token of the model only where merging spells it.
        let special = special_tokens.iter().map(|text| known.bytes(text).filter(|bytes| merged(bytes)));
        let tokens = special.chain(self.tokens[special_tokens.len()..].iter().cloned().map(Some)).collect();
        settings.added = (0u32..)
            .zip(special_tokens)
            .map(|(id, content)| AddedToken::special(content.clone(), id))
            .collect();
        Definition { tokens, merges: Merges::List(self.merges.clone()), settings }
    }
}
