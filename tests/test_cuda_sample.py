"""sample and apply_bitmask: emulated kernel == Rust == reference, bit for bit."""

import numpy as np
import pytest
from cuda_engines import QUICK, cast, engine  # noqa: F401

from tokamask.reference import sampling as reference


def random_mask(rng, rows: int, vocab_size: int, density: float) -> np.ndarray:
    bits = rng.random((rows, -(-vocab_size // 32) * 32)) < density
    return np.packbits(bits, axis=1, bitorder="little").view("<i4").astype(np.int32)


def expected(
    logits,
    *,
    bitmask=None,
    rows=None,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    seed=0,
    step=0,
    prompt_ids=None,
    output_ids=None,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
):
    batch = len(logits)

    def spread(x, dtype):
        return np.broadcast_to(np.asarray(x, dtype), batch)

    streams = np.arange(batch) if np.ndim(seed) == 0 else np.zeros(batch)
    law = (
        spread(temperature, np.float32),
        spread(top_k, np.int32),
        spread(top_p, np.float32),
        spread(min_p, np.float32),
    )
    where = (spread(seed, np.uint64), streams.astype(np.uint32), spread(step, np.uint64))
    penalties = (repetition_penalty, presence_penalty, frequency_penalty)
    penalties = np.stack([spread(x, np.float32) for x in penalties], axis=1)
    return reference.sample(logits, bitmask, rows, *law, *where, (prompt_ids, output_ids), penalties)


def check(engine, logits, **kwargs):  # noqa: F811
    tokens, logprobs = engine.call("sampling", "sample", logits, **kwargs)
    want = expected(logits, **kwargs)
    np.testing.assert_array_equal(tokens, want[0])
    np.testing.assert_allclose(logprobs, want[1], rtol=2e-7)
    return tokens


LAWS = {
    "plain": {},
    "greedy": {"temperature": 0.0},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.9},
    "min_p": {"min_p": 0.05},
    "all": {"temperature": 0.7, "top_k": 40, "top_p": 0.8, "min_p": 0.01},
    "hot": {"temperature": 1e30, "top_k": 100},
    "infinitely hot": {"temperature": np.inf},
    "cold": {"temperature": 1e-30},
    "nan temperature": {"temperature": np.nan},
    "top_p of zero": {"top_p": 0.0},
    "top_p below zero": {"top_p": -1.0},
    "tiny top_p": {"top_p": 1e-30},
    "top_k of one": {"top_k": 1},
    "top_k of all": {"top_k": 1500},
    "min_p of one": {"min_p": 1.0},
    "min_p beyond one": {"min_p": 7.0},
}


@pytest.mark.parametrize("law", LAWS)
def test_laws(engine, law):  # noqa: F811
    rng = np.random.default_rng(1)
    logits = cast(rng.standard_normal((6, 1500)) * 4, "f32")
    logits[2] = np.round(logits[2])  # many ties
    logits[3] = 0  # nothing but ties
    mask = random_mask(rng, 6, 1500, 0.3)
    for step in range(3):
        check(engine, logits, **LAWS[law], seed=99, step=step)
        check(engine, logits, **LAWS[law], bitmask=mask, seed=99, step=step)


ELEMENTS = ["f32"] if QUICK else ["f32", "f16", "bf16"]


@pytest.mark.parametrize("element", ELEMENTS)
def test_element_types_and_tails(engine, element):  # noqa: F811
    """Rows that do not start at multiples of 16 bytes, a vocabulary that fills no word, and garbage in the tail bits."""
    rng = np.random.default_rng(2)
    for vocab_size in (1, 31, 33, 257, 1001):
        wide = cast(rng.standard_normal((4, vocab_size + 3)) * 3, element)
        mask = random_mask(rng, 4, vocab_size, 0.5) | np.int32(1)
        mask[:, -1] |= np.int32(-1) << np.int32(vocab_size % 32) if vocab_size % 32 else 0
        check(engine, wide[:, :vocab_size], bitmask=mask, top_p=0.95, seed=5)


@pytest.mark.sanitized
def test_segments_that_are_divided_again(engine):  # noqa: F811
    """More words than one warp walks in the first round of drawing."""
    logits = cast(np.random.default_rng(9).standard_normal((2, 4500)), "f32")
    check(engine, logits, top_k=4000, top_p=0.99, seed=7)


def test_rows_of_the_mask(engine):  # noqa: F811
    rng = np.random.default_rng(3)
    logits, mask = cast(rng.standard_normal((5, 300)), "f32"), random_mask(rng, 3, 300, 0.02)
    check(engine, logits, bitmask=mask, rows=np.array([2, -1, 0, 0, 1], np.int32), seed=6)


def test_a_law_and_a_seed_per_row(engine):  # noqa: F811
    rng = np.random.default_rng(4)
    logits = cast(rng.standard_normal((4, 700)) * 2, "f32")
    laws = {
        "temperature": np.array([0, 0.5, 1, 2], np.float32),
        "top_k": np.array([0, 3, -1, 900], np.int32),
        "top_p": np.array([1, 0.5, 0.99, 0.1], np.float32),
        "min_p": np.array([0, 0.1, 0, 0.5], np.float32),
        "seed": np.array([1, 2**63, 3, 2**64 - 1], np.uint64),
        "step": np.array([0, 2**40, 7, 1], np.uint64),
    }
    tokens = check(engine, logits, **laws)
    order = np.array([2, 0, 3, 1])  # a row draws the same wherever it stands
    moved = check(engine, logits[order], **{name: value[order] for name, value in laws.items()})
    np.testing.assert_array_equal(moved, tokens[order])


@pytest.mark.sanitized
def test_nothing_allowed_infinities_and_nan(engine):  # noqa: F811
    x = cast(np.random.default_rng(5).standard_normal((7, 200)), "f32")
    x[0], x[1, :100], x[2], x[3, ::2] = -np.inf, np.nan, np.nan, -np.inf
    x[4, [7, 90]], x[5, 3] = np.inf, np.inf
    x[6] = np.copysign(0, x[6])
    mask = np.full((7, 7), -1, np.int32)
    mask[5] = 0  # nothing, though a logit is +inf
    for law in ({}, {"top_k": 3}, {"top_p": 0.5}, {"temperature": 0.0}):
        check(engine, x, bitmask=mask, seed=8, **law)


@pytest.mark.sanitized
@pytest.mark.parametrize("element", ELEMENTS)
def test_penalties(engine, element):  # noqa: F811
    """Tokens written often, read and written, forbidden, out of the vocabulary; logits of both signs, infinite and NaN."""
    rng = np.random.default_rng(7)
    vocab_size = 301
    logits = cast(rng.standard_normal((5, vocab_size)) * 3, element)
    logits[1, :4] = cast(np.array([np.inf, -np.inf, np.nan, 0]), element)
    prompt = rng.integers(-1, vocab_size + 5, (5, 40)).astype(np.int32)
    output = rng.integers(-1, 12, (5, 60)).astype(np.int32)
    mask = random_mask(rng, 5, vocab_size, 0.5)
    laws = {
        "repetition_penalty": np.array([1, 1.3, 0.7, 2, 1.1], np.float32),
        "presence_penalty": 0.4,
        "frequency_penalty": np.array([0, 0.2, -0.3, 0.1, 1], np.float32),
    }
    for given in (
        {"prompt_ids": prompt, "output_ids": output},
        {"prompt_ids": prompt},
        {"output_ids": output},
    ):
        for law in ({"temperature": 0.0}, {"top_p": 0.9, "top_k": 50}):
            check(engine, logits, bitmask=mask, seed=3, **given, **laws, **law)
            check(engine, logits, seed=3, **given, **laws, **law)


def test_no_rows(engine):  # noqa: F811
    tokens, logprobs = engine.call("sampling", "sample", np.zeros((0, 10), np.float32), seed=1)
    assert (len(tokens), len(logprobs)) == (0, 0)


@pytest.mark.sanitized
@pytest.mark.parametrize("element", ELEMENTS)
def test_apply_bitmask(engine, element):  # noqa: F811
    rng = np.random.default_rng(6)
    for vocab_size in (1, 64, 8300):
        logits = cast(rng.standard_normal((3, vocab_size)), element)
        mask = random_mask(rng, 2, vocab_size, 0.5)
        rows = np.array([1, -1, 0], np.int32)
        want = reference.apply_bitmask(logits, mask, rows)
        engine.apply_bitmask(logits, mask, rows)
        np.testing.assert_array_equal(logits, want)
