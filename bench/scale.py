"""Counting a corpus and ten of its kind: time and memory against size, with a plot.

``python bench/scale.py`` writes ``docs/pictures/bench/counting.svg``. Each size is counted by a fresh process, whose growth is what
counting holds. Each copy of the corpus numbers a tenth of its lines anew; its words are those of the first, so the tables stay.
Beside it, text whose words are always new ones too: a tenth of the files of ``--text`` and more of them, up to all, in an order
that mixes them.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the folder of this file would shadow packages

from bench import texts  # noqa: E402
from bench.data import unpacked  # noqa: E402

TIMES = (1, 2, 4, 7, 10)
COUNT = """
import json, pathlib, sys, time
import tokamask as tm
status = pathlib.Path("/proc/self/status")
peak = lambda: int(status.read_text().split("VmHWM:")[1].split()[0]) / 1e3
before, start = peak(), time.perf_counter()
counts = tm.train.count(pathlib.Path(sys.argv[1]), runs=sys.argv[2] == "runs", pre_tokenizer="superbpe", progress=False)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "MB": peak() - before, "distinct": len(counts)}))
"""


def corpus() -> list[str]:
    """Lines of the open corpus, or generated ones where it is absent."""
    folder, lines = unpacked("corpus_open.tar.xz"), []
    for part in ("english", "multilingual", "code"):
        if folder is None:
            whole = "".join(text + "\n" for text in texts.warm_up(part))
        else:
            whole = "".join(json.loads(row) + "\n" for row in (folder / "open" / f"{part}.jsonl").open())
        lines += whole.splitlines(keepends=True)
    return lines


def copies(lines: list[str], times: int) -> Iterator[str]:
    """The lines so many times; a tenth of those of each copy is new."""
    for copy in range(times):
        for nth, line in enumerate(lines):
            yield f"{line[:-1]} v{copy}x{nth}\n" if nth % 10 == 1 and copy else line


def mixed(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of text below a folder, in an order that no folder of them decides."""
    kinds = {".py", ".pyi", ".md", ".rst", ".txt", ".h", ".hpp", ".c", ".json", ".html", ".po"}
    files = [path for path in folder.rglob("*") if path.suffix in kinds and path.is_file()]
    return sorted(files, key=lambda path: hashlib.blake2b(str(path.relative_to(folder)).encode()).digest())


def whole(files: list[pathlib.Path]) -> Iterator[str]:
    """Their texts, without those that are not UTF-8."""
    for path in files:
        with contextlib.suppress(UnicodeDecodeError):
            yield path.read_text(encoding="utf-8") + "\n"


def measured(text: Iterable[str], kind: str) -> dict[str, float]:
    """Counts a text in a fresh process."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", suffix=".txt") as out:
        out.writelines(text)
        out.flush()
        size = pathlib.Path(out.name).stat().st_size / 1e6
        command = [sys.executable, "-c", COUNT, out.name, kind]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {"size": size, **json.loads(answer)}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=pathlib.Path, default=ROOT / "docs" / "pictures" / "bench" / "counting.svg"
    )
    parser.add_argument("--kinds", nargs="+", default=["words", "runs"], choices=["words", "runs"])
    parser.add_argument("--text", type=pathlib.Path, help="a folder of text, counted in growing parts")
    options = parser.parse_args()
    lines, rows = corpus(), {}
    print(f"{'':8}{'MB':>8}{'seconds':>9}{'MB/s':>8}{'memory MB':>11}{'distinct':>10}")
    labels = {"words": "copies: pretokens", "runs": "copies: pretokens and runs"}
    parts = [(labels[kind], kind, [copies(lines, times) for times in TIMES]) for kind in options.kinds]
    if options.text:
        files = mixed(options.text)
        shares = [whole(files[: len(files) * times // 10]) for times in TIMES]
        parts.append(("other text: pretokens", "words", shares))
    for label, kind, texts_ in parts:
        rows[label] = [measured(text, kind) for text in texts_]
        print(label)
        for row in rows[label]:
            speed = row["size"] / row["seconds"]
            print(
                f"{'':8}{row['size']:8.0f}{row['seconds']:9.2f}{speed:8.1f}{row['MB']:11.0f}{row['distinct']:10.0f}"
            )
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.8))
    for (label, points), colour in zip(rows.items(), ("#0b6e4f", "#b5651d", "#3b5b92"), strict=False):
        sizes = [row["size"] for row in points]
        time.plot(sizes, [row["seconds"] for row in points], "o-", color=colour, label=label)
        memory.plot(sizes, [row["MB"] for row in points], "o-", color=colour, label=label)
    time.set(xlabel="text, MB", ylabel="seconds", ylim=0, xlim=0)
    memory.set(xlabel="text, MB", ylabel="growth of the process, MB", ylim=0, xlim=0)
    time.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(options.out, metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
