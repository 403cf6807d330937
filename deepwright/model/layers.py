"""The smallest modules: a linear layer, RMSNorm, and the SwiGLU feed-forward block. All arithmetic is numerics'."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepwright import numerics


class Linear(nn.Module):
    """y = x W^T with W [out, in]; DeepSeek uses no biases, Qwen2 does."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = numerics.linear(x, self.weight)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return numerics.rms_norm(x, self.weight, self.eps, dtype)


class FeedForward(nn.Module):
    """down(silu(gate x) * up x): the dense block and the shared experts. `gate_up` holds the gate rows, then the up rows."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up = Linear(width, 2 * inner)
        self.down = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return numerics.feed_forward(x, self.gate_up.weight, self.down.weight)
