//! Pieces of [`LONG`] bytes and more: blocks that are merged side by side and joined, see [`long`](super::long).

use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::encoder::{Encoder, Sink, Work};
use super::keys::{long_hash, long_key, LONG};
use super::lanes::{self, Word};
use super::long::{run_length, Joiner, RUN};
#[cfg(target_arch = "x86_64")]
use super::vectors::Avx2;
use super::vectors::{Portable, Vectors};
use super::NONE;

/// Pieces from [`LONG`] to this are cached whole.
const SHELVED: usize = 256;
/// Pieces on each shelf before it is cleared.
const SHELF: usize = 1 << 12;
pub const SHELVES: usize = 16;
/// Pieces and their ids.
pub type Shelf = Mutex<FxHashMap<Box<[u8]>, Box<[u32]>>>;
/// A block of a long piece ends among its last so many places, where a merge is least likely.
const CHOICE: usize = 8;

/// Runs of one byte inside a long piece from this length on are encoded by their pattern.
const LONG_RUN: usize = 8192;
/// Blocks of a long piece that are merged in turn.
const BLOCKS: usize = 128;

/// Blocks of a long piece in their order, and the encodings of the different ones.
pub struct Blocks {
    order: Vec<u16>,
    symbols: [[u32; 32]; BLOCKS],
    counts: [usize; BLOCKS],
    /// Words by hash: texts that repeat have few different blocks.
    seen: [u16; 256],
}

impl Blocks {
    fn new() -> Self {
        let order = Vec::with_capacity(8 * BLOCKS);
        Self { order, symbols: [[0; 32]; BLOCKS], counts: [0; BLOCKS], seen: [u16::MAX; 256] }
    }

    fn begin(&mut self) {
        self.order.clear();
        self.seen.fill(u16::MAX);
    }

    /// Adds a block of less than [`LONG`] bytes to the words, unless it is one of them.
    fn add(&mut self, block: &[u8], words: &mut Vec<Word<32>>) {
        let (mut bytes, length) = ([0; 32], block.len() as u32);
        bytes[..block.len()].copy_from_slice(block);
        let hash = bytes.chunks_exact(8).fold(0u64, |hash, word| {
            let word = word.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
            (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
        });
        let place = &mut self.seen[hash as usize & 255];
        let known = words.get(usize::from(*place));
        if known.is_none_or(|word| word.bytes != bytes || word.length != length) {
            *place = words.len() as u16;
            words.push(Word { bytes, length, tag: words.len() as u32 });
        }
        self.order.push(*place);
    }
}

/// True if the text begins with so many bytes of one kind.
fn same(text: &[u8], count: usize) -> bool {
    text.len() >= count && text[1..count].iter().all(|&byte| byte == text[0])
}

impl Encoder {
    /// A piece of [`LONG`] bytes or more.
    pub(super) fn long(&self, piece: &[u8], work: &mut Work, sink: &mut impl Sink) {
        let id = self.whole.get(piece);
        if id != NONE {
            return sink.ids(&[id]);
        }
        let mut ids = Vec::new();
        if piece.len() >= SHELVED {
            self.in_blocks(piece, work, &mut ids);
            return sink.ids(&ids);
        }
        let key = long_key(&piece[..LONG - 1]);
        let nth = (long_hash(&key, &self.seeds) ^ piece.len() as u64) as usize % SHELVES;
        let shelf = || self.shelves[nth].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shelf().get(piece) {
            return sink.ids(known);
        }
        self.in_blocks(piece, work, &mut ids);
        let mut shelf = shelf();
        if shelf.len() >= SHELF {
            shelf.clear();
        }
        shelf.insert(piece.into(), ids[..].into());
        sink.ids(&ids);
    }

    /// A piece of [`LONG`] bytes or more, see [`long`](super::long).
    fn in_blocks(&self, piece: &[u8], work: &mut Work, ids: &mut Vec<u32>) {
        if !self.has_symbols(piece) {
            return self.bpe.encode_piece(piece, ids); // without the bytes that the vocabulary lacks
        }
        let mut joiner = Joiner::new(&self.bpe, piece);
        let (mut start, mut plain) = (0, 0);
        let mut merged = work.blocks.take().unwrap_or_else(|| Box::new(Blocks::new()));
        while start < piece.len() {
            work.wide_words.clear();
            merged.begin();
            let mut run = 0;
            while start < piece.len() && work.wide_words.len() < BLOCKS && merged.order.len() < 8 * BLOCKS {
                if start >= plain && same(&piece[start..], RUN) {
                    let length = run_length(&piece[start..]);
                    if length >= LONG_RUN {
                        run = length;
                        break;
                    }
                    plain = start + length; // it is looked at once
                }
                let end = self.block(piece, start);
                merged.add(&piece[start..end], &mut work.wide_words);
                start = end;
            }
            self.merge_blocks(&work.wide_words, &mut merged);
            for &nth in &merged.order {
                joiner.add(&merged.symbols[usize::from(nth)][..merged.counts[usize::from(nth)]]);
            }
            if run > 0 {
                plain = start + run;
                if joiner.add_run(piece[start], run) {
                    start += run;
                }
            }
        }
        work.blocks = Some(merged);
        ids.clear();
        ids.extend(joiner.symbols().iter().map(|&symbol| self.bpe.ids[symbol as usize]));
    }

    /// Merges blocks of a long piece, which no cache needs to know.
    fn merge_blocks(&self, words: &[Word<32>], merged: &mut Blocks) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("bmi2") {
            // SAFETY: the features were just detected.
            return unsafe { self.merge_blocks_avx2(words, merged) };
        }
        self.merge_blocks_by::<Portable>(words, merged);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn merge_blocks_avx2(&self, words: &[Word<32>], merged: &mut Blocks) {
        self.merge_blocks_by::<Avx2>(words, merged);
    }

    #[inline(always)]
    fn merge_blocks_by<V: Vectors>(&self, words: &[Word<32>], merged: &mut Blocks) {
        lanes::run::<V, 32>(&self.lane_tables(), words, |nth, symbols, count| {
            (merged.symbols[nth], merged.counts[nth]) = (*symbols, count);
        });
    }

    /// The end of the block that starts at `start`: where the two bytes merge latest.
    fn block(&self, piece: &[u8], start: usize) -> usize {
        let most = start + LONG - 1;
        if most >= piece.len() {
            return piece.len();
        }
        let merged = |at: &usize| self.first[usize::from(piece[at - 1]) << 8 | usize::from(piece[*at])];
        (most + 1 - CHOICE..=most).rev().max_by_key(merged).unwrap_or(most)
    }
}
