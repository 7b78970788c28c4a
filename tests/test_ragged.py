"""Ragged: flat rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=5), max_size=6))
def test_round_trip(rows):
    ragged = tm.Ragged.from_lists(rows)
    assert ragged.to_lists() == rows
    assert [row.tolist() for row in ragged] == rows
    assert len(ragged) == len(rows)
    if rows:
        assert ragged[-1].base is ragged.ids or ragged[-1].size == 0


@pytest.mark.parametrize(
    ("ids", "offsets", "name"),
    [
        (np.zeros(2, np.int32), np.array([0, 2]), "ids"),
        (np.zeros(2, np.uint32), np.array([0, 2], np.int32), "offsets"),
        (np.zeros(2, np.uint32), np.array([0, 1]), "offsets"),
        (np.zeros(2, np.uint32), np.array([0, 3, 2]), "offsets"),
        ([1, 2], np.array([0, 2]), "ids"),
    ],
)
def test_wrong_arrays_are_named(ids, offsets, name):
    with pytest.raises(tm.errors.ShapeError) as caught:
        tm.Ragged(ids, offsets)
    assert caught.value.name == name
