"""The 256 characters that stand for bytes in byte-level vocabularies."""

from __future__ import annotations

_visible = [byte for byte in range(256) if chr(byte).isprintable() and byte != 0x20]
_hidden = [byte for byte in range(256) if byte not in _visible]
CHARS: list[str] = [chr(byte) if byte in _visible else chr(256 + _hidden.index(byte)) for byte in range(256)]
"""The character of each byte."""
BYTES: dict[str, int] = {char: byte for byte, char in enumerate(CHARS)}
"""The byte of each character."""
