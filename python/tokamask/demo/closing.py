"""Ending a constrained text early: a short way to a complete one."""

from __future__ import annotations

from tokamask import Matcher, Tokenizer
from tokamask.errors import UnknownTokenError

PREFERRED = '"}]0els'
"""What tends to end something in JSON: strings, objects, arrays, numbers, ``true``, ``null``, ``false``."""
PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
LONGEST = 4000


class Closer:
    """Finds tokens that bring a matcher to an accepting state.

    It goes byte by byte and takes the first of :data:`PREFERRED` that the grammar allows, else the first printable
    one. This ends every open string, list and object where it may end, and where the grammar wants more (a pattern,
    a least length) goes on until it is satisfied. It is a simple search: it may find no way where there is one.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes: dict[str, int] = {}
        for char in PREFERRED + PRINTABLE:
            try:
                self._bytes.setdefault(char, tokenizer.vocabulary.id(char.encode()))
            except UnknownTokenError:
                continue

    def close(self, matcher: Matcher, limit: int) -> list[int] | None:
        """At most ``limit`` tokens that complete the text; None if none were found. The matcher is not moved."""
        ahead = matcher.fork()
        text = ""
        while not ahead.is_accepting():
            char = next((char for char, token in self._bytes.items() if ahead.is_allowed(token)), None)
            if char is None or len(text) >= min(LONGEST, 8 * limit):
                return None
            ahead.accept(self._bytes[char])
            text += char
        ids = self._tokenizer.encode(text)
        if matcher.fork().accept_prefix(ids) < len(
            ids
        ):  # no rule says that a grammar allows every cut of a text
            ids = [self._bytes[char] for char in text]
        return ids if len(ids) <= limit else None
