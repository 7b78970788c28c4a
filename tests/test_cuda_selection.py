"""Selectors that rank cached tokens and pages: emulated kernels == Rust == reference."""

import numpy as np
import pytest
from cuda_engines import QUICK, Emulator, cast, engine, reference  # noqa: F401

from tokamask.errors import ShapeError
from tokamask.reference.floats import widen


def cache_case(seed, element="f32", *, batch=2, kv_heads=2, group=3, head_dim=64, page_size=16, max_pages=10):
    rng = np.random.default_rng(seed)
    pages = batch * max_pages
    keys = cast(rng.standard_normal((pages, page_size, kv_heads, head_dim)), element)
    q = cast(rng.standard_normal((batch, kv_heads * group, head_dim)), element)
    return q, keys, rng.permutation(pages).reshape(batch, max_pages).astype(np.int32)


def tokens_of(keys, table, b) -> np.ndarray:
    """float64 [tokens, kv_heads, head_dim] of one sequence."""
    return widen(keys[table[b]]).astype(np.float64).reshape(-1, *keys.shape[2:])


CASES = [("f32", 64), ("bf16", 128), ("f16", 64)]


def some_chunks(head_dim, n_chunks=8):
    rng = np.random.default_rng(2)
    return np.stack([np.sort(rng.permutation(head_dim // 2)[:n_chunks]) for _ in range(2)]).astype(np.int32)


@pytest.mark.sanitized
@pytest.mark.parametrize("interleaved", [True] if QUICK else [False, True])
@pytest.mark.parametrize(("element", "head_dim"), CASES[:1] if QUICK else CASES)
def test_fasa_scores(engine, element, head_dim, interleaved):  # noqa: F811
    case, chunks = cache_case(1, element, head_dim=head_dim), some_chunks(head_dim)
    lens = np.array([160, 77], np.int32)
    got = engine.call("selection", "fasa_scores", *case, chunks, seq_lens=lens, interleaved=interleaved)
    want = reference("fasa").fasa_scores(*case, chunks, lens, interleaved)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_fasa_reads_a_side_cache_of_the_dominant_channels_alone(interleaved):
    q, keys, table = cache_case(1)
    chunks, lens = some_chunks(64), np.array([160, 77], np.int32)
    channels = [reference("fasa").chunk_channels(c, 64, interleaved) for c in chunks]
    side = np.ascontiguousarray(np.stack([keys[:, :, h][..., channels[h]] for h in range(2)], axis=2))
    run = Emulator().call
    got = run("selection", "fasa_scores", q, side, table, chunks, seq_lens=lens, interleaved=interleaved)
    want = run("selection", "fasa_scores", q, keys, table, chunks, seq_lens=lens, interleaved=interleaved)
    np.testing.assert_allclose(got, want, rtol=1e-5)


COUNTS = [(4, 20, 8), (0, 5, 0), (1, 30, 16), (200, 3, 1)]


@pytest.mark.sanitized
@pytest.mark.parametrize(("n_init", "k", "n_local"), COUNTS[:1] if QUICK else COUNTS)
def test_token_select(engine, n_init, k, n_local):  # noqa: F811
    q, keys, table = cache_case(3)
    lens = np.array([155, 40], np.int32)
    counts = {"k": k, "n_init": n_init, "n_local": n_local, "scale": 0.5}
    got = engine.call("selection", "token_select", q, keys, table, seq_lens=lens, **counts)
    np.testing.assert_array_equal(got, reference("token_select").token_select(q, keys, table, lens, **counts))


@pytest.mark.sanitized
def test_a_window_of_votes():
    """With a window of three the neighbours of the single best token are as good as itself."""
    q, keys, table = cache_case(3, batch=1, kv_heads=1, group=1)
    keys[:] = 0
    keys[table[0, 5], 3, 0] = 4 * q[0, 0]  # token 83
    counts = {"k": 3, "n_init": 0, "n_local": 0}
    got = Emulator().call(
        "selection", "token_select", q, keys, table, seq_lens=np.array([160], np.int32), pool=3, **counts
    )
    assert got.tolist() == [[[82, 83, 84]]]


def test_sequences_of_length_zero_and_one(engine):  # noqa: F811
    q, keys, table = cache_case(4)
    lens = np.array([0, 1], np.int32)
    got = engine.call("selection", "token_select", q, keys, table, k=4, seq_lens=lens, n_init=1, n_local=1)
    assert got[:, 0].tolist() == [[-1] * 6, [0] + [-1] * 5]
    scores = engine.call("selection", "fasa_scores", q, keys, table, some_chunks(64), seq_lens=lens)
    assert (scores[0] == -np.inf).all()
    np.testing.assert_allclose(scores[1, :, 0], 3, rtol=1e-6)  # each of three heads gives its whole vote


def test_even_windows_are_refused():
    q, keys, table = cache_case(5)
    with pytest.raises(ShapeError):
        Emulator().call(
            "selection", "token_select", q, keys, table, k=4, seq_lens=np.array([1, 1], np.int32), pool=2
        )


@pytest.mark.sanitized
@pytest.mark.parametrize(
    ("element", "head_dim"), [("f32", 64)] if QUICK else [("f32", 64), ("bf16", 128), ("f16", 256)]
)
def test_quest(engine, element, head_dim):  # noqa: F811
    q, keys, table = cache_case(6, element, head_dim=head_dim)
    lens = np.array([160, 50], np.int32)
    low, high = engine.call("selection", "quest_bounds", keys, table, seq_lens=lens)
    want = reference("quest").quest_bounds(keys, table, lens)
    np.testing.assert_array_equal(low, want[0])
    np.testing.assert_array_equal(high, want[1])
    scores = engine.call("selection", "quest_scores", q, low, high, table, seq_lens=lens, page_size=16)
    np.testing.assert_allclose(scores, reference("quest").quest_scores(q, *want, table, lens, 16), rtol=1e-5)
    for b in range(2):
        dots = np.einsum(
            "hgd,thd->hgt",
            widen(q[b]).astype(np.float64).reshape(2, 3, -1),
            tokens_of(keys, table, b)[: lens[b]],
        )
        for p in range(-(-lens[b] // 16)):
            assert (
                scores[b, :, p] >= dots[:, :, p * 16 : p * 16 + 16].max(axis=(1, 2)) - 1e-4
            ).all()  # a bound


def test_quest_leaves_pages_of_others_alone():
    _, keys, table = cache_case(7)
    before = np.full((20, 2, 64), 5, np.float32)
    out = before.copy(), before.copy()
    Emulator().call("selection", "quest_bounds", keys, table, seq_lens=np.array([17, 0], np.int32), out=out)
    for bounds in out:
        touched = {int(p) for p in range(20) if (bounds[p] != 5).any()}
        assert touched == set(table[0, :2].tolist())


def test_page_tokens(engine):  # noqa: F811
    pages = np.array([[[0, 2, -1], [1, 3, 9]], [[0, 1, 2], [-1, -1, 0]]], np.int32)
    lens = np.array([50, 3], np.int32)
    got = engine.call("selection", "page_tokens", pages, 16, seq_lens=lens)
    np.testing.assert_array_equal(got, reference("quest").page_tokens(pages, lens, 16))
