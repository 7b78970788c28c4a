//! Array kernels: called by `tokamask.sampling`, `tokamask.selection` and `tokamask.attention`, which check shapes and
//! allocate outputs. Sizes are checked again here where memory safety needs it.

mod attention;
mod scores;

pub use attention::{decode, lightning, merge_states, tree_decode};
use pyo3::prelude::*;
pub use scores::{
    attention_column_sums, fasa_scores, greedy_select, hisa_select, indexer_scores, merge_rows, quest_bounds,
    quest_scores, token_select, unmask,
};
use tokamask::kernels::bitmask::{self, MaskRows};
use tokamask::kernels::sampling::{self, Law};
use tokamask::kernels::selection;

use crate::arrays::{contiguous, contiguous_mut, dimensions, floats, floats_mut, shape_error};
use crate::errors::Result;

/// Mask words and the optional choice of rows.
pub(super) fn masks<'a>(
    bitmask: &'a Bound<'_, PyAny>,
    rows: Option<&'a Bound<'_, PyAny>>,
    [batch, vocab_size]: [usize; 2],
) -> Result<MaskRows<'a>> {
    let (words, _) = contiguous::<i32>("bitmask", bitmask)?;
    let rows = rows.map(|rows| contiguous::<i32>("rows", rows)).transpose()?.map(|(rows, _)| rows);
    Ok(MaskRows::new(words, rows, batch, vocab_size)?)
}

/// Writes -inf over the logits [batch, vocab_size] that the mask forbids, in place.
#[pyfunction]
#[pyo3(signature = (logits, bitmask, rows))]
pub fn apply_bitmask(
    py: Python<'_>,
    logits: &Bound<'_, PyAny>,
    bitmask: &Bound<'_, PyAny>,
    rows: Option<&Bound<'_, PyAny>>,
) -> Result<()> {
    let array = floats_mut("logits", logits)?;
    let (shape, [row_stride, _]) = dimensions::<2>("logits", &array.shape, &array.strides, logits)?;
    let masks = masks(bitmask, rows, shape)?;
    Ok(py.detach(|| bitmask::apply(array.data, shape, row_stride, &masks))?)
}

/// Draws a token per row; the laws come as one array per field, the results go into `tokens` and `logprobs`.
#[pyfunction]
#[pyo3(signature = (logits, bitmask, rows, temperature, top_k, top_p, min_p, seeds, streams, steps, tokens, logprobs))]
#[allow(clippy::too_many_arguments)]
pub fn sample(
    py: Python<'_>,
    logits: &Bound<'_, PyAny>,
    bitmask: Option<&Bound<'_, PyAny>>,
    rows: Option<&Bound<'_, PyAny>>,
    temperature: &Bound<'_, PyAny>,
    top_k: &Bound<'_, PyAny>,
    top_p: &Bound<'_, PyAny>,
    min_p: &Bound<'_, PyAny>,
    seeds: &Bound<'_, PyAny>,
    streams: &Bound<'_, PyAny>,
    steps: &Bound<'_, PyAny>,
    tokens: &Bound<'_, PyAny>,
    logprobs: &Bound<'_, PyAny>,
) -> Result<()> {
    let array = floats("logits", logits)?;
    let (shape, [row_stride, _]) = dimensions::<2>("logits", &array.shape, &array.strides, logits)?;
    let masks = bitmask.map(|bitmask| masks(bitmask, rows, shape)).transpose()?;
    let (temperature, _) = contiguous::<f32>("temperature", temperature)?;
    let (top_k, _) = contiguous::<i32>("top_k", top_k)?;
    let (top_p, _) = contiguous::<f32>("top_p", top_p)?;
    let (min_p, _) = contiguous::<f32>("min_p", min_p)?;
    let (seeds, _) = contiguous::<u64>("seeds", seeds)?;
    let (streams, _) = contiguous::<u32>("streams", streams)?;
    let (steps, _) = contiguous::<u64>("steps", steps)?;
    let lengths = [temperature.len(), top_k.len(), top_p.len(), min_p.len(), seeds.len(), streams.len()];
    let (tokens_out, _) = contiguous_mut::<i32>("tokens", tokens)?;
    let (logprobs_out, _) = contiguous_mut::<f32>("logprobs", logprobs)?;
    let batch = shape[0];
    if lengths.into_iter().chain([steps.len(), tokens_out.len(), logprobs_out.len()]).any(|n| n != batch) {
        return Err(shape_error("temperature, top_k, ..", format!("[batch={batch}]"), tokens).into());
    }
    let laws: Vec<Law> = (0..batch)
        .map(|b| Law {
            temperature: temperature[b],
            top_k: top_k[b],
            top_p: top_p[b],
            min_p: min_p[b],
            seed: seeds[b],
            stream: streams[b],
            step: steps[b],
        })
        .collect();
    let draws = py.detach(|| sampling::sample(array.data, shape, row_stride, masks.as_ref(), &laws))?;
    for (b, (token, logprob)) in draws.into_iter().enumerate() {
        (tokens_out[b], logprobs_out[b]) = (token, logprob);
    }
    Ok(())
}

/// Ascending indices of the `k` greatest scores of each row into `out` [rows, k], -1 padded.
#[pyfunction]
#[pyo3(signature = (scores, k, lengths, out))]
pub fn top_k(
    py: Python<'_>,
    scores: &Bound<'_, PyAny>,
    k: usize,
    lengths: Option<&Bound<'_, PyAny>>,
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let array = floats("scores", scores)?;
    let (shape, [row_stride, _]) = dimensions::<2>("scores", &array.shape, &array.strides, scores)?;
    let lengths = lengths.map(|l| contiguous::<i32>("lengths", l)).transpose()?.map(|(l, _)| l);
    let (out, _) = contiguous_mut::<i32>("out", out)?;
    Ok(py.detach(|| selection::top_k(array.data, shape, row_stride, k, lengths, out))?)
}
