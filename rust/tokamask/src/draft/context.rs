//! The tokens before a guess: the newest ones of the request and the path of the tree above it.

/// Longest context that sources look at.
pub const REACH: usize = 32;

/// Lengths at which the shared counts know contexts.
pub const ORDERS: [usize; 6] = [1, 2, 3, 4, 6, 8];

/// Up to [`REACH`] tokens, newest first.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    tokens: [u32; REACH],
    len: u32,
}

impl Context {
    /// The end of a sequence.
    pub fn of(sequence: &[u32]) -> Self {
        let mut tokens = [0; REACH];
        let len = sequence.len().min(REACH);
        for (slot, &token) in tokens.iter_mut().zip(sequence.iter().rev()) {
            *slot = token;
        }
        Self { tokens, len: len as u32 }
    }

    /// This context with one more token at its end.
    #[must_use]
    pub fn then(&self, token: u32) -> Self {
        let mut tokens = [0; REACH];
        tokens[0] = token;
        tokens[1..].copy_from_slice(&self.tokens[..REACH - 1]);
        Self { tokens, len: (self.len + 1).min(REACH as u32) }
    }

    /// Newest first.
    pub fn newest_first(&self) -> &[u32] {
        &self.tokens[..self.len as usize]
    }

    /// One hash for each length of [`ORDERS`] that the context has.
    pub fn hashes(&self) -> ([u64; ORDERS.len()], usize) {
        let mut hashes = [0; ORDERS.len()];
        let (mut known, mut hash) = (0, 0x9e37_79b9_7f4a_7c15_u64);
        for (i, &token) in self.newest_first().iter().enumerate().take(ORDERS[ORDERS.len() - 1]) {
            hash = mix(hash ^ u64::from(token));
            if i + 1 == ORDERS[known] {
                hashes[known] = hash;
                known += 1;
            }
        }
        (hashes, known)
    }
}

/// Spreads every bit over the word.
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 29)
}
