//! One error per noun. Each carries fields, not only text, so that callers in any language can act
//! on what was expected and what was found. The Python classes of the same names mirror them.

use thiserror::Error;

/// A malformed or inconsistent vocabulary, merge list or tokenizer file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reason}{}{}{}", At("file", path.as_deref()), At("line", line.map(|l| l.to_string()).as_deref()), At("token", token.as_deref()))]
pub struct VocabularyError {
    /// What is wrong.
    pub reason: String,
    /// The file it was read from, or the JSON path inside it.
    pub path: Option<String>,
    /// 1-based line, for line formats.
    pub line: Option<usize>,
    /// The offending token, printed.
    pub token: Option<String>,
}

impl VocabularyError {
    /// An error with a reason only; add the place with the `at_*` methods.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), path: None, line: None, token: None }
    }

    /// Names the file, or the JSON path inside it.
    #[must_use]
    pub fn at_path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Names the 1-based line.
    #[must_use]
    pub fn at_line(mut self, line: usize) -> Self {
        self.line = Some(line);
        self
    }

    /// Names the token.
    #[must_use]
    pub fn at_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }
}

/// A tokenizer component or split rule that we refuse to guess at.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unsupported tokenizer component {component}{}", At("path", path.as_deref()))]
pub struct UnsupportedComponentError {
    /// The component's own name, or the split rule.
    pub component: String,
    /// Where it stands in the file.
    pub path: Option<String>,
}

/// A token id or byte string that the vocabulary does not hold.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UnknownTokenError {
    /// An id outside the vocabulary, or a hole in it.
    #[error("token id {0} is not in the vocabulary")]
    Id(u64),
    /// Bytes that no token spells.
    #[error("no token spells {:?}", String::from_utf8_lossy(.0))]
    Bytes(Vec<u8>),
}

/// Text of a special token stands where it is not allowed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("special token {token:?} at bytes {}..{} is not allowed here", span.0, span.1)]
pub struct SpecialTokenError {
    /// The token's text.
    pub token: String,
    /// Byte span in the input.
    pub span: (usize, usize),
}

/// A grammar that cannot be read: the place is named, the text is shown with a caret.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}{}{}", At("at", json_pointer.as_deref()), Caret(source_text.as_deref(), *line, *column))]
pub struct GrammarError {
    /// What is wrong.
    pub message: String,
    /// The line of source text at fault (named `source` in Python).
    pub source_text: Option<String>,
    /// 1-based line.
    pub line: Option<usize>,
    /// 1-based column, in characters.
    pub column: Option<usize>,
    /// JSON pointer into the schema.
    pub json_pointer: Option<String>,
}

impl GrammarError {
    /// An error at a JSON pointer.
    pub fn at_pointer(message: impl Into<String>, pointer: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source_text: None,
            line: None,
            column: None,
            json_pointer: Some(pointer.into()),
        }
    }

    /// An error at a byte offset of a source text.
    pub fn at_offset(message: impl Into<String>, text: &str, offset: usize) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line_start = text[..offset].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[offset..].find('\n').map_or(text.len(), |i| offset + i);
        Self {
            message: message.into(),
            source_text: Some(text[line_start..line_end].to_owned()),
            line: Some(text[..offset].matches('\n').count() + 1),
            column: Some(text[line_start..offset].chars().count() + 1),
            json_pointer: None,
        }
    }
}

/// A schema keyword that is named and refused, never silently dropped.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unsupported keyword {keyword:?} at {}{}", if json_pointer.is_empty() { "the root" } else { json_pointer }, At("because", reason.as_deref()))]
pub struct UnsupportedKeywordError {
    /// JSON pointer of the schema that holds the keyword.
    pub json_pointer: String,
    /// The keyword.
    pub keyword: String,
    /// Which combination is refused, if the keyword alone would be taken.
    pub reason: Option<String>,
}

/// No token sequence can match.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("nothing can match the grammar{}", At("at", json_pointer.as_deref()))]
pub struct UnsatisfiableError {
    /// JSON pointer of the schema that nothing satisfies.
    pub json_pointer: Option<String>,
}

/// A matcher was given a token that the grammar forbids.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("token {token_id} rejected at position {position}: expected {expected}{}{}", if *byte == 0 { String::new() } else { format!(" at its byte {byte}") }, match json_pointer.as_deref() { None => String::new(), Some("") => " at the root".into(), Some(p) => format!(" at {p}") })]
pub struct RejectedTokenError {
    /// The token.
    pub token_id: u32,
    /// Number of tokens accepted before it.
    pub position: usize,
    /// What would have been allowed at that byte, for people.
    pub expected: String,
    /// Bytes of the token that would have fitted: the one after them does not.
    pub byte: usize,
    /// Where in the document that is, if it is JSON.
    pub json_pointer: Option<String>,
}

/// More tokens were to be undone than were accepted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("cannot roll back {requested} tokens: {available} were accepted")]
pub struct RollbackError {
    /// Tokens to undo.
    pub requested: usize,
    /// Tokens that can be undone.
    pub available: usize,
}

/// A bound on states, depth, bytes or time was exceeded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("limit {limit} exceeded: {value}")]
pub struct LimitError {
    /// The name of the bound.
    pub limit: String,
    /// The value that exceeded it.
    pub value: u64,
}

/// An array of the wrong shape or type.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{name}: expected {expected}, got {got}")]
pub struct ShapeError {
    /// The argument.
    pub name: String,
    /// Type and shape that were expected.
    pub expected: String,
    /// Type and shape that were found.
    pub got: String,
}

/// Text or counts that training cannot read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reason}{}{}", At("file", path.as_deref()), At("byte", position.map(|p| p.to_string()).as_deref()))]
pub struct CorpusError {
    /// What is wrong.
    pub reason: String,
    /// The file.
    pub path: Option<String>,
    /// Byte in the file.
    pub position: Option<u64>,
}

impl CorpusError {
    /// An error with a reason only.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), path: None, position: None }
    }

    /// Names the file and the byte.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>, position: u64) -> Self {
        (self.path, self.position) = (Some(path.into()), Some(position));
        self
    }
}

/// Everything that reading, compiling or matching a grammar can end in.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    #[error(transparent)]
    UnsupportedComponent(#[from] UnsupportedComponentError),
    #[error(transparent)]
    UnknownToken(#[from] UnknownTokenError),
    #[error(transparent)]
    SpecialToken(#[from] SpecialTokenError),
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    #[error(transparent)]
    UnsupportedKeyword(#[from] UnsupportedKeywordError),
    #[error(transparent)]
    Unsatisfiable(#[from] UnsatisfiableError),
    #[error(transparent)]
    RejectedToken(#[from] RejectedTokenError),
    #[error(transparent)]
    Rollback(#[from] RollbackError),
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error(transparent)]
    Corpus(#[from] CorpusError),
}

/// ` (name value)` if there is a value.
struct At<'a>(&'a str, Option<&'a str>);

impl std::fmt::Display for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Some(value) => write!(f, " ({} {value})", self.0),
            None => Ok(()),
        }
    }
}

/// The source line with a caret under the column; long lines are cut round the caret.
struct Caret<'a>(Option<&'a str>, Option<usize>, Option<usize>);

impl std::fmt::Display for Caret<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const REACH: usize = 60;
        let (Some(text), Some(line), Some(column)) = (self.0, self.1, self.2) else {
            return Ok(());
        };
        let first = column.saturating_sub(REACH + 1);
        let shown: String = text.chars().skip(first).take(2 * REACH).collect();
        write!(f, " (line {line}, column {column})\n  {shown}\n  {}^", " ".repeat(column - 1 - first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caret_stands_under_the_column() {
        let error = GrammarError::at_offset("unexpected )", "root ::= a\nb ::= )", 17);
        assert_eq!((error.line, error.column), (Some(2), Some(7)));
        let text = error.to_string();
        assert!(text.ends_with("\n  b ::= )\n        ^"), "{text}");
    }

    #[test]
    fn places_are_printed_only_when_known() {
        assert_eq!(VocabularyError::new("empty").to_string(), "empty");
        let error = VocabularyError::new("bad base64").at_path("x.tiktoken").at_line(3);
        assert_eq!(error.to_string(), "bad base64 (file x.tiktoken) (line 3)");
    }
}
