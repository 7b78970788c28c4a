"""One short text a call, warm: a prompt of 20 bytes, one of a kilobyte. Processor time of a call, to an array."""

import time

import pytest

from bench import texts, vocabularies
from bench.rivals import contestants, prepared

CALLS = 2000


@pytest.mark.parametrize("contestant", contestants("latency"))
@pytest.mark.parametrize("length", [20, 1000])
def test_latency(measure, contestant, length, turn):
    name = vocabularies.names()[0]
    if not contestant.takes(name):
        pytest.skip("it does not read this vocabulary")
    encode = prepared(contestant, "latency", vocabularies.load(name))
    text = texts.documents("english", turn)[0][:length]
    encode(text)

    def run():
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            for _ in range(CALLS):
                encode(text)
            best = min(best, time.process_time() - start)
        return best

    measure(
        run,
        value=lambda seconds: 1e6 * seconds / CALLS,
        unit="us",
        input=f"{length} bytes, {name}",
        headline=True,
    )
