//! `tokamask.Drafter` and `tokamask.DraftSession`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;
use tokamask::draft::{self, Corpus, Settings, TopK, VerifyCost};
use tokamask::error::ShapeError;

use crate::arrays::{contiguous, shape_error, to_frozen, to_numpy, Kept};
use crate::errors::Result;
use crate::matcher::Matcher;

/// Guesses the next tokens of requests from everything already seen; shared between them and between threads.
///
/// It needs no draft model and no training: it learns while serving which of its guesses the target accepts.
///
/// Parameters
/// ----------
/// capacity_tokens : int
///     Output tokens that the shared counts remember, at most 48 bytes each; the oldest and rarest give way.
/// recycle : int
///     Runners-up kept for each context whose logits are given to ``update``; 0 keeps none.
/// verify_cost : list[float], optional
///     Time of one target forward over 1, 2, 4, 8, ... rows, in any unit. With it, or with what ``observe`` was told, a
///     draft ends where one more node would cost more time than it is expected to save, which may be at once.
///
/// corpus : DraftCorpus, optional
///     What follows what in a fixed text; shared with other drafters, never written to.
///
/// Raises
/// ------
/// ShapeError
///     A size of 0, or times that are not positive.
///
/// Examples
/// --------
/// >>> session = tm.Drafter().session([1, 2, 3, 4, 1, 2, 3])
/// >>> session.propose(budget=2).token_ids.tolist()
/// [4, 1]
#[pyclass(frozen, module = "tokamask")]
pub struct Drafter(Arc<draft::Drafter>);

#[pymethods]
impl Drafter {
    #[new]
    #[pyo3(signature = (*, capacity_tokens=1 << 20, recycle=8, verify_cost=None, corpus=None))]
    fn new(
        capacity_tokens: usize,
        recycle: usize,
        verify_cost: Option<Vec<f32>>,
        corpus: Option<&Bound<'_, PyAny>>,
    ) -> Result<Self> {
        let refused = |name: &str, expected: &str, got: String| ShapeError {
            name: name.to_owned(),
            expected: expected.to_owned(),
            got,
        };
        if !(1..=1 << 34).contains(&capacity_tokens) {
            return Err(refused("capacity_tokens", "1 to 2**34", capacity_tokens.to_string()).into());
        }
        if recycle > 64 {
            return Err(refused("recycle", "0 to 64", recycle.to_string()).into());
        }
        let verify_cost = match verify_cost {
            None => None,
            Some(times) => {
                let got = format!("{times:?}");
                let cost = VerifyCost::new(&times);
                Some(cost.ok_or_else(|| refused("verify_cost", "positive times for 1, 2, 4, ... rows", got))?)
            }
        };
        let corpus = match corpus {
            None => None,
            Some(corpus) => {
                let entries = corpus.getattr("entries")?;
                let table = Corpus::new(Arc::new(Kept::<u64>::new("corpus.entries", &entries)?));
                Some(table.ok_or_else(|| shape_error("corpus.entries", "uint64 [8 * buckets]", &entries))?)
            }
        };
        let settings = Settings { capacity_tokens, recycle, verify_cost };
        Ok(Self(draft::Drafter::with_corpus(settings, corpus)))
    }

    /// Starts a request.
    ///
    /// Parameters
    /// ----------
    /// prompt_ids : list[int] or uint32 [p]
    ///     The prompt's tokens.
    /// prompt_topk : uint32 [p, k], optional
    ///     The target's likeliest tokens after each prompt token, best first.
    /// matcher : Matcher, optional
    ///     Only what its grammar allows is proposed, and what it forces is. The session keeps its own copy and advances it.
    ///
    /// Raises
    /// ------
    /// ShapeError
    ///     ``prompt_topk`` has not one row per prompt token.
    #[pyo3(signature = (prompt_ids, *, prompt_topk=None, matcher=None))]
    fn session(
        &self,
        py: Python<'_>,
        prompt_ids: &Bound<'_, PyAny>,
        prompt_topk: Option<&Bound<'_, PyAny>>,
        matcher: Option<PyRef<'_, Matcher>>,
    ) -> Result<DraftSession> {
        let matcher = matcher.map(|matcher| matcher.0.clone());
        let prompt = token_ids("prompt_ids", prompt_ids)?;
        let rows = prompt_topk.map(|topk| Rows::read("prompt_topk", topk, None, prompt.len())).transpose()?;
        let session = py.detach(|| {
            let mut session = self.0.session(&prompt, matcher);
            if let Some(rows) = &rows {
                session.recycle_prompt(rows.as_topk());
            }
            session
        });
        Ok(DraftSession(Mutex::new(session)))
    }

    /// Tells what a forward of the target took; drafts are cut by such times from then on.
    ///
    /// Call it after every forward of a decoding step: the cost of a wider one is learned as it goes, and follows the machine.
    /// What was given as ``verify_cost`` is where it starts; without, wider forwards are tried before they are known.
    ///
    /// Parameters
    /// ----------
    /// rows : int
    ///     Tokens of the forward: 1 without a draft, ``len(tree) + 1`` with one.
    /// time : float
    ///     In the unit of ``verify_cost``. Not positive: ignored.
    ///
    /// Raises
    /// ------
    /// ShapeError
    ///     No rows.
    ///
    /// Examples
    /// --------
    /// >>> drafter = tm.Drafter()
    /// >>> for _ in range(99):
    /// ...     drafter.observe(rows=1, time=1.0)
    /// ...     drafter.observe(rows=2, time=1.5)
    /// >>> [round(time, 1) for time in drafter.verify_cost]
    /// [1.0, 1.5]
    fn observe(&self, rows: usize, time: f32) -> Result<()> {
        if rows == 0 {
            let expected = "1 or more".to_owned();
            return Err(ShapeError { name: "rows".to_owned(), expected, got: rows.to_string() }.into());
        }
        self.0.observe_cost(rows, time);
        Ok(())
    }

    /// Times of forwards over 1, 2, 4, ... rows, as far as they were given or observed; None where nothing is known.
    #[getter]
    fn verify_cost(&self) -> Option<Vec<f32>> {
        self.0.verify_cost()
    }

    /// Output tokens learned from so far, all sessions together.
    #[getter]
    fn tokens(&self) -> u64 {
        self.0.tokens()
    }

    /// Bytes that the shared structures hold now; each session adds about 28 a token while it lives.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.bytes()
    }

    fn __repr__(&self) -> String {
        format!("<Drafter that learned from {} tokens>", self.0.tokens())
    }
}

/// One request of a :class:`Drafter`; made by ``Drafter.session``.
///
/// Examples
/// --------
/// >>> session = tm.Drafter().session([1, 2, 3, 4, 1, 2])
/// >>> tree = session.propose(budget=8)
/// >>> ids, bonus, path = tm.verify_greedy(tree, [3] * (len(tree) + 1))
/// >>> session.update([*ids, bonus])
#[pyclass(frozen, module = "tokamask")]
pub struct DraftSession(Mutex<draft::DraftSession>);

impl DraftSession {
    fn lock(&self) -> MutexGuard<'_, draft::DraftSession> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl DraftSession {
    /// The guesses most likely to be accepted next, as one tree.
    ///
    /// Parameters
    /// ----------
    /// budget : int
    ///     Most nodes of the tree; fewer come where more are not known or not worth their verification.
    /// chain : bool
    ///     One path instead of a tree, for engines that verify no trees: the one with most expected tokens per time.
    ///
    /// Returns
    /// -------
    /// DraftTree
    ///     ``probs`` are calibrated: their sum is the expected number of accepted tokens.
    #[pyo3(signature = (budget=32, *, chain=false))]
    fn propose<'py>(&self, py: Python<'py>, budget: usize, chain: bool) -> Result<Bound<'py, PyAny>> {
        if budget > MAX_BUDGET {
            let (expected, got) = (format!("0 to {MAX_BUDGET}"), budget.to_string());
            return Err(ShapeError { name: "budget".to_owned(), expected, got }.into());
        }
        let tree = py.detach(|| {
            let mut session = self.lock();
            if chain {
                session.propose_chain(budget)
            } else {
                session.propose(budget)
            }
        });
        Ok(wrap_tree(py, tree)?)
    }

    /// Appends the tokens that were emitted and learns from them.
    ///
    /// Parameters
    /// ----------
    /// accepted_ids : list[int] or uint32 [k]
    ///     All new tokens of the step in order, the bonus token of the verification included.
    /// tree : DraftTree, optional
    ///     What was verified; tells which rows ``topk_ids`` belongs to.
    /// topk_ids : uint32 [rows, r], optional
    ///     The target's likeliest tokens, best first: with ``tree`` a row for the root and for each node, rejected
    ///     ones included; without, a row for each of ``accepted_ids``, the one it was chosen from.
    /// topk_logprobs : float32 [rows, r], optional
    ///     Their log probabilities.
    ///
    /// Raises
    /// ------
    /// ShapeError
    ///     Rows that do not fit the tree or the tokens.
    /// RejectedTokenError
    ///     A token that the session's grammar does not allow; nothing is appended.
    #[pyo3(signature = (accepted_ids, *, tree=None, topk_ids=None, topk_logprobs=None))]
    fn update(
        &self,
        py: Python<'_>,
        accepted_ids: &Bound<'_, PyAny>,
        tree: Option<&Bound<'_, PyAny>>,
        topk_ids: Option<&Bound<'_, PyAny>>,
        topk_logprobs: Option<&Bound<'_, PyAny>>,
    ) -> Result<()> {
        let emitted = token_ids("accepted_ids", accepted_ids)?;
        let tree = tree.map(read_tree).transpose()?;
        let expected = tree.as_ref().map_or(emitted.len(), |tree| tree.len() + 1);
        let rows = topk_ids.map(|ids| Rows::read("topk_ids", ids, topk_logprobs, expected)).transpose()?;
        let rows = rows.as_ref().map(Rows::as_topk);
        Ok(py.detach(|| self.lock().update(&emitted, tree.as_ref(), rows))?)
    }

    /// Prompt and output so far: uint32 [n], a copy.
    #[getter]
    fn token_ids<'py>(&self, py: Python<'py>) -> Bound<'py, numpy::PyArray1<u32>> {
        to_numpy(py, self.lock().tokens().to_vec())
    }

    fn __repr__(&self) -> String {
        format!("<DraftSession of {} tokens>", self.lock().tokens().len())
    }
}

/// Trees beyond this would take longer to choose than to verify.
const MAX_BUDGET: usize = 4096;

/// Token ids from a sequence of integers or an integer array, none negative and none beyond int32.
fn token_ids(name: &str, ids: &Bound<'_, PyAny>) -> Result<Vec<u32>> {
    let checked: Option<Vec<u32>> = if let Ok(list) = ids.cast::<PyList>() {
        list.iter().map(|id| id.extract::<u32>().ok()).collect()
    } else if let Ok(array) = ids.extract::<PyReadonlyArray1<'_, u32>>() {
        Some(array.as_array().to_vec())
    } else if let Ok(array) = ids.extract::<PyReadonlyArray1<'_, i64>>() {
        array.as_array().iter().map(|&id| u32::try_from(id).ok()).collect()
    } else {
        let list = ids.extract::<Vec<i64>>().ok();
        list.and_then(|list| list.into_iter().map(|id| u32::try_from(id).ok()).collect())
    };
    let checked = checked.filter(|ids| ids.iter().all(|&id| i32::try_from(id).is_ok()));
    Ok(checked.ok_or_else(|| shape_error(name, "token ids: integers from 0 to 2**31 - 1, [n]", ids))?)
}

/// The table of a corpus: what follows the last tokens anywhere in the texts, in at most `most_bytes` bytes.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // pyo3 hands arguments over by value
pub fn count_continuations<'py>(
    py: Python<'py>,
    texts: Vec<Bound<'py, PyAny>>,
    most_bytes: usize,
) -> Result<Bound<'py, numpy::PyArray1<u64>>> {
    let texts = texts.iter().map(|text| token_ids("texts", text)).collect::<Result<Vec<_>>>()?;
    let entries = py.detach(|| Corpus::count(texts.iter().map(Vec::as_slice), most_bytes));
    Ok(to_frozen(py, entries))
}

/// Any array-like as a numpy array of a type.
fn as_array<'py>(value: &Bound<'py, PyAny>, dtype: &str) -> PyResult<Bound<'py, PyAny>> {
    value.py().import("numpy")?.getattr("asarray")?.call1((value,))?.call_method1("astype", (dtype,))
}

/// A top-k table as the core takes it.
struct Rows {
    ids: Vec<u32>,
    logprobs: Option<Vec<f32>>,
    width: usize,
}

impl Rows {
    fn read(
        name: &str,
        ids: &Bound<'_, PyAny>,
        logprobs: Option<&Bound<'_, PyAny>>,
        rows: usize,
    ) -> Result<Self> {
        let expected = format!("uint32 [{rows}, k]");
        let array = as_array(ids, "uint32")?;
        let Ok(table) = array.extract::<PyReadonlyArray2<'_, u32>>() else {
            return Err(shape_error(name, expected, &array).into());
        };
        if table.shape()[0] != rows {
            return Err(shape_error(name, expected, &array).into());
        }
        let width = table.shape()[1];
        let logprobs = match logprobs {
            None => None,
            Some(values) => {
                let array = as_array(values, "float32")?;
                let values =
                    array.extract::<PyReadonlyArray2<'_, f32>>().ok().filter(|v| v.shape() == table.shape());
                let expected = format!("float32 [{rows}, {width}]");
                let values = values.ok_or_else(|| shape_error("topk_logprobs", expected, &array))?;
                Some(values.as_array().iter().copied().collect())
            }
        };
        Ok(Self { ids: table.as_array().iter().copied().collect(), logprobs, width })
    }

    fn as_topk(&self) -> TopK<'_> {
        TopK { ids: &self.ids, logprobs: self.logprobs.as_deref(), width: self.width }
    }
}

/// The nodes of a Python `DraftTree`, whose constructor checked them.
fn read_tree(tree: &Bound<'_, PyAny>) -> Result<draft::DraftTree> {
    let vector = |name: &str| -> Result<Vec<i32>> { Ok(contiguous(name, &tree.getattr(name)?)?.0.to_vec()) };
    let (token_ids, parents) = (vector("token_ids")?, vector("parents")?);
    Ok(draft::DraftTree { token_ids, parents, ..draft::DraftTree::default() })
}

fn wrap_tree(py: Python<'_>, tree: draft::DraftTree) -> PyResult<Bound<'_, PyAny>> {
    static WRAP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let wrap = WRAP.get_or_try_init(py, || {
        let class = py.import("tokamask.draft")?.getattr("DraftTree")?;
        PyResult::Ok(class.getattr("_trusted")?.unbind())
    })?;
    wrap.bind(py).call1((
        to_frozen(py, tree.token_ids),
        to_frozen(py, tree.parents),
        to_frozen(py, tree.probs),
        to_frozen(py, tree.sources),
        to_frozen(py, tree.depths),
    ))
}
