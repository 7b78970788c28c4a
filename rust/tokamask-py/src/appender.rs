//! `tokamask.Appender`.

use numpy::PyArray1;
use pyo3::prelude::*;

use crate::arrays::to_numpy;
use crate::errors::Result;

/// A text that grows, with its ids: at any time exactly those of ``encode(all text so far)``.
///
/// Only the end is encoded again: what the split rule may still change. So a conversation of n turns costs about as
/// much as its text. Special tokens in the text are ordinary text. Tokenizers whose normalizer changes the text, or
/// whose split rule runs on the fallback engine, encode everything again at each call. From ``Tokenizer.appender()``.
///
/// Examples
/// --------
/// >>> chat = tok.appender()
/// >>> chat.append("What is a tok"), chat.append("enizer?")
/// (0, 3)
/// >>> chat.ids.tolist() == tok.encode("What is a tokenizer?")
/// True
#[pyclass(module = "tokamask")]
pub struct Appender(pub tokamask::tokenizer::appender::Appender);

#[pymethods]
impl Appender {
    /// Adds text; the number of ids from the front that stayed as they were, which is what a KV cache can keep.
    fn append(&mut self, py: Python<'_>, text: &str) -> Result<usize> {
        Ok(py.detach(|| self.0.append(text))?)
    }

    /// Keeps the first ``n`` characters of the text.
    fn truncate(&mut self, py: Python<'_>, n: usize) -> Result<()> {
        Ok(py.detach(|| self.0.truncate(n))?)
    }

    /// The ids as uint32 [n], a copy.
    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        to_numpy(py, self.0.ids().to_vec())
    }

    /// How many ids from the front no further text can change.
    #[getter]
    fn settled(&self) -> usize {
        self.0.settled()
    }

    /// The text so far.
    #[getter]
    fn text(&self) -> &str {
        self.0.text()
    }

    fn __len__(&self) -> usize {
        self.0.ids().len()
    }
}
