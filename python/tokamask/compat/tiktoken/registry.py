"""Encodings by name: the public ones, and those of ``tiktoken_ext`` plug-ins."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tokamask.compat.tiktoken import public
from tokamask.compat.tiktoken.core import Encoding

_lock = threading.RLock()
ENCODINGS: dict[str, Encoding] = {}
ENCODING_CONSTRUCTORS: dict[str, Callable[[], dict[str, Any]]] | None = None
# tiktoken's own plug-in; its encodings are built in here.
_PUBLIC = "tiktoken_ext.openai_public"


def _available_plugin_modules() -> Sequence[str]:
    """Names of the modules in the namespace package ``tiktoken_ext``."""
    try:
        import tiktoken_ext
    except ImportError:
        return []
    found = pkgutil.iter_modules(tiktoken_ext.__path__, "tiktoken_ext.")
    return [name for _, name, _ in found if name != _PUBLIC]


def _constructors() -> dict[str, Callable[[], dict[str, Any]]]:
    global ENCODING_CONSTRUCTORS
    with _lock:
        if ENCODING_CONSTRUCTORS is None:
            known = dict(public.ENCODING_CONSTRUCTORS)
            for name in _available_plugin_modules():
                module = importlib.import_module(name)
                try:
                    constructors = module.ENCODING_CONSTRUCTORS
                except AttributeError:
                    raise ValueError(f"the plug-in {name} has no ENCODING_CONSTRUCTORS") from None
                if twice := known.keys() & constructors.keys():
                    raise ValueError(
                        f"the plug-in {name} names an encoding again: {', '.join(sorted(twice))}"
                    )
                known.update(constructors)
            ENCODING_CONSTRUCTORS = known
        return ENCODING_CONSTRUCTORS


def get_encoding(encoding_name: str) -> Encoding:
    """The encoding of a name, built once; ValueError for a name that nothing provides.

    Examples
    --------
    >>> get_encoding("gpt2").encode("hello world")  # doctest: +SKIP
    [31373, 995]
    """
    if not isinstance(encoding_name, str):
        raise ValueError(f"encoding_name: expected str, got {type(encoding_name).__name__}")
    known = ENCODINGS.get(encoding_name)
    if known is not None:
        return known
    with _lock:
        if encoding_name not in ENCODINGS:
            constructors = _constructors()
            if encoding_name not in constructors:
                raise ValueError(
                    f"unknown encoding {encoding_name!r}: known are {', '.join(constructors)}; "
                    f"plug-ins found: {', '.join(_available_plugin_modules()) or 'none'}"
                )
            ENCODINGS[encoding_name] = Encoding(**constructors[encoding_name]())
        return ENCODINGS[encoding_name]


def list_encoding_names() -> list[str]:
    """The names that :func:`get_encoding` knows.

    Examples
    --------
    >>> "o200k_base" in list_encoding_names()
    True
    """
    return list(_constructors())
