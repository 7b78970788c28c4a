//! Verification of a batch of draft trees.

use pyo3::prelude::*;
use tokamask::kernels::array::View;
use tokamask::kernels::verify::{self, Rule, Stream, Trees, Verdict};

use super::attention::dense;
use crate::arrays::{contiguous, contiguous_mut, shape_error};
use crate::errors::Result;

/// Where the results go: `path` [batch, nodes], `accepted` and `bonus` [batch].
fn write(verdicts: &[Verdict], nodes: usize, out: &[Bound<'_, PyAny>; 3]) -> Result<()> {
    let (path, _) = contiguous_mut::<i32>("path", &out[0])?;
    let (accepted, _) = contiguous_mut::<i32>("accepted", &out[1])?;
    let (bonus, _) = contiguous_mut::<i32>("bonus", &out[2])?;
    if path.len() != verdicts.len() * nodes
        || accepted.len() != verdicts.len()
        || bonus.len() != verdicts.len()
    {
        let expected = format!("int32 [{}, {nodes}]", verdicts.len());
        return Err(shape_error("path", expected, &out[0]).into());
    }
    for (b, verdict) in verdicts.iter().enumerate() {
        let row = &mut path[b * nodes..][..nodes];
        row.fill(-1);
        row[..verdict.path.len()].copy_from_slice(&verdict.path);
        (accepted[b], bonus[b]) = (verdict.path.len() as i32, verdict.bonus);
    }
    Ok(())
}

/// Descends to what the target chose; results into `out`.
#[pyfunction]
pub fn verify_greedy(
    py: Python<'_>,
    token_ids: &Bound<'_, PyAny>,
    parents: &Bound<'_, PyAny>,
    target_ids: &Bound<'_, PyAny>,
    out: (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>),
) -> Result<()> {
    let trees = Trees { token_ids: dense("token_ids", token_ids)?, parents: dense("parents", parents)? };
    let targets: View<i32, 2> = dense("target_ids", target_ids)?;
    let verdicts = py.detach(|| verify::verify_greedy(&trees, targets))?;
    write(&verdicts, trees.token_ids.shape[1], &[out.0, out.1, out.2])
}

/// Walks with random numbers; results into `out`.
#[pyfunction]
#[pyo3(signature = (token_ids, parents, target_probs, draft_probs, rule, seeds, rows, steps, out))]
#[allow(clippy::too_many_arguments)]
pub fn verify_sampled(
    py: Python<'_>,
    token_ids: &Bound<'_, PyAny>,
    parents: &Bound<'_, PyAny>,
    target_probs: &Bound<'_, PyAny>,
    draft_probs: Option<&Bound<'_, PyAny>>,
    rule: &str,
    seeds: &Bound<'_, PyAny>,
    rows: &Bound<'_, PyAny>,
    steps: &Bound<'_, PyAny>,
    out: (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>),
) -> Result<()> {
    let trees = Trees { token_ids: dense("token_ids", token_ids)?, parents: dense("parents", parents)? };
    let rule = match rule {
        "point" => Rule::Point,
        "block" => Rule::Block,
        "sequoia" => Rule::Siblings { replacement: false },
        _ => Rule::Siblings { replacement: true },
    };
    let seeds = contiguous::<u64>("seeds", seeds)?.0.iter();
    let rows = contiguous::<u32>("rows", rows)?.0.iter();
    let steps = contiguous::<u64>("steps", steps)?.0.iter();
    let streams: Vec<Stream> = seeds
        .zip(rows.zip(steps))
        .map(|(seed, (row, step))| Stream { seed: *seed, row: *row, step: *step })
        .collect();
    let verdicts = if let Ok(target) = dense::<f32, 3>("target_probs", target_probs) {
        let draft = draft_probs.map(|draft| dense::<f32, 3>("draft_probs", draft)).transpose()?;
        py.detach(|| verify::verify_sampled(&trees, target, draft, rule, &streams))?
    } else {
        let target = dense::<f64, 3>("target_probs", target_probs)?;
        let draft = draft_probs.map(|draft| dense::<f64, 3>("draft_probs", draft)).transpose()?;
        py.detach(|| verify::verify_sampled(&trees, target, draft, rule, &streams))?
    };
    write(&verdicts, trees.token_ids.shape[1], &[out.0, out.1, out.2])
}
