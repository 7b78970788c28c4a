"""Which tokens sparse attention keeps, as SVG pictures: heads over time, and patches of a picture."""

from __future__ import annotations

import base64
import itertools
import struct
import zlib
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.errors import ShapeError
from tokamask.show.palette import FAINT, FONT, INK, PAPER, SOURCE_COLOURS, visible_text

KEPT, GONE = SOURCE_COLOURS["request"], "#eef1f4"
MARGIN = 16


def _refuse(name: str, expected: str, got: str) -> ShapeError:
    return ShapeError(f"{name}: expected {expected}, got {got}", name=name, expected=expected, got=got)


def attention(
    selected: Sequence[Any], seq_lens: Sequence[int], *, tokens: Sequence[bytes] = (), columns: int = 160
) -> str:
    """Which tokens each head keeps over time: a panel per head, steps downwards, positions to the right.

    Parameters
    ----------
    selected : list of int32 [heads, k]
        Of each step what the selectors of :mod:`tokamask.selection` gave for one sequence; -1 is padding. numpy or torch.
    seq_lens : list of int
        Tokens of the sequence at each step.
    tokens : list of bytes
        Spellings of the tokens, written below the last panel where there is room: up to 48.
    columns : int
        Positions are drawn together, where there are more, and the colour says which share of them is kept.

    Returns
    -------
    str
        An SVG document. Grey was there and not kept, colour was kept, white did not exist yet.

    Raises
    ------
    ShapeError
        Steps that are not [heads, k], or not as many as ``seq_lens``.

    """
    steps = [np.asarray(step) for step in selected]
    if len(steps) != len(seq_lens) or not steps or any(s.ndim != 2 or len(s) != len(steps[0]) for s in steps):
        shapes = ", ".join(str(list(s.shape)) for s in steps[:3])
        raise _refuse("selected", f"{len(seq_lens)} steps, each [heads, k]", f"{len(steps)} steps: {shapes}")
    heads, longest = len(steps[0]), max(*seq_lens, 1)
    width = min(columns, longest)
    shares = np.stack([_shares(step, n, longest, width) for step, n in zip(steps, seq_lens, strict=True)])
    cell = max(4, min(16, 720 // width))
    row = max(3, min(10, 240 // len(steps)))
    panel = len(steps) * row + 24
    shown = tokens[:longest] if len(tokens) >= longest and longest <= min(width, 48) else ()
    below = 12 + max((len(visible_text(t)) for t in shown), default=0) * 7
    height = MARGIN + heads * panel + 24 + below
    body = []
    for head in range(heads):
        top = MARGIN + head * panel
        body.append(f'<text x="{MARGIN}" y="{top + 10}" fill="{INK}">head {head}</text>')
        for i, line in enumerate(shares[:, head]):
            body += _cells(line, MARGIN, top + 16 + i * row, cell, row)
    foot = MARGIN + heads * panel + 6
    for i, token in enumerate(shown):
        x = MARGIN + (i + 0.7) * cell
        body.append(
            f'<text transform="translate({x:.0f},{foot}) rotate(90)" fill="{INK}">{escape(visible_text(token))}</text>'
        )
    if not shown:
        edge = f'<text x="{MARGIN + width * cell}" y="{foot + 8}" text-anchor="end" fill="{FAINT}">{longest - 1}</text>'
        body += [f'<text x="{MARGIN}" y="{foot + 8}" fill="{FAINT}">position 0</text>', edge]
    note = f"{len(steps)} steps downwards; colour: kept"
    body.append(f'<text x="{MARGIN}" y="{height - 8}" fill="{FAINT}">{note}</text>')
    return _document(max(2 * MARGIN + width * cell, 300), height, body)


def _shares(step: npt.NDArray[Any], length: int, longest: int, width: int) -> npt.NDArray[np.float64]:
    """Of each head and drawn column which share of the tokens there is kept; -1 where there are none yet: [heads, width]."""
    column = np.arange(longest) * width // longest
    there = np.bincount(column[:length], minlength=width)
    lines = []
    for row in step:
        kept = np.unique(row[(row >= 0) & (row < length)])
        count = np.bincount(column[kept], minlength=width)
        lines.append(np.where(there > 0, count / np.maximum(there, 1), -1.0))
    return np.array(lines)


def _cells(line: npt.NDArray[np.float64], x: float, y: float, cell: int, row: int) -> list[str]:
    """What there is in grey, and over it runs of equal share, one rectangle each."""

    def box(start: int, end: int, paint: str) -> str:
        place = (
            f'x="{x + start * cell:.0f}" y="{y:.0f}" width="{(end - start) * cell}" height="{row - 0.5:g}"'
        )
        return f"<rect {place} {paint}/>"

    rects = [box(0, int((line >= 0).sum()), f'fill="{GONE}"')]
    edges = [0, *(np.flatnonzero(np.diff(line)) + 1).tolist(), len(line)]
    for start, end in itertools.pairwise(edges):
        share = float(line[start])
        if share > 0:
            rects.append(box(start, end, f'fill="{KEPT}" fill-opacity="{max(share, 0.15):.2f}"'))
    return rects


def selection(kept: Any, grid: tuple[int, int], *, image: Any = None, patch: int = 24) -> str:
    """The patches of a picture that are kept; the others lie in the dark.

    Parameters
    ----------
    kept : int32 [k]
        Patches in reading order, as :func:`tokamask.selection.greedy_select` gives them; -1 is padding.
    grid : (int, int)
        Rows and columns of patches.
    image : uint8 [height, width, 3], optional
        The picture under them.
    patch : int
        Pixels of a patch in the drawing.

    Returns
    -------
    str
        An SVG document.

    Raises
    ------
    ShapeError
        Patches outside the grid, or a picture of another kind.

    """
    rows, columns = grid
    patches = np.asarray(kept).ravel()
    patches = patches[patches >= 0]
    if len(patches) and int(patches.max()) >= rows * columns:
        raise _refuse("kept", f"patches below {rows * columns}", str(int(patches.max())))
    width, height = columns * patch, rows * patch
    body = []
    if image is not None:
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise _refuse("image", "uint8 [height, width, 3]", f"{pixels.dtype} {list(pixels.shape)}")
        data = base64.b64encode(_png(pixels)).decode()
        body.append(
            f'<image x="{MARGIN}" y="{MARGIN}" width="{width}" height="{height}" preserveAspectRatio="none" '
            f'href="data:image/png;base64,{data}"/>'
        )
    chosen = set(patches.tolist())
    for i in range(rows * columns):
        box = f'x="{MARGIN + i % columns * patch}" y="{MARGIN + i // columns * patch}" width="{patch}" height="{patch}"'
        if i in chosen:
            filling = "none" if image is not None else KEPT
            body.append(f'<rect {box} fill="{filling}" stroke="{PAPER}" stroke-width="1"/>')
        else:
            body.append(f'<rect {box} fill="{INK}" fill-opacity="{0.78 if image is not None else 0.12}"/>')
    note = f"{len(chosen)} of {rows * columns} patches kept"
    body.append(f'<text x="{MARGIN}" y="{height + MARGIN + 18}" fill="{INK}">{note}</text>')
    return _document(max(width + 2 * MARGIN, 220), height + 2 * MARGIN + 16, body)


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An RGB picture as a PNG file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + np.ascontiguousarray(line).tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _document(width: float, height: float, body: list[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" font-family="{escape(FONT)}" font-size="12">',
            f'<rect width="100%" height="100%" fill="{PAPER}"/>',
            *body,
            "</svg>\n",
        ]
    )
