"""The demo engine: its greedy output is the recorded one, and a draft tree changes nothing."""

import json
import pathlib

import numpy as np
import pytest

from tokamask import errors
from tokamask.demo import weights
from tokamask.draft import DraftTree

DATA = pathlib.Path(__file__).parent / "data"
TRACES = [json.loads(line) for line in (DATA / "demo_traces.jsonl").read_text().splitlines()]
PROMPT = TRACES[0]["prompt_ids"]
TREE = DraftTree([504, 669, 28, 2591, 260, 314, 5430], [-1, -1, -1, 0, 0, 1, 3])


def greedy(engine, prompt_ids, count):
    logits = engine.prefill(prompt_ids)
    ids = []
    while len(ids) < count:
        ids.append(int(logits.argmax()))
        logits = engine.step(ids[-1])[0]
    return ids


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: f"{trace['source']}-{trace['id']}")
def test_greedy_output_is_the_recorded_one(engine, trace):
    assert greedy(engine, trace["prompt_ids"], len(trace["output_ids"])) == trace["output_ids"]


def test_a_tree_step_equals_steps_one_by_one(engine):
    engine.prefill(PROMPT)
    rows = engine.step(281, TREE)
    for node in range(-1, len(TREE)):
        engine.prefill(PROMPT)
        logits = engine.step(281)
        for token in TREE.path_ids(node):
            logits = engine.step(token)
        np.testing.assert_allclose(rows[node + 1], logits[0], atol=1e-4, rtol=0)


def test_the_kept_path_is_as_if_read_token_by_token(engine):
    engine.prefill(PROMPT)
    engine.step(281, TREE)
    engine.keep([0, 3, 6])
    after_tree = engine.step(99)
    engine.prefill(PROMPT)
    for token in (281, 504, 2591, 5430):
        engine.step(token)
    assert engine.seq_len == len(PROMPT) + 4
    np.testing.assert_allclose(after_tree, engine.step(99), atol=1e-4, rtol=0)


def test_nodes_not_kept_are_forgotten(engine):
    engine.prefill(PROMPT)
    engine.step(281, TREE)
    after_tree = engine.step(99)
    engine.prefill(PROMPT)
    engine.step(281)
    np.testing.assert_allclose(after_tree, engine.step(99), atol=1e-4, rtol=0)
    with pytest.raises(errors.ShapeError) as error:
        engine.keep([0])
    assert error.value.name == "path"


def test_a_long_prompt_in_several_batches_equals_one_batch(engine, monkeypatch):
    rows = []
    last = engine.prefill(PROMPT, each=rows.append)
    whole = np.concatenate(rows)
    assert whole.shape == (len(PROMPT), engine.vocab_size)
    np.testing.assert_allclose(last, whole[-1], atol=1e-4, rtol=0)
    monkeypatch.setattr("tokamask.demo.model.PREFILL_ROWS", 7)
    rows.clear()
    np.testing.assert_allclose(engine.prefill(PROMPT, each=rows.append), last, atol=1e-4, rtol=0)
    np.testing.assert_allclose(np.concatenate(rows), whole, atol=1e-4, rtol=0)


def test_bad_tokens_and_lengths_are_named(engine):
    with pytest.raises(errors.UnknownTokenError) as unknown:
        engine.prefill([1, engine.vocab_size])
    assert unknown.value.token_id == engine.vocab_size
    with pytest.raises(errors.ShapeError):
        engine.prefill([])
    with pytest.raises(errors.LimitError) as limit:
        engine.prefill([1] * (engine.config.context_length + 1))
    assert limit.value.value == engine.config.context_length


def test_a_file_that_is_no_model_is_named(tmp_path, smollm2_gguf):
    with pytest.raises(FileNotFoundError, match="absent"):
        weights.load(tmp_path / "absent.gguf")
    text = tmp_path / "text.gguf"
    text.write_text("not a model, but long enough to hold a header")
    with pytest.raises(errors.VocabularyError) as error:
        weights.load(text)
    assert error.value.path == str(text)


@pytest.mark.parametrize("size", [3, 20, 1000, 2_000_000, 5_000_000])
def test_a_model_file_cut_off_anywhere_is_named(tmp_path, smollm2_gguf, size):
    cut = tmp_path / "cut.gguf"
    with smollm2_gguf.open("rb") as source:
        cut.write_bytes(source.read(size))
    with pytest.raises(errors.VocabularyError):
        weights.load(cut)
