//! Fixed work whose instructions are counted: `cargo run --release --example instructions -- encode|mask|draft|top_k|none`.
//!
//! `none` only prepares; the count of an operation is the difference to it. Input is made here, so nothing is read.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use tokamask::draft::{Drafter, Settings};
use tokamask::grammar::json_schema::{self, Options};
use tokamask::kernels::array::Floats;
use tokamask::kernels::selection::top_k;
use tokamask::mask::{CompiledGrammar, Limits};
use tokamask::random::bits64;
use tokamask::text::added::Allowed;
use tokamask::tokenizer::Tokenizer;

const PATTERN: &str = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const SCHEMA: &str = r#"{"type": "object", "required": ["name", "age"], "additionalProperties": false,
  "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}}}"#;
const DOCUMENT: &str = r#"{"name": "Ada Lovelace", "age": 36, "tags": ["mathematics", "engines", "poetry"]}"#;

/// All bytes, then every pair and triple of lower-case letters: 18,532 tokens and the end of the text.
fn tokens() -> Vec<Option<Vec<u8>>> {
    let letters = b'a'..=b'z';
    let bytes = (0..=255u8).map(|b| vec![b]);
    let pairs = letters.clone().flat_map(|a| (b'a'..=b'z').map(move |b| vec![a, b]));
    let triples =
        letters.flat_map(|a| (b'a'..=b'z').flat_map(move |b| (b'a'..=b'z').map(move |c| vec![a, b, c])));
    bytes.chain(pairs).chain(triples).map(Some).collect()
}

/// Text of made-up words.
fn prose(words: u32) -> String {
    let mut text = String::new();
    for i in 0..words {
        let bits = bits64(1, 0, 0, i);
        text.push(' ');
        text.extend((0..2 + bits % 7).map(|j| char::from(b'a' + (bits >> (8 * j + 3)) as u8 % 26)));
    }
    text
}

fn main() -> Result<(), Box<dyn Error>> {
    let operation = std::env::args().nth(1).unwrap_or_default();
    let ordinary = tokens();
    let end = ordinary.len() as u32;
    let tokenizer = Tokenizer::from_ranks(ordinary, PATTERN, vec![("<end>".to_owned(), end)])?;
    let vocabulary = tokenizer.vocabulary().with(Some(vec![end.into()]), None)?;
    let text = prose(20_000);
    let document = tokenizer.encode(DOCUMENT, false, &Allowed::None)?;
    match operation.as_str() {
        "encode" => {
            black_box(tokenizer.encode(&text, false, &Allowed::None)?);
        }
        "mask" => {
            let grammar = Arc::new(json_schema::read(SCHEMA, &Options::default())?);
            let compiled = CompiledGrammar::new(grammar, &vocabulary, Limits::default())?;
            let mut row = vec![0u32; compiled.words()];
            let mut matcher = compiled.matcher();
            for &id in &document {
                black_box(matcher.fill(&mut row));
                matcher.accept(id.into())?;
            }
        }
        "draft" => {
            let drafter = Drafter::new(Settings::default());
            let ids: Vec<u32> = (0..600u32).map(|i| (bits64(2, 0, 0, i % 97) % 50) as u32).collect();
            let mut session = drafter.session(&ids[..200], None);
            for step in ids[200..].chunks(2) {
                black_box(session.propose(32));
                session.update(step, None, None)?;
            }
        }
        "top_k" => {
            let scores: Vec<f32> = (0..131_072u32).map(|i| bits64(3, 0, 0, i) as f32).collect();
            let mut out = vec![0i32; 2048];
            top_k(Floats::F32(&scores), [1, scores.len()], scores.len(), 2048, None, &mut out)?;
            black_box(out);
        }
        "none" => {}
        other => return Err(format!("no operation {other:?}: encode, mask, draft, top_k or none").into()),
    }
    Ok(())
}
