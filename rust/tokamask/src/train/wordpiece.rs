//! `WordPiece`: merges over characters, where all but the first of a word carry a prefix.

use rustc_hash::FxHashMap;

use super::counts::View;
use super::learn::{Goal, Learner, Outcome};
use crate::error::{CorpusError, Error};

/// Stands before the bytes of a character that continues a word; no part of any character.
const CONTINUES: u8 = 0xFF;

/// What a `WordPiece` vocabulary is trained to.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Special tokens in it.
    pub special_tokens: usize,
    /// Pairs below this count are not merged.
    pub min_frequency: u64,
    /// Characters of the alphabet at most: the most frequent.
    pub limit_alphabet: usize,
    /// Characters of the alphabet in any case.
    pub initial: &'a [char],
    /// What marks a token that continues a word.
    pub prefix: &'a str,
}

/// The tokens after the special ones, by id: characters in their order, characters with the prefix, merges.
/// `None` if `keep_going`, which is told the size of the vocabulary, wanted to stop.
pub fn train(
    counts: View<'_>,
    options: Options<'_>,
    keep_going: impl FnMut(usize) -> bool,
) -> Result<Option<Vec<String>>, Error> {
    let mut words: Vec<(Vec<char>, u64)> = Vec::with_capacity(counts.len());
    for (word, count) in counts.words() {
        let text = std::str::from_utf8(word).map_err(|_| CorpusError::new("a pretoken is not UTF-8"))?;
        words.push((text.chars().collect(), count));
    }
    let letters = alphabet(&words, options);
    let known: FxHashMap<char, u32> = (0..).zip(&letters).map(|(nth, &letter)| (letter, nth)).collect();
    // The place in a word counts before letters outside the alphabet are dropped.
    let mut continuing = vec![false; letters.len()];
    for letter in words.iter().flat_map(|(word, _)| word.iter().skip(1)) {
        if let Some(&nth) = known.get(letter) {
            continuing[nth as usize] = true;
        }
    }
    let first = options.special_tokens;
    let mut tokens = vec![(Vec::new(), 0); first];
    tokens.extend(letters.iter().map(|letter| (letter.to_string().into_bytes(), 1)));
    let mut marked = vec![0; letters.len()];
    for (nth, letter) in letters.iter().enumerate().filter(|&(nth, _)| continuing[nth]) {
        marked[nth] = tokens.len() as u32;
        let bytes = [&[CONTINUES][..], letter.to_string().as_bytes()].concat();
        tokens.push((bytes, 1 + options.prefix.chars().count() as u32));
    }
    let symbols: Vec<(Vec<u32>, u64)> = words
        .iter()
        .map(|(word, count)| {
            let symbol = |(at, letter): (usize, &char)| {
                let nth = *known.get(letter)?;
                Some(if at == 0 { first as u32 + nth } else { marked[nth as usize] })
            };
            (word.iter().enumerate().filter_map(symbol).collect(), *count)
        })
        .collect();
    drop(words);
    let words = symbols.iter().map(|(word, count)| (&word[..], *count));
    let mut learner = Learner::new(tokens, words, |&symbol| symbol)?;
    let goal = Goal { min_frequency: options.min_frequency, ..Goal::size(options.vocab_size) };
    if learner.learn(goal, keep_going) == Outcome::Stopped {
        return Ok(None);
    }
    let (tokens, _) = learner.into_parts();
    let spelled = tokens[first..].iter().map(|token| spelled(token, options.prefix));
    Ok(Some(spelled.collect()))
}

/// The characters that get ids, in their order.
fn alphabet(words: &[(Vec<char>, u64)], options: Options<'_>) -> Vec<char> {
    let mut counts: FxHashMap<char, u64> = FxHashMap::default();
    for (word, count) in words {
        for &letter in word {
            *counts.entry(letter).or_default() += count;
        }
    }
    for &letter in options.initial {
        counts.insert(letter, u64::MAX);
    }
    let mut letters: Vec<(char, u64)> = counts.into_iter().collect();
    letters.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    letters.truncate(options.limit_alphabet);
    let mut letters: Vec<char> = letters.into_iter().map(|(letter, _)| letter).collect();
    letters.sort_unstable();
    letters
}

/// The token as files spell it.
fn spelled(token: &[u8], prefix: &str) -> String {
    let bytes: Vec<u8> = token.iter().copied().filter(|&byte| byte != CONTINUES).collect();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if token.first() == Some(&CONTINUES) {
        prefix.to_owned() + &text
    } else {
        text
    }
}
