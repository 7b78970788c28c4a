"""Attention of many queries over chosen keys: the compiled kernels against the float64 reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask.errors import ShapeError
from tokamask.reference import prefill as reference
from tokamask.reference.floats import narrow, widen

TOLERANCE = {np.dtype(np.float32): 3e-5, np.dtype(np.float16): 2e-3, np.dtype(np.uint16): 2e-2}
DTYPES = st.sampled_from([np.float32, np.float16, np.uint16])


def close(got, expected):
    tolerance = TOLERANCE[got.dtype]
    np.testing.assert_allclose(widen(got), widen(expected), rtol=tolerance, atol=tolerance)


def sequence(rng, queries, tokens, *, heads=2, group=2, dim=24, v_dim=20, dtype=np.float32):
    """Queries, keys and values; keys and values strided, as [heads, tokens, dim] tensors are."""
    draw = lambda *shape: narrow(rng.standard_normal(shape), dtype)  # noqa: E731
    k, v = (draw(heads, tokens, d).transpose(1, 0, 2) for d in (dim, v_dim))
    return draw(queries, heads * group, dim), k, v


@given(
    queries=st.sampled_from([1, 7, 40]),
    earlier=st.sampled_from([0, 5, 50]),
    block=st.sampled_from([(8, 8), (16, 5), (64, 64)]),
    per_head=st.booleans(),
    causal=st.booleans(),
    group=st.sampled_from([1, 3]),
    dtype=DTYPES,
)
def test_block_sparse_prefill(queries, earlier, block, per_head, causal, group, dtype):
    rng = np.random.default_rng(queries * 100 + earlier)
    q, k, v = sequence(rng, queries, queries + earlier, group=group, dtype=dtype)
    rows, columns = -(-queries // block[0]), -(-len(k) // block[1])
    lists = [
        [rng.permutation(columns)[: rng.integers(0, columns + 1)] for _ in range(rows)]
        for _ in range(2 if per_head else 1)
    ]
    sizes = np.cumsum([0, *[len(x) for head in lists for x in head]])
    indptr = np.stack([sizes[h * rows : (h + 1) * rows + 1] for h in range(len(lists))]).astype(np.int32)
    indices = np.concatenate([x for head in lists for x in head]).astype(np.int32)
    out = np.full((queries, 2 * group, 20), 99, dtype)
    options = {"block": block, "causal": causal, "scale": 0.3}
    got = tm.attention.block_sparse_prefill(
        q, k, v, indptr if per_head else indptr[0], indices, **options, return_lse=True, out=out
    )
    assert got[0] is out
    expected = reference.block_sparse_prefill(q, k, v, indptr, indices, block, causal, 0.3)
    close(out, expected[0])
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-4, atol=1e-4)


def test_all_blocks_are_causal_attention():
    rng = np.random.default_rng(0)
    q, k, v = sequence(rng, 150, 150)
    blocks = np.arange(4, dtype=np.int32)
    dense = tm.attention.block_sparse_prefill(
        q, k, v, np.array([0, 4, 8, 12], np.int32), np.tile(blocks, 3), block=(64, 40)
    )
    everything = np.tile(np.arange(150, dtype=np.int32), (4, 1))
    np.testing.assert_allclose(
        dense, tm.attention.selected_prefill(q, k, v, everything), rtol=2e-5, atol=2e-6
    )


@given(tokens=st.sampled_from([1, 30, 150]), group=st.sampled_from([1, 2]), dtype=DTYPES)
def test_selected_prefill(tokens, group, dtype):
    rng = np.random.default_rng(tokens)
    q, k, v = sequence(rng, tokens, tokens, group=group, dtype=dtype)
    width = tokens // 2 + 1
    selected = np.full((2 * group, width), -1, np.int32)
    for row in selected:
        n = rng.integers(0, width + 1)
        row[:n] = np.sort(rng.permutation(tokens)[:n])
    o, lse = tm.attention.selected_prefill(q, k, v, selected, return_lse=True)
    expected = reference.selected_prefill(q, k, v, selected)
    close(o, expected[0])
    np.testing.assert_allclose(lse, expected[1], rtol=1e-4, atol=1e-4)


@given(
    tokens=st.sampled_from([1, 9, 80]),
    window=st.sampled_from([1, 4, 200]),
    share=st.sampled_from([0, 0.3, 1]),
)
def test_hybrid_attention(tokens, window, share):
    rng = np.random.default_rng(tokens + window)
    q, k = rng.standard_normal((2, 2, 3, tokens, 16)).astype(np.float32) * 3
    v = rng.standard_normal((2, 3, tokens, 20)).astype(np.float32)
    phi_q, phi_k = rng.random((2, 2, 3, tokens, 5)).astype(np.float32)
    salient = rng.random((2, 3, tokens)) < share
    got = tm.attention.hybrid_attention(q, k, v, salient, phi_q, phi_k, window=window)
    expected = reference.hybrid_attention(q, k, v, salient, phi_q, phi_k, window)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_the_hybrid_of_salient_tokens_only_is_softmax_attention():
    rng = np.random.default_rng(3)
    q, k, v = rng.standard_normal((3, 1, 2, 70, 16)).astype(np.float32)
    features = np.ones((1, 2, 70, 3), np.float32)
    got = tm.attention.hybrid_attention(q, k, v, np.ones((1, 2, 70), bool), features, features, window=1)
    by_token = [x[0].transpose(1, 0, 2).copy() for x in (q, k, v)]
    everything = np.tile(np.arange(70, dtype=np.int32), (2, 1))
    dense = tm.attention.selected_prefill(*by_token, everything).transpose(1, 0, 2)
    np.testing.assert_allclose(got[0], dense, rtol=2e-5, atol=2e-6)


def test_what_does_not_fit_is_refused():
    x, ptr = np.zeros((4, 1, 2), np.float32), np.array([0, 1], np.int32)
    prefill, selected = tm.attention.block_sparse_prefill, tm.attention.selected_prefill
    with pytest.raises(ShapeError, match="indices"):
        prefill(x, x, x, ptr, np.array([1], np.int32))
    with pytest.raises(ShapeError, match="indptr"):
        prefill(x, x, x, ptr + 1, np.array([0], np.int32))
    with pytest.raises(ShapeError, match="queries"):
        prefill(x, x[:2], x[:2], ptr, np.array([0], np.int32))
    with pytest.raises(ShapeError, match="ascending"):
        selected(x, x, x, np.array([[2, 1]], np.int32))
    with pytest.raises(ShapeError, match="ascending"):
        selected(x, x, x, np.array([[1, 4]], np.int32))
    with pytest.raises(ShapeError, match="v_dim"):
        selected(x, x, x[:2], np.array([[1]], np.int32))
    y = x[None]
    with pytest.raises(ShapeError, match="window"):
        tm.attention.hybrid_attention(y, y, y, np.ones((1, 4, 1), bool), y, y, window=0)
