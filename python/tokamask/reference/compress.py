"""A shorter cache by merging keys and values, in float64. ``k`` and ``v`` [tokens, heads, ..], ``scores`` [heads, tokens].

Both rules are from memory of the papers' ideas (EMS, arXiv 2412.08521; KVMerger, arXiv 2407.08454): what is written here is the definition,
and no claim of parity with the authors' code is made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.floats import widen
from tokamask.reference.reduction import normalised
from tokamask.reference.selection import descending

Array = npt.NDArray[Any]
Head = tuple[Array, Array, npt.NDArray[np.int32], npt.NDArray[np.float32]]
"""Of one head: keys [kept, head_dim], values [kept, v_dim], positions [kept], and how many tokens went into each [kept]."""


def mean(k: Array, v: Array, position: int, tokens: Array, weights: Array) -> tuple[Array, Array, int, int]:
    """The weighted mean of some tokens, to stand at a position."""
    share = weights / weights.sum()
    return share @ k[tokens], share @ v[tokens], position, len(tokens)


def stack(parts: list[tuple[Array, Array, int, int]], k: Array, v: Array) -> Head:
    """What :func:`mean` gave, as arrays."""
    keys = np.array([p[0] for p in parts]).reshape(len(parts), k.shape[1])
    values = np.array([p[1] for p in parts]).reshape(len(parts), v.shape[1])
    return (
        keys,
        values,
        np.array([p[2] for p in parts], np.int32),
        np.array([p[3] for p in parts], np.float32),
    )


def kvmerger_merge(
    k: Array, v: Array, scores: npt.NDArray[np.float32], epsilon: float, recent: int, heavy: int
) -> list[Head]:
    """Runs of neighbouring tokens whose keys have a cosine above ``epsilon`` become one each.

    The last ``recent`` tokens and the ``heavy`` ones of greatest score stay alone. A run goes to its token of greatest score ``p``, with
    weights ``exp(-|k_p - k|^2 / (2 sigma^2))``, ``sigma`` the mean distance of the others from ``p``.
    """
    tokens, heads, _ = k.shape
    result = []
    for h in range(heads):
        keys, values = widen(k[:, h]).astype(np.float64), widen(v[:, h]).astype(np.float64)
        free = np.arange(tokens) + recent < tokens
        free[descending(scores[h])[:heavy]] = False
        unit = normalised(k[:, h])
        near = (unit[1:] * unit[:-1]).sum(-1) > epsilon
        joins = np.r_[False, near & free[1:] & free[:-1]][:tokens]
        parts = []
        for run in np.split(np.arange(tokens), np.flatnonzero(~joins)[1:]) if tokens else []:
            pivot = int(run[np.argmax(scores[h, run])])
            square = ((keys[run] - keys[pivot]) ** 2).sum(-1)
            sigma = np.sqrt(square).sum() / max(len(run) - 1, 1)
            weights = np.exp(-square / (2 * sigma**2)) if sigma > 0 else np.ones(len(run))
            parts.append(mean(keys, values, pivot, run, weights))
        result.append(stack(parts, keys, values))
    return result


def ems_scores(
    global_sums: npt.NDArray[np.float32], local_sums: npt.NDArray[np.float32], share: float
) -> npt.NDArray[np.float32]:
    """Attention received from all queries and from the last ones, joined: [heads, tokens] each.

    Column ``t`` of the first was seen by ``tokens - t`` queries and is divided by that; each is then scaled to a sum of 1 per head, and
    ``(1 - share) * first + share * second`` is the score.
    """
    tokens = global_sums.shape[1]
    first = global_sums / np.arange(tokens, 0, -1)
    first, second = (
        x / np.maximum(x.sum(axis=1, keepdims=True), 1e-30) for x in (first, local_sums.astype(np.float64))
    )
    return np.asarray((1 - share) * first + share * second, np.float32)


def ems_merge(
    k: Array, v: Array, scores: npt.NDArray[np.float32], budget: int, candidates: int, threshold: float
) -> list[Head]:
    """The ``budget`` tokens of greatest score are centres; the next ``candidates`` go into the centre of greatest key cosine.

    The zero vector is a centre too, whose cosine is set to ``threshold``: what goes there is dropped, like all remaining tokens.
    Means are weighted by score (below 0 counts as 0; equally, where all are 0).
    """
    result = []
    for h in range(k.shape[1]):
        keys, values = widen(k[:, h]).astype(np.float64), widen(v[:, h]).astype(np.float64)
        order = descending(scores[h])
        centres = np.sort(order[:budget])
        unit = normalised(k[:, h])
        members = {int(c): [int(c)] for c in centres}
        for t in order[budget : budget + candidates]:
            cosine = np.r_[threshold, unit[centres] @ unit[t]]
            best = int(np.argmax(cosine))  # the zero class first among equals
            if best:
                members[int(centres[best - 1])].append(int(t))
        parts = []
        for c, run in members.items():
            weights = np.maximum(scores[h, run].astype(np.float64), 0)
            parts.append(
                mean(keys, values, c, np.array(run), weights if weights.any() else np.ones(len(run)))
            )
        result.append(stack(parts, keys, values))
    return result
