"""Matcher: masks, acceptance, rollback and forks agree with each other and with the reference."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask.reference import mask as reference


def byte_vocabulary():
    """One token for each byte, and an end of sequence (256)."""
    tokens = [bytes([b]) for b in range(256)]
    return tm.Vocabulary([*tokens, b""], special={"<end>": 256}, eos_ids=[256])


BYTES = byte_vocabulary()

GRAMMARS = {
    "object": tm.Grammar.json_schema(
        {
            "type": "object",
            "properties": {"ab": {"type": "integer"}, "abc": {"type": "string", "maxLength": 2}, "é": {"type": "null"}},
            "required": ["ab"],
        }
    ),
    "array": tm.Grammar.json_schema({"type": "array", "items": {"enum": ["a", "ab", 1, 12, True]}, "minItems": 1, "maxItems": 3}),
    "any": tm.Grammar.json_schema(True),
    "pattern": tm.Grammar.json_schema({"type": "string", "pattern": "^[a-cé]{2,4}-\\d+$"}),
    "unanchored": tm.Grammar.json_schema({"type": "string", "pattern": "a{2}b", "maxLength": 6}),
    "regex": tm.Grammar.regex("(a|ab)*[b-d]{1,300}(12)?"),
}  # fmt: skip

PIECES = [bytes([b]) for b in range(256)] + [
    b'"', b'{"', b'":', b'": ', b'","', b', "', b"ab", b"abc", b'ab"', b'"ab":', b"12", b"1,", b"true", b'"a', b'a"]',
    b"\xc3", b"\xa9", "é".encode(), "éa".encode(), b"\\", b"\\u", b"\\u00", b"e9", b"\\n", b"  ", b"\n\n", b"}", b"]}", b'"}',
    b"aab", b"b-1", b"-", b"aa", b"bcd", b"null", b"1.5e3", b"e1", None, b"<pad>", b"</s>",
]  # fmt: skip
EOS = len(PIECES) - 1
SMALL = tm.Vocabulary(PIECES, special={"<pad>": EOS - 1, "</s>": EOS}, eos_ids=[EOS])


def bits(row):
    return np.unpackbits(np.asarray(row).view(np.uint8), bitorder="little")[: len(PIECES)].astype(bool)


def path(draw, matcher, length):
    """Accepts tokens that the mask allows, drawn one by one; returns them."""
    ids = []
    for _ in range(length):
        allowed = np.flatnonzero(bits(matcher.mask_row()))
        if not len(allowed) or matcher.is_terminated():
            break
        token = int(draw(st.sampled_from(allowed.tolist())))
        matcher.accept(token)
        ids.append(token)
    return ids


COMPILED = {name: tm.compile(grammar, SMALL) for name, grammar in GRAMMARS.items()}
BYTEWISE = {name: tm.compile(grammar, BYTES) for name, grammar in GRAMMARS.items()}


@pytest.mark.parametrize("name", GRAMMARS)
@given(data=st.data())
def test_mask_bit_set_means_accept_succeeds(name, data):
    matcher = COMPILED[name].matcher()
    path(data.draw, matcher, data.draw(st.integers(0, 8)))
    allowed = bits(matcher.mask_row())
    for token in range(len(PIECES)):
        assert matcher.is_allowed(token) == allowed[token], PIECES[token]
        copy = matcher.fork()
        if allowed[token]:
            copy.accept(token)
        else:
            with pytest.raises(tm.errors.RejectedTokenError) as caught:
                copy.accept(token)
            assert (caught.value.token_id, caught.value.position) == (token, len(matcher))
    assert matcher.is_accepting() == allowed[EOS] or matcher.is_terminated()


@pytest.mark.parametrize("name", GRAMMARS)
@given(data=st.data())
def test_mask_equals_the_reference(name, data):
    matcher, bytewise = COMPILED[name].matcher(), BYTEWISE[name].matcher()
    for token in path(data.draw, matcher, data.draw(st.integers(0, 8))):
        if token != EOS:
            assert bytewise.accept_prefix(list(PIECES[token])) == len(PIECES[token])
    if not matcher.is_terminated():

        def accepts(data):
            return bytewise.fork().accept_prefix(list(data)) == len(data)

        expected = reference.mask(accepts, bytewise.is_accepting(), PIECES, {EOS - 1, EOS}, [EOS])
        np.testing.assert_array_equal(matcher.mask_row(), expected)
        np.testing.assert_array_equal(matcher.plain_row(), expected)


@pytest.mark.parametrize("name", GRAMMARS)
@given(data=st.data())
def test_rollback_and_fork_restore(name, data):
    matcher = COMPILED[name].matcher()
    path(data.draw, matcher, data.draw(st.integers(0, 5)))
    before, length = matcher.mask_row().copy(), len(matcher)
    fork = matcher.fork()
    more = path(data.draw, fork, data.draw(st.integers(0, 5)))
    assert len(matcher) == length
    fork.rollback(len(more))
    np.testing.assert_array_equal(fork.mask_row(), before)
    assert fork.accept_prefix(more) == len(more)
    with pytest.raises(tm.errors.RollbackError) as caught:
        fork.rollback(length + len(more) + 1)
    assert caught.value.available == length + len(more)
    fork.reset()
    assert len(fork) == 0
    np.testing.assert_array_equal(fork.mask_row(), COMPILED[name].matcher().mask_row())


@given(data=st.data())
def test_fill_tree_equals_one_by_one(data):
    matcher = COMPILED["object"].matcher()
    path(data.draw, matcher, data.draw(st.integers(0, 4)))
    n = data.draw(st.integers(0, 8))
    parents = np.array([data.draw(st.integers(-1, i - 1)) for i in range(n)], np.int32)
    tokens = np.array([data.draw(st.sampled_from(range(len(PIECES)))) for _ in range(n)], np.int32)
    bitmask = tm.allocate_bitmask(n + 1, len(SMALL))
    reached = matcher.fill_tree(bitmask, SimpleNamespace(token_ids=tokens, parents=parents))
    np.testing.assert_array_equal(bitmask[0], matcher.mask_row())
    for i in range(n):
        chain, at = [], i
        while at >= 0:
            chain.append(int(tokens[at]))
            at = int(parents[at])
        copy = matcher.fork()
        assert reached[i] == (copy.accept_prefix(chain[::-1]) == len(chain))
        np.testing.assert_array_equal(bitmask[i + 1], copy.mask_row() if reached[i] else 0)


def test_end_of_sequence_only_after_a_complete_match():
    matcher = COMPILED["array"].matcher()
    assert not matcher.is_allowed(EOS)
    matcher.accept_prefix(list(b"[12]"))
    assert matcher.is_accepting()
    matcher.accept(EOS)
    assert matcher.is_terminated()
    assert not matcher.mask_row().any()
    assert matcher.expected() == "nothing: the sequence has ended"
    matcher.rollback()
    assert not matcher.is_terminated()


def test_first_allowed_and_forced_tokens():
    matcher = COMPILED["object"].matcher()
    assert matcher.first_allowed([ord("x"), ord("}"), ord("{"), ord(" ")]) == (2, 2)
    assert matcher.first_allowed([ord("x")]) == (-1, 1)
    choice = tm.compile(
        tm.Grammar.json_schema({"const": {"key": True}}, whitespace="compact"), BYTES
    ).matcher()
    assert bytes(choice.forced_tokens()) == b'{"key":true}'


def test_batches_fill_the_rows_asked_for():
    matchers = [compiled.matcher() for compiled in COMPILED.values()] * 4
    bitmask = tm.allocate_bitmask(2 * len(matchers), len(SMALL))
    rows = list(range(len(matchers) * 2 - 1, 0, -2))
    for threads in (None, 1, 2):
        bitmask[:] = -1
        filled = tm.fill_bitmasks(matchers, bitmask, rows, threads=threads)
        assert filled.all()
        for matcher, row in zip(matchers, rows, strict=True):
            np.testing.assert_array_equal(bitmask[row], matcher.mask_row())
        assert (bitmask[::2] == -1).all()
    with pytest.raises(tm.errors.ShapeError):
        tm.fill_bitmasks(matchers[:2], bitmask, [0, 0])
    with pytest.raises(tm.errors.ShapeError):
        tm.fill_bitmasks(matchers[:2], bitmask, [0])


@pytest.mark.parametrize(
    "bitmask",
    [np.zeros((2, 3), np.int32), np.zeros((2, 10), np.int64), np.zeros((2, 20), np.int32)[:, ::2], None],
)
def test_wrong_bitmasks_are_named(bitmask):
    with pytest.raises(tm.errors.ShapeError) as caught:
        COMPILED["any"].matcher().fill_bitmask(bitmask)
    assert caught.value.name == "bitmask"


def test_rows_beyond_the_bitmask_are_refused():
    bitmask = tm.allocate_bitmask(2, len(SMALL))
    with pytest.raises(tm.errors.ShapeError):
        COMPILED["any"].matcher().fill_bitmask(bitmask, row=2)


def test_a_vocabulary_must_know_how_a_sequence_ends():
    with pytest.raises(tm.errors.VocabularyError):
        tm.compile(GRAMMARS["any"], tm.Vocabulary([b"a"]))


def test_special_tokens_are_never_text():
    matcher = tm.compile(tm.Grammar.regex("<pad>"), SMALL).matcher()
    assert not matcher.is_allowed(EOS - 1)
    assert matcher.accept_prefix(list(b"<pad>")) == 5


def test_one_row_of_memory_changes_nothing():
    tight = tm.compile(GRAMMARS["any"], SMALL, limits=tm.Limits(row_bytes=1))
    for text in (b"", b'{"a', b"[1"):
        a, b = tight.matcher(), COMPILED["any"].matcher()
        a.accept_prefix(list(text))
        b.accept_prefix(list(text))
        np.testing.assert_array_equal(a.mask_row(), b.mask_row())


@pytest.mark.parametrize(
    ("before", "token", "expected", "byte", "pointer"),
    [
        (b"", b"[", "{", 0, ""),
        (b'{"a/b":', b'"x', "[", 0, "/a~1b"),
        (b'{"a/b":[tr', b"ux", "e", 1, "/a~1b/0"),
        (b'{"a/b":[true,', b"fale", "s", 3, "/a~1b/1"),
        (b'{"c":"y', b"}", '"', 0, "/c"),
        (b'{"c":"y"', b"]", ", }", 0, "/c"),
        (b'{"c"', b":{", '"', 1, "/c"),
    ],
)
def test_a_refusal_says_what_was_expected_and_where(before, token, expected, byte, pointer):
    schema = {
        "type": "object",
        "properties": {"a/b": {"type": "array", "items": {"type": "boolean"}}, "c": {"const": "y"}},
        "additionalProperties": False,
    }
    tokens = [*(bytes([b]) for b in range(256)), b"</s>", token]
    vocabulary = tm.Vocabulary(tokens, special={"</s>": 256}, eos_ids=[256])
    grammar = tm.Grammar.json_schema(schema, whitespace="compact")
    matcher = tm.compile(grammar, vocabulary).matcher()
    assert matcher.accept_prefix(list(before)) == len(before)
    with pytest.raises(tm.errors.RejectedTokenError) as caught:
        matcher.accept(257)
    error = caught.value
    assert (error.token_id, error.position, error.byte, error.json_pointer) == (
        257,
        len(before),
        byte,
        pointer,
    )
    assert expected in error.expected
    assert (pointer or "the root") in str(error)
    with pytest.raises(tm.errors.RejectedTokenError) as end:
        matcher.accept(256)
    assert (end.value.byte, end.value.json_pointer) == (0, matcher_pointer(before))
    plain = tm.compile(tm.Grammar.regex("ab+"), vocabulary).matcher()
    with pytest.raises(tm.errors.RejectedTokenError) as caught:
        plain.accept(257)
    assert caught.value.json_pointer is None


def matcher_pointer(text):
    from tokamask.show.mask import json_pointer

    return json_pointer(text)
