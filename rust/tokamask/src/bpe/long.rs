//! Long pieces in linear time: short blocks, each encoded by itself, and their joints mended.
//!
//! A row of tokens is the encoding of its text if every two neighbours are: if merging the text of the
//! two alone gives the two. So blocks may be encoded separately, and where the last token of one and
//! the first of the next do not stand together, a few tokens on both sides are merged anew until both
//! ends of the new stretch fit what is beside it.

use super::{Bpe, NONE};

/// Shortest run of one byte that is worth a pattern.
pub const RUN: usize = 64;
/// Longest stretch of a run that is looked at for its pattern.
const PROBE: usize = 1024;

impl Bpe {
    /// True if two symbols stay two where they stand side by side.
    ///
    /// Time is read backwards: the younger of the two symbols at the joint is taken apart, and the
    /// halves that met there must not have merged before it was made. Of equals the left is older.
    pub fn stay_apart(&self, mut left: u32, mut right: u32) -> bool {
        let mut until = NONE;
        loop {
            if self.pairs.get(left, right) < until {
                return false;
            }
            if left > right {
                let half = self.halves[left as usize].1;
                if half == left {
                    return true; // both are bytes
                }
                (until, left) = (left, half);
            } else {
                let half = self.halves[right as usize].0;
                if half == right {
                    return true;
                }
                (until, right) = (right + 1, half);
            }
        }
    }

    /// Appends the symbols of `count` times the same byte; false if the run has no simple pattern.
    pub(super) fn run_of(&self, byte: u8, count: usize, symbols: &mut Vec<u32>) -> bool {
        let mut parts = Vec::new();
        if count < RUN || !self.merge_all(&vec![byte; count.min(PROBE)], &mut parts) {
            return false;
        }
        let first = parts[0];
        let length = self.length(first);
        if !self.stay_apart(first, first) {
            return false;
        }
        for rest in [count % length, count % length + length] {
            if rest > count || !self.merge_all(&vec![byte; rest], &mut parts) {
                continue;
            }
            if parts.first().is_none_or(|&next| self.stay_apart(first, next)) {
                symbols.resize(symbols.len() + (count - rest) / length, first);
                symbols.extend_from_slice(&parts);
                return true;
            }
        }
        false
    }

    /// Number of bytes of a symbol.
    pub(super) fn length(&self, symbol: u32) -> usize {
        self.lengths[symbol as usize] as usize
    }
}

/// How often the first byte of a text, which is not empty, stands there.
pub fn run_length(text: &[u8]) -> usize {
    let eight = u64::from(text[0]) * 0x0101_0101_0101_0101;
    let words = text.chunks_exact(8).take_while(|word| **word == eight.to_le_bytes());
    let known = words.count() * 8;
    known + text[known..].iter().take_while(|&&byte| byte == text[0]).count()
}

/// Symbols of a long piece, grown block by block.
pub struct Joiner<'a> {
    bpe: &'a Bpe,
    piece: &'a [u8],
    /// The encoding of `piece[..end]`.
    symbols: Vec<u32>,
    end: usize,
    parts: Vec<u32>,
}

impl<'a> Joiner<'a> {
    /// Nothing yet of a piece.
    pub fn new(bpe: &'a Bpe, piece: &'a [u8]) -> Self {
        Self { bpe, piece, symbols: Vec::new(), end: 0, parts: Vec::new() }
    }

    /// Adds the encoding of the next bytes of the piece.
    pub fn add(&mut self, block: &[u32]) {
        let Some(&first) = block.first() else { return };
        let fits = self.symbols.last().is_none_or(|&last| self.bpe.stay_apart(last, first));
        let length: usize = block.iter().map(|&symbol| self.bpe.length(symbol)).sum();
        if fits {
            self.symbols.extend_from_slice(block);
        } else {
            self.mend(block);
        }
        self.end += length;
    }

    /// Adds a long run of one byte by its pattern, which begins anew behind the first place where what is before
    /// lets it; false if none is near.
    pub fn add_run(&mut self, byte: u8, count: usize) -> bool {
        let (bpe, mut run) = (self.bpe, Vec::new());
        if !bpe.run_of(byte, count, &mut run) {
            return false;
        }
        let first = run[0];
        let mut from = self.end;
        for left in 0..=self.symbols.len().min(4) {
            let kept = self.symbols.len() - left;
            if left > 0 {
                from -= bpe.length(self.symbols[kept]);
            }
            let before = self.symbols[..kept].last().copied();
            for more in 0..=RUN.min(count - 1) {
                // All bytes have symbols: they come from encodings.
                bpe.merge_all(&self.piece[from..self.end + more], &mut self.parts);
                let joint = self.parts.first().copied().unwrap_or(first);
                let last = self.parts.last().copied().or(before);
                let fits = before.is_none_or(|before| bpe.stay_apart(before, joint))
                    && last.is_none_or(|last| bpe.stay_apart(last, first));
                run.clear();
                if fits && bpe.run_of(byte, count - more, &mut run) && run[0] == first {
                    self.symbols.truncate(kept);
                    self.symbols.extend_from_slice(&self.parts);
                    self.symbols.extend_from_slice(&run);
                    self.end += count;
                    return true;
                }
            }
        }
        false
    }

    /// Merges anew as little as will do on both sides of the joint.
    fn mend(&mut self, block: &[u32]) {
        let bpe = self.bpe;
        let lengths = |symbols: &[u32]| symbols.iter().map(|&symbol| bpe.length(symbol)).sum::<usize>();
        let (mut left, mut right) = (1, 1);
        loop {
            let kept = self.symbols.len() - left;
            let from = self.end - lengths(&self.symbols[kept..]);
            let to = self.end + lengths(&block[..right]);
            // All bytes have symbols: they come from encodings.
            bpe.merge_all(&self.piece[from..to], &mut self.parts);
            let (first, last) = (self.parts[0], self.parts[self.parts.len() - 1]);
            let fits_left = kept == 0 || bpe.stay_apart(self.symbols[kept - 1], first);
            let fits_right = right == block.len() || bpe.stay_apart(last, block[right]);
            if fits_left && fits_right {
                self.symbols.truncate(kept);
                self.symbols.extend_from_slice(&self.parts);
                self.symbols.extend_from_slice(&block[right..]);
                return;
            }
            if !fits_left {
                left = (left + 1 + left / 2).min(self.symbols.len());
            }
            if !fits_right {
                right = (right + 1 + right / 2).min(block.len());
            }
        }
    }

    /// The encoding.
    pub fn symbols(&self) -> &[u32] {
        &self.symbols
    }
}

#[cfg(test)]
mod tests {
    use super::super::{merge, Bpe, Merges};
    use super::*;
    use proptest::prelude::*;

    /// Vocabularies over three bytes, with whatever tokens come.
    fn vocabulary() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let token = prop::collection::vec(prop::sample::select(b"abc".to_vec()), 2..7);
        prop::collection::vec(token, 0..30).prop_map(|mut tokens| {
            tokens.retain({
                let mut seen = std::collections::HashSet::new();
                move |token| seen.insert(token.clone())
            });
            let mut all: Vec<Vec<u8>> = b"abc".iter().map(|&byte| vec![byte]).collect();
            all.extend(tokens);
            all
        })
    }

    fn encoded(bpe: &Bpe, text: &[u8]) -> Vec<u32> {
        let mut symbols: Vec<u32> = text.iter().map(|&byte| bpe.bytes[usize::from(byte)]).collect();
        merge::small(&bpe.pairs, &mut symbols);
        symbols
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn blocks_join_to_the_whole(
            tokens in vocabulary(),
            text in prop::collection::vec(prop::sample::select(b"aaabc".to_vec()), 1..120),
            block in 1usize..20,
        ) {
            let slices: Vec<Option<&[u8]>> = tokens.iter().map(|token| Some(&token[..])).collect();
            let Ok(bpe) = Bpe::new(&slices, &Merges::Ranks) else { return Ok(()) }; // late tokens that vie
            let mut joiner = Joiner::new(&bpe, &text);
            for block in text.chunks(block) {
                joiner.add(&encoded(&bpe, block));
            }
            prop_assert_eq!(joiner.symbols(), &encoded(&bpe, &text)[..]);
        }

        #[test]
        fn runs_join_to_the_whole(tokens in vocabulary(), before in "[abc]{0,9}", after in "[abc]{0,9}", count in 64usize..200) {
            let slices: Vec<Option<&[u8]>> = tokens.iter().map(|token| Some(&token[..])).collect();
            let Ok(bpe) = Bpe::new(&slices, &Merges::Ranks) else { return Ok(()) }; // late tokens that vie
            let text = [before.as_bytes(), &vec![b'a'; count], after.as_bytes()].concat();
            let mut joiner = Joiner::new(&bpe, &text);
            joiner.add(&encoded(&bpe, before.as_bytes()));
            if joiner.add_run(b'a', count) {
                joiner.add(&encoded(&bpe, after.as_bytes()));
                prop_assert_eq!(joiner.symbols(), &encoded(&bpe, &text)[..]);
            }
        }

        #[test]
        fn runs_have_their_pattern(tokens in vocabulary(), count in 64usize..300) {
            let slices: Vec<Option<&[u8]>> = tokens.iter().map(|token| Some(&token[..])).collect();
            let Ok(bpe) = Bpe::new(&slices, &Merges::Ranks) else { return Ok(()) }; // late tokens that vie
            let mut symbols = Vec::new();
            if bpe.run_of(b'a', count, &mut symbols) {
                prop_assert_eq!(symbols, encoded(&bpe, &vec![b'a'; count]));
            }
        }
    }
}
