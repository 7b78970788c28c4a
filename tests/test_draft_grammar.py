"""Drafts under a grammar: nothing forbidden is proposed, forced text is, and the output's law is the masked target's."""

import collections

import numpy as np
import pytest

import tokamask as tm

WORDS = [b"a", b"b", b"c", b"ab", b"bc", b"abc", b"{", b"}", b'"', b":", b"</s>"]
EOS = len(WORDS) - 1
VOCABULARY = tm.Vocabulary(WORDS, special={"</s>": EOS}, eos_ids=[EOS])


def matcher(pattern):
    return tm.compile(tm.Grammar.regex(pattern), VOCABULARY).matcher()


def ids(text):
    return [WORDS.index(bytes([b])) for b in text.encode()]


def test_only_allowed_tokens_are_proposed():
    drafter = tm.Drafter()
    drafter.session([0]).update(ids("abcabcabc{}abc:abc"))
    free = drafter.session(ids("cab")).propose(32)
    grammar = matcher("(ab)+c")
    tree = drafter.session(ids("cab"), matcher=grammar).propose(32)
    bitmask = tm.allocate_bitmask(len(tree) + 1, len(VOCABULARY))
    assert len(tree) > 0
    assert all(grammar.fill_tree(bitmask, tree))
    free_mask = tm.allocate_bitmask(len(free) + 1, len(VOCABULARY))
    assert not all(grammar.fill_tree(free_mask, free)), "without the grammar the draft would break it"


def test_forced_text_is_drafted_without_having_been_seen():
    tree = tm.Drafter().session([0], matcher=matcher('\\{"abc":\\}')).propose(8)
    written = max((b"".join(WORDS[t] for t in path) for path in tree.paths()), key=len)
    assert written.startswith(b'{"')
    assert tm.draft.SOURCES[tree.sources[0]] == "forced"


def test_the_end_is_the_last_guess():
    grammar = matcher("a")
    drafter = tm.Drafter()
    drafter.session([1]).update([0, EOS, 0, EOS, 0, EOS])
    tree = drafter.session([1], matcher=grammar).propose(8)
    assert sorted(tree.paths()) == [[0, EOS]]


def test_a_forbidden_token_is_refused_and_changes_nothing():
    session = tm.Drafter().session([0], matcher=matcher("abc"))
    with pytest.raises(tm.errors.RejectedTokenError):
        session.update([0, 0])
    assert session.token_ids.tolist() == [0]
    session.update([0, 1, 2, EOS])
    assert len(session.propose(8)) == 0


def masked_law(context, grammar, rng_key):
    """A fixed random target law under the mask of the grammar."""
    law = np.random.default_rng([3, rng_key, *context]).dirichlet(np.ones(len(WORDS)))
    row = grammar.mask_row()
    allowed = np.array([(int(row[t // 32]) >> (t % 32)) & 1 for t in range(len(WORDS))], float)
    return law * allowed / (law * allowed).sum()


def test_output_has_the_masked_law_with_drafts_and_without():
    """The first two tokens of many sampled runs, against the exact law of the masked target."""
    runs, counts = 1500, collections.Counter()
    grammar = matcher("[abc]{2,6}")
    drafter = tm.Drafter()
    for run in range(runs):
        session = drafter.session([2, 1], matcher=grammar)
        own, written, step = grammar.fork(), [], 0
        while len(written) < 2 and EOS not in written:
            tree = session.propose(6)
            laws = []
            for node in range(-1, len(tree)):
                at = own.fork()
                path = tree.path_ids(node)
                assert at.accept_prefix(path) == len(path)
                done = at.is_terminated()
                laws.append(np.eye(len(WORDS))[EOS] if done else masked_law([*written, *path], at, 0))
            accepted, bonus, _ = tm.verify_sampled(tree, np.array(laws), seed=run, step=step)
            new = [*accepted.tolist(), bonus]
            new = new[: new.index(EOS) + 1] if EOS in new else new
            session.update(new)
            assert own.accept_prefix(new) == len(new)
            written += new
            step += 1
        counts[tuple(written[:2])] += 1
    statistic = freedom = 0
    first = masked_law([], grammar, 0)
    for a in range(len(WORDS)):
        after = grammar.fork()
        if not first[a]:
            continue
        after.accept(a)
        for b, p in enumerate(masked_law([a], after, 0)):
            expected = runs * first[a] * p
            assert expected > 0 or counts[a, b] == 0
            if expected >= 5:
                statistic += (counts[a, b] - expected) ** 2 / expected
                freedom += 1
    assert freedom > 5
    assert statistic < freedom + 4 * np.sqrt(2 * freedom)
