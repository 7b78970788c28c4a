//! Runners-up of earlier logits: what the target model itself held likely after the same one or two tokens.

use super::context::mix;

/// Most likely next tokens after a key, best first, in a bounded table where newer keys replace older ones.
#[derive(Clone, Debug)]
pub struct Recycled {
    width: usize,
    keys: Vec<u32>,
    ids: Vec<u32>,
    gaps: Vec<u8>,
}

/// Which key a row was found under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The last two tokens.
    Two,
    /// The last token only.
    One,
}

const NONE: u32 = u32::MAX;

impl Recycled {
    /// `rows` rows of `width` tokens each.
    pub fn new(rows: usize, width: usize) -> Self {
        let rows = rows.next_power_of_two();
        Self { width, keys: vec![0; rows], ids: vec![0; rows * width], gaps: vec![0; rows * width] }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.keys.len() * 4 + self.ids.len() * 5
    }

    fn row(&self, hash: u64) -> (usize, u32) {
        (hash as usize & (self.keys.len() - 1), (hash >> 32) as u32 | 1)
    }

    fn hash(context: &[u32], key: Key) -> Option<u64> {
        match (key, context) {
            (Key::Two, [last, before, ..]) => Some(mix(mix(u64::from(*last) + 1) ^ u64::from(*before))),
            (Key::One, [last, ..]) => Some(mix(u64::from(*last) << 20 ^ 0x5bd1)),
            _ => None,
        }
    }

    /// Remembers the likeliest tokens after a context (newest token first).
    pub fn record(&mut self, newest_first: &[u32], ids: &[u32], logprobs: Option<&[f32]>) {
        for key in [Key::Two, Key::One] {
            let Some(hash) = Self::hash(newest_first, key) else { continue };
            let (row, tag) = self.row(hash);
            self.keys[row] = tag;
            for rank in 0..self.width {
                let at = row * self.width + rank;
                self.ids[at] = ids.get(rank).copied().unwrap_or(NONE);
                let logprob = logprobs.and_then(|l| l.get(rank));
                self.gaps[at] = logprob.map_or(255, |&l| (-l * 16.0).clamp(0.0, 254.0) as u8);
            }
        }
    }

    /// The likeliest tokens after a context, best first, with their logprob where it was recorded.
    pub fn find(&self, newest_first: &[u32], mut see: impl FnMut(Key, usize, u32, Option<f32>)) {
        for key in [Key::Two, Key::One] {
            let Some(hash) = Self::hash(newest_first, key) else { continue };
            let (row, tag) = self.row(hash);
            if self.keys[row] != tag {
                continue;
            }
            for rank in 0..self.width {
                let at = row * self.width + rank;
                if self.ids[at] != NONE {
                    let gap = self.gaps[at];
                    see(key, rank, self.ids[at], (gap < 255).then(|| -f32::from(gap) / 16.0));
                }
            }
            return;
        }
    }
}
