"""What a small base model reads before reinforcement learning: a population of authors who do Countdown well, badly, or not at all.

Every document is about a training problem; held-out ones never occur. Nobody here is shown which author earns the reward:
guessers, people who try once and answer whatever came out, and searchers of varying patience write side by side, in and
out of the tags. What the corpus does contain must be said with any result: searching with "wait" is in it, and so is checking.

    facts      "3 * 7 = 21 ; 21 - 1 = 20 ; ..."
    exercises  "nums 3 7 1 make 20 : 3 * 7 = 21 , 21 + 1 = 22 wait 3 * 7 = 21 , 21 - 1 = 20 yes ..." (marked, not answered)
    direct     an expression drawn uniformly, answered with little thought or none
    single     one attempt worked out, answered whatever it makes
    searchers  attempts, none twice, until one is right or the author gives up

A document is a function of (seed, i). Held-out numbers with another target may occur, so that an attempt can show an
equation that also solves a held-out problem: it shows arithmetic, never that problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from deepwright.seeds import pick, shuffled, stream
from deepwright.text.languages import LANGUAGES
from deepwright.text.thoughts import ANSWER, END_ANSWER, END_THINK, THINK

_DOCUMENT = 96  # purpose of the random stream
Tree = tuple  # (value, ...): how one value is made


class Puzzle(Protocol):
    numbers: tuple[int, ...]
    target: int
    right: tuple[Tree, ...]  # every way that makes the target
    wrong: tuple[Tree, ...]  # every other way to use the numbers


class PuzzleTask(Protocol):
    """What this corpus asks of its task (`tasks.Countdown`)."""

    count: int
    limit: int
    puzzles: Mapping[str, Sequence[Puzzle]]
    equations: Sequence[str]

    languages: Sequence[str]

    def prompt(self, numbers: Sequence[int], target: int, language: str = "en") -> str: ...

    def worked(self, tree: Tree, flips: int) -> tuple[tuple[str, ...], str]: ...


@dataclass(frozen=True)
class CountdownCorpus:
    """Shares are of what the shares before them left over, except the last three kinds, which share what remains."""

    task: PuzzleTask
    seed: int = 0
    facts: float = 0.12
    exercises: float = 0.15
    direct: float = 0.30  # these three must add up to 1
    single: float = 0.25
    searchers: float = 0.45
    tagged: float = (
        0.60  # documents with all four tags in place; the others are prose or half-tagged
    )
    empty_thought: float = 0.25  # direct documents that think nothing at all
    facts_per_document: tuple[int, int] = (6, 14)
    attempts_per_exercise: tuple[int, int] = (2, 6)
    short_exercises: float = (
        0.0  # exercises whose attempts are single equations: twice the checks in as many tokens
    )
    exercise_right: float = 0.5
    longest_search: int = 14  # attempts
    give_up: tuple[float, ...] = (
        0.4,
        0.25,
        0.12,
    )  # a searcher's chance to stop after a failure; each author has one of these
    heuristic: float = (
        0.5  # searchers that look at `candidates` attempts and take the one nearest the target
    )
    candidates: int = 3
    mixed: float = 0.0  # documents whose author takes each word from any language of the task

    def __post_init__(self) -> None:
        shares = ("facts", "exercises", "direct", "single", "searchers", "tagged", "empty_thought", "short_exercises",
                  "exercise_right", "heuristic", "mixed")  # fmt: skip
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a share in [0, 1]")
        if abs(self.direct + self.single + self.searchers - 1) > 1e-9:
            raise ValueError(
                f"direct + single + searchers is {self.direct + self.single + self.searchers}, expected 1"
            )
        for name in ("facts_per_document", "attempts_per_exercise"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise ValueError(
                    f"{name} is {(low, high)}, expected (least, most) with 1 <= least <= most"
                )
        if (
            self.longest_search < 1
            or self.candidates < 1
            or not self.give_up
            or not all(0 <= p <= 1 for p in self.give_up)
        ):
            raise ValueError(f"longest_search {self.longest_search}, candidates {self.candidates}, give_up {self.give_up}: "
                             "expected at least 1, at least 1, and some chances in [0, 1]")  # fmt: skip

    def document(self, i: int) -> str:
        return self.labelled(i)[1]

    def labelled(self, i: int) -> tuple[str, str]:
        """(kind, document) of item i; the kind is for statistics."""
        rng = stream(self.seed, _DOCUMENT, i)
        if rng.random() < self.facts:
            return "facts", self._facts(rng)
        puzzle = pick(rng, self.task.puzzles["train"])
        numbers, languages = shuffled(rng, puzzle.numbers), self.task.languages
        language = pick(rng, languages) if len(languages) > 1 else languages[0]
        speaks = languages if self.mixed and rng.random() < self.mixed else (language,)
        prompt = self.task.prompt(numbers, puzzle.target, language)
        if rng.random() < self.exercises:
            return "exercises", f"{prompt} {self._exercise(rng, puzzle, speaks)}"
        style = rng.random()
        if style < self.direct:
            kind, (thought, answer) = "direct", self._direct(rng, puzzle)
        elif style < self.direct + self.single:
            kind, (thought, answer) = "single", self._single(rng, puzzle)
        else:
            kind, (thought, answer) = "searchers", self._search(rng, puzzle, speaks)
        return kind, f"{prompt} {self._laid_out(rng, thought, answer, speaks)}"

    def _facts(self, rng: Random) -> str:
        return " ; ".join(
            pick(rng, self.task.equations) for _ in range(_between(rng, self.facts_per_document))
        )

    def _exercise(self, rng: Random, puzzle: Puzzle, speaks: Sequence[str]) -> str:
        short, wrong = rng.random() < self.short_exercises, puzzle.wrong
        parts = []
        for _ in range(_between(rng, self.attempts_per_exercise)):
            right = not wrong or rng.random() < self.exercise_right
            equations, _, value = self._worked(rng, pick(rng, puzzle.right if right else wrong))
            parts.append(
                f"{equations[-1] if short else ' , '.join(equations)} {_mark(rng, value == puzzle.target, speaks)}"
            )
        return " ".join(parts)

    def _direct(self, rng: Random, puzzle: Puzzle) -> tuple[str, str]:
        """A guess; some repeat it as their whole thought."""
        _, expression, _ = self._worked(rng, _any_tree(rng, puzzle))
        return ("" if rng.random() < self.empty_thought else expression), expression

    def _single(self, rng: Random, puzzle: Puzzle) -> tuple[str, str]:
        equations, expression, _ = self._worked(rng, _any_tree(rng, puzzle))
        return " , ".join(equations), expression

    def _search(self, rng: Random, puzzle: Puzzle, speaks: Sequence[str]) -> tuple[str, str]:
        """Attempts until one is right. Who gives up, or has nothing left to try, answers the last attempt all the same."""
        untried = list(puzzle.right + puzzle.wrong)
        give_up = pick(rng, self.give_up)
        looks = self.candidates if rng.random() < self.heuristic else 1
        thought: list[str] = []
        expression = ""
        for _ in range(self.longest_search):
            tree = _take_nearest(rng, untried, puzzle.target, looks)
            equations, expression, value = self._worked(rng, tree)
            thought.append(f"{' , '.join(equations)} {_mark(rng, value == puzzle.target, speaks)}")
            if value == puzzle.target or not untried or rng.random() < give_up:
                break
        return " ".join(thought), expression

    def _laid_out(self, rng: Random, thought: str, answer: str, speaks: Sequence[str]) -> str:
        if rng.random() < self.tagged:
            return " ".join(filter(None, (THINK, thought, END_THINK, ANSWER, answer, END_ANSWER)))
        style, said = int(rng.random() * 4), LANGUAGES[speaks[0]]
        if style == 0:
            words = (thought, said.answer, said.colon, answer)
        elif style == 1:
            words = (thought, ANSWER, answer, END_ANSWER)
        elif style == 2:
            words = (THINK, thought, END_THINK, said.answer, said.colon, answer)
        else:
            words = (thought if thought != answer else "", said.answer, answer)
        return " ".join(filter(None, words))

    def _worked(self, rng: Random, tree: Tree) -> tuple[tuple[str, ...], str, int]:
        """(equations, expression, the value that the author arrives at)."""
        equations, expression = self.task.worked(
            tree, int(rng.random() * (1 << (self.task.count - 1)))
        )
        return equations, expression, tree[0]


def _mark(rng: Random, right: bool, speaks: Sequence[str]) -> str:
    """What an author who speaks these languages writes after an attempt."""
    language = LANGUAGES[pick(rng, speaks) if len(speaks) > 1 else speaks[0]]
    return language.yes if right else language.wait


def _between(rng: Random, bounds: tuple[int, int]) -> int:
    return bounds[0] + int(rng.random() * (bounds[1] - bounds[0] + 1))


def _any_tree(rng: Random, puzzle: Puzzle) -> Tree:
    ways = puzzle.right + puzzle.wrong
    return ways[int(rng.random() * len(ways))]


def _take_nearest(rng: Random, untried: list[Tree], target: int, looks: int) -> Tree:
    """Takes out the best of `looks` trees drawn uniformly, by how near the value is to the target."""
    places = [int(rng.random() * len(untried)) for _ in range(looks)]
    best = min(places, key=lambda place: abs(untried[place][0] - target))
    untried[best], untried[-1] = untried[-1], untried[best]
    return untried.pop()
