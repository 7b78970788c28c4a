"""transformers: generate under a grammar, and the drafted loop, on a small random model."""

import json
import pathlib

import jsonschema
import numpy as np
import pytest

import tokamask as tm
from tokamask import errors

torch = pytest.importorskip("torch", reason="torch is not installed; pip install torch transformers")
pytest.importorskip("transformers", reason="transformers is not installed; pip install torch transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "boolean"},
        "b": {"type": "array", "items": {"enum": ["x", "yz"]}, "maxItems": 3},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
}
WIDTH = 300


@pytest.fixture(scope="module")
def vocabulary():
    """The 256 bytes, some words, an end."""
    words = [b'"a"', b'"b"', b"true", b"false", b'["', b'"]']
    token_bytes = [bytes([byte]) for byte in range(256)] + words
    end = len(token_bytes)
    return tm.Vocabulary([*token_bytes, b"<end>"], special={"<end>": end}, eos_ids=[end]).with_(
        vocab_size=WIDTH
    )


@pytest.fixture(scope="module")
def model(vocabulary):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=WIDTH, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=vocabulary.eos_ids[0], pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def compiled(vocabulary):
    return tm.compile(tm.Grammar.json_schema(SCHEMA, whitespace="compact"), vocabulary)


def text(vocabulary, ids):
    return b"".join(vocabulary.bytes(i) for i in ids if i < 262).decode()


@pytest.mark.parametrize(
    "options", [{}, {"do_sample": True}, {"num_beams": 3, "num_return_sequences": 3}], ids=str
)
def test_generated_text_matches(model, vocabulary, compiled, options):
    from tokamask.integrations.transformers import GrammarLogitsProcessor

    torch.manual_seed(1)
    prompts = torch.tensor([[1, 2, 3], [7, 8, 9]])
    out = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=60,
        logits_processor=[GrammarLogitsProcessor(compiled)],
        **options,
    )
    rows = out[:, 3:].tolist()
    assert len(rows) == 2 * options.get("num_return_sequences", 1)
    for row in rows:
        assert vocabulary.eos_ids[0] in row
        answer = text(vocabulary, row[: row.index(vocabulary.eos_ids[0])])
        jsonschema.validate(json.loads(answer), SCHEMA)


@pytest.mark.parametrize("constrained", [False, True], ids=["free", "schema"])
def test_the_drafted_loop_gives_the_plain_output(model, compiled, constrained):
    from tokamask.integrations.transformers import DraftedGeneration, GrammarLogitsProcessor

    prompt = torch.tensor([[1, 2, 3, 1, 2, 3, 1, 2]])
    loop = DraftedGeneration(verify_cost=[1.0, 1.0, 1.0, 1.0])
    outputs = [
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=60,
            logits_processor=[GrammarLogitsProcessor(compiled)] if constrained else [],
            **extra,
        ).tolist()
        for extra in ({}, {"custom_generate": loop}, {"custom_generate": loop})
    ]
    assert outputs[0] == outputs[1] == outputs[2]
    assert loop.tokens == 2 * (len(outputs[0][0]) - prompt.shape[1])
    assert loop.forwards < loop.tokens


def test_wrong_widths_and_batches_are_named(model, compiled):
    from tokamask.integrations.transformers import DraftedGeneration, GrammarLogitsProcessor

    with pytest.raises(errors.ShapeError) as shape:
        GrammarLogitsProcessor(compiled)(torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, WIDTH + 1))
    assert shape.value.name == "scores"
    with pytest.raises(errors.ShapeError) as batch:
        DraftedGeneration()(model, torch.zeros(2, 2, dtype=torch.int64), None, None, None)
    assert batch.value.name == "input_ids"


def test_a_finished_sequence_is_left_alone(compiled, vocabulary):
    from tokamask.integrations.transformers import GrammarLogitsProcessor

    processor = GrammarLogitsProcessor(compiled)
    prompt = [5, 6]
    done = [*(vocabulary.id(bytes([b])) for b in b'{"a":true,"b":[]}'), vocabulary.eos_ids[0], 0]
    scores = torch.zeros(1, WIDTH)
    processor(torch.tensor([prompt]), scores)
    for end in range(1, len(done) + 1):
        masked = processor(torch.tensor([prompt + done[:end]]), scores)
    np.testing.assert_array_equal(masked.numpy(), scores.numpy())


@pytest.mark.parametrize("constrained", [False, True], ids=["free", "schema"])
def test_assisted_generation_gives_the_plain_output(model, compiled, constrained):
    from tokamask.integrations.transformers import (
        DraftCandidateGenerator,
        GrammarLogitsProcessor,
        assisted_by,
    )

    prompt = torch.tensor([[1, 2, 3, 1, 2, 3, 1, 2]])
    generator = DraftCandidateGenerator(budget=5)

    def generate(**extra):
        return model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=50,
            logits_processor=[GrammarLogitsProcessor(compiled)] if constrained else [],
            **extra,
        ).tolist()

    plain = generate()
    with assisted_by(model, generator):
        first, second = (generate(prompt_lookup_num_tokens=5) for _ in range(2))
    assert plain == first == second
    assert (
        generator.drafter.tokens >= len(plain[0]) - prompt.shape[1] - 6
    )  # what the last pass gave is not asked about
    assert "_get_candidate_generator" not in vars(model)
    # The library's own guesses know no grammar; the processor is asked about them and does not mind.
    assert generate(prompt_lookup_num_tokens=3) == plain


def test_candidates_and_their_signatures():
    import inspect

    from transformers.generation.candidate_generator import CandidateGenerator

    from tokamask.integrations.transformers import DraftCandidateGenerator

    for name in ("get_candidates", "update_candidate_strategy"):
        ours, theirs = (
            list(inspect.signature(getattr(c, name)).parameters)
            for c in (DraftCandidateGenerator, CandidateGenerator)
        )
        assert ours == theirs
    generator = DraftCandidateGenerator(budget=3)
    ids = torch.tensor([[5, 6, 7, 8, 5, 6]])
    found, logits = generator.get_candidates(ids)
    assert logits is None
    assert found.tolist() == [[5, 6, 7, 8, 5, 6, 7, 8, 5]]
    generator.longest = 8
    assert generator.get_candidates(ids)[0].shape == (1, 7)
    with pytest.raises(errors.ShapeError):
        generator.get_candidates(ids.repeat(2, 1))


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf):
    """SmolLM2 in transformers, with the weights of the demo's file."""
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    from bench import torch_model

    return torch_model.load(smollm2_gguf)


@pytest.mark.parametrize(
    ("schema", "options"),
    [
        (
            {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 8},
                    "age": {"type": "integer", "minimum": 1, "maximum": 120},
                    "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
                },
                "required": ["name", "age", "tags"],
                "additionalProperties": False,
            },
            {},
        ),
        ({"type": "array", "items": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 1000}, "minItems": 2, "maxItems": 4}, {"do_sample": True}),
    ],
    ids=["greedy", "sampled"],
)  # fmt: skip
def test_smollm2_writes_what_the_schema_allows(smollm2, smollm2_gguf, schema, options):
    from tokamask.integrations.transformers import GrammarLogitsProcessor

    tokenizer = tm.Tokenizer.from_file(smollm2_gguf)
    vocabulary = tokenizer.vocabulary.with_(
        vocab_size=smollm2.config.vocab_size, eos_ids=[smollm2.config.eos_token_id]
    )
    grammar = tm.Grammar.json_schema(schema, whitespace="compact", property_order="schema")
    prompt = "Describe a person as JSON.\n"
    ids = tokenizer.encode(prompt)
    torch.manual_seed(2)
    out = smollm2.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=64,
        pad_token_id=smollm2.config.eos_token_id,
        logits_processor=[GrammarLogitsProcessor(tm.compile(grammar, vocabulary))],
        **options,
    )
    for row in out.tolist():
        written = [i for i in row[len(ids) :] if i != smollm2.config.eos_token_id]
        assert row[-1] == smollm2.config.eos_token_id or len(written) < 64, "it did not end"
        jsonschema.validate(
            json.loads(tokenizer.decode(written)), schema, format_checker=jsonschema.FormatChecker()
        )
