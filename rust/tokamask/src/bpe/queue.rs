//! Pieces that the cache does not know wait until enough of them can be merged side by side. The ids around them
//! wait as well: a row of ids with holes.

use super::cache::{Entry, Key, Table};
use super::encoder::{Encoder, Sink, Tables, Work};
use super::keys::{long_bytes, short_bytes};
use super::lanes::{self, Word};
#[cfg(target_arch = "x86_64")]
use super::vectors::{Avx2, Avx512};
use super::vectors::{Portable, Vectors};
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
/// Ids that are copied at once.
const STEP: usize = 8;
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
    /// The row without holes.
    filled: Vec<u32>,
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
        Self {
            row: Vec::new(),
            used: 0,
            holes: Vec::new(),
            short: Vec::new(),
            wide: Vec::new(),
            found: Vec::new(),
            filled: Vec::new(),
            noted: [u16::MAX; NOTED],
        }
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
    fn send(&mut self, sink: &mut impl Sink) {
        let Self { row, used, holes, short, wide, found, filled, .. } = self;
        if holes.is_empty() {
            return sink.ids(&row[..*used]);
        }
        let ids_of = |hole: &Hole| {
            let nth = (hole.piece & !IS_WIDE) as usize;
            let (from, to) = if hole.piece < IS_WIDE { short[nth].ids } else { wide[nth].ids };
            (from as usize, (to - from) as usize)
        };
        // Stretches are copied in whole steps, so that their lengths are hardly branched on.
        let missing: usize = holes.iter().map(|hole| ids_of(hole).1).sum();
        let room = *used + missing + 2 * STEP;
        filled.resize(filled.len().max(room), 0);
        row.resize(row.len().max(*used + STEP), 0);
        found.resize(found.len() + STEP, 0);
        let (mut from, mut to) = (0, 0);
        for hole in &*holes {
            let at = hole.at as usize;
            copy(row, from, filled, to, at - from);
            to += at - from;
            from = at;
            let (start, count) = ids_of(hole);
            copy(found, start, filled, to, count);
            to += count;
        }
        copy(row, from, filled, to, *used - from);
        sink.ids(&filled[..to + *used - from]);
    }
}

/// Copies so many ids, and perhaps some more; both slices have a [`STEP`] behind them.
#[inline(always)]
fn copy(source: &[u32], from: usize, target: &mut [u32], to: usize, count: usize) {
    let mut done = 0;
    while done < count {
        let ids = source[from + done..].first_chunk::<STEP>();
        if let (Some(ids), Some(place)) = (ids, target[to + done..].first_chunk_mut()) {
            *place = *ids;
        }
        done += STEP;
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
            if std::arch::is_x86_feature_detected!("avx512f") {
                // SAFETY: the features were just detected (BMI1, LZCNT and POPCNT come with AVX2).
                return unsafe { self.resolve_avx512(work, tables) };
            }
            // SAFETY: as above.
            return unsafe { self.resolve_avx2(work, tables) };
        }
        self.resolve_by::<Portable>(work, tables);
    }

    /// The same code, compiled for vectors of 32 bytes.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn resolve_avx2(&self, work: &mut Work, tables: &mut Tables) {
        self.resolve_by::<Avx2>(work, tables);
    }

    /// And of 64.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn resolve_avx512(&self, work: &mut Work, tables: &mut Tables) {
        self.resolve_by::<Avx512>(work, tables);
    }

    #[inline(always)]
    fn resolve_by<V: Vectors>(&self, work: &mut Work, tables: &mut Tables) {
        let Work { queue: Queue { short, wide, found, .. }, words, wide_words, .. } = work;
        for missing in short.iter().rev().take(KEY_AHEAD) {
            self.whole.prefetch_key(missing.hash);
        }
        let token = |missing: &Missing<2>| self.whole.get_short(&missing.key, missing.hash);
        if self.merge::<V, 16, 4, 2>(short, found, words, &tables.short, token, short_bytes) {
            tables.short = self.short.replace(&tables.short);
        }
        if wide.is_empty() {
            return;
        }
        let token = |missing: &Missing<5>| {
            let (bytes, length) = long_bytes(&missing.key);
            self.whole.get(&bytes[..length as usize])
        };
        if self.merge::<V, 32, 8, 5>(wide, found, wide_words, &tables.wide, token, long_bytes) {
            tables.wide = self.wide.replace(&tables.wide);
        }
    }

    /// Merges the pieces that wait for one table and are no `token`; true if the table is full.
    #[inline(always)]
    fn merge<V: Vectors, const C: usize, const W: usize, const K: usize>(
        &self,
        waiting: &mut [Missing<K>],
        found: &mut Vec<u32>,
        words: &mut Vec<Word<C>>,
        table: &Table<W, K>,
        token: impl Fn(&Missing<K>) -> u32,
        bytes: impl Fn(&Key<K>) -> ([u8; C], u32),
    ) -> bool {
        words.clear();
        for (nth, missing) in waiting.iter_mut().enumerate() {
            let id = token(missing);
            if id == NONE {
                let (bytes, length) = bytes(&missing.key);
                lanes::prefetch_first(&self.first, &bytes);
                words.push(Word { bytes, length, tag: nth as u32 });
            } else {
                missing.ids = (found.len() as u32, found.len() as u32 + 1);
                found.push(id);
            }
        }
        let first = found.len();
        lanes::run::<V, C>(&self.lane_tables(), words, |nth, symbols, count| {
            let start = found.len();
            found.extend_from_slice(symbols);
            found.truncate(start + count);
            waiting[nth].ids = (start as u32, (start + count) as u32);
        });
        // Symbols become ids: all at once, since each waits for memory.
        for symbol in &mut found[first..] {
            *symbol = self.bpe.ids[*symbol as usize];
        }
        let entry = |missing: &'_ Missing<K>| missing.ids.0 as usize..missing.ids.1 as usize;
        table.add(waiting.iter().map(|missing| (&missing.key, missing.hash, &found[entry(missing)])))
    }
}

#[cfg(test)]
mod tests {
    use super::super::encoder::Encoder;
    use super::super::Merges;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Tokens as they come; enough pieces that the queue fills several times, some of them known by then.
        #[test]
        fn pieces_encode_as_they_are_defined(
            tokens in prop::collection::btree_set(prop::collection::vec(prop::sample::select(b"abcd".to_vec()), 2..9), 0..60),
            letters in prop::collection::vec(prop::sample::select(b"aaabbcd".to_vec()), 64..3000),
            lengths in prop::collection::vec(1usize..40, 1..20),
        ) {
            let bytes = b"abcd".map(|byte| vec![byte]);
            let tokens: Vec<Option<&[u8]>> = bytes.iter().chain(&tokens).map(|token| Some(&token[..])).collect();
            let Ok(encoder) = Encoder::new(&tokens, &Merges::Ranks, false) else { return Ok(()) }; // late tokens that vie
            let mut starts = vec![0u32];
            for length in lengths.iter().cycle() {
                let start = starts[starts.len() - 1] as usize;
                if start >= letters.len() {
                    break;
                }
                starts.push((start + length).min(letters.len()) as u32);
            }
            let mut wanted = Vec::new();
            for span in starts.windows(2) {
                encoder.bpe().encode_piece(&letters[span[0] as usize..span[1] as usize], &mut wanted);
            }
            for _ in 0..2 {
                let (mut ids, mut left) = (Vec::new(), Some(&starts));
                encoder.encode(&letters, |all| all.extend(left.take().into_iter().flatten()), &mut ids);
                prop_assert_eq!(&ids, &wanted);
            }
        }
    }
}
