"""Advantages: how much better a completion was than the others of its own group.

GRPO replaces PPO's value model by the group itself (DeepSeekMath section 4.1): A_i = (r_i - mean(r)) / std(r) over the G rewards of one
prompt, the same for every token of completion i. Never over the batch: an easy prompt would then push all its completions up.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

EPSILON = 1e-6  # added to std; the papers give none. Rewards are of order 1, so it changes an advantage by about one part in a million


def group_standardised(rewards_G: Sequence[float]) -> list[float]:
    """(r - mean) / (std + 1e-6), std with ddof 0 (over the G rewards as the whole population, as the formula is written).

    Equal rewards, and a group of one, give exactly 0 by rule: they carry no preference, and a rounding error divided by a tiny std would invent one.
    """
    if len(set(rewards_G)) <= 1:
        return [0.0] * len(rewards_G)
    mean = statistics.fmean(rewards_G)
    std = statistics.pstdev(rewards_G, mean)
    return [(reward - mean) / (std + EPSILON) for reward in rewards_G]
