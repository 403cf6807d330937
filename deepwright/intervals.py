"""How sure a share is: Wilson's interval, which says something where all or nothing is right too."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # of the normal distribution 95% lie within so many standard deviations


def wilson(share: float, trials: float) -> tuple[float, float]:
    """Wilson's 95% interval (1927) for a share among so many independent trials: all p from which
    it is at most Z95 standard deviations sqrt(p (1 - p) / trials) away."""
    z2 = Z95**2 / trials
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2**2 / 4) / (1 + z2)
    return middle - half if share > 0 else 0.0, middle + half if share < 1 else 1.0
