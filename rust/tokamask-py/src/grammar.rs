//! Grammars as the front ends read them; `tokamask.Grammar` is the public door.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use tokamask::error::LimitError;
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

/// How long reading may take: seconds, and a function that says whether nobody waits any more.
#[derive(FromPyObject)]
pub struct Patience(pub f64, pub Option<Py<PyAny>>);

impl Patience {
    /// Whether the function, if there is one, says so.
    fn ended(&self, py: Python<'_>) -> PyResult<bool> {
        self.1.as_ref().map_or(Ok(false), |asked| asked.bind(py).call0()?.is_truthy())
    }
}

/// Reads a grammar within some patience; signals such as an interrupt end it sooner.
pub fn read(py: Python<'_>, recipe: Recipe, patience: Patience) -> Result<GrammarSource> {
    if patience.ended(py)? {
        return Err(LimitError { limit: "cancelled".into(), value: 1 }.into());
    }
    let seconds = patience.0;
    let raised = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&raised);
    let interrupted = move || {
        let asked = Python::attach(|py| py.check_signals().and_then(|()| patience.ended(py)));
        let ends = !matches!(asked, Ok(false));
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = asked.err();
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
    patience: Patience,
) -> Result<GrammarSource> {
    read(py, Recipe::JsonSchema { text, space, schema_order, assert_format, resources }, patience)
}

/// One of the texts given.
#[pyfunction]
pub fn choice(py: Python<'_>, texts: Vec<String>) -> Result<GrammarSource> {
    read(py, Recipe::Choice { texts }, Patience(f64::INFINITY, None))
}

/// Reads a regular expression that whole texts match.
#[pyfunction]
pub fn read_regex(py: Python<'_>, pattern: String, patience: Patience) -> Result<GrammarSource> {
    read(py, Recipe::Regex { pattern }, patience)
}

/// Reads EBNF in the GBNF dialect.
#[pyfunction]
pub fn read_ebnf(py: Python<'_>, text: String, root: String, patience: Patience) -> Result<GrammarSource> {
    read(py, Recipe::Ebnf { text, root }, patience)
}

/// Reads a grammar in Lark's notation.
#[pyfunction]
pub fn read_lark(py: Python<'_>, text: String, start: String, patience: Patience) -> Result<GrammarSource> {
    read(py, Recipe::Lark { text, start }, patience)
}

/// Reads a structural tag given as JSON text.
#[pyfunction]
pub fn read_structural_tag(
    py: Python<'_>,
    text: String,
    space: u32,
    patience: Patience,
) -> Result<GrammarSource> {
    read(py, Recipe::StructuralTag { text, space }, patience)
}
