"""A draft tree as an SVG picture: what was guessed, by whom, how surely, and what was kept."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tokamask import DraftTree, Tokenizer
from tokamask.draft import SOURCES
from tokamask.show.palette import FAINT, FONT, INK, PAPER, SOURCE_COLOURS, visible_text

BOX, GAP, LINE = 96, 34, 46
"""Width of a node, room between columns, height of a row, in pixels."""
LONGEST = 11
"""Characters of a token that fit a node."""
MARGIN, LEGEND = 20, 30


def draft(tree: DraftTree, tokenizer: Tokenizer, *, path: Sequence[int] = (), root: bytes = b"") -> str:
    """The tree from left to right.

    Parameters
    ----------
    tree : DraftTree
    tokenizer : Tokenizer
        Spells the tokens.
    path : list[int]
        The accepted nodes, as ``verify_greedy`` returns them; they are drawn bold.
    root : bytes
        The last token of the text, shown in the root.

    Returns
    -------
    str
        An SVG document. A node's colour says what proposed it, its number how probable its path is.

    """
    kept = {-1, *(int(node) for node in path)}
    places, rows = _places(tree)
    parents = tree.parents.tolist()
    edges = [_edge(places[parent], places[node], node in kept) for node, parent in enumerate(parents)]
    boxes = [_box(places[-1], visible_text(root) or "…", "", FAINT, kept=True)]
    for node, (token, prob, source) in enumerate(
        zip(tree.token_ids.tolist(), tree.probs.tolist(), tree.sources.tolist(), strict=True)
    ):
        shown = visible_text(tokenizer.decode_bytes([token]))
        boxes.append(
            _box(places[node], shown, f"{prob:.2f}", SOURCE_COLOURS[SOURCES[source]], kept=node in kept)
        )
    used = [SOURCES[source] for source in sorted(set(tree.sources.tolist()))]
    columns = int(tree.depths.max()) + 1 if len(tree) else 1
    width = max(2 * MARGIN + columns * (BOX + GAP) - GAP, 2 * MARGIN + 100 * len(used))
    height = MARGIN + rows * LINE + LEGEND
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="{escape(FONT)}" font-size="13">',
            f'<rect width="100%" height="100%" fill="{PAPER}"/>',
            *edges,
            *boxes,
            *_legend(used, height - LEGEND // 2),
            "</svg>\n",
        ]
    )


def _places(tree: DraftTree) -> tuple[dict[int, tuple[float, float]], int]:
    """Where each node's box begins, and the number of rows: leaves one below another, a parent amid its children.

    Nodes come breadth-first, so one sweep forwards hands out the rows of leaves and one backwards centres parents.
    """
    parents = tree.parents.tolist()
    below: dict[int, list[int]] = {node: [] for node in range(-1, len(tree))}
    for node, parent in enumerate(parents):
        below[parent].append(node)
    row: dict[int, float] = {}
    leaves, stack = 0, [-1]
    while stack:
        node = stack.pop()
        stack += reversed(below[node])
        if not below[node]:
            row[node] = leaves
            leaves += 1
    for node in range(len(tree) - 1, -2, -1):
        if below[node]:
            row[node] = (row[below[node][0]] + row[below[node][-1]]) / 2
    depth = {-1: 0} | dict(enumerate(tree.depths.tolist()))
    return {node: (MARGIN + depth[node] * (BOX + GAP), MARGIN + row[node] * LINE) for node in row}, leaves


def _edge(start: tuple[float, float], end: tuple[float, float], kept: bool) -> str:
    (x1, y1), (x2, y2) = (start[0] + BOX, start[1] + 13), (end[0], end[1] + 13)
    middle = (x1 + x2) / 2
    colour, width = (INK, 3) if kept else (FAINT, 1)
    curve = f"M{x1:.0f},{y1:.1f} C{middle:.0f},{y1:.1f} {middle:.0f},{y2:.1f} {x2:.0f},{y2:.1f}"
    return f'<path d="{curve}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _box(place: tuple[float, float], shown: str, prob: str, colour: str, *, kept: bool) -> str:
    x, y = place
    shown = shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
    weight = "bold" if kept else "normal"
    return (
        f'<rect x="{x:.0f}" y="{y:.1f}" width="{BOX}" height="26" rx="5" fill="{colour}" fill-opacity="{0.3 if kept else 0.1}" '
        f'stroke="{colour}" stroke-width="{2.5 if kept else 1}"/>'
        f'<text x="{x + BOX / 2:.0f}" y="{y + 17.5:.1f}" text-anchor="middle" font-weight="{weight}" fill="{INK}">{escape(shown)}</text>'
        f'<text x="{x + BOX / 2:.0f}" y="{y + 37:.1f}" text-anchor="middle" font-size="10" fill="{FAINT}">{prob}</text>'
    )


def _legend(used: list[str], y: float) -> list[str]:
    return [
        f'<rect x="{MARGIN + 100 * i}" y="{y - 8:.0f}" width="12" height="12" rx="3" fill="{SOURCE_COLOURS[name]}"/>'
        f'<text x="{MARGIN + 100 * i + 18}" y="{y + 3:.0f}" font-size="12" fill="{INK}">{name}</text>'
        for i, name in enumerate(used)
    ]
