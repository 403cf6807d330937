"""The routed experts of one layer: sort tokens by expert, two batched matrix products, weighted sum back.

No loop over experts and no dropped token: every expert gets as many rows as the busiest one has, so with balanced loads
little is wasted. Forward and backward are gathers alone (each row is written once), hence deterministic. Twin: `plain.expert_mlp`.

T tokens, K choices per token, E experts, M rows per expert (the largest load, rounded up), D width, I inner width, F = 2I.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepwright.numerics.pointwise import linear, swiglu

SIZE_STEP = 64  # larger M are rounded up: a heap that sees a new size at every step fragments and grows without end
import os

BYLOAD = int(os.environ.get("BYLOAD", "1"))
FEW_ROWS = 1  # up to this many tokens it is cheaper to visit the chosen experts one by one than to touch all weights


def expert_rows(ids_TK: Tensor, experts: int) -> tuple[Tensor, Tensor, int]:
    """Gives every (token, choice) a row: -> row_TK in [0, E*M), token_R of each row (0 where unused), M."""
    tokens, k = ids_TK.shape
    flat = ids_TK.reshape(-1)
    order = flat.argsort(stable=True)
    load_E = torch.bincount(flat, minlength=experts)
    rows = int(load_E.max())
    if rows > SIZE_STEP:
        rows = -(-rows // SIZE_STEP) * SIZE_STEP
    sorted_ids = flat[order]
    first_E = load_E.cumsum(0) - load_E
    row_sorted = torch.arange(flat.numel()) - first_E[sorted_ids] + sorted_ids * rows
    row = torch.empty_like(flat)
    row[order] = row_sorted
    token_R = torch.zeros(experts * rows, dtype=torch.int64)
    token_R[row_sorted] = order // k
    return row.view(tokens, k), token_R, rows


class _Dispatch(torch.autograd.Function):
    """x_TD -> x_RD, the row of its token for each expert row. Unused rows hold token 0; their results are never read."""

    @staticmethod
    def forward(ctx, x_TD: Tensor, row_TK: Tensor, token_R: Tensor) -> Tensor:
        ctx.save_for_backward(row_TK)
        return x_TD.index_select(0, token_R)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_RD: Tensor):
        (row_TK,) = ctx.saved_tensors
        total = grad_RD.index_select(0, row_TK[:, 0])
        for k in range(1, row_TK.shape[1]):
            total += grad_RD.index_select(0, row_TK[:, k])
        return total, None, None


class _Combine(torch.autograd.Function):
    """y_t = sum over k of weights_tk * out[row_tk], accumulated in fp32."""

    @staticmethod
    def forward(ctx, out_RD: Tensor, weights_TK: Tensor, row_TK: Tensor) -> Tensor:
        ctx.save_for_backward(out_RD, weights_TK, row_TK)
        total = out_RD.index_select(0, row_TK[:, 0]) * weights_TK[:, :1]
        for k in range(1, row_TK.shape[1]):
            total.addcmul_(out_RD.index_select(0, row_TK[:, k]).to(total.dtype), weights_TK[:, k : k + 1])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_TD: Tensor):
        out_RD, weights_TK, row_TK = ctx.saved_tensors
        d_out = torch.zeros_like(out_RD)  # unused rows must contribute nothing to the weight gradients
        d_weights = torch.empty_like(weights_TK)
        for k in range(row_TK.shape[1]):
            row_T = row_TK[:, k]
            d_weights[:, k] = (out_RD.index_select(0, row_T) * grad_TD).sum(-1)
            d_out.index_copy_(0, row_T, (grad_TD * weights_TK[:, k : k + 1]).to(out_RD.dtype))
        return d_out, d_weights, None


def _one_by_one(x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, gate_up_EFD: Tensor, down_EDI: Tensor) -> Tensor:
    """A handful of tokens without gradient: each chosen expert's weights are read in place."""
    return torch.cat([
        torch.stack([linear(swiglu(linear(x_1D, gate_up_EFD[e])), down_EDI[e])[0] for e in ids], dim=1) @ weights_K[:, None]
        for x_1D, ids, weights_K in zip(x_TD.split(1), ids_TK.tolist(), weights_TK)
    ], dim=1).t()  # fmt: skip


def _by_load(x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, gate_up_EFD: Tensor, down_EDI: Tensor) -> Tensor:
    """Without gradient: rows sorted by expert, each expert multiplies exactly its own (F.grouped_mm loops over them in C++)."""
    flat, (tokens, k) = ids_TK.reshape(-1), ids_TK.shape
    order_R = flat.argsort(stable=True)
    ends_E = torch.bincount(flat, minlength=len(gate_up_EFD)).cumsum(0).int()
    inner_RI = swiglu(F.grouped_mm(x_TD.index_select(0, order_R // k), gate_up_EFD.transpose(1, 2), offs=ends_E))
    out_RD = F.grouped_mm(inner_RI, down_EDI.transpose(1, 2), offs=ends_E)
    by_choice_RD = torch.empty_like(out_RD).index_copy_(0, order_R, out_RD)
    return torch.bmm(weights_TK[:, None], by_choice_RD.view(tokens, k, -1))[:, 0]


def expert_mlp(x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, gate_up_EFD: Tensor, down_EDI: Tensor) -> Tensor:
    """y_t = sum over k of weights_tk * down_e swiglu(gate_up_e x_t) with e = ids_tk. Returns [T, D] in x's dtype (fp32 sums)."""
    if x_TD.shape[0] == 0:
        return torch.zeros_like(x_TD)
    if x_TD.shape[0] <= FEW_ROWS and not torch.is_grad_enabled() and x_TD.dtype == gate_up_EFD.dtype:
        return _one_by_one(x_TD, ids_TK, weights_TK, gate_up_EFD, down_EDI)
    if BYLOAD and not torch.is_grad_enabled() and x_TD.dtype == gate_up_EFD.dtype == weights_TK.dtype:
        return _by_load(x_TD, ids_TK, weights_TK, gate_up_EFD, down_EDI)
    experts = gate_up_EFD.shape[0]
    row_TK, token_R, rows = expert_rows(ids_TK, experts)
    x_EMD = _Dispatch.apply(x_TD, row_TK, token_R).view(experts, rows, -1)
    inner_EMI = swiglu(torch.bmm(x_EMD, gate_up_EFD.to(x_TD.dtype).transpose(1, 2)))
    out_EMD = torch.bmm(inner_EMI, down_EDI.to(x_TD.dtype).transpose(1, 2))
    return _Combine.apply(out_EMD.flatten(0, 1), weights_TK, row_TK).to(x_TD.dtype)
