"""compat.xgrammar: the names that serving engines call, with xgrammar's arguments and results."""

import ast
import importlib.util
import inspect
import json
import pathlib

import engine_sources
import numpy as np
import pytest

from tokamask.compat import xgrammar as xgr

TOKENS = [bytes([b]) for b in range(256)] + [b"</s>", b'{"', b'":', b"true", b"}"]
INFO = xgr.TokenizerInfo(TOKENS, xgr.VocabType.RAW, vocab_size=270, stop_token_ids=[256])
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}


def accepts(compiled, text):
    matcher = xgr.GrammarMatcher(compiled)
    return matcher.accept_string(text) and matcher.is_completed()


def test_a_request_from_start_to_end():
    compiled = xgr.GrammarCompiler(INFO, max_threads=1).compile_json_schema(json.dumps(SCHEMA))
    matcher = xgr.GrammarMatcher(compiled, max_rollback_tokens=8)
    bitmask = np.zeros(xgr.get_bitmask_shape(2, INFO.vocab_size), np.int32)
    assert matcher.fill_next_token_bitmask(bitmask, 1)
    assert bitmask[1, 257 // 32] >> (257 % 32) & 1
    assert matcher.accept_token(257)
    assert not matcher.accept_token(ord("}"))
    assert matcher.accept_token(ord("a"))
    assert matcher.accept_token(258)
    matcher.rollback(1)
    copy = matcher.fork()
    assert copy.accept_string('": true}')
    assert copy.is_completed()
    assert not copy.is_terminated()
    assert copy.accept_token(256)
    assert copy.is_terminated()
    assert not copy.accept_token(256)
    assert not matcher.is_completed()
    matcher.reset()
    assert matcher.accept_string('{"a":false}')


def test_every_way_to_compile():
    compiler = xgr.GrammarCompiler(INFO)
    assert accepts(compiler.compile_builtin_json_grammar(), '[1, {"x": null}]')
    assert accepts(compiler.compile_regex("[ab]+"), "abba")
    assert accepts(compiler.compile_grammar('root ::= "(" root? ")"'), "(())")
    assert accepts(compiler.compile_lark('start: "a"+'), "aaa")
    tags = [{"begin": "<f>", "schema": json.dumps(SCHEMA), "end": "</f>"}]
    assert accepts(compiler.compile_structural_tag(tags, ["<f>"]), 'x<f>{"a": true}</f>')
    whole = {"type": "structural_tag", "format": {"type": "const_string", "value": "ok"}}
    assert accepts(compiler.compile_structural_tag(whole), "ok")
    assert compiler.compile_regex("[ab]+") is compiler.compile_regex("[ab]+")
    assert compiler.get_cache_size_bytes() > 0
    compiler.clear_cache()
    assert compiler.get_cache_size_bytes() == 0


def test_strict_mode_and_order():
    compiler = xgr.GrammarCompiler(INFO)
    assert not accepts(compiler.compile_json_schema(SCHEMA), '{"a": true, "b": 1}')
    assert accepts(compiler.compile_json_schema(SCHEMA, strict_mode=False), '{"a": true, "b": 1}')
    two = {"type": "object", "properties": {"a": {}, "b": {}}}
    assert not accepts(compiler.compile_json_schema(two), '{"b": 1, "a": 1}')
    assert accepts(compiler.compile_json_schema(two, any_order=True), '{"b": 1, "a": 1}')
    assert not accepts(compiler.compile_json_schema(SCHEMA, any_whitespace=False), '{"a":  true}')


def test_draft_trees_masks_and_batches():
    compiled = xgr.GrammarCompiler(INFO).compile_regex("ab|ac|b")
    bitmask = np.zeros(xgr.get_bitmask_shape(4, INFO.vocab_size), np.int32)
    matcher = xgr.GrammarMatcher(compiled)
    # root -> a -> c, and x beside a
    done = matcher.traverse_draft_tree([1, 2, -1, -1], [-1, 3, -1, -1], [0, 97, 99, 120], bitmask)
    rows = np.unpackbits(bitmask.view(np.uint8), bitorder="little", axis=1)
    assert done
    assert [np.flatnonzero(row).tolist() for row in rows] == [[97, 98], [98, 99], [256], []]
    batch = np.zeros_like(bitmask)
    pair = [matcher, xgr.GrammarMatcher(compiled)]
    assert xgr.BatchGrammarMatcher.batch_accept_token(pair, [97, 120]) == [True, False]
    xgr.BatchGrammarMatcher(1).batch_fill_next_token_bitmask(pair, batch, [2, 0])
    assert (batch[2] == bitmask[1]).all()
    assert (batch[0] == bitmask[0]).all()
    logits = np.zeros((4, 270), np.float32)
    xgr.apply_token_bitmask_inplace(logits, batch, vocab_size=260, indices=[2])
    assert np.isfinite(logits[2]).sum() == 2 + 10
    assert np.isfinite(logits[0]).all()


def test_saved_and_read_again():
    compiled = xgr.GrammarCompiler(INFO).compile_regex("a+")
    again = xgr.CompiledGrammar.deserialize_json(compiled.serialize_json(), INFO)
    assert accepts(again, "aa")
    info = xgr.TokenizerInfo.from_vocab_and_metadata(TOKENS, INFO.dump_metadata())
    assert info.stop_token_ids == [256]
    with pytest.raises(xgr.InvalidJSONError):
        xgr.CompiledGrammar.deserialize_json("{", INFO)
    with pytest.raises(xgr.DeserializeFormatError):
        xgr.CompiledGrammar.deserialize_json("{}", INFO)
    old = compiled.serialize_json().replace(xgr.SERIALIZATION_VERSION, "tokamask-0")
    with pytest.raises(xgr.DeserializeVersionError):
        xgr.CompiledGrammar.deserialize_json(old, INFO)


def test_errors_have_xgrammars_types():
    with pytest.raises(xgr.InvalidStructuralTagError):
        xgr.Grammar.from_structural_tag({"type": "what"})
    with pytest.raises(xgr.InvalidJSONError):
        xgr.Grammar.from_json_schema("{")
    with pytest.raises(RuntimeError):
        xgr.Grammar.from_ebnf("root ::= (")


def test_spellings():
    level = xgr.TokenizerInfo(["\u0120a", "\u010a"], xgr.VocabType.BYTE_LEVEL)
    assert level.decoded_vocab == [b" a", b"\n"]
    fallback = xgr.TokenizerInfo(["\u2581a", "<0x0A>"], xgr.VocabType.BYTE_FALLBACK)
    assert fallback.decoded_vocab == [b" a", b"\n"]


def test_terminating_without_a_stop_token():
    compiled = xgr.GrammarCompiler(INFO).compile_regex("ab")
    matcher = xgr.GrammarMatcher(compiled, terminate_without_stop_token=True, override_stop_tokens=259)
    assert matcher.stop_token_ids == [259]
    assert matcher.find_jump_forward_string() == "ab"
    assert matcher.accept_string(b"ab")
    assert matcher.is_terminated()


FILES = {"TokenizerInfo": "tokenizer_info", "GrammarCompiler": "compiler", "GrammarMatcher": "matcher"}
LEFT_OUT = {"named_grammars", "print_converted_ebnf"}


@pytest.mark.parametrize("name", FILES)
def test_signatures_are_those_of_the_package(name):
    found = importlib.util.find_spec("xgrammar")
    if found is None or found.origin is None:
        pytest.skip("xgrammar is not installed")
    source = (pathlib.Path(found.origin).parent / f"{FILES[name]}.py").read_text(encoding="utf-8")
    theirs = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == name)
    for method in theirs.body:
        if not isinstance(method, ast.FunctionDef) or method.name.startswith("_debug"):
            continue
        if any(getattr(d, "id", "") == "overload" for d in method.decorator_list):
            continue
        if method.name.startswith(("_is", "_detect")):
            continue
        own = inspect.getattr_static(getattr(xgr, name), method.name, None)
        if own is None and method.name in (
            "serialize_json",
            "deserialize_json",
            "prepend_space_in_tokenization",
        ):
            continue
        if isinstance(own, property):
            continue
        own = getattr(xgr, name).__dict__[method.name]
        parameters = list(inspect.signature(getattr(own, "__func__", own)).parameters)
        if "args" in parameters:
            continue
        wanted = [a.arg for a in (*method.args.args, *method.args.kwonlyargs) if a.arg not in LEFT_OUT]
        if name == "GrammarCompiler" and method.name == "compile_lark":
            wanted[1] = "text"
        assert parameters == wanted, method.name


# What the engines import from xgrammar to build structural tags; it is pydantic models and templates, and not here.
BUILDERS = {"StructuralTag", "get_model_structural_tag", "normalize_tool_choice"}


@pytest.mark.parametrize(("package", "version"), [("vllm", "0.33.0"), ("sglang", "0.5.23")])
def test_the_names_that_engines_use_are_there(package, version):
    used = set()
    for path in engine_sources.needed(package, version).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "xgrammar" not in text or "third_party" in path.parts:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module == "xgrammar":
                used |= {alias.name for alias in node.names}
            if isinstance(node, ast.Attribute):
                name = ast.unparse(node)
                used |= {name.split(".", 1)[1]} if name.startswith(("xgr.", "xgrammar.")) else set()
    used = {name for name in used if name.split(".")[0][0].isupper() or ("_" in name and "." not in name)}
    assert len(used) >= 8
    missing = set()
    for name in used:
        if name == "bitmask_dtype":
            continue  # torch's
        found = xgr
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is None:
            missing.add(name)
    assert missing <= BUILDERS


def test_tags_as_items():
    item = xgr.StructuralTagItem(begin="<f>", schema=json.dumps(SCHEMA), end="</f>")
    compiled = xgr.GrammarCompiler(INFO).compile_structural_tag([item], ["<f>"])
    assert accepts(compiled, 'x<f>{"a": true}</f>')


TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}},
    {"type": "function", "function": {"name": "g_2", "parameters": {"type": "object", "properties": {}}}},
]  # fmt: skip
CHOICES = ["auto", "none", "required", {"type": "function", "function": {"name": "g_2"}}, None,
           {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]}}]  # fmt: skip
MODELS = [
    "llama", "kimi", "deepseek_r1", "deepseek_v3_1", "qwen_3_5", "qwen_3_coder", "mimo", "qwen_3", "deepseek_v3_2",
    "deepseek_v4", "deepseek_v4_1", "glm_4_7", "exaone",
]  # fmt: skip


def parts(value):
    """What a format matches, piece by piece: a tag or a sequence is its parts, and texts side by side are one."""
    if not isinstance(value, dict):
        return value
    value = {"content" if key == "format" else key: inner for key, inner in value.items()}
    if value.get("type") == "const_string":
        return [value["value"]]
    if value.get("type") in ("sequence", "tag", "structural_tag"):
        if value["type"] == "tag":
            pieces = [[value["begin"]], parts(value["content"]), [value["end"]]]
        else:
            pieces = [parts(inner) for inner in value.get("elements", [value.get("content")])]
        out = []
        for piece in [p for found in pieces for p in found]:
            if out and isinstance(piece, str) and isinstance(out[-1], str):
                out[-1] += piece
            elif piece != "":
                out.append(piece)
        return out
    return [{key: [parts(i) for i in inner] if key == "tags" else inner for key, inner in value.items()}]


def plain(tag):
    """A structural tag by what it matches, with one spelling of a digit."""
    return parts(json.loads(tag.model_dump_json().replace(r"\\d", "[0-9]")))


@pytest.mark.parametrize("model", MODELS)
def test_calls_are_written_as_xgrammar_has_it(model):
    pytest.importorskip("pydantic", reason="pydantic is not installed; see requirements/test.txt")
    original = pytest.importorskip("xgrammar", reason="xgrammar is not installed; see requirements/bench.txt")
    for choice in CHOICES:
        if choice == "none":
            continue
        ours = xgr.get_model_structural_tag(model, tools=TOOLS, tool_choice=choice, reasoning=False)
        theirs = original.get_model_structural_tag(
            model=model, tools=TOOLS, tool_choice=choice, reasoning=False
        )
        assert plain(ours) == plain(theirs), choice


@pytest.mark.parametrize("model", MODELS)
def test_calls_of_every_model_can_be_read(model):
    pytest.importorskip("pydantic", reason="pydantic is not installed; see requirements/test.txt")
    for choice in CHOICES:
        for reasoning in (False, True):
            tag = xgr.get_model_structural_tag(model, tools=TOOLS, tool_choice=choice, reasoning=reasoning)
            assert xgr.Grammar.from_structural_tag(tag)
            assert xgr.StructuralTag.from_json(tag.model_dump_json()) == tag
    with pytest.raises(ValueError, match="not among"):
        xgr.normalize_tool_choice(TOOLS, {"type": "function", "function": {"name": "h"}})
    with pytest.raises(ValueError, match="no tool"):
        xgr.normalize_tool_choice([], "required")
    assert xgr.normalize_tool_choice(TOOLS, "none") == ([], [], "auto")
    functions, builtin, choice = xgr.normalize_tool_choice(TOOLS, CHOICES[3])
    assert ([tool.function.name for tool in functions], builtin, choice) == (["g_2"], [], "forced")
