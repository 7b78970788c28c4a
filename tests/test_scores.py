"""What ranks, merges and unmasks tokens: each compiled function against its reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask.errors import ShapeError
from tokamask.reference import columns, fasa, indexer, quest, reduction, token_select
from tokamask.reference import lightning as linear
from tokamask.reference import unmask as unmasking
from tokamask.reference.floats import narrow, widen

DTYPES = st.sampled_from([np.float32, np.float16, np.uint16])


def paged(rng, lengths, *, page_size=16, heads=2, group=2, dim=16, dtype=np.float32):
    """Queries, keys, page table and lengths; unused entries of the table are broken."""
    batch, max_pages = len(lengths), max(-(-n // page_size) for n in lengths) + 1
    pages = batch * max_pages
    q = narrow(rng.standard_normal((batch, heads * group, dim)), dtype)
    k_cache = narrow(rng.standard_normal((pages, page_size, heads, dim)), dtype)
    page_table = rng.permutation(pages).reshape(batch, max_pages).astype(np.int32)
    for b, n in enumerate(lengths):
        page_table[b, -(-n // page_size) :] = -7
    return q, k_cache, page_table, np.array(lengths, np.int32)


LENGTHS = st.lists(st.sampled_from([0, 1, 16, 17, 30, 100]), min_size=1, max_size=3)


@given(
    lengths=LENGTHS,
    group=st.sampled_from([1, 3, 4]),
    page_size=st.sampled_from([1, 16]),
    counts=st.sampled_from([(0, 0, 0), (0, 5, 0), (2, 7, 3), (4, 0, 4), (1, 200, 1)]),
    dtype=DTYPES,
)
def test_token_select(lengths, group, page_size, counts, dtype):
    rng = np.random.default_rng(sum(lengths) + group)
    q, k_cache, page_table, seq_lens = paged(rng, lengths, group=group, page_size=page_size, dtype=dtype)
    n_init, k, n_local = counts
    out = np.full((len(lengths), 1, sum(counts)), -9, np.int32)
    got = tm.selection.token_select(
        q, k_cache, page_table, seq_lens=seq_lens, k=k, n_init=n_init, n_local=n_local, out=out
    )
    assert got is out
    expected = token_select.token_select(q, k_cache, page_table, seq_lens, k, n_init, n_local)
    np.testing.assert_array_equal(got, expected)


def test_token_select_of_a_long_sequence_feeds_sparse_decode():
    rng = np.random.default_rng(1)
    q, k_cache, page_table, seq_lens = paged(rng, [2500])
    selected = tm.selection.token_select(q, k_cache, page_table, seq_lens=seq_lens, k=50, n_init=4, n_local=8)
    expected = token_select.token_select(q, k_cache, page_table, seq_lens, 50, 4, 8)
    np.testing.assert_array_equal(selected, expected)
    o = tm.attention.sparse_decode(q, k_cache, k_cache, page_table, selected, seq_lens=seq_lens)
    assert np.isfinite(o).all()


def test_selection_cache():
    cache = tm.selection.SelectionCache(threshold=0.9)
    q = np.float32([[[1, 0], [0, 1]]])
    chosen = np.zeros((1, 1, 3), np.int32)
    assert cache.get(3, q) is None
    cache.put(3, q, chosen)
    q2 = q.copy()
    q[:] = -1  # the cache keeps its own copy
    assert cache.get(3, q2 * 5) is chosen
    assert cache.get(3, -q2) is None
    assert cache.get(4, q2) is None
    assert cache.get(3, np.repeat(q2, 2, axis=0)) is None
    assert cache.get(3, np.zeros_like(q2)) is chosen  # no direction at all


@given(lengths=LENGTHS, group=st.sampled_from([1, 3]), page_size=st.sampled_from([1, 5, 16]), dtype=DTYPES)
def test_quest(lengths, group, page_size, dtype):
    rng = np.random.default_rng(sum(lengths))
    q, k_cache, page_table, seq_lens = paged(
        rng, lengths, group=group, page_size=page_size, dim=20, dtype=dtype
    )
    low, high = tm.selection.quest_bounds(k_cache, page_table, seq_lens=seq_lens)
    expected = quest.quest_bounds(k_cache, page_table, seq_lens)
    np.testing.assert_array_equal(low, expected[0])
    np.testing.assert_array_equal(high, expected[1])
    scores = tm.selection.quest_scores(q, low, high, page_table, seq_lens=seq_lens, page_size=page_size)
    wanted = quest.quest_scores(q, low, high, page_table, seq_lens, page_size)
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5)
    # The bound holds for every key of the page.
    for b, n in enumerate(lengths):
        for t in range(n):
            for h in range(q.shape[1]):
                key = widen(k_cache[page_table[b, t // page_size], t % page_size, h // group])
                assert widen(q[b, h]) @ key <= scores[b, h // group, t // page_size] + 1e-3


def test_page_tokens():
    pages = np.int32([[[0, 2, -1]]])
    got = tm.selection.page_tokens(pages, 3, seq_lens=np.int32([8]))
    assert got.tolist() == [[[0, 1, 2, 6, 7, -1, -1, -1, -1]]]
    np.testing.assert_array_equal(got, quest.page_tokens(pages, np.int32([8]), 3))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_fasa(interleaved, dtype):
    rng = np.random.default_rng(2)
    q, k_cache, page_table, seq_lens = paged(rng, [70, 0, 17], group=3, dtype=dtype)
    dominant = np.int32([[0, 3, 7], [2, 5, 6]])
    out = np.full((3, 2, page_table.shape[1] * 16), np.nan, np.float32)
    got = tm.selection.fasa_scores(
        q, k_cache, page_table, dominant, seq_lens=seq_lens, interleaved=interleaved, out=out
    )
    expected = fasa.fasa_scores(q, k_cache, page_table, dominant, seq_lens, interleaved)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="dominant"):
        tm.selection.fasa_scores(q, k_cache, page_table, dominant + 2, seq_lens=seq_lens)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_fasa_from_the_dominant_channels_alone(interleaved, dtype):
    rng = np.random.default_rng(7)
    q, k_cache, page_table, seq_lens = paged(rng, [1300, 3], group=2, dtype=dtype)
    dominant = np.int32([[0, 3, 7], [2, 5, 5]])  # one that counts twice
    channels = np.stack([fasa.chunk_channels(row, 16, interleaved) for row in dominant])
    side = np.take_along_axis(k_cache, np.broadcast_to(channels, (*k_cache.shape[:2], 2, 6)), axis=3)
    options = {"seq_lens": seq_lens, "interleaved": interleaved}
    expected = fasa.fasa_scores(q, k_cache, page_table, dominant, seq_lens, interleaved)
    for keys in (k_cache, side.copy()):
        got = tm.selection.fasa_scores(q, keys, page_table, dominant, **options)
        np.testing.assert_allclose(got, expected, rtol=5e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="k_cache"):
        tm.selection.fasa_scores(q, side[..., :4].copy(), page_table, dominant, **options)


def test_fasa_reads_no_other_channel():
    rng = np.random.default_rng(8)
    q, k_cache, page_table, seq_lens = paged(rng, [40])
    dominant = np.int32([[1, 4], [0, 6]])
    others = np.setdiff1d(np.arange(16), fasa.chunk_channels(dominant[0], 16, False))
    k_cache[page_table[0, 1], 3, 0, others] = np.nan
    k_cache[page_table[0, 2], 5, 0, others] = np.inf
    got = tm.selection.fasa_scores(q, k_cache, page_table, dominant, seq_lens=seq_lens)
    expected = fasa.fasa_scores(q, k_cache, page_table, dominant, seq_lens)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


@given(
    samples=st.sampled_from([0, 1, 5]),
    group=st.sampled_from([1, 3]),
    top=st.sampled_from([0, 1, 9, 60]),
    n_chunks=st.sampled_from([0, 1, 5, 8]),
    interleaved=st.booleans(),
    dtype=DTYPES,
)
def test_fasa_calibrate(samples, group, top, n_chunks, interleaved, dtype):
    """Small integers: sums are exact, and ties are real."""
    rng = np.random.default_rng(samples + top)
    q = narrow(rng.integers(-3, 4, (samples, 2 * group, 16)), dtype)
    k = narrow(rng.integers(-3, 4, (50, 2, 16)), dtype)
    got = tm.selection.fasa_calibrate(q, k, n_chunks, top=top, interleaved=interleaved)
    np.testing.assert_array_equal(got, fasa.fasa_calibrate(q, k, n_chunks, top, interleaved))


def test_fasa_calibration_finds_the_chunk_that_matters():
    rng = np.random.default_rng(3)
    q, k = rng.standard_normal((4, 2, 8)) * 0.01, rng.standard_normal((50, 1, 8))
    q[..., [2, 6]] = rng.standard_normal((4, 2, 2))  # chunk 2 of a head of 8, NeoX
    chosen = tm.selection.fasa_calibrate(q.astype(np.float32), k.astype(np.float32), 1, top=10)
    assert chosen.tolist() == [[2]]


@given(
    tokens=st.sampled_from([0, 1, 31, 33, 200]),
    queries=st.sampled_from([1, 3]),
    heads=st.sampled_from([1, 5, 8]),
    dtype=DTYPES,
)
def test_indexer_and_hisa(tokens, queries, heads, dtype):
    """Small integers, so that every sum is exact and ties are real."""
    rng = np.random.default_rng(tokens + heads)
    q = narrow(rng.integers(-2, 3, (queries, heads, 16)), dtype)
    k = narrow(rng.integers(-2, 3, (tokens, 16)), dtype)
    w = rng.integers(-2, 3, (queries, heads)).astype(np.float32)
    positions = rng.integers(-1, tokens + 1, queries).astype(np.int32)
    out = np.full((queries, tokens), np.nan, np.float32)
    got = tm.selection.indexer_scores(q, k, w, positions=positions, out=out)
    np.testing.assert_array_equal(got, indexer.indexer_scores(q, k, w, positions))
    for n_tokens, n_blocks, block in ((10, 2, 8), (40, 3, 16), (7, 50, 4)):
        selected = tm.selection.hisa_select(
            q, k, w, n_tokens, positions=positions, n_blocks=n_blocks, block=block
        )
        expected = indexer.hisa_select(q, k, w, positions, n_tokens, n_blocks, block)
        np.testing.assert_array_equal(selected, expected)
        if n_blocks * block >= tokens:  # every block looked into: the plain indexer's top-k
            best = tm.selection.top_k(got, n_tokens, lengths=np.minimum(positions + 1, tokens))
            np.testing.assert_array_equal(selected, best)


@pytest.mark.parametrize(("queries", "tokens"), [(1, 1), (5, 5), (20, 75), (3, 64)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_attention_column_sums(queries, tokens, dtype):
    rng = np.random.default_rng(queries)
    q = narrow(rng.standard_normal((queries, 6, 24)), dtype)
    k = narrow(rng.standard_normal((tokens, 2, 24)), dtype)
    out = np.full((6, tokens), np.nan, np.float32)
    got = tm.selection.attention_column_sums(q, k, out=out)
    np.testing.assert_allclose(got, columns.attention_column_sums(q, k), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got.sum(axis=1), queries, rtol=1e-5)


def signs(rng, n, dim):
    """Rows of +-1 with a length that is a power of two: every cosine is exact, and many are equal."""
    return rng.choice(np.float32([-1, 1]), (n, dim))


@given(
    n=st.sampled_from([0, 1, 2, 31, 33, 70]),
    k=st.sampled_from([0, 1, 5, 100]),
    mode=st.sampled_from(["maxmin", "maxsum", "mmr"]),
    dtype=DTYPES,
)
def test_greedy_select(n, k, mode, dtype):
    rng = np.random.default_rng(n * 100 + k)
    x = signs(rng, n, 16)
    x[rng.random(n) < 0.1] = 0
    importance = rng.integers(0, 5, n).astype(np.float32) if mode == "mmr" else None
    if importance is not None and n > 1:
        importance[:2] = 0, 4
    x = narrow(x, dtype)
    got = tm.selection.greedy_select(x, k, mode=mode, importance=importance)
    np.testing.assert_array_equal(got, reduction.greedy_select(x, k, mode, importance))
    if n > 1:
        both = None if importance is None else np.stack([importance, importance[::-1]])
        batch = tm.selection.greedy_select(np.stack([x, x[::-1]]), k, mode=mode, importance=both)
        np.testing.assert_array_equal(batch[0], got)


def test_greedy_select_keeps_the_outlier():
    x = np.ones((6, 4), np.float32)
    x[4] = -1
    assert tm.selection.greedy_select(x, 2).tolist() == [0, 4]
    with pytest.raises(ShapeError, match="mode"):
        tm.selection.greedy_select(x, 2, mode="mmr")
    with pytest.raises(ShapeError, match="mode"):
        tm.selection.greedy_select(x, 2, mode="best")


@given(
    n=st.sampled_from([0, 1, 2, 9, 40, 67]),
    r=st.sampled_from([0, 1, 8, 100]),
    protect=st.sampled_from([0, 1, 3]),
    dtype=DTYPES,
)
def test_tome_and_pitome(n, r, protect, dtype):
    rng = np.random.default_rng(n + r)
    x = narrow(rng.standard_normal((n, 6)), dtype)
    metric = signs(rng, n, 16)
    size = rng.integers(1, 4, n).astype(np.float32)
    margin = 0.5
    cases = [(tm.selection.tome_merge, {}, reduction.tome_match(metric, r, protect))]
    if n > protect:
        match = reduction.pitome_match(metric, r, margin, protect)
        cases.append((tm.selection.pitome_merge, {"margin": margin}, match))
    for function, options, pairs in cases:
        got = function(x, r, metric=metric, size=size, protect=protect, **options)
        expected = reduction.merge(x, size, *pairs)
        np.testing.assert_array_equal(got.rows, expected[2])
        np.testing.assert_array_equal(got.size, expected[1])
        np.testing.assert_allclose(got.x, expected[0], rtol=1e-5, atol=1e-5)
        assert len(got.x) == n - len(pairs[0])
        # What is kept in all: sizes, and the weighted sum of the rows.
        assert got.size.sum() == size.sum()
        np.testing.assert_allclose(got.size @ got.x, size @ widen(x), rtol=1e-4, atol=1e-3)


def test_tome_by_hand():
    """Six tokens: rows 0, 2, 4 propose to 1, 3, 5; 2 equals 3 and 4 is nearest to 1."""
    x = np.float32([[1, 0], [0, 1], [-1, 0], [-1, 0], [0.1, 1], [0, -1]])
    merged = tm.selection.tome_merge(x, 2)
    assert merged.rows.tolist() == [0, 1, 2, 2, 1, 3]
    assert merged.size.tolist() == [1, 2, 2, 1]
    np.testing.assert_allclose(merged.x[merged.rows][2], [-1, 0])


@given(
    vocab_size=st.sampled_from([1, 33, 700]),
    density=st.sampled_from([None, 0.0, 0.02, 0.7]),
    threshold=st.sampled_from([None, 0.0, 0.3, 0.999]),
    count=st.sampled_from([None, 0, 1, 3]),
    dtype=DTYPES,
)
def test_unmask(vocab_size, density, threshold, count, dtype):
    rng = np.random.default_rng(vocab_size)
    x = np.round(rng.standard_normal((9, vocab_size)) * 4)
    x[rng.random(x.shape) < 0.05] = np.nan
    x[5] = x[4]
    logits, masked = narrow(x, dtype), rng.random(9) < 0.7
    bitmask = None
    if density is not None:
        bits = rng.random((9, -(-vocab_size // 32) * 32)) < density
        bitmask = np.packbits(bits, axis=1, bitorder="little").view(np.int32).copy()
    got = tm.selection.unmask(logits, masked, bitmask=bitmask, threshold=threshold, count=count)
    expected = unmasking.unmask(logits, masked, bitmask, threshold, count)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@given(masked=st.integers(0, 300), steps=st.integers(1, 40))
def test_unmask_schedule(masked, steps):
    even = tm.selection.unmask_schedule(masked, steps)
    assert even.sum() == masked
    assert even.max() - even.min() <= 1
    assert (np.diff(even) <= 0).all()
    cosine = tm.selection.unmask_schedule(np.int32([masked, 7]), steps, law="cosine")
    assert cosine.sum(axis=1).tolist() == [masked, 7]
    assert (cosine >= 0).all()
    left = masked - np.cumsum(cosine[0])  # a hand-worked law: what is left falls as a cosine
    expected = masked * np.cos(np.pi / 2 * np.arange(1, steps + 1) / steps)
    assert (abs(left - expected) <= 1 + 1e-6).all()


def test_unmask_by_a_schedule_decides_every_position():
    logits = np.random.default_rng(3).standard_normal((20, 50)).astype(np.float32)
    masked = np.ones(20, bool)
    for count in tm.selection.unmask_schedule(20, 6, law="cosine"):
        accepted = tm.selection.unmask(logits, masked, count=int(count))[2]
        assert accepted.sum() == count
        masked &= ~accepted
    assert not masked.any()
    for bad in (
        {"masked": -1, "steps": 2},
        {"masked": 4, "steps": 0},
        {"masked": 4, "steps": 2, "law": "linear"},
    ):
        with pytest.raises(ShapeError):
            tm.selection.unmask_schedule(**bad)


@given(
    tokens=st.sampled_from([0, 1, 5, 64, 65, 150]),
    dk=st.sampled_from([1, 8, 13, 40]),
    dv=st.sampled_from([1, 8, 40]),
    dtype=DTYPES,
)
def test_lightning(tokens, dk, dv, dtype):
    rng = np.random.default_rng(tokens)
    q, k = (narrow(rng.standard_normal((2, 3, tokens, dk)), dtype) for _ in range(2))
    v = narrow(rng.standard_normal((2, 3, tokens, dv)), dtype)
    decay = np.float32([0, 0.1, 40])
    state = rng.standard_normal((2, 3, dk, dv)).astype(np.float32)
    out = narrow(np.full((2, 3, tokens, dv), np.nan), dtype)
    expected = linear.lightning(q, k, v, decay, state)
    got = tm.attention.lightning(q, k, v, decay, state=state, out=out)
    assert got[0] is out
    assert got[1] is state
    loose = {np.float32: 1e-4, np.float16: 2e-2, np.uint16: 1e-1}[dtype]
    np.testing.assert_allclose(widen(got[0]), widen(expected[0]), rtol=loose, atol=loose * 10)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-4, atol=1e-4)


def test_lightning_looks_at_no_later_token():
    rng = np.random.default_rng(9)
    q, k, v = rng.standard_normal((3, 1, 2, 50, 16)).astype(np.float32)
    decay = np.float32([0.2, 0.01])
    whole, _ = tm.attention.lightning(q, k, v, decay)
    v[0, 0, 37, 3], k[0, 1, 41, 2] = np.inf, np.nan
    broken, _ = tm.attention.lightning(q, k, v, decay)
    for head, first in ((0, 37), (1, 41)):
        np.testing.assert_allclose(broken[0, head, :first], whole[0, head, :first], rtol=1e-3, atol=1e-4)
        assert not np.isfinite(broken[0, head, first:]).all()


def test_lightning_step_by_step_is_prefill():
    rng = np.random.default_rng(4)
    q, k, v = rng.standard_normal((3, 1, 2, 6, 8)).astype(np.float32)
    decay = np.float32([0.2, 0.01])
    whole, after = tm.attention.lightning(q, k, v, decay)
    state = None
    for t in range(6):
        step = (np.ascontiguousarray(x[:, :, t : t + 1]) for x in (q, k, v))
        o, state = tm.attention.lightning(*step, decay, state=state)
        np.testing.assert_allclose(o[:, :, 0], whole[:, :, t], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state, after, rtol=1e-5, atol=1e-6)
