//! Pre-tokenization that changes the text: each piece is a string of its own. The steps are run
//! literally; texts that are only cut go through [`super::pretokenizer`].

use super::alphabet::spell;
use super::pattern::Pattern;
use super::pretokenizer::{cut, pattern_of, Scheme, Step, GPT2};
use super::scripts;
use crate::error::{Error, UnsupportedComponentError};

/// A piece and whether it stands at the start of the whole text.
struct Piece {
    text: String,
    first: bool,
}

/// Steps made ready to run.
pub struct Pieces {
    steps: Vec<(Step, Option<Pattern>)>,
}

impl Pieces {
    /// Compiles the steps.
    pub fn new(steps: &[Step]) -> Result<Self, UnsupportedComponentError> {
        let steps = steps.iter().map(|step| {
            let pattern = match step {
                Step::ByteLevel { use_regex: true, .. } => Some(Pattern::new(GPT2)?),
                step => pattern_of(step)?,
            };
            Ok((step.clone(), pattern))
        });
        Ok(Self { steps: steps.collect::<Result<_, _>>()? })
    }

    /// Calls `piece` with each piece of a stretch of text; `first` if the whole text begins with it.
    pub fn split(
        &self,
        text: &str,
        first: bool,
        mut piece: impl FnMut(&str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.steps.is_empty() {
            return if text.is_empty() { Ok(()) } else { piece(text) };
        }
        let mut pieces = vec![Piece { text: text.to_owned(), first }];
        for (step, pattern) in &self.steps {
            let mut after = Vec::with_capacity(pieces.len());
            for piece in pieces {
                if !piece.text.is_empty() {
                    run(step, pattern.as_ref(), piece, &mut after)?;
                }
            }
            pieces = after;
        }
        pieces.iter().filter(|known| !known.text.is_empty()).try_for_each(|known| piece(&known.text))
    }
}

/// One step on one piece.
fn run(step: &Step, pattern: Option<&Pattern>, mut piece: Piece, out: &mut Vec<Piece>) -> Result<(), Error> {
    let mut ends = Vec::new();
    match step {
        Step::Metaspace { replacement, scheme, split } => {
            let mark = replacement.to_string();
            piece.text = piece.text.replace(' ', &mark);
            let wanted = match scheme {
                Scheme::Always => true,
                Scheme::First => piece.first,
                Scheme::Never => false,
            };
            if wanted && !piece.text.starts_with(*replacement) {
                piece.text.insert(0, *replacement);
            }
            if *split {
                ends.extend(piece.text.match_indices(&mark).map(|(at, _)| at).filter(|&at| at > 0));
            }
        }
        Step::ByteLevel { prefix_space, .. } => {
            if *prefix_space && !piece.text.starts_with(' ') {
                piece.text.insert(0, ' ');
            }
            let mut spans = vec![(0, piece.text.len())];
            if let Some(pattern) = pattern {
                let rule = Step::isolated(GPT2);
                spans.clear();
                cut(&rule, pattern, &piece.text, (0, piece.text.len()), &mut spans)?;
            }
            for (start, end) in spans {
                let first = piece.first && start == 0;
                out.push(Piece { text: spell(&piece.text.as_bytes()[start..end]), first });
            }
            return Ok(());
        }
        Step::FixedLength { length } => {
            let starts = piece.text.char_indices().map(|(at, _)| at);
            ends.extend(starts.step_by(*length).skip(1));
        }
        Step::Split { .. } | Step::Matches { .. } | Step::Digits { .. } | Step::UnicodeScripts => {
            let mut spans = Vec::new();
            if *step == Step::UnicodeScripts {
                scripts::cut(&piece.text, &mut spans);
            } else if let Some(pattern) = pattern {
                cut(step, pattern, &piece.text, (0, piece.text.len()), &mut spans)?;
            }
            for (start, end) in spans {
                out.push(Piece { text: piece.text[start..end].to_owned(), first: piece.first && start == 0 });
            }
            return Ok(());
        }
    }
    let mut start = 0;
    for end in ends.into_iter().chain([piece.text.len()]) {
        out.push(Piece { text: piece.text[start..end].to_owned(), first: piece.first && start == 0 });
        start = end;
    }
    Ok(())
}
