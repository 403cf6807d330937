"""A user's own reward function by TRL's contract, `def f(completions, **columns) -> list[float |
None]`, put over any task's problems.

It runs in a process of its own with their environment, and has `seconds` for a batch. It may be a
function or a coroutine, anything callable that the file defines or imports, and takes what TRL
gives (`reward_call.py`). Values of the rows arrive as they are where they are Python's own kinds,
dates, times, Decimal, Fraction or numpy's, and as text where not.

What breaks the contract (a wrong count, NaN, text, an exception, a hang) is counted as FAILED and
named, so it never looks like a wrong answer. None, by which TRL means "does not apply", is FAILED
too: it says nothing about the answer. Not this: several functions with weights; write one that adds
them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepwright.refusals import expect, quoted
from deepwright.tasks.code_tests import Tests
from deepwright.tasks.plain import Plain, encode
from deepwright.tasks.pool import shared_pool
from deepwright.tasks.task import (
    Problem,
    Sampled,
    Score,
    Task,
    Verdict,
    failed,
    reference_completion,
)

TRIED = 2  # reference answers: with one a wrong count of rewards would not show
# What a function may take by name, beside the columns of the rows.
GIVEN = (
    "completions",
    "prompts",
    "completion_ids",
    "answer",
    "kind",
    "trainer_state",
    "log_extra",
    "log_metric",
)


@dataclass(frozen=True)
class UserReward:
    """`task` asks, `file.py:function` pays; a reward of at least `full` counts as correct."""

    task: Task
    function: str
    seconds: float = 60.0
    full: float = 1.0

    def __post_init__(self) -> None:
        path, _, name = self.function.rpartition(":")
        form = path.endswith(".py") and name.isidentifier() and ".py:" not in path
        expect(form, "reward", self.function, "one FILE.py:FUNCTION")
        expect(Path(path).is_file(), "reward", self.function, "a file that is there")
        if not set(_defined(_parsed(path))) & {name, "*"}:
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
        return self.score_sampled(problems, completions, None)

    def score_sampled(
        self, problems: Sequence[Problem], completions: Sequence[str], sampled: Sampled | None
    ) -> list[Score]:
        """Where nothing was sampled (None) the bytes of a completion stand for its tokens."""
        answer, why = self._called(problems, completions, sampled)
        if why:
            return [failed(f"{self.function}: {why}")] * len(completions)
        return [self._score(*one) for one in zip(answer["rewards"], answer["logged"])]

    def _called(
        self, problems: Sequence[Problem], completions: Sequence[str], sampled: Sampled | None
    ) -> tuple[Any, str]:
        """What the function answered, and how the call broke the contract, "" where it did not."""
        path, _, name = self.function.rpartition(":")
        path = str(Path(path).resolve())
        job = {"path": path, "name": name, "columns": columns(problems)}
        job |= {"given": given(problems, completions), "step": 0, "steps": 1}
        if sampled is not None:
            job["given"]["completion_ids"] = list(map(list, sampled.token_ids))
            job |= {"step": sampled.step, "steps": sampled.steps}
        pool = shared_pool("function", self.seconds, trusted=True, about=path)
        (outcome,) = pool.run([job])
        answer, why = outcome.value, outcome.error
        if not why and "not a list" in answer:
            why = f"returned a {answer['not a list']}, expected a list of numbers"
        elif not why and len(answer["rewards"]) != len(completions):
            found = len(answer["rewards"])
            many = found if found < len(completions) else f"more than {found - 1}"
            why = f"returned {many} rewards for {len(completions)} completions"
        return answer, why

    def try_once(self) -> None:
        """Calls the function on the reference answers of a few training problems, before anything
        is loaded. ValueError that says the contract where the call breaks it; what it pays is its
        own affair, and None is an answer."""
        size = max(1, self.task.size("train"))
        problems = [self.task.problem(i % size, "train") for i in range(TRIED)]
        completions = [reference_completion(self.task, problem) for problem in problems]
        answer, why = self._called(problems, completions, None)
        odd = [] if why else [one for one in answer["rewards"] if isinstance(one, str)]
        why = why or (f"gave {odd[0]} as a reward" if odd else "")
        if why:
            there = ", ".join(dict.fromkeys((*GIVEN, *columns(problems))))
            raise ValueError(
                f"{self.function}: {why}, when it was called on {TRIED} reference answers. It is"
                f" called by name with those of these that its signature has: {there}; lists have"
                " one entry for each completion, and it returns a list with a finite number for"
                " each, or None where it does not apply"
            )

    def _score(self, reward: float | str | None, logged: dict[str, Any]) -> Score:
        if not isinstance(reward, float):
            return failed(f"{self.function} gave {reward}, expected a finite number")
        verdict = Verdict.CORRECT if reward >= self.full else Verdict.WRONG
        detail = f"{self.function} gave {reward:g}"
        return Score(reward, verdict, detail, {"accuracy": reward}, logged)


def _parsed(path: str) -> ast.Module:
    try:
        return ast.parse(Path(path).read_text(encoding="utf-8"), path)
    except SyntaxError as error:
        raise ValueError(f"{path}:{error.lineno} is not Python: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # bytes that are no text
        raise ValueError(f"{path} is not Python: {quoted(str(error))}") from None


def _defined(tree: ast.Module) -> Iterator[str]:
    """The names that a module binds at its own level, in branches too; "*" for all of another's."""
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
            continue
        if isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        nodes += [] if isinstance(node, ast.Lambda) else ast.iter_child_nodes(node)


def given(problems: Sequence[Problem], completions: Sequence[str]) -> dict[str, list[Any]]:
    """What every problem has, as JSON holds it: completions and prompts (conversations where the
    problems are), answer and kind."""
    talks = all(problem.messages for problem in problems)
    said = [[{"role": "assistant", "content": text}] for text in completions]
    asked = [list(map(dict, problem.messages)) if talks else problem.prompt for problem in problems]
    return {
        "answer": [problem.answer for problem in problems],
        "kind": [problem.kind for problem in problems],
        "prompts": asked,
        "completions": said if talks else list(completions),
    }


def columns(problems: Sequence[Problem]) -> dict[str, list[Plain]]:
    """The columns of the rows, each value in plain form; tests as the row had them."""
    names = sorted({name for problem in problems for name in problem.columns})
    cells = {name: [problem.columns.get(name) for problem in problems] for name in names}
    for values in cells.values():
        values[:] = [one.given if isinstance(one, Tests) else one for one in values]
    return {name: [encode(one, str) for one in values] for name, values in cells.items()}
