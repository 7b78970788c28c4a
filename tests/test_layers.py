"""Imports go downwards: between the modules of the core, between the Python modules, and to other packages."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
CORE = ROOT / "rust" / "tokamask" / "src"
PACKAGE = ROOT / "python" / "tokamask"

# What each module of the core may use besides itself.
GROUND = {"ids", "error", "random"}
RUST_LAYERS = {
    "ids": set(),
    "error": {"ids"},
    "random": set(),
    "vocabulary": GROUND,
    "text": GROUND | {"vocabulary"},
    "bpe": GROUND | {"vocabulary", "text"},
    "models": GROUND | {"vocabulary", "text"},
    "formats": GROUND | {"vocabulary", "text", "bpe", "models"},
    "tokenizer": GROUND | {"vocabulary", "text", "bpe", "models", "formats"},
    "train": GROUND | {"vocabulary", "text", "bpe", "models", "formats", "tokenizer"},
    "grammar": GROUND | {"vocabulary"},
    "mask": GROUND | {"vocabulary", "grammar"},
    "draft": GROUND | {"vocabulary", "grammar", "mask"},
    "kernels": GROUND,
}

# Python: a module may import from its own layer and from those below it.
PYTHON_LAYERS = [
    {"errors"},
    {"reference"},
    {"_core", "gpu"},
    set(),  # the public modules: every name that is in no other layer
    {"integrations", "compat", "show", "demo", "cli", "doctor", "__main__"},
]
PUBLIC = 3

ARRAY_MODULES = {"attention.py", "selection.py", "sampling.py"}


def rust_uses(source: str) -> set[str]:
    """Modules of the crate that a Rust file uses, tests and comments aside."""
    source = re.split(r"#\[cfg\(test\)\]\s*mod ", source)[0]
    source = re.sub(r"//.*", "", source)
    grouped = re.findall(r"use crate::\{(.*?)\};", source, re.DOTALL)
    names = [name for group in grouped for name in re.findall(r"(?:^|,)\s*(\w+)", _flat(group))]
    return {*names, *re.findall(r"\bcrate::(\w+)", source)}


def _flat(group: str) -> str:
    """The group without what stands in inner braces."""
    while "{" in group:
        group = re.sub(r"\{[^{}]*\}", "", group)
    return group


def python_imports(source: str, module: str) -> list[tuple[str, bool]]:
    """(name, at import time) of every import in a file; imports for type checkers aside.

    Relative imports are resolved against ``module``, the dotted name of the file.
    """
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, eager: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                visit(child, eager)
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, eager) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            if name in {"tokamask", "tokamask.integrations", "tokamask.gpu"}:
                found.extend((f"{name}.{alias.name}", eager) for alias in node.names)
            else:
                found.append((name, eager))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, eager and not inside)

    visit(ast.parse(source), True)
    return found


def layer(module: str) -> int:
    """The layer of a dotted name under tokamask."""
    first = module.split(".")[1] if "." in module else "__init__"
    return next((i for i, names in enumerate(PYTHON_LAYERS) if first in names), PUBLIC)


def rust_files():
    return sorted(
        path.relative_to(CORE) for path in CORE.rglob("*.rs") if path.name not in {"lib.rs", "main.rs"}
    )


def python_files():
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def dotted(path: pathlib.Path) -> str:
    parts = ["tokamask", *path.with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def broken_in_rust(module: str, source: str) -> set[str]:
    return rust_uses(source) - RUST_LAYERS[module] - {module}


def broken_in_python(module: str, source: str) -> list[str]:
    """What a file imports from above it, and other packages where they do not belong."""
    problems = []
    for name, eager in python_imports(source, module):
        top = name.split(".")[0]
        place = module.split(".")[1:]
        if top == "tokamask" and module != "tokamask" and layer(name) > layer(module):
            problems.append(name)
        arrays = len(place) == 1 and f"{place[0]}.py" in ARRAY_MODULES and not eager
        # What xgrammar returns is a torch tensor.
        arrays = arrays or (place == ["compat", "xgrammar"] and not eager)
        if top == "torch" and place[:1] not in (["gpu"], ["integrations"]) and not arrays:
            problems.append(f"{name} (torch belongs in gpu, integrations and, lazily, the array modules)")
        if top == "cupy" and place != ["gpu", "launch"]:
            problems.append(f"{name} (CuPy belongs in gpu/launch.py)")
    return problems


@pytest.mark.parametrize("path", rust_files(), ids=str)
def test_core_modules_import_downwards(path):
    module = path.with_suffix("").parts[0]
    assert module in RUST_LAYERS, f"{module} has no place among the layers: add it here and in lib.rs"
    assert not broken_in_rust(module, (CORE / path).read_text())


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_python_modules_import_downwards(path):
    assert not broken_in_python(dotted(path), (PACKAGE / path).read_text())


def test_the_core_knows_no_python():
    manifest = (ROOT / "rust" / "tokamask" / "Cargo.toml").read_text()
    assert not re.search(r"^(pyo3|numpy|tokamask-py)\b", manifest, re.MULTILINE)


def test_importing_the_package_imports_numpy_and_nothing_else():
    script = (
        "import sys, numpy; before = set(sys.modules); import tokamask;"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "print(sorted(m for m in new if m not in sys.stdlib_module_names and m not in ('tokamask', 'numpy')))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def kernel_files():
    folder = ROOT / "cuda"
    return sorted(path.relative_to(folder) for path in [*folder.rglob("*.cu"), *folder.rglob("*.cuh")])


@pytest.mark.parametrize("path", kernel_files(), ids=str)
def test_kernels_include_no_host_header(path):
    source = (ROOT / "cuda" / path).read_text()
    assert not foreign_headers(source)


def foreign_headers(source: str) -> list[str]:
    """What a kernel includes besides files of its own folder, as the run-time compiler sees it."""
    source = re.sub(
        r"(#if(?:def | defined\()__CUDACC_RTC__.*?)#else.*?(#endif)", r"\1\2", source, flags=re.DOTALL
    )
    included = re.findall(r"^\s*#\s*include\s*(\S+)", source, re.MULTILINE)
    return [name.strip("<>") for name in included if not re.fullmatch(r'"(tokamask/)?\w+\.cuh"', name)]


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("vocabulary", "use crate::mask::Row;", {"mask"}),
        ("grammar", "use crate::{error::{A, B}, mask, vocabulary::V};", {"mask"}),
        ("kernels", "fn f() { crate::vocabulary::g() }", {"vocabulary"}),
        ("mask", "use crate::tokenizer::Tokenizer;", {"tokenizer"}),
        ("draft", "use crate::mask::Matcher; // not crate::tokenizer\n", set()),
        ("ids", "pub struct A;\n#[cfg(test)]\nmod tests { use crate::mask::Row; }", set()),
    ],
)
def test_the_rust_rule_finds_what_it_should(module, source, broken):
    assert broken_in_rust(module, source) == broken


@pytest.mark.parametrize(
    ("module", "source", "problems"),
    [
        ("tokamask.draft", "from tokamask.cli import main", 1),
        ("tokamask.draft", "from tokamask import integrations", 1),
        ("tokamask.draft", "from .errors import ShapeError\nfrom tokamask.reference.verify import walk", 0),
        ("tokamask.reference.verify", "import tokamask.draft", 1),
        ("tokamask.reference.verify", "def f():\n    from ..draft import DraftTree", 1),
        ("tokamask.sampling", "import torch", 1),
        ("tokamask.sampling", "def f():\n    import torch", 0),
        ("tokamask.tokenizer", "def f():\n    import torch", 1),
        ("tokamask.gpu.torch_ops", "import torch", 0),
        ("tokamask.gpu.torch_ops", "import cupy", 1),
        ("tokamask.gpu.launch", "import cupy", 0),
        ("tokamask.draft", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", 0),
        ("tokamask.demo.model", "import tokamask as tm\nfrom tokamask import Ragged", 0),
    ],
)
def test_the_python_rule_finds_what_it_should(module, source, problems):
    assert len(broken_in_python(module, source)) == problems


def test_the_kernel_rule_finds_what_it_should():
    assert foreign_headers('#include <vector>\n#include "tokamask/block.cuh"\n#include "math.h"') == [
        "vector",
        '"math.h"',
    ]
    guarded = "#ifdef __CUDACC_RTC__\nusing a = int;\n#else\n#include <cstdint>\n#endif\n"
    assert foreign_headers(guarded) == []
    assert foreign_headers(guarded.replace("#else\n", "")) == ["cstdint"]
