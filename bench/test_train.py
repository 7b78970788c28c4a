"""Training on a file of 8 MB and more: plain BPE against its rivals, superwords beside it.

All cores; a corpus of a third each of English, other languages and code, written once per session.
"""

import json

import pytest

from bench import texts
from bench.data import unpacked
from bench.rivals import contestants, prepared

VOCAB_SIZE = 32_000
TURNS = 2  # a call takes seconds, and every call is a fresh one


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """The file, and what to call it."""
    path = tmp_path_factory.mktemp("train") / "corpus.txt"
    folder = unpacked("corpus_open.tar.xz")
    with path.open("w", encoding="utf-8", newline="") as out:
        for part in ("english", "multilingual", "code"):
            if folder is None:
                out.writelines(text + "\n" for text in texts.warm_up(part))
                continue
            with (folder / "open" / f"{part}.jsonl").open() as rows:
                out.writelines(json.loads(row) + "\n" for row in rows)
    return path


def _measured(measure, run, path, **options):
    size = path.stat().st_size
    measure(lambda: run(path), work=size, unit="MB/s", input=f"{size / 1e6:.0f} MB, 32k", **options)


@pytest.mark.parametrize("contestant", contestants("train"))
def test_train(measure, contestant, corpus, turn):
    if turn >= TURNS:
        pytest.skip("training takes seconds: two turns")
    _measured(measure, prepared(contestant, "train", VOCAB_SIZE), corpus, state="bpe", headline=True)


@pytest.mark.parametrize("contestant", contestants("train_superbpe"))
def test_train_superbpe(measure, contestant, corpus, turn):
    if turn >= TURNS:
        pytest.skip("training takes seconds: two turns")
    _measured(measure, prepared(contestant, "train_superbpe", VOCAB_SIZE), corpus, state="superbpe")
