"""Launches of the attention kernels. Shapes and laws: :mod:`tokamask.attention` and :mod:`tokamask.reference.attention`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.errors import ShapeError
from tokamask.gpu.append_kv import append_kv
from tokamask.gpu.arrays import FLOATS, Operand, expect, expect_aligned, operand
from tokamask.gpu.cache import (
    Axes,
    Paged,
    check_lengths,
    check_paged,
    check_query,
    check_values,
    group_of,
    result,
    scale_of,
)
from tokamask.gpu.device import Argument, Device, on_tensor_cores
from tokamask.gpu.merge_states import merge_states
from tokamask.gpu.prefill import block_sparse_prefill, selected_prefill

__all__ = [
    "append_kv",
    "block_sparse_prefill",
    "decode",
    "lightning",
    "merge_states",
    "selected_prefill",
    "sparse_decode",
    "tree_decode",
]

TOKENS_PER_SPLIT = 256  # fewer would spend more on merging than on reading


def choose_splits(device: Device, tokens: int, blocks: int) -> int:
    """Enough blocks for two on every multiprocessor, but no split below TOKENS_PER_SPLIT. Depends on shapes only."""
    wanted = -(-2 * device.multiprocessors // max(blocks, 1))
    return max(1, min(wanted, -(-tokens // TOKENS_PER_SPLIT), 256))


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
    cache = check_paged("k_cache", k_cache, page_table, batch, query.element, head_dim)
    values = check_values(v_cache, cache.rows)
    axes: Axes = [("batch", batch), ("num_kv_heads or 1", None), ("k", None)]
    chosen = expect_aligned(expect(operand("selected", selected), "i32", axes, contiguous=False), 4)
    if chosen.shape[1] not in (1, cache.num_kv_heads):
        raise ShapeError(
            "selected: one list per KV head or one for all",
            name="selected",
            expected=f"{cache.num_kv_heads} or 1",
            got=str(chosen.shape[1]),
        )
    lengths = check_lengths(seq_lens, batch)
    count = chosen.shape[2]
    splits = splits or choose_splits(device, count, batch * cache.num_kv_heads)
    part = device.empty((batch, splits, num_q_heads, head_dim), "float32")
    part_lse = device.empty((batch, splits, num_q_heads), "float32")
    batch_stride, head_stride = chosen.strides[0], chosen.strides[1] if chosen.shape[1] > 1 else 0
    if batch:
        arguments = (
            *(query, cache.rows, values, cache.page_table, chosen, lengths),
            *(operand("out", part), operand("lse", part_lse), *cache.strides()),
            *(np.int64(batch_stride), np.int64(head_stride), np.int32(count), *cache.table()),
            scale_of(query, scale),
        )
        launch_decode(device, "sparse_decode", query, cache, splits, arguments)
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
    cache = check_paged("k_cache", k_cache, page_table, batch, query.element, head_dim)
    values = check_values(v_cache, cache.rows)
    lengths = check_lengths(seq_lens, batch)
    splits = splits or choose_splits(device, cache.max_tokens, batch * cache.num_kv_heads)
    part = device.empty((batch, splits, num_q_heads, head_dim), "float32")
    part_lse = device.empty((batch, splits, num_q_heads), "float32")
    if batch:
        arguments = (
            *(
                query,
                cache.rows,
                values,
                cache.page_table,
                lengths,
                operand("out", part),
                operand("lse", part_lse),
            ),
            *(*cache.strides(), *cache.table(), scale_of(query, scale)),
        )
        launch_decode(device, "decode", query, cache, splits, arguments)
    out = result(device, out, (batch, num_q_heads, head_dim), query.dtype, query.element)
    merged = merge_states(device, part, part_lse, sinks=sinks, out=out)
    return merged if return_lse else merged[0]


def launch_decode(
    device: Device, name: str, query: Operand, cache: Paged, splits: int, arguments: tuple[Argument, ...]
) -> None:
    """One of the decode kernels, on tensor cores where there are enough query heads to a KV head."""
    batch, num_q_heads, head_dim = query.shape
    group = group_of(num_q_heads, cache.num_kv_heads)
    threads = decode_threads(group)
    if on_tensor_cores(device, query.element, head_dim, group):
        name, threads = f"{name}_mma", 128
    defines = {"ELEMENT": query.element, "HEAD_DIM": head_dim, "GROUP": group}
    device.launch(name, name, defines, (splits, cache.num_kv_heads, batch), threads, arguments)


def decode_threads(group: int) -> int:
    """Block size of the plain decode kernels: four warps for each four query heads."""
    return 128 * -(-group // 4)


def tree_decode(
    device: Device,
    q: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    tree_mask: Any,
    k_tree: Any,
    v_tree: Any,
    *,
    seq_lens: Any,
    scale: float | None = None,
    return_lse: bool = False,
    splits: int | None = None,
    out: Any = None,
) -> Any:
    """Attention of draft nodes over the prefix and their ancestors: ``o`` [batch, nodes, num_q_heads, head_dim], or ``(o, lse)``."""
    axes: Axes = [
        ("batch", None),
        ("nodes", None),
        ("num_q_heads", None),
        ("head_dim", None),
    ]
    query = expect_aligned(expect(operand("q", q), FLOATS, axes))
    batch, nodes, num_q_heads, head_dim = query.shape
    cache = check_paged("k_cache", k_cache, page_table, batch, query.element, head_dim)
    values = check_values(v_cache, cache.rows)
    group = group_of(num_q_heads, cache.num_kv_heads)
    lengths = check_lengths(seq_lens, batch)
    own: Axes = [
        ("batch", batch),
        ("nodes", nodes),
        ("num_kv_heads", cache.num_kv_heads),
        ("head_dim", head_dim),
    ]
    tree_keys = expect_aligned(expect(operand("k_tree", k_tree), query.element, own))
    tree_values = expect_aligned(expect(operand("v_tree", v_tree), query.element, own))
    words = -(-nodes // 64)
    if len(tree_mask.shape) == 2:
        tree_mask = tree_mask[None]
    mask = expect(
        operand("tree_mask", tree_mask),
        ("u64", "i64"),
        [("batch or 1", None), ("nodes", nodes), ("words", words)],
    )
    if mask.shape[0] not in (1, batch):
        raise ShapeError(
            "tree_mask: one mask per sequence or one for all",
            name="tree_mask",
            expected=f"{batch} or 1",
            got=str(mask.shape[0]),
        )
    tensor = on_tensor_cores(device, query.element, head_dim, nodes * group)
    blocks = batch * (-(-nodes * group // 64) if tensor else nodes) * cache.num_kv_heads
    splits = 1 + (splits or choose_splits(device, cache.max_tokens, blocks))
    part = device.empty((batch * nodes, splits, num_q_heads, head_dim), "float32")
    part_lse = device.empty((batch * nodes, splits, num_q_heads), "float32")
    if batch * nodes:
        arguments = (
            *(query, cache.rows, values, cache.page_table, lengths, mask, tree_keys, tree_values),
            *(operand("out", part), operand("lse", part_lse), *cache.strides()),
            *(np.int64(nodes * words if mask.shape[0] > 1 else 0), *cache.table(), np.int32(nodes)),
            scale_of(query, scale),
        )
        defines = {"ELEMENT": query.element, "HEAD_DIM": head_dim, "GROUP": group}
        name, tiles, threads = "tree_decode", nodes, decode_threads(group)
        if tensor:
            name, tiles, threads = "tree_decode_mma", -(-nodes * group // 64), 128
        device.launch(name, name, defines, (batch * tiles, cache.num_kv_heads, splits), threads, arguments)
    out = result(device, out, (batch, nodes, num_q_heads, head_dim), query.dtype, query.element)
    o, lse = merge_states(device, part, part_lse, out=out.reshape(batch * nodes, num_q_heads, head_dim))
    o, lse = o.reshape(batch, nodes, num_q_heads, head_dim), lse.reshape(batch, nodes, num_q_heads)
    return (o, lse) if return_lse else o


def lightning(
    device: Device, q: Any, k: Any, v: Any, decay: Any, *, state: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """As :func:`tokamask.attention.lightning`; keys of 32, 64 or 128 dimensions."""
    axes: Axes = [("batch", None), ("heads", None), ("tokens", None), ("dk", None)]
    query = expect(operand("q", q), FLOATS, axes)
    batch, heads, tokens, dk = query.shape
    keys = expect(
        operand("k", k),
        query.element,
        list(zip(("batch", "heads", "tokens", "dk"), query.shape, strict=True)),
    )
    values = expect(
        operand("v", v), query.element, [("batch", batch), ("heads", heads), ("tokens", tokens), ("dv", None)]
    )
    dv = values.shape[3]
    slopes = expect(operand("decay", decay), "f32", [("heads", heads)])
    if state is None:
        state = device.empty((batch, heads, dk, dv), "float32")
        state[...] = 0
    carried = expect(
        operand("state", state), "f32", [("batch", batch), ("heads", heads), ("dk", dk), ("dv", dv)]
    )
    out = result(device, out, (batch, heads, tokens, dv), query.dtype, query.element)
    if batch * heads and dv:
        arguments = (
            query,
            keys,
            values,
            slopes,
            carried,
            operand("out", out),
            np.int32(tokens),
            np.int32(dv),
            np.int32(heads),
        )
        defines = {"ELEMENT": query.element, "KEY_DIM": dk}
        device.launch("lightning", "lightning", defines, (batch * heads, -(-dv // 32)), 128, arguments)
    return out, state
