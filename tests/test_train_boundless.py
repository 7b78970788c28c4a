"""BoundlessBPE: equal to the readable trainer; superwords of whole words only."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from superword_corpora import corpora, runs_of

import tokamask as tm
from tokamask.errors import CorpusError
from tokamask.reference import train as reference
from tokamask.train import train_boundless


@settings(max_examples=60, deadline=None)
@given(corpora, st.integers(257, 300), st.sampled_from([None, 2]))
def test_equal_to_the_readable_trainer(texts, vocab_size, max_words):
    counts = tm.train.count(texts, pre_tokenizer="superbpe", runs=True, progress=False)
    tok, merges, tokens = train_boundless(counts, vocab_size=vocab_size, max_words=max_words)
    assert tokens == reference.boundless(runs_of(counts), vocab_size, max_words=max_words)
    assert [tokens[a] + tokens[b] for a, b in merges.tolist()] == tokens[256:]
    assert all(tok.decode(tok.encode(text)) == text for text in texts)


def test_superwords_are_whole_words():
    text = ["it is on the way, by the way, on the way to it"] * 5
    _, _, tokens = train_boundless(tm.train.count(text, pre_tokenizer="superbpe", runs=True), vocab_size=285)
    superwords = [token for token in tokens[256:] if b" " in token.strip()]
    assert b" the way" in superwords
    words = {word for line in text for word in line.replace(",", "").encode().split()}
    assert all(part in words for token in superwords for part in token.split())


def test_needs_runs():
    with pytest.raises(CorpusError, match="hold none"):
        tm.train.boundless(tm.train.count(["a b"]), vocab_size=300)
