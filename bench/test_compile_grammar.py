"""A schema nobody has seen, until its first mask is there: what a request waits for. Mean per schema, one thread."""

import time

import pytest

from bench import masks, vocabularies
from bench.rivals import contestants, prepared

CASES = masks.rows_of_the_table()


@pytest.mark.parametrize("contestant", contestants("compile_grammar"))
@pytest.mark.parametrize(("vocabulary", "kind"), CASES)
def test_compile_grammar(measure, contestant, vocabulary, kind, turn):
    engine = prepared(contestant, "mask", vocabularies.load(vocabulary))
    share = masks.common(vocabulary, kind)
    share = share[turn % 5 :: 5] if kind == "real schemas" else share
    texts = [case.renamed(1000 + turn) for case in share]

    def run():
        times = []
        for text in texts:
            start = time.perf_counter()
            fill, _, _ = engine.start(engine.compile(text))
            fill()
            times.append(time.perf_counter() - start)
        return times

    measure(
        run,
        value=lambda times: 1e3 * sum(times) / len(times),
        also=lambda times: {"slowest": 1e3 * max(times)},
        unit="ms",
        input=f"{kind}, {vocabulary} ({vocabularies.load(vocabulary).size:,} tokens)",
        state="fresh",
        headline=vocabulary == vocabularies.for_masks()[0],
    )
