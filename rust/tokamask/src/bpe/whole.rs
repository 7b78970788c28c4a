//! The exact map from bytes to token, for pieces that are tokens: eight bytes a slot, verified
//! against the token's own bytes.

use super::cache::{fold, Seeds};
use super::huge::{prefetch, Huge};
use super::keys::{long_hash, short_hash, short_key, MASK};
use super::NONE;

/// Tokens by their bytes.
pub struct Whole {
    /// `hash << 32 | id`; all ones is empty.
    slots: Huge<u64>,
    /// Token bytes, one after another, padded so that 16 can always be read.
    bytes: Huge<u8>,
    starts: Huge<u32>,
    longest: usize,
    seeds: Seeds,
}

impl Whole {
    /// Tokens by id; only those with `wanted` are found.
    pub fn new(tokens: &[Option<&[u8]>], wanted: impl Fn(usize) -> bool, seeds: Seeds) -> Self {
        let (mut bytes, mut starts) = (Vec::new(), vec![0]);
        for token in tokens {
            bytes.extend_from_slice(token.unwrap_or_default());
            starts.push(bytes.len() as u32);
        }
        bytes.extend_from_slice(&[0; 16]);
        let mut slots = Huge::zeroed((tokens.len().max(8) * 2).next_power_of_two());
        slots.fill(u64::MAX);
        let mut whole = Self { slots, bytes: Huge::of(&bytes), starts: Huge::of(&starts), longest: 0, seeds };
        for (id, token) in tokens.iter().enumerate() {
            let Some(token) = token.filter(|t| !t.is_empty() && wanted(id)) else { continue };
            if whole.get(token) == NONE {
                whole.longest = whole.longest.max(token.len());
                let hash = whole.hash(token);
                let mut at = hash as usize & (whole.slots.len() - 1);
                while whole.slots[at] != u64::MAX {
                    at = (at + 1) & (whole.slots.len() - 1);
                }
                whole.slots[at] = hash << 32 | id as u64;
            }
        }
        whole
    }

    fn hash(&self, text: &[u8]) -> u64 {
        if text.len() < 16 {
            short_hash(&short_key(text), &self.seeds)
        } else if text.len() < 32 {
            long_hash(&super::keys::long_key(text), &self.seeds)
        } else {
            let words = text.chunks(8).map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_le_bytes(word)
            });
            words.fold(text.len() as u64, |hash, word| fold(hash ^ word ^ self.seeds[0], self.seeds[1]))
        }
    }

    /// The token with these bytes, or `NONE`.
    pub fn get(&self, text: &[u8]) -> u32 {
        if text.len() > self.longest {
            return NONE;
        }
        let same = |id: usize| self.bytes[self.starts[id] as usize..self.starts[id + 1] as usize] == *text;
        self.find(self.hash(text), same)
    }

    #[inline(always)]
    fn find(&self, hash: u64, same: impl Fn(usize) -> bool) -> u32 {
        let mut at = hash as usize & (self.slots.len() - 1);
        loop {
            let slot = self.slots[at];
            if slot == u64::MAX {
                return NONE;
            }
            if slot >> 32 == hash & 0xFFFF_FFFF && same(slot as u32 as usize) {
                return slot as u32;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// The token with this short key.
    #[inline(always)]
    pub fn get_short(&self, key: &[u64; 2], hash: u64) -> u32 {
        self.find(hash, |id| {
            let (start, end) = (self.starts[id] as usize, self.starts[id + 1] as usize);
            let mask = &MASK[(end - start).min(16)];
            let Some(bytes) = self.bytes[start..].first_chunk() else { return false };
            let words = super::keys::words(bytes);
            words[0] & mask[0] == key[1] && words[1] & mask[1] | mask[2] == key[0]
        })
    }

    /// First step of a lookup: bring the slot in.
    #[inline(always)]
    pub fn prefetch_slot(&self, hash: u64) {
        prefetch(&self.slots, hash as usize & (self.slots.len() - 1));
    }

    /// Second step: bring the candidate's bytes in.
    #[inline(always)]
    pub fn prefetch_bytes(&self, hash: u64) {
        let slot = self.slots[hash as usize & (self.slots.len() - 1)];
        if slot != u64::MAX {
            prefetch(&self.bytes, self.starts[slot as u32 as usize] as usize);
        }
    }
}
