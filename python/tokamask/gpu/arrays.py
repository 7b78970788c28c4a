"""What the kernels see of an array: a pointer, a shape, strides and an element type, whatever library owns it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokamask.errors import ShapeError

# dtype name (numpy, ml_dtypes, CuPy or torch) -> element name of the kernels. uint16 holds bfloat16 bits, because numpy
# and CuPy have no bfloat16.
ELEMENTS = {
    "float32": "f32",
    "float64": "f64",
    "float16": "f16",
    "bfloat16": "bf16",
    "uint16": "bf16",
    "int32": "i32",
    "int64": "i64",
    "uint32": "u32",
    "uint64": "u64",
    "uint8": "u8",
    "bool": "u8",
}
SIZES = {"f32": 4, "f64": 8, "f16": 2, "bf16": 2, "i32": 4, "i64": 8, "u32": 4, "u64": 8, "u8": 1}
FLOATS = ("f32", "f16", "bf16")


def is_cuda(array: Any) -> bool:
    """Whether the array lives on a CUDA device. Imports nothing."""
    if type(array).__module__ == "numpy":
        return False
    on_device = getattr(array, "is_cuda", None)  # torch
    if on_device is not None:
        return bool(on_device)
    return hasattr(array, "__cuda_array_interface__")  # CuPy, Numba


@dataclass(frozen=True)
class Operand:
    """An array as a kernel argument. ``owner`` keeps the memory alive; strides count elements."""

    name: str
    owner: Any
    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    element: str
    dtype: str

    @property
    def contiguous(self) -> bool:
        """C order without gaps; axes of length 1 may have any stride."""
        if not self.size:
            return True
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size > 1 and stride != expected:
                return False
            expected *= size
        return True

    @property
    def size(self) -> int:
        """Number of elements."""
        n = 1
        for length in self.shape:
            n *= length
        return n


def operand(name: str, array: Any) -> Operand:
    """Reads the description of a numpy, CuPy or torch array."""
    dtype = str(array.dtype).rpartition(".")[2]
    element = ELEMENTS.get(dtype)
    if element is None:
        raise ShapeError(
            f"{name}: no kernel takes dtype {dtype}", name=name, expected=", ".join(ELEMENTS), got=dtype
        )
    if callable(getattr(array, "data_ptr", None)):  # torch: strides count elements already
        pointer, strides = array.data_ptr(), tuple(array.stride())
    else:
        strides = tuple(s // SIZES[element] for s in array.strides)
        pointer = array.data.ptr if hasattr(array.data, "ptr") else array.ctypes.data
    return Operand(name, array, int(pointer), tuple(array.shape), strides, element, dtype)


def describe(o: Operand) -> str:
    """An array in words, for messages."""
    return f"{o.dtype} [{', '.join(map(str, o.shape))}]"


def expect(
    o: Operand,
    elements: str | Sequence[str],
    shape: Sequence[tuple[str, int | None]],
    *,
    contiguous: bool = True,
) -> Operand:
    """Checks one argument: its element type, and each axis as ``(name, length or None for any)``."""
    wanted = (elements,) if isinstance(elements, str) else tuple(elements)
    expected = f"{' or '.join(wanted)} [{', '.join(n if s is None else f'{n}={s}' for n, s in shape)}]"
    fits = len(shape) == len(o.shape) and all(
        s is None or s == got for (_, s), got in zip(shape, o.shape, strict=True)
    )
    if o.element not in wanted or not fits:
        raise ShapeError(
            f"{o.name}: expected {expected}, got {describe(o)}",
            name=o.name,
            expected=expected,
            got=describe(o),
        )
    if contiguous and not o.contiguous:
        raise ShapeError(
            f"{o.name}: expected a contiguous array, got strides {o.strides}",
            name=o.name,
            expected="contiguous",
            got=str(o.strides),
        )
    return o


def expect_aligned(o: Operand, bytes_: int = 16) -> Operand:
    """Rows along the last axis must start at multiples of ``bytes_`` and have no gaps inside."""
    size = SIZES[o.element]
    steps = [s * size for s, n in zip(o.strides[:-1], o.shape[:-1], strict=True) if n > 1]
    if not o.size:
        return o
    if o.pointer % bytes_ or any(s % bytes_ for s in steps) or (o.shape[-1] > 1 and o.strides[-1] != 1):
        raise ShapeError(
            f"{o.name}: rows must be contiguous and start at multiples of {bytes_} bytes",
            name=o.name,
            expected=f"{bytes_}-byte rows",
            got=f"address {o.pointer:#x}, strides {o.strides}",
        )
    return o
