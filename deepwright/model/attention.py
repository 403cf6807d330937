"""Multi-head latent attention in both forms (V3 section 2.1.1).

Expanded: keys and values of every head are computed from the latent; multi-head attention of widths N+R and V. Training and prefill.
Absorbed: the up-projections are folded into query and output; all heads share one key, the cached entry itself. Decoding.

B sequences, S new positions, T keys, H heads, N/R/V no-position, rotary, value widths, C latent width, E = C + R.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepwright import numerics
from deepwright.config import ModelConfig
from deepwright.model.cache import Cache
from deepwright.model.layers import Linear, RMSNorm
from deepwright.model.rope import rotate

LATENT_EPS = 1e-6  # of the two latent norms in DeepSeek's own code and in transformers, whatever rms_norm_eps says


class LatentAttention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        heads, d = config.num_attention_heads, config.hidden_size
        if config.q_lora_rank is None:
            self.q = Linear(d, heads * config.qk_head_dim)
        else:
            self.q_a = Linear(d, config.q_lora_rank)
            self.q_a_norm = RMSNorm(config.q_lora_rank, LATENT_EPS)
            self.q_b = Linear(config.q_lora_rank, heads * config.qk_head_dim)
        self.kv_a = Linear(d, config.cache_width)
        self.kv_a_norm = RMSNorm(config.kv_lora_rank, LATENT_EPS)
        self.kv_b = Linear(
            config.kv_lora_rank, heads * (config.qk_nope_head_dim + config.v_head_dim)
        )
        self.o = Linear(heads * config.v_head_dim, d)

    def forward(self, x_BSD: Tensor, positions_BS: Tensor, turn_BSR: Tensor, cache: Cache | None = None, form: str | None = None,
                branch_BS: Tensor | None = None) -> Tensor:  # fmt: skip
        c = self.config
        q_BSHQ, entries_BSE = self._project(x_BSD, turn_BSR)
        given_BS = None if cache is None else positions_BS
        if branch_BS is None and (form or self.cheaper_form(x_BSD.shape[1])) == "absorbed":
            keys = (
                entries_BSE if cache is None else cache.store(self.layer, positions_BS, entries_BSE)
            )
            out = numerics.absorbed_attention(
                q_BSHQ, keys, self.kv_b.weight, c.softmax_scale, given_BS, c.qk_rope_head_dim
            )
        else:
            keys_BTE = (
                entries_BSE
                if cache is None
                else cache.update(self.layer, positions_BS, entries_BSE)
            )
            latent_BTC, key_BTR = keys_BTE.split((c.kv_lora_rank, c.qk_rope_head_dim), dim=-1)
            kv_BTHX = self.kv_b(latent_BTC).unflatten(-1, (c.num_attention_heads, -1))
            out = numerics.expanded_attention(
                q_BSHQ, kv_BTHX, key_BTR, c.softmax_scale, given_BS, branch_BS
            )
        return self.o(out.flatten(2))

    def _project(self, x_BSD: Tensor, turn_BSR: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [N | R] and what the cache keeps, [normed latent | shared key]; rotary parts turned."""
        c, kv_a, kv_norm = self.config, self.kv_a, self.kv_a_norm
        q_a, q_norm, q_b = (
            (None, None, self.q) if c.q_lora_rank is None else (self.q_a, self.q_a_norm, self.q_b)
        )
        if numerics.compiled.decodes(x_BSD, kv_a.weight):
            compress = (None, None) if q_a is None else (q_a.weight, q_norm.weight.float())
            return numerics.compiled.latent_projections(x_BSD, *compress, q_b.weight, kv_a.weight, kv_norm.weight.float(), LATENT_EPS, turn_BSR,
                                                        c.rope_interleave, c.num_attention_heads)  # fmt: skip
        q_BSHQ = q_b(x_BSD if q_a is None else q_norm(q_a(x_BSD))).unflatten(
            -1, (c.num_attention_heads, c.qk_head_dim)
        )
        q_nope_BSHN, q_rope_BSHR = q_BSHQ.split((c.qk_nope_head_dim, c.qk_rope_head_dim), dim=-1)
        latent_BSC, key_BSR = kv_a(x_BSD).split((c.kv_lora_rank, c.qk_rope_head_dim), dim=-1)
        q_BSHQ = torch.cat(
            (q_nope_BSHN, rotate(q_rope_BSHR, turn_BSR[:, :, None], c.rope_interleave)), dim=-1
        )
        return q_BSHQ, torch.cat(
            (kv_norm(latent_BSC), rotate(key_BSR, turn_BSR, c.rope_interleave)), dim=-1
        )

    def cheaper_form(self, new_positions: int) -> str:
        """The form with fewer multiplications: the absorbed one pays 2C - N - V more for each query and key, the expanded one
        pays C * (N + V) once for each key (all per head)."""
        c = self.config
        wider = 2 * c.kv_lora_rank - c.qk_nope_head_dim - c.v_head_dim
        return (
            "absorbed"
            if new_positions * wider <= c.kv_lora_rank * (c.qk_nope_head_dim + c.v_head_dim)
            else "expanded"
        )
