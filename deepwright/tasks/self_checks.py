"""Reading a chain of thought: which attempts it makes, what it says about each, and whether that is true.

This is analysis for reports and for deciding when reinforcement learning may start; rewards never depend on it.
An attempt is the equations up to a verdict word: "3 * 7 = 21 , 21 + 1 = 22 wait".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from deepwright.text.languages import WAITS, YESES
from deepwright.text.thoughts import WAIT, YES

_PIECE = re.compile(
    rf"\b(?:{'|'.join(sorted(WAITS | YESES))})\b|\b([0-9]{{1,9}}) ([-+*/]) ([0-9]{{1,9}}) = ([0-9]{{1,9}})(?![0-9])"
)


@dataclass(frozen=True)
class SelfCheck:
    """One attempt: the value its last equation claims, the verdict after it in whichever language (None when there is none), its equations."""

    value: int
    word: str | None
    equations_right: tuple[bool, ...]


@dataclass(frozen=True)
class Tally:
    """Checks and equations counted over attempts. Rates of nothing are None."""

    yes_equal: int = 0  # said yes, and the claimed value is the target
    yes_unequal: int = 0
    wait_equal: int = 0
    wait_unequal: int = 0
    equations: int = 0
    equations_right: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(self._all, other._all, strict=True)))

    @property
    def _all(self) -> tuple[int, ...]:
        return (
            self.yes_equal,
            self.yes_unequal,
            self.wait_equal,
            self.wait_unequal,
            self.equations,
            self.equations_right,
        )

    @property
    def yes_rate_when_equal(self) -> float | None:
        """How often a value that is the target is recognised."""
        return _rate(self.yes_equal, self.yes_equal + self.wait_equal)

    @property
    def wait_rate_when_unequal(self) -> float | None:
        """How often a value that is not the target is turned down."""
        return _rate(self.wait_unequal, self.yes_unequal + self.wait_unequal)

    @property
    def equation_accuracy(self) -> float | None:
        return _rate(self.equations_right, self.equations)


def self_checks(completion: str) -> list[SelfCheck]:
    """The attempts of a completion, in order; linear in its length. Text that is no equation or verdict is passed over."""
    attempts: list[SelfCheck] = []
    rights: list[bool] = []
    value = 0
    for match in _PIECE.finditer(completion):
        if match[1] is not None:
            value = int(match[4])
            rights.append(_is_right(int(match[1]), match[2], int(match[3]), value))
        elif rights:  # a verdict without an equation before it judges nothing
            attempts.append(SelfCheck(value, WAIT if match[0] in WAITS else YES, tuple(rights)))
            rights = []
    if rights:
        attempts.append(SelfCheck(value, None, tuple(rights)))
    return attempts


def tally(checks: Sequence[SelfCheck], target: int) -> Tally:
    """Counts over the attempts of one completion; add the results of several completions up."""
    said = [(check.word, check.value == target) for check in checks]
    rights = [right for check in checks for right in check.equations_right]
    counts = [said.count(pair) for pair in ((YES, True), (YES, False), (WAIT, True), (WAIT, False))]
    return Tally(*counts, len(rights), sum(rights))


def _is_right(left: int, operator: str, right: int, value: int) -> bool:
    if operator == "/":
        return right != 0 and left == value * right
    return {"+": left + right, "-": left - right, "*": left * right}[operator] == value


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
