"""Named models, as released or sized for a machine."""

from __future__ import annotations

from deepwright.config.architecture import ModelConfig
from deepwright.config.rope import RopeScaling
from deepwright.refusals import nearest


def preset(name: str) -> ModelConfig:
    """A named model. laptop: 2 CPU cores; workstation: one GPU; benchmark: the one compared with peers; v3, v2, v2-lite: as released."""
    if name not in PRESETS:
        raise ValueError(
            f"preset is {name!r}, expected one of {', '.join(PRESETS)}{nearest(name, PRESETS)}"
        )
    return PRESETS[name]


_YARN_V2 = RopeScaling(
    factor=40, original_max_position_embeddings=4096, mscale=0.707, mscale_all_dim=0.707
)
_YARN_V3 = RopeScaling(
    factor=40, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=1.0
)

PRESETS = {
    "laptop": ModelConfig(
        vocab_size=128, hidden_size=128, intermediate_size=384, moe_intermediate_size=96, num_hidden_layers=4, first_k_dense_replace=1,
        num_attention_heads=4, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, kv_lora_rank=48, qk_nope_head_dim=32,
        qk_rope_head_dim=16, v_head_dim=32, max_position_embeddings=512, num_nextn_predict_layers=1,
        initializer_range=0.04,  # 0.006 is for a width of 7168; at 128 it leaves the first hundred steps without signal
    ),
    "laptop-student": ModelConfig(  # dense, for distillation: a third of the laptop model
        model_type="llama", vocab_size=128, hidden_size=96, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=24, max_position_embeddings=512, initializer_range=0.04,
    ),
    "benchmark": ModelConfig(
        vocab_size=8192, hidden_size=256, intermediate_size=768, moe_intermediate_size=128, num_hidden_layers=8, first_k_dense_replace=1,
        num_attention_heads=8, n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=4, q_lora_rank=96, kv_lora_rank=64,
        qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32, n_group=4, topk_group=2, max_position_embeddings=1024,
    ),
    "workstation": ModelConfig(
        vocab_size=32768, hidden_size=1024, intermediate_size=2816, moe_intermediate_size=256, num_hidden_layers=12,
        first_k_dense_replace=1, num_attention_heads=16, n_routed_experts=32, n_shared_experts=1, num_experts_per_tok=4, q_lora_rank=384,
        kv_lora_rank=256, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64, n_group=4, topk_group=2, routed_scaling_factor=2.5,
        max_position_embeddings=4096, num_nextn_predict_layers=1,
    ),
    "v3": ModelConfig(
        vocab_size=129280, hidden_size=7168, intermediate_size=18432, moe_intermediate_size=2048, num_hidden_layers=61,
        first_k_dense_replace=3, num_attention_heads=128, n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8,
        q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, n_group=8, topk_group=4,
        routed_scaling_factor=2.5, rope_scaling=_YARN_V3, max_position_embeddings=163840, num_nextn_predict_layers=1,
    ),
    "v2": ModelConfig(
        model_type="deepseek_v2", vocab_size=102400, hidden_size=5120, intermediate_size=12288, moe_intermediate_size=1536,
        num_hidden_layers=60, first_k_dense_replace=1, num_attention_heads=128, n_routed_experts=160, n_shared_experts=2,
        num_experts_per_tok=6, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, n_group=8,
        topk_group=3, topk_method="group_limited_greedy", scoring_func="softmax", norm_topk_prob=False, routed_scaling_factor=16.0,
        rope_scaling=_YARN_V2, max_position_embeddings=163840, bos_token_id=100000, eos_token_id=100001,
    ),
    "v2-lite": ModelConfig(
        model_type="deepseek_v2", vocab_size=102400, hidden_size=2048, intermediate_size=10944, moe_intermediate_size=1408,
        num_hidden_layers=27, first_k_dense_replace=1, num_attention_heads=16, n_routed_experts=64, n_shared_experts=2,
        num_experts_per_tok=6, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, topk_method="greedy",
        scoring_func="softmax", norm_topk_prob=False, rope_scaling=_YARN_V2, max_position_embeddings=163840, bos_token_id=100000,
        eos_token_id=100001,
    ),
}  # fmt: skip
