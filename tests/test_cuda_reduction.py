"""Greedy selection, ToMe, unmasking and linear attention: emulated kernels == Rust == reference."""

import numpy as np
import pytest
from cuda_engines import QUICK, TOLERANCE, Emulator, cast, engine, reference  # noqa: F401

from tokamask.reference.floats import widen

ELEMENTS = ["f32"] if QUICK else ["f32", "bf16"]


def signs(seed, *shape) -> np.ndarray:
    """Rows of +-1 in 16 dimensions: length 4, so that cosines are exact and ties are real."""
    return np.sign(np.random.default_rng(seed).standard_normal((*shape, 16))) + 0.0


@pytest.mark.sanitized
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("mode", ["mmr"] if QUICK else ["maxmin", "maxsum", "mmr"])
def test_greedy_select(engine, mode, element):  # noqa: F811
    definition = reference("reduction").greedy_select
    x = signs(1, 3, 40)
    x[0, 5] = x[0, 9] = 0  # rows of zeros
    x[1] = x[1, 0]  # all equal
    x = cast(x, element)
    importance = (
        np.random.default_rng(2).integers(0, 17, (3, 40)).astype(np.float32) if mode == "mmr" else None
    )
    if mode == "mmr":
        importance[:, :2] = 0, 16  # a range that divides exactly
    for k in (3,) if QUICK else (0, 1, 7, 40, 50):
        got = engine.call("selection", "greedy_select", x, k, mode=mode, importance=importance)
        for b in range(3):
            want = definition(x[b], k, mode, None if importance is None else importance[b])
            np.testing.assert_array_equal(got[b], want)
    one = engine.call(
        "selection",
        "greedy_select",
        x[0],
        7,
        mode=mode,
        importance=None if importance is None else importance[0],
    )
    assert one.shape == (7,)


@pytest.mark.sanitized
@pytest.mark.parametrize("element", ELEMENTS)
def test_tome_merge(engine, element):  # noqa: F811
    definition = reference("reduction")
    for n, r, protect in ((30, 7, 1), (31, 40, 0), (2, 1, 0), (5, 2, 4), (8, 0, 0)):
        x, metric = (
            cast(np.random.default_rng(n).standard_normal((n, 20)), element),
            cast(signs(n, n), element),
        )
        size = np.random.default_rng(3).integers(1, 5, n).astype(np.float32)
        got = engine.call("selection", "tome_merge", x, r, metric=metric, size=size, protect=protect)
        want = definition.merge(x, size, *definition.tome_match(metric, r, protect))
        np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(got[1], want[1])
        np.testing.assert_array_equal(got[2], want[2])


LAWS = [
    {},
    {"threshold": 0.2},
    {"threshold": 0.99},
    {"count": 3},
    {"count": 0},
    {"threshold": 0.05, "count": 4},
]


@pytest.mark.sanitized
@pytest.mark.parametrize("law", LAWS[-1:] if QUICK else LAWS)
def test_unmask(engine, law):  # noqa: F811
    rng = np.random.default_rng(4)
    logits = cast(rng.standard_normal((20, 300)) * 3, "f32")
    logits[3], logits[4, 7], logits[5] = -np.inf, np.inf, np.nan
    logits[8] = logits[9]  # a tie between positions
    masked = rng.random(20) < 0.7
    bits = np.packbits(rng.random((20, 320)) < 0.5, axis=1, bitorder="little").view("<i4").astype(np.int32)
    bits[10] = 0
    for bitmask in (None, bits):
        got = engine.call("selection", "unmask", logits, masked, bitmask=bitmask, **law)
        want = reference("unmask").unmask(logits, masked, bitmask, **law)
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_allclose(got[1], want[1], rtol=2e-7)
        np.testing.assert_array_equal(got[2], want[2])


def test_unmask_where_nothing_is_masked(engine):  # noqa: F811
    tokens, confidence, accepted = engine.call(
        "selection", "unmask", np.zeros((3, 9), np.float32), np.zeros(3, bool)
    )
    assert (tokens.tolist(), confidence.tolist(), accepted.tolist()) == ([-1] * 3, [0.0] * 3, [False] * 3)


@pytest.mark.sanitized
@pytest.mark.parametrize(
    ("element", "dk", "dv"),
    [("f32", 32, 40)] if QUICK else [("f32", 32, 40), ("bf16", 64, 64), ("f16", 128, 1)],
)
def test_lightning(engine, element, dk, dv):  # noqa: F811
    definition = reference("lightning").lightning
    rng = np.random.default_rng(5)
    decay = np.array([0, 0.3, 30], np.float32)  # keeps everything; fades; forgets at once
    state = rng.standard_normal((2, 3, dk, dv)).astype(np.float32)
    for tokens in (17,) if QUICK else (0, 1, 16, 37):
        q, k = (cast(rng.standard_normal((2, 3, tokens, dk)) * 0.3, element) for _ in "qk")
        v = cast(rng.standard_normal((2, 3, tokens, dv)), element)
        want = definition(q, k, v, decay, state)
        o, after = engine.call("attention", "lightning", q, k, v, decay, state=state.copy())
        loose = {"rtol": TOLERANCE[element]["rtol"], "atol": 1e-4 if element == "f32" else 2e-2}
        np.testing.assert_allclose(widen(o), widen(want[0]), **loose)
        np.testing.assert_allclose(after, want[1], rtol=1e-4, atol=1e-4)


def test_lightning_in_two_calls_is_lightning_in_one():
    rng = np.random.default_rng(6)
    q, k, v = (rng.standard_normal((1, 1, 40, 32)).astype(np.float32) for _ in "qkv")
    decay, run = np.array([0.1], np.float32), Emulator().call
    whole, _ = run("attention", "lightning", q, k, v, decay)
    first, state = run(
        "attention", "lightning", q[:, :, :23].copy(), k[:, :, :23].copy(), v[:, :, :23].copy(), decay
    )
    second, _ = run(
        "attention",
        "lightning",
        q[:, :, 23:].copy(),
        k[:, :, 23:].copy(),
        v[:, :, 23:].copy(),
        decay,
        state=state,
    )
    np.testing.assert_allclose(np.concatenate([first, second], axis=2), whole, rtol=1e-4, atol=1e-4)
