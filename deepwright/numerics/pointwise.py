"""RMSNorm, SwiGLU and linear layers as they run in training: fewer passes over memory than plain autograd makes.

On two CPU cores a small model spends as long in such passes as in its matrix products. Each function keeps what its
backward needs once and writes in place where it owns the memory. Twins: `plain.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepwright.numerics import compiled


def _inverse_rms(x32: Tensor, eps: float) -> Tensor:
    return torch.linalg.vector_norm(x32, dim=-1, keepdim=True).square_().div_(x32.shape[-1]).add_(eps).rsqrt_()


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        x32 = x.float()
        inverse = _inverse_rms(x32, eps)
        unit = x32 * inverse
        ctx.save_for_backward(unit, inverse, weight)
        ctx.input_dtype = x.dtype
        return (unit * weight).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        unit, inverse, weight = ctx.saved_tensors
        grad = grad.float()
        d_weight = (grad * unit).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        d_unit = grad * weight
        along = (d_unit * unit).mean(-1, keepdim=True)
        return d_unit.addcmul_(unit, along, value=-1).mul_(inverse).to(ctx.input_dtype), d_weight, None, None


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis; statistics in fp32, result in `dtype` (default: x's)."""
    if compiled.takes(x):
        return compiled.rms_norm(x, weight if weight.dtype is torch.float32 else weight.float(), eps, dtype or x.dtype)
    if not torch.is_grad_enabled():  # decoding: the call of an autograd function costs more than the arithmetic
        x32 = x.float()
        return (x32 * _inverse_rms(x32, eps) * weight).to(dtype or x.dtype)
    return _RMSNorm.apply(x, weight, eps, dtype or x.dtype)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        d_gate, d_up = out.chunk(2, dim=-1)
        torch.ops.aten.silu.out(gate, out=d_up).mul_(grad)  # into place: a temporary of this size costs more than the arithmetic
        torch.ops.aten.silu_backward.grad_input(grad, gate, grad_input=d_gate).mul_(up)
        return out


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of [..., 2I] (gate half first) -> [..., I]."""
    if not torch.is_grad_enabled():
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)
    return _SwiGLU.apply(gate_up)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., in] @ weight [out, in]^T, computed in x's dtype; the weight keeps its own (master) dtype."""
    if x.numel() <= compiled.MANY_ROWS * x.shape[-1] and compiled.takes(x, weight):
        return compiled.linear(x, weight)
    return F.linear(x, weight if weight.dtype == x.dtype else weight.to(x.dtype))


def feed_forward(x: Tensor, gate_up_FD: Tensor, down_DI: Tensor) -> Tensor:
    """down(silu(gate x) * up x), gate_up holding the gate rows, then the up rows."""
    if x.numel() <= compiled.MANY_ROWS * x.shape[-1] and compiled.takes(x, gate_up_FD, down_DI):
        return compiled.feed_forward(x.reshape(-1, x.shape[-1]), gate_up_FD, down_DI).view(x.shape)
    return linear(swiglu(linear(x, gate_up_FD)), down_DI)
