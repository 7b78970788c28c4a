"""SGLang: the backend and the drafts against its base classes and call sites; the engine itself is not run."""

import ast
import inspect
import json
import types

import engine_sources
import numpy as np
import pytest

import tokamask as tm
from tokamask.integrations import engines

VERSION = "0.5.23"
BASE = "sglang.srt.constrained.base_grammar_backend"
WIDTH = 280


@pytest.fixture(scope="module")
def tokenizer():
    """What ``engines`` reads: a Tokenizer of our own will do."""
    ranks = {bytes([b]): b for b in range(256)} | {b"tr": 256, b"ue": 257}
    return tm.Tokenizer.from_tiktoken(ranks, pattern=r"\w+|\W", special_tokens={"<end>": 258, "<think>": 259})


class FakeMask(np.ndarray):
    """A torch tensor in the few ways in which masks are used."""

    def numpy(self):
        return self.view(np.ndarray)

    def fill_(self, value):
        self[...] = value


def mask_of(rows):
    return tm.allocate_bitmask(rows, WIDTH).view(FakeMask)


@pytest.fixture(scope="module", params=["stand-ins", "sources"])
def adapter(request):
    real, given = {}, {}
    if request.param == "sources":
        root = engine_sources.needed("sglang", VERSION) / "srt"
        real = {BASE: root / "constrained" / "base_grammar_backend.py"}
    else:
        given[BASE] = engine_sources.sglang_stand_ins()
    with engine_sources.imported("tokamask.integrations.sglang", "sglang", real, given) as module:
        yield module


@pytest.fixture
def backend(adapter, tokenizer):
    return adapter.TokamaskBackend(tokenizer, WIDTH, {258})


def allowed(mask, row):
    return np.flatnonzero(np.unpackbits(mask.numpy()[row].view(np.uint8), bitorder="little")).tolist()


def test_a_request_from_start_to_end(adapter, backend):
    grammar = backend.dispatch_regex("ab*")
    mask = mask_of(3)
    grammar.fill_vocab_mask(mask, 1)
    assert allowed(mask, 1) == [97]
    grammar.accept_token(97)
    assert grammar.current_token == 97
    copy = grammar.copy()
    grammar.accept_token(98)
    with pytest.raises(ValueError, match="97"):
        grammar.accept_token(97)
    grammar.accept_token(258)
    assert grammar.is_terminated()
    grammar.accept_token(97)  # after the end nothing is asked
    grammar.rollback(2)
    other = backend.dispatch_regex("x")
    entries = [types.SimpleNamespace(row=2, grammar=copy), types.SimpleNamespace(row=0, grammar=other)]
    grammar.fill_vocab_mask_batched(entries, mask)
    assert allowed(mask, 2) == [98, 258]
    assert allowed(mask, 0) == [120]
    grammar.reset_vocab_mask(mask)
    assert (mask == -1).all()
    assert not grammar.finished
    assert "regex" in repr(grammar)
    assert grammar.grammar_stats.dispatch_type == "regex"


def test_every_way_to_dispatch(adapter, backend):
    def fits(grammar, text):
        data = list(text.encode())
        return grammar.matcher.fork().accept_prefix([*data, 258]) == len(data) + 1

    assert fits(backend.dispatch_json('{"type": "boolean"}'), "true")
    assert fits(backend.dispatch_json("$$ANY$$"), '[1, {"a": null}]')
    assert fits(backend.dispatch_ebnf('root ::= "(" root? ")"'), "(())")
    assert fits(backend.dispatch_ebnf('start: "a"+'), "aa")
    tag = {"structures": [{"begin": "<f>", "schema": None, "end": "</f>"}], "triggers": ["<f"]}
    assert fits(backend.dispatch_structural_tag(json.dumps(tag)), "so <f>[1]</f>")
    for wrong in (
        backend.dispatch_json("{"),
        backend.dispatch_regex("("),
        backend.dispatch_ebnf("root ::= ("),
    ):
        assert isinstance(wrong, adapter.InvalidGrammarObject)
        assert wrong.error_message


def test_a_frame_around_each_kind(adapter, backend):
    def frame(content):
        think = {"type": "tag", "begin": "<t>", "content": {"type": "any_text"}, "end": "</t>"}
        return {"type": "structural_tag", "format": {"type": "sequence", "elements": [think, content]}}

    tag = json.dumps({"structures": [{"begin": "<f>", "schema": {}, "end": "</f>"}], "triggers": ["<f"]})
    for grammar, text in (
        (backend.dispatch_json('{"type": "null"}'), "null"),
        (backend.dispatch_regex("a+"), "aa"),
        (backend.dispatch_ebnf('root ::= "b"'), "b"),
        (backend.dispatch_ebnf('start: "c"'), "c"),
        (backend.dispatch_structural_tag(tag), "<f>1</f>"),
    ):
        framed = backend.compile_framed_grammar(grammar, frame)
        data = list(f"<t>x < y</t>{text}".encode())
        assert framed.matcher.accept_prefix([*data, 258]) == len(data) + 1


def test_forced_tokens_and_another_cut(adapter, backend):
    grammar = backend.dispatch_regex("true!")
    helper = grammar.try_jump_forward(None)
    assert helper == ([256, 257, 33], "")
    assert grammar.jump_forward_str_state(helper) == ("", -1)
    for token in (256, 117):
        grammar.accept_token(token)
    grammar.jump_and_retokenize([256, 117], [256, 257], -1)
    assert grammar.matcher.forced_tokens() == [33]
    assert backend.dispatch_regex("a|b").try_jump_forward(None) is None


def test_masks_are_applied(adapter, backend):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    grammar = backend.dispatch_regex("ab*")
    mask = grammar.allocate_vocab_mask(WIDTH, 2, "cpu")
    assert tuple(mask.shape) == (2, 9)
    grammar.fill_vocab_mask(mask, 0)
    logits = torch.zeros(2, WIDTH)
    grammar.apply_vocab_mask(logits, grammar.move_vocab_mask(mask, "cpu"))
    assert logits[0].isfinite().nonzero().ravel().tolist() == [97]
    assert bool(logits[1].isfinite().all())


def test_forgotten_after_a_reset(backend):
    backend.dispatch_regex("ab")
    backend.reset()
    assert backend._compiler._compiled.cache_info().currsize == 0


def ancestors(ids, mask, n):
    """The paths of a tree, from its mask."""
    rows = mask.reshape(n, n)
    return [[int(ids[j]) for j in np.flatnonzero(row)] for row in rows]


def test_trees_as_the_worker_takes_them(adapter):
    corpus = adapter.DraftCorpus(6)
    text = [1, 2, 3, 4, 1, 2, 5, 6, 1, 2]
    ids, masks = corpus.batch_get(["a", "b"], [text, [9, 8]], [10, 2])
    assert ids.dtype == masks.dtype == np.int64
    assert ids.shape == (12,)
    assert masks.shape == (72,)
    paths = ancestors(ids[:6], masks[:36], 6)
    assert paths[0] == [2]
    assert all(path[0] == 2 for path in paths)
    assert [2, 3] in paths or [2, 5] in paths
    assert paths[1:] == [[2, *p[1:]] for p in paths[1:]]
    assert ids[6] == 8
    assert ids[7:].tolist() == [0] * 5  # nothing is known: padding under the root
    assert ancestors(ids[6:], masks[36:], 6)[1:] == [[8, 0]] * 5


def test_the_corpus_follows_requests(adapter):
    corpus = adapter.DraftCorpus(4)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2]
    corpus.start("a", prompt)
    ids, _ = corpus.batch_get(["a"], [prompt[-2:]], [10])
    assert ids.tolist() == [2, 3, 4, 5]
    ids, _ = corpus.batch_get(["a"], [[2, 3]], [11])
    assert ids.tolist() == [3, 4, 5, 6]
    ids, _ = corpus.batch_get(["a"], [[90, 91]], [40])  # more than is shown: it begins anew
    assert ids[0] == 91
    corpus.erase_match_state(["a", "b"])
    assert corpus._sessions == {}
    corpus.batch_put([[1]])
    corpus.synchronize()
    corpus.reset()


def test_texts_learned_beforehand(adapter):
    corpus = adapter.DraftCorpus(4)
    loaded = corpus.load_external_corpus_named("c", [[5, 6, 7, 8, 9]] * 3)
    corpus.commit_external_corpus_load("c", loaded)
    assert corpus.list_external_corpora() == {"c": 15}
    ids, _ = corpus.batch_get(["a"], [[5, 6]], [2])
    assert ids.tolist()[:2] == [6, 7]
    with pytest.raises(ValueError, match="loaded"):
        corpus.load_external_corpus_named("c", [])
    corpus.remove_external_corpus("c")
    assert corpus.list_external_corpora() == {}


# What follows needs SGLang's sources.


def parameters(function):
    return list(inspect.signature(function).parameters)


def public(cls):
    return {
        name
        for name, value in vars(cls).items()
        if callable(getattr(value, "__func__", value)) and name[0] != "_"
    }


def test_signatures_are_those_of_the_base_classes(adapter):
    engine_sources.needed("sglang", VERSION)
    if not hasattr(adapter.BaseGrammarObject, "try_jump_forward"):
        pytest.skip("stand-ins have no signatures to compare")
    kept = {"maybe_init_reasoning"}  # the base class's own will do
    for name in public(adapter.BaseGrammarObject) - kept:
        assert name in vars(adapter.TokamaskGrammar), name
    for ours, theirs in (
        (adapter.TokamaskGrammar, adapter.BaseGrammarObject),
        (adapter.TokamaskBackend, adapter.BaseGrammarBackend),
    ):
        for name in public(theirs) & public(ours):
            static = isinstance(inspect.getattr_static(ours, name), staticmethod)
            wanted = parameters(getattr(theirs, name))
            assert parameters(getattr(ours, name)) == wanted[static and wanted[0] == "self" :], name
    for name in ("dispatch_json", "dispatch_regex", "dispatch_ebnf", "dispatch_structural_tag"):
        assert name in vars(adapter.TokamaskBackend)


@pytest.fixture(scope="module")
def registered():
    """The adapter registered with SGLang's own registries, and its n-gram worker's module."""
    pytest.importorskip("torch", reason="torch is not installed")
    srt = engine_sources.needed("sglang", VERSION) / "srt"
    real = {
        BASE: srt / "constrained" / "base_grammar_backend.py",
        "sglang.srt.speculative.spec_info": srt / "speculative" / "spec_info.py",
        "sglang.srt.speculative.spec_registry": srt / "speculative" / "spec_registry.py",
        "sglang.srt.speculative.ngram_worker": srt / "speculative" / "ngram_worker.py",
        "sglang.srt.arg_groups.choices": srt / "arg_groups" / "choices.py",
    }
    serving = types.SimpleNamespace(constrained_json_disable_any_whitespace=True)
    kernel = types.SimpleNamespace(grammar_backend="tokamask")
    given = {
        "sglang.srt.speculative.base_spec_worker": {"BaseSpecWorker": object},
        "sglang.srt.runtime_context": {
            "get_serving": lambda: serving,
            "get_exec": lambda: types.SimpleNamespace(kernel=kernel),
        },
    }
    with engine_sources.imported("tokamask.integrations.sglang", "sglang", real, given) as module:
        module.register()
        module.register()  # again, as each process may
        yield module


def test_it_is_registered_under_its_names(registered, tokenizer):
    import sglang.srt.arg_groups.choices as choices
    import sglang.srt.constrained.base_grammar_backend as base
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    assert choices.GRAMMAR_BACKEND_CHOICES.count("tokamask") == 1
    made = base.create_grammar_backend(None, tokenizer, WIDTH, {258})
    assert isinstance(made, registered.TokamaskBackend)
    assert (
        made.dispatch_json('{"const": [1, 2]}').matcher.accept_prefix(list(b"[1, 2]")) == 3
    )  # no white space
    algorithm = SpeculativeAlgorithm.from_string("tokamask")
    ngram = SpeculativeAlgorithm.NGRAM
    for name in public(SpeculativeAlgorithm):
        assert hasattr(algorithm, name) or name in ("register", "from_string", "get_platform_worker_cls"), (
            name
        )
        if name.startswith(("is_", "supports_", "has_", "need_", "carries_")):
            assert getattr(algorithm, name)() == getattr(ngram, name)(), name


def test_the_worker_is_the_n_gram_worker_with_our_drafts(registered):
    worker_class = registered.draft_worker(None)
    worker = object.__new__(worker_class)
    worker.ngram_corpus = registered.DraftCorpus(4)
    worker.draft_token_num, worker.max_trie_depth, worker.enable_overlap = 4, 4, False
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2]
    req = types.SimpleNamespace(rid="r", origin_input_ids_unpadded=prompt, output_ids=[])
    batch = types.SimpleNamespace(reqs=[req], grammar_needs_sync=lambda: False)
    ids, mask = worker._prepare_draft_tokens(batch)
    assert ids.tolist() == [2, 3, 4, 5]  # from further back than the worker shows its corpus
    req.output_ids = [3, 4]
    ids, mask = worker._prepare_draft_tokens(batch)
    assert ids.tolist() == [4, 5, 6, 7]
    worker._update_ngram_corpus(batch)
    assert [link.tolist() for link in worker_links(mask)] == [[[1, 2, 3, -1]], [[-1, -1, -1, -1]]]


def worker_links(mask):
    from sglang.srt.speculative import ngram_worker

    return ngram_worker._derive_tree_links(mask, 1, 4)


def test_the_worker_uses_its_corpus_as_we_offer_it():
    srt = engine_sources.needed("sglang", VERSION) / "srt"
    source = ast.parse((srt / "speculative" / "ngram_worker.py").read_text())
    used = {
        node.attr
        for node in ast.walk(source)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self.ngram_corpus"
    }
    corpus = ast.parse((srt / "speculative" / "cpp_ngram" / "ngram_corpus.py").read_text())
    theirs = {
        node.name: [a.arg for a in node.args.args]
        for node in ast.walk(corpus)
        if isinstance(node, ast.FunctionDef)
    }
    given = {}
    with engine_sources.imported(
        "tokamask.integrations.sglang", "sglang", {}, {BASE: engine_sources.sglang_stand_ins()} | given
    ) as module:
        assert used
        for name in used:
            assert parameters(getattr(module.DraftCorpus, name)) == theirs[name], name


def test_grammars_over_their_walk_of_a_draft_tree(registered, tokenizer):
    import torch

    srt = engine_sources.needed("sglang", VERSION) / "srt"
    source = ast.parse((srt / "speculative" / "spec_utils.py").read_text())
    function = next(n for n in source.body if isinstance(n, ast.FunctionDef) and n.name == "traverse_tree")
    scope = {"torch": torch, "BaseGrammarObject": object}
    exec("from __future__ import annotations\nfrom typing import Optional\n" + ast.unparse(function), scope)
    grammar = registered.TokamaskBackend(tokenizer, WIDTH, {258}).dispatch_regex("(tru|tra)[a-e]*")
    grammar.accept_token(116)
    tree = tm.DraftTree.from_paths([[114, 117, 101], [114, 97, 120, 98], [97]])
    child, sibling, tokens = (torch.from_numpy(a) for a in tree.to_siblings(116))
    mask = torch.full((len(tree) + 1, 9), 0, dtype=torch.int32)
    scope["traverse_tree"](child, sibling, tokens, grammar, mask, WIDTH)
    ours = tm.allocate_bitmask(len(tree) + 1, WIDTH)
    grammar.matcher.fill_tree(ours, tree)
    np.testing.assert_array_equal(mask.numpy(), ours)
    assert len(grammar.matcher) == 1


def test_kinds_that_are_unknown():
    with pytest.raises(tm.errors.GrammarError):
        engines.read_grammar("poem", "")
