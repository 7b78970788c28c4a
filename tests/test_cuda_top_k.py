"""top_k: emulated kernel == Rust == reference, on ordinary and adversarial rows."""

import numpy as np
import pytest
from cuda_engines import Emulator, cast, engine  # noqa: F401

from tokamask.errors import ShapeError
from tokamask.reference.selection import top_k


def special(n: int) -> np.ndarray:
    x = np.random.default_rng(3).standard_normal((4, n)).astype(np.float32)
    x[:, ::7], x[:, 1::7], x[:, 2::5] = np.inf, -np.inf, np.nan
    x[1], x[2] = -np.inf, np.nan
    x[3, ::2] = np.copysign(0, x[3, ::2])
    return x


CASES = {
    "normal": (np.random.default_rng(0).standard_normal((3, 3000)), 512),
    "ties": (np.round(np.random.default_rng(1).standard_normal((3, 1500)), 1), 64),
    "constant": (np.full((2, 700), -2.5), 600),
    "special": (special(1100), 300),
    "only zeros of both signs": (np.copysign(0.0, np.random.default_rng(2).standard_normal((2, 520))), 100),
    "negative NaN": (np.array([[np.copysign(np.nan, -1), 1, -np.inf, np.nan, 2]]), 4),
    "k of one": (np.random.default_rng(5).standard_normal((2, 513)), 1),
    "k beyond n": (np.random.default_rng(4).standard_normal((2, 37)), 50),
    "k of n": (np.random.default_rng(4).standard_normal((2, 64)), 64),
    "one score": (np.zeros((2, 1)), 3),
    "k of zero": (np.zeros((2, 9)), 0),
    "no rows": (np.zeros((0, 9)), 2),
    "keys that differ in the last digit only": (
        np.arange(2000, dtype=np.int32).view(np.float32)[None] + np.float32(0),
        77,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference(engine, case):  # noqa: F811
    scores, k = CASES[case]
    scores = cast(scores, "f32")
    np.testing.assert_array_equal(engine.call("selection", "top_k", scores, k), top_k(scores, k))


@pytest.mark.parametrize("element", ["f16", "bf16"])
def test_16_bit_scores(engine, element):  # noqa: F811
    scores = cast(special(900), element)
    np.testing.assert_array_equal(engine.call("selection", "top_k", scores, 200), top_k(scores, 200))


@pytest.mark.sanitized
def test_ragged_lengths(engine):  # noqa: F811
    scores = cast(np.random.default_rng(6).standard_normal((7, 700)), "f32")
    lengths = np.array([0, 1, 5, 63, 64, 700, 999], np.int32)
    lengths[-1] = 9999  # beyond n: clipped
    np.testing.assert_array_equal(
        engine.call("selection", "top_k", scores, 64, lengths=lengths), top_k(scores, 64, lengths)
    )


@pytest.mark.sanitized
def test_how_many_of_a_row_is_read_on_the_device():
    scores = cast(np.random.default_rng(8).standard_normal((5, 700)), "f32")
    counts, lengths = np.array([0, 3, 12, 99, -1], np.int32), np.array([700, 700, 5, 700, 700], np.int32)
    got = Emulator().call("selection", "top_k", scores, 12, lengths=lengths, counts=counts)
    for row, count in enumerate(np.clip(counts, 0, 12).tolist()):
        want = top_k(scores[row : row + 1], count, lengths[row : row + 1])[0]
        assert got[row].tolist() == [*want.tolist(), *[-1] * (12 - count)]


def test_negative_length_is_empty(engine):  # noqa: F811
    scores = cast(np.ones((1, 8)), "f32")
    assert (engine.call("selection", "top_k", scores, 2, lengths=np.array([-3], np.int32)) == -1).all()


@pytest.mark.sanitized
def test_places_in_a_paged_cache(engine):  # noqa: F811
    rng = np.random.default_rng(7)
    scores = cast(rng.standard_normal((3, 90)), "f32")
    lengths = np.array([90, 8, 0], np.int32)
    positions = top_k(scores, 12, lengths)
    table = rng.permutation(18).reshape(3, 6).astype(np.int32)
    for pages in (table, table[:1]):
        got = engine.call("selection", "top_k", scores, 12, lengths=lengths, page_table=pages, page_size=16)
        for row, found in enumerate(positions):
            own = pages[row if len(pages) > 1 else 0]
            assert got[row].tolist() == [-1 if i < 0 else own[i // 16] * 16 + i % 16 for i in found]
    for wrong in (table[:2], table[:, :5].copy()):
        with pytest.raises(ShapeError, match="page_table"):
            engine.call("selection", "top_k", scores, 12, page_table=wrong, page_size=16)
