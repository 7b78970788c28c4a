"""Indices of the k greatest of each row, ascending, all cores. Per row."""

import pytest

from bench import arrays
from bench.rivals import contestants, prepared

CASES = {
    "1 row of 128,256, k 50": (1, 128_256, 50),
    "16 rows of 128,256, k 50": (16, 128_256, 50),
    "1 row of 131,072, k 2048": (1, 131_072, 2048),
    "8 rows of 32,768, k 2048": (8, 32_768, 2048),
    "8 rows of 131,072, k 2048": (8, 131_072, 2048),
}


@pytest.mark.parametrize("contestant", contestants("top_k"))
@pytest.mark.parametrize("case", CASES)
def test_top_k(measure, contestant, case, turn):
    rows, width, k = CASES[case]
    top_k = prepared(contestant, "top_k")
    measure(
        top_k(arrays.logits(rows, turn, width), k),
        work=rows,
        unit="us",
        input=case,
        headline=case in ("16 rows of 128,256, k 50", "8 rows of 32,768, k 2048"),
        rounds=7,
        same=True,
    )
