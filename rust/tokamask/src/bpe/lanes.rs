//! Merging many short words at once: the words take turns, one merge each, and every pair lookup is
//! prefetched one turn before it is read, so that the cache misses of different words overlap.
//!
//! A word's live positions are a bit mask, and nothing branches on what is in a word: words of one length take
//! turns until none of them merges any more, and a word that is done idles. (A mispredicted branch is known only at
//! the end of a turn, and costs the turns of all words that had begun meanwhile.)
//! Tried in the prototype and dropped: one word at a time (twice as slow), longest match with
//! backtracking (seven times).

use super::huge::prefetch;
use super::pairs::{key, Pairs};
use super::vectors::{Changes, Vectors};
use super::NONE;

/// Words in turn.
const LANES: usize = 8;
/// Words that are ordered by length together.
const ORDERED: usize = 256;
/// Keys from here on mean "no merge".
const LIMIT: u32 = 0xFFFF_FFC0;
/// A symbol that merges with nothing; the symbol of a key that means "no merge".
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

/// What a pair merges into and where, as a key.
#[inline(always)]
fn key_at(symbol: u32, at: u32) -> u32 {
    symbol << 6 | at // NONE becomes LIMIT
}

impl<const C: usize> Lane<C> {
    const EMPTY: Self =
        Self { keys: [NONE; C], symbols: [END; C], pending: [0; 2], at: [0; 2], dead: 0, live: 0 };

    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // without link-time optimisation a zip stays a call
    fn start(&mut self, tables: &Tables, word: &Word<C>) {
        let length = (word.length as usize).min(C - 1);
        (self.keys, self.symbols) = ([NONE; C], [END; C]);
        let bytes = &word.bytes;
        for at in 0..length {
            self.symbols[at] = tables.bytes[usize::from(bytes[at])];
        }
        for at in 1..length {
            let pair = usize::from(bytes[at - 1]) << 8 | usize::from(bytes[at]);
            self.keys[at - 1] = key_at(tables.first[pair], at as u32 - 1);
        }
        self.live = ((1u64 << length) - 1) | 1 << (C - 1);
        self.pending = [key(END, END); 2]; // settles as "no merge" on the end position
        self.at = [C as u32 - 1; 2];
        self.dead = C as u32 - 1;
    }

    /// Settles the lookups of the last turn and makes one merge; false, and nothing changes, when there is none left.
    #[inline(always)]
    fn turn<V: Vectors>(&mut self, pairs: &Pairs) -> bool {
        let settled = |nth: usize| key_at(pairs.get_with::<V>(self.pending[nth]), self.at[nth]);
        let changes = Changes { keys: [settled(0), settled(1)], at: self.at, dead: self.dead };
        let least = V::least(&mut self.keys, changes);
        // No merge: END at the end position, which it is already.
        let none = u32::from(least >= LIMIT).wrapping_neg();
        let (at, symbol) = ((least | none) & (C as u32 - 1), least >> 6 & END);
        let above = self.live & (!1u64 << at);
        let after = (above & above.wrapping_sub(1)).trailing_zeros();
        let below = self.live & ((1u64 << at) - 1);
        let before = 63u32.wrapping_sub(below.leading_zeros()) & (C as u32 - 1); // none: the end
        self.live &= !(above & above.wrapping_neg());
        self.dead = above.trailing_zeros();
        self.symbols[at as usize % C] = symbol;
        let pending =
            [key(symbol, self.symbols[after as usize % C]), key(self.symbols[before as usize % C], symbol)];
        pairs.prefetch(pending[0]);
        pairs.prefetch(pending[1]);
        self.pending = pending;
        self.at = [at, before];
        none == 0
    }

    /// The symbols that are left of a word of so many bytes, and how many.
    #[inline(always)]
    fn left(&self, length: u32) -> ([u32; C], usize) {
        let (mut left, mut count) = ([0; C], 0);
        for at in 0..length as usize % C {
            left[count % C] = self.symbols[at];
            count += (self.live >> at & 1) as usize;
        }
        (left, count)
    }
}

/// Numbers of the words, the shortest first.
fn by_length<const C: usize>(words: &[Word<C>]) -> [u8; ORDERED] {
    let (mut order, mut starts) = ([0; ORDERED], [0; 64]);
    for word in words {
        starts[word.length as usize % 64] += 1;
    }
    let mut sum = 0;
    for start in &mut starts[..C] {
        (*start, sum) = (sum, sum + *start);
    }
    for (nth, word) in words.iter().enumerate() {
        let start = &mut starts[word.length as usize % 64];
        order[*start % ORDERED] = nth as u8;
        *start += 1;
    }
    order
}

/// Merges `words`; `done(tag, symbols, how many)` in any order.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // as above
pub fn run<V: Vectors, const C: usize>(
    tables: &Tables,
    words: &[Word<C>],
    mut done: impl FnMut(usize, &[u32; C], usize),
) {
    let mut lanes = [Lane::<C>::EMPTY; LANES];
    for words in words.chunks(ORDERED) {
        for group in by_length(words)[..words.len()].chunks(LANES) {
            let lanes = &mut lanes[..group.len()];
            for nth in 0..group.len() {
                lanes[nth].start(tables, &words[usize::from(group[nth])]);
            }
            let mut merging = true;
            while merging {
                merging = false;
                for lane in &mut *lanes {
                    merging |= lane.turn::<V>(tables.pairs);
                }
            }
            for nth in 0..group.len() {
                let word = &words[usize::from(group[nth])];
                let (symbols, count) = lanes[nth].left(word.length);
                done(word.tag as usize, &symbols, count);
            }
        }
    }
}

/// Brings the line of two bytes' first merge into the cache.
#[inline(always)]
pub fn prefetch_first(first: &[u32], bytes: &[u8]) {
    prefetch(first, usize::from(bytes[0]) << 8 | usize::from(bytes[1]));
}
