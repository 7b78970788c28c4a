//! A split rule: a regular expression with look-around.

use super::rule::Rule;
use crate::error::{Error, LimitError, UnsupportedComponentError};

/// A split rule, compiled if it is regular, else run by a backtracking engine.
pub struct Pattern {
    source: String,
    engine: Engine,
}

enum Engine {
    Compiled(Box<Rule>),
    Fallback(Box<fancy_regex::Regex>),
}

/// True if the text holds another.
pub fn literal(text: &str, other: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), other.as_bytes()).is_some()
}

/// A rule of a file whose own library runs Oniguruma, whose word characters and line anchors differ
/// from our engines': `\w` takes superscripts and fractions there. Such rules are refused by name.
pub fn onig_rule(rule: &str) -> Result<&str, UnsupportedComponentError> {
    match [r"\w", r"\W", r"\b", r"\B", r"\h", r"\H"].into_iter().find(|escape| rule.contains(escape)) {
        Some(escape) => {
            Err(UnsupportedComponentError { component: format!("{escape} in rule {rule:?}"), path: None })
        }
        None => Ok(rule),
    }
}

impl Pattern {
    /// Compiles a rule; what cannot be run is refused with the rule's own text.
    pub fn new(source: &str) -> Result<Self, UnsupportedComponentError> {
        Self::with(source, None)
    }

    /// The same with windows that were derived before.
    pub fn with(source: &str, windows: Option<&[u8]>) -> Result<Self, UnsupportedComponentError> {
        let refuse = |error: fancy_regex::Error| UnsupportedComponentError {
            component: format!("split rule {source:?}: {error}"),
            path: None,
        };
        let tree = fancy_regex::Expr::parse_tree(source).map_err(refuse)?;
        let engine = if let Ok(rule) = Rule::with(&tree.expr, windows) {
            Engine::Compiled(Box::new(rule))
        } else {
            let regex = fancy_regex::RegexBuilder::new(source).backtrack_limit(usize::MAX).build();
            Engine::Fallback(Box::new(regex.map_err(refuse)?))
        };
        Ok(Self { source: source.to_owned(), engine })
    }

    /// The compiled rule, if the rule is regular.
    pub fn rule(&self) -> Option<&Rule> {
        match &self.engine {
            Engine::Compiled(rule) => Some(rule),
            Engine::Fallback(_) => None,
        }
    }

    /// Calls `found` with each match, left to right, not overlapping.
    pub fn find(&self, text: &str, mut found: impl FnMut(usize, usize)) -> Result<(), Error> {
        match &self.engine {
            Engine::Compiled(rule) => rule.find(text, found),
            Engine::Fallback(regex) => {
                for hit in regex.find_iter(text) {
                    let hit = hit.map_err(|_| LimitError {
                        limit: format!("backtracking of split rule {:?}", self.source),
                        value: text.len() as u64,
                    })?;
                    found(hit.start(), hit.end());
                }
            }
        }
        Ok(())
    }
}
