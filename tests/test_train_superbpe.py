"""SuperBPE: equal to the readable trainer, its invariants, and its gain over plain BPE."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from superword_corpora import corpora, runs_of

import tokamask as tm
from tokamask import train
from tokamask.errors import CorpusError
from tokamask.reference import train as reference
from tokamask.train import train_bpe, train_superbpe


@given(
    corpora,
    st.integers(256, 300),
    st.integers(1, 60),
    st.integers(1, 4),
    st.sampled_from(["superbpe", "gpt2"]),
)
def test_equals_the_reference(texts, transition, more, max_words, rule):
    counts = train.count(texts, pre_tokenizer=rule, runs=True)
    sizes = {"vocab_size": transition + more, "transition": transition, "max_words": max_words}
    _, merges, tokens = train_superbpe(counts, **sizes)
    want = reference.superbpe(runs_of(counts), **sizes)
    assert (tokens, [tuple(pair) for pair in merges.tolist()]) == want


@given(corpora, st.lists(st.integers(0, 2), min_size=10, max_size=10))
def test_sharding_changes_not_a_single_merge(texts, shard_of):
    def superwords(counts):
        return train_superbpe(counts, vocab_size=320, transition=280)[1].tolist()

    shards = [[t for t, s in zip(texts, shard_of, strict=False) if s == shard] for shard in range(3)]
    merged = sum(train.count(shard, pre_tokenizer="superbpe", runs=True) for shard in reversed(shards))
    assert superwords(merged) == superwords(train.count(texts, pre_tokenizer="superbpe", runs=True))


@pytest.fixture(scope="module")
def documents(unpacked):
    found = []
    for part in ("english", "code"):
        with (unpacked("corpus_open.tar.xz") / f"open/{part}.jsonl").open() as rows:
            found += [json.loads(row) for row, _ in zip(rows, range(330), strict=False)]
    return found


def test_invariants_and_gain_on_real_text(documents):
    """The invariants of the vocabularies that the method's authors released, and fewer tokens."""
    held_out = documents[::11]
    counts = train.count([d for i, d in enumerate(documents) if i % 11], pre_tokenizer="superbpe", runs=True)
    tok, merges, tokens = train_superbpe(counts, vocab_size=8000, transition=6000)
    plain, _, _ = train_bpe(counts, vocab_size=8000)
    assert len(tokens) == len(set(tokens)) == 8000
    for nth, (left, right) in enumerate(merges.tolist()):
        assert tokens[256 + nth] == tokens[left] + tokens[right]
    assert not [t for t in tokens if b"\n" in t[:-1]]
    assert not [t for t in tokens if b": " in t]
    assert max(len([p for p in t.split(b" ") if p]) for t in tokens[6000:]) == 4
    assert sum(b" " in t.strip() for t in tokens[:5900]) == 0
    assert sum(b" " in t.strip() for t in tokens) > 500
    size = sum(len(text.encode()) for text in held_out)
    per_token = [size / sum(t.count(text) for text in held_out) for t in (tok, plain)]
    assert per_token[0] > 1.15 * per_token[1], per_token
    for text in held_out[:5]:
        assert tok.decode(tok.encode(text)) == text


def test_counts_without_runs_are_refused():
    with pytest.raises(CorpusError, match="runs=True"):
        tm.train.superbpe(train.count(["a b"]), vocab_size=300, transition=280)


def test_without_superwords_it_is_plain_bpe():
    texts = ["on the way to the sea"] * 5
    counts = train.count(texts, pre_tokenizer="superbpe", runs=True)
    assert (
        train_superbpe(counts, vocab_size=262, transition=262)[1].tolist()
        == train_bpe(counts, vocab_size=262)[1].tolist()
    )


def test_extension_keeps_ids_and_equals_training_in_one_go():
    texts = ["on the way to the sea and by the way", "the way of the sea: by the sea"] * 5
    counts = train.count(texts, pre_tokenizer="superbpe", runs=True)
    words = tm.train.bpe(counts, vocab_size=275, special_tokens=["<s>"])
    tok = tm.train.extend(words, counts, vocab_size=290)
    whole = tm.train.superbpe(counts, vocab_size=290, transition=275, special_tokens=["<s>"])
    assert tok.vocabulary == whole.vocabulary
    assert [tok.encode(text) for text in texts] == [whole.encode(text) for text in texts]
    assert [tok.vocabulary.bytes(i) for i in range(1, 275)] == [
        words.vocabulary.bytes(i) for i in range(1, 275)
    ]
    assert len(tok) > 280


def test_extension_without_runs_goes_on_as_training_would():
    texts = ["low lower lowest slow slower slowest"] * 5
    counts = train.count(texts)
    tok = tm.train.extend(tm.train.bpe(counts, vocab_size=260), counts, vocab_size=270)
    assert tok.vocabulary == tm.train.bpe(counts, vocab_size=270).vocabulary
    with pytest.raises(CorpusError):
        tm.train.extend(tok, train.count(texts, pre_tokenizer="cl100k"), vocab_size=280)


def test_extension_of_ranks_and_vetoes():
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"th": 256, b"the": 257}
    base = tm.Tokenizer.from_tiktoken(ranks, pattern=r" ?\p{L}+|\s+|[^\s\p{L}]+", special_tokens={"<s>": 258})
    counts = train.count(["the sea the sea the way"] * 4, pre_tokenizer="superbpe", runs=True)
    tok = tm.train.extend(base, counts, vocab_size=270, veto=lambda token: b"sea" in token)
    learnt = [tok.vocabulary.bytes(i) for i in range(259, len(tok))]
    assert len(learnt) == len(tok) - 259 > 3
    assert not [token for token in learnt if b"sea" in token]
    assert b"the " in learnt
    assert tok.encode("the") == [257]
    assert tok.encode("<s>", allowed_special="all") == [258]

    def broken(token):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        tm.train.extend(base, counts, vocab_size=270, veto=broken)
