"""Ids and text equal to the reference on ordinary and hostile texts, vocabulary by vocabulary: a slice.

``make exact`` runs all of it (exact.py), and tests/data/exact.json says what it found.
"""

import json

import exact
import pytest

SIZE = 40_000
SPLIT_RULES = {"lines": r"[^\n]+\n?|\n", "qwen's on other ranks": exact.QWEN}


@pytest.fixture(scope="module", params=[*exact.PAIRS, *SPLIT_RULES])
def pair(request):
    try:
        if request.param in SPLIT_RULES:
            # Other split rules on the same ranks: the ids mean nothing, the reference runs them all the same.
            known = exact.openai_ranks("cl100k_base")
            return exact.ranked(known._mergeable_ranks, SPLIT_RULES[request.param])
        return exact.PAIRS[request.param]()
    except exact.AbsentError as error:
        pytest.skip(f"absent: {error}")


def test_documents(pair):
    size, part = 0, ""
    for name, text in exact.documents():
        if (kind := name.split()[0]) != part:
            size, part = 0, kind
        if size < SIZE:
            size += len(text[:8000])
            assert exact.difference(pair, text[:8000]) is None, name


def test_hostile_texts(pair):
    for name, text in exact.hostile(0.01).items():
        assert exact.difference(pair, text) is None, name


def test_the_record_has_no_differences():
    rows = json.loads(exact.RESULTS.read_text(encoding="utf-8"))
    assert {row["vocabulary"] for row in rows} <= set(exact.PAIRS)
    assert {row["vocabulary"]: row["differences"] for row in rows if row["differences"]} == {}
