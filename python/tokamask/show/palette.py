"""Colours that all pictures share, and how bytes become something to look at."""

from __future__ import annotations

TOKEN_COLOURS = ("#cfe8dc", "#fbe0c3", "#d6e0f5", "#f1d5e4", "#f6efb9")
"""Backgrounds for dark text; neighbours differ."""
SOURCE_COLOURS = {
    "given": "#8a94a0",
    "request": "#2f7ebc",
    "shared": "#8a5fb0",
    "recycled": "#c77a1b",
    "corpus": "#50803a",
    "forced": "#b8405e",
}
INK, FAINT, PAPER = "#1f2933", "#8a94a0", "#ffffff"
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def visible(data: bytes) -> list[tuple[str, bool]]:
    r"""Bytes as pieces of text, each with whether it is literal (True) or an escape that stands for something unseen.

    Spaces become ``·``, line ends ``⏎``; bytes that are no whole character become ``\xf0``, and characters that would
    move the cursor, turn the line around or not show become ``\u202e``. So nothing in ``data`` acts on a terminal.
    """
    pieces: list[tuple[str, bool]] = []
    for char in data.decode("utf-8", "surrogateescape"):
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:
            pieces.append((f"\\x{code - 0xDC00:02x}", False))
        elif char == " ":
            pieces.append(("·", False))
        elif char == "\n":
            pieces.append(("⏎", False))
        elif char.isprintable():
            pieces.append((char, True))
        else:
            pieces.append((_escape(code), False))
    merged: list[tuple[str, bool]] = []
    for text, literal in pieces:
        if merged and merged[-1][1] == literal:
            merged[-1] = (merged[-1][0] + text, literal)
        else:
            merged.append((text, literal))
    return merged


def _escape(code: int) -> str:
    r"""As Python writes it, save that ``\x80`` and up are bytes, not characters."""
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible_text(data: bytes) -> str:
    """The pieces of :func:`visible` in one string."""
    return "".join(text for text, _ in visible(data))
