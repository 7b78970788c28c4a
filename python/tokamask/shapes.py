"""What every array function does first: choose by device, check types and shapes once, allocate outputs.

numpy and torch-CPU arrays go to the compiled core; CUDA arrays (torch, CuPy) go, unchecked, to the function of the same name
in ``tokamask.gpu``, with the same arguments. torch is looked at only where a tensor came in, so neither torch nor CuPy need be
installed.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.errors import KernelError, ShapeError
from tokamask.gpu.arrays import is_cuda

FLOATS = ("float32", "float16", "bfloat16")
"""Types of scores, queries, keys and values. In numpy, bfloat16 is uint16: its bits."""


def library(array: Any) -> str:
    """``"numpy"`` or ``"torch"`` by the array's type; "" for anything else, CUDA tensors included."""
    if type(array) is np.ndarray:
        return "numpy"
    name = type(array).__module__.partition(".")[0]
    return name if name in ("numpy", "torch") and hasattr(array, "shape") and not is_cuda(array) else ""


def dtype_name(array: Any) -> str:
    """The name of the element type; uint16 without torch is bfloat16."""
    return _name(array.dtype)


@functools.lru_cache(maxsize=64)  # the name takes numpy 5 us, as long as the rest of the checks of a call
def _name(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    return "bfloat16" if name == "uint16" else name


def describe(array: Any) -> str:
    """``int64 [4, 8]``, or the Python type of what is no array."""
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        return type(array).__name__
    on = "cuda " if is_cuda(array) else ""
    return f"{on}{dtype_name(array)} {list(array.shape)}"


def refuse(name: str, expected: str, array: Any) -> ShapeError:
    """The error for an argument that is not what it should be."""
    got = describe(array)
    return ShapeError(f"{name}: expected {expected}, got {got}", name=name, expected=expected, got=got)


class Shapes:
    """The dimensions of one call: bound by name where they first appear, compared ever after."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes

    def __getitem__(self, dimension: str) -> int:
        return self.sizes[dimension]

    def check(self, name: str, array: Any, dtypes: tuple[str, ...], *dimensions: str | int) -> None:
        """Binds or compares the dimensions of a CPU array, each a name or a number, and its type."""
        fits = bool(library(array)) and dtype_name(array) in dtypes and len(array.shape) == len(dimensions)
        if fits:
            for dimension, size in zip(dimensions, array.shape, strict=True):
                wanted = dimension if isinstance(dimension, int) else self.sizes.get(dimension, size)
                fits = fits and size == wanted
        if not fits:
            shown = ", ".join(
                f"{d}={self.sizes[d]}" if isinstance(d, str) and d in self.sizes else str(d)
                for d in dimensions
            )
            raise refuse(name, f"{' or '.join(dtypes)} [{shown}]", array)
        for dimension, size in zip(dimensions, array.shape, strict=True):
            if isinstance(dimension, str):
                self.sizes[dimension] = int(size)


def as_numpy(array: Any) -> npt.NDArray[Any]:
    """A view of a CPU array for the core, no copy; bfloat16 tensors as uint16 bits."""
    if type(array) is np.ndarray or library(array) != "torch":
        return array  # type: ignore[no-any-return]
    tensor = array.detach()
    if dtype_name(tensor) == "bfloat16":
        return tensor.view(sys.modules["torch"].int16).numpy().view(np.uint16)  # type: ignore[no-any-return]
    return tensor.numpy()  # type: ignore[no-any-return]


def allocate(like: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """An uninitialised array in the library of ``like``."""
    if library(like) == "torch":
        torch = sys.modules["torch"]
        return torch.empty(shape, dtype=getattr(torch, dtype))
    return np.empty(shape, "uint16" if dtype == "bfloat16" else dtype)


def output(name: str, out: Any, like: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """``out`` if it is given and fits, else a new array in the library of ``like``."""
    if out is None:
        return allocate(like, shape, dtype)
    if library(out) != library(like) or dtype_name(out) != dtype or tuple(out.shape) != shape:
        raise refuse(name, f"{dtype} {list(shape)} in the library of the inputs", out)
    return out


def per_row(name: str, value: Any, batch: int, dtype: str) -> npt.NDArray[Any]:
    """One number per row: a number is repeated, an array is checked."""
    if type(value) in (int, float):
        try:
            return np.full(batch, value, dtype)
        except (ValueError, OverflowError):
            pass
    elif library(value) and tuple(value.shape) in ((), (batch,)):
        return np.ascontiguousarray(np.broadcast_to(as_numpy(value), batch), dtype)
    raise refuse(name, f"{dtype} [batch={batch}] or a number", value)


def natural(name: str, value: int, least: int = 0) -> int:
    """The number, refused below ``least``."""
    if value < least:
        expected = f"{least} or more"
        raise ShapeError(
            f"{name}: expected {expected}, got {value}", name=name, expected=expected, got=str(value)
        )
    return value


def scale_of(shapes: Shapes, scale: float | None) -> float:
    """``1 / sqrt(head_dim)`` unless given."""
    return float(shapes["head_dim"] ** -0.5 if scale is None else scale)


def cuda_function(module: str, name: str, array: Any) -> Callable[..., Any]:
    """The function of ``tokamask.gpu.<module>`` for the device of the array."""
    function = getattr(importlib.import_module(f"tokamask.gpu.{module}"), name, None)
    if function is None:
        raise KernelError(f"{name} has no CUDA kernel: move its arrays to the CPU", kernel=name, arch="cuda")
    return functools.partial(function, importlib.import_module("tokamask.gpu").device_of(array))
