"""Grouped-query attention (arXiv 2305.13245): several query heads share one key and value head. For the dense Llama and Qwen models.

Query heads of one group become rows against their one key head, so no key is ever copied per query head; numerics.attention knows such
rows from absorbed latent attention. A cache entry holds all keys (normed and rotated), then all values: E = 2 K d.

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
        self.widths = (config.num_attention_heads * config.head_dim, *[config.num_key_value_heads * config.head_dim] * 2)
        self.qkv = Linear(config.hidden_size, sum(self.widths), config.qkv_bias)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.o = Linear(self.widths[0], config.hidden_size, config.attention_bias)

    def forward(self, x_BSD: Tensor, positions_BS: Tensor, turn_BSR: Tensor, cache: Cache | None = None, form: str | None = None,
                branch_BS: Tensor | None = None) -> Tensor:  # fmt: skip
        """`form` is latent attention's choice; here there is one."""
        q_BSHd, k_BSKd, v_BSKd = (part.unflatten(-1, (-1, self.config.head_dim)) for part in self.qkv(x_BSD).split(self.widths, dim=-1))
        turn = turn_BSR[:, :, None]
        q_BSHd, k_BSKd = rotate(self.q_norm(q_BSHd), turn, False), rotate(self.k_norm(k_BSKd), turn, False)
        if branch_BS is not None:
            return self.o(numerics.branched_attention(q_BSHd, k_BSKd, v_BSKd, self.config.softmax_scale, branch_BS).flatten(2))
        if cache is None:
            return self.o(self._attend(q_BSHd, k_BSKd, v_BSKd).flatten(2))
        entries_BSE = torch.cat((k_BSKd.flatten(2), v_BSKd.flatten(2)), dim=-1)
        keep = cache.store if x_BSD.shape[1] == 1 else cache.update  # a prefill reads its own entries as they are
        return self.o(
            numerics.grouped_attention(
                q_BSHd, keep(self.layer, positions_BS, entries_BSE), self.config.softmax_scale, positions_BS
            ).flatten(2)
        )

    def _attend(self, q_BSHd: Tensor, k_BTKd: Tensor, v_BTKd: Tensor) -> Tensor:
        """Without a cache -> [B, S, H, d]. Query row s * G + g of a key head belongs to position s."""
        (B, S, H, d), K = q_BSHd.shape, k_BTKd.shape[2]
        q_BKMd = q_BSHd.view(B, S, K, H // K, d).transpose(1, 2).reshape(B * K, -1, d)
        k_BKTd, v_BKTd = (x.transpose(1, 2).flatten(0, 1) for x in (k_BTKd, v_BTKd))
        out = numerics.attention(q_BKMd, k_BKTd, v_BKTd, self.config.softmax_scale, H // K)
        return out.view(B, K, S, -1, d).transpose(1, 2).reshape(B, S, H, d)
