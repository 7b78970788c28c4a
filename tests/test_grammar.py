"""Grammars: what each front end accepts and refuses, checked by independent validators."""

import contextlib
import hashlib
import itertools
import json
import random
import re

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm


def byte_vocabulary():
    """One token for each byte, and an end of sequence (256)."""
    tokens = [bytes([b]) for b in range(256)]
    return tm.Vocabulary([*tokens, b""], special={"<end>": 256}, eos_ids=[256])


BYTES = byte_vocabulary()

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "email": {"type": "string", "pattern": "^[a-z]+@[a-z]+\\.(com|org)$"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
        "address": {"$ref": "#/$defs/address"},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
    "$defs": {
        "address": {"type": "object", "properties": {"zip": {"type": "string", "pattern": "^\\d{5}$"}}}
    },
}

SCHEMAS = {
    "person": PERSON,
    "anything": True,
    "null": {"type": "null"},
    "numbers": {"type": "array", "items": {"type": "number", "exclusiveMinimum": -2.5, "maximum": 17}, "maxItems": 4},
    "integers": {"type": "integer", "minimum": -37, "exclusiveMaximum": 1000},
    "enum": {"enum": ["a", "é", "\n", 1, 2.5, None, True, [1, "x"], {"k": [], "l": {}}]},
    "const": {"const": {"a": [1, {"b": "c"}]}},
    "lengths": {"type": "string", "minLength": 2, "maxLength": 5},
    "pattern_lengths": {"type": "string", "pattern": "^(ab|c)*$", "minLength": 3, "maxLength": 4},
    "unanchored": {"type": "string", "pattern": "b+c"},
    "prefix": {"prefixItems": [{"type": "boolean"}, {"type": "null"}], "items": {"type": "integer"}, "type": "array"},
    "tree": {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["value"],
        "additionalProperties": False,
    },
    "any_of": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "object", "required": ["x"]}, {"const": 7}]},
    "all_of": {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"required": ["a"]}, {"type": "object"}]},
    "additional": {"type": "object", "properties": {"id": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}},
}  # fmt: skip


def compiled(schema, **options):
    return tm.compile(tm.Grammar.json_schema(schema, **options), BYTES)


def matches(grammar, text):
    matcher = grammar.matcher()
    data = text.encode()
    return matcher.accept_prefix(list(data)) == len(data) and matcher.is_accepting()


def valid(schema, value):
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def walk(matcher, vocab_size, rng, *, most=400, closing=(), bias_after=25):
    """Follows uniformly random allowed tokens; returns them, and whether the text ended."""
    ids = []
    for step in range(most):
        row = matcher.mask_row().view(np.uint8)
        allowed = np.flatnonzero(np.unpackbits(row, bitorder="little")[:vocab_size])
        assert len(allowed), f"dead end after {ids}"
        preferred = np.intersect1d(allowed, closing) if step >= bias_after else allowed[:0]
        token = int(rng.choice(preferred if len(preferred) and rng.random() < 0.9 else allowed))
        matcher.accept(token)
        if matcher.is_terminated():
            return ids, True
        ids.append(token)
    return ids, False


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-60, 1200) | st.floats(-20, 20).map(lambda x: round(x, 3)) | st.text("abcé\n", max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "x", "id", "name", "age", "value"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
@given(value=VALUES, escaped=st.booleans(), data=st.data())
def test_json_schema_agrees_with_jsonschema(name, value, escaped, data):
    schema = SCHEMAS[name]
    if isinstance(schema, dict) and "enum" in schema:
        value = data.draw(st.sampled_from(schema["enum"]) | st.just(value))
    grammar = (
        GRAMMARS.setdefault(name, None) or GRAMMARS.__setitem__(name, compiled(schema)) or GRAMMARS[name]
    )
    text = json.dumps(value, ensure_ascii=escaped)
    if "e" in re.sub(r'"[^"]*"|true|false', "", text):
        return  # numbers with an exponent are written only where no bound is set
    assert matches(grammar, text) == valid(schema, value), text


GRAMMARS = {}


@pytest.mark.parametrize("name", SCHEMAS)
def test_random_walks_end_valid(name):
    """Bytes chosen at random among those allowed: no dead end, and what ends is valid."""
    rng, ended = np.random.default_rng(7), 0
    for _ in range(8):
        ids, end = walk(compiled(SCHEMAS[name]).matcher(), 257, rng, closing=[ord(c) for c in '"]},'])
        if end:
            value = json.loads(bytes(ids))
            assert valid(SCHEMAS[name], value), bytes(ids)
            ended += 1
    assert ended or name in ("anything", "tree", "unanchored", "all_of")


def test_properties_in_any_order_and_unique():
    grammar = compiled(SCHEMAS["additional"])
    assert matches(grammar, '{"a":true,"id":1,"b":false}')
    assert not matches(grammar, '{"a":true,"a":true}')
    assert not matches(grammar, '{"\\u00e9":true,"é":true}'), "one name, spelled twice"
    assert not matches(grammar, '{"id":1,"id":1}')
    ordered = compiled(PERSON, property_order="schema")
    assert matches(ordered, '{"name":"a","age":1,"tags":["x"]}')
    assert not matches(ordered, '{"age":1,"name":"a"}')


@pytest.mark.parametrize("draft", ["draft-04", "draft-06", "draft-07"])
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"type": "integer", "minimum": -3, "maximum": 70},
        {"type": "integer", "enum": [-2, 7]},
        {"type": ["integer", "null"]},
        {"type": "number", "not": {"type": "integer"}},
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    ],
)
def test_an_integer_has_no_fraction_up_to_draft_5(draft, schema):
    schema = {"$schema": f"http://json-schema.org/{draft}/schema#", **schema}
    for text in ("7", "-2", "0", "7.0", "-2.0", "7.5", "8", "null"):
        expected = jsonschema.validators.validator_for(schema)(schema).is_valid(json.loads(text))
        assert matches(compiled(schema), text) == expected, (text, schema)


def test_whitespace():
    schema = {"type": "array", "items": {"type": "null"}}
    assert matches(compiled(schema), "[ \n null\t,  null ]")
    assert matches(compiled(schema), "[" + " " * 16 + "]")
    assert not matches(compiled(schema), "[" + " " * 17 + "]")
    assert not matches(compiled(schema, whitespace="compact"), "[ ]")
    assert matches(compiled(schema, whitespace=2), "[  ]")
    assert not matches(compiled(schema, whitespace=2), "[   ]")


@pytest.mark.parametrize(
    ("schema", "error", "pointer"),
    [
        ({"type": "strin"}, tm.errors.GrammarError, "/type"),
        ({"properties": {"a": {"minLength": -1}}}, tm.errors.GrammarError, "/properties/a/minLength"),
        ({"properties": {"a/b": {"pattern": "("}}}, tm.errors.GrammarError, "/properties/a~1b/pattern"),
        ({"$ref": "#/nowhere"}, tm.errors.GrammarError, "/$ref"),
        ({"$ref": "#"}, tm.errors.GrammarError, ""),
        ({"not": {"items": [{"uniqueItems": True}], "type": "array"}, "type": "array", "minItems": 1}, tm.errors.UnsupportedKeywordError, "/not/items/0"),
        ({"allOf": [{"type": "string"}, {"type": "number"}]}, tm.errors.UnsatisfiableError, ""),
        ({"type": "object", "required": ["a"], "properties": {"a": False}}, tm.errors.UnsatisfiableError, ""),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, tm.errors.UnsatisfiableError, ""),
        ({"type": "string", "pattern": "^(aaa)*$", "minLength": 4, "maxLength": 5}, tm.errors.UnsatisfiableError, ""),
    ],
)  # fmt: skip
def test_bad_schemas_name_the_place(schema, error, pointer):
    with pytest.raises(error) as caught:
        tm.Grammar.json_schema(schema)
    assert caught.value.json_pointer == pointer


def test_broken_json_shows_a_caret():
    with pytest.raises(tm.errors.GrammarError) as caught:
        tm.Grammar.json_schema('{"type": \n  "string",}')
    assert (caught.value.line, caught.value.column) == (2, 12)


@pytest.mark.parametrize(
    "schema",
    [
        '{"a":' * 5000,
        {"type": "string", "pattern": "((a{1,1000}){1,1000}){1,1000}"},
        {"type": "string", "pattern": "(x+x+)+y" * 50},
        {"type": "string", "pattern": "(" * 5000},
        {"type": "string", "pattern": "^(.*a.{20}){3}$", "minLength": 5},
        {"type": "string", "minLength": 100_000_000},
        {"type": "array", "minItems": 1_000_000, "items": {"type": "integer"}},
        {"enum": [f"value {i}" for i in range(20_000)]},
        {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(5_000)}},
        {"allOf": [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(18)], "type": "object"},
        {"$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)}, "$ref": "#/$defs/d0"},
        {"multipleOf": 1e-300},
        {"maximum": 10**500},
    ],
    ids=range(13),
)  # fmt: skip
def test_hostile_schemas_end(schema):
    """Compiled, or refused by a named error: never a hang or a panic."""
    with contextlib.suppress(tm.errors.GrammarError, tm.errors.LimitError):
        tm.compile(tm.Grammar.json_schema(schema), BYTES).matcher().mask_row()


@given(st.text(alphabet='{}[]":,truefalsn0123.e- "$refitypmobjcagn#/', max_size=60))
def test_any_text_is_a_schema_or_an_error(text):
    with contextlib.suppress(tm.errors.GrammarError, tm.errors.LimitError):
        tm.Grammar.json_schema(text)


@given(
    st.from_regex(r"([abc.]|\[a-c\]|\(ab?\|c\)|[ab][*+?]|(ab){1,3}|\\d|\\w){0,5}", fullmatch=True),
    st.text("abc1_", max_size=6),
)
def test_regex_agrees_with_re(pattern, text):
    assert matches(tm.compile(tm.Grammar.regex(pattern), BYTES), text) == bool(re.fullmatch(pattern, text))


def test_regex_algebra():
    grammar = tm.compile(tm.Grammar.regex("~(.*bb.*)&[abc]{2,4}"), BYTES)
    assert matches(grammar, "abca")
    assert not matches(grammar, "abbc")
    assert not matches(grammar, "a")


def test_choice():
    grammar = tm.compile(tm.Grammar.choice(["yes", "no", "not sure", "né"]), BYTES)
    assert all(matches(grammar, text) for text in ("yes", "no", "not sure", "né"))
    assert not any(matches(grammar, text) for text in ("n", "not", ""))
    with pytest.raises(tm.errors.UnsatisfiableError):
        tm.Grammar.choice([])


@pytest.mark.parametrize(
    "pattern", ["(", "a)", "[b", "a{3,2}", "*", "\\1", "(?<=a)b", "\\p{Nope}", "a{99999999999}"]
)
def test_bad_patterns_show_a_caret(pattern):
    with pytest.raises(tm.errors.GrammarError) as caught:
        tm.Grammar.regex(pattern)
    assert caught.value.source == pattern
    assert caught.value.column is not None


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf):
    return tm.Tokenizer.from_file(smollm2_gguf).vocabulary


@pytest.fixture(scope="session")
def maskbench(unpacked):
    """Real-world schemas in the order of the hash of their names."""
    files = list((unpacked("json_schema_open.tar.xz") / "open" / "maskbench").glob("*.json"))
    return sorted(files, key=lambda f: hashlib.sha256(f.name.encode()).hexdigest())


def test_walks_on_a_real_vocabulary_end_valid(smollm2):
    """Output constrained by a schema validates, on the vocabulary of a real model."""
    closing = [smollm2.id(c) for c in (b'"', b"}", b"]", b",", b'"}', b'"]', b'",')]
    rng = np.random.default_rng(3)
    ends = 0
    for schema in SCHEMAS.values():
        grammar = tm.compile(tm.Grammar.json_schema(schema), smollm2)
        ids, ended = walk(grammar.matcher(), len(smollm2), rng, most=150, closing=closing, bias_after=10)
        if ended:
            text = b"".join(smollm2.bytes(i) for i in ids)
            assert valid(schema, json.loads(text)), text
            ends += 1
    assert ends >= len(SCHEMAS) // 2


def test_walks_on_real_schemas_end_valid(smollm2, maskbench):
    closing = [smollm2.id(c) for c in (b'"', b"}", b"]", b",", b'"}', b'"]', b'",')]
    rng, done, ends, refused = np.random.default_rng(5), 0, 0, 0
    for file in maskbench:
        schema = json.loads(file.read_text())["schema"]
        try:
            grammar = tm.compile(tm.Grammar.json_schema(schema, format="annotate"), smollm2)
        except (tm.errors.GrammarError, tm.errors.LimitError):
            refused += 1
            assert refused < 10, "real-world schemas are refused too often"
            continue
        ids, ended = walk(grammar.matcher(), len(smollm2), rng, most=150, closing=closing, bias_after=10)
        if ended:
            text = b"".join(smollm2.bytes(i) for i in ids)
            validator = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
            assert validator(schema).is_valid(json.loads(text)), (file.name, text)
            ends += 1
        done += 1
        if done == 5:
            break
    assert ends


def test_pydantic_types():
    class Point:
        @staticmethod
        def model_json_schema():
            return {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}

    assert matches(compiled(Point), '{"x": 3}')
    with pytest.raises(tm.errors.GrammarError):
        tm.Grammar.json_schema(42)
    with pytest.raises(ValueError, match="whitespace"):
        tm.Grammar.json_schema({}, whitespace="some")


def test_random_is_not_used():
    """Compiling twice gives the same masks."""
    random.seed(1)
    rows = [compiled(PERSON).matcher().mask_row().tolist() for _ in range(2)]
    assert rows[0] == rows[1]


CLOSED = [
    {"type": "object", "additionalProperties": False, "properties": {name: {"type": "integer"}}}
    for name in "abcd"
]


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": CLOSED[:3]},
        {"oneOf": [{"type": "string"}, *CLOSED]},
        {"type": "object", "allOf": [{"not": part} for part in CLOSED[:2]]},
        {"type": "object", "allOf": [{"not": part} for part in CLOSED[:3]], "maxProperties": 2},
        {
            "type": "object",
            "not": {"additionalProperties": {"type": "integer"}},
            "allOf": [{"not": {"patternProperties": {"^[ab]": {"type": "string"}}}}],
        },
        {
            "type": "object",
            "allOf": [
                {"not": {"propertyNames": {"pattern": "a"}}},
                {"not": {"propertyNames": {"pattern": "b"}}},
            ],
            "properties": {"a": True},
        },
    ],
    ids=lambda schema: "-".join(schema),
)
def test_one_property_is_witness_of_several_obligations(schema):
    """An object that is not this and not that, for one reason: all small objects, against jsonschema."""
    valid = jsonschema.Draft202012Validator(schema).is_valid
    compiled = tm.compile(tm.Grammar.json_schema(schema), BYTES)
    seen = set()
    for size in range(4):
        for names in itertools.combinations("abcx", size):
            for values in itertools.product([1, "y"], repeat=size):
                value = dict(zip(names, values, strict=True))
                matcher = compiled.matcher()
                text = json.dumps(value).encode()
                ours = matcher.accept_prefix(list(text)) == len(text) and matcher.is_accepting()
                assert ours == valid(value), value
                seen.add(ours)
    assert seen == {False, True}
