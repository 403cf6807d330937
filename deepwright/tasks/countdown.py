"""Countdown: make a target from a few numbers, each used exactly once. Hard to guess, easy to check: searching pays.

A problem is an unordered multiset of numbers with a target; the order of the numbers in the prompt is drawn anew for each
item. Held-out problems never occur in training, in whatever order; the same numbers with another target may.
Example: "nums 3 7 1 make 20 :" -> "<think> 3 * 7 = 21 , 21 - 1 = 20 yes </think> <answer> ( 3 * 7 ) - 1 </answer>".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement

from deepwright.refusals import expect
from deepwright.seeds import pick, shuffled, stream
from deepwright.tasks.expression import (
    ExpressionError,
    Tree,
    all_trees,
    evaluate,
    operators_ok,
    written,
)
from deepwright.tasks.task import Problem, Score, Split, Verdict, check_rewards, score_tags
from deepwright.text.languages import LANGUAGES, check_languages, consistency, language_of
from deepwright.text.thoughts import END_THINK, TAGS

_SPLIT, _ORDER_TRAIN, _ORDER_HELD_OUT = range(1, 4)  # purposes of random streams


@dataclass(frozen=True)
class Puzzle:
    """The identity of a problem: sorted numbers and the target, with every tree that solves it, and every tree of these numbers, which all their targets
    share: five numbers have thousands of them."""

    numbers: tuple[int, ...]
    target: int
    right: tuple[Tree, ...]
    trees: tuple[Tree, ...]

    @property
    def wrong(self) -> tuple[Tree, ...]:
        return tuple(tree for tree in self.trees if tree[0] != self.target)

    @property
    def kind(self) -> str:
        n = len(self.right)
        return "1 solution" if n == 1 else "2-3 solutions" if n <= 3 else "4+ solutions"


@dataclass(frozen=True)
class Countdown:
    """All solvable problems with `count` numbers in 1..largest, all values on the way in 0..limit, target in least..limit."""

    seed: int = 0
    count: int = 3
    largest: int = 10
    operators: str = "+-*"
    limit: int = 99
    least: int = 0
    held_out: int = 600
    format_reward: float = 0.1
    languages: tuple[str, ...] = ("en",)  # that problems are asked in
    language_reward: float = 0.0  # for a thought in the format whose words are all of the prompt's language; in proportion below that

    name = "countdown"

    def __post_init__(self) -> None:
        if not 2 <= self.count <= 5:
            raise ValueError(f"count is {self.count}, expected 2 to 5 numbers")
        if not operators_ok(self.operators):
            raise ValueError(
                f"operators is {self.operators!r}, expected some of + - * /, each once"
            )
        if not 1 <= self.largest <= self.limit or not 0 <= self.least <= self.limit:
            raise ValueError(
                f"largest {self.largest}, least {self.least}, limit {self.limit}: expected 1 <= largest <= limit and 0 <= least <= limit"
            )
        check_rewards(self, ("format_reward", "language_reward"))
        expect(self.held_out >= 1, "held_out", self.held_out, "at least 1")
        object.__setattr__(self, "languages", tuple(self.languages))  # options come as lists
        check_languages(self.languages)

    @cached_property
    def puzzles(self) -> dict[str, tuple[Puzzle, ...]]:
        """Every puzzle of each split. The order is drawn by the seed; the first `held_out` are held out."""
        everything = []
        for numbers in combinations_with_replacement(range(1, self.largest + 1), self.count):
            trees = tuple(all_trees(numbers, self.operators, self.limit))
            for target in sorted({tree[0] for tree in trees}):
                if target >= self.least:
                    right = tuple(tree for tree in trees if tree[0] == target)
                    everything.append(Puzzle(numbers, target, right, trees))
        if len(everything) <= self.held_out:
            raise ValueError(
                f"held_out is {self.held_out}, expected fewer than the {len(everything)} problems there are"
            )
        everything = shuffled(stream(self.seed, _SPLIT, 0), everything)
        return {
            "held_out": tuple(everything[: self.held_out]),
            "train": tuple(everything[self.held_out :]),
        }

    def size(self, split: Split) -> int:
        return len(self._of(split))

    def puzzle(self, i: int, split: Split) -> Puzzle:
        """Training items go on for ever, each round with new orders of the numbers; held-out items end."""
        puzzles = self._of(split)
        if i < 0 or (split == "held_out" and i >= len(puzzles)):
            raise ValueError(f"item {i} of {split}: expected 0 to {len(puzzles) - 1}")
        return puzzles[i % len(puzzles)]

    def problem(self, i: int, split: Split) -> Problem:
        puzzle = self.puzzle(i, split)
        order = stream(self.seed, _ORDER_TRAIN if split == "train" else _ORDER_HELD_OUT, i)
        numbers = shuffled(order, puzzle.numbers)
        language = pick(order, self.languages) if len(self.languages) > 1 else self.languages[0]
        prompt = self.prompt(numbers, puzzle.target, language)
        return Problem(i, prompt, written(puzzle.right[0], 0)[1], puzzle.kind)

    def score(self, problem: Problem, completion: str) -> Score:
        """1 for an expression that has the target's value and uses the given numbers once each, plus the format reward.
        Any exact way counts, also through fractions or below zero: the rule asks for the target, not for our search space."""
        numbers, target = read_prompt(problem.prompt)
        score = score_tags(
            completion, lambda answer: _check(answer, numbers, target), self.format_reward
        )
        if not self.language_reward or score.verdict is Verdict.MALFORMED:
            return score
        kept = self.language_reward * (
            consistency(completion.split(END_THINK)[0], language_of(problem.prompt)) or 0.0
        )
        return replace(score, value=score.value + kept, parts={**score.parts, "language": kept})

    def prompt(self, numbers: Sequence[int], target: int, language: str = "en") -> str:
        words = LANGUAGES[language]
        return f"{words.nums} {' '.join(map(str, numbers))} {words.make} {target} {words.colon}"

    def worked(self, tree: Tree, flips: int) -> tuple[tuple[str, ...], str]:
        """How an author writes a tree: (equations, expression); see `expression.written`."""
        return written(tree, flips)

    @cached_property
    def equations(self) -> tuple[str, ...]:
        """Every equation that an attempt at any puzzle can contain, both ways round where the operator allows it."""
        found: set[str] = set()
        for numbers in sorted(
            {puzzle.numbers for puzzles in self.puzzles.values() for puzzle in puzzles}
        ):
            for tree in all_trees(numbers, self.operators, self.limit):
                for flips in (0, (1 << self.count) - 1):
                    found.update(written(tree, flips)[0])
        return tuple(sorted(found))

    def tokenizer_words(self) -> tuple[str, ...]:
        """One language: "nums", "make", ... as they always stood; more follow."""
        first, *others = (LANGUAGES[name].puzzle_words for name in self.languages)
        signs = ("=", ",", ";", "(", ")")
        return (
            *first[:3],
            *signs,
            *first[3:],
            *TAGS,
            *self.operators,
            *(word for words in others for word in words),
        )

    @property
    def largest_number(self) -> int:
        return self.limit

    def _of(self, split: Split) -> tuple[Puzzle, ...]:
        if split not in ("train", "held_out"):
            raise ValueError(f"split is {split!r}, expected 'train' or 'held_out'")
        return self.puzzles[split]


def read_prompt(prompt: str) -> tuple[list[int], int]:
    """(numbers in their order, target) of a prompt that `Countdown.prompt` made."""
    words = prompt.split()
    assert (words[0], words[-3], words[-1]) in [
        (one.nums, one.make, one.colon) for one in LANGUAGES.values()
    ], prompt
    return [int(word) for word in words[1:-3]], int(words[-2])


def _check(answer: str, numbers: list[int], target: int) -> tuple[bool, str]:
    try:
        value, used = evaluate(answer)
    except ExpressionError as error:
        return False, f"not an expression: {error}"
    if sorted(used) != sorted(numbers):
        return False, "uses other numbers than given"
    return value == target, f"makes {value}"
