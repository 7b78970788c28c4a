"""Arrays of more than 2^31 elements: offsets are 64 bits wide. The arrays are mappings without memory behind them but for the pages touched, and
every result is that of the same call on a small copy.
"""

import mmap
import sys

import numpy as np
import pytest
from cuda_engines import Emulator, cast
from emulator import SANITIZER

pytestmark = [
    pytest.mark.skipif(bool(SANITIZER), reason="sanitizers keep a shadow of what is mapped"),
    pytest.mark.skipif(sys.platform != "linux", reason="needs mappings that reserve no memory"),
]
MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # named since Python 3.13
MORE = 2**31 + 2**20


def reserve(shape, dtype) -> np.ndarray:
    """Zeros that take no memory until they are written."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    return np.frombuffer(mmap.mmap(-1, size, flags=flags), dtype).reshape(shape)


def far_rows(rows: np.ndarray) -> np.ndarray:
    """The same rows, the last of which begins beyond 2^31 elements."""
    stride = -(-MORE // (len(rows) - 1) // 64) * 64
    flat = reserve((stride * (len(rows) - 1) + rows[0].size,), rows.dtype)
    steps = [stride * rows.itemsize, *rows.strides[1:]]
    view = np.lib.stride_tricks.as_strided(flat, rows.shape, steps)
    view[...] = rows
    return view


PAGE = (16, 2, 64)  # variants that other tests compile too: g++ takes longer than the kernels


def caches(seed, element):
    """A small cache of three pages and a large one with the same pages, two of them at its end; their page tables."""
    rng = np.random.default_rng(seed)
    small = [cast(rng.standard_normal((3, *PAGE)), element) for _ in "kv"]
    pages = MORE // int(np.prod(PAGE)) + 1
    large = [reserve((pages, *PAGE), small[0].dtype) for _ in "kv"]
    there = [0, pages - 2, pages - 1]
    for a, b in zip(small, large, strict=True):
        b[there] = a
    return small, large, np.array([[2, 0, 1]], np.int32), np.array([[there[i] for i in (2, 0, 1)]], np.int32)


@pytest.mark.parametrize(("element", "group"), [("f32", 4), ("bf16", 12)])  # multiply-adds, tensor cores
def test_attention_over_a_large_cache(element, group):
    small, large, near, far = caches(1, element)
    rng = np.random.default_rng(2)
    q = cast(rng.standard_normal((1, 2 * group, 64)), element)
    lens, run = np.array([43], np.int32), Emulator().call
    selected = np.array([[[0, 5, 17, 31, 33, 42]]], np.int32)
    own = [cast(rng.standard_normal((1, 3, 2, 64)), element) for _ in "kv"]
    nodes, mask = np.stack([q, q, q], axis=1), np.array([[[1], [3], [7]]], np.uint64)
    for name, arguments in {
        "decode": (q, None),
        "sparse_decode": (q, None, selected),
        "tree_decode": (nodes, None, mask, *own),
    }.items():
        head, tail = arguments[0], arguments[2:]
        want = run("attention", name, head, *small, near, *tail, seq_lens=lens)
        got = run("attention", name, head, *large, far, *tail, seq_lens=lens)
        np.testing.assert_array_equal(got, want)


def test_selectors_over_a_large_cache():
    small, large, near, far = caches(3, "f32")
    q = np.random.default_rng(4).standard_normal((1, 6, 64)).astype(np.float32)
    lens, run = np.array([43], np.int32), Emulator().call
    counts = {"k": 9, "n_init": 2, "n_local": 3, "seq_lens": lens}
    want = run("selection", "token_select", q, small[0], near, **counts)
    np.testing.assert_array_equal(run("selection", "token_select", q, large[0], far, **counts), want)
    bounds = run("selection", "quest_bounds", small[0], near, seq_lens=lens)
    beyond = tuple(reserve((len(large[0]), 2, 64), np.float32) for _ in "lh")
    run("selection", "quest_bounds", large[0], far, seq_lens=lens, out=beyond)
    for a, b in zip(bounds, beyond, strict=True):
        np.testing.assert_array_equal(b[far[0]], a[near[0]])
    want = run("selection", "quest_scores", q, *bounds, near, seq_lens=lens, page_size=16)
    got = run("selection", "quest_scores", q, *beyond, far, seq_lens=lens, page_size=16)
    np.testing.assert_array_equal(got, want)


def test_appending_to_a_large_cache():
    small, large, near, far = caches(5, "bf16")
    rows = cast(np.random.default_rng(6).standard_normal((40, 2, 64)), "bf16")
    options = {"seq_lens": np.array([43], np.int32), "indptr": np.array([0, 40], np.int32)}
    bounds = [tuple(reserve((len(x[0]), 2, 64), np.float32) for _ in "lh") for x in (small, large)]
    sides = [reserve((*x[0].shape[:3], 4), np.uint16) for x in (small, large)]
    dominant = np.array([[0, 31]] * 2, np.int32)
    for cache, table, beside, side in ((small, near, bounds[0], sides[0]), (large, far, bounds[1], sides[1])):
        extra = {"bounds": beside, "side": (dominant, side)}
        Emulator().call("attention", "append_kv", rows, rows, *cache, table, **options, **extra)
    for a, b in zip((*small, *bounds[0], sides[0]), (*large, *bounds[1], sides[1]), strict=True):
        np.testing.assert_array_equal(b[far[0]], a[near[0]])


def test_logits_whose_last_row_is_far_away():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 500)).astype(np.float32)
    far, run = far_rows(x), Emulator().call
    options = {
        "seed": 5,
        "top_p": 0.9,
        "output_ids": np.array([[1, 2, 2]] * 3, np.int32),
        "presence_penalty": 1.0,
    }
    for given in ({"seed": 5}, options):
        for a, b in zip(*(run("sampling", "sample", logits, **given) for logits in (x, far)), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(run("selection", "top_k", far, 20), run("selection", "top_k", x, 20))
    masked = np.array([True, False, True])
    for a, b in zip(*(run("selection", "unmask", logits, masked) for logits in (x, far)), strict=True):
        np.testing.assert_array_equal(a, b)
    mask = rng.integers(-(2**31), 2**31, (3, 16)).astype(np.int32)
    for logits in (x, far):
        run("sampling", "apply_bitmask", logits, mask)
    np.testing.assert_array_equal(far, x)


@pytest.mark.parametrize("element", ["f32", "bf16"])  # multiply-adds, tensor cores
def test_keys_whose_last_row_is_far_away(element):
    rng = np.random.default_rng(8)
    q, k, v = (cast(rng.standard_normal((n, 2, 64)), element) for n in (20, 20, 20))
    far_k, far_v, run = far_rows(k), far_rows(v), Emulator().call
    lists = np.array([0, 2], np.int32), np.array([0, 1], np.int32)
    selected = np.array([np.arange(1, 20, 2), np.arange(0, 20, 2)], np.int32)
    for name, tail, options in (
        ("block_sparse_prefill", lists, {"block": (20, 10)}),
        ("selected_prefill", (selected,), {}),
    ):
        want = run("attention", name, q, k, v, *tail, **options)
        np.testing.assert_array_equal(run("attention", name, q, far_k, far_v, *tail, **options), want)
    want = run("selection", "attention_column_sums", q[:5], k)
    np.testing.assert_array_equal(run("selection", "attention_column_sums", q[:5], far_k), want)
    queries, w = (
        cast(rng.standard_normal((2, 8, 64)), element),
        rng.standard_normal((2, 8)).astype(np.float32),
    )
    named = {"positions": np.array([19, 3], np.int32)}
    want = run("selection", "indexer_scores", queries, k[:, 0].copy(), w, **named)
    np.testing.assert_array_equal(run("selection", "indexer_scores", queries, far_k[:, 0], w, **named), want)
    named |= {"n_blocks": 2, "block": 8}
    want = run("selection", "hisa_select", queries, k[:, 0].copy(), w, 6, **named)
    np.testing.assert_array_equal(run("selection", "hisa_select", queries, far_k[:, 0], w, 6, **named), want)
