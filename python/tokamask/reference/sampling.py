"""Drawing a token under a bitmask: exactly reproducible on every device.

The law of one row, in this order. All float steps are float32, each correctly rounded, none fused except inside
:mod:`tokamask.reference.exp2`; everything after the masses is integer arithmetic, so no order of summation matters.

0. *Penalties*, on tokens of the prompt and the output (ids outside the vocabulary are passed over): a logit above 0 is divided by
   ``repetition``, any other multiplied by it. Then, on tokens of the output only, ``frequency * times`` is subtracted, then ``presence``.
1. *Live tokens.* Token ``v`` is live if its bit is set (bit ``v % 32`` of word ``v // 32``; bits at and beyond the vocabulary
   size are never looked at) and its logit is greater than -inf. NaN counts as -inf. No live token: token -1, logprob -inf.
2. *Greedy.* Unless ``temperature > 0``, the token is the live token with the greatest logit, lowest index among equals
   (-0.0 equals 0.0), and its logprob is 0. The filters cannot change it.
3. *Masses.* ``m`` is the greatest live logit, ``scale = log2(e) / temperature`` clipped to [2^-126, largest float32],
   ``z = (x - m) * scale`` with ``z = 0`` where ``x == m`` (so that +inf wins: every other token then has mass 0).
   The mass is ``2 ** z`` in units of 2^-40, an integer in [0, 2^40] (:func:`tokamask.reference.exp2.mass`).
4. *Top-k*, if ``0 < top_k < vocab_size``: the first ``top_k`` live tokens by logit descending, then index ascending.
5. *Top-p*, if ``top_p < 1``: of those, in the same order, the shortest prefix whose mass is at least
   ``floor(total * p64 / 2^64)``, where ``total`` is the mass left by step 4 and ``p64 = max(top_p, 0) * 2^64``; at least one token.
6. *Min-p*, if ``min_p > 0``: of those, the tokens with mass at least ``floor(min(min_p, 1) * 2^40)`` (2^40 is the greatest mass).
7. *Draw.* With ``total`` the mass left and ``bits`` the 64 random bits of (seed, stream, step):
   ``target = floor(total * bits / 2^64)``, and the token is the first in index order at which the running sum of kept masses
   exceeds ``target``. Its logprob is ``ln(mass / total)``: of the law it was drawn from.

The total is below 2^63 for vocabularies up to 2^23 tokens. A token less likely than the best one by more than 2^41 has mass 0 and
is never drawn; that is the whole difference to the real-number law, together with 1e-7 of relative error in each mass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.exp2 import MASS_BITS, mass
from tokamask.reference.floats import widen
from tokamask.reference.random import bits64
from tokamask.reference.selection import descending

LOG2_E = np.float32(1.4426950408889634)


def allowed_tokens(bitmask_row: npt.NDArray[np.int32], vocab_size: int) -> npt.NDArray[np.bool_]:
    """The bits of one mask row as bool [vocab_size]."""
    little = bitmask_row.astype("<i4").view(np.uint8)
    return np.unpackbits(little, bitorder="little", count=vocab_size).astype(np.bool_)


def apply_bitmask(
    logits: npt.NDArray[Any], bitmask: npt.NDArray[np.int32], rows: npt.NDArray[np.int32] | None = None
) -> npt.NDArray[Any]:
    """A copy of the logits with -inf where the mask row's bit is 0; ``rows[b] = -1`` leaves row ``b`` alone."""
    minus_inf = 0xFF80 if logits.dtype == np.uint16 else -np.inf
    out = logits.copy()
    for b in range(len(logits)):
        row = b if rows is None else int(rows[b])
        if row >= 0:
            out[b, ~allowed_tokens(bitmask[row], logits.shape[1])] = minus_inf
    return out


def masses(x: npt.NDArray[np.float32], temperature: np.float32) -> npt.NDArray[np.uint64]:
    """Step 3, for the logits of the live tokens."""
    best = x.max()
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scale = LOG2_E / temperature
        scale = np.minimum(np.maximum(scale, np.float32(2.0**-126)), np.finfo(np.float32).max)
        z = np.where(x == best, np.float32(0), x - best) * scale
    return mass(z)


def penalised(
    x: npt.NDArray[np.float32],
    prompt_ids: npt.NDArray[np.int32] | None,
    output_ids: npt.NDArray[np.int32] | None,
    repetition: np.float32,
    presence: np.float32,
    frequency: np.float32,
) -> npt.NDArray[np.float32]:
    """Step 0: a changed copy of one row of logits. Negative ids are padding."""
    x = x.copy()
    ids = [np.zeros(0, np.int32) if i is None else i for i in (prompt_ids, output_ids)]
    prompt, output = (i[(i >= 0) & (i < len(x))] for i in ids)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        seen = np.union1d(prompt, output)
        x[seen] = np.where(x[seen] > 0, x[seen] / repetition, x[seen] * repetition)
        written, times = np.unique(output, return_counts=True)
        x[written] -= frequency * times.astype(np.float32)
        x[written] -= presence
    return x


def sample_row(
    logits: npt.NDArray[np.float32],
    allowed: npt.NDArray[np.bool_],
    temperature: np.float32,
    top_k: int,
    top_p: np.float32,
    min_p: np.float32,
    bits: int,
) -> tuple[int, float]:
    """One row, steps 1 to 7: (token, logprob)."""
    vocab_size = len(logits)
    live = np.flatnonzero(allowed & (logits > -np.inf))  # NaN compares false
    if len(live) == 0:
        return -1, -np.inf
    x = logits[live]
    order = descending(x)
    if not temperature > 0:
        return int(live[order[0]]), 0.0
    weight = masses(x, temperature)

    if 0 < top_k < vocab_size:
        order = order[:top_k]
    if top_p < 1:
        total = int(weight[order].sum())
        need = total * int(max(float(top_p), 0.0) * 2.0**64) >> 64
        n_kept = int(np.searchsorted(np.cumsum(weight[order]), np.uint64(need))) + 1
        order = order[:n_kept]
    if min_p > 0:
        floor = np.uint64(int(min(float(min_p), 1.0) * 2.0**MASS_BITS))
        order = order[weight[order] >= floor]

    kept = np.sort(order)
    running = np.cumsum(weight[kept])
    total = int(running[-1])
    chosen = kept[int(np.searchsorted(running, np.uint64(total * bits >> 64), side="right"))]
    return int(live[chosen]), float(np.log(float(weight[chosen])) - np.log(float(total)))


def sample(
    logits: npt.NDArray[Any],
    bitmask: npt.NDArray[np.int32] | None,
    rows: npt.NDArray[np.int32] | None,
    temperature: npt.NDArray[np.float32],
    top_k: npt.NDArray[np.int32],
    top_p: npt.NDArray[np.float32],
    min_p: npt.NDArray[np.float32],
    seeds: npt.NDArray[np.uint64],
    streams: npt.NDArray[np.uint32],
    steps: npt.NDArray[np.uint64],
    history: tuple[npt.NDArray[np.int32] | None, npt.NDArray[np.int32] | None] | None = None,
    penalties: npt.NDArray[np.float32] | None = None,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Draws one token per row.

    Parameters
    ----------
    logits : float32, float16 or bfloat16 bits [batch, vocab_size]
    bitmask : int32 [mask_rows, ceil(vocab_size / 32)] or None
        1 = allowed. None allows everything.
    rows : int32 [batch] or None
        The mask row of each logits row, -1 for none; None means row ``b`` for row ``b``.
    temperature, top_k, top_p, min_p : float32, int32, float32, float32 [batch]
    seeds, streams, steps : uint64, uint32, uint64 [batch]
        What the random bits of the row are a function of.
    history : (int32 [batch, any] or None, int32 [batch, any] or None)
        Prompt and output ids, -1 padded.
    penalties : float32 [batch, 3]
        Repetition, presence, frequency.

    Returns
    -------
    tokens : int32 [batch]
        -1 where nothing is live.
    logprobs : float32 [batch]

    """
    batch, vocab_size = logits.shape
    tokens, logprobs = np.empty(batch, np.int32), np.empty(batch, np.float32)
    for b in range(batch):
        mask_row = -1 if bitmask is None else b if rows is None else int(rows[b])
        everything = np.ones(vocab_size, np.bool_)
        allowed = (
            everything if bitmask is None or mask_row < 0 else allowed_tokens(bitmask[mask_row], vocab_size)
        )
        x = widen(logits[b])
        if history is not None and penalties is not None:
            prompt, output = (None if ids is None else ids[b] for ids in history)
            repetition, presence, frequency = penalties[b]
            x = penalised(x, prompt, output, repetition, presence, frequency)
        tokens[b], logprobs[b] = sample_row(
            x,
            allowed,
            temperature[b],
            int(top_k[b]),
            top_p[b],
            min_p[b],
            bits64(int(seeds[b]), int(streams[b]), int(steps[b])),
        )
    return tokens, logprobs
