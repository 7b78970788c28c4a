"""DraftTree: guessed tokens in one tree."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm


@st.composite
def trees(draw, max_nodes=70, tokens=4):
    """Breadth-first trees; siblings may repeat a token, as samples of a draft model do."""
    parents = []
    for node in range(draw(st.integers(0, max_nodes))):
        parents.append(draw(st.integers(parents[-1] if parents else -1, node - 1)))
    token_ids = [draw(st.integers(0, tokens - 1)) for _ in parents]
    return tm.DraftTree(token_ids, parents)


@given(trees())
def test_mask_rows_are_ancestors_and_self(tree):
    mask = tree.mask()
    rows = len(tree) + 1
    assert mask.shape == (rows, (rows + 63) // 64)
    assert mask.dtype == np.uint64
    for row in range(rows):
        expected, node = {0, row}, row - 1
        while node >= 0:
            expected.add(node + 1)
            node = tree.parents[node]
        bits = {j for j in range(64 * mask.shape[1]) if int(mask[row, j // 64]) >> (j % 64) & 1}
        assert bits == expected
        if row:
            assert tree.depths[row - 1] == len(expected) - 1


@given(trees())
def test_siblings_list_each_node_once_in_order(tree):
    child, sibling, tokens = tree.to_siblings(root_id=9)
    assert (child.dtype, sibling.dtype, tokens.dtype) == (np.int64,) * 3
    assert tokens.tolist() == [9, *tree.token_ids.tolist()]
    for row in range(len(tree) + 1):
        listed, at = [], child[row]
        while at != -1:
            listed.append(int(at))
            at = sibling[at]
        assert listed == [i + 1 for i, p in enumerate(tree.parents) if p + 1 == row]
    assert sibling[0] == -1


@given(st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=8))
def test_from_paths_keeps_every_path(paths):
    tree = tm.DraftTree.from_paths(paths)
    prefixes = {tuple(path[: i + 1]) for path in paths for i in range(len(path))}
    assert {tuple(tree.path_ids(i)) for i in range(len(tree))} == prefixes
    assert len(tree) == len(prefixes)
    leaves = {p for p in prefixes if not any(q[:-1] == p for q in prefixes)}
    assert {tuple(p) for p in tree.paths()} == leaves


@given(trees(max_nodes=8))
def test_trees_are_values(tree):
    copy = pickle.loads(pickle.dumps(tree))
    assert copy == tree
    assert hash(copy) == hash(tree)
    assert np.array_equal(copy.probs, tree.probs)
    with pytest.raises(ValueError, match="read-only"):
        tree.parents[...] = 0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (([1.5], [-1]), "token_ids"),
        (([-1], [-1]), "token_ids"),
        (([2**40], [-1]), "token_ids"),
        (([[1]], [-1]), "token_ids"),
        (([1, 2], [-1]), "parents"),
        (([1], [0]), "parents"),
        (([1], [-2]), "parents"),
        (([1, 2, 3], [-1, 0, -1]), "parents"),
        (([1], [-1], [2.0]), "probs"),
        (([1], [-1], [np.nan]), "probs"),
        (([1], [-1], [0.5], [200]), "sources"),
    ],
)
def test_wrong_arrays_are_named(arguments, name):
    with pytest.raises(tm.errors.ShapeError) as caught:
        tm.DraftTree(*arguments)
    assert caught.value.name == name
    assert caught.value.expected
    assert caught.value.got
