//! The exact map from bytes to token, for pieces that are tokens: eight bytes a slot, verified
//! against the token's own bytes.

use super::cache::{fold, Seeds};
use super::huge::{prefetch, Huge};
use super::keys::{long_hash, short_hash, short_key, short_key_at, ShortKey};
use super::NONE;

/// Tokens between asking for a slot and filling it.
const AHEAD: usize = 16;

/// Tokens by their bytes.
pub struct Whole {
    /// `hash << 32 | id`; all ones is empty.
    slots: Huge<u64>,
    /// Token bytes, one after another, padded so that 16 can always be read.
    bytes: Huge<u8>,
    starts: Huge<u32>,
    /// Short keys by id; of longer tokens zeros, which are nobody's key.
    keys: Huge<ShortKey>,
    longest: usize,
    doubles: bool,
    seeds: Seeds,
}

impl Whole {
    /// Tokens by id; of equal ones the first.
    pub fn new(tokens: &[Option<&[u8]>], seeds: Seeds) -> Self {
        let (mut bytes, mut starts) = (Vec::new(), Vec::with_capacity(tokens.len() + 1));
        bytes.reserve(tokens.iter().flatten().map(|token| token.len()).sum::<usize>() + 16);
        starts.push(0);
        for token in tokens {
            bytes.extend_from_slice(token.unwrap_or_default());
            starts.push(bytes.len() as u32);
        }
        bytes.extend_from_slice(&[0; 16]);
        Self::packed(Huge::of(&bytes), Huge::of(&starts), seeds)
    }

    /// The same from bytes one after another, 16 more behind them, and where they begin; what has no bytes is
    /// no token.
    pub fn packed(bytes: Huge<u8>, starts: Huge<u32>, seeds: Seeds) -> Self {
        let count = starts.len() - 1;
        let mut slots = Huge::zeroed((count.max(8) * 2).next_power_of_two());
        slots.fill(u64::MAX);
        let keys = Huge::zeroed(count);
        let mut whole = Self { slots, bytes, starts, keys, longest: 0, doubles: false, seeds };
        let mut hashes = [0; AHEAD];
        for id in 0..count + AHEAD {
            // The slot was asked for some tokens ago.
            if id >= AHEAD {
                whole.add(id - AHEAD, hashes[id % AHEAD]);
            }
            if id < count {
                let hash = whole.hash_of(id);
                whole.prefetch_slot(hash);
                hashes[id % AHEAD] = hash;
            }
        }
        whole
    }

    /// True if two tokens have the same bytes.
    pub fn has_doubles(&self) -> bool {
        self.doubles
    }

    /// What the hashes are made with.
    pub fn seeds(&self) -> Seeds {
        self.seeds
    }

    fn add(&mut self, id: usize, hash: u64) {
        let (start, end) = (self.starts[id] as usize, self.starts[id + 1] as usize);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != u64::MAX {
            if self.slots[at] >> 32 == hash & 0xFFFF_FFFF
                && self.token(self.slots[at]) == &self.bytes[start..end]
            {
                self.doubles |= start < end;
                return;
            }
            at = (at + 1) & mask;
        }
        if start < end {
            self.longest = self.longest.max(end - start);
            self.slots[at] = hash << 32 | id as u64;
        }
    }

    fn token(&self, slot: u64) -> &[u8] {
        let id = slot as u32 as usize;
        &self.bytes[self.starts[id] as usize..self.starts[id + 1] as usize]
    }

    /// Hides the tokens that are not `wanted`.
    pub fn keep(&mut self, wanted: impl Fn(usize) -> bool) {
        for slot in self.slots.iter_mut() {
            if *slot != u64::MAX && !wanted(*slot as u32 as usize) {
                *slot ^= !0 << 32; // the hash of no text with these bytes
            }
        }
    }

    /// The hash of a token, whose key is noted.
    fn hash_of(&mut self, id: usize) -> u64 {
        let (start, end) = (self.starts[id] as usize, self.starts[id + 1] as usize);
        if end - start < 16 {
            self.keys[id] = short_key_at(&self.bytes, start, end - start);
            short_hash(&self.keys[id], &self.seeds)
        } else {
            self.hash(&self.bytes[start..end])
        }
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
    pub fn get_short(&self, key: &ShortKey, hash: u64) -> u32 {
        self.find(hash, |id| self.keys[id] == *key)
    }

    /// The bytes of a token, if it has some.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        let (start, end) = (*self.starts.get(id as usize)?, *self.starts.get(id as usize + 1)?);
        (start < end).then(|| &self.bytes[start as usize..end as usize])
    }

    /// Brings what is known of a text into the cache.
    pub fn prefetch(&self, text: &[u8]) {
        self.prefetch_slot(self.hash(text));
    }

    /// First step of a lookup: bring the slot in.
    #[inline(always)]
    pub fn prefetch_slot(&self, hash: u64) {
        prefetch(&self.slots, hash as usize & (self.slots.len() - 1));
    }

    /// Second step: bring the candidate's key in.
    #[inline(always)]
    pub fn prefetch_key(&self, hash: u64) {
        let slot = self.slots[hash as usize & (self.slots.len() - 1)];
        prefetch(&self.keys, slot as u32 as usize);
    }
}
