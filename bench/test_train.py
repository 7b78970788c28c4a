"""Training on a file of 8 MB and more: plain BPE against its rivals in time and memory, superwords beside it; counting
a corpus and ten of its kind.

All cores; a corpus of a third each of English, other languages and code, written once per session.
"""

import json
import subprocess
import sys

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


#: A fresh process that trains with one contestant, and says how much memory it ever held.
PEAK = """
import importlib, pathlib, sys
adapter = importlib.import_module(f"bench.rivals.{sys.argv[1]}").ADAPTER
adapter.train(int(sys.argv[3]))(pathlib.Path(sys.argv[2]))
status = pathlib.Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) / 1e3)
"""


def _peak(command):
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize("contestant", contestants("train"))
def test_train_memory(measure, contestant, corpus, turn):
    if turn >= 1:
        pytest.skip("memory does not depend on the turn")
    command = [sys.executable, "-c", PEAK, contestant.name, str(corpus), str(VOCAB_SIZE)]
    size = f"{corpus.stat().st_size / 1e6:.0f} MB, 32k"
    measure(_peak, command, unit="MB", input=size, state="peak memory", value=float)


@pytest.mark.parametrize("contestant", contestants("count_pretokens"))
@pytest.mark.parametrize("times", [1, 10])
def test_count(measure, contestant, corpus, times, turn, tmp_path):
    """Ten times the text, a tenth of it new in each copy: the time grows with the text, the tables with what is new."""
    if turn >= 1:
        pytest.skip("counting 300 MB takes seconds: one turn")
    path = tmp_path / "corpus.txt"
    lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)
    with path.open("w", encoding="utf-8", newline="") as out:
        for copy in range(times):
            marked = (
                f"{line[:-1]} v{copy}x{nth}\n" if nth % 10 == 1 and copy else line
                for nth, line in enumerate(lines)
            )
            out.writelines(marked)
    measure(
        contestant.count_pretokens(),
        path,
        work=path.stat().st_size,
        unit="MB/s",
        input=f"{path.stat().st_size / 1e6:.0f} MB",
        state="counting",
        also=lambda counts: {"MB of counts": counts.nbytes / 1e6, "million pretokens": len(counts) / 1e6},
    )
