"""Turns, their order, and the one way to measure.

pytest-benchmark times; this file decides what is timed beside what. Every case is measured in several turns;
within a turn the contestants follow one another, in an order that rotates, on the same input. So a machine that
slows down for a while slows down everybody.
"""

import hashlib
import os
import time

import numpy as np
import pytest

PAUSE = 0.03
"""Seconds before a measurement: threads of OpenMP and OpenBLAS spin for some milliseconds after the contestant before, on our core."""
TURNS = int(os.environ.get("TOKAMASK_BENCH_TURNS", "5"))


def pytest_generate_tests(metafunc):
    """Gives every case its turns."""
    if "turn" in metafunc.fixturenames:
        metafunc.parametrize("turn", range(TURNS), ids=lambda turn: f"turn{turn}")


def pytest_collection_modifyitems(items):
    """Orders by file, function, input, turn, then contestant (rotating)."""
    first_seen: dict[str, int] = {}

    def key(item):
        params = dict(getattr(item, "callspec", None).params) if hasattr(item, "callspec") else {}
        turn, contestant = params.pop("turn", 0), params.pop("contestant", None)
        state = params.pop("state", "")
        place = f"{item.location[0]}::{item.originalname}[{params}]"
        rank = contestant_rank.get(getattr(contestant, "name", ""), 0)
        rotated = (rank + turn) % max(1, len(contestant_rank))
        return (
            first_seen.setdefault(place, len(first_seen)),
            turn,
            states.index(state) if state in states else 0,
            rotated,
        )

    from bench.rivals import REGISTRY

    states = ("cold", "fresh", "repeat")
    contestant_rank = {rival.name: i for i, rival in enumerate(REGISTRY)}
    items.sort(key=key)


def digest(result) -> str:
    """A short hash of token ids in any of the shapes the contestants return them in."""
    if isinstance(result, str):
        return hashlib.blake2b(result.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    flat = getattr(result, "ids", result)
    if type(flat).__module__.startswith("awkward"):
        flat = list(flat)
    if isinstance(flat, list) and flat and not isinstance(flat[0], (int, str)):
        flat = np.concatenate([np.asarray(getattr(row, "ids", row), np.uint32) for row in flat])
    elif isinstance(flat, list) and flat and isinstance(flat[0], str):
        return digest("\0".join(flat))
    return hashlib.blake2b(np.asarray(flat, np.uint32).tobytes(), digest_size=8).hexdigest()


@pytest.fixture
def measure(benchmark, request):
    """``measure(function, *arguments, work=, unit=, input=, ...)`` times one call and records what it was.

    work
        How much one call does, in the unit's terms: bytes for ``"MB/s"``, steps for ``"us"`` (per step) and
        ``"/s"`` (steps per second).
    input, state
        The row of the table: what it ran on, and ``fresh``, ``cold`` or ``repeat``.
    headline
        Whether the README's table shows the row.
    rounds
        Calls per turn; their median is the turn's value. One, where a second call would meet warm caches.
    value, also
        Functions of the result: the measurement itself where it is not the time of the call, and further numbers by
        name that are shown beside it.
    same
        Whether contestants must return the same ids or text; the record says who differs.
    """

    def run(
        function,
        *arguments,
        unit,
        input,
        work=1,
        state="",
        headline=False,
        rounds=1,
        same=False,
        value=None,
        also=None,
    ):
        params = request.node.callspec.params
        operation = request.path.stem.removeprefix("test_")
        benchmark.group = f"{operation} {input} {state}".strip()
        time.sleep(PAUSE)
        result = benchmark.pedantic(function, args=arguments, rounds=rounds, iterations=1)
        benchmark.extra_info.update(
            operation=operation,
            input=input,
            state=state,
            contestant=params["contestant"].name,
            turn=params["turn"],
            work=work,
            unit=unit,
            headline=headline,
            digest=digest(result) if same else None,
            value=value(result) if value else None,
            also=also(result) if also else {},
        )
        return result

    return run
