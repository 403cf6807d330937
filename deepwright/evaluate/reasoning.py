"""How an answer was reached: attempts, self-checks, whether the first try was already right. Only described, never rewarded.

A task that can be read this way offers `analyse(problem, text) -> Reasoning`; for Countdown it stands here. Other tasks are simply not described.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from deepwright.tasks import Countdown, Problem, Task
from deepwright.tasks.answers import number, plain
from deepwright.tasks.completions import Reading
from deepwright.tasks.countdown import read_prompt
from deepwright.tasks.expression import ExpressionError, evaluate
from deepwright.tasks.self_checks import Tally, self_checks, tally
from deepwright.tasks.task import INSTRUCTIONS, read_layout
from deepwright.text.languages import consistency, language_of
from deepwright.text.thoughts import WAIT, split_thought


@dataclass(frozen=True)
class Reasoning:
    """One completion. An attempt fails when the value it claims is not the target, whatever the text says about it."""

    attempts: int = 0
    self_checks: int = 0  # attempts that the text itself turned down
    first_failed: bool = False  # False also where the answer was given without any attempt
    tally: Tally = field(default_factory=Tally)  # verdict words against the truth, and equations
    consistency: float | None = (
        None  # of the thought with the language of the prompt; None: it says no word
    )


@dataclass(frozen=True, kw_only=True)
class Habits:
    """Reasoning over many completions. Shares are of all completions unless said; a share of nothing is None, as is all where nothing can be read."""

    self_check_rate: float | None = None
    self_checks_per_answer: float | None = None
    attempts_per_answer: float | None = None
    accuracy_with_self_check: float | None = None
    accuracy_without_self_check: float | None = None
    turned_right_rate: float | None = None  # first attempt failed and the final answer is right
    turned_right_share: float | None = (
        None  # the same, as a share of the right answers that check themselves
    )
    checker_yes: float | None = (
        None  # of attempts with a verdict whose value is the target: how many it accepts
    )
    checker_no: float | None = None  # of those whose value is not: how many it turns down
    equations_right: float | None = None  # of all equations written
    language_consistency: float | None = None  # mean over thoughts with words


def analyse(task: Task, problem: Problem, text: str) -> Reasoning | None:
    """None where the task cannot be read this way."""
    if hasattr(task, "analyse"):
        return task.analyse(problem, text)
    return _countdown(problem, text) if isinstance(task, Countdown) else None


def habits(described: Sequence[tuple[Reasoning, bool]]) -> Habits:
    """Counts over (reasoning, right)."""
    if not described:
        return Habits()
    checking = [right for reasoning, right in described if reasoning.self_checks]
    plain = [right for reasoning, right in described if not reasoning.self_checks]
    turned = sum(right and reasoning.first_failed for reasoning, right in described)
    turned_checking = sum(
        right and reasoning.first_failed for reasoning, right in described if reasoning.self_checks
    )
    total = sum((reasoning.tally for reasoning, _ in described), Tally())
    count, kept = (
        len(described),
        [reasoning.consistency for reasoning, _ in described if reasoning.consistency is not None],
    )
    return Habits(
        self_check_rate=len(checking) / count,
        self_checks_per_answer=sum(reasoning.self_checks for reasoning, _ in described) / count,
        attempts_per_answer=sum(reasoning.attempts for reasoning, _ in described) / count,
        accuracy_with_self_check=_share(sum(checking), len(checking)),
        accuracy_without_self_check=_share(sum(plain), len(plain)),
        turned_right_rate=turned / count,
        turned_right_share=_share(turned_checking, sum(checking)),
        checker_yes=total.yes_rate_when_equal,
        checker_no=total.wait_rate_when_unequal,
        equations_right=total.equation_accuracy,
        language_consistency=_share(sum(kept), len(kept)),
    )


def answer_value(text: str, reading: Reading = "strict") -> Hashable | None:
    """What a vote compares: the value of the final answer, as a number ("1,200", "\\frac{1}{2}") or
    an expression, or its words where it is neither. None without an answer in a format."""
    found = [
        read
        for layout in INSTRUCTIONS
        if not isinstance(read := read_layout(text, layout, reading), str)
    ]
    if not found:
        return None
    answer = found[0][1]
    if (value := number(answer)) is not None:
        return value
    try:
        return evaluate(answer)[0]
    except ExpressionError:
        return plain(answer)


def _countdown(problem: Problem, text: str) -> Reasoning:
    checks, (_, target) = self_checks(text), read_prompt(problem.prompt)
    return Reasoning(
        attempts=len(checks),
        self_checks=sum(check.word == WAIT for check in checks),
        first_failed=bool(checks) and checks[0].value != target,
        tally=tally(checks, target),
        consistency=consistency(split_thought(text).reasoning, language_of(problem.prompt)),
    )


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
