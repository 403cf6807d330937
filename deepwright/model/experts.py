"""DeepSeekMoE: routing, routed and shared experts, and the rules that keep the load even (V3 section 2.1.2).

`route -> dispatch -> experts -> combine`. Routing returns a record that the caller owns: balance losses, the bias update
(a pure rule, applied by the training loop once per step), heat maps and replay all read it. No state is kept here.

T tokens, E experts, K chosen per token, G groups of E/G consecutive experts, D width, I inner width, F = 2I.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepwright import numerics
from deepwright.config import ModelConfig
from deepwright.model.layers import FeedForward


@dataclass(frozen=True)
class Routing:
    """Where one layer sent its tokens in one forward. Padding tokens (valid_T False) are routed but not counted."""

    layer: int
    ids_TK: Tensor  # int64, chosen experts
    weights_TK: Tensor  # fp32, combine weights (with gradient)
    scores_TE: Tensor  # fp32, affinities (with gradient)
    load_E: Tensor  # int64, valid tokens sent to each expert; sums to valid tokens * K
    batch: int  # sequences these T tokens come from, all of equal length
    valid_T: Tensor | None = None


SORTED_NUMBERS = 1 << 14  # up to this many scores one stable sort is cheaper than k passes


def top_ids(score_TE: Tensor, k: int) -> Tensor:
    """Indices of the k largest of each row, best first, ties to the lowest index (torch.topk leaves ties open)."""
    if score_TE.numel() <= SORTED_NUMBERS:
        return score_TE.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    left, ids = score_TE.clone(), []
    for _ in range(k):
        best = left.argmax(dim=-1, keepdim=True)
        left.scatter_(1, best, float("-inf"))
        ids.append(best)
    return torch.cat(ids, dim=-1)


def limit_groups(choice_TE: Tensor, config: ModelConfig) -> Tensor:
    """Keeps the best `topk_group` groups; every other expert's score becomes -inf (0 could win against negative biases)."""
    grouped_TGX = choice_TE.unflatten(-1, (config.n_group, -1))
    if config.topk_method == "noaux_tc":
        group_TG = grouped_TGX.topk(2, dim=-1).values.sum(-1)  # sum of the two best
    else:
        group_TG = grouped_TGX.amax(-1)
    keep_TG = torch.zeros_like(group_TG, dtype=torch.bool).scatter_(
        1, top_ids(group_TG, config.topk_group), True
    )
    return grouped_TGX.masked_fill(~keep_TG[..., None], float("-inf")).flatten(-2)


def route(
    logits_TE: Tensor, bias_E: Tensor | None, config: ModelConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """-> (ids_TK, weights_TK, scores_TE). The bias chooses; weights come from the unbiased affinities (V3 section 2.1.2)."""
    scores_TE = logits_TE.sigmoid() if config.scoring_func == "sigmoid" else logits_TE.softmax(-1)
    choice_TE = scores_TE.detach() if bias_E is None else scores_TE.detach() + bias_E
    if config.n_group > 1:
        choice_TE = limit_groups(choice_TE, config)
    ids_TK = top_ids(choice_TE, config.num_experts_per_tok)
    weights_TK = scores_TE.gather(1, ids_TK)
    if config.norm_topk_prob:
        weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20)
    return ids_TK, weights_TK * config.routed_scaling_factor, scores_TE


class Router(nn.Module):
    """Affinity of every expert for a token, in fp32 whatever the model's dtype."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        has_bias = config.topk_method == "noaux_tc"
        self.register_buffer(
            "bias", torch.zeros(config.n_routed_experts, dtype=torch.float32) if has_bias else None
        )

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return route(numerics.linear(x_TD.float(), self.weight.float()), self.bias, self.config)

    def _apply(self, fn, recurse: bool = True):
        """model.to(bfloat16) must not round the bias: a step of 0.001 would be lost."""
        super()._apply(fn, recurse)
        if self.bias is not None and self.bias.dtype != torch.float32:
            raise ValueError(
                f"the router bias would become {self.bias.dtype}, but it must stay float32; cast parameters, not buffers"
            )
        return self


class Experts(nn.Module):
    """All routed experts of a layer, stacked."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        e, d, i = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up = nn.Parameter(torch.empty(e, 2 * i, d))
        self.down = nn.Parameter(torch.empty(e, d, i))

    def forward(self, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Tensor:
        return numerics.expert_mlp(x_TD, ids_TK, weights_TK, self.gate_up, self.down)


class MixtureOfExperts(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.router = Router(config)
        self.experts = Experts(config)
        self.shared = (
            FeedForward(config.hidden_size, config.n_shared_experts * config.moe_intermediate_size)
            if config.n_shared_experts
            else None
        )

    def forward(self, x_BSD: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """-> (y_BSD, (ids_TK, weights_TK, scores_TE))."""
        x_TD = x_BSD.flatten(0, 1)
        router, experts, shared = self.router, self.experts, self.shared
        if numerics.compiled.decodes(x_TD, router.weight, experts.gate_up):
            always = (None, None) if shared is None else (shared.gate_up.weight, shared.down.weight)
            y_TD, choice = numerics.compiled.mixture(
                x_TD,
                router.weight,
                router.bias,
                experts.gate_up,
                experts.down,
                *always,
                router.config,
            )
            return y_TD.view(x_BSD.shape), choice
        choice = router(x_TD)
        y_TD = experts(x_TD, choice[0], choice[1])
        if shared is not None:
            y_TD = y_TD + shared(x_TD)
        return y_TD.view_as(x_BSD), choice


def record(
    layer: int,
    choice: tuple[Tensor, Tensor, Tensor],
    experts: int,
    batch: int,
    valid_BS: Tensor | None,
) -> Routing:
    ids_TK, weights_TK, scores_TE = choice
    valid_T = None if valid_BS is None else valid_BS.reshape(-1)
    counted = ids_TK if valid_T is None else ids_TK[valid_T]
    return Routing(
        layer,
        ids_TK,
        weights_TK,
        scores_TE,
        torch.bincount(counted.reshape(-1), minlength=experts),
        batch,
        valid_T,
    )


def _frequency_and_share(routing: Routing, sequences: int) -> tuple[Tensor, Tensor]:
    """f [sequences, E] (choices relative to an even split, no gradient) and P [sequences, E] (mean normalised affinity)."""
    experts, k = routing.scores_TE.shape[1], routing.ids_TK.shape[1]
    valid_T = (
        torch.ones(len(routing.ids_TK)) if routing.valid_T is None else routing.valid_T.float()
    )
    valid_QT = valid_T.view(sequences, -1)
    tokens_Q = valid_QT.sum(-1, keepdim=True).clamp(min=1)
    chosen_TE = torch.zeros_like(routing.scores_TE).scatter_(1, routing.ids_TK, 1.0)
    f_QE = (
        (chosen_TE.view(sequences, -1, experts) * valid_QT[..., None]).sum(1)
        * experts
        / (k * tokens_Q)
    )
    share_TE = routing.scores_TE / (routing.scores_TE.sum(-1, keepdim=True) + 1e-20)
    p_QE = (share_TE.view(sequences, -1, experts) * valid_QT[..., None]).sum(1) / tokens_Q
    return f_QE.detach(), p_QE


def sequence_balance_loss(routing: Routing) -> Tensor:
    """Mean over sequences of sum_i f_i P_i (V3 eq. 17-20, f from the choices actually made): 1 when even. Multiply by alpha."""
    f_QE, p_QE = _frequency_and_share(routing, routing.batch)
    return (f_QE * p_QE).sum(-1).mean()


def auxiliary_loss(routing: Routing) -> Tensor:
    """The same over the batch as a whole: the older way to balance, kept to compare with."""
    f_QE, p_QE = _frequency_and_share(routing, 1)
    return (f_QE * p_QE).sum()


def update_bias(bias_E: Tensor, load_E: Tensor, speed: float) -> Tensor:
    """b_i + speed * sign(mean load - load_i), once per optimizer step with the whole batch's loads (LFB algorithm 1)."""
    load_E = load_E.double()
    return bias_E + speed * torch.sign(load_E.mean() - load_E).to(bias_E.dtype)
