//! The spellings of a vocabulary while a file is read: many small texts, looked up by the hundred thousand.

use std::hash::{BuildHasher, RandomState};

use crate::bpe::cache::fold;
use crate::bpe::huge::{prefetch, Huge};
use crate::bpe::NONE;

/// Spellings between asking for a slot and filling it.
const AHEAD: usize = 16;

/// Spellings in the order of the file, and their ids.
pub struct SpellingTable {
    text: String,
    starts: Vec<u32>,
    ids: Vec<u32>,
    /// `hash << 32 | entry`; all ones is empty.
    slots: Huge<u64>,
    seeds: [u64; 2],
}

impl SpellingTable {
    /// Nothing yet, with room for `count` spellings of `bytes` together.
    pub fn new(count: usize, bytes: usize) -> Self {
        // Numbers of this process: nobody can make a file whose spellings collide.
        let state = RandomState::new();
        let mut table = Self {
            text: String::with_capacity(bytes),
            starts: Vec::with_capacity(count + 1),
            ids: Vec::with_capacity(count),
            slots: Huge::zeroed((count.max(8) * 2).next_power_of_two()),
            seeds: std::array::from_fn(|nth| state.hash_one(nth) | 1),
        };
        table.slots.fill(u64::MAX);
        table.starts.push(0);
        table
    }

    /// Number of spellings.
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// The hash of a spelling.
    #[inline]
    pub fn hash(&self, text: &[u8]) -> u64 {
        let word = |at: usize| text[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        let half = |at: usize| text[at..].first_chunk().map_or(0, |b| u64::from(u32::from_le_bytes(*b)));
        let length = text.len();
        let (first, last) = match length {
            0 => (0, 0),
            1..4 => (u64::from(text[0]) | u64::from(text[length / 2]) << 8, u64::from(text[length - 1])),
            4..8 => (half(0), half(length - 4)),
            8..=16 => (word(0), word(length - 8)),
            _ => {
                let step = |hash, at| fold(hash ^ word(at) ^ self.seeds[0], self.seeds[1]);
                ((0..length - 16).step_by(8).fold(word(length - 16), step), word(length - 8))
            }
        };
        fold(first ^ self.seeds[0], last ^ self.seeds[1] ^ (length as u64) << 56)
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    /// Brings the slot of a hash into the cache.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.slots, self.home(hash));
    }

    fn entry(&self, nth: usize) -> &str {
        &self.text[self.starts[nth] as usize..self.starts[nth + 1] as usize]
    }

    /// The slot that has a spelling, or the empty one where it would be.
    #[inline]
    fn find(&self, text: &[u8], hash: u64) -> usize {
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            let same = || self.entry(slot as u32 as usize).as_bytes() == text;
            if slot == u64::MAX || (slot >> 32 == hash >> 32 && same()) {
                return at;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Adds a spelling; false if it is there.
    pub fn add(&mut self, spelling: &str, id: u32) -> bool {
        if (self.count() + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let hash = self.hash(spelling.as_bytes());
        let at = self.find(spelling.as_bytes(), hash);
        if self.slots[at] != u64::MAX {
            return false;
        }
        self.slots[at] = hash >> 32 << 32 | self.count() as u64;
        self.text.push_str(spelling);
        self.starts.push(self.text.len() as u32);
        self.ids.push(id);
        true
    }

    /// Adds a spelling that is found only after [`Self::index`].
    #[inline]
    pub fn push(&mut self, spelling: &str, id: u32) {
        self.text.push_str(spelling);
        self.starts.push(self.text.len() as u32);
        self.ids.push(id);
    }

    /// Makes what was pushed into a table without entries findable, each slot asked for some spellings ahead; false
    /// if two are equal.
    pub fn index(&mut self) -> bool {
        self.slots = Huge::zeroed((self.count().max(8) * 2).next_power_of_two());
        self.slots.fill(u64::MAX);
        let mut hashes = [0; AHEAD];
        for nth in 0..self.count() + AHEAD {
            if nth >= AHEAD {
                let (nth, hash) = (nth - AHEAD, hashes[nth % AHEAD]);
                let at = self.find(self.entry(nth).as_bytes(), hash);
                if self.slots[at] != u64::MAX {
                    return false;
                }
                self.slots[at] = hash >> 32 << 32 | nth as u64;
            }
            if nth < self.count() {
                hashes[nth % AHEAD] = self.hash(self.entry(nth).as_bytes());
                self.prefetch(hashes[nth % AHEAD]);
            }
        }
        true
    }

    #[cold]
    fn grow(&mut self) {
        self.slots = Huge::zeroed(self.slots.len() * 4);
        self.slots.fill(u64::MAX);
        for nth in 0..self.count() {
            let hash = self.hash(self.entry(nth).as_bytes());
            let at = self.find(self.entry(nth).as_bytes(), hash);
            self.slots[at] = hash >> 32 << 32 | nth as u64;
        }
    }

    /// The id of a spelling.
    pub fn get(&self, spelling: &str) -> Option<u32> {
        let id = self.get_hashed(spelling.as_bytes(), self.hash(spelling.as_bytes()));
        (id != NONE).then_some(id)
    }

    /// The id of a spelling whose hash is known, or `NONE`.
    #[inline]
    pub fn get_hashed(&self, spelling: &[u8], hash: u64) -> u32 {
        let slot = self.slots[self.find(spelling, hash)];
        if slot == u64::MAX {
            NONE
        } else {
            self.ids[slot as u32 as usize]
        }
    }

    /// Spellings and ids, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.ids.iter().enumerate().map(|(nth, &id)| (self.entry(nth), id))
    }

    /// By id, what `form` makes of the spelling; the spelling itself if `form` makes nothing. An id that two
    /// spellings have is the error.
    pub fn by_id(&self, form: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, (u32, &str)> {
        let size = self.ids.iter().max().map_or(0, |&id| id as usize + 1);
        let mut tokens = vec![None; size];
        for (spelling, id) in self.iter() {
            let bytes = form(spelling).unwrap_or_else(|| spelling.as_bytes().to_vec());
            if tokens[id as usize].replace(bytes).is_some() {
                return Err((id, spelling));
            }
        }
        Ok(tokens)
    }
}
