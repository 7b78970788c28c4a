"""How a text is cut into tokens, in colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from tokamask import Tokenizer
from tokamask.show.palette import FAINT, FONT, INK, PAPER, TOKEN_COLOURS, visible

RESET = "\x1b[0m"


def tokens(tokenizer: Tokenizer, text: str | Sequence[int]) -> str:
    r"""The tokens of a text (or given ids) on coloured grounds, for a terminal with 24-bit colour.

    Spaces show as ``·`` and line ends as ``⏎``. A token that holds part of a character shows bytes: ``\xf0\x9f``.

    Examples
    --------
    >>> from tokamask import show
    >>> print(show.tokens(tok, "The quick brown fox"))  # doctest: +SKIP

    """
    parts = []
    for i, (_, data) in enumerate(_spelled(tokenizer, text)):
        ground = _ansi(48, TOKEN_COLOURS[i % len(TOKEN_COLOURS)])
        parts.append(ground)
        for shown, literal in visible(data):
            colour = _ansi(38, INK if literal else FAINT)
            parts.append(colour + (shown if literal else shown.replace("⏎", f"⏎{RESET}\n{ground}{colour}")))
        parts.append(RESET)  # now, so that the ground of a line end does not fill the next line
    return "".join(parts)


def tokens_html(tokenizer: Tokenizer, text: str | Sequence[int]) -> str:
    """The tokens of a text (or given ids) as a page of HTML; pointing at a token shows its id and bytes."""
    parts = []
    for i, (token_id, data) in enumerate(_spelled(tokenizer, text)):
        shown = "".join(
            escape(piece) if literal else f"<i>{escape(piece).replace('⏎', '⏎<br>')}</i>"
            for piece, literal in visible(data)
        )
        title = f"id {token_id}, bytes {data.hex(' ')}"
        parts.append(f'<span class="t{i % len(TOKEN_COLOURS)}" title="{title}">{shown}</span>')
    colours = "".join(f".t{i}{{background:{colour}}}" for i, colour in enumerate(TOKEN_COLOURS))
    style = (
        f"body{{background:{PAPER};color:{INK};font:16px/1.9 {FONT};margin:24px;max-width:80ch;overflow-wrap:anywhere}}"
        f"span{{border-radius:3px;padding:3px 1px;white-space:pre-wrap}}i{{color:{FAINT};font-style:normal}}{colours}"
    )
    count = f"{i + 1} tokens" if parts else "no tokens"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{count}</title><style>{style}</style>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _spelled(tokenizer: Tokenizer, text: str | Sequence[int]) -> Iterator[tuple[int, bytes]]:
    for token_id in tokenizer.encode(text) if isinstance(text, str) else text:
        yield int(token_id), tokenizer.decode_bytes([int(token_id)])


def _ansi(plane: int, colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"\x1b[{plane};2;{red};{green};{blue}m"
