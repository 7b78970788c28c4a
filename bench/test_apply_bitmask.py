"""-inf over the forbidden logits, in place, all cores. Per row of the batch; torch is given its bool mask ready-made."""

import pytest

from bench import arrays
from bench.rivals import contestants, prepared


@pytest.mark.parametrize("contestant", contestants("apply_bitmask"))
@pytest.mark.parametrize("share", [0.99, 0.9, 0.3, 0.01])
@pytest.mark.parametrize("rows", [1, 16])
def test_apply_bitmask(measure, contestant, rows, share, turn):
    apply = prepared(contestant, "apply_bitmask")
    measure(
        apply(arrays.logits(rows, turn), arrays.bitmask(rows, turn, share)),
        work=rows,
        unit="us",
        input=f"{rows} row{'s' if rows > 1 else ''}, mask of {share * 100:g} %, {arrays.VOCAB_SIZE:,} tokens",
        headline=rows == 16 and share == 0.9,
        rounds=15,
    )
