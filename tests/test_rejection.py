"""sample_awrs: the law of its tokens and the mean of its weights, by exact enumeration and by sampling."""

import itertools

import numpy as np
import pytest

import tokamask as tm
from tokamask.reference import rejection as reference

PROBS = np.array([0.4, 0.05, 0.3, 0.15, 0.1])
VOCABULARY = tm.Vocabulary([b"a", b"b", b"c", b"d", b"</s>"], special={"</s>": 4}, eos_ids=[4])


def matcher(allowed):
    texts = ["abcd"[i] for i in allowed]
    return tm.compile(tm.Grammar.choice(texts), VOCABULARY).matcher()


@pytest.mark.parametrize("allowed", [a for n in (1, 2, 3, 4) for a in itertools.combinations(range(4), n)])
def test_the_definition_is_properly_weighted(allowed):
    # Every order of sampling without replacement, with its probability.
    mass = np.zeros(5)
    for order in itertools.permutations(range(5)):
        left, chance = 1.0, 1.0
        for token in order:
            chance *= PROBS[token] / left
            left -= PROBS[token]
        token, weight = reference.awrs(PROBS, order, lambda t: t in allowed)
        mass[token] += chance * weight
    np.testing.assert_allclose(mass, [p if i in allowed else 0 for i, p in enumerate(PROBS)], atol=1e-12)


@pytest.mark.parametrize("max_rejects", [0, 1, 4096])
def test_tokens_and_weights_agree_with_the_law(max_rejects):
    state = matcher((1, 2))
    logits = np.log(PROBS) * 0.5
    mass, draws = np.zeros(5), 4000
    for seed in range(draws):
        token, log_weight = tm.sample_awrs(logits, state, temperature=0.5, seed=seed, max_rejects=max_rejects)
        assert state.is_allowed(token)
        mass[token] += np.exp(log_weight) / draws
    np.testing.assert_allclose(mass, [0, 0.05, 0.3, 0, 0], atol=0.02)


def test_one_seed_gives_one_token_and_impossible_tokens_never_come():
    state = matcher((0, 3))
    logits = np.array([-np.inf, 0, 0, 0, 0])
    drawn = {tm.sample_awrs(logits, state, seed=seed) for seed in (1, 1)}
    assert len(drawn) == 1
    assert {tm.sample_awrs(logits, state, seed=seed)[0] for seed in range(50)} == {3}
    assert tm.sample_awrs(np.array([0, 0, 0, -np.inf, 0]), matcher((3,)), seed=1) == (-1, -np.inf)


def test_arguments_are_checked():
    with pytest.raises(tm.errors.ShapeError):
        tm.sample_awrs(np.zeros(4), matcher((0,)), seed=1)
    with pytest.raises(ValueError, match="temperature"):
        tm.sample_awrs(np.zeros(5), matcher((0,)), seed=1, temperature=0)
