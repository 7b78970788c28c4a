//! Pieces as fixed keys. The layouts are injective by construction: a key holds every byte of its
//! piece and its length. (A prototype xor-ed the length into a text byte; two of 4,519 documents of
//! ordinary text came out wrong.)

use super::cache::{fold, Key, Seeds};

/// Pieces below this length have a short key.
pub const SHORT: usize = 16;
/// Pieces from [`SHORT`] to below this have a long key.
pub const LONG: usize = 32;

/// `[length << 56 | bytes 8..15, bytes 0..8]`: the first word is never 0.
pub type ShortKey = Key<2>;
/// `[length, first 16 bytes, last 16 bytes]`.
pub type LongKey = Key<5>;

/// First word of the "key" of a piece that is too long: equal to no stored one.
pub const NO_KEY: u64 = 0xFF << 56;

/// By length (16: longer): masks of the two words, and the length byte.
pub static MASK: [[u64; 3]; 17] = {
    let mut masks = [[0u64; 3]; 17];
    let mut length = 0;
    while length < 16 {
        masks[length][0] = if length >= 8 { !0 } else { (1 << (8 * length)) - 1 };
        masks[length][1] = if length <= 8 { 0 } else { (1 << (8 * (length - 8))) - 1 };
        masks[length][2] = (length as u64) << 56;
        length += 1;
    }
    masks[16][2] = NO_KEY;
    masks
};

/// Two words from 16 bytes.
#[inline(always)]
pub fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(*bytes);
    [both as u64, (both >> 64) as u64]
}

/// The key of the piece `text[start..start + length]`; [`NO_KEY`] if it is not short.
#[inline(always)]
pub fn short_key_at(text: &[u8], start: usize, length: usize) -> ShortKey {
    let words = match text[start..].first_chunk() {
        Some(bytes) => words(bytes),
        None => last_words(&text[start..]),
    };
    let mask = &MASK[length.min(16)];
    [words[1] & mask[1] | mask[2], words[0] & mask[0]]
}

/// Two words from less than 16 bytes.
#[cold]
fn last_words(rest: &[u8]) -> [u64; 2] {
    let mut bytes = [0; 16];
    bytes[..rest.len()].copy_from_slice(rest);
    words(&bytes)
}

/// The key of a whole short text.
pub fn short_key(text: &[u8]) -> ShortKey {
    short_key_at(text, 0, text.len())
}

/// The text of a short key, padded with zeros, and its length.
pub fn short_bytes(key: &ShortKey) -> ([u8; 16], u32) {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key[1].to_le_bytes());
    bytes[8..].copy_from_slice(&(key[0] & !(0xFF << 56)).to_le_bytes());
    (bytes, (key[0] >> 56) as u32)
}

/// Hash of a short key.
#[inline(always)]
pub fn short_hash(key: &ShortKey, seeds: &Seeds) -> u64 {
    fold(key[1] ^ seeds[0], key[0] ^ seeds[1])
}

/// The key of a piece of 16 to 31 bytes; of others it is no key.
#[inline]
pub fn long_key(text: &[u8]) -> LongKey {
    let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) else { return [0; 5] };
    let (first, last) = (words(first), words(last));
    [text.len() as u64, first[0], first[1], last[0], last[1]]
}

/// The text of a long key, padded with zeros, and its length.
pub fn long_bytes(key: &LongKey) -> ([u8; 32], u32) {
    let (mut bytes, length) = ([0; 32], key[0] as usize % LONG);
    let half = |low: u64, high: u64| (u128::from(low) | u128::from(high) << 64).to_le_bytes();
    bytes[length.saturating_sub(16)..][..16].copy_from_slice(&half(key[3], key[4]));
    bytes[..16].copy_from_slice(&half(key[1], key[2]));
    (bytes, length as u32)
}

/// Hash of a long key.
#[inline]
pub fn long_hash(key: &LongKey, seeds: &Seeds) -> u64 {
    fold(key[1] ^ seeds[0], key[2] ^ seeds[1]) ^ fold(key[3] ^ seeds[2] ^ key[0], key[4] ^ seeds[3])
}
