"""Where text is cut: components that save and load, here and in the library that owns the format."""

import re
from operator import itemgetter

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from tokamask import train

first = itemgetter(0)
TEXTS = ["1234567 apples, 42", "go to 東京 now", "ไทย 12²345", "ひらがな and カタカナ", "x1234y"]


@pytest.mark.parametrize(
    "rule",
    [
        train.digit_groups(),
        train.digit_groups(2),
        train.characters(),
        train.characters("Han", then="superbpe"),
        "lines",
    ],
    ids=["threes", "pairs", "characters", "Han", "lines"],
)
def test_rules_save_and_load(rule, tmp_path):
    tok = train.bpe(TEXTS * 3, vocab_size=290, pre_tokenizer=rule, progress=False)
    tok.save(tmp_path / "tokenizer.json")
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    again = type(tok).from_file(tmp_path / "tokenizer.json")
    for text in TEXTS:
        assert tok.encode(text) == again.encode(text) == other.encode(text).ids
        assert tok.decode(tok.encode(text)) == text


@given(st.lists(st.sampled_from("東京ไพひカabc 1"), max_size=30).map("".join), st.integers(1, 4))
def test_characters_stand_alone_and_digits_in_groups(text, size):
    spaceless = re.compile("[東京ไพひカ]")
    for word in map(first, train.count([text], pre_tokenizer=train.characters()).items()):
        assert len(word.decode()) == 1 or not spaceless.search(word.decode())
    digits = "7" * len(text)
    cut = train.count([digits], pre_tokenizer=train.digit_groups(size))
    assert cut.total == -(-len(digits) // size)
    assert {len(word) for word, _ in cut.items()} <= {size, len(digits) % size or size}


def test_tokens_of_a_few_characters():
    tok = train.bpe(
        ["low lower lowest"] * 9, vocab_size=290, pre_tokenizer="lines", max_token_length=4, progress=False
    )
    tokens = [tok.vocabulary.bytes(i) for i in range(len(tok))]
    assert max(map(len, tokens)) == 3
    assert any(b" " in token[1:] for token in tokens)  # nothing is cut at spaces


@given(st.from_regex(r"\A(x ?)?\d{1,24}(\.\d{1,17})?( \d+)?\Z"))
def test_triads_are_undone_by_dropping_the_markers(text):
    normalizer = train.triads()
    [(marked, _)] = train.count([text], normalizer=normalizer, pre_tokenizer="lines").items()
    assert re.sub("⟨[kMGTPEmunpf]⟩", "", marked.decode()) == text
    theirs = tokenizers.normalizers.Sequence(
        [
            tokenizers.normalizers.Replace(tokenizers.Regex(s["pattern"]["Regex"]), s["content"])
            for s in normalizer["normalizers"]
        ]
    )
    assert theirs.normalize_str(text) == marked.decode()


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("1234567.12345", "1⟨M⟩234⟨k⟩567.123⟨m⟩45"),
        ("123", "123"),
        ("1000", "1⟨k⟩000"),
        ("0.1234567", "0.123⟨m⟩456⟨u⟩7"),
    ],
)
def test_triads(text, marked):
    assert [
        word.decode()
        for word, _ in train.count([text], normalizer=train.triads(), pre_tokenizer="lines").items()
    ] == [marked]


def test_what_is_refused():
    with pytest.raises(ValueError, match="size"):
        train.digit_groups(0)
    with pytest.raises(ValueError, match="scripts"):
        train.characters("Han}")
