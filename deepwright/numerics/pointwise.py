"""RMSNorm, SwiGLU and linear layers as they run in training: fewer passes over memory than plain autograd makes.

On two CPU cores a small model spends as long in such passes as in its matrix products. Each function keeps what its
backward needs once and writes in place where it owns the memory. Twins: `plain.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


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


FEW_ROWS = 4  # up to this many, a product is bound by reading the weight


def _linear_few(x_MK: Tensor, weight_NK: Tensor, parts: int) -> Tensor:
    """The same product as `parts` batched W x. On two cores MKL's matrix-vector routine reads weights at 8 GB/s, this at 25."""
    rows, width = x_MK.shape
    if rows == 1:  # fewer views: at batch 1 each of them is felt
        return torch.bmm(weight_NK.view(parts, -1, width), x_MK.view(1, width, 1).expand(parts, width, 1)).view(1, -1)
    out_PNM = torch.bmm(weight_NK.view(parts, -1, width), x_MK.t().expand(parts, width, rows))
    return out_PNM.view(-1, rows).t().contiguous()


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., in] @ weight [out, in]^T, computed in x's dtype; the weight keeps its own (master) dtype."""
    few = x.numel() <= FEW_ROWS * x.shape[-1] and not torch.is_grad_enabled() and x.dtype == weight.dtype == torch.float32
    if few and x.numel() and x.is_cpu and weight.is_contiguous() and weight.shape[0] % (parts := max(2, torch.get_num_threads())) == 0:
        return _linear_few(x.reshape(-1, x.shape[-1]), weight, parts).view(*x.shape[:-1], -1)
    return F.linear(x, weight if weight.dtype == x.dtype else weight.to(x.dtype))
