"""Small tokenizers over every kind of split rule, for tests that need many of them."""

import functools
import pathlib

import tokamask as tm
from tokamask.compat.tiktoken.public import _RULES

SIGNS = "abcdefgh ABC 'sStT  0123456789\t\n\r\n/.,!?-_(){}\u00a0\u2028ñßſK你好ק👍🏽‍❤️²½٣\u0301"
PATTERNS = {
    **{f"tiktoken {name}": rule for name, rule in _RULES.items()},
    "long look-ahead": r"(?=(\d{3})+(?!\d))| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "fallback engine": r"(?<=ba)b|\w+|\s+|\W",
    "edges of words": r"\b\w{1,4}|(?m:^)\s|(?<=[a-f])\w+|\s+(?m:$)|\B.|(?s:.)",
    "a word before a stop": r"\p{L}+(?=\.)|\p{L}|\s+|.",
    "leaves gaps": r"\p{L}+|\p{N}",
    "one piece": r"(?s:.+)",
}


@functools.cache
def ranks() -> dict[bytes, int]:
    """900 tokens learnt from the repository's own prose."""
    text = (
        pathlib.Path(__file__).parent.parent / "DESIGN.md"
    ).read_text() + "你好你好 e\u0301 👍👍 12 123 \n\n  \n"
    trained = tm.train.bpe(tm.train.count([text] * 2, progress=False), vocab_size=900, progress=False)
    return {trained.vocabulary.bytes(i): i for i in range(len(trained))}


@functools.cache
def small(pattern: str) -> tm.Tokenizer:
    """The tokenizer of one of ``PATTERNS``, with a special token."""
    return tm.Tokenizer.from_tiktoken(ranks(), pattern=PATTERNS[pattern], special_tokens={"<|end|>": 900})


@functools.cache
def with_added(**flags: bool) -> tm.Tokenizer:
    """A tokenizer whose added tokens are matched in any text."""
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tokenizer.json"
        trained = tm.train.bpe(
            tm.train.count(["a b ab cab"] * 2, progress=False), vocab_size=260, progress=False
        )
        trained.save(path)
        file = json.loads(path.read_text())
        first = len(trained)
        for nth, content in enumerate(("ab", "abcab", "??")):
            token = {"content": content, "id": first + nth, "special": False, "normalized": False}
            file["added_tokens"].append(
                {**dict.fromkeys(("single_word", "lstrip", "rstrip"), False), **token, **flags}
            )
        return tm.Tokenizer.from_bytes(json.dumps(file).encode())
