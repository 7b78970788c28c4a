"""Base classes of serving engines for tests that run without those engines.

The real files are read where an unpacked or installed engine is at hand (installed, or in the folder that
``TOKAMASK_ENGINES`` names), with stand-ins for what they import; else small stand-ins of the same shape are used, so that
the adapters' own logic is tested everywhere and their signatures where the engine's sources are.
"""

import abc
import ast
import contextlib
import dataclasses
import enum
import importlib.util
import os
import pathlib
import sys
import types

import pytest


def folder(package):
    """The folder of an engine's package, or None. The package itself is not imported."""
    named = os.environ.get("TOKAMASK_ENGINES")
    for place in sorted(pathlib.Path(named).glob(f"**/{package}/__init__.py")) if named else []:
        return place.parent
    with contextlib.suppress(ImportError, ValueError):
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            return pathlib.Path(found.origin).parent
    return None


def needed(package, version):
    """The folder of an engine's package; skips where it is absent or of another version."""
    found = folder(package)
    if found is None:
        pytest.skip(
            f"{package} {version} is absent: its signatures are not compared (TOKAMASK_ENGINES names a folder)"
        )
    if not any(place.is_dir() for place in found.parent.glob(f"{package}-{version}.dist-info")):
        pytest.skip(f"{package} is not of version {version}, which the adapter was written against")
    return found


class Anything:
    """Stands in for a class or function of which only the name matters."""

    def __init__(self, *args, **kwargs):
        pass


class StandIns:
    """Finds modules of a package: given ones, real files, and empty ones for all others."""

    def __init__(self, package, real, given):
        self.package, self.real, self.given = package, real, given

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != self.package:
            return None
        if name in self.real:
            return importlib.util.spec_from_file_location(name, self.real[name])
        return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        names = self.given.get(module.__name__, {})
        module.__dict__.update(names)

        def missing(attribute):
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            inner = f"{module.__name__}.{attribute}"
            if inner in self.real or inner in self.given:
                return importlib.import_module(inner)
            made = type(attribute, (Anything,), {})
            setattr(module, attribute, made)
            return made

        module.__getattr__ = missing


@contextlib.contextmanager
def imported(adapter, package, real, given):
    """The adapter's module, its engine's modules as :class:`StandIns` finds them."""
    finder = StandIns(package, real, given)
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == package}
    for name in before:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    no_torch = importlib.util.find_spec("torch") is None
    if no_torch:
        sys.modules["torch"] = types.SimpleNamespace(Tensor=Anything, int32="int32")
    sys.modules.pop(adapter, None)
    try:
        module = importlib.import_module(adapter)
        if no_torch:
            del sys.modules["torch"]  # annotations were all that needed it
        yield module
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] == package or name == adapter]:
            del sys.modules[name]
        sys.modules.update(before)


def calls(path, function):
    """The calls of a function or method of this name in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [node for node in found if ast.unparse(node.func).split(".")[-1] == function]


def vllm_stand_ins():
    """As vllm.v1.structured_output.backend_types has them, methods and fields only."""

    class StructuredOutputOptions(enum.Enum):
        JSON = 1
        JSON_OBJECT = 2
        REGEX = 3
        GRAMMAR = 4
        CHOICE = 5
        STRUCTURAL_TAG = 6

    @dataclasses.dataclass
    class StructuredOutputBackend(abc.ABC):
        vllm_config: object
        tokenizer: object
        vocab_size: int

    class StructuredOutputGrammar(abc.ABC):  # noqa: B024
        pass

    return {
        "StructuredOutputOptions": StructuredOutputOptions,
        "StructuredOutputBackend": StructuredOutputBackend,
        "StructuredOutputGrammar": StructuredOutputGrammar,
    }


def sglang_stand_ins():
    """As sglang.srt.constrained.base_grammar_backend has them."""

    @dataclasses.dataclass
    class GrammarStats:
        dispatch_type: str | None = None

    class BaseGrammarObject:
        def __init__(self):
            self.grammar_stats = self.current_token = None
            self.finished = False

        @staticmethod
        def fill_vocab_mask_batched(entries, vocab_mask):
            for entry in entries:
                entry.grammar.fill_vocab_mask(vocab_mask, entry.row)

    class InvalidGrammarObject(BaseGrammarObject):
        def __init__(self, error_message=""):
            super().__init__()
            self.error_message = error_message

    class BaseGrammarBackend:
        def __init__(self):
            self.cache = {}

        def reset(self):
            self.cache.clear()

    return {
        "BaseGrammarBackend": BaseGrammarBackend,
        "BaseGrammarObject": BaseGrammarObject,
        "GrammarStats": GrammarStats,
        "InvalidGrammarObject": InvalidGrammarObject,
        "register_grammar_backend": lambda name, make: None,
    }
