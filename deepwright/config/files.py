"""`config.json` in and out, strictly: a key that would change the computation and that we do not know is refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from deepwright.config.architecture import FP8_BLOCK, ModelConfig, fields_of
from deepwright.config.families import ARCHITECTURES, DENSE, OTHERS, expected_types
from deepwright.config.keys import DERIVED, FIXED, FIXED_LATENT, REASONS, STAMP, WINDOW
from deepwright.config.rope import Llama3Scaling, RopeScaling
from deepwright.refusals import expect, nearest, quoted

# What transformers, or a release, leaves out of its files. Ids of tokens are never filled in: the
# usual ones of a family are not those of a file that names none.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "deepseek_v3": {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True},
    "deepseek_v2": {"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False},
    "llama": {"initializer_range": 0.02},
    "qwen2": {"initializer_range": 0.02},
    "qwen3": {"initializer_range": 0.02},
}
_SCALINGS = {"yarn": RopeScaling, "llama3": Llama3Scaling}
_HEAD = "ForCausalLM"


# ---- in


def read(values: Mapping[str, Any]) -> ModelConfig:
    """What `ModelConfig.from_hf` promises."""
    kind = _model_type(values)
    fields, fixed = fields_of(kind), FIXED if kind in DENSE else FIXED | FIXED_LATENT
    known = {*fields, "rope_parameters", *fixed, *REASONS, *(WINDOW if kind in DENSE else DERIVED)}
    known |= {key for key in values if key.endswith(STAMP) and isinstance(values[key], str)}
    _refuse_unknown(
        values, known - ({"attention_bias"} if kind == "qwen2" else set()), "config.json"
    )
    nullable = ("q_lora_rank", "bos_token_id", "eos_token_id")
    given = _DEFAULTS[kind] | dict.fromkeys(nullable)
    given |= {key: value for key, value in values.items() if value is not None or key in nullable}
    if given.get("hidden_act") == "swish":  # transformers' other name of it
        given["hidden_act"] = "silu"
    for key, (expected, meaning) in fixed.items():
        found = given.get(key, expected)
        expect(found == expected, key, found, f"{expected}: {meaning} is not implemented")
    _check_quantization(given.get("quantization_config"))
    if kind in DENSE:
        _check_window(given)
        _fill_dense(given)
    given["rope_theta"], given["rope_scaling"] = _read_rope(given)
    if isinstance(given["eos_token_id"], list):
        given["eos_token_id"] = tuple(given["eos_token_id"])
    _refuse_missing(given, fields)
    config = ModelConfig(**{name: given[name] for name in fields if name in given})
    for key, attribute in ({} if kind in DENSE else DERIVED).items():
        expected = getattr(config, attribute)
        found = given.get(key, expected)
        expect(found == expected, key, found, f"{expected} = {attribute}")
    return config


def _model_type(values: Mapping[str, Any]) -> str:
    """The family, where this is a model that predicts the next token of a text."""
    kind = values.get("model_type")
    for part in ("text_config", "vision_config", "audio_config", "thinker_config"):
        if part in values:
            raise ValueError(
                f"config.json has a {part}: its model_type, {quoted(kind)}, wraps a text model "
                "together with other parts, expected the text model alone"
            )
    reason = OTHERS.get(kind) if isinstance(kind, str) else None
    known = isinstance(kind, str) and kind in ARCHITECTURES
    expect(known, "model_type", kind, expected_types() + (f": {reason}" if reason else ""))
    names = values.get("architectures")
    if isinstance(names, list) and names:
        usual = any(isinstance(name, str) and name.endswith(_HEAD) for name in names)
        expected = f"{ARCHITECTURES[kind]}: other classes have another head, or none"
        expect(usual, "architectures", names, expected)
    return kind


def _refuse_unknown(values: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in values:
        if key not in known:
            hint = nearest(key, sorted(known))
            raise ValueError(
                f"{where} has the unknown key {quoted(key)}, which might change the computation"
                f"{hint}"
            )


def _refuse_missing(given: Mapping[str, Any], fields: list[str]) -> None:
    sizes = [
        field.name
        for field in dataclasses.fields(ModelConfig)
        if field.type == "int" and field.default in (dataclasses.MISSING, 0)
    ]
    needed = [name for name in sizes if name in fields and name != "num_nextn_predict_layers"]
    if missing := [name for name in needed if name not in given]:
        raise ValueError(f"config.json lacks {', '.join(missing)}")


def _fill_dense(given: dict[str, Any]) -> None:
    """What Llama's and Qwen2's early files leave to their readers."""
    heads, width, kind = (
        given.get(name) for name in ("num_attention_heads", "hidden_size", "model_type")
    )
    if kind == "llama" and heads is not None:
        given.setdefault("num_key_value_heads", heads)
    whole = type(heads) is int and type(width) is int and heads > 0
    if kind != "qwen3" and "head_dim" not in given and whole:
        expected = f"a multiple of num_attention_heads = {heads}, or a head_dim"
        expect(width % heads == 0, "hidden_size", width, expected)
        given["head_dim"] = width // heads


def _check_window(given: Mapping[str, Any]) -> None:
    """Every layer must see all earlier positions: `layer_types` says so for each, or the window is off or begins after the last layer."""
    full, refused = "full_attention", "sliding windows are not implemented"
    if "layer_types" in given:
        kinds = given["layer_types"]
        expect(isinstance(kinds, list), "layer_types", kinds, f"a list of {full}")
        others = [kind for kind in kinds if kind != full]
        expect(not others, "layer_types", others, f"{full}: {refused}")
    elif given.get("use_sliding_window") and "sliding_window" in given:
        begins, layers = given.get("max_window_layers", 0), given.get("num_hidden_layers", 0)
        after = isinstance(begins, int) and isinstance(layers, int) and begins >= layers
        expect(after, "use_sliding_window", given["use_sliding_window"], f"false: {refused}")


Rope = tuple[float, RopeScaling | Llama3Scaling | None]


def _read_rope(values: Mapping[str, Any]) -> Rope:
    """rope_theta and the stretching from either spelling; the two must not contradict each other."""
    spellings = [name for name in ("rope_parameters", "rope_scaling") if values.get(name)]
    found = [_read_spelling(name, values) for name in spellings]
    if any(one != found[0] for one in found):
        raise ValueError(f"{' and '.join(spellings)} in config.json contradict each other")
    return found[0] if found else (values.get("rope_theta", 10000.0), None)


def _read_spelling(where: str, values: Mapping[str, Any]) -> Rope:
    expect(isinstance(values[where], Mapping), where, values[where], "an object, or null")
    rope = {key: value for key, value in values[where].items() if value is not None}
    theta = rope.pop("rope_theta", values.get("rope_theta", 10000.0))
    outer = values.get("rope_theta", theta)
    expect(outer == theta, "rope_theta", outer, f"{quoted(theta)} as in {where}")
    allowed = [*_SCALINGS] if values["model_type"] in DENSE else ["yarn"]
    said = [rope.pop(key) for key in ("type", "rope_type") if key in rope]
    kinds = [kind for kind in said if kind != "default"]
    usual = all(kind in allowed for kind in kinds) and len(set(map(str, kinds))) <= 1
    expect(usual, "rope type", kinds, " or ".join([*allowed, "default"]))
    if not kinds:
        whole = rope.pop("partial_rotary_factor", 1.0)
        expect(whole == 1.0, "partial_rotary_factor", whole, "1: every channel is rotated")
        expect(not rope, "rope parameters", rope, "none without rope_type yarn")
        return theta, None
    scaling = _SCALINGS[kinds[0]]
    _refuse_unknown(rope, {field.name for field in dataclasses.fields(scaling)}, where)
    for key in ("factor", "original_max_position_embeddings"):
        expect(key in rope, f"{kinds[0]} {key}", None, "a number")
    return theta, scaling(**rope)


def _check_quantization(values: Any) -> None:
    """Only DeepSeek's own FP8 layout can be undone on load."""
    if values is None:
        return
    where = "quantization_config"
    expect(isinstance(values, Mapping), where, values, "an object, or null")
    method, block = values.get("quant_method"), values.get("weight_block_size")
    if method is None and (values.get("load_in_4bit") or values.get("load_in_8bit")):
        method = "bitsandbytes"
    expected = "fp8 in blocks, or no quantization: the release in bf16 opens"
    expect(method == "fp8", f"{where}.quant_method", method, expected)
    kind = values.get("fmt", "e4m3")
    expect(kind == "e4m3", f"{where}.fmt", kind, "e4m3")
    size = [FP8_BLOCK, FP8_BLOCK]
    expect(block == size, f"{where}.weight_block_size", block, str(size))


# ---- out


def write(config: ModelConfig) -> dict[str, Any]:
    """What `ModelConfig.to_hf` promises."""
    kind, fields = config.model_type, fields_of(config.model_type)
    values = {name: value for name, value in dataclasses.asdict(config).items() if name in fields}
    values["architectures"] = [ARCHITECTURES[kind]]
    values |= {"attention_dropout": 0.0, "hidden_act": "silu"}
    if config.rope_scaling is not None:
        values["rope_scaling"] = _write_stretching(config, values["rope_scaling"])
    if not config.is_dense:
        values |= {"attention_bias": False, "mlp_bias": False, "moe_layer_freq": 1}
        values["num_key_value_heads"] = config.num_attention_heads
    if kind == "llama":
        values["mlp_bias"] = False
    if kind == "qwen2":
        del values["attention_bias"]
    if kind == "deepseek_v2":
        del values["rope_interleave"], values["num_nextn_predict_layers"]
    return values


def _write_stretching(config: ModelConfig, values: dict[str, Any]) -> dict[str, Any]:
    llama3 = isinstance(config.rope_scaling, Llama3Scaling)
    unread = ("mscale", "mscale_all_dim") if config.is_dense else ()  # readers know neither
    kept = {name: value for name, value in values.items() if name not in unread}
    name = "rope_type" if config.is_dense else "type"
    return {name: "llama3" if llama3 else "yarn", **kept}
