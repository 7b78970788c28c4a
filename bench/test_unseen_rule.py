"""A split rule that no code knows by name, against o200k's own, with o200k's ranks: to a uint32 array, one thread.

The first two differ from o200k's in every branch; the others look at what stands before a character, which vectors do
not see. Only libraries that take any rule take part.
"""

import dataclasses

import pytest

from bench import texts, vocabularies
from bench.rivals import contestants, prepared

RULES = {
    "o200k's own rule": vocabularies.O200K_PATTERN,
    "words of one case, digits by four": r"[^\r\n\p{L}\p{N}_]?(?:\p{Lu}?[\p{Ll}\p{Lo}\p{M}]+|\p{Lu}+)|\p{N}{1,4}|_+"
    r"| ?[^\s\p{L}\p{N}_]+[\r\n;]*|\s*\n|\s+(?!\S)|\s+",
    "words without their spaces": r"\p{L}[\p{L}\p{M}'\-]*|\p{N}+(?:[.,]\p{N}+)*|\s+|[^\s\p{L}\p{N}]{1,3}",
    "edges of words": r"\b\w+\b|(?<=\w)\W| ?\W+|\w+",
}
FILES: dict[str, vocabularies.Files] = {}
ANY_RULE = [c for c in contestants("encode_array") if c.values[0].name in ("tokamask", "tiktoken")]


@pytest.mark.parametrize("contestant", ANY_RULE)
@pytest.mark.parametrize("state", ["fresh", "repeat"])
@pytest.mark.parametrize("part", ["english", "code"])
@pytest.mark.parametrize("rule", RULES)
def test_unseen_rule(measure, contestant, rule, part, state, turn):
    name = vocabularies.names()[0]
    if not contestant.takes(name):
        pytest.skip("it does not read this vocabulary")
    if rule not in FILES:
        FILES[rule] = dataclasses.replace(vocabularies.load(name), pattern=RULES[rule])
    encode = prepared(contestant, "encode_array", FILES[rule])
    if state == "fresh":
        for text in texts.warm_up(part) if turn == 0 else []:
            encode(text)
    documents = texts.documents(part, turn)
    measure(
        lambda: [encode(text) for text in documents],
        work=texts.size(documents),
        unit="MB/s",
        input=f"{rule}, {part}",
        state=state,
        same=True,
    )
