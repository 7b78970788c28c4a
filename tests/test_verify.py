"""Verification keeps exactly what the target would have written, or exactly its law."""

import collections
import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask import methods
from tokamask.errors import ShapeError
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
    return _target_law(tuple(context))


@functools.cache
def _target_law(context):
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
    for step in range(3000):
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


def draft_law(context):
    """A draft model that differs from the target."""
    return _draft_law(tuple(context))


@functools.cache
def _draft_law(context):
    return np.random.default_rng([4, *context]).dirichlet(np.full(VOCAB, 0.8))


def drawn(shape, rng, replacement):
    """A tree of the given parents with tokens drawn from the draft model, and its laws."""
    token_ids, paths, left = [], {-1: []}, {}
    for node, parent in enumerate(shape):
        law = left.setdefault(parent, draft_law(paths[parent]))
        token = int(rng.choice(VOCAB, p=law / law.sum()))
        if not replacement:
            left[parent] = np.where(np.arange(VOCAB) == token, 0, law)
        token_ids.append(token)
        paths[node] = [*paths[parent], token]
    tree = tm.DraftTree(token_ids, shape)
    return tree, np.array([draft_law(paths[node]) for node in range(-1, len(shape))])


CHAIN, TREE = [-1, 0, 1], [-1, -1, -1, 0, 0, 1]


@pytest.mark.parametrize(
    ("rule", "shape"),
    [("tokenwise", CHAIN), ("block", CHAIN), ("specinfer", TREE), ("sequoia", TREE), ("spectr", TREE)],
)
def test_sampled_rules_have_the_law_of_the_target(rule, shape):
    rng = np.random.default_rng(8)
    emitted, accepted = [], 0
    for step in range(2000):
        tree, drafts = drawn(shape, rng, rule != "sequoia")
        ids, bonus, path = tm.verify_sampled(
            tree, laws_of(tree), rule=rule, draft_probs=drafts, seed=7, step=step
        )
        assert tree.token_ids[path].tolist() == ids.tolist()
        written = [*ids.tolist(), bonus]
        accepted += len(ids)
        draws = reference.Draws(8, step=step)
        while len(written) < 2:
            written.append(draws.token(target_law(written)))
        emitted.append(written)
    assert accepted > 700
    assert chi_square_agrees(emitted, 1)
    assert chi_square_agrees(emitted, 2)


def test_dyspec_trees_have_the_law_of_the_target():
    emitted = []
    for step in range(1500):
        tree, drafts = methods.dyspec_tree(lambda path: draft_law(path), 6, seed=2, step=step)
        assert np.allclose(drafts, [draft_law(tree.path_ids(node)) for node in range(-1, len(tree))])
        ids, bonus, _ = tm.verify_sampled(
            tree, laws_of(tree), rule="sequoia", draft_probs=drafts, seed=3, step=step
        )
        written = [*ids.tolist(), bonus]
        draws = reference.Draws(4, step=step)
        while len(written) < 2:
            written.append(draws.token(target_law(written)))
        emitted.append(written)
    assert chi_square_agrees(emitted, 1)
    assert chi_square_agrees(emitted, 2)


@pytest.mark.parametrize("nodes", [1, 5, 12])
def test_dyspec_expands_the_likeliest_slots(nodes):
    """By the definition: a slot's worth is the chance that verification gets there, if drafts are accepted as often as they
    are drawn; the tree holds the slots of greatest worth, and its expected length is the sum of what it took.
    """
    for step in range(20):
        tree, drafts = methods.dyspec_tree(lambda path: draft_law(path), nodes, seed=5, step=step)
        reach, taken, opened = {-1: 1.0}, [], []
        for parent in range(-1, len(tree)):
            left, worth = drafts[parent + 1].copy(), reach[parent]
            for node in np.flatnonzero(tree.parents == parent):
                p = left[tree.token_ids[node]] / left.sum()
                taken.append(worth)
                reach[int(node)] = worth * p
                worth *= 1 - p
                left[tree.token_ids[node]] = 0
            if left.sum() > 0:
                opened.append(worth)  # the next sibling, or the first child
        assert len(taken) == nodes
        assert min(taken) >= max(opened) - 1e-12


def test_a_draft_equal_to_the_target_is_accepted_whole():
    rng = np.random.default_rng(1)
    for rule in ("tokenwise", "block", "specinfer", "spectr"):
        for step in range(50):
            tree, drafts = drawn(CHAIN, rng, True)
            ids, _, _ = tm.verify_sampled(tree, drafts, rule=rule, draft_probs=drafts, seed=1, step=step)
            assert len(ids) == 3


def test_block_verification_accepts_more_than_token_by_token():
    rng = np.random.default_rng(5)
    accepted = collections.Counter()
    for step in range(2000):
        tree, drafts = drawn(CHAIN, rng, True)
        for rule in ("tokenwise", "block"):
            ids, _, _ = tm.verify_sampled(
                tree, laws_of(tree), rule=rule, draft_probs=drafts, seed=6, step=step
            )
            accepted[rule] += len(ids)
    assert accepted["block"] > accepted["tokenwise"]


def test_typical_acceptance_is_lossy_and_says_so():
    tree = tm.DraftTree([1, 0], [-1, 0])
    laws = np.array([[0.6, 0.4, 0.0], [0.3, 0.3, 0.4], [0.1, 0.2, 0.7]])
    ids, bonus, path = tm.draft.verify_typical_lossy(tree, laws)
    assert (ids.tolist(), bonus, path.tolist()) == ([1, 0], 2, [0, 1])
    assert tm.draft.verify_typical_lossy(tree, laws, epsilon=0.5, delta=9)[0].tolist() == []


def test_rules_and_draft_laws_must_fit():
    tree, good = tm.DraftTree([1, 2], [-1, -1]), np.full((3, 3), 1 / 3)
    for arguments, name in (
        ({"rule": "specinfer"}, "draft_probs"),
        ({"rule": "point", "draft_probs": good}, "draft_probs"),
        ({"rule": "specinfer", "draft_probs": good[:, :2]}, "draft_probs"),
        ({"rule": "block", "draft_probs": good}, "tree"),
        ({"rule": "tokenwise", "draft_probs": good}, "tree"),
    ):
        with pytest.raises(tm.errors.ShapeError) as caught:
            tm.verify_sampled(tree, good, seed=1, **arguments)
        assert caught.value.name == name
    with pytest.raises(tm.errors.ShapeError) as caught:
        tm.verify_sampled(tree, good[:, :2], seed=1)
    assert caught.value.name == "tree"


@pytest.mark.parametrize("rule", ["point", "tokenwise", "specinfer", "sequoia", "block"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_in_arrays_equals_the_definition(rule, dtype):
    """Token by token and node by node, with padding, laws with zeros and laws that are not normalised."""
    rng = np.random.default_rng(11)
    batch, nodes, vocab_size = 40, 6, 5
    token_ids, parents = np.full((2, batch, nodes), -1, np.int32)
    laws = rng.random((2, batch, nodes + 1, vocab_size)).astype(dtype)
    laws[laws < 0.3] = 0
    laws[..., 0] += 0.01
    laws[0] *= 3
    for b in range(batch):
        n = rng.integers(0, nodes + 1)
        chain = rule in ("tokenwise", "block")
        parents[b, :n] = np.arange(-1, n - 1) if chain else np.sort([rng.integers(-1, i) for i in range(n)])
        token_ids[b, :n] = rng.integers(0, vocab_size, n)
    drafts = None if rule == "point" else laws[1]
    trees = (token_ids, parents)
    path, accepted, bonus = tm.verify_sampled(trees, laws[0], rule=rule, draft_probs=drafts, seed=7, step=3)
    define = {
        "point": reference.verify_point,
        "tokenwise": reference.verify_tokenwise,
        "specinfer": reference.verify_siblings,
        "sequoia": reference.verify_sequoia,
        "block": reference.verify_block,
    }[rule]
    for b in range(batch):
        n = int((token_ids[b] >= 0).sum())
        wide = [x.astype(np.float64)[b] for x in laws[: 1 if rule == "point" else 2]]
        draws = reference.Draws(7, b, 3)
        _, following, nodes_kept = define(token_ids[b, :n].tolist(), parents[b, :n].tolist(), *wide, draws)
        assert path[b, : accepted[b]].tolist() == nodes_kept
        assert (path[b, accepted[b] :] == -1).all()
        assert bonus[b] == following
    assert accepted.any()
    greedy = laws[0].argmax(axis=-1).astype(np.int32)
    path, accepted, bonus = tm.verify_greedy(trees, greedy)
    for b in range(batch):
        n = int((token_ids[b] >= 0).sum())
        case = token_ids[b, :n].tolist(), parents[b, :n].tolist(), greedy[b].tolist()
        _, following, nodes_kept = reference.verify_greedy(*case)
        assert (path[b, : accepted[b]].tolist(), bonus[b]) == (nodes_kept, following)


def test_arrays_that_do_not_fit_are_refused():
    trees = np.zeros((2, 3), np.int32), np.full((2, 3), -1, np.int32)
    with pytest.raises(ShapeError, match="target_ids"):
        tm.verify_greedy(trees, np.zeros((2, 3), np.int32))
    with pytest.raises(ShapeError, match="spectr"):
        tm.verify_sampled(trees, np.ones((2, 4, 5)), rule="spectr", draft_probs=np.ones((2, 4, 5)), seed=1)
    with pytest.raises(ShapeError, match="draft_probs"):
        tm.verify_sampled(trees, np.ones((2, 4, 5)), rule="specinfer", seed=1)
    with pytest.raises(ShapeError, match="below 5"):
        tm.verify_sampled((trees[0] + 5, trees[1]), np.ones((2, 4, 5)), seed=1)
