"""Adaptive weighted rejection sampling for one order of the tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt


def awrs(
    probs: npt.NDArray[np.float64], order: Sequence[int], allowed: Callable[[int], bool]
) -> tuple[int, float]:
    """The first allowed token of an order of sampling without replacement, and its weight.

    With ``r`` the probability refused before it, the weight is ``1 - r`` if the next token is allowed too and the
    token's own probability if not (or if there is none).

    Parameters
    ----------
    probs : float64 [vocab_size]
        Of each token.
    order : list[int]
        All tokens.
    allowed : callable
        Whether a token may come.

    Returns
    -------
    (int, float)
        The token and its weight; -1 and 0 if no token is allowed.

    Examples
    --------
    >>> awrs(np.array([0.5, 0.2, 0.3]), [0, 2, 1], lambda token: token == 2)
    (2, 0.3)

    """
    left = 1.0
    for i, token in enumerate(order):
        if allowed(token):
            following = order[i + 1 : i + 2]
            return token, left if following and allowed(following[0]) else float(probs[token])
        left -= float(probs[token])
    return -1, 0.0
