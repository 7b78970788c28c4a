"""What superwords give: bytes per token on text that was held out, and what must hold of such a vocabulary.

``python bench/superwords.py`` trains on nine documents of ten of the open corpus (a third each of English, other languages and code):
plain BPE with Hugging Face's trainer and with ours, whose merges must be the same, and superwords from three quarters of
that size. The tenth documents are encoded.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import re
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the folder of this file would shadow packages

import tokenizers  # noqa: E402

import tokamask as tm  # noqa: E402
from bench import texts  # noqa: E402
from bench.data import unpacked  # noqa: E402

PARTS = ("english", "multilingual", "code")


def documents(part: str) -> list[str]:
    """Of the open corpus, or generated ones where it is absent."""
    folder = unpacked("corpus_open.tar.xz")
    if folder is None:
        return list(texts.warm_up(part))
    return [json.loads(row) for row in (folder / "open" / f"{part}.jsonl").open()]


def plain_by_hugging_face(path: str, size: int) -> list[tuple[str, str]]:
    """Its merges, as strings of its byte alphabet."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train([path], trainer)
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def merges_of(tok: tm.Tokenizer, folder: pathlib.Path) -> list[tuple[str, str]]:
    """The merges that a trained tokenizer saves."""
    tok.save(folder / "tokenizer.json")
    merges: list[Any] = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    return [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in merges]


def broken(tok: tm.Tokenizer) -> dict[str, int]:
    """How many tokens break each of the promises."""
    names = [tok.vocabulary.bytes(token) for token in range(len(tok))]
    return {
        "a line break inside": sum(bool(re.search(rb"[^\r\n][\r\n]+[^\r\n]", name)) for name in names),
        "more than 4 words": sum(len([word for word in name.split(b" ") if word]) > 4 for name in names),
        "a colon and a space inside": sum(b": " in name for name in names),
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=32_000)
    size = parser.parse_args().size
    kept, held = {}, {}
    for part in PARTS:
        rows = documents(part)
        held[part] = rows[9::10]
        kept[part] = [row for nth, row in enumerate(rows) if nth % 10 != 9]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = folder / "corpus.txt"
        with path.open("w", encoding="utf-8", newline="") as out:
            out.writelines(row + "\n" for part in PARTS for row in kept[part])
        seconds = [time.perf_counter()]
        plain = tm.train.bpe(path, vocab_size=size, progress=False)
        seconds.append(time.perf_counter())
        superwords = tm.train.superbpe(path, vocab_size=size, transition=size * 3 // 4, progress=False)
        seconds.append(time.perf_counter())
        theirs = plain_by_hugging_face(str(path), size)
        seconds.append(time.perf_counter())
        ours = merges_of(plain, folder)
        supermerges = merges_of(superwords, folder)
        megabytes = path.stat().st_size / 1e6
    taken = [after - before for before, after in itertools.pairwise(seconds)]
    print(f"trained on {megabytes:.1f} MB: plain {taken[0]:.1f} s, superwords {taken[1]:.1f} s, "
          f"tokenizers {tokenizers.__version__} {taken[2]:.1f} s")  # fmt: skip
    differ = sum(mine != other for mine, other in zip(ours, theirs, strict=False)) + abs(
        len(ours) - len(theirs)
    )
    print(f"plain merges that differ from theirs: {differ} of {len(theirs)}")
    letters = [superwords.vocabulary.bytes(token) for token in range(256)]
    made = len(set(letters)) == 256 and len(superwords) == 256 + len(supermerges)
    print(f"ids are the alphabet, then the merges in order: {made}")
    for what, count in broken(superwords).items():
        print(f"superwords with {what}: {count}")
    print(f"{'held out':14}{'MB':>7}{'plain':>8}{'superwords':>12}{'more':>8}   bytes per token")
    for part in (*PARTS, "all"):
        rows = [row for some in PARTS for row in held[some]] if part == "all" else held[part]
        length = sum(len(row.encode()) for row in rows)
        per = [length / sum(tok.count_batch(rows)) for tok in (plain, superwords)]
        print(f"{part:14}{length / 1e6:7.2f}{per[0]:8.3f}{per[1]:12.3f}{per[1] / per[0] - 1:8.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
