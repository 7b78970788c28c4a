//! The map from a pair of symbols to the symbol they merge into.

use bytemuck::Zeroable;

use super::huge::{prefetch, Huge};
use super::vectors::{Portable, Vectors};
use super::NONE;

/// Lines of eight packed entries (21 + 21 bits of pair, 22 bits of symbol + 1), filled from the
/// front; a full line goes on in the next. A lookup compares a whole line without branches.
pub struct Pairs {
    lines: Huge<Line>,
    shift: u32,
}

#[derive(Clone, Copy, Zeroable)]
#[repr(align(64))]
struct Line([u64; 8]);

/// Two symbols as one key.
#[inline(always)]
pub fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 21 | u64::from(right)
}

impl Pairs {
    /// Room for about `pairs` entries at a load of one half.
    pub fn new(pairs: usize) -> Self {
        let lines = (pairs.max(16) * 2).next_power_of_two() / 8;
        Self { lines: Huge::zeroed(lines), shift: 64 - lines.trailing_zeros() }
    }

    #[inline(always)]
    fn home(&self, key: u64) -> usize {
        (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }

    /// Brings the line of a key into the cache.
    #[inline(always)]
    pub fn prefetch(&self, key: u64) {
        prefetch(&self.lines, self.home(key));
    }

    /// Adds a pair; it must be absent and the table must have room.
    pub fn insert(&mut self, left: u32, right: u32, symbol: u32) {
        let key = key(left, right);
        let mut at = self.home(key);
        loop {
            if let Some(slot) = self.lines[at].0.iter_mut().find(|slot| **slot == 0) {
                *slot = key << 22 | u64::from(symbol + 1);
                return;
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
    }

    /// The symbol a pair merges into, or `NONE`.
    #[inline]
    pub fn get(&self, left: u32, right: u32) -> u32 {
        self.get_key(key(left, right))
    }

    /// The same by key.
    #[inline(always)]
    pub fn get_key(&self, key: u64) -> u32 {
        self.get_with::<Portable>(key)
    }

    /// The same by key, compared as the processor does it best.
    #[inline(always)]
    #[allow(clippy::needless_bitwise_bool)] // see below
    pub fn get_with<V: Vectors>(&self, key: u64) -> u32 {
        let mut at = self.home(key);
        loop {
            let line = &self.lines[at].0;
            let symbol = V::find(line, key) as u32 & 0x3F_FFFF;
            // Whether a pair merges is anybody's guess: one branch, which hardly ever goes on.
            if (symbol != 0) | (line[7] == 0) {
                return symbol.wrapping_sub(1);
            }
            at = (at + 1) & (self.lines.len() - 1);
        }
    }
}

const _: () = assert!(0u32.wrapping_sub(1) == NONE, "an empty slot reads as NONE");
