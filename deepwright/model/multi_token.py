"""Multi-token prediction (V3 section 2.2): module k sees the state of position i and token i+k, and predicts token i+k+1.

Embedding and output head are the main model's own. The released weights concatenate [embedding; hidden], and so do we; the
hidden state enters after the main model's final norm (the report leaves that open).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepwright.config import ModelConfig
from deepwright.model.layers import Linear, RMSNorm


class MultiTokenModule(nn.Module):
    def __init__(self, config: ModelConfig, block: nn.Module) -> None:
        super().__init__()
        self.embedding_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hidden_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.projection = Linear(2 * config.hidden_size, config.hidden_size)
        self.block = block
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def merge(self, h_BSD: Tensor, embedded_BSD: Tensor, dtype: torch.dtype) -> Tensor:
        """The block's input for each position: M [norm(embedding of token i+k); norm(state i)]."""
        return self.projection(
            torch.cat(
                (self.embedding_norm(embedded_BSD, dtype), self.hidden_norm(h_BSD, dtype)), dim=-1
            )
        ).to(h_BSD.dtype)
