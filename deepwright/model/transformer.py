"""The network on one device: embedding, blocks of attention (latent, or grouped-query) and feed-forward (dense, then experts), head, MTP.

Pure maths: no files, no process groups. Parameters are fp32 masters (or whatever `dtype` says); blocks compute in
`compute_dtype`, while residual stream, norm statistics, router, softmax and loss stay in fp32.

B sequences, S positions, D width, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deepwright import numerics
from deepwright.config import ModelConfig
from deepwright.model.attention import LatentAttention
from deepwright.model.cache import Cache
from deepwright.model.experts import MixtureOfExperts, Routing, record
from deepwright.model.grouped_attention import GroupedAttention
from deepwright.model.layers import FeedForward, Linear, RMSNorm
from deepwright.model.multi_token import MultiTokenModule
from deepwright.model.rope import rotation


class Block(nn.Module):
    """x += attention(norm(x)); x += ffn(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = (
            GroupedAttention(config, layer) if config.is_dense else LatentAttention(config, layer)
        )
        self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.ffn = (
            MixtureOfExperts(config, layer)
            if config.is_moe(layer)
            else FeedForward(config.hidden_size, config.intermediate_size)
        )

    def forward(
        self, x_BSD: Tensor, positions_BS, turn_BSR, cache, form, branch_BS, dtype: torch.dtype
    ) -> tuple[Tensor, tuple | None]:
        x_BSD = x_BSD + self.attention(
            self.attention_norm(x_BSD, dtype), positions_BS, turn_BSR, cache, form, branch_BS
        )
        y = self.ffn(self.ffn_norm(x_BSD, dtype))
        y_BSD, choice = y if isinstance(y, tuple) else (y, None)
        return x_BSD + y_BSD, choice


class Transformer(nn.Module):
    """A DeepSeek-V2/V3, Llama or Qwen model. `generator` seeds the initial weights; `dtype` is that of the parameters."""

    def __init__(
        self,
        config: ModelConfig,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        device=None,
    ) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = dtype
        with torch.device(device or "cpu"):
            self.embed = nn.Embedding(
                config.vocab_size,
                config.hidden_size,
                _weight=torch.empty(config.vocab_size, config.hidden_size),
            )
            self.layers = nn.ModuleList(
                Block(config, layer) for layer in range(config.num_hidden_layers)
            )
            self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
            self.head = (
                None
                if config.tie_word_embeddings
                else Linear(config.hidden_size, config.vocab_size)
            )
            depths = range(
                config.num_hidden_layers, config.num_hidden_layers + config.num_nextn_predict_layers
            )
            self.mtp = nn.ModuleList(
                MultiTokenModule(config, Block(config, layer)) for layer in depths
            )
        for parameter in self.parameters():
            parameter.data = parameter.data.to(dtype)
        if generator is not None:
            self._initialise(generator)

    def _initialise(self, generator: torch.Generator) -> None:
        """All matrices normal with std initializer_range (V3 section 4.2: 0.006); norms stay at one, biases at zero."""
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, self.config.initializer_range, generator=generator)

    @contextlib.contextmanager
    def computing(self, dtype: torch.dtype) -> Iterator[None]:
        """Blocks compute in `dtype` inside the `with`; parameters keep theirs."""
        before, self.compute_dtype = self.compute_dtype, dtype
        try:
            yield
        finally:
            self.compute_dtype = before

    @property
    def head_weight(self) -> Tensor:
        """[V, D]; the embedding itself when tied."""
        return self.embed.weight if self.head is None else self.head.weight

    def forward(
        self, tokens_BS: Tensor, positions_BS: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """-> logits [B, S, V] in fp32."""
        return numerics.linear(
            self.hidden(tokens_BS, positions_BS, cache=cache), self.head_weight
        ).float()

    def hidden(self, tokens_BS: Tensor, positions_BS: Tensor | None = None, *, cache: Cache | None = None, valid_BS: Tensor | None = None,
               routing: list[Routing] | None = None, recompute: bool = False, form: str | None = None,
               branch_BS: Tensor | None = None) -> Tensor:  # fmt: skip
        """-> state after the final norm [B, S, D]. valid_BS marks real tokens (padding is not counted in routing records);
        `routing` collects one record per MoE layer; `recompute` trades time for memory; `form` forces one form of attention.
        branch_BS: rows that hold a prompt (0) and several continuations (1..), which do not see each other; positions are then given."""
        x_BSD = self._embedded(tokens_BS)
        positions_BS = self._positions(tokens_BS) if positions_BS is None else positions_BS
        turn_BSR = rotation(self.config, positions_BS)
        for layer, block in enumerate(self.layers):
            x_BSD = self._block(
                block,
                layer,
                x_BSD,
                positions_BS,
                turn_BSR,
                cache,
                form,
                branch_BS,
                valid_BS,
                routing,
                recompute,
            )
        return self.norm(x_BSD)

    def mtp_hidden(self, h_BSD: Tensor, tokens_BS: Tensor, *, valid_BS: Tensor | None = None, routing: list[Routing] | None = None,
                   recompute: bool = False) -> list[Tensor]:  # fmt: skip
        """For each depth 1 <= k < S the states [B, S-k, D] from which the head predicts token
        i+k+1 at position i."""
        states = []
        for k, module in enumerate(self.mtp, start=1):
            shifted_BS = tokens_BS[:, k:]
            if not shifted_BS.shape[1]:  # rows too short for this depth
                break
            embedded = self._embedded(shifted_BS)
            x_BSD = module.merge(h_BSD[:, : shifted_BS.shape[1]], embedded, self.compute_dtype)
            positions_BS = self._positions(shifted_BS)
            valid = None if valid_BS is None else valid_BS[:, k:]
            x_BSD = self._block(module.block, self.config.num_hidden_layers + k - 1, x_BSD, positions_BS,
                                rotation(self.config, positions_BS), None, None, None, valid, routing, recompute)  # fmt: skip
            h_BSD = module.norm(x_BSD)
            states.append(h_BSD)
        return states

    def _embedded(self, tokens_BS: Tensor) -> Tensor:
        """[B, S, D]. ValueError for what is no batch of token ids."""
        whole = tokens_BS.dtype in (torch.int64, torch.int32)
        if tokens_BS.ndim != 2 or not tokens_BS.numel() or not whole:
            raise ValueError(
                f"a batch of tokens is {tokens_BS.dtype} {list(tokens_BS.shape)}, "
                "expected whole numbers [rows, positions], at least [1, 1]"
            )
        try:
            return F.embedding(tokens_BS, self.embed.weight)
        except IndexError:
            found = f"token ids go from {int(tokens_BS.min())} to {int(tokens_BS.max())}"
            most = self.config.vocab_size - 1
            raise ValueError(f"{found}, expected 0 to {most}") from None

    def _block(
        self,
        block,
        layer,
        x_BSD,
        positions_BS,
        turn_BSR,
        cache,
        form,
        branch_BS,
        valid_BS,
        routing,
        recompute,
    ) -> Tensor:
        arguments = (x_BSD, positions_BS, turn_BSR, cache, form, branch_BS, self.compute_dtype)
        x_BSD, choice = (
            checkpoint(block, *arguments, use_reentrant=False) if recompute else block(*arguments)
        )
        if routing is not None and choice is not None:
            routing.append(
                record(layer, choice, self.config.n_routed_experts, x_BSD.shape[0], valid_BS)
            )
        return x_BSD

    @staticmethod
    def _positions(tokens_BS: Tensor) -> Tensor:
        return torch.arange(tokens_BS.shape[1], device=tokens_BS.device).expand(tokens_BS.shape)
