//! The hot path: pieces in batches. Keys and hashes of the whole batch; then lookups and output. What the cache
//! does not know leaves a hole in the output and waits in a [`Queue`].

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use super::barriers::Barriers;
use super::blocks::{Blocks, Shelf, SHELVES};
use super::cache::{ids_of, Cache, Entry, Seeds, Table};
use super::keys::{long_hash, long_key, short_hash, short_key_at, ShortKey, LONG, NO_KEY, SHORT};
use super::lanes::{self, Word};
use super::queue::Queue;
use super::whole::Whole;
use super::{Bpe, Merges, NONE};
use crate::error::VocabularyError;

/// Pieces in a batch.
pub const BATCH: usize = 512;
/// Longer pieces go past the queue.
const LARGE: usize = 1 << 12;
/// Pieces between asking for a slot and comparing it. (All of a batch asked for at once fill the first-level
/// cache and the queue of its misses.)
const AHEAD: usize = 32;
pub(super) type Short = Table<4, 2>;
pub(super) type Wide = Table<8, 5>;

/// Encodes pieces with the tables of a vocabulary and a cache that all threads share.
pub struct Encoder {
    pub(super) bpe: Bpe,
    pub(super) whole: Whole,
    /// What two bytes merge into.
    pub(super) first: Vec<u32>,
    /// Every byte has a symbol.
    complete: bool,
    pub(super) short: Cache<4, 2>,
    pub(super) wide: Cache<8, 5>,
    pub(super) shelves: [Shelf; SHELVES],
    barriers: Barriers,
    /// Some token is found whole and yet never made by merging.
    odd: bool,
    pub(super) seeds: Seeds,
}

/// Scratch space of a thread, of bounded size.
pub(super) struct Work {
    starts: Vec<u32>,
    /// Pieces that are not short.
    places: Vec<u32>,
    /// The starts with the barriers of long pieces.
    cuts: Vec<u32>,
    keys: Box<[ShortKey; BATCH]>,
    /// What stands behind those of a batch is asked for in vain.
    hashes: Box<[u64; BATCH + AHEAD]>,
    pub(super) queue: Queue,
    pub(super) words: Vec<Word<16>>,
    pub(super) wide_words: Vec<Word<32>>,
    /// Made when first needed.
    pub(super) blocks: Option<Box<Blocks>>,
    pub(super) symbols: Vec<u32>,
}

thread_local! {
    static WORK: RefCell<Work> = RefCell::new(Work::new());
}

/// Where ids go.
pub trait Sink {
    /// More ids.
    fn ids(&mut self, ids: &[u32]);

    /// How many threads may work for it.
    fn threads(&self) -> usize {
        1
    }
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

/// What takes long to derive from tokens and merges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Derived {
    /// Token id of each merge symbol.
    pub ids: Vec<u32>,
    /// Halves of each: symbols before it, or itself twice.
    pub halves: Vec<(u32, u32)>,
    /// Notes of the [`Barriers`].
    pub barriers: Vec<u8>,
}

/// The cache tables of one call.
pub(super) struct Tables {
    pub short: Arc<Short>,
    pub wide: Arc<Wide>,
}

impl Tables {
    /// Writes the ids of a piece of [`SHORT`] bytes or more if the cache has them and they are few; how many.
    #[inline(always)]
    fn wide(&self, encoder: &Encoder, piece: &[u8], out: &mut [u32]) -> usize {
        let key = long_key(piece);
        match self.wide.get(&key, long_hash(&key, &encoder.seeds)) {
            Some(Entry::Words(words, count)) => {
                for (word, place) in words.iter().zip(out.chunks_exact_mut(2)) {
                    let pair = ids_of(word);
                    place[0] = pair[0];
                    place[1] = pair[1];
                }
                count
            }
            _ => 0,
        }
    }
}

/// Bytes of a piece of a batch.
#[inline(always)]
fn from_to(starts: &[u32], nth: usize) -> std::ops::Range<usize> {
    starts[nth] as usize..starts[nth + 1] as usize
}

/// Writes the ids of pieces from the `nth` on to `row[used..]` as long as the first slots of their probes have them;
/// how far it came in both. A function of its own: what it works on stays in registers.
#[inline(never)]
fn look_up(
    table: &Short,
    keys: &[ShortKey],
    hashes: &[u64; BATCH + AHEAD],
    mut nth: usize,
    row: &mut [u32],
    mut used: usize,
) -> (usize, usize) {
    while let (Some(key), Some(&hash), Some(&later)) =
        (keys.get(nth), hashes.get(nth), hashes.get(nth + AHEAD))
    {
        table.prefetch(later);
        let (ids, known) = table.quick(key, hash);
        let Some(place) = row.get_mut(used..used + 4) else { break };
        if known == 0 {
            break;
        }
        place[0] = ids[0] as u32;
        place[1] = (ids[0] >> 32) as u32;
        place[2] = ids[1] as u32;
        place[3] = (ids[1] >> 32) as u32;
        used += known;
        nth += 1;
    }
    (nth, used)
}

/// Notes the pieces that are not short.
fn places_of(starts: &[u32], places: &mut Vec<u32>) {
    const STEP: usize = 16;
    places.clear();
    for (block, (from, to)) in starts.chunks(STEP).zip(starts[1..].chunks(STEP)).enumerate() {
        // The bits of all lengths: a short block is told without a branch for each piece.
        if from.iter().zip(to).fold(0, |bits, (from, to)| bits | (to - from)) < SHORT as u32 {
            continue;
        }
        for (nth, (from, to)) in from.iter().zip(to).enumerate() {
            if to - from >= SHORT as u32 {
                places.push((block * STEP + nth) as u32);
            }
        }
    }
}

impl Encoder {
    /// Builds the tables; see [`Bpe::new`].
    pub fn new(
        tokens: &[Option<&[u8]>],
        merges: &Merges,
        whole_pieces: bool,
    ) -> Result<Self, VocabularyError> {
        Self::finding(tokens, merges, |_| whole_pieces)
    }

    /// The same where only the tokens that `found` names are found whole though merging does not make them.
    pub(super) fn finding(
        tokens: &[Option<&[u8]>],
        merges: &Merges,
        found: impl Fn(usize) -> bool,
    ) -> Result<Self, VocabularyError> {
        let seeds = seeds();
        let whole = Whole::new(tokens, seeds);
        let bpe = Bpe::with(tokens, &whole, merges)?;
        let barriers = Barriers::new(tokens.iter().copied().flatten());
        Ok(Self::from_parts(tokens, bpe, whole, barriers, found))
    }

    /// The token that a piece is, if it is found whole.
    pub(super) fn whole_id(&self, piece: &[u8]) -> u32 {
        self.whole.get(piece)
    }

    /// The same from tables that were derived before.
    pub fn with(
        tokens: &[Option<&[u8]>],
        derived: &Derived,
        whole_pieces: bool,
    ) -> Result<Self, VocabularyError> {
        let barriers = Barriers::from_bytes(&derived.barriers);
        let barriers = barriers.ok_or_else(|| VocabularyError::new("compiled tokenizer: barriers"))?;
        let bpe = Bpe::packed(tokens, derived.ids.clone(), derived.halves.clone());
        Ok(Self::from_parts(tokens, bpe, Whole::new(tokens, seeds()), barriers, |_| whole_pieces))
    }

    /// The tables that take long to derive.
    pub fn derived(&self) -> Derived {
        let (ids, halves) = self.bpe.symbols();
        Derived { ids: ids.to_vec(), halves: halves.to_vec(), barriers: self.barriers.to_bytes() }
    }

    fn from_parts(
        tokens: &[Option<&[u8]>],
        bpe: Bpe,
        mut whole: Whole,
        barriers: Barriers,
        found: impl Fn(usize) -> bool,
    ) -> Self {
        let seeds = whole.seeds();
        whole.keep(|id| bpe.symbols[id] != NONE || found(id));
        let mut first = vec![NONE; 1 << 16];
        for (pair, symbol) in first.iter_mut().enumerate() {
            let (left, right) = (bpe.bytes[pair >> 8], bpe.bytes[pair & 255]);
            if left != NONE && right != NONE {
                *symbol = bpe.pairs.get(left, right);
            }
        }
        Self {
            complete: !bpe.bytes.contains(&NONE),
            whole,
            first,
            short: Cache::new(1 << 16, 1 << 20, short_hash, seeds),
            wide: Cache::new(1 << 12, 1 << 16, long_hash, seeds),
            shelves: std::array::from_fn(|_| Mutex::default()),
            barriers,
            odd: (0..tokens.len()).any(|id| tokens[id].is_some() && bpe.symbols[id] == NONE && found(id)),
            bpe,
            seeds,
        }
    }

    /// The merge tables.
    pub fn bpe(&self) -> &Bpe {
        &self.bpe
    }

    /// True if the ids on both sides of a place in a piece are those of two pieces.
    pub fn is_barrier(&self, piece: &[u8], at: usize) -> bool {
        !self.odd && self.barriers.is_barrier(piece, at)
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
            work.queue.clear();
            let (mut starts, mut cuts) = (std::mem::take(&mut work.starts), std::mem::take(&mut work.cuts));
            loop {
                starts.clear();
                fill(&mut starts);
                if starts.len() < 2 {
                    break;
                }
                places_of(&starts, &mut work.places);
                let cut =
                    !work.places.is_empty() && self.cut(text, &starts, &work.places, &tables, &mut cuts);
                let mut rest = if cut { &cuts[..] } else { &starts[..] };
                while rest.len() > 1 {
                    let count = rest.len().min(BATCH + 1);
                    self.batch(text, &rest[..count], work, &mut tables, sink);
                    if work.queue.is_ripe() {
                        self.flush(work, &mut tables, sink);
                    }
                    rest = &rest[count - 1..];
                }
            }
            self.flush(work, &mut tables, sink);
            (work.starts, work.cuts) = (starts, cuts);
        });
    }

    /// The starts again, with the barriers inside the pieces at `places` that the cache does not know; false if
    /// there are none.
    fn cut(&self, text: &[u8], starts: &[u32], places: &[u32], tables: &Tables, cuts: &mut Vec<u32>) -> bool {
        cuts.clear();
        let mut copied = 0;
        for &nth in places {
            let nth = nth as usize;
            let (start, end) = (starts[nth] as usize, starts[nth + 1] as usize);
            let piece = &text[start..end];
            let key = long_key(piece);
            if piece.len() < LONG {
                if tables.wide.get(&key, long_hash(&key, &self.seeds)).is_some() {
                    continue;
                }
            } else if piece[..LONG - 1] == piece[1..LONG] && self.whole.get(piece) != NONE {
                continue; // indentation, where the search for a barrier takes long
            }
            let Some(first) = self.barriers.first(piece) else { continue };
            let before = cuts.len();
            cuts.extend_from_slice(&starts[copied..=nth]);
            let own = cuts.len();
            self.barriers.cut(text, start, end, first, cuts);
            let last = copied;
            copied = nth + 1;
            // A token that merging does not make is one only where it is the whole piece.
            let odd = |from: u32, to: u32| {
                let id = self.whole.get(&text[from as usize..to as usize]);
                id != NONE && self.bpe.symbols[id as usize] == NONE
            };
            if self.odd {
                let ends = cuts[own..].iter().copied().chain([end as u32]);
                if cuts[own - 1..].iter().zip(ends).any(|(&from, to)| odd(from, to)) {
                    cuts.truncate(before);
                    copied = last;
                }
            }
        }
        cuts.extend_from_slice(&starts[copied..]);
        copied > 0
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
        let (keys, hashes) = (&mut work.keys[..count], &mut work.hashes[..count]);
        let (from, to) = (&starts[..count], &starts[1..=count]);
        for nth in 0..count {
            let key = short_key_at(text, from[nth] as usize, (to[nth] - from[nth]) as usize);
            let hash = short_hash(&key, &self.seeds);
            keys[nth] = key;
            hashes[nth] = hash;
        }
        for &hash in &work.hashes[..AHEAD.min(count)] {
            tables.short.prefetch(hash);
        }
        work.queue.reserve(6 * count + 6);
        let (mut nth, mut used) = (0, work.queue.used);
        loop {
            (nth, used) =
                look_up(&tables.short, &work.keys[..count], &work.hashes, nth, &mut work.queue.row, used);
            if nth == count {
                break;
            }
            let piece = &text[from_to(starts, nth)];
            let is_wide = work.keys[nth][0] == NO_KEY;
            let known = if is_wide { tables.wide(self, piece, &mut work.queue.row[used..]) } else { 0 };
            used += known;
            if known == 0 {
                work.queue.used = used;
                self.other(piece, nth, work, tables, sink);
                used = work.queue.used;
            }
            nth += 1;
        }
        work.queue.used = used;
    }

    /// Piece `nth` of a batch, which is not in the first slots of its probe.
    #[inline(never)]
    fn other(&self, piece: &[u8], nth: usize, work: &mut Work, tables: &mut Tables, sink: &mut impl Sink) {
        if piece.len() < LONG && self.has_symbols(piece) {
            if piece.len() < SHORT {
                let (key, hash) = (&work.keys[nth], work.hashes[nth]);
                match tables.short.get(key, hash) {
                    Some(entry) => work.queue.add(&entry),
                    None => {
                        if work.queue.miss(key, hash) {
                            self.whole.prefetch_slot(hash);
                            if let Some(hash) = work.queue.earlier() {
                                self.whole.prefetch_key(hash);
                            }
                        }
                    }
                }
            } else {
                let key = long_key(piece);
                let hash = long_hash(&key, &self.seeds);
                match tables.wide.get(&key, hash) {
                    Some(entry) => work.queue.add(&entry),
                    None => work.queue.miss_wide(&key, hash),
                }
            }
            return;
        }
        if piece.len() >= LARGE {
            self.flush(work, tables, sink);
            self.long(piece, work, sink);
            return work.queue.reserve(6 * BATCH + 6);
        }
        let mut ids = std::mem::take(&mut work.symbols);
        ids.clear();
        if piece.len() < LONG {
            self.encode_piece(piece, &mut ids); // without the bytes that the vocabulary lacks
        } else {
            self.long(piece, work, &mut ids);
        }
        work.queue.append(&ids);
        work.symbols = ids;
    }

    pub(super) fn lane_tables(&self) -> lanes::Tables<'_> {
        lanes::Tables { bytes: &self.bpe.bytes, first: &self.first, pairs: &self.bpe.pairs }
    }

    /// True if every byte has a symbol; the lanes know no other.
    #[inline]
    pub(super) fn has_symbols(&self, piece: &[u8]) -> bool {
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
            places: Vec::new(),
            cuts: Vec::new(),
            keys: Box::new([[0; 2]; BATCH]),
            hashes: Box::new([0; BATCH + AHEAD]),
            queue: Queue::new(),
            words: Vec::new(),
            wide_words: Vec::new(),
            blocks: None,
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
