//! What estimated probabilities of whole paths were worth, learned while serving.
//!
//! Steps of a path are not independent: a text that agreed once agrees again. So products of well calibrated
//! steps come out low. One monotone curve corrects them; the order of the nodes, and so the tree, stays the same.
//! Tried without gain: a factor of each request's own, from what it kept of what was promised (over 16 kinds of text and five
//! seeds, 1.187 times the speed against 1.192 without it, at the costs of transformers).

use super::tree::{Choice, Source};

const BINS: usize = 24;
/// Bins are this far apart in log-odds; the first is about 0.0025.
const SPAN: f32 = 0.5;
const LOWEST: f32 = -6.0;
/// A bin starts as if so many nodes had been right as often as estimated, and follows about `MEMORY` nodes.
const PRIOR: f32 = 8.0;
const MEMORY: f32 = 4000.0;

/// A curve from estimated to observed rates.
#[derive(Clone, Debug)]
pub struct Reliability {
    /// Mean estimate, rate and weight of each bin.
    bins: [(f32, f32, f32); BINS],
    /// Rates that rise with the bins, with the corners of the unit square.
    curve: [(f32, f32); BINS + 2],
    matched: Vec<Option<usize>>,
}

impl Default for Reliability {
    fn default() -> Self {
        let mut bins = [(0.0, 0.0, PRIOR); BINS];
        for (i, bin) in bins.iter_mut().enumerate() {
            let p = 1.0 / (1.0 + (-(LOWEST + (i as f32 + 0.5) * SPAN)).exp());
            (bin.0, bin.1) = (p, p);
        }
        let mut new = Self { bins, curve: [(0.0, 0.0); BINS + 2], matched: Vec::new() };
        new.fit();
        new
    }
}

/// Position of a probability among the bins, in bins, from above and below cut off.
fn position(p: f32) -> f32 {
    let p = p.clamp(1e-4, 1.0 - 1e-4);
    (((p / (1.0 - p)).ln() - LOWEST) / SPAN).clamp(0.0, BINS as f32 - 1.0)
}

impl Reliability {
    /// The rate at which paths of an estimated probability were accepted of late.
    pub fn rate(&self, p: f32) -> f32 {
        let at = self.curve.partition_point(|point| point.0 < p).clamp(1, BINS + 1);
        let ((left, low), (right, high)) = (self.curve[at - 1], self.curve[at]);
        let share = if right > left { ((p - left) / (right - left)).clamp(0.0, 1.0) } else { 1.0 };
        low + (high - low) * share
    }

    /// Compares what was proposed with what followed. Of guesses beyond what followed nothing is known.
    pub fn learn(&mut self, proposed: &[Choice], emitted: &[u32]) {
        // How many tokens of an accepted path were matched; none where the path was rejected.
        self.matched.clear();
        for choice in proposed {
            let above = usize::try_from(choice.parent).map_or(Some(0), |parent| self.matched[parent]);
            let next = above.map(|above| (above, emitted.get(above)));
            let accepted = match next {
                Some((above, None)) => {
                    self.matched.push(Some(above)); // nor is anything known of what is below
                    continue;
                }
                Some((_, Some(&token))) => token == choice.token,
                None => false,
            };
            self.matched.push(above.filter(|_| accepted).map(|above| above + 1));
            if choice.source != Source::Forced {
                let (mean, rate, seen) = &mut self.bins[position(choice.prob) as usize];
                *seen = (*seen + 1.0).min(MEMORY);
                *mean += (choice.prob - *mean) / *seen;
                *rate += (f32::from(u8::from(accepted)) - *rate) / *seen;
            }
        }
        self.fit();
    }

    /// Makes the rates rise by averaging neighbours that do not.
    fn fit(&mut self) {
        let mut blocks = [(0.0_f32, 0.0_f32, 0_usize); BINS]; // rate, weight, bins
        let mut n = 0;
        for &(_, rate, seen) in &self.bins {
            let mut block = (rate, seen, 1);
            while n > 0 && blocks[n - 1].0 > block.0 {
                let (rate, seen, bins) = blocks[n - 1];
                let total = seen + block.1;
                block = ((rate * seen + block.0 * block.1) / total, total, bins + block.2);
                n -= 1;
            }
            blocks[n] = block;
            n += 1;
        }
        let mut bin = 0;
        for &(rate, _, bins) in &blocks[..n] {
            for _ in 0..bins {
                self.curve[bin + 1] = (self.bins[bin].0, rate);
                bin += 1;
            }
        }
        self.curve[BINS + 1] = (1.0, self.curve[BINS].1.max(self.bins[BINS - 1].0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_what_happened_and_keep_their_order() {
        let mut reliability = Reliability::default();
        for p in [0.01, 0.2, 0.5, 0.9] {
            assert!((reliability.rate(p) - p).abs() < 0.01, "{p} {}", reliability.rate(p));
        }
        let guess = |token, prob| Choice { token, parent: -1, prob, source: Source::Request };
        for i in 0..4000 {
            // Of guesses at 0.2 every second is right, of those at 0.5 each tenth.
            let right = if i % 10 == 0 {
                2
            } else if i % 2 == 0 {
                1
            } else {
                3
            };
            reliability.learn(&[guess(1, 0.2), guess(2, 0.5)], &[right]);
        }
        let rates: Vec<f32> = (0..=100).map(|i| reliability.rate(i as f32 / 100.0)).collect();
        assert!(rates.windows(2).all(|pair| pair[0] <= pair[1]), "{rates:?}");
        assert!((rates[20] - 0.25).abs() < 0.02 && (rates[50] - 0.25).abs() < 0.02, "{rates:?}");
    }

    #[test]
    fn guesses_beyond_the_text_teach_nothing() {
        let mut reliability = Reliability::default();
        let path = [(7, -1), (8, 0), (9, 1)];
        let path = path.map(|(token, parent)| Choice { token, parent, prob: 0.3, source: Source::Shared });
        reliability.learn(&path, &[7]);
        let seen: f32 = reliability.bins.iter().map(|bin| bin.2 - PRIOR).sum();
        assert!((seen - 1.0).abs() < 1e-6, "{seen}");
        reliability.learn(&path, &[1]);
        let seen: f32 = reliability.bins.iter().map(|bin| bin.2 - PRIOR).sum();
        assert!((seen - 4.0).abs() < 1e-6, "{seen}"); // all three are known to be wrong
    }
}
