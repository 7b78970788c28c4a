"""Sampling: the compiled sampler equals the reference bit for bit, and the reference follows the exact law."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask.errors import ShapeError
from tokamask.reference import sampling as reference
from tokamask.reference.exp2 import exp2, fma, mass
from tokamask.reference.floats import narrow, widen
from tokamask.reference.random import bits64, philox4x32


def words(vocab_size):
    return -(-vocab_size // 32)


def random_mask(rng, rows, vocab_size, density):
    bits = rng.random((rows, words(vocab_size) * 32)) < density
    return np.packbits(bits, axis=1, bitorder="little").view("<i4").astype(np.int32)


def both(
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
    penalties=(1.0, 0.0, 0.0),
):
    """The compiled result, after comparing it with the reference."""
    batch = len(logits)
    spread = lambda x, dtype: np.broadcast_to(np.asarray(x, dtype), batch)  # noqa: E731
    out = np.full(batch, -7, np.int32), np.full(batch, np.nan, np.float32)
    tokens, logprobs = tm.sampling.sample(
        logits,
        bitmask=bitmask,
        rows=rows,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        step=step,
        prompt_ids=prompt_ids,
        output_ids=output_ids,
        repetition_penalty=penalties[0],
        presence_penalty=penalties[1],
        frequency_penalty=penalties[2],
        out=out,
    )
    assert tokens is out[0]
    assert logprobs is out[1]
    streams = np.arange(batch) if np.ndim(seed) == 0 else np.zeros(batch, int)
    expected = reference.sample(
        logits,
        bitmask,
        rows,
        spread(temperature, np.float32),
        spread(top_k, np.int32),
        spread(top_p, np.float32),
        spread(min_p, np.float32),
        spread(seed, np.uint64),
        streams.astype(np.uint32),
        spread(step, np.uint64),
        (prompt_ids, output_ids),
        np.tile(np.array(penalties, np.float32), (batch, 1)),
    )
    np.testing.assert_array_equal(tokens, expected[0])
    np.testing.assert_allclose(logprobs, expected[1], rtol=2e-6, atol=2e-6)
    return tokens, logprobs


def test_philox_answers_as_its_inventors_say():
    ones = 0xFFFFFFFF
    assert philox4x32((0,) * 4, (0,) * 2) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox4x32((ones,) * 4, (ones,) * 2) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox4x32(pi, (0xA4093822, 0x299F31D0)) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


def test_fma_rounds_once():
    """Against exact fractions, with sums that a second rounding would get wrong."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3000)).astype(np.float32)
    c = (rng.standard_normal(3000) * 10.0 ** rng.integers(-9, 3, 3000)).astype(np.float32)
    # 1 * 1 + 2^-24 is half way to the next float32; a trace more must round up.
    a = np.append(a, np.float32([1 + 2**-12, 1]))
    b = np.append(b, np.float32([1 + 2**-12, 1]))
    c = np.append(c, np.float32([-(2.0**-11) - 2.0**-48, 2.0**-24]))
    for x, y, z, got in zip(a, b, c, fma(a, b, c), strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        near = [np.nextafter(got, np.float32(s)) for s in (-np.inf, np.inf)]
        error = abs(Fraction(float(got)) - exact)
        assert all(error <= abs(Fraction(float(n)) - exact) for n in near)


def test_exp2_is_close_and_exact_at_integers():
    z = np.random.default_rng(0).uniform(-64, 0, 100_000).astype(np.float32)
    exact = np.exp2(z.astype(np.float64))
    assert np.max(np.abs(exp2(z) - exact) / np.spacing(exact.astype(np.float32))) < 1
    n = np.arange(-64, 1).astype(np.float32)
    np.testing.assert_array_equal(exp2(n), 2.0**n)
    assert mass(np.float32([0, -1, -40, -42, -np.inf])).tolist() == [2**40, 2**39, 1, 0, 0]


@given(
    vocab_size=st.sampled_from([1, 2, 31, 32, 33, 200, 257, 1000, 5000]),
    scale=st.sampled_from([0.0, 0.5, 3.0, 30.0, 1e30]),
    dtype=st.sampled_from([np.float32, np.float16, np.uint16]),
    density=st.sampled_from([None, 0.0, 0.003, 0.3, 0.99, 1.0]),
    temperature=st.sampled_from([0.0, 1e-30, 0.1, 0.7, 1.0, 5.0, 1e30]),
    top_k=st.sampled_from([-1, 0, 1, 2, 40, 900, 10**6]),
    top_p=st.sampled_from([-1.0, 0.0, 1e-6, 0.3, 0.9, 0.999, 1.0, 2.0]),
    min_p=st.sampled_from([-1.0, 0.0, 1e-12, 0.02, 0.5, 1.0, 3.0]),
    seed=st.integers(0, 2**64 - 1),
    odd=st.sampled_from([0.0, 0.05]),
)
def test_sampler_equals_the_reference(
    vocab_size, scale, dtype, density, temperature, top_k, top_p, min_p, seed, odd
):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, vocab_size)).astype(np.float32)
    x = np.round(x * 8) / 8 * np.float32(scale)  # many ties
    strange = np.float32([np.nan, -np.inf, np.inf, -0.0, 0.0, 3e38, -3e38, 1e-42])
    x = np.where(rng.random(x.shape) < odd, rng.choice(strange, x.shape), x).astype(np.float32)
    with np.errstate(over="ignore"):
        logits = narrow(x, dtype)
    bitmask = None if density is None else random_mask(rng, 2, vocab_size, density)
    rows = None if bitmask is None else np.array([1, -1, 0], np.int32)
    both(
        logits,
        bitmask=bitmask,
        rows=rows,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        step=seed >> 7,
    )


@pytest.mark.parametrize("kind", ["peaked", "flat", "equal", "ascending", "descending", "two_values"])
def test_large_rows_equal_the_reference(kind):
    """Shapes of distribution that take every path of the threshold search."""
    n = 40_000
    rng = np.random.default_rng(1)
    x = {
        "peaked": rng.standard_normal(n) * 8,
        "flat": rng.standard_normal(n) * 0.01,
        "equal": np.ones(n),
        "ascending": np.linspace(-5, 5, n),
        "descending": np.linspace(5, -5, n),
        "two_values": (np.arange(n) % 3 == 0) * 2.0,
    }[kind].astype(np.float32)
    for step, (top_k, top_p, min_p) in enumerate(
        [
            (0, 1, 0),
            (0, 0.5, 0),
            (0, 0.95, 0.01),
            (50, 1, 0),
            (50, 0.9, 0),
            (1000, 0.9, 0.1),
            (30_000, 0.99, 0),
        ]
    ):
        both(x[None], top_k=top_k, top_p=top_p, min_p=min_p, seed=3, step=step)


def test_temperature_top_p_and_seed_per_row():
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((4, 700)).astype(np.float32)
    seeds = np.array([1, 2, 1, 2**64 - 1], np.uint64)
    tokens, _ = both(
        logits,
        temperature=np.float32([0, 0.5, 1, 2]),
        top_k=np.int32([0, 3, 100, 0]),
        top_p=np.float32([1, 1, 0.8, 0.4]),
        seed=seeds,
        step=np.arange(4).astype(np.uint64),
    )
    # With a seed per row, a row's token does not depend on where the row stands.
    swapped, _ = tm.sampling.sample(
        logits[::-1].copy(),
        temperature=np.float32([2, 1, 0.5, 0]),
        top_k=np.int32([0, 100, 3, 0]),
        top_p=np.float32([0.4, 0.8, 1, 1]),
        seed=seeds[::-1].copy(),
        step=np.arange(4)[::-1].astype(np.uint64),
    )
    np.testing.assert_array_equal(swapped[::-1], tokens)


def chi_square(counts, probabilities):
    """The statistic over cells with at least 5 expected, the rest pooled; and its degrees of freedom."""
    expected = probabilities * counts.sum()
    big = expected >= 5
    seen = np.append(counts[big], counts[~big].sum())
    wanted = np.append(expected[big], expected[~big].sum())
    seen, wanted = seen[wanted > 0], wanted[wanted > 0]
    return float(((seen - wanted) ** 2 / wanted).sum()), len(wanted) - 1


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"), [(1, 0, 1, 0), (0.7, 12, 0.9, 0.02), (2, 0, 0.6, 0)]
)
def test_draws_follow_the_exact_law(temperature, top_k, top_p, min_p):
    """Chi-square against float64 softmax with the filters written the obvious way."""
    rng = np.random.default_rng(5)
    n_draws, vocab_size = 20_000, 70
    x = rng.standard_normal(vocab_size).astype(np.float32) * 2
    bitmask = random_mask(rng, 1, vocab_size, 0.5)
    allowed = reference.allowed_tokens(bitmask[0], vocab_size)
    p = np.where(allowed, np.exp((x.astype(np.float64) - x.max()) / temperature), 0)
    order = np.argsort(-p, kind="stable")
    if top_k:
        p[order[top_k:]] = 0
    p /= p.sum()
    if top_p < 1:
        p[order[int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1 :]] = 0
    p[p < min_p * p.max()] = 0
    p /= p.sum()
    tokens, logprobs = tm.sampling.sample(
        np.broadcast_to(x, (n_draws, vocab_size)).copy(),
        bitmask=bitmask,
        rows=np.zeros(n_draws, np.int32),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=11,
    )
    counts = np.bincount(tokens, minlength=vocab_size)
    assert counts[p == 0].sum() == 0
    statistic, freedom = chi_square(counts, p)
    assert statistic < freedom + 4.5 * np.sqrt(2 * freedom), (statistic, freedom)
    np.testing.assert_allclose(logprobs, np.log(p[tokens]), rtol=1e-5, atol=1e-6)


def test_streams_and_steps_are_independent():
    """Bits of neighbouring rows and steps look uniform and unrelated."""
    bits = np.array([[bits64(9, row, step) >> 56 for step in range(64)] for row in range(64)])
    statistic, freedom = chi_square(np.bincount(bits.ravel(), minlength=256), np.full(256, 1 / 256))
    assert statistic < freedom + 4.5 * np.sqrt(2 * freedom)
    assert len({bits64(seed, row, step) for seed in range(8) for row in range(8) for step in range(8)}) == 512


def test_edges():
    v = np.float32([[1, 2, 3]])
    full = np.array([[-1]], np.int32)
    assert both(v, bitmask=np.array([[-8]], np.int32))[0].tolist() == [-1]  # only bits beyond the vocabulary
    assert both(v, bitmask=np.array([[0]], np.int32), temperature=0)[1].tolist() == [-np.inf]
    assert both(np.float32([[np.nan, -np.inf]]), bitmask=full)[0].tolist() == [-1]
    assert both(np.float32([[np.nan, -5]]), bitmask=full)[0].tolist() == [1]
    assert both(np.float32([[0, np.inf, 3e38]]), temperature=1e30)[0].tolist() == [1]
    assert both(np.float32([[-0.0, 0.0, -1]]), temperature=0)[0].tolist() == [0]
    assert both(np.float32([[5, 5, 5]]), top_k=2, top_p=0, seed=3)[0].tolist() == [0]
    assert both(np.zeros((0, 5), np.float32))[0].tolist() == []


def test_logits_are_not_changed_and_may_be_strided():
    rng = np.random.default_rng(3)
    wide = rng.standard_normal((4, 3, 100)).astype(np.float32)
    last = wide[:, -1]
    before = wide.copy()
    both(last, seed=5, top_p=0.8)
    np.testing.assert_array_equal(wide, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("vocab_size", [1, 31, 32, 33, 500])
def test_apply_bitmask(dtype, density, vocab_size):
    rng = np.random.default_rng(0)
    logits = narrow(rng.standard_normal((3, vocab_size)), dtype)
    bitmask = random_mask(rng, 3, vocab_size, density)
    expected = reference.apply_bitmask(logits, bitmask)
    rows = np.array([2, -1, 0], np.int32)
    chosen = reference.apply_bitmask(logits, bitmask, rows)
    first, second = logits.copy(), logits.copy()
    tm.apply_bitmask(first, bitmask)
    tm.apply_bitmask(second, bitmask, rows)
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(second, chosen)
    strided = np.repeat(logits[:, None], 2, axis=1)
    tm.apply_bitmask(strided[:, 1], bitmask)
    np.testing.assert_array_equal(strided[:, 1], expected)
    np.testing.assert_array_equal(strided[:, 0], logits)


def test_masking_first_changes_nothing():
    """Sampling under a mask equals sampling logits that the mask was applied to."""
    rng = np.random.default_rng(8)
    logits = rng.standard_normal((50, 3000)).astype(np.float32) * 3
    bitmask = random_mask(rng, 50, 3000, 0.1)
    under = tm.sampling.sample(logits, bitmask=bitmask, top_k=30, top_p=0.9, seed=1)
    tm.apply_bitmask(logits, bitmask)
    after = tm.sampling.sample(logits, top_k=30, top_p=0.9, seed=1)
    np.testing.assert_array_equal(under[0], after[0])
    np.testing.assert_array_equal(under[1], after[1])
    assert (widen(logits)[np.arange(50), under[0]] > -np.inf).all()


def test_wrong_arguments_are_named():
    logits = np.zeros((2, 40), np.float32)
    with pytest.raises(ShapeError) as error:
        tm.sampling.sample(logits, bitmask=np.zeros((2, 1), np.int32), seed=0)
    assert str(error.value) == "bitmask: expected int32 [batch=2, 2], got int32 [2, 1]"
    assert error.value.name == "bitmask"
    for wrong in (logits.astype(np.float64), logits[0], logits.tolist()):
        with pytest.raises(ShapeError, match="logits: expected float32 or float16 or bfloat16"):
            tm.sampling.sample(wrong, seed=0)
    with pytest.raises(ShapeError, match="bitmask"):
        tm.sampling.sample(
            logits, bitmask=np.zeros((1, 2), np.int32), rows=np.array([0, 1], np.int32), seed=0
        )
    with pytest.raises(ShapeError, match="temperature"):
        tm.sampling.sample(logits, temperature=np.zeros(3, np.float32), seed=0)
    with pytest.raises(ShapeError, match="rows"):
        tm.sampling.sample(logits, rows=np.zeros(2, np.int32), seed=0)
    with pytest.raises(ShapeError, match="logits"):
        tm.apply_bitmask(logits[:, ::-1], np.zeros((2, 2), np.int32))
    frozen = logits.copy()
    frozen.flags.writeable = False
    with pytest.raises(ShapeError, match="writable"):
        tm.apply_bitmask(frozen, np.zeros((2, 2), np.int32))


@given(
    vocab_size=st.sampled_from([5, 40, 1000]),
    density=st.sampled_from([None, 0.05, 0.9]),
    penalties=st.tuples(
        st.sampled_from([1.0, 1.3, 0.5]), st.sampled_from([0.0, 1.5, -2.0]), st.sampled_from([0.0, 0.3])
    ),
    which=st.sampled_from(["prompt", "output", "both"]),
    dtype=st.sampled_from([np.float32, np.uint16]),
    temperature=st.sampled_from([0.0, 0.7]),
)
def test_penalties(vocab_size, density, penalties, which, dtype, temperature):
    rng = np.random.default_rng(vocab_size)
    logits = narrow(rng.standard_normal((3, vocab_size)) * 2, dtype)
    bitmask = None if density is None else random_mask(rng, 3, vocab_size, density)
    ids = rng.integers(-3, vocab_size + 3, (2, 3, 60)).astype(np.int32)
    both(
        logits,
        bitmask=bitmask,
        temperature=temperature,
        top_p=0.9,
        seed=5,
        prompt_ids=ids[0] if which != "output" else None,
        output_ids=ids[1] if which != "prompt" else None,
        penalties=penalties,
    )


def test_penalties_by_hand():
    """Token 1 twice in the output, token 2 in the prompt only: 4 / 2 - 2 * 0.25 - 0.5 = 1, and -1 * 2 = -2."""
    x = np.array([0, 4, -1, 3], np.float32)
    got = reference.penalised(
        x, np.array([2, -1]), np.array([1, 1]), np.float32(2), np.float32(0.5), np.float32(0.25)
    )
    assert got.tolist() == [0, 1, -2, 3]
    laws = {"repetition_penalty": 2.0, "presence_penalty": 0.5, "frequency_penalty": 0.25}
    history = {"prompt_ids": np.array([[2, -1]], np.int32), "output_ids": np.array([[1, 1]], np.int32)}
    assert tm.sampling.sample(x[None], temperature=0, seed=1, **laws, **history)[0] == 3
    assert tm.sampling.sample(x[None], temperature=0, seed=1, **laws)[0] == 1  # no history, no penalty
    with pytest.raises(ShapeError, match="prompt_ids"):
        tm.sampling.sample(x[None], seed=1, prompt_ids=np.zeros((2, 1), np.int32))


def test_one_row_of_a_larger_array_is_masked_in_place():
    logits, mask = np.zeros(40, np.float32), np.array([5, 0], np.int32)
    tm.apply_bitmask(logits[None], mask[None])
    assert np.flatnonzero(np.isfinite(logits)).tolist() == [0, 2]


@pytest.mark.parametrize("vocab_size", [0, 1, 31, 32, 33, 100])
def test_pack_bitmask(vocab_size):
    rng = np.random.default_rng(vocab_size)
    allowed = rng.random((3, vocab_size)) < 0.5
    words = tm.sampling.pack_bitmask(allowed)
    assert (words.dtype, words.shape) == (np.int32, (3, -(-vocab_size // 32)))
    by_lists = tm.sampling.pack_bitmask(
        [np.flatnonzero(row).tolist() for row in allowed], vocab_size=vocab_size
    )
    np.testing.assert_array_equal(words, by_lists)
    logits = np.zeros((3, vocab_size), np.float32)
    tm.apply_bitmask(logits, words)
    np.testing.assert_array_equal(logits == 0, allowed)
    other = rng.random((3, vocab_size)) < 0.5
    both = words & tm.sampling.pack_bitmask(other)
    np.testing.assert_array_equal(both, tm.sampling.pack_bitmask(allowed & other))


def test_pack_bitmask_refuses():
    for bad in (np.zeros((2, 5)), np.zeros(5, bool)):
        with pytest.raises(ShapeError, match="allowed"):
            tm.sampling.pack_bitmask(bad)
    with pytest.raises(ShapeError, match="vocab_size"):
        tm.sampling.pack_bitmask([[1]])
    for ids in ([5], [-1]):
        with pytest.raises(ShapeError, match="allowed"):
            tm.sampling.pack_bitmask([ids], vocab_size=5)
