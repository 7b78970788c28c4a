"""What a grammar allows after a text, and why it refuses a token."""

import json

import pytest

import tokamask as tm
from tokamask.cli import main
from tokamask.show import mask as masks

SCHEMA = {
    "type": "object",
    "properties": {"a/b": {"type": "array", "items": {"type": "integer"}}, "c": {"enum": ["x", "yy"]}},
    "required": ["c"],
    "additionalProperties": False,
}
TOKENS = [b"{", b'"', b"a/b", b"c", b'":', b'": "', b"[", b"1", b"2]", b"x", b'yy"', b"}", b'"x"', b"</s>"]
VOCABULARY = tm.Vocabulary(TOKENS, special={"</s>": 13}, eos_ids=[13])


@pytest.fixture(scope="module")
def grammar():
    return tm.Grammar.json_schema(SCHEMA, whitespace="compact")


@pytest.mark.parametrize(
    ("after", "allowed", "pointer", "ends"),
    [
        (b"", {b"{"}, "", False),
        (b"{", {b'"'}, "", False),
        (b'{"', {b"a/b", b"c"}, "", False),
        (b'{"a/b":[1', {b"1", b"2]"}, "/a~1b/0", False),
        (b'{"c":', {b'"', b'"x"'}, "/c", False),
        (b'{"c":"y', set(), "/c", False),
        (b'{"c":"x"}', {b"</s>"}, "", True),
    ],
)
def test_tokens_are_those_that_fit(grammar, after, allowed, pointer, ends):
    found = masks.place(grammar, VOCABULARY, after)
    assert {TOKENS[i] for i in found.token_ids} == allowed
    assert (found.json_pointer, found.ends) == (pointer, ends)
    text = masks.mask(grammar, VOCABULARY, after)
    assert f"allowed  {len(allowed)} of 14 tokens" in text
    assert "<script" not in masks.mask_html(grammar, VOCABULARY, after)


def test_a_refusal_names_the_byte_and_the_place(grammar):
    refusal = masks.why_not(grammar, VOCABULARY, b'{"c', TOKENS.index(b'": "'))
    assert refusal == masks.Refusal(2, '"', "/c")  # compact: no space there
    assert masks.why_not(grammar, VOCABULARY, b'{"c":"', TOKENS.index(b"x")) is None
    end = masks.why_not(grammar, VOCABULARY, b"{", 13)
    assert end == masks.Refusal(0, '"', "")
    with pytest.raises(tm.errors.RejectedTokenError):
        masks.place(grammar, VOCABULARY, b'{"d')


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        (b"", ""),
        (b'{"a": 1, "b": [true, {', "/b/1"),
        (b'{"a\\"~": "[{', '/a"~0'),
        (b'{"a": {"b": 1}, "c', ""),
        (b"[[], [1], [", "/2/0"),
    ],
)
def test_json_pointer(text, pointer):
    assert masks.json_pointer(text) == pointer


def test_the_commands(tmp_path, capsys):
    schema = tmp_path / "s.json"
    schema.write_text(json.dumps(SCHEMA))
    assert main(["mask", "--schema", str(schema), "--after", '{"c": "', "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["json_pointer"] == "/c"
    assert found["token_ids"]
    page = tmp_path / "page.html"
    assert main(["show", "mask", "--schema", str(schema), "--after", "{", "-o", str(page)]) == 0
    assert "<dt>expected</dt>" in page.read_text()
    assert main(["show", "mask", "--regex", "[ab]+", "--after", "a", "--token", "0"]) == 0
    assert "token 0 is" in capsys.readouterr().out
