"""What a model is: one frozen ModelConfig with Hugging Face's field names, and every number that follows from it.

Two families: DeepSeek-V2/V3 (latent attention, experts) and the dense Llama and Qwen models that it is distilled into (grouped-query
attention). Left out: biases in the feed-forward part, dropout, other activations than SiLU, sliding windows, MoE layers at a frequency
other than 1 (no released V2, V3 or R1 uses any).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deepwright.refusals import expect, expect_each

FP8_BLOCK = 128  # side of the square of weights that shares one scale in an FP8 checkpoint
DENSE = ("llama", "qwen2", "qwen3")


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
        _check_stretch(self)
        expect(
            self.beta_fast > self.beta_slow > 0,
            "beta_fast, beta_slow",
            (self.beta_fast, self.beta_slow),
            "beta_fast > beta_slow > 0",
        )
        usual = (
            self.mscale == 1
            if self.mscale_all_dim == 0
            else self.mscale > 0 and self.mscale_all_dim > 0
        )
        expect(
            usual,
            "mscale, mscale_all_dim",
            (self.mscale, self.mscale_all_dim),
            "both positive, or 1 and 0",
        )  # else readers disagree

    def magnitude(self, mscale: float) -> float:
        """0.1 * mscale * ln(factor) + 1: the paper's sqrt(t); 1 when nothing is stretched."""
        return 1.0 if self.factor <= 1 else 0.1 * mscale * math.log(self.factor) + 1.0

    @property
    def softmax_magnitude(self) -> float:
        """What the softmax scale is multiplied by."""
        return self.magnitude(self.mscale_all_dim) ** 2

    @property
    def rotary_magnitude(self) -> float:
        """What cos and sin are multiplied by: 1 for V2 and V3, whose two mscales are equal (the softmax scale takes the rest)."""
        return self.magnitude(self.mscale) / self.magnitude(self.mscale_all_dim)


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's stretching (arXiv 2407.21783 section 3.4.2): slow channels are divided by `factor`, fast ones kept, in between a blend."""

    factor: float
    original_max_position_embeddings: int
    low_freq_factor: float = (
        1.0  # channels that turn fewer times over the original context are divided
    )
    high_freq_factor: float = 4.0  # those that turn more often are kept

    softmax_magnitude = rotary_magnitude = 1.0  # no fields: this stretching leaves magnitudes alone

    def __post_init__(self) -> None:
        _check_stretch(self)
        factors = (self.low_freq_factor, self.high_freq_factor)
        expect(
            0 < factors[0] < factors[1],
            "low_freq_factor, high_freq_factor",
            factors,
            "two positive numbers, the lower first",
        )


def _check_stretch(scaling: RopeScaling | Llama3Scaling) -> None:
    expect(scaling.factor >= 1, "rope_scaling.factor", scaling.factor, "a number of at least 1")
    original = scaling.original_max_position_embeddings
    expect(original > 0, "original_max_position_embeddings", original, "> 0")


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a model. Field names and meanings are those of Hugging Face's `config.json`.

    A combination that no reader of Hugging Face folders would compute in the same way is refused with a ValueError that
    names the field, its value and what was expected. Fields of the other family keep their defaults.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    # latent attention and experts (deepseek_v3, deepseek_v2)
    moe_intermediate_size: int = 0
    first_k_dense_replace: int = 0
    n_routed_experts: int = 0
    n_shared_experts: int = 0
    num_experts_per_tok: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    q_lora_rank: int | None = None
    n_group: int = 1
    topk_group: int = 1
    routed_scaling_factor: float = 1.0
    scoring_func: str = "sigmoid"  # sigmoid (V3) | softmax (V2)
    topk_method: str = (
        "noaux_tc"  # noaux_tc (V3: bias, top-2 group sum) | group_limited_greedy | greedy (V2)
    )
    norm_topk_prob: bool = True
    rope_interleave: bool = True
    num_nextn_predict_layers: int = 0
    # grouped-query attention (llama, qwen2, qwen3)
    num_key_value_heads: int = 0
    head_dim: int = 0
    attention_bias: bool = (
        False  # of all four projections; qwen2 always has those of query, key and value
    )
    # both
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | Llama3Scaling | None = None
    max_position_embeddings: int = 4096
    tie_word_embeddings: bool = False
    initializer_range: float = 0.006
    model_type: str = "deepseek_v3"
    bos_token_id: int | None = 0
    eos_token_id: int | tuple[int, ...] = 1

    def __post_init__(self) -> None:
        expect(
            self.model_type in (*GATES, *DENSE),
            "model_type",
            self.model_type,
            " or ".join((*GATES, *DENSE)),
        )
        self._check_types()
        self._check_sizes()
        if self.is_dense:
            self._check_dense()
        else:
            self._check_experts()
            self._check_gate()

    def _check_types(self) -> None:
        expected = {
            "int": int,
            "float": (int, float),
            "bool": bool,
            "str": str,
            "int | None": (int, type(None)),
        }
        expected |= {
            "RopeScaling | Llama3Scaling | None": (RopeScaling, Llama3Scaling, type(None)),
            "int | tuple[int, ...]": (int, tuple),
        }
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            fits = isinstance(value, expected[field.type]) and (
                field.type == "bool" or not isinstance(value, bool)
            )
            expect(fits, field.name, value, f"a value of type {field.type}")
        other = _LATENT_ONLY if self.is_dense else DENSE_ONLY
        for name in other:
            default = self.__dataclass_fields__[name].default
            expect(
                getattr(self, name) == default,
                name,
                getattr(self, name),
                f"{default} for {self.model_type}",
            )

    def _check_sizes(self) -> None:
        positive = _POSITIVE + (DENSE_POSITIVE if self.is_dense else _LATENT_POSITIVE)
        expect_each(self, positive, lambda value: value > 0, "a positive number")
        counts = ("first_k_dense_replace", "n_shared_experts", "num_nextn_predict_layers")
        expect_each(self, counts, lambda value: value >= 0, "0 or a positive number")
        name = "head_dim" if self.is_dense else "qk_rope_head_dim"
        expect(
            self.rotary_width % 2 == 0,
            name,
            self.rotary_width,
            "an even number: rotary channels come in pairs",
        )
        expect(len(self.eos_token_ids) > 0, "eos_token_id", self.eos_token_id, "at least one id")
        if self.rope_scaling is not None:
            original, longest = (
                self.rope_scaling.original_max_position_embeddings,
                self.max_position_embeddings,
            )
            expect(
                original <= longest,
                "max_position_embeddings",
                longest,
                f"at least the original {original}",
            )

    def _check_dense(self) -> None:
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        expect(
            heads % groups == 0,
            "num_key_value_heads",
            groups,
            f"a divisor of num_attention_heads = {heads}",
        )
        implied = self.model_type == "qwen2" and self.attention_bias
        expect(
            not implied,
            "attention_bias",
            self.attention_bias,
            "false for qwen2: its biases are implied, and its output has none",
        )
        if isinstance(self.rope_scaling, RopeScaling):
            scales = (self.rope_scaling.mscale, self.rope_scaling.mscale_all_dim)
            expect(
                scales == (1, 0),
                "mscale, mscale_all_dim",
                scales,
                f"1 and 0 for {self.model_type}, whose readers know neither",
            )

    def _check_experts(self) -> None:
        experts, groups, kept, k = (
            self.n_routed_experts,
            self.n_group,
            self.topk_group,
            self.num_experts_per_tok,
        )
        expect(
            experts % groups == 0, "n_group", groups, f"a divisor of n_routed_experts = {experts}"
        )
        expect(kept <= groups, "topk_group", kept, f"at most n_group = {groups}")
        expect(
            k <= experts // groups * kept,
            "num_experts_per_tok",
            k,
            f"at most the {experts // groups * kept} experts of {kept} groups",
        )
        expect(
            not isinstance(self.rope_scaling, Llama3Scaling),
            "rope_scaling",
            "llama3",
            f"yarn for {self.model_type}",
        )

    def _check_gate(self) -> None:
        """Readers take the gate from model_type alone (transformers ignores scoring_func), so the two must agree."""
        scoring, methods = GATES[self.model_type]
        expect(
            self.scoring_func == scoring,
            "scoring_func",
            self.scoring_func,
            f"{scoring} for {self.model_type}",
        )
        expect(
            self.topk_method in methods,
            "topk_method",
            self.topk_method,
            f"{' or '.join(methods)} for {self.model_type}",
        )
        if self.topk_method == "noaux_tc":
            size = self.n_routed_experts // self.n_group
            expect(
                size >= 2,
                "n_group",
                self.n_group,
                "groups of at least 2 experts: a group is scored by its two best",
            )
        if self.topk_method == "greedy":
            expect(
                self.n_group == self.topk_group,
                "topk_group",
                self.topk_group,
                f"n_group = {self.n_group}: greedy ignores groups",
            )
        if self.model_type == "deepseek_v2":
            expect(
                not self.norm_topk_prob,
                "norm_topk_prob",
                self.norm_topk_prob,
                "false for deepseek_v2 (readers disagree on true)",
            )
            expect(
                self.rope_interleave,
                "rope_interleave",
                self.rope_interleave,
                "true for deepseek_v2",
            )
            expect(
                self.num_nextn_predict_layers == 0,
                "num_nextn_predict_layers",
                self.num_nextn_predict_layers,
                "0 for deepseek_v2",
            )

    # --- Hugging Face ---

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Reads the dict of a `config.json` as transformers 4 (`rope_scaling`, `rope_theta`) or 5 (`rope_parameters`) writes it.

        Raises ValueError for an unknown or missing key and for a value that this implementation does not compute.
        """
        from deepwright.config.files import read

        return read(values)

    def to_hf(self) -> dict[str, Any]:
        """The dict of a `config.json` that transformers 4 and 5, vLLM, SGLang and llama.cpp read. `from_hf` gives back the same config."""
        from deepwright.config.files import write

        return write(self)

    # --- what follows ---

    @property
    def is_dense(self) -> bool:
        """Whether this is a Llama or Qwen model: grouped-query attention, no experts."""
        return self.model_type in DENSE

    @property
    def qkv_bias(self) -> bool:
        return self.attention_bias or self.model_type == "qwen2"

    @property
    def qk_norm(self) -> bool:
        """Whether each head's query and key are normed before they are rotated."""
        return self.model_type == "qwen3"

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)

    @property
    def qk_head_dim(self) -> int:
        return self.head_dim if self.is_dense else self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def value_width(self) -> int:
        """Width of one head's value."""
        return self.head_dim if self.is_dense else self.v_head_dim

    @property
    def rotary_width(self) -> int:
        """Channels of a key that are rotated."""
        return self.head_dim if self.is_dense else self.qk_rope_head_dim

    @property
    def cache_width(self) -> int:
        """Numbers cached per token and layer: the normed latent (C) and the rotated shared key (R), or every key and value of a dense model."""
        return (
            2 * self.num_key_value_heads * self.head_dim
            if self.is_dense
            else self.kv_lora_rank + self.qk_rope_head_dim
        )

    @property
    def softmax_scale(self) -> float:
        return self.qk_head_dim**-0.5 * (
            1.0 if self.rope_scaling is None else self.rope_scaling.softmax_magnitude
        )

    def is_moe(self, layer: int) -> bool:
        """Whether block `layer` (0-based; MTP blocks count from num_hidden_layers) has experts."""
        return not self.is_dense and layer >= self.first_k_dense_replace

    @property
    def has_router_bias(self) -> bool:
        return self.topk_method == "noaux_tc"

    @property
    def moe_layers(self) -> int:
        """Main blocks with experts (MTP blocks not counted)."""
        return sum(self.is_moe(layer) for layer in range(self.num_hidden_layers))

    def cache_bytes_per_token(self, bytes_per_number: int = 2, with_mtp: bool = False) -> int:
        """Bytes of cache for one token in all layers (V3 in BF16: 70,272)."""
        return (
            self.cache_width
            * bytes_per_number
            * (self.num_hidden_layers + with_mtp * self.num_nextn_predict_layers)
        )

    @property
    def attention_matrices(self) -> int:
        """Parameters of one block's attention that multiply."""
        width, heads = self.hidden_size, self.num_attention_heads
        if self.is_dense:
            return 2 * width * (heads + self.num_key_value_heads) * self.head_dim
        queries, rank = heads * self.qk_head_dim, self.q_lora_rank
        query = width * queries if rank is None else rank * (width + queries)
        key_value = self.kv_lora_rank * heads * (self.qk_nope_head_dim + self.v_head_dim)
        return query + width * self.cache_width + key_value + heads * self.v_head_dim * width

    @property
    def attention_vectors(self) -> int:
        """Its norms and biases."""
        if not self.is_dense:
            return (self.q_lora_rank or 0) + self.kv_lora_rank
        biases = (
            self.qkv_bias
            * (self.num_attention_heads + 2 * self.num_key_value_heads)
            * self.head_dim
        )
        return biases + self.attention_bias * self.hidden_size + self.qk_norm * 2 * self.head_dim

    @property
    def attention_parameters(self) -> int:
        """One block's attention, its norms and biases included."""
        return self.attention_matrices + self.attention_vectors

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
        experts = self.n_shared_experts + (
            self.num_experts_per_tok if active else self.n_routed_experts
        )
        return shared + self.router_parameters + experts * self.expert_parameters

    @property
    def embedding_parameters(self) -> int:
        """The embedding alone; the head has as many, and is the same tensor when tied."""
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """All of the main model, without MTP (V3: 671,026,419,200)."""
        tables = self.embedding_parameters * (1 if self.tie_word_embeddings else 2)
        return (
            tables
            + self.hidden_size
            + sum(self.block_parameters(layer) for layer in range(self.num_hidden_layers))
        )

    @property
    def mtp_parameters(self) -> int:
        """Parameters the MTP modules add (embedding and head are the main model's): block, projection and three norms each."""
        start, depth, width = (
            self.num_hidden_layers,
            self.num_nextn_predict_layers,
            self.hidden_size,
        )
        return sum(
            self.block_parameters(start + k) + 2 * width * width + 3 * width for k in range(depth)
        )

    @property
    def active_block_parameters(self) -> int:
        """Parameters one token passes through in the blocks and the final norm: no embedding, no head."""
        return self.hidden_size + sum(
            self.block_parameters(layer, active=True) for layer in range(self.num_hidden_layers)
        )

    @property
    def active_parameters(self) -> int:
        """Parameters one token passes through, embedding and head included (V3: 37,552,297,472, the published 37B)."""
        return self.active_block_parameters + self.embedding_parameters * (
            1 if self.tie_word_embeddings else 2
        )

    def _matmul_parameters(self, layer: int) -> int:
        """Active parameters of a block that multiply: no norms, no biases."""
        router_bias = self.n_routed_experts * self.has_router_bias * self.is_moe(layer)
        return (
            self.block_parameters(layer, active=True)
            - 2 * self.hidden_size
            - self.attention_vectors
            - router_bias
        )

    def forward_flops(self, keys: float, with_mtp: bool = False) -> float:
        """Floating-point operations of one token's forward pass that attends to `keys` keys, attention expanded.

        Counted: 2 for each multiply-add of the matrix products (blocks and head), of the scores and of the weighted values.
        Not counted: norms, biases, softmax, rotations, the embedding's look-up. An MTP module adds its block, its projection and the
        head again.
        """
        start = self.num_hidden_layers
        attention = 2 * self.num_attention_heads * (self.qk_head_dim + self.value_width) * keys
        flops = 2 * self.embedding_parameters + sum(
            2 * self._matmul_parameters(layer) + attention for layer in range(start)
        )
        for layer in range(start, start + with_mtp * self.num_nextn_predict_layers):
            flops += (
                2
                * (
                    self._matmul_parameters(layer)
                    + 2 * self.hidden_size**2
                    + self.embedding_parameters
                )
                + attention
            )
        return flops

    def training_flops(self, length: int, with_mtp: bool = True) -> float:
        """Operations per token of forward and backward over a causal sequence of `length`: 3 x forward, (length + 1)/2 keys on average.

        V3 at 4096 without MTP: 250 GFLOP (ISCA'25, table 2). Recomputation is not counted.
        """
        return 3 * self.forward_flops((length + 1) / 2, with_mtp)


DENSE_POSITIVE = ("num_key_value_heads", "head_dim")
DENSE_ONLY = (*DENSE_POSITIVE, "attention_bias")
_LATENT_POSITIVE = (
    "moe_intermediate_size", "n_routed_experts", "num_experts_per_tok", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
    "q_lora_rank", "n_group", "topk_group", "routed_scaling_factor",
)  # fmt: skip
_LATENT_ONLY = (
    *_LATENT_POSITIVE, "first_k_dense_replace", "n_shared_experts", "scoring_func", "topk_method", "norm_topk_prob", "rope_interleave",
    "num_nextn_predict_layers",
)  # fmt: skip
_POSITIVE = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps", "rope_theta",
    "max_position_embeddings", "initializer_range",
)  # fmt: skip
GATES = {
    "deepseek_v3": ("sigmoid", ("noaux_tc",)),
    "deepseek_v2": ("softmax", ("greedy", "group_limited_greedy")),
}


def fields_of(model_type: str) -> list[str]:
    """The fields that a model of this type has in its config.json."""
    other = _LATENT_ONLY if model_type in DENSE else DENSE_ONLY
    return [field.name for field in dataclasses.fields(ModelConfig) if field.name not in other]
