"""Which tokens survive: exact top-k and the scores and rules that feed it."""

from __future__ import annotations

from typing import Any

from tokamask import _core
from tokamask.errors import ShapeError
from tokamask.gpu.arrays import is_cuda
from tokamask.shapes import FLOATS, Shapes, as_numpy, cuda_function, output


def top_k(scores: Any, k: int, *, lengths: Any = None, out: Any = None) -> Any:
    """Indices of the ``k`` greatest scores of each row, exact and ascending.

    NaN ranks below -inf, -0.0 equals 0.0, and ties at the cut are kept by lowest index, so the result is the same on every
    device.

    Parameters
    ----------
    scores : float32, float16 or bfloat16 [rows, n]
        numpy (bfloat16 as uint16), torch or CuPy; rows may be strided.
    k : int
        How many, 0 or more; may exceed ``n``.
    lengths : int32 [rows], optional
        Only ``scores[row, :lengths[row]]`` counts; clipped to [0, n].
    out : int32 [rows, k], optional
        Where to put the result.

    Returns
    -------
    int32 [rows, k]
        Ascending; rows with fewer than ``k`` scores end in -1.

    Examples
    --------
    >>> import numpy as np, tokamask as tm
    >>> tm.selection.top_k(np.array([[1, 9, 9, 3]], np.float32), 2).tolist()
    [[1, 2]]

    """
    if is_cuda(scores):
        return cuda_function("selection", "top_k", scores)(scores, k, lengths=lengths, out=out)
    shapes = Shapes()
    shapes.check("scores", scores, FLOATS, "rows", "n")
    if lengths is not None:
        shapes.check("lengths", lengths, ("int32",), "rows")
    if k < 0:
        raise ShapeError(f"k: expected 0 or more, got {k}", name="k", expected="0 or more", got=str(k))
    selected = output("out", out, scores, (shapes["rows"], k), "int32")
    _core.top_k(as_numpy(scores), k, None if lengths is None else as_numpy(lengths), as_numpy(selected))
    return selected
