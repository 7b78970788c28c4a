//! A growing set of byte strings with counts: what each counting thread fills.

use std::hash::Hasher;

use rustc_hash::FxHasher;

use crate::error::LimitError;

/// Distinct byte strings in the order they were first met, each with its count. Strings lie in one
/// arena; slots of the open-addressing index hold half of the hash beside the place, so that a probe
/// rarely touches a string that differs.
#[derive(Default)]
pub struct Table {
    /// `hash >> 32 << 32 | place + 1`; 0 is free. A power of two, at most three quarters full.
    slots: Vec<u64>,
    /// `ends[i]` is where string `i` ends in the arena; it starts where string `i - 1` ends.
    ends: Vec<usize>,
    counts: Vec<u64>,
    arena: Vec<u8>,
}

impl Table {
    /// Number of distinct strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// String `place`.
    pub fn get(&self, place: usize) -> &[u8] {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.arena[start..self.ends[place]]
    }

    /// Count of string `place`.
    pub fn count(&self, place: usize) -> u64 {
        self.counts[place]
    }

    /// Bytes held, for bounds and reports.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * 8 + self.ends.capacity() * 16 + self.arena.capacity()
    }

    /// Adds `count` to `key`; its place.
    pub fn add(&mut self, key: &[u8], count: u64) -> Result<u32, LimitError> {
        if self.ends.len() * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        let hash = hash(key);
        let mask = self.slots.len() - 1;
        let tag = hash >> 32;
        let mut slot = hash as usize & mask;
        loop {
            let held = self.slots[slot];
            if held == 0 {
                break;
            }
            let place = (held as u32 - 1) as usize;
            if held >> 32 == tag && self.get(place) == key {
                self.counts[place] += count;
                return Ok(place as u32);
            }
            slot = (slot + 1) & mask;
        }
        let place = self.ends.len() as u64;
        if place >= u64::from(u32::MAX) {
            return Err(LimitError { limit: "distinct pretokens or runs".to_owned(), value: place });
        }
        self.slots[slot] = tag << 32 | (place + 1);
        self.arena.extend_from_slice(key);
        self.ends.push(self.arena.len());
        self.counts.push(count);
        Ok(place as u32)
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(1024);
        self.slots = vec![0; size];
        for place in 0..self.len() {
            let hash = hash(self.get(place));
            let mut slot = hash as usize & (size - 1);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            self.slots[slot] = hash >> 32 << 32 | (place as u64 + 1);
        }
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(key);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_keeps_the_order_of_first_sight() {
        let mut table = Table::default();
        for n in (0u32..5000).chain(0..2500) {
            let place = table.add(&n.to_le_bytes(), 2).expect("room");
            assert_eq!(place, n);
        }
        assert_eq!(table.len(), 5000);
        assert_eq!((table.count(7), table.count(4999)), (4, 2));
        assert_eq!(table.get(300), &300u32.to_le_bytes());
        assert_eq!(table.add(b"", 1).expect("room"), 5000, "the empty string is a string");
        assert_eq!(table.get(5000), b"");
    }
}
