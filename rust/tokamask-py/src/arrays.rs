//! Numpy arrays in and out, and the one place that checks their type and shape against a name.

use numpy::{Element, PyArray1, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use tokamask::error::ShapeError;

/// A core vector handed to numpy without a copy.
pub fn to_numpy<T: Element>(py: Python<'_>, values: Vec<T>) -> Bound<'_, PyArray1<T>> {
    PyArray1::from_vec(py, values)
}

/// `int64 [4, 8]` for an array, its Python type for anything else.
pub fn describe(value: &Bound<'_, PyAny>) -> String {
    match value.cast::<PyUntypedArray>() {
        Ok(array) => format!("{} {:?}", array.dtype(), array.shape()),
        Err(_) => value.get_type().to_string(),
    }
}

/// The error for an argument that is not what it should be.
pub fn shape_error(name: &str, expected: impl Into<String>, got: &Bound<'_, PyAny>) -> ShapeError {
    ShapeError { name: name.to_owned(), expected: expected.into(), got: describe(got) }
}
