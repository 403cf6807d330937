"""Sums of a few small numbers for a real chat model: "Work out 3 + 4 - 2." with one worked example before it, answer in \\boxed{}.

Small enough that a model of 135M parameters learns it on two cores, and its kinds are the sign patterns, so that "always add"
shows. A problem is its expression, and its hash alone decides on which side it stands, whatever the seed. More terms and larger
numbers make the problems that transfer is measured on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from random import Random

from deepwright.seeds import pick, stream
from deepwright.tasks.answers import digest
from deepwright.tasks.task import ChatTask, Layout, Problem, Reading, Split, framed

_DRAW, _EXAMPLE = 48, 49  # purposes of random streams
_HELD_OUT_OF = 8  # one problem in so many may be held out


@dataclass(frozen=True)
class Calc3(ChatTask):
    """Sums of `terms` numbers in 1..largest with at most `minuses` minus signs; by default a+b+c, a+b-c and a-b+c."""

    seed: int = 0
    terms: int = 3
    largest: int = 10
    minuses: int = 1
    train: int = 2000
    held_out: int = 240
    examples: int = 1
    layout: Layout = "boxed"
    format_reward: float = 0.1
    reading: Reading | None = None

    name = "calc3"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            not 2 <= self.terms <= 12
            or not 2 <= self.largest <= 10**6
            or not 0 <= self.minuses < self.terms
        ):
            raise ValueError(
                f"terms {self.terms}, largest {self.largest}, minuses {self.minuses}: expected 2 to 12, 2 to 1000000, and 0 to terms - 1"
            )

    @cached_property
    def patterns(self) -> tuple[str, ...]:
        """("++", "+-", "-+") for three terms and one minus."""
        signs = ("".join(signs) for signs in product("+-", repeat=self.terms - 1))
        return tuple(pattern for pattern in signs if pattern.count("-") <= self.minuses)

    @cached_property
    def problems(self) -> dict[str, tuple[tuple[tuple[int, ...], str], ...]]:
        """(numbers, pattern) of each split, all different, drawn until both splits are full."""
        found: dict[str, dict[str, tuple]] = {"train": {}, "held_out": {}}
        shown = {written(*example) for example in self._examples}
        for i in range(40 * (self.train + _HELD_OUT_OF * self.held_out)):
            one = self._draw(stream(self.seed, _DRAW, i))
            text = written(*one)
            split = "train" if digest(text) % _HELD_OUT_OF else "held_out"
            if len(found[split]) < self.sizes[split] and text not in shown:
                found[split].setdefault(text, one)
            if all(len(found[split]) == size for split, size in self.sizes.items()):
                return {split: tuple(chosen.values()) for split, chosen in found.items()}
        had = {split: len(chosen) for split, chosen in found.items()}
        raise ValueError(
            f"train {self.train}, held_out {self.held_out}: these numbers give only about {had} different problems"
        )

    def _draw(self, rng: Random) -> tuple[tuple[int, ...], str]:
        return tuple(1 + int(rng.random() * self.largest) for _ in range(self.terms)), pick(
            rng, self.patterns
        )

    @cached_property
    def _examples(self) -> tuple[tuple[tuple[int, ...], str], ...]:
        """Worked examples: the same for all problems, so that they share their prompt's beginning; never asked."""
        return tuple(self._draw(stream(self.seed, _EXAMPLE, i)) for i in range(self.examples))

    def problem(self, i: int, split: Split) -> Problem:
        at = self.place(i, split)
        numbers, pattern = self.problems[split][at]
        question = f"Work out {written(numbers, pattern)}."
        examples = [
            (f"Work out {written(*one)}.", worked(*one, self.layout)) for one in self._examples
        ]
        return Problem(
            i,
            question,
            str(values(numbers, pattern)[-1]),
            kind(pattern),
            self.conversation(question, examples),
        )

    def judge(
        self, problems: Sequence[Problem], answers: Sequence[str]
    ) -> list[tuple[bool | None, str]]:
        return [
            _check(answer.strip(), problem.answer)
            for problem, answer in zip(problems, answers, strict=True)
        ]


def written(numbers: Sequence[int], pattern: str) -> str:
    """(3, 4, 2), "+-" -> "3 + 4 - 2"."""
    return str(numbers[0]) + "".join(
        f" {sign} {n}" for sign, n in zip(pattern, numbers[1:], strict=True)
    )


def values(numbers: Sequence[int], pattern: str) -> list[int]:
    """The running values: (3, 4, 2), "+-" -> [3, 7, 5]."""
    running = [numbers[0]]
    for sign, n in zip(pattern, numbers[1:], strict=True):
        running.append(running[-1] + n if sign == "+" else running[-1] - n)
    return running


def worked(numbers: Sequence[int], pattern: str, layout: Layout) -> str:
    """ "3 + 4 = 7, 7 - 2 = 5. \\boxed{5}"."""
    running = values(numbers, pattern)
    steps = [
        f"{a} {sign} {n} = {b}" for a, sign, n, b in zip(running, pattern, numbers[1:], running[1:])
    ]
    return framed(layout, ", ".join(steps) + ".", str(running[-1]))


def kind(pattern: str) -> str:
    """ "+-" -> "a+b-c"."""
    return "a" + "".join(f"{sign}{letter}" for sign, letter in zip(pattern, "bcdefghijkl"))


def _check(answer: str, wanted: str) -> tuple[bool, str]:
    if not re.fullmatch(r"-?[0-9]{1,9}", answer, re.ASCII):
        return False, "not one whole number"
    return int(answer) == int(wanted), f"says {int(answer)}"
