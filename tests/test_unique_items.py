"""uniqueItems: what is enforced, and what is refused by its pointer."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm

PIECES = [bytes([b]) for b in range(256)] + [
    b'"', b'["', b'","', b'", "', b'"]', b'"a"', b'"a","', b'a"', b'ab', b'","a"', b'"a","a"', b'true', b'true,', b'[true', b'e,f', b'null]',
]  # fmt: skip
EOS = len(PIECES)
VOCABULARY = tm.Vocabulary([*PIECES, b""], special={"</s>": EOS}, eos_ids=[EOS])
VALUES = {"type": "array", "items": {"enum": ["a", "b", True, None]}, "uniqueItems": True, "minItems": 1}
STRINGS = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
NESTED = {"type": "object", "properties": {"p": STRINGS, "q": VALUES}, "additionalProperties": STRINGS}
COMPILED = {
    name: tm.compile(tm.Grammar.json_schema(schema, whitespace="compact"), VOCABULARY)
    for name, schema in {"values": VALUES, "strings": STRINGS, "nested": NESTED}.items()
}


def accepts(name, document):
    matcher = COMPILED[name].matcher()
    text = json.dumps(document, separators=(",", ":")).encode()
    return matcher.accept_prefix(list(text)) == len(text) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("values", [["a"], ["b", None, True, "a"]], [[], ["a", "a"], [True, None, True], ["c"]]),
        ("strings", [[], ["a", "ab", ""], ["a", "A"]], [["a", "a"], ["", ""], ["x", "y", "x"], [1]]),
        (
            "nested",
            [{"p": ["a"], "q": ["a"], "r": ["a", "b"]}, {"p": ["p", "q"]}],
            [{"p": ["a", "a"]}, {"q": ["b", "b"]}, {"r": ["z", "y", "z"]}],
        ),
    ],
)
def test_verdicts(name, right, wrong):
    assert all(accepts(name, document) for document in right)
    assert not any(accepts(name, document) for document in wrong)


@pytest.mark.parametrize("name", COMPILED)
@given(data=st.data())
def test_rows_are_exact_and_never_empty(name, data):
    matcher = COMPILED[name].matcher()
    preferred = [PIECES.index(p) for p in (b'["', b'","', b'"a"', b'","a"', b'"a","', b"a", b"true,")]
    preferred += list(range(256, EOS))
    for _ in range(data.draw(st.integers(0, 12))):
        bits = np.unpackbits(matcher.mask_row().view(np.uint8), bitorder="little")[: EOS + 1]
        allowed = np.flatnonzero(bits)
        assert len(allowed)
        assert [matcher.is_allowed(t) for t in preferred] == [bool(bits[t]) for t in preferred]
        np.testing.assert_array_equal(matcher.mask_row(), matcher.plain_row())
        likely = [t for t in preferred if bits[t]] or allowed.tolist()
        token = data.draw(st.sampled_from(likely))
        if token == EOS:
            return
        matcher.accept(token)


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ({"type": "object"}, "neither"),
        ({"type": "string", "maxLength": 3}, "neither"),
        ({"type": "string", "format": "uuid"}, "neither"),
        ({"enum": [f"v{i}" for i in range(65)]}, "64"),
    ],
)
def test_what_cannot_be_enforced_is_refused(items, reason):
    schema = {"properties": {"x": {"type": "array", "items": items, "uniqueItems": True}}}
    with pytest.raises(tm.errors.UnsupportedKeywordError) as caught:
        tm.Grammar.json_schema(schema)
    assert (caught.value.json_pointer, caught.value.keyword) == ("/properties/x", "uniqueItems")
    assert reason in str(caught.value)


def test_too_few_values_are_unsatisfiable_and_one_item_is_always_unique():
    with pytest.raises(tm.errors.UnsatisfiableError):
        tm.Grammar.json_schema(
            {
                "type": "array",
                "items": {"enum": [1, "a"]} | {"enum": ["a"]},
                "uniqueItems": True,
                "minItems": 2,
            }
        )
    tm.Grammar.json_schema({"type": "array", "items": {"type": "object"}, "uniqueItems": True, "maxItems": 1})
