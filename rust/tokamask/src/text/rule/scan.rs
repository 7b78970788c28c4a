//! Pieces of a text that a rule covers: by vectors where the processor has them, by the automaton
//! where it has not, and wherever three characters do not decide.

use super::classes;
use super::dfa::Span;
use super::vain::Vain;
use super::Rule;
#[cfg(target_arch = "x86_64")]
use super::{vectors, vectors512};

/// Bytes that are looked at together.
pub(crate) const CHUNK: usize = 4096;
/// Below this the automaton alone is faster.
const SMALL: usize = 64;
/// The last positions of a chunk are not decided there: a character may be cut.
const MARGIN: usize = 8;
/// Words of a chunk.
pub(super) const WORDS: usize = CHUNK / 64;

/// The pieces of a text, chunk by chunk.
pub struct Pieces<'a> {
    rule: &'a Rule,
    text: &'a [u8],
    /// Where the rule sees the text begin.
    base: usize,
    at: usize,
    vectors: Vectors,
    vain: Vain,
}

/// What the processor has.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Vectors {
    None,
    /// 32 bytes: AVX2 and BMI2.
    Narrow,
    /// 64 bytes: AVX-512 BW, VBMI and VBMI2 too.
    Wide,
}

impl Vectors {
    fn detected() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("bmi2") {
            let wide = std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vbmi")
                && std::arch::is_x86_feature_detected!("avx512vbmi2");
            return if wide { Self::Wide } else { Self::Narrow };
        }
        Self::None
    }
}

/// What a chunk's windows decide, one bit per byte.
pub(super) struct Marks {
    pub ends: [u64; WORDS],
    pub open: [u64; WORDS],
    /// Positions from here on are not decided.
    pub decided: usize,
}

impl<'a> Pieces<'a> {
    /// The pieces of `text`.
    pub fn new(rule: &'a Rule, text: &'a [u8]) -> Self {
        Self::within(rule, text, 0, text.len())
    }

    /// The pieces of `text[start..end]`, which the rule sees as the whole text.
    pub(crate) fn within(rule: &'a Rule, text: &'a [u8], start: usize, end: usize) -> Self {
        let some = end - start >= SMALL && rule.windows.is_some();
        let vectors = if some { Vectors::detected() } else { Vectors::None };
        Self { rule, text: &text[..end], base: start, at: start, vectors, vain: Vain::default() }
    }

    /// The same by less than the processor has. For tests.
    #[cfg(test)]
    pub(crate) fn at_most(mut self, vectors: Vectors) -> Self {
        if vectors < self.vectors {
            self.vectors = vectors;
        }
        self
    }

    /// True if there are no more pieces.
    pub(crate) fn is_done(&self) -> bool {
        self.at >= self.text.len()
    }

    /// Appends the starts of the next pieces and the end of the last; nothing at the end.
    pub fn fill(&mut self, starts: &mut Vec<u32>) {
        if !self.is_done() {
            starts.push(self.at as u32);
            self.fill_on(starts);
        }
    }

    /// Appends the ends of the next pieces; returns the last.
    pub(crate) fn fill_on(&mut self, starts: &mut Vec<u32>) -> usize {
        let (start, left) = (self.at, self.text.len() - self.at);
        let chunk = left.min(CHUNK);
        if self.vectors != Vectors::None && chunk >= SMALL {
            self.fill_by_vectors(chunk, starts);
            if left == chunk {
                self.fill_to(self.text.len(), starts);
            } else if self.at < start + chunk / 2 {
                // Where it decided little there is a long piece.
                self.fill_to(self.at + 1, starts);
                self.fill_to(start + chunk, starts);
            }
        } else {
            self.fill_to(start + chunk, starts);
        }
        self.at
    }

    /// Pieces by the automaton until one ends at or after `goal`.
    #[inline]
    fn fill_to(&mut self, goal: usize, starts: &mut Vec<u32>) {
        while self.at < goal {
            let span = Span { text: self.text, base: self.base, aheads: &[] };
            let end = self.rule.match_at(&span, self.at, &mut self.vain);
            // The rule covers every text; what it did not would stand alone.
            self.at = end
                .filter(|&end| end > self.at)
                .unwrap_or_else(|| self.at + classes::width(self.text[self.at]));
            starts.push(self.at as u32);
        }
    }

    /// Pieces of the next `chunk` bytes up to the last certain end in it.
    fn fill_by_vectors(&mut self, chunk: usize, starts: &mut Vec<u32>) {
        let mut marks = Marks { ends: [0; WORDS], open: [0; WORDS], decided: 0 };
        self.mark(chunk, &mut marks);
        let base = self.at;
        let (mut open, mut word, words) = (false, 0, chunk.div_ceil(64));
        while word < words {
            #[cfg(target_arch = "x86_64")]
            if !open && self.vectors == Vectors::Wide {
                let known = starts.len();
                // SAFETY: `vectors` says what was detected.
                word = unsafe { vectors512::ends_of(&marks, word, words, base, starts) };
                if starts.len() > known {
                    self.at = starts.last().map_or(self.at, |&at| at as usize);
                }
                if word == words {
                    break;
                }
            }
            let (mut ends, opens) = (marks.ends[word] & !marks.open[word], marks.open[word]);
            let from = (base + word * 64) as u32;
            word += 1;
            if opens == 0 && !open {
                if ends == 0 {
                    continue;
                }
                self.at = from as usize + 63 - ends.leading_zeros() as usize;
                // Room for a whole word, written eight at a time without asking how many there are.
                let (known, count) = (starts.len(), ends.count_ones() as usize);
                starts.extend_from_slice(&[0; 64]);
                for eight in starts[known..].chunks_exact_mut(8) {
                    for start in eight {
                        *start = from.wrapping_add(ends.trailing_zeros());
                        ends &= ends.wrapping_sub(1);
                    }
                    if ends == 0 {
                        break;
                    }
                }
                starts.truncate(known + count);
                continue;
            }
            let mut opens = opens;
            while ends != 0 {
                let bit = ends.trailing_zeros();
                let below = (1u64 << bit) - 1;
                ends &= ends - 1;
                open |= opens & below != 0;
                opens &= !below;
                let position = (from + bit) as usize;
                if open {
                    self.fill_to(position, starts);
                    open = false;
                } else {
                    self.at = position;
                    starts.push(position as u32);
                }
            }
            open |= opens != 0;
        }
    }

    /// Marks the windows of a chunk.
    fn mark(&self, chunk: usize, marks: &mut Marks) {
        #[cfg(target_arch = "x86_64")]
        if let Some(windows) = &self.rule.windows {
            let text = &self.text[self.at..];
            // SAFETY: `vectors` says what was detected.
            unsafe {
                let wide = self.vectors == Vectors::Wide;
                if chunk % vectors::STEP == 0 {
                    vectors::mark(self.rule, windows, text, chunk, marks, wide);
                } else {
                    let mut room = vectors::Room::<u8, CHUNK>::new();
                    let length = chunk.next_multiple_of(vectors::STEP);
                    let padded = room.zeroed(length);
                    padded[..chunk].copy_from_slice(&text[..chunk]);
                    vectors::mark(self.rule, windows, padded, length, marks, wide);
                }
            }
            marks.decided = marks.decided.min(chunk - MARGIN);
            // The first byte starts the chunk's first piece; the last ones are not decided.
            marks.ends[0] &= !1;
            marks.open[0] &= !1;
            let words = chunk.div_ceil(64);
            let marked = marks.ends[..words].iter_mut().zip(&mut marks.open);
            for (word, (ends, open)) in marked.enumerate() {
                let decided = marks.decided.saturating_sub(word * 64);
                if decided < 64 {
                    let mask = (1u64 << decided) - 1;
                    *ends &= mask;
                    *open &= mask;
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (chunk, marks);
    }
}
