"""Structural tags: free text, and what must follow a trigger."""

import json

import pytest

import tokamask as tm

BYTES = tm.Vocabulary([bytes([b]) for b in range(256)] + [b""], special={"<end>": 256}, eos_ids=[256])
TAGS = [
    {"begin": "<f=add>", "schema": {"type": "array", "items": {"type": "integer"}}, "end": "</f>"},
    {"begin": "<f=say>", "content": {"type": "any_text"}, "end": "</f>"},
]


def judge(grammar, text):
    matcher = tm.compile(grammar, BYTES).matcher()
    data = text.encode()
    return matcher.accept_prefix(list(data)) == len(data) and matcher.is_accepting()


GOOD = [
    "",
    "hello < f",
    "<f=add>[1, 2]</f>",
    "a<f=add>[]</f>b<f=say>x < y</f>",
    "<f=say></f>",
    "<<f=add>[3]</f>",
]
BAD = ["<f=", "<f=mul>", "<f=add>[a]</f>", "<f=add>[1]", "a<f=say>x", "x<f=add> </f>"]


def test_tags_and_free_text():
    grammar = tm.Grammar.structural_tag(TAGS, ["<f="])
    assert [judge(grammar, text) for text in GOOD] == [True] * len(GOOD)
    assert [judge(grammar, text) for text in BAD] == [False] * len(BAD)


def test_the_whole_as_engines_pass_it():
    legacy = {"structures": TAGS[:1], "triggers": ["<f="]}
    nested = {
        "type": "structural_tag",
        "format": {
            "type": "sequence",
            "elements": [
                {"type": "tag", "begin": "<think>", "content": {"type": "any_text"}, "end": "</think>"},
                {"type": "triggered_tags", "triggers": ["<f="], "tags": TAGS},
            ],
        },
    }
    assert judge(tm.Grammar.structural_tag(legacy), "a<f=add>[1]</f>")
    grammar = tm.Grammar.structural_tag(json.dumps(nested))
    assert judge(grammar, "<think>so <f= what</think>then <f=add>[1]</f>.")
    assert not judge(grammar, "then")


def test_flags():
    once = tm.Grammar.structural_tag(TAGS, ["<f="], at_least_one=True, stop_after_first=True)
    assert judge(once, "a<f=add>[1]</f>")
    assert not judge(once, "a")
    assert not judge(once, "a<f=add>[1]</f>b")
    assert not judge(tm.Grammar.structural_tag(TAGS, ["<f="], at_least_one=True), "a")


FORMATS = {
    "const": ({"type": "const_string", "value": "ab"}, ["ab"], ["a"]),
    "regex": ({"type": "regex", "pattern": "[ab]{2}"}, ["ab"], ["abc"]),
    "ebnf": ({"type": "grammar", "grammar": 'root ::= "(" root? ")"'}, ["(())"], ["(()"]),
    "lark": ({"type": "lark", "grammar": 'start: "a" start?\n%ignore " "'}, ["a a"], ["b"]),
    "or": ({"type": "or", "elements": [{"type": "const_string", "value": c} for c in "xy"]}, ["x", "y"], ["xy"]),
    "list": (
        {"type": "tags_with_separator", "separator": ", ", "tags": [{"type": "tag", **TAGS[0]}], "at_least_one": True},
        ["<f=add>[1]</f>, <f=add>[]</f>"], ["", "<f=add>[1]</f><f=add>[1]</f>"],
    ),
    "excludes": ({"type": "any_text", "excludes": ["no"]}, ["yes n o"], ["a no"]),
}  # fmt: skip


X, Y = {"type": "const_string", "value": "x"}, {"type": "const_string", "value": "y"}
FORMATS |= {
    "optional": ({"type": "optional", "content": X}, ["", "x"], ["xx"]),
    "star": ({"type": "star", "content": X}, ["", "x", "xxx"], ["y"]),
    "plus": ({"type": "plus", "content": X}, ["x", "xxx"], ["", "y"]),
    "repeat": ({"type": "repeat", "content": X, "min": 2, "max": 3}, ["xx", "xxx"], ["x", "xxxx"]),
    "repeat without end": ({"type": "repeat", "content": X, "min": 1, "max": -1}, ["x", "x" * 9], [""]),
    "max_chars": ({"type": "any_text", "max_chars": 3}, ["", "\u00e4bc"], ["abcd"]),
    "max_chars, excludes": ({"type": "any_text", "max_chars": 3, "excludes": ["no"]}, ["", "nno"[::-1]], ["no", "abcd"]),
    "nulls": ({"type": "any_text", "max_chars": None, "max_tokens": None}, ["a"], []),
    "dispatch": (
        {"type": "dispatch", "rules": [["<a>", X], ["<b>", Y]], "excludes": ["no"]},
        ["", "so <a>x and <b>y.", "<a>x<a>x"], ["<a>y", "no", "<a>", "<b>x"],
    ),
    "dispatch once": ({"type": "dispatch", "rules": [["<a>", X]], "loop": False}, ["", "so", "so <a>x"], ["<a>xx", "<a>x<a>x"]),
    "trigger excludes": (
        {"type": "triggered_tags", "triggers": ["<f="], "tags": TAGS[:1], "excludes": ["no"]},
        ["yes <f=add>[]</f>"], ["no", "yes <f=add>[]</f> no"],
    ),
    "white space": ({"type": "json_schema", "json_schema": {"const": [1]}, "max_whitespace_cnt": 1}, ["[ 1]"], ["[  1]"]),
    "order": (
        {"type": "json_schema", "json_schema": {"properties": {"a": {}, "b": {}}, "required": ["a", "b"]}, "any_order": False},
        ['{"a": 1, "b": 1}'], ['{"b": 1, "a": 1}'],
    ),
    "no schema": ({"type": "json_schema", "json_schema": None}, ["[1]"], ["x"]),
    "several ends": ({"type": "tag", "begin": "<", "content": {"type": "any_text"}, "end": [">", "]"]}, ["<a>", "<a]"], ["<a]]"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name):
    value, good, bad = FORMATS[name]
    grammar = tm.Grammar.structural_tag(value)
    assert all(judge(grammar, text) for text in good)
    assert not any(judge(grammar, text) for text in bad)


def test_masks_equal_the_plain_walk():
    matcher = tm.compile(tm.Grammar.structural_tag(TAGS, ["<f="]), BYTES).matcher()
    for token in b"a <f=add>[1, 2]</f> b":
        assert (matcher.mask_row() == matcher.plain_row()).all()
        matcher.accept(token)


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"structures": TAGS, "triggers": []}, ""),
        ({"structures": TAGS, "triggers": ["<g"]}, "/structures/0"),
        ({"structures": TAGS, "triggers": ["<f=", "<x"]}, ""),
        ({"format": {"type": "sequence", "elements": [{"type": "what"}]}}, "/format/elements/0"),
        ({"type": "tag", "begin": "a", "end": "b"}, ""),
        ({}, ""),
        ({"type": "any_text", "max_tokens": 3}, ""),
        ({"type": "sequence", "elements": [{"type": "star", "content": 1}]}, "/elements/0/content"),
        ({"type": "repeat", "min": 3, "max": 2, "content": X}, ""),
        ({"type": "repeat", "min": -1, "max": 2, "content": X}, ""),
        ({"type": "json_schema", "json_schema": {}, "style": "cohere_xml"}, ""),
        ({"type": "qwen_xml_parameter", "json_schema": []}, "/json_schema"),
        ({"type": "json_schema", "json_schema": {}, "excludes": ["a"]}, ""),
        ({"type": "const_string", "value": "x", "colour": 1}, ""),
        ({"type": "dispatch", "rules": [["", X]]}, "/rules/0"),
        ({"type": "dispatch", "rules": [["a"]]}, ""),
        (
            {
                "type": "tag",
                "begin": "a",
                "end": "b",
                "content": {"type": "json_schema", "json_schema": {"type": "nul"}},
            },
            "/content/json_schema/type",
        ),
        (
            {
                "type": "token_triggered_tags",
                "trigger_tokens": [1],
                "tags": [{"begin": {"type": "token", "token": 2}, "content": X, "end": ""}],
            },
            "/tags/0",
        ),
        ({"type": "any_tokens", "exclude_tokens": [-1]}, ""),
    ],
)
def test_errors_name_the_place(value, pointer):
    with pytest.raises(tm.errors.GrammarError) as caught:
        tm.Grammar.structural_tag(value)
    assert caught.value.json_pointer == pointer


def test_a_schema_in_a_tag_is_checked():
    with pytest.raises(tm.errors.GrammarError):
        tm.Grammar.structural_tag([{"begin": "<a>", "schema": {"type": "integr"}, "end": ""}], ["<a"])


WORDS = ["<tool>", "</tool>", "<|x|>"]
TOKENS = tm.Vocabulary(
    [*(bytes([b]) for b in range(256)), b"", *(word.encode() for word in WORDS), b"ab"],
    special={"<end>": 256} | {word: 257 + i for i, word in enumerate(WORDS)},
    eos_ids=[256],
)
AB = 260


def takes(value, tokens):
    """Whether a structural tag takes a sequence of tokens: ids, and texts byte by byte."""
    ids = [i for part in tokens for i in ([part] if isinstance(part, int) else part.encode())]
    matcher = tm.compile(tm.Grammar.structural_tag(value), TOKENS).matcher()
    for token in ids:
        row = matcher.mask_row()
        assert (row == matcher.plain_row()).all()
        assert bool(row[token // 32] >> (token % 32) & 1) == matcher.is_allowed(token)
        if not matcher.is_allowed(token):
            return False
        matcher.accept(token)
    return matcher.is_accepting()


def token(name):
    return {"type": "token", "token": name}


def test_tokens_themselves():
    assert takes(token("<tool>"), [257])
    assert not takes(token("<tool>"), ["<tool>"])
    assert takes(token(AB), [AB])
    assert takes(token("ab"), [AB])  # an ordinary one by its text
    assert not takes(token(AB), ["ab"])
    one = {"type": "exclude_token", "exclude_tokens": ["<tool>", 97]}
    assert takes(one, [258])
    assert takes(one, [98])
    assert not any(takes(one, [i]) for i in (257, 97, 256))
    some = {"type": "any_tokens", "exclude_tokens": [97], "max_tokens": 2}
    assert takes(some, [])
    assert takes(some, [AB, 257])
    assert not takes(some, [AB, 257, 98])
    assert not takes(some, [97])
    with pytest.raises(tm.errors.VocabularyError):
        takes(token("nothing"), [])
    with pytest.raises(tm.errors.UnknownTokenError):
        takes(token(300), [])


def test_tokens_that_begin_and_end_tags():
    tag = {"begin": token("<tool>"), "content": {"type": "any_tokens"}, "end": token("</tool>")}
    assert takes({"type": "tag", **tag}, [257, "x", AB, 258])
    assert not takes({"type": "tag", **tag}, [257, "x", 258, "y", 258])  # its end is not in it
    whole = {"type": "token_triggered_tags", "trigger_tokens": ["<tool>"], "tags": [{"type": "tag", **tag}]}
    assert takes(whole, ["so", 257, "x", 258, "."])
    assert takes(whole, [])
    assert not takes(whole, ["so", 257, "x"])
    assert not takes(whole | {"at_least_one": True}, ["so"])
    assert not takes(whole | {"stop_after_first": True}, [257, 258, "."])
    assert not takes(whole | {"exclude_tokens": ["<|x|>"]}, [259])
    sent = {"type": "token_dispatch", "rules": [["<tool>", X], ["<|x|>", Y]], "exclude_tokens": [98]}
    assert takes(sent, ["a", 257, "x", 259, "y"])
    assert not takes(sent, [257, "y"])
    assert not takes(sent, ["b"])
    assert not takes(sent | {"loop": False}, [257, "x", 257, "x"])


def test_a_tag_written_out_may_use_special_tokens_of_that_name():
    tag = {
        "begin": "<tool>f:",
        "content": {"type": "json_schema", "json_schema": {"const": 1}},
        "end": "</tool>",
    }
    whole = {"type": "triggered_tags", "triggers": ["<tool>"], "tags": [{"type": "tag", **tag}]}
    assert takes(whole, ["so ", 257, "f:1", 258, " and <tool>f:1</tool>"])
    assert not takes(whole, [258])
    assert not takes(whole, [259])  # free text has no special tokens
    assert takes({"type": "const_string", "value": "a<|x|>b"}, ["a", 259, "b"])
    assert not takes({"type": "any_text"}, [259])


CALL = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"$ref": "#/$defs/count"},
        "unit": {"enum": ["C", "F"]},
        "note": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["city", "days"],
    "$defs": {"count": {"type": "integer", "minimum": 1}},
}
WRITTEN = {
    "qwen_xml": ("<parameter={}>", "</parameter>"),
    "minimax_xml": ('<parameter name="{}">', "</parameter>"),
    "glm_xml": ("<arg_key>{}</arg_key><arg_value>", "</arg_value>"),
    "deepseek_xml": ('<｜DSML｜parameter name="{}" string="RAW">', "</｜DSML｜parameter>"),
}


@pytest.mark.parametrize("style", WRITTEN)
def test_arguments_as_models_write_them(style):
    opened, closed = WRITTEN[style]

    def written(**arguments):
        out = "\n"
        for name, value in arguments.items():
            raw = str(name in ("city", "unit", "note")).lower()
            out += opened.format(name).replace("RAW", raw) + value + closed + "\n"
        return f"<call>{out}</call>"

    content = {"type": "json_schema", "json_schema": CALL, "style": style}
    grammar = tm.Grammar.structural_tag(
        {"format": {"type": "tag", "begin": "<call>", "content": content, "end": "</call>"}}
    )
    right = [
        written(city="Roma", days="3"),
        written(city="\nRoma\n", days="\n12\n", unit="F"),
        written(city="", days="1", note='free "text" < and > & more\n', tags='["a", "b"]'),
    ]
    wrong = [
        written(city="Roma"),
        written(days="3", city="Roma"),
        written(city="Roma", days="0"),
        written(city="Roma", days='"3"'),
        written(city="a name that is too long", days="3"),
        written(city="Roma", days="3", unit="K"),
        written(city="Roma", days="3", other="x"),
        written(city="Roma", days="3", tags="a"),
        written(city="Roma", days="3") + "x",
    ]
    assert [judge(grammar, text) for text in right] == [True] * len(right)
    assert [judge(grammar, text) for text in wrong] == [False] * len(wrong)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"minProperties": 2}, "/format/json_schema"),
        ({"properties": {"a": {"$ref": "#/$defs/x"}}}, "/format/json_schema"),
        ({"required": ["b"], "properties": {}}, "/format/json_schema"),
        (
            {"properties": {"a": {"type": "integer", "minimum": "x"}}},
            "/format/json_schema/properties/a/minimum",
        ),
    ],
)
def test_what_arguments_cannot_say_is_refused(schema, place):
    tag = {"format": {"type": "json_schema", "json_schema": schema, "style": "qwen_xml"}}
    with pytest.raises(tm.errors.GrammarError) as error:
        tm.Grammar.structural_tag(tag)
    assert error.value.json_pointer == place
