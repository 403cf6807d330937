"""Losses over the vocabulary that never hold [T, V] twice: the head's product is made in chunks of rows.

`cross_entropy` forms its gradients while the chunk is at hand; `selected_log_probs` (whose gradient is not known
yet when it runs) recomputes the chunk in its backward. Twins: `plain.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_NUMBERS = 1 << 23  # logits held at a time (32 MiB in fp32): with fewer rows the product with the head is a third slower


def _chunk_rows(head_VD: Tensor) -> int:
    return max(1, CHUNK_NUMBERS // len(head_VD))


def _chunks(h_TD: Tensor, head_VD: Tensor) -> list[slice]:
    rows = _chunk_rows(head_VD)
    return [slice(start, start + rows) for start in range(0, h_TD.shape[0], rows)]


def _logits(h_TD: Tensor, head_VD: Tensor) -> Tensor:
    return torch.mm(h_TD, head_VD.to(h_TD.dtype).t()).float()


def _log_softmax_(logits: Tensor) -> Tensor:
    """log softmax in place: a second table of this size would cost more in page faults than the arithmetic."""
    return logits.sub_(logits.logsumexp(-1, keepdim=True))


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h_TD: Tensor, head_VD: Tensor, targets_T: Tensor, weights_T: Tensor) -> Tensor:
        wants_gradient = h_TD.requires_grad or head_VD.requires_grad
        total = torch.zeros((), dtype=torch.float32)
        d_h = torch.empty_like(h_TD) if wants_gradient else None
        d_head = torch.zeros(head_VD.shape, dtype=torch.float32) if wants_gradient else None
        head = head_VD.to(h_TD.dtype)
        table = h_TD.new_empty(min(_chunk_rows(head), len(h_TD)), len(head))  # one for all chunks
        for rows in _chunks(h_TD, head_VD):
            h, target, weight = h_TD[rows], targets_T[rows, None], weights_T[rows, None]
            logits = torch.mm(h, head.t(), out=table[: len(h)]).float()
            logits -= logits.amax(-1, keepdim=True)
            picked = logits.gather(1, target)
            norm = logits.exp_().sum(-1, keepdim=True)
            total += ((norm.log() - picked) * weight).sum()
            if wants_gradient:
                d_logits = logits.mul_(weight / norm).scatter_add_(1, target, -weight).to(h_TD.dtype)
                torch.mm(d_logits, head, out=d_h[rows])
                d_head += torch.mm(d_logits.t(), h)
        ctx.save_for_backward(d_h, d_head)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        d_h, d_head = ctx.saved_tensors
        return d_h.mul_(grad), d_head.mul_(grad), None, None


def cross_entropy(h_TD: Tensor, head_VD: Tensor, targets_T: Tensor, weights_T: Tensor) -> Tensor:
    """sum over t of weights_t * -log softmax(head h_t)[target_t] (nats, fp32 scalar). Can be differentiated once."""
    return _CrossEntropy.apply(h_TD, head_VD, targets_T, weights_T)


class _SelectedLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h_TD: Tensor, head_VD: Tensor, targets_T: Tensor, temperature: float):
        selected, entropy = [], []
        for rows in _chunks(h_TD, head_VD):
            log_probs = torch.log_softmax(_logits(h_TD[rows], head_VD).div_(temperature), dim=-1)
            selected.append(log_probs.gather(1, targets_T[rows, None]).squeeze(1))
            entropy.append(-(log_probs.exp() * log_probs).sum(-1))
        ctx.save_for_backward(h_TD, head_VD, targets_T)
        ctx.temperature = temperature
        none = torch.zeros(0)
        selected_T, entropy_T = torch.cat(selected or [none]), torch.cat(entropy or [none])
        ctx.mark_non_differentiable(entropy_T)
        return selected_T, entropy_T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_T: Tensor, _entropy: Tensor):
        h_TD, head_VD, targets_T = ctx.saved_tensors
        d_h, d_head = torch.empty_like(h_TD), torch.zeros(head_VD.shape, dtype=torch.float32)
        for rows in _chunks(h_TD, head_VD):
            grad = grad_T[rows, None] / ctx.temperature
            d_logits = torch.softmax(_logits(h_TD[rows], head_VD).div_(ctx.temperature), dim=-1).mul_(-grad)
            d_logits = d_logits.scatter_add_(1, targets_T[rows, None], grad).to(h_TD.dtype)
            torch.mm(d_logits, head_VD.to(h_TD.dtype), out=d_h[rows])
            d_head += torch.mm(d_logits.t(), h_TD[rows])
        return d_h, d_head.to(head_VD.dtype), None, None


def selected_log_probs(h_TD: Tensor, head_VD: Tensor, targets_T: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """-> (log softmax(head h_t / temperature)[target_t], entropy in nats without gradient), both fp32 [T]."""
    return _SelectedLogProbs.apply(h_TD, head_VD, targets_T, temperature)
