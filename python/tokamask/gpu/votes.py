"""Launches of the selectors that rank cached tokens or pages: TokenSelect, FASA, Quest."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.errors import ShapeError
from tokamask.gpu.arrays import Operand, expect, expect_aligned, operand
from tokamask.gpu.cache import check_lengths, check_paged, check_query, group_of, result
from tokamask.gpu.device import Device
from tokamask.gpu.top_k import top_k

TILE = 128  # tokens of one block of token_scores


def soft_votes(
    device: Device,
    query: Operand,
    keys: Any,
    page_table: Any,
    *,
    seq_lens: Any,
    lists: int | None,
    skip: tuple[int, int],
    scale: float,
    pool: int,
    out: Any = None,
) -> Any:
    """Votes float32 [batch, lists, max_tokens]: the softmax of each query head, summed over the heads of a list."""
    batch, num_q_heads, dim = query.shape
    cache = check_paged("k_cache", keys, page_table, batch, query.element, dim)
    group = group_of(num_q_heads, cache.num_kv_heads)
    lengths = check_lengths(seq_lens, batch)
    lists, tokens = lists or cache.num_kv_heads, cache.max_tokens
    tiles = -(-tokens // TILE)
    scores = device.empty((batch, num_q_heads, tokens), "float32")
    maxima, sums = (device.empty((batch, num_q_heads, tiles), "float32") for _ in range(2))
    votes = result(device, out, (batch, lists, tokens), "float32", "f32")
    if batch and tokens:
        s, m, n, v = (
            operand(name, x)
            for name, x in (("scores", scores), ("maxima", maxima), ("sums", sums), ("votes", votes))
        )
        arguments = (
            *(query, cache.rows, cache.page_table, lengths, s, m, n, *cache.strides(), *cache.table()),
            *(np.int32(tokens), np.int32(skip[0]), np.int32(skip[1]), np.float32(scale)),
        )
        defines = {"ELEMENT": query.element, "HEAD_DIM": dim, "GROUP": group}
        device.launch(
            "token_scores", "token_scores", defines, (tiles, cache.num_kv_heads, batch), 128, arguments
        )
        device.launch(
            "soft_vote", "soft_vote_statistics", {}, (batch * num_q_heads,), 128, (m, n, np.int32(tiles))
        )
        sizes = (np.int32(num_q_heads), np.int32(tokens), np.int32(tiles), np.int32(pool))
        device.launch(
            "soft_vote", "soft_vote", {}, (-(-tokens // 256), lists, batch), 256, (s, m, n, v, *sizes)
        )
    return votes


def token_select(
    device: Device,
    q: Any,
    k_cache: Any,
    page_table: Any,
    *,
    seq_lens: Any,
    k: int,
    n_init: int = 128,
    n_local: int = 512,
    scale: float | None = None,
    pool: int = 1,
    out: Any = None,
) -> Any:
    """As :func:`tokamask.selection.token_select`. With ``pool`` (odd, up to 65) a token counts as the best vote within a window of
    this many round it, as the authors' code can do.
    """
    if min(k, n_init, n_local) < 0 or pool % 2 == 0 or not 0 < pool <= 65:
        got = f"k={k}, n_init={n_init}, n_local={n_local}, pool={pool}"
        raise ShapeError(
            f"token_select: counts at least 0 and an odd pool up to 65, got {got}",
            name="k",
            expected="see above",
            got=got,
        )
    query = check_query(q)[0]
    scale = query.shape[2] ** -0.5 if scale is None else scale
    votes = soft_votes(
        device,
        query,
        k_cache,
        page_table,
        seq_lens=seq_lens,
        lists=1,
        skip=(n_init, n_local),
        scale=scale,
        pool=pool,
    )
    batch, _, tokens = votes.shape
    width = n_init + k + n_local
    selected = top_k(device, votes.reshape(batch, tokens), k, lengths=seq_lens)
    out = result(device, out, (batch, 1, width), "int32", "i32")
    if batch and width:
        sizes = (np.int32(1), np.int32(n_init), np.int32(k), np.int32(n_local))
        lengths = check_lengths(seq_lens, batch)
        arguments = (operand("selected", selected), lengths, operand("out", out), *sizes)
        device.launch("join_selection", "join_selection", {}, (batch,), 128, arguments)
    return out


def fasa_query(
    device: Device, query: Operand, dominant: Any, num_kv_heads: int, width: int, interleaved: bool
) -> Operand:
    """The query of the first stage: gathered where ``width`` is that of a side cache, else masked."""
    batch, num_q_heads, head_dim = query.shape
    chunks = expect(
        operand("dominant", dominant), "i32", [("num_kv_heads", num_kv_heads), ("n_chunks", None)]
    )
    n_chunks, entry = chunks.shape[1], "fasa_query_mask" if width == head_dim else "fasa_query_gather"
    if width not in (head_dim, 2 * n_chunks):
        expected = f"a side cache of {2 * n_chunks} channels, or the whole cache"
        raise ShapeError(
            f"k_cache: expected {expected}, got {width} channels",
            name="k_cache",
            expected=expected,
            got=str(width),
        )
    made = operand("query", device.empty((batch, num_q_heads, width), query.dtype))
    if query.size:
        group = np.int32(group_of(num_q_heads, num_kv_heads))
        sizes = (np.int32(head_dim), np.int32(n_chunks), group, np.int32(num_kv_heads), np.int32(interleaved))
        device.launch(
            "fasa_query",
            entry,
            {"ELEMENT": query.element},
            (batch * num_q_heads,),
            128,
            (query, chunks, made, *sizes),
        )
    return made


def fasa_scores(
    device: Device,
    q: Any,
    k_cache: Any,
    page_table: Any,
    dominant: Any,
    *,
    seq_lens: Any,
    interleaved: bool = False,
    out: Any = None,
) -> Any:
    """As :func:`tokamask.selection.fasa_scores`. ``k_cache`` may be a side cache of the dominant channels alone, 2 * n_chunks = 16, 32,
    64, 128 or 256 of them, the first of each pair before the second: then only those bytes are read. Against the whole cache
    the other channels are read and multiplied by 0.
    """
    width, num_kv_heads = int(k_cache.shape[-1]), int(k_cache.shape[-2])
    query = fasa_query(device, check_query(q)[0], dominant, num_kv_heads, width, interleaved)
    return soft_votes(
        device,
        query,
        k_cache,
        page_table,
        seq_lens=seq_lens,
        lists=None,
        skip=(0, 0),
        scale=1.0,
        pool=1,
        out=out,
    )


def quest_bounds(
    device: Device, k_cache: Any, page_table: Any, *, seq_lens: Any, out: tuple[Any, Any] | None = None
) -> tuple[Any, Any]:
    """As :func:`tokamask.selection.quest_bounds`. Pages without tokens are left as they are in ``out``, 0 in new arrays."""
    o = operand("k_cache", k_cache)
    batch = int(page_table.shape[0])
    cache = check_paged("k_cache", k_cache, page_table, batch, o.element, None)
    lengths = check_lengths(seq_lens, batch)
    shape = (cache.rows.shape[0], cache.num_kv_heads, cache.head_dim)
    low, high = (result(device, out and out[i], shape, "float32", "f32") for i in (0, 1))
    if out is None:
        low[...] = 0
        high[...] = 0
    if batch and cache.max_tokens:
        results = (operand("low", low), operand("high", high))
        arguments = (cache.rows, cache.page_table, lengths, *results, *cache.strides(), *cache.table())
        defines = {"ELEMENT": o.element, "HEAD_DIM": cache.head_dim, "GROUP": 1}
        grid = (cache.page_table.shape[1], cache.num_kv_heads, batch)
        device.launch("quest", "quest_bounds", defines, grid, 64, arguments)
    return low, high


def quest_scores(
    device: Device,
    q: Any,
    low: Any,
    high: Any,
    page_table: Any,
    *,
    seq_lens: Any,
    page_size: int,
    out: Any = None,
) -> Any:
    """As :func:`tokamask.selection.quest_scores`."""
    query, batch, num_q_heads, head_dim = check_query(q)
    least = expect_aligned(
        expect(operand("low", low), "f32", [("pages", None), ("num_kv_heads", None), ("head_dim", head_dim)])
    )
    axes = list(zip(("pages", "num_kv_heads", "head_dim"), least.shape, strict=True))
    greatest = expect_aligned(expect(operand("high", high), "f32", axes))
    table = expect(operand("page_table", page_table), "i32", [("batch", batch), ("max_pages", None)])
    lengths = check_lengths(seq_lens, batch)
    num_kv_heads, max_pages = least.shape[1], table.shape[1]
    out = result(device, out, (batch, num_kv_heads, max_pages), "float32", "f32")
    if batch and max_pages:
        arguments = (
            query,
            least,
            greatest,
            table,
            lengths,
            operand("out", out),
            np.int32(page_size),
            np.int32(max_pages),
        )
        per_block = 4 * (32 // min(32, head_dim // 4))
        grid = (-(-max_pages // per_block), num_kv_heads, batch)
        defines = {
            "ELEMENT": query.element,
            "HEAD_DIM": head_dim,
            "GROUP": group_of(num_q_heads, num_kv_heads),
        }
        device.launch("quest", "quest_scores", defines, grid, 128, arguments)
    return out


def page_tokens(device: Device, selected_pages: Any, page_size: int, *, seq_lens: Any) -> Any:
    """As :func:`tokamask.selection.page_tokens`."""
    pages = expect(
        operand("selected_pages", selected_pages), "i32", [("batch", None), ("heads", None), ("p", None)]
    )
    batch, heads, count = pages.shape
    lengths = check_lengths(seq_lens, batch)
    out = device.empty((batch, heads, count * page_size), "int32")
    if pages.size and page_size:
        arguments = (
            pages,
            lengths,
            operand("out", out),
            np.int32(count),
            np.int32(page_size),
            np.int32(heads),
        )
        variant = {"ELEMENT": "f32", "HEAD_DIM": 64, "GROUP": 1}  # any: the entry depends on none
        device.launch("quest", "quest_page_tokens", variant, (batch * heads, count), 64, arguments)
    return out
