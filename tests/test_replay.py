"""Replays of recorded outputs, and the published methods that they compare."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokamask as tm
from tokamask import methods
from tokamask.cli import main
from tokamask.replay import Trace, read_traces, replay, table


def naive_replay(method, trace, budget):
    """Tokens and forwards of one trace, by walking each tree's paths."""
    session = method.session(trace.prompt_ids)
    session.update(trace.output_ids[:1])
    position, steps = 1, 0
    while position < len(trace.output_ids):
        rest = trace.output_ids[position:]
        paths = session.propose(budget).paths()
        k = max((n for path in paths for n in range(len(path) + 1) if path[:n] == rest[:n]), default=0)
        session.update(rest[: k + 1])
        position += k + 1
        steps += 1
    return steps


TEXT = [5, 6, 7, 8, 9, 5, 6, 7, 8, 10, 5, 6, 7, 8, 9, 5, 6, 7, 8, 10, 11]


@pytest.mark.parametrize("name", ["tokamask", *methods.METHODS])
def test_every_method_drafts_and_counts_right(name):
    make = tm.Drafter if name == "tokamask" else methods.METHODS[name]
    trace = Trace(TEXT[:8], TEXT[8:] + TEXT, "text")
    top = [[t, 1, 2] for t in trace.output_ids]
    trace.topk_ids, trace.prompt_topk = top, [[t, 3, 4] for t in [*TEXT[1:8], TEXT[8]]]
    result = replay(make(), [trace], budget=8)
    assert result.tokens == len(trace.output_ids) - 1
    assert result.steps == naive_replay(make(), trace, 8)
    recycled = replay(make(), [trace, trace], budget=8, recycle=True)
    assert recycled.mean_accepted > 1.2
    assert recycled.by_source["text"].steps == recycled.steps


@pytest.mark.parametrize("name", methods.METHODS)
@given(data=st.data())
def test_every_method_keeps_its_budget_and_guesses_once(name, data):
    tokens = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=30))
    budget = data.draw(st.integers(0, 12))
    session = methods.METHODS[name]().session(tokens[:10], prompt_topk=[[0, 1]] * len(tokens[:10]))
    session.update(tokens[10:], topk_ids=[[1, 2]] * len(tokens[10:]))
    tree = session.propose(budget)
    assert len(tree) <= budget
    if "next-next" not in name and "parallel" not in name:  # those draft chains side by side
        assert len(set(zip(tree.parents.tolist(), tree.token_ids.tolist(), strict=True))) == len(tree)


@given(st.lists(st.integers(0, 2), max_size=40))
def test_automaton_finds_the_longest_suffix_seen_before(tokens):
    automaton = methods.SuffixAutomaton()
    for n, token in enumerate(tokens, 1):
        automaton.append(token)
        text = tokens[:n]
        ends = {
            k: next((e for e in range(k, n) if text[e - k : e] == text[n - k :]), None)
            for k in range(n, 0, -1)
        }
        longest = next((k for k, end in ends.items() if end is not None), 0)
        assert automaton.matched == longest
        if longest:
            assert automaton.first_ends[automaton.state] == ends[longest] - 1


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=50), st.lists(st.integers(0, 3), min_size=1, max_size=4)
)
def test_suffix_array_finds_all_occurrences(tokens, pattern):
    corpus = methods.Corpus(tokens)
    suffixes = [tokens[i:] for i in corpus.order]
    assert suffixes == sorted(suffixes)
    expected = [i for i in range(len(tokens)) if tokens[i : i + len(pattern)] == pattern]
    assert sorted(corpus.find(pattern).tolist()) == expected


def test_a_corpus_drafts_its_commonest_continuations(tmp_path):
    methods.Corpus([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3, 4]).save(str(tmp_path / "corpus"))
    session = methods.Corpus.load(str(tmp_path / "corpus")).session([9, 1, 2])
    tree = session.propose(3)
    assert tree.token_ids.tolist()[0] == 3
    assert 4 in tree.token_ids.tolist()
    assert len(methods.Corpus([1, 2, 3]).session([7]).propose(4)) == 0


def test_traces_are_read_and_bad_lines_are_named(tmp_path):
    path = tmp_path / "traces.jsonl"
    rows = [
        {"prompt_ids": [1], "output_ids": [2, 3], "source": "a", "top8_ids": [[2], [3]]},
        {"prompt_ids": [1]},
    ]
    path.write_text(json.dumps(rows[0]) + "\n")
    (trace,) = read_traces(path)
    assert (trace.prompt_ids, trace.output_ids, trace.source, trace.topk_ids) == (
        [1],
        [2, 3],
        "a",
        [[2], [3]],
    )
    for bad in (json.dumps(rows[1]), "x", "[]", '{"prompt_ids": ["a"], "output_ids": []}'):
        path.write_text(json.dumps(rows[0]) + "\n" + bad + "\n")
        with pytest.raises(tm.errors.ShapeError) as caught:
            list(read_traces(path))
        assert caught.value.name == "line 2"


def test_the_table_has_a_line_per_method():
    trace = Trace(TEXT, TEXT)
    lines = table({"ours": {8: replay(tm.Drafter(), [trace], budget=8)}}).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("ours")
    assert np.isclose(
        float(lines[1].split()[1]), replay(tm.Drafter(), [trace], budget=8).mean_accepted, atol=1e-3
    )


def test_drafts_beat_the_best_published_rule_on_recorded_text(unpacked):
    """A smaller version of the comparison in bench/: the first requests of each recorded set."""
    folder = unpacked("draft_traces_open.tar.xz") / "open"
    for name, rows in (("gsm8k_gpt3_traces", 60), ("smollm2_traces", 30)):
        traces = [trace for trace, _ in zip(read_traces(folder / f"{name}.jsonl"), range(rows), strict=False)]
        ours = replay(tm.Drafter(), traces, budget=32)
        theirs = replay(methods.AnchorTrie("recency"), traces, budget=32)
        assert ours.mean_accepted > theirs.mean_accepted


def test_the_command_prints_the_comparison(tmp_path, capsys):
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps({"prompt_ids": TEXT, "output_ids": TEXT}) + "\n" for _ in range(3)))
    command = ["draft", "--replay", str(path), "--budget", "8", "--limit", "2", "--all", "--quiet"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("tokamask")
    assert any(line.startswith("anchor trie, recency") for line in lines)
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokamask"]["8"]["mean_accepted"] > 1
    assert main(["draft", "--replay", str(path), "--skip", "9"]) == 2
    assert "no traces" in capsys.readouterr().err
