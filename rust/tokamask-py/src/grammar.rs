//! Grammars as the front ends read them; `tokamask.Grammar` is the public door.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use tokamask::grammar::recipe::Recipe;
use tokamask::grammar::{budget, Grammar};

use crate::errors::Result;

/// A grammar that was read and knows no vocabulary yet.
#[pyclass(frozen, module = "tokamask._core")]
pub struct GrammarSource {
    pub grammar: Arc<Grammar>,
    pub recipe: Arc<Recipe>,
}

#[pymethods]
impl GrammarSource {
    /// What was read as an annotation though it might have been meant as a condition.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.grammar.warnings.clone()
    }
}

/// Reads a grammar within so many seconds; signals such as an interrupt end it sooner.
pub fn read(py: Python<'_>, recipe: Recipe, seconds: f64) -> Result<GrammarSource> {
    let raised = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&raised);
    let interrupted = move || {
        #[allow(clippy::redundant_closure_for_method_calls)] // the method itself is not general enough
        let signal = Python::attach(|py| py.check_signals()).err();
        let ends = signal.is_some();
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = signal;
        ends
    };
    let grammar = py.detach(|| budget::within(seconds, interrupted, || recipe.read()));
    if let Some(error) = raised.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error.into());
    }
    Ok(GrammarSource { grammar: Arc::new(grammar?), recipe: Arc::new(recipe) })
}

/// Reads a JSON Schema given as text.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // keywords of the Python function
pub fn read_json_schema(
    py: Python<'_>,
    text: String,
    space: u32,
    schema_order: bool,
    assert_format: bool,
    resources: Vec<(String, String)>,
    seconds: f64,
) -> Result<GrammarSource> {
    read(py, Recipe::JsonSchema { text, space, schema_order, assert_format, resources }, seconds)
}

/// One of the texts given.
#[pyfunction]
pub fn choice(py: Python<'_>, texts: Vec<String>) -> Result<GrammarSource> {
    read(py, Recipe::Choice { texts }, f64::INFINITY)
}

/// Reads a regular expression that whole texts match.
#[pyfunction]
pub fn read_regex(py: Python<'_>, pattern: String, seconds: f64) -> Result<GrammarSource> {
    read(py, Recipe::Regex { pattern }, seconds)
}

/// Reads EBNF in the GBNF dialect.
#[pyfunction]
pub fn read_ebnf(py: Python<'_>, text: String, root: String, seconds: f64) -> Result<GrammarSource> {
    read(py, Recipe::Ebnf { text, root }, seconds)
}

/// Reads a grammar in Lark's notation.
#[pyfunction]
pub fn read_lark(py: Python<'_>, text: String, start: String, seconds: f64) -> Result<GrammarSource> {
    read(py, Recipe::Lark { text, start }, seconds)
}

/// Reads a structural tag given as JSON text.
#[pyfunction]
pub fn read_structural_tag(py: Python<'_>, text: String, space: u32, seconds: f64) -> Result<GrammarSource> {
    read(py, Recipe::StructuralTag { text, space }, seconds)
}
