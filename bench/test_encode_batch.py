"""Many texts in one call, on all cores."""

import pytest

from bench import texts, vocabularies
from bench.rivals import contestants, prepared


@pytest.mark.parametrize("contestant", contestants("encode_batch"))
@pytest.mark.parametrize("part", ["english", "multilingual", "code"])
def test_encode_batch(measure, contestant, part, turn):
    name = vocabularies.names()[0]
    if not contestant.takes(name):
        pytest.skip("it does not read this vocabulary")
    encode = warmed(contestant, name, part)
    documents = texts.documents(part, turn)
    measure(
        encode,
        documents,
        work=texts.size(documents),
        unit="MB/s",
        input=f"{part}, {name}",
        state="fresh",
        headline=part == "english",
        same=True,
    )


@pytest.mark.parametrize("contestant", contestants("encode_batch"))
@pytest.mark.parametrize("part", ["english", "code"])
def test_one_document(measure, contestant, part, turn):
    """All of a turn as one document, eight times over: what a contestant cuts for its threads is its own affair."""
    name = vocabularies.names()[0]
    if not contestant.takes(name):
        pytest.skip("it does not read this vocabulary")
    encode = warmed(contestant, name, part)
    document = "\n".join(texts.documents(part, turn)) * 8
    measure(
        encode,
        [document],
        work=len(document.encode()),
        unit="MB/s",
        input=f"one document of 4 MB, {part}, {name}",
        same=True,
    )


def warmed(contestant, name, part, seen=set()):  # noqa: B006
    encode = prepared(contestant, "encode_batch", vocabularies.load(name))
    if (contestant.name, part) not in seen:
        seen.add((contestant.name, part))
        encode(texts.warm_up(part))
    return encode
