"""From a schema's text to its first mask, CPU time of the thread: mean over fresh schemas, the quantiles beside it.

More schemas than `compile_grammar` times, each compiled once; those that an engine refuses are left out for all.
"""

import time

import numpy as np
import pytest

from bench import masks, vocabularies
from bench.rivals import contestants, prepared

VOCABULARY = vocabularies.for_masks()[0]


@pytest.mark.parametrize("contestant", contestants("compile_grammar"))
def test_first_mask(measure, contestant, turn):
    engine = prepared(contestant, "mask", vocabularies.load(VOCABULARY))
    kind = masks.kinds()[0]
    cases = masks.common(VOCABULARY, kind)
    texts = [case.renamed(2000 + turn) for case in cases]
    engine.start(engine.compile("{}"))[0]()

    def run():
        times = []
        for text in texts:
            start = time.thread_time_ns()
            engine.start(engine.compile(text))[0]()
            times.append((time.thread_time_ns() - start) / 1e6)
        return times

    measure(
        run,
        value=lambda times: sum(times) / len(times),
        also=lambda times: {f"p{q}": float(np.quantile(times, q / 100)) for q in (50, 90, 99)},
        unit="ms",
        input=f"{kind}, {VOCABULARY}, CPU time",
        state="fresh",
        headline=False,
    )
