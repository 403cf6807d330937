"""Causal attention for training: batched matrix products over blocks of positions, so that no block sees the future half.

One routine serves both forms of MLA: the expanded one has a query row for each position (G = batch * heads), the
absorbed one has `heads` rows for each position against one shared key (G = batch). Twin: `plain.attention`.

G independent attentions, M = S * heads query rows, T = S keys, d key width, v value width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepwright.numerics import compiled
from deepwright.numerics.precision import cast

BLOCK = 64  # positions a block of queries spans: smaller wastes less on the upper triangle, larger multiplies better


def _blocks(positions: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, positions)) for start in range(0, positions, BLOCK)]


@dataclass(frozen=True)
class PagedKeys:
    """Cached entries where they lie: row b's keys are the blocks table_BM[b] of entries_UE [blocks * block, E], in order."""

    entries_UE: Tensor
    table_BM: Tensor  # int64
    block: int

    def gathered(self) -> Tensor:
        """[B, M * block, E]."""
        rows, blocks = self.table_BM.shape
        keys = self.entries_UE.view(-1, self.block * self.entries_UE.shape[1]).index_select(
            0, self.table_BM.reshape(-1)
        )
        return keys.view(rows, blocks * self.block, -1)


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        q_GMd: Tensor,
        k_GTd: Tensor,
        v_GTv: Tensor,
        scale: float,
        heads: int,
        hidden_GMT: Tensor | None,
    ) -> Tensor:
        out = q_GMd.new_empty(q_GMd.shape[0], q_GMd.shape[1], v_GTv.shape[2])
        probs = []
        for start, end in _blocks(k_GTd.shape[1]):
            rows = slice(start * heads, end * heads)
            score = torch.bmm(q_GMd[:, rows], k_GTd[:, :end].transpose(1, 2)).float().mul_(scale)
            score[:, :, start:end].add_(_future(end - start, heads))
            if hidden_GMT is not None:
                score.masked_fill_(hidden_GMT[:, rows, :end], float("-inf"))
            prob = torch.softmax(score, dim=-1).to(v_GTv.dtype)
            out[:, rows] = torch.bmm(prob, v_GTv[:, :end])
            probs.append(prob)
        ctx.save_for_backward(q_GMd, k_GTd, v_GTv, *probs)
        ctx.scale, ctx.heads = scale, heads
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_GMv: Tensor):
        q, k, v, *probs = ctx.saved_tensors
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (start, end), prob in zip(_blocks(k.shape[1]), probs, strict=True):
            rows = slice(start * ctx.heads, end * ctx.heads)
            grad = grad_GMv[:, rows]
            # baddbmm_ into a slice would multiply matrix by matrix
            d_v[:, :end] += torch.bmm(prob.transpose(1, 2), grad)
            d_prob = torch.bmm(grad, v[:, :end].transpose(1, 2))
            d_score = torch.ops.aten._softmax_backward_data(d_prob, prob, -1, prob.dtype).mul_(
                ctx.scale
            )
            d_q[:, rows] = torch.bmm(d_score, k[:, :end])
            d_k[:, :end] += torch.bmm(d_score.transpose(1, 2), q[:, rows])
        return d_q, d_k, d_v, None, None, None


def _future(positions: int, heads: int) -> Tensor:
    """[positions * heads, positions]: -inf where the key lies after the query row's position, else 0."""
    return (
        torch.full((positions, positions), float("-inf")).triu_(1).repeat_interleave(heads, dim=0)
    )


def attention(
    q_GMd: Tensor,
    k_GTd: Tensor,
    v_GTv: Tensor,
    scale: float,
    heads: int = 1,
    hidden_GMT: Tensor | None = None,
) -> Tensor:
    """softmax(scale * q k^T) v -> [G, M, v]; query row s * heads + h sees keys 0..s, but those that `hidden_GMT` (bool) hides. Softmax in fp32."""
    return _CausalAttention.apply(q_GMd, k_GTd, v_GTv, scale, heads, hidden_GMT)


def branched_attention(
    q_BSHd: Tensor, k_BSKd: Tensor, v_BSKv: Tensor, scale: float, branch_BS: Tensor
) -> Tensor:
    """Causal attention over rows that hold one prompt (branch 0) and several continuations of it (branches 1..): a query sees the prompt and
    its own branch -> [B, S, H, v]. H is a multiple of the key heads K."""
    K, G = k_BSKd.shape[2], q_BSHd.shape[2] // k_BSKd.shape[2]
    hidden_BST = (branch_BS[:, None] != 0) & (branch_BS[:, None] != branch_BS[:, :, None])
    hidden = hidden_BST.repeat_interleave(K, dim=0).repeat_interleave(G, dim=1)
    return grouped_attention(q_BSHd, k_BSKd, v_BSKv, scale, hidden=hidden)


class _ExpandedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_BSHQ: Tensor, kv_BSHX: Tensor, key_BSR: Tensor, scale: float) -> Tensor:
        out, log_sum = _expanded(q_BSHQ, kv_BSHX, key_BSR, scale)
        ctx.save_for_backward(q_BSHQ, kv_BSHX, key_BSR, log_sum)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BSHV: Tensor):
        q, kv, key, log_sum = ctx.saved_tensors
        B, S, H, R = *q.shape[:3], key.shape[2]
        d_q, d_kv, d_key_BHSR, grad = (
            torch.empty_like(q),
            torch.empty_like(kv),
            q.new_empty(B, H, S, R),
            grad_BSHV.contiguous(),
        )
        compiled.library().expanded_attention_backward(
            grad.data_ptr(), q.data_ptr(), kv.data_ptr(), key.data_ptr(), log_sum.data_ptr(), ctx.scale, d_q.data_ptr(), d_kv.data_ptr(),
            d_key_BHSR.data_ptr(), B, S, H, q.shape[3] - R, R, grad.shape[3],
        )  # fmt: skip
        return d_q, d_kv, d_key_BHSR.sum(1), None


def _expanded(q: Tensor, kv: Tensor, key: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Compiled: -> result [B, S, H, V], and the log-sum [B, H, S] of each query's scores."""
    (B, S, H, Q), R = q.shape, key.shape[2]
    values = kv.shape[3] - Q + R
    out, log_sum = q.new_empty(B, S, H, values), q.new_empty(B, H, S)
    compiled.library().expanded_attention(q.data_ptr(), kv.data_ptr(), key.data_ptr(), scale, out.data_ptr(), log_sum.data_ptr(), B, S, H, Q - R,
                                          R, values)  # fmt: skip
    return out, log_sum


def expanded_attention(
    q_BSHQ: Tensor,
    kv_BTHX: Tensor,
    key_BTR: Tensor,
    scale: float,
    positions_BS: Tensor | None,
    branch_BS: Tensor | None = None,
) -> Tensor:
    """Latent attention in expanded form -> [B, S, H, V]. q [N | R], rotated; kv: each head's key without position (N), then its value (V);
    key: the rotated part that all heads share. positions None: keys are those of the queries, in order."""
    (B, S, H, Q), R = q_BSHQ.shape, key_BTR.shape[2]
    if positions_BS is None and branch_BS is None and compiled.multiplies():
        inputs = (q_BSHQ.contiguous(), kv_BTHX.contiguous(), key_BTR.contiguous())
        if compiled.fuses(*inputs):
            return (
                _ExpandedAttention.apply(*inputs, scale)
                if torch.is_grad_enabled()
                else _expanded(*inputs, scale)[0]
            )
    k_nope_BTHN, v_BTHV = kv_BTHX.tensor_split([Q - R], dim=-1)
    k_BTHQ = torch.cat((k_nope_BTHN, key_BTR[:, :, None].expand(-1, -1, H, -1)), dim=-1)
    if branch_BS is not None:
        return branched_attention(q_BSHQ, k_BTHQ, v_BTHV, scale, branch_BS)
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q_BSHQ, k_BTHQ, v_BTHV))
    out = (
        attention(q, k, v, scale)
        if positions_BS is None
        else attention_at(q, k, v, scale, positions_BS.repeat_interleave(H, dim=0))
    )
    return out.view(B, H, S, -1).transpose(1, 2)


def attention_at(
    q_BMd: Tensor, k_BTd: Tensor, v_BTv: Tensor, scale: float, positions_BM: Tensor
) -> Tensor:
    """The same with the position of every query row given (cached keys): a row at position p sees keys 0..p. No blocks."""
    score = torch.bmm(q_BMd, k_BTd.transpose(1, 2)).float().mul_(scale)
    future = torch.arange(k_BTd.shape[1]) > positions_BM[:, :, None]
    return torch.bmm(score.masked_fill_(future, float("-inf")).softmax(-1).to(v_BTv.dtype), v_BTv)


def grouped_attention(
    q_BSHd: Tensor,
    k_BTKd: Tensor,
    v_BTKv: Tensor,
    scale: float,
    positions_BS: Tensor | None = None,
    hidden: Tensor | None = None,
) -> Tensor:
    """Grouped-query attention -> [B, S, H, v]. Query row s * G + g of a key head belongs to position s, so no key is copied for each of its G
    query heads. positions None: keys are those of the queries, in order; `hidden` as in `attention`."""
    (B, S, H, d), K = q_BSHd.shape, k_BTKd.shape[2]
    q_BKMd = q_BSHd.view(B, S, K, H // K, d).transpose(1, 2).reshape(B * K, -1, d)
    k_BKTd, v_BKTv = (x.transpose(1, 2).flatten(0, 1) for x in (k_BTKd, v_BTKv))
    if positions_BS is None:
        out = attention(q_BKMd, k_BKTd, v_BKTv, scale, H // K, hidden)
    else:
        positions_BKM = positions_BS.repeat_interleave(H // K, dim=1).repeat_interleave(K, dim=0)
        out = attention_at(q_BKMd, k_BKTd, v_BKTv, scale, positions_BKM)
    return out.view(B, K, S, H // K, -1).transpose(1, 2).reshape(B, S, H, -1)


def cached_grouped_attention(
    q_BSHd: Tensor, keys: Tensor | PagedKeys, scale: float, positions_BS: Tensor
) -> Tensor:
    """The same against cached entries [keys of K heads | values of K heads]."""
    if isinstance(keys, PagedKeys):
        if compiled.takes(q_BSHd, keys.entries_UE):
            return compiled.grouped_attention(
                q_BSHd, keys.entries_UE, keys.table_BM, keys.block, scale, positions_BS
            )
        keys = keys.gathered()
    k_BTKd, v_BTKd = (half.unflatten(-1, (-1, q_BSHd.shape[3])) for half in keys.chunk(2, dim=-1))
    return grouped_attention(q_BSHd, k_BTKd, v_BTKd, scale, positions_BS)


def absorbed_attention(
    q_BSHQ: Tensor,
    keys: Tensor | PagedKeys,
    kv_b_XC: Tensor,
    scale: float,
    positions_BS: Tensor | None,
    rotary: int,
) -> Tensor:
    """Latent attention in absorbed form -> [B, S, H, V]: query and output go through each head's part of kv_b [H * (N + V), C], so that
    all heads share one key, the cached entry [latent C | rotary R] itself. q is [N | R], rotated; keys [B, T, E]; positions None: those
    of the queries, in order."""
    (B, S, H, _), kv_b_XC = q_BSHQ.shape, cast(kv_b_XC, q_BSHQ.dtype)
    if isinstance(keys, PagedKeys):
        if compiled.takes(q_BSHQ, kv_b_XC, keys.entries_UE):
            return compiled.absorbed_attention(
                q_BSHQ,
                keys.entries_UE,
                keys.table_BM,
                keys.block,
                kv_b_XC,
                scale,
                positions_BS,
                rotary,
            )
        keys = keys.gathered()
    q_nope_BSHN, q_rope_BSHR = q_BSHQ.split((q_BSHQ.shape[3] - rotary, rotary), dim=-1)
    kv_b_HXC = kv_b_XC.view(H, -1, kv_b_XC.shape[1])
    up_k_HNC, up_v_HVC = kv_b_HXC.tensor_split([q_nope_BSHN.shape[3]], dim=1)
    q_latent_BSHC = (
        torch.bmm(q_nope_BSHN.flatten(0, 1).transpose(0, 1), up_k_HNC)
        .transpose(0, 1)
        .view(B, S, H, -1)
    )
    q_BME = torch.cat((q_latent_BSHC, q_rope_BSHR), dim=-1).view(B, S * H, -1)
    latent_BTC = keys[..., : kv_b_XC.shape[1]]
    if positions_BS is None:
        context = attention(q_BME, keys, latent_BTC, scale, H)
    else:
        context = attention_at(
            q_BME, keys, latent_BTC, scale, positions_BS.repeat_interleave(H, dim=1)
        )
    context_HXC = context.view(B * S, H, -1).transpose(0, 1)
    return torch.bmm(context_HXC, up_v_HVC.transpose(1, 2)).transpose(0, 1).view(B, S, H, -1)
