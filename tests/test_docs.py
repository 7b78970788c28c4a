"""The examples of README.md and of every page of the documentation do what the pages say."""

import importlib.util
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def load(name):
    """A script of the docs folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


execute = load("execute")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples(page, request):
    text = page.read_text()
    if "find_model" in text or "tokamask generate" in text:
        request.getfixturevalue("smollm2_gguf")  # skips where the model is absent
    assert execute.run(text, str(page.relative_to(ROOT))) == []


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "but this is printed\n1"),
        ("```python\nraise KeyError('x')\n```\n", "KeyError: 'x'"),
        ("```python\na = 1\n```\nthen\n```python\nassert a == 2\n```\n", "AssertionError"),
        ("```console\n$ echo one two\none three\n```\n", "one two"),
        ("```console\n$ exit 3\n```\n", "ended with 3"),
    ],
)
def test_untrue_pages_are_found(page, problem):
    assert problem in "\n".join(execute.run(page, "page.md"))


def test_true_pages_pass():
    page = "```python\nprint('a b')\n```\n\n```text\na ...\n```\n```console\n$ echo x\nx\n$ echo y z\n...z\n```\n"
    assert execute.run(page, "page.md") == []


def test_pictures_show_what_the_code_does_now(smollm2_gguf):
    drawn = load("pictures").draw()
    committed = {
        path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "pictures").glob("*.svg")
    }
    assert drawn == committed, "run `python docs/pictures.py` and look at them"
