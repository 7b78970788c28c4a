"""Appending to a paged cache, and what is kept beside it: Quest's page bounds, FASA's dominant channels, the indexer's keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.reference.fasa import chunk_channels
from tokamask.reference.floats import widen

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]


def append_kv(
    k: Array,
    v: Array,
    k_cache: Array,
    v_cache: Array,
    page_table: npt.NDArray[np.int32],
    seq_lens: npt.NDArray[np.int32],
    indptr: npt.NDArray[np.int32],
    bounds: tuple[Float32, Float32] | None = None,
    side: tuple[npt.NDArray[np.int32], Array] | None = None,
    index: tuple[Array, Array, Float32] | None = None,
    interleaved: bool = False,
) -> None:
    """Writes the tokens ``indptr[b] .. indptr[b + 1] - 1`` of ``k`` and ``v`` behind what sequence ``b`` holds: ``seq_lens[b]`` counts them in.

    ``bounds`` (low, high): the least and greatest key of each page touched, begun anew at its first token; NaN is passed over. ``side``
    (dominant, cache): the channels of the dominant chunks of each key. ``index`` (keys, cache, sums): the indexer's keys of the same tokens,
    and their sum over each page, added up in float32 in the order of the tokens. Positions beyond the page table are passed over.
    """
    page_size, kv_heads = k_cache.shape[1:3]
    for b, length in enumerate(seq_lens.tolist()):
        count = int(indptr[b + 1] - indptr[b])
        for i in range(count):
            position = length - count + i
            if position < 0 or position // page_size >= page_table.shape[1]:
                continue
            page, row, token = page_table[b, position // page_size], position % page_size, indptr[b] + i
            k_cache[page, row], v_cache[page, row] = k[token], v[token]
            if bounds is not None:
                low, high = bounds
                if row == 0:
                    low[page], high[page] = np.inf, -np.inf
                low[page] = np.fmin(low[page], widen(k[token]))
                high[page] = np.fmax(high[page], widen(k[token]))
            if side is not None:
                dominant, cache = side
                for h in range(kv_heads):
                    channels = chunk_channels(dominant[h], k.shape[2], interleaved)
                    cache[page, row, h] = k[token, h, channels]
            if index is not None:
                keys, cache, sums = index
                cache[page, row] = keys[token]
                sums[page] = (0 if row == 0 else sums[page]) + widen(keys[token])
