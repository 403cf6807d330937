"""`config.json` in and out, strictly: a key that would change the computation and that we do not know is refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from deepwright.config.architecture import (
    DENSE,
    FP8_BLOCK,
    GATES,
    Llama3Scaling,
    ModelConfig,
    RopeScaling,
    fields_of,
)
from deepwright.refusals import expect, nearest

ARCHITECTURES = {
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_DEFAULTS: dict[
    str, dict[str, Any]
] = {  # transformers, or a release, leaves these out of its files
    "deepseek_v3": {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True},
    "deepseek_v2": {"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False},
    "llama": {"bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02},
    "qwen2": {"initializer_range": 0.02},
    "qwen3": {"initializer_range": 0.02},
}
_FIXED = {  # keys that would change the computation, with the one value that is implemented
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "mlp_bias": False,
    "moe_layer_freq": 1,
}
_FIXED_DENSE = {"attention_dropout": 0.0, "hidden_act": "silu", "mlp_bias": False}
_DERIVED = {
    "num_key_value_heads": "num_attention_heads",
    "qk_head_dim": "qk_head_dim",
    "head_dim": "qk_rope_head_dim",
}
_WINDOW = (
    "layer_types",
    "max_window_layers",
    "sliding_window",
    "use_sliding_window",
)  # Qwen's; refused where they are in use
_IGNORED = {  # keys that do not change what the network computes, each with the reason
    "_attn_implementation_autoset": "a note of transformers to itself",
    "_name_or_path": "where the file came from",
    "architectures": "follows from model_type",
    "auto_map": "names remote code; nothing remote is ever run",
    "aux_loss_alpha": "weight of a training loss",
    "dtype": "the tensors say their own",
    "ep_size": "a serving hint",
    "output_router_logits": "asks for more outputs",
    "pad_token_id": "padding is told by lengths, never by token value",
    "pretraining_tp": "a hint about slicing; 1 in every release",
    "quantization_config": "how weights are stored; checked, and undone on load",
    "seq_aux": "kind of a training loss",
    "torch_dtype": "the tensors say their own",
    "transformers_version": "who wrote the file",
    "use_cache": "a serving hint",
}
_SCALINGS = {"yarn": RopeScaling, "llama3": Llama3Scaling}


def read(values: Mapping[str, Any]) -> ModelConfig:
    """What `ModelConfig.from_hf` promises."""
    kind = values.get("model_type")
    expect(kind in ARCHITECTURES, "model_type", kind, " or ".join(ARCHITECTURES))
    fields, fixed = fields_of(kind), _FIXED_DENSE if kind in DENSE else _FIXED
    known = {
        *fields,
        "rope_parameters",
        *fixed,
        *_IGNORED,
        *(_WINDOW if kind in DENSE else _DERIVED),
    }
    _refuse_unknown(
        values, known - ({"attention_bias"} if kind == "qwen2" else set()), "config.json"
    )
    nullable = ("q_lora_rank", "bos_token_id")
    given = _DEFAULTS[kind] | {
        key: value for key, value in values.items() if value is not None or key in nullable
    }
    for key, expected in fixed.items():
        expect(
            given.get(key, expected) == expected,
            key,
            given.get(key),
            f"{expected}: nothing else is implemented",
        )
    _check_quantization(given.get("quantization_config"))
    if kind in DENSE:
        _check_window(given)
        _fill_dense(given)
    given["rope_theta"], given["rope_scaling"] = _read_rope(given)
    if isinstance(given.get("eos_token_id"), list):
        given["eos_token_id"] = tuple(given["eos_token_id"])
    sizes = [
        f.name
        for f in dataclasses.fields(ModelConfig)
        if f.type == "int" and f.default in (dataclasses.MISSING, 0)
    ]
    missing = [
        name
        for name in sizes
        if name in fields and name not in given and name != "num_nextn_predict_layers"
    ]
    if missing:
        raise ValueError(f"config.json lacks {', '.join(missing)}")
    config = ModelConfig(**{name: given[name] for name in fields if name in given})
    for key, attribute in ({} if kind in DENSE else _DERIVED).items():
        expected = getattr(config, attribute)
        expect(
            given.get(key, expected) == expected, key, given.get(key), f"{expected} = {attribute}"
        )
    return config


def write(config: ModelConfig) -> dict[str, Any]:
    """What `ModelConfig.to_hf` promises."""
    kind = config.model_type
    values = {
        name: value for name, value in dataclasses.asdict(config).items() if name in fields_of(kind)
    }
    values["architectures"] = [ARCHITECTURES[kind]]
    values |= (
        {} if config.is_dense else _FIXED | {"num_key_value_heads": config.num_attention_heads}
    )
    if config.rope_scaling is not None:
        name = "llama3" if isinstance(config.rope_scaling, Llama3Scaling) else "yarn"
        values["rope_scaling"] = {
            "rope_type" if config.is_dense else "type": name,
            **values["rope_scaling"],
        }
    if config.is_dense:
        values |= {"attention_dropout": 0.0, "hidden_act": "silu"}
        if isinstance(config.rope_scaling, RopeScaling):
            del (
                values["rope_scaling"]["mscale"],
                values["rope_scaling"]["mscale_all_dim"],
            )  # readers know neither
    if kind == "llama":
        values["mlp_bias"] = False
    if kind == "qwen2":
        del values["attention_bias"]
    if kind == "deepseek_v2":
        del values["rope_interleave"], values["num_nextn_predict_layers"]
    return values


def _fill_dense(given: dict[str, Any]) -> None:
    """What Llama's and Qwen2's early files leave to their readers."""
    heads, width, kind = (
        given.get("num_attention_heads"),
        given.get("hidden_size"),
        given["model_type"],
    )
    if kind == "llama" and heads is not None:
        given.setdefault("num_key_value_heads", heads)
    if (
        kind != "qwen3"
        and "head_dim" not in given
        and isinstance(heads, int)
        and isinstance(width, int)
        and heads > 0
    ):
        expect(
            width % heads == 0,
            "hidden_size",
            width,
            f"a multiple of num_attention_heads = {heads}, or a head_dim",
        )
        given["head_dim"] = width // heads
    given.setdefault("bos_token_id", None)


def _check_window(given: Mapping[str, Any]) -> None:
    """Every layer must see all earlier positions: `layer_types` says so for each, or the window is off or begins after the last layer."""
    if "layer_types" in given:
        others = sorted(set(given["layer_types"]) - {"full_attention"})
        expect(
            not others, "layer_types", others, "full_attention: sliding windows are not implemented"
        )
    elif given.get("use_sliding_window") and "sliding_window" in given:
        begins, layers = given.get("max_window_layers", 0), given.get("num_hidden_layers", 0)
        expect(
            begins >= layers,
            "use_sliding_window",
            True,
            "false: sliding windows are not implemented",
        )


def _refuse_unknown(values: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in values:
        if key not in known:
            hint = nearest(key, sorted(known))
            raise ValueError(
                f"{where} has the unknown key {key!r}, which might change the computation{hint}"
            )


def _read_rope(values: Mapping[str, Any]) -> tuple[float, RopeScaling | Llama3Scaling | None]:
    """rope_theta and the stretching from either spelling; the two must not contradict each other."""
    rope = dict(values.get("rope_parameters") or values.get("rope_scaling") or {})
    where = "rope_parameters" if values.get("rope_parameters") else "rope_scaling"
    theta = rope.pop("rope_theta", values.get("rope_theta", 10000.0))
    expect(
        values.get("rope_theta", theta) == theta,
        "rope_theta",
        values.get("rope_theta"),
        f"{theta} as in rope_parameters",
    )
    kinds = {rope.pop(key, None) for key in ("type", "rope_type")} - {None, "default"}
    allowed = {*_SCALINGS} if values["model_type"] in DENSE else {"yarn"}
    expect(
        len(kinds) <= 1 and kinds <= allowed,
        "rope type",
        sorted(kinds),
        " or ".join([*sorted(allowed, reverse=True), "default"]),
    )
    if not kinds:
        expect(not rope, "rope parameters", rope, "none without rope_type yarn")
        return theta, None
    scaling = _SCALINGS[kinds.pop()]
    _refuse_unknown(rope, {field.name for field in dataclasses.fields(scaling)}, where)
    for key in ("factor", "original_max_position_embeddings"):
        expect(
            key in rope, f"{'yarn' if scaling is RopeScaling else 'llama3'} {key}", None, "a number"
        )
    return theta, scaling(**{key: value for key, value in rope.items() if value is not None})


def _check_quantization(values: Mapping[str, Any] | None) -> None:
    """Only DeepSeek's own FP8 layout can be undone on load."""
    if values is not None:
        method, block = values.get("quant_method"), values.get("weight_block_size")
        expect(
            method == "fp8", "quantization_config.quant_method", method, "fp8, or no quantization"
        )
        expect(
            values.get("fmt", "e4m3") == "e4m3",
            "quantization_config.fmt",
            values.get("fmt"),
            "e4m3",
        )
        expect(
            block == [FP8_BLOCK, FP8_BLOCK],
            "quantization_config.weight_block_size",
            block,
            f"{[FP8_BLOCK, FP8_BLOCK]}",
        )


assert set(ARCHITECTURES) == {*GATES, *DENSE}
