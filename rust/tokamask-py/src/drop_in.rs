//! What the modules of `tokamask.compat` need beyond the public methods.

use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyDict, PyList};
use tokamask::formats::tiktoken;

use crate::arrays::to_numpy;
use crate::errors::Result;
use crate::tokenizer::{allowed, Tokenizer};

/// Tokens and ranks of the lines of a ``.tiktoken`` file.
#[pyfunction]
pub fn read_ranks<'py>(py: Python<'py>, data: &[u8]) -> Result<Bound<'py, PyDict>> {
    let ranks = PyDict::new(py);
    for (rank, token) in py.detach(|| tiktoken::read(data))?.into_iter().enumerate() {
        if let Some(token) = token {
            ranks.set_item(PyBytes::new(py, &token), rank)?;
        }
    }
    Ok(ranks)
}

/// A split rule, for pre-tokenizers that are put together in Python.
#[pyclass(frozen, module = "tokamask._core")]
pub struct Pattern(tokamask::text::pattern::Pattern);

#[pymethods]
impl Pattern {
    #[new]
    fn new(source: &str) -> Result<Self> {
        let rule = tokamask::text::pattern::onig_rule(source)?;
        Ok(Self(tokamask::text::pattern::Pattern::new(&rule)?))
    }

    /// Start and end of each match in `text`, in characters.
    fn find(&self, text: &str) -> Result<Vec<(usize, usize)>> {
        let (mut found, mut at, mut char) = (Vec::new(), 0, 0);
        self.0.find(text, |start, end| {
            char += text[at..start].chars().count();
            let first = char;
            char += text[start..end].chars().count();
            at = end;
            found.push((first, char));
        })?;
        Ok(found)
    }
}

/// Start and end of each stretch of one script in `text`, in characters.
#[pyfunction]
pub fn cut_scripts(text: &str) -> Vec<(usize, usize)> {
    let (mut spans, mut at, mut char) = (Vec::new(), 0, 0);
    tokamask::text::scripts::cut(text, &mut spans);
    let mut chars = |to: usize| {
        char += text[at..to].chars().count();
        at = to;
        char
    };
    spans.into_iter().map(|(start, end)| (chars(start), chars(end))).collect()
}

/// True if the text of some added token is in ``text``.
#[pyfunction]
pub fn may_have_special(py: Python<'_>, tokenizer: &Tokenizer, text: &Bound<'_, PyAny>) -> bool {
    // Text that is not Unicode is looked at by the caller.
    let Ok(text) = text.extract::<PyBackedStr>() else { return true };
    let find = || tokenizer.core().has_added(&text);
    if text.len() < 1 << 14 {
        find()
    } else {
        py.detach(find)
    }
}

/// Lists of ids, one a text, on all cores.
#[pyfunction]
pub fn encode_lists<'py>(
    py: Python<'py>,
    tokenizer: &Tokenizer,
    texts: &Bound<'_, PyAny>,
    allowed_special: Option<&Bound<'_, PyAny>>,
) -> Result<Bound<'py, PyList>> {
    let allowed = allowed(allowed_special)?;
    let texts = texts.try_iter()?.map(|text| text?.extract()).collect::<PyResult<Vec<PyBackedStr>>>()?;
    let texts: Vec<&str> = texts.iter().map(|text| &**text).collect();
    let (ids, offsets) = py.detach(|| tokenizer.core().encode_batch(&texts, false, &allowed, None))?;
    let ints = tokenizer.ints(py);
    let lists = PyList::empty(py);
    for row in offsets.windows(2) {
        let row = &ids[row[0] as usize..row[1] as usize];
        lists.append(ints.list(py, row)?)?;
    }
    Ok(lists)
}

/// The ids of texts that lie one after another in UTF-8, as Arrow keeps them: `offsets` int64 `[batch + 1]`.
#[pyfunction]
#[pyo3(signature = (tokenizer, data, offsets, add_special_tokens, allowed_special, threads=None))]
#[allow(clippy::type_complexity)]
pub fn encode_utf8<'py>(
    py: Python<'py>,
    tokenizer: &Tokenizer,
    data: &Bound<'py, PyArray1<u8>>,
    offsets: &Bound<'py, PyArray1<i64>>,
    add_special_tokens: bool,
    allowed_special: Option<&Bound<'_, PyAny>>,
    threads: Option<std::num::NonZeroUsize>,
) -> Result<(Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<i64>>)> {
    let allowed = allowed(allowed_special)?;
    let (data, offsets) = (data.readonly(), offsets.readonly());
    let (data, offsets) = (data.as_slice().map_err(PyErr::from)?, offsets.as_slice().map_err(PyErr::from)?);
    let text = |row: &[i64]| {
        let place = usize::try_from(row[0]).ok().zip(usize::try_from(row[1]).ok());
        let bytes = place.and_then(|(start, end)| data.get(start..end));
        bytes.and_then(|bytes| std::str::from_utf8(bytes).ok())
    };
    let texts: Option<Vec<&str>> = offsets.windows(2).map(text).collect();
    let texts = texts.ok_or_else(|| PyValueError::new_err("a string of the column is not UTF-8"))?;
    let (ids, offsets) =
        py.detach(|| tokenizer.core().encode_batch(&texts, add_special_tokens, &allowed, threads))?;
    Ok((to_numpy(py, ids), to_numpy(py, offsets)))
}

/// The ids of bytes that merging sees as one pretoken.
#[pyfunction]
pub fn encode_piece(tokenizer: &Tokenizer, piece: &[u8]) -> Vec<u32> {
    tokenizer.core().encode_piece(piece)
}

/// The ids of bytes that need not be text.
#[pyfunction]
pub fn encode_bytes(py: Python<'_>, tokenizer: &Tokenizer, data: &[u8]) -> Result<Vec<u32>> {
    Ok(py.detach(|| tokenizer.core().encode_bytes(data))?)
}

/// The ids that more text is taken not to change, and what the rest may become.
#[pyfunction]
pub fn encode_unstable(
    py: Python<'_>,
    tokenizer: &Tokenizer,
    text: &str,
    allowed_special: Option<&Bound<'_, PyAny>>,
) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
    let allowed = allowed(allowed_special)?;
    let (ids, found) = py.detach(|| tokenizer.core().encode_unstable(text, &allowed))?;
    Ok((ids, found.into_iter().collect()))
}
