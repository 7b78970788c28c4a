"""Ids to text: one document a call, one thread. There is nothing to cache, so there is one state."""

import functools

import pytest

from bench import texts, vocabularies
from bench.rivals import REGISTRY, contestants, prepared


@pytest.mark.parametrize("contestant", contestants("decode"))
@pytest.mark.parametrize("part", ["english", "multilingual", "code"])
def test_decode(measure, contestant, part, turn):
    name = vocabularies.names()[0]
    decode = prepared(contestant, "decode", vocabularies.load(name))
    documents = texts.documents(part, turn)
    rows = ids(name, part, turn)
    measure(
        lambda: [decode(row) for row in rows],
        work=texts.size(documents),
        unit="MB/s",
        input=f"{part}, {name}",
        headline=part == "english",
        rounds=3,
        same=True,
    )


@functools.cache
def ids(name, part, turn):
    """Lists of ids, by whichever installed contestant encodes first."""
    encoder = next(rival for rival in REGISTRY if hasattr(rival, "encode") and not rival.absence)
    encode = prepared(encoder, "encode", vocabularies.load(name))
    return [encode(text) for text in texts.documents(part, turn)]
