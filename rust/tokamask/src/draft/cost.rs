//! How many nodes are worth their verification.

/// A draft must promise this much more per time than none: measured times wobble, and drafting itself takes some.
const MARGIN: f32 = 1.03;

/// Time of one target forward by number of rows, measured by the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyCost {
    times: Vec<f32>,
}

impl VerifyCost {
    /// `times[i]` is the time of a forward over `2^i` rows, in any unit; positive and at least one.
    pub fn new(times: Vec<f32>) -> Option<Self> {
        let valid = !times.is_empty() && times.iter().all(|t| t.is_finite() && *t > 0.0);
        valid.then_some(Self { times })
    }

    /// Time of a forward over `rows >= 1` rows: between measurements a straight line, beyond them the last slope.
    pub fn at(&self, rows: usize) -> f32 {
        let last = self.times.len() - 1;
        if last == 0 {
            return self.times[0] * rows as f32;
        }
        let left = (rows.max(1).ilog2() as usize).min(last - 1);
        let (from, span) = ((1_usize << left) as f32, (1_usize << left) as f32);
        self.times[left] + (self.times[left + 1] - self.times[left]) * (rows as f32 - from) / span
    }

    /// The number of nodes that gives the most expected tokens per time, where `probs` descend. It compares every
    /// prefix, not only the next node: steps of a GPU's cost curve can hide a gain behind a loss.
    pub fn best_prefix(&self, probs: impl IntoIterator<Item = f32>) -> usize {
        let (mut best, mut best_rate, mut expected) = (0, MARGIN / self.at(1), 1.0);
        for (i, p) in probs.into_iter().enumerate() {
            expected += p;
            let rate = expected / self.at(i + 2);
            if rate > best_rate {
                (best, best_rate) = (i + 1, rate);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_measurements_is_a_line() {
        let cost = VerifyCost::new(vec![10.0, 12.0, 20.0]).unwrap();
        let at: Vec<f32> = (1..=6).map(|rows| cost.at(rows)).collect();
        assert_eq!(at, [10.0, 12.0, 16.0, 20.0, 24.0, 28.0]);
        assert!(VerifyCost::new(vec![]).is_none());
        assert!(VerifyCost::new(vec![1.0, f32::NAN]).is_none());
    }

    #[test]
    fn drafts_only_where_they_pay() {
        let linear = VerifyCost::new(vec![1.0, 2.0, 4.0]).unwrap();
        assert_eq!(linear.best_prefix([0.99, 0.9]), 0); // each row costs a whole step
        let flat = VerifyCost::new(vec![1.0, 1.0, 1.0]).unwrap();
        assert_eq!(flat.best_prefix([0.5, 0.01, 0.001]), 3);
        let stairs = VerifyCost::new(vec![1.0, 1.5, 1.5]).unwrap();
        assert_eq!(stairs.best_prefix([0.4, 0.3, 0.2]), 3); // one node loses, three gain
        assert_eq!(stairs.best_prefix([0.1, 0.05, 0.01]), 0);
    }
}
