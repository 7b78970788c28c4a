//! One long text on several threads: it is cut where what stands on both sides does not depend on the other side.

use std::num::NonZeroUsize;
use std::ops::Range;

use super::batch::{each, number};
use super::route::Route;
use super::Tokenizer;
use crate::bpe::encoder::Sink;
use crate::error::Error;
use crate::text::added::Allowed;
use crate::text::rule::dfa::Joint;

/// Shorter parts are not worth a thread's while.
const LEAST: usize = 64 << 10;
/// Longer ones keep the others waiting at the end.
const MOST: usize = 1 << 20;
/// How far a place to cut is looked for; text without one stays together.
const REACH: usize = 16 << 10;

/// Ids of a text that may be encoded on several threads.
pub(super) struct Spread {
    pub ids: Vec<u32>,
    pub threads: usize,
}

impl Sink for Spread {
    #[inline]
    fn ids(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
    }

    fn threads(&self) -> usize {
        self.threads
    }
}

impl Tokenizer {
    /// The ids of one text on several threads; `None`: as for [`encode_batch`](Self::encode_batch).
    ///
    /// What may be parted is the text between added tokens, after normalization, of byte-level models and of those
    /// that mark spaces; of other texts one thread does all.
    pub fn encode_over(
        &self,
        text: &str,
        add_special_tokens: bool,
        allowed: &Allowed,
        threads: Option<NonZeroUsize>,
    ) -> Result<Vec<u32>, Error> {
        let threads = if text.len() < 2 * LEAST { 1 } else { number(threads) };
        let mut sink = Spread { ids: Vec::with_capacity(text.len() / 3 + 8), threads };
        self.encode_into(text, add_special_tokens, allowed, &mut sink)?;
        Ok(sink.ids)
    }

    /// True if a text of this length is parted, wherever it can be.
    pub(super) fn spreads(&self, length: usize) -> bool {
        length >= MOST && !matches!(self.route, Route::Pieces(..))
    }

    /// Normal text without added tokens, on as many threads as the sink asks for; false if one should do it.
    pub(super) fn encode_parts(&self, text: &str, first: bool, sink: &mut impl Sink) -> Result<bool, Error> {
        let threads = sink.threads();
        if threads < 2 || text.len() < 2 * LEAST {
            return Ok(false);
        }
        let parts = self.parts(text, (text.len() / (4 * threads)).clamp(LEAST, MOST));
        if parts.len() < 2 {
            return Ok(false);
        }
        let work = |part: Range<usize>| {
            let mut ids = Vec::with_capacity(part.len() / 3 + 8);
            self.encode_ordinary(&text[part.clone()], first && part.start == 0, &mut ids)?;
            Ok::<_, Error>(ids)
        };
        for ids in each(&parts, NonZeroUsize::new(threads), work) {
            sink.ids(&ids?);
        }
        Ok(true)
    }

    /// Parts of about `length` bytes whose ids, one after another, are those of the text.
    fn parts(&self, text: &str, length: usize) -> Vec<Range<usize>> {
        let (mut parts, mut start) = (Vec::new(), 0);
        while text.len() - start > length + length / 2 {
            let from = start + length;
            let to = text.len().min(from + length.min(REACH));
            let bytes = text.as_bytes();
            let cut = (from..to).find(|&at| text.is_char_boundary(at) && self.parts_at(bytes, at));
            match cut {
                Some(cut) => {
                    parts.push(start..cut);
                    start = cut;
                }
                // The part goes on; the next place is looked for further along.
                None => match (to..text.len()).step_by(length).find_map(|far| self.cut_after(text, far)) {
                    Some(cut) => {
                        parts.push(start..cut);
                        start = cut;
                    }
                    None => break,
                },
            }
        }
        parts.push(start..text.len());
        parts
    }

    /// The first place to cut at, not far after `from`.
    fn cut_after(&self, text: &str, from: usize) -> Option<usize> {
        let to = text.len().min(from + REACH);
        (from..to).find(|&at| text.is_char_boundary(at) && self.parts_at(text.as_bytes(), at))
    }

    /// True if the text may be cut at the beginning of a character.
    fn parts_at(&self, text: &[u8], at: usize) -> bool {
        match &self.route {
            Route::Bytes => match self.pretokenizer.joint(text, at) {
                Joint::Ends => true,
                Joint::Apart => self.encoder.is_barrier(text, at),
                Joint::None => false,
            },
            Route::Spaces(_, spelled) => spelled.parts_at(text, at),
            Route::Pieces(..) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::default;
    use crate::text::pretokenizer::GPT2;
    use proptest::prelude::*;

    fn tokenizers() -> &'static [Tokenizer] {
        static BUILT: std::sync::OnceLock<Vec<Tokenizer>> = std::sync::OnceLock::new();
        BUILT.get_or_init(|| {
            let bytes = || (0..=255u8).map(|byte| Some(vec![byte]));
            let words = ["th", " t", " th", "the", " the", "12", "  ", "\n\n", "'s", "é", " a", "a b"];
            let words = || words.iter().map(|word| Some(word.as_bytes().to_vec()));
            let rules = [GPT2, r"\p{N}{1,3}|\s+(?!\S)|\s+|[^\s\p{N}]+", r"(?s:.+)", r"\w+\b|\W+|(?<=a)b"];
            let ranked = rules.map(|rule| {
                Tokenizer::from_ranks(bytes().chain(words()).collect(), rule, Vec::new()).expect("sound")
            });
            let superwords = Tokenizer::new(default::definition().expect("sound")).expect("sound");
            ranked.into_iter().chain([superwords]).collect()
        })
    }

    #[test]
    fn ordinary_text_is_parted() {
        let text = "It was the best of times,\n it was the worst of 1,000 times. ".repeat(40);
        for tokenizer in [&tokenizers()[0], &tokenizers()[1], &tokenizers()[4]] {
            assert!(tokenizer.parts(&text, 100).len() > 15);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn parts_have_the_ids_of_the_whole(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "the", " the", "a b", "  ", "\n", " \n\n", "1234567", "'s", "é", "日本", "x!?", ".", "\r\n ", "T",
                ]),
                20..200,
            ),
            length in 5usize..60,
        ) {
            let text = words.concat();
            for tokenizer in tokenizers() {
                let mut ids = Vec::new();
                let parts = tokenizer.parts(&text, length);
                for part in &parts {
                    tokenizer.encode_ordinary(&text[part.clone()], part.start == 0, &mut ids).expect("in memory");
                }
                prop_assert_eq!(&ids, &tokenizer.encode(&text, false, &Allowed::None).expect("in memory"));
            }
        }
    }
}
