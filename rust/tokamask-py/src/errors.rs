//! Rust errors become the Python classes of `tokamask.errors`, fields included.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tokamask::error::{
    CorpusError, Error, GrammarError, LimitError, RejectedTokenError, RollbackError, ShapeError,
    SpecialTokenError, UnknownTokenError, UnsatisfiableError, UnsupportedComponentError,
    UnsupportedKeywordError, VocabularyError,
};

/// The result of a binding: a core error, or a Python exception raised on the way.
pub type Result<T> = std::result::Result<T, BindingError>;

/// What `?` collects inside bindings and hands to Python.
pub enum BindingError {
    /// An error of the core crate.
    Core(Box<Error>),
    /// An exception that is Python's own.
    Python(PyErr),
}

/// `?` on any error of the core crate.
macro_rules! from_core {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for BindingError {
            fn from(error: $error) -> Self {
                Self::Core(Box::new(error.into()))
            }
        }
    )*};
}

from_core!(
    CorpusError,
    Error,
    GrammarError,
    LimitError,
    RejectedTokenError,
    RollbackError,
    ShapeError,
    SpecialTokenError,
    UnknownTokenError,
    UnsatisfiableError,
    UnsupportedComponentError,
    UnsupportedKeywordError,
    VocabularyError,
);

impl From<PyErr> for BindingError {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<BindingError> for PyErr {
    fn from(error: BindingError) -> Self {
        match error {
            BindingError::Core(error) => Python::attach(|py| raise(py, &error).unwrap_or_else(|other| other)),
            BindingError::Python(error) => error,
        }
    }
}

/// Instantiates the class of `tokamask.errors` that mirrors the error.
fn raise(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let fields = PyDict::new(py);
    let class = match error {
        Error::Vocabulary(VocabularyError { path, line, token, .. }) => {
            fields.set_item("path", path)?;
            fields.set_item("line", line)?;
            fields.set_item("token", token)?;
            "VocabularyError"
        }
        Error::UnsupportedComponent(UnsupportedComponentError { component, path }) => {
            fields.set_item("component", component)?;
            fields.set_item("path", path)?;
            "UnsupportedComponentError"
        }
        Error::UnknownToken(which) => {
            match which {
                UnknownTokenError::Id(id) => fields.set_item("token_id", id)?,
                UnknownTokenError::Bytes(bytes) => fields.set_item("bytes", PyBytes::new(py, bytes))?,
            }
            "UnknownTokenError"
        }
        Error::SpecialToken(SpecialTokenError { token, span }) => {
            fields.set_item("token", token)?;
            fields.set_item("span", span)?;
            "SpecialTokenError"
        }
        Error::Grammar(GrammarError { source_text, line, column, json_pointer, .. }) => {
            fields.set_item("source", source_text)?;
            fields.set_item("line", line)?;
            fields.set_item("column", column)?;
            fields.set_item("json_pointer", json_pointer)?;
            "GrammarError"
        }
        Error::UnsupportedKeyword(UnsupportedKeywordError { json_pointer, keyword, .. }) => {
            fields.set_item("json_pointer", json_pointer)?;
            fields.set_item("keyword", keyword)?;
            "UnsupportedKeywordError"
        }
        Error::Unsatisfiable(UnsatisfiableError { json_pointer }) => {
            fields.set_item("json_pointer", json_pointer)?;
            "UnsatisfiableError"
        }
        Error::RejectedToken(RejectedTokenError { token_id, position, expected, byte, json_pointer }) => {
            fields.set_item("token_id", token_id)?;
            fields.set_item("position", position)?;
            fields.set_item("expected", expected)?;
            fields.set_item("byte", byte)?;
            fields.set_item("json_pointer", json_pointer)?;
            "RejectedTokenError"
        }
        Error::Rollback(RollbackError { requested, available }) => {
            fields.set_item("requested", requested)?;
            fields.set_item("available", available)?;
            "RollbackError"
        }
        Error::Limit(LimitError { limit, value }) => {
            fields.set_item("limit", limit)?;
            fields.set_item("value", value)?;
            "LimitError"
        }
        Error::Shape(ShapeError { name, expected, got }) => {
            fields.set_item("name", name)?;
            fields.set_item("expected", expected)?;
            fields.set_item("got", got)?;
            "ShapeError"
        }
        Error::Corpus(CorpusError { path, position, .. }) => {
            fields.set_item("path", path)?;
            fields.set_item("position", position)?;
            "CorpusError"
        }
    };
    let class = py.import("tokamask.errors")?.getattr(class)?;
    let instance = class.call((error.to_string(),), Some(&fields))?;
    if instance.is_instance_of::<pyo3::exceptions::PyBaseException>() {
        Ok(PyErr::from_value(instance))
    } else {
        Err(PyRuntimeError::new_err(format!("{class} is not an exception class")))
    }
}
