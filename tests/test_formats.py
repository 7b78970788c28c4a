"""Models, normalizers, pre-tokenizers and decoders of tokenizer files, against the libraries that own the formats."""

import copy
import json
import pickle
import random
import re

import pytest
from tiktoken.load import load_tiktoken_bpe
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import tokamask as tm
from tokamask import _core

ALPHABET = "ab ▁é\n日<0xE3>\u0301 .,1 \t"
ODD = [
    "",
    " ",
    "  ",
    " a",
    "a ",
    "▁",
    " ▁ a",
    "a▁▁b",
    "\n\n",
    "\t x",
    "e\u0301 \u00e9",
    "日本語テキスト",
    "\U0001f469\u200d\U0001f680",
    "<s> </s>",
    "a<0x0A>b<unk>",
    "\x00\x01x",
    "ﬁ Ａｂ",
    "\u00a0\u2003x\u00ad\u200b",
    "   leading and trailing   ",
    "Don't stop, it's we've 12.5%!",
    "ÀÉÎ Straße ΑΣ İ",
    "\ufffd",
]
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "did",
    "not",
    "run",
    "to",
    "her",
    "other",
    "hat",
    "then",
    "that",
    "rat",
    "ate",
    "what",
    "it",
    "had",
]
MARK_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
LLAMA = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, MARK_SPACES]}
SPELL_BYTES = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


def texts() -> list[str]:
    draw = random.Random(3)
    return [
        *ODD,
        *("".join(draw.choices(ALPHABET, k=draw.randrange(40))) for _ in range(80)),
        *(draw.choice([" ", "  ", ", "]).join(draw.choices(WORDS, k=30)) for _ in range(10)),
    ]


def corpus() -> list[str]:
    draw = random.Random(1)
    return [
        " ".join(draw.choices(WORDS, k=12)) + draw.choice([".", " é 日本", "!\n", " 1"]) for _ in range(300)
    ]


def trained(model, trainer, pre_tokenizer, normalizer=None, decoder=None) -> dict:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.train_from_iterator(corpus(), trainer)
    return json.loads(tokenizer.to_str())


def with_bytes(file: dict) -> dict:
    """The same with a token for every byte."""
    file = copy.deepcopy(file)
    vocab = file["model"]["vocab"]
    for byte in range(256):
        token = f"<0x{byte:02X}>"
        if isinstance(vocab, list):
            vocab.append([token, -20.0])
        else:
            vocab[token] = len(vocab)
    file["model"]["byte_fallback"] = True
    return file


@pytest.fixture(scope="module")
def files() -> dict[str, dict]:
    """A small file of every model."""
    quiet = {"show_progress": False}
    bpe = trained(
        models.BPE(unk_token="<unk>"),
        trainers.BpeTrainer(vocab_size=160, special_tokens=["<unk>", "<s>"], **quiet),
        pre_tokenizers.Metaspace(),
        None,
        decoders.Metaspace(),
    )
    unigram = trained(
        models.Unigram(),
        trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=["<unk>", "<s>"], **quiet),
        pre_tokenizers.Metaspace(),
        normalizers.NFKC(),
        decoders.Metaspace(),
    )
    return {
        "bpe": bpe,
        "bpe bytes": with_bytes(bpe),
        "unigram": unigram,
        "unigram bytes": with_bytes(unigram),
        "suffix": trained(
            models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"),
            trainers.BpeTrainer(vocab_size=160, special_tokens=["<unk>"], end_of_word_suffix="</w>", **quiet),
            pre_tokenizers.WhitespaceSplit(),
            normalizers.Lowercase(),
            decoders.BPEDecoder(),
        ),
        "wordpiece": trained(
            models.WordPiece(unk_token="[UNK]"),
            trainers.WordPieceTrainer(vocab_size=160, special_tokens=["[UNK]", "[CLS]"], **quiet),
            pre_tokenizers.BertPreTokenizer(),
            normalizers.BertNormalizer(),
            decoders.WordPiece(),
        ),
        "wordlevel": trained(
            models.WordLevel(unk_token="[UNK]"),
            trainers.WordLevelTrainer(vocab_size=40, special_tokens=["[UNK]"], **quiet),
            pre_tokenizers.Whitespace(),
        ),
    }


def variant(file: dict, model: dict | None = None, **members) -> dict:
    file = copy.deepcopy(file)
    file["model"].update(model or {})
    file.update(members)
    return file


def agree(file: dict, tmp_path, decode: bool = True) -> None:
    """Ids, text and written files are those of the library."""
    data = json.dumps(file)
    reference, ours = Tokenizer.from_str(data), tm.Tokenizer.from_bytes(data.encode())
    ours.save(tmp_path / "saved.json")
    copies = [Tokenizer.from_file(str(tmp_path / "saved.json")), pickle.loads(pickle.dumps(ours))]
    for text in texts():
        want = reference.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, allowed_special="all") == want, text
        assert copies[0].encode(text, add_special_tokens=False).ids == want, text
        assert copies[1].encode(text, allowed_special="all") == want, text
        if decode:
            assert ours.decode(want) == reference.decode(want, skip_special_tokens=False), text
    assert ours.encode("a b", add_special_tokens=True) == reference.encode("a b").ids


MODELS = ["bpe", "bpe bytes", "unigram", "unigram bytes", "suffix", "wordpiece", "wordlevel"]


@pytest.mark.parametrize("name", MODELS)
def test_models(files, name, tmp_path):
    agree(files[name], tmp_path)


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("fuse_unk", [True, False])
@pytest.mark.parametrize("ignore_merges", [True, False])
def test_marked_spaces(files, scheme, split, fuse_unk, ignore_merges, tmp_path):
    step = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
    model = {"fuse_unk": fuse_unk, "ignore_merges": ignore_merges}
    agree(variant(files["bpe"], model, pre_tokenizer=step), tmp_path)


@pytest.mark.parametrize("name", ["bpe", "bpe bytes"])
@pytest.mark.parametrize("model", [{"fuse_unk": True}, {"ignore_merges": True}, {"unk_token": None}], ids=str)
def test_spaces_marked_by_the_normalizer(files, name, model, tmp_path):
    file = variant(files[name], model, pre_tokenizer=None, decoder=SPELL_BYTES)
    agree({**file, "normalizer": LLAMA}, tmp_path)
    idle = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    agree({**file, "normalizer": MARK_SPACES, "pre_tokenizer": idle}, tmp_path)


def place_agree(file: dict) -> None:
    """Characters of the text are those that the library names; a mark before the text comes from nowhere."""
    data = json.dumps(file)
    reference, ours = Tokenizer.from_str(data), tm.Tokenizer.from_bytes(data.encode())
    for text in texts():
        want, got = reference.encode(text, add_special_tokens=False), ours.encode_with_offsets(text)
        assert got.ids.tolist() == ours.encode(text), text
        assert got.byte_offsets[:, 0].tolist() == sorted(got.byte_offsets[:, 0].tolist())
        same = want.ids == got.ids.tolist()  # else an added token that nobody allowed
        for (start, end), expected in zip(got.offsets.tolist(), want.offsets if same else [], strict=False):
            assert (start, end) == expected or start == end == 0, text


@pytest.mark.parametrize("name", ["bpe", "bpe bytes"])
@pytest.mark.parametrize("fuse_unk", [True, False])
def test_places_of_marked_spaces(files, name, fuse_unk):
    model = {"fuse_unk": fuse_unk}
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            step = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
            file = variant(files[name], model, pre_tokenizer=step)
            if fuse_unk and split and name == "bpe":  # goes piece by piece
                with pytest.raises(tm.errors.UnsupportedComponentError, match="positions"):
                    place_agree(file)
            else:
                place_agree(file)
    file = variant(files[name], model, pre_tokenizer=None)
    place_agree({**file, "normalizer": LLAMA})
    place_agree({**file, "normalizer": MARK_SPACES})
    words = tm.Tokenizer.from_bytes(json.dumps(files[name]).encode()).encode_with_offsets("the cat  sat")
    starts = [words.word_ids.tolist().index(word) for word in range(4)]
    assert words.byte_offsets[starts].tolist()[1][0] == 3


@pytest.mark.parametrize("name", ["bpe", "unigram", "wordpiece"])
@pytest.mark.parametrize("normalizer", [None, LLAMA, {"type": "NFKC"}], ids=lambda n: n and n["type"])
@pytest.mark.parametrize("flags", [True, False])
def test_added_tokens_and_their_ids(files, name, normalizer, flags, tmp_path):
    """Ids in the file are not asked for: a token has its own of the model, or the next one free."""

    def token(token_id, content, **more):
        plain = dict.fromkeys(["special", "single_word", "lstrip", "rstrip"], False)
        return {"id": token_id, "content": content, **plain, "normalized": True, **(more if flags else {})}

    added = [
        token(7777, "ab", lstrip=True),
        token(5, "é日", normalized=False),
        token(9999, " a", rstrip=True),
        token(3, "b ", single_word=True, normalized=False),
        token(4, "▁▁"),
        token(8, ".,", special=True),
        token(8, ""),
    ]
    file = variant(files[name], added_tokens=files[name]["added_tokens"] + added, normalizer=normalizer)
    agree(file, tmp_path)


NORMALIZERS = [
    {"type": "StripAccents"},
    {"type": "Nmt"},
    {"type": "ByteLevel"},
    {"type": "Replace", "pattern": {"Regex": "[a-c]+|é"}, "content": "cat"},
    {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]},
    *(
        {
            "type": "BertNormalizer",
            "clean_text": clean,
            "handle_chinese_chars": clean,
            "strip_accents": accents,
            "lowercase": lowercase,
        }
        for clean, accents, lowercase in [(True, None, True), (True, False, False), (False, True, True)]
    ),
]


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=lambda n: n["type"])
def test_normalizers(files, normalizer, tmp_path):
    agree(variant(files["unigram bytes"], normalizer=normalizer, pre_tokenizer=None), tmp_path)


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Nmt(),
        normalizers.StripAccents(),
        normalizers.BertNormalizer(),
        normalizers.NFKC(),
        normalizers.NFD(),
    ],
)
def test_normalizers_on_every_character(normalizer):
    """A byte-level model shows the normal form: its ids spell it."""
    state = json.loads(normalizer.__getstate__())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: token_id for token_id, letter in enumerate(alphabet)}
    file = {
        "normalizer": state,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "use_regex": False,
            "trim_offsets": True,
        },
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False, "trim_offsets": True},
    }
    ours = tm.Tokenizer.from_bytes(json.dumps(file).encode())
    differ = []
    for start in range(0, 0x30000, 64):
        block = [chr(c) for c in range(start, start + 64) if not 0xD800 <= c < 0xE000]
        text = "a".join(block)
        if block and ours.decode(ours.encode(text)) != normalizer.normalize_str(text):
            differ += [c for c in block if ours.decode(ours.encode(c)) != normalizer.normalize_str(c)]
    assert differ == []


def test_normal_forms_do_not_know_later_marks():
    """A mark of Unicode 14 stands between two older ones as a letter would."""
    step = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False, "trim_offsets": True}
    vocab = {letter: token_id for token_id, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    for form in ["NFC", "NFD", "NFKC", "NFKD"]:
        file = {"normalizer": {"type": form}, "pre_tokenizer": step, "model": model, "decoder": step}
        ours = tm.Tokenizer.from_bytes(json.dumps(file).encode())
        for text in ["e\u0301\u1df6\u0316\u0301\u00c5", "\u1df6\u1df6a\u0301", "\u00e9\u1df6", "\ua7f2"]:
            assert ours.decode(ours.encode(text)) == getattr(normalizers, form)().normalize_str(text)


def test_punctuation_on_every_character(files):
    """Each block of characters, a letter between any two of them."""
    reference = pre_tokenizers.Punctuation()
    vocab = {"a": 0, "[UNK]": 1}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}
    file = {"pre_tokenizer": {"type": "Punctuation"}, "model": model}
    ours = tm.Tokenizer.from_bytes(json.dumps(file).encode())
    for start in range(0, 0x30000, 256):
        text = "a" + "a".join(chr(c) for c in range(start, start + 256) if not 0xD800 <= c < 0xE000)
        want = [int(part != "a") for part, _ in reference.pre_tokenize_str(text)]
        assert ours.encode(text) == want, hex(start)


@pytest.mark.parametrize(
    "rule", [r"\w", r"\W", r"[^\w]", r"[\W]", r"[\w&&\p{N}]", r"\s", r"\d", r"\h", r"\p{L}"]
)
def test_classes_of_rules_on_every_character(rule):
    reference, ours = normalizers.Replace(Regex(rule), ""), _core.Pattern(rule)
    for start in range(0, 0x110000, 8192):
        text = "".join(map(chr, (c for c in range(start, start + 8192) if not 0xD800 <= c < 0xE000)))
        taken = {at for begin, end in ours.find(text) for at in range(begin, end)}
        left = "".join(c for at, c in enumerate(text) if at not in taken)
        assert reference.normalize_str(text) == left, hex(start)


def test_scripts_on_every_character():
    reference = pre_tokenizers.UnicodeScripts()
    for start in range(0, 0x110000, 8192):
        chars = [chr(c) for c in range(start, start + 8192) if not 0xD800 <= c < 0xE000]
        # In order, and each beside characters of scripts whose own have moved.
        for text in ["".join(chars), "a".join(chars), "\u0915".join(chars), "\u6f22-".join(chars)]:
            want = [span for _, span in reference.pre_tokenize_str(text)]
            assert _core.cut_scripts(text) == want, hex(start)


def test_rules_mean_the_same_when_they_are_written(tmp_path):
    """Ends of the text in our rules are ends of lines in a tokenizer.json, unless spelled otherwise."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"\n\n": 256, b"  ": 257, b" \n": 258}
    tok = tm.Tokenizer.from_tiktoken(ranks, pattern=r"^a|[^\s^$]+|\s+$|\s")
    path = tmp_path / "t.json"
    tok.save(path)
    reference, again = Tokenizer.from_file(str(path)), tm.Tokenizer.from_file(path)
    for text in ["ab\nab", "a  \n b\n\n", "  ", "$^a$\n"]:
        assert tok.encode(text) == reference.encode(text).ids == again.encode(text), text
    other = tm.Tokenizer.from_tiktoken(ranks, pattern=r"\w+|\W")
    with pytest.raises(tm.errors.VocabularyError, match="would mean something else"):
        other.save(path)


def test_ranks_and_tekken_are_written(tmp_path):
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"th": 256, b"the": 258}
    tok = tm.Tokenizer.from_tiktoken(ranks, pattern=r"\s|\S+", special_tokens={"<end>": 257})
    tok.save(tmp_path / "t.tiktoken")
    assert load_tiktoken_bpe(str(tmp_path / "t.tiktoken")) == ranks
    again = tm.Tokenizer.from_tiktoken(tmp_path / "t.tiktoken", pattern=r"\s|\S+")
    assert again.encode("then the end") == tok.encode("then the end")
    with pytest.raises(tm.errors.VocabularyError, match="special tokens that do not come first"):
        tok.save(tmp_path / "tekken.json")
    behind = {token: rank + 2 for token, rank in ranks.items() if rank < 257}
    tok = tm.Tokenizer.from_tiktoken(behind, pattern=r"\s|\S+", special_tokens={"<unk>": 0, "</s>": 1})
    tok.save(tmp_path / "tekken.json")
    again = tm.Tokenizer.from_file(tmp_path / "tekken.json")
    text = "then the end</s>"
    assert again.encode(text) == tok.encode(text)
    assert again.encode(text, allowed_special="all") == tok.encode(text, allowed_special="all")
    assert list(again.vocabulary.eos_ids) == [1]


STEPS = [
    {"type": "BertPreTokenizer"},
    {"type": "FixedLength", "length": 3},
    {"type": "CharDelimiterSplit", "delimiter": "▁"},
    {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": True},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "UnicodeScripts"},
    {"type": "Split", "pattern": {"Regex": r"\b\w|^ |\W$|\h{2}"}, "behavior": "Isolated", "invert": False},
    {"type": "Split", "pattern": {"Regex": r"[^\w▁]|\Bt"}, "behavior": "MergedWithNext", "invert": True},
    {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "FixedLength", "length": 3},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    },
    {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Whitespace"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
            {"type": "Punctuation", "behavior": "Contiguous"},
        ],
    },
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["type"])
@pytest.mark.parametrize("name", ["bpe bytes", "unigram bytes", "wordlevel"])
def test_pre_tokenizers(files, name, step, tmp_path):
    agree(variant(files[name], pre_tokenizer=step), tmp_path)


def test_byte_level_with_a_space_before(tmp_path):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: token_id for token_id, letter in enumerate([*alphabet, "Ġa", "Ġb"])}
    step = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": vocab, "merges": ["Ġ a", "Ġ b"]}
    agree({"pre_tokenizer": step, "model": model, "decoder": step}, tmp_path)


DECODERS = [
    None,
    SPELL_BYTES,
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    {"type": "WordPiece", "prefix": "t", "cleanup": True},
    {"type": "CTC", "pad_token": "t", "word_delimiter_token": "▁", "cleanup": True},
    {"type": "BPEDecoder", "suffix": "a"},
    {"type": "Replace", "pattern": {"Regex": "[a-c]+"}, "content": "x"},
    {"type": "Strip", "content": "t", "start": 1, "stop": 2},
    {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
]


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder and decoder["type"])
def test_decoders(files, decoder):
    file = json.dumps(variant(files["bpe bytes"], decoder=decoder))
    reference, ours = Tokenizer.from_str(file), tm.Tokenizer.from_bytes(file.encode())
    draw = random.Random(5)
    for _ in range(200):
        ids = draw.choices(range(len(ours.vocabulary)), k=draw.randrange(12))
        if decoder and decoder["type"] == "Strip" and any(len(reference.id_to_token(i)) < 3 for i in ids):
            continue  # the library panics on tokens that are shorter than what is stripped
        want = reference.decode(ids, skip_special_tokens=False)
        assert ours.decode(ids) == want, [reference.id_to_token(i) for i in ids]


@pytest.mark.parametrize(
    ("member", "value", "place"),
    [
        ("normalizer", {"type": "Quux"}, "/normalizer"),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "Quux"}]}, "/normalizer/normalizers/0"),
        (
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [{"type": "Quux"}]},
            "/pre_tokenizer/pretokenizers/0",
        ),
        ("decoder", {"type": "Sequence", "decoders": [{"type": "Quux"}]}, "/decoder/decoders/0"),
        (
            "post_processor",
            {"type": "Sequence", "processors": [{"type": "Quux"}]},
            "/post_processor/processors/0",
        ),
        ("model", {"type": "Quux"}, "/model"),
    ],
)
def test_unknown_components_are_named(files, member, value, place):
    file = {**files["bpe"], member: value}
    with pytest.raises(tm.errors.UnsupportedComponentError) as caught:
        tm.Tokenizer.from_bytes(json.dumps(file).encode())
    assert (caught.value.component, caught.value.path) == ("Quux", place)


BROKEN = [
    ({"vocab": {"a": -1}}, "small number"),
    ({"vocab": {"a": 1 << 40}}, "small number"),
    ({"vocab": {"a": 0, "b": 0}}, "given twice"),
    ({"vocab": None}, "vocabulary is missing"),
    ({"merges": ["a"]}, "not two tokens"),
    ({"merges": [["a", "nothing"]]}, "names no token"),
    ({"merges": None}, "merges are missing"),
    ({"unk_token": "nothing"}, "unknown token is no token"),
    ({"unk_token": 3}, "expected a string"),
    ({"fuse_unk": "yes"}, "true or false"),
]


@pytest.mark.parametrize(("change", "reason"), BROKEN, ids=lambda value: str(value)[:30])
def test_inconsistent_models_are_named(files, change, reason):
    file = variant(files["bpe"], change)
    with pytest.raises(tm.errors.VocabularyError, match=reason) as caught:
        tm.Tokenizer.from_bytes(json.dumps(file).encode())
    assert re.match("/model", caught.value.path)
