"""Plain twins: every operation of this package in the fewest readable lines of torch, with ordinary autograd.

Nothing here is fast. The fast versions beside this file are tested against these, over generated shapes.

T tokens, D width, E experts, K chosen experts, I expert inner width, F = 2I (gate rows, then up rows), V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """w * x / sqrt(mean(x^2) + eps), statistics in fp32."""
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up, where the last axis holds the gate half, then the up half."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def expert_mlp(
    x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, gate_up_EFD: Tensor, down_EDI: Tensor
) -> Tensor:
    """y_t = sum over k of w_tk * down_e swiglu(gate_up_e x_t), e = ids_tk: one expert after the other."""
    y_TD = torch.zeros(x_TD.shape, dtype=torch.promote_types(x_TD.dtype, weights_TK.dtype))
    for expert in range(gate_up_EFD.shape[0]):
        token, choice = torch.where(ids_TK == expert)
        inner = swiglu(F.linear(x_TD[token], gate_up_EFD[expert].to(x_TD.dtype)))
        out = F.linear(inner, down_EDI[expert].to(x_TD.dtype)) * weights_TK[token, choice, None]
        y_TD = y_TD.index_add(0, token, out.to(y_TD.dtype))
    return y_TD.to(x_TD.dtype)


def attention(q_GMd: Tensor, k_GTd: Tensor, v_GTv: Tensor, scale: float, heads: int) -> Tensor:
    """Causal attention of M = S * heads query rows (row s * heads + h belongs to position s) over T = S keys."""
    position_M = torch.arange(q_GMd.shape[1]) // heads
    hidden_MT = torch.arange(k_GTd.shape[1])[None, :] > position_M[:, None]
    score_GMT = (q_GMd @ k_GTd.transpose(1, 2)).float() * scale
    return score_GMT.masked_fill(hidden_MT, float("-inf")).softmax(-1).to(v_GTv.dtype) @ v_GTv


def cross_entropy(h_TD: Tensor, head_VD: Tensor, targets_T: Tensor, weights_T: Tensor) -> Tensor:
    """sum over t of weights_t * -log softmax(head h_t)[target_t], in fp32."""
    logits_TV = F.linear(h_TD, head_VD.to(h_TD.dtype)).float()
    return (F.cross_entropy(logits_TV, targets_T, reduction="none") * weights_T).sum()


def selected_log_probs(
    h_TD: Tensor, head_VD: Tensor, targets_T: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """log softmax(head h_t / temperature)[target_t], and the entropy (nats) of that distribution, without gradient."""
    log_probs_TV = F.linear(h_TD, head_VD.to(h_TD.dtype)).float().div(temperature).log_softmax(-1)
    entropy_T = -(log_probs_TV.exp() * log_probs_TV).sum(-1)
    return log_probs_TV.gather(1, targets_T[:, None]).squeeze(1), entropy_T.detach()
