"""What is done with the state of one request, in a loop: a mask of a state asked for again, a state for a new request,
a fork, one token checked, one token accepted (and taken back). Peak memory of the process after real schemas is in the scoreboard.
"""

import json
import time

import pytest

from bench import features, masks, vocabularies
from bench.rivals import contestants, prepared

VOCABULARY = vocabularies.for_masks()[0]
DOCUMENT = '{"name": "John Smith", "age": 12, "notes": ["a", "b"]}'
SCHEMA = features.closed({"name": {"type": "string"}, "age": {"type": "integer"}, "notes": {"type": "array"}})
OPERATIONS = (
    "unchanged state",
    "shared row",
    "new state",
    "fork",
    "is_allowed",
    "accept",
    "accept and rollback",
)
LOOPS = 2_000


@pytest.mark.parametrize("contestant", contestants("compile_grammar"))
@pytest.mark.parametrize("operation", OPERATIONS)
def test_matcher_state(measure, contestant, operation, turn):
    engine = prepared(contestant, "mask", vocabularies.load(VOCABULARY))
    if not hasattr(engine, "small"):
        pytest.skip(f"{contestant.name} has no adapter for single operations")
    compiled = engine.compile(json.dumps(SCHEMA))
    ids = list(masks.ids(VOCABULARY, DOCUMENT))
    call = engine.small(compiled, ids, 7).get(operation)
    if operation == "accept":
        accept(measure, engine, compiled, ids)
        return
    if call is None:
        pytest.skip(f"{contestant.name} has no {operation}")
    call()

    def run():
        for _ in range(LOOPS):
            call()

    measure(run, work=LOOPS, unit="us", input=operation, state="repeat", headline=False)


def accept(measure, engine, compiled, ids):
    """Every token of the document, masks asked for before but not timed."""
    for _ in range(2):
        fill, take, _ = engine.start(compiled)
        for token_id in ids:
            fill()
            take(token_id)

    def run():
        times = []
        for _ in range(50):
            _, take, _ = engine.start(compiled)
            for token_id in ids:
                start = time.perf_counter_ns()
                take(token_id)
                times.append(time.perf_counter_ns() - start)
        return sorted(times)

    measure(
        run,
        value=lambda times: times[len(times) // 2] / 1e3,
        also=lambda times: {"p99": times[len(times) * 99 // 100] / 1e3},
        unit="us",
        input="accept, p50 of the tokens of a document",
        state="repeat",
        headline=False,
    )
