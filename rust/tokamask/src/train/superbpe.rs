//! `SuperBPE`: words first, then superwords (tokens across pretokens) on top of them.

use super::bpe::{self, Learnt};
use super::counts::View;
use super::learn::{Goal, Outcome};
use super::superword::{extend, superword_veto, Corpus, Inherited};
use crate::bpe::Merges;
use crate::error::{CorpusError, Error};
use crate::formats::{Definition, Settings};

/// The sizes that `SuperBPE` is trained to.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Of the whole vocabulary.
    pub vocab_size: usize,
    /// Of the vocabulary at which superwords begin.
    pub transition: usize,
    /// Words that a token may hold.
    pub max_words: usize,
    /// Pairs below this count are not merged.
    pub min_frequency: u64,
}

/// Learns words up to the transition, drops the merges that runs never use, and learns superwords.
pub fn train(
    counts: View<'_>,
    special_tokens: &[String],
    initial: &[u8],
    sizes: Sizes,
    mut keep_going: impl FnMut(usize) -> bool,
) -> Result<Learnt, Error> {
    let goal = Goal { min_frequency: sizes.min_frequency, ..Goal::size(sizes.transition) };
    let mut words = bpe::train(counts, special_tokens, initial, goal, &mut keep_going)?;
    if words.outcome == Outcome::Stopped {
        return Ok(words);
    }
    let veto = superword_veto(sizes.max_words);
    let goal = Goal { min_frequency: sizes.min_frequency, veto: Some(&veto), ..Goal::size(sizes.vocab_size) };
    let base = inherited(words.definition(special_tokens, Settings::default()));
    let mut corpus = Corpus::new(&base, counts)?;
    let used = corpus.used(&words.merges);
    let moved = drop_unused(&mut words, &used);
    let base = inherited(words.definition(special_tokens, Settings::default()));
    corpus = corpus.renumbered(&base, &moved);
    let extended = extend(&corpus, goal, true, keep_going)?;
    words.tokens.extend(extended.tokens);
    words.merges.extend(extended.merges);
    Ok(Learnt { outcome: extended.outcome, ..words })
}

fn inherited(definition: Definition) -> Inherited {
    Inherited { tokens: definition.tokens, merges: definition.merges }
}

/// Takes out merged tokens that are not kept, and their merges; where each id has moved.
fn drop_unused(learnt: &mut Learnt, kept: &[bool]) -> Vec<u32> {
    let first = learnt.start;
    // If a merge spells a special token, ids are not ranks, and nothing is dropped.
    let ranked = first + learnt.merges.len() == learnt.tokens.len();
    let kept = |id: usize| id < first || !ranked || kept[id];
    let mut moved = Vec::with_capacity(learnt.tokens.len());
    let mut next = 0;
    for id in 0..learnt.tokens.len() {
        moved.push(next);
        next += u32::from(kept(id));
    }
    let tokens = std::mem::take(&mut learnt.tokens).into_iter().enumerate();
    learnt.tokens = tokens.filter(|&(id, _)| kept(id)).map(|(_, token)| token).collect();
    let merges = std::mem::take(&mut learnt.merges).into_iter().enumerate();
    learnt.merges = merges
        .filter(|&(nth, _)| kept(first + nth))
        .map(|(_, (left, right))| (moved[left as usize], moved[right as usize]))
        .collect();
    moved
}

/// A tokenizer with more merges, learnt from counts made by its own rule, or over runs.
pub fn extend_definition(
    definition: &Definition,
    counts: View<'_>,
    rule: &Settings,
    goal: Goal<'_>,
    growing: bool,
    keep_going: impl FnMut(usize) -> bool,
) -> Result<(Definition, Outcome), Error> {
    let mut base = inherited(definition.clone());
    let ids = definition.settings.added.iter().map(|token| token.id as usize + 1).max().unwrap_or(0);
    base.tokens.resize(base.tokens.len().max(ids), None);
    if counts.runs() == 0 && rule.steps != definition.settings.steps {
        return Err(CorpusError::new("the counts were made by another rule than the tokenizer's").into());
    }
    let extended = extend(&Corpus::new(&base, counts)?, goal, growing, keep_going)?;
    let mut definition = definition.clone();
    base.tokens.extend(extended.tokens.into_iter().map(Some));
    definition.tokens = base.tokens;
    if let Merges::List(merges) = &mut definition.merges {
        merges.extend(extended.merges);
    }
    definition.settings.steps.clone_from(&rule.steps);
    definition.settings.members.remove("pre_tokenizer");
    Ok((definition, extended.outcome))
}
