//! `tokamask.Tokenizer`.

use std::io::{Read, Seek};
use std::sync::Arc;

use numpy::PyArrayMethods;
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyType};
use tokamask::formats::map::Map;
use tokamask::formats::{compiled, tekken, tiktoken, tokenizer_json_write};
use tokamask::text::added::Allowed;
use tokamask::tokenizer::sample::Law;
use tokamask::tokenizer::segment::Method;
use tokamask::tokenizer::Ids;

use crate::appender::Appender;
use crate::arrays::to_numpy;
use crate::errors::Result;
use crate::lists::Ints;
use crate::vocabulary::Vocabulary;

/// Texts shorter than this are encoded under the GIL: releasing it would take longer.
const SHORT: usize = 2048;

/// Text to token ids and back, exactly as the file's own library does it. Immutable and thread-safe.
///
/// Special tokens in a text are ordinary text unless ``allowed_special`` names them (or is ``"all"``).
///
/// Examples
/// --------
/// >>> tok = tm.Tokenizer.from_file("tokenizer.json")
/// >>> tok.decode(tok.encode("to be or not to be"))
/// 'to be or not to be'
#[pyclass(frozen, module = "tokamask")]
pub struct Tokenizer {
    inner: Arc<tokamask::tokenizer::Tokenizer>,
    vocabulary: Vocabulary,
    /// The int of every id, made once: lists of fresh ints would cost more than the encoding.
    ints: PyOnceLock<Ints>,
}

impl From<tokamask::tokenizer::Tokenizer> for Tokenizer {
    fn from(inner: tokamask::tokenizer::Tokenizer) -> Self {
        let vocabulary = Vocabulary(Arc::clone(inner.vocabulary()));
        Self { inner: Arc::new(inner), vocabulary, ints: PyOnceLock::new() }
    }
}

impl Tokenizer {
    /// The tokenizer of the core crate.
    pub fn core(&self) -> &tokamask::tokenizer::Tokenizer {
        &self.inner
    }

    /// The int of every id; made when first asked for.
    pub fn ints(&self, py: Python<'_>) -> &Ints {
        self.ints.get_or_init(py, || Ints::new(py, self.inner.vocabulary().len()))
    }

    fn ids(
        &self,
        py: Python<'_>,
        text: &str,
        special: bool,
        allowed: &Allowed,
        threads: usize,
    ) -> Result<Ids> {
        if threads != 1 {
            let threads = std::num::NonZeroUsize::new(threads);
            threads.ok_or_else(|| PyValueError::new_err("threads: expected 1 or more, got 0"))?;
            return Ok(py.detach(|| self.inner.encode_over(text, special, allowed, threads))?.into());
        }
        let encode = || self.inner.encode_kept(text, special, allowed);
        Ok(if text.len() < SHORT { encode() } else { py.detach(encode) }?)
    }
}

/// Lists shorter than this do not make the table of ints.
const FEW: usize = 256;

/// `"all"` or a collection of special tokens.
pub fn allowed(value: Option<&Bound<'_, PyAny>>) -> PyResult<Allowed> {
    let Some(value) = value else { return Ok(Allowed::None) };
    if value.extract::<&str>().is_ok_and(|text| text == "all") {
        return Ok(Allowed::All);
    }
    let names = value.try_iter()?.map(|name| name?.extract()).collect::<PyResult<Vec<String>>>()?;
    Ok(if names.is_empty() { Allowed::None } else { Allowed::Some(names) })
}

fn unknown_method(method: &str, known: &str) -> PyErr {
    PyValueError::new_err(format!("method: expected one of {known}; got {method:?}"))
}

/// Ids from a uint32 array without a copy, or from any sequence of ints.
fn with_ids<T>(ids: &Bound<'_, PyAny>, run: impl FnOnce(&[u32]) -> T) -> PyResult<T> {
    if let Ok(array) = ids.extract::<PyReadonlyArray1<'_, u32>>() {
        if let Ok(slice) = array.as_slice() {
            return Ok(run(slice));
        }
    }
    let list: Vec<u32> = match ids.extract() {
        Ok(list) => list,
        Err(_) => ids.try_iter()?.map(|id| id_of(&id?)).collect::<PyResult<_>>()?,
    };
    Ok(run(&list))
}

/// An id from an int; one that no vocabulary can have is as unknown as others.
fn id_of(id: &Bound<'_, PyAny>) -> PyResult<u32> {
    id.extract().map_err(|error: PyErr| {
        if !error.is_instance_of::<PyOverflowError>(id.py()) {
            return error;
        }
        let unknown = || {
            let fields = PyDict::new(id.py());
            fields.set_item("token_id", id)?;
            let class = id.py().import("tokamask.errors")?.getattr("UnknownTokenError")?;
            class.call((format!("token id {id} is not in the vocabulary"),), Some(&fields))
        };
        unknown().map_or_else(|other| other, PyErr::from_value)
    })
}

fn read_file(path: &Bound<'_, PyAny>) -> PyResult<(String, Map)> {
    let path: std::path::PathBuf = path.extract()?;
    let read = || {
        let mut file = std::fs::File::open(&path)?;
        let mut start = Vec::with_capacity(file.metadata()?.len() as usize + 1);
        file.by_ref().take(compiled::MAGIC.len() as u64).read_to_end(&mut start)?;
        if start == compiled::MAGIC {
            file.rewind()?;
            return Map::open(&mut file); // our own files are replaced, never written into
        }
        file.read_to_end(&mut start)?;
        Ok(start.into())
    };
    let data = read().map_err(|error: std::io::Error| match error.raw_os_error() {
        Some(code) => {
            pyo3::exceptions::PyOSError::new_err((code, error.to_string(), path.display().to_string()))
        }
        None => error.into(),
    })?;
    Ok((path.display().to_string(), data))
}

fn at_path(error: tokamask::error::Error, path: &str) -> tokamask::error::Error {
    match error {
        tokamask::error::Error::Vocabulary(error) if error.path.is_none() => error.at_path(path).into(),
        other => other,
    }
}

#[pymethods]
impl Tokenizer {
    /// Reads a tokenizer file, told by its content: tokenizer.json, GGUF, or one that ``save`` wrote.
    ///
    /// Raises
    /// ------
    /// VocabularyError
    ///     The file is malformed; ``path``, ``line`` or ``token`` say where.
    /// UnsupportedComponentError
    ///     The file asks for a component that is not read; it is never guessed at.
    #[classmethod]
    fn from_file(_class: &Bound<'_, PyType>, py: Python<'_>, path: &Bound<'_, PyAny>) -> Result<Self> {
        let (path, data) = read_file(path)?;
        let tokenizer = py.detach(|| tokamask::tokenizer::Tokenizer::from_map(data));
        Ok(tokenizer.map_err(|error| at_path(error, &path))?.into())
    }

    /// The same from the bytes of a file.
    #[classmethod]
    fn from_bytes(_class: &Bound<'_, PyType>, py: Python<'_>, data: &[u8]) -> Result<Self> {
        Ok(py.detach(|| tokamask::tokenizer::Tokenizer::from_bytes(data))?.into())
    }

    /// The tokenizer that is built in: 32,768 tokens, superwords among them, and no file.
    ///
    /// Learnt by this package's own trainer from documentation, code, translations and novels under permissive licences
    /// (the repository's ``recipes/default_vocabulary``). Byte-level BPE that merges across words but not across newlines;
    /// one special token, ``<|endoftext|>``, id 0. Built once, then shared.
    ///
    /// Returns
    /// -------
    /// Tokenizer
    ///
    /// Examples
    /// --------
    /// >>> tok = tm.Tokenizer.default()
    /// >>> tok.encode("There is a difference, for example"), tok.decode([24629])
    /// ([6202, 24629, 6944, 26158], ' is a')
    #[classmethod]
    fn default(_class: &Bound<'_, PyType>, py: Python<'_>) -> Result<Py<Self>> {
        static BUILT: PyOnceLock<Py<Tokenizer>> = PyOnceLock::new();
        let build = || -> Result<Py<Self>> {
            let core =
                py.detach(|| tokamask::tokenizer::Tokenizer::new(tokamask::formats::default::definition()?))?;
            Ok(Py::new(py, Self::from(core))?)
        };
        BUILT.get_or_try_init(py, build).map(|built| built.clone_ref(py))
    }

    /// The tokenizer of a model: of a folder with its files, or of a name on the hub.
    ///
    /// The hub is asked only if ``huggingface_hub`` is installed; ``revision`` and ``token`` are for it.
    ///
    /// Raises
    /// ------
    /// VocabularyError
    ///     Nothing is there, or it cannot be fetched offline.
    #[classmethod]
    #[pyo3(signature = (name_or_dir, *, revision=None, token=None))]
    fn from_pretrained(
        class: &Bound<'_, PyType>,
        py: Python<'_>,
        name_or_dir: &Bound<'_, PyAny>,
        revision: Option<&str>,
        token: Option<&str>,
    ) -> Result<Self> {
        let find = py.import("tokamask.pretrained")?.getattr("find")?;
        Self::from_file(class, py, &find.call1((name_or_dir, revision, token))?)
    }

    /// tiktoken's kind of tokenizer.
    ///
    /// Parameters
    /// ----------
    /// ranks : path of a ``.tiktoken`` file, or dict[bytes, int]
    /// pattern : str
    ///     The split rule, a regular expression.
    /// special_tokens : dict[str, int]
    #[classmethod]
    #[pyo3(signature = (ranks, *, pattern, special_tokens=None))]
    fn from_tiktoken(
        _class: &Bound<'_, PyType>,
        py: Python<'_>,
        ranks: &Bound<'_, PyAny>,
        pattern: &str,
        special_tokens: Option<&Bound<'_, PyDict>>,
    ) -> Result<Self> {
        let tokens = if let Ok(ranks) = ranks.cast::<PyDict>() {
            let entries = ranks.iter().map(|(token, rank)| {
                Ok((token.cast::<PyBytes>()?.as_bytes().to_vec(), rank.extract::<u32>()?))
            });
            tiktoken::from_entries(entries.collect::<PyResult<Vec<_>>>()?)?
        } else {
            let (path, data) = read_file(ranks)?;
            py.detach(|| tiktoken::read(&data)).map_err(|error| error.at_path(path))?
        };
        let special: Vec<(String, u32)> = special_tokens
            .map(|d| d.iter().map(|(k, v)| Ok((k.extract()?, v.extract()?))).collect::<PyResult<_>>())
            .transpose()?
            .unwrap_or_default();
        Ok(py.detach(|| tokamask::tokenizer::Tokenizer::from_ranks(tokens, pattern, special))?.into())
    }

    /// The ids of ``text`` as a list of ints.
    ///
    /// Parameters
    /// ----------
    /// text : str
    /// add_special_tokens : bool
    ///     Put round the text what the file asks for (begin and end of sequence).
    /// allowed_special : collection of str, or "all"
    ///     Special tokens that are recognised in the text.
    /// threads : int
    ///     A text of 128 KiB or more is cut for so many threads where the ids do not change by it; not where a
    ///     pre-tokenizer changes the text.
    #[pyo3(signature = (text, *, add_special_tokens=false, allowed_special=None, threads=1))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        add_special_tokens: bool,
        allowed_special: Option<&Bound<'_, PyAny>>,
        threads: usize,
    ) -> Result<Bound<'py, PyList>> {
        let ids = self.ids(py, text, add_special_tokens, &allowed(allowed_special)?, threads)?;
        if ids.len() < FEW && self.ints.get(py).is_none() {
            return Ok(PyList::new(py, &*ids)?);
        }
        Ok(self.ints(py).list(py, &ids)?)
    }

    /// The ids of ``text`` as uint32 [n]; the arguments are those of :meth:`encode`.
    #[pyo3(signature = (text, *, add_special_tokens=false, allowed_special=None, threads=1))]
    fn encode_array<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        add_special_tokens: bool,
        allowed_special: Option<&Bound<'_, PyAny>>,
        threads: usize,
    ) -> Result<Bound<'py, PyArray1<u32>>> {
        // Copied: an array that owns its memory is made faster than one that keeps ours.
        let ids = self.ids(py, text, add_special_tokens, &allowed(allowed_special)?, threads)?;
        Ok(PyArray1::from_slice(py, &ids))
    }

    /// The ids of many texts, as a :class:`tokamask.Ragged`, on ``threads`` threads: by default on as many
    /// as the environment variable ``TOKAMASK_NUM_THREADS`` says, or on all cores. A text of a megabyte or more is
    /// itself cut for them, see :meth:`encode`.
    #[pyo3(signature = (texts, *, add_special_tokens=false, allowed_special=None, threads=None))]
    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'_, PyAny>,
        add_special_tokens: bool,
        allowed_special: Option<&Bound<'_, PyAny>>,
        threads: Option<std::num::NonZeroUsize>,
    ) -> Result<Bound<'py, PyAny>> {
        let allowed = allowed(allowed_special)?;
        let texts = texts.try_iter()?.map(|text| text?.extract()).collect::<PyResult<Vec<PyBackedStr>>>()?;
        let texts: Vec<&str> = texts.iter().map(|text| &**text).collect();
        let (ids, offsets) =
            py.detach(|| self.inner.encode_batch(&texts, add_special_tokens, &allowed, threads))?;
        let ragged = py.import("tokamask.ragged")?.getattr("Ragged")?;
        Ok(ragged.call1((to_numpy(py, ids), to_numpy(py, offsets)))?)
    }

    /// The documents of files as :class:`tokamask.Ragged`, file after file in the order given, read when asked for.
    ///
    /// Parameters
    /// ----------
    /// paths : iterable of paths
    /// separator : str, optional
    ///     What stands between the documents of a file and belongs to none of them; what follows the last one is a document
    ///     unless it is empty. Without one every file is a document.
    /// add_special_tokens, allowed_special, threads
    ///     As for :meth:`encode_batch`.
    ///
    /// Yields
    /// ------
    /// Ragged
    ///     One for every file; of a file with a separator one for every 64 MiB or so.
    ///
    /// Raises
    /// ------
    /// VocabularyError
    ///     A file is not UTF-8; ``path`` says which, the message where.
    ///
    /// Examples
    /// --------
    /// >>> [rows.to_lists() for rows in tok.encode_files(paths, separator="\n")]  # doctest: +SKIP
    /// [[[537], [827]], [[1296]]]
    #[pyo3(signature = (paths, *, separator=None, add_special_tokens=false, allowed_special=None, threads=None))]
    fn encode_files<'py>(
        slf: &Bound<'py, Self>,
        paths: &Bound<'py, PyAny>,
        separator: Option<&str>,
        add_special_tokens: bool,
        allowed_special: Option<&Bound<'py, PyAny>>,
        threads: Option<std::num::NonZeroUsize>,
    ) -> Result<Bound<'py, PyAny>> {
        let encode = slf.py().import("tokamask.files")?.getattr("encode_files")?;
        Ok(encode.call1((slf, paths, separator, add_special_tokens, allowed_special, threads))?)
    }

    /// The number of ids of ``text``.
    #[pyo3(signature = (text, *, add_special_tokens=false, allowed_special=None))]
    fn count(
        &self,
        py: Python<'_>,
        text: &str,
        add_special_tokens: bool,
        allowed_special: Option<&Bound<'_, PyAny>>,
    ) -> Result<usize> {
        let allowed = allowed(allowed_special)?;
        Ok(py.detach(|| self.inner.count(text, add_special_tokens, &allowed))?)
    }

    /// The number of ids of each text, as int64 [batch]; ``threads`` as for :meth:`encode_batch`.
    #[pyo3(signature = (texts, *, add_special_tokens=false, allowed_special=None, threads=None))]
    fn count_batch<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'_, PyAny>,
        add_special_tokens: bool,
        allowed_special: Option<&Bound<'_, PyAny>>,
        threads: Option<std::num::NonZeroUsize>,
    ) -> Result<Bound<'py, PyArray1<i64>>> {
        let allowed = allowed(allowed_special)?;
        let texts = texts.try_iter()?.map(|text| text?.extract()).collect::<PyResult<Vec<PyBackedStr>>>()?;
        let texts: Vec<&str> = texts.iter().map(|text| &**text).collect();
        Ok(to_numpy(py, py.detach(|| self.inner.count_batch(&texts, add_special_tokens, &allowed, threads))?))
    }

    /// The longest prefix of ``text`` that fits: ``(end, count)`` with ``count == tok.count(text[:end]) <= max_tokens``.
    ///
    /// It ends where a token of the text ends. Only as much of the text is encoded as is needed.
    ///
    /// Raises
    /// ------
    /// UnsupportedComponentError
    ///     A normalizer changes the text, so that its tokens have no places in it.
    fn fit(&self, py: Python<'_>, text: &str, max_tokens: usize) -> Result<(usize, usize)> {
        let (end, count) = py.detach(|| self.inner.fit(text, max_tokens))?;
        Ok((text[..end].chars().count(), count))
    }

    /// The ids of ``text`` and where they come from, as a :class:`tokamask.Encoding`.
    ///
    /// Raises
    /// ------
    /// UnsupportedComponentError
    ///     A normalizer changes the text: use ``tokamask.compat.tokenizers``, which follows it step by step.
    #[pyo3(signature = (text, *, add_special_tokens=false, allowed_special=None))]
    fn encode_with_offsets<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        add_special_tokens: bool,
        allowed_special: Option<&Bound<'_, PyAny>>,
    ) -> Result<Bound<'py, PyAny>> {
        let allowed = allowed(allowed_special)?;
        let spans = py.detach(|| self.inner.encode_spans(text, add_special_tokens, &allowed))?;
        let pairs = |pairs: Vec<[u32; 2]>| to_numpy(py, pairs.concat()).reshape([pairs.len(), 2]);
        let encoding = py.import("tokamask.encoding")?.getattr("Encoding")?;
        let (chars, bytes) = (pairs(spans.chars)?, pairs(spans.bytes)?);
        Ok(encoding.call1((to_numpy(py, spans.ids), chars, bytes, to_numpy(py, spans.words)))?)
    }

    /// A text that grows and keeps its ids: :class:`tokamask.Appender`.
    fn appender(&self) -> Appender {
        Appender(tokamask::tokenizer::appender::Appender::new(Arc::clone(&self.inner)))
    }

    /// The ids of ``text`` as uint32 [n] without merges: tokens are chosen by length or number, within pretokens.
    ///
    /// Parameters
    /// ----------
    /// text : str
    /// method : "greedy_left", "greedy_right", "fewest" or "longest"
    ///     The longest token from the left or from the right, again and again; as few tokens as possible (the longest
    ///     last one of equals); or the longest anywhere, then both sides. ``reference.segmentation`` defines them.
    ///
    /// Notes
    /// -----
    /// A model has rarely seen such ids. Superword vocabularies need up to 13 % more of them with ``greedy_left``.
    #[pyo3(signature = (text, *, method))]
    fn encode_by<'py>(&self, py: Python<'py>, text: &str, method: &str) -> Result<Bound<'py, PyArray1<u32>>> {
        let method = match method {
            "greedy_left" => Method::GreedyLeft,
            "greedy_right" => Method::GreedyRight,
            "fewest" => Method::Fewest,
            "longest" => Method::Longest,
            _ => return Err(unknown_method(method, "greedy_left, greedy_right, fewest, longest").into()),
        };
        Ok(to_numpy(py, py.detach(|| self.inner.encode_by(text, method))?))
    }

    /// A random segmentation of ``text`` as uint32 [n]; the same seed gives the same ids.
    ///
    /// Parameters
    /// ----------
    /// text : str
    /// method : "stochastok", "dropout" or "uniform"
    ///     Split tokens of the usual encoding in two, ``p`` attempts a token (StochasTok); leave out each merge with
    ///     probability ``p`` at each step (BPE-dropout); or draw among all ways to write each pretoken.
    /// p : float
    ///     From 0 (the usual encoding) to 1; not used by "uniform".
    /// seed : int
    #[pyo3(signature = (text, *, method, seed, p=0.1))]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        method: &str,
        seed: u64,
        p: f64,
    ) -> Result<Bound<'py, PyArray1<u32>>> {
        if !(0.0..=1.0).contains(&p) {
            return Err(PyValueError::new_err(format!("p: expected 0 to 1, got {p}")).into());
        }
        let law = match method {
            "stochastok" => Law::Stochastok(p),
            "dropout" => Law::Dropout(p),
            "uniform" => Law::Uniform,
            _ => return Err(unknown_method(method, "stochastok, dropout, uniform").into()),
        };
        Ok(to_numpy(py, py.detach(|| self.inner.sample(text, law, seed))?))
    }

    /// True if ``ids`` are what ``encode`` gives for the text they spell; special tokens stand for themselves.
    fn is_canonical(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> Result<bool> {
        Ok(self.first_noncanonical(py, ids)?.is_none())
    }

    /// The first place at which ``ids`` differ from the encoding of what they spell, or None.
    fn first_noncanonical(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> Result<Option<usize>> {
        Ok(with_ids(ids, |ids| py.detach(|| self.inner.first_noncanonical(ids)))??)
    }

    /// All encodings that begin with the bytes ``prefix`` and would not without their last id, sorted.
    ///
    /// These are the sequences ``t`` with ``encode(decode(t)) == t``: the probability that a text goes on with
    /// ``prefix`` is the sum of theirs.
    fn cover_encodings(&self, py: Python<'_>, prefix: &[u8]) -> Result<Vec<Vec<u32>>> {
        Ok(py.detach(|| self.inner.cover_encodings(prefix))?)
    }

    /// ``(kept_ids, pending_bytes)``: the ids of a prompt that stay whatever is written after it, and the bytes of the
    /// others, which the continuation has to begin with.
    fn heal<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> Result<(Vec<u32>, Bound<'py, PyBytes>)> {
        let heal = |ids: &[u32]| Ok((self.inner.heal(ids)?, ids.to_vec()));
        let ((kept, pending), mut ids): ((usize, Vec<u8>), Vec<u32>) =
            with_ids(ids, |ids| py.detach(|| heal(ids)))?.map_err(|error: tokamask::error::Error| error)?;
        ids.truncate(kept);
        Ok((ids, PyBytes::new(py, &pending)))
    }

    /// Log mass by next byte, float64 [257], of the tokens that spell ``pending`` and more; entry 256 is the end.
    ///
    /// One next-token law only: mass of tokens that spell no more than ``pending`` is left out, so nothing is
    /// normalised. :func:`tokamask.healing.next_byte_law` sums over all cover encodings and is exact.
    ///
    /// Parameters
    /// ----------
    /// token_logprobs : float32 [vocab_size or more]
    /// pending : bytes
    #[pyo3(signature = (token_logprobs, pending=None))]
    fn next_byte_logprobs<'py>(
        &self,
        py: Python<'py>,
        token_logprobs: &Bound<'_, PyArray1<f32>>,
        pending: Option<&[u8]>,
    ) -> Result<Bound<'py, PyArray1<f64>>> {
        let logprobs = token_logprobs.readonly().as_array().to_vec();
        let pending = pending.unwrap_or_default();
        Ok(to_numpy(py, py.detach(|| self.inner.next_byte_logprobs(&logprobs, pending))?))
    }

    /// The text that ``ids`` (list[int] or uint32 [n]) spell; bytes that are not UTF-8 become U+FFFD.
    fn decode(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> Result<String> {
        Ok(with_ids(ids, |ids| py.detach(|| self.inner.decode(ids)))??)
    }

    /// The bytes that ``ids`` spell; ``decode_bytes(encode(text)) == text.encode()``.
    fn decode_bytes<'py>(&self, py: Python<'py>, ids: &Bound<'_, PyAny>) -> Result<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &with_ids(ids, |ids| py.detach(|| self.inner.decode_bytes(ids)))??))
    }

    /// The texts of a :class:`tokamask.Ragged`, or of any sequence of rows of ids.
    fn decode_batch(&self, py: Python<'_>, rows: &Bound<'_, PyAny>) -> Result<Vec<String>> {
        rows.try_iter()?.map(|row| self.decode(py, &row?)).collect()
    }

    /// A decoder for a stream of ids: ``push(id)`` gives the text that became complete.
    fn stream_decoder(&self) -> StreamDecoder {
        StreamDecoder {
            vocabulary: self.vocabulary.clone(),
            inner: tokamask::tokenizer::StreamDecoder::default(),
        }
    }

    /// Tokens and their bytes.
    #[getter]
    fn vocabulary(&self) -> Vocabulary {
        self.vocabulary.clone()
    }

    /// Writes the tokenizer to ``path``: a tokenizer.json if the name ends in ``.json``, a tekken.json if it begins with
    /// ``tekken`` as well, tiktoken's ranks if it ends in ``.tiktoken`` (without split rule and special tokens, for which
    /// that file has no place), else the compiled form that loads fastest.
    ///
    /// A compiled file is mapped into memory when it is read. Its length and checksum are verified each time, which finds accidents,
    /// not forgery: load only files that you trust as much as your code. Replace a file that somebody may have mapped; do not write into it.
    fn save(&self, path: std::path::PathBuf) -> Result<()> {
        let definition = self.inner.definition();
        let tekken = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tekken"));
        let data = match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("json") if tekken => tekken::write(definition)?,
            Some("json") => tokenizer_json_write::write(definition)?,
            Some("tiktoken") => tiktoken::write(definition)?,
            _ => self.inner.to_compiled()?,
        };
        Ok(std::fs::write(path, data).map_err(PyErr::from)?)
    }

    /// Writes the compiled form, whatever the name of the file ends in; see :meth:`save`.
    ///
    /// Raises
    /// ------
    /// OSError
    ///     The file cannot be written.
    ///
    /// Examples
    /// --------
    /// >>> tok.compile("vocabulary.bin")  # doctest: +SKIP
    /// >>> tok = tm.Tokenizer.from_file("vocabulary.bin")  # doctest: +SKIP
    fn compile(&self, path: std::path::PathBuf) -> Result<()> {
        Ok(std::fs::write(path, self.inner.to_compiled()?).map_err(PyErr::from)?)
    }

    fn __len__(&self) -> usize {
        self.inner.vocabulary().len()
    }

    fn __repr__(&self) -> String {
        format!("<Tokenizer of {} ids>", self.inner.vocabulary().len())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Result<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let py = slf.py();
        let data = slf.get().inner.to_compiled()?;
        Ok((slf.get_type().getattr("from_bytes")?, (PyBytes::new(py, &data),)))
    }

    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'_, PyAny>) -> Bound<'py, Self> {
        slf
    }
}

/// Decodes a stream of ids without ever cutting inside a character.
///
/// Examples
/// --------
/// >>> stream = tok.stream_decoder()
/// >>> "".join(stream.push(i) for i in tok.encode("naïve")) + stream.flush()
/// 'naïve'
#[pyclass(module = "tokamask")]
pub struct StreamDecoder {
    vocabulary: Vocabulary,
    inner: tokamask::tokenizer::StreamDecoder,
}

#[pymethods]
impl StreamDecoder {
    /// Adds a token; the text that became complete, possibly empty.
    fn push(&mut self, token_id: &Bound<'_, PyAny>) -> Result<String> {
        Ok(self.inner.push(&self.vocabulary.0, id_of(token_id)?)?)
    }

    /// Ends the stream: an unfinished character becomes U+FFFD.
    fn flush(&mut self) -> String {
        self.inner.flush()
    }
}
