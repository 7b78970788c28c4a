//! Grammars as the front ends read them; `tokamask.Grammar` is the public door.

use std::sync::Arc;

use pyo3::prelude::*;
use tokamask::grammar::json_schema::{self, Format, Options};

use crate::errors::Result;

/// A grammar that was read and knows no vocabulary yet.
#[pyclass(frozen, module = "tokamask._core")]
pub struct GrammarSource(pub Arc<tokamask::grammar::Grammar>);

#[pymethods]
impl GrammarSource {
    /// What was read as an annotation though it might have been meant as a condition.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.0.warnings.clone()
    }
}

/// Reads a JSON Schema given as text.
#[pyfunction]
#[pyo3(signature = (schema, space, schema_order, assert_format, resources))]
pub fn read_json_schema(
    py: Python<'_>,
    schema: &str,
    space: u32,
    schema_order: bool,
    assert_format: bool,
    resources: Vec<(String, String)>,
) -> Result<GrammarSource> {
    let format = if assert_format { Format::Assert } else { Format::Annotate };
    let options = Options { space, schema_order, format, resources };
    let grammar = py.detach(|| json_schema::read(schema, &options))?;
    Ok(GrammarSource(Arc::new(grammar)))
}

/// One of the texts given.
#[pyfunction]
pub fn choice(texts: Vec<String>) -> Result<GrammarSource> {
    Ok(GrammarSource(Arc::new(tokamask::grammar::choice(texts)?)))
}

/// Reads a regular expression that whole texts match.
#[pyfunction]
pub fn read_regex(py: Python<'_>, pattern: &str) -> Result<GrammarSource> {
    let grammar = py.detach(|| tokamask::grammar::read_regex(pattern))?;
    Ok(GrammarSource(Arc::new(grammar)))
}

/// Reads EBNF in the GBNF dialect.
#[pyfunction]
pub fn read_ebnf(py: Python<'_>, text: &str, root: &str) -> Result<GrammarSource> {
    let grammar = py.detach(|| tokamask::grammar::ebnf::read(text, root))?;
    Ok(GrammarSource(Arc::new(grammar)))
}

/// Reads a grammar in Lark's notation.
#[pyfunction]
pub fn read_lark(py: Python<'_>, text: &str, start: &str) -> Result<GrammarSource> {
    let grammar = py.detach(|| tokamask::grammar::lark::read(text, start))?;
    Ok(GrammarSource(Arc::new(grammar)))
}

/// Reads a structural tag given as JSON text.
#[pyfunction]
pub fn read_structural_tag(py: Python<'_>, text: &str, space: u32) -> Result<GrammarSource> {
    let grammar = py.detach(|| tokamask::grammar::tags::read(text, space))?;
    Ok(GrammarSource(Arc::new(grammar)))
}
