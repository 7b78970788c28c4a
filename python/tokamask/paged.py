"""The paged cache itself: appending to it, and reading the layouts of other engines. Public through :mod:`tokamask.attention`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask import _core
from tokamask.errors import ShapeError
from tokamask.gpu.arrays import is_cuda
from tokamask.shapes import FLOATS, Shapes, as_numpy, cuda_function, dtype_name, natural


def append_kv(
    k: Any,
    v: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    *,
    seq_lens: Any,
    indptr: Any = None,
    bounds: tuple[Any, Any] | None = None,
    side: tuple[Any, Any] | None = None,
    index: tuple[Any, Any, Any] | None = None,
    interleaved: bool = False,
) -> None:
    """Appends keys and values to a paged cache, in place, and brings what selectors keep beside it up to date in the same pass.

    Everything then is what the function that computes it from the whole cache would give: ``bounds`` is :func:`tokamask.selection.quest_bounds`
    of the pages touched, ``side`` a cache that :func:`tokamask.selection.fasa_scores` reads instead of the keys.

    Parameters
    ----------
    k, v : float32, float16 or bfloat16 [tokens, num_kv_heads, head_dim]
        New rows; one per sequence, or those of all sequences one after another.
    k_cache, v_cache : [pages, page_size, num_kv_heads, head_dim], type of ``k``
        In any order of the first three axes.
    page_table : int32 [batch, max_pages]
        Tokens that it has no room for are passed over.
    seq_lens : int32 [batch]
        Lengths afterwards: the new tokens are the last of each sequence.
    indptr : int32 [batch + 1], optional
        Sequence ``b`` gets rows ``indptr[b] .. indptr[b + 1] - 1``; one row each unless given.
    bounds : (float32, float32) [pages, num_kv_heads, head_dim], optional
        Least and greatest key of each page, begun anew at its first token. NaN is passed over.
    side : (int32 [num_kv_heads, n_chunks], [pages, page_size, num_kv_heads, 2 * n_chunks]), optional
        Dominant chunks of :func:`tokamask.selection.fasa_calibrate`, and the cache of their channels.
    index : ([tokens, d], [pages, page_size, d], float32 [pages, d]), optional
        The indexer's keys of the same tokens, its cache, and the sum of each page: divided by the tokens of a page, HISA's means.
    interleaved : bool
        How RoPE pairs channels, for ``side``.

    Raises
    ------
    ShapeError
        Arrays do not fit, or the table names a page that is not there.

    Examples
    --------
    >>> cache, table = np.zeros((2, 2, 4, 1, 2), np.float32), np.array([[1]], np.int32)
    >>> row = np.ones((1, 1, 2), np.float32)
    >>> tm.attention.append_kv(row, row, *cache, table, seq_lens=np.array([3], np.int32))
    >>> cache[0, 1, :, 0, 0].tolist()
    [0.0, 0.0, 1.0, 0.0]

    """
    if is_cuda(k_cache):
        options = {"bounds": bounds, "side": side, "index": index, "interleaved": interleaved}
        run = cuda_function("attention", "append_kv", k_cache)
        run(k, v, k_cache, v_cache, page_table, seq_lens=seq_lens, indptr=indptr, **options)
        return
    arrays = k, v, k_cache, v_cache, page_table, seq_lens
    alone = all(x is None for x in (bounds, side, index, indptr)) and all(
        type(x) is np.ndarray for x in arrays
    )
    if alone and v.shape == k.shape and v_cache.shape == k_cache.shape and k.shape[:1] == seq_lens.shape:
        # The usual call takes less time than its checks; the core's own are as strict, but name no dimensions.
        where = page_table, seq_lens, np.arange(len(seq_lens) + 1, dtype=np.int32)
        try:
            _core.append_rows(k, k_cache, where)
            _core.append_rows(v, v_cache, where)
            return
        except ShapeError:
            pass
    indptr = _check_append(*arrays, indptr, bounds, side, index)
    where = as_numpy(page_table), as_numpy(seq_lens), as_numpy(indptr)
    size, rows = tuple(k_cache.shape[:2]), as_numpy(k)
    _core.append_rows(rows, as_numpy(k_cache), where)
    _core.append_rows(as_numpy(v), as_numpy(v_cache), where)
    if bounds is not None:
        _core.append_bounds(rows, as_numpy(bounds[0]), as_numpy(bounds[1]), size, where)
    if side is not None:
        _core.append_chunks(rows, as_numpy(side[0]), interleaved, as_numpy(side[1]), where)
    if index is not None:
        keys, cache = as_numpy(index[0])[:, None], as_numpy(index[1])[:, :, None]
        _core.append_rows(keys, cache, where)
        _core.append_sums(keys, as_numpy(index[2]), size, where)


def _check_append(
    k: Any,
    v: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    seq_lens: Any,
    indptr: Any,
    bounds: Any,
    side: Any,
    index: Any,
) -> Any:
    """Types and shapes of what is appended, and where; returns ``indptr``, made if it was not given."""
    shapes = Shapes()
    element = (dtype_name(k),)
    shapes.check("k", k, FLOATS, "tokens", "num_kv_heads", "head_dim")
    shapes.check("v", v, element, "tokens", "num_kv_heads", "head_dim")
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        shapes.check(name, cache, element, "pages", "page_size", "num_kv_heads", "head_dim")
    shapes.check("page_table", page_table, ("int32",), "batch", "max_pages")
    shapes.check("seq_lens", seq_lens, ("int32",), "batch")
    if indptr is None:
        shapes.check("k", k, FLOATS, "batch", "num_kv_heads", "head_dim")
        indptr = np.arange(shapes["batch"] + 1, dtype=np.int32)
    shapes.check("indptr", indptr, ("int32",), shapes["batch"] + 1)
    for i, array in enumerate(bounds or ()):
        shapes.check(f"bounds[{i}]", array, ("float32",), "pages", "num_kv_heads", "head_dim")
    if side is not None:
        shapes.check("side[0]", side[0], ("int32",), "num_kv_heads", "n_chunks")
        channels = 2 * shapes["n_chunks"]
        shapes.check("side[1]", side[1], element, "pages", "page_size", "num_kv_heads", channels)
    if index is not None:
        shapes.check("index[0]", index[0], element, "tokens", "index_dim")
        shapes.check("index[1]", index[1], element, "pages", "page_size", "index_dim")
        shapes.check("index[2]", index[2], ("float32",), "pages", "index_dim")
    return indptr


def page_table(
    indptr: Any, indices: Any, last_page_len: Any, *, page_size: int, max_pages: int
) -> tuple[Any, Any]:
    """The page table and the lengths of sequences whose pages FlashInfer lists in one array.

    Works in the library and on the device of the arrays without reading anything back, hence ``max_pages``.

    Parameters
    ----------
    indptr : int32 [batch + 1]
        Pages of sequence ``b``: ``indices[indptr[b]:indptr[b + 1]]``.
    indices : int32 [any]
    last_page_len : int32 [batch]
        Tokens in the last page of each.
    page_size : int
    max_pages : int
        Width of the table; longer sequences are cut off.

    Returns
    -------
    page_table : int32 [batch, max_pages]
        Page 0 where a sequence has none: nothing looks there.
    seq_lens : int32 [batch]

    Examples
    --------
    >>> lists = (np.array(x, np.int32) for x in ([0, 2, 3], [7, 4, 9], [1, 5]))
    >>> table, lengths = tm.attention.page_table(*lists, page_size=16, max_pages=2)
    >>> table.tolist(), lengths.tolist()
    ([[7, 4], [9, 0]], [17, 5])

    """
    natural("page_size", page_size, 1)
    pages = (indptr[1:] - indptr[:-1]).clip(0, max_pages)
    slots = _steps(indptr, max_pages)
    if not len(indices):
        return indptr[:-1, None] * 0 * slots, pages * 0
    places = (indptr[:-1, None] + slots).clip(0, len(indices) - 1)
    cut = (indptr[1:] - indptr[:-1]) > max_pages
    last = last_page_len * ~cut + page_size * cut
    lengths = ((pages - 1) * page_size + last) * (pages > 0)
    table = indices[places] * (slots < pages[:, None])
    return (
        (table.astype(np.int32), lengths.astype(np.int32))
        if hasattr(table, "astype")
        else (table.int(), lengths.int())
    )


def _steps(like: Any, count: int) -> Any:
    """0 .. count - 1 beside another array."""
    if hasattr(like, "new_ones"):  # torch
        return (like.new_ones(count).cumsum(0) - 1).to(like.dtype)
    return (like[:1] * 0 + 1).repeat(count).cumsum().astype(like.dtype) - 1


def kv_views(cache: Any, layout: str = "NHD") -> tuple[Any, Any]:
    """Keys and values [pages, page_size, num_kv_heads, head_dim] of a cache as FlashInfer keeps it, without copying.

    Parameters
    ----------
    cache : [pages, 2, page_size, num_kv_heads, head_dim], or a pair of [pages, page_size, num_kv_heads, head_dim]
        With layout ``"HND"``, heads come before tokens.
    layout : "NHD" or "HND"

    Returns
    -------
    k_cache, v_cache : views
        What the functions here take.

    Examples
    --------
    >>> k, v = tm.attention.kv_views(np.zeros((3, 2, 8, 16, 64), np.float32), "HND")
    >>> k.shape
    (3, 16, 8, 64)

    """
    if layout not in ("NHD", "HND"):
        raise ShapeError(
            f"layout: expected NHD or HND, got {layout!r}", name="layout", expected="NHD or HND", got=layout
        )
    k, v = cache if isinstance(cache, tuple | list) else (cache[:, 0], cache[:, 1])
    return (k, v) if layout == "NHD" else (k.swapaxes(1, 2), v.swapaxes(1, 2))
