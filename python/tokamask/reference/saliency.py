"""How much a token matters by itself: the entropy of its heads, its rank in the attention graph. In float64.

After EntropyPrune (its abstract) and Zero-TPrune (from memory); what is written here is the definition, without a claim of parity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.floats import widen

Float64 = npt.NDArray[np.float64]


def entropy_scores(x: npt.NDArray[Any]) -> Float64:
    """Von Neumann entropy of each token's matrix (``x`` [n, heads, head_dim]) scaled to trace 1: ``-sum(lambda ln lambda)``.

    ``lambda`` are the eigenvalues of ``M M^T / trace``; those of ``M^T M`` are the same, so the smaller of the two serves. 0 for zeros.
    """
    scores = np.zeros(len(x))
    for i, matrix in enumerate(widen(x).astype(np.float64)):
        gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        trace = np.trace(gram)
        if trace > 0:
            share = np.linalg.eigvalsh(gram / trace)
            share = share[share > 0]
            scores[i] = -(share * np.log(share)).sum()
    return scores


def pagerank_scores(
    attention: npt.NDArray[np.float32], rounds: int, variance: tuple[float, float] = (0.0, np.inf)
) -> Float64:
    """Rank in the graph where a token votes for those that it attends to: ``attention`` [heads, n, n], row attends to column.

    Per head ``rounds`` times ``s <- A^T s``, scaled to a sum of 1, from equal scores; then the root mean square over the heads whose
    variance of scores lies in ``variance``, over all heads if none does.
    """
    heads, n, _ = attention.shape
    scores = np.full((heads, n), 1 / max(n, 1))
    for _ in range(rounds):
        scores = np.einsum("hji,hj->hi", attention.astype(np.float64), scores)
        total = scores.sum(axis=1, keepdims=True)
        scores = np.where(total > 0, scores / np.where(total > 0, total, 1), 0)
    spread = scores.var(axis=1)
    kept = (variance[0] <= spread) & (spread <= variance[1])
    return np.asarray(np.sqrt((scores[kept if kept.any() else slice(None)] ** 2).mean(axis=0)))
