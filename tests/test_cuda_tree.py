"""tree_decode and verify_tree: emulated kernel == Rust == reference, on trees with padding, chains and wide roots."""

import numpy as np
import pytest
from cuda_engines import QUICK, TENSOR_TOLERANCE, Emulator, cast, engine  # noqa: F401

import tokamask as tm
from tokamask.reference import attention as reference
from tokamask.reference.floats import widen


def random_parents(rng, nodes: int) -> np.ndarray:
    return np.array([rng.integers(-1, i) if i else -1 for i in range(nodes)], np.int32)


def ancestors(parents: np.ndarray) -> np.ndarray:
    """uint64 [nodes, words]: bit j of row i says that j is i or above it."""
    sees = np.eye(len(parents), -(-len(parents) // 64) * 64, dtype=bool)
    for i, parent in enumerate(parents):
        if parent >= 0:
            sees[i] |= sees[parent]
    return np.packbits(sees, axis=1, bitorder="little").view("<u8").astype(np.uint64)


SHAPES = [
    ("f32", 64, 4, 5),
    ("bf16", 64, 3, 7),
    ("bf16", 64, 3, 2),  # too few rows for tensor cores
    ("f16", 128, 8, 2),
    ("f16", 64, 2, 70),
    ("f32", 64, 4, 70),
]


@pytest.mark.sanitized
@pytest.mark.parametrize(("element", "head_dim", "group", "nodes"), SHAPES[:2] if QUICK else SHAPES)
def test_tree_decode(engine, element, head_dim, group, nodes):  # noqa: F811
    rng = np.random.default_rng(nodes)
    batch, kv_heads, page_size, max_pages = 2, 2, 8, 3

    def draw(*shape):
        return cast(rng.standard_normal((*shape, head_dim)), element)

    q = draw(batch, nodes, kv_heads * group)
    k, v = (draw(batch * max_pages, page_size, kv_heads) for _ in "kv")
    k_tree, v_tree = (draw(batch, nodes, kv_heads) for _ in "kv")
    table = rng.permutation(batch * max_pages).reshape(batch, max_pages).astype(np.int32)
    mask = np.stack(
        [ancestors(random_parents(rng, nodes)), ancestors(np.arange(-1, nodes - 1))]
    )  # a tree and a chain
    mask[0, -1] = 0  # padding
    lens = np.array([0, 19], np.int32)
    for masks in (mask[1],) if QUICK else (mask, mask[:1], mask[1]):
        o, lse = engine.call(
            "attention", "tree_decode", q, k, v, table, masks, k_tree, v_tree, seq_lens=lens, return_lse=True
        )
        expected = reference.tree_decode(
            q, k, v, table, masks.reshape(-1, *masks.shape[-2:]), k_tree, v_tree, lens
        )
        np.testing.assert_allclose(widen(o), widen(expected[0]), **TENSOR_TOLERANCE[element])
        np.testing.assert_allclose(lse, expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.sanitized
def test_verify_tree():
    """Against the CPU's verify_greedy: random trees over few tokens, duplicates among siblings included."""
    rng = np.random.default_rng(1)
    for nodes in (33,) if QUICK else (1, 5, 32, 33, 100):
        parents = np.stack([random_parents(rng, nodes) for _ in range(8)])
        parents[6], parents[7] = np.arange(-1, nodes - 1), -1  # a chain, a star
        tokens = rng.integers(0, 3, parents.shape).astype(np.int32)
        targets = rng.integers(0, 3, (8, nodes + 1)).astype(np.int32)
        tokens[6], targets[6] = 1, 1  # everything accepted
        path, accepted, bonus = Emulator().call("draft", "verify_tree", tokens, parents, targets)
        for b in range(8):
            want = reference_walk(tokens[b], parents[b], targets[b])
            assert path[b].tolist() == want + [-1] * (nodes - len(want))
            assert (accepted[b], bonus[b]) == (len(want), targets[b][want[-1] + 1 if want else 0])


def reference_walk(tokens, parents, targets) -> list[int]:
    from tokamask.reference.verify import verify_greedy

    return verify_greedy(tokens.tolist(), parents.tolist(), targets.tolist())[2]


def test_verify_tree_agrees_with_the_public_function():
    tree = tm.DraftTree([5, 6, 7], [-1, -1, 0])
    targets = np.array([[5, 7, 0, 9]], np.int32)
    path, accepted, bonus = Emulator().call(
        "draft", "verify_tree", tree.token_ids[None], tree.parents[None], targets
    )
    ids, last, nodes = tm.verify_greedy(tree, targets[0])
    assert (path[0, : accepted[0]].tolist(), bonus[0]) == (nodes.tolist(), last)
    assert tree.token_ids[nodes].tolist() == ids.tolist()


def test_padding_and_rows_without_a_choice_end_the_walk():
    tokens, parents = np.array([[3, -1, -1]], np.int32), np.array([[-1, 0, -1]], np.int32)
    path, accepted, bonus = Emulator().call(
        "draft", "verify_tree", tokens, parents, np.array([[3, -1, -1, -1]], np.int32)
    )
    assert (path.tolist(), accepted.tolist(), bonus.tolist()) == ([[0, -1, -1]], [1], [-1])


def laws_in_eighths(rng, *shape) -> np.ndarray:
    """Laws whose sums are exact in every order: multiples of 1/4096, not normalised, with zeros."""
    return rng.integers(0, 9, shape).astype(np.float64) / 4096


@pytest.mark.sanitized
@pytest.mark.parametrize("rule", ["sequoia"] if QUICK else ["point", "tokenwise", "specinfer", "sequoia"])
@pytest.mark.parametrize("dtype", ["float64"] if QUICK else ["float32", "float64"])
def test_verify_sampled(rule, dtype):
    """Against the CPU: the same verdicts, since no sum of these laws is rounded but by division."""
    rng = np.random.default_rng(9)
    batch, nodes, vocab_size = (4, 6, 700) if QUICK else (9, 7, 700)
    tokens = rng.integers(0, 40, (batch, nodes)).astype(np.int32)
    parents = np.stack([random_parents(rng, nodes) for _ in range(batch)])
    if rule == "tokenwise":
        parents[:] = np.arange(-1, nodes - 1)
    tokens[0, -2:] = -1  # padding
    laws, drafts = (laws_in_eighths(rng, batch, nodes + 1, vocab_size).astype(dtype) for _ in "td")
    laws[..., :40] *= 16  # what was guessed is likely
    laws[1, 0] = np.eye(vocab_size)[tokens[1, 0]]  # certain
    drafts[2, 0] = laws[2, 0]  # the draft's law is the target's
    if rule != "tokenwise":
        parents[3] = -1  # siblings that are refused one after another
        laws[3, 0, tokens[3]] = 0
    given = None if rule == "point" else drafts
    seeds = rng.integers(0, 2**63, batch).astype(np.uint64)
    for seed, step, row in ((5, 3, None), (seeds, seeds, 7), (5, 3, seeds.astype(np.uint32))):
        options = {"rule": rule, "draft_probs": given, "seed": seed, "step": step, "row": row}
        got = Emulator().call("draft", "verify_sampled", tokens, parents, laws, **options)
        want = tm.verify_sampled((tokens, parents), laws, **options)
        for mine, theirs in zip(got, want, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert QUICK or got[1].max() > 0


@pytest.mark.sanitized
def test_a_sum_that_no_running_sum_exceeds():
    """Weights whose total overflows: the last token with any weight is drawn, as where rounding leaves none."""
    tokens, parents = np.full((2, 1), 3, np.int32), np.full((2, 1), -1, np.int32)
    laws = np.zeros((2, 2, 1300))
    laws[0, 0, 5:900], laws[1, 0, 40:41], laws[1, 0, 3] = 1e308, 1e308, 1.7e308
    laws[:, 1] = 1
    got = Emulator().call("draft", "verify_sampled", tokens, parents, laws, rule="point", seed=5)
    want = tm.verify_sampled((tokens, parents), laws, rule="point", seed=5)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert got[2].tolist() == [899, 40]


def test_rules_without_a_kernel_are_refused_by_name():
    tokens = np.zeros((1, 1), np.int32)
    with pytest.raises(tm.errors.KernelError, match="block"):
        Emulator().call(
            "draft", "verify_sampled", tokens, tokens - 1, np.ones((1, 2, 3)), rule="block", seed=1
        )
