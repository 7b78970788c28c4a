"""Ids equal to the reference on ordinary and hostile texts, vocabulary by vocabulary.

By default a slice. ``make exact`` sets TOKAMASK_EXACT=full: every document of the corpus, every hostile text whole.
"""

import importlib.util
import json
import os
import pathlib

import numpy as np
import pytest
import tiktoken
import tokenizers

import tokamask as tm

FULL = os.environ.get("TOKAMASK_EXACT") == "full"
BYTES = 10**9 if FULL else 40_000
ROOT = pathlib.Path(__file__).resolve().parent.parent

TIKTOKEN = {"gpt2": "r50k_base", "cl100k": "cl100k_base", "o200k": "o200k_base"}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Other split rules on the same ranks: the ids mean nothing, the reference runs them all the same.
RULES = {
    "llama3": LLAMA3,
    "qwen": LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),
    "lines": r"[^\n]+\n?|\n",
}


def openai(unpacked, name, pattern=None):
    """Ours and tiktoken's, of the same ranks."""
    folder = next(p for p in unpacked("tiktoken_cache.tar.xz").rglob("fb374d*")).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        known = tiktoken.get_encoding(name)
    pattern = pattern or known._pat_str
    reference = tiktoken.Encoding(
        name, pat_str=pattern, mergeable_ranks=known._mergeable_ranks, special_tokens={}
    )
    ours = tm.Tokenizer.from_tiktoken(known._mergeable_ranks, pattern=pattern)
    return ours, lambda text: reference.encode_to_numpy(text, disallowed_special=())


def superbpe(unpacked, name):
    """Ours and Hugging Face's, of the same file."""
    path = next(p for p in unpacked("superbpe_vocabs.tar.xz").rglob("tokenizer.json") if name in str(p))
    reference = tokenizers.Tokenizer.from_file(str(path))
    reference.encode_special_tokens = True
    ours = tm.Tokenizer.from_file(path)
    return ours, lambda text: np.array(reference.encode(text, add_special_tokens=False).ids, np.uint32)


@pytest.fixture(scope="module", params=[*TIKTOKEN, *RULES, "superbpe-t180K", "superbpe-t80K"])
def pair(request, unpacked):
    kind, _, name = request.param.partition("-")
    if kind == "superbpe":
        return superbpe(unpacked, name)
    if kind in RULES:
        return openai(unpacked, "cl100k_base", RULES[kind])
    return openai(unpacked, TIKTOKEN[kind])


def check(ours, reference, text, name):
    """Equal ids, or the place where they part."""
    got, want = ours.encode_array(text), reference(text)
    if not np.array_equal(got, want):
        both = min(len(got), len(want))
        first = int(np.argmax(got[:both] != want[:both])) if (got[:both] != want[:both]).any() else both
        near = ours.decode(want[max(0, first - 4) : first + 4])
        pytest.fail(
            f"{name}: ids part at {first}, {got[first : first + 4]} for {want[first : first + 4]}, near {near!r}"
        )


@pytest.mark.timeout(3600 if FULL else 120)
def test_documents(pair, unpacked):
    for path in sorted(unpacked("corpus_open.tar.xz").rglob("*.jsonl")):
        size = 0
        with path.open(encoding="utf-8") as lines:
            for nth, line in enumerate(lines):
                text = json.loads(line)[: None if FULL else 8_000]
                check(*pair, text, f"{path.stem} {nth}")
                size += len(text)
                if size > BYTES:
                    break


@pytest.mark.timeout(3600 if FULL else 120)
def test_hostile_texts(pair, unpacked):
    spec = importlib.util.spec_from_file_location("hostile", ROOT / "bench" / "hostile.py")
    hostile = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hostile)
    path = next(unpacked("corpus_open.tar.xz").rglob("english.jsonl"))
    with path.open(encoding="utf-8") as lines:
        english = "".join(json.loads(line) for _, line in zip(range(400 if FULL else 8), lines, strict=False))
    for name, text in hostile.texts(english, 1.0 if FULL else 0.01).items():
        ours, reference = pair
        try:
            reference(text)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # tiktoken's, on a million spaces
                raise
            assert ours.decode(ours.encode_array(text)) == text, name
            continue
        check(ours, reference, text, name)
