//! The seeds of Unigram training: all characters, and the repeated substrings that can be extended in
//! more than one way.

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::unigram::{Piece, Words};

/// What follows the last character of a word; never part of a seed.
const END: char = '\0';

/// Seeds with the logarithms of their shares: characters by their counts, then substrings by
/// occurrences in distinct words times length, `most` in all.
pub fn seeds(words: &Words, max_length: usize, most: usize) -> Vec<Piece> {
    let mut letters: FxHashMap<char, u64> = FxHashMap::default();
    let mut text: Vec<char> = Vec::new();
    for (word, count) in &words.words {
        for &letter in word.iter().filter(|&&letter| letter != END) {
            *letters.entry(letter).or_default() += count;
        }
        text.extend(word);
        text.push(END);
    }
    let mut letters: Vec<(u64, char)> = letters.into_iter().map(|(letter, count)| (count, letter)).collect();
    letters.sort_unstable_by(|a, b| b.cmp(a));
    let mut repeated = repeated(&text, max_length);
    repeated
        .par_sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| text[b.1.clone()].cmp(&text[a.1.clone()])));
    let room = most.saturating_sub(letters.len()).max(1);
    let letters = letters.into_iter().map(|(count, letter)| ([letter].into(), count as f64));
    let repeated = repeated.into_iter().take(room).map(|(score, place)| (text[place].into(), score as f64));
    let mut pieces: Vec<Piece> = letters.chain(repeated).collect();
    let sum = pieces.iter().map(|(_, score)| score).sum::<f64>().ln();
    for (_, score) in &mut pieces {
        *score = score.ln() - sum;
    }
    pieces
}

/// Score and one place of each substring of two characters and more that occurs more than once and is
/// not always followed by the same character: the inner nodes of the suffix tree, read off the sorted
/// suffixes.
fn repeated(text: &[char], max_length: usize) -> Vec<(u64, std::ops::Range<usize>)> {
    // One character more than the longest seed tells whether what follows differs.
    let window = |at: usize| &text[at..text.len().min(at + max_length + 1)];
    let mut suffixes: Vec<u32> = (0..text.len() as u32).filter(|&at| text[at as usize] != END).collect();
    suffixes.par_sort_unstable_by(|&a, &b| window(a as usize).cmp(window(b as usize)));
    let shared = |a: u32, b: u32| {
        let both = window(a as usize).iter().zip(window(b as usize));
        both.take_while(|(a, b)| a == b).count()
    };
    let mut found = Vec::new();
    // Open nodes: length of the shared start, and the rank of its first suffix.
    let mut open: Vec<(usize, usize)> = vec![(0, 0)];
    for rank in 1..=suffixes.len() {
        let length = if rank < suffixes.len() { shared(suffixes[rank - 1], suffixes[rank]) } else { 0 };
        let mut first = rank - 1;
        while let Some(&(deepest, start)) = open.last().filter(|open| open.0 > length) {
            open.pop();
            first = start;
            let at = suffixes[start] as usize;
            let seed = at..at + deepest;
            if (2..=max_length).contains(&deepest) && !text[seed.clone()].contains(&END) {
                found.push(((rank - start) as u64 * deepest as u64, seed));
            }
        }
        if open.last().is_none_or(|open| open.0 < length) {
            open.push((length, first));
        }
    }
    found
}
