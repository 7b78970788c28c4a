"""Text to a uint32 array: one document a call, one thread, for those who never need a list.

fresh: a warm object and documents that it has never seen. cold: a new object. repeat: the same documents again.
"""

import pytest

from bench import texts, vocabularies
from bench.rivals import contestants, prepared


@pytest.mark.parametrize("contestant", contestants("encode_array"))
@pytest.mark.parametrize("state", ["cold", "fresh", "repeat"])
@pytest.mark.parametrize("part", texts.PARTS)
def test_encode_array(measure, contestant, part, state, turn):
    name = vocabularies.names()[0]
    if not contestant.takes(name):
        pytest.skip("it does not read this vocabulary")
    if state == "cold" and turn > 1:
        pytest.skip("loading takes long: the cold state has two turns")
    files = vocabularies.load(name)
    encode = contestant.encode_array(files) if state == "cold" else warmed(contestant, name, part)
    documents = texts.documents(part, turn)
    measure(
        lambda: [encode(text) for text in documents],
        work=texts.size(documents),
        unit="MB/s",
        input=f"{part}, {name}",
        state=state,
        headline=state == "fresh",
        same=True,
    )


def warmed(contestant, name, part, seen=set()):  # noqa: B006
    encode = prepared(contestant, "encode_array", vocabularies.load(name))
    if (contestant.name, part) not in seen:
        seen.add((contestant.name, part))
        for text in texts.warm_up(part):
            encode(text)
    return encode
