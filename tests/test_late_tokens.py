"""Vocabularies whose tokens do not come in the order in which merging makes them, against the definition."""

import json
import random

import pytest
from tokenizers import Tokenizer

import tokamask as tm
from tokamask.errors import VocabularyError
from tokamask.reference import bpe

ANY = r"[\s\S]+"


def vocabulary(draw: random.Random, letters: str) -> list[bytes]:
    """Single letters, then strings of them, each two others joined, in no order."""
    known = [letter.encode() for letter in letters]
    grown = set()
    while len(grown) < draw.randrange(2, 14):
        token = b"".join(draw.choices([*known, *grown], k=2))
        if len(token) < 9:
            grown.add(token)
    return known + draw.sample(sorted(grown), len(grown))


def test_ranks_in_any_order():
    """As tiktoken's: any two neighbours that are a token together merge, the lowest rank first."""
    refused = 0
    for seed in range(1500):
        draw = random.Random(seed)
        letters = draw.choice(["ab", "abc", "abcd"])
        ranks = {token: rank for rank, token in enumerate(vocabulary(draw, letters))}
        try:
            ours = tm.Tokenizer.from_tiktoken(ranks, pattern=ANY)
        except VocabularyError:
            refused += 1
            continue
        for length in (2, 3, 5, 8, 13, 30, 70):
            text = "".join(draw.choices(letters, k=length))
            # A whole piece that is a token becomes it.
            want = [ranks[text.encode()]] if text.encode() in ranks else bpe.encode(text.encode(), ranks)
            assert ours.encode(text) == want, (ranks, text)
    assert refused < 600


def test_merge_lists_in_any_order():
    """As tokenizers': the pairs of the list alone merge, the first in the list first."""
    step = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False, "trim_offsets": True}
    refused = 0
    for seed in range(400):
        draw = random.Random(seed)
        letters = draw.choice(["ab", "abc"])
        tokens = [token.decode() for token in vocabulary(draw, letters)]
        pairs = [
            (t[:at], t[at:]) for t in tokens for at in range(1, len(t)) if {t[:at], t[at:]} <= set(tokens)
        ]
        pairs = draw.sample(pairs, draw.randrange(len(pairs) // 2, len(pairs) + 1))
        model = {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": pairs}
        file = json.dumps({"pre_tokenizer": step, "model": model, "decoder": step})
        reference = Tokenizer.from_str(file)
        try:
            ours = tm.Tokenizer.from_bytes(file.encode())
        except VocabularyError:
            refused += 1
            continue
        for length in (2, 3, 5, 8, 13, 30, 70):
            text = "".join(draw.choices(letters, k=length))
            assert ours.encode(text) == reference.encode(text).ids, (pairs, text)
    assert refused < 100


def test_a_late_token_inside_a_longer_piece():
    """A token whose half has a worse rank is made as soon as that half is there."""
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"abc": 3, b"ab": 4}
    ours = tm.Tokenizer.from_tiktoken(ranks, pattern=ANY)
    assert ours.encode("abcab") == [3, 4] == bpe.encode(b"abcab", ranks)


def test_what_would_hang_on_the_order_of_places_is_refused():
    """`ab` late, `aba` at once after it: whether the second `ab` of `abab` forms depends on which came first."""
    ranks = {b"a": 0, b"b": 1, b"aba": 2, b"ab": 3}
    with pytest.raises(VocabularyError, match="later than its rank"):
        tm.Tokenizer.from_tiktoken(ranks, pattern=ANY)
