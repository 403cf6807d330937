"""Problems from local files: `layouts.py` tells what their rows are; here they are split, shown and
judged.

Rows are split by a hash of their question, so a question that stands twice stays on one side, in
whatever order; with held_out_of = 1 all of them are held out, as `eval` asks a benchmark. The check
follows from the row: unit tests in the sandbox, numbers exactly, words as words, other maths by
math-verify.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

from deepwright.refusals import require
from deepwright.tasks.answers import Judgement, asks_math_verify, digest, judge_answer
from deepwright.tasks.code import judge_code
from deepwright.tasks.comparing import Query
from deepwright.tasks.pool import shared_pool
from deepwright.tasks.row_files import read_problems
from deepwright.tasks.sandbox import Limits, confined_or_refused
from deepwright.tasks.task import ChatTask, Layout, Problem, Reading, Split, framed
from deepwright.text.thoughts import END_THINK, THINK

PROGRAM = "Answer with one Python program in a ```python block."


@dataclass(frozen=True)
class DataFile(ChatTask):
    """`path`: a file, or a folder with one. One question in `held_out_of` is held out.
    `unconfined`: judge code also where nothing can confine it. `benchmark`: whose rows they must
    be, or '' for any."""

    path: str
    seed: int = 0  # nothing is drawn; tasks have one
    held_out_of: int = 10
    examples: int = 0
    layout: Layout = "boxed"
    format_reward: float = 0.1
    reading: Reading | None = None
    seconds: float = 5.0
    unconfined: bool = False
    benchmark: str = ""

    @property
    def name(self) -> str:
        return f"{self.benchmark or 'file'}:{self.path}"

    @cached_property
    def rows(self) -> dict[str, tuple[Problem, ...]]:
        """The usable rows of each split and, as "examples", those shown, which are never asked."""
        whole = self.held_out_of == 1
        split: Split = "held_out" if whole else "train"
        problems = read_problems(self.path, self.benchmark, split)
        sides: dict[str, list[Problem]] = {"train": [], "held_out": []}
        for problem in problems:
            side = "train" if digest(problem.prompt) % self.held_out_of else "held_out"
            sides[side].append(problem)
        shown = sides[split][: self.examples]
        prompts = {problem.prompt for problem in shown}
        sides[split] = [problem for problem in sides[split] if problem.prompt not in prompts]
        if not sides["held_out"] or not (whole or sides["train"]):
            raise ValueError(self._too_small(len(problems), len(shown)))
        self._check_judges(problems)
        return {"examples": tuple(shown)} | {side: tuple(found) for side, found in sides.items()}

    def _too_small(self, rows: int, shown: int) -> str:
        usable = f"{rows} usable rows{f' without the {shown} shown' if shown else ''}"
        if self.held_out_of == 1:
            return f"{self.path}: its {usable} leave none to ask"
        return (
            f"{self.path}: its {usable} are too few to train on some and hold one in"
            f" {self.held_out_of} out: give more rows or a smaller held_out_of, or let eval ask all"
        )

    def _check_judges(self, problems: Sequence[Problem]) -> None:
        """What judging needs must be there before a run starts."""
        if any("tests" in problem.columns for problem in problems):
            confined_or_refused(self.unconfined)
        answers = [problem.answer for problem in problems if "tests" not in problem.columns]
        if any(map(asks_math_verify, answers)):
            require(
                "math_verify", f"{self.path}: judging answers that are neither numbers nor words"
            )

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(rows) for split, rows in self.rows.items()}

    def problem(self, i: int, split: Split) -> Problem:
        row = self.rows[split][self.place(i, split)]
        *before, last = row.messages
        examples = [
            (one.messages[-1]["content"], self._framed(one))
            for one in self.rows["examples"]
            if not before
        ]
        program = "tests" in row.columns and self.layout == "boxed"
        asked = self.conversation(last["content"], examples, PROGRAM if program else "")
        return replace(row, index=i, messages=(*before, *asked))

    def _framed(self, example: Problem) -> str:
        if "tests" in example.columns and self.layout == "boxed":
            return f"```python\n{example.answer}\n```"
        return framed(self.layout, "Answer:", example.answer)

    def read(self, problem: Problem, completion: str) -> tuple[str, str] | str:
        """A program stands in a fenced block behind the thought, or where other answers do."""
        thought, end, rest = completion.rpartition(END_THINK)
        fenced = "```" in rest and THINK not in rest
        if not (fenced and "tests" in problem.columns and self.layout == "boxed"):
            return super().read(problem, completion)
        kept = super().read(problem, f"{thought}{end}\\boxed{{0}}")  # the rules for thoughts
        return kept if isinstance(kept, str) else (completion, rest)

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
