"""How rotary frequencies were stretched beyond the original context: YaRN, and Llama 3.1's rule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deepwright.refusals import expect, holds

LARGEST_REAL = 1e18  # of any real number in a config: fp32 holds its products, and torch whole ones


@dataclass(frozen=True)
class RopeScaling:
    """YaRN (V3 section 4.3; V2 section 3.1.4)."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0

    def __post_init__(self) -> None:
        _check_stretch(self)
        betas = (self.beta_fast, self.beta_slow)
        expect(betas[0] > betas[1] > 0, "beta_fast, beta_slow", betas, "beta_fast > beta_slow > 0")
        scales = (self.mscale, self.mscale_all_dim)
        usual = scales[0] == 1 if scales[1] == 0 else scales[0] > 0 and scales[1] > 0
        expect(usual, "mscale, mscale_all_dim", scales, "both positive, or 1 and 0")
        # else readers disagree

    def magnitude(self, mscale: float) -> float:
        """0.1 * mscale * ln(factor) + 1: the paper's sqrt(t); 1 when nothing is stretched."""
        return 1.0 if self.factor <= 1 else 0.1 * mscale * math.log(self.factor) + 1.0

    @property
    def softmax_magnitude(self) -> float:
        """What the softmax scale is multiplied by."""
        return self.magnitude(self.mscale_all_dim) ** 2

    @property
    def rotary_magnitude(self) -> float:
        """What cos and sin are multiplied by: 1 for V2 and V3, whose two mscales are equal (the
        softmax scale takes the rest)."""
        return self.magnitude(self.mscale) / self.magnitude(self.mscale_all_dim)


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's stretching (arXiv 2407.21783 section 3.4.2): slow channels are divided by
    `factor`, fast ones kept, in between a blend."""

    factor: float
    original_max_position_embeddings: int
    # Channels that turn fewer times over the original context are divided, those that turn more
    # often than the second are kept.
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    softmax_magnitude = rotary_magnitude = 1.0  # no fields: this stretching leaves magnitudes alone

    def __post_init__(self) -> None:
        _check_stretch(self)
        factors = (self.low_freq_factor, self.high_freq_factor)
        expect(
            0 < factors[0] < factors[1],
            "low_freq_factor, high_freq_factor",
            factors,
            "two positive numbers, the lower first",
        )


def _check_stretch(scaling: RopeScaling | Llama3Scaling) -> None:
    for name, value in vars(scaling).items():
        expect(
            holds(value, float) and abs(value) < LARGEST_REAL,
            name,
            value,
            f"a number below {LARGEST_REAL:g}",
        )
    expect(scaling.factor >= 1, "rope_scaling.factor", scaling.factor, "a number of at least 1")
    original = scaling.original_max_position_embeddings
    whole = isinstance(original, int) and original > 0
    expect(whole, "original_max_position_embeddings", original, "a whole number > 0")
