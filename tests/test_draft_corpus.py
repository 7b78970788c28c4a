"""DraftCorpus: a fixed text as a source of drafts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask.draft import SOURCES, DraftCorpus
from tokamask.errors import CorpusError, ShapeError

TEXT = [list(range(100, 160)), [7, 8, 9, 120, 121, 500]]


def test_a_session_drafts_from_it():
    corpus = DraftCorpus.build(TEXT)
    session = tm.Drafter(corpus=corpus).session([1, 2, 110, 111, 112])
    tree = session.propose(budget=8)
    best = max(range(len(tree)), key=lambda node: (tree.depths[node], tree.probs[node]))
    assert tree.path_ids(best)[:4] == [113, 114, 115, 116]
    assert SOURCES[int(tree.sources[0])] == "corpus"
    session.update([113, 114])
    assert session.propose(budget=1).token_ids.tolist() == [115]
    assert not len(tm.Drafter().session([1, 2, 110, 111, 112]).propose(budget=8))


def test_files_are_mapped_and_checked(tmp_path):
    corpus = DraftCorpus.build(TEXT)
    path = tmp_path / "text.drafts"
    corpus.save(path)
    again = DraftCorpus.load(path)
    assert (again.entries == corpus.entries).all()
    trees = [tm.Drafter(corpus=c).session([110, 111]).propose(budget=4) for c in (corpus, again)]
    assert trees[0] == trees[1]
    del again  # the drafters keep what they use
    whole = path.read_bytes()
    for broken in (
        whole[:-8],
        whole[:100] + b"\xff" + whole[101:],
        b"x" + whole[1:],
        whole[:16] + b"\x02" + whole[17:],
        b"",
    ):
        path.write_bytes(broken)
        with pytest.raises(CorpusError):
            DraftCorpus.load(path)


def test_drafts_from_a_corpus_are_accepted_more_often():
    outputs = [[(7 * i * i + 3 * n) % 97 for i in range(n, n + 60)] for n in range(8)]

    def steps(drafter):
        total = 0
        for output in outputs:
            session, at = drafter.session(output[:3]), 3
            while at < len(output):
                tree = session.propose(budget=8)
                targets, node = output[at:], -1
                new = 1
                for token in targets[:-1]:
                    below = [
                        i for i in range(len(tree)) if tree.parents[i] == node and tree.token_ids[i] == token
                    ]
                    if not below:
                        break
                    node, new = below[0], new + 1
                session.update(targets[:new])
                at += new
                total += 1
        return total

    assert steps(tm.Drafter(corpus=DraftCorpus.build(outputs))) < 0.6 * steps(tm.Drafter())


@given(st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=6), st.integers(64, 4096))
def test_tables_are_bounded(texts, most_bytes):
    corpus = DraftCorpus.build(texts, most_bytes=most_bytes)
    assert corpus.nbytes <= max(most_bytes, 64)
    for text in texts:
        tm.Drafter(corpus=corpus).session(text).propose(budget=4)


def test_what_is_refused():
    with pytest.raises(ShapeError, match="texts"):
        DraftCorpus.build([[-1]])
    with pytest.raises(ShapeError, match="texts"):
        DraftCorpus.build([[0.5]])

    class Writable:
        entries = DraftCorpus.build(TEXT).entries.copy()

    with pytest.raises(ShapeError, match="read-only"):
        tm.Drafter(corpus=Writable())
