"""bfloat16 as its uint16 bits, the convention of every array function here."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def widen(x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """float32 of a float32, float16 or bfloat16 (uint16 bits) array; exact."""
    if x.dtype == np.uint16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float32)


def narrow(x: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Rounds to float32, float16 or bfloat16 (as uint16 bits), to nearest, ties to even; NaN stays NaN."""
    x = np.asarray(x, np.float32)
    if np.dtype(dtype) != np.uint16:
        return x.astype(dtype)
    bits = x.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)
