"""Alphabets: the 256 characters that stand for bytes in byte-level vocabularies, and that of counted words."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping

_visible = [byte for byte in range(256) if chr(byte).isprintable() and byte != 0x20]
_hidden = [byte for byte in range(256) if byte not in _visible]
CHARS: list[str] = [chr(byte) if byte in _visible else chr(256 + _hidden.index(byte)) for byte in range(256)]
"""The character of each byte."""
BYTES: dict[str, int] = {char: byte for byte, char in enumerate(CHARS)}
"""The byte of each character."""


def characters(counts: Mapping[str, int], initial: Iterable[str], limit: int | None) -> list[str]:
    """The characters of counted words in order: the initial ones and the most frequent others, ``limit`` in all."""
    seen: collections.Counter[str] = collections.Counter()
    for word, count in counts.items():
        for char in word:
            seen[char] += count
    kept = set(initial)
    others = sorted((c for c in seen if c not in kept), key=lambda c: (-seen[c], c))
    if limit is not None:
        others = others[: max(0, limit - len(kept))]
    return sorted(kept | set(others))
