"""Decode attention over a paged KV cache, one thread: dense, and over the 2,048 selected tokens only. Per call."""

import pytest

from bench import arrays
from bench.rivals import contestants, prepared

CASES = {
    "dense, batch 4, 4,096 tokens, 8 KV heads of 128": (4, 4_096, None),
    "dense, batch 1, 32,768 tokens, 8 KV heads of 128": (1, 32_768, None),
    "2,048 of 32,768 tokens, batch 1, 8 KV heads of 128": (1, 32_768, 2_048),
}


@pytest.mark.parametrize("contestant", contestants("attention"))
@pytest.mark.parametrize("case", CASES)
def test_attention(measure, contestant, case, turn):
    batch, length, selected = CASES[case]
    attend = prepared(contestant, "attention")
    measure(
        attend(arrays.paged(batch, length, selected, turn)),
        work=1,
        unit="us",
        input=case,
        headline="dense, batch 4" in case or "2,048 of" in case,
        rounds=3,
    )
