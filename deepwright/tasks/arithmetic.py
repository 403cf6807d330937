"""Chains of arithmetic with graded difficulty: "calc ( 3 + 4 ) * 2 :" -> "<think> 3 + 4 = 7 , 7 * 2 = 14 </think> <answer> 14 </answer>".

A problem is its expression; the same expression is never on both sides. The answer must be one plain number, so that
repeating the question is not an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random

from deepwright.seeds import pick, stream
from deepwright.tasks.expression import MAX_DIGITS, apply, operators_ok
from deepwright.tasks.task import Problem, Score, Split, score_tags
from deepwright.text.thoughts import TAGS

_WORDS = ("calc", ":", "=", ",", "(", ")", *TAGS)
_DRAW = 1  # purpose of the random stream


@dataclass(frozen=True)
class Arithmetic:
    """Chains of 2..`terms` numbers in 0..largest, every value on the way a whole number in 0..limit."""

    seed: int = 0
    terms: int = 4
    largest: int = 20
    operators: str = "+-*"
    limit: int = 99
    train: int = 5000
    held_out: int = 500
    format_reward: float = 0.1

    name = "arithmetic"

    def __post_init__(self) -> None:
        if self.terms < 2 or self.held_out < 1 or self.train < 1 or self.format_reward < 0:
            raise ValueError(
                f"terms {self.terms}, train {self.train}, held_out {self.held_out}, format_reward {self.format_reward}: "
                "expected at least 2, 1, 1 and 0"
            )
        if not operators_ok(self.operators):
            raise ValueError(f"operators is {self.operators!r}, expected some of + - * /, each once")
        if not 1 <= self.largest <= self.limit:
            raise ValueError(f"largest {self.largest}, limit {self.limit}: expected 1 <= largest <= limit")

    @cached_property
    def chains(self) -> tuple[tuple[str, int, int], ...]:
        """(expression, value, terms), all different: the held-out ones first, then those of training."""
        found: dict[str, tuple[str, int, int]] = {}
        wanted = self.held_out + self.train
        for i in range(20 * wanted):  # far more than enough, unless the numbers allow too few chains
            chain = self._chain(stream(self.seed, _DRAW, i))
            found.setdefault(chain[0], chain)
            if len(found) == wanted:
                return tuple(found.values())
        raise ValueError(f"train + held_out is {wanted}, but these settings give only about {len(found)} different problems")

    def _chain(self, rng: Random) -> tuple[str, int, int]:
        terms = 2 + int(rng.random() * (self.terms - 1))
        value = int(rng.random() * (self.largest + 1))
        text, last = str(value), ""
        for _ in range(terms - 1):
            steps = [(op, n) for op in self.operators for n in range(self.largest + 1) if apply(op, value, n, self.limit) is not None]
            operator = pick(rng, sorted({op for op, _ in steps}))
            number = pick(rng, [n for op, n in steps if op == operator])
            if operator in "*/" and last and last in "+-":
                text = f"( {text} )"
            text, last = f"{text} {operator} {number}", operator
            value = apply(operator, value, number, self.limit)
        return text, value, terms

    def size(self, split: Split) -> int:
        if split not in ("train", "held_out"):
            raise ValueError(f"split is {split!r}, expected 'train' or 'held_out'")
        return self.train if split == "train" else self.held_out

    def problem(self, i: int, split: Split) -> Problem:
        """Training items repeat after `train`; held-out items end."""
        size = self.size(split)
        if i < 0 or (split == "held_out" and i >= size):
            raise ValueError(f"item {i} of {split}: expected 0 to {size - 1}")
        text, value, terms = self.chains[i if split == "held_out" else self.held_out + i % size]
        return Problem(i, f"calc {text} :", str(value), f"{terms} terms")

    def score(self, problem: Problem, completion: str) -> Score:
        """1 for the value as one plain number, plus the format reward."""
        return score_tags(completion, lambda answer: _check(answer.strip(), problem.answer), self.format_reward)

    def tokenizer_words(self) -> tuple[str, ...]:
        return (*_WORDS, *self.operators)

    @property
    def largest_number(self) -> int:
        return self.limit


def _check(answer: str, wanted: str) -> tuple[bool, str]:
    if len(answer) > MAX_DIGITS or not (answer.isascii() and answer.isdigit()):
        return False, "not one whole number"
    return int(answer) == int(wanted), f"says {int(answer)}"
