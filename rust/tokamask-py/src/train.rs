//! Counting and learning behind `tokamask.train`.

#![allow(clippy::needless_pass_by_value)] // pyo3 hands arguments over by value

use std::time::{Duration, Instant};

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyBytes;
use tokamask::error::Error;
use tokamask::text::normalizer::Normalization;
use tokamask::text::pretokenizer::PreTokenizer;
use tokamask::train::bpe;
use tokamask::train::counter::{Counter, Cutter};
use tokamask::train::counts::{PretokenCounts, View};
use tokamask::train::learn::{Goal, Veto};
use tokamask::train::superbpe::{self, Sizes};
use tokamask::train::superword::superword_veto;
use tokamask::train::{boundless, replay, unigram, wordpiece};

use crate::arrays::to_numpy;
use crate::errors::Result;
use crate::tokenizer::Tokenizer;

/// Time between two calls of a progress function.
const TICK: Duration = Duration::from_millis(100);

/// offsets, bytes, counts, run_offsets, run_words, run_counts
type Arrays<'py> = (
    Bound<'py, PyArray1<u64>>,
    Bound<'py, PyArray1<u8>>,
    Bound<'py, PyArray1<u64>>,
    Bound<'py, PyArray1<u64>>,
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<u64>>,
);

/// The same, borrowed.
type Borrowed<'py> = (
    PyReadonlyArray1<'py, u64>,
    PyReadonlyArray1<'py, u8>,
    PyReadonlyArray1<'py, u64>,
    PyReadonlyArray1<'py, u64>,
    PyReadonlyArray1<'py, u32>,
    PyReadonlyArray1<'py, u64>,
);

fn view<'a>(arrays: &'a Borrowed<'_>) -> Result<View<'a>> {
    let (offsets, bytes, counts, run_offsets, run_words, run_counts) = arrays;
    let shape = |_| tokamask::error::CorpusError::new("an array of counts is not contiguous");
    Ok(View::new(
        (
            offsets.as_slice().map_err(shape)?,
            bytes.as_slice().map_err(shape)?,
            counts.as_slice().map_err(shape)?,
        ),
        (
            run_offsets.as_slice().map_err(shape)?,
            run_words.as_slice().map_err(shape)?,
            run_counts.as_slice().map_err(shape)?,
        ),
    )?)
}

fn arrays(py: Python<'_>, counts: PretokenCounts) -> Arrays<'_> {
    (
        to_numpy(py, counts.offsets),
        to_numpy(py, counts.bytes),
        to_numpy(py, counts.counts),
        to_numpy(py, counts.run_offsets),
        to_numpy(py, counts.run_words),
        to_numpy(py, counts.run_counts),
    )
}

/// Tables of counts that texts are added to.
#[pyclass(frozen, module = "tokamask._core")]
pub struct PretokenCounter(Counter);

#[pymethods]
impl PretokenCounter {
    #[new]
    fn new(words: &str, runs: Option<&str>, by_line: bool) -> Result<Self> {
        // Runs are made of pretokens that are spans of the text.
        let settings = if runs.is_some() { bpe::settings(words) } else { bpe::components(words) }?;
        let words = Cutter::new(&settings.steps)?;
        let runs = match runs {
            Some(runs) => Some(PreTokenizer::new(&bpe::settings(runs)?.steps)?),
            None => None,
        };
        Ok(Self(Counter::new(
            words,
            runs,
            by_line,
            settings.normalizer.map(|n| Normalization::new([&n])).transpose()?,
        )))
    }

    /// Counts texts, each on its own.
    fn add_texts(&self, py: Python<'_>, texts: Vec<PyBackedStr>) -> Result<()> {
        let texts: Vec<&str> = texts.iter().map(|text| &**text).collect();
        Ok(py.detach(|| self.0.add_texts(&texts))?)
    }

    /// Counts blocks of whole lines; `places` names each block's file and where in it the block starts.
    fn add_blocks(
        &self,
        py: Python<'_>,
        blocks: Vec<PyBackedBytes>,
        places: Vec<(String, u64)>,
    ) -> Result<()> {
        let blocks: Vec<&[u8]> = blocks.iter().map(|block| &**block).collect();
        let counted = py.detach(|| self.0.add_blocks(&blocks));
        Ok(counted.map_err(|error| error.named(|nth| places[nth].clone()))?)
    }

    /// Adds counts that were taken before.
    fn add_counts(&self, py: Python<'_>, counts: Borrowed<'_>) -> Result<()> {
        let view = view(&counts)?;
        Ok(py.detach(|| self.0.add_counts(view))?)
    }

    /// The counts so far, sorted.
    fn counts<'py>(&self, py: Python<'py>) -> Result<Arrays<'py>> {
        let counts = py.detach(|| self.0.snapshot())?;
        Ok(arrays(py, counts))
    }

    /// Bytes that the tables hold.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.bytes()
    }
}

/// Counts of two corpora together.
#[pyfunction]
pub fn merge_counts<'py>(py: Python<'py>, a: Borrowed<'py>, b: Borrowed<'py>) -> Result<Arrays<'py>> {
    let (a, b) = (view(&a)?, view(&b)?);
    let merged = py.detach(|| PretokenCounts::merge(a, b))?;
    Ok(arrays(py, merged))
}

/// Refuses arrays that are not counts.
#[pyfunction]
pub fn check_counts(counts: Borrowed<'_>) -> Result<()> {
    view(&counts).map(|_| ())
}

/// Tells Python now and then how far the work is, and whether it wants to stop.
struct Ticker {
    report: Option<Py<PyAny>>,
    last: Instant,
    calls: u32,
    raised: Option<PyErr>,
}

impl Ticker {
    fn new(report: Option<Py<PyAny>>) -> Self {
        Self { report, last: Instant::now(), calls: 0, raised: None }
    }

    fn tick(&mut self, done: usize) -> bool {
        self.calls += 1;
        self.calls % 64 != 0 || self.tell(done)
    }

    fn tell(&mut self, done: usize) -> bool {
        if self.last.elapsed() < TICK {
            return true;
        }
        self.last = Instant::now();
        let told = Python::attach(|py| {
            py.check_signals()?;
            self.report.as_ref().map_or(Ok(()), |report| report.call1(py, (done,)).map(|_| ()))
        });
        self.raised = told.err();
        self.raised.is_none()
    }

    fn finish(self) -> PyResult<()> {
        self.raised.map_or(Ok(()), Err)
    }
}

/// A tokenizer and its merges, as pairs of ids one after another.
type Trained<'py> = (Tokenizer, Bound<'py, PyArray1<u32>>, Vec<Bound<'py, PyBytes>>);

/// What all trainers of byte-level merges do around their learning.
fn learn<'py>(
    py: Python<'py>,
    counts: &Borrowed<'_>,
    components: &str,
    special_tokens: &[String],
    report: Option<Py<PyAny>>,
    train: impl FnOnce(View<'_>, &mut Ticker) -> std::result::Result<bpe::Learnt, Error> + Send,
) -> Result<Trained<'py>> {
    let view = view(counts)?;
    let mut ticker = Ticker::new(report);
    let learnt = py.detach(|| train(view, &mut ticker))?;
    ticker.finish()?;
    let definition = learnt.definition(special_tokens, bpe::settings(components)?);
    let tokenizer = py.detach(|| tokamask::tokenizer::Tokenizer::new(definition))?;
    let merges = learnt.merges.iter().flat_map(|&(left, right)| [left, right]).collect();
    let tokens = learnt.tokens.iter().map(|token| PyBytes::new(py, token)).collect();
    Ok((tokenizer.into(), to_numpy(py, merges), tokens))
}

/// Byte-level BPE from counts.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // the options of the trainer, named in Python
pub fn train_bpe<'py>(
    py: Python<'py>,
    counts: Borrowed<'_>,
    components: &str,
    special_tokens: Vec<String>,
    initial_alphabet: &[u8],
    vocab_size: usize,
    min_frequency: u64,
    max_token_length: Option<usize>,
    report: Option<Py<PyAny>>,
) -> Result<Trained<'py>> {
    let max_token_length = max_token_length.unwrap_or(usize::MAX);
    learn(py, &counts, components, &special_tokens, report, |view, ticker| {
        let goal = Goal { min_frequency, max_token_length, ..Goal::size(vocab_size) };
        bpe::train(view, &special_tokens, initial_alphabet, goal, |done| ticker.tick(done))
    })
}

/// SuperBPE from counts with runs: words up to `transition`, superwords after it.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // the options of the trainer, named in Python
pub fn train_superbpe<'py>(
    py: Python<'py>,
    counts: Borrowed<'_>,
    components: &str,
    special_tokens: Vec<String>,
    initial_alphabet: &[u8],
    vocab_size: usize,
    transition: usize,
    max_words: usize,
    min_frequency: u64,
    report: Option<Py<PyAny>>,
) -> Result<Trained<'py>> {
    learn(py, &counts, components, &special_tokens, report, |view, ticker| {
        let sizes = Sizes { vocab_size, transition, max_words, min_frequency };
        superbpe::train(view, &special_tokens, initial_alphabet, sizes, |done| ticker.tick(done))
    })
}

/// `BoundlessBPE` from counts with runs.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // the options of the trainer, named in Python
pub fn train_boundless<'py>(
    py: Python<'py>,
    counts: Borrowed<'_>,
    components: &str,
    special_tokens: Vec<String>,
    initial_alphabet: &[u8],
    vocab_size: usize,
    max_words: Option<usize>,
    min_frequency: u64,
    report: Option<Py<PyAny>>,
) -> Result<Trained<'py>> {
    learn(py, &counts, components, &special_tokens, report, |view, ticker| {
        let veto = superword_veto(max_words.unwrap_or(usize::MAX));
        let veto = max_words.is_some().then_some(&veto as Veto<'_>);
        let goal = Goal { min_frequency, veto, ..Goal::size(vocab_size) };
        boundless::train(view, &special_tokens, initial_alphabet, goal, |done| ticker.tick(done))
    })
}

/// pairs, merges, steps, places, counts
type Replayed<'py> = (
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<u64>>,
);

/// Counts of pairs through the merges of a tokenizer.
#[pyfunction]
pub fn replay_merges<'py>(
    py: Python<'py>,
    tokenizer: &Tokenizer,
    counts: Borrowed<'_>,
    report: Option<Py<PyAny>>,
) -> Result<Replayed<'py>> {
    let view = view(&counts)?;
    let definition = tokenizer.core().definition();
    let mut ticker = Ticker::new(report);
    let replay = py.detach(|| replay::replay(definition, view, |done| ticker.tick(done)))?;
    ticker.finish()?;
    let pairs = replay.pairs.into_iter().flat_map(|(left, right)| [left, right]).collect();
    Ok((
        to_numpy(py, pairs),
        to_numpy(py, replay.merges),
        to_numpy(py, replay.steps),
        to_numpy(py, replay.places),
        to_numpy(py, replay.counts),
    ))
}

/// A tokenizer with more merges.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // the options of the trainer, named in Python
pub fn train_extend(
    py: Python<'_>,
    tokenizer: &Tokenizer,
    counts: Borrowed<'_>,
    components: &str,
    vocab_size: usize,
    max_words: Option<usize>,
    veto: Option<Py<PyAny>>,
    min_frequency: u64,
    report: Option<Py<PyAny>>,
) -> Result<Tokenizer> {
    let view = view(&counts)?;
    let rule = bpe::settings(components)?;
    let superwords = superword_veto(max_words.unwrap_or(usize::MAX));
    let raised = std::sync::Mutex::new(None);
    let asked = |token: &[u8]| {
        let ask = |veto: &Py<PyAny>| {
            Python::attach(|py| veto.bind(py).call1((PyBytes::new(py, token),))?.is_truthy())
        };
        veto.as_ref().is_some_and(|veto| {
            ask(veto).unwrap_or_else(|error| {
                raised.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                true
            })
        })
    };
    let refuse = |token: &[u8]| max_words.is_some() && superwords(token) || asked(token);
    let goal = Goal { min_frequency, veto: Some(&refuse), ..Goal::size(vocab_size) };
    let mut ticker = Ticker::new(report);
    let definition = tokenizer.core().definition();
    let extended = py.detach(|| {
        superbpe::extend_definition(definition, view, &rule, goal, veto.is_none(), |done| ticker.tick(done))
    })?;
    ticker.finish()?;
    let raised = raised.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(error) = raised {
        return Err(error.into());
    }
    Ok(py.detach(|| tokamask::tokenizer::Tokenizer::new(extended.0))?.into())
}

/// Pieces of a Unigram model and the logarithms of their probabilities, the likeliest first.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // the options of the trainer, named in Python
pub fn train_unigram(
    py: Python<'_>,
    counts: Borrowed<'_>,
    pieces: usize,
    vocab_size: usize,
    rounds: usize,
    shrinking_factor: f64,
    max_piece_length: usize,
    seed_size: usize,
    initial_alphabet: &str,
    report: Option<Py<PyAny>>,
) -> Result<Vec<(String, f64)>> {
    let view = view(&counts)?;
    let initial: Vec<char> = initial_alphabet.chars().collect();
    let options = unigram::Options {
        pieces,
        vocab_size,
        rounds,
        shrinking_factor,
        max_piece_length,
        seed_size,
        initial: &initial,
    };
    let mut ticker = Ticker::new(report);
    let learnt = py.detach(|| unigram::train(view, options, |left| ticker.tell(left)))?;
    ticker.finish()?;
    let pieces = learnt.unwrap_or_default().into_iter();
    Ok(pieces.map(|(piece, score)| (piece.iter().collect(), score)).collect())
}

/// Tokens of a `WordPiece` vocabulary after the special ones, by id.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // the options of the trainer, named in Python
pub fn train_wordpiece(
    py: Python<'_>,
    counts: Borrowed<'_>,
    vocab_size: usize,
    special_tokens: usize,
    min_frequency: u64,
    limit_alphabet: usize,
    initial_alphabet: &str,
    prefix: &str,
    report: Option<Py<PyAny>>,
) -> Result<Vec<String>> {
    let view = view(&counts)?;
    let initial: Vec<char> = initial_alphabet.chars().collect();
    let options = wordpiece::Options {
        vocab_size,
        special_tokens,
        min_frequency,
        limit_alphabet,
        initial: &initial,
        prefix,
    };
    let mut ticker = Ticker::new(report);
    let learnt = py.detach(|| wordpiece::train(view, options, |done| ticker.tick(done)))?;
    ticker.finish()?;
    Ok(learnt.unwrap_or_default())
}

/// Ids that no text becomes.
#[pyfunction]
pub fn unreachable_tokens<'py>(py: Python<'py>, tokenizer: &Tokenizer) -> Result<Bound<'py, PyArray1<u32>>> {
    let definition = tokenizer.core().definition();
    let ids = py.detach(|| tokamask::train::reach::unreachable(definition))?;
    Ok(to_numpy(py, ids))
}
