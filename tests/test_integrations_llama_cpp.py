"""llama-cpp-python: its processor and draft model, over its own loop in small and, where it is installed, in it."""

import abc
import ast
import importlib.util
import inspect
import json

import engine_sources
import jsonschema
import numpy as np
import pytest

import tokamask as tm

VERSION = "0.3.36"
INSTALLED = importlib.util.find_spec("llama_cpp") is not None
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "ages": {"type": "array", "items": {"enum": [1, 22]}, "maxItems": 3}},
    "required": ["name", "ages"],
    "additionalProperties": False,
}  # fmt: skip


class LlamaDraftModel(abc.ABC):
    """As llama_cpp.llama_speculative has it."""

    @abc.abstractmethod
    def __call__(self, input_ids, /, **kwargs): ...


@pytest.fixture(scope="module")
def adapter():
    if INSTALLED:
        yield importlib.import_module("tokamask.integrations.llama_cpp")
        return
    given = {"llama_cpp.llama_speculative": {"LlamaDraftModel": LlamaDraftModel}}
    with engine_sources.imported("tokamask.integrations.llama_cpp", "llama_cpp", {}, given) as module:
        yield module


WORDS = [b'"name"', b'"ages"', b": ", b"ab"]
END = 256 + len(WORDS)
VOCABULARY = tm.Vocabulary(
    [*(bytes([b]) for b in range(256)), *WORDS, b"<end>"], special={"<end>": END}, eos_ids=[END]
)


def generate(prompt, n, processor=None, draft=None, seed=0):
    """llama-cpp-python's loop, with a model whose choice is a fixed function of the last three tokens."""
    ids, place, tokens = [], len(prompt) - 1, list(prompt)
    out, passes = [], 0
    while True:
        ids, passes = ids + tokens, passes + 1
        while place < len(ids):
            key = hash((seed, *ids[max(place - 2, 0) : place + 1])) % (1 << 32)
            scores = np.random.default_rng(key).standard_normal(len(VOCABULARY)).astype(np.float32)
            strided = np.zeros((len(scores), 3), np.float32)[:, 1]  # a field of an array of records
            strided[:] = scores
            if processor is not None:
                strided[:] = processor(np.array(ids, np.intc), strided)
            token = int(strided.argmax())
            place += 1
            out.append(token)
            if token == END or len(out) == n:
                return out, passes
            tokens = [token]
            if place < len(ids) and token != ids[place]:
                ids = ids[:place]
                break
        if draft is not None:
            tokens = [token, *draft(np.array([*ids[:place], token], np.intc)).astype(int).tolist()]


PROMPT = [1, 2, 3, 1, 2, 3, 1]


def compiled(schema=SCHEMA):
    return tm.compile(tm.Grammar.json_schema(schema, whitespace="compact"), VOCABULARY)


def test_only_what_the_grammar_allows(adapter):
    processor = adapter.GrammarLogitsProcessor(compiled())
    for seed in range(3):  # a new text is a new request
        out, _ = generate(PROMPT, 200, processor, seed=seed)
        assert out[-1] == END
        jsonschema.validate(json.loads(b"".join(VOCABULARY.bytes(i) for i in out[:-1])), SCHEMA)


def test_scores_are_left_alone_after_the_end(adapter):
    processor = adapter.GrammarLogitsProcessor(compiled({"const": 1}))
    scores = np.ones(len(VOCABULARY), np.float32)
    ids = [*PROMPT, 49, END, 7]
    for end in range(len(PROMPT), len(ids) + 1):
        masked = processor(np.array(ids[:end], np.intc), scores)
        assert masked.dtype == np.float32
        if end == len(PROMPT):
            assert np.isfinite(masked).sum() == 1
        if end > len(PROMPT) + 1:
            break
    assert np.isfinite(masked).all()
    assert (scores == 1).all()


@pytest.mark.parametrize("constrained", [False, True])
def test_drafts_change_nothing_but_the_number_of_passes(adapter, constrained):
    drafter = tm.Drafter(recycle=0)
    make = (lambda: adapter.GrammarLogitsProcessor(compiled())) if constrained else (lambda: None)
    plain, passes = generate(PROMPT, 60, make())
    assert passes == len(plain)
    draft = adapter.DraftModel(drafter, budget=6)
    for _ in range(2):  # the second time from memory
        draft.grammar = make()
        drafted, fewer = generate(PROMPT, 60, draft.grammar, draft)
        assert drafted == plain
    assert fewer < passes / 2


def test_the_drafts_keep_to_the_grammar(adapter):
    draft = adapter.DraftModel(budget=8)
    draft.grammar = adapter.GrammarLogitsProcessor(compiled({"enum": ["abcde", "xyz"]}))
    scores = np.zeros(len(VOCABULARY), np.float32)
    draft.grammar(np.array(PROMPT, np.intc), scores)
    guesses = draft(np.array([*PROMPT, ord('"')], np.intc))
    assert guesses.dtype == np.intc
    draft.grammar(np.array([*PROMPT, ord('"')], np.intc), scores)
    guesses = draft(np.array([*PROMPT, ord('"'), ord("x")], np.intc))
    assert bytes(guesses.tolist()[:3]) == b'yz"'


# What follows needs the package itself.


@pytest.fixture(scope="module")
def package():
    if not INSTALLED:
        pytest.skip(f"llama-cpp-python {VERSION} is not installed")
    return pytest.importorskip("llama_cpp")


def test_signatures_are_those_of_the_package():
    root = engine_sources.folder("llama_cpp")
    if root is None:
        pytest.skip(f"llama-cpp-python {VERSION} is absent: its signatures are not compared")
    source = ast.parse((root / "llama_speculative.py").read_text())
    base = next(n for n in source.body if isinstance(n, ast.ClassDef) and n.name == "LlamaDraftModel")
    call = next(n for n in base.body if isinstance(n, ast.FunctionDef) and n.name == "__call__")
    ours = inspect.signature(LlamaDraftModel.__call__)
    assert [a.arg for a in (*call.args.posonlyargs, call.args.kwarg)] == list(ours.parameters)
    text = (root / "llama.py").read_text()
    assert "recarray.logit[:] = logit_processor(self._input_ids, recarray.logit)" in text
    assert [len(c.args) for c in engine_sources.calls(root / "llama.py", "draft_model")] == [1]


@pytest.fixture(scope="module")
def llama(package, smollm2_gguf):
    return lambda **options: package.Llama(
        str(smollm2_gguf), n_ctx=512, n_threads=1, seed=1, verbose=False, logits_all=True, **options
    )


def test_the_real_engine_keeps_to_the_schema(package, llama):
    from tokamask.integrations.llama_cpp import DraftModel, GrammarLogitsProcessor

    model = llama()
    vocabulary = tm.Vocabulary.from_tokenizer(model)
    assert model.token_eos() in vocabulary.eos_ids
    assert vocabulary.bytes(vocabulary.id(b" the")) == b" the"
    grammar = tm.compile(tm.Grammar.json_schema(SCHEMA, whitespace="compact"), vocabulary)
    prompt = "A person as JSON, with name and ages, then the same person again: "

    def complete(engine, processor, **options):
        processors = package.LogitsProcessorList([] if processor is None else [processor])
        made = engine.create_completion(prompt, max_tokens=40, logits_processor=processors, **options)
        return made["choices"][0]["text"]

    plain = complete(model, GrammarLogitsProcessor(grammar), temperature=0)
    jsonschema.validate(json.loads(plain), SCHEMA)
    for seed in range(1):
        sampled = complete(model, GrammarLogitsProcessor(grammar), temperature=1.5, seed=seed)
        jsonschema.validate(json.loads(sampled), SCHEMA)
    # With drafts llama.cpp computes several positions at once, and its logits differ by rounding: where two tokens
    # were about equal, the text may go another way, so the masks are compared and not the texts.
    seen = {}

    class Watched(GrammarLogitsProcessor):
        def __call__(self, input_ids, scores):
            masked = super().__call__(input_ids, scores)
            place = tuple(self._known.tolist())
            before = seen.setdefault(place, (np.isfinite(masked), int(masked.argmax()), np.sort(masked)[-2:]))
            assert (before[0] == np.isfinite(masked)).all()
            assert before[1] == masked.argmax() or np.diff(before[2]) < 2
            return masked

    complete(model, Watched(grammar), temperature=0)
    places = len(seen)
    draft = DraftModel(budget=5)
    drafted = llama(draft_model=draft)
    for _ in range(2):
        draft.grammar = Watched(grammar)
        jsonschema.validate(json.loads(complete(drafted, draft.grammar, temperature=0)), SCHEMA)
    assert places > 10
    draft.grammar = None
    assert complete(drafted, None, temperature=0)
