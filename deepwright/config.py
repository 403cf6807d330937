"""What a model is: one frozen ModelConfig with Hugging Face's field names, its presets, and every number that follows from it.

No torch here: plans, help texts and config errors must answer at once. Hugging Face `config.json` files are read strictly
(`from_hf`): a key that would change the computation and that we do not know is refused by name. Left out: biases in the
projections, dropout, other activations than SiLU, MoE layers at a frequency other than 1 (no released V2, V3 or R1 uses any).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Tensor = tuple[tuple[int, ...], str]  # shape, and the safetensors word for the dtype: F32, BF16, F8_E4M3
FP8_BLOCK = 128  # side of the square of weights that shares one scale in an FP8 checkpoint


@dataclass(frozen=True)
class RopeScaling:
    """YaRN (V3 section 4.3; V2 section 3.1.4): how rotary frequencies were stretched beyond the original context."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0

    def __post_init__(self) -> None:
        _expect(self.factor >= 1, "rope_scaling.factor", self.factor, "a number of at least 1")
        _expect(self.original_max_position_embeddings > 0, "original_max_position_embeddings", self.original_max_position_embeddings, "> 0")
        _expect(self.beta_fast > self.beta_slow > 0, "beta_fast, beta_slow", (self.beta_fast, self.beta_slow), "beta_fast > beta_slow > 0")
        usual = self.mscale == 1 if self.mscale_all_dim == 0 else self.mscale > 0 and self.mscale_all_dim > 0
        _expect(usual, "mscale, mscale_all_dim", (self.mscale, self.mscale_all_dim), "both positive, or 1 and 0")  # else readers disagree

    def magnitude(self, mscale: float) -> float:
        """0.1 * mscale * ln(factor) + 1: the paper's sqrt(t); 1 when nothing is stretched."""
        return 1.0 if self.factor <= 1 else 0.1 * mscale * math.log(self.factor) + 1.0

    @property
    def rotary_magnitude(self) -> float:
        """What cos and sin are multiplied by: 1 for V2 and V3, whose two mscales are equal (the softmax scale takes the rest)."""
        return self.magnitude(self.mscale) / self.magnitude(self.mscale_all_dim)


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a DeepSeek-V2/V3-type model. Field names and meanings are those of Hugging Face's `config.json`.

    A combination that no reader of Hugging Face folders would compute in the same way is refused with a ValueError that
    names the field, its value and what was expected.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    first_k_dense_replace: int
    num_attention_heads: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int | None = None
    n_group: int = 1
    topk_group: int = 1
    routed_scaling_factor: float = 1.0
    scoring_func: str = "sigmoid"  # sigmoid (V3) | softmax (V2)
    topk_method: str = "noaux_tc"  # noaux_tc (V3: bias, top-2 group sum) | group_limited_greedy | greedy (V2)
    norm_topk_prob: bool = True
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rope_interleave: bool = True
    max_position_embeddings: int = 4096
    num_nextn_predict_layers: int = 0
    tie_word_embeddings: bool = False
    initializer_range: float = 0.006
    model_type: str = "deepseek_v3"
    bos_token_id: int = 0
    eos_token_id: int = 1

    def __post_init__(self) -> None:
        self._check_types()
        self._check_sizes()
        self._check_experts()
        self._check_gate()

    def _check_types(self) -> None:
        expected = {"int": int, "float": (int, float), "bool": bool, "str": str, "int | None": (int, type(None))}
        expected["RopeScaling | None"] = (RopeScaling, type(None))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in expected:
                fits = isinstance(value, expected[field.type]) and (field.type == "bool" or not isinstance(value, bool))
                _expect(fits, field.name, value, f"a value of type {field.type}")

    def _check_sizes(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            _expect(value is None or value > 0, name, value, "a positive number")
        for name in ("first_k_dense_replace", "n_shared_experts", "num_nextn_predict_layers"):
            _expect(getattr(self, name) >= 0, name, getattr(self, name), "0 or a positive number")
        _expect(self.qk_rope_head_dim % 2 == 0, "qk_rope_head_dim", self.qk_rope_head_dim, "an even number: rotary channels come in pairs")
        if self.rope_scaling is not None:
            original, longest = self.rope_scaling.original_max_position_embeddings, self.max_position_embeddings
            _expect(original <= longest, "max_position_embeddings", longest, f"at least the original {original}")

    def _check_experts(self) -> None:
        experts, groups, kept, k = self.n_routed_experts, self.n_group, self.topk_group, self.num_experts_per_tok
        _expect(experts % groups == 0, "n_group", groups, f"a divisor of n_routed_experts = {experts}")
        _expect(kept <= groups, "topk_group", kept, f"at most n_group = {groups}")
        _expect(k <= experts // groups * kept, "num_experts_per_tok", k, f"at most the {experts // groups * kept} experts of {kept} groups")

    def _check_gate(self) -> None:
        """Readers take the gate from model_type alone (transformers ignores scoring_func), so the two must agree."""
        _expect(self.model_type in _GATES, "model_type", self.model_type, " or ".join(_GATES))
        scoring, methods = _GATES[self.model_type]
        _expect(self.scoring_func == scoring, "scoring_func", self.scoring_func, f"{scoring} for {self.model_type}")
        _expect(self.topk_method in methods, "topk_method", self.topk_method, f"{' or '.join(methods)} for {self.model_type}")
        if self.topk_method == "noaux_tc":
            size = self.n_routed_experts // self.n_group
            _expect(size >= 2, "n_group", self.n_group, "groups of at least 2 experts: a group is scored by its two best")
        if self.topk_method == "greedy":
            _expect(self.n_group == self.topk_group, "topk_group", self.topk_group, f"n_group = {self.n_group}: greedy ignores groups")
        if self.model_type == "deepseek_v2":
            _expect(not self.norm_topk_prob, "norm_topk_prob", self.norm_topk_prob, "false for deepseek_v2 (readers disagree on true)")
            _expect(self.rope_interleave, "rope_interleave", self.rope_interleave, "true for deepseek_v2")
            _expect(self.num_nextn_predict_layers == 0, "num_nextn_predict_layers", self.num_nextn_predict_layers, "0 for deepseek_v2")

    # --- Hugging Face ---

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Reads the dict of a `config.json` as transformers 4 (`rope_scaling`, `rope_theta`) or 5 (`rope_parameters`) writes it.

        Raises ValueError for an unknown or missing key and for a value that this implementation does not compute.
        """
        model_type = values.get("model_type")
        _expect(model_type in _GATES, "model_type", model_type, " or ".join(_GATES))
        known = {field.name for field in dataclasses.fields(cls)} | {"rope_parameters"} | set(_FIXED) | set(_IGNORED) | set(_DERIVED)
        _refuse_unknown(values, known, "config.json")
        given = _DEFAULTS[model_type] | {key: value for key, value in values.items() if value is not None or key == "q_lora_rank"}
        for key, expected in _FIXED.items():
            _expect(given.get(key, expected) == expected, key, given.get(key), f"{expected}: nothing else is implemented")
        _check_quantization(given.get("quantization_config"))
        given["rope_theta"], given["rope_scaling"] = _read_rope(given)
        fields = {field.name: given[field.name] for field in dataclasses.fields(cls) if field.name in given}
        required = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in fields]
        if required:
            raise ValueError(f"config.json lacks {', '.join(required)}")
        config = cls(**fields)
        for key, attribute in _DERIVED.items():
            expected = getattr(config, attribute)
            _expect(given.get(key, expected) == expected, key, given.get(key), f"{expected} = {attribute}")
        return config

    def to_hf(self) -> dict[str, Any]:
        """The dict of a `config.json` that transformers 4 and 5, vLLM, SGLang and llama.cpp read. `from_hf` gives back the same config."""
        values = dataclasses.asdict(self)
        values["architectures"] = ["DeepseekV3ForCausalLM" if self.model_type == "deepseek_v3" else "DeepseekV2ForCausalLM"]
        values |= _FIXED | {"num_key_value_heads": self.num_attention_heads}
        if self.rope_scaling is not None:
            values["rope_scaling"] = {"type": "yarn", **values["rope_scaling"]}
        if self.model_type == "deepseek_v2":
            del values["rope_interleave"], values["num_nextn_predict_layers"]
        return values

    # --- what follows ---

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def cache_width(self) -> int:
        """Numbers cached per token and layer: the normed latent (C) and the rotated shared key (R)."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def softmax_scale(self) -> float:
        scale = self.qk_head_dim**-0.5
        if self.rope_scaling is not None:
            scale *= self.rope_scaling.magnitude(self.rope_scaling.mscale_all_dim) ** 2
        return scale

    def is_moe(self, layer: int) -> bool:
        """Whether block `layer` (0-based; MTP blocks count from num_hidden_layers) has experts."""
        return layer >= self.first_k_dense_replace

    @property
    def has_router_bias(self) -> bool:
        return self.topk_method == "noaux_tc"

    @property
    def moe_layers(self) -> int:
        """Main blocks with experts (MTP blocks not counted)."""
        return max(0, self.num_hidden_layers - self.first_k_dense_replace)

    def cache_bytes_per_token(self, bytes_per_number: int = 2, with_mtp: bool = False) -> int:
        """Bytes of latent cache for one token in all layers (V3 in BF16: 70,272)."""
        return self.cache_width * bytes_per_number * (self.num_hidden_layers + with_mtp * self.num_nextn_predict_layers)

    @property
    def attention_parameters(self) -> int:
        """One block's attention, its latent norms included."""
        query_width = self.num_attention_heads * self.qk_head_dim
        rank = self.q_lora_rank
        query = self.hidden_size * query_width if rank is None else self.hidden_size * rank + rank + rank * query_width
        keys = self.hidden_size * self.cache_width + self.kv_lora_rank
        values = self.kv_lora_rank * self.num_attention_heads * (self.qk_nope_head_dim + self.v_head_dim)
        return query + keys + values + self.num_attention_heads * self.v_head_dim * self.hidden_size

    @property
    def expert_parameters(self) -> int:
        return 3 * self.hidden_size * self.moe_intermediate_size

    @property
    def router_parameters(self) -> int:
        """Centroids, and the correction biases where the method has them."""
        return self.n_routed_experts * (self.hidden_size + self.has_router_bias)

    def block_parameters(self, layer: int, active: bool = False) -> int:
        """Parameters of block `layer`; with `active`, those one token passes through."""
        shared = self.attention_parameters + 2 * self.hidden_size
        if not self.is_moe(layer):
            return shared + 3 * self.hidden_size * self.intermediate_size
        experts = self.n_shared_experts + (self.num_experts_per_tok if active else self.n_routed_experts)
        return shared + self.router_parameters + experts * self.expert_parameters

    @property
    def embedding_parameters(self) -> int:
        """The embedding alone; the head has as many, and is the same tensor when tied."""
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """All of the main model, without MTP (V3: 671,026,419,200)."""
        tables = self.embedding_parameters * (1 if self.tie_word_embeddings else 2)
        return tables + self.hidden_size + sum(self.block_parameters(layer) for layer in range(self.num_hidden_layers))

    @property
    def mtp_parameters(self) -> int:
        """Parameters the MTP modules add (embedding and head are the main model's): block, projection and three norms each."""
        start, depth, width = self.num_hidden_layers, self.num_nextn_predict_layers, self.hidden_size
        return sum(self.block_parameters(start + k) + 2 * width * width + 3 * width for k in range(depth))

    @property
    def active_block_parameters(self) -> int:
        """Parameters one token passes through in the blocks and the final norm: no embedding, no head."""
        return self.hidden_size + sum(self.block_parameters(layer, active=True) for layer in range(self.num_hidden_layers))

    @property
    def active_parameters(self) -> int:
        """Parameters one token passes through, embedding and head included (V3: 37,552,297,472, the published 37B)."""
        return self.active_block_parameters + self.embedding_parameters * (1 if self.tie_word_embeddings else 2)

    def _matmul_parameters(self, layer: int) -> int:
        """Active parameters of a block that multiply: no norms, no router biases."""
        norms = 2 * self.hidden_size + self.kv_lora_rank + (self.q_lora_rank or 0)
        biases = self.n_routed_experts * self.has_router_bias * self.is_moe(layer)
        return self.block_parameters(layer, active=True) - norms - biases

    def forward_flops(self, keys: float, with_mtp: bool = False) -> float:
        """Floating-point operations of one token's forward pass that attends to `keys` keys, attention expanded.

        Counted: 2 for each multiply-add of the matrix products (blocks and head), of the scores and of the weighted values.
        Not counted: norms, softmax, rotations, the embedding's look-up. An MTP module adds its block, its projection and the head again.
        """
        start = self.num_hidden_layers
        attention = 2 * self.num_attention_heads * (self.qk_head_dim + self.v_head_dim) * keys
        flops = 2 * self.embedding_parameters + sum(2 * self._matmul_parameters(layer) + attention for layer in range(start))
        for layer in range(start, start + with_mtp * self.num_nextn_predict_layers):
            flops += 2 * (self._matmul_parameters(layer) + 2 * self.hidden_size**2 + self.embedding_parameters) + attention
        return flops

    def training_flops(self, length: int, with_mtp: bool = True) -> float:
        """Operations per token of forward and backward over a causal sequence of `length`: 3 x forward, (length + 1)/2 keys on average.

        V3 at 4096 without MTP: 250 GFLOP (ISCA'25, table 2). Recomputation is not counted.
        """
        return 3 * self.forward_flops((length + 1) / 2, with_mtp)

    def tensor_inventory(self, dtype: str = "BF16", fp8: bool = False) -> dict[str, Tensor]:
        """Every tensor of the Hugging Face checkpoint, MTP layers with their copies of embedding and head included.

        With `fp8` the linear layers of the blocks are F8_E4M3 with an F32 `weight_scale_inv` for each block of 128 x 128.
        V3 in FP8: 91,991 tensors, 688,574,839,360 bytes.
        """
        inventory: dict[str, Tensor] = {}
        for name, shape, quantised in self._tensors():
            kept = "F32" if name.endswith("e_score_correction_bias") else dtype
            inventory[name] = (shape, "F8_E4M3" if fp8 and quantised else kept)
            if fp8 and quantised:
                inventory[f"{name}_scale_inv"] = (tuple(-(-n // FP8_BLOCK) for n in shape), "F32")
        return inventory

    def _tensors(self) -> Iterator[tuple[str, tuple[int, ...], bool]]:
        """(name, shape, whether FP8 checkpoints quantise it) in file order."""
        width, table = self.hidden_size, (self.vocab_size, self.hidden_size)
        yield "model.embed_tokens.weight", table, False
        for layer in range(self.num_hidden_layers + self.num_nextn_predict_layers):
            prefix = f"model.layers.{layer}."
            if layer >= self.num_hidden_layers:
                yield prefix + "embed_tokens.weight", table, False
                yield prefix + "enorm.weight", (width,), False
                yield prefix + "hnorm.weight", (width,), False
                yield prefix + "eh_proj.weight", (width, 2 * width), False
                yield prefix + "shared_head.norm.weight", (width,), False
                yield prefix + "shared_head.head.weight", table, False
            yield prefix + "input_layernorm.weight", (width,), False
            yield prefix + "post_attention_layernorm.weight", (width,), False
            for name, shape in self._attention_shapes():
                yield f"{prefix}self_attn.{name}.weight", shape, len(shape) == 2
            yield from self._ffn_tensors(prefix + "mlp.", layer)
        yield "model.norm.weight", (width,), False
        if not self.tie_word_embeddings:
            yield "lm_head.weight", table, False

    def _attention_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        width, heads, latent = self.hidden_size, self.num_attention_heads, self.kv_lora_rank
        if self.q_lora_rank is None:
            yield "q_proj", (heads * self.qk_head_dim, width)
        else:
            yield "q_a_proj", (self.q_lora_rank, width)
            yield "q_a_layernorm", (self.q_lora_rank,)
            yield "q_b_proj", (heads * self.qk_head_dim, self.q_lora_rank)
        yield "kv_a_proj_with_mqa", (self.cache_width, width)
        yield "kv_a_layernorm", (latent,)
        yield "kv_b_proj", (heads * (self.qk_nope_head_dim + self.v_head_dim), latent)
        yield "o_proj", (width, heads * self.v_head_dim)

    def _ffn_tensors(self, prefix: str, layer: int) -> Iterator[tuple[str, tuple[int, ...], bool]]:
        widths = {"": self.intermediate_size}
        if self.is_moe(layer):
            yield prefix + "gate.weight", (self.n_routed_experts, self.hidden_size), False
            if self.has_router_bias:
                yield prefix + "gate.e_score_correction_bias", (self.n_routed_experts,), False
            widths = {f"experts.{expert}.": self.moe_intermediate_size for expert in range(self.n_routed_experts)}
            if self.n_shared_experts:
                widths["shared_experts."] = self.n_shared_experts * self.moe_intermediate_size
        for mlp, inner in widths.items():
            for name in ("gate_proj", "up_proj"):
                yield f"{prefix}{mlp}{name}.weight", (inner, self.hidden_size), True
            yield f"{prefix}{mlp}down_proj.weight", (self.hidden_size, inner), True


_POSITIVE = (
    "vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_hidden_layers", "num_attention_heads",
    "n_routed_experts", "num_experts_per_tok", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "q_lora_rank", "n_group",
    "topk_group", "routed_scaling_factor", "rms_norm_eps", "rope_theta", "max_position_embeddings", "initializer_range",
)  # fmt: skip
_GATES = {"deepseek_v3": ("sigmoid", ("noaux_tc",)), "deepseek_v2": ("softmax", ("greedy", "group_limited_greedy"))}
_DEFAULTS: dict[Any, dict[str, Any]] = {  # transformers leaves these out of the files it writes
    "deepseek_v3": {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True},
    "deepseek_v2": {"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False},
}
_FIXED = {  # keys that would change the computation, with the one value that is implemented
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "mlp_bias": False,
    "moe_layer_freq": 1,
}
_DERIVED = {"num_key_value_heads": "num_attention_heads", "qk_head_dim": "qk_head_dim", "head_dim": "qk_rope_head_dim"}
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
_ROPE_KEYS = {field.name for field in dataclasses.fields(RopeScaling)} | {"type", "rope_type", "rope_theta"}


def _expect(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}, expected {expected}")


def _refuse_unknown(values: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{where} has the unknown key {key!r}, which might change the computation{hint}")


def _read_rope(values: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """rope_theta and YaRN from either spelling; the two must not contradict each other."""
    rope = dict(values.get("rope_parameters") or values.get("rope_scaling") or {})
    _refuse_unknown(rope, _ROPE_KEYS, "rope_parameters" if values.get("rope_parameters") else "rope_scaling")
    theta = rope.pop("rope_theta", values.get("rope_theta", 10000.0))
    _expect(values.get("rope_theta", theta) == theta, "rope_theta", values.get("rope_theta"), f"{theta} as in rope_parameters")
    kinds = {rope.pop(key, None) for key in ("type", "rope_type")} - {None}
    _expect(kinds <= {"yarn"} or kinds <= {"default"}, "rope type", sorted(kinds), "yarn or default")
    if kinds != {"yarn"}:
        _expect(not rope, "rope parameters", rope, "none without rope_type yarn")
        return theta, None
    for key in ("factor", "original_max_position_embeddings"):
        _expect(key in rope, f"yarn {key}", None, "a number")
    return theta, RopeScaling(**{key: value for key, value in rope.items() if value is not None})


def _check_quantization(values: Mapping[str, Any] | None) -> None:
    """Only DeepSeek's own FP8 layout can be undone on load."""
    if values is not None:
        method, block = values.get("quant_method"), values.get("weight_block_size")
        _expect(method == "fp8", "quantization_config.quant_method", method, "fp8, or no quantization")
        _expect(values.get("fmt", "e4m3") == "e4m3", "quantization_config.fmt", values.get("fmt"), "e4m3")
        _expect(block == [FP8_BLOCK, FP8_BLOCK], "quantization_config.weight_block_size", block, f"{[FP8_BLOCK, FP8_BLOCK]}")


def preset(name: str) -> ModelConfig:
    """A named model. laptop: 2 CPU cores; workstation: one GPU; benchmark: the one compared with peers; v3, v2, v2-lite: as released."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        raise ValueError(f"preset is {name!r}, expected one of {', '.join(PRESETS)}" + (f"; did you mean {near[0]}?" if near else ""))
    return PRESETS[name]


_YARN_V2 = RopeScaling(factor=40, original_max_position_embeddings=4096, mscale=0.707, mscale_all_dim=0.707)
_YARN_V3 = RopeScaling(factor=40, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=1.0)

PRESETS = {
    "laptop": ModelConfig(
        vocab_size=128, hidden_size=128, intermediate_size=384, moe_intermediate_size=96, num_hidden_layers=4, first_k_dense_replace=1,
        num_attention_heads=4, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, kv_lora_rank=48, qk_nope_head_dim=32,
        qk_rope_head_dim=16, v_head_dim=32, max_position_embeddings=512, num_nextn_predict_layers=1,
        initializer_range=0.04,  # 0.006 is for a width of 7168; at 128 it leaves the first hundred steps without signal
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
