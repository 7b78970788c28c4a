"""Primitives between tokenizers: alignment by bytes, spelling, chunks, merged batches, matching pursuit."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokamask as tm
from tokamask.errors import ShapeError, UnknownTokenError
from tokamask.ragged import Ragged


@pytest.fixture(scope="module")
def two():
    text = ["the cat sat on the mat, the dog sat on the log"] * 4
    return (
        tm.train.bpe(text, vocab_size=280, special_tokens=["<s>"], progress=False),
        tm.train.superbpe(text, vocab_size=290, transition=270, progress=False),
    )


def test_vocabularies_are_aligned_by_bytes(two):
    a, b = (tok.vocabulary for tok in two)
    aligned = tm.transfer.align_vocabularies(*two)
    assert all(a.bytes(left) == b.bytes(right) for left, right in aligned.shared.tolist())
    assert len(aligned.shared) + len(aligned.only_a) == len(a) - 1
    assert len(aligned.shared) + len(aligned.only_b) == len(b)
    assert aligned.special.shape == (0, 2)


def test_every_token_is_spelled(two):
    a, b = two
    rows = tm.transfer.decompose_vocabulary(b, a)
    assert [a.decode_bytes(row) for row in rows] == [b.vocabulary.bytes(nth) for nth in range(len(b))]
    assert len(tm.transfer.decompose_vocabulary(a, b)[0]) == 0, "a special token"


@given(st.text(st.sampled_from("the catsondmlg,é"), max_size=60))
def test_chunks_have_equal_bytes_and_no_boundary_inside(two, text):
    a, b = two
    ids_a, ids_b = a.encode(text), b.encode(text)
    chunks = tm.transfer.align_spans(ids_a, a, ids_b, b)
    ends = [
        set(itertools.accumulate(len(tok.decode_bytes([i])) for i in ids))
        for tok, ids in ((a, ids_a), (b, ids_b))
    ]
    assert len(chunks) == len(ends[0] & ends[1])
    for start_a, end_a, start_b, end_b in chunks.tolist():
        assert a.decode_bytes(ids_a[start_a:end_a]) == b.decode_bytes(ids_b[start_b:end_b])
    assert [0, *chunks[:-1, 1].tolist()] == chunks[:, 0].tolist() or len(chunks) == 0


def test_other_texts_are_refused(two):
    with pytest.raises(ShapeError, match="byte 4"):
        tm.transfer.align_spans(two[0].encode("the cat"), two[0], two[1].encode("the dog"), two[1])


def merged_slowly(rows, max_merges, first):
    """The definition: count all, merge the first of the most frequent, repeat."""
    for new in range(first, first + max_merges):
        counts = {}
        for row in rows:
            at = 0
            while at + 1 < len(row):
                pair = row[at], row[at + 1]
                counts[pair] = counts.get(pair, 0) + 1
                at += 2 if at + 2 < len(row) and row[at] == row[at + 1] == row[at + 2] else 1
        best = max(counts, key=counts.get, default=None)
        if best is None or counts[best] < 2:
            break
        yield best, counts[best]
        out = []
        for row in rows:
            row, at = [*row], 0
            while at + 1 < len(row):
                if (row[at], row[at + 1]) == best:
                    row[at : at + 2] = [new]
                at += 1
            out.append(row)
        rows = out


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=5), st.integers(0, 6))
def test_merged_batches(rows, max_merges):
    merged = tm.transfer.merge_batch(Ragged.from_lists(rows), max_merges, first=10)
    restored = [[i for token in row for i in merged.original(token)] for row in merged.ids.to_lists()]
    assert restored == rows
    spans = iter(merged.spans.tolist())
    for row, before in zip(merged.ids.to_lists(), rows, strict=True):
        for token in row:
            start, end = next(spans)
            assert before[start:end] == merged.original(token)
    slowly = list(merged_slowly(rows, max_merges, 10))
    assert len(merged.merges) <= max_merges
    assert bool(len(merged.merges)) == bool(slowly)
    if slowly and len({pair for pair, count in slowly[:1]}) == 1 and 0 not in {a - b for (a, b), _ in slowly}:
        assert tuple(merged.merges[0].tolist()) == slowly[0][0]


def test_forbidden_pairs_stay_apart():
    merged = tm.transfer.merge_batch(
        Ragged.from_lists([[1, 2, 3]] * 3), 5, first=10, allowed=lambda left, right: right != 3
    )
    assert merged.ids.to_lists() == [[10, 3]] * 3
    with pytest.raises(UnknownTokenError):
        merged.original(11)


def test_matching_pursuit_finds_a_sparse_sum():
    draw = np.random.default_rng(0)
    atoms = draw.normal(size=(200, 64))
    wanted = np.array([[3, 70, 150], [9, 10, 11]])
    weights = draw.normal(size=(2, 3)) + 2
    targets = np.einsum("mk,mkd->md", weights, atoms[wanted])
    indices, coefficients = tm.transfer.matching_pursuit(atoms, targets, 6)
    for row in range(2):
        assert set(wanted[row]) <= set(indices[row].tolist())
        found = dict(zip(indices[row].tolist(), coefficients[row].tolist(), strict=True))
        np.testing.assert_allclose([found[index] for index in wanted[row]], weights[row], atol=1e-8)
    # What remains is orthogonal to what was taken, whatever was taken.
    indices, coefficients = tm.transfer.matching_pursuit(atoms, draw.normal(size=(1, 64)), 5)
    assert (indices >= 0).all()


def test_matching_pursuit_refuses_shapes():
    with pytest.raises(ShapeError):
        tm.transfer.matching_pursuit(np.eye(3), np.ones((1, 2)), 1)
    with pytest.raises(ShapeError):
        tm.transfer.matching_pursuit(np.eye(3), np.ones((1, 3)), 4)
