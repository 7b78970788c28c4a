//! Tokens that a grammar names itself: by name, by id, or as all but some.

use rustc_hash::FxHashMap;

use crate::error::{Error, UnknownTokenError, VocabularyError};
use crate::grammar::{Grammar, Node, NodeId, SpecialToken};
use crate::ids::TokenId;
use crate::vocabulary::Vocabulary;

/// Tokens that a node names.
pub enum Named {
    /// A list.
    Few(Vec<TokenId>),
    /// A mask row.
    Many(Box<[u32]>),
}

impl Named {
    /// True if it is one of them.
    pub fn has(&self, id: TokenId) -> bool {
        match self {
            Self::Few(ids) => ids.contains(&id),
            Self::Many(row) => row.get(id.index() / 32).is_some_and(|word| word >> (id.get() % 32) & 1 == 1),
        }
    }

    /// Adds them to a mask row.
    pub fn write(&self, out: &mut [u32]) {
        match self {
            Self::Few(ids) => {
                for id in ids {
                    out[id.index() / 32] |= 1 << (id.get() % 32);
                }
            }
            Self::Many(row) => {
                for (word, more) in out.iter_mut().zip(row) {
                    *word |= more;
                }
            }
        }
    }
}

/// The ids of the tokens that a grammar names.
pub fn specials(grammar: &Grammar, vocabulary: &Vocabulary) -> Result<FxHashMap<NodeId, Named>, Error> {
    let mut found = FxHashMap::default();
    for (i, node) in grammar.nodes.iter().enumerate() {
        let Node::Special(tokens) = node else { continue };
        let mut ids = Vec::new();
        let mut all_but = None;
        for token in tokens {
            match token {
                SpecialToken::AllBut(without) => {
                    let mut refused: Vec<TokenId> = vocabulary.eos_ids().to_vec();
                    without.iter().try_for_each(|token| ids_of(token, vocabulary, &mut refused))?;
                    all_but = Some(refused);
                }
                token => ids_of(token, vocabulary, &mut ids)?,
            }
        }
        let named = match all_but {
            None if ids.is_empty() => continue,
            None => Named::Few(ids),
            Some(refused) => {
                let mut row = vec![0u32; vocabulary.len().div_ceil(32)].into_boxed_slice();
                for id in (0..vocabulary.len() as u32).map(TokenId::new) {
                    let known = vocabulary.bytes(id).is_some() || vocabulary.is_special(id);
                    row[id.index() / 32] |= u32::from(known) << (id.get() % 32);
                }
                for id in refused {
                    row[id.index() / 32] &= !(1 << (id.get() % 32));
                }
                for id in ids {
                    row[id.index() / 32] |= 1 << (id.get() % 32);
                }
                Named::Many(row)
            }
        };
        found.insert(i as NodeId, named);
    }
    Ok(found)
}

/// Appends the ids of a token that is named.
fn ids_of(token: &SpecialToken, vocabulary: &Vocabulary, out: &mut Vec<TokenId>) -> Result<(), Error> {
    match token {
        SpecialToken::Name(name) => {
            let plain = || vocabulary.id(name.as_bytes());
            let reason = "the grammar names a token that the vocabulary does not have";
            let missing = || VocabularyError::new(reason).at_token(name);
            out.push(vocabulary.special_id(name).or_else(plain).ok_or_else(missing)?);
        }
        SpecialToken::Spelled(name) => out.extend(vocabulary.special_id(name)),
        SpecialToken::Ids(low, high) => {
            if *high as usize >= vocabulary.len() {
                return Err(UnknownTokenError::Id((*high).into()).into());
            }
            out.extend((*low..=*high).map(TokenId::new));
        }
        SpecialToken::AllBut(_) => {} // never stands inside another one
    }
    Ok(())
}
