"""The number of tokens of a text, one document a call; those that cannot count build the ids."""

import pytest

from bench import texts, vocabularies
from bench.rivals import contestants, prepared


@pytest.mark.parametrize("contestant", contestants("count"))
@pytest.mark.parametrize("part", ["english", "code"])
def test_count(measure, contestant, part, turn):
    name = vocabularies.names()[0]
    if not contestant.takes(name):
        pytest.skip("it does not read this vocabulary")
    count = prepared(contestant, "count", vocabularies.load(name))
    warm(count, contestant.name, part)
    documents = texts.documents(part, turn)
    measure(
        lambda: [count(text) for text in documents],
        work=texts.size(documents),
        unit="MB/s",
        input=f"{part}, {name}",
        state="fresh",
        headline=part == "english",
        same=True,
    )


def warm(count, name, part, seen=set()):  # noqa: B006
    """Lets a contestant see the part's warm-up once."""
    if (name, part) not in seen:
        seen.add((name, part))
        for text in texts.warm_up(part):
            count(text)
