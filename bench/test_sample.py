"""Logits to tokens: mask, temperature, top-k, top-p and the draw, all cores. Per row of the batch."""

import pytest

from bench import arrays
from bench.rivals import contestants, prepared

FILTERS = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}
CASES = {
    "1 row, top-k 50, top-p 0.95": (1, None, FILTERS),
    "16 rows, top-k 50, top-p 0.95": (16, None, FILTERS),
    "16 rows, top-p 0.95": (16, None, {"temperature": 0.8, "top_p": 0.95}),
    "1 row, no filter": (1, None, {"temperature": 1.0}),
    "16 rows, no filter": (16, None, {"temperature": 1.0}),
    "1 row, mask of 30 %, top-p 0.95": (1, 0.3, {"temperature": 0.8, "top_p": 0.95}),
    "16 rows, mask of 30 %, top-p 0.95": (16, 0.3, {"temperature": 0.8, "top_p": 0.95}),
    "16 rows, mask of 90 %, top-p 0.95": (16, 0.9, {"temperature": 0.8, "top_p": 0.95}),
    "16 rows, mask of 0.1 %, top-p 0.95": (16, 0.001, {"temperature": 0.8, "top_p": 0.95}),
    "16 rows, mask of 90 %, greedy": (16, 0.9, {"temperature": 0.0}),
}
HEADLINES = ("16 rows, top-k 50, top-p 0.95", "16 rows, mask of 90 %, top-p 0.95")


@pytest.mark.parametrize("contestant", contestants("sample"))
@pytest.mark.parametrize("case", CASES)
def test_sample(measure, contestant, case, turn):
    rows, share, options = CASES[case]
    logits = arrays.logits(rows, turn)
    bitmask = None if share is None else arrays.bitmask(rows, turn, share)
    sample = prepared(contestant, "sample")
    measure(
        sample(logits, bitmask, **options),
        work=rows,
        unit="us",
        input=f"{case}, {arrays.VOCAB_SIZE:,} tokens",
        headline=case in HEADLINES,
        rounds=3,
    )
