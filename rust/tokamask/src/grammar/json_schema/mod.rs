//! JSON Schema to grammar nodes.
//!
//! A *goal* is a conjunction of schemas, each with a sign. For one JSON type, `reader` says what a
//! signed schema demands, `clause` multiplies the demands out into a disjunction of conjunctive
//! clauses (string, number, object, array), and `lower` turns each clause into one node whose parts
//! are goals again. Goals are sets of places in a finite document, so there are finitely many, and
//! `allOf`, `not`, `oneOf`, `if` need no machinery of their own when text is matched: alternatives
//! are a union, and conjunctions have been resolved by then.

mod clause;
mod disjoint;
mod document;
mod formats;
mod formula;
mod lower;
mod members;
mod reader;
mod values;

use crate::error::{Error, GrammarError, UnsatisfiableError};
use crate::grammar::json::{self, Json};
use crate::grammar::regex::Regex;
use crate::grammar::{Grammar, Run, UNBOUNDED};

/// How `format` is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// The standard formats are conditions.
    #[default]
    Assert,
    /// All formats are annotations.
    Annotate,
}

/// What a schema leaves open.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest run of white space between the parts of a value.
    pub space: u32,
    /// Properties come in the order in which the schema declares them, others after them.
    pub schema_order: bool,
    /// How `format` is taken.
    pub format: Format,
    /// Texts of documents that `$ref` may name, by their URI. Nothing else is ever read.
    pub resources: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { space: 16, schema_order: false, format: Format::Assert, resources: Vec::new() }
    }
}

/// Reads a schema.
pub fn read(schema: &str, options: &Options) -> Result<Grammar, Error> {
    let root = json::parse(schema)?;
    if !matches!(root, Json::Object(_) | Json::Bool(_)) {
        return Err(GrammarError::at_pointer("a schema is an object or a boolean", "").into());
    }
    let mut documents = Vec::with_capacity(options.resources.len());
    for (uri, text) in &options.resources {
        documents.push((uri.clone(), json::parse(text)?));
    }
    let documents = document::Documents::new(&root, &documents);
    let grammar = lower::Lowering::new(&documents, options).grammar(&root);
    let mut grammar = grammar.map_err(|error| match error {
        // What is found at the very end is about the whole.
        Error::Unsatisfiable(UnsatisfiableError { json_pointer: None }) => {
            UnsatisfiableError { json_pointer: Some(String::new()) }.into()
        }
        other => other,
    })?;
    grammar.is_json = true;
    Ok(grammar)
}

/// Builds what all schemas share, so that no schema waits for it.
pub fn prepare() {
    formats::prepare();
}

/// Counted classes one after another, if a pattern for whole texts is no more than that.
pub fn counted_runs(regex: &Regex) -> Option<Vec<Run>> {
    lower::linear(regex, 0, UNBOUNDED)
}
