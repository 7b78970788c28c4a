"""Indexer scores, plain and on tensor cores, and HISA: emulated kernels == Rust == reference."""

import numpy as np
import pytest
from cuda_engines import QUICK, Emulator, cast, engine, reference  # noqa: F401


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
