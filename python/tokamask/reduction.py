"""Fewer visual tokens: greedy selection, and merging by similarity. Public through :mod:`tokamask.selection`."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from tokamask import _core
from tokamask.errors import ShapeError
from tokamask.gpu.arrays import is_cuda
from tokamask.shapes import FLOATS, Shapes, as_numpy, cuda_function, library, output

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
    """Tokens after merging. ``x[rows]`` has the old number of rows again: each old token as what it went into."""

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

    """
    return _merge("tome_merge", x, r, metric, size, protect, None)


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

    """
    return _merge("pitome_merge", x, r, metric, size, protect, margin)


def _merge(name: str, x: Any, r: int, metric: Any, size: Any, protect: int, margin: float | None) -> Merged:
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
    if r < 0 or protect < 0:
        expected, got = "0 or more", f"r {r}, protect {protect}"
        raise ShapeError(f"r: expected {expected}, got {got}", name="r", expected=expected, got=got)
    rows = as_numpy(x)
    measured = rows if metric is None else as_numpy(metric)
    weights = np.ones(shapes["n"], np.float32) if size is None else as_numpy(size)
    flat, sizes, where = _core.merge_rows(rows, measured, weights, r, margin, protect)
    merged = flat.reshape(len(sizes), -1) if len(sizes) else flat.reshape(0, shapes["dim"]), sizes, where
    if library(x) == "torch":
        return Merged(*map(sys.modules["torch"].from_numpy, merged))
    return Merged(*merged)
