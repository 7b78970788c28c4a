"""-inf over the forbidden logits, in place, one thread. Per row of the batch."""

import pytest

from bench import arrays
from bench.rivals import contestants, prepared


@pytest.mark.parametrize("contestant", contestants("apply_bitmask"))
@pytest.mark.parametrize("share", [0.9, 0.001])
def test_apply_bitmask(measure, contestant, share, turn):
    rows = 16
    apply = prepared(contestant, "apply_bitmask")
    measure(
        apply(arrays.logits(rows, turn), arrays.bitmask(rows, turn, share)),
        work=rows,
        unit="us",
        input=f"{rows} rows, mask of {share * 100:g} %, {arrays.VOCAB_SIZE:,} tokens",
        headline=share == 0.9,
        rounds=7,
    )
