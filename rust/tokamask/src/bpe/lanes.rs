//! Merging many short words at once: the words take turns, one merge each, and every pair lookup is
//! prefetched one turn before it is read, so that the cache misses of different words overlap.
//!
//! A word's live positions are a bit mask; nothing in a turn branches but "no merge is left".
//! Tried in the prototype and dropped: one word at a time (twice as slow), longest match with
//! backtracking (seven times).

use super::huge::prefetch;
use super::pairs::{key, Pairs};
use super::NONE;

/// Words in turn. (4: 338 ns a word, 8: 254, 12: 250.)
const LANES: usize = 12;
/// Keys from here on mean "no merge".
const LIMIT: u32 = 0xFFFF_FFC0;
/// A symbol that merges with nothing.
const END: u32 = super::MAX_SYMBOLS as u32 + 1;

/// A word of at most `C - 1` bytes.
#[derive(Clone, Copy)]
pub struct Word<const C: usize> {
    /// Its text, padded with zeros.
    pub bytes: [u8; C],
    /// Its length.
    pub length: u32,
    /// What the caller knows it by.
    pub tag: u32,
}

/// Position `C - 1` stands for both ends.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Lane<const C: usize> {
    /// Merged symbol and position, so that one minimum finds the next merge.
    keys: [u32; C],
    symbols: [u32; C],
    /// Pairs to look up next turn, and the positions they belong to.
    pending: [u64; 2],
    at: [u32; 2],
    /// The position that the last merge removed.
    dead: u32,
    live: u64,
    tag: u32,
}

/// What the lanes need of a vocabulary.
pub struct Tables<'a> {
    /// Symbol of each byte; all of them exist.
    pub bytes: &'a [u32; 256],
    /// What two bytes merge into, by `first << 8 | second`; 65,536 entries.
    pub first: &'a [u32],
    /// All pairs.
    pub pairs: &'a Pairs,
}

impl<const C: usize> Lane<C> {
    const EMPTY: Self =
        Self { keys: [NONE; C], symbols: [END; C], pending: [0; 2], at: [0; 2], dead: 0, live: 0, tag: 0 };

    #[inline(always)]
    fn start(&mut self, tables: &Tables, word: &Word<C>) {
        let length = word.length as usize;
        for at in 0..C - 1 {
            let (left, right) = (word.bytes[at], word.bytes[at + 1]);
            let symbol = tables.first[usize::from(left) << 8 | usize::from(right)];
            let none = if symbol == NONE { LIMIT } else { 0 };
            self.keys[at] = if at + 1 < length { symbol << 6 | at as u32 | none } else { NONE };
            self.symbols[at] = tables.bytes[usize::from(left)];
        }
        self.keys[C - 1] = NONE;
        self.symbols[C - 1] = END;
        self.live = ((1u64 << length) - 1) | 1 << (C - 1);
        self.tag = word.tag;
        self.pending = [key(END, END); 2]; // settles as "no merge" on the end position
        self.at = [C as u32 - 1; 2];
        self.dead = C as u32 - 1;
    }

    /// Settles the lookups of the last turn and makes one merge; false when there is none left.
    /// The keys are touched only as whole vectors: a single store before a wide load would stall it.
    #[inline(always)]
    fn turn(&mut self, pairs: &Pairs) -> bool {
        let settled = |nth: usize| {
            let symbol = pairs.get_key(self.pending[nth]);
            symbol << 6 | self.at[nth] | if symbol == NONE { LIMIT } else { 0 }
        };
        let (first, second) = (settled(0), settled(1));
        let mut least = [NONE; 8];
        for (block, keys) in self.keys.chunks_exact_mut(8).enumerate() {
            for ((nth, key), least) in keys.iter_mut().enumerate().zip(&mut least) {
                let at = (block * 8 + nth) as u32;
                let mut new = *key;
                new = if at == self.at[0] { first } else { new };
                new = if at == self.at[1] { second } else { new };
                new = if at == self.dead { NONE } else { new };
                *key = new;
                *least = new.min(*least);
            }
        }
        let least = least.iter().fold(NONE, |least, &key| least.min(key));
        if least >= LIMIT {
            return false;
        }
        let (at, symbol) = (least & 63, least >> 6);
        let above = self.live & (!1u64 << at);
        let right = above.trailing_zeros();
        let after = (above & above.wrapping_sub(1)).trailing_zeros();
        let below = self.live & ((1u64 << at) - 1);
        let before = 63u32.wrapping_sub(below.leading_zeros()) & (C as u32 - 1); // none: the end
        self.live &= !(1u64 << right);
        self.symbols[at as usize % C] = symbol;
        let pending =
            [key(symbol, self.symbols[after as usize % C]), key(self.symbols[before as usize], symbol)];
        pairs.prefetch(pending[0]);
        pairs.prefetch(pending[1]);
        self.pending = pending;
        self.at = [at, before];
        self.dead = right;
        true
    }
}

/// Merges `words`; `done(tag, symbols)` in any order.
#[inline(always)]
pub fn run<const C: usize>(tables: &Tables, words: &[Word<C>], mut done: impl FnMut(usize, &[u32])) {
    let mut lanes = [Lane::<C>::EMPTY; LANES];
    let mut order: [usize; LANES] = std::array::from_fn(|nth| nth);
    let mut live = words.len().min(LANES);
    for (lane, word) in lanes.iter_mut().zip(words) {
        lane.start(tables, word);
    }
    let mut waiting = words[live..].iter();
    let mut symbols = [0; C];
    while live > 0 {
        let mut nth = 0;
        while nth < live {
            let lane = &mut lanes[order[nth]];
            if lane.turn(tables.pairs) {
                nth += 1;
                continue;
            }
            let mut left = lane.live & !(1u64 << (C - 1));
            let count = left.count_ones() as usize;
            for symbol in &mut symbols[..count] {
                *symbol = lane.symbols[left.trailing_zeros() as usize % C];
                left &= left.wrapping_sub(1);
            }
            done(lane.tag as usize, &symbols[..count]);
            if let Some(word) = waiting.next() {
                lane.start(tables, word);
                nth += 1;
            } else {
                live -= 1;
                order.swap(nth, live);
            }
        }
    }
}

/// Brings the line of two bytes' first merge into the cache.
#[inline(always)]
pub fn prefetch_first(first: &[u32], bytes: &[u8]) {
    prefetch(first, usize::from(bytes[0]) << 8 | usize::from(bytes[1]));
}
