"""Ending a constrained text early: a short way to a complete one."""

from __future__ import annotations

from tokamask import Matcher, Tokenizer
from tokamask.errors import UnknownTokenError

PREFERRED = ('"}]0els', '"}]@:/-._')
"""Two orders of preference. Both end strings, objects and lists first; then one ends numbers, ``true``, ``null`` and
``false``, the other goes on to the next part of what a pattern describes, such as an address or a date."""
PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
LONGEST = 4000


class Closer:
    """Finds tokens that bring a matcher to an accepting state.

    It goes byte by byte and takes the first preferred one that the grammar allows, else the first printable one. This
    ends every open string, list and object where it may end, and where the grammar wants more (a pattern, a least
    length) goes on until it is satisfied. It is a simple search: it may find no way, or not the shortest.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes: dict[str, int] = {}
        for char in PRINTABLE:
            try:
                self._bytes[char] = tokenizer.vocabulary.id(char.encode())
            except UnknownTokenError:
                continue
        self._orders = [
            [char for char in dict.fromkeys(first + PRINTABLE) if char in self._bytes] for first in PREFERRED
        ]

    def close(self, matcher: Matcher, limit: int) -> list[int] | None:
        """At most ``limit`` tokens that complete the text; None if none were found. The matcher is not moved."""
        ways = [
            self._cut(matcher, text)
            for order in self._orders
            if (text := self._walk(matcher, order, limit)) is not None
        ]
        shortest = min(ways, key=len, default=None)
        return shortest if shortest is not None and len(shortest) <= limit else None

    def _walk(self, matcher: Matcher, order: list[str], limit: int) -> str | None:
        ahead = matcher.fork()
        text = ""
        while not ahead.is_accepting():
            char = next((char for char in order if ahead.is_allowed(self._bytes[char])), None)
            if char is None or len(text) >= min(LONGEST, 8 * limit):
                return None
            ahead.accept(self._bytes[char])
            text += char
        return text

    def _cut(self, matcher: Matcher, text: str) -> list[int]:
        ids = self._tokenizer.encode(text)
        if matcher.fork().accept_prefix(ids) == len(ids):
            return ids
        return [self._bytes[char] for char in text]  # no rule says that a grammar allows every cut of a text
