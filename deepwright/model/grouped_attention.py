"""Grouped-query attention (arXiv 2305.13245): several query heads share one key and value head. For the dense Llama and Qwen models.

A cache entry holds all keys (normed and rotated), then all values: E = 2 K d. The arithmetic is numerics', where no key is copied for each
of its query heads.

B sequences, S new positions, T keys, H query heads, K key heads, G = H / K query heads of a group, d head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepwright import numerics
from deepwright.config import ModelConfig
from deepwright.model.cache import Cache
from deepwright.model.layers import Linear, RMSNorm
from deepwright.model.rope import rotate


class GroupedAttention(nn.Module):
    """`qkv` holds the query rows, then key, then value rows."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.widths = (
            config.num_attention_heads * config.head_dim,
            *[config.num_key_value_heads * config.head_dim] * 2,
        )
        self.qkv = Linear(config.hidden_size, sum(self.widths), config.qkv_bias)
        self.q_norm = (
            RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        )
        self.k_norm = (
            RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        )
        self.o = Linear(self.widths[0], config.hidden_size, config.attention_bias)

    def forward(self, x_BSD: Tensor, positions_BS: Tensor, turn_BSR: Tensor, cache: Cache | None = None, form: str | None = None,
                branch_BS: Tensor | None = None) -> Tensor:  # fmt: skip
        """`form` is latent attention's choice; here there is one."""
        q_BSHd, k_BSKd, v_BSKd = (
            part.unflatten(-1, (-1, self.config.head_dim))
            for part in self.qkv(x_BSD).split(self.widths, dim=-1)
        )
        turn = turn_BSR[:, :, None]
        q_BSHd, k_BSKd = (
            rotate(self.q_norm(q_BSHd), turn, False),
            rotate(self.k_norm(k_BSKd), turn, False),
        )
        scale = self.config.softmax_scale
        if branch_BS is not None:
            out_BSHd = numerics.branched_attention(q_BSHd, k_BSKd, v_BSKd, scale, branch_BS)
        elif cache is None:
            out_BSHd = numerics.grouped_attention(q_BSHd, k_BSKd, v_BSKd, scale)
        else:
            entries_BSE = torch.cat((k_BSKd.flatten(2), v_BSKd.flatten(2)), dim=-1)
            # a prefill reads its own entries as they are
            keep = cache.store if x_BSD.shape[1] == 1 else cache.update
            out_BSHd = numerics.cached_grouped_attention(
                q_BSHd, keep(self.layer, positions_BS, entries_BSE), scale, positions_BS
            )
        return self.o(out_BSHd.flatten(2))
