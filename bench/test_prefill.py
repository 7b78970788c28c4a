"""Attention of a whole prompt of one sequence over a part of its keys, all cores. Per call."""

import functools

import numpy as np
import pytest

from bench.rivals import contestants, prepared

CASES = {
    "block-sparse, 4,096 tokens, 16 of 64 blocks": "blocks",
    "selected, 1,024 of 4,096 tokens": "selected",
}


@functools.lru_cache(maxsize=1)
def sequence(turn: int) -> tuple[np.ndarray, ...]:
    """q, k, v float32 [4096, 8, 128]; bool [64, 64], 16 causal blocks a row; int32 [8, 1024]."""
    draw = np.random.default_rng(turn)
    q, k, v = draw.standard_normal((3, 4096, 8, 128), dtype=np.float32)
    blocks = np.eye(64, dtype=bool)
    for i, row in enumerate(blocks):
        row[draw.permutation(i + 1)[:15]] = True
    selected = [np.sort(draw.permutation(4096)[:1024]) for _ in range(8)]
    return q, k, v, blocks, np.asarray(selected, np.int32)


@pytest.mark.parametrize("contestant", contestants("prefill"))
@pytest.mark.parametrize("case", CASES)
def test_prefill(measure, contestant, case, turn):
    q, k, v, blocks, selected = sequence(turn)
    run = prepared(contestant, "prefill")
    given = {"blocks": blocks} if CASES[case] == "blocks" else {"selected": selected}
    measure(run(q, k, v, **given), work=1, unit="ms", input=case, headline=False, rounds=1)
