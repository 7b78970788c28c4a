"""transformers with ``attn_implementation="tokamask_sparse"``, on a small random model."""

import copy

import pytest

from tokamask.errors import ShapeError

torch = pytest.importorskip("torch", reason="torch is not installed; pip install torch transformers")
pytest.importorskip("transformers", reason="transformers is not installed; pip install torch transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def models():
    """The same weights with dense and with sparse attention."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tokamask.integrations.sparse_attention import register

    register()
    config = LlamaConfig(
        vocab_size=200, hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, eos_token_id=199,
    )  # fmt: skip
    torch.manual_seed(4)
    dense = LlamaForCausalLM(config).eval()
    sparse = LlamaForCausalLM(copy.deepcopy(config)).eval()
    sparse.load_state_dict(dense.state_dict())
    sparse.set_attn_implementation("tokamask_sparse")
    assert sparse.config._attn_implementation == "tokamask_sparse"
    return dense, sparse


def last_logits(model, ids, steps, **more):
    """The prompt at once, then token by token: logits of each step."""
    with torch.no_grad():
        out = model(ids[:, :-steps], use_cache=True, **more)
        rows = []
        for i in range(steps):
            at = ids.shape[1] - steps + i
            out = model(ids[:, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
            rows.append(out.logits[:, -1])
    return torch.stack(rows)


def test_keeping_everything_is_dense_attention(models):
    from tokamask.integrations.sparse_attention import register

    register(keep_ratio=1.0)
    ids = torch.randint(1, 199, (2, 90), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(*(last_logits(model, ids, 5) for model in models), atol=2e-5, rtol=1e-4)


def test_keeping_less_changes_steps_but_not_the_prompt(models):
    from tokamask.integrations.sparse_attention import register

    dense, sparse = models
    attention = register(keep_ratio=0.25, n_init=2, n_local=8)
    ids = torch.randint(1, 199, (1, 120), generator=torch.Generator().manual_seed(2))
    assert attention.kept(120) == 30
    with torch.no_grad():
        torch.testing.assert_close(sparse(ids).logits, dense(ids).logits, atol=2e-5, rtol=1e-4)
    near = last_logits(sparse, ids, 3) - last_logits(dense, ids, 3)
    assert near.abs().max() > 1e-4
    register(keep=119, n_init=2, n_local=8)  # all but a token or three
    nearer = last_logits(sparse, ids, 3) - last_logits(dense, ids, 3)
    assert nearer.abs().mean() < near.abs().mean()


def test_generate_and_padding(models):
    from tokamask.integrations.sparse_attention import register

    dense, sparse = models
    register(keep_ratio=1.0)
    ids = torch.randint(1, 199, (2, 20), generator=torch.Generator().manual_seed(3))
    seen = torch.ones_like(ids)
    seen[0, :7] = 0  # padded on the left
    options = {"attention_mask": seen, "max_new_tokens": 8, "do_sample": False}
    assert torch.equal(dense.generate(ids, **options), sparse.generate(ids, **options))


def test_settings_are_checked():
    from tokamask.integrations.sparse_attention import SparseAttention

    with pytest.raises(ShapeError, match="keep_ratio"):
        SparseAttention(keep_ratio=0)
    with pytest.raises(ShapeError, match="keep above"):
        SparseAttention(keep=10)
