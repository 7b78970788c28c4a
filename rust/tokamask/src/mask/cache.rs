//! Compiled grammars that were asked for lately, so that requests with one grammar share its rows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::grammar::recipe::Recipe;
use crate::grammar::Grammar;
use crate::mask::{CompiledGrammar, Limits};
use crate::vocabulary::Vocabulary;

/// Grammars that are kept.
const MOST: usize = 32;
/// Bytes that they may take, by what they have learned.
const MOST_BYTES: usize = 256 << 20;

/// The newest last.
static KEPT: Mutex<VecDeque<(Arc<Recipe>, CompiledGrammar)>> = Mutex::new(VecDeque::new());

/// Compiles a grammar, or finds the one that was compiled lately from the same input for the same vocabulary
/// and limits.
pub fn compile(
    recipe: &Arc<Recipe>,
    grammar: &Arc<Grammar>,
    vocabulary: &Vocabulary,
    limits: &Limits,
) -> Result<CompiledGrammar, Error> {
    let lock = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |(known, compiled): &(Arc<Recipe>, CompiledGrammar)| {
        compiled.vocabulary().is(vocabulary) && compiled.limits() == limits && known == recipe
    };
    let mut kept = lock();
    if let Some(place) = kept.iter().position(same) {
        if let Some(found) = kept.remove(place) {
            kept.push_back(found.clone());
            return Ok(found.1);
        }
    }
    drop(kept);
    let compiled = CompiledGrammar::new(Arc::clone(grammar), vocabulary, limits.clone())?;
    let mut kept = lock();
    kept.push_back((Arc::clone(recipe), compiled.clone()));
    let mut bytes: usize = kept.iter().map(|k| k.1.bytes()).sum();
    while kept.len() > MOST || bytes > MOST_BYTES && kept.len() > 1 {
        bytes -= kept.pop_front().map_or(0, |k| k.1.bytes()).min(bytes);
    }
    Ok(compiled)
}
