"""Driving mask engines: what every engine offers, which schemas it takes, and the walk along a document.

An engine has ``compile(schema_text)``, and ``start(compiled)``, which returns ``fill()``, ``accept(id)`` and the
bitmask row (int32) that ``fill`` writes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field

import numpy as np

from bench import schemas, vocabularies
from bench.data import ROOT, scratch
from bench.rivals import REGISTRY, prepared

PATIENCE = 10.0
"""Seconds after which a schema counts as not taken."""
LOADING = 120.0
"""Seconds that an engine may take to load a vocabulary."""
DEADLINE = 100.0
"""Seconds for all schemas together; those that were not reached count as not taken."""


def cases(kind: str) -> tuple[schemas.Case, ...]:
    """The schemas of a row of the table."""
    return schemas.real() if kind == "real schemas" else schemas.own()


def kinds() -> list[str]:
    """The rows that this machine has input for."""
    return ["real schemas", "own schemas"] if schemas.real() else ["own schemas"]


def rows_of_the_table() -> list[tuple[str, str]]:
    """(vocabulary, kind): everything on the widest vocabulary, the own schemas on the others too."""
    widest, *others = vocabularies.for_masks()
    return [(widest, kind) for kind in kinds()] + [(name, "own schemas") for name in others]


@functools.cache
def ids(vocabulary: str, document: str) -> tuple[int, ...]:
    """The document's tokens."""
    tokenizer = next(rival for rival in REGISTRY if rival.name == "tokenizers" and not rival.absence)
    return tuple(prepared(tokenizer, "encode", vocabularies.load(vocabulary))(document))


@functools.cache
def taken(rival, vocabulary: str, kind: str) -> frozenset[str]:
    """Names of the schemas that an engine compiles and under which it allows the document and its end, in good time.

    Tried in another process, which is ended where an engine does not come back. Remembered for released versions.
    """
    if rival.name == "tokamask":
        return _probe(rival, vocabulary, kind)[0]
    key = hashlib.sha256(repr([PATIENCE, cases(kind)]).encode()).hexdigest()[:12]
    path = scratch() / f"taken-{rival.name}-{rival.version}-{vocabulary}-{key}.json"
    if path.exists():
        return frozenset(json.loads(path.read_text()))
    found, complete = _probe(rival, vocabulary, kind)
    if complete:
        path.write_text(json.dumps(sorted(found)))
    return found


def _probe(rival, vocabulary: str, kind: str) -> tuple[frozenset[str], bool]:
    """The schemas, and whether all were tried before the deadline."""
    names = [case.name for case in cases(kind)]
    found, position = set(), 0
    deadline = time.monotonic() + DEADLINE
    while position < len(names) and time.monotonic() < deadline:
        command = [sys.executable, "-m", "bench.masks", rival.name, vocabulary, kind, str(position)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        patience = LOADING
        while select.select([process.stdout], [], [], patience)[0]:
            line = process.stdout.readline()
            if not line:
                break
            if line.strip() != "ready":
                position += 1
                found |= {line.strip()[3:]} if line.startswith("ok ") else set()
            patience = PATIENCE
        process.kill()
        process.stdout.close()
        if process.wait() != 0 and position < len(names):
            position += 1  # it hung or crashed on this one
    return frozenset(found), position >= len(names)


def probe(rival_name: str, vocabulary: str, kind: str, position: int) -> None:
    """The other process: one line per schema."""
    rival = next(rival for rival in REGISTRY if rival.name == rival_name)
    files = vocabularies.load(vocabulary)
    engine = rival.mask(files)
    eos = files.special[files.eos]
    walks = [(case, ids(vocabulary, case.document)) for case in cases(kind)[position:]]
    print("ready", flush=True)
    for case, token_ids in walks:
        try:
            fill, accept, row = engine.start(engine.compile(case.schema))
            fits = all(_step(fill, accept, row, i) for i in token_ids)
            fill()
            fits = fits and allows(row, eos)
        except Exception:  # whatever it raises, the schema is not taken
            fits = False
        print("ok" if fits else "no", case.name, flush=True)


def _step(fill, accept, row, token_id: int) -> bool:
    fill()
    if not allows(row, token_id):
        return False
    accept(token_id)
    return True


def allows(row: np.ndarray, token_id: int) -> bool:
    """The bit of a token."""
    return bool(row[token_id >> 5] >> (token_id & 31) & 1)


@functools.cache
def common(vocabulary: str, kind: str) -> tuple[schemas.Case, ...]:
    """The schemas that every installed engine takes: what is timed."""
    engines = [rival for rival in REGISTRY if hasattr(rival, "mask") and not rival.absence]
    names = frozenset.intersection(*(taken(rival, vocabulary, kind) for rival in engines))
    return tuple(case for case in cases(kind) if case.name in names)


@dataclass
class Walk:
    """Times of a walk, in seconds."""

    fills: list[float] = field(default_factory=list)
    accepts: list[float] = field(default_factory=list)

    def mean(self) -> float:
        """Microseconds per token, mask and accept together."""
        return 1e6 * (sum(self.fills) + sum(self.accepts)) / len(self.fills)

    def quantiles(self) -> dict[str, float]:
        """Microseconds of a mask alone."""
        return {f"mask p{p}": 1e6 * float(np.quantile(self.fills, p / 100)) for p in (50, 99)}


def walk(engine, compiled, token_ids, times: Walk) -> None:
    """One request: a mask before every token."""
    fill, accept, _ = engine.start(compiled)
    clock = time.perf_counter
    for token_id in token_ids:
        a = clock()
        fill()
        b = clock()
        accept(token_id)
        times.fills.append(b - a)
        times.accepts.append(clock() - b)


def walk_while_allowed(engine, compiled, token_ids, times: Walk) -> None:
    """As :func:`walk`, up to the first token that is not allowed."""
    fill, accept, row = engine.start(compiled)
    clock = time.perf_counter
    for token_id in token_ids:
        a = clock()
        fill()
        times.fills.append(clock() - a)
        if not allows(row, token_id):
            return
        b = clock()
        accept(token_id)
        times.accepts.append(clock() - b)


if __name__ == "__main__":
    probe(*sys.argv[1:4], int(sys.argv[4]))
