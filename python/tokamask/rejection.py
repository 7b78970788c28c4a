"""Sampling under a grammar without its mask: tokens are tried in a random order, and the weight says what that cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask import _core
from tokamask.errors import ShapeError

__all__ = ["sample_awrs"]

#: Tokens ordered at first; more are ordered only if all of these are refused.
FIRST = 256


def sample_awrs(
    logits: npt.ArrayLike,
    matcher: _core.Matcher,
    *,
    temperature: float = 1.0,
    seed: int,
    max_rejects: int = 4096,
) -> tuple[int, float]:
    """A token that the grammar allows, with an importance weight: adaptive weighted rejection sampling.

    Tokens are tried in the order of their probabilities perturbed by Gumbel noise, which is sampling without
    replacement, until one is allowed; one more is tried for the weight. The token follows the law of the model
    restricted to what is allowed, and the mean of the weight is the probability of all that is allowed: so
    weighted samples need no correction. Few tokens are checked where the model mostly agrees with the grammar.
    (Lipkin et al. 2025, "Fast controlled generation from language models with adaptive weighted rejection sampling".)

    Parameters
    ----------
    logits : float [vocab_size]
        Of the next token.
    matcher : Matcher
        The state; it does not change.
    temperature : float
        Above zero.
    seed : int
        The same seed gives the same token.
    max_rejects : int
        Refused tokens after which the mask is computed instead; token and weight follow the same law then.

    Returns
    -------
    (int, float)
        The token and the natural logarithm of its weight; -1 and -inf where no token of positive probability is
        allowed.

    Raises
    ------
    ShapeError
        The logits are not one row of the vocabulary's size.
    ValueError
        The temperature is not above zero.

    Examples
    --------
    >>> import numpy as np, tokamask as tm
    >>> vocabulary = tm.Vocabulary([b"a", b"b", b"</s>"], special={"</s>": 2}, eos_ids=[2])
    >>> matcher = tm.compile(tm.Grammar.regex("b"), vocabulary).matcher()
    >>> token, log_weight = tm.sample_awrs(np.zeros(3), matcher, seed=1)
    >>> token, round(float(np.exp(log_weight)), 3)
    (1, 0.333)

    """
    row = np.asarray(logits, np.float64)
    size = matcher.vocab_size
    if row.shape != (size,):
        expected, got = f"float [vocab_size={size}]", f"float {list(row.shape)}"
        raise ShapeError(f"logits: expected {expected}, got {got}", name="logits", expected=expected, got=got)
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number above zero, got {temperature}")
    generator = np.random.Generator(np.random.Philox(key=seed & (1 << 64) - 1))
    row = row / temperature
    row -= row.max()
    probs = np.exp(row)
    probs /= probs.sum()
    # A race of exponentials: the order of log(probs) plus Gumbel noise, without a logarithm.
    with np.errstate(divide="ignore", invalid="ignore"):
        keys = probs / generator.standard_exponential(size)
    order = _ordered(keys, min(FIRST, size))
    index, refused = matcher.first_allowed(order[:max_rejects].tolist())
    if index < 0 and refused < min(size, max_rejects):
        order = _ordered(keys, size)
        index, more = matcher.first_allowed(order[refused:max_rejects].tolist())
        index, refused = (index + refused if index >= 0 else -1), refused + more
    if index < 0:
        return _by_mask(probs, matcher, generator) if refused < size else (-1, -np.inf)
    token = int(order[index])
    if probs[token] == 0:
        return -1, -np.inf
    left = 1 - float(probs[order[:index]].sum())
    if index + 1 == len(order):
        order = _ordered(keys, size)
    following = order[index + 1] if index + 1 < size else token
    if not matcher.is_allowed(int(following)) or probs[following] == 0:
        return token, float(np.log(probs[token]))
    return token, float(np.log(left))


def _ordered(keys: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """The places of the largest keys, largest first."""
    if count == len(keys):
        return np.argsort(-keys, kind="stable")
    largest = np.argpartition(-keys, count)[:count]
    return largest[np.argsort(-keys[largest], kind="stable")]


def _by_mask(
    probs: npt.NDArray[np.float64], matcher: _core.Matcher, generator: np.random.Generator
) -> tuple[int, float]:
    bits: Any = np.unpackbits(matcher.mask_row().view(np.uint8), bitorder="little")[: len(probs)]
    allowed = np.where(bits, probs, 0.0)
    total = float(allowed.sum())
    if total == 0:
        return -1, -np.inf
    return int(generator.choice(len(probs), p=allowed / total)), float(np.log(total))
