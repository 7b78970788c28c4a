//! What followed a context in a fixed text, counted beforehand: the table of [`Counts`], never written again, so that it can lie
//! in a file that is mapped into memory.

use std::fmt;
use std::sync::Arc;

use super::context::{Context, SUFFIXES};
use super::counts::{followers, Counts, Follower, BUCKET};

/// Words of a table, wherever they lie.
pub type Words = Arc<dyn AsRef<[u64]> + Send + Sync>;

/// Counted continuations of a corpus.
#[derive(Clone)]
pub struct Corpus(Words);

impl fmt::Debug for Corpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Corpus of {} bytes", 8 * (*self.0).as_ref().len())
    }
}

impl Corpus {
    /// The table that [`Corpus::count`] made; `None` if it is not one.
    pub fn new(words: Words) -> Option<Self> {
        let length = (*words).as_ref().len();
        (length > 0 && length % BUCKET == 0 && length / BUCKET <= 1 << 32).then_some(Self(words))
    }

    /// Counts what follows the last 1, 2, 3 and 5 tokens anywhere in the texts, in at most `bytes` bytes.
    pub fn count<'a>(texts: impl IntoIterator<Item = &'a [u32]>, bytes: usize) -> Vec<u64> {
        let mut counts = Counts::with_bytes(bytes);
        for text in texts {
            for (at, &token) in text.iter().enumerate() {
                for hash in Context::of(&text[..at]).hashes().into_iter().take(SUFFIXES).flatten() {
                    counts.add(hash, token);
                }
            }
        }
        counts.into_entries()
    }

    /// Writes what followed the longest suffix of the context that is known: which of the views it is, and how many.
    pub fn followers(&self, context: &Context, out: &mut [Follower; BUCKET]) -> Option<(usize, usize)> {
        let hashes = context.hashes();
        (0..SUFFIXES).rev().find_map(|view| {
            let known = followers((*self.0).as_ref(), hashes[view]?, out);
            (known > 0).then_some((view, known))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_known_suffix_answers() {
        let texts: [&[u32]; 2] = [&[1, 2, 3, 4, 5, 6], &[9, 5, 7]];
        let corpus = Corpus::new(Arc::new(Corpus::count(texts, 1 << 16))).expect("a table");
        let ask = |context: &[u32]| {
            let mut out = [Follower::default(); BUCKET];
            let (view, n) = corpus.followers(&Context::of(context), &mut out)?;
            let mut tokens: Vec<u32> = out[..n].iter().map(|follower| follower.token).collect();
            tokens.sort_unstable();
            Some((view, tokens))
        };
        assert_eq!(ask(&[1, 2, 3, 4, 5]), Some((3, vec![6])));
        assert_eq!(ask(&[8, 9, 5]), Some((1, vec![7])));
        assert_eq!(ask(&[8, 8, 5]), Some((0, vec![6, 7])));
        assert_eq!(ask(&[8]), None);
        assert!(Corpus::new(Arc::new(vec![0; 3])).is_none());
        assert!(Corpus::new(Arc::new(Vec::new())).is_none());
    }
}
