"""Launches of attention and its column sums for the queries of a prompt. Shapes and laws: :mod:`tokamask.attention`, :mod:`tokamask.selection`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.errors import ShapeError
from tokamask.gpu.arrays import FLOATS, Operand, expect, expect_aligned, operand
from tokamask.gpu.cache import Axes, check_values, group_of, result, scale_of
from tokamask.gpu.device import Argument, Device, on_tensor_cores
from tokamask.gpu.merge_states import merge_states
from tokamask.gpu.top_k import top_k


def check_prefill(q: Any, k: Any) -> tuple[Operand, Operand, int]:
    """Queries and keys of one sequence, and the query heads of a KV head."""
    axes: Axes = [("queries", None), ("num_q_heads", None), ("head_dim", None)]
    query = expect_aligned(expect(operand("q", q), FLOATS, axes))
    axes = [("tokens", None), ("num_kv_heads", None), ("head_dim", query.shape[2])]
    keys = expect_aligned(expect(operand("k", k), query.element, axes, contiguous=False))
    return query, keys, group_of(query.shape[1], keys.shape[1])


def integers(*values: int) -> tuple[np.int32, ...]:
    """Sizes as a kernel takes them."""
    return tuple(np.int32(value) for value in values)


def block_sparse_prefill(
    device: Device,
    q: Any,
    k: Any,
    v: Any,
    indptr: Any,
    indices: Any,
    *,
    block: tuple[int, int] = (64, 64),
    causal: bool = True,
    scale: float | None = None,
    return_lse: bool = False,
    out: Any = None,
) -> Any:
    """As :func:`tokamask.attention.block_sparse_prefill`; values are as wide as keys."""
    query, keys, group = check_prefill(q, k)
    values = check_values(v, keys)
    queries, heads, dim = query.shape
    rows, columns = block
    if rows < 1 or columns < 1 or (causal and queries > keys.shape[0]):
        got = f"block {block}, {queries} queries of {keys.shape[0]} tokens"
        raise ShapeError(
            f"block: expected 1 or more, no more causal queries than tokens, got {got}",
            name="block",
            expected="1 or more",
            got=got,
        )
    places = -(-queries // rows) + 1
    lists = expect(
        operand("indptr", indptr if len(indptr.shape) == 2 else indptr[None]),
        "i32",
        [("num_kv_heads or 1", None), ("query_blocks + 1", places)],
    )
    if lists.shape[0] not in (1, keys.shape[1]):
        expected = f"{keys.shape[1]} or 1"
        raise ShapeError(
            f"indptr: expected {expected} lists", name="indptr", expected=expected, got=str(lists.shape[0])
        )
    named = expect(operand("indices", indices), "i32", [("blocks", None)])
    out = result(device, out, (queries, heads, dim), query.dtype, query.element)
    lse = device.empty((queries, heads), "float32")
    if not queries * heads:
        return (out, lse) if return_lse else out
    strides = (np.int64(keys.strides[0]), np.int64(keys.strides[1]))
    list_stride = np.int64(places if lists.shape[0] > 1 else 0)
    counts = (*integers(keys.shape[0], group, rows, columns, causal), scale_of(query, scale))
    arguments: tuple[Argument, ...]
    variant = {"ELEMENT": query.element, "HEAD_DIM": dim}
    given = (query, keys, values, lists, named)
    if on_tensor_cores(device, query.element, dim, queries):
        results = (operand("out", out), operand("lse", lse))
        arguments = (
            *given,
            *results,
            *strides,
            list_stride,
            np.int32(queries),
            *counts,
        )
        grid = ((places - 1) * -(-rows // 64), heads)
        device.launch("prefill_mma", "prefill_mma_blocks", variant, grid, 128, arguments)
    else:
        part = device.empty((queries, 1, heads, dim), "float32")
        part_lse = device.empty((queries, 1, heads), "float32")
        arguments = (*given, operand("out", part), operand("lse", part_lse), *strides, list_stride, *counts)
        device.launch("prefill", "prefill_blocks", variant, (queries, heads), 128, arguments)
        merge_states(device, part, part_lse, out=out, lse_out=lse)
    return (out, lse) if return_lse else out


def selected_prefill(
    device: Device,
    q: Any,
    k: Any,
    v: Any,
    selected: Any,
    *,
    scale: float | None = None,
    return_lse: bool = False,
    out: Any = None,
) -> Any:
    """As :func:`tokamask.attention.selected_prefill`; values are as wide as keys."""
    query, keys, group = check_prefill(q, k)
    values = check_values(v, keys)
    tokens, heads, dim = query.shape
    if keys.shape[0] != tokens:
        raise ShapeError(
            f"q: expected tokens={keys.shape[0]} queries, got {tokens}",
            name="q",
            expected=str(keys.shape[0]),
            got=str(tokens),
        )
    chosen = expect(operand("selected", selected), "i32", [("num_q_heads", heads), ("c", None)])
    count = chosen.shape[1]
    out = result(device, out, (tokens, heads, dim), query.dtype, query.element)
    lse = device.empty((tokens, heads), "float32")
    if not tokens * heads:
        return (out, lse) if return_lse else out
    arguments: tuple[Argument, ...]
    variant = {"ELEMENT": query.element, "HEAD_DIM": dim}
    strides = (np.int64(keys.strides[0]), np.int64(keys.strides[1]))
    if on_tensor_cores(device, query.element, dim, count):
        out[...] = 0
        lse[...] = -float("inf")
        results = (operand("out", out), operand("lse", lse))
        sizes = integers(tokens, count, group)
        arguments = (query, keys, values, chosen, *results, *strides, *sizes, scale_of(query, scale))
        device.launch(
            "prefill_mma", "prefill_mma_selected", variant, (-(-count // 64), heads), 128, arguments
        )
    else:
        part = device.empty((tokens, 1, heads, dim), "float32")
        part_lse = device.empty((tokens, 1, heads), "float32")
        part_lse[...] = -float("inf")  # what is not selected is an empty part, whose values are not looked at
        if count:
            results = (operand("out", part), operand("lse", part_lse))
            sizes = integers(tokens, group)
            arguments = (query, keys, values, chosen, *results, *strides, *sizes, scale_of(query, scale))
            device.launch("prefill", "prefill_selected", variant, (count, heads), 128, arguments)
        merge_states(device, part, part_lse, out=out, lse_out=lse)
    return (out, lse) if return_lse else out


def attention_column_sums(
    device: Device, q: Any, k: Any, *, scale: float | None = None, out: Any = None
) -> Any:
    """As :func:`tokamask.selection.attention_column_sums`."""
    query, keys, group = check_prefill(q, k)
    (queries, heads, dim), tokens = query.shape, keys.shape[0]
    if queries > tokens:
        raise ShapeError(
            f"q: expected at most tokens={tokens} queries, got {queries}",
            name="q",
            expected=str(tokens),
            got=str(queries),
        )
    out = result(device, out, (heads, tokens), "float32", "f32")
    if not heads * tokens:
        return out
    if not queries:
        out[...] = 0
        return out
    tiles = -(-tokens // 32)
    maxima, sums = (operand(n, device.empty((heads * queries, tiles), "float32")) for n in ("maxima", "sums"))
    arguments: tuple[Argument, ...]
    variant = {"ELEMENT": query.element, "HEAD_DIM": dim}
    strides = (np.int64(keys.strides[0]), np.int64(keys.strides[1]))
    sizes = (*integers(queries, tokens, group), scale_of(query, scale))
    arguments = (query, keys, maxima, sums, *strides, *sizes)
    device.launch("column_sums", "column_sums_statistics", variant, (tiles, heads), 128, arguments)
    device.launch(
        "soft_vote", "soft_vote_statistics", {}, (heads * queries,), 128, (maxima, sums, np.int32(tiles))
    )
    arguments = (query, keys, maxima, sums, operand("out", out), *strides, *sizes)
    device.launch("column_sums", "column_sums", variant, (tiles, heads), 128, arguments)
    return out


def check_window(window: int, tokens: int, kernel: int) -> None:
    """The last queries of a prompt, and how many neighbours are pooled."""
    if not 0 < window <= tokens or kernel < 1 or kernel % 2 == 0:
        got = f"{window} queries of {tokens} tokens, kernel {kernel}"
        raise ShapeError(
            f"q: expected 1 to tokens={tokens} queries and an odd kernel, got {got}",
            name="q",
            expected=f"1 to {tokens} queries",
            got=got,
        )


def snapkv_scores(
    device: Device, q: Any, k: Any, *, kernel: int = 5, scale: float | None = None, out: Any = None
) -> Any:
    """As :func:`tokamask.selection.snapkv_scores`."""
    return window_scores(device, q, k, kernel, scale, False, out)


def tova_scores(device: Device, q: Any, k: Any, *, scale: float | None = None, out: Any = None) -> Any:
    """As :func:`tokamask.selection.tova_scores`."""
    return window_scores(device, q, k, 1, scale, True, out)


def window_scores(
    device: Device, q: Any, k: Any, kernel: int, scale: float | None, one_list: bool, out: Any
) -> Any:
    """Column sums, then their means over neighbours and heads."""
    query, keys, group = check_prefill(q, k)
    (window, num_q_heads, _), (tokens, num_kv_heads, _) = query.shape, keys.shape
    check_window(window, tokens, kernel)
    sums = operand("sums", attention_column_sums(device, q, k, scale=scale))
    out = result(device, out, (num_kv_heads, tokens), "float32", "f32")
    scores, greatest = operand("out", out), operand("greatest", device.empty((num_kv_heads,), "float32"))
    heads = (num_q_heads, 0) if one_list else (group, group)
    arguments: tuple[Argument, ...] = (sums, scores, greatest, *integers(tokens, window, *heads, kernel))
    device.launch("window_scores", "window_scores", {}, (num_kv_heads,), 512, arguments)
    ends: tuple[Argument, ...] = (scores, greatest, *integers(tokens, window))
    device.launch("window_scores", "window_scores_fill", {}, (num_kv_heads,), 128, ends)
    return out


def token_sparse_select(
    device: Device,
    q: Any,
    k: Any,
    *,
    coverage: float,
    min_tokens: int = 256,
    kernel: int = 5,
    scale: float | None = None,
    out: Any = None,
) -> Any:
    """As :func:`tokamask.selection.token_sparse_select`, int32 [num_q_heads, tokens]: how many are kept stays on the device, the rest is -1."""
    query, keys, _ = check_prefill(q, k)
    (window, heads, _), tokens = query.shape, keys.shape[0]
    check_window(window, tokens, kernel)
    if min_tokens < 0:
        raise ShapeError(
            f"min_tokens: expected 0 or more, got {min_tokens}",
            name="min_tokens",
            expected="0 or more",
            got=str(min_tokens),
        )
    before = tokens - window
    sums = operand("sums", attention_column_sums(device, q, k, scale=scale))
    shares = device.empty((heads, tokens), "float32")
    counts = device.empty((heads,), "int32")
    rows, mean = operand("rows", shares), operand("mean", device.empty((max(before, 1),), "float32"))
    steps: list[tuple[str, tuple[int, ...], int, tuple[Argument, ...]]] = [
        ("rows", (heads,), 512, (sums, rows, *integers(tokens, window, kernel))),
        ("mean", (-(-before // 256),), 256, (rows, mean, *integers(tokens, before, heads))),
        (
            *("count", (1,), 512),
            (
                mean,
                operand("counts", counts),
                *integers(before, window, heads, min_tokens),
                np.float32(coverage),
            ),
        ),
    ]
    for step, grid, threads, arguments in steps:
        if grid[0]:
            device.launch("token_sparse", f"token_sparse_{step}", {}, grid, threads, arguments)
    return top_k(device, shares, tokens, counts=counts, out=out)
