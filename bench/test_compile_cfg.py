"""A context-free grammar nobody has seen, until its first mask is there. One thread."""

import time

import pytest

from bench import grammars, vocabularies
from bench.rivals import contestants, prepared

VOCABULARIES = vocabularies.for_masks()[:1]


@pytest.mark.parametrize("contestant", contestants("mask_cfg"))
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("case", grammars.CASES, ids=lambda case: case.name)
def test_compile_cfg(measure, contestant, vocabulary, case, turn):
    engine = prepared(contestant, "mask_cfg", vocabularies.load(vocabulary))
    grammars.warm(engine)
    fresh = case.renamed(1000 + turn)

    def run():
        start = time.perf_counter()
        fill, _, _ = engine.start(engine.compile_cfg(fresh))
        fill()
        return time.perf_counter() - start

    measure(
        run,
        value=lambda seconds: 1e3 * seconds,
        unit="ms",
        input=f"{case.name}, {vocabulary} ({vocabularies.load(vocabulary).size:,} tokens)",
        state="fresh",
        headline=True,
    )
