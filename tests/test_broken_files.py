"""Every reader on files that are cut, flipped and inconsistent: a named error or a tokenizer that works, never a panic.

TOKAMASK_HYPOTHESIS=thorough tries twenty times as many.
"""

import base64
import contextlib
import json
import os
import random
import struct

import pytest
from compiled_files import START, signed
from exact import model_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tokamask as tm
from tokamask.errors import TokamaskError, UnknownTokenError, UnsupportedComponentError

CASES = 6000 if os.environ.get("TOKAMASK_HYPOTHESIS") == "thorough" else 300
LINES = ["the cat sat on a mat", "that rat ate what it had, did it?", "é 日本 <x> 123  \n x"] * 20
TEXTS = [
    "",
    "the cat  sat\n",
    "é日\u0301 \x00<s>",
    "a" * 300,
    " " * 70,
    "<0x41>▁▁ 12345",
    "\U0001f469\u200d\U0001f680",
]
# What numbers of a file become.
NUMBERS = [-1, 0, 1, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 10**30, -0.5, 1e308]
WORDS = [
    "",
    "a",
    "\u0000",
    "▁",
    "<0x00>",
    "[",
    "(?=a",
    "(a*)*b",
    r"\p{Q}",
    "a{99999}",
    "Sequence",
    "é" * 50,
    "\ud800",
]


def hugging_face() -> dict[str, bytes]:
    """A small tokenizer.json of every model, with every kind of step in some."""
    quiet = {"vocab_size": 60, "show_progress": False, "special_tokens": ["<unk>", "<s>"]}
    files = {}
    for name, model, trainer in [
        ("bpe", models.BPE(unk_token="<unk>"), trainers.BpeTrainer(**quiet)),
        ("unigram", models.Unigram(), trainers.UnigramTrainer(unk_token="<unk>", **quiet)),
        ("wordpiece", models.WordPiece(unk_token="<unk>"), trainers.WordPieceTrainer(**quiet)),
        ("wordlevel", models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(**quiet)),
    ]:
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.NFKC(),
                normalizers.Replace("x", "y"),
                normalizers.BertNormalizer(),
                normalizers.Strip(),
            ]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(True), pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.Metaspace()]
        )
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Strip(" ", 1, 0)])
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B:1", [("<s>", 1)])
        tokenizer.train_from_iterator(LINES, trainer)
        tokenizer.enable_truncation(9)
        tokenizer.enable_padding()
        files[f"{name}.json"] = tokenizer.to_str().encode()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        LINES, trainers.BpeTrainer(vocab_size=300, show_progress=False, initial_alphabet=alphabet)
    )
    files["bytes.json"] = tokenizer.to_str().encode()
    return files


def gguf(kind: str, members: dict) -> bytes:
    """A file of metadata alone."""

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text.encode())) + text.encode()

    def value(item) -> bytes:
        if isinstance(item, list):
            inner, spell = {str: (8, string), float: (6, lambda v: struct.pack("<f", v))}.get(
                type(item[0]), (5, lambda v: struct.pack("<i", v))
            )
            head = struct.pack("<IIQ", 9, inner, len(item))
            return head + b"".join(map(spell, item))
        if isinstance(item, str):
            return struct.pack("<I", 8) + string(item)
        return struct.pack("<II", 4, item)

    members = {
        "tokenizer.ggml.model": kind,
        **{f"tokenizer.ggml.{key}": item for key, item in members.items()},
    }
    body = b"".join(string(key) + value(item) for key, item in members.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(members)) + body


def others(bytes_json: bytes) -> dict[str, bytes]:
    """The formats that are not JSON of that kind."""
    single = [bytes([b]) for b in range(256)]
    tokens = [*single, b"th", b"the", b" the", b"at", b"cat"]
    ranks = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("▁▁", 0.0, 4)]
    pieces += [(f"<0x{b:02X}>", 0.0, 6) for b in range(256)]
    pieces += [(piece, -n - 1.0, 1) for n, piece in enumerate(["▁t", "he", "▁the", "at", *"▁theacsd"])]
    tekken = {
        "config": {
            "pattern": r"\s+|\S+",
            "num_vocab_tokens": 261,
            "default_vocab_size": 264,
            "default_num_special_tokens": 3,
            "version": "v3",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for rank, token in enumerate(tokens)
        ],
        "special_tokens": [
            {"rank": n, "token_str": word, "is_control": True}
            for n, word in enumerate(["<unk>", "<s>", "</s>"])
        ],
    }
    value = json.loads(bytes_json)["model"]
    merges = [" ".join(pair) for pair in value["merges"]]
    words = sorted(value["vocab"], key=value["vocab"].__getitem__)
    spm = {
        "tokens": [text.replace("▁", " ") if kind == 4 else text for text, _, kind in pieces],
        "scores": [score for _, score, _ in pieces],
        "token_type": [kind for _, _, kind in pieces],
        "eos_token_id": 2,
    }
    bpe = {
        "pre": "gpt-2",
        "tokens": words,
        "merges": merges,
        "token_type": [1] * len(words),
        "eos_token_id": 0,
    }
    return {
        "ranks.tiktoken": ranks,
        "bpe.model": model_file(pieces, normalizer=b"\x18\x01\x20\x00"),
        "unigram.model": model_file(pieces, unigram=True, normalizer=b"\x18\x01\x20\x01"),
        "tekken.json": json.dumps(tekken).encode(),
        "llama.gguf": gguf("llama", spm),
        "gpt2.gguf": gguf("gpt2", bpe),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """Whole files, all of which are read."""
    found = hugging_face()
    found |= others(found["bytes.json"])
    for name in ["bytes.json", "unigram.model"]:
        path = tmp_path_factory.mktemp("compiled") / "t"
        tm.Tokenizer.from_bytes(found[name]).save(path)
        found[f"{name}.tokamask"] = path.read_bytes()
    for name, data in found.items():
        assert len(works(data, name)) > 0, name
    return found


def works(data: bytes, name: str) -> list[int]:
    """Reads a file and uses it: texts to ids and back. The ids."""
    if name.endswith(".tiktoken"):
        from tokamask._core import read_ranks

        tokenizer = tm.Tokenizer.from_tiktoken(read_ranks(data), pattern=r"\s+|\S+")
    else:
        tokenizer = tm.Tokenizer.from_bytes(data)
    seen = []
    for text in TEXTS:
        try:
            ids = tokenizer.encode(text, add_special_tokens=True, allowed_special="all")
            assert tokenizer.count(text, allowed_special="all") == len(
                tokenizer.encode(text, allowed_special="all")
            )
        except TokamaskError:
            continue
        assert all(0 <= i < len(tokenizer) for i in ids)
        tokenizer.decode(ids)
        tokenizer.decode_bytes(ids[::-1])
        with contextlib.suppress(UnsupportedComponentError):
            tokenizer.encode_with_offsets(text, allowed_special="all")
        seen += ids
    return seen


def survives(data: bytes, name: str) -> None:
    """A named error or a tokenizer that works."""
    with contextlib.suppress(TokamaskError):
        works(data, name)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Bytes cut off, flipped, doubled, left out, or overwritten by lengths."""
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        at = draw.randrange(len(data) + 1)
        kind = draw.randrange(6)
        if kind == 0:
            del data[at:]
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 2 and at < len(data):
            data[at] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, ord('"'), ord("\\")])
        elif kind == 3:
            data[at:at] = data[at : at + draw.randrange(40)]
        elif kind == 4:
            del data[at : at + draw.randrange(1, 20)]
        else:
            data[at : at + 8] = draw.choice(
                [b"\xff" * 8, b"\0" * 8, struct.pack("<Q", draw.choice([2**31, 2**40]))]
            )
    return bytes(data)


def places(value, found: list) -> list:
    """(holder, key) of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        places(inner, found)
    return found


def inconsistent(data: bytes, draw: random.Random) -> bytes:
    """Valid JSON in which some values are others."""
    value = json.loads(data)
    for _ in range(draw.choice([1, 1, 2, 4])):
        everywhere = places(value, [])
        shallow = [place for place in everywhere if isinstance(place[0][place[1]], (dict, list, str, bool))]
        holder, key = draw.choice(draw.choice([everywhere, shallow or everywhere]))
        kind = draw.randrange(6)
        if kind == 0:
            holder[key] = draw.choice(NUMBERS)
        elif kind == 1:
            holder[key] = draw.choice(WORDS)
        elif kind == 2:
            holder[key] = draw.choice([None, True, [], {}, [[]], {"type": "Sequence"}])
        elif kind == 3:
            del holder[key]
            if not value:
                break
        elif kind == 4:
            other, at = draw.choice(everywhere)
            holder[key] = json.loads(
                json.dumps(other.get(at) if isinstance(other, dict) else [*other, 0][at])
            )
        elif isinstance(holder, dict):
            holder[draw.choice(WORDS)] = holder.pop(key)
    return json.dumps(value).encode("utf-8", "surrogatepass")


FORMATS = [
    *(f"{name}.json" for name in ["bpe", "unigram", "wordpiece", "wordlevel", "bytes", "tekken"]),
    *("ranks.tiktoken", "bpe.model", "unigram.model", "llama.gguf", "gpt2.gguf"),
    *("bytes.json.tokamask", "unigram.model.tokamask"),
]


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(files, name):
    for seed in range(CASES // 3):
        survives(damaged(files[name], random.Random(seed)), name)


@pytest.mark.parametrize("name", [name for name in FORMATS if name.endswith(".json")])
def test_inconsistent_files(files, name):
    for seed in range(CASES):
        survives(inconsistent(files[name], random.Random(seed)), name)


@pytest.mark.parametrize("name", [name for name in FORMATS if name.endswith(".tokamask")])
def test_forged_files(files, name):
    """Damage that the checksum does not show."""
    data = files[name]
    for seed in range(CASES // 3):
        draw = random.Random(seed)
        # Most of the file are tables; half of the damage is where lengths and names stand.
        size = draw.choice([len(data), min(len(data), START + 2000)])
        body = damaged(data[START:size], draw) + data[size:]
        survives(signed(data[:START] + body), name)


def test_ids_that_no_vocabulary_has():
    tok = tm.Tokenizer.default()
    for wrong in (-1, 2**32, 2**70, len(tok)):
        for call in (tok.decode, tok.decode_bytes, tok.is_canonical, tok.heal):
            with pytest.raises(UnknownTokenError) as caught:
                call([1, wrong])
            assert caught.value.token_id == wrong
        with pytest.raises(UnknownTokenError):
            tok.stream_decoder().push(wrong)
    for wrong in ("a", None, 1.5, [1]):
        with pytest.raises(TypeError):
            tok.decode([wrong])
