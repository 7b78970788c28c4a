"""Text that grows, places in it, and how much of it fits: all tied to ``encode``."""

import copy
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import PATTERNS, SIGNS, small, with_added

import tokamask as tm

PIECES = [
    "hello",
    "  ",
    "12",
    "3456",
    "\n",
    " wor",
    "ld",
    "'",
    "s",
    "e",
    "\u0301",
    "👍",
    "🏽",
    "<|end|>",
    " the",
    ".",
]
PIECES += ["a", "ab", "abc", "ab?", "?", " "]
texts = st.text(alphabet=st.sampled_from(SIGNS), max_size=30)
steps = st.lists(
    st.one_of(st.sampled_from(PIECES), st.text(alphabet=st.sampled_from(SIGNS), max_size=4)), max_size=12
)


@pytest.mark.parametrize("pattern", PATTERNS)
@given(pieces=steps, cuts=st.lists(st.integers(0, 30), max_size=3))
@settings(max_examples=40)
def test_ids_are_those_of_the_whole_text(pattern, pieces, cuts):
    grow(small(pattern), pieces, cuts)


@pytest.mark.parametrize(
    "flags", [{}, {"rstrip": True}, {"single_word": True}, {"normalized": True}], ids=str
)
@given(pieces=st.lists(st.sampled_from(["a", "b", "c", "?", " ", "ab", "abca", " b"]), max_size=12))
@settings(max_examples=40)
def test_added_tokens_may_form_across_pieces(flags, pieces):
    grow(with_added(**flags), pieces, [3])


def grow(tok, pieces, cuts):
    growing, text = tok.appender(), ""
    settled = []
    for nth, piece in enumerate(pieces):
        before = growing.ids.tolist()
        kept = growing.append(piece)
        text += piece
        ids = tok.encode(text)
        assert growing.ids.tolist() == ids
        assert growing.text == text
        assert len(growing) == len(ids)
        assert before[:kept] == ids[:kept]
        assert all(ids[: len(some)] == some for some in settled)
        settled.append(ids[: growing.settled])
        if nth < len(cuts):
            growing.truncate(cuts[nth])
            text = text[: cuts[nth]]
            assert growing.ids.tolist() == tok.encode(text)
            settled.clear()


def test_most_of_a_long_text_is_settled():
    tok = small("tiktoken cl100k")
    growing = tok.appender()
    for _ in range(50):
        growing.append("Some words in a row, and numbers: 1234. ")
        assert len(growing) - growing.settled <= 3
    assert growing.append("") == len(growing)
    growing.truncate(10_000)
    assert len(growing.text) == 2000


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=texts)
@settings(max_examples=40)
def test_offsets_are_the_bytes_of_the_tokens(pattern, text):
    tok = small(pattern)
    text += "<|end|> x"
    encoding = tok.encode_with_offsets(text, allowed_special="all")
    data = text.encode()
    assert isinstance(encoding, tm.Encoding)
    assert encoding.ids.tolist() == tok.encode(text, allowed_special="all")
    assert encoding.ids.dtype == np.uint32
    last = 0
    for token, (start, end), (first, behind) in zip(
        encoding.ids.tolist(), encoding.byte_offsets.tolist(), encoding.offsets.tolist(), strict=True
    ):
        assert data[start:end] == tok.decode_bytes([token])
        assert last <= start
        last = end
        # The characters that have a byte of the token, and no more.
        assert len(text[:first].encode()) <= start < len(text[: first + 1].encode())
        assert len(text[: behind - 1].encode()) < end <= len(text[:behind].encode())
    words = encoding.word_ids.tolist()
    assert [word for word in words if word >= 0] == sorted(word for word in words if word >= 0)
    assert words[encoding.ids.tolist().index(900)] == -1


def test_tokens_share_a_character():
    tok = small("tiktoken cl100k")
    encoding = tok.encode_with_offsets("x🦀")
    assert len(encoding.ids) > 2
    assert encoding.offsets[1:].tolist() == [[1, 2]] * (len(encoding.ids) - 1)
    assert tok.encode_with_offsets("").offsets.shape == (0, 2)


@pytest.mark.parametrize("pattern", ["tiktoken cl100k", "long look-ahead", "leaves gaps", "one piece"])
@given(text=texts, budget=st.integers(0, 25))
@settings(max_examples=40)
def test_what_fits_is_the_longest_prefix_of_whole_tokens(pattern, text, budget):
    tok = small(pattern)
    end, count = tok.fit(text, budget)
    assert count == tok.count(text[:end]) <= budget
    if tok.count(text) <= budget:
        assert (end, count) == (len(text), tok.count(text))
        return
    encoding = tok.encode_with_offsets(text)
    ends = [int(e) for e in encoding.byte_offsets[:budget, 1]]
    whole = [len(text.encode()[:e].decode()) for e in ends if _is_whole(text.encode(), e)]
    fitting = [e for e in whole if tok.count(text[:e]) <= budget]
    assert end == max(fitting, default=0)


def _is_whole(data, end):
    return end == len(data) or data[end] & 0xC0 != 0x80


def test_a_short_budget_on_a_long_text():
    tok = small("tiktoken cl100k")
    text = "Some words in a row, and numbers: 1234. " * 5000
    end, count = tok.fit(text, 1000)
    assert count == tok.count(text[:end]) == 1000
    assert tok.fit(text, 0) == (0, 0)


def test_counts_of_a_batch():
    tok = small("tiktoken o200k")
    texts = ["a b", "", "<|end|>", "x" * 5000] * 20
    assert tok.count_batch(texts).tolist() == [tok.count(text) for text in texts]
    special = tok.count_batch(texts, allowed_special="all")
    assert special.tolist() == [tok.count(text, allowed_special="all") for text in texts]
    assert tok.count_batch([]).shape == (0,)


def normal(tok: tm.Tokenizer, path, form: str = "NFC") -> tm.Tokenizer:
    """The same with a normalizer."""
    tok.save(path)
    file = json.loads(path.read_text())
    file["normalizer"] = {"type": form}
    return tm.Tokenizer.from_bytes(json.dumps(file).encode())


def test_positions_in_text_that_a_normalizer_changes_are_refused_by_name(tmp_path):
    tok = normal(with_added(), tmp_path / "t.json")
    assert tok.encode_with_offsets("aé").byte_offsets.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert tok.fit("a b", 1) == (1, 1)
    with pytest.raises(tm.errors.UnsupportedComponentError, match="normalizer"):
        tok.encode_with_offsets("ae\u0301")
    grow(tok, ["e", "\u0301", "a"], [1, 2])


@pytest.mark.parametrize("form", ["NFC", "NFKD"])
def test_normal_text_grows_as_other_text_does(tmp_path, form):
    tok = normal(small("tiktoken cl100k"), tmp_path / "t.json", form)
    draw = random.Random(form)
    for _ in range(60):
        grow(tok, draw.choices([*PIECES, "\u0301", "é", "ﬁ", "각", "ᆨ", "你"], k=12), [draw.randrange(9)])
    growing = tok.appender()
    for _ in range(50):
        growing.append("Some words in a row, and numbers: 1234. ")
        assert len(growing) - growing.settled <= 3


def test_appenders_of_copies_are_independent():
    tok = small("tiktoken cl100k")
    first, second = tok.appender(), copy.copy(tok).appender()
    first.append("one")
    assert second.text == ""
