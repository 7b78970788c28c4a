"""append_kv: emulated kernel == Python == what the selectors compute from the whole cache; and the layouts of other engines."""

import numpy as np
import pytest
from cuda_engines import QUICK, Emulator, cast, engine, reference  # noqa: F401

import tokamask as tm
from tokamask.errors import ShapeError
from tokamask.reference.floats import widen

ELEMENTS = ["bf16"] if QUICK else ["f32", "bf16", "f16"]


def caches(element, *, pages=12, page_size=8, heads=2, dim=64, chunks=4, index_dim=16):
    """Empty caches and everything beside them, all holding garbage."""
    shapes = (
        (pages, page_size, heads, dim),
        (pages, page_size, heads, 2 * chunks),
        (pages, page_size, index_dim),
    )
    k, v = (cast(np.full(shapes[0], 7.0), element) for _ in "kv")
    bounds = tuple(np.full((pages, heads, dim), 9, np.float32) for _ in range(2))
    side = np.array([[0, 3, 9, 31], [1, 2, 5, 30]], np.int32), cast(np.full(shapes[1], 7.0), element)
    index = cast(np.full(shapes[2], 7.0), element), np.full((pages, index_dim), 9, np.float32)
    return k, v, bounds, side, index


@pytest.mark.sanitized
@pytest.mark.parametrize("element", ELEMENTS)
def test_appending_in_any_portions_keeps_everything_up_to_date(engine, element):  # noqa: F811
    """Portions that end before, at and behind the edge of a page; tokens of no sequence; one sequence that gets none."""
    rng = np.random.default_rng(1)
    lengths = np.array([0, 0, 0], np.int32)
    table = rng.permutation(12).reshape(3, 4).astype(np.int32)
    k_cache, v_cache, bounds, side, (index_cache, sums) = caches(element)
    history = [[], [], []]
    for counts in ((3, 8, 0), (5, 1, 0), (1, 1, 1), (0, 20, 2)):
        n = sum(counts)
        k, v = (cast(rng.standard_normal((n, 2, 64)), element) for _ in "kv")
        keys = cast(rng.standard_normal((n, 16)), element)
        indptr = np.cumsum([0, *counts]).astype(np.int32)
        lengths = lengths + np.array(counts, np.int32)
        decode = counts == (1, 1, 1)
        engine.call(
            *("attention", "append_kv", k, v, k_cache, v_cache, table),
            seq_lens=lengths,
            indptr=None if decode else indptr,
            bounds=bounds,
            side=side,
            index=(keys, index_cache, sums),
        )
        for b in range(3):
            history[b] += [(k[i], v[i], keys[i]) for i in range(indptr[b], indptr[b + 1])]
    low, high = reference("quest").quest_bounds(k_cache, table, lengths)
    for b, rows in enumerate(history):
        for position, (k, v, keys) in enumerate(rows):
            page, slot = table[b, position // 8], position % 8
            np.testing.assert_array_equal(k_cache[page, slot], k)
            np.testing.assert_array_equal(v_cache[page, slot], v)
            np.testing.assert_array_equal(index_cache[page, slot], keys)
            for h in range(2):
                channels = reference("fasa").chunk_channels(side[0][h], 64, False)
                np.testing.assert_array_equal(side[1][page, slot, h], k[h, channels])
        for first in range(0, len(rows), 8):
            page = table[b, first // 8]
            np.testing.assert_array_equal(bounds[0][page], low[page])
            np.testing.assert_array_equal(bounds[1][page], high[page])
            total = np.float32(0)
            for _, _, keys in rows[first : first + 8]:
                total = total + widen(keys)
            np.testing.assert_array_equal(sums[page], total)
    used = {int(table[b, p]) for b in range(3) for p in range(-(-len(history[b]) // 8))}
    for page in set(range(12)) - used:
        assert (widen(k_cache[page]) == 7).all()
        assert (bounds[0][page] == 9).all()


@pytest.mark.sanitized
def test_what_the_page_table_has_no_room_for_is_passed_over(engine):  # noqa: F811
    k_cache, v_cache, *_ = caches("f32")
    rows = np.ones((6, 2, 64), np.float32)
    table, indptr = np.array([[3]], np.int32), np.array([0, 6], np.int32)
    engine.call(
        "attention",
        "append_kv",
        rows,
        rows,
        k_cache,
        v_cache,
        table,
        seq_lens=np.array([10], np.int32),
        indptr=indptr,
    )
    assert (k_cache[3, :4] == 7).all()
    assert (k_cache[3, 4:] == 1).all()  # positions 4 to 7; 8 and 9 have no page
    assert (np.delete(k_cache, 3, axis=0) == 7).all()


def test_nan_leaves_bounds_alone_and_interleaved_channels(engine):  # noqa: F811
    k_cache, v_cache, bounds, (dominant, side), _ = caches("f32", pages=1)
    rows = np.arange(128, dtype=np.float32).reshape(1, 2, 64)
    rows[0, 0, 5] = np.nan
    options = {
        "seq_lens": np.array([1], np.int32),
        "bounds": bounds,
        "side": (dominant, side),
        "interleaved": True,
    }
    engine.call("attention", "append_kv", rows, rows, k_cache, v_cache, np.zeros((1, 1), np.int32), **options)
    assert (bounds[0][0, 0, 5], bounds[1][0, 0, 5], bounds[0][0, 0, 6]) == (np.inf, -np.inf, 6)
    assert side[0, 0, 1].tolist() == [66, 68, 74, 124, 67, 69, 75, 125]


def test_a_selector_finds_the_same_by_side_caches_as_by_keys():
    """The whole way: append, then FASA by its side cache and Quest by its kept bounds."""
    rng = np.random.default_rng(3)
    run = Emulator().call
    k_cache, v_cache, bounds, side, _ = caches("f32", chunks=8)
    side = np.stack([np.arange(8), np.arange(20, 28)]).astype(np.int32), side[1]
    table, lengths = np.arange(12, dtype=np.int32).reshape(2, 6), np.array([41, 40], np.int32)
    rows = rng.standard_normal((81, 2, 64)).astype(np.float32)
    options = {"indptr": np.array([0, 41, 81], np.int32), "bounds": bounds, "side": side}
    run("attention", "append_kv", rows, rows, k_cache, v_cache, table, seq_lens=lengths, **options)
    q = rng.standard_normal((2, 4, 64)).astype(np.float32)
    by_side = run("selection", "fasa_scores", q, side[1], table, side[0], seq_lens=lengths)
    by_keys = run("selection", "fasa_scores", q, k_cache, table, side[0], seq_lens=lengths)
    np.testing.assert_allclose(by_side, by_keys, rtol=1e-5)
    fresh = run("selection", "quest_bounds", k_cache, table, seq_lens=lengths)
    scores = [
        run("selection", "quest_scores", q, *b, table, seq_lens=lengths, page_size=8) for b in (bounds, fresh)
    ]
    np.testing.assert_array_equal(*scores)


def test_shapes_are_refused_by_name(engine):  # noqa: F811
    k_cache, v_cache, bounds, side, index = caches("f32")
    rows, table, lens = (
        np.ones((2, 2, 64), np.float32),
        np.zeros((2, 1), np.int32),
        np.array([1, 1], np.int32),
    )
    for name, wrong in {
        "k": {"k": rows[:1]},
        "bounds": {"bounds": (bounds[0], bounds[1][:3])},
        "side": {"side": (side[0][:, :2].copy(), side[1])},
        "index": {"index": (index[0], index[0], index[1])},
        "indptr": {"indptr": np.array([0, 2], np.int32)},
    }.items():
        given = {"k": rows, "bounds": bounds, "side": side, "indptr": None, "index": None, **wrong}
        with pytest.raises(ShapeError, match=name):
            engine.call(
                "attention",
                "append_kv",
                given.pop("k"),
                rows,
                k_cache,
                v_cache,
                table,
                seq_lens=lens,
                **given,
            )


def test_page_lists_and_layouts_of_flashinfer():
    indptr, indices = np.array([0, 2, 2, 5], np.int32), np.array([7, 4, 1, 0, 9], np.int32)
    last = np.array([1, 0, 16], np.int32)
    table, lengths = tm.attention.page_table(indptr, indices, last, page_size=16, max_pages=3)
    assert table.tolist() == [[7, 4, 0], [0, 0, 0], [1, 0, 9]]
    assert (lengths.tolist(), table.dtype, lengths.dtype) == ([17, 0, 48], np.int32, np.int32)
    cut, lengths = tm.attention.page_table(indptr, indices, last, page_size=16, max_pages=2)
    assert (cut.tolist(), lengths.tolist()) == ([[7, 4], [0, 0], [1, 0]], [17, 0, 32])
    none, lengths = tm.attention.page_table(indptr * 0, indices[:0], last, page_size=16, max_pages=2)
    assert (none.tolist(), lengths.tolist()) == ([[0, 0]] * 3, [0, 0, 0])

    rng = np.random.default_rng(4)
    cache = rng.standard_normal((10, 2, 16, 2, 64)).astype(np.float32)  # NHD, keys and values in one tensor
    q = rng.standard_normal((3, 4, 64)).astype(np.float32)
    lists = tm.attention.page_table(indptr, indices, last, page_size=16, max_pages=3)
    want = tm.attention.decode(q, *tm.attention.kv_views(cache), lists[0], seq_lens=lists[1])
    head_major = tuple(np.ascontiguousarray(x.swapaxes(1, 2)) for x in tm.attention.kv_views(cache))
    for given, layout in (
        (cache, "NHD"),
        (head_major, "HND"),
        (np.ascontiguousarray(cache.swapaxes(2, 3)), "HND"),
    ):
        k, v = tm.attention.kv_views(given, layout)
        np.testing.assert_array_equal(tm.attention.decode(q, k, v, lists[0], seq_lens=lists[1]), want)
        got = Emulator().call("attention", "decode", q, k, v, lists[0], seq_lens=lists[1])
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="layout"):
        tm.attention.kv_views(cache, "DNH")
