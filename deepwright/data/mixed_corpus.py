"""One corpus of several: item i comes from one of them, by its share. A function of (seed, i), as its parts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
            raise ValueError(f"the shares of a mixed corpus are {shares}, expected none below 0 and a sum of 1")

    def document(self, i: int) -> str:
        return self.labelled(i)[1]

    def labelled(self, i: int) -> tuple[str, str]:
        place, (_, corpus), *others = stream(self.seed, _CHOICE, i).random() - self.parts[0][0], *self.parts
        for share, other in others:
            if place >= 0:
                place, corpus = place - share, other
        return corpus.labelled(i)
