"""Random arrays of realistic shapes, the same for every contestant of a turn."""

import functools

import numpy as np

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
