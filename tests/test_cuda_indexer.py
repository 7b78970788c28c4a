"""Indexer scores, plain and on tensor cores, and HISA: emulated kernels against float64 numpy."""

import numpy as np
import pytest
from cuda_engines import QUICK, Emulator, cast

from tokamask.reference.floats import widen
from tokamask.reference.selection import descending


def indexer_case(seed, element, *, rows=2, heads=8, dim=64, page_size=16, max_pages=12):
    rng = np.random.default_rng(seed)
    q = cast(rng.standard_normal((rows, heads, dim)), element)
    keys = cast(rng.standard_normal((rows * max_pages, page_size, dim)), element)
    weights = rng.standard_normal((rows, heads)).astype(np.float32)  # of both signs
    return q, weights, keys, rng.permutation(rows * max_pages).reshape(rows, max_pages).astype(np.int32)


def scores_of(q, weights, keys, table, lens) -> np.ndarray:
    out = np.full((len(q), table.shape[1] * keys.shape[1]), -np.inf)
    for t in range(len(q)):
        k = (
            widen(keys[table[t if len(table) > 1 else 0]])
            .astype(np.float64)
            .reshape(-1, keys.shape[2])[: lens[t]]
        )
        out[t, : len(k)] = np.maximum(k @ widen(q[t]).astype(np.float64).T, 0) @ weights[t]
    return out


CASES = [("f32", 90, 8, 64), ("bf16", 90, 16, 64), ("f16", 90, 8, 128), ("bf16", 75, 8, 64)]


@pytest.mark.sanitized
@pytest.mark.parametrize(("element", "arch", "heads", "dim"), CASES[:2] if QUICK else CASES)
def test_indexer_scores(element, arch, heads, dim):
    case = indexer_case(1, element, heads=heads, dim=dim)
    lens = np.array([192, 33], np.int32)
    got = Emulator(arch).call("selection", "indexer_scores", *case, lengths=lens)
    np.testing.assert_allclose(got, scores_of(*case, lens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("element", ["f32", "bf16"])
def test_prefill_rows_share_a_sequence(element):
    q, weights, keys, table = indexer_case(2, element, rows=5)
    lens = np.array([0, 1, 100, 101, 192], np.int32)  # causal: each row sees one key more
    got = Emulator().call("selection", "indexer_scores", q, weights, keys, table[:1], lengths=lens)
    np.testing.assert_allclose(got, scores_of(q, weights, keys, table[:1], lens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("element", ["f32", "bf16"])
def test_candidates(element):
    case = indexer_case(3, element)
    lens = np.array([150, 20], np.int32)
    every = scores_of(*case, lens)
    candidates = np.array([[3, -1, 149, 150, 7, 7, 10**9], [0, 19, 20, -5, 1, 2, 3]], np.int32)
    got = Emulator().call("selection", "indexer_scores", *case, lengths=lens, candidates=candidates)
    for t in range(2):
        want = [every[t, c] if 0 <= c < lens[t] else -np.inf for c in candidates[t]]
        np.testing.assert_allclose(got[t], want, rtol=1e-4, atol=1e-4)


def test_nan_in_a_key_comes_through():
    for element in ("f32", "bf16"):
        q, weights, keys, table = indexer_case(4, element)
        keys[table[0, 0], 5] = cast(np.array(np.nan), element)
        got = Emulator().call(
            "selection", "indexer_scores", q, weights, keys, table, lengths=np.array([20, 20], np.int32)
        )
        assert np.isnan(got[0]).nonzero()[0].tolist() == [5]


def hisa(q, weights, keys, table, lens, k, block_size, n_blocks) -> list[list[int]]:
    every, chosen = scores_of(q, weights, keys, table, lens), []
    for t, length in enumerate(lens):
        rows = widen(keys[table[t]]).astype(np.float64).reshape(-1, keys.shape[2])[:length]
        blocks = [rows[i : i + block_size].mean(axis=0) for i in range(0, length, block_size)]
        if not blocks:
            chosen.append([])
            continue
        pooled = np.array(
            [widen(cast(b, {"float32": "f32", "uint16": "bf16"}[keys.dtype.name])) for b in blocks]
        )
        order = descending(
            (np.maximum(pooled @ widen(q[t]).astype(np.float64).T, 0) @ weights[t]).astype(np.float32)
        )
        kept = sorted({0, len(blocks) - 1, *order[:n_blocks].tolist()})
        tokens = np.concatenate([np.arange(b * block_size, min((b + 1) * block_size, length)) for b in kept])
        best = descending(every[t, tokens].astype(np.float32))[:k]
        chosen.append(sorted(tokens[best].tolist()))
    return chosen


@pytest.mark.sanitized
@pytest.mark.parametrize("element", ["f32", "bf16"])
def test_hisa(element):
    case = indexer_case(5, element, rows=4)
    lens = np.array([192, 65, 3, 0], np.int32)
    for k, block_size, n_blocks in ((20, 32, 2), (5, 16, 30), (200, 32, 1)):
        got = Emulator().call(
            "selection", "hisa_select", *case, k, lengths=lens, block_size=block_size, n_blocks=n_blocks
        )
        want = hisa(*case, lens, k, block_size, n_blocks)
        assert [[int(i) for i in row if i >= 0] for row in got] == want
        assert all((row[len(w) :] == -1).all() for row, w in zip(got, want, strict=True))
