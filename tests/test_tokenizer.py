"""Tokenizer: ids equal to the libraries whose files it reads, and the laws of decoding."""

import copy
import json
import pickle
import random
import re
import sys

import numpy as np
import pytest
import tiktoken
import tokenizers
from compiled_files import checksum, signed
from exact import model_file
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import PATTERNS, SIGNS, small, with_added

import tokamask as tm
from tokamask.reference import bpe

ALPHABET = "abcdefgh ABC 'sStT  0123456789\t\n\r\n/.,!?-_(){}\u00a0\u2028ñéßſKǅʰªאبアー你好ก็е́👍🏽‍❤️²½Ⅷ٣\u0301\ufeff\x00\x7f"

ODD = [
    "",
    " ",
    "  ",
    "   a",
    "a   ",
    "\n\n  \n x\r\n\r\n",
    "it's IT'S 'sam's y'all'd've o'ſ",
    "123456789 12²345 ٣٤٥٦ Ⅷ½",
    "<|endoftext|> and <|im_start|>x<|im_end|>",
    "e" + "\u0301" * 40,
    "a" * 3000,
    " " * 3000,
    "\n" * 1000,
    "0" * 1001,
    "'s't're've" * 100,
    "你好" * 300 + "。",
    "👍🏽‍❤️" * 100,
    "\x00\x01\x7f\u0085\u00a0\u2028\u3000",
]


def strings(seed, count=150):
    """Random strings made of the characters that split rules disagree about."""
    rng = random.Random(seed)
    for _ in range(count):
        yield "".join(rng.choices(ALPHABET, k=rng.randrange(60)))


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf):
    return tm.Tokenizer.from_file(smollm2_gguf)


@pytest.fixture(scope="module")
def smollm2_reference(smollm2_gguf):
    """The same tokenizer in HF's library, from the fields of the file."""
    import gguf

    fields = gguf.GGUFReader(smollm2_gguf).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    kinds = fields["tokenizer.ggml.token_type"].contents()
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges)
    )
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, kinds, strict=True) if kind == 3])
    pre = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = pre.Sequence([pre.Digits(True), pre.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


@pytest.fixture(scope="module")
def smollm2_json(smollm2_reference):
    return tm.Tokenizer.from_bytes(smollm2_reference.to_str().encode())


def test_gguf_ids_equal_the_reference(smollm2, smollm2_reference):
    smollm2_reference.encode_special_tokens = True
    for text in [*ODD, *strings(1)]:
        assert smollm2.encode(text) == smollm2_reference.encode(text, add_special_tokens=False).ids, text
    smollm2_reference.encode_special_tokens = False
    for text in ODD:
        want = smollm2_reference.encode(text, add_special_tokens=False).ids
        assert smollm2.encode(text, allowed_special="all") == want, text


def test_tokenizer_json_reads_the_same(smollm2, smollm2_json):
    for text in [*ODD, *strings(2)]:
        assert smollm2_json.encode(text) == smollm2.encode(text), text
    assert smollm2_json.vocabulary.with_(eos_ids=[2]) == smollm2.vocabulary
    assert smollm2.vocabulary.eos_ids == [2]


def test_recorded_prompts_of_the_model(smollm2, unpacked):
    """The recorder cut no digits off before the words, so white space runs before a digit differ there."""
    path = next(unpacked("draft_traces_open.tar.xz").rglob("smollm2_traces.jsonl"))
    checked = 0
    for line in path.read_text().splitlines():
        ids = json.loads(line)["prompt_ids"]
        text = smollm2.decode_bytes(ids).decode()
        if not re.search(r"\s\s\d", text):
            assert smollm2.encode(text, allowed_special="all") == ids
            checked += 1
    assert checked > 80


def known_bytes(tokenizer, text):
    """The bytes of a text that the vocabulary has; the others are left out, as the reference does."""
    vocabulary = tokenizer.vocabulary
    known = {vocabulary.bytes(i) for i in range(len(vocabulary)) if not vocabulary.is_special(i)}
    return b"".join(b for b in (bytes([b]) for b in text.encode()) if b in known)


@given(text=st.text(max_size=200))
def test_decoding_gives_the_text_back(openai, text):
    ours, _ = openai
    ids = ours.encode(text)
    assert ours.decode_bytes(ids) == text.encode()
    assert ours.decode(ids) == text
    assert ours.decode(np.array(ids, np.uint32)) == text
    assert ours.encode_array(text).tolist() == ids
    assert ours.count(text) == len(ids)
    stream = ours.stream_decoder()
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.flush() == text


@settings(max_examples=20)
@given(st.text(max_size=200))
def test_bytes_that_the_vocabulary_lacks_are_left_out(smollm2, text):
    assert smollm2.decode_bytes(smollm2.encode(text)) == known_bytes(smollm2, text)


@given(st.lists(st.integers(0, 49151), max_size=60))
def test_any_ids_stream_as_they_decode(smollm2, ids):
    stream = smollm2.stream_decoder()
    assert "".join(stream.push(i) for i in ids) + stream.flush() == smollm2.decode(ids)


@given(texts=st.lists(st.text(max_size=40), max_size=20))
def test_batches_are_rows(openai, texts):
    ours, _ = openai
    ragged = ours.encode_batch(texts)
    assert ragged.to_lists() == [ours.encode(text) for text in texts]
    assert ours.decode_batch(ragged) == texts


def test_threads_change_nothing(smollm2):
    texts = [("word " * n + "\U0001f44d" * n)[:4000] for n in range(0, 900, 3)]
    one = smollm2.encode_batch(texts, threads=1)
    for threads in (None, 2, 5):
        many = smollm2.encode_batch(texts, threads=threads)
        assert np.array_equal(one.ids, many.ids)
        assert np.array_equal(one.offsets, many.offsets)
        assert smollm2.count_batch(texts, threads=threads).tolist() == np.diff(one.offsets).tolist()
    with pytest.raises(ValueError, match="zero"):
        smollm2.encode_batch(texts, threads=0)


@pytest.mark.parametrize("pattern", [*PATTERNS, "marked spaces", "added tokens"])
def test_one_long_text_on_several_threads(pattern):
    """What is cut for threads has the ids of the whole."""
    if pattern == "marked spaces":
        pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("\u2581", -1.0, 1)]
        pieces += [(f"<0x{b:02X}>", 0.0, 6) for b in range(256)]
        words = ["\u2581t", "he", "\u2581the", "\u2581\u2581", "o", "t", "h", "e", "n", "\u2581o"]
        pieces += [(word, -2.0 - n, 1) for n, word in enumerate(words)]
        tok = tm.Tokenizer.from_bytes(model_file(pieces, normalizer=b"\x18\x01\x20\x00"))
    elif pattern == "added tokens":
        tok = with_added(normalized=True)
    else:
        tok = small(pattern)
    line = "The then  one 1234567, don't\n\n\tSTOP\u00e9 \u65e5\u672c\u8a9e the-end; x\u0301  " + SIGNS
    text = (line * 12 + "a" * 3000 + "the" * 900) * (1 if pattern == "one piece" else 40)
    want = tok.encode_array(text)
    for threads in (2, 3):
        assert np.array_equal(tok.encode_array(text, threads=threads), want)
    assert tok.encode(text, threads=2) == want.tolist()
    long = text * (1 + 2**20 // len(text.encode()))
    rows = tok.encode_batch(["the", long, "then", "", long, long], threads=2)
    assert np.array_equal(rows[1], tok.encode_array(long))
    assert np.array_equal(rows.ids, tok.encode_batch(["the", long, "then", "", long, long], threads=1).ids)
    assert rows.offsets.tolist() == np.cumsum([0, *map(len, rows)]).tolist()
    with pytest.raises(ValueError, match="threads: expected 1 or more"):
        tok.encode(text, threads=0)


def test_special_tokens_only_when_allowed(smollm2):
    text = "<|im_start|>user<|im_end|>"
    assert 1 not in smollm2.encode(text)
    assert smollm2.encode(text, allowed_special="all")[0] == 1
    some = smollm2.encode(text, allowed_special={"<|im_end|>"})
    assert some[-1] == 2
    assert 1 not in some
    assert smollm2.decode(some) == text


def test_copies_encode_alike(smollm2, tmp_path):
    smollm2.save(tmp_path / "saved")
    for other in (
        pickle.loads(pickle.dumps(smollm2)),
        copy.deepcopy(smollm2),
        tm.Tokenizer.from_file(tmp_path / "saved"),
    ):
        assert other.encode("Hello, 123 world's") == smollm2.encode("Hello, 123 world's")
        assert other.vocabulary == smollm2.vocabulary


def test_the_compiled_file_is_the_same_tokenizer(smollm2_json, tmp_path):
    """Tables that were derived before give the same ids, and the definition comes back whole."""
    path = tmp_path / "saved"
    smollm2_json.save(path)
    mapped = tm.Tokenizer.from_file(path)
    for text in [*ODD, *strings(3)]:
        assert mapped.encode(text) == smollm2_json.encode(text), text
        assert (
            mapped.encode_by(text, method="fewest").tolist()
            == smollm2_json.encode_by(text, method="fewest").tolist()
        )
    mapped.compile(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    mapped.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    for name in ("one.json", "other.json"):
        (mapped if name == "one.json" else smollm2_json).save(tmp_path / name)
    assert (tmp_path / "one.json").read_text() == (tmp_path / "other.json").read_text()


def test_a_compiled_file_that_is_cut_or_changed_is_refused(smollm2_json, tmp_path):
    path = tmp_path / "saved"
    smollm2_json.save(path)
    data, rng = path.read_bytes(), random.Random(11)
    for _ in range(40):
        at = rng.randrange(len(data))
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        for broken in (data[:at], bytes(changed)):
            with pytest.raises(tm.errors.VocabularyError):
                tm.Tokenizer.from_bytes(broken)


def test_tables_of_another_version_are_derived_anew(smollm2_json, tmp_path):
    """The package's version stands before the tables; the checksum is made right again."""
    path = tmp_path / "saved"
    smollm2_json.save(path)
    data = path.read_bytes()
    version = tm.__version__.encode()
    mark = len(version).to_bytes(8, "little") + version
    assert data.count(mark) == 1
    at = data.index(mark) + 8
    changed = data[:at] + bytes(len(version)) + data[at + len(version) :]
    derived = tm.Tokenizer.from_bytes(signed(changed))
    for text in [*ODD[:12], *strings(4, 40)]:
        assert derived.encode(text) == smollm2_json.encode(text)
    assert checksum(data[20:]).to_bytes(8, "little") == data[12:20]


def test_lists_share_their_ints(smollm2):
    """Ids above the small ints of Python are the same objects in every list; lists are ordinary ones."""
    text = "A whole sentence about somebody else's encyclopaedia. " * 40
    one, other = smollm2.encode(text), smollm2.encode(text)
    assert one == smollm2.encode_array(text).tolist()
    assert all(a is b for a, b in zip(one, other, strict=True))
    counts = [sys.getrefcount(token) for token in one[:5]]
    del other
    assert all(
        sys.getrefcount(token) < count for token, count in zip(one[:5], counts, strict=True) if token > 256
    )
    one.append("more")
    one.sort(key=str)
    assert len(one) == len(smollm2.encode(text)) + 1


@pytest.mark.parametrize("start", ["", "b", "x\u0301"])
@pytest.mark.parametrize("run", ["a", "Q", " ", "\n", "!", "ab", "e\u0301", "กข", "internationalisation"])
def test_long_pieces_equal_the_reference(smollm2, smollm2_reference, start, run):
    for length in (31, 32, 33, 63, 64, 65, 90, 255, 257, 1024, 5000):
        text = start + run * (length // len(run) + 1)
        assert smollm2.encode(text) == smollm2_reference.encode(text, add_special_tokens=False).ids
    text = start + "".join(run * n + "Zq" for n in (70, 3, 200, 64, 63))
    assert smollm2.encode(text) == smollm2_reference.encode(text, add_special_tokens=False).ids


@pytest.fixture(scope="module", params=["gpt2", "cl100k_base", "o200k_base"])
def openai(request, unpacked):
    """A pair of tokenizers of the same ranks: ours and tiktoken's."""
    names = {
        "gpt2": ("6c7ea1a7e38e3a7f062df639a5b80947f075ffe6", "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"),
        "cl100k_base": ("9b5ad71b2ce5302211f9c61530b329a4922fc6a4",),
        "o200k_base": ("fb374d419588a4632f3f557e76b4b70aebbca790",),
    }
    folder = next(unpacked("tiktoken_cache.tar.xz").rglob(names[request.param][0])).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        reference = tiktoken.get_encoding(request.param)
    ranks = reference._mergeable_ranks
    if len(names[request.param]) == 1:
        ranks = folder / names[request.param][0]
    ours = tm.Tokenizer.from_tiktoken(
        ranks, pattern=reference._pat_str, special_tokens=reference._special_tokens
    )
    return ours, reference


def test_tiktoken_ids(openai):
    ours, reference = openai
    for text in [*ODD, *strings(3)]:
        assert ours.encode(text) == reference.encode_ordinary(text), text
        want = reference.encode(text, allowed_special="all")
        assert ours.encode(text, allowed_special="all") == want, text
    assert len(ours.vocabulary) == reference.n_vocab


def test_tiktoken_ids_on_a_slice_of_the_corpus(openai, unpacked):
    ours, reference = openai
    for path in sorted(unpacked("corpus_open.tar.xz").rglob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            texts = [json.loads(line) for _, line in zip(range(8), lines, strict=False)]
        assert ours.encode_batch(texts).to_lists() == reference.encode_ordinary_batch(texts), path.name


NORMALIZERS = [
    {"type": "NFC"},
    {"type": "NFKC"},
    {"type": "NFD"},
    {"type": "Lowercase"},
    {"type": "Strip", "strip_left": True, "strip_right": False},
    {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFKD"},
            {"type": "Replace", "pattern": {"String": "  "}, "content": "_"},
            {"type": "Prepend", "prepend": "x"},
        ],
    },
]


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=lambda n: n["type"])
def test_normalizers_and_added_tokens(smollm2_reference, normalizer):
    """Added tokens are matched before or after normalization, with every flag."""
    file = json.loads(smollm2_reference.to_str())
    file["normalizer"] = normalizer
    flags = ["single_word", "lstrip", "rstrip", "normalized"]
    contents = ["ﬁn", "Ab!?", "a b", "éé", "tok!?"]
    for nth, content in enumerate(contents):
        flag = {name: name == flags[nth % 4] or (nth == 4 and name == "rstrip") for name in flags}
        file["added_tokens"].append({"id": 49152 + nth, "content": content, "special": False, **flag})
    data = json.dumps(file)
    ours, reference = tm.Tokenizer.from_bytes(data.encode()), tokenizers.Tokenizer.from_str(data)
    rng = random.Random(7)
    parts = [*contents, *ALPHABET, " tok!? ", "fin", "ab", "ÉÉ", "<|im_end|>"]
    for _ in range(300):
        text = "".join(rng.choices(parts, k=rng.randrange(14)))
        want = reference.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, allowed_special="all") == want, text
    copied = pickle.loads(pickle.dumps(ours))
    assert copied.encode("ÉÉ  tok!? ﬁn") == ours.encode("ÉÉ  tok!? ﬁn")


@pytest.mark.parametrize(
    "step",
    [
        {"type": "Whitespace"},
        {"type": "WhitespaceSplit"},
        {"type": "Punctuation", "behavior": "MergedWithNext"},
        {"type": "Punctuation", "behavior": "Contiguous"},
        {"type": "CharDelimiterSplit", "delimiter": "e"},
        {"type": "Digits", "individual_digits": False},
        {"type": "Split", "pattern": {"String": "a"}, "behavior": "MergedWithPrevious", "invert": False},
        {"type": "Split", "pattern": {"Regex": r"[a-z]+"}, "behavior": "Removed", "invert": False},
        {
            "type": "Split",
            "pattern": {"Regex": r"(?=(\d{3})+(?!\d))"},
            "behavior": "Isolated",
            "invert": False,
        },
    ],
    ids=lambda step: f"{step['type']}-{step.get('behavior', '')}",
)
def test_pre_tokenizers(smollm2_reference, step):
    file = json.loads(smollm2_reference.to_str())
    file["pre_tokenizer"]["pretokenizers"][0] = step
    data = json.dumps(file)
    ours, reference = tm.Tokenizer.from_bytes(data.encode()), tokenizers.Tokenizer.from_str(data)
    reference.encode_special_tokens = True
    for text in [*ODD, *strings(11)]:
        assert ours.encode(text) == reference.encode(text, add_special_tokens=False).ids, text


def test_special_tokens_round_the_text(smollm2_reference):
    file = json.loads(smollm2_reference.to_str())
    file["post_processor"] = {
        "type": "RobertaProcessing",
        "sep": ["<|im_end|>", 2],
        "cls": ["<|im_start|>", 1],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
    data = json.dumps(file)
    ours, reference = tm.Tokenizer.from_bytes(data.encode()), tokenizers.Tokenizer.from_str(data)
    assert ours.encode("a b", add_special_tokens=True) == reference.encode("a b").ids
    assert ours.count("a b", add_special_tokens=True) == len(reference.encode("a b").ids)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a tokenizer file"),
        (b"GGUF\x03", "cut short"),
        (b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1 << 40).to_bytes(8, "little"), "cut short"),
        (b"{", "not a tokenizer.json"),
        (b"tokamask" + bytes(40), "version"),
        (b"IQ== 0\nIg== 1\n", "from_tiktoken"),
    ],
)
def test_broken_files_are_named_errors(data, reason):
    with pytest.raises(tm.errors.VocabularyError, match=reason):
        tm.Tokenizer.from_bytes(data)


def test_cut_files_are_errors_at_every_length(smollm2, smollm2_gguf):
    with smollm2_gguf.open("rb") as file:
        head = file.read(1_000_000)
    rng = random.Random(5)
    for _ in range(50):
        with pytest.raises(tm.errors.VocabularyError):
            tm.Tokenizer.from_bytes(head[: rng.randrange(len(head))])


def test_unknown_components_are_refused_by_name(smollm2_reference):
    file = json.loads(smollm2_reference.to_str())
    file["pre_tokenizer"]["pretokenizers"][0] = {"type": "Quux"}
    with pytest.raises(tm.errors.UnsupportedComponentError) as caught:
        tm.Tokenizer.from_bytes(json.dumps(file).encode())
    assert caught.value.component == "Quux"
    assert caught.value.path == "/pre_tokenizer/pretokenizers/0"


def test_rules_that_engines_read_differently_are_refused(smollm2_reference):
    file = json.loads(smollm2_reference.to_str())
    file["pre_tokenizer"]["pretokenizers"][0] = {
        "type": "Split",
        "pattern": {"Regex": "[[:alpha:]]+"},
        "behavior": "Isolated",
        "invert": False,
    }
    with pytest.raises(tm.errors.UnsupportedComponentError, match="a bracket expression"):
        tm.Tokenizer.from_bytes(json.dumps(file).encode())


def test_unknown_ids_are_named(smollm2):
    with pytest.raises(tm.errors.UnknownTokenError) as caught:
        smollm2.decode([10**6])
    assert caught.value.token_id == 10**6


def test_missing_files_are_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        tm.Tokenizer.from_file(tmp_path / "absent")


def test_vocabularies_of_other_projects(smollm2, smollm2_reference, openai):
    theirs = tm.Vocabulary.from_tokenizer(smollm2_reference)
    assert theirs.with_(eos_ids=[2]) == smollm2.vocabulary
    assert tm.Vocabulary.from_tokenizer(smollm2) == smollm2.vocabulary
    ours, reference = openai
    vocabulary = tm.Vocabulary.from_tokenizer(reference)
    assert vocabulary.with_(eos_ids=[]) == ours.vocabulary
    with pytest.raises(tm.errors.UnsupportedComponentError):
        tm.Vocabulary.from_tokenizer(object())


@st.composite
def merge_lists(draw):
    """Ranks in which every token is what earlier ones make when they are two left, over a small alphabet.

    Tokens that form later than their rank have laws of their own, and some of their vocabularies are refused.
    """
    tokens = [bytes([b]) for b in range(256)]
    parts = [b"a", b"b", b"c"]
    for _ in range(draw(st.integers(0, 12))):
        token = draw(st.sampled_from(parts)) + draw(st.sampled_from(parts))
        earlier = {known: rank for rank, known in enumerate(tokens)}
        if token not in earlier and len(bpe.encode(token, earlier)) == 2:
            tokens.append(token)
            parts.append(token)
    return {token: rank for rank, token in enumerate(tokens)}


@given(merge_lists(), st.text("abcd", max_size=70))
def test_encode_is_the_definition(ranks, text):
    tokenizer = tm.Tokenizer.from_tiktoken(ranks, pattern="(?s).+")
    assert tokenizer.encode(text) == bpe.encode(text.encode(), ranks)
