//! Exact barriers: places in a text that no token spans. What stands on both sides of one is encoded
//! as if the other were not there, so long pieces (a clause without spaces, a line of a vocabulary whose
//! tokens cross words) fall apart into short ones that a cache knows.
//!
//! A place is told by a few bytes on each side. Every place inside a token is noted with what the
//! token has there: the pair of bytes; at a space, up to [`REACH`] bytes on both sides; between two
//! characters of three or four bytes, both of them. The notes are bits of hashed sets: a collision only loses
//! a barrier.

use super::huge::Huge;
use super::long::run_length;

/// Bytes on each side of a space that are looked at.
const REACH: usize = 4;
/// Bits of a hashed set.
const BITS: u32 = 19;

/// The places inside tokens.
pub struct Barriers {
    /// Two bytes that stand side by side in a token.
    pairs: Huge<u64>,
    /// Neighbourhoods of spaces.
    spaces: Huge<u64>,
    /// Numbers of bytes to the left and right of a space that some token has.
    shapes: Vec<[u32; 3]>,
    /// Neighbouring characters of three or four bytes.
    wide: Huge<u64>,
}

fn spot(left: u32, right: u32, salt: u32) -> usize {
    let word = (u64::from(left) << 32 | u64::from(right)) ^ u64::from(salt) << 25;
    (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - BITS)) as usize
}

fn set(bits: &mut [u64], at: usize) {
    bits[at / 64] |= 1 << (at % 64);
}

#[inline]
fn has(bits: &[u64], at: usize) -> bool {
    bits[at / 64] >> (at % 64) & 1 != 0
}

/// First byte of a character of three or four bytes.
#[inline]
fn leads(byte: u8) -> bool {
    byte >= 0xE0
}

/// The bytes of the character at `at` as a number; `None` if it is cut off.
#[inline]
fn wide(text: &[u8], at: usize) -> Option<u32> {
    let three = text.get(at..at + 3)?;
    let three = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
    if text[at] < 0xF0 {
        return Some(three);
    }
    text.get(at + 3).map(|&last| three << 8 | u32::from(last))
}

/// The character of three or four bytes that ends before `at`.
#[inline]
fn wide_before(text: &[u8], at: usize) -> Option<u32> {
    if at >= 3 && text[at - 3] & 0xF0 == 0xE0 {
        return wide(text, at - 3);
    }
    if at >= 4 && text[at - 4] >= 0xF0 {
        return wide(text, at - 4);
    }
    None
}

/// Up to four bytes before (the nearest highest) or after (the nearest lowest) a place.
fn sides(text: &[u8], at: usize) -> (u32, u32) {
    let left =
        text[at.saturating_sub(REACH)..at].iter().fold(0u32, |all, &byte| all >> 8 | u32::from(byte) << 24);
    let right =
        text[at..text.len().min(at + REACH)].iter().rev().fold(0u32, |all, &byte| all << 8 | u32::from(byte));
    (left, right)
}

impl Barriers {
    /// Notes the places inside all tokens.
    pub fn new<'a>(tokens: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut barriers = Self {
            pairs: Huge::zeroed(1 << 10),
            spaces: Huge::zeroed(1 << (BITS - 6)),
            shapes: Vec::new(),
            wide: Huge::zeroed(1 << (BITS - 6)),
        };
        let mut shapes = [[false; REACH + 1]; REACH + 1];
        for token in tokens {
            for at in 1..token.len() {
                set(&mut barriers.pairs, usize::from(token[at - 1]) << 8 | usize::from(token[at]));
                if token[at] == b' ' {
                    let (before, after) = (at.min(REACH), (token.len() - at).min(REACH));
                    let (left, right) = sides(token, at);
                    set(&mut barriers.spaces, spot(left, right, (before * 8 + after) as u32));
                    shapes[before][after] = true;
                }
                if leads(token[at]) {
                    barriers.note_wide(token, at);
                }
            }
        }
        for before in (1..=REACH).rev() {
            for after in (1..=REACH).rev().filter(|&after| shapes[before][after]) {
                let (left, right) = (u32::MAX << (32 - 8 * before), u32::MAX >> (32 - 8 * after));
                barriers.shapes.push([left, right, (before * 8 + after) as u32]);
            }
        }
        barriers
    }

    /// The notes as bytes; [`Self::from_bytes`] is the way back.
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = self.pairs.iter().chain(self.spaces.iter()).chain(self.wide.iter());
        let mut bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(self.shapes.as_flattened().iter().flat_map(|number| number.to_le_bytes()));
        bytes
    }

    /// The notes from bytes; `None` if their number is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut words =
            bytes.chunks_exact(8).map(|b| b.iter().rev().fold(0, |all, &b| all << 8 | u64::from(b)));
        let mut take = |count: usize| {
            let words: Vec<u64> = words.by_ref().take(count).collect();
            (words.len() == count).then(|| Huge::of(&words))
        };
        let (pairs, spaces, wide) = (take(1 << 10)?, take(1 << (BITS - 6))?, take(1 << (BITS - 6))?);
        let rest = &bytes[8 * ((1 << 10) + (2 << (BITS - 6)))..];
        let number = |b: &[u8]| b.iter().rev().fold(0, |all, &b| all << 8 | u32::from(b));
        let shape = |b: &[u8]| [number(&b[..4]), number(&b[4..8]), number(&b[8..])];
        (rest.len() % 12 == 0).then(|| Self {
            pairs,
            spaces,
            wide,
            shapes: rest.chunks_exact(12).map(shape).collect(),
        })
    }

    /// A character of three or four bytes begins at `at`, with or without its end.
    fn note_wide(&mut self, token: &[u8], at: usize) {
        let before = if token[..at].iter().all(|byte| byte & 0xC0 == 0x80) {
            0 // the token begins inside the character before: any
        } else if let Some(before) = wide_before(token, at) {
            before
        } else {
            return; // the character before is of one or two bytes: never asked for
        };
        if let Some(here) = wide(token, at) {
            return set(&mut self.wide, spot(before, here, 0));
        }
        let width = if token[at] < 0xF0 { 3 } else { 4 };
        let missing = width - (token.len() - at);
        if missing > 2 {
            return set(&mut self.wide, spot(before, u32::from(token[at]), 1)); // any that begins so
        }
        let known = token[at..].iter().fold(0, |all, &byte| all << 8 | u32::from(byte));
        for rest in 0..1u32 << (6 * missing) {
            let rest = (0..missing).fold(0, |all, nth| all | (rest >> (6 * nth) & 63 | 0x80) << (8 * nth));
            set(&mut self.wide, spot(before, known << (8 * missing) | rest, 0));
        }
    }

    /// True if no token spans the place before `text[at]`; `at` is inside the text.
    #[inline]
    pub fn is_barrier(&self, text: &[u8], at: usize) -> bool {
        let (before, here) = (text[at - 1], text[at]);
        if !has(&self.pairs, usize::from(before) << 8 | usize::from(here)) {
            return true;
        }
        if here == b' ' {
            if at < REACH || at + REACH > text.len() {
                return false;
            }
            let (left, right) = sides(text, at);
            let spans = |&[before, after, salt]: &[u32; 3]| {
                has(&self.spaces, spot(left & before, right & after, salt))
            };
            return !self.shapes.iter().any(spans);
        }
        if !leads(here) {
            return false;
        }
        let (Some(left), Some(right)) = (wide_before(text, at), wide(text, at)) else { return false };
        let any = |salt: u32, right: u32| {
            has(&self.wide, spot(left, right, salt)) || has(&self.wide, spot(0, right, salt))
        };
        !any(0, right) && (here < 0xF0 || !any(1, u32::from(here)))
    }

    /// The first barrier inside a piece.
    #[inline]
    pub fn first(&self, piece: &[u8]) -> Option<usize> {
        self.next(piece, 1)
    }

    /// The first barrier of a piece from `at` on.
    #[inline]
    fn next(&self, piece: &[u8], mut at: usize) -> Option<usize> {
        while at < piece.len() {
            if self.is_barrier(piece, at) {
                return Some(at);
            }
            // In a run of one byte all places are alike that are not near its ends.
            if piece[at] == piece[at - 1]
                && at + 64 < piece.len()
                && piece[at + 63] == piece[at]
                && at >= REACH
            {
                let run = run_length(&piece[at - REACH..]);
                at += run.saturating_sub(2 * REACH + 1);
            }
            at += 1;
        }
        None
    }

    /// Appends the barriers of the piece `text[start..end]` from `first` in it on.
    pub fn cut(&self, text: &[u8], start: usize, end: usize, first: usize, places: &mut Vec<u32>) {
        let piece = &text[start..end];
        let mut at = Some(first);
        while let Some(place) = at {
            places.push((start + place) as u32);
            at = self.next(piece, place + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Tokens are stretches of bytes of ordinary text, cut anywhere.
        #[test]
        fn no_token_spans_a_barrier(
            words in prop::collection::vec("[ab 你好们é👍🏽\u{1F4A9}]{1,5}", 1..10),
            cuts in prop::collection::vec((0usize..40, 1usize..9), 1..20),
            order in prop::collection::vec(0usize..10, 1..12),
        ) {
            let all = words.concat().into_bytes();
            let token = |&(start, length): &(usize, usize)| {
                let start = start % all.len();
                all[start..all.len().min(start + length)].to_vec()
            };
            let tokens: Vec<Vec<u8>> = cuts.iter().map(token).collect();
            let barriers = Barriers::new(tokens.iter().map(Vec::as_slice));
            let text: String = order.iter().map(|nth| &words[nth % words.len()][..]).collect();
            let text = text.as_bytes();
            for token in &tokens {
                for start in (0..text.len()).filter(|&start| text[start..].starts_with(token)) {
                    for at in start + 1..start + token.len() {
                        prop_assert!(!barriers.is_barrier(text, at), "{token:?} in {text:?} at {at}");
                    }
                }
            }
        }
    }
}
