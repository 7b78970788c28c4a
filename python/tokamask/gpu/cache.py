"""Checks of what the kernels read a paged cache through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tokamask.errors import ShapeError
from tokamask.gpu.arrays import FLOATS, Operand, expect, expect_aligned, operand
from tokamask.gpu.device import Device

Axes = list[tuple[str, int | None]]


@dataclass(frozen=True)
class Paged:
    """A checked paged array [pages, page_size, num_kv_heads, head_dim] and its page table."""

    rows: Operand
    page_table: Operand
    page_size: int
    num_kv_heads: int
    head_dim: int

    def strides(self) -> tuple[np.int64, np.int64, np.int64]:
        """Of page, token and head, in elements."""
        page, token, head, _ = self.rows.strides
        return np.int64(page), np.int64(token), np.int64(head)

    def table(self) -> tuple[np.int32, np.int32]:
        """The page size and the width of the page table."""
        return np.int32(self.page_size), np.int32(self.page_table.shape[1])

    @property
    def max_tokens(self) -> int:
        """What the page table has room for."""
        return self.page_table.shape[1] * self.page_size


def check_paged(
    name: str, array: Any, page_table: Any, batch: int, element: str, head_dim: int | None
) -> Paged:
    """The array in any order of its first three axes, rows 16-byte aligned; the table int32 [batch, max_pages]."""
    axes: Axes = [("pages", None), ("page_size", None), ("num_kv_heads", None), ("head_dim", head_dim)]
    rows = expect_aligned(expect(operand(name, array), element, axes, contiguous=False))
    table = expect(operand("page_table", page_table), "i32", [("batch", batch), ("max_pages", None)])
    return Paged(rows, table, rows.shape[1], rows.shape[2], rows.shape[3])


def check_values(v: Any, keys: Operand) -> Operand:
    """Values of the shape and the strides of the keys, of a paged cache or of a prompt."""
    name = keys.name.replace("k", "v", 1)
    axes: Axes = [(f"axis {i}", length) for i, length in enumerate(keys.shape)]
    values = expect_aligned(expect(operand(name, v), keys.element, axes, contiguous=False))
    if keys.strides != values.strides:
        raise ShapeError(
            f"{name}: expected the strides of {keys.name}",
            name=name,
            expected=str(keys.strides),
            got=str(values.strides),
        )
    return values


def check_query(q: Any) -> tuple[Operand, int, int, int]:
    """``q`` [batch, num_q_heads, head_dim]."""
    query = expect_aligned(
        expect(operand("q", q), FLOATS, [("batch", None), ("num_q_heads", None), ("head_dim", None)])
    )
    batch, heads, dim = query.shape
    return query, batch, heads, dim


def check_lengths(seq_lens: Any, batch: int) -> Operand:
    """``seq_lens`` int32 [batch]."""
    return expect(operand("seq_lens", seq_lens), "i32", [("batch", batch)])


def group_of(num_q_heads: int, num_kv_heads: int) -> int:
    """Query heads per KV head."""
    if num_kv_heads == 0 or num_q_heads % num_kv_heads:
        raise ShapeError(
            f"q: {num_q_heads} query heads cannot share {num_kv_heads} KV heads",
            name="q",
            expected=f"a multiple of {num_kv_heads} heads",
            got=str(num_q_heads),
        )
    return num_q_heads // num_kv_heads


def scale_of(query: Operand, scale: float | None) -> np.float32:
    """1 / sqrt(head_dim) unless given."""
    return np.float32(query.shape[-1] ** -0.5 if scale is None else scale)


def result(
    device: Device, out: Any, shape: tuple[int, ...], dtype: str, elements: str | tuple[str, ...]
) -> Any:
    """``out`` after a check of its shape, or a new array."""
    if out is None:
        return device.empty(shape, dtype)
    expect(operand("out", out), elements, [(f"axis {i}", n) for i, n in enumerate(shape)])
    return out
