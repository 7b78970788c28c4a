"""The demo's model as a transformers model, for comparisons under the same weights."""

import numpy as np


def load(file=None):
    """``LlamaForCausalLM`` in float32 with the weights of the demo's GGUF file; needs torch and transformers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tokamask.demo import weights
    from tokamask.demo.model_file import find_model

    read = weights.load(find_model() if file is None else file)
    c, first = read.config, read.layers[0]
    config = LlamaConfig(
        vocab_size=len(read.embedding),
        hidden_size=c.hidden_size,
        intermediate_size=first.down.shape[1],
        num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_q_heads,
        num_key_value_heads=c.num_kv_heads,
        head_dim=c.head_dim,
        max_position_embeddings=c.context_length,
        rms_norm_eps=c.rms_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_base},
        tie_word_embeddings=read.head is read.embedding,
        bos_token_id=c.bos_id,
        eos_token_id=c.eos_id,
    )

    def halves(matrix):
        """GGUF keeps the two coordinates that turn together side by side, transformers half a head apart."""
        pairs = matrix.reshape(-1, c.head_dim // 2, 2, c.hidden_size)
        return pairs.transpose(0, 2, 1, 3).reshape(matrix.shape)

    state = {"model.embed_tokens.weight": read.embedding, "model.norm.weight": read.norm}
    state["lm_head.weight"] = read.head
    for i, layer in enumerate(read.layers):
        q, k, v = np.split(layer.qkv, np.cumsum([c.num_q_heads, c.num_kv_heads]) * c.head_dim)
        gate, up = np.split(layer.gate_up, 2)
        parts = {
            "input_layernorm": layer.attention_norm,
            "self_attn.q_proj": halves(q),
            "self_attn.k_proj": halves(k),
            "self_attn.v_proj": v,
            "self_attn.o_proj": layer.attention_out,
            "post_attention_layernorm": layer.mlp_norm,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": layer.down,
        }
        state |= {f"model.layers.{i}.{name}.weight": part for name, part in parts.items()}
    model = LlamaForCausalLM(config)
    model.load_state_dict(
        {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in state.items()}
    )
    return model.eval()
