"""Fewer visual tokens: greedy selection, and merging by bipartite matching.

One greedy kernel serves three rules: ``maxmin`` (farthest point; DivPrune, CVPR 2025, and ToDRE v1), ``maxsum`` (greatest summed
distance; ToDRE v2) and ``mmr`` (importance against similarity; IDPruner). ToMe after "Token Merging: your ViT but faster" and PiToMe
after its published energy formula, both from memory and not compared with the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.floats import widen

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]


def normalised(x: npt.NDArray[Any]) -> Float64:
    """Rows of length 1; rows of zeros stay (their cosines are 0)."""
    wide = widen(x).astype(np.float64)
    length = np.sqrt((wide * wide).sum(axis=-1, keepdims=True))
    return wide / np.where(length == 0, 1, length)


def greedy_select(
    x: npt.NDArray[Any],
    k: int,
    mode: str = "maxmin",
    importance: npt.NDArray[np.float32] | None = None,
    lam: float = 0.5,
) -> Int32:
    """``min(k, n)`` rows of ``x`` [n, dim], chosen one by one, returned ascending.

    Distances are ``1 - cosine``. Each step takes the row of greatest gain, lowest index among equals:

    - ``maxmin``: gain is the distance to the nearest chosen row; the first row is the one farthest from its nearest neighbour.
    - ``maxsum``: gain is the sum of distances to the chosen rows; the first row as for ``maxmin``.
    - ``mmr``: gain is ``lam * importance - (1 - lam) * greatest cosine to a chosen row``, importance scaled to [0, 1] by its least
      and greatest; the first row is the most important.
    """
    unit = normalised(x)
    n = len(unit)
    cosine = unit @ unit.T
    if mode == "mmr":
        wide = np.zeros(n) if importance is None else importance.astype(np.float64)
        least, most = wide.min(initial=np.inf), wide.max(initial=-np.inf)
        gain = lam * (wide - least) / (most - least if most > least else 1.0)
    else:
        others = cosine.copy()
        np.fill_diagonal(others, -np.inf)
        gain = 1 - others.max(axis=1, initial=-np.inf) if n > 1 else np.zeros(n)
    worth = gain
    chosen: list[int] = []
    nearest, total = np.full(n, -np.inf), np.zeros(n)
    for _ in range(min(k, n)):
        free = np.setdiff1d(np.arange(n), chosen)
        best = int(free[np.argmax(worth[free])])
        chosen.append(best)
        nearest, total = np.maximum(nearest, cosine[best]), total + (1 - cosine[best])
        worth = {"maxmin": 1 - nearest, "maxsum": total, "mmr": gain - (1 - lam) * nearest}[mode]
    return np.sort(np.array(chosen, np.int32))


def match(metric: npt.NDArray[Any], sources: Int32, targets: Int32, r: int) -> tuple[Int32, Int32]:
    """The ``r`` sources most similar to a target, ascending, and the target of each; ties by lowest index."""
    if len(targets) == 0:
        return sources[:0], targets
    unit = normalised(metric)
    cosine = unit[sources] @ unit[targets].T
    best = cosine.argmax(axis=1)
    order = np.argsort(-cosine[np.arange(len(sources)), best], kind="stable")[:r]
    order = np.sort(order)
    return sources[order], targets[best[order]]


def merge(
    x: npt.NDArray[Any], size: npt.NDArray[np.float32], sources: Int32, targets: Int32
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], Int32]:
    """Each source into its target, means weighted by size: (rows that stay, their sizes, the new row of each old one)."""
    n = len(x)
    into = np.arange(n)
    into[sources] = targets
    stays = np.flatnonzero(into == np.arange(n))
    row = np.full(n, -1, np.int32)
    row[stays] = np.arange(len(stays))
    where = row[into]
    weight = size.astype(np.float64)
    sums, sizes = np.zeros((len(stays), x.shape[1])), np.zeros(len(stays))
    np.add.at(sums, where, widen(x).astype(np.float64) * weight[:, None])
    np.add.at(sizes, where, weight)
    return (sums / sizes[:, None]).astype(np.float32), sizes.astype(np.float32), where.astype(np.int32)


def tome_match(metric: npt.NDArray[Any], r: int, protect: int = 0) -> tuple[Int32, Int32]:
    """ToMe: even rows propose to odd rows, the first ``protect`` rows take no part; at most all even rows merge."""
    sources = np.arange(protect, len(metric), 2, dtype=np.int32)
    targets = np.arange(protect + 1, len(metric), 2, dtype=np.int32)
    return match(metric, sources, targets, r)


def tome_edges(metric: npt.NDArray[Any], protect: int = 0) -> Float64:
    """The greatest cosine of each source of :func:`tome_match` with a target; none if there is no target."""
    unit = normalised(metric)
    cosine = unit[protect::2] @ unit[protect + 1 :: 2].T
    return np.asarray(cosine.max(axis=1)) if cosine.size else np.zeros(0)


def dymu_match(metric: npt.NDArray[Any], threshold: float, protect: int = 0) -> tuple[Int32, Int32]:
    """DyMU: the edges of ToMe with a cosine above the threshold, however many."""
    return tome_match(metric, int((tome_edges(metric, protect) > threshold).sum()), protect)


def dymu_threshold(edges: Sequence[npt.NDArray[Any]], r: float) -> float:
    """The threshold above which samples have ``r`` edges on average, at most: the edge that is first left out."""
    pooled = np.sort(np.concatenate(edges))[::-1]
    place = int(r * len(edges))
    return float(pooled[place]) if place < len(pooled) else -1.0


def pitome_energy(metric: npt.NDArray[Any], margin: float, alpha: float = 1.0) -> Float64:
    """Mean over the other rows of ``f(cosine)``: ``f(x) = x`` from the margin up, ``alpha * (exp(x - margin) - 1)`` below."""
    unit = normalised(metric)
    cosine = unit @ unit.T
    f = np.where(cosine >= margin, cosine, alpha * (np.exp(cosine - margin) - 1))
    np.fill_diagonal(f, 0)
    mean: Float64 = f.sum(axis=1) / max(len(unit) - 1, 1)
    return mean


def pitome_match(metric: npt.NDArray[Any], r: int, margin: float, protect: int = 0) -> tuple[Int32, Int32]:
    """PiToMe: the ``2 r`` rows of greatest energy, dealt alternately to sources and targets, match as in ToMe."""
    energy = pitome_energy(metric[protect:], margin)
    r = min(r, len(energy) // 2)
    order = protect + np.argsort(-energy, kind="stable")[: 2 * r].astype(np.int32)
    return match(metric, np.sort(order[::2]), np.sort(order[1::2]), r)
