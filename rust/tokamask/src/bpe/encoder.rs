//! The hot path: pieces in batches. Keys, hashes and prefetches for the whole batch; then lookups
//! and output; the misses of a batch are resolved together.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::barriers::Barriers;
use super::cache::{Cache, Seeds, Table};
use super::keys::{
    long_hash, long_key, short_bytes, short_hash, short_key_at, LongKey, ShortKey, LONG, NO_KEY, SHORT,
};
use super::lanes::{self, Word};
use super::long::Joiner;
use super::whole::Whole;
use super::{Bpe, Merges, NONE};
use crate::error::VocabularyError;

/// Pieces in a batch: enough to hold the misses that the lanes interleave (128: 347 ns a miss,
/// 512: 265).
pub const BATCH: usize = 512;
/// Pieces from [`LONG`] to this are cached whole.
const SHELVED: usize = 256;
/// Pieces on each shelf before it is cleared.
const SHELF: usize = 1 << 12;
const SHELVES: usize = 16;
/// A block of a long piece ends among its last so many places, where a merge is least likely.
const CHOICE: usize = 8;

type Short = Table<4, 2>;
type Wide = Table<8, 5>;
type Shelf = Mutex<FxHashMap<Box<[u8]>, Box<[u32]>>>;

/// Encodes pieces with the tables of a vocabulary and a cache that all threads share.
pub struct Encoder {
    bpe: Bpe,
    whole: Whole,
    /// What two bytes merge into.
    first: Vec<u32>,
    /// Every byte has a symbol.
    complete: bool,
    short: Cache<4, 2>,
    wide: Cache<8, 5>,
    shelves: [Shelf; SHELVES],
    barriers: Barriers,
    /// Some token is found whole and yet never made by merging.
    odd: bool,
    seeds: Seeds,
}

/// Scratch space of a thread, of bounded size.
struct Work {
    starts: Vec<u32>,
    /// The starts with the barriers of long pieces.
    cuts: Vec<u32>,
    keys: Box<[ShortKey; BATCH]>,
    hashes: Box<[u64; BATCH]>,
    out: Box<[u32; 4 * BATCH + 4]>,
    missing: Vec<u16>,
    words: Vec<Word<16>>,
    wide_words: Vec<Word<32>>,
    symbols: Vec<u32>,
}

thread_local! {
    static WORK: RefCell<Work> = RefCell::new(Work::new());
}

/// Where ids go.
pub trait Sink {
    /// More ids.
    fn ids(&mut self, ids: &[u32]);
}

impl Sink for Vec<u32> {
    #[inline]
    fn ids(&mut self, ids: &[u32]) {
        self.extend_from_slice(ids);
    }
}

/// A sink that only counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count(pub usize);

impl Sink for Count {
    #[inline]
    fn ids(&mut self, ids: &[u32]) {
        self.0 += ids.len();
    }
}

/// The cache tables of one call.
struct Tables {
    short: Arc<Short>,
    wide: Arc<Wide>,
}

impl Encoder {
    /// Builds the tables; see [`Bpe::new`].
    pub fn new(
        tokens: &[Option<&[u8]>],
        merges: &Merges,
        whole_pieces: bool,
    ) -> Result<Self, VocabularyError> {
        let bpe = Bpe::new(tokens, merges)?;
        let seeds = seeds();
        let whole = Whole::new(tokens, |id| whole_pieces || bpe.symbols[id] != NONE, seeds);
        let mut first = vec![NONE; 1 << 16];
        for (pair, symbol) in first.iter_mut().enumerate() {
            let (left, right) = (bpe.bytes[pair >> 8], bpe.bytes[pair & 255]);
            if left != NONE && right != NONE {
                *symbol = bpe.pairs.get(left, right);
            }
        }
        Ok(Self {
            complete: !bpe.bytes.contains(&NONE),
            whole,
            first,
            short: Cache::new(1 << 16, 1 << 20, short_hash, seeds),
            wide: Cache::new(1 << 12, 1 << 16, long_hash, seeds),
            shelves: std::array::from_fn(|_| Mutex::default()),
            barriers: Barriers::new(tokens.iter().copied().flatten()),
            odd: whole_pieces && tokens.iter().zip(&bpe.symbols).any(|(t, &s)| t.is_some() && s == NONE),
            bpe,
            seeds,
        })
    }

    /// The merge tables.
    pub fn bpe(&self) -> &Bpe {
        &self.bpe
    }

    /// Forgets every cached piece.
    pub fn clear(&self) {
        self.short.clear();
        self.wide.clear();
        for shelf in &self.shelves {
            shelf.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Encodes `text`, cut by `fill`, which appends to an empty vector the starts of the next
    /// pieces and the end of the last of them, or nothing at the end.
    pub fn encode(&self, text: &[u8], mut fill: impl FnMut(&mut Vec<u32>), sink: &mut impl Sink) {
        WORK.with(|work| {
            // A sink or a splitter that encodes in turn would find the scratch space taken.
            let mut own;
            let mut taken = work.try_borrow_mut();
            let work = if let Ok(work) = &mut taken {
                &mut **work
            } else {
                own = Work::new();
                &mut own
            };
            let mut tables = Tables { short: self.short.table(), wide: self.wide.table() };
            let mut starts = std::mem::take(&mut work.starts);
            loop {
                starts.clear();
                fill(&mut starts);
                if starts.len() < 2 {
                    break;
                }
                let mut cuts = std::mem::take(&mut work.cuts);
                let starts = if self.cut(text, &starts, &mut cuts) { &cuts } else { &starts };
                self.pieces(text, starts, work, &mut tables, sink);
                work.cuts = cuts;
            }
            work.starts = starts;
        });
    }

    /// The starts again, with the barriers inside pieces that are not short; false if there are none.
    fn cut(&self, text: &[u8], starts: &[u32], cuts: &mut Vec<u32>) -> bool {
        cuts.clear();
        let mut copied = 0;
        for (nth, piece) in starts.windows(2).enumerate() {
            if piece[1] - piece[0] < SHORT as u32 {
                continue;
            }
            let (start, end) = (piece[0] as usize, piece[1] as usize);
            let Some(first) = self.barriers.first(&text[start..end]) else { continue };
            let before = cuts.len();
            cuts.extend_from_slice(&starts[copied..=nth]);
            let own = cuts.len();
            self.barriers.cut(text, start, end, first, cuts);
            copied = nth + 1;
            // A token that merging does not make is one only where it is the whole piece.
            let odd = |from: u32, to: u32| {
                let id = self.whole.get(&text[from as usize..to as usize]);
                id != NONE && self.bpe.symbols[id as usize] == NONE
            };
            if self.odd {
                let ends = cuts[own..].iter().copied().chain([piece[1]]);
                if cuts[own - 1..].iter().zip(ends).any(|(&from, to)| odd(from, to)) {
                    cuts.truncate(before);
                    copied = nth + 1 - (own - before);
                }
            }
        }
        cuts.extend_from_slice(&starts[copied..]);
        copied > 0
    }

    /// Pieces of any length.
    fn pieces(
        &self,
        text: &[u8],
        starts: &[u32],
        work: &mut Work,
        tables: &mut Tables,
        sink: &mut impl Sink,
    ) {
        let mut from = 0;
        for nth in 1..starts.len() {
            let (start, end) = (starts[nth - 1] as usize, starts[nth] as usize);
            if end - start >= LONG {
                self.batches(text, &starts[from..nth], work, tables, sink);
                self.long(&text[start..end], work, tables, sink);
                from = nth;
            }
        }
        self.batches(text, &starts[from..], work, tables, sink);
    }

    /// Pieces below [`LONG`].
    fn batches(
        &self,
        text: &[u8],
        starts: &[u32],
        work: &mut Work,
        tables: &mut Tables,
        sink: &mut impl Sink,
    ) {
        let mut rest = starts;
        while rest.len() > 1 {
            let count = rest.len().min(BATCH + 1);
            self.batch(text, &rest[..count], work, tables, sink);
            rest = &rest[count - 1..];
        }
    }

    /// A piece of [`LONG`] bytes or more.
    fn long(&self, piece: &[u8], work: &mut Work, tables: &mut Tables, sink: &mut impl Sink) {
        let id = self.whole.get(piece);
        if id != NONE {
            return sink.ids(&[id]);
        }
        let mut ids = Vec::new();
        if piece.len() >= SHELVED {
            self.in_blocks(piece, work, tables, &mut ids);
            return sink.ids(&ids);
        }
        let key = long_key(&piece[..LONG - 1]);
        let nth = (long_hash(&key, &self.seeds) ^ piece.len() as u64) as usize % SHELVES;
        let shelf = || self.shelves[nth].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shelf().get(piece) {
            return sink.ids(known);
        }
        self.in_blocks(piece, work, tables, &mut ids);
        let mut shelf = shelf();
        if shelf.len() >= SHELF {
            shelf.clear();
        }
        shelf.insert(piece.into(), ids[..].into());
        sink.ids(&ids);
    }

    /// A piece of [`LONG`] bytes or more, see [`long`](super::long).
    fn in_blocks(&self, piece: &[u8], work: &mut Work, tables: &mut Tables, ids: &mut Vec<u32>) {
        if !self.has_symbols(piece) {
            return self.bpe.encode_piece(piece, ids); // without the bytes that the vocabulary lacks
        }
        let mut symbols = Vec::new();
        if piece.iter().all(|&byte| byte == piece[0]) && self.bpe.run_of(piece[0], piece.len(), &mut symbols)
        {
            ids.extend(symbols.iter().map(|&symbol| self.bpe.ids[symbol as usize]));
            return;
        }
        let mut joiner = Joiner::new(&self.bpe, piece);
        let mut blocks = vec![0];
        let mut start = 0;
        while start < piece.len() {
            let end = self.block(piece, start);
            blocks.push(end as u32);
            start = end;
            if blocks.len() > BATCH || start == piece.len() {
                ids.clear();
                self.batch(piece, &blocks, work, tables, ids);
                let mut left = &ids[..];
                for block in blocks.windows(2) {
                    let mut length = (block[1] - block[0]) as usize;
                    symbols.clear();
                    while let (Some((&id, rest)), true) = (left.split_first(), length > 0) {
                        let symbol = self.bpe.symbols[id as usize];
                        if symbol == NONE {
                            // A whole token that merging does not make: the block is that token.
                            let mut parts = Vec::new();
                            self.bpe.merge_all(&piece[block[0] as usize..block[1] as usize], &mut parts);
                            symbols.extend(parts);
                            length = 0;
                        } else {
                            length -= self.bpe.length(symbol).min(length);
                            symbols.push(symbol);
                        }
                        left = rest;
                    }
                    joiner.add(&symbols);
                }
                blocks.clear();
                blocks.push(end as u32);
            }
        }
        ids.clear();
        ids.extend(joiner.symbols().iter().map(|&symbol| self.bpe.ids[symbol as usize]));
    }

    /// The end of the block that starts at `start`: where the two bytes merge latest.
    fn block(&self, piece: &[u8], start: usize) -> usize {
        let most = start + LONG - 1;
        if most >= piece.len() {
            return piece.len();
        }
        let merged = |at: &usize| self.first[usize::from(piece[at - 1]) << 8 | usize::from(piece[*at])];
        (most + 1 - CHOICE..=most).rev().max_by_key(merged).unwrap_or(most)
    }

    fn batch(&self, text: &[u8], starts: &[u32], work: &mut Work, tables: &mut Tables, sink: &mut impl Sink) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("bmi2") {
            // SAFETY: the features were just detected (BMI1, LZCNT and POPCNT come with AVX2).
            return unsafe { self.batch_avx2(text, starts, work, tables, sink) };
        }
        self.batch_portable(text, starts, work, tables, sink);
    }

    /// The same code, compiled for wide vectors.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn batch_avx2(
        &self,
        text: &[u8],
        starts: &[u32],
        work: &mut Work,
        tables: &mut Tables,
        sink: &mut impl Sink,
    ) {
        self.batch_portable(text, starts, work, tables, sink);
    }

    #[inline(always)]
    fn batch_portable(
        &self,
        text: &[u8],
        starts: &[u32],
        work: &mut Work,
        tables: &mut Tables,
        sink: &mut impl Sink,
    ) {
        let count = starts.len() - 1;
        let short = &*tables.short;
        let (keys, hashes) = (&mut work.keys[..count], &mut work.hashes[..count]);
        let (from, to) = (&starts[..count], &starts[1..=count]);
        for nth in 0..count {
            let key = short_key_at(text, from[nth] as usize, (to[nth] - from[nth]) as usize);
            let hash = short_hash(&key, &self.seeds);
            keys[nth] = key;
            hashes[nth] = hash;
            short.prefetch(hash);
        }
        let (mut used, mut resolved) = (0, false);
        for nth in 0..count {
            let (ids, known) = tables.short.quick(&work.keys[nth], work.hashes[nth]);
            if known != 0 {
                if let Some(place) = work.out.get_mut(used..used + 4) {
                    place[0] = ids[0] as u32;
                    place[1] = (ids[0] >> 32) as u32;
                    place[2] = ids[1] as u32;
                    place[3] = (ids[1] >> 32) as u32;
                }
                used += known;
                continue;
            }
            sink.ids(&work.out[..used]);
            used = 0;
            self.other(text, starts, nth, &mut resolved, work, tables, sink);
        }
        sink.ids(&work.out[..used]);
    }

    /// Piece `nth` of a batch, which is not in the first slots of its probe.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn other(
        &self,
        text: &[u8],
        starts: &[u32],
        nth: usize,
        resolved: &mut bool,
        work: &mut Work,
        tables: &mut Tables,
        sink: &mut impl Sink,
    ) {
        let piece = &text[starts[nth] as usize..starts[nth + 1] as usize];
        loop {
            let known = if piece.len() < SHORT {
                tables.short.get(&work.keys[nth], work.hashes[nth])
            } else if piece.len() < LONG {
                let key = long_key(piece);
                tables.wide.get(&key, long_hash(&key, &self.seeds))
            } else {
                break;
            };
            if let Some(entry) = known {
                work.symbols.clear();
                entry.append(&mut work.symbols);
                return sink.ids(&work.symbols);
            }
            if *resolved {
                break; // it found no room
            }
            *resolved = true;
            self.resolve(text, starts, nth, work, tables);
        }
        work.symbols.clear();
        self.encode_piece(piece, &mut work.symbols);
        sink.ids(&work.symbols);
    }

    /// Adds to the cache what the batch will miss from piece `from` on.
    fn resolve(&self, text: &[u8], starts: &[u32], from: usize, work: &mut Work, tables: &mut Tables) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("bmi2") {
            // SAFETY: the features were just detected.
            return unsafe { self.resolve_avx2(text, starts, from, work, tables) };
        }
        self.resolve_portable(text, starts, from, work, tables);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn resolve_avx2(
        &self,
        text: &[u8],
        starts: &[u32],
        from: usize,
        work: &mut Work,
        tables: &mut Tables,
    ) {
        self.resolve_portable(text, starts, from, work, tables);
    }

    #[inline(always)]
    fn resolve_portable(
        &self,
        text: &[u8],
        starts: &[u32],
        from: usize,
        work: &mut Work,
        tables: &mut Tables,
    ) {
        let mut full = self.resolve_short(starts.len() - 1, from, work, &tables.short);
        if full {
            tables.short = self.short.replace(&tables.short);
        }
        full = self.resolve_wide(text, &starts[from..], work, &tables.wide);
        if full {
            tables.wide = self.wide.replace(&tables.wide);
        }
    }

    /// Short pieces; true if the table is full.
    #[inline(always)]
    fn resolve_short(&self, count: usize, from: usize, work: &mut Work, table: &Short) -> bool {
        let (keys, hashes) = (&work.keys[..count], &work.hashes[..count]);
        work.missing.clear();
        // The same word may miss several times: remember which pieces were noted, by hash.
        let mut noted = [u16::MAX; 1024];
        for nth in from..count {
            let short = keys[nth][0] < NO_KEY;
            if short && table.quick(&keys[nth], hashes[nth]).1 == 0 {
                let place = &mut noted[hashes[nth] as usize >> 8 & 1023];
                if *place == u16::MAX || keys[usize::from(*place)] != keys[nth] {
                    *place = nth as u16;
                    work.missing.push(nth as u16);
                }
            }
        }
        for &nth in &work.missing {
            self.whole.prefetch_slot(hashes[usize::from(nth)]);
        }
        for &nth in &work.missing {
            self.whole.prefetch_bytes(hashes[usize::from(nth)]);
        }
        work.words.clear();
        let mut full = false;
        for &nth in &work.missing {
            let (key, hash) = (&keys[usize::from(nth)], hashes[usize::from(nth)]);
            if table.get(key, hash).is_some() {
                continue; // further along its probe
            }
            let id = self.whole.get_short(key, hash);
            if id == NONE {
                let (bytes, length) = short_bytes(key);
                if self.has_symbols(&bytes[..length as usize]) {
                    work.words.push(Word { bytes, length, tag: nth.into() });
                }
            } else {
                full |= table.add(key, hash, &[id]);
            }
        }
        lanes::run(&self.lane_tables(), &work.words, |nth, symbols| {
            let mut ids = [0; 16];
            for (id, &symbol) in ids.iter_mut().zip(symbols) {
                *id = self.bpe.ids[symbol as usize];
            }
            full |= table.add(&keys[nth], hashes[nth], &ids[..symbols.len()]);
        });
        full
    }

    /// Pieces of 16 to 31 bytes; true if the table is full.
    #[inline(always)]
    fn resolve_wide(&self, text: &[u8], starts: &[u32], work: &mut Work, table: &Wide) -> bool {
        let (mut full, mut keys) = (false, Vec::<LongKey>::new());
        work.wide_words.clear();
        for piece in starts.windows(2) {
            let piece = &text[piece[0] as usize..piece[1] as usize];
            if !(SHORT..LONG).contains(&piece.len()) {
                continue;
            }
            let key = long_key(piece);
            let hash = long_hash(&key, &self.seeds);
            if table.get(&key, hash).is_some() || keys.contains(&key) {
                continue;
            }
            let id = self.whole.get(piece);
            if id != NONE {
                full |= table.add(&key, hash, &[id]);
            } else if self.has_symbols(piece) {
                let mut bytes = [0; 32];
                bytes[..piece.len()].copy_from_slice(piece);
                work.wide_words.push(Word { bytes, length: piece.len() as u32, tag: keys.len() as u32 });
                keys.push(key);
            }
        }
        lanes::run(&self.lane_tables(), &work.wide_words, |nth, symbols| {
            let mut ids = [0; 32];
            for (id, &symbol) in ids.iter_mut().zip(symbols) {
                *id = self.bpe.ids[symbol as usize];
            }
            full |= table.add(&keys[nth], long_hash(&keys[nth], &self.seeds), &ids[..symbols.len()]);
        });
        full
    }

    fn lane_tables(&self) -> lanes::Tables<'_> {
        lanes::Tables { bytes: &self.bpe.bytes, first: &self.first, pairs: &self.bpe.pairs }
    }

    /// True if every byte has a symbol; the lanes know no other.
    #[inline]
    fn has_symbols(&self, piece: &[u8]) -> bool {
        self.complete || piece.iter().all(|&byte| self.bpe.bytes[usize::from(byte)] != NONE)
    }

    /// Appends the ids of one piece of any length.
    pub fn encode_piece(&self, piece: &[u8], ids: &mut Vec<u32>) {
        let id = self.whole.get(piece);
        if id != NONE {
            return ids.push(id);
        }
        self.bpe.encode_piece(piece, ids);
    }
}

impl Work {
    fn new() -> Self {
        Self {
            starts: Vec::new(),
            cuts: Vec::new(),
            keys: Box::new([[0; 2]; BATCH]),
            hashes: Box::new([0; BATCH]),
            out: Box::new([0; 4 * BATCH + 4]),
            missing: Vec::new(),
            words: Vec::new(),
            wide_words: Vec::new(),
            symbols: Vec::new(),
        }
    }
}

/// Numbers of this process, from the standard library's own source of keys.
fn seeds() -> Seeds {
    use std::hash::{BuildHasher, RandomState};
    let state = RandomState::new();
    std::array::from_fn(|nth| state.hash_one(nth) | 1)
}
