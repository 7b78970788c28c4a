"""compat.tiktoken: every method gives what tiktoken gives, on a small vocabulary and on the public ones."""

import pathlib
import pickle
import sys
import types

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

import tokamask as tm
from tokamask.compat import tiktoken as ours
from tokamask.compat.tiktoken import load, public, registry

RULE = public._RULES["cl100k"]
SPECIAL = {"<|endoftext|>": 1000, "<|x|>": 1001, "<|x|>y": 1002}
ODD = [
    "",
    " ",
    "hello world",
    "hello  ",
    "  \n \n x\r\n\r\n",
    "it's IT'S y'all'd've o'ſ",
    "123456789 12²345 ٣٤٥٦ Ⅷ½",
    "<|endoftext|> and <|x|>y<|x|>",
    "e" + "\u0301" * 40,
    "a" * 300,
    " " * 300,
    "你好" * 30 + "。👍🏽‍❤️",
    "\x00\x01\x7f\u0085\u00a0\u2028",
    "\ud83d\udc4d and \ud83d alone",
]


@pytest.fixture(scope="module")
def pair():
    text = (pathlib.Path(__file__).parent.parent / "DESIGN.md").read_text() + "你好你好 e\u0301 👍👍"
    trained = tm.train.bpe(tm.train.count([text] * 2, progress=False), vocab_size=900, progress=False)
    ranks = {trained.vocabulary.bytes(i): i for i in range(len(trained))}
    parts = {"name": "small", "pat_str": RULE, "mergeable_ranks": ranks, "special_tokens": SPECIAL}
    return ours.Encoding(**parts), tiktoken.Encoding(**parts)


def outcome(call):
    try:
        return call()
    except Exception as error:
        return type(error) if not isinstance(error, tm.errors.TokamaskError) else type(error).__mro__[2]


@pytest.mark.parametrize("text", ODD)
def test_texts(pair, text):
    mine, theirs = pair
    calls = [
        lambda e: e.encode(text),
        lambda e: e.encode(text, disallowed_special=()),
        lambda e: e.encode(text, allowed_special="all"),
        lambda e: e.encode(text, allowed_special={"<|x|>", "<|endoftext|>"}),
        lambda e: e.encode(text, allowed_special={"<|endoftext|>"}, disallowed_special={"<|x|>"}),
        lambda e: e.encode(text, disallowed_special={"hello"}),
        lambda e: e.encode_ordinary(text),
        lambda e: e.encode_ordinary_batch([text, "b", text]),
        lambda e: e.encode_batch([text, "b"], allowed_special="all"),
        lambda e: e.encode_batch(["b", text]),
        lambda e: e._encode_single_piece(text),
        lambda e: e._encode_bytes(text.encode(errors="surrogatepass")),
        lambda e: e._encode_bytes(text.encode(errors="surrogatepass")[:-1]),
    ]
    for nth, call in enumerate(calls):
        if text == "" and nth == 10:
            continue  # merging nothing panics there
        assert outcome(lambda c=call: c(mine)) == outcome(lambda c=call: c(theirs)), (nth, text)
    if "\ud83d" not in text:
        array = mine.encode_to_numpy(text, disallowed_special=())
        assert array.dtype == np.uint32
        assert array.tolist() == theirs.encode_to_numpy(text, disallowed_special=()).tolist()
        ids = theirs.encode(text, allowed_special="all")
        assert mine.decode_with_offsets(ids) == theirs.decode_with_offsets(ids)


@given(text=st.text(alphabet=st.sampled_from("abehlo '\n\t1的e\u0301👍"), max_size=12))
@settings(max_examples=40)
def test_unstable_ids(pair, text):
    mine, theirs = pair
    stable, completions = mine.encode_with_unstable(text)
    expected, others = theirs.encode_with_unstable(text)
    assert stable == expected
    assert sorted(completions) == sorted(others)


@given(data=st.binary(max_size=30))
def test_any_bytes(pair, data):
    mine, theirs = pair
    assert mine._encode_bytes(data) == theirs._encode_bytes(data)


@given(ids=st.lists(st.sampled_from([*range(0, 900, 7), 1000, 1001, 1002]), max_size=12))
def test_any_ids(pair, ids):
    mine, theirs = pair
    assert mine.decode_bytes(ids) == theirs.decode_bytes(ids)
    assert mine.decode_tokens_bytes(ids) == theirs.decode_tokens_bytes(ids)
    assert mine.decode_batch([ids, []]) == theirs.decode_batch([ids, []])
    assert mine.decode_bytes_batch([ids]) == theirs.decode_bytes_batch([ids])
    for errors in ("replace", "ignore", "strict", "backslashreplace"):
        assert outcome(lambda e=errors: mine.decode(ids, e)) == outcome(
            lambda e=errors: theirs.decode(ids, e)
        )
    assert outcome(lambda: mine.decode_with_offsets(ids)) == outcome(lambda: theirs.decode_with_offsets(ids))


def test_single_tokens_and_what_there_is(pair):
    mine, theirs = pair
    for word in ["the", b"\xff", "<|endoftext|>", b"<|x|>"]:
        assert mine.encode_single_token(word) == theirs.encode_single_token(word)
    for word in ["no token at all", b"\xff\xfe\xff"]:
        with pytest.raises(KeyError):
            mine.encode_single_token(word)
    for bad in (950, 5000):
        with pytest.raises(KeyError):
            mine.decode([bad])
        with pytest.raises(KeyError):
            mine.decode_single_token_bytes(bad)
    for name in ("n_vocab", "max_token_value", "eot_token", "special_tokens_set", "name"):
        assert getattr(mine, name) == getattr(theirs, name)
    assert mine.token_byte_values() == theirs.token_byte_values()
    assert [mine.is_special_token(i) for i in (5, 1001)] == [False, True]
    assert repr(mine) == repr(theirs)


def test_the_error_names_the_token_and_the_ways_out(pair):
    with pytest.raises(ValueError, match=r"'<\|x\|>y'.*allowed_special=.*disallowed_special=\(\)"):
        pair[0].encode("a <|x|>y")


def test_pickle_of_an_encoding_of_ones_own(pair):
    again = pickle.loads(pickle.dumps(pair[0]))
    assert again.encode("hello <|x|>", allowed_special="all") == pair[0].encode(
        "hello <|x|>", allowed_special="all"
    )


def test_sizes_are_checked():
    parts = {"name": "n", "pat_str": ".", "mergeable_ranks": {b"a": 0, b"b": 1}, "special_tokens": {"<s>": 2}}
    assert ours.Encoding(**parts, explicit_n_vocab=3).n_vocab == 3
    with pytest.raises(ValueError, match="expected 4, got 3"):
        ours.Encoding(**parts, explicit_n_vocab=4)


def test_names_and_rules_are_those_of_the_original(monkeypatch, tmp_path):
    import tiktoken.model
    import tiktoken_ext.openai_public as original

    from tokamask.compat.tiktoken import model

    assert model.MODEL_TO_ENCODING == tiktoken.model.MODEL_TO_ENCODING
    assert model.MODEL_PREFIX_TO_ENCODING == tiktoken.model.MODEL_PREFIX_TO_ENCODING
    asked = {mine: [] for mine in (True, False)}
    for module, mine in ((public, True), (original, False)):
        note = lambda *a, mine=mine, **k: asked[mine].append((a, sorted(k.items()))) or {b"a": 0}  # noqa: E731
        monkeypatch.setattr(module, "load_tiktoken_bpe", note)
        monkeypatch.setattr(module, "data_gym_to_mergeable_bpe_ranks", lambda *a, **k: {b"a": 0})
    assert list(public.ENCODING_CONSTRUCTORS) == list(original.ENCODING_CONSTRUCTORS)
    for name, construct in public.ENCODING_CONSTRUCTORS.items():
        assert construct() == original.ENCODING_CONSTRUCTORS[name](), name
    assert asked[True] == asked[False]
    for name in ("gpt-4o", "gpt-4-0314", "gpt-oss-120b", "ft:gpt-4o:me", "gpt-5-mini", "text-davinci-003"):
        assert ours.encoding_name_for_model(name) == tiktoken.encoding_name_for_model(name)
    with pytest.raises(KeyError):
        ours.encoding_name_for_model("no such model")
    with pytest.raises(ValueError, match="o200k_base"):
        ours.get_encoding("no such encoding")
    with pytest.raises(ValueError):
        ours.get_encoding(5)


@pytest.fixture
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry, "ENCODINGS", {})
    monkeypatch.setattr(registry, "ENCODING_CONSTRUCTORS", None)


@pytest.mark.usefixtures("empty_registry")
def test_plug_ins_of_the_namespace_package(monkeypatch, tmp_path):
    import tiktoken_ext

    parts = '{"name": "mine", "pat_str": ".", "mergeable_ranks": {b"a": 0}, "special_tokens": {}}'
    (tmp_path / "mine.py").write_text(f"ENCODING_CONSTRUCTORS = {{'mine': lambda: {parts}}}\n")
    monkeypatch.setattr(tiktoken_ext, "__path__", [*tiktoken_ext.__path__, str(tmp_path)])
    assert "mine" in ours.list_encoding_names()
    encoding = ours.get_encoding("mine")
    assert encoding.encode("aa") == [0, 0]
    assert ours.get_encoding("mine") is encoding
    assert pickle.loads(pickle.dumps(encoding)).encode("a") == [0]
    monkeypatch.setattr(registry, "ENCODING_CONSTRUCTORS", None)
    (tmp_path / "bad.py").write_text("")
    with pytest.raises(ValueError, match=r"tiktoken_ext\.bad"):
        ours.list_encoding_names()


def test_no_plug_in_package_is_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken_ext", None)
    assert registry._available_plugin_modules() == []
    assert isinstance(registry, types.ModuleType)


def test_ranks_are_read_checked_and_cached(monkeypatch, tmp_path):
    ranks = {bytes([i]): i for i in range(256)} | {b"ab": 256}
    file = str(tmp_path / "x.tiktoken")
    load.dump_tiktoken_bpe(ranks, file)
    assert load.load_tiktoken_bpe(file) == ranks
    digest = __import__("hashlib").sha256(pathlib.Path(file).read_bytes()).hexdigest()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    assert load.load_tiktoken_bpe(file, digest) == ranks
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(b"broken")
    assert load.load_tiktoken_bpe(file, digest) == ranks
    with pytest.raises(ValueError, match="SHA-256"):
        load.load_tiktoken_bpe(file, "0" * 64)
    with pytest.raises(ValueError, match="only paths and http"):
        load.read_file("gs://bucket/x")
    pathlib.Path(file).write_bytes(b"YQ== 0\nnot a line\n")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    with pytest.raises(ValueError):
        load.load_tiktoken_bpe(file)


@pytest.mark.parametrize("name", ["gpt2", "p50k_edit", "cl100k_base", "o200k_harmony"])
def test_public_encodings(name, unpacked, monkeypatch):
    folder = unpacked("tiktoken_cache.tar.xz")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(next(path for path in folder.iterdir() if path.is_dir())))
    mine, theirs = ours.get_encoding(name), tiktoken.get_encoding(name)
    assert mine._special_tokens == theirs._special_tokens
    assert mine._mergeable_ranks == theirs._mergeable_ranks
    for text in ODD:
        assert mine.encode(text, allowed_special="all") == theirs.encode(text, allowed_special="all")
    assert pickle.loads(pickle.dumps(mine))._core_bpe is mine._core_bpe
