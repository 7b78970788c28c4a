//! How often support of a kind turned out right, learned while serving, and how to weigh kinds against each other.
//!
//! Each kind of support (which source, how long a match, how much of the evidence, how much evidence) has a cell: its hit
//! rate on verified tokens. The logits of the cells that speak of a candidate are summed with weights that are learned
//! as well, one set for each combination of match lengths: logistic mixing, as in context-mixing compressors.
//! Tried without gain: a noisy-or of the best two cells, a final correction by score and depth, weights by depth.

use super::candidates::Candidates;
use super::evidence::{Evidence, COMMON, OPINIONS, SILENT};

/// Step of the mixing weights.
const LEARNING_RATE: f32 = 0.017;
/// Step of the bias of each set of weights.
const BIAS_RATE: f32 = 0.03;
/// Hit rates follow about this many of their latest observations.
const MEMORY: f32 = 400.0;
/// Hit rate of one kind of support.
#[derive(Clone, Copy, Debug)]
struct Cell {
    rate: f32,
    seen: f32,
}

impl Cell {
    fn observe(&mut self, times: f32, hits: f32) {
        self.seen = (self.seen + times).min(MEMORY);
        self.rate += (hits - times * self.rate) / self.seen;
        self.rate = self.rate.clamp(0.001, 0.999);
    }
}

/// Online calibration of everything that sources say.
#[derive(Clone, Debug)]
pub struct Calibration {
    cells: Vec<Cell>,
    /// Of each cell's rate; apart, so that scoring touches little memory.
    logits: Vec<f32>,
    weights: Vec<[f32; OPINIONS]>,
    biases: Vec<f32>,
}

fn logit(p: f32) -> f32 {
    (p / (1.0 - p)).ln()
}

/// The probability of a score, to 1e-4: `1 / (1 + e^-x)` with `e^-x = 2^n 2^f` and a cubic for `2^f`.
#[inline]
fn logistic(x: f32) -> f32 {
    let y = (-x * std::f32::consts::LOG2_E).clamp(-40.0, 40.0);
    let n = (y + 64.0) as i32 - 64; // rounds down, without a call of the C library
    let f = y - n as f32;
    let fraction = 1.0 + f * (0.695_555_6 + f * (0.226_173_45 + f * 0.078_167_3));
    let power = f32::from_bits(((n + 127) as u32) << 23);
    1.0 / (1.0 + power * fraction)
}

impl Calibration {
    /// Starts from prior hit rates, counted as `strength` observations each, and the same weights in each set.
    pub fn new(
        priors: impl IntoIterator<Item = f32>,
        strength: f32,
        sets: usize,
        weights: [f32; OPINIONS],
    ) -> Self {
        let rates = priors.into_iter().map(|p| p.clamp(0.002, 0.998));
        let cells: Vec<Cell> = rates.map(|rate| Cell { rate, seen: strength }).collect();
        let logits = cells.iter().map(|cell| logit(cell.rate)).collect();
        Self { cells, logits, weights: vec![weights; sets], biases: vec![0.0; sets] }
    }

    /// Scores all candidates, and of the commonest tokens those that reach `least`; the total of their probabilities.
    pub fn score(&self, evidence: &Evidence, common: &[u32], least: f32, out: &mut Candidates) -> f32 {
        out.clear();
        let weights = &self.weights[evidence.set];
        let mut base = self.biases[evidence.set];
        let mut unnamed = [0.0; OPINIONS];
        for (opinion, &cell) in evidence.unnamed.iter().enumerate() {
            if cell != SILENT {
                unnamed[opinion] = self.logits[cell as usize];
                base += weights[opinion] * unnamed[opinion];
            }
        }
        for support in &evidence.supports {
            let opinion = support.opinion as usize;
            if let Some(at) = out.entry(support.token, base, support.opinion) {
                out.scores[at] += weights[opinion] * (self.logits[support.cell as usize] - unnamed[opinion]);
            }
        }
        for (rank, &token) in common.iter().enumerate() {
            let score = base + weights[COMMON] * self.logits[evidence.common as usize + rank];
            if score < least {
                break;
            }
            if out.get(token).is_none() {
                out.entry(token, score, COMMON as u8);
            }
        }
        let mut total = 0.0;
        for (p, &score) in out.probs.iter_mut().zip(&out.scores[..out.len]) {
            *p = logistic(score);
            total += *p;
        }
        total
    }

    /// Learns from what the target really wrote. `scored` is the scratch space of [`Calibration::score`].
    pub fn learn(&mut self, evidence: &Evidence, common: &[u32], truth: u32, scored: &mut Candidates) {
        self.score(evidence, common, f32::MIN, scored);
        let mut errors = [0.0; super::candidates::CANDIDATES];
        let mut total_error = 0.0;
        for (at, error) in errors.iter_mut().enumerate().take(scored.len) {
            *error = f32::from(u8::from(scored.tokens[at] == truth)) - scored.probs[at];
            total_error += *error;
        }
        let named = self.learn_named(evidence, truth, scored, &errors);
        self.learn_common(evidence, common, truth, scored, &errors);
        let weights = &mut self.weights[evidence.set];
        let known = scored.get(truth).is_some();
        for (opinion, &cell) in evidence.unnamed.iter().enumerate() {
            if cell != SILENT {
                let cell = cell as usize;
                weights[opinion] += LEARNING_RATE * self.logits[cell] * (total_error - named[opinion].error);
                let hits = f32::from(u8::from(known && !named[opinion].hit));
                self.cells[cell].observe(scored.len as f32 - named[opinion].count, hits);
                self.logits[cell] = logit(self.cells[cell].rate);
            }
        }
        self.biases[evidence.set] += BIAS_RATE * total_error;
    }

    fn learn_named(
        &mut self,
        evidence: &Evidence,
        truth: u32,
        scored: &Candidates,
        errors: &[f32],
    ) -> [Named; OPINIONS] {
        let mut named = [Named::default(); OPINIONS];
        for support in &evidence.supports {
            let Some(at) = scored.get(support.token) else { continue };
            let (opinion, cell) = (support.opinion as usize, support.cell as usize);
            let hit = support.token == truth;
            self.weights[evidence.set][opinion] += LEARNING_RATE * self.logits[cell] * errors[at];
            self.cells[cell].observe(1.0, f32::from(u8::from(hit)));
            named[opinion].count += 1.0;
            named[opinion].error += errors[at];
            named[opinion].hit |= hit;
        }
        for support in &evidence.supports {
            self.logits[support.cell as usize] = logit(self.cells[support.cell as usize].rate);
        }
        named
    }

    fn learn_common(
        &mut self,
        evidence: &Evidence,
        common: &[u32],
        truth: u32,
        scored: &Candidates,
        errors: &[f32],
    ) {
        for (rank, &token) in common.iter().enumerate() {
            let cell = evidence.common as usize + rank;
            let Some(at) = scored.get(token) else { continue };
            if scored.opinions[at] as usize == COMMON {
                self.weights[evidence.set][COMMON] += LEARNING_RATE * self.logits[cell] * errors[at];
                self.cells[cell].observe(1.0, f32::from(u8::from(token == truth)));
                self.logits[cell] = logit(self.cells[cell].rate);
            }
        }
    }
}

/// What one opinion's named candidates add up to.
#[derive(Clone, Copy, Debug, Default)]
struct Named {
    count: f32,
    error: f32,
    hit: bool,
}
