//! A shorter cache by merging keys and values (`python/tokamask/reference/compress.py`).

use super::array::View;
use super::attention::mismatch;
use super::floats::Float;
use super::selection::{position_of, rank};
use super::threads;
use crate::error::ShapeError;

/// Keys and values of one head after merging, in order of position.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// `[kept, head_dim]`
    pub keys: Vec<f32>,
    /// `[kept, v_dim]`
    pub values: Vec<f32>,
    /// Where each stands: that of the token that the others went into.
    pub positions: Vec<i32>,
    /// How many tokens went into each.
    pub sizes: Vec<f32>,
}

fn check<T>(k: &View<T, 3>, v: &View<T, 3>, scores: &[&View<f32, 2>]) -> Result<(), ShapeError> {
    let [tokens, heads, _] = k.shape;
    if v.shape[..2] != [tokens, heads] {
        return Err(mismatch("v", format!("[{tokens}, {heads}, v_dim]"), format!("{:?}", v.shape)));
    }
    match scores.iter().find(|s| s.shape != [heads, tokens]) {
        Some(s) => Err(mismatch("scores", format!("float32 [{heads}, {tokens}]"), format!("{:?}", s.shape))),
        None => Ok(()),
    }
}

fn wide<T: Float>(x: &View<T, 3>, t: usize, head: usize) -> Vec<f64> {
    x.row([t, head, 0]).iter().map(|x| f64::from(x.widen())).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn unit(x: &[f64]) -> Vec<f64> {
    let length = dot(x, x).sqrt();
    let length = if length == 0.0 { 1.0 } else { length };
    x.iter().map(|x| x / length).collect()
}

/// Runs `merge(head)` for all heads.
fn each_head(work: usize, heads: usize, merge: impl Fn(usize) -> Merged + Sync + Send) -> Vec<Merged> {
    let mut merged = vec![Merged::default(); heads];
    threads::each_chunk(work, &mut merged, 1, || (), |(), head, merged| merged[0] = merge(head));
    merged
}

/// Adds the weighted mean of some tokens to the result.
fn push_mean<T: Float>(
    merged: &mut Merged,
    (k, v): (&View<T, 3>, &View<T, 3>),
    head: usize,
    position: usize,
    parts: &[(usize, f64)],
) {
    let total: f64 = parts.iter().map(|(_, w)| w).sum();
    let mean = |x: &View<T, 3>, to: &mut Vec<f32>| {
        let mut sum = vec![0.0f64; x.shape[2]];
        for (t, weight) in parts {
            for (sum, x) in sum.iter_mut().zip(x.row([*t, head, 0])) {
                *sum += weight / total * f64::from(x.widen());
            }
        }
        to.extend(sum.into_iter().map(|x| x as f32));
    };
    mean(k, &mut merged.keys);
    mean(v, &mut merged.values);
    merged.positions.push(position as i32);
    merged.sizes.push(parts.len() as f32);
}

/// KVMerger: runs of neighbouring tokens whose keys point the same way become one, weighted by a Gaussian of the distance to the
/// token of greatest score. The last `recent` tokens and the `heavy` ones of greatest score stay as they are.
pub fn kvmerger_merge<T: Float>(
    k: View<T, 3>,
    v: View<T, 3>,
    scores: View<f32, 2>,
    epsilon: f32,
    recent: usize,
    heavy: usize,
) -> Result<Vec<Merged>, ShapeError> {
    check(&k, &v, &[&scores])?;
    let [tokens, heads, dim] = k.shape;
    Ok(each_head(tokens * heads * dim * 8, heads, |head| {
        let scores = scores.row([head, 0]);
        let mut free: Vec<bool> = (0..tokens).map(|t| t + recent < tokens).collect();
        let mut order: Vec<u64> = scores.iter().enumerate().map(|(t, s)| rank(*s, t)).collect();
        order.sort_unstable_by(|a, b| b.cmp(a));
        order.iter().take(heavy).for_each(|r| free[position_of(*r)] = false);
        let keys: Vec<Vec<f64>> = (0..tokens).map(|t| wide(&k, t, head)).collect();
        let units: Vec<Vec<f64>> = keys.iter().map(|k| unit(k)).collect();
        let joins = |t: usize| free[t - 1] && free[t] && dot(&units[t - 1], &units[t]) > f64::from(epsilon);
        let mut merged = Merged::default();
        let mut first = 0;
        while first < tokens {
            let end = (first + 1..tokens).find(|t| !joins(*t)).unwrap_or(tokens);
            let pivot = (first..end).max_by_key(|t| rank(scores[*t], *t)).unwrap_or(first);
            let square =
                |t: usize| -> f64 { keys[pivot].iter().zip(&keys[t]).map(|(a, b)| (a - b) * (a - b)).sum() };
            let others = (end - first - 1).max(1) as f64;
            let sigma = (first..end).map(|t| square(t).sqrt()).sum::<f64>() / others;
            let weight =
                |t: usize| if sigma > 0.0 { (-square(t) / (2.0 * sigma * sigma)).exp() } else { 1.0 };
            let parts: Vec<(usize, f64)> = (first..end).map(|t| (t, weight(t))).collect();
            push_mean(&mut merged, (&k, &v), head, pivot, &parts);
            first = end;
        }
        merged
    }))
}

/// What [`ems_merge`] keeps.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Tokens of each head afterwards, at most.
    pub centres: usize,
    /// The next best, which may merge into them.
    pub candidates: usize,
    /// Least cosine for that.
    pub threshold: f32,
}

/// EMS: the tokens of greatest score stay; the next best go into the one whose key points most nearly the same way, weighted by
/// score, or are dropped where none is near enough; the rest is dropped.
pub fn ems_merge<T: Float>(
    k: View<T, 3>,
    v: View<T, 3>,
    scores: View<f32, 2>,
    budget: Budget,
) -> Result<Vec<Merged>, ShapeError> {
    check(&k, &v, &[&scores])?;
    let [tokens, heads, dim] = k.shape;
    let work = heads * budget.centres.min(tokens) * (budget.candidates.min(tokens) + 1) * dim;
    Ok(each_head(work, heads, |head| {
        let scores = scores.row([head, 0]);
        let mut order: Vec<u64> = scores.iter().enumerate().map(|(t, s)| rank(*s, t)).collect();
        order.sort_unstable_by(|a, b| b.cmp(a));
        let order: Vec<usize> = order.into_iter().map(position_of).collect();
        let (centres, rest) = order.split_at(budget.centres.min(tokens));
        let mut centres = centres.to_vec();
        centres.sort_unstable();
        let units: Vec<Vec<f64>> = centres.iter().map(|t| unit(&wide(&k, *t, head))).collect();
        let weight = |t: usize| f64::from(scores[t]).max(0.0);
        let mut parts: Vec<Vec<(usize, f64)>> = centres.iter().map(|t| vec![(*t, weight(*t))]).collect();
        for t in rest.iter().take(budget.candidates) {
            let key = unit(&wide(&k, *t, head));
            let (mut near, mut best) = (None, f64::from(budget.threshold)); // the class of the zero vector
            for (c, centre) in units.iter().enumerate() {
                let cosine = dot(&key, centre);
                if cosine > best {
                    (near, best) = (Some(c), cosine);
                }
            }
            if let Some(c) = near {
                parts[c].push((*t, weight(*t)));
            }
        }
        let mut merged = Merged::default();
        for (t, mut parts) in centres.into_iter().zip(parts) {
            if parts.iter().all(|(_, w)| *w == 0.0) {
                parts = parts.into_iter().map(|(t, _)| (t, 1.0)).collect();
            }
            push_mean(&mut merged, (&k, &v), head, t, &parts);
        }
        merged
    }))
}
