"""The front ends read anything: what they cannot read is an error that names its place, and nothing else.

``data/front_ends.json`` keeps texts that once did something else, and hostile ones.
"""

import copy
import json
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokamask as tm

ROOT = pathlib.Path(__file__).resolve().parent
VOCABULARY = tm.Vocabulary([*(bytes([b]) for b in range(256)), b""], special={"<end>": 256}, eos_ids=[256])
FEW = settings(max_examples=40)

READERS = {
    "json_schema": lambda text: tm.Grammar.json_schema(text),
    "regex": lambda text: tm.Grammar.regex(text),
    "ebnf": lambda text: tm.Grammar.ebnf(text),
    "lark": lambda text: tm.Grammar.lark(text),
    "structural_tag": lambda text: tm.Grammar.structural_tag(text),
}


def problem(kind, text):
    """Reads, compiles and takes some steps; what was raised on purpose."""
    try:
        matcher = tm.compile(READERS[kind](text), VOCABULARY).matcher()
        for _ in range(8):
            row = matcher.mask_row()
            if not row.any():
                return AssertionError("a dead end")
            token = next(i for i in range(257) if row[i // 32] >> (i % 32) & 1)
            matcher.accept(token)
            if matcher.is_terminated():
                break
    except tm.errors.TokamaskError as error:
        return error
    return None


def outcome(kind, text):
    """The error, if there is one, with its kind and place checked."""
    error = problem(kind, text)
    if error is None:
        return None
    if isinstance(error, tm.errors.LimitError):
        assert error.limit
    elif isinstance(error, tm.errors.VocabularyError | tm.errors.UnknownTokenError):
        assert kind != "json_schema"  # a token that the vocabulary does not have
    elif kind in ("json_schema", "structural_tag"):
        assert isinstance(error, tm.errors.GrammarError), repr(error)
        assert error.json_pointer is not None or error.line is not None, str(error)
    else:
        assert isinstance(error, tm.errors.GrammarError), repr(error)
        if not isinstance(error, tm.errors.UnsatisfiableError):
            lines = text.split("\n")
            assert 1 <= error.line <= len(lines)
            assert 1 <= error.column <= len(lines[error.line - 1]) + 1
            assert "^" in str(error)
    return error


# Mutations of real schemas and of all that a schema may hold.

KEYWORDS = ["type", "enum", "const", "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties", "maxProperties", "dependentRequired", "dependentSchemas", "dependencies", "items", "prefixItems", "additionalItems", "contains", "minContains", "maxContains", "minItems", "maxItems", "uniqueItems", "pattern", "minLength", "maxLength", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$ref", "$defs", "definitions", "$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "unevaluatedProperties", "unevaluatedItems", "$schema"]  # fmt: skip
ODD = [
    None, True, False, 0, -1, 1.5, 1e300, -1e-300, 10**30, "", "a", "(", "#", "#/$defs/a", "http://x.y/z", "string", "date-time", [], [[]], {},
    [{}], [True, False], {"a": {}}, ["a", "a"], {"type": "object"}, {"$ref": "#"}, {"not": {}}, "^(a|b)*$", "\\p{Lu}{3}", "\ud800", "é\u0000",
]  # fmt: skip
SEEDS = [json.loads(path.read_text()) for path in sorted((ROOT.parent / "examples").glob("*.schema.json"))]
SEEDS += [
    {"$defs": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}, {"items": {"$ref": "#"}}]}}, "$ref": "#/$defs/a"},
    {"oneOf": [{"type": "integer", "minimum": 3, "multipleOf": 2}, {"type": "string", "pattern": "^a+b?$", "maxLength": 5}]},
    {"if": {"properties": {"a": {"const": 1}}, "required": ["a"]}, "then": {"required": ["b"]}, "else": {"maxProperties": 2}},
    {"type": "array", "contains": {"type": "integer"}, "minContains": 2, "uniqueItems": True, "maxItems": 6, "prefixItems": [{"enum": [1, "x"]}]},
    {"patternProperties": {"^x": {"type": "number"}}, "propertyNames": {"maxLength": 4}, "unevaluatedProperties": False, "minProperties": 1},
]  # fmt: skip


def places(value, path=()):
    """All places inside a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@st.composite
def mutated(draw):
    schema = copy.deepcopy(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(schema))))
        drawn = draw(
            st.sampled_from(ODD)
            | st.builds(lambda k, v: {k: v}, st.sampled_from(KEYWORDS), st.sampled_from(ODD))
        )
        odd = copy.deepcopy(drawn)  # later mutations may go inside it
        if not path:
            schema = schema | odd if isinstance(odd, dict) and isinstance(schema, dict) else odd
            continue
        holder = schema
        for key in path[:-1]:
            holder = holder[key]
        how = draw(st.integers(0, 2))
        if how == 0 and isinstance(holder, dict):
            holder[draw(st.sampled_from(KEYWORDS))] = holder.pop(path[-1])
        elif how == 1 and isinstance(holder[path[-1]], dict) and isinstance(odd, dict):
            holder[path[-1]] = holder[path[-1]] | odd
        else:
            holder[path[-1]] = odd
    return schema


@FEW
@given(mutated())
def test_mutated_schemas(schema):
    outcome("json_schema", json.dumps(schema))


@FEW
@given(
    st.text(max_size=30)
    | st.sampled_from(["{", "[1,", '{"a":}', "nul", '"\\u12"', "\ufeff{}", "[" * 5000, '{"a":' * 3000])
)
def test_texts_that_are_no_schema(text):
    outcome("json_schema", text)


# Keywords that mean nothing alone, with what they go with; names and places that others refer to are no conditions.
COMPANY = {
    "additionalItems": {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{}]},
    "minContains": {"contains": {}},
    "maxContains": {"contains": {}},
    "if": {"then": {"type": "null"}},
    "then": {"if": {"type": "null"}},
    "else": {"if": {"type": "null"}},
}
CONDITIONS = [
    k
    for k in KEYWORDS
    if k not in ("const", "$defs", "definitions", "$id", "$anchor", "$dynamicAnchor", "$schema")
]


@pytest.mark.parametrize("keyword", CONDITIONS)
def test_no_keyword_is_ignored(keyword):
    """Each refuses some kind of value, by its own pointer."""
    pointers = set()
    for odd in (None, -1, "(", [1, [2]], {"a": 1}, 1.5):
        error = outcome("json_schema", json.dumps({keyword: odd} | COMPANY.get(keyword, {})))
        if isinstance(error, tm.errors.GrammarError):
            pointers.add(error.json_pointer)
    assert any(pointer.startswith(f"/{keyword}") for pointer in pointers), pointers


# Grammars glued together from what grammars are made of.

PIECES = {
    "regex": [
        "a", "b", "[a-c]", "[^x]", ".", "\\d", "\\w+", "\\p{L}", "\\u00e9", "(", ")", "(?:", "(?=", "(?!", "(?<=", "(?<n>", "|", "*", "+", "?", "{2}", "{2,",
        "{,3}", "{3,1}", "{99999}", "^", "$", "\\b", "\\1", "[", "]", "[z-a]", "\\", "&", "~", "é", "\n", "\\x4", "\\cA", "*?", "++",
    ],
    "ebnf": [
        "root ::= ", "a ::= ", '"x"', '"', "'y'", "[a-z]", "[^", "]", "(", ")", "*", "+", "?", "{2,3}", "{3,1}", "{1000000}", "|", "root", "a", "b", "\n", "# c\n",
        "<end>", "<[256]>", "<[999999]>", "<!", "::=", "\\", '"\\u00e9"', '"\\q"', ".", " ", "é",
    ],
    "lark": [
        "start: ", "a: ", "A: ", '"x"', '"x"i', "/[a-z]+/", "/(/", "/a/i", "[", "]", "(", ")", "*", "+", "?", "~2..3", "~3..1", "~999999", "|", "start", "a", "A", "B",
        "\n", "// c\n", "%ignore A\n", "%ignore", "%import common.INT\n", "%import x.y\n", "%json {\"type\": \"null\"}", "%json {", ".2", "->", "!", "?a: ", "_B{x}: ", "<end>",
        "<[1-5]>", '"\\', '".."', " ", "é",
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", PIECES)
@FEW
@given(data=st.data())
def test_glued_grammars(kind, data):
    pieces = data.draw(st.lists(st.sampled_from(PIECES[kind]), max_size=14))
    first = {"ebnf": "root ::= ", "lark": "start: "}.get(kind, "")
    outcome(kind, data.draw(st.sampled_from([first, ""])) + "".join(pieces))


@pytest.mark.parametrize("kind", ["regex", "ebnf", "lark", "structural_tag"])
@FEW
@given(text=st.text(max_size=40))
def test_any_text(kind, text):
    outcome(kind, text)


FORMATS = st.recursive(
    st.sampled_from(
        [
            {"type": "const_string", "value": "x<end>"}, {"type": "any_text", "excludes": ["ab"]}, {"type": "any_text", "max_chars": 5}, {"type": "regex", "pattern": "a+"},
            {"type": "token", "token": "<end>"}, {"type": "token", "token": 97}, {"type": "token", "token": 999}, {"type": "any_tokens"}, {"type": "exclude_token"},
            {"type": "json_schema", "json_schema": {"type": "integer"}}, {"type": "grammar", "grammar": 'root ::= "(" root? ")"'}, {"type": "what"}, {}, [], None, 3,
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda t, c: {"type": t, "content": c}, st.sampled_from(["optional", "star", "plus"]), inner),
        st.builds(lambda c, a, b: {"type": "repeat", "content": c, "min": a, "max": b}, inner, st.integers(-1, 3), st.integers(-2, 2000)),
        st.builds(lambda t, e: {"type": t, "elements": e}, st.sampled_from(["sequence", "or"]), st.lists(inner, max_size=3)),
        st.builds(lambda c, e: {"type": "tag", "begin": "<f>", "content": c, "end": e}, inner, st.sampled_from(["</f>", "", ["a", "b"], {"type": "token", "token": 98}, 1])),
        st.builds(lambda c: {"type": "dispatch", "rules": [["<f>", c]]}, inner),
        st.builds(lambda c: {"type": "token_dispatch", "rules": [[97, c]]}, inner),
        st.builds(
            lambda c, x: {"type": "triggered_tags", "triggers": ["<f"], "tags": [{"begin": "<f>", "content": c, "end": x}]}, inner, st.sampled_from(["", ">"])
        ),
    ),
    max_leaves=5,
)  # fmt: skip


@FEW
@given(FORMATS)
def test_structural_tags_of_any_form(value):
    outcome("structural_tag", json.dumps(value))


# Hostile ones, each of its own kind.


def nested(opening, inner, closing, depth):
    return opening * depth + inner + closing * depth


HOSTILE = {
    "100,000 values": ("json_schema", json.dumps({"enum": [f"value {i}" for i in range(100_000)]}), None),
    "10,000 properties": ("json_schema", json.dumps({"properties": {f"p{i}": {"type": "integer"} for i in range(10_000)}}), None),
    "repetitions in a pattern": ("regex", "((a{1000}){1000}){1000}", tm.errors.LimitError),
    "overlapping repetitions": ("regex", "(a|aa|aaa){1,500}(a|b){1,500}", ...),
    "repetitions in a schema": ("json_schema", json.dumps({"pattern": "^((a{0,300}){0,300}b){0,300}$"}), ...),
    "a counted array of counted arrays": (
        "json_schema", json.dumps({"minItems": 10**9, "items": {"minItems": 10**9, "items": {"maxLength": 10**9}}}), None,
    ),
    "a schema that is itself": ("json_schema", '{"$ref": "#"}', tm.errors.GrammarError),
    "a circle of references": (
        "json_schema", '{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}}', tm.errors.GrammarError,
    ),
    "a circle with a way out": ("json_schema", '{"type": "array", "items": {"$ref": "#"}}', None),
    "a circle without": ("json_schema", '{"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}}', tm.errors.UnsatisfiableError),
    "a circle through not": ("json_schema", '{"not": {"$ref": "#"}}', tm.errors.GrammarError),
    "deep JSON": ("json_schema", nested('{"items":', "{}", "}", 50_000), tm.errors.TokamaskError),
    "deep references": ("json_schema", json.dumps({"$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(5000)} | {"d5000": {}}, "$ref": "#/$defs/d0"}), ...),
    "many alternatives of many": (
        "json_schema", json.dumps({"allOf": [{"anyOf": [{"required": [f"k{i}{j}"]} for j in range(6)]} for i in range(12)]}), ...,
    ),
    "contradictions": ("json_schema", '{"type": "string", "minLength": 3, "maxLength": 2}', tm.errors.UnsatisfiableError),
    "a contradiction in a pattern": ("json_schema", '{"type": "string", "pattern": "^a$", "minLength": 2}', tm.errors.UnsatisfiableError),
    "deep groups": ("regex", nested("(", "a", ")", 5000), tm.errors.LimitError),
    "deep EBNF": ("ebnf", "root ::= " + nested("(", '"a"', ")", 5000), tm.errors.TokamaskError),
    "deep Lark": ("lark", "start: " + nested("(", '"a"', ")", 5000), tm.errors.TokamaskError),
    "deep tags": ("structural_tag", nested('{"type": "optional", "content": ', '{"type": "any_text"}', "}", 3000), tm.errors.TokamaskError),
    "rules that call each other only": ("ebnf", "root ::= a\na ::= root", tm.errors.UnsatisfiableError),
    "hidden left recursion": ("ebnf", 'root ::= a* root "x" | "y"\na ::= "z"?', None),
    "doubling rules": ("ebnf", "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} r{i + 1}\n" for i in range(40)) + 'r40 ::= "a"', ...),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ones(name):
    kind, text, expected = HOSTILE[name]
    error = outcome(kind, text)
    if expected is None:
        assert error is None, str(error)
    elif expected is not ...:  # else either will do, in good time
        assert isinstance(error, expected), repr(error)


CORPUS = json.loads((ROOT / "data" / "front_ends.json").read_text())


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["why"])
def test_texts_that_once_did_something_else(case):
    error = outcome(case["kind"], case["text"])
    assert (error is None) == case["reads"], repr(error)
