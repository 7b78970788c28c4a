"""Pages by bounds of their keys. Public through :mod:`tokamask.selection`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from tokamask import _core
from tokamask.gpu.arrays import is_cuda
from tokamask.shapes import FLOATS, Shapes, as_numpy, cuda_function, library, natural, output

__all__ = ["page_tokens", "quest_bounds", "quest_scores"]


def quest_bounds(k_cache: Any, page_table: Any, *, seq_lens: Any) -> tuple[Any, Any]:
    """Least and greatest key of every page, channel by channel, over the rows that hold tokens.

    After Quest (ICML 2024); written from the formula, not compared with the authors' code.

    Parameters
    ----------
    k_cache : float32, float16 or bfloat16 [pages, page_size, num_kv_heads, head_dim]
    page_table, seq_lens : int32 [batch, max_pages], int32 [batch]

    Returns
    -------
    low, high : float32 [pages, num_kv_heads, head_dim]
        0 for pages that hold no token.

    Examples
    --------
    >>> k = np.zeros((1, 4, 1, 2), np.float32)  # one page of four slots
    >>> k[0, 2] = 9
    >>> q, page_table, seq_lens = np.ones((1, 1, 2), np.float32), np.zeros((1, 1), np.int32), np.array([4], np.int32)
    >>> low, high = tm.selection.quest_bounds(k, page_table, seq_lens=seq_lens)
    >>> low.tolist(), high.tolist()
    ([[[0.0, 0.0]]], [[[9.0, 9.0]]])

    """
    if is_cuda(k_cache):
        run = cuda_function("selection", "quest_bounds", k_cache)
        return run(k_cache, page_table, seq_lens=seq_lens)  # type: ignore[no-any-return]
    shapes = Shapes()
    shapes.check("k_cache", k_cache, FLOATS, "pages", "page_size", "num_kv_heads", "head_dim")
    shapes.check("page_table", page_table, ("int32",), "batch", "max_pages")
    shapes.check("seq_lens", seq_lens, ("int32",), "batch")
    sizes = shapes["pages"], shapes["num_kv_heads"], shapes["head_dim"]
    low, high = (output(name, None, k_cache, sizes, "float32") for name in ("low", "high"))
    _core.quest_bounds(*map(as_numpy, (k_cache, page_table, seq_lens, low, high)))
    return low, high


def quest_scores(
    q: Any, low: Any, high: Any, page_table: Any, *, seq_lens: Any, page_size: int, out: Any = None
) -> Any:
    """What the queries of a group can score at most in each page: an upper bound of every ``q . k`` there, unscaled.

    After Quest (ICML 2024), written from the formula, not compared with the authors' code; that the heads of a group share the
    greatest of their bounds is ours.

    Parameters
    ----------
    q : float32, float16 or bfloat16 [batch, num_q_heads, head_dim]
    low, high : float32 [pages, num_kv_heads, head_dim]
        Of :func:`quest_bounds`.
    page_table, seq_lens : int32 [batch, max_pages], int32 [batch]
    page_size : int
    out : float32 [batch, num_kv_heads, max_pages], optional

    Returns
    -------
    float32 [batch, num_kv_heads, max_pages]
        +inf for the newest page (it is always kept), -inf past the end. Feed it to :func:`top_k`, then :func:`page_tokens`.

    Examples
    --------
    >>> low, high = np.zeros((2, 1, 1), np.float32), np.array([3, 5], np.float32).reshape(2, 1, 1)
    >>> q, page_table, seq_lens = np.ones((1, 1, 1), np.float32), np.array([[0, 1]], np.int32), np.array([8], np.int32)
    >>> tm.selection.quest_scores(q, low, high, page_table, seq_lens=seq_lens, page_size=4).tolist()
    [[[3.0, inf]]]

    """
    if is_cuda(q):
        run = cuda_function("selection", "quest_scores", q)
        return run(q, low, high, page_table, seq_lens=seq_lens, page_size=page_size, out=out)
    shapes = Shapes()
    shapes.check("q", q, FLOATS, "batch", "num_q_heads", "head_dim")
    for name, bound in (("low", low), ("high", high)):
        shapes.check(name, bound, ("float32",), "pages", "num_kv_heads", "head_dim")
    shapes.check("page_table", page_table, ("int32",), "batch", "max_pages")
    shapes.check("seq_lens", seq_lens, ("int32",), "batch")
    sizes = shapes["batch"], shapes["num_kv_heads"], shapes["max_pages"]
    out = output("out", out, q, sizes, "float32")
    arrays = as_numpy(q), as_numpy(low), as_numpy(high), as_numpy(page_table), as_numpy(seq_lens)
    _core.quest_scores(*arrays, natural("page_size", page_size, 1), as_numpy(out))
    return out


def page_tokens(selected_pages: Any, page_size: int, *, seq_lens: Any) -> Any:
    """The tokens of selected pages.

    Parameters
    ----------
    selected_pages : int32 [batch, heads, p]
        Positions in the page table, -1 for none.
    page_size : int
    seq_lens : int32 [batch]

    Returns
    -------
    int32 [batch, heads, p * page_size]
        -1 where there is no token.

    Examples
    --------
    >>> pages = np.array([[[0, 2]]], np.int32)
    >>> tm.selection.page_tokens(pages, 2, seq_lens=np.array([5], np.int32)).tolist()
    [[[0, 1, 4, -1]]]

    """
    if is_cuda(selected_pages):
        run = cuda_function("selection", "page_tokens", selected_pages)
        return run(selected_pages, page_size, seq_lens=seq_lens)
    shapes = Shapes()
    shapes.check("selected_pages", selected_pages, ("int32",), "batch", "heads", "p")
    shapes.check("seq_lens", seq_lens, ("int32",), "batch")
    pages = as_numpy(selected_pages)[..., None]
    tokens = pages * np.int32(page_size) + np.arange(page_size, dtype=np.int32)
    np.copyto(tokens, -1, where=(pages < 0) | (tokens >= as_numpy(seq_lens)[:, None, None, None]))
    flat = tokens.reshape(shapes["batch"], shapes["heads"], -1)
    return sys.modules["torch"].from_numpy(flat) if library(selected_pages) == "torch" else flat
