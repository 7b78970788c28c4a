"""A conversation that grows by short messages: the ids of all of it after each, as an engine needs them.

Those without an incremental encoder encode the whole text again, which is what their users do.
"""

import pytest

from bench import texts, vocabularies
from bench.rivals import contestants, prepared

MESSAGE = 200
MESSAGES = 150


@pytest.mark.parametrize("contestant", contestants("append"))
@pytest.mark.parametrize("part", ["english", "code"])
def test_append(measure, contestant, part, turn):
    name = vocabularies.names()[0]
    if not contestant.takes(name):
        pytest.skip("it does not read this vocabulary")
    start = prepared(contestant, "append", vocabularies.load(name))
    text = "".join(texts.documents(part, turn))
    messages = [text[at : at + MESSAGE] for at in range(0, MESSAGE * MESSAGES, MESSAGE)]

    def grow():
        append = start()
        return [append(message) for message in messages]

    grow()
    measure(
        grow,
        work=texts.size(messages),
        unit="MB/s",
        input=f"{MESSAGES} messages of {MESSAGE} characters, {part}, {name}",
        headline=part == "english",
        same=True,
    )
