"""SentencePiece's kind of BPE, which splits no words: one document a call, one thread, text never seen before.

mistral: a `.model` file. gemma3: a tokenizer.json of the pieces of a GGUF file. All read the same file; who gives
other ids than tokamask is named in the record.
"""

import pytest

from bench import texts, vocabularies
from bench.rivals import contestants, prepared


@pytest.mark.parametrize("contestant", contestants("marked"))
@pytest.mark.parametrize("form", ["list", "array"])
@pytest.mark.parametrize("part", texts.PARTS)
@pytest.mark.parametrize("vocabulary", ["mistral", "gemma3"])
def test_encode_sentencepiece(measure, contestant, vocabulary, part, form, turn):
    if turn > 2 or (contestant.name == "tokenizers" and turn > 0):
        pytest.skip("the rivals take long")
    encode = warmed(contestant, vocabulary, part, form)
    if encode is None:
        pytest.skip("it does not read this file, or gives no arrays")
    documents = texts.documents(part, turn)
    measure(
        lambda: [encode(text) for text in documents],
        work=texts.size(documents),
        unit="MB/s",
        input=f"{part}, {vocabulary}",
        state=f"fresh, {form}",
        headline=part == "english",
        same=True,
    )


def warmed(contestant, vocabulary, part, form, seen=set()):  # noqa: B006
    files = vocabularies.marked(vocabulary)
    if files is None:
        pytest.skip("the vocabularies of requirements/exact.txt")
    encode = prepared(contestant, "marked", files, form)
    if encode is not None and (contestant.name, vocabulary, part, form) not in seen:
        seen.add((contestant.name, vocabulary, part, form))
        for text in texts.warm_up(part):
            encode(text)
    return encode
