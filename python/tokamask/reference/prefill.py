"""Attention of many queries over chosen keys, in float64: block-sparse prefill, compress-attend-scatter, and the hybrid of softmax and
linear attention. ``q`` [queries, num_q_heads, head_dim], ``k`` and ``v`` [tokens, num_kv_heads, ..] unless said otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.attention import attend, default_scale
from tokamask.reference.floats import narrow, widen

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]
Results = tuple[Array, npt.NDArray[np.float32]]


def exact(q: Array, k: Array, v: Array) -> tuple[Float64, Float64, Float64]:
    """Three arrays in float64."""
    return widen(q).astype(np.float64), widen(k).astype(np.float64), widen(v).astype(np.float64)


def block_sparse_prefill(
    q: Array,
    k: Array,
    v: Array,
    indptr: npt.NDArray[np.int32],
    indices: npt.NDArray[np.int32],
    block: tuple[int, int],
    causal: bool,
    scale: float | None = None,
) -> Results:
    """Queries of block ``i`` see the key blocks ``indices[indptr[h, i]:indptr[h, i + 1]]`` of their KV head.

    ``indptr`` int32 [num_kv_heads or 1, query blocks + 1]. With ``causal`` a query sees no key after its own position, the last query
    standing at the last key. A block named twice counts twice.
    """
    queries, num_q_heads, _ = q.shape
    tokens, kv_heads, _ = k.shape
    rows, columns = block
    o = np.zeros((queries, num_q_heads, v.shape[2]))
    lse = np.full((queries, num_q_heads), -np.inf)
    for h in range(num_q_heads):
        head = h // (num_q_heads // kv_heads)
        places = indptr[head if len(indptr) > 1 else 0]
        for t in range(queries):
            blocks = indices[places[t // rows] : places[t // rows + 1]]
            seen = [s for b in blocks for s in range(b * columns, min((b + 1) * columns, tokens))]
            seen = [s for s in seen if not causal or s <= tokens - queries + t]
            query, keys, values = exact(q[t, h], k[seen, head], v[seen, head])
            o[t, h], lse[t, h] = attend(query, keys, values, default_scale(q, scale))
    return narrow(o, q.dtype), lse.astype(np.float32)


def selected_prefill(
    q: Array, k: Array, v: Array, selected: npt.NDArray[np.int32], scale: float | None = None
) -> Results:
    """Causal attention among the selected tokens of each query head as if there were no others; 0 and -inf for the others.

    ``selected`` int32 [num_q_heads, c], ascending, -1 padded.
    """
    tokens, num_q_heads, _ = q.shape
    o = np.zeros((tokens, num_q_heads, v.shape[2]))
    lse = np.full((tokens, num_q_heads), -np.inf)
    for h in range(num_q_heads):
        head = h // (num_q_heads // k.shape[1])
        kept = selected[h][selected[h] >= 0]
        for i, t in enumerate(kept):
            seen = kept[: i + 1]
            query, keys, values = exact(q[t, h], k[seen, head], v[seen, head])
            o[t, h], lse[t, h] = attend(query, keys, values, default_scale(q, scale))
    return narrow(o, q.dtype), lse.astype(np.float32)


def hybrid_attention(
    q: Array,
    k: Array,
    v: Array,
    salient: npt.NDArray[np.bool_],
    phi_q: npt.NDArray[np.float32],
    phi_k: npt.NDArray[np.float32],
    window: int,
    scale: float | None = None,
) -> Array:
    """Softmax weights for some tokens, ``phi_q . phi_k`` for the rest, normalised together. Arrays [batch, heads, tokens, ..].

    Query ``t`` gives softmax weights ``exp(scale * q . k)`` to tokens ``t - window + 1 .. t`` and to earlier ones that are ``salient``;
    ``phi_q[t] . phi_k[s]`` (features not negative) to the other earlier ones.
    """
    batch, heads, tokens, _ = q.shape
    o = np.zeros((batch, heads, tokens, v.shape[3]))
    factor = default_scale(q, scale)
    for b, h, t in np.ndindex(batch, heads, tokens):
        s = np.arange(t + 1)
        soft = salient[b, h, : t + 1] | (s > t - window)
        query, keys, values = exact(q[b, h, t], k[b, h, : t + 1], v[b, h, : t + 1])
        with np.errstate(over="ignore"):
            linear = phi_k[b, h, : t + 1].astype(np.float64) @ phi_q[b, h, t].astype(np.float64)
        scores = factor * keys @ query
        top = max(scores[soft].max(), 0.0)
        weights = np.where(soft, np.exp(np.where(soft, scores, top) - top), linear * np.exp(-top))
        o[b, h, t] = weights @ values / weights.sum()
    return narrow(o, q.dtype)
