//! The commonest tokens of late: guesses for places of which nothing else is known.

/// Tokens kept; more than are used, so that a newcomer can rise.
const SLOTS: usize = 64;
/// Each observed token makes all earlier ones count this much less.
const FADE: f32 = 0.999;

/// A leader board of tokens, commonest first.
#[derive(Clone, Debug, Default)]
pub struct Frequent {
    tokens: Vec<u32>,
    weights: Vec<f32>,
    /// What one occurrence weighs now: growing it is cheaper than fading all others.
    one: f32,
}

impl Frequent {
    /// Counts a token.
    pub fn add(&mut self, token: u32) {
        self.one = if self.one == 0.0 { 1.0 } else { self.one / FADE };
        if self.one > 1e20 {
            self.weights.iter_mut().for_each(|w| *w /= self.one);
            self.one = 1.0;
        }
        let known = self.tokens.iter().position(|&t| t == token);
        let mut at = match known {
            Some(at) => at,
            None if self.tokens.len() < SLOTS => {
                self.tokens.push(token);
                self.weights.push(0.0);
                self.tokens.len() - 1
            }
            None => {
                (self.tokens[SLOTS - 1], self.weights[SLOTS - 1]) = (token, 0.0);
                SLOTS - 1
            }
        };
        self.weights[at] += self.one;
        while at > 0 && self.weights[at - 1] < self.weights[at] {
            self.tokens.swap(at - 1, at);
            self.weights.swap(at - 1, at);
            at -= 1;
        }
    }

    /// The commonest tokens, best first.
    pub fn top(&self) -> &[u32] {
        &self.tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_tokens_lead_and_rare_ones_give_way() {
        let mut frequent = Frequent::default();
        for i in 0..100_000 {
            frequent.add(if i % 3 == 0 {
                7
            } else if i % 3 == 1 {
                8 + i % 2
            } else {
                1000 + i
            });
        }
        assert_eq!(&frequent.top()[..1], [7]);
        assert!(frequent.top()[1..3].contains(&8) && frequent.top()[1..3].contains(&9));
        assert!(frequent.top().len() <= SLOTS);
    }
}
