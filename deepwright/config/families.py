"""The families of models: the names that Hugging Face gives them, the fields that each has, and the
ones that are refused with the reason."""

from __future__ import annotations

ARCHITECTURES = {
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
DENSE = ("llama", "qwen2", "qwen3")
GATES = {  # scoring function and ways to choose experts, by family
    "deepseek_v3": ("sigmoid", ("noaux_tc",)),
    "deepseek_v2": ("softmax", ("greedy", "group_limited_greedy")),
}
assert set(ARCHITECTURES) == {*GATES, *DENSE}

DENSE_POSITIVE = ("num_key_value_heads", "head_dim")
DENSE_ONLY = (*DENSE_POSITIVE, "attention_bias")
LATENT_POSITIVE = (
    "moe_intermediate_size", "n_routed_experts", "num_experts_per_tok", "kv_lora_rank",
    "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "q_lora_rank", "n_group", "topk_group",
    "routed_scaling_factor",
)  # fmt: skip
LATENT_ONLY = (
    *LATENT_POSITIVE, "first_k_dense_replace", "n_shared_experts", "scoring_func", "topk_method",
    "norm_topk_prob", "rope_interleave", "num_nextn_predict_layers",
)  # fmt: skip
POSITIVE = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "rms_norm_eps", "rope_theta", "max_position_embeddings", "initializer_range",
)  # fmt: skip

# Model types that people have at hand and that are not computed here, each with what it has that
# we have not. Whatever stands in neither table is refused as well, without a reason.
OTHERS = {
    "apertus": "it has xIELU in the feed-forward part",
    "bailing_moe": "its experts and their routing are its own",
    "cohere2": "it has sliding windows and parallel blocks",
    "deepseek_v32": "it attends to positions that an indexer chooses (DSA)",
    "deepseek_v4": "it compresses its cache and mixes residual streams (CSA, HCA, mHC)",
    "gemma": "it scales embeddings and has GELU in the feed-forward part",
    "gemma2": "it has sliding windows, soft caps and GELU",
    "gemma3_text": "it has sliding windows and GELU",
    "glm4": "it rotates half of the channels and has norms after its parts",
    "glm4_moe": "its attention is grouped, its experts are DeepSeek's",
    "glm4_moe_lite": "its gates and its names differ from DeepSeek-V3's",
    "gpt2": "it has learned positions and layer norms with biases",
    "gpt_oss": "it has sliding windows, attention sinks and MXFP4 weights",
    "granite": "it scales embeddings, residuals, attention and logits",
    "kimi_k2": "it is DeepSeek-V3's network under another name, at 1,000 billion parameters",
    "llama4": "it has layers without rotary positions and experts of its own",
    "mamba2": "it is a state-space model",
    "mimo": "its multi-token modules have another layout than DeepSeek-V3's",
    "mistral": "it may have sliding windows",
    "mixtral": "its experts and their routing are not DeepSeek's",
    "nemotron-nas": "its layers differ from each other",
    "olmo2": "it norms after attention and after the feed-forward part",
    "phi3": "its projections are fused and it may have sliding windows",
    "qwen": "it is the first Qwen, with a layout of its own: Qwen2, 2.5 and 3 open",
    "qwen2_moe": "it has Qwen's experts and their routing",
    "qwen3_5_text": "it has layers of linear attention",
    "qwen3_moe": "it has Qwen's experts and their routing",
    "qwen3_next": "it has layers of linear attention",
    "smollm3": "it has layers without rotary positions (NoPE)",
    "stablelm": "it rotates some of the channels and has layer norms",
}


def expected_types() -> str:
    return " or ".join(ARCHITECTURES)
