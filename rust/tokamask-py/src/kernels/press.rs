//! Scores by which a cache is compressed, and caches compressed by merging.

use numpy::PyArrayMethods;
use pyo3::prelude::*;
use tokamask::kernels::array::each_float;
use tokamask::kernels::compress::{self, Budget, Merged};
use tokamask::kernels::{press, saliency};

use super::attention::{dense, view};
use super::scores::pair;
use crate::arrays::{contiguous_mut, floats, to_numpy};
use crate::errors::Result;

/// Minus the length of each key, or with `directions` minus its cosine with the mean direction, into `out`.
#[pyfunction]
pub fn key_scores(
    py: Python<'_>,
    k: &Bound<'_, PyAny>,
    directions: bool,
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let keys = floats("k", k)?;
    let (out, _) = contiguous_mut::<f32>("out", out)?;
    each_float!(keys.data, a => {
        let a = view::<_, 3>("k", a, &keys, k)?;
        let score = if directions { press::keydiff_scores } else { press::knorm_scores };
        Ok(py.detach(|| score(a, out))?)
    })
}

/// Ranks against the next stretch of tokens into `out`; `counts` are the first tokens and the length of a stretch.
#[pyfunction]
pub fn lagkv_scores(
    py: Python<'_>,
    k: &Bound<'_, PyAny>,
    v: &Bound<'_, PyAny>,
    counts: [usize; 2],
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let (out, _) = contiguous_mut::<f32>("out", out)?;
    pair!(("k", k), ("v", v), |a, b| {
        Ok(py.detach(|| press::lagkv_scores(a, b, counts[0], counts[1], out))?)
    })
}

/// Attention of the last queries, pooled, mean over groups (over all heads where `one_list`), into `out`.
#[pyfunction]
pub fn window_scores(
    py: Python<'_>,
    q: &Bound<'_, PyAny>,
    k: &Bound<'_, PyAny>,
    scale: f32,
    kernel: usize,
    one_list: bool,
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let (out, _) = contiguous_mut::<f32>("out", out)?;
    pair!(("q", q), ("k", k), |a, b| {
        Ok(py.detach(|| press::window_scores(a, b, scale, kernel, one_list, out))?)
    })
}

/// The tokens of each query head that Token Sparse Attention takes: int32 [num_q_heads, c].
#[pyfunction]
pub fn token_sparse_select<'py>(
    py: Python<'py>,
    q: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    scale: f32,
    kernel: usize,
    coverage: f32,
    min_tokens: usize,
) -> Result<Bound<'py, PyAny>> {
    let rows: Vec<Vec<i32>> = pair!(("q", q), ("k", k), |a, b| {
        py.detach(|| press::token_sparse_select(a, b, scale, kernel, coverage, min_tokens))?
    });
    let shape = [rows.len(), rows.first().map_or(0, Vec::len)];
    Ok(to_numpy(py, rows.concat()).reshape(shape)?.into_any())
}

/// (keys, values, positions, sizes, kept) of all heads, one after another.
type Heads<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Vec<usize>);

fn heads<'py>(py: Python<'py>, merged: &[Merged]) -> Heads<'py> {
    let kept = merged.iter().map(|m| m.positions.len()).collect();
    let all = |part: fn(&Merged) -> &Vec<f32>| {
        to_numpy(py, merged.iter().flat_map(part).copied().collect::<Vec<f32>>()).into_any()
    };
    let positions: Vec<i32> = merged.iter().flat_map(|m| &m.positions).copied().collect();
    (all(|m| &m.keys), all(|m| &m.values), to_numpy(py, positions).into_any(), all(|m| &m.sizes), kept)
}

/// Runs of like keys merged into one.
#[pyfunction]
pub fn kvmerger_merge<'py>(
    py: Python<'py>,
    k: &Bound<'py, PyAny>,
    v: &Bound<'py, PyAny>,
    scores: &Bound<'py, PyAny>,
    epsilon: f32,
    counts: [usize; 2],
) -> Result<Heads<'py>> {
    let scores = dense::<f32, 2>("scores", scores)?;
    let [recent, heavy] = counts;
    let merged = pair!(("k", k), ("v", v), |a, b| {
        py.detach(|| compress::kvmerger_merge(a, b, scores, epsilon, recent, heavy))?
    });
    Ok(heads(py, &merged))
}

/// The best tokens, and the next best merged into them.
#[pyfunction]
pub fn ems_merge<'py>(
    py: Python<'py>,
    k: &Bound<'py, PyAny>,
    v: &Bound<'py, PyAny>,
    scores: &Bound<'py, PyAny>,
    counts: [usize; 2],
    threshold: f32,
) -> Result<Heads<'py>> {
    let scores = dense::<f32, 2>("scores", scores)?;
    let budget = Budget { centres: counts[0], candidates: counts[1], threshold };
    let merged = pair!(("k", k), ("v", v), |a, b| py.detach(|| compress::ems_merge(a, b, scores, budget))?);
    Ok(heads(py, &merged))
}

/// Entropy of each token's matrix into `out`.
#[pyfunction]
pub fn entropy_scores(py: Python<'_>, x: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> Result<()> {
    let array = floats("x", x)?;
    let (out, _) = contiguous_mut::<f32>("out", out)?;
    each_float!(array.data, a => {
        let a = view::<_, 3>("x", a, &array, x)?;
        Ok(py.detach(|| saliency::entropy_scores(a, out))?)
    })
}

/// Rank of each token in the attention graph into `out`.
#[pyfunction]
pub fn pagerank_scores(
    py: Python<'_>,
    attention: &Bound<'_, PyAny>,
    rounds: usize,
    variance: [f32; 2],
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let attention = dense::<f32, 3>("attention", attention)?;
    let (out, _) = contiguous_mut::<f32>("out", out)?;
    Ok(py.detach(|| saliency::pagerank_scores(attention, rounds, variance, out))?)
}
