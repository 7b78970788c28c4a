"""Text to a uint32 array: one document a call, one thread, for those who never need a list."""

import pytest

from bench import texts, vocabularies
from bench.rivals import contestants, prepared

PART = ("english", "multilingual", "code")


@pytest.mark.parametrize("contestant", contestants("encode_array"))
@pytest.mark.parametrize("part", PART)
def test_encode_array(measure, contestant, part, turn):
    name = vocabularies.names()[0]
    encode = warmed(contestant, name, part)
    documents = texts.documents(part, turn)
    measure(
        lambda: [encode(text) for text in documents],
        work=texts.size(documents),
        unit="MB/s",
        input=f"{part}, {name}",
        state="fresh",
        headline=part == "english",
        same=True,
    )


def warmed(contestant, name, part, seen=set()):  # noqa: B006
    encode = prepared(contestant, "encode_array", vocabularies.load(name))
    if (contestant.name, part) not in seen:
        seen.add((contestant.name, part))
        for text in texts.warm_up(part):
            encode(text)
    return encode
