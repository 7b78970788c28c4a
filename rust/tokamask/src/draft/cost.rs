//! How many nodes are worth their verification.

use super::tree::Choice;

/// A draft must promise this much more per time than none: measured times wobble, and drafting itself takes some.
const MARGIN: f32 = 1.05;
/// Widths 1, 2, 4, ... of which times are kept.
const WIDTHS: usize = 13;
/// What a row adds to a forward over one row where nothing is known of such a width: little enough that likely guesses
/// try it. With 0.05 the first answers on a busy CPU were spent on wide forwards that did not pay.
const UNKNOWN_ROW: f32 = 0.12;
/// Times follow about this many of their latest observations; a given time counts as `GIVEN` of them.
const MEMORY: f32 = 16.0;
const GIVEN: f32 = 4.0;
/// With each forward over other rows the observations of a width count this much less.
const AGEING: f32 = 0.985;
/// After this many forwards over several rows one goes without a draft: else a machine that got faster would look like
/// one on which rows are cheap.
const PROBE: u32 = 64;
/// An observation counts at most as this factor more or less than expected: a machine stops now and then.
const OUTLIER: f32 = 2.0;
/// With each forward a time that was not observed goes this much towards what narrower widths suggest, so that a
/// width that was once slow by accident is tried again.
const FORGETTING: f32 = 0.002;

/// Time of one target forward by number of rows: given, and from then on learned from the forwards themselves.
///
/// A curve measured once, before the first draft, was wrong too often: one slow moment of the machine made eight rows
/// look as cheap as one, and a whole conversation ran at two thirds of its speed.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyCost {
    /// Time and number of observations (up to `MEMORY`) over `2^i` rows.
    observed: [(f32, f32); WIDTHS],
    /// What follows from them: none below zero, none shorter than that of a narrower width.
    times: [f32; WIDTHS],
    /// Widths that were given or observed, and those below.
    known: usize,
    /// Forwards since the last one over one row.
    unprobed: u32,
}

/// The two widths around a number of rows, by the first one's exponent, and how far it lies towards the second.
fn position(rows: usize) -> (usize, f32) {
    let left = (rows.max(1).ilog2() as usize).min(WIDTHS - 2);
    let span = (1_usize << left) as f32;
    (left, (rows.max(1) as f32 - span) / span)
}

/// By how much a forward over `2^i` rows is expected to take longer than over half as many, where nothing is known.
fn growth(i: usize) -> f32 {
    let time = |rows: f32| 1.0 + UNKNOWN_ROW * (rows - 1.0);
    time((1 << i) as f32) / time((1 << (i - 1)) as f32)
}

impl VerifyCost {
    /// `times[i]` is the time of a forward over `2^i` rows, in any unit; positive and at least one.
    pub fn new(times: &[f32]) -> Option<Self> {
        let valid = !times.is_empty() && times.iter().all(|t| t.is_finite() && *t > 0.0);
        if !valid {
            return None;
        }
        let mut cost = Self { observed: [(0.0, 0.0); WIDTHS], times: [0.0; WIDTHS], known: 0, unprobed: 0 };
        for i in 0..WIDTHS {
            // Beyond the times given the last slope goes on, from a single one each row costs a step.
            let before = |back: usize| if i >= back { cost.observed[i - back].0 } else { 0.0 };
            let time =
                times.get(i).copied().unwrap_or_else(|| before(1) + 2.0 * (before(1) - before(2)).max(0.0));
            cost.observed[i] = (if times.len() == 1 { times[0] * (1 << i) as f32 } else { time }, GIVEN);
        }
        cost.known = times.len().min(WIDTHS);
        cost.fit();
        Some(cost)
    }

    /// Learns from one forward. Of the first one nothing but its own time is known.
    pub fn first(rows: usize, time: f32) -> Option<Self> {
        if !time.is_finite() || time <= 0.0 {
            return None;
        }
        let mut cost = Self { observed: [(0.0, 0.0); WIDTHS], times: [0.0; WIDTHS], known: 0, unprobed: 0 };
        (cost.observed[0], cost.times[0]) = ((1.0, 1.0), 1.0);
        cost.fit();
        let one = time / cost.at(rows);
        for known in &mut cost.times {
            *known *= one;
        }
        cost.observed[0] = (0.0, 0.0);
        cost.observe(rows, time);
        Some(cost)
    }

    /// Learns from another forward; a time that is not positive is no observation.
    pub fn observe(&mut self, rows: usize, time: f32) {
        if !time.is_finite() || time <= 0.0 {
            return;
        }
        let (left, share) = position(rows);
        let error = (time / self.at(rows)).ln().clamp(-OUTLIER.ln(), OUTLIER.ln());
        for (i, (known, seen)) in self.observed.iter_mut().enumerate() {
            let weight = match i {
                _ if i == left => 1.0 - share,
                _ if i == left + 1 => share,
                _ => 0.0,
            };
            if weight > 0.0 {
                if *seen == 0.0 {
                    // All that is known: believed at once where it is dear, for to try again is what costs.
                    (*known, self.known) = (self.times[i], self.known.max(i + 1));
                    *seen = if error > 0.0 { 0.0 } else { 1.0 };
                } else {
                    *seen = seen.max(1.0);
                }
                *seen = (*seen + weight).min(MEMORY);
                *known *= (error * weight / *seen).exp();
            } else if *seen > 0.0 {
                *seen = (*seen * AGEING).max(1.0);
                if i > 0 {
                    *known += FORGETTING * (self.times[i - 1] * growth(i) - *known);
                }
            }
        }
        if rows == 1 {
            // Only quotients decide: when one row takes longer, so will more.
            let step = (error / self.observed[0].1).exp();
            for (known, _) in &mut self.observed[1..] {
                *known *= step;
            }
            self.unprobed = 0;
        } else {
            self.unprobed += 1;
        }
        self.fit();
    }

    /// Times of forwards over 1, 2, 4, ... rows, as far as anything is known.
    pub fn times(&self) -> &[f32] {
        &self.times[..self.known]
    }

    /// Fills widths that were never seen from narrower ones, and makes wider ones take no less time.
    fn fit(&mut self) {
        if let Some(first) = self.observed.iter().position(|&(_, seen)| seen > 0.0) {
            self.times[first] = self.observed[first].0;
            for i in (0..first).rev() {
                self.times[i] = self.times[i + 1] / growth(i + 1);
            }
            for i in first + 1..WIDTHS {
                let (known, seen) = self.observed[i];
                let before = self.times[i - 1];
                self.times[i] = if seen > 0.0 { known.max(before) } else { before * growth(i) };
            }
        }
    }

    /// Time of a forward over `rows >= 1` rows: a straight line between widths.
    pub fn at(&self, rows: usize) -> f32 {
        let (left, share) = position(rows);
        self.times[left] + (self.times[left + 1] - self.times[left]) * share
    }

    /// The number of nodes that gives the most expected tokens per time, where `probs` descend. It compares every
    /// prefix, not only the next node: steps of a GPU's cost curve can hide a gain behind a loss.
    pub fn best_prefix(&self, probs: impl IntoIterator<Item = f32>) -> usize {
        if self.unprobed >= PROBE {
            return 0;
        }
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

/// The last node of the path of at most `longest` nodes that gives the most expected tokens per time, or most tokens
/// where no times are known; none where it is better to go on without guesses.
pub fn best_path(nodes: &[Choice], longest: usize, cost: Option<&VerifyCost>) -> Option<usize> {
    if cost.is_some_and(|cost| cost.unprobed >= PROBE) {
        return None;
    }
    let time = |rows: usize| cost.map_or(1.0, |cost| cost.at(rows));
    let mut best = None;
    let mut best_rate = if cost.is_some() { MARGIN / time(1) } else { 1.0 };
    let mut paths: Vec<(f32, usize)> = Vec::with_capacity(nodes.len()); // expected tokens and rows
    for (i, node) in nodes.iter().enumerate() {
        let (tokens, rows) = usize::try_from(node.parent).map_or((1.0, 1), |parent| paths[parent]);
        let path = (tokens + node.prob, rows + 1);
        paths.push(path);
        let rate = path.0 / time(path.1);
        if path.1 <= longest + 1 && rate > best_rate {
            (best, best_rate) = (Some(i), rate);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::tree::Source;

    #[test]
    fn time_between_measurements_is_a_line() {
        let cost = VerifyCost::new(&[10.0, 12.0, 20.0]).unwrap();
        let at: Vec<f32> = (1..=9).map(|rows| cost.at(rows)).collect();
        assert_eq!(at, [10.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 36.0, 40.0]);
        assert_eq!(cost.times(), [10.0, 12.0, 20.0]);
        assert!((VerifyCost::new(&[3.0]).unwrap().at(5) - 15.0).abs() < 1e-3);
        assert!(VerifyCost::new(&[]).is_none());
        assert!(VerifyCost::new(&[1.0, f32::NAN]).is_none());
        assert!(VerifyCost::first(1, 0.0).is_none());
    }

    #[test]
    fn drafts_only_where_they_pay() {
        let linear = VerifyCost::new(&[1.0, 2.0, 4.0]).unwrap();
        assert_eq!(linear.best_prefix([0.99, 0.9]), 0); // each row costs a whole step
        let flat = VerifyCost::new(&[1.0, 1.0, 1.0]).unwrap();
        assert_eq!(flat.best_prefix([0.5, 0.01, 0.001]), 3);
        let stairs = VerifyCost::new(&[1.0, 1.5, 1.5]).unwrap();
        assert_eq!(stairs.best_prefix([0.4, 0.3, 0.2]), 3); // one node loses, three gain
        assert_eq!(stairs.best_prefix([0.1, 0.05, 0.01]), 0);
    }

    #[test]
    fn a_path_is_as_long_as_it_pays() {
        let node = |parent, prob| Choice { token: 0, parent, prob, source: Source::Request };
        let nodes = [node(-1, 0.6), node(-1, 0.35), node(1, 0.34), node(2, 0.33), node(0, 0.1)];
        assert_eq!(best_path(&nodes, 8, None), Some(3)); // 1.02 against 0.7
        assert_eq!(best_path(&nodes, 2, None), Some(4));
        let steep = VerifyCost::new(&[1.0, 1.4, 2.6]).unwrap();
        assert_eq!(best_path(&nodes, 8, Some(&steep)), Some(0));
        let dear = VerifyCost::new(&[1.0, 2.0]).unwrap();
        assert_eq!(best_path(&nodes, 8, Some(&dear)), None);
        assert_eq!(best_path(&[], 8, None), None);
    }

    /// An engine that verifies as many rows as a guess of probability `p` at each node is worth, with a true cost.
    fn serve(cost: &mut VerifyCost, truth: impl Fn(usize) -> f32, p: f32, steps: usize) -> usize {
        let mut wide = 0;
        for step in 0..steps {
            let rows = 1 + cost.best_prefix((1..9).map(|depth| p.powi(depth)));
            let noise = [1.0, 0.9, 1.1, 1.0, 1.6][step % 5];
            cost.observe(rows, truth(rows) * noise);
            wide += usize::from(rows > 1);
        }
        wide
    }

    #[test]
    fn a_wrong_curve_is_unlearned() {
        let dear = |rows: usize| rows as f32;
        let mut cost = VerifyCost::new(&[1.0, 1.0, 1.0, 1.0]).unwrap();
        assert!(serve(&mut cost, dear, 0.7, 200) < 40, "{:?}", cost.times());
        let cheap = |rows: usize| 1.0 + 0.01 * rows as f32;
        let mut cost = VerifyCost::new(&[1.0, 3.0, 9.0, 27.0]).unwrap();
        serve(&mut cost, cheap, 0.7, 2000);
        assert!(serve(&mut cost, cheap, 0.7, 100) > 90, "{:?}", cost.times());
    }

    #[test]
    fn a_curve_is_learned_from_nothing() {
        for first in [1, 2, 3, 8] {
            let truth = |rows: usize| 50.0 + 10.0 * rows as f32;
            let mut cost = VerifyCost::first(first, truth(first)).unwrap();
            for step in 0..400 {
                let rows = [1, 2, 3, 5, 9][step % 5];
                cost.observe(rows, truth(rows));
            }
            for rows in [1, 2, 3, 4, 8] {
                assert!((cost.at(rows) / truth(rows) - 1.0).abs() < 0.05, "{rows} {:?}", cost.times());
            }
            assert_eq!(cost.times().len(), 5);
        }
    }

    #[test]
    fn a_machine_that_gets_faster_does_not_make_rows_look_cheap() {
        let truth = |rows: usize| 1.0 + 0.25 * (rows - 1) as f32;
        let mut cost = VerifyCost::new(&[1.0, 1.25, 1.75, 2.75]).unwrap();
        serve(&mut cost, |rows| 3.0 * truth(rows), 0.9, 200);
        serve(&mut cost, truth, 0.9, 1000);
        let quotient = cost.at(8) / cost.at(1);
        assert!((quotient / truth(8) - 1.0).abs() < 0.25, "{:?}", cost.times());
    }

    #[test]
    fn the_whole_curve_follows_a_slower_machine() {
        let mut cost = VerifyCost::new(&[1.0, 1.5, 2.0]).unwrap();
        for _ in 0..200 {
            cost.observe(1, 3.0);
        }
        assert!((cost.at(1) - 3.0).abs() < 0.1 && cost.at(4) > 3.5, "{:?}", cost.times());
    }
}
