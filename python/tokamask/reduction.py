"""Fewer visual tokens: greedy selection, and merging by similarity. Public through :mod:`tokamask.selection`."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from tokamask import _core
from tokamask.errors import ShapeError
from tokamask.gpu.arrays import is_cuda
from tokamask.reference import reduction as reference
from tokamask.shapes import FLOATS, Shapes, as_numpy, cuda_function, library, natural, output, refuse

MODES = ("maxmin", "maxsum", "mmr")


def greedy_select(
    x: Any, k: int, *, importance: Any = None, mode: str = "maxmin", lam: float = 0.5, out: Any = None
) -> Any:
    """Chooses tokens one by one so that they are diverse: DivPrune, ToDRE and IDPruner in one loop.

    Distance is ``1 - cosine``; rows of zeros have cosine 0 with all. Ties go to the lowest row. The rules are from the papers'
    formulas, not compared with the authors' code.

    Parameters
    ----------
    x : float32, float16 or bfloat16 [n, dim] or [batch, n, dim]
    k : int
        Tokens to keep; at most ``n`` are.
    importance : float32 [n] or [batch, n]
        For ``"mmr"`` only, where it is required; scaled to [0, 1] by its least and greatest value.
    mode : "maxmin", "maxsum" or "mmr"
        ``"maxmin"`` takes the row farthest from its nearest chosen row (DivPrune, ToDRE v1), ``"maxsum"`` the row of greatest summed
        distance to the chosen rows (ToDRE v2); both begin with the row farthest from its nearest neighbour. ``"mmr"`` takes the
        greatest ``lam * importance - (1 - lam) * greatest cosine to a chosen row`` (IDPruner).
    lam : float
        For ``"mmr"``.
    out : int32 [min(k, n)] or [batch, min(k, n)], optional

    Returns
    -------
    int32 [min(k, n)] or [batch, min(k, n)]
        Ascending.

    Examples
    --------
    >>> x = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    >>> tm.selection.greedy_select(x, 2).tolist()
    [0, 2]

    """
    if is_cuda(x):
        run = cuda_function("selection", "greedy_select", x)
        return run(x, k, importance=importance, mode=mode, lam=lam, out=out)
    if mode not in MODES or (mode == "mmr") != (importance is not None) or k < 0:
        expected = "mode maxmin or maxsum, or mmr with importance; k 0 or more"
        got = f"mode {mode!r} {'without' if importance is None else 'with'} importance; k {k}"
        raise ShapeError(f"mode: expected {expected}, got {got}", name="mode", expected=expected, got=got)
    shapes = Shapes()
    batched = ("batch",) if len(getattr(x, "shape", ())) == 3 else ()
    shapes.check("x", x, FLOATS, *batched, "n", "dim")
    if importance is not None:
        shapes.check("importance", importance, ("float32",), *batched, "n")
    kept = min(k, shapes["n"])
    out = output("out", out, x, (shapes["batch"], kept) if batched else (kept,), "int32")
    rows, chosen = as_numpy(x), as_numpy(out)
    weights = None if importance is None else as_numpy(importance)
    for b in np.ndindex(*rows.shape[:-2]):
        _core.greedy_select(
            rows[b], None if weights is None else weights[b], lam, mode == "maxsum", chosen[b]
        )
    return out


class Merged(NamedTuple):
    """Tokens after merging. ``x[rows]`` has the old number of rows again: each old token as what it went into.

    Examples
    --------
    >>> merged = tm.selection.tome_merge(np.array([[2, 0], [4, 0], [0, 1]], np.float32), 1)
    >>> merged.x[merged.rows].tolist()
    [[3.0, 0.0], [3.0, 0.0], [0.0, 1.0]]

    """

    x: Any
    """float32 [rows that stay, dim]: means weighted by size, in the old order."""
    size: Any
    """float32 [rows that stay]: how many original tokens each stands for. Add ``log(size)`` to attention scores."""
    rows: Any
    """int32 [n]: the new row of each old token."""


def tome_merge(x: Any, r: int, *, metric: Any = None, size: Any = None, protect: int = 0) -> Merged:
    """ToMe: alternate rows propose to their most similar row of the other half; the ``r`` most similar pairs merge.

    After "Token Merging: your ViT but faster", from memory and not compared with the authors' code.

    Parameters
    ----------
    x : float32, float16 or bfloat16 [n, dim]
    r : int
        Tokens to lose; no more than half can go at once.
    metric : [n, any], optional
        What similarity is measured on (the mean key over heads); ``x`` unless given.
    size : float32 [n], optional
        How many original tokens each row stands for; ones unless given.
    protect : int
        The first rows take no part (the class token).

    Returns
    -------
    Merged
        ``x``, ``size``, ``rows``.

    Examples
    --------
    >>> merged = tm.selection.tome_merge(np.array([[2, 0], [4, 0], [0, 1]], np.float32), 1)
    >>> merged.x.tolist(), merged.size.tolist(), merged.rows.tolist()
    ([[3.0, 0.0], [0.0, 1.0]], [2.0, 1.0], [0, 0, 1])

    """
    return _merge("tome_merge", x, r, metric, size, protect)


def pitome_merge(
    x: Any, r: int, *, margin: float, metric: Any = None, size: Any = None, protect: int = 0
) -> Merged:
    """PiToMe: as ToMe, but only among the ``2 r`` rows of greatest energy, which stand in large groups of similar rows.

    The energy of a row is the mean over the others of ``f(cosine)``, ``f(x) = x`` from the margin up and ``exp(x - margin) - 1`` below. From
    the published formula, not compared with the authors' code.

    Parameters
    ----------
    x, r, metric, size, protect
        As in :func:`tome_merge`.
    margin : float
        0.9 - 0.9 * layer / layers in the paper.

    Returns
    -------
    Merged
        ``x``, ``size``, ``rows``.

    Examples
    --------
    >>> x = np.array([[0, 1], [2, 0], [4, 0]], np.float32)  # the first row resembles none
    >>> tm.selection.pitome_merge(x, 1, margin=0.5).x.tolist()
    [[0.0, 1.0], [3.0, 0.0]]

    """
    return _merge("pitome_merge", x, r, metric, size, protect, margin=margin)


def dymu_merge(x: Any, threshold: float, *, metric: Any = None, size: Any = None, protect: int = 0) -> Merged:
    """DyMU's merge: as :func:`tome_merge`, but every pair whose cosine exceeds the threshold, however many.

    ``x[rows]`` of the result is its virtual unmerging: attention over the old positions, RoPE included, from the tokens that are left.
    After the idea of DyMU, from memory and not compared with the authors' code.

    Parameters
    ----------
    x, metric, size, protect
        As in :func:`tome_merge`.
    threshold : float
        A cosine; see :func:`dymu_threshold`.

    Returns
    -------
    Merged
        ``x``, ``size``, ``rows``.

    Examples
    --------
    >>> x = np.array([[2, 0], [4, 0], [0, 1], [1, 0]], np.float32)
    >>> tm.selection.dymu_merge(x, 0.9).rows.tolist()  # a plain picture keeps fewer tokens than a busy one
    [0, 0, 1, 2]

    """
    return _merge("dymu_merge", x, 0, metric, size, protect, threshold=threshold)


def dymu_threshold(metrics: list[Any], r: float, *, protect: int = 0) -> float:
    """The threshold at which :func:`dymu_merge` merges ``r`` tokens of a sample on average: calibrated once per layer, offline.

    Parameters
    ----------
    metrics : list of float32, float16 or bfloat16 [n, dim]
        What similarity is measured on, for some pictures; ``n`` may differ.
    r : float
        Tokens to lose per picture.
    protect : int
        As in :func:`tome_merge`.

    Returns
    -------
    float
        -1 where fewer could merge at all.

    Examples
    --------
    >>> x = np.array([[2, 0], [4, 0], [0, 1], [1, 0]], np.float32)
    >>> tm.selection.dymu_threshold([x], 1)
    0.0

    """
    for metric in metrics:
        Shapes().check("metrics", metric, FLOATS, "n", "dim")
    edges = [_core.tome_edges(as_numpy(metric), protect) for metric in metrics]
    return reference.dymu_threshold(edges, r) if edges else -1.0


def entropy_scores(x: Any, *, out: Any = None) -> Any:
    """How much the heads of a token say: von Neumann entropy of its matrix of heads. Low ones can go.

    From the smaller of the two Gram matrices, in float64. After the abstract of EntropyPrune; the choice of matrix
    is our reading.

    Parameters
    ----------
    x : float32, float16 or bfloat16 [n, heads, head_dim]
        Of each token, one row per head (keys, say).
    out : float32 [n], optional

    Returns
    -------
    float32 [n]
        In [0, ln min(heads, head_dim)]; 0 for a matrix of zeros.

    Examples
    --------
    >>> x = np.array([np.eye(2), np.ones((2, 2))], np.float32)  # two heads that differ, two that agree
    >>> np.exp(tm.selection.entropy_scores(x)).round().tolist()  # as many heads as if they were all different
    [2.0, 1.0]

    """
    if is_cuda(x):
        cuda_function("selection", "entropy_scores", x)  # raises: there is no kernel
    shapes = Shapes()
    shapes.check("x", x, FLOATS, "n", "heads", "head_dim")
    out = output("out", out, x, (shapes["n"],), "float32")
    _core.entropy_scores(as_numpy(x), as_numpy(out))
    return out


def pagerank_scores(
    attention: Any,
    *,
    rounds: int = 30,
    variance: tuple[float, float] = (0.0, float("inf")),
    out: Any = None,
) -> Any:
    """The rank of each token in the graph of who attends to whom. After Zero-TPrune, from memory; no parity is claimed.

    Parameters
    ----------
    attention : float32 [heads, n, n]
        Row attends to column; rows sum to 1, or nearly.
    rounds : int
        Times that every token passes its rank on; a few dozen settle.
    variance : (float, float)
        Heads whose ranks vary less or more are left out, unless all would be.
    out : float32 [n], optional

    Returns
    -------
    float32 [n]
        Root mean square over heads.

    Examples
    --------
    >>> a = np.array([[[0, 1, 0], [1, 0, 0], [0, 1, 0]]], np.float32)  # nobody attends to the last
    >>> (3 * tm.selection.pagerank_scores(a, rounds=1)).round().tolist()
    [1.0, 2.0, 0.0]

    """
    if is_cuda(attention):
        cuda_function("selection", "pagerank_scores", attention)  # raises: there is no kernel
    shapes = Shapes()
    shapes.check("attention", attention, ("float32",), "heads", "n", "n")
    if shapes["heads"] == 0:
        raise refuse("attention", "a head or more", attention)
    out = output("out", out, attention, (shapes["n"],), "float32")
    _core.pagerank_scores(as_numpy(attention), natural("rounds", rounds), variance, as_numpy(out))
    return out


def _merge(
    name: str,
    x: Any,
    r: int,
    metric: Any,
    size: Any,
    protect: int,
    *,
    margin: float | None = None,
    threshold: float | None = None,
) -> Merged:
    if is_cuda(x):
        options = {"metric": metric, "size": size, "protect": protect}
        if margin is not None:
            options["margin"] = margin
        return Merged(*cuda_function("selection", name, x)(x, r, **options))
    shapes = Shapes()
    shapes.check("x", x, FLOATS, "n", "dim")
    if metric is not None:
        shapes.check("metric", metric, FLOATS, "n", "metric_dim")
    if size is not None:
        shapes.check("size", size, ("float32",), "n")
    rows = as_numpy(x)
    measured = rows if metric is None else as_numpy(metric)
    weights = np.ones(shapes["n"], np.float32) if size is None else as_numpy(size)
    many = natural("r", r), threshold, margin, natural("protect", protect)
    flat, sizes, where = _core.merge_rows(rows, measured, weights, *many)
    merged = flat.reshape(len(sizes), -1) if len(sizes) else flat.reshape(0, shapes["dim"]), sizes, where
    if library(x) == "torch":
        return Merged(*map(sys.modules["torch"].from_numpy, merged))
    return Merged(*merged)
