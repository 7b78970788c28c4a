"""Launches of the selection kernels. Shapes and laws: :mod:`tokamask.selection` and :mod:`tokamask.reference.selection`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.errors import ShapeError
from tokamask.gpu.arrays import FLOATS, Operand, expect, expect_aligned, operand
from tokamask.gpu.cache import Axes, check_lengths, check_paged, check_query, group_of, result
from tokamask.gpu.device import Device


def top_k(device: Device, scores: Any, k: int, *, lengths: Any = None, out: Any = None) -> Any:
    """Indices of the ``k`` greatest scores of each row, ascending, -1 padded.

    Parameters
    ----------
    device : Device
        Where the arrays live.
    scores : float32, float16 or bfloat16 [rows, n]
        Rows may be strided; NaN ranks below -inf.
    k : int
        At least 0.
    lengths : int32 [rows], optional
        Read on the device; clipped to [0, n].
    out : int32 [rows, k], optional
        Where to write.

    """
    s = expect(operand("scores", scores), FLOATS, [("rows", None), ("n", None)], contiguous=False)
    rows, n = s.shape
    if k < 0:
        raise ShapeError(f"k: expected at least 0, got {k}", name="k", expected="at least 0", got=str(k))
    if s.size and n > 1 and s.strides[1] != 1:
        raise ShapeError(
            "scores: rows must be contiguous",
            name="scores",
            expected="contiguous rows",
            got=f"strides {s.strides}",
        )
    counts = None if lengths is None else expect(operand("lengths", lengths), "i32", [("rows", rows)])
    out = result(device, out, (rows, k), "int32", "i32")
    if rows and k:
        arguments = (s, counts, operand("out", out), np.int64(s.strides[0]), np.int32(n), np.int32(k))
        device.launch("top_k", "top_k", {"ELEMENT": s.element}, (rows,), 512, arguments)
    return out


TILE = 128  # tokens of one block of token_scores


def soft_votes(
    device: Device,
    q: Any,
    keys: Any,
    page_table: Any,
    *,
    seq_lens: Any,
    dims: Any,
    lists: int | None,
    skip: tuple[int, int],
    scale: float,
    pool: int,
) -> Any:
    """Votes float32 [batch, lists, max_tokens]: the softmax of each query head, summed over the heads of a list."""
    query, batch, num_q_heads, q_dim = check_query(q)
    cache = check_paged(
        "k_cache", keys, page_table, batch, query.element, None if dims is not None else q_dim
    )
    group = group_of(num_q_heads, cache.num_kv_heads)
    lengths = check_lengths(seq_lens, batch)
    axes = [("num_kv_heads", cache.num_kv_heads), ("head_dim", cache.head_dim)]
    chosen = None if dims is None else expect(operand("dims", dims), "i32", axes)
    lists, tokens = lists or cache.num_kv_heads, cache.max_tokens
    tiles = -(-tokens // TILE)
    scores = device.empty((batch, num_q_heads, tokens), "float32")
    maxima, sums = (device.empty((batch, num_q_heads, tiles), "float32") for _ in range(2))
    votes = device.empty((batch, lists, tokens), "float32")
    if batch and tokens:
        s, m, n, v = (
            operand(name, x)
            for name, x in (("scores", scores), ("maxima", maxima), ("sums", sums), ("votes", votes))
        )
        arguments = (
            *(query, chosen, cache.rows, cache.page_table, lengths, s, m, n, *cache.strides()),
            *(
                np.int32(q_dim),
                *cache.table(),
                np.int32(tokens),
                np.int32(skip[0]),
                np.int32(skip[1]),
                np.float32(scale),
            ),
        )
        defines = {"ELEMENT": query.element, "HEAD_DIM": cache.head_dim, "GROUP": group}
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
    k: int,
    *,
    seq_lens: Any,
    n_init: int = 0,
    n_local: int = 0,
    scale: float | None = None,
    pool: int = 1,
    out: Any = None,
) -> Any:
    """TokenSelect: one list per sequence, the first ``n_init``, the ``k`` with the greatest soft vote, and the last ``n_local`` tokens.

    Parameters
    ----------
    device : Device
        Where the arrays live.
    q : float [batch, num_q_heads, head_dim]
        The mean query of the chunk; the query itself when decoding.
    k_cache, page_table, seq_lens
        As in :func:`tokamask.attention.decode`.
    k, n_init, n_local : int
        A sequence no longer than their sum is kept whole.
    scale : float, optional
        Before the softmax, 1 / sqrt(head_dim) unless given; 1 is what the authors' code does.
    pool : int
        Odd: a token counts as the best vote within a window of this many round it.
    out : int32 [batch, 1, n_init + k + n_local], optional
        Where to write.

    Returns
    -------
    int32 [batch, 1, n_init + k + n_local]
        Ascending, -1 padded.

    """
    if min(k, n_init, n_local) < 0 or pool % 2 == 0 or not 0 < pool <= 65:
        got = f"k={k}, n_init={n_init}, n_local={n_local}, pool={pool}"
        raise ShapeError(
            f"token_select: counts at least 0 and an odd pool up to 65, got {got}",
            name="k",
            expected="see above",
            got=got,
        )
    scale = float(q.shape[-1]) ** -0.5 if scale is None else scale
    votes = soft_votes(
        device,
        q,
        k_cache,
        page_table,
        seq_lens=seq_lens,
        dims=None,
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


def fasa_scores(
    device: Device, q: Any, side_cache: Any, dims: Any, page_table: Any, *, seq_lens: Any, scale: float = 1.0
) -> Any:
    """FASA's first stage: votes float32 [batch, num_kv_heads, max_tokens] from the dominant dimensions alone; -inf beyond the sequence.

    Parameters
    ----------
    device : Device
        Where the arrays live.
    q : float [batch, num_q_heads, head_dim]
        After RoPE.
    side_cache : [pages, page_size, num_kv_heads, n]
        The dominant dimensions of the keys, n = 16, 32, 64, 128 or 256, stored beside the cache when keys are appended.
    dims : int32 [num_kv_heads, n]
        Which dimensions those are.
    page_table, seq_lens
        As in :func:`tokamask.attention.decode`.
    scale : float
        Before the softmax whose sum over a KV head's group is the vote.

    """
    return soft_votes(
        device,
        q,
        side_cache,
        page_table,
        seq_lens=seq_lens,
        dims=dims,
        lists=None,
        skip=(0, 0),
        scale=scale,
        pool=1,
    )


def quest_bounds(
    device: Device, k_cache: Any, page_table: Any, *, seq_lens: Any, out: tuple[Any, Any] | None = None
) -> tuple[Any, Any]:
    """Least and greatest key of each page and channel: two arrays [pages, num_kv_heads, head_dim] of the cache's type.

    Only pages that the table names and that hold tokens are written; the others of a new array are uninitialised.
    """
    o = operand("k_cache", k_cache)
    batch = int(page_table.shape[0])
    cache = check_paged("k_cache", k_cache, page_table, batch, o.element, None)
    lengths = check_lengths(seq_lens, batch)
    shape = (cache.rows.shape[0], cache.num_kv_heads, cache.head_dim)
    lower, upper = (result(device, out and out[i], shape, o.dtype, o.element) for i in (0, 1))
    if batch and cache.max_tokens:
        results = (operand("lower", lower), operand("upper", upper))
        arguments = (cache.rows, cache.page_table, lengths, *results, *cache.strides(), *cache.table())
        defines = {"ELEMENT": o.element, "HEAD_DIM": cache.head_dim, "GROUP": 1}
        grid = (cache.page_table.shape[1], cache.num_kv_heads, batch)
        device.launch("quest", "quest_bounds", defines, grid, 64, arguments)
    return lower, upper


def quest_scores(
    device: Device,
    q: Any,
    lower: Any,
    upper: Any,
    page_table: Any,
    *,
    seq_lens: Any,
    page_size: int,
    out: Any = None,
) -> Any:
    """Quest's page scores: float32 [batch, num_kv_heads, max_pages], no less than any ``q . k`` within the page, over the group's heads.

    Pages beyond the sequence score -inf. Unscaled.
    """
    query, batch, num_q_heads, head_dim = check_query(q)
    low = expect_aligned(
        expect(
            operand("lower", lower),
            query.element,
            [("pages", None), ("num_kv_heads", None), ("head_dim", head_dim)],
        )
    )
    high = expect_aligned(
        expect(
            operand("upper", upper),
            query.element,
            list(zip(("pages", "heads", "dim"), low.shape, strict=True)),
        )
    )
    table = expect(operand("page_table", page_table), "i32", [("batch", batch), ("max_pages", None)])
    lengths = check_lengths(seq_lens, batch)
    num_kv_heads, max_pages = low.shape[1], table.shape[1]
    group = group_of(num_q_heads, num_kv_heads)
    out = result(device, out, (batch, num_kv_heads, max_pages), "float32", "f32")
    if batch and max_pages:
        arguments = (
            query,
            low,
            high,
            table,
            lengths,
            operand("out", out),
            np.int32(page_size),
            np.int32(max_pages),
        )
        lanes = min(32, head_dim // (4 if query.element == "f32" else 8))
        per_block = 4 * (32 // lanes)
        grid = (-(-max_pages // per_block), num_kv_heads, batch)
        defines = {"ELEMENT": query.element, "HEAD_DIM": head_dim, "GROUP": group}
        device.launch("quest", "quest_scores", defines, grid, 128, arguments)
    return out


def launch_indexer(
    device: Device,
    q: Operand,
    weights: Operand,
    keys: Operand,
    table: Operand | None,
    lengths: Operand,
    candidates: Operand | None,
    count: int,
    unit: int,
) -> Any:
    """Scores float32 [rows, count] on tensor cores where the card and the type have them. Keys have three axes: page, token, dim;
    without a table the first axis is the row.
    """
    rows, heads, dim = q.shape
    scores = device.empty((rows, count), "float32")
    if rows and count:
        if table is not None:
            row_stride, page_size = (table.shape[1] if table.shape[0] > 1 else 0), keys.shape[1]
        else:
            row_stride, page_size = (keys.strides[0] if keys.shape[0] > 1 else 0), 1
        tensor_cores = device.arch >= 80 and q.element != "f32"
        name, tile = ("indexer_scores_mma", 256) if tensor_cores else ("indexer_scores", 32)
        arguments = (
            *(q, weights, keys, table, lengths, candidates, operand("scores", scores)),
            *(np.int64(keys.strides[0]), np.int64(keys.strides[1]), np.int64(row_stride)),
            *(np.int32(page_size), np.int32(count), np.int32(unit)),
        )
        defines = {"ELEMENT": q.element, "HEAD_DIM": dim, "HEADS": heads}
        device.launch(name, name, defines, (rows, -(-count // tile)), 128, arguments)
    return scores


def check_indexer(
    q: Any, weights: Any, k_cache: Any, page_table: Any, lengths: Any
) -> tuple[Operand, Operand, Operand, Operand, Operand]:
    """The arguments that both indexers take."""
    query = expect_aligned(
        expect(operand("q", q), FLOATS, [("rows", None), ("heads", None), ("head_dim", None)])
    )
    rows, heads, dim = query.shape
    w = expect(operand("weights", weights), "f32", [("rows", rows), ("heads", heads)])
    axes: Axes = [("pages", None), ("page_size", None), ("head_dim", dim)]
    keys = expect_aligned(expect(operand("k_cache", k_cache), query.element, axes, contiguous=False))
    table = expect(operand("page_table", page_table), "i32", [("rows or 1", None), ("max_pages", None)])
    if table.shape[0] not in (1, rows):
        raise ShapeError(
            "page_table: one row per query row or one for all",
            name="page_table",
            expected=f"{rows} or 1",
            got=str(table.shape[0]),
        )
    return query, w, keys, table, expect(operand("lengths", lengths), "i32", [("rows", rows)])


def indexer_scores(
    device: Device,
    q: Any,
    weights: Any,
    k_cache: Any,
    page_table: Any,
    *,
    lengths: Any,
    candidates: Any = None,
) -> Any:
    """``sum_j weights[t, j] * relu(q[t, j] . k[s])``: float32 [rows, max_tokens], or [rows, count] for given candidates.

    Parameters
    ----------
    device : Device
        Where the arrays live.
    q : float [rows, heads, head_dim]
        The indexer's queries: 8, 16, 32 or 64 heads of 64 or 128.
    weights : float32 [rows, heads]
        Of any sign; scales belong in here.
    k_cache : [pages, page_size, head_dim]
        One key head.
    page_table : int32 [rows or 1, max_pages]
        A row per query row when decoding a batch, one for all when prefilling a sequence.
    lengths : int32 [rows]
        How many keys each row sees; the others score -inf.
    candidates : int32 [rows, count], optional
        Score these keys only; outside [0, length) is a hole and scores -inf.

    """
    query, w, keys, table, seen = check_indexer(q, weights, k_cache, page_table, lengths)
    if candidates is None:
        return launch_indexer(device, query, w, keys, table, seen, None, table.shape[1] * keys.shape[1], 1)
    chosen = expect(operand("candidates", candidates), "i32", [("rows", query.shape[0]), ("count", None)])
    return launch_indexer(device, query, w, keys, table, seen, chosen, chosen.shape[1], 1)


def hisa_candidates(
    device: Device,
    q: Any,
    weights: Any,
    k_cache: Any,
    page_table: Any,
    *,
    lengths: Any,
    block_size: int = 128,
    n_blocks: int,
) -> Any:
    """HISA's first stage: the tokens of the ``n_blocks`` blocks whose mean key scores best, of the first and of the newest block.

    Returns int32 [rows, (n_blocks + 2) * block_size], ascending with -1 holes: ``candidates`` of :func:`indexer_scores`, whose
    best positions :func:`top_k` then finds.
    """
    query, w, keys, table, seen = check_indexer(q, weights, k_cache, page_table, lengths)
    rows, _, dim = query.shape
    sequences = table.shape[0]
    if rows and sequences == 1 < rows:
        raise ShapeError(
            "page_table: HISA pools whole blocks, so every row needs its own sequence",
            name="page_table",
            expected=str(rows),
            got="1",
        )
    blocks = -(-table.shape[1] * keys.shape[1] // block_size)
    pooled = device.empty((sequences, blocks, dim), keys.dtype)
    candidates = device.empty((rows, (n_blocks + 2) * block_size), "int32")
    if not (rows and blocks):
        return candidates
    variant = {"ELEMENT": query.element, "HEAD_DIM": dim}
    strides = (np.int64(keys.strides[0]), np.int64(keys.strides[1]), np.int64(table.shape[1]))
    p = operand("pooled", pooled)
    arguments = (keys, table, seen, p, *strides, np.int32(keys.shape[1]), np.int32(block_size))
    device.launch("hisa", "hisa_pool", variant, (blocks, sequences), 128, arguments)
    scores = launch_indexer(device, query, w, p, None, seen, None, blocks, block_size)
    best = top_k(device, scores, n_blocks)
    sizes = (np.int32(n_blocks), np.int32(block_size))
    device.launch(
        "hisa",
        "hisa_expand",
        variant,
        (rows, n_blocks + 2),
        128,
        (operand("best", best), seen, operand("candidates", candidates), *sizes),
    )
    return candidates


def hisa_select(
    device: Device,
    q: Any,
    weights: Any,
    k_cache: Any,
    page_table: Any,
    k: int,
    *,
    lengths: Any,
    block_size: int = 128,
    n_blocks: int,
) -> Any:
    """The ``k`` best keys by indexer score among HISA's candidates: int32 [rows, k], ascending, -1 padded."""
    options = {"lengths": lengths, "block_size": block_size, "n_blocks": n_blocks}
    candidates = hisa_candidates(device, q, weights, k_cache, page_table, **options)
    scores = indexer_scores(device, q, weights, k_cache, page_table, lengths=lengths, candidates=candidates)
    positions = top_k(device, scores, k)
    rows, count = scores.shape
    out = device.empty((rows, k), "int32")
    if rows and k:
        arguments = (
            operand("positions", positions),
            operand("candidates", candidates),
            operand("scores", scores),
            operand("out", out),
        )
        device.launch("take", "take", {}, (rows,), 128, (*arguments, np.int32(k), np.int32(count)))
    return out
