//! Which guessed tokens a target confirms, for a batch of draft trees (`python/tokamask/reference/verify.py`).

use super::array::View;
use super::attention::mismatch;
use super::random::bits64;
use super::threads;
use crate::error::ShapeError;

/// Trees `[batch, nodes]`: parents before children, -1 the root; a negative token is padding.
#[derive(Clone, Copy)]
pub struct Trees<'a> {
    /// Tokens.
    pub token_ids: View<'a, i32, 2>,
    /// Parents.
    pub parents: View<'a, i32, 2>,
}

/// What came of one tree.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The accepted nodes.
    pub path: Vec<i32>,
    /// The target's token after them.
    pub bonus: i32,
}

/// How the guesses came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Not by chance.
    Point,
    /// Siblings drawn from the draft's law, with or without replacement.
    Siblings {
        /// Whether a token may have been drawn twice.
        replacement: bool,
    },
    /// A chain, judged as a whole.
    Block,
}

/// Where the random numbers of one tree come from.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// See [`bits64`].
    pub seed: u64,
    /// See [`bits64`].
    pub row: u32,
    /// See [`bits64`].
    pub step: u64,
}

impl<'a> Trees<'a> {
    fn check(&self) -> Result<[usize; 2], ShapeError> {
        if self.parents.shape == self.token_ids.shape {
            return Ok(self.token_ids.shape);
        }
        let expected = format!("int32 {:?}", self.token_ids.shape);
        Err(mismatch("parents", expected, format!("{:?}", self.parents.shape)))
    }

    /// Children of a node, in order; they stand behind it.
    fn children(&self, b: usize, node: i32) -> impl Iterator<Item = (usize, i32)> + 'a {
        let (tokens, parents) = (self.token_ids.row([b, 0]), self.parents.row([b, 0]));
        let first = usize::try_from(node + 1).unwrap_or(0);
        (first..tokens.len())
            .filter(move |i| parents[*i] == node && tokens[*i] >= 0)
            .map(move |i| (i, tokens[i]))
    }
}

/// Descends to the first child that is what the target wrote: `targets` `[batch, nodes + 1]`, -1 where nothing can follow.
pub fn verify_greedy(trees: &Trees, targets: View<i32, 2>) -> Result<Vec<Verdict>, ShapeError> {
    let [batch, nodes] = trees.check()?;
    if targets.shape != [batch, nodes + 1] {
        let expected = format!("int32 [{batch}, {}]", nodes + 1);
        return Err(mismatch("target_ids", expected, format!("{:?}", targets.shape)));
    }
    let walk = |b: usize| {
        let wanted = targets.row([b, 0]);
        let (mut node, mut path) = (-1, Vec::new());
        while let Some((child, _)) = trees
            .children(b, node)
            .find(|(_, token)| wanted.get((node + 1) as usize).is_some_and(|want| token == want))
        {
            node = child as i32;
            path.push(node);
        }
        Verdict { path, bonus: wanted[(node + 1) as usize] }
    };
    Ok((0..batch).map(walk).collect())
}

/// Laws of `[batch, nodes + 1, vocab_size]`.
pub type Laws<'a, T> = View<'a, T, 3>;

/// Walks with random numbers such that what is written has the target's law.
pub fn verify_sampled<T: Copy + Into<f64> + Sync>(
    trees: &Trees,
    target: Laws<T>,
    draft: Option<Laws<T>>,
    rule: Rule,
    streams: &[Stream],
) -> Result<Vec<Verdict>, ShapeError> {
    let [batch, nodes] = trees.check()?;
    let [rows, positions, vocab_size] = target.shape;
    if (rows, positions) != (batch, nodes + 1) || vocab_size == 0 || streams.len() != batch {
        let expected = format!("[{batch}, {}, vocab_size]", nodes + 1);
        return Err(mismatch("target_probs", expected, format!("{:?}", target.shape)));
    }
    if (rule != Rule::Point) != draft.is_some() || draft.is_some_and(|d| d.shape != target.shape) {
        let expected = format!("{:?} unless the rule is point", target.shape);
        return Err(mismatch("draft_probs", expected, format!("{:?}", draft.map(|d| d.shape))));
    }
    let known = |b: usize| trees.token_ids.row([b, 0]).iter().all(|t| *t < vocab_size as i32);
    if let Some(b) = (0..batch).find(|b| !known(*b)) {
        return Err(mismatch("token_ids", format!("below {vocab_size}"), format!("tree {b}")));
    }
    let mut verdicts = vec![Verdict::default(); batch];
    threads::each_chunk(
        batch * vocab_size * 64,
        &mut verdicts,
        1,
        || (),
        |(), b, verdict| {
            let mut walk = Walk { trees, target, draft, b, draws: Draws { at: streams[b], index: 0 } };
            verdict[0] = match rule {
                Rule::Point => walk.point(),
                Rule::Siblings { replacement } => walk.siblings(replacement),
                Rule::Block => walk.block(),
            };
        },
    );
    Ok(verdicts)
}

/// Uniform numbers of one step.
struct Draws {
    at: Stream,
    index: u32,
}

impl Draws {
    fn uniform(&mut self) -> f64 {
        let Stream { seed, row, step } = self.at;
        self.index += 1;
        (bits64(seed, row, step, self.index - 1) >> 11) as f64 * (-53f64).exp2()
    }

    /// A token of a law that need not be normalised; tokens without mass are never drawn.
    fn token(&mut self, law: impl Iterator<Item = f64> + Clone) -> i32 {
        let target = self.uniform() * total(law.clone());
        let (mut running, mut last) = (0.0, 0);
        for (token, mass) in law.enumerate() {
            running += mass;
            if mass != 0.0 {
                last = token;
            }
            if running > target {
                return token as i32;
            }
        }
        last as i32 // the product may round up to the total
    }
}

fn total(law: impl Iterator<Item = f64>) -> f64 {
    law.fold(0.0, |sum, mass| sum + mass)
}

/// Scales to a sum of 1; `otherwise` where rounding left nothing.
fn normal(law: Vec<f64>, otherwise: Option<&[f64]>) -> Vec<f64> {
    let sum = total(law.iter().copied());
    match otherwise {
        _ if sum > 0.0 => law.into_iter().map(|mass| mass / sum).collect(),
        None => law,
        Some(otherwise) => otherwise.to_vec(),
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| (a - b).max(0.0)).collect()
}

struct Walk<'a, 't, T> {
    trees: &'a Trees<'t>,
    target: Laws<'a, T>,
    draft: Option<Laws<'a, T>>,
    b: usize,
    draws: Draws,
}

impl<T: Copy + Into<f64>> Walk<'_, '_, T> {
    fn law(&self, laws: Laws<T>, node: i32) -> Vec<f64> {
        laws.row([self.b, (node + 1) as usize, 0]).iter().map(|p| (*p).into()).collect()
    }

    fn normal_laws(&self, node: i32) -> (Vec<f64>, Vec<f64>) {
        let draft = self.draft.map_or_else(Vec::new, |draft| self.law(draft, node));
        (normal(self.law(self.target, node), None), normal(draft, None))
    }

    fn point(&mut self) -> Verdict {
        let (mut node, mut path) = (-1, Vec::new());
        loop {
            let law = self.target.row([self.b, (node + 1) as usize, 0]);
            let bonus = self.draws.token(law.iter().map(|p| (*p).into()));
            let Some((child, _)) = self.trees.children(self.b, node).find(|(_, token)| *token == bonus)
            else {
                return Verdict { path, bonus };
            };
            node = child as i32;
            path.push(node);
        }
    }

    fn siblings(&mut self, replacement: bool) -> Verdict {
        let (mut node, mut path) = (-1, Vec::new());
        'walk: loop {
            let (mut remaining, mut draft) = self.normal_laws(node);
            for (child, token) in self.trees.children(self.b, node) {
                let token = token as usize;
                if self.draws.uniform() * draft[token] < remaining[token] {
                    node = child as i32;
                    path.push(node);
                    continue 'walk;
                }
                remaining = normal(difference(&remaining, &draft), Some(&remaining));
                if !replacement {
                    let mut left = draft.clone();
                    left[token] = 0.0;
                    draft = normal(left.clone(), Some(&left));
                }
            }
            let bonus = self.draws.token(remaining.iter().copied());
            return Verdict { path, bonus };
        }
    }

    fn block(&mut self) -> Verdict {
        let tokens = self.trees.token_ids.row([self.b, 0]);
        let tokens = &tokens[..tokens.iter().position(|t| *t < 0).unwrap_or(tokens.len())];
        let (mut keep, mut accepted, mut kept) = (1.0f64, 0, vec![1.0]);
        for (i, token) in tokens.iter().enumerate() {
            let (target, draft) = self.normal_laws(i as i32 - 1);
            let token = *token as usize;
            keep = if draft[token] > 0.0 { (keep * target[token] / draft[token]).min(1.0) } else { 0.0 };
            kept.push(keep);
            let mut threshold = keep;
            if i + 1 < tokens.len() {
                let (target, draft) = self.normal_laws(i as i32);
                let left = total(target.iter().zip(&draft).map(|(t, d)| (keep * t - d).max(0.0)));
                threshold = if left > 0.0 { left / (left + 1.0 - keep) } else { 0.0 };
            }
            if self.draws.uniform() < threshold {
                accepted = i + 1;
            }
        }
        let (mut law, draft) = self.normal_laws(accepted as i32 - 1);
        if accepted < tokens.len() {
            let scaled: Vec<f64> = law.iter().map(|p| kept[accepted] * p).collect();
            law = normal(difference(&scaled, &draft), Some(&law));
        }
        let bonus = self.draws.token(law.iter().copied());
        Verdict { path: (0..accepted as i32).collect(), bonus }
    }
}
