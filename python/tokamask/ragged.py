"""Rows of token ids of different lengths, stored flat."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tokamask.errors import ShapeError

if TYPE_CHECKING:
    from typing import Any


class Ragged:
    """Token ids of a batch: one flat array and the offsets of its rows.

    Parameters
    ----------
    ids : uint32 [n]
        The ids of all rows, one after another.
    offsets : int64 [batch + 1]
        Row ``i`` is ``ids[offsets[i]:offsets[i + 1]]``; ascending from 0 to ``n``.

    Raises
    ------
    ShapeError
        The arrays are not of these types and shapes, or the offsets do not ascend from 0 to ``n``.

    Examples
    --------
    >>> r = Ragged.from_lists([[1, 2], [], [3]])
    >>> len(r), r[0].tolist(), r.to_lists()
    (3, [1, 2], [[1, 2], [], [3]])

    """

    __slots__ = ("ids", "offsets")

    ids: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]

    def __init__(self, ids: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64]) -> None:
        for name, array, dtype in (("ids", ids, np.uint32), ("offsets", offsets, np.int64)):
            if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
                got = (
                    f"{array.dtype} {list(array.shape)}"
                    if isinstance(array, np.ndarray)
                    else str(type(array))
                )
                expected = f"{np.dtype(dtype)} [n]" if name == "ids" else f"{np.dtype(dtype)} [batch + 1]"
                raise ShapeError(
                    f"{name}: expected {expected}, got {got}", name=name, expected=expected, got=got
                )
        if (
            len(offsets) == 0
            or offsets[0] != 0
            or offsets[-1] != len(ids)
            or bool(np.any(np.diff(offsets) < 0))
        ):
            expected, got = f"ascending from 0 to {len(ids)}", str(offsets)
            raise ShapeError(
                f"offsets: expected {expected}, got {got}", name="offsets", expected=expected, got=got
            )
        self.ids, self.offsets = ids, offsets

    @classmethod
    def from_lists(cls, rows: list[list[int]]) -> Ragged:
        """Flattens lists of ids."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        ids = np.fromiter((i for row in rows for i in row), np.uint32, count=int(offsets[-1]))
        return cls(ids, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> npt.NDArray[np.uint32]:
        """A view of one row, no copy."""
        rows = len(self)
        if not -rows <= row < rows:
            raise IndexError(f"row {row} of {rows}")
        row %= rows
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[npt.NDArray[np.uint32]]:
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Ragged)
            and np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.ids, other.ids)
        )

    __hash__ = None  # type: ignore[assignment]  # holds mutable arrays

    def __repr__(self) -> str:
        return f"<Ragged of {len(self)} rows, {len(self.ids)} ids>"

    def to_lists(self) -> list[list[int]]:
        """The rows as lists of Python ints."""
        flat = self.ids.tolist()
        bounds = self.offsets.tolist()
        return [flat[start:end] for start, end in itertools.pairwise(bounds)]

    def to_arrow(self) -> Any:
        """The rows as a ``pyarrow.LargeListArray`` of uint32, sharing the buffers; needs pyarrow."""
        import pyarrow as pa

        return pa.LargeListArray.from_arrays(pa.array(self.offsets), pa.array(self.ids))
