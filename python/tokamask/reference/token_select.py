"""TokenSelect: one list of tokens for all heads, chosen by a soft vote.

Source: arXiv 2411.02886 (EMNLP 2025), read with the authors' code. Two differences on purpose: query head ``h`` votes with KV head
``h // group`` (the code's kernel takes ``h % num_kv_heads``, which is another tensor order), and ``scale`` is an argument (theirs
is 1; the default 1 / sqrt(head_dim) changes how sharp the vote is).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.attention import default_scale, gather
from tokamask.reference.floats import widen
from tokamask.reference.selection import top_k


def token_votes(q: npt.NDArray[Any], k: npt.NDArray[np.float64], scale: float) -> npt.NDArray[np.float64]:
    """``sum over heads of softmax over tokens``: q [num_q_heads, d], k [num_kv_heads, n, d] -> [n]."""
    group = len(q) // len(k)
    votes = np.zeros(k.shape[1])
    for h, query in enumerate(widen(q).astype(np.float64)):
        scores = scale * (k[h // group] @ query)
        weights = np.exp(scores - scores.max(initial=-np.inf))
        votes += weights / weights.sum() if len(weights) else 0
    return votes


def token_select(
    q: npt.NDArray[Any],
    k_cache: npt.NDArray[Any],
    page_table: npt.NDArray[np.int32],
    seq_lens: npt.NDArray[np.int32],
    k: int,
    n_init: int,
    n_local: int,
    scale: float | None = None,
) -> npt.NDArray[np.int32]:
    """The first ``n_init`` tokens, the ``k`` with most votes in between, and the last ``n_local``.

    ``q`` [batch, num_q_heads, head_dim] (for a chunk of queries: their mean). Returns int32 [batch, 1, n_init + k + n_local],
    ascending, -1 padded; a sequence no longer than that is kept whole.
    """
    width = n_init + k + n_local
    selected = np.full((len(q), 1, width), -1, np.int32)
    for b, length in enumerate(seq_lens.tolist()):
        if length <= width:
            selected[b, 0, :length] = np.arange(length)
            continue
        middle = np.arange(n_init, length - n_local)
        keys = np.stack([gather(k_cache, page_table[b], middle, h) for h in range(k_cache.shape[2])])
        votes = token_votes(q[b], keys, default_scale(q, scale)).astype(np.float32)
        chosen = n_init + top_k(votes[None], k)[0]
        selected[b, 0] = np.concatenate([np.arange(n_init), chosen, np.arange(length - n_local, length)])
    return selected
