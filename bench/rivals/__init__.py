"""One adapter per contestant. An adapter has a method for each operation that it takes part in.

A method prepares (loads a vocabulary, builds an index: not timed) and returns what is timed, by the fastest
public path of the package. A contestant that is not installed is skipped with the reason and stands in the
table as "not installed".
"""

from __future__ import annotations

import functools
import importlib
from importlib import metadata

import pytest

MODULES = (
    *("tokamask", "tiktoken", "tokenizers", "gigatoken", "fastokens", "gigabpe", "llguidance", "xgrammar"),
    *("glrmask", "sentencepiece", "arctic_inference"),
    *("numpy", "torch", "torch_gqa", "transformers"),
)


class Rival:
    """What an adapter says of its package; operations are further methods."""

    name: str
    distribution: str
    needs: tuple[str, ...] = ()
    """Modules that the adapter imports."""
    uses_logits = False
    """Whether its drafts use the model's runners-up."""

    def takes(self, vocabulary: str) -> bool:
        """Whether it reads the vocabulary at all."""
        return True

    @functools.cached_property
    def version(self) -> str | None:
        """The installed version, or None with the reason in `absence`."""
        return None if self.absence else metadata.version(self.distribution)

    @functools.cached_property
    def absence(self) -> str:
        """Why the contestant cannot run here; empty if it can."""
        try:
            metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return f"pip install {self.distribution}"
        for module in self.needs:
            try:
                importlib.import_module(module)
            except ImportError as error:
                return f"{type(error).__name__}: {error}".splitlines()[0]
        return ""


def again(encode):
    """A text that grows, for those who have to encode all of it each time: how many ids it has."""

    def start():
        whole = ""

        def add(text):
            nonlocal whole
            whole += text
            return len(encode(whole))

        return add

    return start


REGISTRY: tuple[Rival, ...] = tuple(
    importlib.import_module(f"bench.rivals.{name}").ADAPTER for name in MODULES
)


def contestants(operation: str) -> list:
    """Parameters for pytest: every contestant that has the operation; the absent ones are marked to skip."""
    found = []
    for rival in REGISTRY:
        if hasattr(rival, operation):
            marks = [pytest.mark.skip(reason=f"{rival.name}: {rival.absence}")] if rival.absence else []
            found.append(pytest.param(rival, id=rival.name, marks=marks))
    return found


@functools.cache
def prepared(rival: Rival, operation: str, *arguments):
    """What the adapter prepares, kept for the rest of the session."""
    return getattr(rival, operation)(*arguments)
