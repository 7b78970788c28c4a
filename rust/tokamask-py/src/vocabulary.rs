//! `tokamask.Vocabulary`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyType};
use tokamask::ids::TokenId;

use crate::errors::Result;

/// Tokens and their bytes: what tokenizers and matchers share. Immutable and thread-safe.
///
/// Parameters
/// ----------
/// token_bytes : list[bytes | None]
///     Bytes of token ``i`` at place ``i``; ``None`` for a hole (padding, reserved ids).
/// special : dict[str, int]
///     Names and ids of special tokens: never produced by merging, never matched by a grammar's text.
/// eos_ids : list[int]
///     Ids that end a sequence.
///
/// Raises
/// ------
/// VocabularyError
///     An id lies outside the vocabulary, or a special token is named twice.
///
/// Examples
/// --------
/// >>> vocabulary = tm.Vocabulary([b"a", b"b", b"</s>"], special={"</s>": 2}, eos_ids=[2])
/// >>> len(vocabulary), vocabulary.bytes(1), vocabulary.id(b"a")
/// (3, b'b', 0)
#[pyclass(frozen, module = "tokamask", eq, from_py_object)]
#[derive(Clone, PartialEq)]
pub struct Vocabulary(pub Arc<tokamask::vocabulary::Vocabulary>);

#[pymethods]
impl Vocabulary {
    #[new]
    #[pyo3(signature = (token_bytes, *, special=None, eos_ids=Vec::new()))]
    fn new(
        token_bytes: Vec<Option<Vec<u8>>>,
        special: Option<&Bound<'_, PyDict>>,
        eos_ids: Vec<u32>,
    ) -> Result<Self> {
        let special: Vec<(String, u32)> = special
            .map(|d| d.iter().map(|(k, v)| Ok((k.extract()?, v.extract()?))).collect::<PyResult<_>>())
            .transpose()?
            .unwrap_or_default();
        let special = special.into_iter().map(|(name, id)| (name, TokenId::new(id)));
        let eos_ids = eos_ids.into_iter().map(TokenId::new);
        Ok(Self(Arc::new(tokamask::vocabulary::Vocabulary::new(token_bytes, special, eos_ids)?)))
    }

    /// The vocabulary of somebody else's tokenizer object: HF ``tokenizers`` or ``transformers``,
    /// ``tiktoken``, ``llama_cpp``, or a :class:`tokamask.Tokenizer`.
    #[classmethod]
    fn from_tokenizer(_class: &Bound<'_, PyType>, tokenizer: &Bound<'_, PyAny>) -> PyResult<Self> {
        let read = tokenizer.py().import("tokamask.integrations.vocabularies")?.getattr("read")?;
        Ok(read.call1((tokenizer,))?.cast::<Self>()?.get().clone())
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        let eos: Vec<u32> = self.eos_ids();
        format!(
            "<Vocabulary of {} ids, {} special, eos {eos:?}>",
            self.0.len(),
            self.0.special_tokens().len()
        )
    }

    /// The bytes of token ``token_id``; raises ``UnknownTokenError`` for holes and ids out of range.
    fn bytes<'py>(&self, py: Python<'py>, token_id: u32) -> Result<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.0.try_bytes(token_id.into())?))
    }

    /// The lowest id of an ordinary token with exactly these bytes; raises ``UnknownTokenError``.
    fn id(&self, bytes: &[u8]) -> Result<u32> {
        let id = self.0.id(bytes);
        Ok(id.ok_or_else(|| tokamask::error::UnknownTokenError::Bytes(bytes.to_vec()))?.get())
    }

    /// True for special tokens and end-of-sequence ids.
    fn is_special(&self, token_id: u32) -> bool {
        self.0.is_special(token_id.into())
    }

    /// The ids that end a sequence.
    #[getter]
    fn eos_ids(&self) -> Vec<u32> {
        self.0.eos_ids().iter().map(|id| id.get()).collect()
    }

    /// Names and ids of the special tokens.
    #[getter]
    fn special<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let special = PyDict::new(py);
        for (name, id) in self.0.special_tokens() {
            special.set_item(name, id.get())?;
        }
        Ok(special)
    }

    /// A copy with other end-of-sequence ids, or with logits wider than the tokens.
    #[pyo3(signature = (*, eos_ids=None, vocab_size=None))]
    fn with_(&self, eos_ids: Option<Vec<u32>>, vocab_size: Option<usize>) -> Result<Self> {
        let eos_ids = eos_ids.map(|ids| ids.into_iter().map(TokenId::new).collect());
        Ok(Self(Arc::new(self.0.with(eos_ids, vocab_size)?)))
    }

    #[allow(clippy::type_complexity)] // the shape that pickle asks for
    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<((Vec<Option<Bound<'py, PyBytes>>>,), Bound<'py, PyDict>)> {
        let tokens =
            (0..self.0.len() as u32).map(|id| self.0.bytes(id.into()).map(|b| PyBytes::new(py, b))).collect();
        let keywords = PyDict::new(py);
        keywords.set_item("special", self.special(py)?)?;
        keywords.set_item("eos_ids", self.eos_ids())?;
        Ok(((tokens,), keywords))
    }
}
