//! Parallel unmasking (`python/tokamask/reference/unmask.py`).

use super::array::View;
use super::attention::mismatch;
use super::bitmask::MaskRows;
use super::floats::Float;
use super::sampling::{best_token, Confidence};
use super::selection::{position_of, rank};
use super::threads;
use crate::error::ShapeError;

/// What a masked position would become: token (-1 if none), probability, and whether it is accepted now.
pub type Decision = (i32, f32, bool);

/// Decides the masked positions of `logits` `[positions, vocab_size]`: those with probability at least `threshold` (always
/// the best one), at most `count` of them, best first, ties by lowest position.
pub fn unmask<T: Float>(
    logits: View<T, 2>,
    masked: &[bool],
    masks: Option<&MaskRows>,
    threshold: Option<f32>,
    count: Option<usize>,
) -> Result<Vec<Decision>, ShapeError> {
    let [positions, vocab_size] = logits.shape;
    if masked.len() != positions {
        return Err(mismatch("masked", format!("bool [{positions}]"), format!("{} elements", masked.len())));
    }
    let mut decisions = vec![(-1, 0.0, false); positions];
    let work = positions * vocab_size * 4;
    threads::each_chunk(work, &mut decisions, 1, Confidence::default, |buffers, p, decision| {
        if masked[p] {
            let mask = masks.and_then(|m| m.row(p));
            if let Some((token, probability)) = best_token(logits.row([p, 0]), mask, buffers) {
                decision[0] = (token as i32, probability, false);
            }
        }
    });
    let mut order: Vec<u64> =
        decisions.iter().enumerate().filter(|(_, d)| d.0 >= 0).map(|(p, d)| rank(d.1, p)).collect();
    order.sort_unstable_by(|a, b| b.cmp(a));
    let positions: Vec<usize> = order.into_iter().map(position_of).collect();
    let sure = |(i, p): &(usize, &usize)| *i == 0 || threshold.is_none_or(|t| decisions[**p].1 >= t);
    let accepted: Vec<usize> = positions
        .iter()
        .enumerate()
        .filter(sure)
        .map(|(_, p)| *p)
        .take(count.unwrap_or(usize::MAX))
        .collect();
    for p in accepted {
        decisions[p].2 = true;
    }
    Ok(decisions)
}
