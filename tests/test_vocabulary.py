"""Vocabulary: bytes by id, id by bytes, special tokens, copies."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm


@given(st.lists(st.one_of(st.none(), st.binary(max_size=6)), max_size=40))
def test_bytes_and_ids_are_inverse(tokens):
    vocabulary = tm.Vocabulary(tokens)
    assert len(vocabulary) == len(tokens)
    for token_id, token in enumerate(tokens):
        if token is None:
            with pytest.raises(tm.errors.UnknownTokenError):
                vocabulary.bytes(token_id)
        else:
            assert vocabulary.bytes(token_id) == token
            assert vocabulary.id(token) == tokens.index(token)


def test_copies_are_equal():
    vocabulary = tm.Vocabulary([b"a", None, b"</s>"], special={"</s>": 2}, eos_ids=[2])
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary
    assert copy.deepcopy(vocabulary) == vocabulary
    wide = vocabulary.with_(vocab_size=8)
    assert len(wide) == 8
    assert wide != vocabulary
    assert pickle.loads(pickle.dumps(wide)).eos_ids == [2]


@pytest.mark.parametrize(
    ("build", "field", "value"),
    [
        (lambda: tm.Vocabulary([b"a"], eos_ids=[1]), "token", "end of sequence"),
        (lambda: tm.Vocabulary([b"a"], special={"<x>": 5}), "token", "<x>"),
        (lambda: tm.Vocabulary([b"a"]).with_(vocab_size=0), "line", None),
    ],
)
def test_errors_name_the_token(build, field, value):
    with pytest.raises(tm.errors.VocabularyError) as caught:
        build()
    assert getattr(caught.value, field) == value


def test_unknown_tokens_are_key_errors_with_fields():
    vocabulary = tm.Vocabulary([b"a"])
    with pytest.raises(KeyError, match="token id 7") as by_id:
        vocabulary.bytes(7)
    assert by_id.value.token_id == 7
    with pytest.raises(tm.errors.UnknownTokenError) as by_bytes:
        vocabulary.id(b"zz")
    assert by_bytes.value.bytes == b"zz"
