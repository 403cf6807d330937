"""What every task shares: its nouns, the reward, and the one place where a failing check is caught.

Item i of a split is a function of (seed, i). Rewards are rules only (R1v1 section 2.2): accuracy and format, no model.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from deepwright.text.thoughts import read_tags

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Problem:
    """`answer` is one reference answer, not the only right one; `kind` is the difficulty it is reported under."""

    index: int
    prompt: str
    answer: str
    kind: str


class Verdict(enum.Enum):
    CORRECT = "correct"
    WRONG = "wrong"  # the format holds, the answer is not right
    MALFORMED = "malformed"  # the format does not hold; the answer was not looked at
    FAILED = "failed"  # the verifier itself broke: says nothing about the answer


@dataclass(frozen=True)
class Score:
    """`value` is the reward, the sum of `parts` ("accuracy", "format"); `detail` says why in one phrase."""

    value: float
    verdict: Verdict
    detail: str
    parts: Mapping[str, float] = field(default_factory=lambda: {"accuracy": 0.0, "format": 0.0})


class Task(Protocol):
    name: str

    def problem(self, i: int, split: Split) -> Problem: ...

    def size(self, split: Split) -> int: ...

    def score(self, problem: Problem, completion: str) -> Score: ...

    def tokenizer_words(self) -> tuple[str, ...]:
        """Every word but the numbers that prompts, answers and corpora of this task use, in vocabulary order."""
        ...

    @property
    def largest_number(self) -> int: ...


def safe_score(task: Task, problem: Problem, completion: str) -> Score:
    """`task.score`, with a verifier that raises reported as FAILED (value 0): a broken check must be counted, not look like
    a wrong answer and not end a run. The only place where such an error is caught."""
    try:
        return task.score(problem, completion)
    except Exception as error:
        return Score(0.0, Verdict.FAILED, f"the check of {task.name!r} raised {type(error).__name__}: {error}")


def score_tags(completion: str, check: Callable[[str], tuple[bool, str]], format_reward: float) -> Score:
    """Format first, then `check(answer) -> (right, detail)`: 1 for a right answer, plus `format_reward` for the format.
    An answer in the wrong format earns nothing, so MALFORMED means exactly that the format part is 0."""
    tags = read_tags(completion)
    if isinstance(tags, str):
        return Score(0.0, Verdict.MALFORMED, tags)
    right, detail = check(tags[1])
    parts = {"accuracy": 1.0 if right else 0.0, "format": format_reward}
    return Score(sum(parts.values()), Verdict.CORRECT if right else Verdict.WRONG, detail, parts)
