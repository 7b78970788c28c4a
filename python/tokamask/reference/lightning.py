"""Linear attention with decay: ``o_t = q_t S_t``, ``S_t = lam * S_(t-1) + k_t v_t``, one ``lam`` in (0, 1] per head.

The recurrence that Lightning Attention-2 (arXiv 2401.04658) computes in blocks; not compared with the authors' code. ``decay`` is the
slope: ``lam = exp(-decay)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.floats import narrow, widen


def lightning(
    q: npt.NDArray[Any],
    k: npt.NDArray[Any],
    v: npt.NDArray[Any],
    decay: npt.NDArray[np.float32],
    state: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """``q``, ``k`` [batch, heads, tokens, dk], ``v`` [batch, heads, tokens, dv], ``decay`` float32 [heads], ``state`` float32
    [batch, heads, dk, dv] -> ``o`` [batch, heads, tokens, dv] of the type of ``q``, and the state after the last token.
    """
    batch, heads, tokens, _ = q.shape
    o = np.zeros((batch, heads, tokens, v.shape[3]))
    after = state.astype(np.float64)
    wide_q, wide_k, wide_v = (widen(x).astype(np.float64) for x in (q, k, v))
    for b in range(batch):
        for h in range(heads):
            for t in range(tokens):
                after[b, h] = np.exp(-float(decay[h])) * after[b, h] + np.outer(
                    wide_k[b, h, t], wide_v[b, h, t]
                )
                o[b, h, t] = wide_q[b, h, t] @ after[b, h]
    return narrow(o, q.dtype), after.astype(np.float32)
