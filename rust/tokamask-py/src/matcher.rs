//! `tokamask.CompiledGrammar` and `tokamask.Matcher`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::{cast_slice, cast_slice_mut};
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;
use tokamask::grammar::recipe::Recipe;
use tokamask::ids::TokenId;
use tokamask::mask;

use crate::arrays::{bitmask_words, frozen_row, shape_error, to_numpy};
use crate::errors::Result;
use crate::grammar::{self, GrammarSource, Patience};
use crate::vocabulary::Vocabulary;

/// How long reading a grammar may take, if nothing else is said: as in `tokamask.Limits`.
const PATIENCE: Patience = Patience(10.0, None);

/// A grammar made ready for one vocabulary. Immutable and thread-safe; make one with
/// :func:`tokamask.compile`.
///
/// Examples
/// --------
/// >>> vocabulary = tm.Vocabulary([b"a", b"b", b"</s>"], special={"</s>": 2}, eos_ids=[2])
/// >>> tm.compile(tm.Grammar.regex("[ab]+"), vocabulary)
/// <CompiledGrammar for 3 ids>
#[pyclass(frozen, module = "tokamask", name = "CompiledGrammar")]
pub struct CompiledGrammar(pub mask::CompiledGrammar, Arc<Recipe>);

/// The bounds of a `tokamask.Limits`: those of the core, and the patience of reading.
fn bounds(limits: &Bound<'_, PyAny>) -> PyResult<(mask::Limits, Patience)> {
    let (row_bytes, threads) =
        (limits.getattr("row_bytes")?.extract()?, limits.getattr("threads")?.extract()?);
    let patience = Patience(limits.getattr("seconds")?.extract()?, limits.getattr("cancelled")?.extract()?);
    Ok((mask::Limits { row_bytes, threads }, patience))
}

#[pymethods]
impl CompiledGrammar {
    /// Writes what :meth:`load` needs to compile it again: the grammar's own text and a fingerprint of the
    /// vocabulary. What was learned while it was used is not written.
    ///
    /// Raises
    /// ------
    /// OSError
    ///     The file cannot be written.
    fn save(&self, path: PathBuf) -> Result<()> {
        let file = self.1.to_file(self.0.vocabulary())?;
        Ok(std::fs::write(path, file).map_err(PyErr::from)?)
    }

    /// Compiles a grammar that was saved.
    ///
    /// Parameters
    /// ----------
    /// path : path
    ///     A file of :meth:`save`.
    /// vocabulary : Vocabulary
    ///     The vocabulary that it was compiled for.
    /// limits : Limits
    ///     Bounds on memory and work.
    ///
    /// Raises
    /// ------
    /// VocabularyError
    ///     The file is cut, forged, of another version or made for another vocabulary.
    #[staticmethod]
    #[pyo3(signature = (path, vocabulary, *, limits=None))]
    fn load(
        py: Python<'_>,
        path: PathBuf,
        vocabulary: &Vocabulary,
        limits: Option<&Bound<'_, PyAny>>,
    ) -> Result<Self> {
        let (limits, patience) =
            limits.map(bounds).transpose()?.unwrap_or((mask::Limits::default(), PATIENCE));
        let recipe = Recipe::from_file(&std::fs::read(path).map_err(PyErr::from)?, &vocabulary.0)?;
        let source = grammar::read(py, recipe, patience)?;
        let compiled = py.detach(|| mask::CompiledGrammar::new(source.grammar, &vocabulary.0, limits))?;
        Ok(Self(compiled, source.recipe))
    }

    /// A matcher at the beginning of the text.
    fn matcher(&self) -> Matcher {
        Matcher::from(self.0.matcher())
    }

    /// Makes mask rows ahead of time that would take long when they are first asked for: states of patterns and
    /// formats, strings of classes that are new to the vocabulary. Masks are the same without it.
    ///
    /// Parameters
    /// ----------
    /// wait : bool
    ///     False leaves the work to a thread that all grammars share, and returns at once; True does it here.
    ///     Either way it ends after a tenth of a second, or when everything is there.
    ///
    /// Returns
    /// -------
    /// int
    ///     Rows made, if it waited; otherwise 1, or 0 if too many grammars are waiting.
    ///
    /// Examples
    /// --------
    /// >>> vocabulary = tm.Vocabulary([b"a", b"b", b"</s>"], special={"</s>": 2}, eos_ids=[2])
    /// >>> tm.compile(tm.Grammar.regex("[ab]+"), vocabulary).fill_ahead()
    /// 1
    #[pyo3(signature = (*, wait=false))]
    fn fill_ahead(&self, py: Python<'_>, wait: bool) -> usize {
        py.detach(|| if wait { self.0.fill_ahead() } else { usize::from(self.0.fill_later()) })
    }

    /// The vocabulary it was compiled for.
    #[getter]
    fn vocabulary(&self) -> Vocabulary {
        Vocabulary(std::sync::Arc::new(self.0.vocabulary().clone()))
    }

    /// Number of ids, as the logits see them.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.0.vocabulary().len()
    }

    /// What was read as an annotation though it might have been meant as a condition.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.0.warnings().to_vec()
    }

    /// Bytes of the tables that all grammars of the vocabulary share.
    #[getter]
    fn table_bytes(&self) -> usize {
        self.0.table_bytes()
    }

    /// Bytes of memory that grow with use: states and mask rows.
    #[getter]
    fn memory_bytes(&self) -> usize {
        self.0.bytes()
    }

    fn __repr__(&self) -> String {
        format!("<CompiledGrammar for {} ids>", self.0.vocabulary().len())
    }
}

/// The state of one request: what has been accepted, and which tokens may come next.
///
/// Made by :meth:`CompiledGrammar.matcher`. Cheap to fork; every accepted token can be taken back.
///
/// Examples
/// --------
/// >>> vocabulary = tm.Vocabulary([b"a", b"b", b"</s>"], special={"</s>": 2}, eos_ids=[2])
/// >>> matcher = tm.compile(tm.Grammar.regex("ab"), vocabulary).matcher()
/// >>> matcher.accept(0)
/// >>> matcher.mask_row(), matcher.expected()
/// (array([2], dtype=int32), 'b')
#[pyclass(module = "tokamask", name = "Matcher")]
pub struct Matcher(pub mask::Matcher, Mutex<Option<Kept>>);

/// A row, and false if it allows everything.
type Row<'py> = (Bound<'py, PyArray1<i32>>, bool);

/// The row of the state that was asked for last.
struct Kept {
    at: mask::Matcher,
    /// None until the state is asked for again.
    row: Option<(Py<PyArray1<i32>>, bool)>,
}

impl From<mask::Matcher> for Matcher {
    fn from(matcher: mask::Matcher) -> Self {
        Self(matcher, Mutex::new(None))
    }
}

impl Matcher {
    /// The row that is kept for the state now; the state is remembered if there is none.
    fn kept<'py>(&self, py: Python<'py>) -> (bool, Option<Row<'py>>) {
        let mut kept = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(kept) if kept.at.is_at(&self.0) => {
                (true, kept.row.as_ref().map(|(row, some)| (row.bind(py).clone(), *some)))
            }
            _ => {
                *kept = Some(Kept { at: self.0.clone(), row: None });
                (false, None)
            }
        }
    }

    fn keep<'py>(&self, py: Python<'py>) -> PyResult<Row<'py>> {
        let mut row = vec![0i32; self.0.compiled().words()];
        let some = py.detach(|| self.0.fill(cast_slice_mut(&mut row)));
        let row = to_numpy(py, row);
        row.try_readwrite()?.make_nonwriteable();
        let kept = Kept { at: self.0.clone(), row: Some((row.clone().unbind(), some)) };
        *self.1.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok((row, some))
    }
}

/// The words of a bitmask, checked.
pub fn mask_rows<'a>(bitmask: &'a Bound<'_, PyAny>, words: usize) -> Result<&'a mut [u32]> {
    let expected = || format!("int32 [rows, {words}], contiguous and writeable");
    Ok(bitmask_words(bitmask, words).ok_or_else(|| shape_error("bitmask", expected(), bitmask))?)
}

fn ids(list: Vec<u32>) -> Vec<TokenId> {
    list.into_iter().map(TokenId::new).collect()
}

#[pymethods]
impl Matcher {
    /// Writes the mask of the next token into one row.
    ///
    /// Parameters
    /// ----------
    /// bitmask : int32 [rows, ceil(vocab_size / 32)]
    ///     Bit ``v % 32`` of word ``v // 32`` is set for allowed tokens ``v``.
    /// row : int
    ///     Which row to write.
    ///
    /// Returns
    /// -------
    /// bool
    ///     False if every id is allowed, so that the row need not be applied.
    #[pyo3(signature = (bitmask, row=0))]
    fn fill_bitmask(&self, py: Python<'_>, bitmask: &Bound<'_, PyAny>, row: usize) -> Result<bool> {
        let words = self.0.compiled().words();
        let rows = mask_rows(bitmask, words)?;
        let Some(out) = rows.chunks_exact_mut(words.max(1)).nth(row) else {
            return Err(shape_error("bitmask", format!("more than {row} rows"), bitmask).into());
        };
        // A state that is asked for again is copied.
        let (row, some) = match self.kept(py) {
            (_, Some(kept)) => kept,
            (true, None) => self.keep(py)?,
            (false, None) => return Ok(py.detach(|| self.0.fill(out))),
        };
        out.copy_from_slice(cast_slice(frozen_row(&row)));
        Ok(some)
    }

    /// The mask of the next token by a plain walk over all tokens, without tables or memory: slow, and
    /// what :meth:`mask_row` must equal.
    fn plain_row<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i32>> {
        let mut row = vec![0i32; self.0.compiled().words()];
        py.detach(|| self.0.fill_plainly(cast_slice_mut(&mut row)));
        to_numpy(py, row)
    }

    /// The mask of the next token as a read-only row, int32 [ceil(vocab_size / 32)]; the same array as long
    /// as the state is the same.
    fn mask_row<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i32>>> {
        match self.kept(py) {
            (_, Some((row, _))) => Ok(row),
            _ => Ok(self.keep(py)?.0),
        }
    }

    /// Number of ids, as the logits see them.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.0.compiled().vocabulary().len()
    }

    /// Advances by one token.
    ///
    /// Raises
    /// ------
    /// RejectedTokenError
    ///     The grammar does not allow the token; the state stays as it was.
    fn accept(&mut self, token_id: u32) -> Result<()> {
        Ok(self.0.accept(token_id.into())?)
    }

    /// Advances as far as the tokens are allowed; returns how many were.
    fn accept_prefix(&mut self, token_ids: Vec<u32>) -> Result<usize> {
        Ok(self.0.accept_prefix(&ids(token_ids))?)
    }

    /// True if the token may come next; the state stays as it is.
    fn is_allowed(&self, token_id: u32) -> Result<bool> {
        Ok(self.0.is_allowed(token_id.into())?)
    }

    /// Tries tokens in the order given.
    ///
    /// Returns
    /// -------
    /// (int, int)
    ///     The place of the first token that may come next, or -1, and the number refused before it.
    fn first_allowed(&self, py: Python<'_>, token_ids: Vec<u32>) -> Result<(i64, usize)> {
        let list = ids(token_ids);
        let found = py.detach(|| self.0.first_allowed(&list))?;
        Ok(found.map_or((-1, list.len()), |i| (i as i64, i)))
    }

    /// Takes back the last ``n`` tokens.
    ///
    /// Raises
    /// ------
    /// RollbackError
    ///     Fewer tokens were accepted.
    #[pyo3(signature = (n=1))]
    fn rollback(&mut self, n: usize) -> Result<()> {
        Ok(self.0.rollback(n)?)
    }

    /// An independent matcher in the same state, with the same history.
    fn fork(&self) -> Self {
        Self::from(self.0.clone())
    }

    /// Back to the beginning of the text.
    fn reset(&mut self) {
        self.0.reset();
    }

    /// Tokens that the grammar leaves no choice about: what must be written next, cut into the longest tokens.
    fn forced_tokens(&self, py: Python<'_>) -> Vec<u32> {
        py.detach(|| self.0.forced_tokens()).into_iter().map(TokenId::get).collect()
    }

    /// True if the text so far is a complete match.
    fn is_accepting(&self) -> bool {
        self.0.is_accepting()
    }

    /// True after an end-of-sequence token.
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }

    /// What may come next, in words.
    fn expected(&self) -> String {
        self.0.expected()
    }

    /// Number of tokens accepted.
    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// Writes the masks of a draft tree in one call.
    ///
    /// Parameters
    /// ----------
    /// bitmask : int32 [n + 1 or more, ceil(vocab_size / 32)]
    ///     Row 0 is the state now, row ``i + 1`` the state after node ``i``. Rows of nodes that the
    ///     grammar does not allow are empty.
    /// tree : DraftTree
    ///     Anything with ``token_ids`` and ``parents``, int32 [n]; -1 is the root, parents come first.
    ///
    /// Returns
    /// -------
    /// bool [n]
    ///     Which nodes the grammar allows.
    fn fill_tree<'py>(
        &self,
        py: Python<'py>,
        bitmask: &Bound<'py, PyAny>,
        tree: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyArray1<bool>>> {
        let words = self.0.compiled().words();
        let array = |name: &str| -> Result<PyReadonlyArray1<'py, i32>> {
            let value = tree.getattr(name)?;
            let array = value.extract::<PyReadonlyArray1<'py, i32>>();
            array.map_err(|_| shape_error(&format!("tree.{name}"), "int32 [n]", &value).into())
        };
        let (tokens, parents) = (array("token_ids")?, array("parents")?);
        let (tokens, parents) =
            (tokens.as_slice().map_err(PyErr::from)?, parents.as_slice().map_err(PyErr::from)?);
        let ordered = parents.iter().enumerate().all(|(i, &p)| (-1..i as i32).contains(&p));
        if tokens.len() != parents.len() || !ordered {
            let value = tree.getattr("parents")?;
            let expected = format!("int32 [{}], each -1 or an earlier node", tokens.len());
            return Err(shape_error("tree.parents", expected, &value).into());
        }
        let out = mask_rows(bitmask, words)?;
        if out.len() < (tokens.len() + 1) * words {
            return Err(shape_error("bitmask", format!("at least {} rows", tokens.len() + 1), bitmask).into());
        }
        Ok(to_numpy(py, py.detach(|| self.0.fill_tree(tokens, parents, out))?))
    }
}

/// Makes a grammar ready for a vocabulary.
#[pyfunction]
pub fn compile_grammar(
    py: Python<'_>,
    source: &GrammarSource,
    vocabulary: &Vocabulary,
    limits: &Bound<'_, PyAny>,
    cache: bool,
) -> Result<CompiledGrammar> {
    let (limits, _) = bounds(limits)?;
    let (grammar, recipe) = (&source.grammar, &source.recipe);
    let compiled = py.detach(|| {
        if cache {
            mask::cache::compile(recipe, grammar, &vocabulary.0, &limits)
        } else {
            mask::CompiledGrammar::new(Arc::clone(grammar), &vocabulary.0, limits)
        }
    })?;
    Ok(CompiledGrammar(compiled, Arc::clone(recipe)))
}

/// Writes the masks of several matchers, with threads where that pays off.
#[allow(clippy::needless_pass_by_value)] // what pyo3 extracts
#[pyfunction]
#[pyo3(signature = (matchers, bitmask, rows, threads=None))]
pub fn fill_bitmasks<'py>(
    py: Python<'py>,
    matchers: Vec<PyRef<'py, Matcher>>,
    bitmask: &Bound<'py, PyAny>,
    rows: Vec<usize>,
    threads: Option<usize>,
) -> Result<Bound<'py, PyArray1<bool>>> {
    let matchers: Vec<mask::Matcher> = matchers.iter().map(|m| m.0.clone()).collect();
    if rows.len() != matchers.len() {
        let expected = format!("{} rows, one for each matcher", matchers.len());
        return Err(shape_error("rows", expected, &rows.into_pyobject(py)?.into_any()).into());
    }
    let Some(words) = matchers.first().map(|m| m.compiled().words()) else {
        return Ok(to_numpy(py, Vec::new()));
    };
    let out = mask_rows(bitmask, words)?;
    let filled = py.detach(|| mask::fill_batch(&matchers, out, &rows, threads));
    Ok(to_numpy(py, filled?))
}
