"""Counts the instructions of fixed work in the Rust core: a number that another load on the machine does not change.

``python bench/instructions.py`` counts and records, ``--check`` compares with the record: more than 10 % more is an
error. It needs valgrind, whose callgrind does the counting on the instruction set it knows, so counts differ between
processors with other vector units; the record names its processor.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORD = ROOT / "bench" / "results" / "instructions.json"
OPERATIONS = ("encode", "mask", "draft", "top_k")
TOLERANCE = 0.10


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the record instead of writing it")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        print("missing on this machine: valgrind", file=sys.stderr)
        return 2
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "-q", "-p", "tokamask", "--example", "instructions"],
        cwd=ROOT,
        check=True,
    )
    idle = count("none")
    counts = {operation: count(operation) - idle for operation in OPERATIONS}
    if not options.check:
        RECORD.write_text(json.dumps({"processor": processor(), "instructions": counts}, indent=1) + "\n")
        print(RECORD.read_text(), end="")
        return 0
    recorded = json.loads(RECORD.read_text())
    if recorded["processor"] != processor():
        print(f"the record is of another processor ({recorded['processor']}): nothing is compared")
        return 0
    worse = 0
    for operation, now in counts.items():
        before = recorded["instructions"][operation]
        change = now / before - 1
        worse += change > TOLERANCE
        print(
            f"{operation:8} {before:>14,} -> {now:>14,}  {change:+.1%}{'  TOO MANY' if change > TOLERANCE else ''}"
        )
    return int(worse > 0)


def count(operation: str) -> int:
    """Instructions of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"),
            *(str(ROOT / "target" / "release" / "examples" / "instructions"), operation),
        ]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", answer.stderr)
    if answer.returncode or not found:
        raise SystemExit(f"{operation}: {answer.stderr.strip()[-800:]}")
    return int(found[1])


def processor() -> str:
    """What the counts depend on."""
    sys.path[0] = str(ROOT)
    from bench.machine import card

    about = card()
    return f"{about['processor']} ({', '.join(about['flags'])})"


if __name__ == "__main__":
    sys.exit(main())
