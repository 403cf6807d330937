"""Small models that between them use every option of the architecture, with weights that make mistakes visible.

Freshly initialised weights hide errors: attention is nearly uniform, routing scores nearly tie, norm weights are 1. Here scores
are spread, norms differ from 1, router biases are negative, and sequences run far beyond the original context of YaRN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deepwright.config import Llama3Scaling, ModelConfig, RopeScaling
from deepwright.model import Transformer

VOCABULARY, LENGTH = 61, 40
_SMALL = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, moe_intermediate_size=24, num_hidden_layers=3, first_k_dense_replace=1,
    num_attention_heads=4, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, kv_lora_rank=20, qk_nope_head_dim=12,
    qk_rope_head_dim=8, v_head_dim=10, n_group=4, topk_group=2, routed_scaling_factor=2.5, max_position_embeddings=64,
)  # fmt: skip
_V2 = dict(
    model_type="deepseek_v2",
    scoring_func="softmax",
    norm_topk_prob=False,
    n_group=1,
    topk_group=1,
    topk_method="greedy",
)
_YARN = RopeScaling(factor=8, original_max_position_embeddings=8, mscale=1.0, mscale_all_dim=1.0)
_YARN_ON_COSINES = RopeScaling(
    factor=8, original_max_position_embeddings=8, mscale=1.0, mscale_all_dim=0.0
)
_YARN_UNEQUAL = RopeScaling(
    factor=8,
    original_max_position_embeddings=8,
    beta_fast=16,
    beta_slow=2,
    mscale=0.707,
    mscale_all_dim=0.5,
)


def _case(**changes) -> ModelConfig:
    return ModelConfig(**{**_SMALL, **changes})


CASES = {
    "v3": _case(),
    "v3 query compression": _case(q_lora_rank=14),
    "v3 yarn": _case(q_lora_rank=14, rope_scaling=_YARN),
    "v3 yarn, magnitude on cosines": _case(rope_scaling=_YARN_ON_COSINES),
    "v3 yarn, unequal mscales": _case(rope_scaling=_YARN_UNEQUAL, rope_theta=5000.0),
    "v3 half-split rotary pairs": _case(rope_interleave=False, rope_scaling=_YARN),
    "v3 one group, top-3": _case(n_group=1, topk_group=1, num_experts_per_tok=3),
    "v3 weights not normalised": _case(norm_topk_prob=False, routed_scaling_factor=1.5),
    "v3 no shared expert": _case(n_shared_experts=0),
    "v3 two shared experts": _case(n_shared_experts=2, rms_norm_eps=1e-3),
    "v3 tied embedding": _case(tie_word_embeddings=True),
    "v3 dense": _case(first_k_dense_replace=3),
    "v3 every layer with experts, top-4": _case(
        first_k_dense_replace=0, n_routed_experts=12, n_group=3, num_experts_per_tok=4
    ),
    "v3 two MTP modules": _case(num_nextn_predict_layers=2, rope_scaling=_YARN),
    "v2-lite": _case(**_V2, n_shared_experts=2, routed_scaling_factor=1.0, num_experts_per_tok=3),
    "v2": _case(
        **_V2 | dict(n_group=4, topk_group=2, topk_method="group_limited_greedy"),
        q_lora_rank=14,
        n_shared_experts=2,
    ),
    "v2 yarn": _case(
        **_V2,
        rope_scaling=RopeScaling(8, 8, mscale=0.707, mscale_all_dim=0.707),
        routed_scaling_factor=16.0,
    ),
    "v2 yarn, magnitude on cosines": _case(
        **_V2, rope_scaling=_YARN_ON_COSINES, tie_word_embeddings=True
    ),
}


# width 12 at theta 100: channels of all three kinds
_LLAMA3 = Llama3Scaling(factor=8, original_max_position_embeddings=16)


def _dense(kind: str, heads: int = 4, groups: int = 2, **changes) -> ModelConfig:
    sizes = dict(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        head_dim=8,
        max_position_embeddings=128,
    )
    return ModelConfig(
        model_type=kind, num_attention_heads=heads, num_key_value_heads=groups, **sizes | changes
    )


DENSE_CASES = {
    "llama": _dense("llama"),
    "llama, llama3 stretching": _dense(
        "llama", head_dim=12, rope_theta=100.0, rope_scaling=_LLAMA3, tie_word_embeddings=True
    ),
    "llama, one key head": _dense("llama", groups=1, rms_norm_eps=1e-3, rope_theta=500.0),
    "llama, biases everywhere": _dense("llama", groups=4, attention_bias=True),
    "qwen2": _dense("qwen2"),
    "qwen2, tied": _dense(
        "qwen2", heads=8, groups=2, head_dim=4, tie_word_embeddings=True, rope_theta=1e6
    ),
    "qwen2, yarn": _dense("qwen2", groups=1, rope_scaling=RopeScaling(4, 16)),
    "qwen2, as many key heads": _dense("qwen2", groups=4, rms_norm_eps=1e-5),
    "qwen3": _dense("qwen3", head_dim=16),
    "qwen3, tied": _dense(
        "qwen3", heads=6, groups=3, head_dim=10, tie_word_embeddings=True, rope_theta=1e6
    ),
    "qwen3, biases": _dense("qwen3", groups=4, attention_bias=True, rms_norm_eps=1e-3),
    "qwen3, yarn": _dense(
        "qwen3", groups=1, rope_scaling=RopeScaling(8, 8, beta_fast=16, beta_slow=2)
    ),
}
ALL_CASES = CASES | DENSE_CASES


def random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    """A model whose activations are of order 1, whose attention is peaked and whose routing scores are well apart."""
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(generator=generator)
            if name.endswith("bias"):
                parameter.mul_(0.3)
            elif parameter.ndim == 1:
                parameter.mul_(0.2).add_(1.0)
            elif "router" in name:
                parameter.mul_(2.0 / parameter.shape[-1] ** 0.5)
            elif "embed" not in name:
                parameter.mul_(parameter.shape[-1] ** -0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("router.bias"):
                # all scores + bias negative for some tokens: 0 would win over them
                buffer.uniform_(-1.5, -0.5, generator=generator)
    return model


def random_tokens(batch: int, length: int = LENGTH, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def ragged_rows(batch: int = 3, length: int = LENGTH) -> Tensor:
    """bool [B, S]: rows of different lengths, padded on the right."""
    lengths = torch.tensor([length, length // 2, 5])[:batch]
    return torch.arange(length) < lengths[:, None]


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """max |ours - theirs| / max |theirs|; 0 when both are zero everywhere, infinite when only theirs is."""
    difference, scale = (
        (ours.double() - theirs.double()).abs().max().item(),
        theirs.double().abs().max().item(),
    )
    return difference / scale if scale else (0.0 if difference == 0 else float("inf"))
