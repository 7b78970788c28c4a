//! Counting pretokens in parallel with memory bounded by what is distinct, not by what is read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::counts::{words_of, PretokenCounts, View};
use super::table::Table;
use crate::error::{CorpusError, Error};
use crate::text::normalizer::Normalization;
use crate::text::pieces::Pieces;
use crate::text::pretokenizer::{PreTokenizer, Step};

/// Bytes of text that one thread takes at a time.
const CHUNK: usize = 1 << 18;

/// How text is cut into what is counted.
pub enum Cutter {
    /// Into spans of it.
    Spans(PreTokenizer),
    /// Into pieces that spell it otherwise, with marks for spaces for example.
    Pieces(Pieces),
}

impl Cutter {
    /// The plainest way to run the steps.
    pub fn new(steps: &[Step]) -> Result<Self, Error> {
        Ok(if steps.iter().all(Step::only_cuts) {
            Self::Spans(PreTokenizer::new(steps)?)
        } else {
            Self::Pieces(Pieces::new(steps)?)
        })
    }
}

/// Counts pretokens of texts, on all threads of the pool.
pub struct Counter {
    words: Cutter,
    /// Cuts text at the boundaries that not even superwords cross; `None`: no runs are kept.
    runs: Option<PreTokenizer>,
    /// Texts are cut after each newline first.
    by_line: bool,
    /// What becomes of each line, or text, before it is cut into pretokens.
    normalizer: Option<Normalization>,
    shards: Vec<Mutex<Shard>>,
}

/// What one thread has counted.
#[derive(Default)]
struct Shard {
    words: Table,
    /// Runs of two words and more, as native-endian places in `words`.
    runs: Table,
    spans: Vec<(usize, usize)>,
    inner: Vec<(usize, usize)>,
    run: Vec<u8>,
    starts: Vec<u32>,
}

impl Counter {
    /// A counter that cuts text with `words`, inside the pieces of `runs` if given.
    pub fn new(
        words: Cutter,
        runs: Option<PreTokenizer>,
        by_line: bool,
        normalizer: Option<Normalization>,
    ) -> Self {
        let shards = (0..rayon::current_num_threads()).map(|_| Mutex::default()).collect();
        Self { words, runs, by_line, normalizer, shards }
    }

    /// Counts texts, each on its own.
    pub fn add_texts(&self, texts: &[&str]) -> Result<(), Error> {
        let groups = group(texts, |text| text.len());
        self.on_all_threads(groups.len(), |shard, nth| {
            texts[groups[nth].clone()].iter().try_for_each(|text| self.add_text(shard, text))
        })
    }

    /// Counts lines of files: `blocks` are whole lines in UTF-8. The error names the block and the
    /// byte in it.
    pub fn add_blocks(&self, blocks: &[&[u8]]) -> Result<(), BlockError> {
        let chunks: Vec<(usize, usize, &[u8])> =
            blocks.iter().enumerate().flat_map(|(nth, block)| chunks_of_lines(nth, block)).collect();
        self.on_all_threads(chunks.len(), |shard, nth| {
            let (block, start, chunk) = chunks[nth];
            let text = std::str::from_utf8(chunk)
                .map_err(|error| BlockError::NotText { block, position: start + error.valid_up_to() })?;
            lines(text).try_for_each(|line| Ok(self.add_line(shard, line)?))
        })
    }

    /// Bytes held by the tables.
    pub fn bytes(&self) -> usize {
        let held = |shard: &Shard| shard.words.bytes() + shard.runs.bytes();
        self.shards.iter().map(|shard| held(&lock(shard))).sum()
    }

    /// Adds counts that were taken before.
    pub fn add_counts(&self, counts: View<'_>) -> Result<(), Error> {
        let Some(shard) = self.shards.first() else { return Ok(()) };
        let mut shard = lock(shard);
        let places = counts.words().map(|(word, count)| shard.words.add(word, count));
        let places = places.collect::<Result<Vec<u32>, _>>()?;
        let mut run = Vec::new();
        for nth in 0..counts.runs() {
            run.clear();
            run.extend(counts.run(nth).iter().flat_map(|&word| places[word as usize].to_ne_bytes()));
            shard.runs.add(&run, counts.run_count(nth))?;
        }
        Ok(())
    }

    /// The counts so far, sorted; the counter goes on.
    pub fn snapshot(&self) -> Result<PretokenCounts, Error> {
        let shards: Vec<Shard> = self.shards.iter().map(|shard| std::mem::take(&mut *lock(shard))).collect();
        let whole = shards.into_par_iter().map(Ok).try_reduce(Shard::default, Shard::absorb)?;
        let counts = PretokenCounts::from_tables(&whole.words, &whole.runs);
        if let Some(first) = self.shards.first() {
            *lock(first) = whole;
        }
        Ok(counts)
    }

    fn add_text(&self, shard: &mut Shard, text: &str) -> Result<(), Error> {
        if self.by_line {
            lines(text).try_for_each(|line| self.add_line(shard, line))
        } else {
            self.add_line(shard, text)
        }
    }

    fn add_line(&self, shard: &mut Shard, text: &str) -> Result<(), Error> {
        match &self.normalizer {
            Some(normalizer) => self.add_normal(shard, &normalizer.apply(text)),
            None => self.add_normal(shard, text),
        }
    }

    fn add_normal(&self, shard: &mut Shard, text: &str) -> Result<(), Error> {
        let Shard { words, runs, spans, inner, run, starts } = shard;
        let cutter = match &self.words {
            Cutter::Spans(cutter) => cutter,
            Cutter::Pieces(pieces) => {
                return pieces.split(text, true, |piece| Ok(words.add(piece.as_bytes(), 1).map(|_| ())?));
            }
        };
        let Some(cut) = &self.runs else {
            let Some(rule) = cutter.single_rule() else {
                cutter.split(text, spans)?;
                for &(start, end) in &*spans {
                    words.add(&text.as_bytes()[start..end], 1)?;
                }
                return Ok(());
            };
            let mut pieces = rule.pieces(text.as_bytes());
            loop {
                starts.clear();
                pieces.fill(starts);
                if starts.is_empty() {
                    return Ok(());
                }
                for two in starts.windows(2) {
                    words.add(&text.as_bytes()[two[0] as usize..two[1] as usize], 1)?;
                }
            }
        };
        cut.split(text, spans)?;
        for &(start, end) in &*spans {
            let piece = &text[start..end];
            cutter.split(piece, inner)?;
            run.clear();
            for &(start, end) in &*inner {
                run.extend_from_slice(&words.add(&piece.as_bytes()[start..end], 1)?.to_ne_bytes());
            }
            if inner.len() > 1 {
                runs.add(run, 1)?;
            }
        }
        Ok(())
    }

    /// Runs `work` for 0..`jobs`, each thread with a shard of its own.
    fn on_all_threads<E: Send>(
        &self,
        jobs: usize,
        work: impl Fn(&mut Shard, usize) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let next = AtomicUsize::new(0);
        self.shards.par_iter().try_for_each(|shard| {
            let mut shard = lock(shard);
            loop {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                if nth >= jobs {
                    return Ok(());
                }
                work(&mut shard, nth)?;
            }
        })
    }
}

/// What counting blocks of files can end in.
pub enum BlockError {
    /// Bytes that are not UTF-8.
    NotText {
        /// Which block.
        block: usize,
        /// Where in it.
        position: usize,
    },
    /// Anything else.
    Other(Error),
}

impl From<Error> for BlockError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl BlockError {
    /// The error for people, given the file and the place of each block in it.
    pub fn named(self, place: impl Fn(usize) -> (String, u64)) -> Error {
        match self {
            Self::Other(error) => error,
            Self::NotText { block, position } => {
                let (path, start) = place(block);
                CorpusError::new("not UTF-8").at(path, start + position as u64).into()
            }
        }
    }
}

impl Shard {
    /// Both together, in the larger one.
    fn absorb(self, other: Self) -> Result<Self, Error> {
        let (mut big, small) =
            if self.words.len() < other.words.len() { (other, self) } else { (self, other) };
        let places = (0..small.words.len())
            .map(|place| big.words.add(small.words.get(place), small.words.count(place)))
            .collect::<Result<Vec<u32>, _>>()?;
        let mut run = Vec::new();
        for nth in 0..small.runs.len() {
            run.clear();
            run.extend(words_of(small.runs.get(nth)).flat_map(|word| places[word as usize].to_ne_bytes()));
            big.runs.add(&run, small.runs.count(nth))?;
        }
        Ok(big)
    }
}

/// A shard that panicked while counting is as good as one that did not.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines with their newline, as files are read.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
}

/// Pieces of about [`CHUNK`] bytes that end after a newline: block, place in it, bytes.
fn chunks_of_lines(nth: usize, block: &[u8]) -> Vec<(usize, usize, &[u8])> {
    let mut chunks = Vec::new();
    let mut start = 0;
    while start < block.len() {
        let from = (start + CHUNK).min(block.len());
        let end = memchr::memchr(b'\n', &block[from..]).map_or(block.len(), |at| from + at + 1);
        chunks.push((nth, start, &block[start..end]));
        start = end;
    }
    chunks
}

/// Ranges of items of about [`CHUNK`] bytes together.
fn group<T>(items: &[T], size: impl Fn(&T) -> usize) -> Vec<std::ops::Range<usize>> {
    let mut groups = Vec::new();
    let (mut start, mut held) = (0, 0);
    for (nth, item) in items.iter().enumerate() {
        held += size(item);
        if held >= CHUNK {
            groups.push(start..nth + 1);
            (start, held) = (nth + 1, 0);
        }
    }
    if start < items.len() {
        groups.push(start..items.len());
    }
    groups
}
