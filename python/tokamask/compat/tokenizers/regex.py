"""Patterns: a text, or a regular expression."""

from __future__ import annotations

import functools
from typing import Any

from tokamask import _core


class Regex:
    r"""A regular expression, where a string alone would be taken literally.

    Examples
    --------
    >>> Regex(r"\s+").pattern
    '\\\s+'
    """

    def __init__(self, pattern: str) -> None:
        try:
            _compiled(pattern)
        except Exception as error:
            raise Exception(str(error)) from None  # the original raises no other class here
        self.pattern = pattern

    def __repr__(self) -> str:
        return f"Regex({self.pattern!r})"


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> _core.Pattern:
    return _core.Pattern(pattern)


def find(pattern: Any, text: str) -> list[tuple[int, int]]:
    """Matches of a string, a :class:`Regex` or a predicate over characters, left to right."""
    if callable(pattern):
        return [(at, at + 1) for at, char in enumerate(text) if pattern(char)]
    if isinstance(pattern, str):
        found, at = [], text.find(pattern)
        while at >= 0 and pattern:
            found.append((at, at + len(pattern)))
            at = text.find(pattern, at + len(pattern))
        return found
    return _compiled(pattern.pattern).find(text)


def to_json(pattern: str | Regex) -> dict[str, str]:
    """The pattern as it stands in a tokenizer.json."""
    return {"String": pattern} if isinstance(pattern, str) else {"Regex": pattern.pattern}


def from_json(state: Any) -> Any:
    """A pattern from its state, or as given."""
    if isinstance(state, dict):
        return state["String"] if "String" in state else Regex(state["Regex"])
    return state
