"""Launches of the lightning indexer and of HISA."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.errors import ShapeError
from tokamask.gpu.arrays import FLOATS, Operand, expect, expect_aligned, operand
from tokamask.gpu.cache import Axes, result
from tokamask.gpu.device import Argument, Device
from tokamask.gpu.top_k import top_k


def launch_indexer(
    device: Device,
    q: Operand,
    w: Operand,
    keys: Operand,
    positions: Operand,
    *,
    page_table: Operand | None = None,
    candidates: Operand | None = None,
    count: int,
    unit: int = 1,
    out: Any = None,
) -> Any:
    """Scores float32 [rows, count], on tensor cores where card and type have them. Keys are [tokens, dim], or with a table
    [pages, page_size, dim].
    """
    rows, heads, dim = q.shape
    scores = result(device, out, (rows, count), "float32", "f32")
    if not (rows and count):
        return scores
    page_stride, token_stride = keys.strides[:2] if page_table is not None else (0, keys.strides[0])
    page_size = keys.shape[1] if page_table is not None else 1
    row_stride = page_table.shape[1] if page_table is not None and page_table.shape[0] > 1 else 0
    arguments = (
        *(q, w, keys, page_table, positions, candidates, operand("scores", scores)),
        *(np.int64(page_stride), np.int64(token_stride), np.int64(row_stride)),
        *(np.int32(page_size), np.int32(count), np.int32(unit)),
    )
    defines: dict[str, object] = {"ELEMENT": q.element, "HEAD_DIM": dim, "HEADS": heads}
    if device.arch >= 80 and q.element != "f32" and keys.element == q.element:
        name, tile = "indexer_scores_mma", 256
    else:
        name, tile = "indexer_scores", 32
        defines = {"ELEMENT": q.element, "KEY": keys.element, "HEAD_DIM": dim, "HEADS": heads}
    device.launch(name, name, defines, (rows, -(-count // tile)), 128, arguments)
    return scores


def check_indexer(
    q: Any, k: Any, w: Any, positions: Any, paged: bool
) -> tuple[Operand, Operand, Operand, Operand]:
    """The arguments that both indexers take: queries, keys, weights, positions."""
    query = expect_aligned(expect(operand("q", q), FLOATS, [("queries", None), ("heads", None), ("d", None)]))
    rows, heads, dim = query.shape
    axes: Axes = (
        [("pages", None), ("page_size", None), ("d", dim)] if paged else [("tokens", None), ("d", dim)]
    )
    keys = expect_aligned(expect(operand("k", k), query.element, axes, contiguous=False))
    weights = expect(operand("w", w), "f32", [("queries", rows), ("heads", heads)])
    return query, keys, weights, expect(operand("positions", positions), "i32", [("queries", rows)])


def check_table(page_table: Any, rows: int) -> Operand | None:
    """int32 [queries or 1, max_pages], where there is one."""
    if page_table is None:
        return None
    table = expect(operand("page_table", page_table), "i32", [("queries or 1", None), ("max_pages", None)])
    if table.shape[0] not in (1, rows):
        expected, got = f"{rows} rows or 1", str(table.shape[0])
        raise ShapeError(
            f"page_table: expected {expected}, got {got}", name="page_table", expected=expected, got=got
        )
    return table


def indexer_scores(
    device: Device,
    q: Any,
    k: Any,
    w: Any,
    *,
    positions: Any,
    page_table: Any = None,
    candidates: Any = None,
    out: Any = None,
) -> Any:
    """As :func:`tokamask.selection.indexer_scores`; 8, 16, 32 or 64 heads of 64 or 128.

    With ``page_table`` int32 [queries or 1, max_pages], ``k`` is [pages, page_size, d]. With ``candidates`` int32 [queries, count] only those
    keys are scored, -inf where the query does not see them.
    """
    query, keys, weights, at = check_indexer(q, k, w, positions, page_table is not None)
    rows = query.shape[0]
    table, chosen = check_table(page_table, rows), None
    count = keys.shape[0] if table is None else table.shape[1] * keys.shape[1]
    if candidates is not None:
        chosen = expect(operand("candidates", candidates), "i32", [("queries", rows), ("count", None)])
        count = chosen.shape[1]
    return launch_indexer(
        device, query, weights, keys, at, page_table=table, candidates=chosen, count=count, out=out
    )


def hisa_select(
    device: Device,
    q: Any,
    k: Any,
    w: Any,
    n_tokens: int,
    *,
    positions: Any,
    n_blocks: int,
    block: int = 128,
    page_table: Any = None,
    page_sums: Any = None,
    out: Any = None,
) -> Any:
    """As :func:`tokamask.selection.hisa_select`: pool, score blocks, choose them, score their tokens, choose those.

    With a page table the blocks are pages and their sums stand for their means: what is not full is looked into anyway.
    """
    query, keys, weights, at = check_indexer(q, k, w, positions, paged=page_table is not None)
    rows, _, dim = query.shape
    table = check_table(page_table, rows)
    if (page_table is None) != (page_sums is None) or (table is not None and block != keys.shape[1]):
        expected = "page_table and page_sums together, and blocks of a page"
        got = f"block {block}, k {list(keys.shape)}"
        raise ShapeError(
            f"page_sums: expected {expected}, got {got}", name="page_sums", expected=expected, got=got
        )
    if n_tokens < 0 or n_blocks < 2 or block < 1:
        got = f"n_tokens={n_tokens}, n_blocks={n_blocks}, block={block}"
        raise ShapeError(
            f"n_blocks: at least 2, of at least 1 key, got {got}",
            name="n_blocks",
            expected="2 or more",
            got=got,
        )
    out = result(device, out, (rows, n_tokens), "int32", "i32")
    if not (rows and n_tokens):
        return out
    variant = {"ELEMENT": query.element, "HEAD_DIM": dim}
    tokens = keys.shape[0] if table is None else table.shape[1] * block
    blocks = -(-tokens // block)
    if table is None:
        pooled = operand("pooled", device.empty((blocks, dim), "float32"))
        arguments: tuple[Argument, ...] = (
            keys,
            pooled,
            np.int64(keys.strides[0]),
            np.int32(tokens),
            np.int32(block),
        )
        if blocks:
            device.launch("hisa", "hisa_pool", variant, (blocks,), 128, arguments)
    else:
        expect(operand("page_sums", page_sums), "f32", [("pages", keys.shape[0]), ("d", dim)])
        pooled = expect_aligned(operand("page_sums", page_sums.reshape(-1, 1, dim)))
    ranks = launch_indexer(device, query, weights, pooled, at, page_table=table, count=blocks, unit=block)
    if blocks:
        arguments = (operand("ranks", ranks), at, np.int32(blocks), np.int32(block))
        device.launch("hisa", "hisa_force", variant, (rows,), 32, arguments)
    best = operand("best", top_k(device, ranks, n_blocks))
    candidates = operand("candidates", device.empty((rows, n_blocks * block), "int32"))
    sizes = (np.int32(n_blocks), np.int32(block), np.int32(tokens))
    device.launch("hisa", "hisa_expand", variant, (rows, n_blocks), 128, (best, at, candidates, *sizes))
    count = n_blocks * block
    scores = launch_indexer(
        device, query, weights, keys, at, page_table=table, candidates=candidates, count=count
    )
    found = operand("found", top_k(device, scores, n_tokens))
    results = (operand("scores", scores), operand("out", out))
    device.launch(
        "take", "take", {}, (rows,), 128, (found, candidates, *results, np.int32(n_tokens), np.int32(count))
    )
    return out
