"""Attention of decode-time queries over a paged KV cache, in float64.

Common shapes: ``q`` [batch, num_q_heads, head_dim]; ``k_cache`` [pages, page_size, num_kv_heads, head_dim] and ``v_cache``
[pages, page_size, num_kv_heads, v_dim], float32, float16 or bfloat16 bits; ``page_table`` int32 [batch, max_pages]: token ``i`` of
sequence ``b`` is slot ``i % page_size`` of page ``page_table[b, i // page_size]``; ``seq_lens`` int32 [batch]. Query head ``h`` reads KV
head ``h // (num_q_heads // num_kv_heads)``. ``lse`` is the natural logarithm of the sum of ``exp(scale * q . k)``.

A row that sees no token has output 0 and lse -inf. NaN in what is read propagates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.floats import narrow, widen

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


def gather(cache: Array, page_table: npt.NDArray[np.int32], tokens: Array, kv_head: int) -> Float64:
    """Rows of one KV head at the given positions of one sequence: float64 [n, dim]."""
    page_size = cache.shape[1]
    pages = page_table[tokens // page_size]
    return widen(cache[pages, tokens % page_size, kv_head]).astype(np.float64)


def attend(q: Float64, k: Float64, v: Float64, scale: float) -> tuple[Float64, float]:
    """One query over n rows: the softmax-weighted sum of ``v`` and the lse."""
    if len(k) == 0:
        return np.zeros(v.shape[1]), -np.inf
    scores = scale * (k @ q)
    best = scores.max()
    if best == -np.inf:
        return np.zeros(v.shape[1]), -np.inf
    weights = np.exp(scores - best)
    total = weights.sum()
    return weights @ v / total, float(best + np.log(total))


def sink_weight(lse: float, sink: float) -> float:
    """What an attention sink leaves of the output: ``exp(lse) / (exp(lse) + exp(sink))``; the lse itself is unchanged."""
    return 0.0 if lse == -np.inf else float(1 / (1 + np.exp(sink - lse)))


def default_scale(q: Array, scale: float | None) -> float:
    """``1 / sqrt(head_dim)`` unless given."""
    return 1 / np.sqrt(q.shape[-1]) if scale is None else scale


def decode(
    q: Array,
    k_cache: Array,
    v_cache: Array,
    page_table: npt.NDArray[np.int32],
    seq_lens: npt.NDArray[np.int32],
    scale: float | None = None,
    sinks: npt.NDArray[np.float32] | None = None,
) -> tuple[Array, npt.NDArray[np.float32]]:
    """Dense attention of one query per sequence over all its tokens.

    Returns ``o`` [batch, num_q_heads, v_dim] in the dtype of ``q`` and ``lse`` float32 [batch, num_q_heads].
    ``sinks`` float32 [num_q_heads] are logits that take weight and give nothing (see :func:`sink_weight`).
    """
    num_kv_heads = k_cache.shape[2]
    longest = int(seq_lens.max(initial=0))
    everything = np.broadcast_to(np.arange(longest, dtype=np.int32), (len(q), num_kv_heads, longest))
    return sparse_decode(q, k_cache, v_cache, page_table, everything, seq_lens, scale, sinks)


def sparse_decode(
    q: Array,
    k_cache: Array,
    v_cache: Array,
    page_table: npt.NDArray[np.int32],
    selected: npt.NDArray[np.int32],
    seq_lens: npt.NDArray[np.int32],
    scale: float | None = None,
    sinks: npt.NDArray[np.float32] | None = None,
) -> tuple[Array, npt.NDArray[np.float32]]:
    """Attention over the selected tokens only.

    ``selected`` int32 [batch, num_kv_heads or 1, k]: token positions in any order; entries outside [0, seq_len) are holes
    (-1 by convention); a token named twice counts twice. One list may serve all heads. Results as in :func:`decode`.
    """
    batch, num_q_heads, _ = q.shape
    group = num_q_heads // k_cache.shape[2]
    scale = default_scale(q, scale)
    o = np.empty((batch, num_q_heads, v_cache.shape[3]))
    lse = np.empty((batch, num_q_heads))
    for b in range(batch):
        for h in range(num_q_heads):
            head = h // group
            tokens = selected[b, head if selected.shape[1] > 1 else 0]
            tokens = tokens[(tokens >= 0) & (tokens < seq_lens[b])]
            k = gather(k_cache, page_table[b], tokens, head)
            v = gather(v_cache, page_table[b], tokens, head)
            o[b, h], lse[b, h] = attend(widen(q[b, h]).astype(np.float64), k, v, scale)
            if sinks is not None:
                o[b, h] *= sink_weight(lse[b, h], float(sinks[h]))
    return narrow(o, q.dtype), lse.astype(np.float32)


def merge_states(v: Array, lse: npt.NDArray[np.float32]) -> tuple[Array, npt.NDArray[np.float32]]:
    """Attention over a union of disjoint parts from attention over each part.

    ``v`` [..., parts, heads, dim] and ``lse`` float32 [..., parts, heads] become [..., heads, dim] and [..., heads]: weights
    ``exp(lse - max)`` normalised. A part with lse -inf weighs nothing, whatever its ``v`` holds; all parts -inf give 0 and -inf.
    """
    wide = lse.astype(np.float64)
    best = wide.max(axis=-2, keepdims=True)
    weights = np.exp(wide - np.where(best == -np.inf, 0, best))
    total = weights.sum(axis=-2)
    parts = np.where(weights[..., None] == 0, 0, widen(v).astype(np.float64)) * weights[..., None]
    out = parts.sum(axis=-3) / np.where(total == 0, 1, total)[..., None]
    with np.errstate(divide="ignore"):
        merged = np.squeeze(best, -2) + np.log(total)
    return narrow(out, v.dtype), np.where(total == 0, -np.inf, merged).astype(np.float32)


def tree_bits(tree_mask: npt.NDArray[np.uint64], nodes: int) -> npt.NDArray[np.bool_]:
    """Ancestor bits [..., nodes, ceil(nodes / 64)] as bool [..., nodes, nodes]."""
    little = np.ascontiguousarray(tree_mask.astype("<u8")).view(np.uint8)
    return np.unpackbits(little, axis=-1, bitorder="little", count=nodes).astype(np.bool_)


def tree_decode(
    q: Array,
    k_cache: Array,
    v_cache: Array,
    page_table: npt.NDArray[np.int32],
    tree_mask: npt.NDArray[np.uint64],
    k_tree: Array,
    v_tree: Array,
    seq_lens: npt.NDArray[np.int32],
    scale: float | None = None,
) -> tuple[Array, npt.NDArray[np.float32]]:
    """Attention of the nodes of a draft tree over the cached prefix and their own ancestors.

    Parameters
    ----------
    q : [batch, nodes, num_q_heads, head_dim]
    k_cache, v_cache, page_table, seq_lens
        The prefix: every node sees all of it.
    tree_mask : uint64 [batch or 1, nodes, ceil(nodes / 64)]
        Bit ``j % 64`` of word ``j // 64`` of row ``i``: node ``i`` sees tree node ``j`` (its ancestors and itself). A row of zeros is
        a padding node: its output is 0 and its lse -inf (it does not see the prefix either).
    k_tree, v_tree : [batch, nodes, num_kv_heads, head_dim or v_dim]
        Keys and values of the nodes, not yet in the cache.

    Returns
    -------
    o : [batch, nodes, num_q_heads, v_dim], dtype of ``q``
    lse : float32 [batch, nodes, num_q_heads]

    """
    batch, nodes, num_q_heads, _ = q.shape
    group = num_q_heads // k_cache.shape[2]
    scale = default_scale(q, scale)
    sees = np.broadcast_to(tree_bits(tree_mask, nodes), (batch, nodes, nodes))
    o = np.zeros((batch, nodes, num_q_heads, v_cache.shape[3]))
    lse = np.full((batch, nodes, num_q_heads), -np.inf)
    for b in range(batch):
        prefix = np.arange(seq_lens[b])
        for h in range(num_q_heads):
            k_prefix = gather(k_cache, page_table[b], prefix, h // group)
            v_prefix = gather(v_cache, page_table[b], prefix, h // group)
            for i in np.flatnonzero(sees[b].any(axis=-1)):
                k = np.concatenate([k_prefix, widen(k_tree[b, sees[b, i], h // group]).astype(np.float64)])
                v = np.concatenate([v_prefix, widen(v_tree[b, sees[b, i], h // group]).astype(np.float64)])
                o[b, i, h], lse[b, i, h] = attend(widen(q[b, i, h]).astype(np.float64), k, v, scale)
    return narrow(o, q.dtype), lse.astype(np.float32)
