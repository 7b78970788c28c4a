"""tiktoken's own call, `Encoding.encode` with its default check for special tokens, and the drop-in module's."""

import pytest

from bench import texts, vocabularies
from bench.rivals import contestants, prepared


@pytest.mark.parametrize("contestant", contestants("drop_in"))
@pytest.mark.parametrize("part", texts.PARTS)
def test_drop_in(measure, contestant, part, turn):
    name = vocabularies.names()[0]
    files = vocabularies.load(name)
    if not contestant.takes(name) or not files.tiktoken:
        pytest.skip("it does not read this vocabulary")
    encode = prepared(contestant, "drop_in", files)
    warm(encode, contestant.name, part)
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


def warm(encode, name, part, seen=set()):  # noqa: B006
    """Lets a contestant see the part's warm-up once."""
    if (name, part) not in seen:
        seen.add((name, part))
        for text in texts.warm_up(part):
            encode(text)
