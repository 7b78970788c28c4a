"""Hostile but legal texts of a megabyte: processor time of one call on a new object's first sight of each."""

import base64
import random
import re
import time

import pytest

from bench import texts, vocabularies
from bench.rivals import contestants, prepared


def hostile() -> dict[str, str]:
    """The texts by name; what is random is drawn from a seed."""
    draw = random.Random(7)

    def some(characters: str, count: int) -> str:
        return "".join(draw.choices(characters, k=count))

    english = "".join(texts.warm_up("english"))
    return {
        "a": "a" * 1_000_000,
        "upper": "A" * 1_000_000,
        "ab": "ab" * 500_000,
        "mixed case": "aB" * 500_000,
        "spaces": " " * 1_000_000,
        "newlines": "\n" * 1_000_000,
        "exclamations": "!" * 1_000_000,
        "apostrophes": "'s't're've" * 100_000,
        "white space": "".join(draw.choices(["\r\n", "\t", " ", "  ", "\n\n", "x"], k=600_000)),
        "digits": some("0123456789", 1_000_000),
        "random letters": some("abcdefghijklmnopqrstuvwxyz", 1_000_000),
        "latin-1": draw.randbytes(1_000_000).decode("latin-1"),
        "base64": base64.b64encode(draw.randbytes(750_000)).decode(),
        "Chinese": some("".join(map(chr, range(0x4E00, 0x9FA5))), 300_000),
        "Thai": some("".join(map(chr, range(0xE01, 0xE3A))), 300_000),
        "emoji": some("\U0001f600\U0001f44d\U0001f3fd\u200d\u2764\ufe0f\U0001f1eb\U0001f1f7\u2728", 300_000),
        "combining": "e" + "\u0301" * 299_999,
        "any character": "".join(
            chr(c) for c in (draw.randrange(1, 0x2FFFF) for _ in range(300_000)) if not 0xD800 <= c < 0xE000
        ),
        "English without spaces": re.sub("[^A-Za-z]", "", english)[:1_000_000].lower(),
    }


TEXTS = hostile()


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
