"""Policy losses by name. A Variant is a few short choices: the advantage, what one token weighs, which ratio is clipped.

    loss = - sum over completion tokens t of  w_t * J_t          J_t = c_t min(rho A, clip(rho, 1-eps, 1+eps_high) A) - beta k3_t

`w_t` (the normaliser) is a number decided for the whole policy update before it is cut into micro-batches, so any cut gives the same gradient.
The loss only sums. rho_t = pi(o_t) / pi_old(o_t), n completions in the update, L = max_tokens, m and s mean and standard deviation of the group's
rewards. c_t is 1, or the truncated importance weight where one is asked for. A further variant is one more line in VARIANTS.

    name                A                        ratio               w              source
    grpo                (r - m) / s              rho_t               1 / (n |o_i|)  DeepSeekMath (arXiv 2402.03300) eq. 3-4; R1-Zero
    grpo_token_mean     (r - m) / s              rho_t               1 / tokens     DAPO section 3.3 alone
    dapo                (r - m) / s              rho_t               1 / tokens     DAPO (2503.14476) eq. 8, with clip_high and resample
    dr_grpo             r - m                    rho_t               1 / (n L)      Dr. GRPO (2503.20783) section 3.2: no length, no std
    gspo                (r - m) / s              (prod rho_t)^1/|o|  1 / (n |o_i|)  GSPO (2507.18071) eq. 5-7; eps 3e-4, eps_high 4e-4 there
    rloo                r - mean of the others   prod rho_t          1 / (n |o_i|)  RLOO (2402.14740): the completion is one action
    reinforce_baseline  r - m, then over tokens  rho_t               1 / tokens     REINFORCE++-baseline (2501.03262), as OpenRLHF names it

The ratios of gspo and rloo are one number for a completion, so the |o_i| equal tokens of weight 1 / (n |o_i|) count 1/n together. RLOO and REINFORCE++
subtract their KL from the reward; here beta always weighs k3 in the loss, and is 0 unless asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepwright.refusals import nearest
from deepwright.rl.advantages import (
    centred,
    group_standardised,
    leave_one_out,
    standardised_over_tokens,
)


@dataclass(frozen=True)
class Terms:
    """What an objective may look at, per completion token of a micro-batch. Only `log_probs_T` carries a gradient."""

    log_probs_T: Tensor
    old_log_probs_T: Tensor
    reference_log_probs_T: Tensor | None
    advantages_T: Tensor
    rows_T: Tensor  # sequence of each token, for variants that form a ratio per sequence
    sampler_log_probs_T: Tensor | None = None  # needed for importance weights only


@dataclass(frozen=True)
class Coefficients:
    clip: float  # epsilon; infinity where one update follows each roll-out, as the ratio is then 1
    beta: float  # weight of the KL term; 0 needs no reference
    clip_high: float | None = None  # epsilon above 1; None: the same
    importance_cap: float | None = None  # C of the truncated importance weight; None: no weight

    @property
    def interval(self) -> tuple[float, float]:
        return 1 - self.clip, 1 + (self.clip if self.clip_high is None else self.clip_high)


def ratio(terms: Terms) -> Tensor:
    """rho_t = pi(o_t) / pi_old(o_t)."""
    return torch.exp(terms.log_probs_T - terms.old_log_probs_T)


def sequence_product(terms: Terms) -> Tensor:
    """prod_t rho_t = pi(o) / pi_old(o) of the whole completion, at each of its tokens."""
    return torch.exp(_log_ratio_of_sequences(terms))


def sequence_root(terms: Terms) -> Tensor:
    """(prod_t rho_t)^(1/|o|), the geometric mean of the token ratios, at each token (GSPO eq. 7)."""
    return torch.exp(_log_ratio_of_sequences(terms) / torch.bincount(terms.rows_T)[terms.rows_T])


def _log_ratio_of_sequences(terms: Terms) -> Tensor:
    log_ratio_T = terms.log_probs_T - terms.old_log_probs_T
    return log_ratio_T.new_zeros(len(log_ratio_T)).index_add(0, terms.rows_T, log_ratio_T)[
        terms.rows_T
    ]


def k3(log_probs_T: Tensor, reference_log_probs_T: Tensor) -> Tensor:
    """D_t = pi_ref/pi - log(pi_ref/pi) - 1 >= 0, zero only where the two agree; its mean under pi is KL(pi || pi_ref).

    As a *value* it is unbiased. Its gradient, taken inside the loss as the papers do, has the mean of the gradient of KL(pi_ref || pi): it agrees with
    that of KL(pi || pi_ref) to first order around pi = pi_ref and pulls the same way, but is another divergence further out.
    """
    log_ratio_T = reference_log_probs_T - log_probs_T
    return torch.expm1(log_ratio_T) - log_ratio_T


def importance(terms: Terms, cap: float) -> Tensor:
    """c_t = min(pi_old(o_t) / pi_sampler(o_t), C), without gradient: tokens came from a sampler that is not quite the trainer's policy.

    Truncated importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"), per token.
    """
    assert terms.sampler_log_probs_T is not None, (
        "importance weights need the sampler's log-probabilities"
    )
    return torch.exp(terms.old_log_probs_T - terms.sampler_log_probs_T).clamp(max=cap)


def clipped(
    terms: Terms, coefficients: Coefficients, ratio_of: Callable[[Terms], Tensor] = ratio
) -> Tensor:
    """J_t = c_t min(rho_t A, clip(rho_t, 1-eps, 1+eps_high) A) - beta D_t (DeepSeekMath eq. 3)."""
    ratio_T = ratio_of(terms)
    bounded_T = ratio_T.clamp(*coefficients.interval)
    objective_T = torch.minimum(ratio_T * terms.advantages_T, bounded_T * terms.advantages_T)
    if coefficients.importance_cap is not None:
        objective_T = objective_T * importance(terms, coefficients.importance_cap)
    if coefficients.beta == 0:
        return objective_T
    assert terms.reference_log_probs_T is not None, (
        "beta > 0 needs the reference's log-probabilities"
    )
    return objective_T - coefficients.beta * k3(terms.log_probs_T, terms.reference_log_probs_T)


def sequence_mean(lengths: Sequence[int], max_tokens: int = 0) -> list[float]:
    """1/(n |o_i|): every completion counts the same, so a token of a long one counts less (mean over prompts of the mean over the group)."""
    return [1 / (len(lengths) * length) for length in lengths]


def token_mean(lengths: Sequence[int], max_tokens: int = 0) -> list[float]:
    """1/tokens of the whole update: every token counts the same."""
    return [1 / sum(lengths)] * len(lengths)


def constant(lengths: Sequence[int], max_tokens: int) -> list[float]:
    """1/(n L) with the longest possible completion L: a token counts the same whatever else is in the update."""
    return [1 / (len(lengths) * max_tokens)] * len(lengths)


@dataclass(frozen=True)
class Variant:
    advantage: Callable[[Sequence[float]], list[float]]  # rewards of a group -> advantages
    token_weights: Callable[
        [Sequence[int], int], list[float]
    ]  # completion lengths of the whole update, max_tokens -> weight of a token of each
    ratio: Callable[[Terms], Tensor] = ratio  # what is clipped
    over_batch: Callable[[Sequence[float], Sequence[int]], list[float]] | None = (
        None  # advantages and lengths of a round -> advantages
    )

    def objective(self, terms: Terms, coefficients: Coefficients) -> Tensor:
        return clipped(terms, coefficients, self.ratio)


VARIANTS: dict[str, Variant] = {
    "grpo": Variant(group_standardised, sequence_mean),
    "grpo_token_mean": Variant(group_standardised, token_mean),
    "dapo": Variant(group_standardised, token_mean),
    "dr_grpo": Variant(centred, constant),
    "gspo": Variant(group_standardised, sequence_mean, sequence_root),
    "rloo": Variant(leave_one_out, sequence_mean, sequence_product),
    "reinforce_baseline": Variant(centred, token_mean, over_batch=standardised_over_tokens),
}


def find_variant(name: str) -> Variant:
    if name not in VARIANTS:
        raise ValueError(
            f"loss variant {name!r} is unknown, expected one of {', '.join(VARIANTS)}{nearest(name, VARIANTS)}"
        )
    return VARIANTS[name]


def policy_loss(objective_T: Tensor, weights_T: Tensor) -> Tensor:
    """-sum w_t J_t; 0 with a zero gradient where nothing is left to train on."""
    return -(weights_T * objective_T).sum()


@torch.no_grad()
def clipped_share(
    terms: Terms, coefficients: Coefficients, ratio_of: Callable[[Terms], Tensor] = ratio
) -> Tensor:
    """bool [T]: where the minimum took the clipped branch, so that the token gives no gradient through rho."""
    ratio_T, (low, high) = ratio_of(terms), coefficients.interval
    return ((ratio_T > high) & (terms.advantages_T > 0)) | (
        (ratio_T < low) & (terms.advantages_T < 0)
    )
