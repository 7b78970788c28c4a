//! Our own file: a definition in binary, with a version, lengths and a checksum that are verified.
//!
//! ```text
//! b"tokamask"  u32 version  u64 checksum of the rest
//! u64 length, settings as JSON
//! u64 tokens, u32 length of each (MAX = hole), their bytes
//! u64 merges + 1 (0 = the ids are the ranks), u32 left and right of each
//! ```

use super::{Definition, Settings};
use crate::bpe::{Merges, NONE};
use crate::error::VocabularyError;

/// The first bytes of a file.
pub const MAGIC: &[u8; 8] = b"tokamask";
const VERSION: u32 = 1;
const HEADER: usize = 20;

/// Writes a definition.
pub fn write(definition: &Definition) -> Result<Vec<u8>, VocabularyError> {
    let settings = serde_json::to_vec(&definition.settings)
        .map_err(|error| VocabularyError::new(format!("settings cannot be written: {error}")))?;
    let mut file = MAGIC.to_vec();
    file.extend(VERSION.to_le_bytes());
    file.extend([0; 8]);
    file.extend((settings.len() as u64).to_le_bytes());
    file.extend(settings);
    file.extend((definition.tokens.len() as u64).to_le_bytes());
    for token in &definition.tokens {
        file.extend(token.as_ref().map_or(NONE, |t| t.len() as u32).to_le_bytes());
    }
    for token in definition.tokens.iter().flatten() {
        file.extend(token);
    }
    match &definition.merges {
        Merges::Ranks => file.extend(0u64.to_le_bytes()),
        Merges::List(list) => {
            file.extend((list.len() as u64 + 1).to_le_bytes());
            for (left, right) in list {
                file.extend(left.to_le_bytes());
                file.extend(right.to_le_bytes());
            }
        }
    }
    let sum = checksum(&file[HEADER..]);
    file[12..HEADER].copy_from_slice(&sum.to_le_bytes());
    Ok(file)
}

/// Reads a file; a cut or forged one is refused.
pub fn read(data: &[u8]) -> Result<Definition, VocabularyError> {
    let broken = || VocabularyError::new("compiled tokenizer: cut short");
    let header: &[u8; HEADER] = data.first_chunk().ok_or_else(broken)?;
    if header[8..12] != VERSION.to_le_bytes() {
        return Err(VocabularyError::new("compiled tokenizer: of another version, compile it again"));
    }
    if header[12..] != checksum(&data[HEADER..]).to_le_bytes() {
        return Err(VocabularyError::new("compiled tokenizer: the checksum is wrong"));
    }
    let mut rest = &data[HEADER..];
    let length = take_length(&mut rest)?;
    let settings: Settings = serde_json::from_slice(take(&mut rest, length)?)
        .map_err(|error| VocabularyError::new(format!("compiled tokenizer: {error}")))?;
    let count = take_length(&mut rest)?;
    let lengths = take(&mut rest, count.checked_mul(4).ok_or_else(broken)?)?;
    let mut tokens = Vec::with_capacity(count);
    for length in lengths.chunks_exact(4) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
        let token = if length == NONE { None } else { Some(take(&mut rest, length as usize)?.to_vec()) };
        tokens.push(token);
    }
    let merges = match take_length(&mut rest)? {
        0 => Merges::Ranks,
        count => {
            let pairs = take(&mut rest, (count - 1).checked_mul(8).ok_or_else(broken)?)?;
            let number = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            Merges::List(pairs.chunks_exact(8).map(|p| (number(p), number(&p[4..]))).collect())
        }
    };
    Ok(Definition { tokens, merges, settings })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], VocabularyError> {
    let (bytes, after) =
        rest.split_at_checked(count).ok_or_else(|| VocabularyError::new("compiled tokenizer: cut short"))?;
    *rest = after;
    Ok(bytes)
}

fn take_length(rest: &mut &[u8]) -> Result<usize, VocabularyError> {
    let bytes = take(rest, 8)?;
    let mut number = [0; 8];
    number.copy_from_slice(bytes);
    Ok(usize::try_from(u64::from_le_bytes(number)).unwrap_or(usize::MAX))
}

/// Eight bytes at a time; detects accidents, not malice (a forged file is still bounded by lengths).
fn checksum(data: &[u8]) -> u64 {
    let mut sum = data.len() as u64;
    for chunk in data.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
    sum
}
