"""The launch of merge_states, which the split kernels end with."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.gpu.arrays import FLOATS, expect, operand
from tokamask.gpu.cache import result
from tokamask.gpu.device import Device


def merge_states(
    device: Device, v: Any, lse: Any, *, sinks: Any = None, out: Any = None, lse_out: Any = None
) -> tuple[Any, Any]:
    """Joins ``v`` [rows, parts, heads, dim] and ``lse`` float32 [rows, parts, heads] into [rows, heads, dim] and [rows, heads].

    ``out`` may be of another float type than ``v``.
    """
    values = expect(
        operand("v", v), FLOATS, [("rows", None), ("parts", None), ("heads", None), ("dim", None)]
    )
    rows, parts, heads, dim = values.shape
    weights = expect(operand("lse", lse), "f32", [("rows", rows), ("parts", parts), ("heads", heads)])
    sink = None if sinks is None else expect(operand("sinks", sinks), "f32", [("heads", heads)])
    out = result(device, out, (rows, heads, dim), values.dtype, FLOATS)
    lse_out = result(device, lse_out, (rows, heads), "float32", "f32")
    if rows and heads:
        o = operand("out", out)
        arguments = (values, weights, sink, o, operand("lse_out", lse_out), np.int32(parts), np.int32(dim))
        device.launch(
            "merge_states",
            "merge_states",
            {"PARTIAL": values.element, "ELEMENT": o.element},
            (rows, heads),
            128,
            arguments,
        )
    return out, lse_out
