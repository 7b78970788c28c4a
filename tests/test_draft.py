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


def generate(next_token, prompt, length, session=None, budget=16):
    """A target that writes greedily, with drafts or without; returns output and number of forwards."""
    context, output, forwards = list(prompt), [], 0
    while len(output) < length:
        tree = session.propose(budget) if session else tm.DraftTree([], [])
        targets = [next_token(context + tree.path_ids(node)) for node in range(-1, len(tree))]
        ids, bonus, _ = tm.verify_greedy(tree, targets)
        emitted = [*ids.tolist(), bonus]
        if session:
            session.update(emitted, tree=tree)
        context += emitted
        output += emitted
        forwards += 1
    return output[:length], forwards


@given(
    st.lists(st.integers(0, 5), max_size=20), st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(0, 40)
)
def test_output_with_drafts_equals_output_without(prompt, seed, order, budget):
    """The target is a random function of its last few tokens, so that its text repeats itself."""

    def next_token(context):
        return hash((seed, *context[-order:])) % 6

    plain, steps = generate(next_token, prompt, 60)
    assert steps == 60
    drafter = tm.Drafter(capacity_tokens=500)
    for _ in range(2):
        session = drafter.session(prompt)
        drafted, forwards = generate(next_token, prompt, 60, session, budget)
        assert drafted == plain
        assert session.token_ids[: len(prompt)].tolist() == prompt
    if budget:
        assert forwards < 40, "a second run of the same text should be drafted"


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 40))
def test_trees_of_a_session_keep_the_rules(tokens, budget):
    session = tm.Drafter(capacity_tokens=100).session(tokens[:20])
    session.update(tokens[20:])
    tree = session.propose(budget)
    assert len(tree) <= budget
    checked = tm.DraftTree(
        tree.token_ids, tree.parents, tree.probs, tree.sources
    )  # the public constructor checks
    assert np.array_equal(checked.depths, tree.depths)
    siblings = list(zip(tree.parents.tolist(), tree.token_ids.tolist(), strict=True))
    assert len(set(siblings)) == len(siblings)
    for node, parent in enumerate(tree.parents):
        assert tree.probs[node] <= (tree.probs[parent] if parent >= 0 else 1) + 1e-6
    for parent in {-1, *tree.parents.tolist()}:
        assert tree.probs[tree.parents == parent].sum() <= (tree.probs[parent] if parent >= 0 else 1) + 1e-4


def test_a_long_copy_is_drafted_as_one_chain():
    text = list(range(100, 160))
    session = tm.Drafter().session(text + text[:10])
    tree = session.propose(32)
    best = max(tree.paths(), key=len)
    assert best[:16] == text[10:26]


def test_a_repeated_token_is_drafted_beyond_the_end():
    session = tm.Drafter().session([7, 1, 7, 1, 7, 1])
    assert session.propose(4).token_ids.tolist() == [7, 1, 7, 1]


def test_recycled_runners_up_are_drafted():
    session = tm.Drafter(recycle=4).session([1, 2], prompt_topk=[[2, 9, 8, 7], [3, 4, 5, 6]])
    tree = session.propose(8)
    assert set(tree.token_ids[tree.depths == 1].tolist()) == {3, 4, 5, 6}
    session.update(
        [3], tree=tm.DraftTree([8], [-1]), topk_ids=[[3, 8], [11, 12]], topk_logprobs=[[-0.1, -3], [-0.1, -4]]
    )
    session.update([8])
    assert 11 in session.propose(4).token_ids


def test_drafts_stop_where_they_do_not_pay():
    text = list(range(40))
    for cost, expected in (([1.0, 2.0, 4.0], 0), ([1.0, 1.0, 1.0], 16)):
        drafter = tm.Drafter(verify_cost=cost)
        session = drafter.session(text + text[:20])
        assert len(session.propose(16)) == expected


def test_a_chain_is_the_best_path_of_the_tree():
    text = [1, 2, 3, 9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2]
    session = tm.Drafter().session(text)
    chain, tree = session.propose(6, chain=True), session.propose(12)
    assert chain.parents.tolist() == list(range(-1, len(chain) - 1))
    assert chain.token_ids.tolist() == tree.token_ids[tree.best_path(6)].tolist()
    assert 0 < len(chain) <= 6
    assert len(session.propose(0, chain=True)) == 0
    dear = tm.Drafter(verify_cost=[1.0, 2.0, 4.0, 8.0]).session(text)
    assert len(dear.propose(6, chain=True)) == 0


def test_what_forwards_take_decides_how_much_is_drafted():
    text = list(range(40))
    drafter = tm.Drafter()
    assert drafter.verify_cost is None
    session = drafter.session(text + text[:20])
    assert len(session.propose(16)) == 16
    for _ in range(150):
        for rows in (1, 2, 4, 8, 17):
            drafter.observe(rows=rows, time=0.1 * rows)
    assert len(session.propose(16)) == 0
    assert len(drafter.verify_cost) == 6
    for _ in range(150):
        for rows in (1, 2, 4, 8, 17):
            drafter.observe(rows=rows, time=0.1)
    assert len(session.propose(16)) > 12
    assert max(drafter.verify_cost) < 0.15
    drafter.observe(rows=4, time=-1.0)  # a clock that was set back
    assert len(session.propose(16)) > 12


def test_requests_learn_from_each_other_but_not_from_prompts():
    drafter = tm.Drafter()
    first = drafter.session([1])
    first.update([50, 51, 52, 53])
    assert len(drafter.session([1, 50]).propose(4)) > 0
    drafter.session([70, 71, 72, 73])
    assert not {72, 73} & set(drafter.session([70, 71]).propose(8).token_ids.tolist())
    assert drafter.tokens == 4


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: tm.Drafter(capacity_tokens=0), "capacity_tokens"),
        (lambda: tm.Drafter(recycle=1000), "recycle"),
        (lambda: tm.Drafter(verify_cost=[0.0]), "verify_cost"),
        (lambda: tm.Drafter().observe(0, 1.0), "rows"),
        (lambda: tm.Drafter().session([-1]), "prompt_ids"),
        (lambda: tm.Drafter().session([2**31]), "prompt_ids"),
        (lambda: tm.Drafter().session(np.array([2**33])), "prompt_ids"),
        (lambda: tm.Drafter().session([1], prompt_topk=[[1], [2]]), "prompt_topk"),
        (lambda: tm.Drafter().session([1]).update("x"), "accepted_ids"),
        (lambda: tm.Drafter().session([1]).update([1], topk_ids=[1]), "topk_ids"),
        (
            lambda: tm.Drafter().session([1]).update([1], topk_ids=[[1]], topk_logprobs=[[1, 2]]),
            "topk_logprobs",
        ),
        (lambda: tm.Drafter().session([1]).propose(10**6), "budget"),
    ],
)
def test_wrong_arguments_are_named(call, name):
    with pytest.raises(tm.errors.ShapeError) as caught:
        call()
    assert caught.value.name == name


def test_probabilities_come_true(unpacked):
    """Over recorded outputs of a model, nodes promise about as many accepted tokens as there are."""
    from tokamask.replay import read_traces, replay

    traces = list(read_traces(unpacked("draft_traces_open.tar.xz") / "open" / "smollm2_traces.jsonl"))
    for recycle in (False, True):
        result = replay(tm.Drafter(), traces, recycle=recycle)
        accepted = (result.tokens - result.steps) / result.steps
        assert 0.85 < result.expected / result.steps / accepted < 1.15


def test_what_was_nearly_said_is_drafted_for_later():
    """A runner-up of the newest token stands in the tree though nothing else ever named it."""
    session = tm.Drafter().session([1, 2, 3])
    session.update([4], topk_ids=[[4, 77, 78, 79]])
    assert 77 in session.propose(32).token_ids
    session.update([5], topk_ids=[[5, 6, 7, 8]])
    assert 77 not in session.propose(32).token_ids
