"""Metrics against examples worked out by hand."""

import math

import numpy as np
import pytest
import tokenizers as hf

import tokamask as tm
from tokamask import metrics

TEXTS = ["low low", "high é"]


@pytest.fixture(scope="module")
def tok():
    """Tokens: bytes, "lo", "low", " low"; so TEXTS are low| low and h|i|g|h| |é in two bytes."""
    made = tm.train.bpe(["low low low"] * 3, vocab_size=259)
    assert [made.vocabulary.bytes(i) for i in (256, 257, 258)] == [b"lo", b"low", b" low"]
    return made


def test_compression(tok):
    assert metrics.bytes_per_token(tok, TEXTS) == (7 + 7) / (2 + 7)
    assert metrics.chars_per_token(tok, TEXTS) == (7 + 6) / 9
    assert metrics.fertility(tok, TEXTS) == 9 / 4
    assert math.isnan(metrics.bytes_per_token(tok, []))


def test_continued_words(tok):
    # "high" is cut; so is "é", inside of its character; "low" and " low" are not.
    assert metrics.continued_words(tok, TEXTS) == 2 / 4


def test_a_word_inside_a_superword_is_not_cut():
    text = ["by the way it is"] * 9
    tok = tm.train.superbpe(text, vocab_size=300, transition=280)
    assert tok.count("by the way it") == 1
    assert metrics.continued_words(tok, ["by the way it"]) == 0
    assert metrics.fertility(tok, ["by the way it"]) == 0.25


def test_token_counts(tok):
    counts = metrics.token_counts(tok, TEXTS * 2000)
    assert counts[257] == counts[258] == 2000
    assert counts[tok.vocabulary.id(b"h")] == 4000
    assert counts.sum() == 9 * 2000
    assert len(counts) == 259


def test_entropies():
    counts = np.array([4, 2, 2, 0])
    # p = 1/2, 1/4, 1/4: H = 1.5 bits; sum p^2 = 3/8; max p = 1/2; 4 tokens are 2 bits.
    assert metrics.renyi_efficiency(counts, 4, alpha=1) == pytest.approx(1.5 / 2)
    assert metrics.renyi_efficiency(counts, 4, alpha=2) == pytest.approx(-math.log2(3 / 8) / 2)
    assert metrics.renyi_efficiency(counts, 4, alpha=math.inf) == pytest.approx(1 / 2)
    assert metrics.renyi_efficiency(counts, 4, alpha=0) == pytest.approx(math.log2(3) / 2)
    assert metrics.renyi_efficiency(counts, 4) == pytest.approx(math.log2(2**-2.5 + 2 * 4**-2.5) / -1.5 / 2)
    assert metrics.zero_order_bits_per_byte(counts, 24) == pytest.approx(8 * 1.5 / 24)
    for bad in ({"vocab_size": 1}, {"alpha": -1.0}):
        with pytest.raises(ValueError):
            metrics.renyi_efficiency(counts, **{"vocab_size": 4, **bad})
    with pytest.raises(ValueError):
        metrics.renyi_efficiency(np.zeros(4, np.int64), 4)


def test_unused_tokens_leave_special_ones_out():
    tok = tm.train.bpe(["ab"], vocab_size=258, special_tokens=["<s>"])
    counts = metrics.token_counts(tok, ["ab c"])
    assert metrics.unused_share(counts, tok) == (257 - 3) / 257


def test_unreachable_tokens(tmp_path):
    """`abc` is a token, but `bc` merges first and nothing joins a with it."""
    alphabet = sorted(hf.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate([*alphabet, "bc", "ab", "abc"])}
    other = hf.Tokenizer(hf.models.BPE(vocabulary, [("b", "c"), ("a", "b"), ("ab", "c")]))
    other.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    other.save(str(tmp_path / "tokenizer.json"))
    tok = tm.Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert tok.encode("abc") == other.encode("abc").ids == [tok.vocabulary.id(b"a"), 256]
    assert metrics.unreachable_tokens(tok).tolist() == [258]
    assert metrics.summary(tok, ["abc"])["unreachable_tokens"] == 1


def test_canonical_rate(tok):
    letters = [tok.vocabulary.id(bytes([byte])) for byte in b"low"]
    half = [tok.vocabulary.id(b"\xc3")]
    assert metrics.canonical_rate(tok, [[257], [257, 258], letters, half]) == 2 / 4


def test_premiums_and_gini(tok):
    parallel = {"a": ["low low"], "b": ["high"], "c": ["é é"]}
    assert metrics.premiums(tok, parallel, reference="a") == {"a": 1.0, "b": 2.0, "c": 2.5}
    with pytest.raises(ValueError, match="as many"):
        metrics.premiums(tok, {"a": ["x"], "b": []}, reference="a")
    # mean difference of (1, 2, 3): pairs 1, 1, 2 twice over nine, = 8/9; over twice the mean 2
    assert metrics.gini([3, 1, 2]) == pytest.approx(8 / 9 / 4)
    assert metrics.gini([5, 5, 5]) == 0


def test_lexicon_share(tok):
    assert metrics.lexicon_share(tok, ["low", "l", "absent"]) == 3 / 259


def test_summary_agrees_with_its_parts(tok):
    found = metrics.summary(tok, TEXTS)
    counts = metrics.token_counts(tok, TEXTS)
    assert found["bytes_per_token"] == metrics.bytes_per_token(tok, TEXTS)
    assert found["fertility"] == metrics.fertility(tok, TEXTS)
    assert found["renyi_efficiency"] == metrics.renyi_efficiency(counts, 259)
    assert (found["bytes"], found["tokens"]) == (14, 9)


def test_the_filter_separates_what_it_was_fitted_on(tok):
    fitted = metrics.fit_chars_per_token(tok, ["low low", "low high low"], unwanted=["xyz", "high"])
    # characters per token: 3.5, 12 / 7; 1, 1. The middle between the kinds is the threshold.
    assert fitted.threshold == (1 + 12 / 7) / 2
    assert not fitted.flags("low")
    assert fitted.flags("zzz")
    assert not fitted.flags("")
    with pytest.raises(ValueError, match="needed"):
        metrics.fit_chars_per_token(tok, [])


def test_disguises_are_the_same_for_a_seed():
    texts = ["the same text"] * 20
    assert list(metrics.disguised(texts, seed=1)) == list(metrics.disguised(texts, seed=1))
    assert len(set(metrics.disguised(texts, seed=1))) == 4
