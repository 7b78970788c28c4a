//! What ranks, selects and merges tokens.

use pyo3::prelude::*;
use tokamask::kernels::array::each_float;
use tokamask::kernels::attention::PageTable;
use tokamask::kernels::greedy::{self, Gain};
use tokamask::kernels::indexer::{self, Indexer};
use tokamask::kernels::reduction::{self, Many};
use tokamask::kernels::{calibrate, columns, quest, unmask as unmasking, votes};

use super::attention::{dense, view};
use super::masks;
use crate::arrays::{contiguous, contiguous_mut, dimensions, floats, shape_error, to_numpy};
use crate::errors::Result;

/// Runs the body with two arrays of three dimensions and one type.
macro_rules! pair {
    (($x:literal, $first:expr), ($y:literal, $second:expr), |$a:ident, $b:ident| $body:expr) => {{
        let arrays = ($crate::arrays::floats($x, $first)?, $crate::arrays::floats($y, $second)?);
        tokamask::kernels::array::each_float!(arrays.0.data, a => {
            let refuse = || $crate::arrays::shape_error($y, concat!("the type of ", $x), $second);
            let b = arrays.1.data.like(a).ok_or_else(refuse)?;
            let $a = super::attention::view::<_, 3>($x, a, &arrays.0, $first)?;
            let $b = super::attention::view::<_, 3>($y, b, &arrays.1, $second)?;
            $body
        })
    }};
}
pub(super) use pair;

fn table<'a>(page_table: &'a Bound<'_, PyAny>, seq_lens: &'a Bound<'_, PyAny>) -> Result<PageTable<'a>> {
    Ok(PageTable { pages: dense("page_table", page_table)?, seq_lens: contiguous("seq_lens", seq_lens)?.0 })
}

/// `(first n_init, k by vote, last n_local)` tokens of each sequence into `out`.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn token_select(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    k_cache: &Bound<'_, PyAny>,
    page_table: &Bound<'_, PyAny>,
    seq_lens: &Bound<'_, PyAny>,
    counts: [usize; 3],
    scale: f32,
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let (queries, keys) = (floats("q", q)?, floats("k_cache", k_cache)?);
    let table = table(page_table, seq_lens)?;
    let (out, _) = contiguous_mut::<i32>("out", out)?;
    each_float!(queries.data, a => {
        let b = keys.data.like(a).ok_or_else(|| shape_error("k_cache", "the type of q", k_cache))?;
        let (a, b) = (view::<_, 3>("q", a, &queries, q)?, view::<_, 4>("k_cache", b, &keys, k_cache)?);
        Ok(py.detach(|| votes::token_select(a, b, &table, counts, scale, out))?)
    })
}

/// Softmax scores from the dominant chunks into `out`.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn fasa_scores(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    k_cache: &Bound<'_, PyAny>,
    page_table: &Bound<'_, PyAny>,
    dominant: &Bound<'_, PyAny>,
    seq_lens: &Bound<'_, PyAny>,
    interleaved: bool,
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let (queries, keys) = (floats("q", q)?, floats("k_cache", k_cache)?);
    let table = table(page_table, seq_lens)?;
    let dominant = dense::<i32, 2>("dominant", dominant)?;
    let (out, _) = contiguous_mut::<f32>("out", out)?;
    each_float!(queries.data, a => {
        let b = keys.data.like(a).ok_or_else(|| shape_error("k_cache", "the type of q", k_cache))?;
        let (a, b) = (view::<_, 3>("q", a, &queries, q)?, view::<_, 4>("k_cache", b, &keys, k_cache)?);
        Ok(py.detach(|| votes::fasa_scores(a, b, &table, dominant, interleaved, out))?)
    })
}

/// The best chunks of each KV head, one head after another.
#[pyfunction]
pub fn fasa_calibrate<'py>(
    py: Python<'py>,
    q: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    n_chunks: usize,
    top: usize,
    interleaved: bool,
) -> Result<Bound<'py, PyAny>> {
    pair!(("q", q), ("k", k), |a, b| {
        let chosen = py.detach(|| calibrate::fasa_calibrate(a, b, n_chunks, top, interleaved))?;
        Ok(to_numpy(py, chosen).into_any())
    })
}

/// Least and greatest keys of each page into `low` and `high`.
#[pyfunction]
pub fn quest_bounds(
    py: Python<'_>,
    k_cache: &Bound<'_, PyAny>,
    page_table: &Bound<'_, PyAny>,
    seq_lens: &Bound<'_, PyAny>,
    low: &Bound<'_, PyAny>,
    high: &Bound<'_, PyAny>,
) -> Result<()> {
    let keys = floats("k_cache", k_cache)?;
    let table = table(page_table, seq_lens)?;
    let (low, high) = (contiguous_mut::<f32>("low", low)?.0, contiguous_mut::<f32>("high", high)?.0);
    each_float!(keys.data, a => {
        let a = view::<_, 4>("k_cache", a, &keys, k_cache)?;
        Ok(py.detach(|| quest::quest_bounds(a, &table, low, high))?)
    })
}

/// Upper bounds of `q . k` over pages into `out`.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn quest_scores(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    low: &Bound<'_, PyAny>,
    high: &Bound<'_, PyAny>,
    page_table: &Bound<'_, PyAny>,
    seq_lens: &Bound<'_, PyAny>,
    page_size: usize,
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let queries = floats("q", q)?;
    let table = table(page_table, seq_lens)?;
    let (low, high) = (dense::<f32, 3>("low", low)?, dense::<f32, 3>("high", high)?);
    let (out, _) = contiguous_mut::<f32>("out", out)?;
    each_float!(queries.data, a => {
        let a = view::<_, 3>("q", a, &queries, q)?;
        Ok(py.detach(|| quest::quest_scores(a, low, high, &table, page_size, out))?)
    })
}

/// Indexer scores of every key for every query into `out`.
#[pyfunction]
pub fn indexer_scores(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    k: &Bound<'_, PyAny>,
    w: &Bound<'_, PyAny>,
    positions: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let (queries, keys) = (floats("q", q)?, floats("k", k)?);
    let (w, (positions, _)) = (dense::<f32, 2>("w", w)?, contiguous::<i32>("positions", positions)?);
    let (out, _) = contiguous_mut::<f32>("out", out)?;
    each_float!(queries.data, a => {
        let b = keys.data.like(a).ok_or_else(|| shape_error("k", "the type of q", k))?;
        let q = view::<_, 3>("q", a, &queries, q)?;
        let indexer = Indexer { q, k: view::<_, 2>("k", b, &keys, k)?, w, positions };
        Ok(py.detach(|| indexer::indexer_scores(&indexer, out))?)
    })
}

/// The best keys of the best blocks into `out`; `counts` are tokens, blocks and the block size.
#[pyfunction]
pub fn hisa_select(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    k: &Bound<'_, PyAny>,
    w: &Bound<'_, PyAny>,
    positions: &Bound<'_, PyAny>,
    counts: [usize; 3],
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let (queries, keys) = (floats("q", q)?, floats("k", k)?);
    let (w, (positions, _)) = (dense::<f32, 2>("w", w)?, contiguous::<i32>("positions", positions)?);
    let (out, _) = contiguous_mut::<i32>("out", out)?;
    each_float!(queries.data, a => {
        let b = keys.data.like(a).ok_or_else(|| shape_error("k", "the type of q", k))?;
        let q = view::<_, 3>("q", a, &queries, q)?;
        let indexer = Indexer { q, k: view::<_, 2>("k", b, &keys, k)?, w, positions };
        Ok(py.detach(|| indexer::hisa_select(&indexer, counts, out))?)
    })
}

/// Summed columns of the causal attention matrix into `out`.
#[pyfunction]
pub fn attention_column_sums(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    k: &Bound<'_, PyAny>,
    scale: f32,
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let (out, _) = contiguous_mut::<f32>("out", out)?;
    pair!(("q", q), ("k", k), |a, b| Ok(py.detach(|| columns::attention_column_sums(a, b, scale, out))?))
}

/// Chosen rows of `x` into `out`, ascending. `importance` chooses by marginal relevance, else `sum` or least distance.
#[pyfunction]
#[pyo3(signature = (x, importance, lam, sum, out))]
pub fn greedy_select(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    importance: Option<&Bound<'_, PyAny>>,
    lam: f32,
    sum: bool,
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let array = floats("x", x)?;
    let importance = importance.map(|i| contiguous::<f32>("importance", i)).transpose()?;
    let gain = match importance {
        Some((importance, _)) => Gain::Mmr { importance, lam },
        None if sum => Gain::MaxSum,
        None => Gain::MaxMin,
    };
    let (out, _) = contiguous_mut::<i32>("out", out)?;
    each_float!(array.data, a => {
        let a = view::<_, 2>("x", a, &array, x)?;
        Ok(py.detach(|| greedy::greedy_select(a, gain, out))?)
    })
}

/// The cosine of each of ToMe's edges.
#[pyfunction]
pub fn tome_edges<'py>(
    py: Python<'py>,
    metric: &Bound<'py, PyAny>,
    protect: usize,
) -> Result<Bound<'py, PyAny>> {
    let array = floats("metric", metric)?;
    let edges = each_float!(array.data, a => {
        let a = view::<_, 2>("metric", a, &array, metric)?;
        py.detach(|| reduction::tome_edges(a, protect))
    });
    Ok(to_numpy(py, edges).into_any())
}

/// Rows merged: the `r` best edges, or all above `threshold`, or PiToMe's where a margin is given: (x, sizes, new row of each old
/// one), flat.
#[pyfunction]
#[pyo3(signature = (x, metric, size, r, threshold, margin, protect))]
#[allow(clippy::type_complexity, clippy::too_many_arguments)]
pub fn merge_rows<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    metric: &Bound<'py, PyAny>,
    size: &Bound<'py, PyAny>,
    r: usize,
    threshold: Option<f32>,
    margin: Option<f32>,
    protect: usize,
) -> Result<(Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let (rows, metrics) = (floats("x", x)?, floats("metric", metric)?);
    let (size, _) = contiguous::<f32>("size", size)?;
    let into = each_float!(metrics.data, a => {
        let a = view::<_, 2>("metric", a, &metrics, metric)?;
        py.detach(|| match margin {
            None => reduction::tome_match(a, threshold.map_or(Many::Count(r), Many::Above), protect),
            Some(margin) => reduction::pitome_match(a, r, margin, protect),
        })
    });
    let merged = each_float!(rows.data, a => {
        let a = view::<_, 2>("x", a, &rows, x)?;
        py.detach(|| reduction::merge(a, size, &into))?
    });
    let arrays = (to_numpy(py, merged.x), to_numpy(py, merged.sizes), to_numpy(py, merged.rows));
    Ok((arrays.0.into_any(), arrays.1.into_any(), arrays.2.into_any()))
}

/// Decisions on masked positions into `tokens`, `confidence` and `accepted`.
#[pyfunction]
#[pyo3(signature = (logits, masked, bitmask, threshold, count, tokens, confidence, accepted))]
#[allow(clippy::too_many_arguments)]
pub fn unmask(
    py: Python<'_>,
    logits: &Bound<'_, PyAny>,
    masked: &Bound<'_, PyAny>,
    bitmask: Option<&Bound<'_, PyAny>>,
    threshold: Option<f32>,
    count: Option<usize>,
    tokens: &Bound<'_, PyAny>,
    confidence: &Bound<'_, PyAny>,
    accepted: &Bound<'_, PyAny>,
) -> Result<()> {
    let array = floats("logits", logits)?;
    let (shape, _) = dimensions::<2>("logits", &array.shape, &array.strides, logits)?;
    let masks = bitmask.map(|bitmask| masks(bitmask, None, shape)).transpose()?;
    let (masked, _) = contiguous::<bool>("masked", masked)?;
    let outputs = (
        contiguous_mut::<i32>("tokens", tokens)?.0,
        contiguous_mut::<f32>("confidence", confidence)?.0,
        contiguous_mut::<bool>("accepted", accepted)?.0,
    );
    let decisions = each_float!(array.data, a => {
        let a = view::<_, 2>("logits", a, &array, logits)?;
        py.detach(|| unmasking::unmask(a, masked, masks.as_ref(), threshold, count))?
    });
    let slots = outputs.0.iter_mut().zip(outputs.1).zip(outputs.2);
    for (((token, probability), accept), decision) in slots.zip(decisions) {
        (*token, *probability, *accept) = decision;
    }
    Ok(())
}
