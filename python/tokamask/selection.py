"""Which tokens survive: exact top-k and the scores and rules that feed it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from tokamask import _core
from tokamask.errors import ShapeError
from tokamask.gpu.arrays import is_cuda
from tokamask.press import (
    CompressedCache,
    ems_merge,
    keydiff_scores,
    knorm_scores,
    kvmerger_merge,
    lagkv_scores,
    snapkv_scores,
    token_sparse_select,
    tova_scores,
)
from tokamask.quest import page_tokens, quest_bounds, quest_scores
from tokamask.reduction import (
    Merged,
    dymu_merge,
    dymu_threshold,
    entropy_scores,
    greedy_select,
    pagerank_scores,
    pitome_merge,
    tome_merge,
)
from tokamask.reference import unmask as unmask_reference
from tokamask.reference.selection import cache_places
from tokamask.shapes import (
    FLOATS,
    Shapes,
    as_numpy,
    cuda_function,
    dtype_name,
    library,
    natural,
    output,
    refuse,
    scale_of,
)

__all__ = [
    "CompressedCache",
    "Merged",
    "SelectionCache",
    "attention_column_sums",
    "dymu_merge",
    "dymu_threshold",
    "ems_merge",
    "entropy_scores",
    "fasa_calibrate",
    "fasa_scores",
    "greedy_select",
    "hisa_select",
    "indexer_scores",
    "keydiff_scores",
    "knorm_scores",
    "kvmerger_merge",
    "lagkv_scores",
    "page_tokens",
    "pagerank_scores",
    "pitome_merge",
    "quest_bounds",
    "quest_scores",
    "snapkv_scores",
    "token_select",
    "token_sparse_select",
    "tome_merge",
    "top_k",
    "tova_scores",
    "unmask",
    "unmask_schedule",
]


def top_k(
    scores: Any, k: int, *, lengths: Any = None, page_table: Any = None, page_size: int = 1, out: Any = None
) -> Any:
    """Indices of the ``k`` greatest scores of each row, exact and ascending.

    NaN ranks below -inf, -0.0 equals 0.0, and ties at the cut are kept by lowest index, so the result is the same on every
    device.

    Parameters
    ----------
    scores : float32, float16 or bfloat16 [rows, n]
        numpy (bfloat16 as uint16), torch or CuPy; rows may be strided.
    k : int
        How many, 0 or more; may exceed ``n``.
    lengths : int32 [rows], optional
        Only ``scores[row, :lengths[row]]`` counts; clipped to [0, n].
    page_table : int32 [rows or 1, max_pages], optional
        With it, places in a paged cache instead of positions: ``page_table[i // page_size] * page_size + i % page_size``.
    page_size : int
        Of the page table.
    out : int32 [rows, k], optional
        Where to put the result.

    Returns
    -------
    int32 [rows, k]
        Ascending by position; rows with fewer than ``k`` scores end in -1.

    Examples
    --------
    >>> import numpy as np, tokamask as tm
    >>> tm.selection.top_k(np.array([[1, 9, 9, 3]], np.float32), 2).tolist()
    [[1, 2]]

    """
    if is_cuda(scores):
        options = {"lengths": lengths, "page_table": page_table, "page_size": page_size, "out": out}
        return cuda_function("selection", "top_k", scores)(scores, k, **options)
    shapes = Shapes()
    shapes.check("scores", scores, FLOATS, "rows", "n")
    if page_table is not None:
        _check_table(shapes, page_table, natural("page_size", page_size, 1))
    if lengths is not None:
        shapes.check("lengths", lengths, ("int32",), "rows")
    selected = output("out", out, scores, (shapes["rows"], natural("k", k)), "int32")
    found = as_numpy(selected)
    _core.top_k(as_numpy(scores), k, None if lengths is None else as_numpy(lengths), found)
    if page_table is not None:
        found[...] = cache_places(found, as_numpy(page_table), page_size)
    return selected


def _check_table(shapes: Shapes, page_table: Any, page_size: int) -> None:
    """A page table with room for every score of each row, or one for all."""
    shapes.check("page_table", page_table, ("int32",), "tables", "max_pages")
    fits = shapes["max_pages"] * page_size >= shapes["n"]
    if shapes["tables"] not in (1, shapes["rows"]) or not fits:
        raise refuse(
            "page_table", f"{shapes['rows']} or 1 rows of pages for {shapes['n']} scores", page_table
        )


def _check_keys(shapes: Shapes, q: Any, k_cache: Any, page_table: Any, seq_lens: Any) -> None:
    """Decode queries beside paged keys."""
    shapes.check("q", q, FLOATS, "batch", "num_q_heads", "head_dim")
    shapes.check("k_cache", k_cache, (dtype_name(q),), "pages", "page_size", "num_kv_heads", "head_dim")
    shapes.check("page_table", page_table, ("int32",), "batch", "max_pages")
    shapes.check("seq_lens", seq_lens, ("int32",), "batch")


def token_select(
    q: Any,
    k_cache: Any,
    page_table: Any,
    *,
    seq_lens: Any,
    k: int,
    n_init: int = 128,
    n_local: int = 512,
    scale: float | None = None,
    out: Any = None,
) -> Any:
    """TokenSelect: the first tokens, the last tokens, and those between that get most votes of all heads.

    The vote of a head is its softmax over the tokens between; votes of all heads are summed, so one list serves every head.
    Source: arXiv 2411.02886, read with the authors' code. Here query head ``h`` scores KV head ``h // group``, and scores are
    scaled (their code: ``scale=1``), which changes how sharp the votes are.

    Parameters
    ----------
    q : float32, float16 or bfloat16 [batch, num_q_heads, head_dim]
        For a chunk of queries: their mean.
    k_cache : [pages, page_size, num_kv_heads, head_dim], type of ``q``
    page_table, seq_lens : int32 [batch, max_pages], int32 [batch]
    k, n_init, n_local : int
        Tokens by vote, at the beginning, at the end.
    scale : float, optional
        1 / sqrt(head_dim) unless given.
    out : int32 [batch, 1, n_init + k + n_local], optional

    Returns
    -------
    int32 [batch, 1, n_init + k + n_local]
        Ascending, -1 padded, as :func:`tokamask.attention.sparse_decode` takes it. Shorter sequences are kept whole.

    Examples
    --------
    >>> k = np.zeros((1, 4, 1, 2), np.float32)  # one page of four slots
    >>> k[0, 2] = 9
    >>> q, page_table, seq_lens = np.ones((1, 1, 2), np.float32), np.zeros((1, 1), np.int32), np.array([4], np.int32)
    >>> options = {"k": 1, "n_init": 1, "n_local": 1}
    >>> tm.selection.token_select(q, k, page_table, seq_lens=seq_lens, **options).tolist()
    [[[0, 2, 3]]]

    """
    counts = natural("n_init", n_init), natural("k", k), natural("n_local", n_local)
    if is_cuda(q):
        run = cuda_function("selection", "token_select", q)
        options = {"k": k, "n_init": n_init, "n_local": n_local, "scale": scale, "out": out}
        return run(q, k_cache, page_table, seq_lens=seq_lens, **options)
    shapes = Shapes()
    _check_keys(shapes, q, k_cache, page_table, seq_lens)
    out = output("out", out, q, (shapes["batch"], 1, sum(counts)), "int32")
    factor = scale_of(shapes, scale)
    arrays = as_numpy(q), as_numpy(k_cache), as_numpy(page_table), as_numpy(seq_lens)
    _core.token_select(*arrays, counts, factor, as_numpy(out))
    return out


class SelectionCache:
    """TokenSelect's cache: a selection is used again while the query points nearly the same way.

    Parameters
    ----------
    threshold : float
        Least cosine between the query that made the selection and the present one, over all heads together.

    Examples
    --------
    >>> import numpy as np, tokamask as tm
    >>> cache = tm.selection.SelectionCache()
    >>> q = np.ones((1, 2, 4), np.float32)
    >>> cache.get(0, q) is None
    True
    >>> cache.put(0, q, np.zeros((1, 1, 3), np.int32))
    >>> cache.get(0, q * 2).shape
    (1, 1, 3)

    """

    def __init__(self, threshold: float = 0.9) -> None:
        self.threshold = threshold
        self._entries: dict[int, tuple[Any, Any]] = {}

    def get(self, layer: int, q: Any) -> Any:
        """The selection of a layer, or None if there is none for queries like ``q`` [batch, num_q_heads, head_dim]."""
        if layer not in self._entries:
            return None
        old, selected = self._entries[layer]
        if tuple(old.shape) != (len(q), q.shape[1] * q.shape[2]):
            return None
        new = q.reshape(len(q), -1)
        lengths = ((old * old).sum(-1) * (new * new).sum(-1)) ** 0.5
        return selected if bool(((old * new).sum(-1) >= self.threshold * lengths).all()) else None

    def put(self, layer: int, q: Any, selected: Any) -> None:
        """Remembers the selection that ``q`` made; the one before is forgotten."""
        self._entries[layer] = (q.reshape(len(q), -1) + 0, selected)


def fasa_calibrate(q: Any, k: Any, n_chunks: int, *, top: int, interleaved: bool = False) -> Any:
    """The RoPE frequency chunks whose scores alone agree best with the full scores, once per layer, offline.

    Based on the abstract of FASA (arXiv 2602.03152); the equations are our reading of it. Not for models without RoPE.

    Parameters
    ----------
    q : [samples, num_q_heads, head_dim]
        Queries after RoPE.
    k : [tokens, num_kv_heads, head_dim]
        Keys after RoPE, all seen by every sample.
    n_chunks : int
        Chunks kept per KV head.
    top : int
        Tokens about which the scores should agree.
    interleaved : bool
        Chunk ``i`` is channels ``(2 i, 2 i + 1)`` (GPT-J) instead of ``(i, i + head_dim / 2)`` (NeoX).

    Returns
    -------
    int32 [num_kv_heads, n_chunks]
        Ascending.

    Examples
    --------
    >>> k = np.zeros((3, 1, 4), np.float32)
    >>> k[:, 0, 1] = [5, 1, 9]  # only chunk 1, channels 1 and 3, tells the tokens apart
    >>> q = np.ones((2, 1, 4), np.float32)
    >>> tm.selection.fasa_calibrate(q, k, 1, top=1).tolist()
    [[1]]

    """
    shapes = Shapes()
    shapes.check("q", q, FLOATS, "samples", "num_q_heads", "head_dim")
    shapes.check("k", k, (dtype_name(q),), "tokens", "num_kv_heads", "head_dim")
    counts = natural("n_chunks", n_chunks), natural("top", top)
    chosen = _core.fasa_calibrate(as_numpy(q), as_numpy(k), *counts, interleaved)
    chosen = chosen.reshape(shapes["num_kv_heads"], -1)
    return sys.modules["torch"].from_numpy(chosen) if library(q) == "torch" else chosen


def fasa_scores(
    q: Any,
    k_cache: Any,
    page_table: Any,
    dominant: Any,
    *,
    seq_lens: Any,
    interleaved: bool = False,
    out: Any = None,
) -> Any:
    """Scores of every cached token from a few frequency chunks: softmax per query head, summed over the group.

    Based on the abstract of FASA (arXiv 2602.03152): that scores of the dominant chunks stand in for all is its idea; their softmax
    and the sum over a group are our reading, and no parity with the authors' code is claimed. The definition is
    :mod:`tokamask.reference.fasa`.

    Parameters
    ----------
    q : float32, float16 or bfloat16 [batch, num_q_heads, head_dim]
        After RoPE.
    k_cache, page_table, seq_lens
        As in :func:`token_select`; keys after RoPE. Or, in place of whole keys, the dominant channels alone as
        :func:`tokamask.attention.append_kv` keeps them (``side``), [pages, page_size, num_kv_heads, 2 * n_chunks]: only those bytes
        are read then.
    dominant : int32 [num_kv_heads, n_chunks]
        Of :func:`fasa_calibrate`.
    interleaved : bool
        As there.
    out : float32 [batch, num_kv_heads, max_pages * page_size], optional

    Returns
    -------
    float32 [batch, num_kv_heads, max_pages * page_size]
        -inf past the end. Feed it to :func:`top_k`.

    Examples
    --------
    >>> k = np.zeros((1, 4, 1, 2), np.float32)  # one page of four slots
    >>> k[0, 2] = 9
    >>> q, page_table, seq_lens = np.ones((1, 1, 2), np.float32), np.zeros((1, 1), np.int32), np.array([4], np.int32)
    >>> dominant = np.array([[0]], np.int32)
    >>> scores = tm.selection.fasa_scores(q, k, page_table, dominant, seq_lens=seq_lens)
    >>> tm.selection.top_k(scores[0], 1).tolist()
    [[2]]

    """
    if is_cuda(q):
        run = cuda_function("selection", "fasa_scores", q)
        return run(q, k_cache, page_table, dominant, seq_lens=seq_lens, interleaved=interleaved, out=out)
    shapes = Shapes()
    shapes.check("q", q, FLOATS, "batch", "num_q_heads", "head_dim")
    shapes.check("dominant", dominant, ("int32",), "num_kv_heads", "n_chunks")
    dims = "pages", "page_size", "num_kv_heads"
    side = 2 * shapes["n_chunks"]
    is_side = len(getattr(k_cache, "shape", ())) == 4 and k_cache.shape[3] == side != shapes["head_dim"]
    shapes.check("k_cache", k_cache, (dtype_name(q),), *dims, side if is_side else "head_dim")
    shapes.check("page_table", page_table, ("int32",), "batch", "max_pages")
    shapes.check("seq_lens", seq_lens, ("int32",), "batch")
    sizes = shapes["batch"], shapes["num_kv_heads"], shapes["max_pages"] * shapes["page_size"]
    out = output("out", out, q, sizes, "float32")
    paged = as_numpy(k_cache), as_numpy(page_table)
    arrays = as_numpy(q), *paged, as_numpy(dominant), as_numpy(seq_lens)
    _core.fasa_scores(*arrays, interleaved, as_numpy(out))
    return out


def _check_indexer(shapes: Shapes, q: Any, k: Any, w: Any, positions: Any, page_table: Any) -> None:
    shapes.check("q", q, FLOATS, "queries", "heads", "d")
    if page_table is None:
        shapes.check("k", k, (dtype_name(q),), "tokens", "d")
    else:
        shapes.check("k", k, (dtype_name(q),), "pages", "page_size", "d")
        shapes.check("page_table", page_table, ("int32",), "tables", "max_pages")
        if shapes["tables"] not in (1, shapes["queries"]) or not shapes["pages"]:
            raise refuse("page_table", f"{shapes['queries']} rows or 1, of one page or more", page_table)
        shapes.sizes["tokens"] = shapes["max_pages"] * shapes["page_size"]
    shapes.check("w", w, ("float32",), "queries", "heads")
    shapes.check("positions", positions, ("int32",), "queries")


def _indexed_rows(arrays: tuple[Any, ...], k: Any, page_table: Any) -> Iterator[tuple[Any, ...]]:
    """Rows of the queries' arrays that see the same keys, and those keys one after another."""
    rows, keys = tuple(map(as_numpy, arrays)), as_numpy(k)
    if page_table is None:
        yield *rows, keys
        return
    tables = as_numpy(page_table).clip(0, len(keys) - 1)  # what stands behind the last page may be anything
    for i, table in enumerate(tables):
        own = rows if len(tables) == 1 else tuple(x[i : i + 1] for x in rows)
        yield *own, keys[table].reshape(-1, keys.shape[2])


def indexer_scores(q: Any, k: Any, w: Any, *, positions: Any, page_table: Any = None, out: Any = None) -> Any:
    """The lightning indexer of DeepSeek Sparse Attention: ``sum over heads of w * relu(q . k)``, one shared key head.

    After the formula published with DeepSeek-V3.2, from memory.

    Parameters
    ----------
    q : float32, float16 or bfloat16 [queries, heads, d]
    k : [tokens, d], type of ``q``
        With a page table [pages, page_size, d].
    w : float32 [queries, heads]
        Any sign; carries whatever scale the model applies.
    positions : int32 [queries]
        Query ``t`` sees keys ``0 .. positions[t]``.
    page_table : int32 [queries or 1, max_pages], optional
        Then there are ``max_pages * page_size`` tokens.
    out : float32 [queries, tokens], optional

    Returns
    -------
    float32 [queries, tokens]
        -inf after the position.

    Examples
    --------
    >>> q, w = np.ones((1, 1, 2), np.float32), np.ones((1, 1), np.float32)
    >>> k = np.array([[1, 0], [-5, 0], [2, 2], [9, 9]], np.float32)
    >>> tm.selection.indexer_scores(q, k, w, positions=np.array([2], np.int32)).tolist()
    [[1.0, 0.0, 4.0, -inf]]

    """
    if is_cuda(q):
        options = {"positions": positions, "page_table": page_table, "out": out}
        return cuda_function("selection", "indexer_scores", q)(q, k, w, **options)
    shapes = Shapes()
    _check_indexer(shapes, q, k, w, positions, page_table)
    out = output("out", out, q, (shapes["queries"], shapes["tokens"]), "float32")
    for queries, weights, at, found, keys in _indexed_rows((q, w, positions, out), k, page_table):
        _core.indexer_scores(queries, keys, weights, at, found)
    return out


def hisa_select(
    q: Any,
    k: Any,
    w: Any,
    n_tokens: int,
    *,
    positions: Any,
    n_blocks: int,
    block: int = 128,
    page_table: Any = None,
    page_sums: Any = None,
    out: Any = None,
) -> Any:
    """HISA: the indexer on the mean keys of blocks, then on the tokens of the best blocks only.

    Work per query falls from ``tokens`` to ``tokens / block + n_blocks * block`` keys. After the abstract of arXiv 2603.28458; the
    block rule is our reading.

    Parameters
    ----------
    q, k, w, positions
        As in :func:`indexer_scores`.
    n_tokens : int
        Keys to select.
    n_blocks : int
        Blocks to look into, 2 or more: the first one and the one of the query's position are always among them.
    block : int
        Keys of a block; the page size where there is a page table.
    page_table, page_sums : int32 [queries or 1, max_pages], float32 [pages, d], optional
        For a paged ``k``: its pages are the blocks, and the sums that :func:`tokamask.attention.append_kv` keeps spare CUDA reading every key.
    out : int32 [queries, n_tokens], optional

    Returns
    -------
    int32 [queries, n_tokens]
        Ascending, -1 padded.

    Examples
    --------
    >>> q, w = np.ones((1, 1, 2), np.float32), np.ones((1, 1), np.float32)
    >>> k = np.array([[1, 0], [-5, 0], [2, 2], [9, 9]], np.float32)
    >>> tm.selection.hisa_select(q, k, w, 1, positions=np.array([2], np.int32), n_blocks=2, block=2).tolist()
    [[2]]

    """
    if is_cuda(q):
        run = cuda_function("selection", "hisa_select", q)
        blocks = {"n_blocks": n_blocks, "block": block, "page_table": page_table, "page_sums": page_sums}
        return run(q, k, w, n_tokens, positions=positions, **blocks, out=out)
    shapes = Shapes()
    _check_indexer(shapes, q, k, w, positions, page_table)
    if (page_table is None) != (page_sums is None):
        raise refuse("page_sums", "page_table and page_sums together", page_sums)
    if page_table is not None:
        shapes.check("page_sums", page_sums, ("float32",), "pages", "d")
        if block != shapes["page_size"]:
            raise refuse("block", f"the page size, {shapes['page_size']}", block)
    counts = natural("n_tokens", n_tokens), natural("n_blocks", n_blocks, 2), natural("block", block, 1)
    out = output("out", out, q, (shapes["queries"], n_tokens), "int32")
    for queries, weights, at, found, keys in _indexed_rows((q, w, positions, out), k, page_table):
        _core.hisa_select(queries, keys, weights, at, counts, found)
    return out


def attention_column_sums(q: Any, k: Any, *, scale: float | None = None, out: Any = None) -> Any:
    """How much causal attention each key receives from the last queries: what H2O, SnapKV and others rank tokens by.

    Holds a few rows of the attention matrix at a time, never the whole.

    Parameters
    ----------
    q : float32, float16 or bfloat16 [queries, num_q_heads, head_dim]
        The last ``queries`` positions of ``k``.
    k : [tokens, num_kv_heads, head_dim], type of ``q``
    scale : float, optional
        1 / sqrt(head_dim) unless given.
    out : float32 [num_q_heads, tokens], optional

    Returns
    -------
    float32 [num_q_heads, tokens]
        Rows sum to ``queries``.

    Examples
    --------
    >>> q, k = np.zeros((2, 1, 4), np.float32), np.zeros((2, 1, 4), np.float32)
    >>> tm.selection.attention_column_sums(q, k).tolist()  # the first query sees one key, the second two
    [[1.5, 0.5]]

    """
    if is_cuda(q):
        return cuda_function("selection", "attention_column_sums", q)(q, k, scale=scale, out=out)
    shapes = Shapes()
    shapes.check("q", q, FLOATS, "queries", "num_q_heads", "head_dim")
    shapes.check("k", k, (dtype_name(q),), "tokens", "num_kv_heads", "head_dim")
    if shapes["queries"] > shapes["tokens"]:
        raise refuse("q", f"at most tokens={shapes['tokens']} queries", q)
    out = output("out", out, q, (shapes["num_q_heads"], shapes["tokens"]), "float32")
    factor = scale_of(shapes, scale)
    _core.attention_column_sums(as_numpy(q), as_numpy(k), factor, as_numpy(out))
    return out


def unmask(
    logits: Any,
    masked: Any,
    *,
    bitmask: Any = None,
    threshold: float | None = None,
    count: int | None = None,
) -> tuple[Any, Any, Any]:
    """One step of parallel unmasking for diffusion language models: which masked positions are decided now, and as what.

    Accepted are the masked positions whose best token has at least the probability ``threshold`` (always the best position), at
    most ``count`` of them, best first, ties by lowest position. With neither, all are.

    Parameters
    ----------
    logits : float32, float16 or bfloat16 [positions, vocab_size]
        NaN counts as -inf.
    masked : bool [positions]
        Positions still undecided; restrict it to the current block.
    bitmask : int32 [positions, ceil(vocab_size / 32)], optional
        Only allowed tokens count, in the softmax as well.
    threshold : float, optional
    count : int, optional

    Returns
    -------
    tokens : int32 [positions]
        The best token; -1 where the position is not masked or nothing is allowed.
    confidence : float32 [positions]
        Its probability, 0 where there is no token.
    accepted : bool [positions]

    Examples
    --------
    >>> logits = np.array([[0, 9], [1, 1], [0, 0]], np.float32)
    >>> tokens, confidence, accepted = tm.selection.unmask(logits, np.array([True, True, False]), threshold=0.9)
    >>> tokens.tolist(), accepted.tolist()
    ([1, 0, -1], [True, False, False])

    """
    if is_cuda(logits):
        run = cuda_function("selection", "unmask", logits)
        return run(logits, masked, bitmask=bitmask, threshold=threshold, count=count)  # type: ignore[no-any-return]
    shapes = Shapes()
    shapes.check("logits", logits, FLOATS, "positions", "vocab_size")
    shapes.check("masked", masked, ("bool",), "positions")
    if bitmask is not None:
        shapes.check("bitmask", bitmask, ("int32",), "positions", -(-shapes["vocab_size"] // 32))
    size = (shapes["positions"],)
    results = tuple(
        output(name, None, logits, size, dtype)
        for name, dtype in (("tokens", "int32"), ("confidence", "float32"), ("accepted", "bool"))
    )
    mask = None if bitmask is None else as_numpy(bitmask)
    limit = None if count is None else natural("count", count)
    _core.unmask(as_numpy(logits), as_numpy(masked), mask, threshold, limit, *map(as_numpy, results))
    return results[0], results[1], results[2]


def unmask_schedule(masked: Any, steps: int, *, law: str = "even") -> Any:
    """How many positions to decide in each step, for the ``count`` of :func:`unmask`: what fixed schedules of diffusion language models do.

    Parameters
    ----------
    masked : int or int32 [batch]
        Positions to decide in all.
    steps : int
        1 or more.
    law : "even" or "cosine"
        As many in each step, the first ones taking the rest; or few at first and more later, as a cosine falls.

    Returns
    -------
    int32 [steps], or int32 [batch, steps]
        numpy, wherever ``masked`` is; adds up to ``masked``.

    Raises
    ------
    ShapeError
        ``masked`` is negative, ``steps`` is below 1, or there is no such law.

    Examples
    --------
    >>> tm.selection.unmask_schedule(10, 4).tolist(), tm.selection.unmask_schedule(10, 4, law="cosine").tolist()
    ([3, 3, 2, 2], [1, 2, 4, 3])

    """
    natural("steps", steps, 1)
    counts = np.asarray(masked.tolist() if hasattr(masked, "tolist") else masked)
    if counts.dtype.kind not in "iu" or (counts < 0).any():
        raise refuse("masked", "numbers of positions, 0 or more", masked)
    if law not in ("even", "cosine"):
        expected = '"even" or "cosine"'
        raise ShapeError(f"law: expected {expected}, got {law!r}", name="law", expected=expected, got=law)
    return unmask_reference.unmask_schedule(counts, steps, law)
