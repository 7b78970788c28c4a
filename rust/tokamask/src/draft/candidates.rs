//! The distinct tokens that some source names, with their scores.

/// Most candidates kept for one place; the first sources are the most telling.
pub const CANDIDATES: usize = 40;
const INDEX: usize = 128;

/// A small set of tokens with a hash index, cleared and refilled for each place of a tree.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// Number of candidates.
    pub len: usize,
    /// Their tokens.
    pub tokens: [u32; CANDIDATES],
    /// Their scores: logits of being the next token.
    pub scores: [f32; CANDIDATES],
    /// Their probabilities, once scored.
    pub probs: [f32; CANDIDATES],
    /// Which opinion named them first.
    pub opinions: [u8; CANDIDATES],
    index: [u8; INDEX],
}

impl Default for Candidates {
    fn default() -> Self {
        Self {
            len: 0,
            tokens: [0; CANDIDATES],
            scores: [0.0; CANDIDATES],
            probs: [0.0; CANDIDATES],
            opinions: [0; CANDIDATES],
            index: [0; INDEX],
        }
    }
}

impl Candidates {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.len = 0;
        self.index = [0; INDEX];
    }

    /// The place of a token; a new one starts with `score`. None when the set is full.
    #[inline]
    pub fn entry(&mut self, token: u32, score: f32, opinion: u8) -> Option<usize> {
        let slot = self.slot(token);
        if self.index[slot] != 0 {
            return Some(self.index[slot] as usize - 1);
        }
        if self.len == CANDIDATES {
            return None;
        }
        self.tokens[self.len] = token;
        self.scores[self.len] = score;
        self.opinions[self.len] = opinion;
        self.len += 1;
        self.index[slot] = self.len as u8;
        Some(self.len - 1)
    }

    /// The place of a token.
    #[inline]
    pub fn get(&self, token: u32) -> Option<usize> {
        (self.index[self.slot(token)] as usize).checked_sub(1)
    }

    /// Where the token is indexed, or the empty place where it would be; the index is never full.
    #[inline]
    fn slot(&self, token: u32) -> usize {
        let mut slot = (token.wrapping_mul(0x9e37_79b1) >> 25) as usize;
        loop {
            match self.index[slot] {
                0 => return slot,
                at if self.tokens[at as usize - 1] == token => return slot,
                _ => slot = (slot + 1) % INDEX,
            }
        }
    }
}
