"""The lightning indexer of DeepSeek Sparse Attention, and HISA, which runs it on a few blocks only.

Formula of the indexer as published with DeepSeek-V3.2, from memory; HISA after the abstract of arXiv 2603.28458, its block rule our
reading. Neither was compared with the authors' code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.floats import widen
from tokamask.reference.selection import top_k


def index(q: npt.NDArray[Any], k: npt.NDArray[Any], w: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """``sum over heads of w * relu(q . k)``: q [heads, d], k [n, d], w [heads] -> [n]."""
    dots = widen(k).astype(np.float64) @ widen(q).astype(np.float64).T
    return np.maximum(dots, 0) @ w.astype(np.float64)


def indexer_scores(
    q: npt.NDArray[Any], k: npt.NDArray[Any], w: npt.NDArray[np.float32], positions: npt.NDArray[np.int32]
) -> npt.NDArray[np.float32]:
    """Scores of every key for every query: float32 [queries, tokens], -inf after ``positions[t]``.

    ``q`` [queries, heads, d], ``k`` [tokens, d] (one shared key head), ``w`` float32 [queries, heads], any sign, scales included.
    """
    scores = np.full((len(q), len(k)), -np.inf, np.float32)
    for t, position in enumerate(positions.tolist()):
        seen = min(max(position + 1, 0), len(k))
        scores[t, :seen] = index(q[t], k[:seen], w[t])
    return scores


def hisa_select(
    q: npt.NDArray[Any],
    k: npt.NDArray[Any],
    w: npt.NDArray[np.float32],
    positions: npt.NDArray[np.int32],
    n_tokens: int,
    n_blocks: int,
    block: int,
) -> npt.NDArray[np.int32]:
    """The ``n_tokens`` best keys among those of the ``n_blocks`` best blocks: int32 [queries, n_tokens], ascending, -1 padded.

    A block is ranked by the indexer on the mean of its keys. The first block and the block of the query's position are always
    among them (``n_blocks >= 2``); later blocks are not seen.
    """
    tokens = len(k)
    means = np.array(
        [widen(k[i : i + block]).mean(axis=0, dtype=np.float64) for i in range(0, tokens, block)]
    )
    selected = np.full((len(q), n_tokens), -1, np.int32)
    for t, position in enumerate(positions.tolist()):
        if position < 0 or tokens == 0:
            continue
        last = min(position, tokens - 1) // block
        rank = index(q[t], means[: last + 1].astype(np.float32), w[t]).astype(np.float32)
        rank[[0, last]] = np.inf
        kept = top_k(rank[None], n_blocks)[0]
        candidates = np.concatenate([np.arange(i * block, (i + 1) * block) for i in kept if i >= 0])
        candidates = candidates[candidates <= min(position, tokens - 1)]
        best = top_k(index(q[t], k[candidates], w[t]).astype(np.float32)[None], n_tokens)[0]
        n = min(n_tokens, len(candidates))
        selected[t, :n] = candidates[best[:n]]
    return selected
