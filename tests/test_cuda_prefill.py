"""Attention of a prompt over chosen keys, and its column sums: emulated kernels, plain and on tensor cores, == Rust == reference."""

import numpy as np
import pytest
from cuda_engines import QUICK, TENSOR_TOLERANCE, Emulator, cast, engine, reference  # noqa: F401

from tokamask.errors import ShapeError
from tokamask.reference.floats import widen


def prompt(seed, element, queries, tokens, *, heads=4, kv_heads=2, dim=64):
    rng = np.random.default_rng(seed)
    shapes = (queries, heads, dim), (tokens, kv_heads, dim), (tokens, kv_heads, dim)
    return tuple(cast(rng.standard_normal(shape), element) for shape in shapes)


def assert_close(got, want, element):
    np.testing.assert_allclose(widen(np.asarray(got[0])), widen(want[0]), **TENSOR_TOLERANCE[element])
    np.testing.assert_allclose(np.asarray(got[1]), want[1], rtol=1e-5, atol=1e-5)


CASES = [("f32", 64), ("bf16", 64), ("f16", 128)]


@pytest.mark.sanitized
@pytest.mark.parametrize(("element", "dim"), CASES[:2] if QUICK else CASES)
@pytest.mark.parametrize("causal", [True] if QUICK else [True, False])
def test_block_sparse_prefill(engine, element, dim, causal):  # noqa: F811
    """Blocks that are no multiple of a tile, short last blocks, an empty list, a block named twice, one list per KV head."""
    q, k, v = prompt(1, element, 45, 70, dim=dim)
    rows, columns = 20, 24
    indptr = np.array([[0, 2, 2, 5], [5, 6, 9, 10]], np.int32)
    indices = np.array([0, 1, 0, 2, 2, 1, 0, 1, 2, 0], np.int32)
    for lists in (indptr, indptr[:1]):
        got = engine.call(
            *("attention", "block_sparse_prefill", q, k, v, lists if len(lists) == 2 else lists[0], indices),
            block=(rows, columns),
            causal=causal,
            return_lse=True,
        )
        want = reference("prefill").block_sparse_prefill(q, k, v, lists, indices, (rows, columns), causal)
        assert_close(got, want, element)
        if QUICK:
            break


@pytest.mark.sanitized
@pytest.mark.parametrize(("element", "dim"), CASES[:2] if QUICK else CASES)
def test_selected_prefill(engine, element, dim):  # noqa: F811
    q, k, v = prompt(2, element, 70, 70, dim=dim)
    rng = np.random.default_rng(2)
    selected = np.stack([np.sort(rng.permutation(70)[:37]) for _ in range(4)]).astype(np.int32)
    selected[2, -9:] = -1
    selected[3] = -1  # a head that selects nothing
    got = engine.call("attention", "selected_prefill", q, k, v, selected, return_lse=True)
    assert_close(got, reference("prefill").selected_prefill(q, k, v, selected), element)


def test_few_queries_and_old_cards_use_multiply_adds():
    q, k, v = prompt(3, "bf16", 20, 20)
    lists, indices = np.array([0, 2], np.int32), np.array([0, 1], np.int32)
    named = {"block": (20, 10), "return_lse": True}
    want = reference("prefill").block_sparse_prefill(q, k, v, lists[None], indices, (20, 10), True)
    got = Emulator(75).call("attention", "block_sparse_prefill", q, k, v, lists, indices, **named)
    assert_close(got, want, "bf16")
    few = np.array([[3, 9], [0, -1], [1, 2], [5, 19]], np.int32)
    got = Emulator().call("attention", "selected_prefill", q, k, v, few, return_lse=True)
    assert_close(got, reference("prefill").selected_prefill(q, k, v, few), "bf16")


def test_all_blocks_is_causal_attention_and_strides_do_not_matter():
    q, k, v = prompt(4, "bf16", 64, 64)
    lists, indices = np.array([0, 1], np.int32), np.array([0], np.int32)
    run = Emulator().call
    want = run("attention", "block_sparse_prefill", q, k, v, lists, indices, block=(64, 64))
    every = np.tile(np.arange(64, dtype=np.int32), (4, 1))
    got = run("attention", "selected_prefill", q, k, v, every)
    np.testing.assert_allclose(widen(got), widen(want), **TENSOR_TOLERANCE["bf16"])
    both = np.stack([k, v], axis=1)
    strided = run(
        "attention", "block_sparse_prefill", q, both[:, 0], both[:, 1], lists, indices, block=(64, 64)
    )
    np.testing.assert_array_equal(strided, want)


def test_no_queries_and_nothing_selected(engine):  # noqa: F811
    q, k, v = prompt(5, "f32", 3, 3)
    nothing = np.zeros(1, np.int32)
    empty = engine.call("attention", "block_sparse_prefill", q[:0], k, v, nothing, nothing[:0], causal=False)
    assert empty.shape == (0, 4, 64)
    o, lse = engine.call(
        "attention", "selected_prefill", q, k, v, np.zeros((4, 0), np.int32), return_lse=True
    )
    assert (o == 0).all()
    assert (lse == -np.inf).all()


@pytest.mark.sanitized
@pytest.mark.parametrize(("element", "dim"), CASES[:1] if QUICK else CASES)
def test_attention_column_sums(engine, element, dim):  # noqa: F811
    for queries, tokens in ((7, 77),) if QUICK else ((7, 77), (1, 1), (33, 33), (0, 5), (4, 64)):
        q, k, _ = prompt(6, element, queries, tokens, dim=dim)
        got = engine.call("selection", "attention_column_sums", q, k, scale=0.2)
        want = reference("columns").attention_column_sums(q, k, 0.2)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.sanitized
@pytest.mark.parametrize(("window", "tokens"), [(3, 77)] if QUICK else [(3, 77), (1, 1), (5, 5), (2, 600)])
def test_scores_of_a_window(engine, window, tokens):  # noqa: F811
    q, k, _ = prompt(8, "f32", window, tokens)
    definition = reference("press").window_scores
    for kernel in (1, 5):
        got = engine.call("selection", "snapkv_scores", q, k, kernel=kernel)
        np.testing.assert_allclose(got, definition(q, k, kernel, False), rtol=1e-4, atol=1e-6)
    got = engine.call("selection", "tova_scores", q[-1:], k)
    np.testing.assert_allclose(got, definition(q[-1:], k, 1, True), rtol=1e-4, atol=1e-6)
    with pytest.raises(ShapeError, match="odd"):
        engine.call("selection", "snapkv_scores", q, k, kernel=2)


@pytest.mark.sanitized
@pytest.mark.parametrize(
    ("coverage", "least"),
    [(0.3, 4)]
    if QUICK
    else [(0.3, 4), (0.02, 4), (0.9, 30), (0.9, 2000), (0.0, 4), (1.0, 0), (3.0, 7), (1e-9, 0)],
)
def test_token_sparse_select(engine, coverage, least):  # noqa: F811
    """What a window keeps before itself: something, all but one, no less than asked for, everything."""
    q, k, _ = prompt(9, "f32", 5, 700)
    got = np.asarray(
        engine.call("selection", "token_sparse_select", q, k, coverage=coverage, min_tokens=least)
    )
    want = reference("press").token_sparse_select(q, k, coverage, least, 5)
    np.testing.assert_array_equal(got[:, : want.shape[1]], want)
    assert (got[:, want.shape[1] :] == -1).all()


def test_token_sparse_select_counts_equal_scores_one_by_one():
    """All alike: as many go as stay below the coverage together, and one more, those of the highest position."""
    k = np.zeros((65, 1, 64), np.float32)
    for coverage in (0.1, 0.25, 0.5):  # 6.4, 16 and 32 of 64: the 16th and the 32nd reach it within rounding
        got = Emulator().call(
            *("selection", "token_sparse_select", k[-1:], k), coverage=coverage, min_tokens=0, kernel=1
        )
        kept = int((got[0] >= 0).sum()) - 1
        assert 64 - kept - 1 in (int(coverage * 64), int(coverage * 64) - 1), coverage
        assert got[0, : kept + 1].tolist() == [*range(kept), 64]


@pytest.mark.sanitized
def test_what_a_window_keeps_feeds_sparse_attention():
    q, k, v = prompt(11, "f32", 60, 60)
    run = Emulator().call
    padded = run("selection", "token_sparse_select", q[-4:], k, coverage=0.4, min_tokens=8)
    short = reference("press").token_sparse_select(q[-4:], k, 0.4, 8, 5)
    got = run("attention", "selected_prefill", q, k, v, padded, return_lse=True)
    assert_close(got, reference("prefill").selected_prefill(q, k, v, short), "f32")


def test_shapes_are_refused_by_name(engine):  # noqa: F811
    q, k, v = prompt(7, "f32", 5, 4)
    lists, indices = np.array([0, 1], np.int32), np.array([0], np.int32)
    with pytest.raises(ShapeError, match="tokens"):
        engine.call("attention", "block_sparse_prefill", q, k, v, lists, indices)
    with pytest.raises(ShapeError, match="indptr"):
        engine.call("attention", "block_sparse_prefill", q[:4], k, v, lists[:1], indices)
    with pytest.raises(ShapeError, match="block"):
        engine.call("attention", "block_sparse_prefill", q[:4], k, v, lists, indices, block=(0, 4))
    with pytest.raises(ShapeError, match="tokens=4"):
        engine.call("attention", "selected_prefill", q, k, v, np.zeros((4, 1), np.int32))
    with pytest.raises(ShapeError, match="tokens=4"):
        engine.call("selection", "attention_column_sums", q, k)
