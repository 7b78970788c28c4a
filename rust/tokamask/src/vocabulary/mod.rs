//! Tokens and their bytes: the one thing that tokenizers and matchers share.

pub mod trie;

use std::any::Any;
use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;

use crate::error::{UnknownTokenError, VocabularyError};
use crate::ids::TokenId;

/// Largest vocabulary: ids fit `int32` in masks and draft trees.
pub const MAX_VOCAB_SIZE: usize = 1 << 30;

/// An immutable table of tokens: bytes by id, id by bytes, special tokens, end-of-sequence ids.
///
/// Token bytes lie in one arena. Ids without bytes (padding of the logits, reserved slots) are
/// holes: never produced, never allowed by a mask.
///
/// ```
/// use tokamask::vocabulary::Vocabulary;
/// let tokens = vec![Some(b"a".to_vec()), Some(b"<eos>".to_vec()), None];
/// let vocabulary = Vocabulary::new(tokens, [("<eos>".into(), 1.into())], [1.into()])?;
/// assert_eq!(vocabulary.len(), 3);
/// assert_eq!(vocabulary.bytes(0.into()), Some(&b"a"[..]));
/// assert!(vocabulary.is_special(1.into()));
/// # Ok::<(), tokamask::error::VocabularyError>(())
/// ```
#[derive(Clone)]
pub struct Vocabulary {
    tokens: Arc<TokenTable>,
    eos_ids: Vec<TokenId>,
    vocab_size: usize,
    derived: Arc<OnceLock<Arc<dyn Any + Send + Sync>>>,
}

/// The part that copies with other end-of-sequence ids or another size share.
struct TokenTable {
    arena: Vec<u8>,
    /// `offsets[id]..offsets[id + 1]` in the arena.
    offsets: Vec<u32>,
    /// Bit per id: has bytes.
    present: Vec<bool>,
    /// Bit per id: special.
    special: Vec<bool>,
    /// Names of special tokens, in the order given.
    special_tokens: Vec<(String, TokenId)>,
    /// Lowest id that spells the bytes; special tokens are looked up by name instead. Made when first
    /// asked for: most tokenizers never are.
    by_bytes: OnceLock<FxHashMap<Box<[u8]>, TokenId>>,
}

impl TokenTable {
    fn by_bytes(&self) -> FxHashMap<Box<[u8]>, TokenId> {
        let mut by_bytes = FxHashMap::default();
        by_bytes.reserve(self.present.len());
        for id in (0..self.present.len()).filter(|&id| self.present[id] && !self.special[id]) {
            let bytes = &self.arena[self.offsets[id] as usize..self.offsets[id + 1] as usize];
            by_bytes.entry(bytes.into()).or_insert(TokenId::new(id as u32));
        }
        by_bytes
    }
}

impl Vocabulary {
    /// Builds a vocabulary from the bytes of each id; `None` is a hole.
    ///
    /// `special` names the special tokens: never produced by merging and never matched by a
    /// grammar's text. Their bytes, if any, are what `decode` prints.
    pub fn new(
        token_bytes: impl IntoIterator<Item = Option<impl AsRef<[u8]>>>,
        special: impl IntoIterator<Item = (String, TokenId)>,
        eos_ids: impl IntoIterator<Item = TokenId>,
    ) -> Result<Self, VocabularyError> {
        let mut arena = Vec::new();
        let mut offsets = vec![0u32];
        let mut present = Vec::new();
        for (id, bytes) in token_bytes.into_iter().enumerate() {
            if id >= MAX_VOCAB_SIZE {
                return Err(VocabularyError::new(format!("more than {MAX_VOCAB_SIZE} tokens")));
            }
            present.push(bytes.is_some());
            arena.extend_from_slice(bytes.as_ref().map(AsRef::as_ref).unwrap_or_default());
            let end = u32::try_from(arena.len())
                .map_err(|_| VocabularyError::new("tokens of more than 4 GiB together"))?;
            offsets.push(end);
        }
        let vocab_size = present.len();
        let check = |id: TokenId, name: &str| {
            if id.index() < vocab_size {
                Ok(())
            } else {
                Err(VocabularyError::new(format!("id {id} is outside a vocabulary of {vocab_size}"))
                    .at_token(name))
            }
        };
        let mut is_special = vec![false; vocab_size];
        let mut special_tokens: Vec<(String, TokenId)> = Vec::new();
        for (name, id) in special {
            check(id, &name)?;
            if special_tokens.iter().any(|(other, _)| *other == name) {
                return Err(VocabularyError::new("special token named twice").at_token(name));
            }
            is_special[id.index()] = true;
            special_tokens.push((name, id));
        }
        let eos_ids: Vec<TokenId> = eos_ids.into_iter().collect();
        for &id in &eos_ids {
            check(id, "end of sequence")?;
            is_special[id.index()] = true;
        }
        let tokens = TokenTable {
            arena,
            offsets,
            present,
            special: is_special,
            special_tokens,
            by_bytes: OnceLock::new(),
        };
        Ok(Self { tokens: Arc::new(tokens), eos_ids, vocab_size, derived: Arc::default() })
    }

    /// The number of ids as the logits see them: holes, special tokens and padding included.
    pub fn len(&self) -> usize {
        self.vocab_size
    }

    /// True if there is no id at all.
    pub fn is_empty(&self) -> bool {
        self.vocab_size == 0
    }

    /// The bytes of a token; `None` for holes and ids out of range.
    pub fn bytes(&self, id: TokenId) -> Option<&[u8]> {
        let table = &*self.tokens;
        if !*table.present.get(id.index())? {
            return None;
        }
        Some(&table.arena[table.offsets[id.index()] as usize..table.offsets[id.index() + 1] as usize])
    }

    /// The bytes of a token, or the error that names it.
    pub fn try_bytes(&self, id: TokenId) -> Result<&[u8], UnknownTokenError> {
        self.bytes(id).ok_or(UnknownTokenError::Id(id.get().into()))
    }

    /// The lowest id of an ordinary token that spells these bytes.
    pub fn id(&self, bytes: &[u8]) -> Option<TokenId> {
        self.tokens.by_bytes.get_or_init(|| self.tokens.by_bytes()).get(bytes).copied()
    }

    /// The id of a special token by its name.
    pub fn special_id(&self, name: &str) -> Option<TokenId> {
        self.special_tokens().iter().find(|(other, _)| other == name).map(|&(_, id)| id)
    }

    /// Names and ids of the special tokens, in the order given.
    pub fn special_tokens(&self) -> &[(String, TokenId)] {
        &self.tokens.special_tokens
    }

    /// True for special tokens and end-of-sequence ids.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.tokens.special.get(id.index()).copied().unwrap_or(false) || self.eos_ids.contains(&id)
    }

    /// The ids that end a sequence; may be empty.
    pub fn eos_ids(&self) -> &[TokenId] {
        &self.eos_ids
    }

    /// Ids and bytes of all ordinary tokens (no holes, nothing special), ascending by id.
    pub fn ordinary_tokens(&self) -> impl Iterator<Item = (TokenId, &[u8])> {
        (0..self.tokens.present.len())
            .map(|id| TokenId::new(id as u32))
            .filter(|&id| !self.is_special(id))
            .filter_map(|id| Some((id, self.bytes(id)?)))
    }

    /// What a layer above computes from the vocabulary once and keeps as long as it lives (the
    /// tables of masks). Only one type can be kept: the first.
    pub(crate) fn derived<T: Any + Send + Sync>(&self, build: impl FnOnce() -> T) -> Option<Arc<T>> {
        let kept = self.derived.get_or_init(|| Arc::new(build()));
        Arc::clone(kept).downcast().ok()
    }

    /// A number that tells vocabularies apart: tokens, special tokens, ends of sequence, size.
    pub fn fingerprint(&self) -> u64 {
        use std::hash::Hasher;
        let mut hash = rustc_hash::FxHasher::default();
        let tokens = &*self.tokens;
        hash.write(&tokens.arena);
        let flags = tokens.present.iter().zip(&tokens.special);
        for (offset, (present, special)) in tokens.offsets.iter().zip(flags) {
            hash.write_u32(*offset);
            hash.write_u8(u8::from(*present) << 1 | u8::from(*special));
        }
        for (name, id) in &tokens.special_tokens {
            hash.write(name.as_bytes());
            hash.write_u32(id.get());
        }
        self.eos_ids.iter().for_each(|id| hash.write_u32(id.get()));
        hash.write_usize(self.vocab_size);
        hash.finish()
    }

    /// True if both are the same object in memory, or copies of one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.derived, &other.derived)
    }

    /// A copy with other end-of-sequence ids or with logits wider than the tokens; token bytes are
    /// shared. A size below the number of tokens is refused.
    pub fn with(
        &self,
        eos_ids: Option<Vec<TokenId>>,
        vocab_size: Option<usize>,
    ) -> Result<Self, VocabularyError> {
        let vocab_size = vocab_size.unwrap_or(self.vocab_size);
        let tokens = self.tokens.present.len();
        if vocab_size < tokens || vocab_size > MAX_VOCAB_SIZE {
            return Err(VocabularyError::new(format!(
                "vocab_size {vocab_size} is not between the {tokens} tokens and {MAX_VOCAB_SIZE}"
            )));
        }
        let eos_ids = eos_ids.unwrap_or_else(|| self.eos_ids.clone());
        if let Some(id) = eos_ids.iter().find(|id| id.index() >= vocab_size) {
            return Err(VocabularyError::new(format!("end-of-sequence id {id} is outside {vocab_size}")));
        }
        Ok(Self { tokens: Arc::clone(&self.tokens), eos_ids, vocab_size, derived: Arc::default() })
    }
}

impl PartialEq for Vocabulary {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&*self.tokens, &*other.tokens);
        self.vocab_size == other.vocab_size
            && self.eos_ids == other.eos_ids
            && (Arc::ptr_eq(&self.tokens, &other.tokens)
                || (a.offsets == b.offsets
                    && a.present == b.present
                    && a.special == b.special
                    && a.special_tokens == b.special_tokens
                    && a.arena == b.arena))
    }
}

impl Eq for Vocabulary {}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary")
            .field("len", &self.len())
            .field("special", &self.special_tokens().len())
            .field("eos_ids", &self.eos_ids)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Vocabulary {
        let tokens =
            vec![Some(b"a".to_vec()), Some(b"ab".to_vec()), None, Some(b"<s>".to_vec()), Some(b"a".to_vec())];
        Vocabulary::new(tokens, [("<s>".to_owned(), 3.into())], [3.into()]).expect("valid")
    }

    #[test]
    fn looks_up_both_ways() {
        let v = small();
        assert_eq!(v.bytes(1.into()), Some(&b"ab"[..]));
        assert_eq!(v.id(b"a"), Some(0.into()), "the lowest id wins");
        assert_eq!(v.bytes(2.into()), None, "a hole");
        assert_eq!(v.bytes(99.into()), None);
        assert_eq!(v.id(b"<s>"), None, "special tokens are not found by text");
        assert_eq!(v.special_id("<s>"), Some(3.into()));
        assert_eq!(v.try_bytes(2.into()), Err(UnknownTokenError::Id(2)));
        assert_eq!(v.ordinary_tokens().map(|(id, _)| id.get()).collect::<Vec<_>>(), [0, 1, 4]);
    }

    #[test]
    fn ids_out_of_range_are_named() {
        let error = Vocabulary::new([Some(vec![b'a'])], [("<x>".to_owned(), 7.into())], []).unwrap_err();
        assert_eq!(error.token.as_deref(), Some("<x>"));
        assert!(Vocabulary::new([Some(vec![b'a'])], [], [1.into()]).is_err());
    }

    #[test]
    fn with_shares_tokens_and_checks_sizes() {
        let v = small();
        let wide = v.with(Some(vec![0.into()]), Some(8)).expect("valid");
        assert_eq!((wide.len(), wide.eos_ids()), (8, &[TokenId::new(0)][..]));
        assert!(wide.is_special(0.into()) && wide.is_special(3.into()));
        assert_eq!(wide.bytes(7.into()), None);
        assert!(v.with(None, Some(3)).is_err());
        assert!(v.with(Some(vec![9.into()]), None).is_err());
        assert_ne!(v, wide);
        assert_eq!(v, small());
    }
}
