"""Launches for fewer visual tokens: greedy selection and ToMe."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.errors import ShapeError
from tokamask.gpu.arrays import FLOATS, Operand, expect, operand
from tokamask.gpu.cache import Axes, result
from tokamask.gpu.device import Device
from tokamask.gpu.top_k import top_k

MODES = ("maxmin", "maxsum", "mmr")


def inverse_lengths(device: Device, x: Operand, batch: int, n: int, dim: int) -> Operand:
    """1 / length of each row, 0 for rows of zeros."""
    inverse = operand("inverse", device.empty((batch, n), "float32"))
    sizes = (np.int32(n), np.int32(dim))
    device.launch(
        "greedy_select",
        "greedy_select_norms",
        {"ELEMENT": x.element},
        (-(-n // 4), batch),
        128,
        (x, inverse, *sizes),
    )
    return inverse


def greedy_select(
    device: Device,
    x: Any,
    k: int,
    *,
    importance: Any = None,
    mode: str = "maxmin",
    lam: float = 0.5,
    out: Any = None,
) -> Any:
    """As :func:`tokamask.selection.greedy_select`; cosines in float32, so that near ties may fall otherwise than in float64."""
    if mode not in MODES or (mode == "mmr") != (importance is not None) or k < 0:
        expected = "mode maxmin or maxsum, or mmr with importance; k 0 or more"
        raise ShapeError(
            f"mode: expected {expected}, got {mode!r}, k {k}",
            name="mode",
            expected=expected,
            got=f"{mode!r}, k {k}",
        )
    batched: Axes = [("batch", None)] if len(x.shape) == 3 else []
    rows = expect(operand("x", x), FLOATS, [*batched, ("n", None), ("dim", None)])
    *leading, n, dim = rows.shape
    batch, kept = (leading[0] if leading else 1), min(k, n)
    out = result(device, out, (*leading, kept), "int32", "i32")
    if not (batch and kept):
        return out
    variant = {"ELEMENT": rows.element}
    inverse = inverse_lengths(device, rows, batch, n, dim)
    worth, nearest, gain = (
        operand(name, device.empty((batch, n), "float32")) for name in ("worth", "nearest", "gain")
    )
    if importance is None:
        first = (rows, inverse, worth, np.int32(n), np.int32(dim))
        device.launch("greedy_select", "greedy_select_nearest", variant, (-(-n // 4), batch), 128, first)
    else:
        axes: Axes = [*([("batch", batch)] if leading else []), ("n", n)]
        weights = expect(operand("importance", importance), "f32", axes)
        device.launch(
            "greedy_select",
            "greedy_select_importance",
            variant,
            (batch,),
            512,
            (weights, gain, worth, np.int32(n), np.float32(lam)),
        )
    chosen = operand("chosen", device.empty((batch, n), "uint8"))
    sizes = (np.int32(n), np.int32(dim), np.int32(kept), np.int32(MODES.index(mode)), np.float32(lam))
    arguments = (rows, inverse, worth, gain, nearest, chosen, operand("out", out), *sizes)
    device.launch("greedy_select", "greedy_select", variant, (batch,), 512, arguments)
    return out


def tome_merge(
    device: Device, x: Any, r: int, *, metric: Any = None, size: Any = None, protect: int = 0
) -> tuple[Any, Any, Any]:
    """As :func:`tokamask.selection.tome_merge`: ``(x, size, rows)``. How many rows stay follows from shapes alone."""
    rows = expect(operand("x", x), FLOATS, [("n", None), ("dim", None)])
    measured = (
        rows
        if metric is None
        else expect(operand("metric", metric), FLOATS, [("n", rows.shape[0]), ("metric_dim", None)])
    )
    n, dim = rows.shape
    sizes = None if size is None else expect(operand("size", size), "f32", [("n", n)])
    if r < 0 or protect < 0:
        raise ShapeError(
            f"r: expected 0 or more, got {r}, protect {protect}",
            name="r",
            expected="0 or more",
            got=f"{r}, {protect}",
        )
    sources, targets = max(0, -(-(n - protect) // 2)), max(0, (n - protect) // 2)
    r = min(r, sources) if targets else 0
    merged, merged_size = device.empty((n - r, dim), "float32"), device.empty((n - r,), "float32")
    new_rows = device.empty((n,), "int32")
    if not n:
        return merged, merged_size, new_rows
    best, similarity = (
        device.empty((max(sources, 1),), "int32"),
        device.empty((1, max(sources, 1)), "float32"),
    )
    b, s = operand("best", best), operand("similarity", similarity)
    if r:
        inverse = inverse_lengths(device, measured, 1, n, measured.shape[1])
        lengths = (np.int32(n), np.int32(measured.shape[1]), np.int32(protect), np.int32(sources))
        variant = {"ELEMENT": measured.element}
        device.launch(
            "tome_merge",
            "tome_merge_match",
            variant,
            (-(-sources // 4),),
            128,
            (measured, inverse, b, s, *lengths),
        )
    selected = operand("selected", top_k(device, similarity, r))
    into, where = operand("into", device.empty((n,), "int32")), operand("rows", new_rows)
    variant = {"ELEMENT": rows.element}
    device.launch(
        "tome_merge",
        "tome_merge_rows",
        variant,
        (1,),
        512,
        (selected, b, into, where, np.int32(n), np.int32(r), np.int32(protect)),
    )
    results = (operand("merged", merged), operand("sizes", merged_size))
    arguments = (rows, sizes, into, where, selected, *results, np.int32(dim), np.int32(r), np.int32(protect))
    device.launch("tome_merge", "tome_merge", variant, (n,), 128, arguments)
    return merged, merged_size, new_rows
