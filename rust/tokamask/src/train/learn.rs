//! Merge learning: the pair with the highest count first, then the one with the smaller ids.
//!
//! All distinct words lie in one array of 32-bit cells, one per symbol, a header with the word's
//! count before each. A merge overwrites the cells of the pair, and leaves at both ends what is
//! needed to step over the token in either direction, so a merge costs what it touches and a word of
//! a million symbols is as cheap as a million words. The results equal those of Hugging Face
//! `tokenizers`' trainer, oddities included: a pair that was merged keeps its count, and a product
//! that spells an existing token takes that token's id and still counts as a merge.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use crate::error::LimitError;

/// A cell below this holds a live symbol.
const DEAD: u32 = 1 << 30;
/// A cell from here on is a header.
const HEADER: u32 = 1 << 31;
/// The low bits of a dead cell (length of its token, in cells) or a header (count of its word).
const LOW: u32 = DEAD - 1;
/// Steps back to a header before the list of long words is asked instead.
const NEAR: usize = 32;

/// A token being learnt or inherited.
pub type Bytes = Box<[u8]>;

/// Forbids a pair by the bytes of its halves, given their join.
pub type Veto<'a> = &'a (dyn Fn(&[u8]) -> bool + Sync);

/// When to stop, and what not to learn.
#[derive(Clone, Copy)]
pub struct Goal<'a> {
    /// Size of the vocabulary at which learning ends.
    pub vocab_size: usize,
    /// Pairs below this count are not merged; 0 and 1 are the same.
    pub min_frequency: u64,
    /// A pair whose symbols together reach this many is not counted anew.
    pub max_token_length: usize,
    /// Forbidden tokens.
    pub veto: Option<Veto<'a>>,
}

impl Goal<'_> {
    /// Learn until the vocabulary has this size.
    pub fn size(vocab_size: usize) -> Self {
        Self { vocab_size, min_frequency: 0, max_token_length: usize::MAX, veto: None }
    }
}

/// Why learning ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The vocabulary is full.
    Full,
    /// No pair is left, or none that is frequent enough.
    Exhausted,
    /// The caller wanted to stop.
    Stopped,
}

/// Learns merges over words given as symbols.
pub struct Learner {
    tokens: Vec<Bytes>,
    /// Symbols of the alphabet in each token.
    lengths: Vec<u32>,
    ids: FxHashMap<Bytes, u32>,
    merges: Vec<(u32, u32)>,
    /// What each merge's pair counted when it was merged.
    pub(super) merge_counts: Vec<u64>,
    cells: Vec<u32>,
    /// Headers of words too long to search back through.
    long: Vec<u32>,
    /// Counts that do not fit a header.
    large: FxHashMap<u32, u64>,
    counts: FxHashMap<u64, i64>,
    heap: BinaryHeap<Candidate>,
    /// Positions of all candidates, each a slice of its own.
    pool: Vec<u32>,
    /// Positions in the pool whose candidates are gone.
    dead: usize,
    /// Left and right neighbours of the merge at hand.
    sides: (Side, Side),
    /// Pairs whose counts the merge at hand changes, if somebody wants to know.
    touched: Option<Vec<u64>>,
}

/// A pair that waits, with the positions at which it came to be.
struct Candidate {
    count: u64,
    pair: u64,
    start: u32,
    len: u32,
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Candidate {}
impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.count.cmp(&other.count).then_with(|| other.pair.cmp(&self.pair))
    }
}

/// Two symbols as one key that sorts like them.
pub(super) fn pair_of(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// What stands beside the hits of one merge: counts and positions by symbol; emptied after each.
#[derive(Default)]
struct Side {
    /// By symbol: occurrences beside a hit, weighted by the words' counts.
    count: Vec<i64>,
    /// By symbol: number of events.
    hits: Vec<u32>,
    /// Symbols with events, in the order met.
    seen: Vec<u32>,
    /// Symbol, and where its pair with the new token starts.
    events: Vec<(u32, u32)>,
}

impl Side {
    fn note(&mut self, symbol: u32, position: u32, count: u64) {
        let at = symbol as usize;
        if self.hits[at] == 0 {
            self.seen.push(symbol);
        }
        self.hits[at] += 1;
        self.count[at] += count as i64;
        self.events.push((symbol, position));
    }

    fn widen(&mut self, size: usize) {
        self.count.resize(size, 0);
        self.hits.resize(size, 0);
    }

    /// Moves the events of one symbol over, in order of position.
    fn take(&mut self, other: &mut Self, symbol: u32) {
        if other.hits[symbol as usize] == 0 {
            return;
        }
        let mut events = std::mem::take(&mut other.events);
        events.retain(|&(found, position)| {
            if found == symbol {
                self.note(symbol, position, 0);
            }
            found != symbol
        });
        other.events = events;
        other.hits[symbol as usize] = 0;
        other.seen.retain(|&seen| seen != symbol);
        self.events.sort_unstable_by_key(|&(_, position)| position);
        self.events.dedup();
        self.hits[symbol as usize] = self.events.iter().filter(|event| event.0 == symbol).count() as u32;
    }
}

impl Learner {
    /// Starts from tokens (alphabet, inherited and special ones) and words over them. A symbol's
    /// length is what `max_token_length` counts.
    pub fn new<'a, T: 'a>(
        tokens: Vec<(Vec<u8>, u32)>,
        words: impl IntoIterator<Item = (&'a [T], u64)>,
        symbol: impl Fn(&T) -> u32,
    ) -> Result<Self, LimitError> {
        let mut learner = Self {
            tokens: Vec::with_capacity(tokens.len()),
            lengths: Vec::with_capacity(tokens.len()),
            ids: FxHashMap::default(),
            merges: Vec::new(),
            merge_counts: Vec::new(),
            cells: Vec::new(),
            long: Vec::new(),
            large: FxHashMap::default(),
            counts: FxHashMap::default(),
            heap: BinaryHeap::new(),
            pool: Vec::new(),
            dead: 0,
            sides: Default::default(),
            touched: None,
        };
        for (id, (bytes, length)) in tokens.into_iter().enumerate() {
            let bytes = bytes.into_boxed_slice();
            if !bytes.is_empty() {
                learner.ids.entry(bytes.clone()).or_insert(id as u32);
            }
            learner.tokens.push(bytes);
            learner.lengths.push(length);
        }
        for (word, count) in words {
            learner.push(word.iter().map(&symbol), count)?;
        }
        learner.cells.push(HEADER);
        learner.cells.shrink_to_fit();
        learner.index();
        Ok(learner)
    }

    /// The tokens by id (those given, then those learnt) and the merges in the order learnt.
    pub fn into_parts(self) -> (Vec<Bytes>, Vec<(u32, u32)>) {
        (self.tokens, self.merges)
    }

    fn push(&mut self, word: impl ExactSizeIterator<Item = u32>, count: u64) -> Result<(), LimitError> {
        let at = self.cells.len();
        if at + word.len() + 1 >= LOW as usize {
            return Err(LimitError { limit: "symbols of distinct words".to_owned(), value: LOW.into() });
        }
        if word.len() > NEAR {
            self.long.push(at as u32);
        }
        if count >= u64::from(LOW) {
            self.large.insert(at as u32, count);
        }
        self.cells.push(HEADER | count.min(LOW.into()) as u32);
        self.cells.extend(word);
        Ok(())
    }

    /// Counts all adjacent pairs and queues them.
    fn index(&mut self) {
        let mut seen: FxHashMap<u64, (i64, usize)> = FxHashMap::default();
        let mut count = 0;
        self.scan(|learner, at, pair| {
            if let Some(pair) = pair {
                let held = seen.entry(pair).or_default();
                held.0 += count as i64;
                held.1 += 1;
            } else {
                count = learner.count_at(at as u32);
            }
        });
        let mut start = 0;
        let mut places: FxHashMap<u64, usize> = FxHashMap::default();
        for (&pair, &(count, len)) in &seen {
            places.insert(pair, start);
            self.counts.insert(pair, count);
            if count > 0 {
                let (start, len) = (start as u32, len as u32);
                self.heap.push(Candidate { count: count as u64, pair, start, len });
            }
            start += len;
        }
        let mut pool = vec![0; start];
        self.scan(|_, at, pair| {
            if let Some(place) = pair.and_then(|pair| places.get_mut(&pair)) {
                pool[*place] = at as u32;
                *place += 1;
            }
        });
        self.pool = pool;
    }

    /// Visits every header (no pair) and every adjacent pair with the place of its left half, in
    /// order. Only before the first merge.
    fn scan(&self, mut visit: impl FnMut(&Self, usize, Option<u64>)) {
        for (at, two) in self.cells.windows(2).enumerate() {
            if two[0] >= HEADER {
                visit(self, at, None);
            } else if two[1] < DEAD {
                visit(self, at, Some(pair_of(two[0], two[1])));
            }
        }
    }

    /// Merges until the goal is reached; `keep_going` is told the size of the vocabulary after each
    /// merge.
    pub fn learn(&mut self, goal: Goal<'_>, mut keep_going: impl FnMut(usize) -> bool) -> Outcome {
        let mut joined = Vec::new();
        loop {
            if self.size() >= goal.vocab_size {
                return Outcome::Full;
            }
            let Some(mut top) = self.heap.peek_mut() else { return Outcome::Exhausted };
            let current = self.counts.get(&top.pair).copied().unwrap_or(0).max(0) as u64;
            if top.count != current {
                top.count = current; // sinks to its place when the guard is dropped
                continue;
            }
            if current < 1 || current < goal.min_frequency {
                return Outcome::Exhausted;
            }
            let Candidate { pair, start, len, .. } = std::collections::binary_heap::PeekMut::pop(top);
            self.dead += len as usize;
            let (left, right) = ((pair >> 32) as u32, pair as u32);
            joined.clear();
            joined.extend_from_slice(&self.tokens[left as usize]);
            joined.extend_from_slice(&self.tokens[right as usize]);
            if goal.veto.is_some_and(|veto| veto(&joined)) {
                continue;
            }
            let new = self.product(&joined, left, right);
            self.merges.push((left, right));
            self.merge_counts.push(current);
            let positions = start as usize..(start + len) as usize;
            self.merge((left, right), new, positions, goal.max_token_length);
            if !keep_going(self.size()) {
                return Outcome::Stopped;
            }
        }
    }

    /// Merges pairs in the order given, frequent or not. `changed` is told the number of merges done, a
    /// pair and its new count; first the counts at the start.
    pub(super) fn replay(
        &mut self,
        merges: &[(u32, u32)],
        mut changed: impl FnMut(usize, u64, u64),
        mut keep_going: impl FnMut(usize) -> bool,
    ) {
        let mut waiting: FxHashMap<u64, Vec<u32>> = FxHashMap::default();
        let mut start: Vec<(u64, i64)> = self.counts.iter().map(|(&pair, &count)| (pair, count)).collect();
        start.sort_unstable();
        for (pair, count) in start {
            changed(0, pair, count.max(0) as u64);
        }
        for (step, &(left, right)) in merges.iter().enumerate() {
            for found in self.heap.drain() {
                let places = &self.pool[found.start as usize..(found.start + found.len) as usize];
                waiting.entry(found.pair).or_default().extend_from_slice(places);
            }
            self.pool.clear();
            self.dead = 0;
            let pair = pair_of(left, right);
            let joined = [&self.tokens[left as usize][..], &self.tokens[right as usize]].concat();
            let new = self.product(&joined, left, right);
            let Some(places) = waiting.remove(&pair) else { continue };
            self.pool.extend_from_slice(&places);
            self.touched = Some(Vec::new());
            self.merge((left, right), new, 0..places.len(), usize::MAX);
            let mut touched = self.touched.take().unwrap_or_default();
            touched.push(pair);
            touched.sort_unstable();
            touched.dedup();
            for other in touched {
                let count = self.counts.get(&other).map_or(0, |&count| count.max(0) as u64);
                changed(step + 1, other, if other == pair { 0 } else { count });
            }
            if !keep_going(step + 1) {
                return;
            }
        }
    }

    /// Tokens and special tokens so far.
    fn size(&self) -> usize {
        self.tokens.len()
    }

    /// The id of the joined token, an old one if it spells the same.
    fn product(&mut self, joined: &[u8], left: u32, right: u32) -> u32 {
        if let Some(&id) = self.ids.get(joined) {
            return id;
        }
        let id = self.tokens.len() as u32;
        self.ids.insert(joined.into(), id);
        self.tokens.push(joined.into());
        self.lengths.push(self.lengths[left as usize] + self.lengths[right as usize]);
        id
    }

    /// Replaces the pair at its positions and counts the neighbours anew.
    fn merge(&mut self, (a, b): (u32, u32), new: u32, positions: std::ops::Range<usize>, max_length: usize) {
        let (mut lefts, mut rights) = std::mem::take(&mut self.sides);
        lefts.widen(self.tokens.len());
        rights.widen(self.tokens.len());
        for nth in positions {
            self.replace((a, b), new, self.pool[nth], &mut lefts, &mut rights);
        }
        let lengths = &self.lengths;
        let room = max_length.saturating_sub(lengths[new as usize] as usize);
        let fits = |other: u32| room > lengths[other as usize] as usize;
        // Increments first: in `abab` the pair (ab, a) comes and goes within one merge.
        for &other in lefts.seen.iter().filter(|&&other| fits(other)) {
            *self.counts.entry(pair_of(other, new)).or_default() += lefts.count[other as usize];
        }
        for &other in rights.seen.iter().filter(|&&other| fits(other)) {
            *self.counts.entry(pair_of(new, other)).or_default() += rights.count[other as usize];
        }
        let mut lose = |pair: u64, count: i64| {
            if let std::collections::hash_map::Entry::Occupied(mut held) = self.counts.entry(pair) {
                *held.get_mut() -= count;
                if *held.get() == 0 {
                    held.remove();
                }
            }
        };
        for &other in &lefts.seen {
            lose(pair_of(other, a), lefts.count[other as usize]);
        }
        for &other in &rights.seen {
            lose(pair_of(b, other), rights.count[other as usize]);
        }
        if let Some(touched) = &mut self.touched {
            touched.extend(lefts.seen.iter().flat_map(|&other| [pair_of(other, a), pair_of(other, new)]));
            touched.extend(rights.seen.iter().flat_map(|&other| [pair_of(b, other), pair_of(new, other)]));
        }
        lefts.take(&mut rights, new); // (new, new) can be met from both sides and waits once
        self.queue(&mut lefts, |other| pair_of(other, new));
        self.queue(&mut rights, |other| pair_of(new, other));
        self.sides = (lefts, rights);
    }

    /// Merges at one position, if the pair is still there, and notes what stands beside it.
    fn replace(&mut self, (a, b): (u32, u32), new: u32, at: u32, lefts: &mut Side, rights: &mut Side) {
        if self.cells[at as usize] != a {
            return; // merged into something else since
        }
        let second = at + self.width(at);
        if self.cells[second as usize] != b {
            return;
        }
        let end = second + self.width(second);
        let count = self.count_at(at);
        self.cells[second as usize] = DEAD;
        self.cells[at as usize] = new;
        self.cells[at as usize + 1] = DEAD | (end - at);
        self.cells[end as usize - 1] = DEAD | (end - at);
        if let Some(before) = self.before(at) {
            lefts.note(self.cells[before as usize], before, count);
        }
        let after = self.cells[end as usize];
        if after < DEAD {
            rights.note(after, at, count);
        }
    }

    /// Queues the pairs of a side with their positions, and empties it.
    fn queue(&mut self, side: &mut Side, pair: impl Fn(u32) -> u64) {
        self.make_room(side.events.len());
        let mut start = self.pool.len();
        self.pool.resize(start + side.events.len(), 0);
        for &other in &side.seen {
            let at = other as usize;
            let len = side.hits[at] as usize;
            let pair = pair(other);
            let count = self.counts.get(&pair).copied().unwrap_or(0);
            if count > 0 {
                let (start, len) = (start as u32, len as u32);
                self.heap.push(Candidate { count: count as u64, pair, start, len });
            } else {
                self.dead += len;
            }
            side.count[at] = start as i64; // from here on: where its next position goes
            start += len;
        }
        for (other, position) in side.events.drain(..) {
            let next = &mut side.count[other as usize];
            self.pool[*next as usize] = position;
            *next += 1;
        }
        for other in side.seen.drain(..) {
            side.count[other as usize] = 0;
            side.hits[other as usize] = 0;
        }
    }

    /// Room in the pool for more positions: first that of candidates that are gone. The pool would
    /// grow to three times its size otherwise, and half of it would be dead.
    fn make_room(&mut self, more: usize) {
        if self.pool.len() + more <= self.pool.capacity() {
            return;
        }
        if self.dead * 8 > self.pool.len() {
            let mut candidates = std::mem::take(&mut self.heap).into_vec();
            candidates.sort_unstable_by_key(|candidate| candidate.start);
            let mut end = 0;
            for candidate in &mut candidates {
                let (start, len) = (candidate.start as usize, candidate.len as usize);
                self.pool.copy_within(start..start + len, end);
                candidate.start = end as u32;
                end += len;
            }
            self.pool.truncate(end);
            self.dead = 0;
            self.heap = BinaryHeap::from(candidates);
        }
        if self.pool.len() + more > self.pool.capacity() {
            self.pool.reserve_exact(more.max(self.pool.len() / 4));
        }
    }

    /// Cells of the token that starts here.
    fn width(&self, at: u32) -> u32 {
        let next = self.cells[at as usize + 1];
        if next & (HEADER | DEAD) == DEAD {
            next & LOW
        } else {
            1
        }
    }

    /// Where the token before this one starts, if the word has one.
    fn before(&self, at: u32) -> Option<u32> {
        let cell = self.cells[at as usize - 1];
        match cell & (HEADER | DEAD) {
            0 => Some(at - 1),
            DEAD => Some(at - (cell & LOW)),
            _ => None,
        }
    }

    /// The count of the word around a cell (or of a header).
    fn count_at(&self, at: u32) -> u64 {
        let mut header = at;
        if self.cells[at as usize] < HEADER {
            let mut steps = 0;
            loop {
                let Some(before) = self.before(header) else {
                    header -= 1;
                    break;
                };
                header = before;
                steps += 1;
                if steps == NEAR {
                    header = self.long[self.long.partition_point(|&long| long < at) - 1];
                    break;
                }
            }
        }
        match self.cells[header as usize] & LOW {
            LOW => self.large.get(&header).copied().unwrap_or(LOW.into()),
            count => count.into(),
        }
    }
}
