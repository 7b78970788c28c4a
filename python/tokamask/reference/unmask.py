"""Parallel unmasking for diffusion language models: which masked positions are decided in this step, and as what."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.exp2 import MASS_BITS
from tokamask.reference.floats import widen
from tokamask.reference.sampling import allowed_tokens, masses
from tokamask.reference.selection import descending


def unmask(
    logits: npt.NDArray[Any],
    masked: npt.NDArray[np.bool_],
    bitmask: npt.NDArray[np.int32] | None = None,
    threshold: float | None = None,
    count: int | None = None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The best token of every masked position, its probability, and whether it is accepted.

    ``logits`` [positions, vocab_size], ``masked`` bool [positions]; with ``bitmask`` int32 [positions, ceil(vocab_size / 32)] only
    allowed tokens count, in the softmax as well. NaN counts as -inf. The probability is ``2^40 / total`` of the sampler's integer masses
    (:mod:`tokamask.reference.sampling`), so that it is the same on every device. Accepted are the masked positions with probability at
    least ``threshold`` (always the best one), and at most ``count`` of them, best first, ties by lowest position. Positions that
    are not masked, or where nothing is allowed, give token -1, probability 0 and are not accepted.
    """
    positions, vocab_size = logits.shape
    tokens, confidence = np.full(positions, -1, np.int32), np.zeros(positions, np.float32)
    for p in np.flatnonzero(masked):
        x = widen(logits[p])
        live = x > -np.inf
        if bitmask is not None:
            live &= allowed_tokens(bitmask[p], vocab_size)
        if not live.any():
            continue
        tokens[p] = np.flatnonzero(live)[descending(x[live])[0]]
        confidence[p] = 2.0**MASS_BITS / float(masses(x[live], np.float32(1)).sum())
    order = [p for p in descending(confidence) if tokens[p] >= 0]
    accepted = np.zeros(positions, np.bool_)
    sure = [p for i, p in enumerate(order) if threshold is None or i == 0 or confidence[p] >= threshold]
    accepted[sure[: len(sure) if count is None else count]] = True
    return tokens, confidence, accepted


def unmask_schedule(masked: npt.ArrayLike, steps: int, law: str = "even") -> npt.NDArray[np.int32]:
    """How many of ``masked`` positions to decide in each of some steps: int32 [..., steps], adding up to ``masked``.

    ``"even"``: as many in each, one more in the first of them where that leaves a rest. ``"cosine"``: ``floor(masked * cos(pi / 2 * s / steps))``
    are left after step ``s``, so few are decided early, when little is known.
    """
    count = np.asarray(masked, np.int64)[..., None]
    step = np.arange(steps)
    counts: npt.NDArray[Any]
    if law == "even":
        counts = count // steps + (step < count % steps)
        return counts.astype(np.int32)
    left = np.floor(count * np.cos(np.pi / 2 * np.arange(steps + 1) / steps) + 1e-9)
    left[..., -1] = 0
    counts = -np.diff(left)
    return counts.astype(np.int32)
