"""Fewer visual tokens of 1,024 channels, all cores: diverse ones chosen, like ones merged. Per picture."""

import functools

import numpy as np
import pytest

from bench.rivals import contestants, prepared

SIZES = (576, 1024, 2048, 4096)


@functools.lru_cache(maxsize=2)
def tokens(n: int, turn: int) -> np.ndarray:
    """float32 [n, 1024]: neighbours in a row resemble each other, as patches of a picture do."""
    draw = np.random.default_rng([n, turn])
    x = draw.standard_normal((n, 1024), dtype=np.float32)
    return x + np.cumsum(draw.standard_normal((n, 1024), dtype=np.float32) * 0.3, axis=0)


@pytest.mark.parametrize("contestant", contestants("reduce"))
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("how", ["greedy_select", "tome_merge"])
def test_reduce(measure, contestant, how, n, turn):
    count = n // 9 if how == "greedy_select" else n // 4
    run = prepared(contestant, "reduce")
    measure(
        run(how, tokens(n, turn), count),
        work=1,
        unit="ms",
        input=f"{how}, {count:,} of {n:,} tokens",
        headline=n in (576, 4096),
        rounds=3,
    )
