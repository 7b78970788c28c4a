"""Context-free grammars: EBNF against an Earley recognizer, on grammars nobody would write."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask.reference import grammar as earley
from tokamask.reference import mask as reference

PIECES = [
    b"a",
    b"b",
    b"(",
    b")",
    b"ab",
    b"ba",
    b"aa",
    b"((",
    b"))",
    b"()",
    b"a)",
    b"(a",
    b"aab",
    b"c",
    None,
    b"",
]
EOS = len(PIECES) - 1
SMALL = tm.Vocabulary(PIECES, special={"<end>": EOS}, eos_ids=[EOS])
NAMES = ["root", "x", "y", "z"]
SYMBOLS = st.sampled_from([*NAMES, *"aabb()"])
RULES = st.fixed_dictionaries(
    {name: st.lists(st.lists(SYMBOLS, max_size=4), min_size=1, max_size=3) for name in NAMES}
)


def as_ebnf(rules):
    """The same rules as text."""
    show = {name: name for name in NAMES} | {c: f'"{c}"' for c in "ab()"}
    return "\n".join(
        f"{name} ::= " + " | ".join(" ".join(show[s] for s in symbols) or '""' for symbols in alternatives)
        for name, alternatives in rules.items()
    )


def bits(row):
    return np.unpackbits(np.asarray(row).view(np.uint8), bitorder="little")[: len(PIECES)].astype(bool)


@given(rules=RULES, data=st.data())
def test_masks_equal_those_of_an_earley_recognizer(rules, data):
    text = ""
    try:
        matcher = tm.compile(tm.Grammar.ebnf(as_ebnf(rules)), SMALL).matcher()
    except tm.errors.UnsatisfiableError:
        assert not earley.productive(rules)["root"]
        return
    for _ in range(data.draw(st.integers(1, 8))):
        _, complete = earley.recognize(rules, "root", text)
        expected = reference.mask(
            lambda token, text=text: earley.recognize(rules, "root", text + token.decode())[0],
            complete,
            PIECES,
            {EOS},
            [EOS],
        )
        row = matcher.mask_row()
        assert np.array_equal(row, expected), (text, as_ebnf(rules))
        assert np.array_equal(matcher.plain_row(), expected)
        assert matcher.is_accepting() == complete
        allowed = np.flatnonzero(bits(expected)[:EOS])
        for token in range(EOS):
            assert matcher.is_allowed(token) == (token in allowed)
        if not len(allowed):
            break
        token = int(data.draw(st.sampled_from(allowed.tolist())))
        matcher.accept(token)
        text += PIECES[token].decode()


AMBIGUOUS = {
    "sum": 'root ::= root "+" root | root "*" root | "(" root ")" | "a"',
    "doubled": 'root ::= root root | "a"',
    "empty": 'root ::= root root | x\nx ::= "a"?',
    "hidden": 'root ::= x root "b" | "a"\nx ::= "c"*',
    "mutual": 'root ::= x "a" | "b"\nx ::= root "b" | x "a" | ""',
    "two_ways": 'root ::= "a" root "c" | x root "d" | ""\nx ::= "a"',
    "right": 'root ::= "a" root | ""',
    "counted": 'root ::= x{2,9} "b"\nx ::= "(" root ")" | "a"',
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguity_keeps_states_small(name):
    """Deep in a text, memory stays bounded by the grammar's size times the depth."""
    grammar = tm.compile(tm.Grammar.ebnf(AMBIGUOUS[name]), SMALL)
    matcher = grammar.matcher()
    count = 0
    for _ in range(300):
        for token in (0, 13):  # "a" or "c"
            count += matcher.accept_prefix([token])
        if name == "sum":
            break
    assert matcher.mask_row().any()
    assert grammar.memory_bytes < 40 << 20
    assert count


def test_right_recursion_needs_no_stack():
    grammar = tm.compile(tm.Grammar.ebnf(AMBIGUOUS["right"]), SMALL)
    matcher = grammar.matcher()
    before = None
    for i in range(2000):
        matcher.accept(0)
        if i == 10:
            before = grammar.memory_bytes
    assert grammar.memory_bytes == before


def test_counts_are_not_written_out():
    grammar = tm.compile(tm.Grammar.ebnf('root ::= [ab]{3,100000} x{2,100000}\nx ::= "(" root? ")"'), SMALL)
    matcher = grammar.matcher()
    matcher.accept(EOS - 9)  # "aa"
    assert not matcher.is_allowed(2)
    matcher.accept(0)
    assert matcher.is_allowed(2)
    assert grammar.memory_bytes < 1 << 20


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ('root ::= "a', 1, 10, "closing quote"),
        ("root ::= x", 1, 10, "not defined"),
        ('root ::= "a"\nroot ::= "b"', 2, 1, "twice"),
        ('root ::= ("a"', 1, 10, "unbalanced ("),
        ('root ::= "a")', 1, 13, "unbalanced )"),
        ("root ::= [b-a]", 1, 12, "out of order"),
        ('root ::= "a"{2,1}', 1, 13, "out of order"),
        ('root ::= * "a"', 1, 10, "nothing to repeat"),
        ("root = x", 1, 6, "::="),
        ('start ::= "a"', 1, 1, "no rule 'root'"),
        (r'root ::= "\q"', 1, 11, "unknown escape"),
    ],
)
def test_errors_name_the_place(text, line, column, message):
    with pytest.raises(tm.errors.GrammarError) as caught:
        tm.Grammar.ebnf(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert message.replace("'", '"') in str(caught.value)
    assert "^" in str(caught.value)


def test_a_rule_that_never_ends_is_refused():
    with pytest.raises(tm.errors.UnsatisfiableError):
        tm.Grammar.ebnf('root ::= "a" root')
    with pytest.raises(tm.errors.GrammarError, match="counted repetition"):
        tm.Grammar.ebnf('root ::= root{9,99} "a" | "b"')


def test_too_many_threads_are_a_limit_and_not_a_rejection():
    rules = "root ::= " + " | ".join(f"[ab]{{{i},100}} x" for i in range(1, 40))
    rules += '\nx ::= "(" x ")" | "c"'
    matcher = tm.compile(tm.Grammar.ebnf(rules), SMALL, limits=tm.Limits(threads=5)).matcher()
    assert bits(matcher.mask_row())[0]
    for check in (matcher.accept, matcher.is_allowed, lambda i: matcher.accept_prefix([i])):
        with pytest.raises(tm.errors.LimitError):
            check(0)
    assert not matcher.is_terminated()


def test_special_tokens_stand_for_themselves():
    pieces = [b"a", b"b", b"<think>", b"</think>", b""]
    names = {"<think>": 2, "</think>": 3, "<end>": 4}
    vocabulary = tm.Vocabulary(pieces, special=names, eos_ids=[4])
    text = 'root ::= (<think> "a"* </think>)? "b"+ <[3]>?'
    matcher = tm.compile(tm.Grammar.ebnf(text), vocabulary).matcher()
    assert matcher.mask_row().tolist() == [0b00110]
    matcher.accept(2)
    assert matcher.mask_row().tolist() == [0b01001]
    matcher.accept(3)
    assert not matcher.is_allowed(2)
    matcher.accept(1)
    assert matcher.mask_row().tolist() == [0b11010]
    assert matcher.plain_row().tolist() == [0b11010]
    matcher.accept(3)
    assert matcher.mask_row().tolist() == [0b10000]
    with pytest.raises(tm.errors.VocabularyError, match="<other>"):
        tm.compile(tm.Grammar.ebnf("root ::= <other>"), vocabulary)


MUTABLE = 'root ::= "a" (x | [a-z]{2,3})* "\\x41"? # note\nx ::= "(" root ")" | .'


@given(st.data())
def test_mutated_grammars_are_read_or_refused(data):
    text = list(MUTABLE)
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.text('"()[]{}|*+?<>#\\:=ax1,é\n', max_size=3)
        )
        text = text or ["x"]
    try:
        matcher = tm.compile(tm.Grammar.ebnf("".join(text)), SMALL).matcher()
    except (
        tm.errors.GrammarError,
        tm.errors.LimitError,
        tm.errors.VocabularyError,
        tm.errors.UnknownTokenError,
    ):
        return
    assert np.array_equal(matcher.mask_row(), matcher.plain_row())
