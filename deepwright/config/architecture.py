"""What a model is: one frozen ModelConfig with Hugging Face's field names, and every number that follows from it.

Two families: DeepSeek-V2/V3 (latent attention, experts) and the dense Llama and Qwen models that it is distilled into (grouped-query
attention). Left out: biases in the feed-forward part, dropout, other activations than SiLU, sliding windows, MoE layers at a frequency
other than 1 (no released V2, V3 or R1 uses any).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deepwright.config.checks import check
from deepwright.config.families import DENSE, DENSE_ONLY, LATENT_ONLY
from deepwright.config.rope import Llama3Scaling, RopeScaling

FP8_BLOCK = 128  # side of the square of weights that shares one scale in an FP8 checkpoint


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
        "noaux_tc"  # (V3: bias, top-2 group sum) | group_limited_greedy | greedy (V2)
    )
    norm_topk_prob: bool = True
    rope_interleave: bool = True
    num_nextn_predict_layers: int = 0
    # grouped-query attention (llama, qwen2, qwen3)
    num_key_value_heads: int = 0
    head_dim: int = 0
    attention_bias: bool = False  # of all four projections; qwen2 always has the first three's
    # both
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | Llama3Scaling | None = None
    max_position_embeddings: int = 4096
    tie_word_embeddings: bool = False
    initializer_range: float = 0.006
    model_type: str = "deepseek_v3"
    bos_token_id: int | None = 0
    eos_token_id: int | tuple[int, ...] | None = 1  # None: config.json names none

    def __post_init__(self) -> None:
        check(self)

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
        ends = self.eos_token_id
        return ends if isinstance(ends, tuple) else () if ends is None else (ends,)

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
        return self._sum(range(self.num_hidden_layers), self.is_moe)

    def _sum(self, layers: range, of: Callable[[int], float]) -> Any:
        """The sum of `of(layer)`, without a loop: blocks differ by whether they have experts alone,
        and how many there are may be what a hostile file says."""
        first = layers.stop if self.is_dense else self.first_k_dense_replace
        border = min(max(layers.start, first), layers.stop)
        halves = (range(layers.start, border), range(border, layers.stop))
        return sum(len(half) * of(half.start) for half in halves)

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
            + self._sum(range(self.num_hidden_layers), self.block_parameters)
        )

    @property
    def mtp_parameters(self) -> int:
        """Parameters the MTP modules add (embedding and head are the main model's): block, projection and three norms each."""
        width = self.hidden_size
        return self._sum(
            self._mtp_layers, lambda layer: self.block_parameters(layer) + 2 * width**2 + 3 * width
        )

    @property
    def _mtp_layers(self) -> range:
        start = self.num_hidden_layers
        return range(start, start + self.num_nextn_predict_layers)

    @property
    def active_block_parameters(self) -> int:
        """Parameters one token passes through in the blocks and the final norm: no embedding, no head."""
        blocks = range(self.num_hidden_layers)
        return self.hidden_size + self._sum(
            blocks, lambda layer: self.block_parameters(layer, active=True)
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
        attention = 2 * self.num_attention_heads * (self.qk_head_dim + self.value_width) * keys
        head = 2 * self.embedding_parameters

        def block(layer: int) -> float:
            return 2 * self._matmul_parameters(layer) + attention

        def mtp(layer: int) -> float:
            return block(layer) + 4 * self.hidden_size**2 + head

        flops = head + self._sum(range(self.num_hidden_layers), block)
        return flops + (self._sum(self._mtp_layers, mtp) if with_mtp else 0)

    def training_flops(self, length: int, with_mtp: bool = True) -> float:
        """Operations per token of forward and backward over a causal sequence of `length`: 3 x forward, (length + 1)/2 keys on average.

        V3 at 4096 without MTP: 250 GFLOP (ISCA'25, table 2). Recomputation is not counted.
        """
        return 3 * self.forward_flops((length + 1) / 2, with_mtp)


def fields_of(model_type: str) -> list[str]:
    """The fields that a model of this type has in its config.json."""
    other = LATENT_ONLY if model_type in DENSE else DENSE_ONLY
    return [field.name for field in dataclasses.fields(ModelConfig) if field.name not in other]
