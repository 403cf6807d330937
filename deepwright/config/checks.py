"""What a ModelConfig must satisfy: types, sizes, and no combination that readers would compute
differently.

No size is believed for its own sake: whether a file holds as much is looked at when it is opened.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from deepwright.config.families import (
    DENSE,
    DENSE_ONLY,
    DENSE_POSITIVE,
    GATES,
    LATENT_ONLY,
    LATENT_POSITIVE,
    POSITIVE,
)
from deepwright.config.rope import LARGEST_REAL, Llama3Scaling, RopeScaling
from deepwright.refusals import expect, expect_each

if TYPE_CHECKING:
    from deepwright.config.architecture import ModelConfig

SIZES = 2**31  # every size and every id is below it, as in everyone's kernels
_TYPES: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str": str,
    "int | None": (int, type(None)),
    "int | tuple[int, ...] | None": (int, tuple, type(None)),
    "RopeScaling | Llama3Scaling | None": (RopeScaling, Llama3Scaling, type(None)),
}


def check(config: ModelConfig) -> None:
    """ValueError that names the first field which is wrong, its value and what was expected."""
    known = (*GATES, *DENSE)
    expect(config.model_type in known, "model_type", config.model_type, " or ".join(known))
    for field in dataclasses.fields(config):
        _check_type(field.name, str(field.type), getattr(config, field.name))
    _check_foreign_fields(config)
    _check_sizes(config)
    if config.is_dense:
        _check_dense(config)
    else:
        _check_experts(config)
        _check_gate(config)


def _check_type(name: str, kind: str, value: Any) -> None:
    fits = isinstance(value, _TYPES[kind]) and (kind == "bool" or not isinstance(value, bool))
    expect(fits, name, value, f"a value of type {kind}")
    if kind == "float":
        expect(abs(value) < LARGEST_REAL, name, value, f"a number below {LARGEST_REAL:g}")
    elif isinstance(value, int):
        expect(abs(value) < SIZES, name, value, f"a whole number below {SIZES}")
    elif isinstance(value, tuple):
        whole = all(type(one) is int and 0 <= one < SIZES for one in value)
        expect(whole, name, value, f"whole numbers below {SIZES}")


def _check_foreign_fields(config: ModelConfig) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in LATENT_ONLY if config.is_dense else DENSE_ONLY:
        value, usual = getattr(config, name), defaults[name]
        expect(value == usual, name, value, f"{usual} for {config.model_type}")


def _check_sizes(config: ModelConfig) -> None:
    positive = POSITIVE + (DENSE_POSITIVE if config.is_dense else LATENT_POSITIVE)
    expect_each(config, positive, lambda value: value > 0, "a positive number")
    counts = ("first_k_dense_replace", "n_shared_experts", "num_nextn_predict_layers")
    expect_each(
        config, (*counts, "bos_token_id"), lambda value: value >= 0, "0 or a positive number"
    )
    width, name = config.rotary_width, "head_dim" if config.is_dense else "qk_rope_head_dim"
    expect(width % 2 == 0, name, width, "an even number: rotary channels come in pairs")
    ends = config.eos_token_id
    expect(ends != (), "eos_token_id", ends, "at least one id")
    expect(not isinstance(ends, int) or ends >= 0, "eos_token_id", ends, "0 or a positive number")
    _check_stretching(config)


def _check_stretching(config: ModelConfig) -> None:
    scaling, longest = config.rope_scaling, config.max_position_embeddings
    if scaling is not None:
        original, theta = scaling.original_max_position_embeddings, config.rope_theta
        fits = original <= longest
        expect(fits, "max_position_embeddings", longest, f"at least the original {original}")
        expect(theta > 1, "rope_theta", theta, "a number above 1 where positions are stretched")


def _check_dense(config: ModelConfig) -> None:
    kind, heads, groups = config.model_type, config.num_attention_heads, config.num_key_value_heads
    expected = f"a divisor of num_attention_heads = {heads}"
    expect(heads % groups == 0, "num_key_value_heads", groups, expected)
    expect(
        kind != "qwen2" or not config.attention_bias,
        "attention_bias",
        config.attention_bias,
        "false for qwen2: its biases are implied, and its output has none",
    )
    if isinstance(config.rope_scaling, RopeScaling):
        scales = (config.rope_scaling.mscale, config.rope_scaling.mscale_all_dim)
        expected = f"1 and 0 for {kind}, whose readers know neither"
        expect(scales == (1, 0), "mscale, mscale_all_dim", scales, expected)


def _check_experts(config: ModelConfig) -> None:
    experts, groups, kept = config.n_routed_experts, config.n_group, config.topk_group
    expected = f"a divisor of n_routed_experts = {experts}"
    expect(experts % groups == 0, "n_group", groups, expected)
    expect(kept <= groups, "topk_group", kept, f"at most n_group = {groups}")
    chosen, most = config.num_experts_per_tok, experts // groups * kept
    expected = f"at most the {most} experts of {kept} groups"
    expect(chosen <= most, "num_experts_per_tok", chosen, expected)
    yarn = not isinstance(config.rope_scaling, Llama3Scaling)
    expect(yarn, "rope_scaling", "llama3", f"yarn for {config.model_type}")


def _check_gate(config: ModelConfig) -> None:
    """Readers take the gate from model_type alone (transformers ignores scoring_func), so the two
    must agree."""
    kind, method, groups = config.model_type, config.topk_method, config.n_group
    scoring, methods = GATES[kind]
    expected = f"{scoring} for {kind}"
    expect(config.scoring_func == scoring, "scoring_func", config.scoring_func, expected)
    expect(method in methods, "topk_method", method, f"{' or '.join(methods)} for {kind}")
    if method == "noaux_tc":
        expected = "groups of at least 2 experts: a group is scored by its two best"
        expect(config.n_routed_experts // groups >= 2, "n_group", groups, expected)
    if method == "greedy":
        expected = f"n_group = {groups}: greedy ignores groups"
        expect(groups == config.topk_group, "topk_group", config.topk_group, expected)
    if kind == "deepseek_v2":
        usual = {"norm_topk_prob": False, "rope_interleave": True, "num_nextn_predict_layers": 0}
        for name, value in usual.items():
            found = getattr(config, name)
            expect(found == value, name, found, f"{str(value).lower()} for deepseek_v2")
