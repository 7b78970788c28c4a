"""Grammars in Lark's notation: what they match, what they refuse, and that nothing hangs."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm

BYTES = tm.Vocabulary([bytes([b]) for b in range(256)] + [b""], special={"<end>": 256}, eos_ids=[256])


def matches(text, *, of, start="start"):
    matcher = tm.compile(tm.Grammar.lark(of, start=start), BYTES).matcher()
    data = text.encode()
    return matcher.accept_prefix(list(data)) == len(data) and matcher.is_accepting()


CALC = """
?start: sum
?sum: product | sum "+" product -> add | sum "-" product -> sub
?product: atom
    | product "*" atom   // a comment
    | product "/" atom
?atom: NUMBER | "-" atom | NAME | "(" sum ")" | NAME "(" [sum ("," sum)*] ")"
%import common.CNAME -> NAME
%import common.NUMBER
%import common.WS_INLINE
%ignore WS_INLINE
"""
WORDS = """
start: statement+
statement: "if" NAME ":" statement | "return" NAME? ";" | NAME "=" (NAME | INT) ";" | "not"i NAME ";"
NAME: /[a-z_]\\w*/
INT: /[0-9]+/
COMMENT: /#[^\\n]*/
%ignore /\\s+/
%ignore COMMENT
"""
CASES = {
    CALC: (["1", " 1 + 2*x ", "-(a - b)/f(1, g())", "1.5e3*2."], ["", "1 +", "1 2", "f(,1)", "a b", "(1"]),
    WORDS: (
        ["x=1;", "if a: return b;", "return;", "returned = 5;", "NOT x;", "a = b; # note\n\nb = 1;", "ifx = 1;", "x=é2;"[:2] + "y;"],
        ["ifx: return b;", "returna;", "x = 12a;", "notx;", "x = 1", "if : return;"],
    ),
    'start: "a" NAME\nNAME: /[a-z]+/': (["ab", "aa"], ["a", "ba", "a b"]),
    'start: _list{"x"} | pair{A, "-"}\n_list{e}: e ("," e)*\npair{a, s}: a s a | "(" pair{a, s} ")"\nA: "a".."c"': (
        ["x", "x,x,x", "a-c", "((b-b))"], ["", "x,", "a-d", "(a-a", "x-x"],
    ),
    'start: ("ab"~2 | "c"~1..3 | "d"{2,4})': (["abab", "c", "ccc", "dddd"], ["ab", "cccc", "d", "ababab"]),
    'start: /a.c/s "B"i\n    | [X] Y\n    | /x y # no\n/ \nX: "x"\nY: "y" | "z" X': (["a\ncb", "abcB", "xy", "y", "zx"], ["a\nb", "x", "xz"]),
    'start: /"(.|\\n)*?"/ NUMBER?\nNUMBER: /\\d+/': (['"a"', '"a\nb"12', '""'], ['"a"b"', '"']),
    'start: A | B "!"\nA.2: "ab"\nB: /[a-c]+/\n%ignore " "': (["ab", "abc!", "b !"], ["ab!", "b"]),
    'start: "v=" %json {"type": "array", "items": {"type": "integer"}} ";"\n': (["v=[1, 2];", "v=[];"], ["v=[a];", "v=[1]"]),
    'start: x\nx: x x | "(" x ")" | ""': (["", "()", "(())()"], ["(", ")("]),
}  # fmt: skip


@pytest.mark.parametrize("text", CASES)
def test_texts_match_or_do_not(text):
    good, bad = CASES[text]
    if "# no" in text:
        text = text.replace("    | /x y # no\n/ \n", "")
    for example in good:
        assert matches(example, of=text), example
    for example in bad:
        assert not matches(example, of=text), example


def test_another_start():
    assert matches("b", of='start: "a"\nother: "b"', start="other")


def test_special_tokens_stand_between_texts():
    vocabulary = tm.Vocabulary(
        [b"a", b" ", b"<|call|>", b"<|x|>", b""], special={"<|call|>": 2, "<|x|>": 3, "<end>": 4}, eos_ids=[4]
    )
    grammar = tm.Grammar.lark('start: (A+ <|call|>)+ <[2-3]>\nA: "a"\n%ignore " "')
    matcher = tm.compile(grammar, vocabulary).matcher()
    rows = []
    for token in (0, 1, 2, 2):
        rows.append(int(matcher.mask_row()[0]))
        matcher.accept(token)
    assert rows == [0b00011, 0b00111, 0b00111, 0b01111]
    assert matcher.is_accepting()


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ('start: "a', 1, 8, "closing quote"),
        ("start: x", 1, 8, "x is not defined"),
        ("start: A\nB: /b/", 1, 8, "A is not defined"),
        ("start: A\n%declare A", 1, 8, "declared but has no pattern"),
        ('start: "a"\nstart: "b"', 2, 1, "twice"),
        ('start: ("a"', 1, 8, "without closing"),
        ("start: /a(/", 1, 10, "unbalanced"),
        ("start: /(?<!a)b/", 1, 9, "text before"),
        ("start: /b(?=c)/", 1, 8, "stands around"),
        ("start: A\nA: B\nB: A", 3, 4, "contains itself"),
        ("%import python.NAME\nstart: NAME", 1, 1, "common"),
        ('start: "a"~3..1', 1, 11, "out of order"),
        ("begin: A\nA: /a/", 1, 1, "no rule"),
        ('start: "a" "b" )', 1, 16, "unexpected"),
        ("start: a{1}", 1, 8, "a is not defined"),
        ('start: p{"x"}\np{a, b}: a b', 1, 8, "number of arguments"),
    ],
)
def test_errors_name_the_place(text, line, column, message):
    with pytest.raises(tm.errors.GrammarError) as caught:
        tm.Grammar.lark(text)
    assert message in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)


@given(st.data())
def test_mutated_grammars_are_read_or_refused(data):
    text = list(data.draw(st.sampled_from(list(CASES))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        text[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.text('"()[]{}|*+?<>/~%:=ax1,é\n', max_size=3)
        )
    try:
        matcher = tm.compile(tm.Grammar.lark("".join(text)), BYTES).matcher()
    except (
        tm.errors.GrammarError,
        tm.errors.LimitError,
        tm.errors.VocabularyError,
        tm.errors.UnknownTokenError,
    ):
        return
    assert np.array_equal(matcher.mask_row(), matcher.plain_row())


HOSTILE = {
    "templates without end": "start: a{X}\na{x}: a{a{x}}\nX: /x/",
    "doubling": "start: A20\nA0: /x/\n" + "".join(f"A{i + 1}: A{i} A{i}\n" for i in range(20)),
    "deep": "start: " + "(" * 5000 + '"a"' + ")" * 5000,
    "many": "start: " + " | ".join(f'"w{i}"' for i in range(20_000)),
    "large counts": "start: (A B~1000000)~1..1000000\nA: /a/\nB: /b/{0,1000000}",
    "long chain": "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(5000)) + 'r5000: "a"',
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_end(name):
    with contextlib.suppress(tm.errors.LimitError, tm.errors.GrammarError):
        tm.compile(tm.Grammar.lark(HOSTILE[name]), BYTES).matcher().mask_row()


# What llguidance reads as well. It takes the longest lexeme where we let a terminal end only as the text before it
# demands, so grammars are such that both readings are one; and it allows nothing to be ignored at the very end.
COMMON = {
    "calculator": (CALC, ["1 + 2*x ", "-(a - b)/f(1, g(), 2)", "1.5*2*(3)"]),
    "words": (
        'start: statement+\nstatement: "if" " "+ NAME ":" statement | "return;" | NAME "=" (NAME | INT) ";"\n'
        "NAME: /[a-z_][a-z0-9_]{0,6}!/\nINT: /[0-9]+/\n",
        ["x!=1;", "if a!:return;", "ab_!=c!;x!=12;"],
    ),
    "templates": ('start: "[" (pair ("," pair)*)? "]"\npair: KEY ":" (KEY | start)\nKEY: /[ab]{1,2}/', ["[a:b,ab:[]]", "[]", "[b:[a:a]]"]),
    "ranges": ('start: "a".."c" "x"~2..3 /[0-9]{2}/', ["axx12", "cxxx00"]),
    "ignored": ('start: "(" start* ")"\n%ignore /[ \\t]+/', ["( () (()) )", "()"]),
    "json": (
        'start: value\nvalue: object | array | STRING | NUMBER | "true" | "null"\nobject: "{" (pair ("," pair)*)? "}"\n'
        'pair: STRING ":" value\narray: "[" (value ("," value)*)? "]"\nSTRING: /"[^"\\\\\\x00-\\x1f]*"/\n'
        "NUMBER: /-?(0|[1-9][0-9]*)(\\.[0-9]+)?/\n%ignore /[ \\t\\n]+/",
        ['{"a": [1, -2.5, {}], "b": null}', '[true, "x y", 0]'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMON)
def test_verdicts_are_those_of_llguidance(name):
    llguidance = pytest.importorskip(
        "llguidance", reason="llguidance is not installed; see requirements/bench.txt"
    )
    grammar, texts = COMMON[name]
    theirs = llguidance.LLMatcher(
        llguidance.LLTokenizer("byte"), llguidance.LLMatcher.grammar_from_lark(grammar)
    )
    assert not theirs.get_error()
    ours = tm.compile(tm.Grammar.lark(grammar), BYTES)
    rng = np.random.default_rng(5)
    alphabet = sorted({c for text in texts for c in text} | set("ab1 ,()"))
    judged = [0, 0]
    for turn in range(240):
        text = list(texts[turn % len(texts)])
        for _ in range(turn % 4):
            place = int(rng.integers(len(text) + 1))
            how, char = rng.integers(3), alphabet[rng.integers(len(alphabet))]
            text[place : place + int(how > 0)] = [char] if how < 2 else []
        data = "".join(text).strip().encode()
        matcher, other = ours.matcher(), theirs.deep_copy()
        mine = matcher.accept_prefix(list(data)) == len(data) and matcher.is_accepting()
        assert mine == (other.try_consume_tokens(list(data)) == len(data) and other.is_accepting()), data
        judged[mine] += 1
    assert min(judged) > 20
