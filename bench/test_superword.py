"""Vocabularies whose tokens cross words, where only digits are split: one document a call, one thread, into lists and arrays.

Rivals give lists only; ours stand beside them in both forms.
"""

import pytest

from bench import texts, vocabularies
from bench.rivals import contestants, prepared


@pytest.mark.parametrize("contestant", contestants("superword"))
@pytest.mark.parametrize("form", ["list", "array"])
@pytest.mark.parametrize("part", texts.PARTS)
def test_superword(measure, contestant, part, form, turn):
    if "superbpe" not in vocabularies.others():
        pytest.skip("the SuperBPE vocabularies of the large data")
    if turn > 2 or (contestant.name == "tokenizers" and turn > 0):
        pytest.skip("the rivals take long")
    encode = prepared(contestant, "superword", vocabularies.load("superbpe"), form)
    documents = texts.documents(part, turn)
    measure(
        lambda: [encode(text) for text in documents],
        work=texts.size(documents),
        unit="MB/s",
        input=f"{part}, superbpe",
        state=f"fresh, {form}",
        headline=part == "english",
        same=True,
    )
