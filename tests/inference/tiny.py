"""A tiny model of the real network, and short cuts the engine's tests share."""

from __future__ import annotations

import torch

from deepwright.config import ModelConfig, RopeScaling
from deepwright.model.transformer import Transformer
from deepwright.sampler import Completion

VOCAB, CONTEXT = 48, 96


def tiny_model(seed: int = 0, dtype: torch.dtype = torch.float32, **changes) -> Transformer:
    """Two layers (one of experts), YaRN from 24 positions on; weights large enough that no two logits are nearly equal."""
    config = ModelConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2, first_k_dense_replace=1,
        num_attention_heads=2, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, kv_lora_rank=16, qk_nope_head_dim=8,
        qk_rope_head_dim=4, v_head_dim=8, q_lora_rank=12, n_group=2, topk_group=1, max_position_embeddings=CONTEXT,
        rope_scaling=RopeScaling(4.0, 24, mscale=1.0, mscale_all_dim=1.0), initializer_range=0.25, **changes,
    )  # fmt: skip
    model = Transformer(config, torch.Generator().manual_seed(seed))
    return model if dtype == torch.float32 else widened(model)


def tiny_dense(
    seed: int = 0, dtype: torch.dtype = torch.float32, kind: str = "qwen3"
) -> Transformer:
    """The same size with grouped-query attention: three query heads to a key head, biases, norms, YaRN."""
    config = ModelConfig(
        model_type=kind, vocab_size=VOCAB, hidden_size=36, intermediate_size=48, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=8, attention_bias=True, max_position_embeddings=CONTEXT, tie_word_embeddings=True,
        rope_scaling=RopeScaling(4.0, 24), initializer_range=0.25,
    )  # fmt: skip
    model = Transformer(config, torch.Generator().manual_seed(seed))
    for block in model.layers:
        torch.nn.init.normal_(
            block.attention.qkv.bias, std=0.25, generator=torch.Generator().manual_seed(seed + 1)
        )
    return model if dtype == torch.float32 else widened(model)


def widened(model: Transformer) -> Transformer:
    """The same model in fp64: parameters, and what the blocks compute in."""
    model.compute_dtype = torch.float64
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    return model


def same(a: Completion, b: Completion, tolerance: float) -> bool:
    """Equal ids and stop reason, log-probabilities within `tolerance`."""
    if (a.token_ids, a.stop) != (b.token_ids, b.stop):
        return False
    return all(abs(x - y) <= tolerance for x, y in zip(a.log_probs, b.log_probs, strict=True))


@torch.no_grad()
def full_log_probs(model: Transformer, prompt, completion, temperature: float) -> torch.Tensor:
    """log softmax(logits / T) of every completion token, from one uncached forward."""
    tokens = torch.tensor([[*prompt, *completion]])
    logits_SV = model(tokens)[0, len(prompt) - 1 : -1].double() / temperature
    return logits_SV.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]
