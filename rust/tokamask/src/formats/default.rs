//! The vocabulary that is built in: superwords learnt by `recipes/default_vocabulary`.
//!
//! The file holds nothing but the merges, as pairs of little-endian 16-bit ids. The rest follows: id 0 is
//! the special token, then come the bytes in the order of their printable characters, then one token per
//! merge.

use super::{Definition, Settings};
use crate::bpe::Merges;
use crate::error::VocabularyError;
use crate::text::added::AddedToken;
use crate::text::alphabet::char_of_byte;
use crate::text::pretokenizer::{Behavior, Step};

const MERGES: &[u8] = include_bytes!("default.merges");
const END_OF_TEXT: &str = "<|endoftext|>";

/// The definition of the built-in tokenizer.
pub fn definition() -> Result<Definition, VocabularyError> {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.sort_unstable_by_key(|&byte| char_of_byte(byte));
    let mut tokens = vec![None];
    tokens.extend(bytes.into_iter().map(|byte| Some(vec![byte])));
    let mut merges = Vec::with_capacity(MERGES.len() / 4);
    for pair in MERGES.chunks_exact(4) {
        let halves = [[pair[0], pair[1]], [pair[2], pair[3]]].map(u16::from_le_bytes);
        let spelt = halves.map(|id| tokens.get(usize::from(id)).and_then(Option::as_deref));
        let [Some(left), Some(right)] = spelt else {
            return Err(VocabularyError::new("built-in merges: a merge of an id that is not there"));
        };
        tokens.push(Some([left, right].concat()));
        merges.push((halves[0].into(), halves[1].into()));
    }
    let settings = Settings {
        added: vec![AddedToken::special(END_OF_TEXT.to_owned(), 0)],
        steps: vec![
            Step::Digits { individual: false },
            Step::Split {
                pattern: r"(?=(\d{3})+(?!\d))".to_owned(),
                behavior: Behavior::Isolated,
                invert: false,
            },
        ],
        eos_ids: vec![0],
        ..Settings::default()
    };
    Ok(Definition { tokens, merges: Merges::List(merges), settings })
}

#[cfg(test)]
mod tests {
    use crate::text::added::Allowed;
    use crate::tokenizer::Tokenizer;

    #[test]
    fn superwords_and_back() {
        let tokenizer = Tokenizer::new(super::definition().expect("sound")).expect("sound");
        assert_eq!(tokenizer.vocabulary().len(), 32_768);
        let text = "There is no such thing as a 1234567 in 日本語, is there?\n";
        let ids = tokenizer.encode(text, false, &Allowed::None).expect("in memory");
        assert!(ids.len() < 25, "{} tokens", ids.len());
        assert_eq!(tokenizer.decode_bytes(&ids).expect("known ids"), text.as_bytes());
    }
}
