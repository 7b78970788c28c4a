//! Counted pretokens in canonical order: the form that is saved, merged and trained on.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::table::Table;
use crate::error::{CorpusError, LimitError};

/// Distinct pretokens in ascending byte order with their counts, and the runs they stood in.
///
/// A run is a sequence of pretokens between two hard boundaries; it is stored as places in the list
/// of pretokens, and runs ascend too. The order makes equal corpora equal files, whatever the
/// sharding, and merging a linear walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PretokenCounts {
    /// Pretoken `i` is `bytes[offsets[i]..offsets[i + 1]]`.
    pub offsets: Vec<u64>,
    /// All pretokens, one after another.
    pub bytes: Vec<u8>,
    /// Times each pretoken occurred.
    pub counts: Vec<u64>,
    /// Run `r` is `run_words[run_offsets[r]..run_offsets[r + 1]]`.
    pub run_offsets: Vec<u64>,
    /// Places of pretokens, run after run.
    pub run_words: Vec<u32>,
    /// Times each run occurred.
    pub run_counts: Vec<u64>,
}

/// The same, borrowed: from memory or from a mapped file. Checked once, when made.
#[derive(Clone, Copy)]
pub struct View<'a> {
    offsets: &'a [u64],
    bytes: &'a [u8],
    counts: &'a [u64],
    run_offsets: &'a [u64],
    run_words: &'a [u32],
    run_counts: &'a [u64],
}

impl<'a> View<'a> {
    /// Borrows arrays of counts; forged ones (offsets that do not ascend, words out of range, broken
    /// order) are refused.
    pub fn new(
        (offsets, bytes, counts): (&'a [u64], &'a [u8], &'a [u64]),
        (run_offsets, run_words, run_counts): (&'a [u64], &'a [u32], &'a [u64]),
    ) -> Result<Self, CorpusError> {
        let view = Self { offsets, bytes, counts, run_offsets, run_words, run_counts };
        let sound = |offsets: &[u64], rows: usize, end: usize| {
            offsets.len() == rows + 1
                && offsets[0] == 0
                && offsets[rows] == end as u64
                && offsets.windows(2).all(|w| w[0] <= w[1])
        };
        if !sound(offsets, counts.len(), bytes.len())
            || !sound(run_offsets, run_counts.len(), run_words.len())
        {
            return Err(CorpusError::new("counts whose offsets do not ascend over their data"));
        }
        if run_words.iter().any(|&word| word as usize >= counts.len()) {
            return Err(CorpusError::new("a run names a pretoken that is not there"));
        }
        if (1..view.len()).any(|i| view.word(i - 1) >= view.word(i))
            || (1..view.runs()).any(|r| view.run(r - 1) >= view.run(r))
        {
            return Err(CorpusError::new("pretokens or runs are not in ascending order"));
        }
        Ok(view)
    }

    /// Number of distinct pretokens.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// True without any pretoken.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Bytes of pretoken `i`.
    pub fn word(&self, i: usize) -> &'a [u8] {
        &self.bytes[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// Times pretoken `i` occurred.
    pub fn count(&self, i: usize) -> u64 {
        self.counts[i]
    }

    /// All pretokens with their counts.
    pub fn words(&self) -> impl ExactSizeIterator<Item = (&'a [u8], u64)> + '_ {
        (0..self.len()).map(|i| (self.word(i), self.counts[i]))
    }

    /// Number of distinct runs.
    pub fn runs(&self) -> usize {
        self.run_counts.len()
    }

    /// Pretokens of all distinct runs together.
    pub fn run_length(&self) -> usize {
        self.run_words.len()
    }

    /// Run `r` as places of pretokens.
    pub fn run(&self, r: usize) -> &'a [u32] {
        &self.run_words[self.run_offsets[r] as usize..self.run_offsets[r + 1] as usize]
    }

    /// Times run `r` occurred.
    pub fn run_count(&self, r: usize) -> u64 {
        self.run_counts[r]
    }
}

impl PretokenCounts {
    /// Borrows.
    pub fn view(&self) -> Result<View<'_>, CorpusError> {
        View::new(
            (&self.offsets, &self.bytes, &self.counts),
            (&self.run_offsets, &self.run_words, &self.run_counts),
        )
    }

    /// Sorts what the counting threads gathered. `runs` holds places of `words` as native-endian u32.
    pub(super) fn from_tables(words: &Table, runs: &Table) -> Self {
        let mut order: Vec<(u64, u32)> =
            (0..words.len()).map(|place| (prefix(words.get(place)), place as u32)).collect();
        order.par_sort_unstable_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| words.get(a.1 as usize).cmp(words.get(b.1 as usize)))
        });
        let mut counts = Self::empty();
        let mut places = vec![0u32; words.len()];
        for (new, &(_, old)) in order.iter().enumerate() {
            places[old as usize] = new as u32;
            counts.push_word(words.get(old as usize), words.count(old as usize));
        }
        drop(order);
        let moved = |run: u32| -> Vec<u32> {
            words_of(runs.get(run as usize)).map(|word| places[word as usize]).collect()
        };
        let mut order: Vec<u32> = (0..runs.len() as u32).collect();
        order.par_sort_unstable_by(|&a, &b| {
            let a = words_of(runs.get(a as usize)).map(|word| places[word as usize]);
            a.cmp(words_of(runs.get(b as usize)).map(|word| places[word as usize]))
        });
        for run in order {
            counts.push_run(&moved(run), runs.count(run as usize));
        }
        counts
    }

    /// The counts of two corpora together.
    pub fn merge(a: View<'_>, b: View<'_>) -> Result<Self, LimitError> {
        let mut merged = Self::empty();
        let (mut place_a, mut place_b) = (vec![0u32; a.len()], vec![0u32; b.len()]);
        let (mut i, mut j) = (0, 0);
        while i < a.len() || j < b.len() {
            let order = compare(i < a.len(), j < b.len(), || a.word(i).cmp(b.word(j)));
            let place = merged.counts.len() as u64;
            let place = u32::try_from(place)
                .map_err(|_| LimitError { limit: "distinct pretokens".to_owned(), value: place })?;
            let word = if order == Ordering::Greater { b.word(j) } else { a.word(i) };
            let mut count = 0;
            if order != Ordering::Greater {
                place_a[i] = place;
                count += a.count(i);
                i += 1;
            }
            if order != Ordering::Less {
                place_b[j] = place;
                count += b.count(j);
                j += 1;
            }
            merged.push_word(word, count);
        }
        // The places only shift upwards, so runs keep their order.
        let (mut i, mut j) = (0, 0);
        let (mut run_a, mut run_b) = (Vec::new(), Vec::new());
        let load = |out: &mut Vec<u32>, view: View<'_>, run: usize, places: &[u32]| {
            out.clear();
            if run < view.runs() {
                out.extend(view.run(run).iter().map(|&word| places[word as usize]));
            }
        };
        load(&mut run_a, a, i, &place_a);
        load(&mut run_b, b, j, &place_b);
        while i < a.runs() || j < b.runs() {
            match compare(i < a.runs(), j < b.runs(), || run_a.cmp(&run_b)) {
                Ordering::Less => merged.push_run(&run_a, a.run_count(i)),
                Ordering::Greater => merged.push_run(&run_b, b.run_count(j)),
                Ordering::Equal => merged.push_run(&run_a, a.run_count(i) + b.run_count(j)),
            }
            let order = compare(i < a.runs(), j < b.runs(), || run_a.cmp(&run_b));
            if order != Ordering::Greater {
                i += 1;
                load(&mut run_a, a, i, &place_a);
            }
            if order != Ordering::Less {
                j += 1;
                load(&mut run_b, b, j, &place_b);
            }
        }
        Ok(merged)
    }

    fn empty() -> Self {
        Self { offsets: vec![0], run_offsets: vec![0], ..Self::default() }
    }

    fn push_word(&mut self, word: &[u8], count: u64) {
        self.bytes.extend_from_slice(word);
        self.offsets.push(self.bytes.len() as u64);
        self.counts.push(count);
    }

    fn push_run(&mut self, run: &[u32], count: u64) {
        self.run_words.extend_from_slice(run);
        self.run_offsets.push(self.run_words.len() as u64);
        self.run_counts.push(count);
    }
}

/// Which of two walks is next; one that has ended is never first.
fn compare(a_left: bool, b_left: bool, both: impl FnOnce() -> Ordering) -> Ordering {
    match (a_left, b_left) {
        (true, true) => both(),
        (true, false) => Ordering::Less,
        _ => Ordering::Greater,
    }
}

/// The words of a run as the counting threads keep it.
pub(super) fn words_of(run: &[u8]) -> impl Iterator<Item = u32> + '_ {
    run.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

/// The first eight bytes as a number that sorts like them.
fn prefix(word: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let n = word.len().min(8);
    bytes[..n].copy_from_slice(&word[..n]);
    u64::from_be_bytes(bytes)
}
