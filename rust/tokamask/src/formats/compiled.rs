//! Our own file: a definition in binary, and tables that follow from it and take long to derive.
//!
//! ```text
//! b"tokamask"  u32 version  u64 checksum of the rest
//! u64 length, settings as JSON
//! u64 tokens, u32 length of each (MAX = hole), their bytes
//! u64 merges + 1 (0 = the ids are the ranks), u32 left and right of each
//! u64 length, version of the package that derived what follows
//! u64 split rules, u64 length and windows of each
//! u64 symbols, u32 id of each, u32 left and right half of each
//! u64 length, barriers
//! ```
//!
//! The file is mapped, not read: spellings and merges stay in it until somebody asks for the definition. The
//! tables of the hot path are filled from it into memory of our own on huge pages: in the 4 KiB pages of a file
//! their random probes would miss the TLB. Length and checksum of the whole file are verified on every load, and that
//! derived tables stay within their bounds; that they follow from the definition is not, and tables of another
//! version of the package are derived anew.

use super::map::Map;
use super::{Definition, Settings};
use crate::bpe::encoder::Derived as Tables;
use crate::bpe::{Merges, NONE};
use crate::error::VocabularyError;

/// The first bytes of a file.
pub const MAGIC: &[u8; 8] = b"tokamask";
const VERSION: u32 = 3;
const HEADER: usize = 20;
const PACKAGE: &str = env!("CARGO_PKG_VERSION");

/// What is derived from a definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Derived {
    /// The windows of each split rule; empty: none.
    pub windows: Vec<Vec<u8>>,
    /// Merges and barriers.
    pub tables: Tables,
}

/// An opened file.
pub struct Compiled {
    map: Map,
    /// Everything small.
    pub settings: Settings,
    /// Where the lengths of the tokens, their bytes and the merges lie.
    lengths: std::ops::Range<usize>,
    merges: Option<std::ops::Range<usize>>,
    /// What need not be derived; `None`: it was by another version.
    pub derived: Option<Derived>,
}

/// Writes a definition and what was derived from it.
pub fn write(definition: &Definition, derived: &Derived) -> Result<Vec<u8>, VocabularyError> {
    let settings = serde_json::to_vec(&definition.settings)
        .map_err(|error| VocabularyError::new(format!("settings cannot be written: {error}")))?;
    let mut file = MAGIC.to_vec();
    file.extend(VERSION.to_le_bytes());
    file.extend([0; 8]);
    put(&mut file, &settings);
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
            put_pairs(&mut file, list);
        }
    }
    put(&mut file, PACKAGE.as_bytes());
    file.extend((derived.windows.len() as u64).to_le_bytes());
    for windows in &derived.windows {
        put(&mut file, windows);
    }
    file.extend((derived.tables.ids.len() as u64).to_le_bytes());
    file.extend(derived.tables.ids.iter().flat_map(|id| id.to_le_bytes()));
    put_pairs(&mut file, &derived.tables.halves);
    put(&mut file, &derived.tables.barriers);
    seal(&mut file);
    Ok(file)
}

/// Writes the checksum into a file that is long enough to have one.
pub(crate) fn seal(file: &mut [u8]) {
    if let Some((header, rest)) = file.split_at_mut_checked(HEADER) {
        header[12..].copy_from_slice(&checksum(rest).to_le_bytes());
    }
}

fn put(file: &mut Vec<u8>, bytes: &[u8]) {
    file.extend((bytes.len() as u64).to_le_bytes());
    file.extend(bytes);
}

fn put_pairs(file: &mut Vec<u8>, pairs: &[(u32, u32)]) {
    for (left, right) in pairs {
        file.extend(left.to_le_bytes());
        file.extend(right.to_le_bytes());
    }
}

impl Compiled {
    /// Verifies a file; a cut or forged one is refused.
    pub fn open(map: Map) -> Result<Self, VocabularyError> {
        let data = &map[..];
        let header: &[u8; HEADER] = data.first_chunk().ok_or_else(cut_short)?;
        if header[8..12] != VERSION.to_le_bytes() {
            return Err(VocabularyError::new("compiled tokenizer: of another version, compile it again"));
        }
        if header[12..] != checksum(&data[HEADER..]).to_le_bytes() {
            return Err(VocabularyError::new("compiled tokenizer: the checksum is wrong"));
        }
        let mut rest = &data[HEADER..];
        let settings: Settings = serde_json::from_slice(take_counted(&mut rest, 1)?)
            .map_err(|error| VocabularyError::new(format!("compiled tokenizer: {error}")))?;
        let place = |part: &[u8]| {
            let start = part.as_ptr() as usize - data.as_ptr() as usize;
            start..start + part.len()
        };
        let lengths = take_counted(&mut rest, 4)?;
        let known = numbers(lengths).filter(|&length| length != NONE);
        let bytes = known.fold(0u64, |sum, length| sum + u64::from(length));
        take(&mut rest, usize::try_from(bytes).map_err(|_| cut_short())?)?;
        let lengths = place(lengths);
        let merges = match take_length(&mut rest)? {
            0 => None,
            count => Some(place(take(&mut rest, (count - 1).checked_mul(8).ok_or_else(cut_short)?)?)),
        };
        let derived = if take_counted(&mut rest, 1)? == PACKAGE.as_bytes() {
            let spelled: Vec<u32> = numbers(&data[lengths.clone()]).collect();
            Some(read_derived(&mut rest, &spelled)?)
        } else {
            None
        };
        Ok(Self { map, settings, lengths, merges, derived })
    }

    /// The bytes of the tokens by id.
    pub fn tokens(&self) -> Vec<Option<&[u8]>> {
        let lengths = &self.map[self.lengths.clone()];
        let mut rest = &self.map[self.lengths.end..];
        let token = |length: u32| {
            if length == NONE {
                return None;
            }
            // All lengths together were found to fit.
            let (token, after) = rest.split_at_checked(length as usize)?;
            rest = after;
            Some(token)
        };
        numbers(lengths).map(token).collect()
    }

    /// What the file was written from.
    pub fn definition(&self) -> Definition {
        let tokens = self.tokens().into_iter().map(|token| token.map(<[u8]>::to_vec)).collect();
        let merges = match &self.merges {
            None => Merges::Ranks,
            Some(place) => Merges::List(pairs(&self.map[place.clone()])),
        };
        Definition { tokens, merges, settings: self.settings.clone() }
    }
}

/// `lengths`: of the tokens.
fn read_derived(rest: &mut &[u8], lengths: &[u32]) -> Result<Derived, VocabularyError> {
    let tokens = lengths.len();
    let mut derived = Derived::default();
    for _ in 0..take_length(rest)? {
        derived.windows.push(take_counted(rest, 1)?.to_vec());
    }
    let ids = take_counted(rest, 4)?;
    derived.tables.ids = numbers(ids).collect();
    derived.tables.halves = pairs(take(rest, ids.len() * 2)?);
    derived.tables.barriers = take_counted(rest, 1)?.to_vec();
    let sound = ids.len() / 4 <= tokens && derived.tables.ids.iter().all(|&id| (id as usize) < tokens);
    let mut halves = derived.tables.halves.iter().enumerate();
    let length = |symbol: u32| lengths[derived.tables.ids[symbol as usize] as usize];
    // A symbol is made of earlier ones and as long as they are, a single byte of itself.
    if !sound
        || !halves.all(|(nth, &(left, right))| {
            let last = left.max(right) as usize;
            if last == nth {
                return left == right && length(left) == 1;
            }
            last < nth && length(left).checked_add(length(right)) == Some(length(nth as u32))
        })
    {
        return Err(VocabularyError::new("compiled tokenizer: a merge of what is not there"));
    }
    Ok(derived)
}

/// Reads a file into the definition alone.
pub fn read(data: &[u8]) -> Result<Definition, VocabularyError> {
    Ok(Compiled::open(data.to_vec().into())?.definition())
}

fn cut_short() -> VocabularyError {
    VocabularyError::new("compiled tokenizer: cut short")
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn pairs(bytes: &[u8]) -> Vec<(u32, u32)> {
    let number = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    bytes.chunks_exact(8).map(|pair| (number(pair), number(&pair[4..]))).collect()
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], VocabularyError> {
    let (bytes, after) = rest.split_at_checked(count).ok_or_else(cut_short)?;
    *rest = after;
    Ok(bytes)
}

/// So many items of so many bytes, their number before them.
fn take_counted<'a>(rest: &mut &'a [u8], size: usize) -> Result<&'a [u8], VocabularyError> {
    let count = take_length(rest)?;
    take(rest, count.checked_mul(size).ok_or_else(cut_short)?)
}

fn take_length(rest: &mut &[u8]) -> Result<usize, VocabularyError> {
    let bytes = take(rest, 8)?;
    let mut number = [0; 8];
    number.copy_from_slice(bytes);
    Ok(usize::try_from(u64::from_le_bytes(number)).unwrap_or(usize::MAX))
}

/// Four times eight bytes in turn; detects accidents, not malice (a forged file is still bounded by lengths).
fn checksum(data: &[u8]) -> u64 {
    let word = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let mut sums = [data.len() as u64, 1, 2, 3];
    let mut blocks = data.chunks_exact(32);
    for block in blocks.by_ref() {
        for (sum, chunk) in sums.iter_mut().zip(block.chunks_exact(8)) {
            *sum = step(*sum, word(chunk));
        }
    }
    for chunk in blocks.remainder().chunks(8) {
        sums[0] = step(sums[0], word(chunk));
    }
    sums.into_iter().fold(0, step)
}
