"""One JSON Schema feature at a time: schema, documents that it allows, documents that it forbids. Hostile schemas have no documents."""

from __future__ import annotations

STRING, INTEGER = {"type": "string"}, {"type": "integer"}
PROSE = "the committee met on Tuesday and nobody could say why the old bridge had been painted blue again "


def closed(properties: dict, required: list[str] | None = None, **more) -> dict:
    """An object of these properties and no others, all required unless told."""
    required = list(properties) if required is None else required
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        **more,
    }


def _deep(levels: int) -> tuple[dict, list, list]:
    schema, right, wrong = INTEGER, 1, "x"
    for _ in range(levels):
        schema, right, wrong = closed({"a": schema}), {"a": right}, {"a": wrong}
    return schema, [right], [wrong]


def _formats() -> tuple[dict, list, list]:
    names = {"when": "date-time", "mail": "email", "id": "uuid", "address": "ipv6", "link": "uri"}
    right = {
        "when": "2024-02-29T10:11:12Z",
        "mail": "a.b@example.org",
        "id": "123e4567-e89b-12d3-a456-426614174000",
        "address": "2001:db8::1",
        "link": "https://example.org/a?b=c#d",
    }
    wrong = [{**right, "when": "2024-02-30T25:11:12Z"}, {**right, "mail": "ab"}, {**right, "id": "123"}]
    return closed({key: {"type": "string", "format": name} for key, name in names.items()}), [right], wrong


def rows() -> dict[str, tuple[object, list, list]]:
    """Name to (schema, valid documents, invalid documents)."""
    words = [f"w{i:04d}_{'abcdefghij'[i % 10] * (i % 7)}" for i in range(5000)]
    tags = [
        closed({"t": {"const": f"k{i}"}, "v": {"type": ["string", "integer", "boolean"][i % 3]}})
        for i in range(40)
    ]
    either = {
        "type": "object",
        "properties": {"k": {"enum": ["x", "y"]}, "v": {}},
        "required": ["k", "v"],
        "if": {"properties": {"k": {"const": "x"}}},
        "then": {"properties": {"v": INTEGER}},
        "else": {"properties": {"v": STRING}},
    }
    node = closed({"v": INTEGER, "k": {"type": "array", "items": {"$ref": "#/$defs/n"}}})
    three = [
        {"type": "object", "properties": {"a": INTEGER}, "required": ["a"]},
        {"properties": {"b": {"minLength": 2, "type": "string"}}, "required": ["b"]},
        {"properties": {"a": {"maximum": 9}}},
    ]
    text = {"type": "string"}
    return {
        "enum of 5,000": ({"enum": words}, [words[4321]], ["w9999_", "zzz"]),
        "500 properties": (
            closed(dict.fromkeys(words[:500], INTEGER), []),
            [{words[3]: 1, words[499]: 2}],
            [{"nope": 1}, {words[3]: "x"}],
        ),
        "30 required in any order": (
            closed({f"k{i}": STRING for i in range(30)}),
            [{f"k{i}": "v" for i in range(30)}, {f"k{i}": "v" for i in reversed(range(30))}],
            [{"k0": "v"}],
        ),
        "maxLength 5000": (
            {**text, "minLength": 10, "maxLength": 5000},
            [PROSE * 8],
            ["short", PROSE * 60],
        ),
        "minLength 1000": ({**text, "minLength": 1000}, [PROSE * 13], [PROSE]),
        "identifier pattern": (
            {**text, "pattern": "^[a-zA-Z_][a-zA-Z0-9_-]{0,63}$"},
            ["some_identifier-42"],
            ["9abc", "a b"],
        ),
        "pattern of 50 words": (
            {**text, "pattern": r"^(\S+\s+){0,49}\S+$", "maxLength": 500},
            [PROSE.strip()],
            [" x", "a " * 60 + "b"],
        ),
        "unanchored pattern": (
            {**text, "pattern": "foo.*bar[0-9]{3}"},
            ["a foo and bar123 z"],
            ["foo bar12"],
        ),
        "pattern of 2^14 states": ({**text, "pattern": "^(.*a.{14}b)+$"}, ["xx a12345678901234b"], ["abc"]),
        "five formats": _formats(),
        "integer bounds": (
            {**INTEGER, "minimum": -1234567, "maximum": 987654321},
            [-1234567, 987654321, 0],
            [-1234568, 987654322],
        ),
        "number bounds": (
            {"type": "number", "exclusiveMinimum": 0.125, "maximum": 1e3},
            [0.1251, 1000, 999.999],
            [0.125, 1000.5],
        ),
        "multipleOf": ({**INTEGER, "multipleOf": 7}, [49, 700], [50]),
        "uniqueItems": (
            {"type": "array", "items": {"enum": list("abcde")}, "uniqueItems": True},
            [["a", "c", "e"]],
            [["a", "b", "a"]],
        ),
        "uniqueItems of strings": (
            {"type": "array", "items": STRING, "uniqueItems": True},
            [["a", "c", "ca"]],
            [["a", "b", "a"]],
        ),
        "contains": (
            {"type": "array", "items": INTEGER, "contains": {"const": 5}},
            [[1, 5, 2]],
            [[1, 2]],
        ),
        "100 to 200 items": (
            {"type": "array", "items": INTEGER, "minItems": 100, "maxItems": 200},
            [list(range(120))],
            [[1], list(range(230))],
        ),
        "not enum": ({**text, "not": {"enum": ["foo", "bar"]}}, ["baz", "fooo"], ["foo", "bar"]),
        "overlapping oneOf": (
            {"oneOf": [{**INTEGER, "multipleOf": 3}, {**INTEGER, "multipleOf": 5}]},
            [9, 10],
            [15, 7],
        ),
        "oneOf by a tag": (
            {"oneOf": tags},
            [{"t": "k37", "v": 3}],
            [{"t": "k37", "v": "x"}, {"t": "k99", "v": 1}],
        ),
        "allOf of objects": (
            {"allOf": three},
            [{"a": 5, "b": "xy"}],
            [{"a": 50, "b": "xy"}, {"a": 5}, {"a": 5, "b": "x"}],
        ),
        "if, then, else": (
            either,
            [{"k": "x", "v": 1}, {"k": "y", "v": "s"}],
            [{"k": "x", "v": "s"}, {"k": "y", "v": 1}],
        ),
        "dependentRequired": (
            {"type": "object", "properties": {"a": INTEGER, "b": INTEGER}, "dependentRequired": {"a": ["b"]}},
            [{"a": 1, "b": 2}, {"b": 1}],
            [{"a": 1}],
        ),
        "patternProperties": (
            {
                "type": "object",
                "patternProperties": {"^s_": STRING, "^i_": INTEGER},
                "additionalProperties": False,
            },
            [{"s_a": "x", "i_b": 2}],
            [{"s_a": 1}, {"z": 1}],
        ),
        "propertyNames": (
            {"type": "object", "propertyNames": {"pattern": "^[a-z]{1,8}$"}},
            [{"abc": 1}],
            [{"ABC": 1}],
        ),
        "2 to 3 properties": (
            {"type": "object", "additionalProperties": INTEGER, "minProperties": 2, "maxProperties": 3},
            [{"a": 1, "b": 2}],
            [{"a": 1}, {"a": 1, "b": 2, "c": 3, "d": 4}],
        ),
        "additional properties": (
            {"type": "object", "properties": {"a": INTEGER}, "additionalProperties": STRING},
            [{"a": 1, "b": "x"}, {"b": "x", "a": 1}],
            [{"a": "x"}, {"b": 1}],
        ),
        "any order": (
            closed(dict.fromkeys("abcd", INTEGER)),
            [{"d": 1, "b": 2, "a": 3, "c": 4}],
            [{"d": 1, "b": 2, "a": 3}],
        ),
        "unevaluatedProperties": (
            {
                "type": "object",
                "allOf": [{"properties": {"a": INTEGER}}],
                "properties": {"b": INTEGER},
                "unevaluatedProperties": False,
            },
            [{"b": 2}, {"a": 1}],
            [{"c": 1}],
        ),
        "recursive $ref": (
            {"$ref": "#/$defs/n", "$defs": {"n": node}},
            [{"v": 1, "k": [{"v": 2, "k": [{"v": 3, "k": []}]}, {"v": 4, "k": []}]}],
            [{"v": 1, "k": [{"v": 2}]}],
        ),
        "any JSON": ({}, [{"a": [1, 2, {"b": None}], "text": PROSE}], []),
        "free text": (closed({"text": STRING}), [{"text": PROSE * 4}], []),
        "two characters": (
            {**text, "minLength": 2, "maxLength": 2},
            ["日本", "😀x"],
            ["日", "日本語"],
        ),
        "60 levels": _deep(60),
        "hostile: nested repetition": ({**text, "pattern": "^(([a-z]{1,1000}){1,1000}){1,1000}$"}, [], []),
        "hostile: a million items": (
            {"type": "array", "items": INTEGER, "minItems": 10**6, "maxItems": 10**8},
            [],
            [],
        ),
        "hostile: minLength 1e8": ({**text, "minLength": 10**8}, [], []),
        "hostile: enum of 100,000": ({"enum": [f"v{i * 7919 % 10**7:07d}" for i in range(100_000)]}, [], []),
        "hostile: circular $ref": ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, [], []),
        "hostile: 2^18 alternatives": (
            {
                "type": "object",
                "allOf": [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(18)],
            },
            [],
            [],
        ),
        "hostile: 20,000 properties": (closed({f"p{i}": STRING for i in range(20_000)}, []), [], []),
    }
