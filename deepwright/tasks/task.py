"""What every task shares: its nouns, the reward, and the one place where a failing check is caught.

Item i of a split is a function of (seed, i). Rewards are rules only (R1v1 section 2.2): accuracy and format, no model. A completion
has one of two layouts: "tags" (<think> .. </think> <answer> .. </answer>) or "boxed" (any thought, then one \\boxed{..}).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from deepwright.refusals import expect, expect_each
from deepwright.tasks.answers import same_here
from deepwright.tasks.completions import READINGS, Layout, Reading, read_completion
from deepwright.text.thoughts import ANSWER, END_ANSWER, END_THINK, THINK

Split = Literal["train", "held_out"]
INSTRUCTIONS = {
    "tags": f"Think inside {THINK} {END_THINK}, then give the final answer inside {ANSWER} {END_ANSWER}.",
    "boxed": "Put the final answer in \\boxed{}.",
}


@dataclass(frozen=True)
class Problem:
    """`answer` is one reference answer, not the only right one; `kind` is the difficulty it is reported under. Where `messages`
    ({"role", "content"}, the last one the user's) are given, a chat model continues them, rendered by its template, instead of `prompt`,
    which then is only the question. `columns`: whatever else a data row holds, for the check and for user rewards."""

    index: int
    prompt: str
    answer: str
    kind: str
    messages: tuple[Mapping[str, str], ...] = field(default=(), hash=False)
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)


class Verdict(enum.Enum):
    CORRECT = "correct"
    WRONG = "wrong"  # the format holds, the answer is not right
    MALFORMED = "malformed"  # the format does not hold; the answer was not looked at
    FAILED = "failed"  # the verifier itself broke: says nothing about the answer


@dataclass(frozen=True)
class Score:
    """`value` is the reward, finite, the sum of `parts` ("accuracy", "format"); `detail` says why,
    in one phrase; `logged` is what a user's own reward wants to be kept with the sample."""

    value: float
    verdict: Verdict
    detail: str
    parts: Mapping[str, float] = field(default_factory=lambda: {"accuracy": 0.0, "format": 0.0})
    logged: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect(math.isfinite(self.value), "a reward", self.value, "a finite number")

    @property
    def formatted(self) -> bool:
        """Whether a format was asked for and kept, whatever it pays: without a "format" among the parts nobody looked."""
        return "format" in self.parts and self.verdict in (Verdict.CORRECT, Verdict.WRONG)


@dataclass(frozen=True)
class Sampled:
    """Beside their texts, what is known of completions that are scored: their token ids, and the
    step of training, out of how many, that samples them (0 of 1 where nothing is trained)."""

    token_ids: Sequence[Sequence[int]]
    step: int = 0
    steps: int = 1

    def of(self, places: Sequence[int]) -> Sampled:
        return replace(self, token_ids=[self.token_ids[place] for place in places])


def check_rewards(task: object, names: Sequence[str]) -> None:
    """Refuses pay for the form that is no number, or negative: that would pay for breaking it."""
    expect_each(task, names, lambda value: 0 <= value < math.inf, "0 or a positive number")


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
        return Score(
            0.0,
            Verdict.FAILED,
            f"the check of {task.name!r} raised {type(error).__name__}: {error}",
        )


def score_all(
    task: Task,
    problems: Sequence[Problem],
    completions: Sequence[str],
    sampled: Sampled | None = None,
) -> list[Score]:
    """The scores of many completions. A task whose check runs in other processes offers
    `score_many` and judges them side by side; one that wants to know how they were sampled offers
    `score_sampled`."""
    if not hasattr(task, "score_many"):
        return [
            safe_score(task, problem, completion)
            for problem, completion in zip(problems, completions, strict=True)
        ]
    try:
        if sampled is not None and hasattr(task, "score_sampled"):
            return task.score_sampled(problems, completions, sampled)
        return task.score_many(problems, completions)
    except Exception as error:
        return [failed(f"the check of {task.name!r} raised {type(error).__name__}: {error}")] * len(
            completions
        )


def failed(detail: str) -> Score:
    return Score(0.0, Verdict.FAILED, detail)


def score_tags(
    completion: str, check: Callable[[str], tuple[bool, str]], format_reward: float
) -> Score:
    """`score_layout` for <think> .. </think> <answer> .. </answer>."""
    return score_layout(completion, "tags", check, format_reward)


def score_layout(
    completion: str, layout: Layout, check: Callable[[str], tuple[bool, str]], format_reward: float
) -> Score:
    """Format first, then `check(answer) -> (right, detail)`: 1 for a right answer, plus `format_reward` for the format.
    An answer in the wrong format earns nothing, so MALFORMED means exactly that the format part is 0."""
    found = read_layout(completion, layout)
    if isinstance(found, str):
        return Score(0.0, Verdict.MALFORMED, found)
    return scored(*check(found[1]), format_reward)


def read_layout(
    completion: str, layout: Layout, reading: Reading = "strict"
) -> tuple[str, str] | str:
    """(thought, answer), or what is wrong with the format."""
    return read_completion(completion, layout, reading, same_here)


def scored(right: bool | None, detail: str, format_reward: float) -> Score:
    """The score of an answer in the right format; `right` is None where the check itself broke."""
    if right is None:
        return failed(detail)
    parts = {"accuracy": 1.0 if right else 0.0, "format": format_reward}
    return Score(sum(parts.values()), Verdict.CORRECT if right else Verdict.WRONG, detail, parts)


def framed(layout: Layout, thought: str, answer: str) -> str:
    """A completion in the layout: what worked examples show."""
    if layout == "tags":
        return f"{THINK} {thought} {END_THINK} {ANSWER} {answer} {END_ANSWER}"
    return f"{thought} \\boxed{{{answer}}}".lstrip()


def reference_completion(task: Task, problem: Problem) -> str:
    """The reference answer in the layout that the task asks for, as a worked example would show it."""
    if isinstance(task, ChatTask):
        return framed(task.layout, "Answer:", problem.answer)
    return framed("tags", problem.answer, problem.answer)  # word lists may have no other word


def paid(task: Task) -> Task:
    """The task as a reward: completions are read strictly, unless it says how they are read."""
    undecided = isinstance(task, ChatTask) and task.reading is None
    return replace(task, reading="strict") if undecided else task


class ChatTask:
    """What tasks for models with a tokenizer of their own share: conversations, sizes, scores in batches, no word list.

    A subclass is a dataclass with `layout`, `format_reward`, `reading`, `judge`, and `train` and
    `held_out` (or `sizes`)."""

    layout: Layout
    format_reward: float
    reading: Reading | None  # None: as usual, but strictly where it is paid for

    def __post_init__(self) -> None:
        expect(self.layout in INSTRUCTIONS, "layout", self.layout, "'tags' or 'boxed'")
        known = self.reading is None or self.reading in READINGS
        expect(known, "reading", self.reading, "'strict' or 'usual'")
        check_rewards(self, ("format_reward",))
        least = {"train": 1, "held_out": 1, "held_out_of": 1, "examples": 0, "seconds": 0.01}
        for name, smallest in least.items():
            value = getattr(self, name, smallest)
            expect(smallest <= value < math.inf, name, value, f"at least {smallest}")

    @property
    def read_as(self) -> Reading:
        """How completions are read where nobody pays for them (`paid`)."""
        return self.reading or "usual"

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": self.train, "held_out": self.held_out}  # type: ignore[attr-defined]

    def size(self, split: Split) -> int:
        if split not in ("train", "held_out"):
            raise ValueError(f"split is {split!r}, expected 'train' or 'held_out'")
        return self.sizes[split]

    def place(self, i: int, split: Split) -> int:
        """Where item i of a split lies: training items repeat, held-out items end."""
        size = self.size(split)
        if not size:
            raise ValueError(f"{self.name} has no {split} problems")
        if i < 0 or (split == "held_out" and i >= size):
            raise ValueError(f"item {i} of {split}: expected 0 to {size - 1}")
        return i % size

    def conversation(
        self, question: str, examples: Sequence[tuple[str, str]] = (), instruction: str = ""
    ) -> tuple[dict[str, str], ...]:
        """User and assistant turns of (question, completion) examples, then the question, each with
        what the layout asks for, or the instruction given."""
        instruction = instruction or INSTRUCTIONS[self.layout]
        turns = []
        for asked, completion in (*examples, (question, "")):
            turns.append({"role": "user", "content": f"{asked}\n{instruction}"})
            turns.append({"role": "assistant", "content": completion})
        return tuple(turns[:-1])

    def read(self, problem: Problem, completion: str) -> tuple[str, str] | str:
        """(thought, answer), or what is wrong with the format."""
        return read_layout(completion, self.layout, self.read_as)

    def judge(
        self, problems: Sequence[Problem], answers: Sequence[str]
    ) -> list[tuple[bool | None, str]]:
        """(right, detail) of each answer; None where the check itself broke."""
        raise NotImplementedError

    def score(self, problem: Problem, completion: str) -> Score:
        return self.score_many([problem], [completion])[0]

    def score_many(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score]:
        """1 for a right answer, plus the format reward; nothing for a wrong format, whose answer is not looked at."""
        found = [self.read(*one) for one in zip(problems, completions, strict=True)]
        asked = [
            (problem, one[1])
            for problem, one in zip(problems, found, strict=True)
            if not isinstance(one, str)
        ]
        judged = iter(self.judge(*zip(*asked)) if asked else ())
        return [
            Score(0.0, Verdict.MALFORMED, one)
            if isinstance(one, str)
            else scored(*next(judged), self.format_reward)
            for one in found
        ]

    def tokenizer_words(self) -> tuple[str, ...]:
        return ()

    @property
    def largest_number(self) -> int:
        return 0
