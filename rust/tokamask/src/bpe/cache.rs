//! The pretoken cache: what a piece was encoded to, shared by all threads without locks.
//!
//! Open addressing; a slot is written once and never changes. The first word of a slot is its
//! publication: 0 is empty, [`BUSY`] is being written, anything else is part of the key and says
//! that the rest is there. Readers never wait. A full table is replaced by a larger one, and at the
//! bound by an empty one; who still reads the old one keeps it alive.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use bytemuck::Zeroable;

use super::huge::{prefetch, Huge};

/// Ids are below this; the bits above it in the first id of a slot are their number.
const ID_BITS: u32 = 29;
const ID: u32 = (1 << ID_BITS) - 1;
const PAIR: u64 = (ID as u64) << 32 | ID as u64;
/// "The ids are in the pool": the first id is their number, the second where they begin.
const POOLED: u64 = 7;
const BUSY: u64 = u64::MAX;

/// A slot of `W` words: `K` of key, then ids.
#[repr(align(32))]
pub struct Slot<const W: usize>([AtomicU64; W]);

// SAFETY: atomics have the layout of their integers, for which zero is valid.
unsafe impl<const W: usize> Zeroable for Slot<W> {}

#[repr(transparent)]
struct PoolWord(AtomicU32);

// SAFETY: as above.
unsafe impl Zeroable for PoolWord {}

/// One generation of the cache, for keys of `K` words in slots of `W`.
pub struct Table<const W: usize, const K: usize> {
    slots: Huge<Slot<W>>,
    mask: usize,
    used: AtomicUsize,
    pool: Huge<PoolWord>,
    pooled: AtomicUsize,
}

/// A key whose first word is neither 0 nor all ones.
pub type Key<const K: usize> = [u64; K];

/// What a slot holds.
pub enum Entry<'a> {
    /// Up to four ids, and how many.
    Few([u64; 2], usize),
    /// Words of two ids each, and how many ids.
    Words(&'a [AtomicU64], usize),
    /// A stretch of the pool.
    Pooled(PoolRange<'a>),
}

/// Ids in the pool.
#[derive(Clone, Copy)]
pub struct PoolRange<'a>(&'a [PoolWord]);

/// The two ids of a word.
#[inline(always)]
pub fn ids_of(word: &AtomicU64) -> [u32; 2] {
    let pair = word.load(Ordering::Relaxed) & PAIR;
    [pair as u32, (pair >> 32) as u32]
}

impl Entry<'_> {
    /// Appends the ids.
    #[inline]
    pub fn append(&self, ids: &mut Vec<u32>) {
        match self {
            Self::Few(words, count) => {
                let four =
                    [words[0] as u32, (words[0] >> 32) as u32, words[1] as u32, (words[1] >> 32) as u32];
                ids.extend_from_slice(&four[..*count]);
            }
            Self::Words(words, count) => {
                ids.extend(words.iter().flat_map(ids_of).take(*count));
            }
            Self::Pooled(range) => ids.extend(range.0.iter().map(|word| word.0.load(Ordering::Relaxed))),
        }
    }
}

impl<const W: usize, const K: usize> Table<W, K> {
    /// First slots of a probe are even, so short slots share a cache line with their neighbour.
    const STEP: usize = if W == 4 { 2 } else { 1 };
    const INLINE: usize = 2 * (W - K);

    fn new(slots: usize) -> Self {
        Self {
            slots: Huge::zeroed(slots),
            mask: slots - Self::STEP,
            used: AtomicUsize::new(0),
            pool: Huge::zeroed(slots),
            pooled: AtomicUsize::new(0),
        }
    }

    /// Brings the first slots of a probe into the cache.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.slots, self.home(hash));
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        (hash as usize).wrapping_mul(Self::STEP) & self.mask
    }

    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // without link-time optimisation a zip stays a call
    fn is(slot: &Slot<W>, key: &Key<K>) -> bool {
        let mut other = slot.0[0].load(Ordering::Acquire) ^ key[0];
        for nth in 1..K {
            other |= slot.0[nth].load(Ordering::Relaxed) ^ key[nth];
        }
        other == 0
    }

    /// Ids of a key that stands in the first two slots of its probe with at most four ids, as two
    /// words and their number; 0: not there.
    #[inline(always)]
    pub fn quick(&self, key: &Key<K>, hash: u64) -> ([u64; 2], usize) {
        let home = self.home(hash);
        let Some(pair) = self.slots[home..].first_chunk::<2>() else { return ([0; 2], 0) };
        let (first, second) = (Self::is(&pair[0], key), Self::is(&pair[1], key));
        let slot = &pair[usize::from(second)];
        let words = [slot.0[K].load(Ordering::Relaxed), slot.0[K + 1].load(Ordering::Relaxed)];
        let count = (words[0] as u32 >> ID_BITS) as usize;
        let count = if first | second { count } else { 0 };
        ([words[0] & PAIR, words[1]], if count > 4 { 0 } else { count })
    }

    /// The ids of a key.
    #[inline]
    pub fn get(&self, key: &Key<K>, hash: u64) -> Option<Entry<'_>> {
        let mut at = self.home(hash);
        loop {
            let slot = &self.slots[at];
            if Self::is(slot, key) {
                return Some(self.entry(slot));
            }
            if slot.0[0].load(Ordering::Relaxed) == 0 {
                return None;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn entry<'a>(&'a self, slot: &'a Slot<W>) -> Entry<'a> {
        let words = &slot.0[K..];
        let first = words[0].load(Ordering::Relaxed);
        let count = u64::from(first as u32 >> ID_BITS);
        if count == POOLED {
            let (count, start) = (first as u32 & ID, (first >> 32) as usize);
            return Entry::Pooled(PoolRange(&self.pool[start..start + count as usize]));
        }
        if W == 4 {
            return Entry::Few([first & PAIR, words[1].load(Ordering::Relaxed)], count as usize);
        }
        Entry::Words(words, count as usize)
    }

    /// Adds keys with their hashes and ids, unless they are there or there is no room; true if the table should be
    /// replaced.
    #[inline(always)]
    pub fn add<'a>(&self, entries: impl Iterator<Item = (&'a Key<K>, u64, &'a [u32])>) -> bool {
        // Counted at the end: every atomic addition would wait for all stores before it.
        let room = (self.slots.len() / 2).saturating_sub(self.used.load(Ordering::Relaxed));
        let (mut full, mut added) = (false, 0);
        for (key, hash, ids) in entries {
            if added >= room {
                full = true;
            } else if !ids.is_empty() {
                match self.words_of(ids) {
                    Some(words) => added += usize::from(self.put(key, hash, &words)),
                    None => full = true,
                }
            }
        }
        self.used.fetch_add(added, Ordering::Relaxed);
        full
    }

    /// What a slot holds for these ids; `None` if the pool is full.
    #[inline(always)]
    fn words_of(&self, ids: &[u32]) -> Option<[u64; W]> {
        let mut words = [0u64; W];
        if ids.len() <= Self::INLINE {
            for (nth, &id) in ids.iter().enumerate() {
                words[nth / 2] |= u64::from(id) << (32 * (nth % 2));
            }
            words[0] |= (ids.len() as u64) << ID_BITS;
        } else {
            let start = self.pooled.fetch_add(ids.len(), Ordering::Relaxed);
            for (word, &id) in self.pool.get(start..start + ids.len())?.iter().zip(ids) {
                word.0.store(id, Ordering::Relaxed);
            }
            words[0] = POOLED << ID_BITS | ids.len() as u64 | (start as u64) << 32;
        }
        Some(words)
    }

    /// Fills a slot; false if none was taken.
    #[inline(always)]
    fn put(&self, key: &Key<K>, hash: u64, words: &[u64; W]) -> bool {
        let mut at = self.home(hash);
        loop {
            let slot = &self.slots[at].0;
            let claim = slot[0].compare_exchange(0, BUSY, Ordering::Relaxed, Ordering::Relaxed);
            if claim.is_ok() {
                for (word, value) in slot[1..].iter().zip(key[1..].iter().chain(words)) {
                    word.store(*value, Ordering::Relaxed);
                }
                slot[0].store(key[0], Ordering::Release);
                return true;
            }
            if claim == Err(BUSY) || Self::is(&self.slots[at], key) {
                return false; // somebody else is adding this or its neighbour: a cache may forget
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

/// The cache of one tokenizer.
pub struct Cache<const W: usize, const K: usize> {
    table: RwLock<Arc<Table<W, K>>>,
    first: usize,
    most: usize,
    hash: fn(&Key<K>, &Seeds) -> u64,
    seeds: Seeds,
}

/// What makes hashes of this process its own: nobody can choose colliding texts in advance.
pub type Seeds = [u64; 4];

impl<const W: usize, const K: usize> Cache<W, K> {
    /// A cache that starts with `first` slots and ends with `most`, both powers of two.
    pub fn new(first: usize, most: usize, hash: fn(&Key<K>, &Seeds) -> u64, seeds: Seeds) -> Self {
        Self { table: RwLock::new(Arc::new(Table::new(first))), first, most, hash, seeds }
    }

    /// The table of now. Taken once per call, not per piece.
    pub fn table(&self) -> Arc<Table<W, K>> {
        let table = self.table.read();
        Arc::clone(&table.unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The table after `full`: larger with the same entries, or empty at the bound.
    #[cold]
    pub fn replace(&self, full: &Arc<Table<W, K>>) -> Arc<Table<W, K>> {
        let mut table = self.table.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !Arc::ptr_eq(&table, full) {
            return Arc::clone(&table); // another thread was here
        }
        let slots = full.slots.len() * 4;
        let fresh = if slots > self.most { Table::new(self.first) } else { Table::new(slots) };
        if slots <= self.most {
            let mut ids = Vec::new();
            for slot in full.slots.iter() {
                let key: Key<K> = std::array::from_fn(|nth| slot.0[nth].load(Ordering::Acquire));
                if key[0] != 0 && key[0] != BUSY {
                    ids.clear();
                    full.entry(slot).append(&mut ids);
                    fresh.add([(&key, (self.hash)(&key, &self.seeds), &ids[..])].into_iter());
                }
            }
        }
        *table = Arc::new(fresh);
        Arc::clone(&table)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let fresh = Arc::new(Table::new(self.first));
        *self.table.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
    }
}

/// Two words to one, both halves of the product.
#[inline(always)]
pub fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}
