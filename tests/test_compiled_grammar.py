"""Compiled grammars: files, the cache, and bounds on the time that reading takes."""

import json
import signal
import threading

import numpy as np
import pytest

import tokamask as tm

VOCABULARY = tm.Vocabulary([bytes([b]) for b in range(256)] + [b"</s>"], special={"</s>": 256}, eos_ids=[256])
GRAMMARS = {
    "schema": tm.Grammar.json_schema(
        {"type": "object", "properties": {"a": {"$ref": "urn:x"}}},
        whitespace=2,
        property_order="schema",
        resources={"urn:x": {"type": "string", "format": "date"}},
    ),
    "regex": tm.Grammar.regex("a+b?"),
    "ebnf": tm.Grammar.ebnf('top ::= "a" top | "b"', root="top"),
    "lark": tm.Grammar.lark('start: "a" start | "b"'),
    "tag": tm.Grammar.structural_tag([{"begin": "<f>", "schema": {}, "end": "</f>"}], ["<f>"]),
    "choice": tm.Grammar.choice(["yes", "no"]),
}
# Each property costs some milliseconds: a conjunction of patterns with thousands of states.
SLOW = json.dumps(
    {
        "properties": {
            f"p{i}": {"type": "string", "pattern": f"^[ab]*a[ab]{{11}}{i}$", "not": {"pattern": "c"}}
            for i in range(20_000)
        }
    }
)


@pytest.mark.parametrize("name", GRAMMARS)
def test_a_saved_grammar_allows_the_same(name, tmp_path):
    compiled = tm.compile(GRAMMARS[name], VOCABULARY)
    compiled.save(tmp_path / "grammar")
    loaded = tm.CompiledGrammar.load(tmp_path / "grammar", VOCABULARY)
    one, other = compiled.matcher(), loaded.matcher()
    for _ in range(12):
        np.testing.assert_array_equal(one.mask_row(), other.mask_row())
        allowed = np.flatnonzero(np.unpackbits(one.mask_row().view(np.uint8), bitorder="little"))
        if not len(allowed) or allowed[0] == 256:
            break
        one.accept(int(allowed[0]))
        other.accept(int(allowed[0]))


def test_a_file_of_another_vocabulary_or_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "grammar"
    tm.compile(GRAMMARS["regex"], VOCABULARY).save(path)
    other = VOCABULARY.with_(vocab_size=300)
    with pytest.raises(tm.errors.VocabularyError, match="another vocabulary"):
        tm.CompiledGrammar.load(path, other)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(tm.errors.VocabularyError, match="checksum"):
        tm.CompiledGrammar.load(path, VOCABULARY)
    with pytest.raises(FileNotFoundError):
        tm.CompiledGrammar.load(tmp_path / "nothing", VOCABULARY)


def test_equal_grammars_share_what_they_learn():
    def compiled(pattern, **options):
        return tm.compile(tm.Grammar.regex(pattern), VOCABULARY, **options)

    first = compiled("[a-z]{3}shared")
    first.matcher().mask_row()
    learned = first.memory_bytes
    assert learned > 0
    assert compiled("[a-z]{3}shared").memory_bytes == learned
    assert compiled("[a-z]{3}shared", cache=False).memory_bytes < learned
    assert compiled("[a-z]{3}shared", limits=tm.Limits(threads=7)).memory_bytes < learned
    assert tm.compile(tm.Grammar.regex("[a-z]{3}shared"), VOCABULARY.with_(vocab_size=300)).vocab_size == 300


def test_the_cache_is_bounded():
    first = tm.compile(tm.Grammar.regex("bounded"), VOCABULARY)
    first.matcher().mask_row()
    for i in range(40):
        tm.compile(tm.Grammar.regex(f"bounded{i}"), VOCABULARY)
    assert tm.compile(tm.Grammar.regex("bounded"), VOCABULARY).memory_bytes < first.memory_bytes


def test_reading_ends_with_its_time():
    with pytest.raises(tm.errors.LimitError) as error:
        tm.Grammar.json_schema(SLOW, limits=tm.Limits(seconds=0.05))
    assert error.value.limit == "seconds"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers on this system")
def test_an_interrupt_ends_reading():
    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        # Without the interrupt it would be a LimitError.
        with pytest.raises(Stop):
            tm.Grammar.json_schema(SLOW, limits=tm.Limits(seconds=20))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def accepts(grammar, text: str) -> bool:
    matcher = tm.compile(grammar, VOCABULARY).matcher()
    data = text.encode()
    return matcher.accept_prefix(list(data)) == len(data) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "number", "minimum": 0}, ["1e-06", "1.5E+16", "0", "2e0"], ["-1e-06", "10e2"]),
        (
            {"type": "number", "exclusiveMinimum": 0.5, "maximum": 1200},
            ["6e-1", "5.1e-01", "1.2e3", "1.2e+003", "9.9e2"],
            ["5e-1", "4e-1", "1.21e3", "1e4", "-6e-1"],
        ),
        ({"type": "number", "maximum": -1e-5}, ["-1e-05", "-1e-4", "-3E2"], ["-1e-06", "1e-4"]),
        ({"type": "number", "minimum": 0, "multipleOf": 0.5}, ["1.5"], ["1.5e0", "1e-1"]),
    ],
)
def test_bounded_numbers_may_have_an_exponent(schema, right, wrong):
    grammar = tm.Grammar.json_schema(schema)
    assert all(accepts(grammar, text) for text in right)
    assert not any(accepts(grammar, text) for text in wrong)


@pytest.mark.parametrize(
    "schema",
    [
        {"contains": {"const": 1}, "maxItems": 2},
        {"contains": {"const": 1}, "minContains": 2, "maxContains": 2, "minItems": 3, "maxItems": 3},
        {"prefixItems": [{"const": 0}], "items": {"enum": [1, 2]}, "contains": {"const": 2}, "maxItems": 3},
        {
            "allOf": [{"contains": {"const": 1}}, {"contains": {"const": 2}}],
            "items": {"enum": [1, 2, 3]},
            "maxItems": 3,
        },
    ],
)
def test_every_array_that_is_begun_can_be_ended(schema):
    jsonschema = pytest.importorskip("jsonschema")
    schema = {"type": "array", "items": {"enum": [0, 1, 2]}, **schema}
    compiled = tm.compile(tm.Grammar.json_schema(schema, whitespace="compact"), VOCABULARY)
    todo, ended = [(compiled.matcher(), "")], 0
    while todo:
        matcher, text = todo.pop()
        bits = np.flatnonzero(np.unpackbits(matcher.mask_row().view(np.uint8), bitorder="little"))
        assert len(bits), text
        for token_id in bits:
            if token_id == 256:
                jsonschema.validate(json.loads(text), schema)
                ended += 1
            elif len(text) < 8:
                after = matcher.fork()
                after.accept(int(token_id))
                todo.append((after, text + chr(token_id)))
    assert ended


def test_an_array_that_cannot_hold_what_it_must_is_refused():
    schema = {"type": "array", "items": {"const": 0}, "contains": {"const": 1}, "maxItems": 3}
    with pytest.raises(tm.errors.UnsatisfiableError):
        tm.Grammar.json_schema(schema)


def test_an_ordinary_token_named_by_its_id_may_be_meant_or_spelled():
    grammar = tm.Grammar.ebnf(f'root ::= <[{ord("a")}]> "x" | "a" "y"')
    matcher = tm.compile(grammar, VOCABULARY).matcher()
    matcher.accept(ord("a"))
    assert matcher.is_allowed(ord("x"))
    assert matcher.is_allowed(ord("y"))


@pytest.mark.parametrize("asked", [0, 2])
def test_a_handle_cancels_reading(asked):
    answers = iter([False] * asked + [True] * 10)
    limits = tm.Limits(seconds=20, cancelled=lambda: next(answers))
    with pytest.raises(tm.errors.LimitError) as error:
        tm.Grammar.json_schema(SLOW, limits=limits)
    assert error.value.limit == "cancelled"


def test_another_thread_may_cancel():
    event, outcome = threading.Event(), []

    def read():
        try:
            tm.Grammar.json_schema(SLOW, limits=tm.Limits(seconds=60, cancelled=event.is_set))
        except tm.errors.LimitError as error:
            outcome.append(error.limit)

    thread = threading.Thread(target=read)
    thread.start()
    event.set()
    thread.join(30)
    assert outcome == ["cancelled"]


def test_what_the_handle_raises_comes_out():
    def ask():
        raise RuntimeError("nobody knows")

    with pytest.raises(RuntimeError, match="nobody knows"):
        tm.Grammar.regex("a+", limits=tm.Limits(cancelled=ask))


PATTERNS = {
    "type": "object",
    "properties": {
        "mail": {"type": "string", "format": "email"},
        "id": {"type": "string", "pattern": "^[a-f0-9]{8}(-[a-f0-9]{4})*$"},
        "name": {"type": "string", "pattern": "[\\w-]+"},
        "text": {"type": "string"},
    },
    "patternProperties": {"^x[a-z]+$": {"type": "integer"}},
    "required": ["mail", "id"],
}


@pytest.mark.parametrize(
    "grammar",
    [
        tm.Grammar.json_schema(PATTERNS),
        tm.Grammar.lark('start: (NAME "=" /[0-9a-f]+/ ";")+\nNAME: /[a-zA-Z_][\\w]*/\n%ignore " "'),
        tm.Grammar.regex("[a-z]+@[a-z.]+"),
    ],
)
def test_rows_made_ahead_are_those_of_a_plain_walk(grammar):
    tokenizer = tm.Tokenizer.default()
    ahead = tm.compile(grammar, tokenizer.vocabulary, cache=False)
    made = ahead.fill_ahead(wait=True)
    assert made > 0 or grammar.description == "regex"
    plain = tm.compile(grammar, tokenizer.vocabulary, cache=False)
    texts = [
        '{"mail": "ab.c@example.org", "id": "0123abcd-00ff", "name": "a-b", "xyz": 3}',
        "ab = 0f; c_9=1;",
        "a@b.c",
    ]
    for text in texts:
        one, other = ahead.matcher(), plain.matcher()
        for token in tokenizer.encode(text):
            row = one.mask_row()
            np.testing.assert_array_equal(row, other.plain_row())
            if not one.is_allowed(token):
                break
            one.accept(token)
            other.accept(token)


def test_rows_made_on_the_other_thread_come_while_masks_are_asked_for():
    tokenizer = tm.Tokenizer.default()
    ids = tokenizer.encode('{"mail": "ab.c@example.org", "id": "0123abcd-00ff"}')
    for turn in range(3):
        compiled = tm.compile(tm.Grammar.json_schema(PATTERNS | {"title": str(turn)}), tokenizer.vocabulary)
        assert compiled.fill_ahead() == 1
        matcher = compiled.matcher()
        for token in ids:
            np.testing.assert_array_equal(matcher.mask_row(), matcher.plain_row())
            matcher.accept(token)


def test_a_small_bound_of_rows_is_kept_and_changes_nothing():
    tokenizer = tm.Tokenizer.default()
    schema = {"type": "object", "additionalProperties": {"type": "string", "format": "email"}}
    tight = tm.compile(
        tm.Grammar.json_schema(schema), tokenizer.vocabulary, limits=tm.Limits(row_bytes=20_000)
    )
    free = tm.compile(tm.Grammar.json_schema(schema), tokenizer.vocabulary)
    text = json.dumps({f"name {i}": f"user{i}.x@host{i}.org" for i in range(12)})
    for _ in range(2):
        one, other = tight.matcher(), free.matcher()
        for token in tokenizer.encode(text):
            np.testing.assert_array_equal(one.mask_row(), other.mask_row())
            one.accept(token)
            other.accept(token)
        assert tight.memory_bytes < free.memory_bytes


@pytest.mark.parametrize(
    ("schema", "many"),
    [
        ({"patternProperties": {"^[ab]{6}$": {"type": "null"}}, "additionalProperties": False, "minProperties": 65}, False),
        ({"patternProperties": {"^[ab]{6}$": {"type": "null"}}, "additionalProperties": False, "minProperties": 64}, True),
        ({"patternProperties": {"^[a-j]{2}$": {"type": "null"}}, "properties": {"aa": False},
          "additionalProperties": False, "minProperties": 100}, False),
        ({"patternProperties": {"^[a-j]{2}$": {"type": "null"}}, "properties": {"aa": False},
          "additionalProperties": False, "minProperties": 99}, True),
    ],
)  # fmt: skip
def test_no_object_runs_out_of_names(schema, many):
    schema = {"type": "object", **schema}
    if not many:
        with pytest.raises(tm.errors.UnsatisfiableError):
            tm.compile(tm.Grammar.json_schema(schema), VOCABULARY)
        return
    matcher = tm.compile(tm.Grammar.json_schema(schema, whitespace="compact"), VOCABULARY).matcher()
    rng = np.random.default_rng(1)
    for _ in range(3000):
        allowed = np.flatnonzero(np.unpackbits(matcher.mask_row().view(np.uint8), bitorder="little"))
        assert len(allowed)
        if matcher.is_accepting():
            return
        matcher.accept(int(rng.choice(allowed)))
    raise AssertionError("it never ends")
