"""RMSNorm, SwiGLU and linear layers as they run in training: fewer passes over memory than plain autograd makes.

On two CPU cores a small model spends as long in such passes as in its matrix products. Each pass is one compiled call where that can be
had (pointwise.c); in torch, each function keeps what its backward needs once and writes in place where it owns the memory.
Twins: `plain.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepwright.numerics import compiled
from deepwright.numerics.precision import cast, packed_linear


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        y, inverse = _rms_norm(x, weight, eps, dtype)
        ctx.save_for_backward(x, inverse, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, inverse, weight = ctx.saved_tensors
        grad, width = grad.contiguous(), x.shape[-1]
        if compiled.fuses(x, weight, grad):
            d_x, parts = torch.empty_like(x), x.new_zeros(torch.get_num_threads(), width)
            compiled.library().rms_norm_backward(grad.data_ptr(), x.data_ptr(), width, inverse.data_ptr(), weight.data_ptr(), d_x.data_ptr(),
                                                 parts.data_ptr(), len(parts), x.numel() // width, width)  # fmt: skip
            return d_x, parts.sum(0) if ctx.needs_input_grad[1] else None, None, None
        grad, unit = grad.float(), x.float() * inverse
        d_weight = (grad * unit).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        d_unit = grad * weight
        along = (d_unit * unit).mean(-1, keepdim=True)
        return (
            d_unit.addcmul_(unit, along, value=-1).mul_(inverse).to(x.dtype),
            d_weight,
            None,
            None,
        )


def _rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """-> result, and 1 / rms [..., 1] in fp32."""
    if compiled.fuses(x, weight):
        y, inverse, width = torch.empty_like(x), x.new_empty(*x.shape[:-1], 1), x.shape[-1]
        compiled.library().rms_norm(
            x.data_ptr(),
            width,
            weight.data_ptr(),
            eps,
            y.data_ptr(),
            width,
            inverse.data_ptr(),
            x.numel() // width,
            width,
        )
        return y.to(dtype), inverse
    x32 = x.float()
    inverse = (
        torch.linalg.vector_norm(x32, dim=-1, keepdim=True)
        .square_()
        .div_(x32.shape[-1])
        .add_(eps)
        .rsqrt_()
    )
    return (x32 * inverse * weight).to(dtype), inverse


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis; statistics in fp32, result in `dtype` (default: x's)."""
    if torch.is_grad_enabled():
        return _RMSNorm.apply(x.contiguous(), weight, eps, dtype or x.dtype)
    # decoding: the call of an autograd function costs more than the arithmetic
    return _rms_norm(x.contiguous(), weight, eps, dtype or x.dtype)[0]


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        return _swiglu(gate_up)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (gate_up,) = ctx.saved_tensors
        out, grad = torch.empty_like(gate_up), grad.contiguous()
        if compiled.fuses(gate_up, grad):
            compiled.library().swiglu_backward(
                grad.data_ptr(),
                gate_up.data_ptr(),
                out.data_ptr(),
                grad.numel() // grad.shape[-1],
                grad.shape[-1],
            )
            return out
        gate, up = gate_up.chunk(2, dim=-1)
        d_gate, d_up = out.chunk(2, dim=-1)
        # into place: a temporary of this size costs more than the arithmetic
        torch.ops.aten.silu.out(gate, out=d_up).mul_(grad)
        torch.ops.aten.silu_backward.grad_input(grad, gate, grad_input=d_gate).mul_(up)
        return out


def _swiglu(gate_up: Tensor) -> Tensor:
    if compiled.fuses(gate_up):
        inner = gate_up.shape[-1] // 2
        y = gate_up.new_empty(*gate_up.shape[:-1], inner)
        compiled.library().swiglu_forward(
            gate_up.data_ptr(), y.data_ptr(), gate_up.numel() // (2 * inner), inner
        )
        return y
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of [..., 2I] (gate half first) -> [..., I]."""
    return _SwiGLU.apply(gate_up) if torch.is_grad_enabled() else _swiglu(gate_up)


class _CastLinear(torch.autograd.Function):
    """Keeps the master weight alone for the backward, where plain autograd would keep its cast: half as much again as the weights."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        d_x = grad @ weight.to(grad.dtype) if ctx.needs_input_grad[0] else None
        d_weight = grad.flatten(0, -2).t() @ x.flatten(0, -2) if ctx.needs_input_grad[1] else None
        return d_x, None if d_weight is None else d_weight.to(weight.dtype)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., in] @ weight [out, in]^T, computed in x's dtype; the weight keeps its own (master) dtype."""
    if weight.dtype is not x.dtype and torch.is_grad_enabled():
        return _CastLinear.apply(x, weight)
    if (
        x.dtype is torch.bfloat16
        and not compiled.few(x)
        and (y := packed_linear(x, weight)) is not None
    ):
        return y
    weight = cast(weight, x.dtype)
    return compiled.linear(x, weight) if compiled.decodes(x, weight) else F.linear(x, weight)


def feed_forward(x: Tensor, gate_up_FD: Tensor, down_DI: Tensor) -> Tensor:
    """down(silu(gate x) * up x), gate_up holding the gate rows, then the up rows."""
    if compiled.few(x):
        gate_up, down = cast(gate_up_FD, x.dtype), cast(down_DI, x.dtype)
        if compiled.takes(x, gate_up, down):
            return compiled.feed_forward(x.reshape(-1, x.shape[-1]), gate_up, down).view(x.shape)
    return linear(swiglu(linear(x, gate_up_FD)), down_DI)


def adamw_half_(
    p: Tensor,
    grad: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    step: int,
    rate: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
) -> None:
    """One step of AdamW in place, number `step` from 1, on fp32 parameters whose moments are kept in bfloat16 (V3 section 3.3.2): the new moments are
    used before they are rounded. `decay` is decoupled, times the rate."""
    beta1, beta2 = betas
    kept, rate = 1 - rate * decay, rate / (1 - beta1**step)
    root = (1 - beta2**step) ** -0.5
    if compiled.fuses(p, grad) and first.is_contiguous() and second.is_contiguous():
        addresses = (x.data_ptr() for x in (p, grad, first, second))
        compiled.library().adamw_half(*addresses, kept, rate, root, beta1, beta2, eps, p.numel())
        return
    m, v = first.float().lerp_(grad, 1 - beta1), second.float().lerp_(grad * grad, 1 - beta2)
    p.mul_(kept).addcdiv_(m, v.sqrt().mul_(root).add_(eps), value=-rate)
    first.copy_(m), second.copy_(v)
