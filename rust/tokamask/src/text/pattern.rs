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

/// Oniguruma's word characters in brackets, as items of a class.
const IN_BRACKETS: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}";
/// The same outside: superscripts and fractions of Latin-1 are among them.
const WORD: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\xB2\xB3\xB9\xBC-\xBE";

/// A rule of a file whose own library runs Oniguruma, in the language of our engines: word characters and edges of
/// words are others there, `^` and `$` stand at every line, `(?m)` lets the dot match line ends. What has no
/// translation is refused by name.
pub fn onig_rule(rule: &str) -> Result<String, UnsupportedComponentError> {
    let refuse = |what: &str| UnsupportedComponentError {
        component: format!("{what} in split rule {rule:?}"),
        path: None,
    };
    let (mut out, mut depth) = (String::with_capacity(rule.len()), 0usize);
    let mut rest = rule.chars();
    while let Some(c) = rest.next() {
        let inside = depth > 0;
        match c {
            '\\' => match rest.next() {
                Some('w') if inside => out.push_str(IN_BRACKETS),
                Some('W') if inside => out.extend(["[^", IN_BRACKETS, "]"]),
                Some('w') => out.extend(["[", WORD, "]"]),
                Some('W') => out.extend(["[^", WORD, "]"]),
                Some('b') if inside => out.push_str(r"\x08"),
                Some('b') => out.push_str(&edge_of_word(true)),
                Some('B') if !inside => out.push_str(&edge_of_word(false)),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            '[' if inside && rest.as_str().starts_with(':') => return Err(refuse("a bracket expression")),
            '[' => {
                depth += 1;
                out.push('[');
            }
            ']' => {
                depth = depth.saturating_sub(1);
                out.push(']');
            }
            '^' if !inside => out.push_str(r"(?:\A|(?<=\n)(?!\z))"),
            '$' if !inside => out.push_str(r"(?:(?=\n)|\z)"),
            '{' if rest.as_str().starts_with(',') && !inside => return Err(refuse("{,n}")),
            '(' if !inside && rest.as_str().starts_with('?') => {
                let flags: &str = rest.as_str()[1..].split([':', ')']).next().unwrap_or_default();
                let known = |flag: char| "imx-".contains(flag);
                out.push('(');
                if !flags.is_empty() && flags.chars().all(known) {
                    out.push('?');
                    out.extend(flags.chars().map(|flag| if flag == 'm' { 's' } else { flag }));
                    rest = rest.as_str()[1 + flags.len()..].chars();
                }
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

/// The condition that one of the characters on both sides is of a word and the other is not; or that it is not so.
fn edge_of_word(edge: bool) -> String {
    let [alike, unlike] = if edge { ["!", "="] } else { ["=", "!"] };
    format!("(?:(?<=[{WORD}])(?{alike}[{WORD}])|(?<![{WORD}])(?{unlike}[{WORD}]))")
}

/// A rule of ours as Oniguruma reads it; `None` if that would be another rule.
pub fn for_onig(rule: &str) -> Option<String> {
    let (mut out, mut inside) = (String::with_capacity(rule.len()), false);
    let mut rest = rule.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                let next = rest.next()?;
                if "wWbBGKXRZ<>".contains(next) {
                    return None;
                }
                out.extend(['\\', next]);
            }
            '[' => {
                inside = true;
                out.push('[');
            }
            ']' => {
                inside = false;
                out.push(']');
            }
            '^' if !inside => out.push_str(r"\A"),
            '$' if !inside => out.push_str(r"\z"),
            '(' if rest.as_str().starts_with('?') && !inside => {
                let flags = rest.as_str()[1..].split([':', ')']).next().unwrap_or_default();
                if flags.starts_with(|first: char| first.is_ascii_alphabetic() || first == '-')
                    && flags != "i"
                {
                    return None;
                }
                out.push('(');
            }
            other => out.push(other),
        }
    }
    Some(out)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn all(rule: &str, text: &str) -> Vec<(usize, usize)> {
        let pattern = Pattern::new(&onig_rule(rule).expect("translated")).expect("runs");
        assert!(pattern.rule().is_some(), "{rule} is compiled");
        let mut found = Vec::new();
        pattern.find(text, |start, end| found.push((start, end))).expect("in memory");
        found
    }

    #[test]
    fn rules_of_oniguruma() {
        assert_eq!(all(r"\w+", "a\u{b2}_\u{2009}b-"), [(0, 4), (7, 8)]);
        assert_eq!(all(r"\W", "a\u{bd}!"), [(3, 4)]);
        assert_eq!(all(r"[^\w ]", "a \u{bd}!"), [(2, 4), (4, 5)]);
        assert_eq!(all(r"[\Wb]", "ab\u{bd}"), [(1, 2), (2, 4)]);
        assert_eq!(all(r"\bx", "x ax x\u{b9} -x"), [(0, 1), (5, 6), (10, 11)]);
        assert_eq!(all(r"\Bx", "x ax"), [(3, 4)]);
        assert_eq!(all(r"^.", "a\nb\n"), [(0, 1), (2, 3)]);
        assert_eq!(all(r".$", "ab\nc"), [(1, 2), (3, 4)]);
        assert_eq!(all(r"\h+", "xfaceG"), [(1, 5)]);
        assert_eq!(all("(?m:a.)", "a\nab"), [(0, 2), (2, 4)]);
        for refused in ["[[:alpha:]]", "a{,2}"] {
            assert!(onig_rule(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn rules_for_oniguruma() {
        assert_eq!(for_onig(r"\s++$|[^$\]^]").as_deref(), Some(r"\s++\z|[^$\]^]"));
        assert_eq!(for_onig(r"(?i:'s)|a").as_deref(), Some(r"(?i:'s)|a"));
        for other in [r"\w+", r"a\b", "(?m:^a)", r"(?s).", r"a\"] {
            assert_eq!(for_onig(other), None, "{other}");
        }
    }
}
