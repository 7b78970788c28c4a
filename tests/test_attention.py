"""Attention over a paged cache: the compiled kernels against the float64 reference."""

import os
import signal
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask.errors import ShapeError
from tokamask.reference import append_kv as append_definition
from tokamask.reference import attention as reference
from tokamask.reference.floats import narrow, widen

TOLERANCE = {
    np.dtype(np.float32): 3e-5,
    np.dtype(np.float16): 2e-3,
    np.dtype(np.uint16): 2e-2,
}


def close(got, expected):
    np.testing.assert_allclose(
        widen(got), widen(expected), rtol=TOLERANCE[got.dtype], atol=TOLERANCE[got.dtype]
    )


class Case:
    """A random paged cache; pages in random order, unused page table entries broken on purpose."""

    def __init__(
        self,
        rng,
        lengths,
        *,
        page_size=16,
        heads=2,
        group=2,
        dim=32,
        v_dim=None,
        dtype=np.float32,
        nodes=None,
    ):
        v_dim = v_dim or dim
        batch, max_pages = len(lengths), max([-(-n // page_size) for n in lengths]) + 1
        pages = batch * max_pages
        draw = lambda *shape: narrow(rng.standard_normal(shape), dtype)  # noqa: E731
        shape = (batch,) if nodes is None else (batch, nodes)
        self.q = draw(*shape, heads * group, dim)
        self.k_cache, self.v_cache = (draw(pages, page_size, heads, d) for d in (dim, v_dim))
        self.page_table = rng.permutation(pages).reshape(batch, max_pages).astype(np.int32)
        self.seq_lens = np.array(lengths, np.int32)
        for b, n in enumerate(lengths):
            self.page_table[b, -(-n // page_size) :] = -99
        self.o_shape = (*self.q.shape[:-1], v_dim)
        self.v_dim, self.batch, self.heads = v_dim, batch, heads

    @property
    def cache(self):
        return self.q, self.k_cache, self.v_cache, self.page_table

    def filled(self):
        """An output that shows what was not written."""
        return narrow(np.full(self.o_shape, np.nan), self.q.dtype)

    def decode(self, **options):
        out = self.filled()
        o, lse = tm.attention.decode(*self.cache, seq_lens=self.seq_lens, return_lse=True, out=out, **options)
        expected = reference.decode(*self.cache, self.seq_lens, options.get("scale"), options.get("sinks"))
        assert o is out
        close(o, expected[0])
        np.testing.assert_allclose(lse, expected[1], rtol=1e-5, atol=2e-5)
        return o, lse

    def sparse(self, selected, **options):
        out = self.filled()
        o, lse = tm.attention.sparse_decode(
            *self.cache, selected, seq_lens=self.seq_lens, return_lse=True, out=out, **options
        )
        expected = reference.sparse_decode(
            *self.cache, selected, self.seq_lens, options.get("scale"), options.get("sinks")
        )
        assert o is out
        close(o, expected[0])
        np.testing.assert_allclose(lse, expected[1], rtol=1e-5, atol=2e-5)
        return o, lse


SIZES = {
    "page_size": st.sampled_from([1, 3, 16, 64]),
    "heads": st.sampled_from([1, 2, 3]),
    "group": st.sampled_from([1, 2, 4, 5, 7]),
    "dim": st.sampled_from([1, 8, 20, 64]),
    "v_dim": st.sampled_from([None, 5, 16, 40]),
    "dtype": st.sampled_from([np.float32, np.float16, np.uint16]),
}


@given(lengths=st.lists(st.sampled_from([0, 1, 2, 15, 16, 17, 33, 100]), min_size=1, max_size=3), **SIZES)
def test_decode(lengths, **sizes):
    Case(np.random.default_rng(sum(lengths)), lengths, **sizes).decode()


@given(
    lengths=st.lists(st.sampled_from([0, 1, 17, 70]), min_size=1, max_size=3), k=st.integers(0, 80), **SIZES
)
def test_sparse_decode_with_holes_and_duplicates(lengths, k, **sizes):
    rng = np.random.default_rng(k)
    case = Case(rng, lengths, **sizes)
    heads = rng.choice([1, case.heads])
    selected = rng.integers(-3, 75, (case.batch, heads, k)).astype(
        np.int32
    )  # holes, duplicates, beyond the end
    case.sparse(selected, scale=0.3)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_many_splits(dtype):
    """Lengths beyond one split, with sinks."""
    rng = np.random.default_rng(0)
    case = Case(rng, [1300, 0, 513], heads=2, group=4, dim=64, dtype=dtype)
    sinks = rng.standard_normal(8).astype(np.float32)
    case.decode(sinks=sinks)
    case.sparse(rng.integers(-1, 1300, (3, 2, 1100)).astype(np.int32), sinks=sinks)


def test_everything_selected_is_dense():
    rng = np.random.default_rng(1)
    case = Case(rng, [40, 23])
    everything = np.tile(np.arange(40, dtype=np.int32), (2, 1, 1))
    dense, sparse = case.decode(), case.sparse(everything)
    close(sparse[0], dense[0])
    # In another order, too; and the order of pages does not matter by construction of the cases.
    close(case.sparse(np.ascontiguousarray(everything[..., ::-1]))[0], dense[0])


def test_nothing_selected_gives_zero():
    case = Case(np.random.default_rng(2), [5, 0])
    o, lse = case.sparse(np.full((2, 2, 4), -1, np.int32))
    assert (o == 0).all()
    assert (lse == -np.inf).all()
    o, lse = case.sparse(np.zeros((2, 1, 0), np.int32), sinks=np.zeros(4, np.float32))
    assert (o == 0).all()
    assert (lse == -np.inf).all()


def test_nan_stays_with_its_reader():
    """A NaN key spoils the queries that read it and no others; a NaN that is not selected spoils nothing."""
    case = Case(np.random.default_rng(3), [20, 20])
    case.k_cache[case.page_table[0, 0], 3, 1, 0] = np.nan
    o = tm.attention.decode(*case.cache, seq_lens=case.seq_lens)
    assert np.isnan(o[0, 2:]).all()
    assert np.isfinite(o[0, :2]).all()
    assert np.isfinite(o[1]).all()
    others = np.array([i for i in range(20) if i != 3], np.int32)
    assert np.isfinite(case.sparse(np.tile(others, (2, 2, 1)))[0]).all()


def test_large_scores_do_not_overflow():
    case = Case(np.random.default_rng(4), [50], dim=8)
    case.q *= np.float32(300)
    case.decode(scale=1.0)
    case.k_cache[:] = -np.inf  # all scores infinite or NaN: whatever the reference says
    case.q[:] = 1
    o, lse = case.decode()
    assert (o == 0).all()
    assert (lse == -np.inf).all()


def test_strided_caches():
    """Halves of one combined array, as flashinfer lays them out."""
    rng = np.random.default_rng(5)
    case = Case(rng, [37, 8])
    both = np.stack([case.k_cache, case.v_cache], axis=1)
    expected = case.decode()[0]
    case.k_cache, case.v_cache = both[:, 0], both[:, 1]
    np.testing.assert_array_equal(case.decode()[0], expected)


def random_tree(rng, nodes):
    """Ancestor words of a random tree: row i holds i and the row of a random earlier node."""
    rows = []
    for i in range(nodes):
        rows.append(1 << i | (rows[rng.integers(0, i)] if i else 0))
    return np.array(
        [[row >> 64 * w & (2**64 - 1) for w in range(-(-nodes // 64))] for row in rows], np.uint64
    )


@given(
    lengths=st.lists(st.sampled_from([0, 1, 17, 40]), min_size=1, max_size=2),
    nodes=st.sampled_from([1, 2, 5, 33]),
    **SIZES,
)
def test_tree_decode(lengths, nodes, **sizes):
    rng = np.random.default_rng(nodes)
    case = Case(rng, lengths, nodes=nodes, **sizes)
    mask = np.stack([random_tree(rng, nodes) for _ in lengths])
    mask[0, rng.integers(0, nodes)] = 0  # padding
    check_tree(rng, case, mask)


def check_tree(rng, case, mask):
    batch, nodes = case.q.shape[:2]
    k_tree = narrow(rng.standard_normal((batch, nodes, *case.k_cache.shape[2:])), case.q.dtype)
    v_tree = narrow(rng.standard_normal((batch, nodes, *case.v_cache.shape[2:])), case.q.dtype)
    unseen = ~reference.tree_bits(np.broadcast_to(mask, (batch, *mask.shape[-2:])), nodes).any(axis=1)
    k_tree[unseen], v_tree[unseen] = narrow(np.nan, case.q.dtype), narrow(np.nan, case.q.dtype)
    out = case.filled()
    o, lse = tm.attention.tree_decode(
        *case.cache, mask, k_tree, v_tree, seq_lens=case.seq_lens, return_lse=True, out=out
    )
    wide_mask = mask if mask.ndim == 3 else mask[None]
    expected = reference.tree_decode(*case.cache, wide_mask, k_tree, v_tree, case.seq_lens)
    close(o, expected[0])
    np.testing.assert_allclose(lse, expected[1], rtol=1e-5, atol=2e-5)


def test_tree_of_many_words_and_a_long_prefix():
    rng = np.random.default_rng(6)
    check_tree(rng, Case(rng, [2100], nodes=70, heads=1, dim=16), random_tree(rng, 70))


def test_chain_is_causal_attention():
    """A chain of nodes sees what decode sees once the nodes are in the cache."""
    rng = np.random.default_rng(7)
    case = Case(rng, [20], nodes=4)
    chain = np.array([[1], [3], [7], [15]], np.uint64)
    slots = [(case.page_table[0, i // 16], i % 16) for i in range(16, 20)]
    k_tree = np.stack([case.k_cache[s] for s in slots])[None]
    v_tree = np.stack([case.v_cache[s] for s in slots])[None]
    o = tm.attention.tree_decode(*case.cache, chain, k_tree, v_tree, seq_lens=np.array([16], np.int32))
    for i in range(4):
        dense = tm.attention.decode(
            case.q[:, i].copy(), *case.cache[1:], seq_lens=np.array([17 + i], np.int32)
        )
        close(o[:, i], dense)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_merge_states(dtype):
    rng = np.random.default_rng(8)
    v = narrow(rng.standard_normal((3, 4, 2, 9)), dtype)
    lse = rng.standard_normal((3, 4, 2)).astype(np.float32) * 4
    lse[0, :, 0] = -np.inf
    lse[1, 2:] = -np.inf
    v[1, 2:] = narrow(np.nan, dtype)
    out = narrow(np.full((3, 2, 9), np.nan), dtype), np.full((3, 2), np.nan, np.float32)
    got = tm.attention.merge_states(v, lse, out=out[0], lse_out=out[1])
    expected = reference.merge_states(v, lse)
    assert got[0] is out[0]
    close(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-6)
    # Associativity: the first two parts merged first.
    if dtype == np.float32:
        first, rest = tm.attention.merge_states(v[:, :2].copy(), lse[:, :2].copy()), (v[:, 2:], lse[:, 2:])
        joined = (np.concatenate([a[:, None], b], axis=1) for a, b in zip(first, rest, strict=True))
        close(tm.attention.merge_states(*joined)[0], got[0])


def test_splitting_and_merging_is_dense():
    rng = np.random.default_rng(9)
    case = Case(rng, [60])
    halves = [np.arange(25, dtype=np.int32), np.arange(25, 60, dtype=np.int32)]
    parts = [case.sparse(np.tile(half, (1, 1, 1))) for half in halves]
    v, lse = (np.stack([part[i] for part in parts], axis=1) for i in range(2))
    close(tm.attention.merge_states(v, lse)[0], case.decode()[0])


@given(
    counts=st.lists(st.sampled_from([0, 1, 2, 9]), min_size=1, max_size=4),
    page_size=st.sampled_from([1, 4]),
    layout=st.sampled_from(["NHD", "HND"]),
    interleaved=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float16, np.uint16]),
)
def test_append_kv(counts, page_size, layout, interleaved, dtype):
    """Keys and values in one array, as FlashInfer keeps them; the last sequences have no room for all."""
    rng = np.random.default_rng(sum(counts) + page_size)
    batch, heads, dim = len(counts), 2, 8
    rows = narrow(rng.standard_normal((3, sum(counts), heads, dim)), dtype)
    lengths = (np.array(counts) + rng.integers(0, 5, batch)).astype(np.int32)
    table = rng.permutation(batch * 6).reshape(batch, 6).astype(np.int32)
    dominant = np.int32([[0, 3], [1, 1]])
    sizes = (page_size, heads) if layout == "NHD" else (heads, page_size)
    made = []
    for append in (tm.attention.append_kv, append_definition.append_kv):
        cache = narrow(np.full((batch * 6, 2, *sizes, dim), 7.0), dtype)
        bounds = (
            np.full((batch * 6, heads, dim), 9, np.float32),
            np.full((batch * 6, heads, dim), 9, np.float32),
        )
        side = narrow(np.full((batch * 6, page_size, heads, 4), 7.0), dtype)
        index = (
            narrow(np.full((batch * 6, page_size, dim), 7.0), dtype),
            np.full((batch * 6, dim), 9, np.float32),
        )
        append(
            *(rows[0], rows[1], *tm.attention.kv_views(cache, layout), table),
            seq_lens=lengths,
            indptr=np.cumsum([0, *counts]).astype(np.int32),
            bounds=bounds,
            side=(dominant, side),
            index=(rows[2, :, 0].copy(), *index),
            interleaved=interleaved,
        )
        made.append((cache, *bounds, side, *index))
    for got, expected in zip(*made, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_append_kv_writes_to_no_other_page():
    cache, rows = np.zeros((2, 3, 4, 1, 8), np.float32), np.ones((1, 1, 8), np.float32)
    for page in (-1, 3):
        with pytest.raises(ShapeError, match="page_table"):
            tm.attention.append_kv(rows, rows, *cache, np.int32([[page]]), seq_lens=np.int32([2]))
    table, indptr = np.int32([[0]]), np.int32([0, 2])
    with pytest.raises(ShapeError, match="indptr"):
        tm.attention.append_kv(rows, rows, *cache, table, seq_lens=np.int32([2]), indptr=indptr)
    assert not cache.any()


def test_a_forked_process_works_alone():
    """The threads of the kernels stay with the parent."""
    case = Case(np.random.default_rng(1), [30_000], heads=4, dim=64)
    whole = tm.attention.decode(case.q, case.k_cache, case.v_cache, case.page_table, seq_lens=case.seq_lens)
    child = os.fork()
    if not child:
        again = tm.attention.decode(
            case.q, case.k_cache, case.v_cache, case.page_table, seq_lens=case.seq_lens
        )
        os._exit(0 if np.array_equal(whole, again) else 1)
    deadline = time.monotonic() + 20
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if done == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done == (child, 0)


def test_wrong_arguments_are_named():
    case = Case(np.random.default_rng(10), [5, 9])
    lens = case.seq_lens
    with pytest.raises(ShapeError) as error:
        tm.attention.sparse_decode(*case.cache, np.zeros((2, 3, 4), np.int32), seq_lens=lens)
    assert str(error.value) == "selected: expected int32 [batch=2, num_kv_heads=2, k], got int32 [2, 3, 4]"
    with pytest.raises(
        ShapeError, match=r"k_cache: expected float32 \[pages, page_size, num_kv_heads, head_dim=32\]"
    ):
        tm.attention.decode(case.q, case.k_cache[..., :8], *case.cache[2:], seq_lens=lens)
    with pytest.raises(ShapeError, match="v_cache: expected float32"):
        tm.attention.decode(*case.cache[:2], case.v_cache.astype(np.float16), case.page_table, seq_lens=lens)
    with pytest.raises(ShapeError, match="seq_lens: expected at most"):
        tm.attention.decode(*case.cache, seq_lens=np.array([5, 900], np.int32))
    with pytest.raises(ShapeError, match="page_table: expected pages in"):
        tm.attention.decode(*case.cache, seq_lens=np.array([5, 20], np.int32))
    with pytest.raises(ShapeError, match="q: expected a multiple of 2 heads"):
        tm.attention.decode(case.q[:, :3].copy(), *case.cache[1:], seq_lens=lens)
    with pytest.raises(ShapeError, match="out: expected float32"):
        tm.attention.decode(*case.cache, seq_lens=lens, out=np.zeros((2, 4, 31), np.float32))
