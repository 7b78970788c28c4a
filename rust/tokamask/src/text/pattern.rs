//! A split rule: a regular expression with look-around.

use crate::error::{Error, LimitError, UnsupportedComponentError};

/// A compiled split rule.
pub struct Pattern {
    source: String,
    fallback: fancy_regex::Regex,
}

impl Pattern {
    /// Compiles a rule; what cannot be run is refused with the rule's own text.
    pub fn new(source: &str) -> Result<Self, UnsupportedComponentError> {
        let refuse = |error: fancy_regex::Error| UnsupportedComponentError {
            component: format!("split rule {source:?}: {error}"),
            path: None,
        };
        let fallback =
            fancy_regex::RegexBuilder::new(source).backtrack_limit(usize::MAX).build().map_err(refuse)?;
        Ok(Self { source: source.to_owned(), fallback })
    }

    /// The rule as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Calls `found` with each match, left to right, not overlapping.
    pub fn find(&self, text: &str, mut found: impl FnMut(usize, usize)) -> Result<(), Error> {
        for hit in self.fallback.find_iter(text) {
            let hit = hit.map_err(|_| LimitError {
                limit: format!("backtracking steps of split rule {:?}", self.source),
                value: text.len() as u64,
            })?;
            found(hit.start(), hit.end());
        }
        Ok(())
    }
}
