//! Array kernels: called by `tokamask.sampling`, `tokamask.selection` and `tokamask.attention`, which check shapes and
//! allocate outputs. Sizes are checked again here where memory safety needs it.

mod append;
mod attention;
mod prefill;
mod press;
mod scores;
mod verify;

pub use append::{append_bounds, append_chunks, append_rows, append_sums};
pub use attention::{decode, lightning, merge_states, tree_decode};
pub use prefill::{block_sparse_prefill, hybrid_attention, selected_prefill};
pub use press::{
    ems_merge, entropy_scores, key_scores, kvmerger_merge, lagkv_scores, pagerank_scores,
    token_sparse_select, window_scores,
};
use pyo3::prelude::*;
pub use scores::{
    attention_column_sums, fasa_calibrate, fasa_scores, greedy_select, hisa_select, indexer_scores,
    merge_rows, quest_bounds, quest_scores, token_select, tome_edges, unmask,
};
use tokamask::kernels::bitmask::{self, MaskRows};
use tokamask::kernels::linear;
use tokamask::kernels::penalties::{History, Penalties};
use tokamask::kernels::sampling::{self, Law};
use tokamask::kernels::selection;
pub use verify::{verify_greedy, verify_sampled};

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

/// Token ids of the prompts and of the outputs.
type Ids<'py> = (Option<Bound<'py, PyAny>>, Option<Bound<'py, PyAny>>);

/// Draws a token per row into `tokens` and `logprobs`. `history` is (prompt ids, output ids) or parts of it; `laws` float32
/// [batch, 6] are temperature, top-p, min-p, repetition, presence and frequency penalty; `streams` are where the bits come from.
#[pyfunction]
#[pyo3(signature = (logits, bitmask, rows, history, laws, top_k, seeds, streams, steps, tokens, logprobs))]
#[allow(clippy::too_many_arguments)]
pub fn sample(
    py: Python<'_>,
    logits: &Bound<'_, PyAny>,
    bitmask: Option<&Bound<'_, PyAny>>,
    rows: Option<&Bound<'_, PyAny>>,
    history: Option<Ids<'_>>,
    laws: &Bound<'_, PyAny>,
    top_k: &Bound<'_, PyAny>,
    seeds: &Bound<'_, PyAny>,
    streams: &Bound<'_, PyAny>,
    steps: &Bound<'_, PyAny>,
    tokens: &Bound<'_, PyAny>,
    logprobs: &Bound<'_, PyAny>,
) -> Result<()> {
    let array = floats("logits", logits)?;
    let (shape, [row_stride, _]) = dimensions::<2>("logits", &array.shape, &array.strides, logits)?;
    let masks = bitmask.map(|bitmask| masks(bitmask, rows, shape)).transpose()?;
    let has_history = history.is_some();
    let (prompt, output) = history.unwrap_or_default();
    let prompt = prompt.as_ref().map(|ids| attention::dense::<i32, 2>("prompt_ids", ids)).transpose()?;
    let output = output.as_ref().map(|ids| attention::dense::<i32, 2>("output_ids", ids)).transpose()?;
    let history = has_history.then_some(History { prompt, output });
    let (numbers, number_shape) = contiguous::<f32>("laws", laws)?;
    let (top_k, _) = contiguous::<i32>("top_k", top_k)?;
    let (seeds, _) = contiguous::<u64>("seeds", seeds)?;
    let (streams, _) = contiguous::<u32>("streams", streams)?;
    let (steps, _) = contiguous::<u64>("steps", steps)?;
    let (tokens_out, _) = contiguous_mut::<i32>("tokens", tokens)?;
    let (logprobs_out, _) = contiguous_mut::<f32>("logprobs", logprobs)?;
    let batch = shape[0];
    let lengths =
        [top_k.len(), seeds.len(), streams.len(), steps.len(), tokens_out.len(), logprobs_out.len()];
    if lengths.into_iter().any(|n| n != batch) || number_shape != [batch, 6] {
        return Err(shape_error("laws, top_k, ..", format!("[batch={batch}]"), laws).into());
    }
    let law = |(b, law): (usize, &[f32])| Law {
        temperature: law[0],
        top_k: top_k[b],
        top_p: law[1],
        min_p: law[2],
        seed: seeds[b],
        stream: streams[b],
        step: steps[b],
        penalties: Penalties { repetition: law[3], presence: law[4], frequency: law[5] },
    };
    let laws: Vec<Law> = numbers.chunks_exact(6).enumerate().map(law).collect();
    let draws = py.detach(|| {
        sampling::sample(array.data, shape, row_stride, masks.as_ref(), history.as_ref(), &laws)
    })?;
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

/// `x [rows, inner]` times the transpose of `matrix [outs, inner]` into `out [rows, outs]`, all float32.
#[pyfunction]
pub fn multiply_rows(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    matrix: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
) -> Result<()> {
    let (rows, x_shape) = contiguous::<f32>("x", x)?;
    let (weights, shape) = contiguous::<f32>("matrix", matrix)?;
    let (out, _) = contiguous_mut::<f32>("out", out)?;
    let ([n, inner], [outs, _]) = (&x_shape[..], &shape[..]) else {
        return Err(shape_error("x, matrix", "two dimensions each", x).into());
    };
    Ok(py.detach(|| linear::linear(rows, weights, [*n, *inner, *outs], out))?)
}
