//! Masks of many requests at once.

use rayon::prelude::*;

use crate::error::ShapeError;
use crate::mask::Matcher;

/// Below this many matchers a thread is not worth waking.
const WORTH_THREADS: usize = 8;

/// Writes row `rows[i]` of `out` for matcher `i`; false where every id is allowed. The vocabularies
/// must be of one size, the rows distinct and inside `out`.
pub fn fill_batch(
    matchers: &[Matcher],
    out: &mut [u32],
    rows: &[usize],
    threads: Option<usize>,
) -> Result<Vec<bool>, ShapeError> {
    let Some(words) = matchers.first().map(|m| m.compiled().words()) else { return Ok(Vec::new()) };
    let error = |expected: String, got: String| ShapeError { name: "rows".into(), expected, got };
    let mut slots: Vec<Option<&mut [u32]>> = out.chunks_exact_mut(words.max(1)).map(Some).collect();
    let count = slots.len();
    let mut work = Vec::with_capacity(matchers.len());
    for (matcher, &row) in matchers.iter().zip(rows) {
        if matcher.compiled().words() != words {
            return Err(error(
                "vocabularies of one size".into(),
                format!("{} words", matcher.compiled().words()),
            ));
        }
        let slot = slots.get_mut(row).and_then(Option::take);
        let slot = slot.ok_or_else(|| error(format!("distinct rows below {count}"), row.to_string()))?;
        work.push((matcher, slot));
    }
    if threads == Some(1) || work.len() < WORTH_THREADS {
        return Ok(work.into_iter().map(|(matcher, slot)| matcher.fill(slot)).collect());
    }
    let chunk = threads.map_or(1, |n| work.len().div_ceil(n.max(1)));
    Ok(work.into_par_iter().with_min_len(chunk).map(|(matcher, slot)| matcher.fill(slot)).collect())
}
