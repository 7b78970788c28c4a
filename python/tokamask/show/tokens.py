"""How a text is cut into tokens, in colour, by one tokenizer or by several side by side."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def compare_tokens(tokenizers: Mapping[str, Tokenizer], text: str, *, width: int = 100) -> str:
    """The same text under several tokenizers, in columns, for a terminal ``width`` characters wide.

    Every line of the text starts on one row in all columns; the last row counts the tokens.

    Examples
    --------
    >>> from tokamask import show
    >>> print(show.compare_tokens({"gpt2": a, "o200k": b}, "The quick brown fox"))  # doctest: +SKIP

    """
    column = max(8, (width - 3 * (len(tokenizers) - 1)) // max(1, len(tokenizers)))
    cut = {name: list(_spelled(tokenizer, text)) for name, tokenizer in tokenizers.items()}
    columns = [_wrapped(spelled, column) for spelled in cut.values()]
    rows = [[_padded(name, column) for name in cut]]
    for line in range(max(map(len, columns), default=0)):
        blocks = [lines[line] if line < len(lines) else [] for lines in columns]
        rows.extend(
            [block[row] if row < len(block) else " " * column for block in blocks]
            for row in range(max(map(len, blocks)))
        )
    rows.append([_padded(_summary(spelled), column) for spelled in cut.values()])
    return "\n".join(" │ ".join(row).rstrip() for row in rows)


def _wrapped(spelled: Iterable[tuple[int, bytes]], width: int) -> list[list[str]]:
    """For each line of the text the rows it takes, all ``width`` wide and coloured."""
    lines: list[list[str]] = [[]]
    row, used = "", 0

    def end_row() -> None:
        nonlocal row, used
        lines[-1].append(row + RESET + " " * (width - used))
        row, used = "", 0

    for i, (_, data) in enumerate(spelled):
        ground = _ansi(48, TOKEN_COLOURS[i % len(TOKEN_COLOURS)])
        for shown, literal in visible(data):
            colour = ground + _ansi(38, INK if literal else FAINT)
            row += colour
            for char in shown:
                cells = _cells(char)
                if used + cells > width:
                    end_row()
                    row = colour
                row, used = row + char, used + cells
                if char == "⏎" and not literal:
                    end_row()
                    lines.append([])
                    row = colour
    if used:
        end_row()
    return lines


def _cells(char: str) -> int:
    """How many columns of a terminal a character takes."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _padded(text: str, width: int) -> str:
    """Text that is ``width`` columns wide, cut if it must be."""
    shown, used = "", 0
    for char in "".join(piece for piece, _ in visible(text.encode("utf-8", "surrogatepass"))).replace(
        "·", " "
    ):
        if used + _cells(char) > width:
            break
        shown, used = shown + char, used + _cells(char)
    return shown + " " * (width - used)


def _summary(spelled: Sequence[tuple[int, bytes]]) -> str:
    count, size = len(spelled), sum(len(data) for _, data in spelled)
    return f"{count} tokens, {size / count:.2f} bytes each" if count else "no tokens"


def tokens_html(tokenizer: Tokenizer, text: str | Sequence[int]) -> str:
    """The tokens of a text (or given ids) as a page of HTML; pointing at a token shows its id and bytes."""
    spelled = list(_spelled(tokenizer, text))
    count = f"{len(spelled)} tokens" if spelled else "no tokens"
    return _page(count, "", _spans(spelled))


def compare_tokens_html(tokenizers: Mapping[str, Tokenizer], text: str) -> str:
    """The same text under several tokenizers as a page of HTML, in columns, line by line.

    A token whose edges no other column shares (it starts and ends elsewhere there) is underlined.
    """
    cut = {name: list(_spelled(tokenizer, text)) for name, tokenizer in tokenizers.items()}
    edges = [_edges(spelled) for spelled in cut.values()]
    shared = set.intersection(*edges) if edges else set()
    head = "".join(f"<th><b>{escape(name)}</b> {_summary(spelled)}</th>" for name, spelled in cut.items())
    body = "".join(f"<td>{_spans(spelled, shared)}</td>" for spelled in cut.values())
    extra = (
        "body{max-width:none}table{border-collapse:collapse;width:100%;table-layout:fixed}"
        f"th{{text-align:left;font-weight:normal;color:{FAINT};padding:0 16px 8px 0}}b{{color:{INK}}}"
        f"td{{vertical-align:top;padding:0 16px 0 0}}u{{text-decoration:underline 2px {INK};text-underline-offset:4px}}"
    )
    return _page(" and ".join(cut), extra, f"<table><tr>{head}</tr><tr>{body}</tr></table>")


def _edges(spelled: Iterable[tuple[int, bytes]]) -> set[int]:
    """Byte positions at which tokens start or end."""
    edges, at = {0}, 0
    for _, data in spelled:
        at += len(data)
        edges.add(at)
    return edges


def _spans(spelled: Iterable[tuple[int, bytes]], shared: set[int] | None = None) -> str:
    """One span a token; those with an edge outside ``shared`` are underlined."""
    parts, at = [], 0
    for i, (token_id, data) in enumerate(spelled):
        shown = "".join(
            escape(piece) if literal else f"<i>{escape(piece).replace('⏎', '⏎<br>')}</i>"
            for piece, literal in visible(data)
        )
        if shared is not None and not {at, at + len(data)} <= shared:
            shown = f"<u>{shown}</u>"
        title = f"id {token_id}, bytes {data.hex(' ')}"
        parts.append(f'<span class="t{i % len(TOKEN_COLOURS)}" title="{title}">{shown}</span>')
        at += len(data)
    return "".join(parts)


def _page(title: str, extra: str, body: str) -> str:
    colours = "".join(f".t{i}{{background:{colour}}}" for i, colour in enumerate(TOKEN_COLOURS))
    style = (
        f"body{{background:{PAPER};color:{INK};font:16px/1.9 {FONT};margin:24px;max-width:80ch;overflow-wrap:anywhere}}"
        f"span{{border-radius:3px;padding:3px 1px;white-space:pre-wrap}}i{{color:{FAINT};font-style:normal}}{colours}{extra}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
        f"<body>{body}</body></html>\n"
    )


def _spelled(tokenizer: Tokenizer, text: str | Sequence[int]) -> Iterator[tuple[int, bytes]]:
    for token_id in tokenizer.encode(text) if isinstance(text, str) else text:
        yield int(token_id), tokenizer.decode_bytes([int(token_id)])


def _ansi(plane: int, colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"\x1b[{plane};2;{red};{green};{blue}m"
