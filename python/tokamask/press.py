"""A shorter cache after the prompt: scores by which to keep tokens, and merging. Public through :mod:`tokamask.selection`.

Caches here are those of one sequence: ``k`` [tokens, num_kv_heads, head_dim], ``v`` [tokens, num_kv_heads, v_dim], of one type (float32,
float16, bfloat16); heads and tokens may be strided, so ``cache.transpose(0, 1)`` of a [heads, tokens, dim] tensor will do.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from tokamask import _core
from tokamask.gpu.arrays import is_cuda
from tokamask.reference.compress import ems_scores as _ems_scores
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


def _check_cache(name: str, k: Any, v: Any = None) -> Shapes:
    """Keys, and values beside them; CUDA arrays have no kernel here."""
    if is_cuda(k):
        cuda_function("selection", name, k)  # raises
    shapes = Shapes()
    shapes.check("k", k, FLOATS, "tokens", "num_kv_heads", "head_dim")
    if v is not None:
        shapes.check("v", v, (dtype_name(k),), "tokens", "num_kv_heads", "v_dim")
    return shapes


def _scores(shapes: Shapes, like: Any, out: Any) -> Any:
    return output("out", out, like, (shapes["num_kv_heads"], shapes["tokens"]), "float32")


def _check_window(name: str, q: Any, k: Any) -> Shapes:
    """The last queries beside all keys."""
    shapes = _check_cache(name, k)
    shapes.check("q", q, (dtype_name(k),), "window", "num_q_heads", "head_dim")
    if shapes["num_kv_heads"] == 0 or shapes["num_q_heads"] % shapes["num_kv_heads"]:
        raise refuse("q", f"a multiple of {shapes['num_kv_heads']} heads", q)
    if not 0 < shapes["window"] <= shapes["tokens"]:
        raise refuse("q", f"1 to tokens={shapes['tokens']} queries", q)
    return shapes


def _odd(kernel: int) -> int:
    if kernel < 1 or kernel % 2 == 0:
        raise refuse("kernel", "an odd number", kernel)
    return kernel


def knorm_scores(k: Any, *, out: Any = None) -> Any:
    """Minus the length of each key: short keys are kept. The rule of kvpress's ``KnormPress``.

    Parameters
    ----------
    k : float32, float16 or bfloat16 [tokens, num_kv_heads, head_dim]
    out : float32 [num_kv_heads, tokens], optional

    Returns
    -------
    float32 [num_kv_heads, tokens]
        Greater is kept. Feed it to :func:`top_k`.

    Examples
    --------
    >>> k = np.array([[[3, 4]], [[0, 1]]], np.float32)  # two tokens, one head
    >>> tm.selection.knorm_scores(k).tolist()
    [[-5.0, -1.0]]

    """
    shapes = _check_cache("knorm_scores", k)
    out = _scores(shapes, k, out)
    _core.key_scores(as_numpy(k), False, as_numpy(out))
    return out


def keydiff_scores(k: Any, *, out: Any = None) -> Any:
    """Minus the cosine of each key with the mean direction of all: unusual keys are kept. The rule of kvpress's ``KeyDiffPress``.

    Parameters
    ----------
    k : float32, float16 or bfloat16 [tokens, num_kv_heads, head_dim]
    out : float32 [num_kv_heads, tokens], optional

    Returns
    -------
    float32 [num_kv_heads, tokens]
        In [-1, 1]; greater is kept.

    Examples
    --------
    >>> k = np.array([[[2, 0]], [[5, 0]], [[0, 1]]], np.float32)
    >>> tm.selection.top_k(tm.selection.keydiff_scores(k), 1).tolist()
    [[2]]

    """
    shapes = _check_cache("keydiff_scores", k)
    out = _scores(shapes, k, out)
    _core.key_scores(as_numpy(k), True, as_numpy(out))
    return out


def lagkv_scores(k: Any, v: Any, *, n_init: int = 4, lag: int = 128, out: Any = None) -> Any:
    """How much a token stands out from the stretch of tokens after its own, as a rank within its own. As kvpress's ``LagKVPress``.

    Channels in which the next stretch does not vary count as 0, where that press divides by zero.

    Parameters
    ----------
    k, v : float32, float16 or bfloat16 [tokens, num_kv_heads, head_dim or v_dim]
    n_init : int
        First tokens, always kept.
    lag : int
        Tokens of a stretch.
    out : float32 [num_kv_heads, tokens], optional

    Returns
    -------
    float32 [num_kv_heads, tokens]
        Ranks in [0, 1); 1 for the first tokens and for those without a whole stretch after theirs. A cache of fewer than
        ``n_init + 2 * lag`` tokens is ranked by position.

    Examples
    --------
    >>> k = np.array([[[0, 0]], [[0, 9]], [[0, 0]], [[1, 1]], [[0, 0]]], np.float32)
    >>> tm.selection.lagkv_scores(k, k, n_init=0, lag=2).tolist()
    [[0.0, 0.5, 1.0, 1.0, 1.0]]

    """
    shapes = _check_cache("lagkv_scores", k, v)
    counts = natural("n_init", n_init), natural("lag", lag, 1)
    out = _scores(shapes, k, out)
    _core.lagkv_scores(as_numpy(k), as_numpy(v), counts, as_numpy(out))
    return out


def snapkv_scores(q: Any, k: Any, *, kernel: int = 5, scale: float | None = None, out: Any = None) -> Any:
    """Attention that each key receives from the last queries, pooled over neighbours, mean over a group's heads. As ``SnapKVPress``.

    Parameters
    ----------
    q : [window, num_q_heads, head_dim], type of ``k``
        Queries of the last ``window`` positions, after RoPE.
    k : float32, float16 or bfloat16 [tokens, num_kv_heads, head_dim]
        After RoPE.
    kernel : int
        Neighbours in a mean, odd.
    scale : float, optional
        1 / sqrt(head_dim) unless given.
    out : float32 [num_kv_heads, tokens], optional

    Returns
    -------
    float32 [num_kv_heads, tokens]
        The window itself: one more than the greatest.

    Examples
    --------
    >>> k = np.array([[[0, 0]], [[8, 0]], [[0, 0]], [[1, 0]]], np.float32)
    >>> scores = tm.selection.snapkv_scores(k[-1:], k, kernel=1)
    >>> tm.selection.top_k(scores, 2).tolist()
    [[1, 3]]

    """
    if is_cuda(k):
        return cuda_function("selection", "snapkv_scores", k)(q, k, kernel=kernel, scale=scale, out=out)
    return _window_scores("snapkv_scores", q, k, kernel, scale, False, out)


def tova_scores(q: Any, k: Any, *, scale: float | None = None, out: Any = None) -> Any:
    """Attention that each key receives from the last query, mean over all heads: one list for all. As kvpress's ``TOVAPress``.

    Parameters
    ----------
    q : [1, num_q_heads, head_dim], type of ``k``
    k, scale, out
        As in :func:`snapkv_scores`.

    Returns
    -------
    float32 [num_kv_heads, tokens]
        Equal rows. The last token: one more than the greatest.

    Examples
    --------
    >>> k = np.array([[[0, 0]], [[8, 0]], [[0, 0]], [[1, 0]]], np.float32)
    >>> tm.selection.top_k(tm.selection.tova_scores(k[-1:], k), 2).tolist()
    [[1, 3]]

    """
    if is_cuda(k):
        return cuda_function("selection", "tova_scores", k)(q, k, scale=scale, out=out)
    return _window_scores("tova_scores", q, k, 1, scale, True, out)


def _window_scores(name: str, q: Any, k: Any, kernel: int, scale: float | None, one: bool, out: Any) -> Any:
    shapes = _check_window(name, q, k)
    out = _scores(shapes, k, out)
    _core.window_scores(as_numpy(q), as_numpy(k), scale_of(shapes, scale), _odd(kernel), one, as_numpy(out))
    return out


def token_sparse_select(
    q: Any, k: Any, *, coverage: float, min_tokens: int = 256, kernel: int = 5, scale: float | None = None
) -> Any:
    """Token Sparse Attention's choice: how many tokens to drop from all heads' mean attention, which ones head by head.

    After arXiv 2602.03216, read with the authors' code. Feed the result to :func:`tokamask.attention.selected_prefill`.

    Parameters
    ----------
    q : [window, num_q_heads, head_dim], type of ``k``
        Queries of the last ``window`` positions, after RoPE.
    k : float32, float16 or bfloat16 [tokens, num_kv_heads, head_dim]
        After RoPE.
    coverage : float
        Share of attention that may be lost; 0 drops nothing.
    min_tokens : int
        Tokens to keep before the window, at least.
    kernel : int
        Neighbours in the mean that smooths attention, odd.
    scale : float, optional
        1 / sqrt(head_dim) unless given.

    Returns
    -------
    int32 [num_q_heads, c]
        Ascending; the last ``window`` tokens are in every row. For CUDA arrays ``c`` is ``tokens`` and rows end in -1, so that nothing is
        read back from the device.

    Examples
    --------
    >>> k = np.zeros((8, 1, 2), np.float32)
    >>> k[[1, 4]] = 9
    >>> q = np.ones((1, 1, 2), np.float32)
    >>> tm.selection.token_sparse_select(q, k, coverage=0.1, min_tokens=2, kernel=1).tolist()
    [[1, 4, 7]]

    """
    if is_cuda(k):
        options = {"coverage": coverage, "min_tokens": min_tokens, "kernel": kernel, "scale": scale}
        return cuda_function("selection", "token_sparse_select", k)(q, k, **options)
    shapes = _check_window("token_sparse_select", q, k)
    natural("min_tokens", min_tokens)
    factor = scale_of(shapes, scale)
    arrays = as_numpy(q), as_numpy(k)
    chosen = _core.token_sparse_select(*arrays, factor, _odd(kernel), float(coverage), min_tokens)
    return sys.modules["torch"].from_numpy(chosen) if library(k) == "torch" else chosen


class CompressedCache(NamedTuple):
    """A cache after merging, head by head; rows behind a head's last are 0, with position -1.

    Examples
    --------
    >>> k = np.ones((3, 1, 2), np.float32)
    >>> merged = tm.selection.kvmerger_merge(k, k, np.zeros((1, 3), np.float32), recent=1, heavy=0)
    >>> merged.k.shape, merged.positions.tolist()
    ((1, 2, 2), [[0, 2]])

    """

    k: Any
    """float32 [num_kv_heads, kept, head_dim], in order of position."""
    v: Any
    """float32 [num_kv_heads, kept, v_dim]."""
    positions: Any
    """int32 [num_kv_heads, kept]: where each stands, -1 padded."""
    sizes: Any
    """float32 [num_kv_heads, kept]: how many tokens went into each."""


def _padded(like: Any, shapes: Shapes, merged: tuple[Any, Any, Any, Any, list[int]]) -> CompressedCache:
    """Heads of unequal length side by side."""
    *flat, kept = merged
    heads, most = len(kept), max(kept, default=0)
    inside = np.arange(most) < np.asarray(kept, np.int64)[:, None]
    padded = []
    for values, width, filler in zip(
        flat, (shapes["head_dim"], shapes["v_dim"], 0, 0), (0, 0, -1, 0), strict=True
    ):
        array = np.full((heads, most, width) if width else (heads, most), filler, values.dtype)
        array[inside] = values.reshape(-1, width) if width else values
        padded.append(array)
    if library(like) == "torch":
        return CompressedCache(*map(sys.modules["torch"].from_numpy, padded))
    return CompressedCache(*padded)


def kvmerger_merge(
    k: Any, v: Any, scores: Any, *, epsilon: float = 0.8, recent: int = 32, heavy: int = 32
) -> CompressedCache:
    """Runs of neighbouring tokens with like keys become one token each, by a Gaussian of the distance to the run's best.

    After the idea of KVMerger (arXiv 2407.08454), from memory: the definition is :mod:`tokamask.reference.compress`, and no parity
    with the authors' code is claimed.

    Parameters
    ----------
    k, v : float32, float16 or bfloat16 [tokens, num_kv_heads, head_dim or v_dim]
    scores : float32 [num_kv_heads, tokens]
        The best of a run gives its position: :func:`attention_column_sums` summed over a group, or any scores of this module.
    epsilon : float
        Neighbours join if the cosine of their keys is greater.
    recent, heavy : int
        The last tokens, and those of greatest score, which stay as they are.

    Returns
    -------
    CompressedCache
        ``k``, ``v``, ``positions``, ``sizes``; heads may keep different numbers.

    Examples
    --------
    >>> k = np.array([[[1, 0]], [[1, 0]], [[0, 1]]], np.float32)
    >>> scores = np.array([[1, 2, 3]], np.float32)
    >>> merged = tm.selection.kvmerger_merge(k, k, scores, recent=0, heavy=0)
    >>> merged.positions.tolist(), merged.sizes.tolist()
    ([[1, 2]], [[2.0, 1.0]])

    """
    shapes = _check_cache("kvmerger_merge", k, v)
    shapes.check("scores", scores, ("float32",), "num_kv_heads", "tokens")
    counts = natural("recent", recent), natural("heavy", heavy)
    merged = _core.kvmerger_merge(as_numpy(k), as_numpy(v), as_numpy(scores), epsilon, counts)
    return _padded(k, shapes, merged)


def ems_merge(
    k: Any,
    v: Any,
    global_sums: Any,
    local_sums: Any,
    *,
    budget: int,
    candidates: int,
    threshold: float = 0.6,
    share: float = 0.5,
) -> CompressedCache:
    """The best tokens stay, the next best go into the one they resemble most, or are dropped; the rest is dropped.

    "Best" joins attention from all queries (corrected for how many saw a token) and from the last ones. After the idea of EMS
    (arXiv 2412.08521), whose abstract alone was read: the definition is :mod:`tokamask.reference.compress`, and no parity is claimed.

    Parameters
    ----------
    k, v : float32, float16 or bfloat16 [tokens, num_kv_heads, head_dim or v_dim]
    global_sums, local_sums : float32 [num_kv_heads, tokens]
        :func:`attention_column_sums` of all queries and of the last ones, summed over each group.
    budget, candidates : int
        Tokens that stay; tokens that may go into them.
    threshold : float
        Least cosine for that.
    share : float
        Weight of ``local_sums``, in [0, 1].

    Returns
    -------
    CompressedCache
        ``k``, ``v``, ``positions``, ``sizes``, all heads with ``min(budget, tokens)`` tokens.

    Examples
    --------
    >>> k = np.array([[[1, 0]], [[0, 1]], [[2, 0]]], np.float32)
    >>> sums = np.array([[9, 5, 2]], np.float32)
    >>> merged = tm.selection.ems_merge(k, k, sums, sums, budget=2, candidates=1)
    >>> merged.positions.tolist(), merged.sizes.tolist()
    ([[0, 1]], [[2.0, 1.0]])

    """
    shapes = _check_cache("ems_merge", k, v)
    for name, sums in (("global_sums", global_sums), ("local_sums", local_sums)):
        shapes.check(name, sums, ("float32",), "num_kv_heads", "tokens")
    scores = _ems_scores(as_numpy(global_sums), as_numpy(local_sums), share)
    counts = natural("budget", budget), natural("candidates", candidates)
    return _padded(k, shapes, _core.ems_merge(as_numpy(k), as_numpy(v), scores, counts, threshold))
