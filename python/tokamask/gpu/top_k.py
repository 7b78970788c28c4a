"""The launch of top_k. Shapes and law: :mod:`tokamask.selection` and :mod:`tokamask.reference.selection`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.errors import ShapeError
from tokamask.gpu.arrays import FLOATS, expect, operand
from tokamask.gpu.cache import result
from tokamask.gpu.device import Device


def top_k(
    device: Device,
    scores: Any,
    k: int,
    *,
    lengths: Any = None,
    counts: Any = None,
    page_table: Any = None,
    page_size: int = 1,
    out: Any = None,
) -> Any:
    """Indices of the ``k`` greatest scores of each row, ascending, -1 padded.

    Parameters
    ----------
    device : Device
        Where the arrays live.
    scores : float32, float16 or bfloat16 [rows, n]
        Rows may be strided; NaN ranks below -inf.
    k : int
        At least 0.
    lengths : int32 [rows], optional
        Read on the device; clipped to [0, n].
    counts : int32 [rows], optional
        How many of each row, read on the device; clipped to [0, k].
    page_table : int32 [rows or 1, max_pages], optional
        With it, places in the cache instead of positions: ``page_table[i // page_size] * page_size + i % page_size``.
    page_size : int
        Of the table.
    out : int32 [rows, k], optional
        Where to write.

    """
    s = expect(operand("scores", scores), FLOATS, [("rows", None), ("n", None)], contiguous=False)
    rows, n = s.shape
    if k < 0:
        raise ShapeError(f"k: expected at least 0, got {k}", name="k", expected="at least 0", got=str(k))
    if s.size and n > 1 and s.strides[1] != 1:
        raise ShapeError(
            "scores: rows must be contiguous",
            name="scores",
            expected="contiguous rows",
            got=f"strides {s.strides}",
        )
    ends, kept = (
        None if given is None else expect(operand(name, given), "i32", [("rows", rows)])
        for name, given in (("lengths", lengths), ("counts", counts))
    )
    table = None
    if page_table is not None:
        table = expect(operand("page_table", page_table), "i32", [("rows or 1", None), ("max_pages", None)])
        if table.shape[0] not in (1, rows) or page_size < 1 or table.shape[1] * page_size < n:
            expected = f"{rows} or 1 rows of pages for {n} scores"
            raise ShapeError(
                f"page_table: expected {expected}, got {list(table.shape)} pages of {page_size}",
                name="page_table",
                expected=expected,
                got=f"{list(table.shape)} pages of {page_size}",
            )
    out = result(device, out, (rows, k), "int32", "i32")
    if rows and k:
        table_stride = np.int64(table.shape[1] if table is not None and table.shape[0] > 1 else 0)
        arguments = (
            *(s, ends, kept, table, operand("out", out), np.int64(s.strides[0]), table_stride),
            *(np.int32(page_size), np.int32(n), np.int32(k)),
        )
        device.launch("top_k", "top_k", {"ELEMENT": s.element}, (rows,), 512, arguments)
    return out
