"""Runs the test suites of tiktoken and tokenizers against the drop-in modules, with only the import changed.

    python tests/upstream.py tiktoken tokenizers

The suites come with the source distributions, which pip fetches into a scratch folder beside the virtual environment;
none of their code enters this repository. tiktoken's ranks come from ``TIKTOKEN_CACHE_DIR``, or from the large test
data where that is present; tokenizers' tests that want files from a hub fail or skip without it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from conftest import shared_folder

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = {"tiktoken": "0.14.0", "tokenizers": "0.23.3"}
SUITES = {"tiktoken": "tests", "tokenizers": "bindings/python/tests"}
# Imports of the library, and nothing else, are changed.
IMPORTS = [
    (r"^(\s*)import {0}$", r"\1import tokamask.compat.{0} as {0}"),
    (r"^(\s*)from {0}(\.[\w.]+)? import", r"\1from tokamask.compat.{0}\2 import"),
    (r"^(\s*)import {0}\.([\w.]+)", r"\1import tokamask.compat.{0}.\2"),
]


def source(name: str, folder: Path) -> Path:
    """The unpacked source distribution."""
    target = folder / f"{name}-{VERSIONS[name]}"
    if not target.is_dir():
        archive = folder / f"{name}-{VERSIONS[name]}.tar.gz"
        if not archive.exists():
            fetch = ["download", "-q", "--no-deps", "--no-binary", ":all:", f"{name}=={VERSIONS[name]}"]
            # Building is what pip does with every source distribution; its tools may come as wheels.
            fetch[fetch.index(":all:")] = name
            subprocess.run([sys.executable, "-m", "pip", *fetch, "-d", str(folder)], check=True)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return target


def rewritten(name: str, folder: Path) -> Path:
    """A copy of the suite that imports the drop-in module."""
    suite = source(name, folder) / SUITES[name]
    target = folder / f"{name}-suite" / "python" / "tests"  # a suite asks for the name of its folder
    shutil.rmtree(target.parent, ignore_errors=True)
    shutil.copytree(suite, target)
    for file in target.rglob("*.py"):
        text = file.read_text()
        for pattern, replacement in IMPORTS:
            text = re.sub(pattern.format(name), replacement.format(name), text, flags=re.MULTILINE)
        file.write_text(text)
    return target.parent


def ranks(folder: Path) -> dict[str, str]:
    """The variable that names tiktoken's cache, if it is set or can be filled."""
    if "TIKTOKEN_CACHE_DIR" in os.environ or shared_folder() is None:
        return {}
    with tarfile.open(shared_folder() / "data" / "tiktoken_cache.tar.xz") as tar:
        tar.extractall(folder / "ranks", filter="data")
    (cache,) = (path for path in (folder / "ranks").iterdir() if path.is_dir())
    return {"TIKTOKEN_CACHE_DIR": str(cache)}


def main(names: list[str]) -> int:
    """Runs the suites; 0 if all pass."""
    beside = ROOT / ".venv"
    folder = beside / "upstream" if beside.is_dir() else Path(tempfile.gettempdir()) / "tokamask-upstream"
    folder.mkdir(exist_ok=True)
    worst = 0
    for name in names or VERSIONS:
        suite = rewritten(name, folder)
        print(f"== {name} {VERSIONS[name]}, import changed", flush=True)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore",
            "--tb=line",
            "--continue-on-collection-errors",  # some files import packages that only they need
        ]
        environment = {**os.environ, **ranks(folder), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [*command, "--rootdir", str(suite), "-c", os.devnull, "tests"], cwd=suite, env=environment
        )
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
