"""Text to a list of ids: one document a call, one thread.

fresh: a warm object and documents that it has never seen. cold: a new object. repeat: the same documents again.
"""

import pytest

from bench import texts, vocabularies
from bench.rivals import contestants, prepared

CASES = [
    pytest.param(name, part, id=f"{name}-{part}")
    for i, name in enumerate(vocabularies.names())
    for part in (texts.PARTS if i == 0 else ("english",))
]


@pytest.mark.parametrize("contestant", contestants("encode"))
@pytest.mark.parametrize("state", ["cold", "fresh", "repeat"])
@pytest.mark.parametrize(("vocabulary", "part"), CASES)
def test_encode(measure, contestant, vocabulary, part, state, turn):
    if not contestant.takes(vocabulary):
        pytest.skip("it does not read this vocabulary")
    if state == "cold" and turn > 1:
        pytest.skip("loading takes long: the cold state has two turns")
    files = vocabularies.load(vocabulary)
    encode = contestant.encode(files) if state == "cold" else warmed(contestant, files, part)
    documents = texts.documents(part, turn)
    measure(
        lambda: [encode(text) for text in documents],
        work=texts.size(documents),
        unit="MB/s",
        input=f"{part}, {vocabulary}",
        state=state,
        headline=state == "fresh" and vocabulary == vocabularies.names()[0],
        same=True,
    )


def warmed(contestant, files, part, seen=set()):  # noqa: B006
    """The contestant's encoder after the part's warm-up."""
    encode = prepared(contestant, "encode", files)
    if (contestant.name, files.name, part) not in seen:
        seen.add((contestant.name, files.name, part))
        for text in texts.warm_up(part):
            encode(text)
    return encode
