"""What every array function does first: check types and shapes once, tell the device, allocate outputs.

numpy and torch-CPU arrays go to the compiled core, CUDA arrays (torch, CuPy) to the function of the same name in
``tokamask.gpu``, called with the checked arguments in the order of the reference function, then the outputs. torch is looked
at only where a tensor came in, so neither torch nor CuPy need be installed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tokamask.errors import KernelError, ShapeError

FLOATS = ("float32", "float16", "bfloat16")
"""Types of scores, queries, keys and values. In numpy, bfloat16 is uint16: its bits."""


def library(array: Any) -> str:
    """``"numpy"``, ``"torch"`` or ``"cupy"`` by the array's type; "" for anything else."""
    name = type(array).__module__.partition(".")[0]
    return name if name in ("numpy", "torch", "cupy") and hasattr(array, "shape") else ""


def is_cuda(array: Any) -> bool:
    """True for arrays on a CUDA device."""
    kind = library(array)
    return kind == "cupy" or (kind == "torch" and array.is_cuda)


def dtype_name(array: Any) -> str:
    """The name of the element type; uint16 without torch is bfloat16."""
    name = str(array.dtype).removeprefix("torch.")
    return "bfloat16" if name == "uint16" else name


def describe(array: Any) -> str:
    """``int64 [4, 8]``, or the Python type of what is no array."""
    if not library(array):
        return type(array).__name__
    return f"{dtype_name(array)} {list(array.shape)}"


def refuse(name: str, expected: str, array: Any) -> ShapeError:
    """The error for an argument that is not what it should be."""
    got = describe(array)
    return ShapeError(f"{name}: expected {expected}, got {got}", name=name, expected=expected, got=got)


class Shapes:
    """The dimensions of one call: bound by name where they first appear, compared ever after."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.cuda: bool | None = None

    def __getitem__(self, dimension: str) -> int:
        return self.sizes[dimension]

    def check(self, name: str, array: Any, dtypes: tuple[str, ...], *dimensions: str | int) -> None:
        """Binds or compares the dimensions of an array, its type and its device.

        A dimension is a name or a number. Arrays must be C-contiguous, except that those of ``FLOATS`` may have strides
        between rows (their last dimension is contiguous).
        """
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
        cuda = is_cuda(array)
        if self.cuda is None:
            self.cuda = cuda
        elif self.cuda != cuda:
            raise refuse(name, "an array on the same device as the first one", array)


def as_numpy(array: Any) -> npt.NDArray[Any]:
    """A view of a CPU array for the core, no copy; bfloat16 tensors as uint16 bits."""
    if library(array) != "torch":
        return array  # type: ignore[no-any-return]
    tensor = array.detach()
    if dtype_name(tensor) == "bfloat16":
        return tensor.view(sys.modules["torch"].int16).numpy().view(np.uint16)  # type: ignore[no-any-return]
    return tensor.numpy()  # type: ignore[no-any-return]


def allocate(like: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """An uninitialised array in the library and on the device of ``like``."""
    kind = library(like)
    if kind == "torch":
        torch = sys.modules["torch"]
        return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)
    module = np if kind == "numpy" else sys.modules["cupy"]
    return module.empty(shape, dtype="uint16" if dtype == "bfloat16" else dtype)


def output(name: str, out: Any, like: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """``out`` if it is given and fits, else a new array like ``like``."""
    if out is None:
        return allocate(like, shape, dtype)
    fits = library(out) == library(like) and dtype_name(out) == dtype and tuple(out.shape) == shape
    if not fits or is_cuda(out) != is_cuda(like):
        raise refuse(name, f"{dtype} {list(shape)} beside the inputs", out)
    return out


def per_row(name: str, value: Any, batch: int, dtype: str, like: Any) -> Any:
    """One number per row, beside ``like``: a number is repeated, an array is checked.

    On CUDA a CUDA array passes as it is (torch: int64 and int32 stand for uint64 and uint32); anything else is copied there.
    """
    expected = f"{dtype} [batch={batch}] or a number"
    if library(value):
        if tuple(value.shape) not in ((), (batch,)):
            raise refuse(name, expected, value)
        if is_cuda(value):
            if not is_cuda(like) or dtype_name(value).lstrip("u") != dtype.lstrip("u"):
                raise refuse(name, f"{expected} beside the inputs", value)
            return value
        value = as_numpy(value)
    try:
        rows = np.ascontiguousarray(np.broadcast_to(np.asarray(value), batch), dtype)
    except (ValueError, TypeError, OverflowError):
        raise refuse(name, expected, value) from None
    return to_device(rows, like) if is_cuda(like) else rows


def to_device(array: npt.NDArray[Any], like: Any) -> Any:
    """A copy of a numpy array on the CUDA device of ``like``, in its library."""
    if library(like) == "torch":
        signed = array.view(array.dtype.str.replace("u", "i")) if array.dtype.kind == "u" else array
        return sys.modules["torch"].from_numpy(signed).to(like.device)
    return sys.modules["cupy"].asarray(array)


def cuda_kernel(name: str) -> Callable[..., Any]:
    """The function of that name in ``tokamask.gpu``."""
    kernel = getattr(importlib.import_module("tokamask.gpu"), name, None)
    if kernel is None:
        raise KernelError(f"{name} has no CUDA kernel: move its arrays to the CPU", kernel=name, arch="cuda")
    return kernel  # type: ignore[no-any-return]
