"""Losses over the vocabulary that never hold [T, V] twice: the head's product is made in chunks of rows.

`cross_entropy` forms its gradients while the chunk is at hand; `selected_log_probs` (whose gradient is not known
yet when it runs) recomputes the chunk in its backward. Twins: `plain.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepwright.numerics import compiled
from deepwright.numerics.precision import cast

# logits held at a time (32 MiB in fp32): with fewer rows the product with the head is a third
# slower
CHUNK_NUMBERS = 1 << 23


def _chunk_rows(head_VD: Tensor) -> int:
    return max(1, CHUNK_NUMBERS // len(head_VD))


def _chunks(h_TD: Tensor, head_VD: Tensor) -> list[slice]:
    rows = _chunk_rows(head_VD)
    return [slice(start, start + rows) for start in range(0, h_TD.shape[0], rows)]


def _check(targets_T: Tensor, head_VD: Tensor) -> None:
    if targets_T.dtype != torch.int64 or (
        targets_T.numel() and not 0 <= int(targets_T.min()) <= int(targets_T.max()) < len(head_VD)
    ):
        raise ValueError(
            f"targets are {targets_T.dtype} from {targets_T.min()} to {targets_T.max()}, expected int64 from 0 to {len(head_VD) - 1}"
        )


class _Tables:
    """The logits of one chunk after the other, all in the same memory: fresh pages would cost more than the arithmetic."""

    def __init__(self, h_TD: Tensor, head_VD: Tensor) -> None:
        self.h_TD, self.head = h_TD, cast(head_VD, h_TD.dtype)
        self.table = h_TD.new_empty(min(_chunk_rows(self.head), len(h_TD)), len(self.head))

    def logits(self, rows: slice) -> Tensor:
        """fp32 [rows, V], to be overwritten."""
        h = self.h_TD[rows]
        return torch.mm(h, self.head.t(), out=self.table[: len(h)]).float()


def _gradient_(logits: Tensor, target: Tensor, factor: Tensor, temperature: float) -> Tensor:
    """Overwrites logits [t, V] by factor * (one at the target - softmax(logits / temperature)); returns log softmax at the target [t]."""
    if compiled.fuses(logits, factor):
        selected = torch.empty_like(factor)
        compiled.library().log_prob_gradient(logits.data_ptr(), target.data_ptr(), factor.data_ptr(), 1 / temperature, selected.data_ptr(),
                                             *logits.shape)  # fmt: skip
        return selected
    logits -= logits.amax(-1, keepdim=True)
    picked = logits.div_(temperature).gather(1, target[:, None])
    norm = logits.exp_().sum(-1, keepdim=True)
    logits.mul_(-factor[:, None] / norm).scatter_add_(1, target[:, None], factor[:, None])
    return (picked - norm.log())[:, 0]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h_TD: Tensor, head_VD: Tensor, targets_T: Tensor, weights_T: Tensor) -> Tensor:
        _check(targets_T, head_VD)
        total = torch.zeros((), dtype=torch.float32)
        wants_gradient, d_h, d_head = h_TD.requires_grad or head_VD.requires_grad, None, None
        if wants_gradient:
            d_h, d_head = torch.empty_like(h_TD), torch.zeros(head_VD.shape, dtype=torch.float32)
        tables = _Tables(h_TD, head_VD)
        for rows in _chunks(h_TD, head_VD):
            logits, weight = tables.logits(rows), weights_T[rows].float()
            total -= (_gradient_(logits, targets_T[rows].contiguous(), -weight, 1.0) * weight).sum()
            if wants_gradient:
                _multiply_back(logits, h_TD[rows], tables.head, d_h[rows], d_head)
        ctx.save_for_backward(d_h, d_head)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        d_h, d_head = ctx.saved_tensors
        return d_h.mul_(grad), d_head.mul_(grad), None, None


def _multiply_back(
    d_logits: Tensor, h: Tensor, head_VD: Tensor, d_h: Tensor, d_head_VD: Tensor
) -> None:
    """Writes d_h [t, D] and adds to d_head (fp32). The products are in the format of the head given."""
    d_logits, h = d_logits.to(head_VD.dtype), h.to(head_VD.dtype)
    d_h.copy_(torch.mm(d_logits, head_VD)) if h.dtype != d_h.dtype else torch.mm(
        d_logits, head_VD, out=d_h
    )
    if h.dtype == d_head_VD.dtype:
        d_head_VD.addmm_(d_logits.t(), h)
    else:
        d_head_VD += torch.mm(d_logits.t(), h)


def cross_entropy(h_TD: Tensor, head_VD: Tensor, targets_T: Tensor, weights_T: Tensor) -> Tensor:
    """sum over t of weights_t * -log softmax(head h_t)[target_t] (nats, fp32 scalar). Can be differentiated once."""
    return _CrossEntropy.apply(h_TD, head_VD, targets_T, weights_T)


def table_log_probs(logits: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """-> log softmax(logits [t, V] / temperature) at the target, and its entropy (nats), each [t]. May overwrite the logits (fp32)."""
    if compiled.fuses(logits):
        selected, entropy = logits.new_empty(len(logits)), logits.new_empty(len(logits))
        compiled.library().log_probs(
            logits.data_ptr(),
            target.data_ptr(),
            1 / temperature,
            selected.data_ptr(),
            entropy.data_ptr(),
            *logits.shape,
        )
        return selected, entropy
    log_probs = torch.log_softmax(logits.div_(temperature), dim=-1)
    return log_probs.gather(1, target[:, None])[:, 0], -(log_probs.exp() * log_probs).sum(-1)


class _SelectedLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        h_TD: Tensor,
        head_VD: Tensor,
        targets_T: Tensor,
        temperature: float,
        gradient_dtype: torch.dtype,
    ):
        _check(targets_T, head_VD)
        tables = _Tables(h_TD, head_VD)
        found = [
            table_log_probs(tables.logits(rows), targets_T[rows].contiguous(), temperature)
            for rows in _chunks(h_TD, head_VD)
        ]
        ctx.save_for_backward(h_TD, head_VD, targets_T)
        ctx.temperature, ctx.gradient_dtype = temperature, gradient_dtype
        none = torch.zeros(0)
        selected_T, entropy_T = (torch.cat(parts) for parts in zip(*found or [(none, none)]))
        ctx.mark_non_differentiable(entropy_T)
        return selected_T, entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_T: Tensor, _entropy: Tensor):
        h_TD, head_VD, targets_T = ctx.saved_tensors
        d_h, d_head = torch.empty_like(h_TD), torch.zeros(head_VD.shape, dtype=torch.float32)
        tables, head = _Tables(h_TD, head_VD), head_VD.to(ctx.gradient_dtype)
        for rows in _chunks(h_TD, head_VD):
            logits, factor = tables.logits(rows), (grad_T[rows] / ctx.temperature).contiguous()
            _gradient_(logits, targets_T[rows].contiguous(), factor, ctx.temperature)
            _multiply_back(logits, h_TD[rows], head, d_h[rows], d_head)
        return d_h, d_head.to(head_VD.dtype), None, None, None


def selected_log_probs(
    h_TD: Tensor,
    head_VD: Tensor,
    targets_T: Tensor,
    temperature: float = 1.0,
    gradient_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """-> (log softmax(head h_t / temperature)[target_t], entropy in nats without gradient), both fp32 [T].

    `gradient_dtype`: of the two products that make the gradients, as a block that computes in it makes its own; None: that of `h`."""
    return _SelectedLogProbs.apply(
        h_TD, head_VD, targets_T, temperature, gradient_dtype or h_TD.dtype
    )
