"""Where each tensor of a Hugging Face checkpoint (DeepSeek, Llama, Qwen) lives in our Transformer: the one table that loading and saving walk.

Ours holds together what others keep apart: gate and up rows; query, key and value rows of a dense model; all experts of a layer.
Official names: README_WEIGHTS of DeepSeek-V3; MTP module k is layer num_hidden_layers + k there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from deepwright.config import ModelConfig
from deepwright.model.transformer import Transformer

_TOP = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
_INNER = {  # of a block, then of an MTP module beside its block
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.q_a": "self_attn.q_a_proj",
    "attention.q_a_norm": "self_attn.q_a_layernorm",
    "attention.q_b": "self_attn.q_b_proj",
    "attention.kv_a": "self_attn.kv_a_proj_with_mqa",
    "attention.kv_a_norm": "self_attn.kv_a_layernorm",
    "attention.kv_b": "self_attn.kv_b_proj",
    "attention.o": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "ffn.router": "mlp.gate",
    "embedding_norm": "enorm",
    "hidden_norm": "hnorm",
    "projection": "eh_proj",
    "norm": "shared_head.norm",
}
_MLP = {"ffn": "mlp", "ffn.shared": "mlp.shared_experts"}
_COPIES = ("embed_tokens.weight", "shared_head.head.weight")  # of every MTP layer


def memory(model: Transformer) -> dict[str, Tensor]:
    """All that a checkpoint holds of a model, by our names: parameters, and router biases, which are buffers."""
    return dict(model.named_parameters()) | {
        name: buffer for name, buffer in model.named_buffers() if name.endswith("router.bias")
    }


def pieces(config: ModelConfig, name: str, tensor: Tensor) -> Iterator[tuple[str, str, Tensor]]:
    """(stem, "weight" or "bias", view) of what others keep apart in one tensor of a block, by its name inside the block."""
    stem, kind = (name, "weight") if name.startswith("ffn.experts.") else name.rsplit(".", 1)
    if stem == "attention.qkv":
        heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
        for letter, view in zip(
            "qkv", tensor.split([count * config.head_dim for count in heads]), strict=True
        ):
            yield f"attention.{letter}", kind, view
    elif stem.endswith("gate_up"):
        for half, view in zip(("gate", "up"), tensor.chunk(2, dim=-2), strict=True):
            yield stem.removesuffix("gate_up") + half, kind, view
    else:
        yield stem, kind, tensor


def official(config: ModelConfig, ours: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """(official name, the part of ours that it is) of every tensor of a checkpoint. `ours`: `memory` of a model, or gradients by its names."""
    for name, tensor in ours.items():
        yield from _official_parts(config, name, tensor)
    for depth in range(config.num_nextn_predict_layers):
        for copy, original in zip(
            _COPIES,
            (ours["embed.weight"], ours.get("head.weight", ours["embed.weight"])),
            strict=True,
        ):
            yield f"model.layers.{config.num_hidden_layers + depth}.{copy}", original


def _official_parts(config: ModelConfig, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name in _TOP:
        yield _TOP[name], tensor
        return
    prefix, inner = _layer(config, name)
    for stem, kind, view in pieces(config, inner, tensor):
        group, _, last = stem.rpartition(".")
        if group == "ffn.experts":
            yield from (
                (f"{prefix}mlp.experts.{e}.{last}_proj.{kind}", expert)
                for e, expert in enumerate(view)
            )
        elif (stem, kind) == ("ffn.router", "bias"):
            yield f"{prefix}mlp.gate.e_score_correction_bias", view
        else:
            yield (
                f"{prefix}{_INNER[stem] if stem in _INNER else f'{_MLP[group]}.{last}_proj'}.{kind}",
                view,
            )


def _layer(config: ModelConfig, name: str) -> tuple[str, str]:
    """layers.3.ffn_norm.weight -> ("model.layers.3.", "ffn_norm.weight")."""
    stack, number, inner = name.split(".", 2)
    layer = int(number) + (config.num_hidden_layers if stack == "mtp" else 0)
    return f"model.layers.{layer}.", inner.removeprefix("block.")


def stacked(
    config: ModelConfig, ours: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor, list[str]]]:
    """(name, part of ours, the per-expert names that it stands for): transformers 5 keeps a layer's experts in two tensors, as we do."""
    for name, tensor in ours.items():
        if ".experts." in name:
            prefix, inner = _layer(config, name)
            parts = [part for part, _ in _official_parts(config, name, tensor)]
            yield f"{prefix}mlp.experts.{inner.rpartition('.')[2]}_proj", tensor, parts


def is_copy(config: ModelConfig, name: str) -> bool:
    """Whether an official tensor only repeats another: MTP layers store the shared embedding and head again; so may a tied head."""
    if name == "lm_head.weight":
        return config.tie_word_embeddings
    return name.startswith("model.layers.") and name.endswith(_COPIES)
