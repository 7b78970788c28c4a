# Stubs of the compiled module; `make lint` compares them with the binary.

import builtins
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

from tokamask.draft import DraftTree
from tokamask.draft_corpus import DraftCorpus
from tokamask.encoding import Encoding
from tokamask.grammar import Limits
from tokamask.ragged import Ragged

_Patience: TypeAlias = tuple[float, Callable[[], bool] | None]
_TokenIds: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]

def build_info() -> dict[str, Any]: ...

@final
class Vocabulary:
    def __new__(
        cls,
        token_bytes: list[builtins.bytes | None],
        *,
        special: dict[str, int] | None = None,
        eos_ids: list[int] = ...,
    ) -> Vocabulary: ...
    @classmethod
    def from_tokenizer(cls, tokenizer: object) -> Vocabulary: ...
    def __len__(self) -> int: ...
    def bytes(self, token_id: int) -> builtins.bytes: ...
    def id(self, bytes: builtins.bytes) -> int: ...
    def is_special(self, token_id: int) -> bool: ...
    @property
    def eos_ids(self) -> list[int]: ...
    @property
    def special(self) -> dict[str, int]: ...
    def with_(self, *, eos_ids: list[int] | None = None, vocab_size: int | None = None) -> Vocabulary: ...
    def __getnewargs_ex__(self) -> tuple[tuple[list[builtins.bytes | None]], dict[str, object]]: ...

# tokenizer

@final
class Tokenizer:
    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Tokenizer: ...
    @classmethod
    def from_bytes(cls, data: bytes) -> Tokenizer: ...
    @classmethod
    def default(cls) -> Tokenizer: ...
    @classmethod
    def from_tiktoken(
        cls,
        ranks: str | os.PathLike[str] | dict[bytes, int],
        *,
        pattern: str,
        special_tokens: dict[str, int] | None = None,
    ) -> Tokenizer: ...
    def encode(
        self,
        text: str,
        *,
        add_special_tokens: bool = False,
        allowed_special: Collection[str] | Literal["all"] | None = None,
        threads: int = 1,
    ) -> list[int]: ...
    def encode_array(
        self,
        text: str,
        *,
        add_special_tokens: bool = False,
        allowed_special: Collection[str] | Literal["all"] | None = None,
        threads: int = 1,
    ) -> npt.NDArray[np.uint32]: ...
    def encode_batch(
        self,
        texts: Iterable[str],
        *,
        add_special_tokens: bool = False,
        allowed_special: Collection[str] | Literal["all"] | None = None,
        threads: int | None = None,
    ) -> Ragged: ...
    def encode_files(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        separator: str | None = None,
        add_special_tokens: bool = False,
        allowed_special: Collection[str] | Literal["all"] | None = None,
        threads: int | None = None,
    ) -> Iterator[Ragged]: ...
    def count(
        self,
        text: str,
        *,
        add_special_tokens: bool = False,
        allowed_special: Collection[str] | Literal["all"] | None = None,
    ) -> int: ...
    @classmethod
    def from_pretrained(
        cls, name_or_dir: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None
    ) -> Tokenizer: ...
    def count_batch(
        self,
        texts: Iterable[str],
        *,
        add_special_tokens: bool = False,
        allowed_special: Collection[str] | Literal["all"] | None = None,
        threads: int | None = None,
    ) -> npt.NDArray[np.int64]: ...
    def fit(self, text: str, max_tokens: int) -> tuple[int, int]: ...
    def encode_with_offsets(
        self,
        text: str,
        *,
        add_special_tokens: bool = False,
        allowed_special: Collection[str] | Literal["all"] | None = None,
    ) -> Encoding: ...
    def appender(self) -> Appender: ...
    def encode_by(
        self, text: str, *, method: Literal["greedy_left", "greedy_right", "fewest", "longest"]
    ) -> npt.NDArray[np.uint32]: ...
    def sample(
        self, text: str, *, method: Literal["stochastok", "dropout", "uniform"], seed: int, p: float = 0.1
    ) -> npt.NDArray[np.uint32]: ...
    def is_canonical(self, ids: _TokenIds) -> bool: ...
    def first_noncanonical(self, ids: _TokenIds) -> int | None: ...
    def cover_encodings(self, prefix: bytes) -> list[list[int]]: ...
    def heal(self, ids: _TokenIds) -> tuple[list[int], bytes]: ...
    def next_byte_logprobs(
        self, token_logprobs: npt.NDArray[np.float32], pending: bytes | None = None
    ) -> npt.NDArray[np.float64]: ...
    def decode(self, ids: Sequence[int] | npt.NDArray[Any]) -> str: ...
    def decode_bytes(self, ids: Sequence[int] | npt.NDArray[Any]) -> bytes: ...
    def decode_batch(self, rows: Iterable[Sequence[int] | npt.NDArray[Any]]) -> list[str]: ...
    def stream_decoder(self) -> StreamDecoder: ...
    @property
    def vocabulary(self) -> Vocabulary: ...
    def save(self, path: str | os.PathLike[str]) -> None: ...
    def compile(self, path: str | os.PathLike[str]) -> None: ...
    def __len__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, tuple[bytes]]: ...
    def __copy__(self) -> Tokenizer: ...
    def __deepcopy__(self, memo: Any) -> Tokenizer: ...

@final
class Appender:
    def append(self, text: str) -> int: ...
    def truncate(self, n: int) -> None: ...
    @property
    def ids(self) -> npt.NDArray[np.uint32]: ...
    @property
    def settled(self) -> int: ...
    @property
    def text(self) -> str: ...
    def __len__(self) -> int: ...

@final
class StreamDecoder:
    def push(self, token_id: int) -> str: ...
    def flush(self) -> str: ...

# what tokamask.compat needs

@final
class Pattern:
    def __new__(cls, source: str) -> Pattern: ...
    def find(self, text: str) -> list[tuple[int, int]]: ...

def read_ranks(data: bytes) -> dict[bytes, int]: ...
def cut_scripts(text: str) -> list[tuple[int, int]]: ...
def may_have_special(tokenizer: Tokenizer, text: str) -> bool: ...
def encode_lists(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    allowed_special: Collection[str] | Literal["all"] | None,
) -> list[list[int]]: ...
def encode_utf8(
    tokenizer: Tokenizer,
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    add_special_tokens: bool,
    allowed_special: Collection[str] | Literal["all"] | None,
    threads: int | None = None,
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]: ...
def encode_piece(tokenizer: Tokenizer, piece: bytes) -> list[int]: ...
def encode_bytes(tokenizer: Tokenizer, data: bytes) -> list[int]: ...
def encode_unstable(
    tokenizer: Tokenizer, text: str, allowed_special: Collection[str] | Literal["all"] | None
) -> tuple[list[int], list[list[int]]]: ...

# Drafts

@final
class Drafter:
    def __new__(
        cls,
        *,
        capacity_tokens: int = 1048576,
        recycle: int = 8,
        verify_cost: list[float] | None = None,
        corpus: DraftCorpus | None = None,
    ) -> Drafter: ...
    def session(
        self,
        prompt_ids: _TokenIds,
        *,
        prompt_topk: npt.ArrayLike | None = None,
        matcher: Matcher | None = None,
    ) -> DraftSession: ...
    def observe(self, rows: int, time: float) -> None: ...
    @property
    def verify_cost(self) -> list[float] | None: ...
    @property
    def tokens(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

@final
class DraftSession:
    def propose(self, budget: int = 32, *, chain: bool = False) -> DraftTree: ...
    def update(
        self,
        accepted_ids: _TokenIds,
        *,
        tree: DraftTree | None = None,
        topk_ids: npt.ArrayLike | None = None,
        topk_logprobs: npt.ArrayLike | None = None,
    ) -> None: ...
    @property
    def token_ids(self) -> npt.NDArray[np.uint32]: ...

def count_continuations(texts: list[npt.NDArray[Any]], most_bytes: int) -> npt.NDArray[np.uint64]: ...

# Array kernels: called by tokamask.sampling, .selection and .attention with checked numpy arrays.
_Array = npt.NDArray[Any]

def apply_bitmask(logits: _Array, bitmask: _Array, rows: _Array | None) -> None: ...
def sample(
    logits: _Array,
    bitmask: _Array | None,
    rows: _Array | None,
    history: tuple[_Array | None, _Array | None] | None,
    laws: _Array,
    top_k: _Array,
    seeds: _Array,
    streams: _Array,
    steps: _Array,
    tokens: _Array,
    logprobs: _Array,
) -> None: ...
def verify_greedy(
    token_ids: _Array, parents: _Array, target_ids: _Array, out: tuple[_Array, _Array, _Array]
) -> None: ...
def verify_sampled(
    token_ids: _Array,
    parents: _Array,
    target_probs: _Array,
    draft_probs: _Array | None,
    rule: str,
    seeds: _Array,
    rows: _Array,
    steps: _Array,
    out: tuple[_Array, _Array, _Array],
) -> None: ...
def block_sparse_prefill(
    q: _Array,
    k: _Array,
    v: _Array,
    indptr: _Array,
    indices: _Array,
    size: tuple[int, int],
    causal: bool,
    scale: float,
    out: _Array,
    lse: _Array,
) -> None: ...
def selected_prefill(
    q: _Array, k: _Array, v: _Array, selected: _Array, scale: float, out: _Array, lse: _Array
) -> None: ...
def hybrid_attention(
    q: _Array,
    k: _Array,
    v: _Array,
    salient: _Array,
    phi_q: _Array,
    phi_k: _Array,
    window: int,
    scale: float,
    out: _Array,
) -> None: ...
def key_scores(k: _Array, directions: bool, out: _Array) -> None: ...
def lagkv_scores(k: _Array, v: _Array, counts: tuple[int, int], out: _Array) -> None: ...
def window_scores(q: _Array, k: _Array, scale: float, kernel: int, one_list: bool, out: _Array) -> None: ...
def token_sparse_select(
    q: _Array, k: _Array, scale: float, kernel: int, coverage: float, min_tokens: int
) -> npt.NDArray[np.int32]: ...
def kvmerger_merge(
    k: _Array, v: _Array, scores: _Array, epsilon: float, counts: tuple[int, int]
) -> tuple[_Array, _Array, _Array, _Array, list[int]]: ...
def ems_merge(
    k: _Array, v: _Array, scores: _Array, counts: tuple[int, int], threshold: float
) -> tuple[_Array, _Array, _Array, _Array, list[int]]: ...
def entropy_scores(x: _Array, out: _Array) -> None: ...
def pagerank_scores(attention: _Array, rounds: int, variance: tuple[float, float], out: _Array) -> None: ...
def decode(
    q: _Array,
    k_cache: _Array,
    v_cache: _Array,
    page_table: _Array,
    selected: _Array | None,
    seq_lens: _Array,
    scale: float,
    sinks: _Array | None,
    out: _Array,
    lse: _Array,
) -> None: ...
def tree_decode(
    q: _Array,
    k_cache: _Array,
    v_cache: _Array,
    page_table: _Array,
    tree_mask: _Array,
    k_tree: _Array,
    v_tree: _Array,
    seq_lens: _Array,
    scale: float,
    out: _Array,
    lse: _Array,
) -> None: ...
def append_rows(rows: _Array, cache: _Array, where: tuple[_Array, _Array, _Array]) -> None: ...
def append_chunks(
    rows: _Array, dominant: _Array, interleaved: bool, cache: _Array, where: tuple[_Array, _Array, _Array]
) -> None: ...
def append_bounds(
    rows: _Array, low: _Array, high: _Array, size: tuple[int, int], where: tuple[_Array, _Array, _Array]
) -> None: ...
def append_sums(
    rows: _Array, sums: _Array, size: tuple[int, int], where: tuple[_Array, _Array, _Array]
) -> None: ...
def merge_states(v: _Array, lse: _Array, out: _Array, lse_out: _Array) -> None: ...
def lightning(q: _Array, k: _Array, v: _Array, decay: _Array, state: _Array, out: _Array) -> None: ...
def token_select(
    q: _Array,
    k_cache: _Array,
    page_table: _Array,
    seq_lens: _Array,
    counts: tuple[int, int, int],
    scale: float,
    out: _Array,
) -> None: ...
def fasa_calibrate(q: _Array, k: _Array, n_chunks: int, top: int, interleaved: bool) -> _Array: ...
def fasa_scores(
    q: _Array,
    k_cache: _Array,
    page_table: _Array,
    dominant: _Array,
    seq_lens: _Array,
    interleaved: bool,
    out: _Array,
) -> None: ...
def quest_bounds(
    k_cache: _Array, page_table: _Array, seq_lens: _Array, low: _Array, high: _Array
) -> None: ...
def quest_scores(
    q: _Array,
    low: _Array,
    high: _Array,
    page_table: _Array,
    seq_lens: _Array,
    page_size: int,
    out: _Array,
) -> None: ...
def indexer_scores(q: _Array, k: _Array, w: _Array, positions: _Array, out: _Array) -> None: ...
def hisa_select(
    q: _Array, k: _Array, w: _Array, positions: _Array, counts: tuple[int, int, int], out: _Array
) -> None: ...
def attention_column_sums(q: _Array, k: _Array, scale: float, out: _Array) -> None: ...
def greedy_select(x: _Array, importance: _Array | None, lam: float, sum: bool, out: _Array) -> None: ...
def merge_rows(
    x: _Array,
    metric: _Array,
    size: _Array,
    r: int,
    threshold: float | None,
    margin: float | None,
    protect: int,
) -> tuple[_Array, _Array, _Array]: ...
def tome_edges(metric: _Array, protect: int) -> npt.NDArray[np.float32]: ...
def unmask(
    logits: _Array,
    masked: _Array,
    bitmask: _Array | None,
    threshold: float | None,
    count: int | None,
    tokens: _Array,
    confidence: _Array,
    accepted: _Array,
) -> None: ...
def multiply_rows(x: _Array, matrix: _Array, out: _Array) -> None: ...
def top_k(scores: _Array, k: int, lengths: _Array | None, out: _Array) -> None: ...

# Training

_Counts = tuple[npt.NDArray[Any], ...]
_Trained = tuple[Tokenizer, npt.NDArray[np.uint32], list[bytes]]

@final
class PretokenCounter:
    def __new__(cls, words: str, runs: str | None, by_line: bool) -> PretokenCounter: ...
    def add_texts(self, texts: list[str]) -> None: ...
    def add_blocks(self, blocks: list[bytes], places: list[tuple[str, int]]) -> None: ...
    def add_counts(self, counts: _Counts) -> None: ...
    def counts(self) -> _Counts: ...
    @property
    def nbytes(self) -> int: ...

def unreachable_tokens(tokenizer: Tokenizer) -> npt.NDArray[np.uint32]: ...
def merge_counts(a: _Counts, b: _Counts) -> _Counts: ...
def check_counts(counts: _Counts) -> None: ...
def train_bpe(
    counts: _Counts,
    components: str,
    special_tokens: list[str],
    initial_alphabet: bytes,
    vocab_size: int,
    min_frequency: int,
    max_token_length: int | None,
    report: Callable[[int], object] | None,
) -> _Trained: ...

# Grammars and matchers

@final
class GrammarSource:
    @property
    def warnings(self) -> list[str]: ...

@final
class CompiledGrammar:
    def matcher(self) -> Matcher: ...
    def save(self, path: str | os.PathLike[str]) -> None: ...
    @staticmethod
    def load(
        path: str | os.PathLike[str], vocabulary: Vocabulary, *, limits: Limits | None = None
    ) -> CompiledGrammar: ...
    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def warnings(self) -> list[str]: ...
    @property
    def memory_bytes(self) -> int: ...
    def fill_ahead(self, *, wait: bool = False) -> int: ...
    @property
    def table_bytes(self) -> int: ...

@final
class Matcher:
    def fill_bitmask(self, bitmask: npt.NDArray[np.int32], row: int = 0) -> bool: ...
    @property
    def vocab_size(self) -> int: ...
    def mask_row(self) -> npt.NDArray[np.int32]: ...
    def plain_row(self) -> npt.NDArray[np.int32]: ...
    def accept(self, token_id: int) -> None: ...
    def accept_prefix(self, token_ids: Sequence[int]) -> int: ...
    def is_allowed(self, token_id: int) -> bool: ...
    def first_allowed(self, token_ids: Sequence[int]) -> tuple[int, int]: ...
    def rollback(self, n: int = 1) -> None: ...
    def fork(self) -> Matcher: ...
    def reset(self) -> None: ...
    def forced_tokens(self) -> list[int]: ...
    def is_accepting(self) -> bool: ...
    def is_terminated(self) -> bool: ...
    def expected(self) -> str: ...
    def __len__(self) -> int: ...
    def fill_tree(self, bitmask: npt.NDArray[np.int32], tree: Any) -> npt.NDArray[np.bool_]: ...

def read_json_schema(
    text: str,
    space: int,
    schema_order: bool,
    assert_format: bool,
    resources: list[tuple[str, str]],
    patience: _Patience,
) -> GrammarSource: ...
def choice(texts: list[str]) -> GrammarSource: ...
def read_regex(pattern: str, patience: _Patience) -> GrammarSource: ...
def read_ebnf(text: str, root: str, patience: _Patience) -> GrammarSource: ...
def read_lark(text: str, start: str, patience: _Patience) -> GrammarSource: ...
def read_structural_tag(text: str, space: int, patience: _Patience) -> GrammarSource: ...
def compile_grammar(
    source: GrammarSource, vocabulary: Vocabulary, limits: Limits, cache: bool
) -> CompiledGrammar: ...
def fill_bitmasks(
    matchers: list[Matcher], bitmask: npt.NDArray[np.int32], rows: list[int], threads: int | None = None
) -> npt.NDArray[np.bool_]: ...
def train_superbpe(
    counts: _Counts,
    components: str,
    special_tokens: list[str],
    initial_alphabet: bytes,
    vocab_size: int,
    transition: int,
    max_words: int,
    min_frequency: int,
    report: Callable[[int], object] | None,
) -> _Trained: ...
def train_extend(
    tokenizer: Tokenizer,
    counts: _Counts,
    components: str,
    vocab_size: int,
    max_words: int | None,
    veto: Callable[[bytes], bool] | None,
    min_frequency: int,
    report: Callable[[int], object] | None,
) -> Tokenizer: ...
def train_unigram(
    counts: _Counts,
    pieces: int,
    vocab_size: int,
    rounds: int,
    shrinking_factor: float,
    max_piece_length: int,
    seed_size: int,
    initial_alphabet: str,
    report: Callable[[int], object] | None,
) -> list[tuple[str, float]]: ...
def train_wordpiece(
    counts: _Counts,
    vocab_size: int,
    special_tokens: int,
    min_frequency: int,
    limit_alphabet: int,
    initial_alphabet: str,
    prefix: str,
    report: Callable[[int], object] | None,
) -> list[str]: ...
def train_boundless(
    counts: _Counts,
    components: str,
    special_tokens: list[str],
    initial_alphabet: bytes,
    vocab_size: int,
    max_words: int | None,
    min_frequency: int,
    report: Callable[[int], object] | None,
) -> _Trained: ...
def replay_merges(
    tokenizer: Tokenizer, counts: _Counts, report: Callable[[int], object] | None
) -> tuple[
    npt.NDArray[np.uint32],
    npt.NDArray[np.uint32],
    npt.NDArray[np.uint32],
    npt.NDArray[np.uint32],
    npt.NDArray[np.uint64],
]: ...
