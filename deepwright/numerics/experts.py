"""The routed experts of one layer: sort tokens by expert, two grouped matrix products, weighted sum back.

No Python loop over experts and no dropped token. The grouped product wastes no row when loads are
uneven. Where torch has none for the operands (`groups`), or where experts are small and there are
threads to spare (`side_by_side`), every expert gets as many rows as the busiest one in a batched
product. Forward and backward move rows by gathers alone (each row is written once), hence the
result is deterministic. Twin: `plain.expert_mlp`.

T tokens, K choices per token, E experts, R rows (T * K sorted ones, or E * M padded ones), M the largest load, D width, I inner width, F = 2I.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepwright.numerics import compiled
from deepwright.numerics.pointwise import swiglu
from deepwright.numerics.precision import cast

FEW_ROWS_EACH = (
    64  # of an expert on average: above, a grouped product keeps all threads busy by itself
)
GROUPED_BYTES = 16  # torch's grouped product takes rows of so many, or of a multiple


def sorted_rows(ids_TK: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows in order of experts, no gaps: -> row_TK of each choice, token_R of each row, load_E."""
    flat = ids_TK.reshape(-1)
    order = flat.argsort(stable=True)
    row = torch.empty_like(order)
    row[order] = torch.arange(flat.numel(), device=flat.device)
    return row.view_as(ids_TK), order // ids_TK.shape[1], torch.bincount(flat, minlength=experts)


def padded_rows(ids_TK: Tensor, experts: int) -> tuple[Tensor, Tensor, int]:
    """M rows for every expert: -> row_TK in [0, E * M), token_R of each row (0 where unused), M."""
    place_TK, token_R, load_E = sorted_rows(ids_TK, experts)
    most = int(load_E.max())
    # from sorted place to padded row
    shift_E = torch.arange(experts, device=load_E.device) * most - (load_E.cumsum(0) - load_E)
    row_TK = place_TK + shift_E[ids_TK]
    padded_R = token_R.new_zeros(experts * most)
    padded_R[row_TK.reshape(-1)] = torch.arange(
        ids_TK.shape[0], device=ids_TK.device
    ).repeat_interleave(ids_TK.shape[1])
    return row_TK, padded_R, most


class _Dispatch(torch.autograd.Function):
    """x_TD -> x_RD, the row of its token for each expert row. Unused rows hold token 0; their results are never read."""

    @staticmethod
    def forward(ctx, x_TD: Tensor, row_TK: Tensor, token_R: Tensor) -> Tensor:
        ctx.save_for_backward(row_TK)
        return _dispatch(x_TD, row_TK, token_R)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_RD: Tensor):
        (row_TK,) = ctx.saved_tensors
        if compiled.fuses(grad_RD):
            return _combine(grad_RD, None, row_TK), None, None
        total = grad_RD.index_select(0, row_TK[:, 0])
        for k in range(1, row_TK.shape[1]):
            total += grad_RD.index_select(0, row_TK[:, k])
        return total, None, None


def _dispatch(x_TD: Tensor, row_TK: Tensor, token_R: Tensor) -> Tensor:
    if token_R.numel() > row_TK.numel() or not compiled.fuses(x_TD):
        return x_TD.index_select(0, token_R)
    (tokens, width), chosen = x_TD.shape, row_TK.shape[1]
    x_RD = x_TD.new_empty(tokens * chosen, width)
    compiled.library().dispatch(
        x_TD.data_ptr(), row_TK.data_ptr(), x_RD.data_ptr(), tokens, chosen, width
    )
    return x_RD


def _combine(rows_RD: Tensor, weights_TK: Tensor | None, row_TK: Tensor) -> Tensor:
    """Compiled: y_t = sum over k of weights_tk (None: 1) * rows[row_tk]."""
    (tokens, chosen), width = row_TK.shape, rows_RD.shape[1]
    y_TD = rows_RD.new_empty(tokens, width)
    weights = None if weights_TK is None else weights_TK.data_ptr()
    compiled.library().combine(
        rows_RD.data_ptr(), weights, row_TK.data_ptr(), y_TD.data_ptr(), tokens, chosen, width
    )
    return y_TD


def weighted_sum(out_RD: Tensor, weights_TK: Tensor, row_TK: Tensor) -> Tensor:
    """y_t = sum over k of weights_tk * out[row_tk], in the weights' dtype (fp32)."""
    if compiled.fuses(out_RD, weights_TK):
        return _combine(out_RD, weights_TK, row_TK)
    total = out_RD.index_select(0, row_TK[:, 0]) * weights_TK[:, :1]
    for k in range(1, row_TK.shape[1]):
        total.addcmul_(
            out_RD.index_select(0, row_TK[:, k]).to(total.dtype), weights_TK[:, k : k + 1]
        )
    return total


class _Combine(torch.autograd.Function):
    """weighted_sum with its gradients."""

    @staticmethod
    def forward(ctx, out_RD: Tensor, weights_TK: Tensor, row_TK: Tensor) -> Tensor:
        ctx.save_for_backward(out_RD, weights_TK, row_TK)
        return weighted_sum(out_RD, weights_TK, row_TK)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_TD: Tensor):
        out_RD, weights_TK, row_TK = ctx.saved_tensors
        (tokens, chosen), width, grad_TD = row_TK.shape, out_RD.shape[1], grad_TD.contiguous()
        # unused rows must contribute nothing to the weight gradients
        padded = len(out_RD) > weights_TK.numel()
        d_out = torch.zeros_like(out_RD) if padded else torch.empty_like(out_RD)
        d_weights = torch.empty_like(weights_TK)
        if compiled.fuses(out_RD, weights_TK, grad_TD):
            compiled.library().combine_backward(grad_TD.data_ptr(), out_RD.data_ptr(), weights_TK.data_ptr(), row_TK.data_ptr(),
                                                d_out.data_ptr(), d_weights.data_ptr(), tokens, chosen, width)  # fmt: skip
            return d_out, d_weights, None
        for k in range(chosen):
            row_T = row_TK[:, k]
            d_weights[:, k] = (out_RD.index_select(0, row_T) * grad_TD).sum(-1)
            d_out.index_copy_(0, row_T, (grad_TD * weights_TK[:, k : k + 1]).to(out_RD.dtype))
        return d_out, d_weights, None


def expert_mlp(
    x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, gate_up_EFD: Tensor, down_EDI: Tensor
) -> Tensor:
    """y_t = sum over k of weights_tk * down_e swiglu(gate_up_e x_t) with e = ids_tk. Returns [T, D] in x's dtype (fp32 sums)."""
    if x_TD.shape[0] == 0:
        return torch.zeros_like(x_TD)
    gate_up_EFD, down_EDI = cast(gate_up_EFD, x_TD.dtype), cast(down_EDI, x_TD.dtype)
    if compiled.decodes(x_TD, gate_up_EFD, down_EDI):
        return compiled.expert_mlp(x_TD, ids_TK, weights_TK, gate_up_EFD, down_EDI)
    together = groups(x_TD, down_EDI) and not side_by_side(ids_TK, len(gate_up_EFD))
    multiply = _grouped if together else _batched
    up_EDF, down_EID = gate_up_EFD.transpose(1, 2), down_EDI.transpose(1, 2)
    return multiply(x_TD, ids_TK, weights_TK, up_EDF, down_EID).to(x_TD.dtype)


def groups(x_TD: Tensor, down_EDI: Tensor) -> bool:
    """Whether torch has a grouped product for these operands: bfloat16, or float32 on a CPU, with
    widths D and I that are multiples of 8, or of 4."""
    dtype, on_cpu = x_TD.dtype, x_TD.device.type == "cpu"
    has_one = dtype is torch.bfloat16 or (dtype is torch.float32 and on_cpu)
    whole = (n * x_TD.element_size() % GROUPED_BYTES == 0 for n in down_EDI.shape[1:])
    return has_one and all(whole)


def side_by_side(ids_TK: Tensor, experts: int) -> bool:
    """Whether padding is the faster way although there is a grouped product. The batched product runs experts on all CPU threads at once;
    the grouped one runs them in turn, each too small for two threads. On two cores padding is 1.2 to 1.7 times as fast up to twice the
    mean load and as fast at three times; on one thread it is slower."""
    mean = ids_TK.numel() / experts
    if mean > FEW_ROWS_EACH or ids_TK.device.type != "cpu" or torch.get_num_threads() == 1:
        return False
    return int(torch.bincount(ids_TK.reshape(-1)).max()) <= 2.5 * mean


def _batched(
    x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, up_EDF: Tensor, down_EID: Tensor
) -> Tensor:
    row_TK, token_R, most = padded_rows(ids_TK, len(up_EDF))
    learning = torch.is_grad_enabled()
    x_RD = (_Dispatch.apply if learning else _dispatch)(x_TD, row_TK, token_R)
    out_EMD = torch.bmm(swiglu(torch.bmm(x_RD.view(len(up_EDF), most, -1), up_EDF)), down_EID)
    return (_Combine.apply if learning else weighted_sum)(out_EMD.flatten(0, 1), weights_TK, row_TK)


def _grouped(
    x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, up_EDF: Tensor, down_EID: Tensor
) -> Tensor:
    """With and without gradient the same arithmetic, bit for bit: log-probabilities of a policy must not depend on who asks."""
    row_TK, token_R, load_E = sorted_rows(ids_TK, len(up_EDF))
    ends_E = load_E.cumsum(0, dtype=torch.int32)
    learning = torch.is_grad_enabled()
    x_RD = (_Dispatch.apply if learning else _dispatch)(x_TD, row_TK, token_R)
    out_RD = F.grouped_mm(swiglu(F.grouped_mm(x_RD, up_EDF, offs=ends_E)), down_EID, offs=ends_E)
    return (
        _Combine.apply(out_RD, weights_TK, row_TK)
        if learning
        else weighted_sum(out_RD, weights_TK, row_TK)
    )
