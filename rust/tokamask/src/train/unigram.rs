//! Unigram: pieces that explain counted words best under one probability per piece.
//!
//! Seeds are the repeated substrings of the words. Expectation and maximisation fit their probabilities;
//! then the pieces whose loss costs the least likelihood go, a quarter at a time, until little more than
//! the wanted size is left. Source: Kudo, "Subword Regularization" (2018); the order of ties, the
//! thresholds and the smoothing are those observed of Hugging Face `tokenizers`' trainer, which takes
//! them from `SentencePiece`. Sums are taken over parts of fixed size, so results do not depend on threads.

use rayon::prelude::*;

use super::counts::View;
use super::seeds::seeds;
use super::segment::{Edge, Segmenter};
use crate::error::{CorpusError, Error};

/// Parts that the words are worked on in, whatever the number of threads.
const PARTS: usize = 8;
/// A piece expected less often than this goes.
const EXPECTED_AT_LEAST: f64 = 0.5;

/// What a Unigram model is trained to.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Pieces wanted, special tokens not counted.
    pub pieces: usize,
    /// The whole vocabulary, special tokens and all: what the pruning aims at.
    pub vocab_size: usize,
    /// Rounds of expectation and maximisation before each pruning.
    pub rounds: usize,
    /// Share of the pieces that a pruning leaves.
    pub shrinking_factor: f64,
    /// Characters of a piece at most.
    pub max_piece_length: usize,
    /// Seeds at most.
    pub seed_size: usize,
    /// Characters that are pieces whether or not they occur.
    pub initial: &'a [char],
}

/// A piece and the logarithm of its probability.
pub type Piece = (Box<[char]>, f64);

/// A distinct word as characters, and its count.
pub type Word = (Box<[char]>, u64);

/// Distinct words.
pub struct Words {
    /// The words.
    pub words: Vec<Word>,
}

impl Words {
    /// The pretokens that are text.
    pub fn new(counts: View<'_>) -> Result<Self, CorpusError> {
        let word = |(bytes, count): (&[u8], u64)| {
            let text = std::str::from_utf8(bytes).map_err(|_| CorpusError::new("a pretoken is not UTF-8"))?;
            Ok((text.chars().collect(), count))
        };
        Ok(Self {
            words: counts.words().filter(|(word, _)| !word.is_empty()).map(word).collect::<Result<_, _>>()?,
        })
    }

    fn parts(&self) -> impl IndexedParallelIterator<Item = &[Word]> {
        let size = self.words.len().div_ceil(PARTS).max(1);
        self.words.par_chunks(size)
    }
}

/// Learns pieces, the likeliest first. `keep_going` is told the number of pieces left after each round;
/// `None` if it wanted to stop.
pub fn train(
    counts: View<'_>,
    options: Options<'_>,
    mut keep_going: impl FnMut(usize) -> bool,
) -> Result<Option<Vec<Piece>>, Error> {
    let words = Words::new(counts)?;
    let mut required: Vec<char> = words.words.iter().flat_map(|(word, _)| word.iter().copied()).collect();
    required.extend(options.initial);
    required.sort_unstable();
    required.dedup();
    if required.len() > options.vocab_size {
        let message = format!(
            "{} distinct characters, and the vocabulary has room for {}",
            required.len(),
            options.vocab_size
        );
        return Err(CorpusError::new(message).into());
    }
    let mut pieces = seeds(&words, options.max_piece_length, options.seed_size);
    let wanted = options.vocab_size * 11 / 10;
    loop {
        for _ in 0..options.rounds {
            let segmenter = Segmenter::new(&pieces);
            let expected = expectations(&segmenter, &words, pieces.len());
            drop(segmenter);
            pieces = maximised(pieces, &expected);
            if !keep_going(pieces.len()) {
                return Ok(None);
            }
        }
        let before = pieces.len();
        // The rule counts a token for what is unknown.
        if before < wanted {
            break;
        }
        let room = wanted.max(((before + 1) as f64 * options.shrinking_factor) as usize);
        pieces = pruned(pieces, &words, room);
        if pieces.len() == before {
            break;
        }
    }
    Ok(Some(finished(pieces, &required, options.pieces)))
}

/// How often each piece is expected in the words; the last number is that of unknown characters.
fn expectations(segmenter: &Segmenter<'_>, words: &Words, pieces: usize) -> Vec<f64> {
    let part = |part: &[Word]| {
        let mut expected = vec![0.0; pieces + 1];
        let mut lattice = segmenter.lattice();
        for (word, count) in part {
            lattice.read(word);
            lattice.expect(*count as f64, &mut expected);
        }
        expected
    };
    let parts: Vec<Vec<f64>> = words.parts().map(part).collect();
    let mut sum = vec![0.0; pieces + 1];
    for part in parts {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sum
}

/// Pieces that are expected often enough, with the digamma of their expectation for a score: a
/// Dirichlet prior that favours few pieces.
fn maximised(pieces: Vec<Piece>, expected: &[f64]) -> Vec<Piece> {
    let kept = pieces.into_iter().zip(expected).filter(|&(_, &expected)| expected >= EXPECTED_AT_LEAST);
    let kept: Vec<(Box<[char]>, f64)> = kept.map(|((piece, _), &expected)| (piece, expected)).collect();
    let sum = digamma(kept.iter().map(|(_, expected)| expected).sum());
    kept.into_iter().map(|(piece, expected)| (piece, digamma(expected) - sum)).collect()
}

/// The `room` pieces whose absence would cost the most, those without an alternative among them.
fn pruned(pieces: Vec<Piece>, words: &Words, room: usize) -> Vec<Piece> {
    let segmenter = Segmenter::new(&pieces);
    let alternatives: Vec<Alternative> = pieces
        .par_iter()
        .map_init(
            || segmenter.lattice(),
            |lattice, (piece, _)| {
                lattice.read(piece);
                let (best, second) = lattice.two_best();
                match (&best[..], second) {
                    (_, None) => Alternative::Never,
                    ([_], Some(second)) => {
                        Alternative::Pieces(second.into_iter().map(|edge| edge.piece).collect())
                    }
                    _ => Alternative::Unused,
                }
            },
        )
        .collect();
    let part = |part: &[Word]| {
        let mut uses = vec![0.0; pieces.len() + 1];
        let mut lattice = segmenter.lattice();
        for (word, count) in part {
            lattice.read(word);
            for Edge { piece, .. } in lattice.best() {
                uses[piece as usize] += *count as f64;
            }
        }
        (uses, part.iter().map(|(_, count)| *count as f64).sum::<f64>())
    };
    let parts: Vec<_> = words.parts().map(part).collect();
    let mut uses = vec![0.0; pieces.len() + 1];
    let mut occurrences = 0.0;
    for (part, counts) in parts {
        uses.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        occurrences += counts;
    }
    let sum: f64 = uses.iter().sum();
    let mut kept = vec![false; pieces.len()];
    let mut candidates = Vec::new();
    for (id, alternative) in alternatives.iter().enumerate() {
        match alternative {
            Alternative::Unused | Alternative::Pieces(_) if uses[id] == 0.0 => {}
            Alternative::Never | Alternative::Unused => kept[id] = true,
            Alternative::Pieces(instead) => {
                let now = uses[id].ln() - sum.ln();
                // The rule's authors take the number of all pieces here, not that of the alternatives.
                let sum = (sum + uses[id] * pieces.len() as f64).ln();
                let then: f64 =
                    instead.iter().map(|&piece| (uses[piece as usize] + uses[id]).ln() - sum).sum();
                candidates.push((id, uses[id] / occurrences * (now - then)));
            }
        }
    }
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
    drop(segmenter);
    // Order of the result: those without an alternative, then the candidates by their cost.
    let mut pieces: Vec<Option<Piece>> = pieces.into_iter().map(Some).collect();
    let mut left: Vec<Piece> = Vec::new();
    for (piece, kept) in pieces.iter_mut().zip(kept) {
        left.extend(piece.take_if(|_| kept));
    }
    let room = room.saturating_sub(left.len() + 1);
    left.extend(candidates.into_iter().take(room).filter_map(|(id, _)| pieces[id].take()));
    left
}

/// What becomes of a piece's text without the piece.
enum Alternative {
    /// Nothing else spells it.
    Never,
    /// Other pieces are likelier already.
    Unused,
    /// These pieces.
    Pieces(Vec<u32>),
}

/// The characters and the first of the other pieces, by score.
fn finished(pieces: Vec<Piece>, required: &[char], wanted: usize) -> Vec<Piece> {
    let least = pieces.iter().map(|&(_, score)| score).fold(f64::INFINITY, f64::min);
    let single = |(piece, score): &Piece| (piece.len() == 1).then(|| (piece[0], *score));
    let known: rustc_hash::FxHashMap<char, f64> = pieces.iter().filter_map(single).collect();
    let mut penalty = 0.0;
    let mut done: Vec<Piece> = Vec::new();
    for &letter in required {
        let score = known.get(&letter).copied().unwrap_or_else(|| {
            penalty += 0.0001;
            least + penalty - 0.0001
        });
        done.push(([letter].into(), score));
    }
    let room = wanted.saturating_sub(done.len());
    done.extend(pieces.into_iter().filter(|(piece, _)| piece.len() > 1).take(room));
    done.sort_by(|a, b| b.1.total_cmp(&a.1));
    done
}

/// The derivative of the logarithm of the gamma function, by recurrence and the asymptotic series.
fn digamma(x: f64) -> f64 {
    let (mut x, mut value) = (x, 0.0);
    while x < 7.0 {
        value -= 1.0 / x;
        x += 1.0;
    }
    // The series in 1 / (x - 1/2) has no odd terms.
    x -= 0.5;
    let square = 1.0 / (x * x);
    let series = [1.0 / 24.0, -7.0 / 960.0, 31.0 / 8064.0, -127.0 / 30720.0];
    value + x.ln() + square * series.iter().rev().fold(0.0, |sum, &term| term + square * sum)
}

#[cfg(test)]
mod tests {
    use super::digamma;

    #[test]
    fn digamma_at_known_points() {
        assert!((digamma(1.0) + 0.577_215_664_901_532_9).abs() < 1e-9);
        assert!((digamma(0.5) + 1.963_510_026_021_423_5).abs() < 1e-9);
        assert!((digamma(100.0) - 4.600_161_852_738_087).abs() < 1e-12);
    }
}
