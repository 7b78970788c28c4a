"""FASA: scores from the few frequency chunks of RoPE that decide what a head attends to.

Based on the abstract of arXiv 2602.03152 (ICLR 2026); the equations here are our reading, not the authors'. A frequency chunk is a
pair of channels that RoPE rotates together: ``(i, i + d / 2)``, or ``(2 i, 2 i + 1)`` when ``interleaved``. A model without RoPE has
none: do not use this there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.attention import gather
from tokamask.reference.floats import widen
from tokamask.reference.selection import descending


def chunk_channels(chunks: npt.NDArray[Any], head_dim: int, interleaved: bool) -> npt.NDArray[np.int64]:
    """The channels of some chunks: [n] -> [2 n]."""
    chunks = np.asarray(chunks, np.int64)
    pairs = (2 * chunks, 2 * chunks + 1) if interleaved else (chunks, chunks + head_dim // 2)
    return np.concatenate(pairs)


def fasa_calibrate(
    q: npt.NDArray[Any], k: npt.NDArray[Any], n_chunks: int, top: int, interleaved: bool = False
) -> npt.NDArray[np.int32]:
    """The chunks whose scores alone agree best with the full scores about the ``top`` tokens.

    ``q`` [samples, num_q_heads, head_dim] after RoPE, each against all of ``k`` [tokens, num_kv_heads, head_dim] after RoPE. The
    agreement of a chunk is ``|top by the chunk and top by all| / top``, summed over samples and over the heads of a group, so that
    a KV head has one set. Returns int32 [num_kv_heads, n_chunks], ascending; ties by lowest chunk.
    """
    samples, num_q_heads, head_dim = q.shape
    heads = k.shape[1]
    agreement = np.zeros((heads, head_dim // 2))
    for h in range(num_q_heads):
        head = h // (num_q_heads // heads)
        keys = widen(k[:, head]).astype(np.float64)
        for s in range(samples):
            query = widen(q[s, h]).astype(np.float64)
            best = set(descending((keys @ query).astype(np.float32))[:top].tolist())
            for chunk in range(head_dim // 2):
                channels = chunk_channels(np.array([chunk]), head_dim, interleaved)
                scores = keys[:, channels] @ query[channels]
                agreement[head, chunk] += len(
                    best.intersection(descending(scores.astype(np.float32))[:top].tolist())
                )
    order = [np.sort(descending(row.astype(np.float32))[:n_chunks]) for row in agreement]
    return np.array(order, np.int32).reshape(heads, -1)


def fasa_scores(
    q: npt.NDArray[Any],
    k_cache: npt.NDArray[Any],
    page_table: npt.NDArray[np.int32],
    dominant: npt.NDArray[np.int32],
    seq_lens: npt.NDArray[np.int32],
    interleaved: bool = False,
) -> npt.NDArray[np.float32]:
    """Scores of every token from the dominant chunks: float32 [batch, num_kv_heads, max_pages * page_size], -inf past the end.

    For each query head the dot product over the channels of ``dominant`` [num_kv_heads, n_chunks], unscaled, then a softmax over the
    tokens, summed over the heads of the group.
    """
    batch, num_q_heads, head_dim = q.shape
    heads = k_cache.shape[2]
    group = num_q_heads // heads
    scores = np.full((batch, heads, page_table.shape[1] * k_cache.shape[1]), -np.inf, np.float32)
    for b, length in enumerate(seq_lens.tolist()):
        for h in range(heads if length else 0):
            channels = chunk_channels(dominant[h], head_dim, interleaved)
            keys = gather(k_cache, page_table[b], np.arange(length), h)[:, channels]
            queries = widen(q[b, h * group : (h + 1) * group]).astype(np.float64)[:, channels]
            dots = queries @ keys.T
            weights = np.exp(dots - dots.max(axis=1, keepdims=True))
            scores[b, h, :length] = (weights / weights.sum(axis=1, keepdims=True)).sum(axis=0)
    return scores
