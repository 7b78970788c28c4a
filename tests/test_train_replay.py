"""Replayed merges: counts of pairs at every step, and a mixture of corpora that they give away."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokamask as tm
from tokamask.errors import CorpusError
from tokamask.reference import train as reference
from tokamask.train import train_bpe

EXAMPLES = Path(__file__).parents[1] / "examples"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("aab c日"), max_size=12), min_size=1, max_size=6),
    st.lists(st.text(st.sampled_from("ab c日"), max_size=12), max_size=6),
)
def test_counts_are_those_of_the_definition(texts, others):
    counts = tm.train.count([*texts, *others], progress=False)
    tok, merges, tokens = train_bpe(tm.train.count(texts, progress=False), vocab_size=262)
    replay = tm.train.replay_merges(tok, counts, progress=False)
    ids = {tokens[nth]: nth for nth in range(256)}
    words = [([ids[bytes([byte])] for byte in word], count) for word, count in counts.items()]
    pairs = [tuple(pair) for pair in merges.tolist()]
    products = [tokens.index(tokens[a] + tokens[b]) for a, b in pairs]
    assert replay.pairs[replay.merges].tolist() == [list(pair) for pair in pairs]
    overlapping = any(a == b for a, b in pairs)
    for step, expected in enumerate(reference.frequencies(words, pairs, products)):
        found = {
            tuple(pair): count
            for pair, count in zip(replay.pairs.tolist(), replay.at(step).tolist(), strict=True)
        }
        if not overlapping:  # the trainer's count of `aa` in `aaa` is 2, and falls by what is merged
            assert {pair: count for pair, count in found.items() if count} == dict(expected)


def test_the_trained_corpus_chooses_its_own_merges():
    counts = tm.train.count(["the cat sat on the mat and the dog sat on the log"] * 3, progress=False)
    tok = tm.train.bpe(counts, vocab_size=275, progress=False)
    replay = tm.train.replay_merges(tok, counts)
    for step, place in enumerate(replay.merges):
        assert replay.at(step)[place] == replay.at(step).max()


def test_refuses_runs():
    counts = tm.train.count(["a b"], runs=True)
    with pytest.raises(CorpusError, match="hold runs"):
        tm.train.replay_merges(tm.train.bpe(counts, vocab_size=257), counts)


def test_a_known_mixture_is_recovered():
    pytest.importorskip("scipy", reason="the linear program of examples/data_mixture.py needs scipy")
    spec = importlib.util.spec_from_file_location("data_mixture", EXAMPLES / "data_mixture.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    truth = [0.6, 0.3, 0.1]
    assert np.abs(example.recover(truth) - truth).max() < 0.1
