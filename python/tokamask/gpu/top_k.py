"""The launch of top_k. Shapes and law: :mod:`tokamask.selection` and :mod:`tokamask.reference.selection`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.errors import ShapeError
from tokamask.gpu.arrays import FLOATS, expect, operand
from tokamask.gpu.cache import result
from tokamask.gpu.device import Device


def top_k(device: Device, scores: Any, k: int, *, lengths: Any = None, out: Any = None) -> Any:
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
    counts = None if lengths is None else expect(operand("lengths", lengths), "i32", [("rows", rows)])
    out = result(device, out, (rows, k), "int32", "i32")
    if rows and k:
        arguments = (s, counts, operand("out", out), np.int64(s.strides[0]), np.int32(n), np.int32(k))
        device.launch("top_k", "top_k", {"ELEMENT": s.element}, (rows,), 512, arguments)
    return out
