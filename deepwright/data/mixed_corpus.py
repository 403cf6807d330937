"""One corpus of several: item i comes from one of them, by its share. A function of (seed, i), as its parts are."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from deepwright.seeds import stream

_CHOICE = 97  # purpose of the random stream


class Labelled(Protocol):
    def labelled(self, i: int) -> tuple[str, str]:
        """(kind, document) of item i."""
        ...


@dataclass(frozen=True)
class MixedCorpus:
    """`parts`: corpora with their shares, which must add up to 1."""

    parts: Sequence[tuple[float, Labelled]]
    seed: int = 0

    def __post_init__(self) -> None:
        shares = [share for share, _ in self.parts]
        if min(shares, default=0) < 0 or abs(sum(shares) - 1) > 1e-9:
            raise ValueError(
                f"the shares of a mixed corpus are {shares}, expected none below 0 and a sum of 1"
            )

    def document(self, i: int) -> str:
        return self.labelled(i)[1]

    def labelled(self, i: int) -> tuple[str, str]:
        bounds = list(accumulate(share for share, _ in self.parts))
        place = bisect(bounds, stream(self.seed, _CHOICE, i).random())
        return self.parts[min(place, len(bounds) - 1)][1].labelled(
            i
        )  # the last bound may fall short of 1 by rounding
