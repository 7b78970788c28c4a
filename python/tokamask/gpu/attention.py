"""Launches of the attention kernels. Shapes and laws: :mod:`tokamask.attention` and :mod:`tokamask.reference.attention`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tokamask.errors import ShapeError
from tokamask.gpu.arrays import FLOATS, Operand, expect, expect_aligned, operand
from tokamask.gpu.device import Device
from tokamask.gpu.selection import result

TOKENS_PER_SPLIT = 256  # fewer would spend more on merging than on reading


@dataclass(frozen=True)
class Cache:
    """A checked paged KV cache and its table."""

    keys: Operand
    values: Operand
    page_table: Operand
    page_size: int
    num_kv_heads: int
    head_dim: int

    def strides(self) -> tuple[np.int64, np.int64, np.int64]:
        """Of page, token and head."""
        page, token, head, _ = self.keys.strides
        return np.int64(page), np.int64(token), np.int64(head)

    def table(self) -> tuple[np.int32, np.int32]:
        """The page size and the width of the page table."""
        return np.int32(self.page_size), np.int32(self.page_table.shape[1])


def check_cache(
    k_cache: Any, v_cache: Any, page_table: Any, batch: int, element: str, head_dim: int
) -> Cache:
    """Both caches [pages, page_size, num_kv_heads, head_dim] with equal strides, and int32 [batch, max_pages]."""
    axes: list[tuple[str, int | None]] = [
        ("pages", None),
        ("page_size", None),
        ("num_kv_heads", None),
        ("head_dim", head_dim),
    ]
    keys = expect_aligned(expect(operand("k_cache", k_cache), element, axes, contiguous=False))
    same = [(name, size) for (name, _), size in zip(axes, keys.shape, strict=True)]
    values = expect_aligned(expect(operand("v_cache", v_cache), element, same, contiguous=False))
    if keys.strides != values.strides:
        raise ShapeError(
            "v_cache: expected the strides of k_cache",
            name="v_cache",
            expected=str(keys.strides),
            got=str(values.strides),
        )
    table = expect(operand("page_table", page_table), "i32", [("batch", batch), ("max_pages", None)])
    return Cache(keys, values, table, keys.shape[1], keys.shape[2], head_dim)


def check_query(q: Any) -> tuple[Operand, int, int, int]:
    """``q`` [batch, num_q_heads, head_dim]."""
    query = expect_aligned(
        expect(operand("q", q), FLOATS, [("batch", None), ("num_q_heads", None), ("head_dim", None)])
    )
    return query, *query.shape  # type: ignore[return-value]


def group_of(num_q_heads: int, cache: Cache) -> int:
    """Query heads per KV head."""
    if cache.num_kv_heads == 0 or num_q_heads % cache.num_kv_heads:
        raise ShapeError(
            f"q: {num_q_heads} query heads cannot share {cache.num_kv_heads} KV heads",
            name="q",
            expected=f"a multiple of {cache.num_kv_heads} heads",
            got=str(num_q_heads),
        )
    return num_q_heads // cache.num_kv_heads


def choose_splits(device: Device, tokens: int, blocks: int) -> int:
    """Enough blocks for two on every multiprocessor, but no split below TOKENS_PER_SPLIT. Depends on shapes only."""
    wanted = -(-2 * device.multiprocessors // max(blocks, 1))
    return max(1, min(wanted, -(-tokens // TOKENS_PER_SPLIT), 256))


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


def sparse_decode(
    device: Device,
    q: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    selected: Any,
    *,
    seq_lens: Any,
    scale: float | None = None,
    sinks: Any = None,
    return_lse: bool = False,
    splits: int | None = None,
    out: Any = None,
) -> Any:
    """Attention over the selected tokens: ``o``, or ``(o, lse)``. ``splits`` is chosen from the shapes unless given."""
    query, batch, num_q_heads, head_dim = check_query(q)
    cache = check_cache(k_cache, v_cache, page_table, batch, query.element, head_dim)
    group = group_of(num_q_heads, cache)
    axes: list[tuple[str, int | None]] = [("batch", batch), ("num_kv_heads or 1", None), ("k", None)]
    chosen = expect_aligned(expect(operand("selected", selected), "i32", axes, contiguous=False), 4)
    if chosen.shape[1] not in (1, cache.num_kv_heads):
        raise ShapeError(
            "selected: one list per KV head or one for all",
            name="selected",
            expected=f"{cache.num_kv_heads} or 1",
            got=str(chosen.shape[1]),
        )
    lengths = expect(operand("seq_lens", seq_lens), "i32", [("batch", batch)])
    count = chosen.shape[2]
    splits = splits or choose_splits(device, count, batch * cache.num_kv_heads)
    part = device.empty((batch, splits, num_q_heads, head_dim), "float32")
    part_lse = device.empty((batch, splits, num_q_heads), "float32")
    batch_stride, head_stride = chosen.strides[0], chosen.strides[1] if chosen.shape[1] > 1 else 0
    if batch:
        arguments = (
            *(query, cache.keys, cache.values, cache.page_table, chosen, lengths),
            *(operand("out", part), operand("lse", part_lse), *cache.strides()),
            *(np.int64(batch_stride), np.int64(head_stride), np.int32(count), *cache.table()),
            np.float32(head_dim**-0.5 if scale is None else scale),
        )
        defines = {"ELEMENT": query.element, "HEAD_DIM": head_dim, "GROUP": group}
        device.launch(
            "sparse_decode",
            "sparse_decode",
            defines,
            (splits, cache.num_kv_heads, batch),
            decode_threads(group),
            arguments,
        )
    out = result(device, out, (batch, num_q_heads, head_dim), query.dtype, query.element)
    merged = merge_states(device, part, part_lse, sinks=sinks, out=out)
    return merged if return_lse else merged[0]


def decode(
    device: Device,
    q: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    *,
    seq_lens: Any,
    scale: float | None = None,
    sinks: Any = None,
    return_lse: bool = False,
    splits: int | None = None,
    out: Any = None,
) -> Any:
    """Attention over every token of each sequence: ``o``, or ``(o, lse)``. The grid follows the page table's width, not the lengths."""
    query, batch, num_q_heads, head_dim = check_query(q)
    cache = check_cache(k_cache, v_cache, page_table, batch, query.element, head_dim)
    group = group_of(num_q_heads, cache)
    lengths = expect(operand("seq_lens", seq_lens), "i32", [("batch", batch)])
    longest = cache.page_table.shape[1] * cache.page_size
    splits = splits or choose_splits(device, longest, batch * cache.num_kv_heads)
    part = device.empty((batch, splits, num_q_heads, head_dim), "float32")
    part_lse = device.empty((batch, splits, num_q_heads), "float32")
    if batch:
        arguments = (
            *(
                query,
                cache.keys,
                cache.values,
                cache.page_table,
                lengths,
                operand("out", part),
                operand("lse", part_lse),
            ),
            *(*cache.strides(), *cache.table(), np.float32(head_dim**-0.5 if scale is None else scale)),
        )
        defines = {"ELEMENT": query.element, "HEAD_DIM": head_dim, "GROUP": group}
        device.launch(
            "decode", "decode", defines, (splits, cache.num_kv_heads, batch), decode_threads(group), arguments
        )
    out = result(device, out, (batch, num_q_heads, head_dim), query.dtype, query.element)
    merged = merge_states(device, part, part_lse, sinks=sinks, out=out)
    return merged if return_lse else merged[0]


def decode_threads(group: int) -> int:
    """Block size of the decode kernels: four warps for each four query heads."""
    return 128 * -(-group // 4)
