"""Verification keeps exactly what the target would have written, or exactly its law."""

import collections
import itertools
import math

import numpy as np
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


VOCAB = 4


def target_law(context):
    """A fixed random law that depends on everything before."""
    law = np.random.default_rng([9, *context]).dirichlet(np.full(VOCAB, 0.6))
    law[law < 0.02] = 0  # some tokens never
    return law / law.sum()


def laws_of(tree):
    return np.array([target_law(tree.path_ids(node)) for node in range(-1, len(tree))])


def chi_square_agrees(emitted, length):
    """Compares the first ``length`` emitted tokens with the target's law of such strings, at the 1 in 10^4 level."""
    expected = {}
    for string in itertools.product(range(VOCAB), repeat=length):
        p = math.prod(target_law(string[:i])[string[i]] for i in range(length))
        expected[string] = p * len(emitted)
    counts = collections.Counter(tuple(e[:length]) for e in emitted)
    assert all(expected[string] > 0 for string in counts), "a string that the target never writes"
    rare = [s for s, e in expected.items() if e < 5]
    cells = [(counts[s], e) for s, e in expected.items() if e >= 5]
    if sum(expected[s] for s in rare) > 0:
        cells.append((sum(counts[s] for s in rare), max(sum(expected[s] for s in rare), 1e-9)))
    statistic = sum((seen - e) ** 2 / e for seen, e in cells)
    # Wilson and Hilferty's approximation of the chi-square quantile.
    freedom = len(cells) - 1
    bound = freedom * (1 - 2 / (9 * freedom) + 3.719 * math.sqrt(2 / (9 * freedom))) ** 3
    return statistic < bound


def test_point_rule_has_the_law_of_the_target():
    tree = tm.DraftTree.from_paths([[0, 1, 2], [0, 2], [1, 1], [3]])
    laws = laws_of(tree)
    emitted = []
    for step in range(4000):
        ids, bonus, _ = tm.verify_sampled(tree, laws, rule="point", seed=5, step=step)
        written = [*ids.tolist(), bonus]
        draws = reference.Draws(6, step=step)
        while len(written) < 2:
            written.append(draws.token(target_law(written)))
        emitted.append(written)
    assert chi_square_agrees(emitted, 1)
    assert chi_square_agrees(emitted, 2)
    assert not chi_square_agrees([[*e[:1], 0] for e in emitted], 2), "the test must be able to fail"


def test_laws_are_checked():
    tree = tm.DraftTree([1], [-1])
    good = np.full((2, 3), 1 / 3)
    assert tm.verify_sampled(tree, good, seed=1)[1] in range(3)
    for bad in (good[:1], good[0], good.astype(int), good * -1, good * np.nan, good * [[1], [0]]):
        with pytest.raises(tm.errors.ShapeError) as caught:
            tm.verify_sampled(tree, bad, seed=1)
        assert caught.value.name == "target_probs"
    with pytest.raises(tm.errors.ShapeError) as caught:
        tm.verify_sampled(tree, good, rule="greedy", seed=1)
    assert caught.value.name == "rule"
