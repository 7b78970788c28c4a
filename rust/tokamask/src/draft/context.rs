//! The tokens before a guess: the newest ones of the request and the path of the tree above it.

/// Longest context that sources look at.
pub const REACH: usize = 32;

/// What the shared counts know contexts by: which of the newest tokens, 0 being the last. The first are whole
/// suffixes; the others leave a gap, and know more when text varies in one place.
pub const VIEWS: [&[usize]; 6] = [&[0], &[0, 1], &[0, 1, 2], &[0, 1, 2, 3, 4], &[1], &[0, 2]];
/// How many of [`VIEWS`] are whole suffixes.
pub const SUFFIXES: usize = 4;

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

    /// A hash for each of [`VIEWS`], if the context is long enough.
    pub fn hashes(&self) -> [Option<u64>; VIEWS.len()] {
        let mut hashes = [None; VIEWS.len()];
        let tokens = self.newest_first();
        let mut suffix = 0x9e37_79b9_7f4a_7c15;
        let mut known = 0;
        for (view, hash) in VIEWS.iter().zip(&mut hashes).take(SUFFIXES) {
            while known < view.len() {
                let Some(&token) = tokens.get(known) else { break };
                suffix = mix(suffix ^ u64::from(token));
                known += 1;
            }
            *hash = (known == view.len()).then_some(suffix);
        }
        for (i, view) in VIEWS.iter().enumerate().skip(SUFFIXES) {
            let start = mix(i as u64);
            let gapped =
                view.iter().try_fold(start, |hash, &at| Some(mix(hash ^ u64::from(*tokens.get(at)?))));
            hashes[i] = gapped;
        }
        hashes
    }
}

/// Spreads every bit over the word.
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 29)
}
