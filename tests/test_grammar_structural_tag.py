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
    ],
)
def test_errors_name_the_place(value, pointer):
    with pytest.raises(tm.errors.GrammarError) as caught:
        tm.Grammar.structural_tag(value)
    assert caught.value.json_pointer == pointer


def test_a_schema_in_a_tag_is_checked():
    with pytest.raises(tm.errors.GrammarError):
        tm.Grammar.structural_tag([{"begin": "<a>", "schema": {"type": "integr"}, "end": ""}], ["<a"])
