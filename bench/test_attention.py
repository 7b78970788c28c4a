"""Decode attention over a paged KV cache, all cores: dense, and over the 2,048 selected tokens only. Per call."""

import pytest

from bench import arrays
from bench.rivals import contestants, prepared

CASES = {
    "dense, batch 4, 4,096 tokens, 8 KV heads of 128": (4, 4_096, None, "float32"),
    "dense, 32,768 tokens, 8 KV heads of 128": (1, 32_768, None, "float32"),
    "dense, 32,768 tokens, 8 KV heads of 128, bfloat16": (1, 32_768, None, "bfloat16"),
    "2,048 of 131,072 tokens, 8 KV heads of 128": (1, 131_072, 2_048, "float32"),
    "2,048 of 131,072 tokens, 8 KV heads of 128, bfloat16": (1, 131_072, 2_048, "bfloat16"),
}


@pytest.mark.parametrize("contestant", contestants("attention"))
@pytest.mark.parametrize("case", CASES)
def test_attention(measure, contestant, case, turn):
    batch, length, selected, dtype = CASES[case]
    attend = prepared(contestant, "attention")
    measure(
        attend(arrays.paged(batch, length, selected, dtype, turn)),
        work=1,
        unit="us",
        input=case,
        headline="batch 4" not in case,
        rounds=7 if selected else 3,
    )
