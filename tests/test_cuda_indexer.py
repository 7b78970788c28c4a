"""Indexer scores, plain and on tensor cores, and HISA: emulated kernels == Rust == reference."""

import numpy as np
import pytest
from cuda_engines import QUICK, Emulator, cast, engine, reference  # noqa: F401

from tokamask.errors import ShapeError


def indexer_case(seed, element, *, queries=4, heads=8, dim=64, tokens=192):
    rng = np.random.default_rng(seed)
    q, k = (cast(rng.standard_normal(shape), element) for shape in ((queries, heads, dim), (tokens, dim)))
    return q, k, rng.standard_normal((queries, heads)).astype(np.float32)  # weights of both signs


CASES = [("f32", 8, 64), ("bf16", 16, 64), ("f16", 8, 128)]
POSITIONS = np.array([191, 32, 0, -1], np.int32)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.sanitized
@pytest.mark.parametrize(("element", "heads", "dim"), CASES[:2] if QUICK else CASES)
def test_indexer_scores(engine, element, heads, dim):  # noqa: F811
    case = indexer_case(1, element, heads=heads, dim=dim)
    got = engine.call("selection", "indexer_scores", *case, positions=POSITIONS)
    np.testing.assert_allclose(got, reference("indexer").indexer_scores(*case, POSITIONS), **CLOSE)


def test_the_plain_kernel_serves_cards_without_tensor_cores():
    case = indexer_case(1, "bf16")
    got = Emulator(75).call("selection", "indexer_scores", *case, positions=POSITIONS)
    np.testing.assert_allclose(got, reference("indexer").indexer_scores(*case, POSITIONS), **CLOSE)


@pytest.mark.parametrize("element", ["f32", "bf16"])
def test_paged_keys_and_candidates(element):
    q, k, w = indexer_case(3, element, queries=2)
    table = np.random.default_rng(3).permutation(12).reshape(1, 12).astype(np.int32)
    pages = np.empty((12, 16, 64), k.dtype)
    pages[table[0]] = k.reshape(12, 16, 64)
    positions = np.array([149, 19], np.int32)
    run = Emulator().call
    every = run("selection", "indexer_scores", q, k, w, positions=positions)
    for rows in (table, np.repeat(table, 2, axis=0)):
        paged = run("selection", "indexer_scores", q, pages, w, positions=positions, page_table=rows)
        np.testing.assert_array_equal(paged, every)
    candidates = np.array([[3, -1, 149, 150, 7, 7, 10**9], [0, 19, 20, -5, 1, 2, 3]], np.int32)
    got = run(
        "selection",
        "indexer_scores",
        q,
        pages,
        w,
        positions=positions,
        page_table=table,
        candidates=candidates,
    )
    for t in range(2):
        want = [every[t, c] if 0 <= c <= positions[t] else -np.inf for c in candidates[t]]
        np.testing.assert_allclose(got[t], want, **CLOSE)


@pytest.mark.parametrize("element", ["f32", "bf16"])
def test_nan_in_a_key_comes_through(element):
    q, k, w = indexer_case(4, element)
    k[5] = cast(np.array(np.nan), element)
    got = Emulator().call("selection", "indexer_scores", q, k, w, positions=np.array([20] * 4, np.int32))
    assert np.isnan(got[0]).nonzero()[0].tolist() == [5]


@pytest.mark.sanitized
@pytest.mark.parametrize("element", ["f32"] if QUICK else ["f32", "bf16"])
def test_hisa(engine, element):  # noqa: F811
    case = indexer_case(5, element, tokens=185)
    positions = np.array([184, 65, 3, -1], np.int32)
    for n_tokens, block, n_blocks in ((20, 32, 3),) if QUICK else ((20, 32, 3), (5, 16, 30), (200, 32, 2)):
        named = {"positions": positions, "n_blocks": n_blocks, "block": block}
        got = engine.call("selection", "hisa_select", *case, n_tokens, **named)
        np.testing.assert_array_equal(
            got, reference("indexer").hisa_select(*case, positions, n_tokens, n_blocks, block)
        )


@pytest.mark.sanitized
@pytest.mark.parametrize("element", ["f32"] if QUICK else ["f32", "bf16"])
@pytest.mark.parametrize("shared", [True, False])
def test_pages_and_the_sums_that_appending_keeps(engine, element, shared):  # noqa: F811
    """Two sequences appended to in portions, the last page begun; then every query as if its keys lay one after another."""
    rng = np.random.default_rng(5)
    lengths, table = np.array([90, 41], np.int32), rng.permutation(12).reshape(2, 6).astype(np.int32)
    caches = [np.zeros((12, 16, 1, 64), np.float32) for _ in "kv"]
    paged, sums = cast(np.zeros((12, 16, 64)), element), np.full((12, 64), 9, np.float32)
    keys = [cast(rng.standard_normal((n, 64)), element) for n in lengths]
    for part in (slice(0, 23), slice(23, 90)):
        rows = [k[part] for k in keys]
        indptr = np.cumsum([0, *map(len, rows)]).astype(np.int32)
        blank = np.zeros((indptr[-1], 1, 64), np.float32)
        ends = np.minimum(lengths, part.stop).astype(np.int32)
        index = (np.concatenate(rows).astype(np.float32), paged, sums) if element == "f32" else None
        if index is None:  # the cache of keys has the type of the indexer's
            caches, blank = [cast(c, element) for c in caches], cast(blank, element)
            index = (np.concatenate(rows), paged, sums)
        engine.call(
            *("attention", "append_kv", blank, blank, *caches, table),
            seq_lens=ends,
            indptr=indptr,
            index=index,
        )
    q, w = cast(rng.standard_normal((2, 8, 64)), element), rng.standard_normal((2, 8)).astype(np.float32)
    at = np.array([89, 57], np.int32) if shared else lengths - 1
    tables = table[:1] if shared else table
    own = [keys[0], keys[0]] if shared else keys
    for n_blocks, n_tokens in ((2, 9),) if QUICK else ((2, 9), (4, 30), (9, 100)):
        named = {"positions": at, "n_blocks": n_blocks, "block": 16, "page_table": tables}
        got = engine.call("selection", "hisa_select", q, paged, w, n_tokens, page_sums=sums, **named)
        for row in range(2):
            each = q[row : row + 1], own[row], w[row : row + 1], at[row : row + 1]
            want = reference("indexer").hisa_select(*each, n_tokens, n_blocks, 16)
            np.testing.assert_array_equal(got[row : row + 1], want)
    scores = engine.call("selection", "indexer_scores", q, paged, w, positions=at, page_table=tables)
    for row in range(2):
        each = q[row : row + 1], own[row], w[row : row + 1], at[row : row + 1]
        want = reference("indexer").indexer_scores(*each)[0]
        np.testing.assert_allclose(scores[row, : len(want)], want, **CLOSE)
        assert (scores[row, len(want) :] == -np.inf).all()


def test_pages_need_their_sums_and_blocks_of_a_page(engine):  # noqa: F811
    q, _, w = indexer_case(3, "f32", queries=1)
    pages, sums = np.zeros((2, 16, 64), np.float32), np.zeros((2, 64), np.float32)
    named = {"positions": np.array([9], np.int32), "n_blocks": 2, "page_table": np.array([[0, 1]], np.int32)}
    for wrong in ({"block": 16}, {"block": 8, "page_sums": sums}, {"block": 16, "page_sums": sums[:1]}):
        with pytest.raises(ShapeError):
            engine.call("selection", "hisa_select", q, pages, w, 4, **named, **wrong)
