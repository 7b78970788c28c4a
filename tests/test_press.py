"""Shorter caches and fewer tokens: scores and merges against their references, and the references against cases worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask.errors import ShapeError
from tokamask.reference import compress, press, reduction, saliency
from tokamask.reference.floats import narrow

DTYPES = st.sampled_from([np.float32, np.float16, np.uint16])
TOKENS = st.sampled_from([1, 2, 9, 40, 150])


def cache(rng, tokens, *, heads=2, dim=24, v_dim=20, dtype=np.float32):
    """Keys and values of one sequence, strided as [heads, tokens, dim] tensors are."""
    draw = lambda d: narrow(rng.standard_normal((heads, tokens, d)), dtype).transpose(1, 0, 2)  # noqa: E731
    return draw(dim), draw(v_dim)


@given(tokens=TOKENS, dtype=DTYPES)
def test_key_scores(tokens, dtype):
    k, v = cache(np.random.default_rng(tokens), tokens, dtype=dtype)
    out = np.full((2, tokens), 9, np.float32)
    assert tm.selection.knorm_scores(k, out=out) is out
    np.testing.assert_allclose(out, press.knorm_scores(k), rtol=1e-5)
    np.testing.assert_allclose(tm.selection.keydiff_scores(k), press.keydiff_scores(k), atol=2e-6)
    for n_init, lag in ((0, 4), (4, 9), (1, 70)):
        got = tm.selection.lagkv_scores(k, v, n_init=n_init, lag=lag)
        np.testing.assert_allclose(got, press.lagkv_scores(k, v, n_init, lag), rtol=1e-6)


@given(tokens=TOKENS, window=st.sampled_from([1, 5]), kernel=st.sampled_from([1, 5]), dtype=DTYPES)
def test_window_scores(tokens, window, kernel, dtype):
    rng = np.random.default_rng(tokens)
    k, _ = cache(rng, tokens, dtype=dtype)
    q = narrow(rng.standard_normal((min(window, tokens), 6, 24)), dtype)
    got = tm.selection.snapkv_scores(q, k, kernel=kernel)
    np.testing.assert_allclose(got, press.window_scores(q, k, kernel, False), rtol=1e-4, atol=1e-6)
    got = tm.selection.tova_scores(q[-1:], k)
    np.testing.assert_allclose(got, press.window_scores(q[-1:], k, 1, True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("coverage", [0.0, 0.02, 0.3, 0.95, 2.0])
@pytest.mark.parametrize("tokens", [8, 90, 200])
def test_token_sparse_select(tokens, coverage):
    rng = np.random.default_rng(tokens)
    k, _ = cache(rng, tokens)
    q = rng.standard_normal((4, 4, 24)).astype(np.float32)
    got = tm.selection.token_sparse_select(q, k, coverage=coverage, min_tokens=10, kernel=3)
    expected = press.token_sparse_select(q, k, coverage, 10, 3)
    np.testing.assert_array_equal(got, expected)
    assert got.shape[1] >= min(tokens, 14)
    o = tm.attention.selected_prefill(rng.standard_normal((tokens, 4, 24)).astype(np.float32), k, k, got)
    assert np.isfinite(o).all()


def same_cache(got, expected):
    for h, (keys, values, positions, sizes) in enumerate(expected):
        n = len(positions)
        np.testing.assert_array_equal(got.positions[h, :n], positions)
        np.testing.assert_array_equal(got.sizes[h, :n], sizes)
        np.testing.assert_allclose(got.k[h, :n], keys, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got.v[h, :n], values, rtol=1e-5, atol=1e-6)
        assert (got.positions[h, n:] == -1).all()
        assert not got.k[h, n:].any()


@given(tokens=TOKENS, epsilon=st.sampled_from([-1.0, 0.2, 0.9]), counts=st.sampled_from([(0, 0), (3, 2)]))
def test_kvmerger_merge(tokens, epsilon, counts):
    rng = np.random.default_rng(tokens)
    k, v = cache(rng, tokens, dim=3)  # few dimensions: neighbours that are alike
    scores = rng.random((2, tokens)).astype(np.float32)
    recent, heavy = counts
    got = tm.selection.kvmerger_merge(k, v, scores, epsilon=epsilon, recent=recent, heavy=heavy)
    same_cache(got, compress.kvmerger_merge(k, v, scores, epsilon, recent, heavy))
    assert (got.sizes.sum(axis=1) == tokens).all()  # no token is lost


@given(tokens=TOKENS, budget=st.sampled_from([0, 1, 5, 200]), candidates=st.sampled_from([0, 20]))
def test_ems_merge(tokens, budget, candidates):
    rng = np.random.default_rng(tokens + budget)
    k, v = cache(rng, tokens, dim=3)
    sums = rng.random((2, 2, tokens)).astype(np.float32)
    got = tm.selection.ems_merge(k, v, *sums, budget=budget, candidates=candidates)
    scores = compress.ems_scores(*sums, 0.5)
    same_cache(got, compress.ems_merge(k, v, scores, budget, candidates, 0.6))


def test_merging_by_hand():
    """Five tokens: the first two point one way and merge, weighted by a Gaussian of distance; the rest stay."""
    k = np.array([[2, 0], [4, 0], [0, 1], [0, -1], [1, 0]], np.float32)[:, None]
    v = np.arange(5, dtype=np.float32).reshape(5, 1, 1)
    scores = np.array([[5, 1, 1, 1, 1]], np.float32)
    merged = tm.selection.kvmerger_merge(k, v, scores, epsilon=0.9, recent=1, heavy=0)
    assert merged.positions.tolist() == [[0, 2, 3, 4]]
    weight = np.exp(-4 / (2 * 2**2))  # distance 2, sigma 2
    np.testing.assert_allclose(merged.k[0, 0], [(2 + 4 * weight) / (1 + weight), 0], rtol=1e-6)
    np.testing.assert_allclose(merged.v[0, 0], weight / (1 + weight), rtol=1e-6)

    # Scores 6/12 .. and so on: token 1 (cosine 1 with token 0) goes into it, tokens 2 and 3 resemble neither centre.
    sums = np.array([[6, 3, 1, 1, 5]], np.float32)
    merged = tm.selection.ems_merge(k[:, :, :1], v, sums, sums, budget=1, candidates=2, share=1.0)
    assert merged.positions.tolist() == [[0]]
    np.testing.assert_allclose(merged.k.ravel(), [(2 * 6 + 4 * 3 + 1 * 5) / 14], rtol=1e-6)


@given(n=st.sampled_from([0, 1, 7]), shape=st.sampled_from([(1, 4), (4, 9), (9, 4), (12, 12)]), dtype=DTYPES)
def test_entropy_scores(n, shape, dtype):
    rng = np.random.default_rng(n)
    x = narrow(rng.standard_normal((n, *shape)), dtype)
    x[n // 2 :] = x[n // 2 :, :1]  # one direction only
    np.testing.assert_allclose(tm.selection.entropy_scores(x), saliency.entropy_scores(x), atol=2e-5)


@given(n=st.sampled_from([1, 2, 30]), rounds=st.sampled_from([0, 1, 20]))
def test_pagerank_scores(n, rounds):
    rng = np.random.default_rng(n)
    attention = rng.random((3, n, n)).astype(np.float32) ** 4
    attention[1] = 1  # a head without preferences
    attention /= attention.sum(axis=-1, keepdims=True)
    for variance in ((0.0, np.inf), (1e-9, np.inf), (5.0, 6.0)):
        got = tm.selection.pagerank_scores(attention, rounds=rounds, variance=variance)
        expected = saliency.pagerank_scores(attention, rounds, variance)
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=1e-7)


def test_pagerank_finds_the_stationary_law():
    """Two tokens; the first keeps 90 % of its vote, the second gives half away: 5/6 and 1/6."""
    attention = np.array([[[0.9, 0.1], [0.5, 0.5]]], np.float32)
    np.testing.assert_allclose(tm.selection.pagerank_scores(attention), [5 / 6, 1 / 6], rtol=1e-5)


@given(
    n=st.sampled_from([0, 1, 2, 3, 60]),
    threshold=st.sampled_from([-1.0, 0.3, 2.0]),
    protect=st.sampled_from([0, 1]),
)
def test_dymu_merge(n, threshold, protect):
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, 5)).astype(np.float32)
    size = rng.integers(1, 4, n).astype(np.float32)
    got = tm.selection.dymu_merge(x, threshold, size=size, protect=protect)
    expected = reduction.merge(x, size, *reduction.dymu_match(x, threshold, protect))
    np.testing.assert_allclose(got.x, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got.rows, expected[2])
    edges = [reduction.tome_edges(x, protect)] * 2
    limit = tm.selection.dymu_threshold([x, x], n / 8, protect=protect)
    assert limit == pytest.approx(reduction.dymu_threshold(edges, n / 8), abs=1e-5)
    merged = n - len(tm.selection.dymu_merge(x, limit, protect=protect).size)
    assert merged <= max(n / 8, 0)


def test_dymu_unmerges_attention():
    """Attention over the merged rows, each counted as often as it stands for rows, is attention over the unmerged sequence."""
    rng = np.random.default_rng(5)
    x = np.repeat(rng.standard_normal((6, 8)), 2, axis=0).astype(np.float32)  # every token twice
    merged = tm.selection.dymu_merge(x, 0.999)
    assert len(merged.size) == 6
    np.testing.assert_allclose(merged.x[merged.rows], x, rtol=1e-6)
    q = rng.standard_normal(8)
    full = np.exp(x @ q) @ x / np.exp(x @ q).sum()
    weights = np.exp(merged.x @ q + np.log(merged.size))
    np.testing.assert_allclose(weights @ merged.x / weights.sum(), full, rtol=1e-5)


def test_what_does_not_fit_is_refused():
    k = np.zeros((4, 2, 8), np.float32)
    with pytest.raises(ShapeError, match="scores"):
        tm.selection.kvmerger_merge(k, k, np.zeros((2, 3), np.float32))
    with pytest.raises(ShapeError, match="a multiple of 2 heads"):
        tm.selection.snapkv_scores(np.zeros((1, 3, 8), np.float32), k)
    with pytest.raises(ShapeError, match="queries"):
        tm.selection.snapkv_scores(np.zeros((5, 2, 8), np.float32), k)
    with pytest.raises(ShapeError, match="odd"):
        tm.selection.snapkv_scores(k[:1], k, kernel=4)
    with pytest.raises(ShapeError, match="lag"):
        tm.selection.lagkv_scores(k, k, lag=0)
