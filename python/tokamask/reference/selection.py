"""Which tokens survive: exact top-k."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.floats import widen


def order_key(x: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """A uint32 that orders as the float32 does: NaN (any sign) is 0, below -inf; -0.0 and 0.0 are equal."""
    x = widen(x)
    bits = np.where(x == 0, np.float32(0), x).view(np.uint32)
    key = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
    return np.where(np.isnan(x), np.uint32(0), key).astype(np.uint32)


def descending(x: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Indices from the greatest value to the least; among equals the lowest index first."""
    return np.argsort(np.uint32(0xFFFFFFFF) - order_key(x), kind="stable")


def top_k(
    scores: npt.NDArray[Any], k: int, lengths: npt.NDArray[np.int32] | None = None
) -> npt.NDArray[np.int32]:
    """Indices of the ``k`` greatest scores of each row, ascending.

    Parameters
    ----------
    scores : float32, float16 or bfloat16 bits [rows, n]
        NaN ranks below -inf, -0.0 equals 0.0.
    k : int >= 0
        How many.
    lengths : int32 [rows], optional
        Only ``scores[row, :lengths[row]]`` counts; values are clipped to [0, n].

    Returns
    -------
    int32 [rows, k]
        Ascending indices; ties at the cut are kept by lowest index; rows shorter than ``k`` end in -1.

    """
    rows, n = scores.shape
    selected = np.full((rows, k), -1, np.int32)
    for row in range(rows):
        length = n if lengths is None else min(max(int(lengths[row]), 0), n)
        kept = np.sort(descending(scores[row, :length])[:k])
        selected[row, : len(kept)] = kept
    return selected


def cache_places(
    selected: npt.NDArray[np.int32], page_table: npt.NDArray[np.int32], page_size: int
) -> npt.NDArray[np.int32]:
    """Positions as places in a paged cache: ``page_table[row or 0, i // page_size] * page_size + i % page_size``; -1 stays."""
    rows = np.arange(len(selected))[:, None] if len(page_table) > 1 else 0
    if not page_table.size:
        return selected
    places = page_table[rows, selected // page_size] * page_size + selected % page_size
    return np.where(selected < 0, -1, places).astype(np.int32)
