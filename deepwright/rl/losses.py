"""Policy losses by name. A Variant is three short choices: the advantage, what one token weighs, and the objective per token.

    loss = - sum over completion tokens t of  w_t * J_t

`w_t` (the normaliser) is a number decided for the whole policy update before it is cut into micro-batches, so any cut gives the same gradient.
The loss only sums. A further variant is one more line in VARIANTS, with a short function where its formula is new.

    grpo             J = min(rho A, clip(rho, 1-eps, 1+eps) A) - beta k3     w = 1 / (sequences * |o_i|)    DeepSeekMath eq. 3-4, R1-Zero
    grpo_token_mean  the same J                                              w = 1 / tokens                 DAPO section 3.3
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepwright.rl.advantages import group_standardised


@dataclass(frozen=True)
class Terms:
    """What an objective may look at, per completion token of a micro-batch. Only `log_probs_T` carries a gradient."""

    log_probs_T: Tensor
    old_log_probs_T: Tensor
    reference_log_probs_T: Tensor | None
    advantages_T: Tensor
    rows_T: Tensor  # sequence of each token, for variants that form a ratio per sequence


@dataclass(frozen=True)
class Coefficients:
    clip: float  # epsilon; infinity where one update follows each roll-out, as the ratio is then 1
    beta: float  # weight of the KL term; 0 needs no reference


@dataclass(frozen=True)
class Variant:
    advantage: Callable[[Sequence[float]], list[float]]  # rewards of a group -> advantages
    token_weights: Callable[[Sequence[int]], list[float]]  # completion lengths of the whole update -> weight of one token of each
    objective: Callable[[Terms, Coefficients], Tensor]  # -> J_T


def ratio(terms: Terms) -> Tensor:
    """rho_t = pi(o_t) / pi_old(o_t)."""
    return torch.exp(terms.log_probs_T - terms.old_log_probs_T)


def k3(log_probs_T: Tensor, reference_log_probs_T: Tensor) -> Tensor:
    """D_t = pi_ref/pi - log(pi_ref/pi) - 1 >= 0, zero only where the two agree; its mean under pi is KL(pi || pi_ref).

    As a *value* it is unbiased. Its gradient, taken inside the loss as the papers do, has the mean of the gradient of KL(pi_ref || pi): it agrees with
    that of KL(pi || pi_ref) to first order around pi = pi_ref and pulls the same way, but is another divergence further out.
    """
    log_ratio_T = reference_log_probs_T - log_probs_T
    return torch.expm1(log_ratio_T) - log_ratio_T


def clipped(terms: Terms, coefficients: Coefficients) -> Tensor:
    """J_t = min(rho_t A, clip(rho_t, 1-eps, 1+eps) A) - beta D_t (DeepSeekMath eq. 3)."""
    ratio_T = ratio(terms)
    bounded_T = ratio_T.clamp(1 - coefficients.clip, 1 + coefficients.clip)
    objective_T = torch.minimum(ratio_T * terms.advantages_T, bounded_T * terms.advantages_T)
    if coefficients.beta == 0:
        return objective_T
    assert terms.reference_log_probs_T is not None, "beta > 0 needs the reference's log-probabilities"
    return objective_T - coefficients.beta * k3(terms.log_probs_T, terms.reference_log_probs_T)


def sequence_mean(lengths: Sequence[int]) -> list[float]:
    """1/(n |o_i|): every completion counts the same, so a token of a long one counts less (mean over prompts of the mean over the group)."""
    return [1 / (len(lengths) * length) for length in lengths]


def token_mean(lengths: Sequence[int]) -> list[float]:
    """1/tokens of the whole update: every token counts the same."""
    return [1 / sum(lengths)] * len(lengths)


VARIANTS: dict[str, Variant] = {
    "grpo": Variant(group_standardised, sequence_mean, clipped),
    "grpo_token_mean": Variant(group_standardised, token_mean, clipped),
}


def find_variant(name: str) -> Variant:
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"loss variant {name!r} is unknown, expected one of {', '.join(VARIANTS)}{hint}")
    return VARIANTS[name]


def policy_loss(objective_T: Tensor, weights_T: Tensor) -> Tensor:
    """-sum w_t J_t; 0 with a zero gradient where nothing is left to train on."""
    return -(weights_T * objective_T).sum()


@torch.no_grad()
def clipped_share(terms: Terms, coefficients: Coefficients) -> Tensor:
    """bool [T]: where the minimum took the clipped branch, so that the token gives no gradient through rho."""
    ratio_T = ratio(terms)
    above_T = (ratio_T > 1 + coefficients.clip) & (terms.advantages_T > 0)
    below_T = (ratio_T < 1 - coefficients.clip) & (terms.advantages_T < 0)
    return above_T | below_T
