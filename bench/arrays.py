"""Random arrays of realistic shapes, the same for every contestant of a turn."""

import functools
from dataclasses import dataclass

import numpy as np

from tokamask.reference.floats import narrow

VOCAB_SIZE = 128_256


@functools.lru_cache(maxsize=8)
def logits(rows: int, turn: int, width: int = VOCAB_SIZE) -> np.ndarray:
    """float32 [rows, width]: a wide bell with a handful of likely tokens, as a model's output has."""
    draw = np.random.default_rng([rows, turn, width])
    values = draw.normal(0, 2.5, (rows, width)).astype(np.float32)
    likely = draw.integers(0, width, (rows, 12))
    np.put_along_axis(values, likely, draw.uniform(9, 15, likely.shape).astype(np.float32), axis=1)
    return values


@functools.lru_cache(maxsize=8)
def bitmask(rows: int, turn: int, share: float, width: int = VOCAB_SIZE) -> np.ndarray:
    """int32 [rows, ceil(width / 32)] with this share of the tokens allowed, at random."""
    draw = np.random.default_rng([rows, turn, int(share * 1e6)])
    allowed = draw.random((rows, -(-width // 32) * 32)) < share
    allowed[:, width:] = False
    return np.packbits(allowed, axis=1, bitorder="little").view(np.int32)


@dataclass
class Paged:
    """One decode step: queries, a paged cache, and which tokens were selected (or None)."""

    q: np.ndarray
    k_cache: np.ndarray
    v_cache: np.ndarray
    page_table: np.ndarray
    seq_lens: np.ndarray
    selected: np.ndarray | None


@functools.lru_cache(maxsize=1)
def caches(batch: int, length: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values in pages of 64 tokens, 8 KV heads of 128; bfloat16 as its bits."""
    draw = np.random.default_rng([batch, length])
    shape = (batch * length // 64, 64, 8, 128)
    k, v = (draw.standard_normal(shape, dtype=np.float32) for _ in range(2))
    return (k, v) if dtype == "float32" else (narrow(k, np.uint16), narrow(v, np.uint16))


@functools.lru_cache(maxsize=1)
def paged(batch: int, length: int, selected: int | None, dtype: str, turn: int) -> Paged:
    """32 query heads over 8 KV heads of 128, pages of 64 tokens in shuffled order; bfloat16 as its bits."""
    draw = np.random.default_rng([batch, length, turn])
    pages = length // 64
    k, v = caches(batch, length, dtype)
    chosen = None
    if selected is not None:
        lists = [[np.sort(draw.permutation(length)[:selected]) for _ in range(8)] for _ in range(batch)]
        chosen = np.asarray(lists, np.int32)
    return Paged(
        narrow(draw.standard_normal((batch, 32, 128)), np.float32 if dtype == "float32" else np.uint16),
        k,
        v,
        draw.permutation(batch * pages).astype(np.int32).reshape(batch, pages),
        np.full(batch, length, np.int32),
        chosen,
    )
