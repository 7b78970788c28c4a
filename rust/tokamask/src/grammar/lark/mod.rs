//! Grammars in Lark's notation.
//!
//! With `%ignore` there is a lexer: what is ignored may stand around every terminal, a terminal goes
//! on as long as it can, a word is not followed by what would make it a longer one, and a terminal of
//! higher priority takes its texts from those of lower. Without `%ignore` rules and terminals are
//! matched character by character, as if they were written in one piece.

mod common;
mod lower;
mod reader;

use crate::error::Error;
use crate::grammar::regex::Regex;
use crate::grammar::{Grammar, SpecialToken};

/// Reads a grammar; texts are what the rule `start` matches.
pub fn read(text: &str, start: &str) -> Result<Grammar, Error> {
    let document = reader::read(text)?;
    lower::lower(text, &document, start)
}

/// A part of a definition and where it stands.
#[derive(Clone, Debug)]
struct Item {
    offset: usize,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// A rule, terminal or parameter.
    Name(String),
    /// A rule with arguments.
    Usage(String, Vec<Item>),
    Literal(String, bool),
    Pattern(Pattern),
    Special(Vec<SpecialToken>),
    /// A JSON Schema, as text.
    Json(String),
    Sequence(Vec<Item>),
    Choice(Vec<Item>),
    Repeat(Box<Item>, u32, u32),
}

#[derive(Clone, Debug)]
struct Pattern {
    regex: Regex,
    /// Matches end as early as possible.
    lazy: bool,
}

/// `name: body`.
struct Definition {
    name: String,
    offset: usize,
    parameters: Vec<String>,
    priority: i32,
    body: Item,
}

/// Everything a text says.
#[derive(Default)]
struct Document {
    definitions: Vec<Definition>,
    ignored: Vec<Item>,
    /// Terminals that are promised without a pattern.
    declared: Vec<String>,
}

/// Terminals are written in capitals.
fn is_terminal(name: &str) -> bool {
    name.chars().find(|c| c.is_alphabetic()).is_some_and(char::is_uppercase)
}
