"""A user's own reward function by TRL's contract, `def f(completions, **columns) -> list[float | None]`, put over any task's problems.

It runs in a process of its own with their environment, and has `seconds` for a batch. What breaks the contract (a wrong count, NaN, text, an
exception, a hang) is counted as FAILED and named, so it never looks like a wrong answer. None, by which TRL means "does not apply", is
FAILED too: it says nothing about the answer. Not this: several functions with weights; write one that adds them.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepwright.tasks.pool import shared_pool
from deepwright.tasks.task import Problem, Score, Task, Verdict, failed


@dataclass(frozen=True)
class UserReward:
    """`task` asks, `file.py:function` pays; a reward of at least `full` counts as correct."""

    task: Task
    function: str
    seconds: float = 60.0
    full: float = 1.0

    def __post_init__(self) -> None:
        path, _, name = self.function.rpartition(":")
        if not path.endswith(".py") or not name.isidentifier():
            raise ValueError(f"reward is {self.function!r}, expected FILE.py:FUNCTION")
        try:
            defined = {
                getattr(node, "name", "")
                for node in ast.parse(Path(path).read_text(encoding="utf-8"), path).body
            }
        except SyntaxError as error:
            raise ValueError(f"{path}:{error.lineno} is not Python: {error.msg}") from None
        if name not in defined:
            raise ValueError(f"{path} defines no function {name!r}")

    @property
    def name(self) -> str:
        return f"{self.task.name} rewarded by {self.function}"

    def __getattr__(self, name: str) -> Any:
        """Problems, sizes and words are the task's own."""
        if name == "task":  # not set yet, as while it is copied
            raise AttributeError(name)
        return getattr(self.task, name)

    def score(self, problem: Problem, completion: str) -> Score:
        return self.score_many([problem], [completion])[0]

    def score_many(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Score]:
        path, _, name = self.function.rpartition(":")
        job = {
            "path": str(Path(path).resolve()),
            "name": name,
            "columns": columns(problems, completions),
        }
        (outcome,) = shared_pool("function", self.seconds, trusted=True).run([job])
        rewards, why = outcome.value, outcome.error
        if not why and isinstance(rewards, dict):
            why = f"returned a {rewards['not a list']}, expected a list of numbers"
        elif not why and len(rewards) != len(completions):
            why = f"returned {len(rewards)} rewards for {len(completions)} completions"
        if why:
            return [failed(f"{self.function}: {why}")] * len(completions)
        return [self._score(reward) for reward in rewards]

    def _score(self, reward: float | str | None) -> Score:
        if not isinstance(reward, float):
            return failed(f"{self.function} gave {reward}, expected a finite number")
        verdict = Verdict.CORRECT if reward >= self.full else Verdict.WRONG
        return Score(reward, verdict, f"{self.function} gave {reward:g}", {"accuracy": reward})


def columns(problems: Sequence[Problem], completions: Sequence[str]) -> dict[str, list[Any]]:
    """The arguments by name: completions and prompts (conversations where the problems are), answer, kind, and the columns of the rows."""
    talks = all(problem.messages for problem in problems)
    names = sorted(
        {name for problem in problems for name in problem.columns if name.isidentifier()}
    )
    values = {name: [_plain(problem.columns.get(name)) for problem in problems] for name in names}
    values |= {
        "answer": [problem.answer for problem in problems],
        "kind": [problem.kind for problem in problems],
    }
    values["prompts"] = [
        list(problem.messages) if talks else problem.prompt for problem in problems
    ]
    values["completions"] = [
        [{"role": "assistant", "content": text}] if talks else text for text in completions
    ]
    return values


def _plain(value: Any) -> Any:
    return (
        value if isinstance(value, (str, int, float, bool, list, dict, type(None))) else str(value)
    )
