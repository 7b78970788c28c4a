"""Selection: compiled top-k equals the reference exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask.errors import ShapeError
from tokamask.reference import selection as reference
from tokamask.reference.floats import narrow


def top_k(scores, k, lengths=None):
    """The compiled result, after comparing it with the reference."""
    out = np.full((len(scores), k), -7, np.int32)
    assert tm.selection.top_k(scores, k, lengths=lengths, out=out) is out
    np.testing.assert_array_equal(out, reference.top_k(scores, k, lengths))
    return out


@given(
    n=st.sampled_from([0, 1, 2, 31, 32, 33, 200, 1000, 4000]),
    k=st.sampled_from([0, 1, 2, 7, 32, 60, 500, 5000]),
    dtype=st.sampled_from([np.float32, np.float16, np.uint16]),
    levels=st.sampled_from([1, 3, 50, 10**6]),
    strange=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_top_k_equals_the_reference(n, k, dtype, levels, strange, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-levels, levels, (3, n)).astype(np.float32)
    odd = np.float32([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42])
    x = np.where(rng.random(x.shape) < strange, rng.choice(odd, x.shape), x)
    with np.errstate(over="ignore"):
        scores = narrow(x, dtype)
    top_k(scores, k)
    top_k(scores, k, rng.integers(-1, n + 2, 3).astype(np.int32))


def test_top_k_edges():
    nan, inf = np.nan, np.inf
    assert top_k(np.float32([[nan, -inf, 3]]), 2).tolist() == [[1, 2]]  # NaN below -inf
    assert top_k(np.float32([[-0.0, 0.0, 0.0]]), 1).tolist() == [[0]]  # equal zeros: lowest index
    assert top_k(np.float32([[1, 2]]), 4).tolist() == [[0, 1, -1, -1]]
    assert top_k(np.float32([[inf, inf, inf]]), 2).tolist() == [[0, 1]]
    assert top_k(np.float32([[1, 2], [3, 4]]), 1, np.int32([0, 1])).tolist() == [[-1], [0]]


@pytest.mark.parametrize("k", [1, 50, 2048, 30_000])
def test_top_k_of_long_rows(k):
    rng = np.random.default_rng(k)
    scores = rng.standard_normal((2, 40_000)).astype(np.float32)
    scores[1] = np.sort(scores[1])
    top_k(scores, k)


def test_strided_rows():
    x = np.random.default_rng(0).standard_normal((3, 2, 100)).astype(np.float32)
    np.testing.assert_array_equal(tm.selection.top_k(x[:, 1], 5), reference.top_k(x[:, 1], 5))


def test_wrong_arguments_are_named():
    scores = np.zeros((2, 4), np.float32)
    with pytest.raises(ShapeError, match=r"lengths: expected int32 \[rows=2\], got int32 \[3\]"):
        tm.selection.top_k(scores, 1, lengths=np.zeros(3, np.int32))
    with pytest.raises(ShapeError, match="k: expected 0 or more"):
        tm.selection.top_k(scores, -1)
    with pytest.raises(ShapeError, match=r"out: expected int32 \[2, 1\]"):
        tm.selection.top_k(scores, 1, out=np.zeros((2, 1), np.int64))
    with pytest.raises(ShapeError, match="scores"):
        tm.selection.top_k(scores[:, ::2], 1)
