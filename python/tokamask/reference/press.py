"""Scores by which a finished prompt's cache is compressed: greater is kept.

``k`` [tokens, num_kv_heads, head_dim], ``q`` the last queries [window, num_q_heads, head_dim]; scores are [num_kv_heads, tokens]. The rules
are those of kvpress's presses of the same names, whose results the tests compare where that package is installed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.columns import attention_column_sums
from tokamask.reference.floats import widen
from tokamask.reference.selection import descending

Float64 = npt.NDArray[np.float64]


def knorm_scores(k: npt.NDArray[Any]) -> Float64:
    """Minus the length of each key."""
    return np.asarray(-np.sqrt((widen(k).astype(np.float64) ** 2).sum(-1)).T)


def keydiff_scores(k: npt.NDArray[Any]) -> Float64:
    """Minus the cosine between a key and the mean of all keys' directions."""
    wide = widen(k).astype(np.float64)
    length = np.sqrt((wide * wide).sum(-1))
    mean = (wide / np.maximum(length, 1e-12)[..., None]).mean(axis=0)
    cosine = (wide * mean).sum(-1) / (
        np.maximum(length, 1e-8) * np.maximum(np.sqrt((mean * mean).sum(-1)), 1e-8)
    )
    return np.asarray(-cosine.T)


def lag_weights(x: Float64, lag: int) -> Float64:
    """How each token of a stretch deviates from the next stretch: ``x`` [2 * lag, dim] to [lag].

    Channels are scaled by the least and greatest value of the next stretch (0 where these are equal); then the standard deviation
    over channels, and a softmax over the stretch.
    """
    here, after = x[:lag], x[lag:]
    low, high = after.min(axis=0), after.max(axis=0)
    span = high - low
    scaled = np.where(span > 0, (here - low) / np.where(span > 0, span, 1), 0)
    spread = scaled.std(axis=1, ddof=1) if x.shape[1] > 1 else np.zeros(lag)
    weights = np.exp(spread - spread.max())
    return np.asarray(weights / weights.sum())


def lagkv_scores(k: npt.NDArray[Any], v: npt.NDArray[Any], n_init: int, lag: int) -> Float64:
    """The rank, from 0 to 1, of each token within its stretch by ``lag_weights`` of keys plus values.

    1 for the first ``n_init`` tokens and for those without a whole stretch after theirs. Short caches: by position.
    """
    tokens, heads, _ = k.shape
    if tokens < n_init + 2 * lag:
        rest = max(tokens - n_init, 1)
        row = np.where(np.arange(tokens) < n_init, 1.0, (np.arange(tokens) - n_init) / rest)
        return np.tile(row, (heads, 1))
    scores = np.ones((heads, tokens))
    for head in range(heads):
        wide = [widen(x[:, head]).astype(np.float64) for x in (k, v)]
        for first in range(n_init, n_init + ((tokens - n_init) // lag - 1) * lag, lag):
            both = sum(lag_weights(x[first : first + 2 * lag], lag) for x in wide)
            scores[head, first + np.argsort(both, kind="stable")] = np.arange(lag) / lag
    return scores


def pooled(rows: Float64, kernel: int) -> Float64:
    """Means over ``kernel`` (odd) neighbours, zeros beyond the ends."""
    if rows.shape[1] == 0:
        return rows
    padded = np.pad(rows, ((0, 0), (kernel // 2, kernel // 2)))
    views = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=1)
    return np.asarray(views.mean(axis=-1))


def window_attention(
    q: npt.NDArray[Any], k: npt.NDArray[Any], kernel: int, scale: float | None = None
) -> Float64:
    """Attention of the last queries to each key before them, mean over queries, pooled: [num_q_heads, tokens - window]."""
    sums = attention_column_sums(q, k, scale)[:, : len(k) - len(q)]
    return pooled(sums / len(q), kernel)


def window_scores(
    q: npt.NDArray[Any],
    k: npt.NDArray[Any],
    kernel: int,
    one_list: bool,
    scale: float | None = None,
) -> Float64:
    """``window_attention``, mean over the heads of a group (over all heads with ``one_list``); one more than the greatest for the window."""
    heads = k.shape[1]
    rows = window_attention(q, k, kernel, scale)
    means = (
        rows.mean(axis=0) if one_list else rows.reshape(heads, len(rows) // heads, rows.shape[1]).mean(axis=1)
    )
    means = np.broadcast_to(means, (heads, rows.shape[1]))
    return np.pad(means, ((0, 0), (0, len(q))), constant_values=means.max(initial=0.0) + 1)


def token_sparse_select(
    q: npt.NDArray[Any],
    k: npt.NDArray[Any],
    coverage: float,
    min_tokens: int,
    kernel: int,
    scale: float | None = None,
) -> npt.NDArray[np.int32]:
    """Token Sparse Attention: the tokens of each query head, int32 [num_q_heads, c].

    ``window_attention`` of each head is scaled to a sum of 1; of its mean over heads, sorted ascending, as many tokens are dropped as
    stay below ``coverage`` together, and one more; but no more than leave ``min_tokens``. Each head keeps its best, and the window.
    """
    tokens, window = len(k), len(q)
    everything = np.tile(np.arange(tokens, dtype=np.int32), (q.shape[1], 1))
    if tokens <= min_tokens + window or coverage <= 0:
        return everything
    rows = window_attention(q, k, kernel, scale)
    rows = rows / (rows.sum(axis=1, keepdims=True) + 1e-8)
    mean = rows.mean(axis=0)
    mean = np.sort(mean / (mean.sum() + 1e-8))
    dropped = int((np.cumsum(mean) < coverage).sum())
    if dropped == 0:
        return everything
    before = tokens - window
    keep = min(max(before - dropped - 1, min_tokens), before)
    chosen = [np.sort(descending(row.astype(np.float32))[:keep]) for row in rows]
    return np.asarray([np.r_[row, before:tokens] for row in chosen], np.int32)
