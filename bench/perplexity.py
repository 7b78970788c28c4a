"""What sparse decode attention costs in quality: perplexity of SmolLM2-135M against the tokens it keeps.

``python bench/perplexity.py`` (needs torch, transformers, gguf and the model package) prints a table in Markdown. The model reads the first
``--prompt`` tokens of a text at once, then scores the next ones step by step, as decoding does, with
``attn_implementation="tokamask_sparse"``; the cache stays whole, and only what a step attends to shrinks.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def load():
    """SmolLM2 as transformers' own model, in float32, from the GGUF file that the demo runs."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tokamask.demo import find_model
    from tokamask.demo.weights import load as read

    weights = read(find_model())
    c, first = weights.config, weights.layers[0]
    config = LlamaConfig(
        vocab_size=len(weights.embedding), hidden_size=c.hidden_size, intermediate_size=first.down.shape[1],
        num_hidden_layers=c.num_layers, num_attention_heads=c.num_q_heads, num_key_value_heads=c.num_kv_heads,
        head_dim=c.head_dim, max_position_embeddings=c.context_length, rms_norm_eps=c.rms_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_base}, tie_word_embeddings=True,
    )  # fmt: skip

    def halves(matrix, heads):
        """GGUF turns channels (2 i, 2 i + 1) of a head together, transformers i and i + head_dim / 2."""
        return matrix.reshape(heads, -1, 2, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape)

    state = {"model.embed_tokens.weight": weights.embedding, "model.norm.weight": weights.norm}
    for i, layer in enumerate(weights.layers):
        q, k = c.num_q_heads * c.head_dim, c.num_kv_heads * c.head_dim
        middle = len(layer.gate_up) // 2
        parts = {
            "input_layernorm": layer.attention_norm,
            "self_attn.q_proj": halves(layer.qkv[:q], c.num_q_heads),
            "self_attn.k_proj": halves(layer.qkv[q : q + k], c.num_kv_heads),
            "self_attn.v_proj": layer.qkv[q + k :],
            "self_attn.o_proj": layer.attention_out,
            "post_attention_layernorm": layer.mlp_norm,
            "mlp.gate_proj": layer.gate_up[:middle],
            "mlp.up_proj": layer.gate_up[middle:],
            "mlp.down_proj": layer.down,
        }
        state |= {f"model.layers.{i}.{name}.weight": array for name, array in parts.items()}
    model = LlamaForCausalLM(config).eval()
    tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
    missing = model.load_state_dict(tensors, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"lm_head.weight"}, missing
    model.tie_weights()
    return model


def perplexity(model, ids, prompt: int) -> float:
    """Of ``ids[prompt:]``, scored one by one."""
    import torch

    with torch.inference_mode():
        out = model(ids[None, :prompt], use_cache=True, logits_to_keep=1)
        loss = 0.0
        for target, token in zip(ids[prompt:], ids[prompt:, None], strict=True):
            loss -= out.logits[0, -1].log_softmax(-1)[target].item()
            out = model(token[None], past_key_values=out.past_key_values, use_cache=True)
    return float(torch.tensor(loss / (len(ids) - prompt)).exp())


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "DESIGN.md")
    parser.add_argument("--prompt", type=int, default=1024, help="tokens read at once (1024)")
    parser.add_argument("--steps", type=int, default=256, help="tokens scored one by one (256)")
    parser.add_argument("--keep", type=int, nargs="*", default=[1024, 512, 256, 128, 64])
    options = parser.parse_args()

    import torch

    import tokamask as tm
    from tokamask.demo import find_model
    from tokamask.integrations.sparse_attention import NAME, register

    tokenizer = tm.Tokenizer.from_file(find_model())
    ids = torch.tensor(tokenizer.encode(options.text.read_text(encoding="utf-8")))
    ids = ids[: options.prompt + options.steps]
    model = load()  # dense first: what torch itself gives
    model.set_attn_implementation("sdpa")
    dense = perplexity(model, ids, options.prompt)
    rows = [("torch's own attention", "all", dense)]
    register(keep_ratio=1.0)
    model.set_attn_implementation(NAME)
    rows.append(("`keep_ratio=1`", "all", perplexity(model, ids, options.prompt)))
    for keep in options.keep:
        register(keep=keep, n_init=4, n_local=min(64, keep // 2))
        share = f"{keep} ({keep / len(ids):.0%})"
        rows.append((f"`keep={keep}`", share, perplexity(model, ids, options.prompt)))
    print(f"{len(ids):,} tokens, the last {len(ids) - options.prompt} scored step by step.\n")
    print("| attention | tokens kept | perplexity | against dense |\n|---|--:|--:|--:|")
    for name, kept, value in rows:
        print(f"| {name} | {kept} | {value:.3f} | {value / dense - 1:+.2%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
