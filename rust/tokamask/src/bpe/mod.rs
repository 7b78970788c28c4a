//! Byte-pair encoding: the tables, and the encoders that are tied to one definition of the result.
//!
//! The result is defined by [`merge::encode`]: start from the symbols of the bytes, and while any
//! adjacent pair may merge, merge the pair of lowest rank, the leftmost of equals. Everything
//! faster in this folder must give the same ids.

// Code that is compiled twice, for wide vectors and portably, must inline into both callers.
#![allow(clippy::inline_always)]

pub mod barriers;
mod blocks;
pub mod cache;
pub mod encoder;
pub mod huge;
pub mod keys;
pub mod lanes;
mod late;
pub mod long;
pub mod merge;
pub mod pairs;
mod queue;
pub mod spelled;
mod vectors;
pub mod whole;

use crate::error::VocabularyError;
use pairs::Pairs;
use whole::Whole;

/// "No such symbol", "no such token".
pub const NONE: u32 = u32::MAX;

/// Tokens, or merges, between asking for what is known of them and reading it.
const AHEAD: usize = 8;

/// Largest number of symbols: pair keys hold two of them.
pub const MAX_SYMBOLS: usize = (1 << 21) - 2;

/// What decides which pairs merge, and in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merges {
    /// Two tokens merge if their joined bytes are a token; its id is the rank.
    Ranks,
    /// Pairs of token ids, best first; they merge into the token of the joined bytes.
    List(Vec<(u32, u32)>),
}

/// The merge tables of a byte-level vocabulary.
///
/// Symbols are tokens renumbered: single bytes first, then every token that merging can reach, by
/// the rank of its canonical pair. So a symbol's number is its priority, and one number per pair
/// is all that a merge needs. Only the canonical pair of a token is stored: below a given rank an
/// interval of the text evolves as it would alone, so no other pair can ever form that token.
pub struct Bpe {
    /// Symbol of each byte; `NONE` where the vocabulary lacks it.
    pub(crate) bytes: Box<[u32; 256]>,
    pub(crate) pairs: Pairs,
    /// Token id of each symbol.
    pub(crate) ids: Vec<u32>,
    /// Canonical halves of each symbol; a single byte has itself twice.
    pub(crate) halves: Vec<(u32, u32)>,
    /// Number of bytes of each symbol.
    pub(crate) lengths: Vec<u32>,
    /// Symbol of each token id; `NONE` for tokens that merging cannot reach.
    pub(crate) symbols: Vec<u32>,
}

impl Bpe {
    /// Builds the tables from token bytes by id (`None` for ids that merging never produces).
    pub fn new(tokens: &[Option<&[u8]>], merges: &Merges) -> Result<Self, VocabularyError> {
        Self::with(tokens, &Whole::new(tokens, [1; 4]), merges)
    }

    /// The same where the map of all tokens is there.
    pub(crate) fn with(
        tokens: &[Option<&[u8]>],
        whole: &Whole,
        merges: &Merges,
    ) -> Result<Self, VocabularyError> {
        if tokens.len() > MAX_SYMBOLS {
            return Err(VocabularyError::new(format!("more than {MAX_SYMBOLS} tokens")));
        }
        let mut bpe = Self::of_bytes(tokens);
        let in_turn = match merges {
            Merges::Ranks => bpe.learn_from_ranks(tokens, whole),
            Merges::List(list) => bpe.learn_from_list(tokens, whole, list)?,
        };
        if !in_turn {
            bpe = Self::of_bytes(tokens);
            bpe.learn_from_list(tokens, whole, &late::in_order(tokens, merges)?)?;
        }
        Ok(bpe)
    }

    /// The tables before anything merges.
    fn of_bytes(tokens: &[Option<&[u8]>]) -> Self {
        let mut bpe = Self {
            bytes: Box::new([NONE; 256]),
            pairs: Pairs::new(tokens.len()),
            ids: Vec::with_capacity(tokens.len()),
            halves: Vec::with_capacity(tokens.len()),
            lengths: Vec::with_capacity(tokens.len()),
            symbols: vec![NONE; tokens.len()],
        };
        for (id, token) in tokens.iter().enumerate() {
            if let Some(&[byte]) = *token {
                if bpe.bytes[byte as usize] == NONE {
                    bpe.bytes[byte as usize] = bpe.add_symbol(id as u32, None);
                }
            }
        }
        bpe
    }

    /// The tables from symbols that were derived before, see [`Self::symbols`]: an id below `tokens` of each, and
    /// its halves, which come before it.
    pub(crate) fn packed(tokens: &[Option<&[u8]>], ids: Vec<u32>, halves: Vec<(u32, u32)>) -> Self {
        let mut bpe = Self {
            bytes: Box::new([NONE; 256]),
            pairs: Pairs::new(tokens.len()),
            lengths: Vec::with_capacity(ids.len()),
            symbols: vec![NONE; tokens.len()],
            ids,
            halves,
        };
        for (symbol, (&id, &(left, right))) in (0..).zip(bpe.ids.iter().zip(&bpe.halves)) {
            if let Some(&(left, right)) = bpe.halves.get(symbol as usize + 24) {
                bpe.pairs.prefetch(pairs::key(left, right));
            }
            bpe.symbols[id as usize] = symbol;
            if left == symbol {
                bpe.lengths.push(1);
                if let Some(&[byte]) = tokens[id as usize] {
                    bpe.bytes[usize::from(byte)] = symbol;
                }
            } else {
                bpe.lengths.push(bpe.lengths[left as usize].wrapping_add(bpe.lengths[right as usize]));
                bpe.pairs.insert(left, right, symbol);
            }
        }
        bpe
    }

    /// What [`Self::packed`] takes.
    pub(crate) fn symbols(&self) -> (&[u32], &[(u32, u32)]) {
        (&self.ids, &self.halves)
    }

    fn add_symbol(&mut self, id: u32, halves: Option<(u32, u32)>) -> u32 {
        let symbol = self.ids.len() as u32;
        self.ids.push(id);
        self.halves.push(halves.unwrap_or((symbol, symbol)));
        let length = |half: u32| self.lengths[half as usize];
        let length = halves.map_or(1, |(left, right)| length(left) + length(right));
        self.lengths.push(length);
        self.symbols[id as usize] = symbol;
        symbol
    }

    /// In rank order, a token's own encoding under the merges so far is its canonical pair: two
    /// symbols that its bytes divide into and that stay two. False if some token has such a pair only later.
    fn learn_from_ranks(&mut self, tokens: &[Option<&[u8]>], whole: &Whole) -> bool {
        let mut left_over = Vec::new();
        for (id, token) in tokens.iter().enumerate() {
            if let Some(next) = tokens.get(id + AHEAD).copied().flatten() {
                for at in 1..next.len().min(16) {
                    whole.prefetch(&next[..at]);
                    whole.prefetch(&next[at..]);
                }
            }
            let Some(token) = token.filter(|t| t.len() > 1 && whole.get(t) == id as u32) else { continue };
            if let Some((left, right)) = self.halves_of(token, whole) {
                self.add_pair(left, right, id as u32);
            } else {
                left_over.push(token);
            }
        }
        !left_over.iter().any(|token| self.halves_of(token, whole).is_some())
    }

    /// The two symbols that a token comes to before it merges.
    fn halves_of(&self, token: &[u8], whole: &Whole) -> Option<(u32, u32)> {
        // A token of a later rank is no symbol yet.
        let symbol = |text: &[u8]| {
            let symbol = self.symbols.get(whole.get(text) as usize).copied();
            symbol.filter(|&symbol| symbol != NONE)
        };
        (1..token.len()).rev().find_map(|at| {
            let pair = (symbol(&token[..at])?, symbol(&token[at..])?);
            self.stay_apart(pair.0, pair.1).then_some(pair)
        })
    }

    /// A pair of the list is kept if it is what its product's bytes come to before it merges. False if some
    /// pair would have made its product, had its halves been there.
    fn learn_from_list(
        &mut self,
        tokens: &[Option<&[u8]>],
        whole: &Whole,
        list: &[(u32, u32)],
    ) -> Result<bool, VocabularyError> {
        let mut skipped = Vec::new();
        // Tokens one after another are nearer than where the file has them.
        let bytes = |id: u32| whole.bytes(id).or_else(|| tokens.get(id as usize).copied().flatten());
        let (mut joined, mut last) = (Vec::new(), NONE);
        for (rank, &(left, right)) in list.iter().enumerate() {
            let (Some(l), Some(r)) = (bytes(left), bytes(right)) else {
                return Err(VocabularyError::new(format!("merge {rank} names an id without bytes")));
            };
            if let Some(&next) = list.get(rank + AHEAD) {
                self.prefetch_pair(next);
            }
            // Learnt vocabularies number their tokens in the order of the merges.
            last = last.wrapping_add(1);
            let is_next = bytes(last).and_then(|token| token.strip_prefix(l)) == Some(r);
            if whole.has_doubles() || !is_next {
                joined.clear();
                joined.extend_from_slice(l);
                joined.extend_from_slice(r);
                last = whole.get(&joined);
            }
            let id = last;
            if id == NONE {
                return Err(VocabularyError::new(format!("merge {rank} makes no token"))
                    .at_token(String::from_utf8_lossy(&[l, r].concat())));
            }
            // Both halves are what their own bytes come to, so the pair is if they stay two.
            if self.symbols[id as usize] != NONE {
                continue;
            }
            match self.pair(left, right) {
                Some((left, right)) if self.stay_apart(left, right) => {
                    self.add_pair(left, right, id);
                }
                Some(_) => {}
                None => skipped.push((left, right, id)),
            }
        }
        Ok(!skipped.into_iter().any(|(left, right, id)| {
            let pair = self.pair(left, right).filter(|_| self.symbols[id as usize] == NONE);
            pair.is_some_and(|(left, right)| self.stay_apart(left, right))
        }))
    }

    /// Brings what two ids are and merge into into the cache, if merging makes both already.
    fn prefetch_pair(&self, (left, right): (u32, u32)) {
        let symbol = |id: u32| self.symbols.get(id as usize).copied().filter(|&symbol| symbol != NONE);
        if let (Some(left), Some(right)) = (symbol(left), symbol(right)) {
            self.pairs.prefetch(pairs::key(left, right));
            huge::prefetch(&self.halves, left.max(right) as usize);
        }
    }

    /// The symbols of two ids, if merging makes both.
    fn pair(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let pair = (self.symbols[left as usize], self.symbols[right as usize]);
        (pair.0 != NONE && pair.1 != NONE).then_some(pair)
    }

    /// The pair does not merge yet.
    fn add_pair(&mut self, left: u32, right: u32, id: u32) -> u32 {
        let symbol = self.add_symbol(id, Some((left, right)));
        self.pairs.insert(left, right, symbol);
        symbol
    }

    /// Symbols of `text` under the merges learnt so far; false if a byte has none.
    fn merge_all(&self, text: &[u8], parts: &mut Vec<u32>) -> bool {
        parts.clear();
        parts.extend(text.iter().map(|&byte| self.bytes[byte as usize]));
        if parts.contains(&NONE) {
            return false;
        }
        if text.len() > merge::SMALL {
            merge::long(&self.pairs, parts);
        } else {
            merge::small(&self.pairs, parts);
        }
        true
    }

    /// Appends the ids of one piece, by merging alone.
    ///
    /// Bytes that the vocabulary lacks are left out, as the tokenizers whose files we read do.
    pub fn encode_piece(&self, piece: &[u8], ids: &mut Vec<u32>) {
        let mut symbols: Vec<u32> =
            piece.iter().map(|&byte| self.bytes[byte as usize]).filter(|&symbol| symbol != NONE).collect();
        merge::encode(&self.pairs, &mut symbols);
        ids.extend(symbols.iter().map(|&symbol| self.ids[symbol as usize]));
    }
}
