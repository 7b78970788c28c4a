"""Bitmasks of allowed tokens, for one matcher or many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tokamask import _core

__all__ = ["allocate_bitmask", "fill_bitmasks"]


def allocate_bitmask(rows: int, vocab_size: int) -> npt.NDArray[np.int32]:
    """A bitmask that allows everything.

    Returns
    -------
    int32 [rows, ceil(vocab_size / 32)]
        Bit ``v % 32`` of word ``v // 32`` is set for allowed tokens ``v``.

    Examples
    --------
    >>> allocate_bitmask(1, 40).tolist()
    [[-1, -1]]

    """
    return np.full((rows, (vocab_size + 31) // 32), -1, np.int32)


def fill_bitmasks(
    matchers: Sequence[_core.Matcher],
    bitmask: npt.NDArray[np.int32],
    rows: Sequence[int] | None = None,
    *,
    threads: int | None = None,
) -> npt.NDArray[np.bool_]:
    """Writes the masks of several matchers in one call.

    Parameters
    ----------
    matchers : list[Matcher]
        The requests; they may have different grammars.
    bitmask : int32 [rows, ceil(vocab_size / 32)]
        Row ``rows[i]`` is written for matcher ``i``.
    rows : list[int]
        Distinct rows; by default 0, 1, ...
    threads : int
        Threads to use; by default as many as pay off.

    Returns
    -------
    bool [n]
        False where every id is allowed.

    Examples
    --------
    >>> vocabulary = tm.Vocabulary([b"a", b"b", b"</s>"], special={"</s>": 2}, eos_ids=[2])
    >>> compiled = tm.compile(tm.Grammar.regex("a+"), vocabulary)
    >>> bitmask = tm.allocate_bitmask(2, len(vocabulary))
    >>> tm.fill_bitmasks([compiled.matcher(), compiled.matcher()], bitmask).tolist(), bitmask.tolist()
    ([True, True], [[1], [1]])

    """
    places = list(range(len(matchers))) if rows is None else list(rows)
    return _core.fill_bitmasks(list(matchers), bitmask, places, threads)
