"""Where each tensor of a Hugging Face checkpoint (DeepSeek, Llama, Qwen) lives in our Transformer: the one table that loading and saving walk.

A place is (our parameter's name, index into it): several official tensors share one of ours (gate and up rows; query, key and value
rows of a dense model; all experts of a layer). Official names: README_WEIGHTS of DeepSeek-V3; MTP module k is layer num_hidden_layers + k there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from deepwright.config import ModelConfig

Place = tuple[str, tuple[int | slice, ...]]

_TOP = {"model.embed_tokens.weight": "embed.weight", "model.norm.weight": "norm.weight", "lm_head.weight": "head.weight"}
_BLOCK = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.q",
    "self_attn.q_a_proj": "attention.q_a",
    "self_attn.q_a_layernorm": "attention.q_a_norm",
    "self_attn.q_b_proj": "attention.q_b",
    "self_attn.kv_a_proj_with_mqa": "attention.kv_a",
    "self_attn.kv_a_layernorm": "attention.kv_a_norm",
    "self_attn.kv_b_proj": "attention.kv_b",
    "self_attn.o_proj": "attention.o",
    "self_attn.q_norm": "attention.q_norm",
    "self_attn.k_norm": "attention.k_norm",
    "mlp.gate": "ffn.router",
}
_MTP = {"enorm": "embedding_norm", "hnorm": "hidden_norm", "eh_proj": "projection", "shared_head.norm": "norm"}
_QKV = re.compile(r"self_attn\.([qkv])_proj\.(weight|bias)")
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_MLP = re.compile(r"mlp\.(?:experts\.(\d+)\.|(shared_experts)\.)?(gate|up|down)_proj\.weight")
_FUSED = {"mlp.experts.gate_up_proj": "ffn.experts.gate_up", "mlp.experts.down_proj": "ffn.experts.down"}


def place(config: ModelConfig, name: str) -> Place:
    """Our parameter and the part of it that the official tensor `name` fills. Raises KeyError for a name that no model has."""
    if name == "lm_head.weight" and config.tie_word_embeddings:
        return "embed.weight", ()
    if name in _TOP:
        return _TOP[name], ()
    match = _LAYER.fullmatch(name)
    if match is None:
        raise KeyError(name)
    layer, rest = int(match[1]), match[2]
    depth = layer - config.num_hidden_layers
    if depth < 0:
        return _block_place(config, f"layers.{layer}.", rest, layer)
    if rest in ("embed_tokens.weight", "shared_head.head.weight"):
        return ("head.weight" if rest.startswith("shared_head") and not config.tie_word_embeddings else "embed.weight"), ()
    if rest.removesuffix(".weight") in _MTP:
        return f"mtp.{depth}.{_MTP[rest.removesuffix('.weight')]}.weight", ()
    return _block_place(config, f"mtp.{depth}.block.", rest, layer)


def _block_place(config: ModelConfig, prefix: str, rest: str, layer: int) -> Place:
    if rest in _FUSED:
        return prefix + _FUSED[rest], ()
    if rest == "mlp.gate.e_score_correction_bias":
        return prefix + "ffn.router.bias", ()
    if config.is_dense and (match := _QKV.fullmatch(rest)):
        return f"{prefix}attention.qkv.{match[2]}", (_rows(config, "qkv".index(match[1])),)
    match = _MLP.fullmatch(rest)
    if match is None:
        name, _, kind = rest.rpartition(".")
        return f"{prefix}{_BLOCK[name]}.{kind}", ()
    expert, shared, kind = match.groups()
    if expert is not None:
        return _mlp_place(f"{prefix}ffn.experts.", "", kind, config.moe_intermediate_size, (int(expert),))
    inner = config.n_shared_experts * config.moe_intermediate_size if shared else config.intermediate_size
    return _mlp_place(f"{prefix}ffn.shared." if shared else f"{prefix}ffn.", ".weight", kind, inner, ())


def _rows(config: ModelConfig, part: int) -> slice:
    """Rows of query (0), key (1) or value (2) in a dense model's `qkv`."""
    query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    return slice(0, query) if part == 0 else slice(query + (part - 1) * key, query + part * key)


def _mlp_place(prefix: str, suffix: str, kind: str, inner: int, index: tuple[int, ...]) -> Place:
    """Gate rows come first in gate_up, then up rows."""
    if kind == "down":
        return f"{prefix}down{suffix}", index
    return f"{prefix}gate_up{suffix}", (*index, slice(0, inner) if kind == "gate" else slice(inner, 2 * inner))


def is_copy(config: ModelConfig, name: str) -> bool:
    """Whether an official tensor only repeats another: MTP layers store the shared embedding and head again; so may a tied head."""
    if name == "lm_head.weight":
        return config.tie_word_embeddings
    match = _LAYER.fullmatch(name)
    return match is not None and match[2] in ("embed_tokens.weight", "shared_head.head.weight")


def fused_names(config: ModelConfig) -> Iterator[tuple[str, list[str]]]:
    """(fused name, the per-expert names it stands for): transformers 5 keeps a layer's experts in two tensors."""
    layers = range(config.num_hidden_layers + config.num_nextn_predict_layers)
    for layer in filter(config.is_moe, layers):
        prefix = f"model.layers.{layer}.mlp.experts."
        for fused, kinds in (("gate_up_proj", ("gate", "up")), ("down_proj", ("down",))):
            yield prefix + fused, [f"{prefix}{e}.{kind}_proj.weight" for e in range(config.n_routed_experts) for kind in kinds]
