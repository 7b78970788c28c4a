//! Penalties on tokens that were written before (step 0 of `python/tokamask/reference/sampling.py`).
//!
//! Only the tokens of the history are touched: the rest of the row is not read for it.

use super::array::View;
use super::bitmask::{word, WORD};

/// Token ids written so far, padded with -1; ids outside the vocabulary are passed over.
#[derive(Clone, Copy)]
pub struct History<'a> {
    /// `[batch, any]`: counts for repetition only.
    pub prompt: Option<View<'a, i32, 2>>,
    /// `[batch, any]`: counts for all three.
    pub output: Option<View<'a, i32, 2>>,
}

/// How much a token of the history loses.
#[derive(Clone, Copy, Debug)]
pub struct Penalties {
    /// Positive logits are divided by it, others multiplied; off at 1.
    pub repetition: f32,
    /// Subtracted from tokens of the output; off at 0.
    pub presence: f32,
    /// Subtracted once for each time in the output; off at 0.
    pub frequency: f32,
}

impl Penalties {
    /// None of them.
    pub const OFF: Self = Self { repetition: 1.0, presence: 0.0, frequency: 0.0 };

    fn apply(&self, x: f32, times: u32) -> f32 {
        let x = if x > 0.0 { x / self.repetition } else { x * self.repetition };
        if times > 0 {
            x - self.frequency * times as f32 - self.presence
        } else {
            x
        }
    }
}

impl History<'_> {
    /// Each token of row `b`, ascending, with its number of times in the output.
    pub fn count(&self, b: usize, vocab_size: usize, seen: &mut Vec<(u32, u32)>) {
        let tokens = |ids: Option<View<'_, i32, 2>>, times: u32, seen: &mut Vec<(u32, u32)>| {
            let ids = ids.map_or(&[][..], |ids| ids.row([b, 0]));
            let known = ids.iter().filter_map(|id| u32::try_from(*id).ok());
            seen.extend(known.filter(|id| (*id as usize) < vocab_size).map(|id| (id, times)));
        };
        seen.clear();
        tokens(self.prompt, 0, seen);
        tokens(self.output, 1, seen);
        seen.sort_unstable();
        seen.dedup_by(|next, first| {
            let same = next.0 == first.0;
            first.1 += if same { next.1 } else { 0 };
            same
        });
    }
}

/// Penalises the logits of the counted tokens; under a mask, `row` holds the allowed ones side by side.
pub fn penalise(
    row: &mut [f32],
    mask: Option<&[i32]>,
    vocab_size: usize,
    seen: &[(u32, u32)],
    by: &Penalties,
) {
    let (mut before, mut i) = (0, 0);
    for (token, times) in seen {
        let token = *token as usize;
        let place = match mask {
            None => Some(token),
            Some(mask) => {
                while i < token / WORD {
                    before += word(mask, i, vocab_size).count_ones() as usize;
                    i += 1;
                }
                let (bits, bit) = (word(mask, i, vocab_size), token % WORD);
                let below = (bits & ((1u32 << bit) - 1)).count_ones() as usize;
                (bits >> bit & 1 == 1).then_some(before + below)
            }
        };
        if let Some(x) = place.and_then(|place| row.get_mut(place)) {
            *x = by.apply(*x, *times);
        }
    }
}
