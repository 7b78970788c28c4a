"""What every file of the repository must keep to."""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

TREE = [
    ".ci/run",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "DESIGN.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "bench/run.py",
    "cuda/README.md",
    "docs/index.md",
    "mkdocs.yml",
    "pyproject.toml",
    "python/tokamask/__init__.py",
    "python/tokamask/_core.pyi",
    "python/tokamask/errors.py",
    "python/tokamask/py.typed",
    "python/tokamask/reference/__init__.py",
    "requirements/lock.txt",
    "rust/tokamask-py/src/lib.rs",
    "rust/tokamask/src/lib.rs",
    "tests/conftest.py",
]

# Source files of more than 700 lines, with the reason why they are not split.
LONG: dict[str, str] = {}
LIMIT = 700
SOURCES = {".py", ".pyi", ".rs", ".cu", ".cuh", ".hpp", ".md"}

# Written in two pieces, so that this file does not break its own rules.
FORBIDDEN = {
    "an absolute path of one machine": "/wo" + r"rk/|/ro" + r"ot/|/ho" + r"me/\w+/|/Us" + r"ers/\w+/",
    "the host of a package registry": "py" + r"pi\.org|crates" + r"\.io|python" + r"hosted\.|npm" + r"js\.",
    "unfinished work": r"\bTO" + r"DO\b|\bFIX" + r"ME\b|\bX" + r"XX\b|\bun" + r"implemented!|\bto" + r"do!\(",
    "work in progress by number": r"\bis" + r"sues? #?\d+\b",
}


def tracked() -> list[pathlib.Path]:
    """The files under version control, or a reason to skip."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: the list of files is not known")
    return [ROOT / name for name in answer.stdout.split("\0") if name and (ROOT / name).is_file()]


def text_of(path: pathlib.Path) -> str | None:
    """The text of a file, None for binary ones."""
    data = path.read_bytes()
    return None if b"\0" in data[:8000] else data.decode("utf-8", "replace")


def forbidden(text: str) -> list[tuple[str, str]]:
    """(rule, what broke it)."""
    return [(rule, match[0]) for rule, p in FORBIDDEN.items() for match in re.finditer(p, text)]


def test_the_tree_is_complete():
    assert [name for name in TREE if not (ROOT / name).exists()] == []


def test_no_file_speaks_of_what_is_outside_the_product():
    problems = {}
    for path in tracked():
        text = text_of(path)
        if text is not None and path.suffix not in {".lock", ".svg"} and path != pathlib.Path(__file__):
            found = forbidden(text)
            if found:
                problems[str(path.relative_to(ROOT))] = found
    assert problems == {}


@pytest.mark.parametrize(
    "text",
    [
        "see /wo" + "rk/main",
        "from py" + "pi.org",
        "# TO" + "DO: later",
        "closes is" + "sue 12",
        "to" + "do!()",
    ],
)
def test_the_forbidden_words_are_found(text):
    assert forbidden(text)


def test_ordinary_words_are_not_forbidden():
    assert forbidden("a homework network, issues of the day, /workers/, todo lists, crates") == []


def test_files_are_read_in_one_sitting():
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_bytes().splitlines())
        for path in tracked()
        if path.suffix in SOURCES
    }
    long = {name: lines for name, lines in lengths.items() if lines > LIMIT and name not in LONG}
    assert long == {}, "split them by noun, or list them with a reason"
    assert all(lengths.get(name, 0) > LIMIT for name in LONG), "no longer long: take it off the list"


def test_the_front_door_is_short():
    assert len((ROOT / "python/tokamask/__init__.py").read_text().splitlines()) < 40


def test_links_between_the_documents_lead_somewhere():
    broken = []
    for path in tracked():
        if path.suffix == ".md":
            text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(), flags=re.DOTALL)
            targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
            missing = [target for target in targets if not (path.parent / target).exists()]
            broken.extend(f"{path.relative_to(ROOT)}: {target}" for target in missing)
    assert broken == []
