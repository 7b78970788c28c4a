//! Pieces that the cache does not know wait until enough of them can be merged side by side. The ids around them
//! wait as well: a row of ids with holes.

use super::cache::{Entry, Key};
use super::encoder::{Encoder, Short, Sink, Tables, Wide, Work};
use super::keys::{long_bytes, short_bytes};
use super::lanes::{self, Word};
use super::NONE;

/// Pieces that wait until they are merged: several times the lanes, so that few of them end alone.
const ENOUGH: usize = 128;
/// Ids that wait for pieces to be merged.
const MOST: usize = 1 << 13;
/// Ids that wait for nothing before they are handed on.
const KNOWN: usize = 1 << 11;
/// New pieces between asking for the slot of a token and for its key.
const KEY_AHEAD: usize = 4;
/// Places of the table of what waits.
const NOTED: usize = 1 << 10;
/// In the number of a piece: it is wide.
const IS_WIDE: u32 = 1 << 31;

/// A different piece that waits.
pub struct Missing<const K: usize> {
    key: Key<K>,
    hash: u64,
    /// Its ids, in `found`, once it was merged.
    ids: (u32, u32),
}

/// Where the ids of a piece are missing.
struct Hole {
    /// Before this id of the row.
    at: u32,
    /// Number of the piece that waits.
    piece: u32,
}

/// A row of ids and what is missing in it.
pub struct Queue {
    /// Ids in the order of the text; there is more room than is used.
    pub row: Vec<u32>,
    /// How many ids there are.
    pub used: usize,
    holes: Vec<Hole>,
    short: Vec<Missing<2>>,
    wide: Vec<Missing<5>>,
    found: Vec<u32>,
    /// By hash: the piece that was noted last.
    noted: [u16; NOTED],
}

/// The number of a piece among those that wait, noting it if it is new; and whether it is.
fn note<const K: usize>(
    waiting: &mut Vec<Missing<K>>,
    noted: &mut [u16; NOTED],
    key: &Key<K>,
    hash: u64,
) -> (u32, bool) {
    let place = &mut noted[(hash >> 32) as usize % NOTED];
    if waiting.get(usize::from(*place)).is_some_and(|known| known.key == *key) {
        return ((*place).into(), false);
    }
    *place = waiting.len() as u16;
    waiting.push(Missing { key: *key, hash, ids: (0, 0) });
    ((*place).into(), true)
}

impl Queue {
    /// An empty one.
    pub fn new() -> Self {
        let (holes, short, wide) = (Vec::new(), Vec::new(), Vec::new());
        Self { row: Vec::new(), used: 0, holes, short, wide, found: Vec::new(), noted: [u16::MAX; NOTED] }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.used = 0;
        if !self.holes.is_empty() {
            self.holes.clear();
            self.short.clear();
            self.wide.clear();
            self.found.clear();
            self.noted.fill(u16::MAX);
        }
    }

    /// Makes room for so many more ids.
    #[inline]
    pub fn reserve(&mut self, more: usize) {
        if self.row.len() < self.used + more {
            self.row.resize(self.used + more, 0);
        }
    }

    /// Adds ids to the row and keeps the room behind it.
    pub fn append(&mut self, ids: &[u32]) {
        let left = self.row.len() - self.used;
        self.reserve(ids.len() + left);
        self.row[self.used..self.used + ids.len()].copy_from_slice(ids);
        self.used += ids.len();
    }

    /// Adds what the cache knows.
    pub fn add(&mut self, entry: &Entry) {
        match entry {
            Entry::Few(words, count) => {
                let ids =
                    [words[0] as u32, (words[0] >> 32) as u32, words[1] as u32, (words[1] >> 32) as u32];
                self.append(&ids[..*count]);
            }
            entry => {
                let mut ids = Vec::new();
                entry.append(&mut ids);
                self.append(&ids);
            }
        }
    }

    /// True if it should go on to the sink.
    #[inline]
    pub fn is_ripe(&self) -> bool {
        let waiting = self.short.len() + self.wide.len();
        waiting >= ENOUGH || self.used >= if waiting == 0 { KNOWN } else { MOST }
    }

    /// A hole for a short piece; true if the piece is new here.
    pub fn miss(&mut self, key: &Key<2>, hash: u64) -> bool {
        let (piece, new) = note(&mut self.short, &mut self.noted, key, hash);
        self.holes.push(Hole { at: self.used as u32, piece });
        new
    }

    /// The hash of a short piece that was noted some pieces ago.
    pub fn earlier(&self) -> Option<u64> {
        let nth = self.short.len().checked_sub(KEY_AHEAD)?;
        self.short.get(nth).map(|missing| missing.hash)
    }

    /// A hole for a wide piece.
    pub fn miss_wide(&mut self, key: &Key<5>, hash: u64) {
        let (piece, _) = note(&mut self.wide, &mut self.noted, key, hash);
        self.holes.push(Hole { at: self.used as u32, piece: piece | IS_WIDE });
    }

    /// Sends the row, its holes filled.
    fn send(&self, sink: &mut impl Sink) {
        let mut from = 0;
        for hole in &self.holes {
            let at = hole.at as usize;
            if from < at {
                sink.ids(&self.row[from..at]);
                from = at;
            }
            let nth = (hole.piece & !IS_WIDE) as usize;
            let ids = if hole.piece < IS_WIDE { self.short[nth].ids } else { self.wide[nth].ids };
            sink.ids(&self.found[ids.0 as usize..ids.1 as usize]);
        }
        sink.ids(&self.row[from..self.used]);
    }
}

impl Encoder {
    /// Merges what waits and hands all ids on.
    pub(super) fn flush(&self, work: &mut Work, tables: &mut Tables, sink: &mut impl Sink) {
        if !work.queue.holes.is_empty() {
            self.resolve(work, tables);
        }
        work.queue.send(sink);
        work.queue.clear();
    }

    #[inline(never)]
    fn resolve(&self, work: &mut Work, tables: &mut Tables) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("bmi2") {
            // SAFETY: the features were just detected (BMI1, LZCNT and POPCNT come with AVX2).
            return unsafe { self.resolve_avx2(work, tables) };
        }
        self.resolve_portable(work, tables);
    }

    /// The same code, compiled for wide vectors.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn resolve_avx2(&self, work: &mut Work, tables: &mut Tables) {
        self.resolve_portable(work, tables);
    }

    #[inline(always)]
    fn resolve_portable(&self, work: &mut Work, tables: &mut Tables) {
        if self.resolve_short(&mut work.queue, &mut work.words, &tables.short) {
            tables.short = self.short.replace(&tables.short);
        }
        if !work.queue.wide.is_empty()
            && self.resolve_wide(&mut work.queue, &mut work.wide_words, &tables.wide)
        {
            tables.wide = self.wide.replace(&tables.wide);
        }
    }

    /// Pieces with short keys; true if the table is full.
    #[inline(always)]
    fn resolve_short(&self, queue: &mut Queue, words: &mut Vec<Word<16>>, table: &Short) -> bool {
        let Queue { short, found, .. } = queue;
        for missing in short.iter().rev().take(KEY_AHEAD) {
            self.whole.prefetch_key(missing.hash);
        }
        words.clear();
        let mut full = false;
        for (nth, missing) in short.iter_mut().enumerate() {
            let id = self.whole.get_short(&missing.key, missing.hash);
            if id == NONE {
                let (bytes, length) = short_bytes(&missing.key);
                lanes::prefetch_first(&self.first, &bytes);
                words.push(Word { bytes, length, tag: nth as u32 });
            } else {
                missing.ids = (found.len() as u32, found.len() as u32 + 1);
                found.push(id);
                full |= table.add(&missing.key, missing.hash, &[id]);
            }
        }
        let first = found.len();
        lanes::run(&self.lane_tables(), words, |nth, symbols| {
            short[nth].ids = (found.len() as u32, (found.len() + symbols.len()) as u32);
            found.extend_from_slice(symbols);
        });
        self.to_ids(&mut found[first..]);
        for word in words {
            let Missing { key, hash, ids } = &short[word.tag as usize];
            full |= table.add(key, *hash, &found[ids.0 as usize..ids.1 as usize]);
        }
        full
    }

    /// Symbols become ids: all at once, since each waits for memory.
    #[inline(always)]
    fn to_ids(&self, symbols: &mut [u32]) {
        for symbol in symbols {
            *symbol = self.bpe.ids[*symbol as usize];
        }
    }

    /// Pieces of 16 to 31 bytes; true if the table is full.
    #[inline(always)]
    fn resolve_wide(&self, queue: &mut Queue, words: &mut Vec<Word<32>>, table: &Wide) -> bool {
        let Queue { wide, found, .. } = queue;
        words.clear();
        let mut full = false;
        for (nth, missing) in wide.iter_mut().enumerate() {
            let (bytes, length) = long_bytes(&missing.key);
            let id = self.whole.get(&bytes[..length as usize]);
            if id == NONE {
                words.push(Word { bytes, length, tag: nth as u32 });
            } else {
                missing.ids = (found.len() as u32, found.len() as u32 + 1);
                found.push(id);
                full |= table.add(&missing.key, missing.hash, &[id]);
            }
        }
        let first = found.len();
        lanes::run(&self.lane_tables(), words, |nth, symbols| {
            wide[nth].ids = (found.len() as u32, (found.len() + symbols.len()) as u32);
            found.extend_from_slice(symbols);
        });
        self.to_ids(&mut found[first..]);
        for word in words {
            let Missing { key, hash, ids } = &wide[word.tag as usize];
            full |= table.add(key, *hash, &found[ids.0 as usize..ids.1 as usize]);
        }
        full
    }
}
