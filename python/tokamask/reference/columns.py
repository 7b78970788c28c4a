"""How much attention each key receives from a window of queries: what H2O, SnapKV, EMS and others rank by."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.attention import default_scale
from tokamask.reference.floats import widen


def attention_column_sums(
    q: npt.NDArray[Any], k: npt.NDArray[Any], scale: float | None = None
) -> npt.NDArray[np.float32]:
    """Columns of the causal attention matrix, summed over the queries: float32 [num_q_heads, tokens].

    ``q`` [queries, num_q_heads, head_dim] are the last queries of ``k`` [tokens, num_kv_heads, head_dim]: query ``i`` sees keys
    ``0 .. tokens - queries + i``. Never stores more than one row of the matrix.
    """
    queries, num_q_heads, _ = q.shape
    tokens, heads, _ = k.shape
    sums = np.zeros((num_q_heads, tokens))
    for h in range(num_q_heads):
        keys = widen(k[:, h // (num_q_heads // heads)]).astype(np.float64)
        for i in range(queries):
            seen = tokens - queries + i + 1
            scores = default_scale(q, scale) * (keys[:seen] @ widen(q[i, h]).astype(np.float64))
            weights = np.exp(scores - scores.max())
            sums[h, :seen] += weights / weights.sum()
    return sums.astype(np.float32)
