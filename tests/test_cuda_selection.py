"""Selectors that rank cached tokens and pages: emulated kernels against float64 numpy."""

import numpy as np
import pytest
from cuda_engines import QUICK, Emulator, cast

from tokamask.errors import ShapeError
from tokamask.reference.floats import widen
from tokamask.reference.selection import descending


def cache_case(seed, element="f32", *, batch=2, kv_heads=2, group=3, head_dim=64, page_size=16, max_pages=10):
    rng = np.random.default_rng(seed)
    pages = batch * max_pages
    keys = cast(rng.standard_normal((pages, page_size, kv_heads, head_dim)), element)
    q = cast(rng.standard_normal((batch, kv_heads * group, head_dim)), element)
    return q, keys, rng.permutation(pages).reshape(batch, max_pages).astype(np.int32)


def tokens_of(keys, table, b) -> np.ndarray:
    """float64 [tokens, kv_heads, head_dim] of one sequence."""
    return widen(keys[table[b]]).astype(np.float64).reshape(-1, *keys.shape[2:])


def votes(q, keys, table, lens, *, lists, skip=(0, 0), scale=1.0, pool=1) -> np.ndarray:
    batch, heads, _ = q.shape
    tokens, group = table.shape[1] * keys.shape[1], heads // keys.shape[2]
    out = np.full((batch, lists, tokens), -np.inf)
    for b in range(batch):
        k, lo, hi = tokens_of(keys, table, b), skip[0], max(lens[b] - skip[1], 0)
        if lo >= hi:
            continue
        plain = np.zeros((lists, hi - lo))
        for h in range(heads):
            s = scale * (k[lo:hi, h // group] @ widen(q[b, h]).astype(np.float64))
            p = np.exp(s - s.max())
            plain[h // (heads // lists)] += p / p.sum()
        for i in range(hi - lo):
            out[b, :, lo + i] = plain[:, max(i - pool // 2, 0) : i + pool // 2 + 1].max(axis=1)
    return out


CASES = [("f32", 64), ("bf16", 128), ("f16", 16)]


@pytest.mark.sanitized
@pytest.mark.parametrize(("element", "head_dim"), CASES[:1] if QUICK else CASES)
def test_fasa_scores(element, head_dim):
    q, keys, table = cache_case(1, element, head_dim=head_dim)
    lens = np.array([160, 77], np.int32)
    rng = np.random.default_rng(2)
    dims = np.stack([np.sort(rng.permutation(head_dim)[:16]) for _ in range(2)]).astype(np.int32)
    side = np.stack([keys[:, :, h, dims[h]] for h in range(2)], axis=2)
    got = Emulator().call(
        "selection", "fasa_scores", q, np.ascontiguousarray(side), dims, table, seq_lens=lens, scale=0.3
    )
    per_head = np.stack([q[:, h][:, dims[h // 3]] for h in range(6)], axis=1)
    np.testing.assert_allclose(
        got, votes(per_head, side, table, lens, lists=2, scale=0.3), rtol=1e-5, atol=1e-7
    )


def selected_by(q, keys, table, lens, k, n_init, n_local, **law):
    width = n_init + k + n_local
    v = votes(q, keys, table, lens, lists=1, skip=(n_init, n_local), **law)[:, 0]
    out = np.full((len(q), 1, width), -1)
    for b, length in enumerate(lens):
        kept = (
            np.arange(length)
            if length <= width
            else np.concatenate(
                [
                    np.arange(n_init),
                    np.sort(descending(v[b].astype(np.float32))[:k]),
                    np.arange(length - n_local, length),
                ]
            )
        )
        out[b, 0, : len(kept)] = kept
    return out


@pytest.mark.sanitized
@pytest.mark.parametrize(
    ("n_init", "k", "n_local", "pool"), [(4, 20, 8, 1), (0, 5, 0, 1), (1, 30, 16, 5), (200, 3, 1, 1)]
)
def test_token_select(n_init, k, n_local, pool):
    q, keys, table = cache_case(3)
    keys = np.round(keys * 4) / 4  # well separated votes, exact products
    lens = np.array([155, 40], np.int32)
    got = Emulator().call(
        "selection",
        "token_select",
        q,
        keys,
        table,
        k,
        seq_lens=lens,
        n_init=n_init,
        n_local=n_local,
        pool=pool,
        scale=0.5,
    )
    if (
        pool > 1
    ):  # equal maxima within a window are ties, broken by index: compare the votes of what was chosen
        v = votes(q, keys, table, lens, lists=1, skip=(n_init, n_local), pool=pool, scale=0.5)[:, 0]
        want = selected_by(q, keys, table, lens, k, n_init, n_local, pool=pool, scale=0.5)
        for b in range(2):
            np.testing.assert_allclose(v[b, got[b, 0]], v[b, want[b, 0]], rtol=1e-4)
        return
    np.testing.assert_array_equal(got, selected_by(q, keys, table, lens, k, n_init, n_local, scale=0.5))


def test_sequences_of_length_zero_and_one():
    q, keys, table = cache_case(4)
    lens = np.array([0, 1], np.int32)
    got = Emulator().call("selection", "token_select", q, keys, table, 4, seq_lens=lens, n_init=1, n_local=1)
    assert got[:, 0].tolist() == [[-1] * 6, [0] + [-1] * 5]
    scores = Emulator().call(
        "selection",
        "fasa_scores",
        q,
        keys,
        np.tile(np.arange(64, dtype=np.int32), (2, 1)),
        table,
        seq_lens=lens,
    )
    assert (scores[0] == -np.inf).all()
    np.testing.assert_allclose(scores[1, :, 0], 3, rtol=1e-6)  # each of three heads gives its whole vote


def test_even_windows_are_refused():
    q, keys, table = cache_case(5)
    with pytest.raises(ShapeError):
        Emulator().call(
            "selection", "token_select", q, keys, table, 4, seq_lens=np.array([1, 1], np.int32), pool=2
        )


@pytest.mark.sanitized
@pytest.mark.parametrize(
    ("element", "head_dim"), [("f32", 64)] if QUICK else [("f32", 64), ("bf16", 128), ("f16", 256)]
)
def test_quest(element, head_dim):
    q, keys, table = cache_case(6, element, head_dim=head_dim)
    lens = np.array([160, 50], np.int32)
    run = Emulator().call
    lower, upper = run("selection", "quest_bounds", keys, table, seq_lens=lens)
    scores = run("selection", "quest_scores", q, lower, upper, table, seq_lens=lens, page_size=16)
    for b in range(2):
        rows = tokens_of(keys, table, b)
        for p in range(10):
            filled = rows[p * 16 : min((p + 1) * 16, lens[b])]
            if not len(filled):
                assert (scores[b, :, p] == -np.inf).all()
                continue
            low, high = filled.min(axis=0), filled.max(axis=0)
            np.testing.assert_array_equal(widen(lower[table[b, p]]), low)
            np.testing.assert_array_equal(widen(upper[table[b, p]]), high)
            x = widen(q[b]).astype(np.float64).reshape(2, 3, -1)
            bound = np.maximum(x * low[:, None], x * high[:, None]).sum(axis=-1).max(axis=-1)
            np.testing.assert_allclose(scores[b, :, p], bound, rtol=1e-5)
            best = np.einsum("hgd,thd->hgt", x, filled).max(axis=(1, 2))
            assert (scores[b, :, p] >= best - 1e-4).all()  # a bound, which is the point


def test_quest_leaves_pages_of_others_alone():
    _, keys, table = cache_case(7)
    before = np.full((20, 2, 64), 5, np.float32)
    out = before.copy(), before.copy()
    Emulator().call("selection", "quest_bounds", keys, table, seq_lens=np.array([17, 0], np.int32), out=out)
    for bounds in out:
        touched = {int(p) for p in range(20) if (bounds[p] != 5).any()}
        assert touched == set(table[0, :2].tolist())
