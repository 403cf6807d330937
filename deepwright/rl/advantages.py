"""Advantages: how much better a completion was than the others of its own group.

GRPO replaces PPO's value model by the group itself (DeepSeekMath section 4.1): A_i = (r_i - mean(r)) / std(r) over the G rewards of one
prompt, the same for every token of completion i. Never over the batch alone: an easy prompt would then push all its completions up.

Equal rewards, and a group of one, give exactly 0 in all of them by rule: they carry no preference.
Whatever finite numbers a reward gives, no sum or square overflows: beyond `ROOMY` they are computed
in a unit of their own, a power of two. Ordinary ones keep every bit.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from deepwright.refusals import expect

EPSILON = 1e-6  # added to std; the papers give none. Rewards are of order 1, so it changes an advantage by about one part in a million
ROOMY = 2.0**500  # sums and squares of float64 up to here stay finite, however many there are
LARGEST = (
    1e15  # of an advantage in a policy loss: gradients are float32, where squares of 2e19 overflow
)


def in_range(values: Sequence[float]) -> tuple[Sequence[float], float]:
    """(values in units, the unit): as they are and 1.0 unless one is beyond `ROOMY`."""
    largest = max(map(abs, values), default=0.0)
    if not ROOMY < largest < math.inf:
        return values, 1.0
    unit = 2.0 ** (math.frexp(largest)[1] - 1)
    return [value / unit for value in values], unit


def mean(values: Sequence[float]) -> float:
    """`statistics.fmean`, finite for all finite values."""
    scaled, unit = in_range(values)
    return statistics.fmean(scaled) * unit


def deviation(values: Sequence[float]) -> float:
    """`statistics.pstdev`, over the values as the whole population, finite for all finite ones."""
    scaled, unit = in_range(values)
    return statistics.pstdev(scaled) * unit


def require_usable(advantages: Sequence[float]) -> None:
    """ValueError for an advantage that float32 gradients cannot carry."""
    bad = next((a for a in advantages if not abs(a) <= LARGEST), 0.0)
    expected = f"at most {LARGEST:g} in size: make the rewards smaller, or divide by their spread"
    expect(bad == 0, "an advantage", bad, expected)


def group_standardised(rewards_G: Sequence[float]) -> list[float]:
    """(r - mean) / (std + 1e-6), std with ddof 0 (over the G rewards as the whole population, as the formula is written).

    Equal rewards need the rule: a rounding error divided by a tiny std would invent a preference.
    """
    if len(set(rewards_G)) <= 1:
        return [0.0] * len(rewards_G)
    scaled, unit = in_range(rewards_G)
    m = statistics.fmean(scaled)
    s = statistics.pstdev(scaled, m)
    return [(reward - m) / (s + EPSILON / unit) for reward in scaled]


def centred(rewards_G: Sequence[float]) -> list[float]:
    """r - mean: a group that is nearly always right, or nearly never, is not blown up by its small std (Dr. GRPO section 3.2)."""
    if len(set(rewards_G)) <= 1:
        return [0.0] * len(rewards_G)
    m = mean(rewards_G)
    return [reward - m for reward in rewards_G]


def leave_one_out(rewards_G: Sequence[float]) -> list[float]:
    """r_i - mean of the other G - 1 rewards = (r_i - mean) G / (G - 1): the baseline does not depend on o_i (RLOO)."""
    count = len(rewards_G)
    return [
        advantage * count / (count - 1) if count > 1 else 0.0 for advantage in centred(rewards_G)
    ]


def standardised_over_tokens(advantages: Sequence[float], lengths: Sequence[int]) -> list[float]:
    """(A - mean) / (std + 1e-6) over all completion tokens of the round, each of the |o_i| tokens counted (REINFORCE++, on group-centred A)."""
    if len(set(advantages)) <= 1:
        return [0.0] * len(advantages)
    scaled, unit = in_range(advantages)
    tokens, counted = sum(lengths), list(zip(scaled, lengths, strict=True))
    m = sum(a * length for a, length in counted) / tokens
    s = math.sqrt(sum((a - m) ** 2 * length for a, length in counted) / tokens)
    return [(a - m) / (s + EPSILON / unit) for a in scaled]
