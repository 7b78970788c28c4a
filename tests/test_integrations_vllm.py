"""vLLM: the backend and the proposer against its base classes and call sites; the engine itself is not run."""

import ast
import inspect
import json
import types

import engine_sources
import numpy as np
import pytest

import tokamask as tm

VERSION = "0.33.0"
TYPES = "vllm.v1.structured_output.backend_types"
WIDTH = 300


@pytest.fixture(scope="module")
def tokenizer():
    """A fast tokenizer's outside: the 256 bytes, some words, an end, a tool-call token."""
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = ["true", "false", '{"']
    vocab = {token: i for i, token in enumerate([*alphabet, *words])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
    backend.decoder = tokenizers.decoders.ByteLevel()
    special = [tokenizers.AddedToken(name, special=True) for name in ("<end>", "<stop>", "<|call|>")]
    backend.add_special_tokens(special)
    return types.SimpleNamespace(backend_tokenizer=backend, eos_token_id=backend.token_to_id("<end>"))


@pytest.fixture(scope="module", params=["stand-ins", "sources"])
def adapter(request):
    real = {}
    exceptions = type("VLLMValidationError", (ValueError,), {})
    given = {
        TYPES: engine_sources.vllm_stand_ins(),
        "vllm.exceptions": {"VLLMValidationError": exceptions},
        "vllm.v1.structured_output.request": {"get_structured_output_key": lambda params: params},
    }
    if request.param == "sources":
        root = engine_sources.needed("vllm", VERSION)
        real = {TYPES: root / "v1" / "structured_output" / "backend_types.py"}
    with engine_sources.imported("tokamask.integrations.vllm", "vllm", real, given) as module:
        yield module


def backend_of(adapter, tokenizer, *, compact=False, closed=False, width=WIDTH):
    options = types.SimpleNamespace(disable_any_whitespace=compact, disable_additional_properties=closed)
    config = types.SimpleNamespace(structured_outputs_config=options)
    return adapter.TokamaskBackend(config, tokenizer=tokenizer, vocab_size=width)


def ids_of(tokenizer, text):
    return [tokenizer.backend_tokenizer.token_to_id(c) for c in text]


def kinds(adapter):
    return adapter.StructuredOutputOptions


def test_a_request_from_start_to_end(adapter, tokenizer):
    backend = backend_of(adapter, tokenizer)
    grammar = backend.compile_grammar(kinds(adapter).REGEX, "ab*")
    a, b = ids_of(tokenizer, "ab")
    mask = tm.allocate_bitmask(2, WIDTH)
    grammar.fill_bitmask(mask, 1)
    assert (mask[0] == -1).all()
    assert np.flatnonzero(np.unpackbits(mask[1].view(np.uint8), bitorder="little")).tolist() == [a]
    assert grammar.validate_tokens([a, b, a]) == [a, b]
    assert grammar.validate_tokens([a, b, -1, -1]) == [a, b]
    assert grammar.validate_tokens([b]) == []
    assert grammar.accept_tokens("r", [a, b])
    assert not grammar.accept_tokens("r", [a])
    assert not grammar.is_terminated()
    assert grammar.accept_tokens("r", [tokenizer.eos_token_id])
    assert grammar.is_terminated()
    assert grammar.accept_tokens("r", [a])  # after the end nothing is asked
    assert grammar.validate_tokens([a]) == []
    grammar.rollback(1)
    assert not grammar.is_terminated()
    grammar.reset()
    assert grammar.validate_tokens([a]) == [a]


@pytest.mark.parametrize(
    ("kind", "spec", "good", "bad"),
    [
        ("JSON", '{"type": "boolean"}', "true", "1"),
        ("JSON_OBJECT", "", '{"x": 1}', "[1]"),
        ("REGEX", "[ab]+", "ab", "c"),
        ("GRAMMAR", 'root ::= "(" root? ")"', "(())", "x"),
        ("GRAMMAR", 'start: "a"+', "aa", "b"),
        ("CHOICE", '["yes", "no"]', "yes", "maybe"),
        (
            "STRUCTURAL_TAG",
            json.dumps({"structures": [{"begin": "<f>", "schema": {}, "end": "</f>"}], "triggers": ["<f"]}),
            "x <f>1</f>",
            "<f>?",
        ),
    ],
)
def test_every_kind_of_request(adapter, tokenizer, kind, spec, good, bad):
    backend = backend_of(adapter, tokenizer)
    for text, fits in ((good, True), (bad, False)):
        grammar = backend.compile_grammar(kinds(adapter)[kind], spec)
        ids = ids_of(tokenizer, text.replace(" ", "\u0120"))
        assert grammar.accept_tokens("r", [*ids, tokenizer.eos_token_id]) == fits


def test_options_of_the_engine(adapter, tokenizer):
    schema = '{"type": "object", "properties": {"a": {}, "b": {}}}'

    def takes(backend, text):
        ids = ids_of(tokenizer, text.replace(" ", "\u0120"))
        return backend.compile_grammar(kinds(adapter).JSON, schema).accept_tokens("r", ids)

    assert takes(backend_of(adapter, tokenizer), '{"a": 1, "c": 2}')
    assert not takes(backend_of(adapter, tokenizer, compact=True), '{"a": 1}')
    assert not takes(backend_of(adapter, tokenizer, closed=True), '{"c')
    assert not takes(backend_of(adapter, tokenizer), '{"b": 1, "a"')  # in the order declared


def test_stop_ids_of_a_request_end_it_and_are_no_text(adapter, tokenizer):
    backend = backend_of(adapter, tokenizer)
    a = ids_of(tokenizer, "a")[0]
    stop = tokenizer.backend_tokenizer.token_to_id("<stop>")
    grammar = backend.compile_grammar(kinds(adapter).REGEX, "[a-c]+", {stop, a})
    assert grammar.validate_tokens([a]) == []
    assert grammar.accept_tokens("r", [*ids_of(tokenizer, "bc"), a])
    assert grammar.is_terminated()


def test_equal_requests_share_one_grammar(adapter, tokenizer):
    backend = backend_of(adapter, tokenizer)
    one, two = (backend.compile_grammar(kinds(adapter).REGEX, "a{3}", {s}) for s in (259, 259))
    assert one._matcher is not two._matcher
    info = backend._compiler._compiled.cache_info()
    assert (info.hits, info.misses) == (1, 1)
    backend.destroy()
    assert backend._compiler._compiled.cache_info().currsize == 0


def test_logits_narrower_than_the_tokenizer(adapter, tokenizer):
    backend = backend_of(adapter, tokenizer, width=260)
    assert len(backend._compiler.vocabulary) == 260


def test_bad_requests_are_refused_with_their_place(adapter, tokenizer):
    with pytest.raises(tm.errors.GrammarError):
        backend_of(adapter, tokenizer).compile_grammar(kinds(adapter).REGEX, "(")
    with pytest.raises(tm.errors.GrammarError) as caught:
        backend_of(adapter, tokenizer, closed=True).compile_grammar(kinds(adapter).JSON, '{"a": }')
    assert (caught.value.line, caught.value.column) == (1, 7)
    params = types.SimpleNamespace(structured_outputs=(kinds(adapter).JSON, '{"type": "nul"}'))
    with pytest.raises(adapter.VLLMValidationError, match="/type"):
        adapter.validate_grammar(params)
    params.structured_outputs = (kinds(adapter).JSON, '{"type": "null"}')
    adapter.validate_grammar(params)
    adapter.validate_grammar(types.SimpleNamespace(structured_outputs=None))


def test_the_bitmask_is_a_tensor(adapter, tokenizer):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    mask = backend_of(adapter, tokenizer).allocate_token_bitmask(3)
    assert mask.dtype == torch.int32
    assert tuple(mask.shape) == (3, 10)
    grammar = backend_of(adapter, tokenizer).compile_grammar(kinds(adapter).REGEX, "a")
    grammar.fill_bitmask(mask, 2)
    assert int(mask[2].count_nonzero()) == 1


def proposer_of(adapter, budget=4, longest=64, **extra):
    return adapter.DraftProposer(
        types.SimpleNamespace(
            speculative_config=types.SimpleNamespace(num_speculative_tokens=budget),
            model_config=types.SimpleNamespace(max_model_len=longest),
            additional_config={"tokamask": extra},
        )
    )


def table(rows, longest=64):
    out = np.zeros((len(rows) + 1, longest), np.int32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def test_drafts_follow_requests_that_change_rows(adapter):
    proposer = proposer_of(adapter)
    one, two = [1, 2, 3, 4, 5, 1, 2], [7, 8, 9, 7, 8]
    drafts = proposer.propose([[2], [8]], np.array([7, 5]), table([one, two]))
    assert drafts[0][:3] == [3, 4, 5]
    assert drafts[1][0] == 9
    before = [followed._session for followed in proposer._sessions]
    # The rows change places; a third request comes whose prompt is still being read.
    one, two = [*one, 3], [*two, 9]
    drafts = proposer.propose([[9], [3], []], np.array([6, 8, 4]), table([two, one, [1, 2, 3, 4]]))
    assert [followed._session for followed in proposer._sessions[:2]] == before[::-1]
    assert drafts[1][:2] == [4, 5]
    assert drafts[2] == []
    proposer.propose([[5]], np.array([9]), table([[*one, 5]]))
    assert len(proposer._sessions) == 1  # what left the batch is gone
    assert proposer._sessions[0]._session is before[0]


def test_drafts_end_where_the_model_does(adapter):
    proposer = proposer_of(adapter, budget=4, longest=9)
    tokens = [1, 2, 3, 1, 2, 3, 1, 2]
    assert proposer.propose([[2]], np.array([8]), table([tokens], 9)) == [[]]
    assert proposer.propose([[2]], np.array([9]), table([[*tokens, 3]], 9)) == [[]]
    assert (
        len(proposer_of(adapter, budget=4, longest=11).propose([[2]], np.array([8]), table([tokens], 11))[0])
        == 2
    )


def test_the_proposer_takes_options_and_has_no_model(adapter):
    proposer = proposer_of(adapter, verify_cost=[1.0, 1000.0])
    tokens = [1, 2, 3, 1, 2, 3, 1, 2]
    assert proposer.propose([[2]], np.array([8]), table([tokens])) == [[]]  # never worth it
    proposer.load_model("anything")


# What follows needs vLLM's sources.


def parameters(function):
    return [p.name for p in inspect.signature(function).parameters.values()]


def test_signatures_are_those_of_the_base_classes(adapter):
    engine_sources.needed("vllm", VERSION)
    if not adapter.StructuredOutputGrammar.__abstractmethods__:
        pytest.skip("stand-ins have no signatures to compare")
    for ours, theirs in (
        (adapter.TokamaskGrammar, adapter.StructuredOutputGrammar),
        (adapter.TokamaskBackend, adapter.StructuredOutputBackend),
    ):
        assert not ours.__abstractmethods__
        for name in theirs.__abstractmethods__:
            assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name)), name
    assert parameters(adapter.TokamaskBackend) == ["vllm_config", "tokenizer", "vocab_size"]
    assert set(adapter.KINDS) == set(adapter.StructuredOutputOptions)


def test_what_install_replaces_is_what_the_engine_uses():
    root = engine_sources.needed("vllm", VERSION)
    manager = (root / "v1" / "structured_output" / "__init__.py").read_text()
    assert "from vllm.v1.structured_output.backend_guidance import GuidanceBackend" in manager
    made = engine_sources.calls(root / "v1" / "structured_output" / "__init__.py", "GuidanceBackend")
    assert [[k.arg for k in call.keywords] for call in made] == [["tokenizer", "vocab_size"]]
    assert 'request_backend == "guidance"' in manager
    # Requests are checked by names that are looked up in the module at each call.
    source = ast.parse((root / "sampling_params.py").read_text())
    inner = [
        {alias.name for alias in node.names}
        for function in ast.walk(source)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("backend_guidance")
    ]
    assert any({"GuidanceBackend", "validate_guidance_grammar"} <= names for names in inner)
    for call in engine_sources.calls(root / "sampling_params.py", "validate_guidance_grammar"):
        assert len(call.args) == 1
        assert [k.arg for k in call.keywords] == ["tokenizer"]
    assert engine_sources.calls(root / "sampling_params.py", "is_tokenizer_supported")


def test_install_replaces_them(adapter):
    import vllm.v1.structured_output as manager  # the stand-in, or nothing but what the adapter imported

    adapter.install()
    assert manager.GuidanceBackend is manager.backend_guidance.GuidanceBackend is adapter.TokamaskBackend
    assert manager.backend_guidance.validate_guidance_grammar is adapter.validate_grammar


def test_the_proposer_is_called_as_the_runner_calls_it(adapter):
    root = engine_sources.needed("vllm", VERSION)
    runner = root / "v1" / "worker" / "gpu_model_runner.py"
    custom = [
        branch
        for branch in ast.walk(ast.parse(runner.read_text()))
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "spec_config.method == 'custom_class'"
    ]
    calls = [
        node
        for branch in custom
        for statement in branch.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".propose")
    ]
    assert len(calls) == 1
    call = calls[0]
    bound = inspect.signature(adapter.DraftProposer.propose).bind(
        None, *call.args, **{k.arg: k.value for k in call.keywords}
    )
    assert [ast.unparse(bound.arguments[name]).split(".")[-1] for name in list(bound.arguments)[1:]] == [
        "sampled_token_ids",
        "num_tokens_no_spec",
        "token_ids_cpu",
        "slot_mappings",
    ]
    made = engine_sources.calls(root / "v1" / "spec_decode" / "custom_class_proposer.py", "user_class")
    assert [len(call.args) for call in made] == [1]
    assert parameters(adapter.DraftProposer) == ["vllm_config"]


def test_the_entry_point_does_nothing_unless_asked(monkeypatch):
    from tokamask.integrations import plugins

    monkeypatch.delenv("TOKAMASK_VLLM", raising=False)
    plugins.vllm()
