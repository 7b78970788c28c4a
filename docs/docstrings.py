"""Gives the stubs of the compiled module the docstrings of the compiled module, for the reference pages.

The stubs carry the types, the binary the text; the manual needs both.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import griffe


class CompiledDocstrings(griffe.Extension):
    """Fills in docstrings under ``tokamask._core`` once the package is read."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any) -> None:
        """Griffe calls this with the whole package."""
        if pkg.path == "tokamask" and "_core" in pkg.members:
            fill(pkg["_core"], importlib.import_module("tokamask._core"), loader)


def fill(stub: griffe.Object, value: object, loader: griffe.GriffeLoader) -> None:
    """Copies the docstrings of a value and of what it contains."""
    for name, member in stub.members.items():
        found = inspect.getattr_static(value, name, None)
        if member.is_alias or found is None:
            continue
        found = getattr(value, name)
        text = inspect.getdoc(found) if not name.startswith("__") else None
        if text and member.docstring is None:
            member.docstring = griffe.Docstring(
                text, parent=member, parser=loader.docstring_parser, parser_options=loader.docstring_options
            )
        if member.is_class:
            fill(member, found, loader)
