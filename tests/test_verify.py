"""verify_greedy: the accepted path is exactly what the target would have written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask.reference import verify as reference


@st.composite
def drafted(draw, tokens=3):
    """A breadth-first tree and the target's choices at its rows."""
    parents = []
    for node in range(draw(st.integers(0, 20))):
        parents.append(draw(st.integers(parents[-1] if parents else -1, node - 1)))
    ids = st.integers(0, tokens - 1)
    token_ids = [draw(ids) for _ in parents]
    return tm.DraftTree(token_ids, parents), [draw(ids) for _ in range(len(parents) + 1)]


@given(drafted())
def test_greedy_walk_equals_its_definition(case):
    tree, targets = case
    ids, bonus, path = tm.verify_greedy(tree, targets)
    expected = reference.verify_greedy(tree.token_ids.tolist(), tree.parents.tolist(), targets)
    assert (ids.tolist(), bonus, path.tolist()) == expected


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=8), max_size=8),
    st.lists(st.integers(0, 2), min_size=9, max_size=9),
)
def test_accepted_tokens_are_the_longest_prefix_of_the_truth(paths, truth):
    """A target that writes ``truth`` whatever was drafted: targets depend on the depth only."""
    tree = tm.DraftTree.from_paths(paths)
    targets = [truth[depth] for depth in [0, *tree.depths.tolist()]]
    ids, bonus, path = tm.verify_greedy(tree, targets)
    longest = max((k for p in paths for k in range(len(p) + 1) if p[:k] == truth[:k]), default=0)
    assert ids.tolist() == truth[:longest]
    assert bonus == truth[longest]
    assert tree.depths[path].tolist() == list(range(1, longest + 1))


def test_targets_need_one_row_per_position():
    tree = tm.DraftTree([1], [-1])
    for targets in ([1], [1, 2, 3], [1.0, 2.0]):
        with pytest.raises(tm.errors.ShapeError) as caught:
            tm.verify_greedy(tree, targets)
        assert caught.value.name == "target_ids"
