"""Hostile but legal texts of a megabyte: processor time of one call on a new object's first sight of each."""

import time

import pytest

from bench import hostile, texts, vocabularies
from bench.rivals import contestants, prepared

TEXTS = hostile.texts(english="".join(texts.warm_up("english")))


@pytest.mark.parametrize("contestant", contestants("adversarial"))
@pytest.mark.parametrize("text", TEXTS)
def test_adversarial(measure, contestant, text, turn):
    if turn > 2:
        pytest.skip("the texts are long: three turns")
    name = vocabularies.names()[0]
    if not contestant.takes(name):
        pytest.skip("it does not read this vocabulary")
    if contestant.name == "tiktoken" and text == "spaces":
        pytest.skip("it panics on a million spaces")
    if contestant.name == "tokenizers":
        pytest.skip("it takes a second for most of them")
    encode = prepared(contestant, "adversarial", vocabularies.load(name))
    # Other letters at the front, so that no cache knows the whole from the turn before.
    document = "abc"[turn] + TEXTS[text]

    def run():
        start = time.process_time()
        ids = encode(document)
        return time.process_time() - start, ids

    measure(
        run,
        value=lambda pair: 1e3 * pair[0],
        unit="ms",
        input=f"1 MB of {text}, {name}",
    )
