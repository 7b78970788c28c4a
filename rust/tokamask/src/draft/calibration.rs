//! How often support of a kind turned out right, learned while serving, and how to weigh kinds against each other.

use super::evidence::{Evidence, CANDIDATES, OPINIONS, SILENT};

/// Step of the mixing weights.
const LEARNING_RATE: f32 = 0.02;
/// Hit rates follow about this many of their latest observations.
const MEMORY: f32 = 400.0;

/// Hit rate of one kind of support.
#[derive(Clone, Copy, Debug)]
struct Cell {
    rate: f32,
    logit: f32,
    seen: f32,
}

/// Online calibration: a hit rate for each kind of support, mixed in the logistic domain with learned weights.
#[derive(Clone, Debug)]
pub struct Calibration {
    cells: Vec<Cell>,
    weights: Vec<[f32; OPINIONS]>,
}

fn logit(p: f32) -> f32 {
    (p / (1.0 - p)).ln()
}

fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

impl Calibration {
    /// Starts from prior hit rates, counted as `strength` observations each.
    pub fn new(
        priors: impl IntoIterator<Item = f32>,
        strength: f32,
        sets: usize,
        weights: [f32; OPINIONS],
    ) -> Self {
        let cells = priors
            .into_iter()
            .map(|p| p.clamp(0.002, 0.998))
            .map(|rate| Cell { rate, logit: logit(rate), seen: strength })
            .collect();
        Self { cells, weights: vec![weights; sets] }
    }

    /// Acceptance probability of each candidate; together at most 1.
    pub fn probabilities(&self, evidence: &Evidence, out: &mut [f32; CANDIDATES]) {
        let weights = &self.weights[evidence.set];
        let mut total = 0.0;
        for (cells, p) in evidence.cells[..evidence.len].iter().zip(out.iter_mut()) {
            *p = logistic(self.mixed(weights, cells));
            total += *p;
        }
        if total > 1.0 {
            for p in &mut out[..evidence.len] {
                *p /= total;
            }
        }
    }

    fn mixed(&self, weights: &[f32; OPINIONS], cells: &[u16; OPINIONS]) -> f32 {
        let mut sum = 0.0;
        for (&weight, &cell) in weights.iter().zip(cells) {
            if cell != SILENT {
                sum += weight * self.cells[cell as usize].logit;
            }
        }
        sum
    }

    /// Learns from what the target really wrote.
    pub fn learn(&mut self, evidence: &Evidence, truth: u32) {
        for (cells, &token) in evidence.cells[..evidence.len].iter().zip(&evidence.tokens) {
            let hit = if token == truth { 1.0 } else { 0.0 };
            let error = hit - logistic(self.mixed(&self.weights[evidence.set], cells));
            let weights = &mut self.weights[evidence.set];
            for (weight, &cell) in weights.iter_mut().zip(cells) {
                if cell == SILENT {
                    continue;
                }
                let cell = &mut self.cells[cell as usize];
                *weight += LEARNING_RATE * error * cell.logit;
                cell.seen = (cell.seen + 1.0).min(MEMORY);
                cell.rate += (hit - cell.rate) / cell.seen;
                cell.rate = cell.rate.clamp(0.001, 0.999);
                cell.logit = logit(cell.rate);
            }
        }
    }
}
