"""Quest: bounds of the keys of each page, and what a query can score there at most.

Based on the idea of "Quest: query-aware sparsity" (ICML 2024), written from the formula and not compared with the authors' code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.floats import widen

Float32 = npt.NDArray[np.float32]


def quest_bounds(
    k_cache: npt.NDArray[Any], page_table: npt.NDArray[np.int32], seq_lens: npt.NDArray[np.int32]
) -> tuple[Float32, Float32]:
    """Least and greatest key of each page, channel by channel: two float32 [pages, num_kv_heads, head_dim].

    Only the rows that hold tokens count in a partly full page; pages that hold none are 0.
    """
    pages, page_size = k_cache.shape[:2]
    low, high = np.zeros((2, pages, *k_cache.shape[2:]), np.float32)
    for b, length in enumerate(seq_lens.tolist()):
        for first in range(0, length, page_size):
            page = page_table[b, first // page_size]
            rows = widen(k_cache[page, : min(page_size, length - first)])
            low[page], high[page] = rows.min(axis=0), rows.max(axis=0)
    return low, high


def quest_scores(
    q: npt.NDArray[Any],
    low: Float32,
    high: Float32,
    page_table: npt.NDArray[np.int32],
    seq_lens: npt.NDArray[np.int32],
    page_size: int,
) -> Float32:
    """Upper bounds of ``q . k`` over each page, the greatest of the group's heads: float32 [batch, num_kv_heads, max_pages].

    ``sum over channels of max(q * low, q * high)``, unscaled. The newest page scores +inf (it is always kept), pages past the end
    -inf.
    """
    batch, num_q_heads, _ = q.shape
    heads = low.shape[1]
    scores = np.full((batch, heads, page_table.shape[1]), -np.inf, np.float32)
    for b, length in enumerate(seq_lens.tolist()):
        used = -(-length // page_size)
        for p in range(used):
            page = page_table[b, p]
            for h in range(num_q_heads):
                head = h // (num_q_heads // heads)
                query = widen(q[b, h]).astype(np.float64)
                bound = np.maximum(query * low[page, head], query * high[page, head]).sum()
                scores[b, head, p] = max(scores[b, head, p], bound)
        if used:
            scores[b, :, used - 1] = np.inf
    return scores


def page_tokens(
    selected_pages: npt.NDArray[np.int32], seq_lens: npt.NDArray[np.int32], page_size: int
) -> npt.NDArray[np.int32]:
    """Tokens of selected pages: int32 [batch, heads, p] -> [batch, heads, p * page_size], -1 where there is no token."""
    slots = np.arange(page_size, dtype=np.int32)
    tokens = selected_pages[..., None] * page_size + slots
    holes = (selected_pages[..., None] < 0) | (tokens >= seq_lens[:, None, None, None])
    return np.where(holes, -1, tokens).reshape(*selected_pages.shape[:2], -1).astype(np.int32)
