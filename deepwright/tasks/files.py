"""Problems from a local JSONL or Parquet file: `prompt` or `messages` with `answer`, and the layouts of GSM8K, MATH, AIME and MBPP.

Rows are split by a hash of their question, so a question that stands twice stays on one side, in whatever order. A row without an answer
(or with tests that cannot be judged) is left out, counted and named. The check follows from the row: unit tests in the sandbox, numbers exactly,
words as words, other maths by math-verify.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from deepwright.files import read_rows
from deepwright.refusals import require
from deepwright.tasks.answers import Judgement, asks_math_verify, digest, judge_answer
from deepwright.tasks.code import judge_code, read_tests
from deepwright.tasks.comparing import Query
from deepwright.tasks.completions import last_boxed
from deepwright.tasks.pool import shared_pool
from deepwright.tasks.sandbox import Limits, confined_or_refused
from deepwright.tasks.task import ChatTask, Layout, Problem, Reading, Split, framed

_QUESTIONS = ("prompt", "question", "problem", "messages", "text")
_KINDS = ("level", "difficulty", "kind", "type", "subject")


@dataclass(frozen=True)
class DataFile(ChatTask):
    """`path`: the file. One question in `held_out_of` is held out. `unconfined`: judge code also where nothing can confine it."""

    path: str
    seed: int = 0  # nothing is drawn; tasks have one
    held_out_of: int = 10
    examples: int = 0
    layout: Layout = "boxed"
    format_reward: float = 0.1
    reading: Reading = "strict"
    seconds: float = 5.0
    unconfined: bool = False

    @property
    def name(self) -> str:
        return f"file:{self.path}"

    @cached_property
    def rows(self) -> dict[str, tuple[Problem, ...]]:
        """The usable rows of each split and, as "examples", those shown; rows left out are warned of, once."""
        used: dict[str, list[Problem]] = {"examples": [], "train": [], "held_out": []}
        left_out = []
        for where, row in read_rows(Path(self.path)):
            try:
                problem = read_row(row)
            except ValueError as error:
                left_out.append(f"{where}: {error}")
                continue
            split = "train" if digest(problem.prompt) % self.held_out_of else "held_out"
            used[
                "examples" if split == "train" and len(used["examples"]) < self.examples else split
            ].append(problem)
        if left_out:
            warnings.warn(
                f"{self.path}: {len(left_out)} rows are left out. {'; '.join(left_out[:3])}",
                stacklevel=2,
            )
        shown = {problem.prompt for problem in used["examples"]}
        used["train"] = [problem for problem in used["train"] if problem.prompt not in shown]
        if not used["train"] or not used["held_out"]:
            counts = {split: len(problems) for split, problems in used.items()}
            raise ValueError(
                f"{self.path}: {counts} rows, expected some to train on and some held out"
            )
        everything = [*used["train"], *used["held_out"]]
        if any(
            "tests" in problem.columns for problem in everything
        ):  # what judging needs must be there before a run starts
            confined_or_refused(self.unconfined)
        if any("tests" not in p.columns and asks_math_verify(p.answer) for p in everything):
            require(
                "math_verify", f"{self.path}: judging answers that are neither numbers nor words"
            )
        return {split: tuple(problems) for split, problems in used.items()}

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(rows) for split, rows in self.rows.items()}

    def problem(self, i: int, split: Split) -> Problem:
        at = self.place(i, split)
        row = self.rows[split][at]
        examples = (
            []
            if row.messages
            else [
                (one.prompt, framed(self.layout, "Answer:", one.answer))
                for one in self.rows["examples"]
            ]
        )
        return replace(
            row, index=i, messages=(*row.messages[:-1], *self.conversation(row.prompt, examples))
        )

    def judge(
        self, problems: Sequence[Problem], answers: Sequence[str]
    ) -> list[tuple[bool | None, str]]:
        with ThreadPoolExecutor(
            os.cpu_count()
        ) as threads:  # for programs, each of which is waited for
            judged = list(threads.map(self._judge_here, problems, answers))
        known: list[dict[Query, bool]] = [{} for _ in judged]
        while asked := [i for i, one in enumerate(judged) if one.asked]:
            jobs = [{"pairs": judged[i].asked} for i in asked]
            for i, outcome in zip(asked, shared_pool("math", self.seconds).run(jobs), strict=True):
                if outcome.error:
                    judged[i] = Judgement(None, outcome.error)
                    continue
                known[i] |= dict(zip(judged[i].asked, outcome.value, strict=True))
                problem = problems[i]
                judged[i] = judge_answer(answers[i], problem.answer, problem.prompt, known[i])
        return [(one.right, one.detail) for one in judged]

    def _judge_here(self, problem: Problem, answer: str) -> Judgement:
        """The verdict, or what math-verify has to be asked for it."""
        if tests := problem.columns.get("tests"):
            limits = Limits(self.seconds, cpu_seconds=max(1, int(self.seconds)))
            return Judgement(*judge_code(answer, tests, limits, self.unconfined))
        return judge_answer(answer, problem.answer, problem.prompt)


def read_row(row: Mapping[str, Any]) -> Problem:
    """A row of any known layout as a problem of index 0; its other columns stay. ValueError saying what it lacks."""
    low = {str(name).lower(): value for name, value in row.items()}
    messages, question = _question(low)
    kind = next(
        (f"{name} {low[name]}" for name in _KINDS if isinstance(low.get(name), (str, int))), "all"
    )
    tests = next((low[name] for name in ("tests", "test_list") if low.get(name)), None)
    columns = dict(row) | ({"tests": read_tests(tests)} if tests else {})
    answer = str(low.get("code", "")) if tests else _answer(low)
    return Problem(0, question, answer, kind, messages, columns)


def _question(low: Mapping[str, Any]) -> tuple[tuple[Mapping[str, str], ...], str]:
    found = next((low[name] for name in _QUESTIONS if low.get(name)), None)
    if isinstance(found, str) and found.strip():
        return (), found.strip()
    if (
        isinstance(found, Sequence)
        and found
        and all(
            isinstance(turn, Mapping) and isinstance(turn.get("content"), str) for turn in found
        )
    ):
        if found[-1].get("role") == "user":
            return tuple(
                {"role": str(turn.get("role")), "content": turn["content"]} for turn in found
            ), found[-1]["content"].strip()
        raise ValueError(
            f"its messages end with the role {found[-1].get('role')!r}, expected 'user'"
        )
    raise ValueError(f"no question, expected one of {', '.join(_QUESTIONS)}")


def _answer(low: Mapping[str, Any]) -> str:
    """`answer` (after #### in GSM8K), else the last box of `solution` or, where it has none, all of it."""
    answer = low.get("answer")
    if answer is None and isinstance(low.get("solution"), str):
        answer = last_boxed(low["solution"]) or (
            low["solution"] if len(low["solution"]) < 200 else None
        )
    if answer is None or isinstance(answer, (Mapping, list)) or not str(answer).strip():
        raise ValueError("no answer")
    answer = (
        str(answer).rpartition("####")[2]
        if re.search(r"####\s*\S+\s*$", str(answer))
        else str(answer)
    )
    return answer.strip()
