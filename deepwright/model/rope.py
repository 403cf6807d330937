"""Rotary position embedding, stretched as YaRN (V3 section 4.3) or Llama 3.1 do it.

DeepSeek's official weights pair adjacent channels: (x0, x1), (x2, x3), ... are complex numbers turned by exp(i * position * frequency).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepwright.config import Llama3Scaling, ModelConfig, RopeScaling


def frequencies(config: ModelConfig) -> Tensor:
    """[R/2] fp32 angles per position, stretched where the config says so."""
    width = config.rotary_width
    f = config.rope_theta ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    if isinstance(config.rope_scaling, Llama3Scaling):
        return _llama3(f, config.rope_scaling)
    return (
        f
        if config.rope_scaling is None
        else _yarn(f, width, config.rope_theta, config.rope_scaling)
    )


def _llama3(f: Tensor, s: Llama3Scaling) -> Tensor:
    turns = s.original_max_position_embeddings * f / (2 * math.pi)  # over the original context
    kept = ((turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)).clamp(0, 1)
    return f / s.factor * (1 - kept) + f * kept


def _yarn(f: Tensor, width: int, base: float, s: RopeScaling) -> Tensor:
    def dim(rotations: float) -> float:
        """The channel pair that turns `rotations` times over the original context."""
        return (
            width
            * math.log(s.original_max_position_embeddings / (2 * math.pi * rotations))
            / (2 * math.log(base))
        )

    low, high = max(math.floor(dim(s.beta_fast)), 0), min(math.ceil(dim(s.beta_slow)), width - 1)
    ramp = ((torch.arange(width // 2, dtype=torch.float32) - low) / (max(high - low, 0.001))).clamp(
        0, 1
    )
    return f / s.factor * ramp + f * (1 - ramp)


def rotation(config: ModelConfig, positions_BS: Tensor) -> Tensor:
    """Complex [B, S, R/2]: exp(i * position * frequency), times YaRN's cos/sin factor (1 for V2 and V3)."""
    angle = positions_BS[..., None].float() * frequencies(config).to(positions_BS.device)
    s = config.rope_scaling
    length = 1.0 if s is None else s.rotary_magnitude
    return torch.polar(torch.full_like(angle, length), angle)


def rotate(x: Tensor, turn: Tensor, interleave: bool) -> Tensor:
    """Turns the channel pairs of x [..., R] by `turn` (complex, broadcast over [..., R/2]); the channel order is kept."""
    if interleave:
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)
    halves = torch.view_as_complex(x.float().unflatten(-1, (2, -1)).transpose(-1, -2).contiguous())
    return torch.view_as_real(halves * turn).transpose(-1, -2).flatten(-2).to(x.dtype)
