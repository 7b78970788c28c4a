"""The launch of append_kv. Shapes and law: :func:`tokamask.attention.append_kv` and :mod:`tokamask.reference.append_kv`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.errors import ShapeError
from tokamask.gpu.arrays import Operand, expect, expect_aligned, operand
from tokamask.gpu.cache import Axes, Paged, check_lengths, check_paged, check_values
from tokamask.gpu.device import Argument, Device


def append_kv(
    device: Device,
    k: Any,
    v: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    *,
    seq_lens: Any,
    indptr: Any = None,
    bounds: tuple[Any, Any] | None = None,
    side: tuple[Any, Any] | None = None,
    index: tuple[Any, Any, Any] | None = None,
    interleaved: bool = False,
) -> None:
    """Writes in place; the grid follows from shapes, so that a captured graph serves every length."""
    batch = int(page_table.shape[0])
    element = operand("k_cache", k_cache).element
    cache = check_paged("k_cache", k_cache, page_table, batch, element, None)
    values, lengths = check_values(v_cache, cache.rows), check_lengths(seq_lens, batch)
    axes: Axes = [
        ("tokens", batch if indptr is None else None),
        ("num_kv_heads", cache.num_kv_heads),
        ("head_dim", cache.head_dim),
    ]
    keys = check_rows("k", k, element, axes)
    tokens = keys.shape[0]
    rows = check_rows("v", v, element, [("tokens", tokens), *axes[1:]])
    starts = None if indptr is None else expect(operand("indptr", indptr), "i32", [("batch + 1", batch + 1)])
    low, high = check_bounds(bounds, cache)
    dominant, kept, chunks = check_side(side, cache)
    index_k, index_cache, sums = check_index(index, cache, tokens)
    if not (batch and tokens):
        return
    arguments: tuple[Argument, ...] = (
        *(keys, rows, cache.rows, values, cache.page_table, lengths, starts, low, high, dominant, kept),
        *(index_k, index_cache, sums, *cache.strides(), np.int64(keys.strides[0]), np.int64(rows.strides[0])),
        *(*cache.table(), np.int32(cache.num_kv_heads), np.int32(cache.head_dim), np.int32(chunks)),
        *(np.int32(interleaved), np.int32(index_k.shape[1] if index_k else 0)),
    )
    # One token touches one page; n tokens of a sequence as many as they fill, and one more where they begin inside one.
    pages = 1 if indptr is None else min(-(-tokens // cache.page_size) + 1, cache.page_table.shape[1])
    grid = (pages, cache.num_kv_heads + (index_k is not None), batch)
    device.launch("append_kv", "append_kv", {"ELEMENT": element}, grid, 64, arguments)


def check_rows(name: str, array: Any, element: str, axes: Axes) -> Operand:
    """[tokens, num_kv_heads, head_dim]; tokens may be strided, as in the output of one projection to queries, keys and values."""
    o = expect_aligned(expect(operand(name, array), element, axes, contiguous=False))
    if o.size and o.shape[1] > 1 and o.strides[1] != o.shape[2]:
        raise ShapeError(
            f"{name}: heads must lie one after another",
            name=name,
            expected=f"stride {o.shape[2]}",
            got=str(o.strides[1]),
        )
    return o


def check_bounds(bounds: tuple[Any, Any] | None, cache: Paged) -> tuple[Operand | None, Operand | None]:
    """Quest's page bounds."""
    if bounds is None:
        return None, None
    axes: Axes = [("pages", cache.rows.shape[0]), ("num_kv_heads", cache.num_kv_heads)]
    axes.append(("head_dim", cache.head_dim))
    low, high = (expect(operand(f"bounds[{i}]", array), "f32", axes) for i, array in enumerate(bounds))
    return low, high


def check_side(side: tuple[Any, Any] | None, cache: Paged) -> tuple[Operand | None, Operand | None, int]:
    """FASA's dominant chunks and the cache of their channels."""
    if side is None:
        return None, None, 0
    heads = cache.num_kv_heads
    dominant = expect(operand("side[0]", side[0]), "i32", [("num_kv_heads", heads), ("n_chunks", None)])
    pages, page_size = cache.rows.shape[:2]
    axes: Axes = [("pages", pages), ("page_size", page_size), ("num_kv_heads", heads)]
    axes.append(("2 * n_chunks", 2 * dominant.shape[1]))
    return dominant, expect(operand("side[1]", side[1]), cache.rows.element, axes), dominant.shape[1]


def check_index(
    index: tuple[Any, Any, Any] | None, cache: Paged, tokens: int
) -> tuple[Operand | None, Operand | None, Operand | None]:
    """The indexer's new keys, its paged cache and the sums of its pages."""
    if index is None:
        return None, None, None
    element, (pages, page_size) = cache.rows.element, cache.rows.shape[:2]
    keys = expect(operand("index[0]", index[0]), element, [("tokens", tokens), ("index_dim", None)])
    dim = keys.shape[1]
    axes: Axes = [("pages", pages), ("page_size", page_size), ("index_dim", dim)]
    kept = expect(operand("index[1]", index[1]), element, axes)
    sums = expect(operand("index[2]", index[2]), "f32", [("pages", pages), ("index_dim", dim)])
    return keys, kept, sums
