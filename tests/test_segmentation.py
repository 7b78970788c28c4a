"""Encoding without merges and at random: the definitions, and laws of what may be drawn."""

import collections
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import PATTERNS, SIGNS, ranks, small

import tokamask as tm
from tokamask.reference import bpe, segmentation

FEW = {b"a": 0, b"b": 1, b"ab": 2, b"ba": 3, b"aba": 4, b"abab": 5, b"c": 6, b"bc": 7}
SPELLED = {i: token for token, i in FEW.items()}
METHODS = ("greedy_left", "greedy_right", "fewest", "longest")


@pytest.fixture(scope="module")
def few():
    return tm.Tokenizer.from_tiktoken(FEW, pattern=r"(?s:.+)", special_tokens={"<e>": 8})


@pytest.mark.parametrize("method", METHODS)
@given(text=st.text(alphabet="abc", max_size=9))
def test_methods_follow_their_definitions(few, method, text):
    expected = getattr(segmentation, method)(text.encode(), FEW)
    assert few.encode_by(text, method=method).tolist() == [FEW[token] for token in expected]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=st.text(alphabet=st.sampled_from(SIGNS), max_size=25))
@settings(max_examples=10)
def test_methods_keep_pretokens_and_text(pattern, method, text):
    tok = small(pattern)
    ids = tok.encode_by(text, method=method)
    usual = tok.encode(text)
    assert tok.decode_bytes(ids) == tok.decode_bytes(usual)
    if method == "fewest":
        assert len(ids) <= len(usual)


def test_methods_leave_out_bytes_that_are_no_token(few):
    for method in METHODS:
        assert few.decode_bytes(few.encode_by("xabyc", method=method)) == b"abc"
    assert few.decode_bytes(few.sample("xabyc", method="uniform", seed=1)) == b"abc"
    with pytest.raises(ValueError, match="greedy_left"):
        few.encode_by("a", method="best")
    with pytest.raises(ValueError, match="stochastok"):
        few.sample("a", method="best", seed=0)
    with pytest.raises(ValueError, match="0 to 1"):
        few.sample("a", method="dropout", p=1.5, seed=0)


def drawn(tok, text, method, p, draws):
    counts = collections.Counter(
        tuple(tok.sample(text, method=method, p=p, seed=s).tolist()) for s in range(draws)
    )
    return {ids: count / draws for ids, count in counts.items()}


def assert_law(found, law, draws):
    """Frequencies within five standard deviations of what the law says, and nothing that it forbids."""
    assert set(found) <= {ids for ids, p in law.items() if p > 0}
    for ids, p in law.items():
        assert abs(found.get(ids, 0) - p) < 5 * math.sqrt(p * (1 - p) / draws) + 1e-9, (ids, p)


def test_uniform_draws_every_cover_as_often(few):
    covers = [tuple(FEW[t] for t in cover) for cover in segmentation.all_covers(b"ababc", FEW)]
    draws = 4000
    assert len(covers) == len(set(covers)) > 5
    assert_law(drawn(few, "ababc", "uniform", 0.0, draws), dict.fromkeys(covers, 1 / len(covers)), draws)


def stochastok_law(ids, attempts):
    """The law of StochasTok by enumeration."""
    if attempts == 0:
        return {ids: 1.0}
    law = collections.defaultdict(float)
    for at, token in enumerate(ids):
        halves = [(SPELLED[token][:cut], SPELLED[token][cut:]) for cut in range(1, len(SPELLED[token]))]
        ways = [(FEW[a], FEW[b]) for a, b in halves if a in FEW and b in FEW]
        for way in ways or [(token,)]:
            after = (*ids[:at], *way, *ids[at + 1 :])
            for final, p in stochastok_law(after, attempts - 1).items():
                law[final] += p / len(ids) / len(ways or [1])
    return law


def test_stochastok_splits_as_defined(few):
    ids = tuple(few.encode("ababcab"))
    draws = 4000
    assert_law(
        drawn(few, "ababcab", "stochastok", 0.75, draws), stochastok_law(ids, int(len(ids) * 0.75)), draws
    )


def merge_of(token):
    """The lengths of the two tokens that merging makes a token of."""
    below = {other: rank for other, rank in FEW.items() if rank < FEW[token] or len(other) == 1}
    return tuple(len(SPELLED[i]) for i in bpe.encode(token, below))


def dropout_law(parts, p):
    """The law of BPE-dropout: the best pair that is not left out merges; none left ends it."""
    pairs = sorted(
        (FEW[a + b], at)
        for at, (a, b) in enumerate(itertools.pairwise(parts))
        if a + b in FEW and merge_of(a + b) == (len(a), len(b))
    )
    law, reach = collections.defaultdict(float), 1.0
    for _, at in pairs:
        merged = (*parts[:at], parts[at] + parts[at + 1], *parts[at + 2 :])
        for final, q in dropout_law(merged, p).items():
            law[final] += reach * (1 - p) * q
        reach *= p
    law[parts] += reach
    return law


def test_dropout_leaves_out_merges_as_defined():
    tok = tm.Tokenizer.from_tiktoken(FEW, pattern=r"(?s:.+)")
    text, draws = b"babab", 4000
    law = dropout_law(tuple(bytes([b]) for b in text), 0.4)
    law = {tuple(FEW[token] for token in parts): p for parts, p in law.items()}
    assert_law(drawn(tok, text.decode(), "dropout", 0.4, draws), law, draws)
    merged = tok.sample(text.decode(), method="dropout", p=0.0, seed=1)
    assert merged.tolist() == bpe.encode(text, FEW)
    assert tok.sample(text.decode(), method="dropout", p=1.0, seed=1).tolist() == [
        FEW[bytes([b])] for b in text
    ]


@pytest.mark.parametrize("method", ["stochastok", "dropout", "uniform"])
@given(text=st.text(alphabet=st.sampled_from(SIGNS), max_size=40), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=20)
def test_samples_spell_the_text_and_repeat_with_the_seed(method, text, seed):
    tok = small("tiktoken cl100k")
    ids = tok.sample(text, method=method, seed=seed, p=0.5)
    assert tok.decode(ids) == text
    assert ids.tolist() == tok.sample(text, method=method, seed=seed, p=0.5).tolist()


def test_a_long_pretoken_is_no_problem():
    tok = small("one piece")
    text = " the quick brown fox" * 3000
    for method in METHODS:
        assert tok.decode(tok.encode_by(text, method=method)) == text
    for method in ("stochastok", "dropout", "uniform"):
        assert tok.decode(tok.sample(text, method=method, seed=3)) == text


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=st.text(alphabet=st.sampled_from(SIGNS), max_size=25), seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_canonical_is_what_encode_gives(pattern, text, seed):
    tok = small(pattern)
    ids = tok.encode(text)
    # Rules that leave gaps (the look-ahead one takes no digits) lose what lies there, and what is left may merge.
    same = tok.encode(tok.decode(ids)) == ids
    assert tok.is_canonical([*ids, 900, *tok.encode("x")]) == same
    whole = tok.decode(ids) == text
    assert same or not whole
    assert whole or pattern in ("leaves gaps", "long look-ahead")
    other = tok.sample(text, method="uniform", seed=seed).tolist()
    spelled = tok.decode(other)
    again = tok.encode(spelled)
    assert tok.is_canonical(other) == (again == other)
    first = tok.first_noncanonical(other)
    if first is not None:
        assert other[:first] == again[:first]
        assert first == len(again) or first == len(other) - 1 or other[first] != again[first]
    assert tok.first_noncanonical([900, *other, 900]) == (None if first is None else first + 1)


def test_unknown_ids_are_named():
    with pytest.raises(tm.errors.UnknownTokenError):
        small("tiktoken r50k").is_canonical([5000])
    assert len(ranks()) == 900
