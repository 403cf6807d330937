"""GGUF's words for a model: where each tensor lives in our network, and which metadata key holds which field of the config.

GGUF is llama.cpp's format, so a file means what llama.cpp computes from it. Three things are laid out otherwise there: Llama's query and
key rows (rotary pairs side by side), kv_b (split, its key part transposed), experts (stacked, as ours). MTP modules are left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepwright.config import Llama3Scaling, ModelConfig, RopeScaling
from deepwright.config.rope import LARGEST_REAL
from deepwright.model.attention import LATENT_EPS
from deepwright.model.rope import frequencies
from deepwright.model.transformer import Transformer
from deepwright.refusals import describe, expect, holds
from deepwright.weights.loading import refuse_absent
from deepwright.weights.names import memory, pieces

# name, a view of the model's memory, the shape that it has in the file
Part = tuple[str, Tensor, tuple[int, ...]]

ARCHITECTURES = {
    "deepseek2": ("deepseek_v3", "deepseek_v2"),
    "llama": ("llama",),
    "qwen2": ("qwen2",),
    "qwen3": ("qwen3",),
}
EMBEDDING = "token_embd.weight"
ROPE_FREQS = "rope_freqs.weight"  # Llama 3.1's stretching: what each frequency is divided by
_TOP = {
    "embed.weight": EMBEDDING,
    "norm.weight": "output_norm.weight",
    "head.weight": "output.weight",
}
_BLOCK = {
    "attention_norm": "attn_norm", "attention.q": "attn_q", "attention.k": "attn_k", "attention.v": "attn_v", "attention.o": "attn_output",
    "attention.q_norm": "attn_q_norm", "attention.k_norm": "attn_k_norm", "attention.q_a": "attn_q_a", "attention.q_a_norm": "attn_q_a_norm",
    "attention.q_b": "attn_q_b", "attention.kv_a": "attn_kv_a_mqa", "attention.kv_a_norm": "attn_kv_a_norm", "attention.kv_b": "attn_kv_b",
    "ffn_norm": "ffn_norm", "ffn.gate": "ffn_gate", "ffn.up": "ffn_up", "ffn.down": "ffn_down",
    "ffn.shared.gate": "ffn_gate_shexp", "ffn.shared.up": "ffn_up_shexp", "ffn.shared.down": "ffn_down_shexp",
    "ffn.experts.gate": "ffn_gate_exps", "ffn.experts.up": "ffn_up_exps", "ffn.experts.down": "ffn_down_exps", "ffn.router": "ffn_gate_inp",
}  # fmt: skip

_SIZES = {
    "num_hidden_layers": "block_count", "max_position_embeddings": "context_length", "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length", "num_attention_heads": "attention.head_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon", "rope_theta": "rope.freq_base",
}  # fmt: skip
_LATENT_SIZES = {
    "first_k_dense_replace": "leading_dense_block_count", "q_lora_rank": "attention.q_lora_rank", "kv_lora_rank": "attention.kv_lora_rank",
    "v_head_dim": "attention.value_length_mla", "qk_rope_head_dim": "rope.dimension_count",
    "moe_intermediate_size": "expert_feed_forward_length", "n_routed_experts": "expert_count", "n_shared_experts": "expert_shared_count",
    "num_experts_per_tok": "expert_used_count", "n_group": "expert_group_count", "topk_group": "expert_group_used_count",
    "routed_scaling_factor": "expert_weights_scale", "norm_topk_prob": "expert_weights_norm",
}  # fmt: skip
_DENSE_SIZES = {
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
}
_OPTIONAL = (
    "v_head_dim",
    "q_lora_rank",
    "n_group",
    "topk_group",
    "routed_scaling_factor",
    "norm_topk_prob",
    "head_dim",
    "rope_theta",
)
_GATING = {"softmax": 1, "sigmoid": 2}
_OTHER = {  # keys that follow from the others or are read below
    "vocab_size", "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.key_length_mla",
    "rope.dimension_count", "expert_gating_func", "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_log_multiplier", "rope.scaling.finetuned",
    "attention.causal", "tensor_data_layout", "nextn_predict_layers",
}  # fmt: skip
ENDS = ("eos", "eot", "eom")  # the keys that GGUF has for tokens that end something
_KINDS = {  # of the values of keys; whole numbers where nothing is said
    "attention.layer_norm_rms_epsilon": float, "rope.freq_base": float,
    "expert_weights_scale": float, "rope.scaling.factor": float,
    "rope.scaling.yarn_beta_fast": float, "rope.scaling.yarn_beta_slow": float,
    "rope.scaling.yarn_log_multiplier": float, "expert_weights_norm": bool,
    "rope.scaling.finetuned": bool, "attention.causal": bool,
    "rope.scaling.type": str, "tensor_data_layout": str,
}  # fmt: skip
_YARN = {
    "factor": "factor",
    "original_max_position_embeddings": "original_context_length",
    "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
}


# ---- tensors


def parts(model: Transformer, whole_kv_b: bool = False) -> Iterator[Part]:
    """Every tensor of the file; copying into the views fills the model. `whole_kv_b`: as files from before MLA support have it."""
    for name, tensor in memory(model).items():
        if name in _TOP:
            yield _TOP[name], tensor, tuple(tensor.shape)
        elif name.startswith("layers."):
            _, layer, inner = name.split(".", 2)
            for piece in pieces(model.config, inner, tensor):
                for theirs, view, shape in _block_parts(model.config, *piece, whole_kv_b):
                    yield f"blk.{layer}.{theirs}", view, shape


def _block_parts(
    config: ModelConfig, stem: str, kind: str, tensor: Tensor, whole_kv_b: bool
) -> Iterator[Part]:
    shape = tuple(tensor.shape)
    if stem == "attention.kv_b" and not whole_kv_b:
        key, value = tensor.unflatten(0, (config.num_attention_heads, -1)).split(
            (config.qk_nope_head_dim, config.v_head_dim), dim=1
        )
        yield "attn_k_b.weight", key.transpose(1, 2), tuple(key.transpose(1, 2).shape)
        yield "attn_v_b.weight", value, tuple(value.shape)
    elif config.model_type == "llama" and stem in (
        "attention.q",
        "attention.k",
    ):  # from halves (x_i, x_{i + d/2}) to neighbours
        yield (
            f"{_BLOCK[stem]}.{kind}",
            tensor.unflatten(0, (-1, 2, config.head_dim // 2)).transpose(1, 2),
            shape,
        )
    else:
        yield (
            "exp_probs_b.bias"
            if (stem, kind) == ("ffn.router", "bias")
            else f"{_BLOCK[stem]}.{kind}",
            tensor,
            shape,
        )


def rope_divisors(config: ModelConfig) -> Tensor:
    """[R/2]: what stretching divides each frequency by."""
    return frequencies(dataclasses.replace(config, rope_scaling=None)) / frequencies(config)


# ---- metadata


def architecture(config: ModelConfig) -> str:
    """Raises ValueError for what llama.cpp would compute otherwise."""
    c, s = config, config.rope_scaling
    refused = {
        "group_limited_greedy routing": c.topk_method == "group_limited_greedy" and c.n_group > 1,
        "rotary pairs in halves": not c.rope_interleave,
        "no shared expert": not c.is_dense and c.moe_layers > 0 and c.n_shared_experts == 0,
        "YaRN with two different mscales": not c.is_dense
        and s is not None
        and s.mscale != s.mscale_all_dim,
        "an rms_norm_eps other than its latent norms' 1e-06": not c.is_dense
        and c.rms_norm_eps != LATENT_EPS,
        "a bias in the output projection": c.model_type == "qwen3" and c.attention_bias,
        "Llama 3.1's stretching": c.model_type != "llama" and isinstance(s, Llama3Scaling),
    }
    for what, present in refused.items():
        if present:
            raise ValueError(
                f"the model has {what}, which llama.cpp does not compute for {c.model_type}: it cannot be written as GGUF"
            )
    return next(name for name, kinds in ARCHITECTURES.items() if c.model_type in kinds)


def metadata(config: ModelConfig) -> dict[str, Any]:
    """Keys without the architecture in front."""
    c, s = config, config.rope_scaling
    values = {
        key: _typed(c, name)
        for name, key in (_SIZES | (_DENSE_SIZES if c.is_dense else _LATENT_SIZES)).items()
    }
    values["vocab_size"] = c.vocab_size
    if c.is_dense:
        values |= {"attention.value_length": c.head_dim, "rope.dimension_count": c.head_dim}
    else:  # one key head of the latent's width, as the absorbed form has it
        values |= {
            "attention.head_count_kv": 1,
            "attention.key_length": c.cache_width,
            "attention.value_length": c.kv_lora_rank,
        }
        values |= {
            "attention.key_length_mla": c.qk_head_dim,
            "expert_gating_func": _GATING[c.scoring_func],
        }
    if isinstance(s, RopeScaling):
        values |= {"rope.scaling.type": "yarn"} | {
            f"rope.scaling.{key}": _typed(s, name) for name, key in _YARN.items()
        }
        if not c.is_dense:
            values["rope.scaling.yarn_log_multiplier"] = 0.1 * s.mscale_all_dim
    elif s is not None:
        values["rope.scaling.original_context_length"] = s.original_max_position_embeddings
    return values


def _typed(settings: ModelConfig | RopeScaling, name: str) -> Any:
    """A field's value; llama.cpp refuses a whole number where it expects a real one, and takes rank 0 for no query compression."""
    value = getattr(settings, name)
    if value is None:
        return 0
    return float(value) if settings.__dataclass_fields__[name].type == "float" else value


def read_config(
    fields: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], divisors: Tensor | None
) -> ModelConfig:
    """The config that the metadata and the presence of tensors describe. `divisors`: the file's
    rope_freqs.

    Raises ValueError for an unknown architecture, an unknown or missing key, for counts beyond what
    the tensors hold, and for what this implementation does not compute."""
    arch = fields.get("general.architecture")
    known = isinstance(arch, str) and arch in ARCHITECTURES
    expect(known, "general.architecture", arch, " or ".join(ARCHITECTURES))
    given = _given(arch, fields)
    names = _SIZES | (_LATENT_SIZES if arch == "deepseek2" else _DENSE_SIZES)
    values = {name: given[key] for name, key in names.items() if key in given}
    values |= {
        "q_lora_rank": values.get("q_lora_rank") or None,
        "tie_word_embeddings": "output.weight" not in shapes,
        "model_type": arch,
        "vocab_size": shapes[EMBEDDING][0],
        "bos_token_id": token_id(fields, "bos"),
    }
    values |= _latent_values(given) if arch == "deepseek2" else _dense_values(given, values, shapes)
    values["rope_scaling"] = _read_yarn(given, arch)
    ends = [token_id(fields, name) for name in ENDS]
    ends = tuple(dict.fromkeys(end for end in ends if end is not None))
    values["eos_token_id"] = ends if len(ends) > 1 else ends[0] if ends else None
    config = ModelConfig(**values)
    _check_derived(config, given)
    _check_sizes(config, shapes)
    if divisors is None or arch != "llama":
        return config
    return _with_llama3(config, divisors, given.get("rope.scaling.original_context_length", 8192))


def token_id(fields: Mapping[str, Any], name: str) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    found = fields.get(key)
    whole = found is None or (type(found) is int and 0 <= found < 2**31)
    expect(whole, key, found, "the id of a token")
    return found


def _given(arch: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture's keys without it in front: all of them known, none missing, each of its
    kind."""
    latent = arch == "deepseek2"
    names = _SIZES | (_LATENT_SIZES if latent else _DENSE_SIZES)
    given = {
        key.removeprefix(f"{arch}."): exact(value)
        for key, value in fields.items()
        if key.startswith(f"{arch}.")
    }
    if unknown := sorted(set(given) - set(names.values()) - _OTHER):
        raise ValueError(
            f"the GGUF has the unknown key {arch}.{unknown[0][:100]}, which might change the "
            "computation"
        )
    for key, value in given.items():
        kind = _KINDS.get(key, int)
        expect(holds(value, kind), f"{arch}.{key}", value, describe(kind))
    modules = given.get("nextn_predict_layers", 0)
    expect(modules == 0, f"{arch}.nextn_predict_layers", modules, "0: MTP is not read from GGUF")
    for name, key in names.items():
        if key not in given and name not in _OPTIONAL:
            raise ValueError(f"the GGUF lacks the key {arch}.{key}")
    return given


def _check_derived(config: ModelConfig, given: Mapping[str, Any]) -> None:
    """Keys of latent attention that follow from others must not contradict them."""
    if config.is_dense:
        return
    derived = {"attention.head_count_kv": config.num_attention_heads}
    if "attention.key_length_mla" in given:
        widths = {"key": config.cache_width, "value": config.kv_lora_rank}
        derived = {"attention.head_count_kv": 1}
        derived |= {f"attention.{name}_length": width for name, width in widths.items()}
    for key, expected in derived.items():
        found = given.get(key, expected)
        expect(found == expected, key, found, f"{expected}, as follows from the rest")


def _check_sizes(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Before anything is looped over or multiplied: what the metadata count is compared with the
    tensors."""
    where = "the GGUF"
    layers = {name.split(".")[1] for name in shapes if name.startswith("blk.")}
    refuse_absent(where, "layers", config.num_hidden_layers, len(layers))
    if config.moe_layers:
        stacks = [shape[0] for name, shape in shapes.items() if name.endswith("_exps.weight")]
        refuse_absent(where, "routed experts", config.n_routed_experts, max(stacks, default=0))
    numbers = sum(math.prod(shape) for shape in shapes.values())
    if config.parameters > 2 * numbers:  # with less missing it is the names that are worth saying
        refuse_absent(where, "parameters", config.parameters, numbers)


def exact(value: Any) -> Any:
    """GGUF keeps numbers as fp32: the shortest decimal that gives the same one is what was meant (1e-06, not 9.99999997e-07)."""
    real = isinstance(value, float) and abs(value) < LARGEST_REAL
    return float(str(np.float32(value))) if real else value


def _latent_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Files from before MLA support have the widths of one head in the keys that now have those of the latent."""
    key, value = (
        given.get(f"attention.{name}_length_mla", given.get(f"attention.{name}_length"))
        for name in ("key", "value")
    )
    if key is None or value is None:
        raise ValueError(
            "the GGUF lacks the keys deepseek2.attention.key_length_mla and value_length_mla"
        )
    sigmoid = given.get("expert_gating_func", 1) == _GATING["sigmoid"]
    greedy = "greedy" if given.get("expert_group_count", 1) == 1 else "group_limited_greedy"
    return {
        "model_type": "deepseek_v3" if sigmoid else "deepseek_v2",
        "scoring_func": "sigmoid" if sigmoid else "softmax",
        "topk_method": "noaux_tc" if sigmoid else greedy,
        "norm_topk_prob": given.get("expert_weights_norm", False),
        "qk_nope_head_dim": key - given["rope.dimension_count"],
        "v_head_dim": value,
    }


def _dense_values(
    given: Mapping[str, Any], values: Mapping[str, Any], shapes: Mapping[str, Any]
) -> dict[str, Any]:
    heads = values["num_attention_heads"]
    expect(heads > 0, "attention.head_count", heads, "a positive number")
    width = given.get("attention.key_length", values["hidden_size"] // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        expect(given.get(key, width) == width, key, given.get(key), f"{width}, the width of a key")
    biased = values["model_type"] != "qwen2" and "blk.0.attn_q.bias" in shapes
    return {"head_dim": width, "attention_bias": biased, "initializer_range": 0.02}


def _read_yarn(given: Mapping[str, Any], arch: str) -> RopeScaling | None:
    kind = given.get("rope.scaling.type", "none")
    if kind == "none":
        return None
    whole = {"rope.scaling.factor", "rope.scaling.original_context_length"} <= given.keys()
    expected = "yarn with its factor and original_context_length, or none"
    expect(kind == "yarn" and whole, "rope.scaling.type", kind, expected)
    values = {
        name: given[f"rope.scaling.{key}"]
        for name, key in _YARN.items()
        if f"rope.scaling.{key}" in given
    }
    if arch == "deepseek2":
        values["mscale"] = values["mscale_all_dim"] = round(
            10 * given.get("rope.scaling.yarn_log_multiplier", 0.1), 6
        )
    return RopeScaling(**values)


def _with_llama3(config: ModelConfig, divisors: Tensor, original: int) -> ModelConfig:
    """GGUF keeps what Llama 3.1's rule gave, not its settings: those of the released models are tried."""
    expected = (config.rotary_width // 2,)
    expect(
        tuple(divisors.shape) == expected,
        f"{ROPE_FREQS}: shape",
        tuple(divisors.shape),
        f"{expected}",
    )
    factor = float(divisors.max())
    if math.isclose(factor, 1.0):
        return config
    config = dataclasses.replace(config, rope_scaling=Llama3Scaling(round(factor, 4), original))
    found = rope_divisors(config)
    if not torch.allclose(found, divisors, rtol=1e-4):
        raise ValueError(
            f"{ROPE_FREQS} is not Llama 3.1's stretching of {original} positions by {factor:g} with frequency factors 1 and 4"
        )
    return config
