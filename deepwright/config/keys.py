"""Keys of other people's `config.json` that are no field of ours: which change nothing, which must
have one value.

A key that stands in no table is refused by name, since it might change what the network computes.
"""

from __future__ import annotations

from typing import Any

# Accepted whatever their value: reason -> keys.
INERT = {
    "says who made the file, and of what": (
        "_commit_hash", "_name_or_path", "architectures", "auto_map", "finetuning_task", "license",
        "model_name", "name_or_path", "prefix", "tags", "task_specific_params", "tokenizer_class",
        "transformers_version", "trust_remote_code", "unsloth_fixed", "unsloth_version",
    ),
    "says how sampling was once configured; generation_config.json and the command say it now": (
        "bad_words_ids", "begin_suppress_tokens", "decoder_start_token_id", "diversity_penalty",
        "do_sample", "early_stopping", "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id",
        "length_penalty", "max_length", "max_new_tokens", "min_length", "min_new_tokens", "min_p",
        "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
        "output_scores", "remove_invalid_values", "repetition_penalty", "return_dict_in_generate",
        "suppress_tokens", "temperature", "top_k", "top_p", "typical_p",
    ),
    "is a hint for serving or for memory": (
        "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal",
        "_experts_implementation", "_flash_attn_2_enabled", "attn_implementation",
        "cache_implementation", "chunk_size_feed_forward", "ep_size", "kv_cache_dtype",
        "pretraining_tp", "transformers.js_config", "use_cache", "use_flash_attn",
        "use_flash_attention", "use_reentrant_checkpointing",
    ),
    "asks the class for more or other outputs": (
        "id2label", "label2id", "num_labels", "output_attentions", "output_hidden_states",
        "output_router_logits", "problem_type", "return_dict", "return_dict_in_generate",
        "torchscript", "use_return_dict",
    ),
    "weighs something in training": (
        "aux_loss_alpha", "ignore_index", "neftune_noise_alpha", "router_aux_loss_coef", "seq_aux",
    ),
    "says how numbers are stored, which the tensors say themselves": (
        "dtype", "quantization_config", "tf_legacy_loss", "torch_dtype", "use_bfloat16",
    ),
    "names tokens; lengths tell padding here, and the tokenizer its own": (
        "pad_token_id", "sep_token_id", "unk_token_id", "padding_side", "model_max_length",
    ),
    "says what the network is by other words": (
        "is_decoder", "is_llama_config", "is_causal", "tie_encoder_decoder",
    ),
}  # fmt: skip
STAMP = "_version"  # what a key ends with whose text says which tool wrote the file
REASONS = {key: reason for reason, keys in INERT.items() for key in keys}

# These change the computation: the one value that is computed, and what another would mean.
FIXED: dict[str, tuple[Any, str]] = {
    "add_cross_attention": (False, "an encoder to attend to"),
    "attention_dropout": (0.0, "dropout"),
    "attn_logit_softcapping": (None, "soft caps"),
    "clip_qkv": (None, "clipped queries, keys and values"),
    "cross_attention_hidden_size": (None, "an encoder to attend to"),
    "embedding_multiplier": (1.0, "scaled embeddings"),
    "final_logit_softcapping": (None, "soft caps"),
    "hidden_act": ("silu", "another activation"),
    "hidden_dropout": (0.0, "dropout"),
    "is_encoder_decoder": (False, "an encoder"),
    "logits_scaling": (1.0, "scaled logits"),
    "mlp_bias": (False, "biases in the feed-forward part"),
    "no_rope_layers": ([], "layers without rotary positions"),
    "partial_rotary_factor": (1.0, "channels that are not rotated"),
    "pruned_heads": ({}, "heads taken out"),
    "residual_dropout": (0.0, "dropout"),
    "residual_multiplier": (1.0, "scaled residuals"),
    "rope_interleaved": (False, "rotary pairs side by side"),
    "use_mrope": (False, "rotary positions in three dimensions"),
    "use_qk_norm": (False, "normed queries and keys"),
}
FIXED_LATENT: dict[str, tuple[Any, str]] = {
    "attention_bias": (False, "biases of attention"),
    "moe_layer_freq": (1, "experts in some layers only"),
}
DERIVED = {  # of latent models; they must be what follows from the other fields
    "num_key_value_heads": "num_attention_heads",
    "qk_head_dim": "qk_head_dim",
    "head_dim": "qk_rope_head_dim",
}
# Qwen's; refused where they are in use.
WINDOW = ("layer_types", "max_window_layers", "sliding_window", "use_sliding_window")
