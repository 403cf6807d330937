"""Advantages: how much better a completion was than the others of its own group.

GRPO replaces PPO's value model by the group itself (DeepSeekMath section 4.1): A_i = (r_i - mean(r)) / std(r) over the G rewards of one
prompt, the same for every token of completion i. Never over the batch alone: an easy prompt would then push all its completions up.

Equal rewards, and a group of one, give exactly 0 in all of them by rule: they carry no preference.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

EPSILON = 1e-6  # added to std; the papers give none. Rewards are of order 1, so it changes an advantage by about one part in a million


def group_standardised(rewards_G: Sequence[float]) -> list[float]:
    """(r - mean) / (std + 1e-6), std with ddof 0 (over the G rewards as the whole population, as the formula is written).

    Equal rewards need the rule: a rounding error divided by a tiny std would invent a preference.
    """
    if len(set(rewards_G)) <= 1:
        return [0.0] * len(rewards_G)
    mean = statistics.fmean(rewards_G)
    std = statistics.pstdev(rewards_G, mean)
    return [(reward - mean) / (std + EPSILON) for reward in rewards_G]


def centred(rewards_G: Sequence[float]) -> list[float]:
    """r - mean: a group that is nearly always right, or nearly never, is not blown up by its small std (Dr. GRPO section 3.2)."""
    if len(set(rewards_G)) <= 1:
        return [0.0] * len(rewards_G)
    mean = statistics.fmean(rewards_G)
    return [reward - mean for reward in rewards_G]


def leave_one_out(rewards_G: Sequence[float]) -> list[float]:
    """r_i - mean of the other G - 1 rewards = (r_i - mean) G / (G - 1): the baseline does not depend on o_i (RLOO)."""
    count = len(rewards_G)
    return [
        advantage * count / (count - 1) if count > 1 else 0.0 for advantage in centred(rewards_G)
    ]


def standardised_over_tokens(advantages: Sequence[float], lengths: Sequence[int]) -> list[float]:
    """(A - mean) / (std + 1e-6) over all completion tokens of the round, each of the |o_i| tokens counted (REINFORCE++, on group-centred A)."""
    tokens = sum(lengths)
    if len(set(advantages)) <= 1:
        return [0.0] * len(advantages)
    mean = sum(a * length for a, length in zip(advantages, lengths, strict=True)) / tokens
    std = math.sqrt(
        sum((a - mean) ** 2 * length for a, length in zip(advantages, lengths, strict=True))
        / tokens
    )
    return [(a - mean) / (std + EPSILON) for a in advantages]
