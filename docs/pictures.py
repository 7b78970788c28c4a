"""Draws the pictures of the manual from the product itself: ``python docs/pictures.py`` writes docs/pictures/*.svg.

A test draws them again and compares, so a picture shows what the code does now.
"""

from __future__ import annotations

import pathlib
import sys
from html import escape

import numpy as np

import tokamask as tm
from tokamask import show
from tokamask.demo import find_model

FOLDER = pathlib.Path(__file__).resolve().parent / "pictures"
COLOURS = ("#d7efe3", "#fbe3c8", "#dbe4f6", "#f2d9e6")
INK, FAINT, ACCENT = "#1f2933", "#9aa5b1", "#0b6e4f"
CHAR = 8.4
"""Advance of one character at 14 px in a monospaced face; positions are fixed, so a wider face still fits."""


def svg(width: float, height: float, body: list[str]) -> str:
    """A page of its own, readable on light and dark backgrounds."""
    style = 'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14"'
    lines = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" {style}>\n'
        f'<rect width="100%" height="100%" rx="6" fill="#ffffff"/>\n{lines}\n</svg>\n'
    )


def text(x: float, y: float, content: str, *, fill: str = INK, size: int = 14, anchor: str = "start") -> str:
    """One line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" font-size="{size}" text-anchor="{anchor}" xml:space="preserve">{escape(content)}</text>'


def tokens(tokenizer: tm.Tokenizer, lines: list[str]) -> str:
    """Each token on its own colour, its id below it."""
    body, width = [], 0.0
    for row, line in enumerate(lines):
        x, y = 16.0, 16.0 + row * 62
        for i, token_id in enumerate(tokenizer.encode(line)):
            spelled = tokenizer.decode_bytes([token_id])
            try:
                shown = spelled.decode().replace(" ", "·")
            except UnicodeDecodeError:
                shown = "".join(f"\\x{byte:02x}" for byte in spelled)
            w = max(len(shown) * CHAR, len(str(token_id)) * 6.2) + 10
            colour = COLOURS[i % len(COLOURS)]
            body.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="26" rx="3" fill="{colour}"/>')
            body.append(text(x + w / 2, y + 18, shown, anchor="middle"))
            body.append(text(x + w / 2, y + 41, str(token_id), fill=FAINT, size=10, anchor="middle"))
            x += w + 3
        width = max(width, x + 13)
    return svg(width, 16 + len(lines) * 62, body)


def draft_tree(tokenizer: tm.Tokenizer, tree: tm.DraftTree, kept: list[int], root: str) -> str:
    """The tree from left to right, node numbers and probabilities, the accepted path in colour."""
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(tree.parents.tolist()):
        children.setdefault(parent, []).append(node)
    y_of: dict[int, float] = {}
    leaf = 0

    def place(node: int) -> float:
        nonlocal leaf
        below = [place(child) for child in children.get(node, [])]
        if not below:
            leaf += 1
        y_of[node] = sum(below) / len(below) if below else 22.0 + (leaf - 1) * 48
        return y_of[node]

    place(-1)
    column = 118.0
    x_of = {-1: 16.0} | {node: 16.0 + depth * column for node, depth in enumerate(tree.depths.tolist())}
    body = []
    for node, parent in enumerate(tree.parents.tolist()):
        on = node in kept
        body.append(
            f'<path d="M{x_of[parent] + 92:.1f},{y_of[parent]:.1f} C{x_of[node] - 8:.1f},{y_of[parent]:.1f} '
            f'{x_of[node] - 18:.1f},{y_of[node]:.1f} {x_of[node]:.1f},{y_of[node]:.1f}" fill="none" '
            f'stroke="{ACCENT if on else FAINT}" stroke-width="{2.5 if on else 1}"/>'
        )
    for node, x in x_of.items():
        y, on = y_of[node], node == -1 or node in kept
        shown = (
            root
            if node < 0
            else tokenizer.decode([int(tree.token_ids[node])]).replace(" ", "·").replace("\n", "⏎")
        )
        below = "root" if node < 0 else f"{node}: {tree.probs[node]:.2f}"
        fill, stroke = (COLOURS[0], ACCENT) if on else ("#f5f7fa", FAINT)
        body.append(
            f'<rect x="{x:.1f}" y="{y - 14:.1f}" width="92" height="28" rx="5" fill="{fill}" stroke="{stroke}"/>'
        )
        body.append(text(x + 46, y + 5, shown[:10], anchor="middle"))
        body.append(text(x + 46, y + 26, below, fill=FAINT, size=10, anchor="middle"))
    return svg(max(x_of.values()) + 108, 22 + leaf * 48, body)


def kept_tokens() -> str:
    """Thirty steps of two heads: a head that looks back forty tokens, and one that follows its own walk."""
    rng = np.random.default_rng(0)
    steps, lengths = [], list(range(120, 240, 4))
    walk = np.cumsum(rng.standard_normal((2, 30)) * 6, axis=1)
    for step, n in enumerate(lengths):
        place = np.array([n - 40, 70 + walk[1, step]])[:, None]
        scores = -np.abs(np.arange(n) - place) + rng.standard_normal((2, n)) * 6
        scores[:, :4] = scores[:, n - 8 :] = 99  # the first and the last are always kept
        steps.append(tm.selection.top_k(np.ascontiguousarray(scores, np.float32), 32))
    return show.attention(steps, lengths)


def kept_patches() -> str:
    """A landscape, and the patches of it that differ most."""
    y, x = np.mgrid[0:192, 0:256]
    image = np.stack([90 + y // 3, 120 + y // 3, 200 - y // 2], axis=-1).astype(np.uint8)
    image[(x - 180) ** 2 + (y - 60) ** 2 < 1500] = [250, 220, 90]
    image[y > 130 + np.abs(x % 80 - 40) // 4] = [60, 130, 60]
    image[(np.abs(x - 80) < 36) & (np.abs(y - 115) < 30)] = [170, 80, 60]
    patches = image.reshape(12, 16, 16, 16, 3).transpose(0, 2, 1, 3, 4).reshape(192, -1).astype(np.float32)
    return show.selection(tm.selection.greedy_select(patches - 128, 40), (12, 16), image=image)


def draw() -> dict[str, str]:
    """Every picture by file name."""
    tokenizer = tm.Tokenizer.from_file(find_model())
    prompt = "def f(a):\n    return g(a)\n\ndef h(a):\n    return g(b)\n\ndef k(a):\n   "
    session = tm.Drafter().session(tokenizer.encode(prompt))
    tree = session.propose(budget=12)
    truth = tokenizer.encode(" return g(b)\n")
    kept, node = [], -1
    for token in truth:
        node = next(
            (i for i in range(len(tree)) if tree.parents[i] == node and tree.token_ids[i] == token), -2
        )
        if node < 0:
            break
        kept.append(node)
    return {
        "tokens.svg": tokens(
            tokenizer, ["Tokenizers disagree about spaces.", 'total = {"id": 12345}', "naïve façade 🦀"]
        ),
        "draft_tree.svg": draft_tree(tokenizer, tree, kept, "···"),
        "attention.svg": kept_tokens(),
        "selection.svg": kept_patches(),
    }


def main() -> int:
    """The command."""
    FOLDER.mkdir(exist_ok=True)
    for name, picture in draw().items():
        (FOLDER / name).write_text(picture, encoding="utf-8")
        print(FOLDER / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
